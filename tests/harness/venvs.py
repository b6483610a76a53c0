"""Virtual environments with the agno releases that the exporter is tested against, and with its rivals in benchmarks.

Each is built once from a lock file of hashes in `requirements/` and kept outside the checkout, in
`$AGENTOS_EXPORTER_CACHE` (`~/.cache/agentos-exporter/venvs`)::

    python = venvs.python("agno26")

    python tests/harness/venvs.py build [NAME…]    build ahead of time
    python tests/harness/venvs.py lock [NAME…]     resolve the lock files anew
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements"


@dataclass(frozen=True)
class Setup:
    """One column of the compatibility matrix."""

    name: str
    http_roots: bool  # FastAPI's request span is the root of each trace
    search: bool  # POST /traces/search exists
    resolved_on: str | None = None  # dependencies of that day; None: today's

    @property
    def lock(self) -> Path:
        """Return the path of the lock file."""
        return REQUIREMENTS / f"compat-{self.name}.txt"


SETUPS = {
    setup.name: setup
    for setup in (
        Setup("newest", http_roots=True, search=True),
        Setup("newest-plain", http_roots=False, search=True),
        Setup("agno26", http_roots=False, search=True, resolved_on="2026-07-04"),
        Setup("agno23", http_roots=False, search=False, resolved_on="2026-01-14"),
    )
}
LOCKS = {setup.name: setup.lock for setup in SETUPS.values()} | {
    "query-exporter": REQUIREMENTS / "bench-query-exporter.txt",
}
"""All environments, with their lock files."""


def python(name: str, *, uv: str | None = None) -> Path:
    """Return the interpreter of a set-up's environment, which is built if it is not there.

    Args:
        name: a key of `LOCKS`.
        uv: path of the uv to build with; by default the one on PATH, or else venv and pip.

    Raises:
        KeyError: for an unknown name.
        subprocess.CalledProcessError: if packages cannot be installed; their output went to stderr.

    """
    lock = LOCKS[name]
    key = hashlib.sha256(lock.read_bytes() + sys.version.encode() + b" compiled").hexdigest()[:12]
    cache = Path(os.environ.get("AGENTOS_EXPORTER_CACHE") or Path.home() / ".cache" / "agentos-exporter" / "venvs")
    home = cache / f"{name}-{key}"
    interpreter, done = home / "bin" / "python", home / ".complete"
    if done.exists():
        return interpreter
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{home.name}.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # another test process may be building the same one
        if not done.exists():
            shutil.rmtree(home, ignore_errors=True)
            _build(home, lock, uv or find_uv())
            done.touch()
    return interpreter


def find_uv() -> str | None:
    """Return the path of uv: `$UV`, on PATH or beside this interpreter; None if there is none."""
    beside = Path(sys.executable).with_name("uv")
    return os.environ.get("UV") or shutil.which("uv") or (str(beside) if beside.exists() else None)


def _build(home: Path, lock: Path, uv: str | None) -> None:
    interpreter = str(home / "bin" / "python")
    if uv:
        _run(uv, "venv", "--quiet", "--python", sys.executable, str(home))
        install = (uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", interpreter)
        _run(*install, "--require-hashes", "--no-deps", "-r", str(lock))
    else:
        _run(sys.executable, "-m", "venv", str(home))
        _run(interpreter, "-m", "pip", "install", "--quiet", "--require-hashes", "--no-deps", "-r", str(lock))


def resolve(name: str, *, uv: str) -> None:
    """Resolve an environment's input file into its lock file. The file names no index and no path of this machine."""
    command = [uv, "pip", "compile", "--quiet", "--generate-hashes", "--no-emit-index-url", "--no-emit-find-links"]
    command += ["--no-annotate", "--python-version", "3.11", "--universal", "--upgrade", "--no-config"]
    if name in SETUPS and (day := SETUPS[name].resolved_on):
        command += ["--exclude-newer", day]
    lock = LOCKS[name]
    source = lock.with_suffix(".in").name
    header = {"UV_CUSTOM_COMPILE_COMMAND": "python tests/harness/venvs.py lock"}
    _run(*command, source, "--output-file", lock.name, cwd=REQUIREMENTS, environment=header)


def _run(*command: str, cwd: Path | None = None, environment: dict[str, str] | None = None) -> None:
    subprocess.run(command, cwd=cwd, env=os.environ | (environment or {}), stdout=sys.stderr, check=True)


def main() -> None:
    """Build environments or resolve lock files."""
    parser = argparse.ArgumentParser(description="Environments of the compatibility tests and benchmarks")
    parser.add_argument("what", choices=("build", "lock"))
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(LOCKS)}; default: all")
    options = parser.parse_args()
    if unknown := set(options.names) - LOCKS.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    uv = find_uv()
    for name in options.names or LOCKS:
        if options.what == "build":
            print(name, python(name))
        elif uv is None:
            parser.error("uv is needed to resolve lock files")
        else:
            resolve(name, uv=uv)


if __name__ == "__main__":
    main()
