"""What holds for the tests of this folder: none of them starts a process or opens a socket to anywhere."""

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import structlog


@pytest.fixture(autouse=True)
def unfiltered() -> None:
    """Let a test capture what is logged, whatever the test before it configured."""
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """Fail a test that starts a process or uses the network; the pair of sockets of an event loop is neither."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "__init__", _refused("starts a process"))
        for name in ("fork", "posix_spawn"):
            patch.setattr(os, name, _refused(f"starts a process by os.{name}"))
        for name in ("bind", "connect", "connect_ex"):
            patch.setattr(socket.socket, name, _local_only(name))
        yield


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with agno's tables, to be copied."""
    from tests.harness import stored

    path = tmp_path_factory.mktemp("agno") / "empty.db"
    stored.create(path)
    return path


def _refused(what: str) -> Callable[..., NoReturn]:
    def refuse(*_: object, **__: object) -> NoReturn:
        pytest.fail(f"a test of tests/unit {what}: its place is another folder")

    return refuse


def _local_only(name: str) -> Callable[..., Any]:
    real = getattr(socket.socket, name)

    def call(self: socket.socket, *arguments: Any) -> Any:
        if self.family in {socket.AF_INET, socket.AF_INET6}:
            _refused(f"would {name} a socket to {arguments}")()
        return real(self, *arguments)

    return call
