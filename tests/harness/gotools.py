"""The tools written in Go that tests run: built from the locks in `.ci/tools/*/go.mod`, kept outside the checkout.

Nobody has to download a program from anywhere: Go builds them from the module proxy, and `go.sum` says what it may
take. The first build needs Go, network and about ten minutes; later ones find everything in
`$XDG_CACHE_HOME/agentos-exporter/tools` (`~/.cache/...`).

    python tests/harness/gotools.py build [NAME...]    build what is missing, print versions and times
    python tests/harness/gotools.py where              print the folder that holds all binaries

Needs nothing but Python's standard library: CI runs it before it has an environment.
"""

from __future__ import annotations

import argparse
import fcntl
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

LOCKS = Path(__file__).resolve().parents[2] / ".ci" / "tools"
RECIPE = 1
"""To be raised when `_compile` makes something else of the same lock."""
PATIENCE = 1800.0
"""Seconds that one tool may take to build."""
ATTEMPTS = 2
"""A module proxy may fail once; what was compiled by then is in Go's own cache."""
_COMMON = "github.com/prometheus/common/version.Version"
VERSION_VARIABLES = {
    "prometheus": _COMMON,
    "alertmanager": _COMMON,
    "helm": "helm.sh/helm/v3/internal/version.version",
    "kubeconform": "main.version",
    "pint": "main.version",
}
"""What a release of a tool has the linker set, by folder; a version nobody sets prints as unknown."""
NO_UI = "<!doctype html><title>Alertmanager</title><p>Built without its web UI: see /api/v2/alerts."


class ToolsError(Exception):
    """The tools cannot be built; the text says what to do."""


@dataclass(frozen=True)
class Tool:
    """One folder of `.ci/tools`: a module, and the commands of it that are built."""

    folder: Path

    @property
    def name(self) -> str:
        """Return its name, as in `.ci/tools`."""
        return self.folder.name

    @property
    def lock(self) -> str:
        """Return its go.mod."""
        return (self.folder / "go.mod").read_text()

    @property
    def packages(self) -> list[str]:
        """Return the import paths of its commands, from the `tool` directives."""
        block = re.search(r"^tool \((.*?)^\)", self.lock, re.MULTILINE | re.DOTALL)
        return block[1].split() if block else re.findall(r"^tool (\S+)", self.lock, re.MULTILINE)

    @property
    def binaries(self) -> list[str]:
        """Return the names of its commands."""
        return [package.rsplit("/", 1)[1] for package in self.packages]

    @property
    def module(self) -> tuple[str, str]:
        """Return path and version of the module that holds the commands."""
        required = re.findall(r"^(?:require )?\s*([^\s()]+\.[^\s()]+) (v\S+)", self.lock, re.MULTILINE)
        return next((path, version) for path, version in required if f"{self.packages[0]}/".startswith(f"{path}/"))

    @property
    def key(self) -> str:
        """Return what the binaries depend on, as a short hash."""
        parts = (self.lock, (self.folder / "go.sum").read_text(), str(RECIPE), go_version())
        return _hash(*parts, platform.system(), platform.machine())

    @property
    def home(self) -> Path:
        """Return the folder of its binaries; it is there as soon as they all are."""
        return cache() / self.name / self.key


def tools() -> list[Tool]:
    """Return all tools, by name."""
    return [Tool(lock.parent) for lock in sorted(LOCKS.glob("*/go.mod"))]


