"""The demonstration as a newcomer starts it: whom it connects to, and which processes and files are its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.harness.agentos import free_port

ROOT = Path(__file__).resolve().parents[2]
STOPS_WITHIN = 5.0

_AUDIT = """
import os, sys

def hook(event, args):
    if event not in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        return
    address = args[0] if event.startswith("socket.get") else args[1]
    host = address[0] if isinstance(address, tuple) else address
    if not str(host).startswith(("127.", "::1", "localhost")):
        with open(os.environ["NETWORK_LOG"], "a") as log:
            log.write(f"{event} {address}\\n")

sys.addaudithook(hook)
"""


class Demo:
    """`python -m exporter demo` in a session of its own; its scratch folder lies in `folder`."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = folder / "tmp"
        self.folder.mkdir()
        self.network = folder / "network.log"
        spy = folder / "spy"
        spy.mkdir()
        (spy / "sitecustomize.py").write_text(_AUDIT)
        environment = os.environ | {
            "TMPDIR": str(self.folder),
            "PYTHONPATH": str(spy),
            "NETWORK_LOG": str(self.network),
            "HTTP_PROXY": "http://192.0.2.1:3128",  # to lead astray who listens to it
        }
        command = [sys.executable, "-m", "exporter", "demo", f"--web.listen-address=127.0.0.1:{self.port}", *flags]
        if "--agentos-port" not in " ".join(flags):  # its default may be another test's
            command.append(f"--agentos-port={free_port()}")
        self._output = (folder / "output").open("w+b")
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def output(self) -> str:
        return os.pread(self._output.fileno(), 1 << 20, 0).decode()

    def processes(self) -> list[int]:
        """All processes that name the scratch folder on their command line, this demo's children at any depth."""
        needle, found = str(self.folder).encode(), []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if needle in entry.read_bytes():
                    found.append(int(entry.parent.name))
        return found

    def wait(self, condition: Callable[[], object], what: str, *, seconds: float = 60) -> None:
        """Poll until it holds; the demo must live meanwhile."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"the demo ended:\n{self.output}"
            assert time.monotonic() < end, f"{what}: not within {seconds} s\n{self.output}"
            time.sleep(0.1)

    def up(self) -> None:
        self.wait(lambda: "Ctrl-C stops" in self.output, "the banner")

    def metrics(self) -> str:
        try:
            return httpx.get(f"{self.url}/metrics", trust_env=False).text
        except httpx.TransportError:
            return ""

    def stop(self, how: signal.Signals) -> float:
        """Signal the whole group, as a terminal does; the seconds until it ended."""
        began = time.monotonic()
        os.killpg(self.process.pid, how)
        self.process.wait(30)
        return time.monotonic() - began

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._output.close()


@contextlib.contextmanager
def demos(folder: Path) -> Iterator[Callable[..., Demo]]:
    """Start demonstrations by a call with flags; in the end all are closed."""
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("looks for processes left behind in /proc")
    started: list[Demo] = []

    def begin(*flags: str) -> Demo:
        started.append(Demo(folder, *flags))
        return started[-1]

    yield begin
    for demo in started:
        demo.close()
