"""Finds the programs that tests run: what `make tools` has built, and beside it what Debian's packages have installed.

`tool("promtool")` is the one that is built, of the version that its lock names; `tools("prometheus")` parametrises a
test with Debian's and the built one::

    @pytest.mark.parametrize("binary", tools("prometheus"))
    def test_it_starts(binary: str) -> None: ...

Whatever else is on PATH is taken by no test. What is not there is skipped with the reason, and a skip fails in CI.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.harness import gotools
from tests.harness.mariadb import MariaDBMissingError
from tests.harness.postgres import PostgresMissingError

T = TypeVar("T")

DEBIAN = {"alertmanager": "prometheus-alertmanager"}
"""Names that Debian's packages give."""
PACKAGES = "/usr/bin"
"""Where Debian's packages put programs; what somebody installed by hand is elsewhere."""


def or_skip(server: Callable[[], T]) -> T:
    """Return a server of this kind, to be entered, or skip the test if this machine has none."""
    try:
        return server()
    except (MariaDBMissingError, PostgresMissingError) as missing:
        pytest.skip(str(missing))


def tool(name: str) -> str:
    """Return the path of the program built from `.ci/tools`, or skip the test."""
    return _built(name) or pytest.skip(_absent(name))


def debian(name: str) -> str:
    """Return the path of Debian's program, or skip the test."""
    return _debians(name) or pytest.skip(_absent(name))


def tools(name: str) -> list[Any]:
    """Return pytest parameters, `debian` and `current`: Debian's program and the one built from `.ci/tools`."""
    return [_parameter(name, _debians(name), "debian"), _parameter(name, _built(name), "current")]


def pairs(*names: str) -> list[Any]:
    """Return pytest parameters, `debian` and `current`, each a tuple of programs of one age."""
    columns = zip(*(tools(name) for name in names), strict=True)
    return [_together(column) for column in columns]


def _together(column: tuple[Any, ...]) -> Any:
    marks = tuple(mark for parameter in column for mark in parameter.marks)
    return pytest.param(tuple(parameter.values[0] for parameter in column), id=column[0].id, marks=marks)


def _parameter(name: str, path: str | None, identifier: str) -> Any:
    if path is None:
        return pytest.param("", id=identifier, marks=pytest.mark.skip(f"{identifier}: {_absent(name)}"))
    return pytest.param(path, id=identifier)


def _built(name: str) -> str | None:
    place = folder()
    return shutil.which(name, path=str(place)) if place else None


def _debians(name: str) -> str | None:
    return shutil.which(DEBIAN.get(name, name), path=PACKAGES) or shutil.which(name, path=PACKAGES)


def _absent(name: str) -> str:
    return f"{name} is not there: `make tools` builds it; Debian's package of it is taken as well where a test says so"


@functools.cache
def folder() -> Path | None:
    """Return the folder of the current programs, None if nobody can say."""
    if named := os.environ.get("AGENTOS_TOOLS"):
        return Path(named)
    try:
        return gotools.folder()
    except gotools.ToolsError:
        return None
