"""The running demonstration as a context manager, with the Prometheus that it starts itself.

with RunningDemo(tool("prometheus")) as demo:
    print(demo.prometheus.value("sum(agentos_runs_total)"))
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.harness.agentos import free_port
from tests.harness.process import eventually
from tests.harness.prometheus import KnownPrometheus


class RunningDemo:
    """`agentos-exporter demo`, with a given Prometheus or with none.

    Attributes:
        port: of the exporter.
        url: of the exporter.
        prometheus: the one that the demo has started, if any.

    """

    prometheus: KnownPrometheus

    def __init__(self, prometheus: str | None, *, rate: float = 3.0) -> None:
        """Describe it; entering the context starts it.

        Args:
            prometheus: path of the program; the demo takes the first one on PATH.
            rate: of runs per second.

        """
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._binary = prometheus
        self._command = [sys.executable, "-m", "exporter", "demo", f"--web.listen-address=127.0.0.1:{self.port}"]
        self._command += [f"--agentos-port={free_port()}", f"--rate={rate}"]
        self._command += ["--no-prometheus"] if prometheus is None else []
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this object

    def __enter__(self) -> Self:
        """Start it and wait for its banner.

        Raises:
            AssertionError: if it does not come up, or with another Prometheus than the given one.

        """
        environment = dict(os.environ)
        if self._binary is not None:
            environment["PATH"] = f"{Path(self._binary).parent}{os.pathsep}{environment['PATH']}"
        self._process = subprocess.Popen(
            self._command,
            cwd=Path(__file__).parents[2],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )
        try:
            eventually(lambda: self._process.poll() is not None or "Ctrl-C stops" in self.output, "the banner")
            assert self._process.poll() is None, self.output
            if self._binary is not None:
                self.prometheus = self._found(self._binary)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it in order; on an error, print what it said."""
        code = self._end()
        if kind is not None:
            print(f"the demo said:\n{self.output[-4000:]}")
        assert kind is not None or code == 0, self.output
        self._output.close()

    @property
    def output(self) -> str:
        """Return what it has printed."""
        return os.pread(self._output.fileno(), 1 << 30, 0).decode(errors="replace")

    def _found(self, binary: str) -> KnownPrometheus:
        url = re.search(r"Prometheus  (http\S+)", self.output)
        assert url is not None, self.output
        prometheus = KnownPrometheus(url[1])
        version = prometheus.ask("status/buildinfo")["version"]
        said = subprocess.run((binary, "--version"), capture_output=True, text=True, check=True)
        assert f"prometheus, version {version} " in said.stdout + said.stderr
        return prometheus

    def _end(self) -> int:
        self._process.terminate()
        try:
            return self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
