"""How the Go tools are built and found, with a `go` that compiles nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import gotools

GO = """#!/bin/sh
echo "$*" >> "$LOG"
case $1 in
env) echo go1.99.0 ;;
build)
  [ -z "$BROKEN" ] || exit 1
  sleep 0.3
  while [ "$1" != -o ]; do shift; done
  mkdir -p "$2"
  for package in "$@"; do echo built > "$2/$(basename "$package")"; done
  ;;
esac
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Variables under which `gotools` sees this `go`, and a cache of its own."""
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text(GO)
    go.chmod(0o755)
    path = os.pathsep.join((str(go.parent), os.environ["PATH"]))
    return os.environ | {"PATH": path, "XDG_CACHE_HOME": str(tmp_path / "cache"), "LOG": str(tmp_path / "log")}


def start(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    command = (sys.executable, gotools.__file__, *arguments)
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, output and errors."""
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


def builds(environment: dict[str, str]) -> list[str]:
    return [line for line in Path(environment["LOG"]).read_text().splitlines() if line.startswith("build ")]


def test_builds_once_however_many_want_it(environment: dict[str, str]) -> None:
    several = [start(environment, "build", "kubeconform", "pint") for _ in range(4)]
    for process in several:
        code, output, errors = ended(process)
        assert code == 0, errors
    assert len(builds(environment)) == 2
    folder = Path(output.splitlines()[-1])
    assert sorted(each.name for each in folder.iterdir()) == ["kubeconform", "pint"]
    assert (folder / "pint").read_text() == "built\n"
    assert not list(folder.parents[1].rglob("building-*"))


def test_takes_what_the_locks_say(environment: dict[str, str]) -> None:
    code, _, errors = ended(start(environment, "build", "helm"))
    assert code == 0, errors
    (line,) = builds(environment)
    assert "-mod=readonly" in line
    assert "-ldflags=-s -w -X=helm.sh/helm/v3/internal/version.version=v3." in line
    assert line.endswith(" helm.sh/helm/v3/cmd/helm")


def test_a_failed_build_leaves_nothing_and_holds_up_nobody(environment: dict[str, str]) -> None:
    code, _, errors = ended(start(environment | {"BROKEN": "yes"}, "build", "kubeconform", "pint"))
    assert code == 1
    assert "error: kubeconform: go build failed 2 times" in errors
    assert "error: pint: go build failed 2 times" in errors
    code, _, errors = ended(start(environment, "build", "kubeconform"))
    assert code == 0, errors


def test_without_go_it_names_the_cure(environment: dict[str, str], tmp_path: Path) -> None:
    code, _, errors = ended(start(environment | {"PATH": str(tmp_path)}, "build"))
    assert code == 1
    assert errors.startswith("error: there is no `go` on PATH")
    assert "install Go" in errors


def test_every_lock_names_its_module_and_commands() -> None:
    found = {tool.name: tool for tool in gotools.tools()}
    assert found["prometheus"].binaries == ["prometheus", "promtool"]
    assert found["alertmanager"].binaries == ["alertmanager", "amtool"]
    for tool in found.values():
        path, version = tool.module
        assert all(package.startswith(path) for package in tool.packages)
        assert version.startswith("v")
        assert f"{path} {version} h1:" in (tool.folder / "go.sum").read_text()
    assert set(gotools.VERSION_VARIABLES) <= set(found)
