"""A program that serves HTTP, as a context manager: started, waited for, ended; what it printed is kept."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx


class ProcessFailedError(Exception):
    """The program did not come up; the end of its output is in the message."""


class ServingProcess:
    """A process that answers 200 at a URL once it is ready.

    Attributes:
        url: of its web server.

    """

    def __init__(self, command: tuple[str, ...], url: str, *, ready: str) -> None:
        """Describe the process; entering the context starts it.

        Args:
            command: the program and its arguments.
            url: of its web server.
            ready: path below `url` that answers 200 once it is ready.

        """
        self.url = url
        self._command = command
        self._ready = f"{url}{ready}"
        self._process: subprocess.Popen[bytes] | None = None
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this object

    def __enter__(self) -> Self:
        """Start it and wait until it is ready.

        Raises:
            ProcessFailedError: if it ends, or is not ready within a minute.

        """
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.STDOUT
        )
        end = time.monotonic() + 60
        while not answers(self._ready):
            if self._process.poll() is not None or time.monotonic() > end:
                self._end()
                raise ProcessFailedError(f"{self._command[0]} is not ready:\n{self.output[-4000:]}")
            time.sleep(0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it; on an error, print the end of its output."""
        self._end()
        if kind is not None:
            print(f"{self._command[0]} printed at last:\n{self.output[-2000:]}")
        self._output.close()

    @property
    def output(self) -> str:
        """Return what it has printed."""
        return os.pread(self._output.fileno(), 1 << 30, 0).decode(errors="replace")

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(url: str) -> bool:
    """Tell whether a GET of the URL gives 200."""
    try:
        return httpx.get(url, trust_env=False, verify=False).status_code == 200
    except httpx.TransportError:
        return False


def eventually(condition: Callable[[], object], what: str, *, seconds: float = 60, pause: float = 0.2) -> None:
    """Poll a condition until it holds.

    Raises:
        AssertionError: if it does not in time, saying what was waited for.

    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(pause)


def resident(pid: int) -> float:
    """Return the resident memory of a process in MiB; on Linux."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
