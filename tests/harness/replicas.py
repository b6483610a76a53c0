"""Several exporters on one state in PostgreSQL, and somebody who watches what they show together.

with Replicas(tmp_path, 3, {"it": agentos.base_url}, postgres.url("state")) as replicas, Watch(replicas) as watch:
    replicas.leader("it").kill()
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from tests.harness import truth
from tests.harness.exporter import RunningExporter
from tests.harness.kills import persisted
from tests.harness.patience import HANG
from tests.harness.repeating import Repeating

LEADER = "agentos_exporter_leader"
LEASE = 3.0
IDLE = {"poll_interval": "10s", "sessions_interval": "1h", "overlap": "5m", "trace_horizon": "10m"}
"""Settings for many instances that are not there."""


class Replicas:
    """Exporters of the same configuration.

    Attributes:
        exporters: Those that were started, running or not.

    """

    def __init__(
        self,
        folder: Path,
        count: int,
        instances: Mapping[str, str | Mapping[str, object]],
        state: str,
        **settings: object,
    ) -> None:
        """`state` is the URL of the database, `settings` are keys of the configuration file."""
        self.names = list(instances)
        self.exporters = []
        for number in range(count):
            own = folder / f"replica{number}"
            own.mkdir()
            shared = {"url": state, "lease": f"{LEASE:.0f}s"}
            self.exporters.append(RunningExporter(own, instances, **({"state": shared} | settings)))
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Start all of them."""
        with self._stack as stack:
            for exporter in self.exporters:
                stack.enter_context(exporter)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Kill all of them."""
        self._stack.__exit__(kind, error, traceback)

    def pages(self, *, timeout: float = 2.0) -> list[str]:
        """Scrape all of them at once; '' stands for each that does not answer, or has nothing to show just now."""

        def page(exporter: RunningExporter) -> str:
            try:
                answer = httpx.get(f"{exporter.base_url}/metrics", timeout=timeout, trust_env=False)
            except httpx.TransportError:
                return ""
            return answer.text if answer.status_code == 200 else ""

        with ThreadPoolExecutor(len(self.exporters)) as pool:
            return list(pool.map(page, self.exporters))

    def samples(self) -> truth.Totals:
        """Return what all of them show together of AgentOS instances, added up."""
        together: truth.Totals = {}
        for page in self.pages(timeout=30):
            for key, value in truth.scrape(page).items():
                if any(label == "agentos" for label, _ in key[1]):
                    together[key] = together.get(key, 0) + value
        return together

    def leaders(self) -> dict[str, list[int]]:
        """Return who says that it leads, by AgentOS."""
        led: dict[str, list[int]] = {name: [] for name in self.names}
        for number, page in enumerate(self.pages()):
            for name in self.names:
                if f'{LEADER}{{agentos="{name}"}} 1' in page:
                    led[name].append(number)
        return led

    def leader(self, name: str) -> RunningExporter:
        """Return who leads an AgentOS, as soon as somebody does."""
        return self.exporters[self._one_leader(name)]

    def _one_leader(self, name: str) -> int:
        found: list[int] = []

        def known() -> bool:
            found[:] = self.leaders()[name]
            return len(found) == 1

        truth.wait_until(known)
        return found[0]

    def wait_until_shared(self) -> dict[str, int]:
        """Wait until each AgentOS has one leader, and those that run lead as many as each other; return the leaders."""
        running = [number for number, exporter in enumerate(self.exporters) if exporter.process is not None]
        found: dict[str, list[int]] = {}

        def shared() -> bool:
            found.clear()
            found.update(self.leaders())
            led = [number for some in found.values() for number in some]
            counts = [led.count(number) for number in running]
            # What concerns all instances together is led as well, and does not show here.
            return all(len(some) == 1 for some in found.values()) and max(counts) - min(counts) <= 2

        truth.wait_until(shared, pause=0.2)
        return {name: some[0] for name, some in found.items()}

    def agree(self, expected: truth.Totals, *, deadline: float = HANG) -> truth.Totals:
        """Wait until they show together just what was counted.

        Raises:
            AssertionError: if they do not, naming the samples that differ.

        """
        differences: list[str] = []

        def equal() -> bool:
            differences[:] = truth.difference(expected, self.samples())
            return not differences

        try:
            truth.wait_until(equal, deadline=deadline, pause=0.5)
        except TimeoutError:
            raise AssertionError("\n".join([f"{len(differences)} samples differ:", *differences[:40]])) from None
        return self.samples()


class Watch(Repeating):
    """Scrapes all replicas at once, again and again, as Prometheus does that drops the name of the replica.

    Attributes:
        violations: Persisted series that fell, or that two replicas showed in two passes in a row.
        seen: The last value of each persisted series.

    """

    def __init__(self, replicas: Replicas, *, pause: float = 0.1) -> None:
        """`pause` is in seconds."""
        super().__init__(pause=pause)
        self.passes = 0
        self.violations: list[str] = []
        self.seen: dict[str, float] = {}
        self._doubled: set[str] = set()
        self._replicas = replicas

    def _run(self) -> None:
        while self.again():
            pages = [persisted(page) for page in self._replicas.pages()]
            self.passes += 1
            self.take(pages)

    def take(self, pages: list[dict[str, float]]) -> None:
        """Compare the pages of one pass with each other and with all before them.

        A hand-over may lie between two answers of a pass: both then show the same series, in this pass alone.
        """
        now: dict[str, float] = {}
        doubled = set()
        for series, value in _of(pages):
            if series in now:
                doubled.add(series)
            if value < self.seen.get(series, 0):
                self.violations.append(f"pass {self.passes}: {series} fell from {self.seen[series]} to {value}")
            now[series] = max(value, now.get(series, 0))
        self.violations += [f"pass {self.passes}: {series} is shown twice" for series in doubled & self._doubled]
        self._doubled = doubled
        self.seen.update(now)

    def exceeds(self, expected: truth.Totals) -> list[str]:
        """Return what was ever shown beyond what there was to count."""
        shown = truth.scrape("\n".join(f"{series} {value!r}" for series, value in self.seen.items()))
        return [
            f"{key}: {value} of {expected[key]}" for key, value in shown.items() if value > expected.get(key, value)
        ]


def _of(pages: list[dict[str, float]]) -> Iterator[tuple[str, float]]:
    return ((series, value) for page in pages for series, value in page.items() if 'agentos="' in series)
