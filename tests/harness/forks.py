"""Python programs in processes of their own that need not import everything anew: they are forked from one that has.

To import agno and the exporter takes seconds, and the tests start them hundreds of times. Within `serving()`, which the
tests enter, `start` forks; outside of it, as in benchmarks, and for a foreign interpreter it is Popen.

A fork differs from what was started in this: more is imported, and all of them hash strings alike. Who tests a program
over several lives starts some of them anew (`fork=False`).
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import connection
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import IO, Any, Protocol

_ROOT = Path(__file__).parents[2]
PRELOAD = (
    "agno.db.mysql",
    "agno.db.postgres",
    "agno.db.sqlite",
    "agno.os.app",
    "agno.scheduler",
    "agno.team",
    "agno.tracing",
    "agno.workflow.workflow",
    "exporter.service.daemon",
    "exporter.pricing.prices",
    "exporter.sources.api.source",
    "openinference.instrumentation.agno._runs_wrapper",
    "pydantic.v1",
    "uvicorn",
)
"""What `server.py` and the daemon import, or at least what takes long of it."""
_context = multiprocessing.get_context("forkserver")
_lock = threading.Lock()
"""Held by who reads exit codes: multiprocessing reads each from a pipe, for one reader, and all of them at a start."""
_forking = False


class Running(Protocol):
    """What the harness wants of a process: a part of `subprocess.Popen`."""

    pid: int

    @property
    def returncode(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; raises `subprocess.TimeoutExpired` after so many seconds."""

    def send_signal(self, sig: int) -> None:
        """Send a signal, if it still runs."""

    def kill(self) -> None:
        """Send SIGKILL, if it still runs."""


@contextmanager
def serving() -> Iterator[None]:
    """Let `start` fork. The process to fork from is started by the first that needs it.

    What still runs in the end is killed: multiprocessing would wait for it.
    """
    global _forking  # noqa: PLW0603 - there is one such process, as multiprocessing has it
    before, _forking = _forking, hasattr(os, "fork")
    _context.set_forkserver_preload([__name__ + "_preload"])
    try:
        yield
    finally:
        _forking = before
        if not before:
            for process in multiprocessing.active_children():
                process.kill()


def start(
    program: str,
    *arguments: str,
    output: IO[bytes],
    environment: Mapping[str, str],
    python: str = sys.executable,
    fork: bool = True,
) -> Running:
    """Start a program, a path or the name of a package, in the folder of the checkout.

    Args:
        program: ends with `.py` if it is a path.
        arguments: of its command line.
        output: file for what it prints, errors too.
        environment: of the process.
        python: interpreter.
        fork: whether it may be forked.

    """
    if _forking and fork and python == sys.executable:
        return _Fork(program, arguments, output, environment)
    named = (program,) if program.endswith(".py") else ("-m", program)
    return subprocess.Popen(
        (python, *named, *arguments),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd=_ROOT,
        env=environment,
    )


class _Fork:
    """A forked process, seen as a `Running`."""

    def __init__(
        self, program: str, arguments: Sequence[str], output: IO[bytes], environment: Mapping[str, str]
    ) -> None:
        what = (program, arguments, _Inherited(output.fileno()), dict(environment))
        self._process = _context.Process(target=_become, args=what, daemon=True)
        with _lock:
            self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        with _lock:
            return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if not connection.wait([self._process.sentinel], timeout):
            assert timeout is not None
            raise subprocess.TimeoutExpired(str(self._process), timeout)
        code = self.returncode
        assert code is not None
        return code

    def send_signal(self, sig: int) -> None:
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, sig)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Inherited:
    """A file descriptor that arrives in the forked process as an open one of its own."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (DupFd(self._descriptor),)


def _arrived(sent: Any) -> int:
    descriptor: int = sent.detach()
    return descriptor


def _become(program: str, arguments: Sequence[str], output: int, environment: Mapping[str, str]) -> None:
    """Run a program as if this process had been started for it."""
    for standard in (1, 2):
        os.dup2(output, standard)
    os.close(output)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(_ROOT)
    sys.argv = [program, *arguments]
    try:
        if program.endswith(".py"):
            runpy.run_path(program, run_name="__main__")
        else:
            runpy.run_module(program, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves them out


def preload() -> None:
    """Import what takes long.

    Raises:
        RuntimeError: if something is not there: an ImportError would pass unnoticed, and all starts take longer.

    """
    for name in PRELOAD:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise RuntimeError(f"{name} cannot be imported beforehand") from error