def cache() -> Path:
    """Return the folder that outlives the checkout."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agentos-exporter" / "tools"


def folder() -> Path:
    """Return the folder with a link to each binary that has been built.

    Raises:
        ToolsError: if there is no Go.

    """
    return cache() / "bin" / _hash(*(tool.key for tool in tools()))


@functools.cache
def go_version() -> str:
    """Return the version of the Go on PATH.

    Raises:
        ToolsError: if there is none.

    """
    if shutil.which("go") is None:
        raise ToolsError(
            "there is no `go` on PATH, and the tools are built with it: install Go 1.26.8 or newer (go.dev/doc/install)"
            " and put its bin folder on PATH, or set AGENTOS_TOOLS to a folder that has the tools"
        )
    # Not the version that a go.mod would have Go download: this must be quick and need no network.
    command, here = ("go", "env", "GOVERSION"), _environment() | {"GOTOOLCHAIN": "local"}
    return subprocess.run(command, env=here, cwd="/", stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def build(tool: Tool) -> bool:
    """Build a tool if it is not there, and link it into `folder`; return whether it was built.

    Raises:
        ToolsError: if there is no Go, or if it fails; Go's own words went to stderr.

    """
    missing = not tool.home.exists()
    if missing:
        tool.home.parent.mkdir(parents=True, exist_ok=True)
        with (tool.home.parent / f"{tool.key}.lock").open("w") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)  # another process may be building the same one
            if missing := not tool.home.exists():
                with tempfile.TemporaryDirectory(dir=tool.home.parent, prefix="building-") as scratch:
                    _compile(tool, Path(scratch)).rename(tool.home)
    folder().mkdir(parents=True, exist_ok=True)
    for name in tool.binaries:
        link = folder() / name
        fresh = link.with_name(f".{name}-{os.getpid()}")
        fresh.symlink_to(tool.home / name)
        fresh.replace(link)
    return missing


def _compile(tool: Tool, scratch: Path) -> Path:
    """Build in a copy of the lock: nothing is to be written to the checkout. Return the folder of the binaries."""
    for file in ("go.mod", "go.sum"):
        shutil.copy(tool.folder / file, scratch)
    path, version = tool.module
    released = version
    if tool.name in {"prometheus", "alertmanager"}:
        source = Path(json.loads(_go("mod", "download", "-json", f"{path}@{version}", scratch=scratch))["Dir"])
        released = (source / "VERSION").read_text().strip()
        if tool.name == "alertmanager":
            _without_ui(source, path, scratch)
    output = scratch / "bin"
    flags = [f"-X={VERSION_VARIABLES[tool.name]}={released}"] if tool.name in VERSION_VARIABLES else []
    linker = " ".join(("-s", "-w", *flags))
    command = ("build", "-mod=readonly", "-buildvcs=false", "-trimpath", f"-ldflags={linker}", "-o", f"{output}/")
    _go(*command, *tool.packages, scratch=scratch)
    if absent := [name for name in tool.binaries if not (output / name).is_file()]:
        raise ToolsError(f"go build did not make {', '.join(absent)}")
    return output


def _without_ui(source: Path, path: str, scratch: Path) -> None:
    """Alertmanager embeds a web UI that its module leaves out, as it has to be compiled from Elm: embed one page."""
    copy = scratch / "source"
    shutil.copytree(source, copy, copy_function=shutil.copyfile)
    for each in (copy, *copy.rglob("*")):
        each.chmod(0o755 if each.is_dir() else 0o644)  # the module cache is read-only
    page = copy / "ui" / "app" / "dist" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text(NO_UI)
    _go("mod", "edit", f"-replace={path}={copy}", scratch=scratch)


def _go(*arguments: str, scratch: Path) -> str:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            done = subprocess.run(
                ("go", *arguments),
                cwd=scratch,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                text=True,
                timeout=PATIENCE,
                check=True,
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            print(f"attempt {attempt}: {error}", file=sys.stderr)
        else:
            return done.stdout
    raise ToolsError(f"go {arguments[0]} failed {ATTEMPTS} times; see above")


def _environment() -> dict[str, str]:
    """Proxies and checksum databases are what the outside says; no C compiler is needed, no workspace meant."""
    return {"HOME": str(Path.home())} | os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"}


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def main() -> int:
    """Build the tools, or say where they are; return the exit code."""
    parser = argparse.ArgumentParser(description="The tools written in Go that tests run")
    parser.add_argument("what", choices=("build", "where"))
    parser.add_argument("names", nargs="*", metavar="NAME", help="of .ci/tools; default: all")
    options = parser.parse_args()
    known = {tool.name: tool for tool in tools()}
    if unknown := set(options.names) - known.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    try:
        failed = _build_all([known[name] for name in options.names or known]) if options.what == "build" else []
        print(folder())
    except (ToolsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 1 if failed else 0


def _build_all(chosen: list[Tool]) -> list[Tool]:
    """Build tools one after the other; return those that failed: the others are of use without them."""
    began, failed = time.monotonic(), []
    version = go_version()
    for tool in chosen:
        start = time.monotonic()
        try:
            how = "built in" if build(tool) else "there,"
        except ToolsError as error:
            print(f"error: {tool.name}: {error}", file=sys.stderr)
            failed.append(tool)
        else:
            what = f"{tool.name:<16} {tool.module[1]}: {', '.join(tool.binaries)}"
            print(f"{what:<60} {how} {time.monotonic() - start:.0f} s", flush=True)
    print(f"{version}, {time.monotonic() - began:.0f} s in all", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
