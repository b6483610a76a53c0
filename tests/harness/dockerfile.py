"""A Dockerfile replayed without a container engine: its stages' COPY and RUN steps, in a folder that stands for `/`.

Only what the real build context would hold is there to be copied, so a COPY that forgets a file fails here as well.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

CONTINUED = re.compile(r"\\\n")


@dataclass
class Stage:
    """One FROM and what follows it."""

    base: str
    name: str
    steps: list[tuple[str, str]]
    environment: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    folder: str = "/"

    def last(self, keyword: str) -> str:
        """The argument of the last step of a kind.

        Raises:
            StopIteration: if there is none.

        """
        return next(rest for word, rest in reversed(self.steps) if word == keyword)

    def argv(self, keyword: str) -> list[str]:
        """ENTRYPOINT or CMD in its exec form."""
        return json.loads(self.last(keyword))

    def health(self) -> list[str]:
        """The command of HEALTHCHECK in its exec form."""
        return json.loads(self.last("HEALTHCHECK").partition("CMD ")[2])


def stages(text: str) -> list[Stage]:
    """The stages of a Dockerfile; ARGs before the first FROM count for its FROM lines only."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    found: list[Stage] = []
    outside: dict[str, str] = {}
    for line in CONTINUED.sub(" ", "\n".join(lines)).splitlines():
        if not line.strip():
            continue
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            base, _, name = expand(rest, outside).partition(" AS ")
            found.append(Stage(base, name, []))
        elif not found:
            assert word == "ARG", line
            outside |= _pairs(rest)
        else:
            found[-1].steps.append((word, rest.strip()))
    return found


def expand(text: str, variables: dict[str, str]) -> str:
    """Replace `${NAME}`."""
    return re.sub(r"\$\{(\w+)\}", lambda found: variables[found[1]], text)


def _pairs(text: str) -> dict[str, str]:
    return {key: value for key, _, value in (word.partition("=") for word in shlex.split(text))}


def context(root: Path, target: Path) -> list[str]:
    """Copy what .dockerignore lets through, of the files git knows; returns their paths."""
    rules = [line for line in (root / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    taken = [name for name in listed.split("\0") if name and (root / name).is_file() and not _ignored(name, rules)]
    for name in taken:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, target / name)
    return taken


def _ignored(name: str, rules: list[str]) -> bool:
    """The last rule that names a path or a folder above it decides."""
    ignored = False
    parts = name.split("/")
    above = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    for rule in rules:
        pattern = rule.removeprefix("!").removeprefix("**/")
        candidates = parts if "**/" in rule else above
        if any(fnmatch.fnmatchcase(each, pattern) and each.count("/") == pattern.count("/") for each in candidates):
            ignored = not rule.startswith("!")
    return ignored


class Replay:
    """The folder that stands for `/`, and the paths that were made in it."""

    def __init__(self, root: Path, source: Path) -> None:
        """Take an empty folder, and the one with the build context."""
        self.root = root
        self.source = source

    def path(self, absolute: str) -> Path:
        """A path of the image, here."""
        return self.root / absolute.strip("/")

    def here(self, text: str) -> str:
        """A text with the image's own folders in place of its absolute paths."""
        return re.sub(r"(?<![\w./:-])/(opt|src|var/lib)\b", lambda found: str(self.path(found[0])), text)

    def run(self, stage: Stage, arguments: dict[str, str] | None = None) -> None:
        """Replay one stage. Raises AssertionError, with its output, where a step fails."""
        for word, rest in stage.steps:
            if word == "ARG":
                stage.arguments |= _pairs(rest) | {
                    key: value for key, value in (arguments or {}).items() if key in _pairs(rest)
                }
            elif word in {"ENV", "LABEL"}:
                known = os.environ | stage.environment | stage.arguments
                kept = stage.environment if word == "ENV" else stage.labels
                kept |= _pairs(expand(rest, known))
            elif word == "WORKDIR":
                stage.folder = rest
                self.path(rest).mkdir(parents=True, exist_ok=True)
            elif word == "COPY":
                self._copy(stage, rest)
            elif word == "RUN":
                self._run(stage, rest)
            else:
                assert word in {"VOLUME", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"}, word

    def _copy(self, stage: Stage, rest: str) -> None:
        flags = re.findall(r"--(\w+)=(\S+)", rest)
        *sources, target = re.sub(r"--\w+=\S+", "", rest).split()
        if "from" in dict(flags):
            # All stages share one folder here; a virtual environment would not survive another place anyway.
            assert sources == [target], rest
            assert self.path(target).exists(), rest
            return
        into = self.path(f"{stage.folder}/{target}")
        for source in sources:
            found = self.source / source
            assert found.exists(), f"COPY {rest}: {source} is not in the build context"
            if found.is_dir():
                shutil.copytree(found, into, dirs_exist_ok=True)
            else:
                folder = into if target.endswith("/") else into.parent
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(found, folder)

    def _run(self, stage: Stage, command: str) -> None:
        # In the image Debian makes /opt and /var/lib.
        for folder in ("/opt", "/var/lib"):
            self.path(folder).mkdir(parents=True, exist_ok=True)
        tools = self.root / "tools"
        tools.mkdir(exist_ok=True)
        python = tools / "python"
        if not python.exists():
            python.symlink_to(getattr(sys, "_base_executable", sys.executable))
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
        # Packages that are in the cache need not be fetched again.
        environment |= {key: value for key, value in stage.environment.items() if key != "PIP_NO_CACHE_DIR"}
        environment["PATH"] = f"{tools}{os.pathsep}{environment['PATH']}"
        done = subprocess.run(
            ["/bin/sh", "-c", self.here(command)],
            cwd=self.path(stage.folder),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"RUN {command}\n{done.stdout[-6000:]}"
