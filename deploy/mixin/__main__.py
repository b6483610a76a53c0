"""`python -m deploy.mixin`: writes rules, boards and their copies for Kubernetes, or checks that all is up to date."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.mixin import chart, dashboards, manifests, write
from deploy.mixin.settings import Settings, SettingsError, load


def files(settings: Settings) -> dict[str, str]:
    """All generated files: by path in the repository, their text."""
    made = write.files(settings)
    rules = {name: text for name, text in made.items() if name.startswith("deploy/prometheus/")}
    boards = dashboards.files(settings)
    return made | boards | chart.files(rules, boards) | manifests.files(rules)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 1 a file differs or the settings have mistakes."""
    parser = argparse.ArgumentParser(prog="python -m deploy.mixin", description=__doc__, allow_abbrev=False)
    parser.add_argument("--settings", type=Path, metavar="FILE", help="YAML with the settings that are to differ")
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="where the files go (default: here)")
    parser.add_argument("--check", action="store_true", help="write nothing; name the files that differ, and fail")
    flags = parser.parse_args(arguments)
    try:
        settings = Settings() if flags.settings is None else load(flags.settings)
    except (OSError, SettingsError) as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"error: {line}\n")
        return 1
    made = files(settings)
    if flags.check:
        return _check(made, flags.out)
    for name, text in made.items():
        path = flags.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


def _check(made: dict[str, str], out: Path) -> int:
    differ = [name for name, text in made.items() if not _same(out / name, text)]
    for name in differ:
        sys.stderr.write(f"error: {out / name} is not what deploy/mixin makes: run `python -m deploy.mixin`\n")
    return 1 if differ else 0


def _same(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())
