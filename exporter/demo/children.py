"""Child processes that end with this one, however it ends."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

LEASH: Final = Path(__file__).with_name("leash.py")
_STOP: Final = 4.0
_TAIL: Final = 12


class ChildFailedError(Exception):
    """A child process could not be started or ended by itself; the text is for the reader."""


class Child:
    """One command on a leash. Its standard output is read by `line`; its errors go to a log file."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self._process = process
        self._log = log

    @classmethod
    async def start(
        cls,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        scratch: Path | None,
        environment: Mapping[str, str] | None = None,
    ) -> Child:
        """Start a command as a child process.

        Args:
            name: What messages call it.
            command: The program and its arguments.
            log: The file that takes its output.
            scratch: A folder that is removed with the last child; None keeps it.
            environment: Its environment variables; None for those of this process.

        """
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                # Isolated, and without site-packages: the leash is up in a few milliseconds.
                *(sys.executable, "-I", "-S", str(LEASH), "" if scratch is None else str(scratch), *command),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env=None if environment is None else dict(environment),
                # Ctrl-C in a terminal reaches every process of its group: they are to end in order.
                start_new_session=True,
            )
        return cls(name, process, log)

    async def line(self) -> str:
        """The next line of its output, '' at the end."""
        assert self._process.stdout is not None  # noqa: S101 - asked for in start
        return (await self._process.stdout.readline()).decode(errors="replace").rstrip()

    async def ended(self) -> None:
        """Wait until it ends by itself, which it should not."""
        await self._process.wait()

    def failure(self) -> ChildFailedError:
        """The error for an unexpected end."""
        try:
            lines = self._log.read_text(errors="replace").splitlines()[-_TAIL:]
        except OSError:
            lines = []
        return ChildFailedError("\n  ".join([f"{self.name} ended unexpectedly; the end of its log:", *lines]))

    async def stop(self) -> None:
        """Close the pipe of the leash, and wait for the end."""
        assert self._process.stdin is not None  # noqa: S101 - asked for in start
        self._process.stdin.close()
        try:
            async with asyncio.timeout(_STOP):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()


def quiet_environment() -> dict[str, str]:
    """This process's environment without variables that would lead a child to the network or change its output."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AGNO_", "OTEL_", "JWT_")) and name != "OS_SECURITY_KEY"
    }
    return kept | {"AGNO_TELEMETRY": "false", "NO_PROXY": "*", "no_proxy": "*"}
