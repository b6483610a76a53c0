"""A running AgentOS as a context manager.

with RunningAgentOS(sys.executable, "sqlite:/tmp/agno.db") as agentos:
    await load.drive(agentos.base_url)
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from tests.harness import forks
from tests.harness.patience import HANG

UNSAMPLED = {"traceparent": f"00-{'1' * 32}-{'1' * 16}-00", "Accept-Encoding": "identity"}
"""Headers of requests that AgentOS does not trace, and whose answers have the length that they have."""

_SERVER = Path(__file__).with_name("server.py")
_FIRST_PORT, _WORKERS, _PORTS = 10_000, 20, 1_000
_handed_out = itertools.count()


class AgentOSFailedError(Exception):
    """The server did not come up; the end of its output is in the message."""


class RunningAgentOS:
    """`server.py` in a process of its own.

    Attributes:
        database: as `server.py` and `truth.count` take it.
        port: of this server, kept over `restart`.
        base_url: of its API.
        process: the running process, None while it is stopped.
        ahead: seconds by which its wall clock is ahead from the next start on.

    """

    def __init__(
        self,
        python: str | Path,
        database: str,
        *,
        port: int = 0,
        second_db: str | None = None,
        security_key: str | None = None,
        sampler: str | None = None,
        schema: str | None = None,
        cold: bool = False,
        operations: bool = False,
        scheduler: bool = False,
        tags: bool = False,
        jwt_key: str | None = None,
        attempts: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        """Describe the server; entering the context starts it.

        Args:
            python: interpreter of a venv with agno, e.g. from `venvs.python`.
            database: `sqlite:PATH`, `postgres:URL` or `mysql:URL`, with or without `async-` in front.
            port: to listen on; 0 finds a free one.
            second_db: another database, of one more agent; its traces (see `seed`) are listed under db_id `second-db`.
            security_key: demanded as a bearer token.
            sampler: OTEL_TRACES_SAMPLER.
            schema: of agno's tables in a PostgreSQL database; default: agno's own.
            cold: let the first runs create agno's tables.
            operations: with a queue and a knowledge base, as far as its release has them.
            scheduler: run schedules that are due, with agno's scheduler.
            tags: of spans, such as `component:plain` for runs of that agent.
            jwt_key: of HS256; JWTs are demanded, with their scopes.
            attempts: serve the AgentOS of `attempting.py`, which writes down each attempt of its models in this file.
            environment: more variables of the process.

        """
        self.database = database
        self.port = port or free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.process: forks.Running | None = None
        self.ahead = 0
        self._python = str(python)
        self._arguments = ["--port", str(self.port), "--db", database]
        options = {"--second-db": second_db, "--security-key": security_key, "--sampler": sampler, "--schema": schema}
        options |= {"--jwt-key": jwt_key, "--attempts": None if attempts is None else str(attempts)}
        self._arguments += [part for option, value in options.items() if value for part in (option, value)]
        self._arguments += ["--cold"] if cold else []
        self._arguments += ["--operations"] if operations else []
        self._arguments += ["--scheduler"] if scheduler else []
        self._arguments += ["--tags"] if tags else []
        self._ready = f"ready {self.base_url}\n"
        self._environment = os.environ | (environment or {})
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this object

    def __enter__(self) -> Self:
        """Start the server and wait until it serves."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the server."""
        self.stop()
        self._log.close()

    @property
    def output(self) -> str:
        """Return what the server has printed, over all restarts."""
        return os.pread(self._log.fileno(), 1 << 30, 0).decode(errors="replace")

    def start(self, *, deadline: float = HANG) -> None:
        """Start the server and wait until it serves.

        Raises:
            AgentOSFailedError: if it ends, or does not serve within `deadline` seconds.

        """
        before = self.output.count(self._ready)
        self.process = forks.start(
            str(_SERVER),
            *self._arguments,
            *((f"--ahead={self.ahead}",) if self.ahead else ()),
            output=self._log,
            environment=self._environment,
            python=self._python,
        )
        end = time.monotonic() + deadline
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise AgentOSFailedError(f"ended with {self.process.returncode}:\n{self.output[-4000:]}")
            if self.output.count(self._ready) > before:
                return
            time.sleep(0.05)
        self.kill()
        raise AgentOSFailedError(f"not ready within {deadline} s:\n{self.output[-4000:]}")

    def stop(self, *, deadline: float = 15.0) -> None:
        """End the server in order, or by force if it is not gone within `deadline` seconds."""
        self._end(signal.SIGTERM, deadline)

    def kill(self) -> None:
        """End the server at once, as a crash does."""
        self._end(signal.SIGKILL, 15.0)

    def restart(self) -> None:
        """Stop the server if it runs, and start it on the same port."""
        self.stop()
        self.start()

    def wait_until_quiet(self, *, of: str = "/runs", deadline: float = HANG) -> None:
        """Wait until nothing goes on any more for the requests whose path holds `of`, with all their spans written.

        Runs in the background and those whose client went away are waited for too; not so the thread of a synchronous
        tool whose run was broken off.

        Raises:
            TimeoutError: if something still goes on at the deadline, in seconds from now.

        """
        end = time.monotonic() + deadline
        idle = 0
        with httpx.Client(base_url=self.base_url, timeout=deadline, trust_env=False) as client:
            while idle < 2:  # a client may have left before its request was read
                under_way = [path for path in client.get("/under-way").raise_for_status().json() if of in path]
                idle = 0 if under_way else idle + 1
                if time.monotonic() > end:
                    raise TimeoutError(f"after {deadline} s these were still under way: {', '.join(under_way)}")
                time.sleep(0.05)

    def _end(self, how: signal.Signals, deadline: float) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(deadline)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """Return a TCP port that nobody else takes, for a program that cannot tell which one it got.

    Each worker of pytest has a range of its own. It lies below the ports of outgoing connections, which the system
    hands out itself; a port that was free a moment ago in its range may be one of those the next moment.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
    while True:
        port = _FIRST_PORT + worker * _PORTS + (os.getpid() + next(_handed_out)) % _PORTS
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
