"""A running exporter as a context manager: the real daemon in a process of its own, on a state file that outlives it.

with RunningExporter(tmp_path, {"it": agentos.base_url}, overlap="5s") as exporter:
    exporter.wait_until_polled(3)
    print(exporter.metrics())
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from tests.harness import forks, truth
from tests.harness.agentos import free_port
from tests.harness.patience import HANG, stretched

QUICK: Mapping[str, object] = {
    "poll_interval": "1s",
    "sessions_interval": "2s",
    "overlap": "5s",
    "trace_horizon": "1m",
    "zero_hold": "1s",
}
"""Settings under which a trace settles within seconds."""


class ExporterFailedError(Exception):
    """The exporter did not come up; the end of its log is in the message."""


class RunningExporter:
    """The daemon on a configuration of its own. `kill` and `start` it as often as you like: port and state file stay.

    Attributes:
        base_url: of its web server.
        state: its state file.
        ahead: seconds by which its wall clock is ahead from the next start on.
        process: the running process, None while there is none.

    """

    def __init__(
        self,
        folder: Path,
        instances: Mapping[str, str | Mapping[str, object]],
        *,
        file: str = "agentos-exporter.yml",
        web: tuple[Path, httpx.Client] | None = None,
        **settings: object,
    ) -> None:
        """Describe the exporter; entering the context starts it.

        Args:
            folder: for its configuration and state.
            instances: AgentOS instances: name → URL, or the keys of its configuration beside the name.
            file: name of its configuration.
            web: the file of `--web.config.file` with TLS, and a client that the server takes.
            settings: keys of the configuration file, on top of `QUICK`.

        """
        self.port = free_port()
        self.base_url = f"http{'' if web is None else 's'}://127.0.0.1:{self.port}"
        self.state = folder / "state.db"
        self.process: forks.Running | None = None
        self.ahead = 0
        config = {
            **QUICK,
            "state": str(self.state),
            "agentos": [
                {"name": name, **({"url": target} if isinstance(target, str) else target)}
                for name, target in instances.items()
            ],
            **settings,
        }
        for name in ("overlap", "trace_horizon"):
            config[name] = f"{stretched(_seconds(str(config[name]))):.0f}s"
        path = folder / file
        path.write_text(json.dumps(config))  # JSON is YAML
        address = f"--web.listen-address=127.0.0.1:{self.port}"
        self._arguments = ("run", "--config.file", str(path), address, "--log.format=logfmt")
        self._environment = {key: value for key, value in os.environ.items() if not key.startswith("AGENTOS_EXPORTER_")}
        self._environment["NO_PROXY"] = "127.0.0.1"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this object
        self._client = httpx.Client(timeout=30, trust_env=False)
        if web is not None:
            file_of_web, self._client = web
            self._arguments += (f"--web.config.file={file_of_web}",)
        self._client.base_url = self.base_url

    def __enter__(self) -> Self:
        """Start the exporter and wait until it serves."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Kill the exporter; on an error, print the end of its log."""
        self.kill()
        if kind is not None:
            logs = self.logs
            troubles = [line for line in logs.splitlines() if " level=info " not in line]
            print("the exporter had these troubles:", *troubles[-20:], sep="\n")
            print(f"its log ends so:\n{logs[-8000:]}")
        self._client.close()
        self._log.close()

    @property
    def logs(self) -> str:
        """Return what the exporter has logged, over all restarts."""
        return os.pread(self._log.fileno(), 1 << 30, 0).decode(errors="replace")

    def spawn(self, *, fork: bool = True) -> None:
        """Start the process, forked or anew, and wait for nothing."""
        program, arguments = ("exporter",), self._arguments
        if self.ahead:
            program, arguments = ("tests/harness/ahead.py",), (str(self.ahead), *arguments)
        self.process = forks.start(
            *program, *arguments, output=self._log, environment=self._environment, fork=fork and not self.ahead
        )

    def start(self, *, deadline: float = HANG) -> None:
        """Start the exporter and wait until it serves.

        Raises:
            ExporterFailedError: if it ends, or does not serve within `deadline` seconds.

        """
        self.spawn()
        self.wait_until_serving(deadline=deadline)

    def wait_until_serving(self, *, deadline: float = HANG) -> None:
        """Wait until the running process serves.

        Raises:
            ExporterFailedError: if it ends, or does not serve within `deadline` seconds.

        """
        end = time.monotonic() + deadline
        while time.monotonic() < end:
            if self.process is None or self.process.poll() is not None:
                raise ExporterFailedError(f"it ended:\n{self.logs[-4000:]}")
            try:
                self._client.get("/-/healthy").raise_for_status()
            except httpx.TransportError:
                time.sleep(0.05)
            else:
                return
        self.kill()
        raise ExporterFailedError(f"it does not serve within {deadline} s:\n{self.logs[-4000:]}")

    def kill(self) -> None:
        """End the process at once, as a crash does."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()

    def stop(self, *, deadline: float = HANG) -> tuple[int, float]:
        """Send SIGTERM, and return the exit code and how many seconds it took.

        Raises:
            subprocess.TimeoutExpired: if it still runs at the deadline, in seconds from now; it is killed then.

        """
        process, self.process = self.process, None
        assert process is not None
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        try:
            return process.wait(deadline), time.monotonic() - began
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def restart(self) -> None:
        """Stop the exporter in order and start it again."""
        self.stop()
        self.start()

    def metrics(self) -> str:
        """Scrape /metrics."""
        return self._client.get("/metrics").raise_for_status().text

    def samples(self) -> truth.Totals:
        """Scrape /metrics and parse it."""
        return truth.scrape(self.metrics())

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of a sample over all series that have these labels."""
        return total(self.samples(), name, **labels)

    def wait_until_polled(self, polls: int, *, deadline: float = HANG) -> None:
        """Wait until so many more polls went well.

        Raises:
            TimeoutError: if they did not at the deadline, in seconds from now.

        """
        name, ok = "agentos_exporter_polls_total", {"outcome": "ok"}
        wanted = self.total(name, **ok) + polls
        truth.wait_until(lambda: self.total(name, **ok) >= wanted, deadline=deadline, pause=0.2)

    def agree(self, expected: truth.Truth, *, deadline: float = HANG, settle: int = 5) -> truth.Totals:
        """Wait until it shows just what was counted, see that `settle` more polls change nothing; return the samples.

        Only the AgentOS instances that were counted are looked at, if any was.

        Raises:
            AssertionError: if it does not, naming the samples that differ.

        """
        differences: list[str] = []
        counted = {label for _, labels in expected.totals for label in labels if label[0] == "agentos"}

        def shown() -> truth.Totals:
            return {key: value for key, value in self.samples().items() if not counted or counted & key[1]}

        def equal() -> bool:
            differences[:] = truth.difference(expected.totals, shown())
            return not differences

        try:
            truth.wait_until(equal, deadline=deadline, pause=0.5)
        except TimeoutError:
            raise AssertionError("\n".join([f"{len(differences)} samples differ:", *differences[:40]])) from None
        self.wait_until_polled(settle)
        if differences := truth.difference(expected.totals, shown()):
            raise AssertionError("\n".join([f"{len(differences)} samples differ at last:", *differences[:40]]))
        return self.samples()


def _seconds(duration: str) -> float:
    """Return the seconds of a duration as the tests write it, e.g. `90s` or `20m`."""
    return float(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]


def reads(database: str, **more: str) -> dict[str, str]:
    """Return the configuration of an AgentOS whose tables are read instead of its API.

    `database` is as `server.py` takes it, `more` are further keys.
    """
    kind, _, rest = database.removeprefix("async-").partition(":")
    _, _, place = rest.partition("://")
    urls = {
        "sqlite": f"sqlite:///{rest}",
        "postgres": f"postgresql+psycopg://{place}",
        "mysql": f"mysql+pymysql://{place}",
    }
    if kind == "mysql":  # agno's own default there is a database called ai, whatever the URL names
        more = {"schema": place.rpartition("/")[2], **more}
    return {"database": urls[kind], **more}


def total(samples: truth.Totals, name: str, **labels: str) -> float:
    """Return the sum of a sample over all series that have these labels."""
    wanted = set(labels.items())
    return sum(value for (sample, have), value in samples.items() if sample == name and wanted <= have)
