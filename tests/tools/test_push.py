"""A real Prometheus takes what is pushed: it ends with the series that a scrape would have given it, and loses none."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exporter.bookkeeping.shared import Shared
from exporter.config.settings import Protocol, Push
from exporter.core.model import Clock
from exporter.ledger.store import Ledger
from exporter.metrics.render import Renderer, Snapshot
from exporter.metrics.series import Family, Limits
from exporter.metrics.totals import Totals
from exporter.service.publisher import Publisher
from exporter.service.push.target import Target
from tests.harness.families import TRACE, full, some
from tests.harness.prometheus import RunningPrometheus
from tests.harness.tools import debian, tool

pytestmark = pytest.mark.prometheus

PATHS = {Protocol.OTLP: "/api/v1/otlp/v1/metrics", Protocol.REMOTE_WRITE: "/api/v1/write"}
LABELS = {
    Protocol.OTLP: {"service.name": "agentos", "service.instance.id": "one", "deployment.environment.name": "prod"},
    Protocol.REMOTE_WRITE: {"job": "agentos", "instance": "one"},
}
OURS = {"job": "agentos", "instance": "one"}
Key = tuple[tuple[str, str], ...]
STRATEGIES = ("", "UnderscoreEscapingWithSuffixes", "NoUTF8EscapingWithSuffixes", "NoTranslation")


class Server(RunningPrometheus):
    """A Prometheus that scrapes nothing, and takes what is pushed."""

    def __init__(self, binary: str, folder: Path, protocol: Protocol, strategy: str = "") -> None:
        receiver = "otlp-receiver" if protocol is Protocol.OTLP else "remote-write-receiver"
        settings = {"otlp": {"translation_strategy": strategy}} if strategy else {}
        settings = {"scrape_configs": [], **settings}
        super().__init__(binary, folder, flags=[f"--web.enable-{receiver}"], settings=settings)
        self.protocol = protocol

    def series(self, at: float) -> dict[Key, float]:
        """What is there at a moment, by labels; without what OTLP says of its resource."""
        found = self.ask("query", query='{__name__=~".+",__name__!="target_info"}', time=f"{at:.3f}")["result"]
        return {key(one["metric"]): float(one["value"][1]) for one in found}


class Sender:
    """A target, and what it needs, on a clock that the test moves."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.offset = -900.0  # Prometheus takes nothing from the far future
        self.clock = Clock(lambda: time.time() + self.offset, lambda: time.monotonic() + self.offset)
        self.totals = Totals(Limits(), zero_hold=60)
        ledger = Ledger(None)
        ledger.date(self.clock.now_us())
        shared = Shared(ledger, self.totals, self.clock)
        self.publisher = Publisher(shared)
        push = Push("prometheus", server.url + PATHS[server.protocol], server.protocol)
        self.target = Target(push, LABELS[server.protocol], self.publisher, shared)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.target.aclose()

    async def send(self, families: Sequence[Family], at: float) -> None:
        """Send these; see that the server has what a scrape would have given it, and nothing else."""
        output = Renderer().render(families)
        version = 1 + (self.publisher.snapshot.version if self.publisher.snapshot is not None else 0)
        self.publisher._snapshot = Snapshot(version, at, families, output, at - 3600, at - 1800)
        await self.target.send()
        there, wanted = self.server.series(at), rendered(output.text)
        assert there.keys() - wanted.keys() == set()
        assert wanted.keys() - there.keys() == set()
        assert {one: (there[one], wanted[one]) for one in there if there[one] != wanted[one]} == {}

    def outcomes(self) -> dict[str, float]:
        """How often each outcome was, but for none."""
        name = "agentos_exporter_push_total"
        return {labels[1]: series.value for labels, series in self.totals._series[name].items() if series.value}


def rendered(text: bytes) -> dict[Key, float]:
    """What a scrape would have given, by labels."""
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            found[key({**OURS, **sample.labels, "__name__": sample.name})] = float(sample.value)
    return found


def key(labels: Mapping[str, str]) -> Key:
    """Labels that can be compared. The bound 1 is `1.0` after a scrape, and `1` where OTLP is received."""
    same = {name: repr(float(value)) if name == "le" else value for name, value in labels.items()}
    return tuple(sorted((name, value) for name, value in same.items() if value))


def ways() -> list[Any]:
    write = [pytest.param(debian, Protocol.REMOTE_WRITE, "", id="debian-remote-write")]
    write.append(pytest.param(tool, Protocol.REMOTE_WRITE, "", id="current-remote-write"))
    return [*write, *(pytest.param(tool, Protocol.OTLP, one, id=f"otlp-{one or 'default'}") for one in STRATEGIES)]


@pytest.mark.parametrize(("which", "protocol", "strategy"), ways())
async def test_it_ends_with_the_series_of_a_scrape(
    tmp_path: Path, which: Callable[[str], str], protocol: Protocol, strategy: str
) -> None:
    with Server(which("prometheus"), tmp_path, protocol, strategy) as server:
        async with Sender(server) as sender:
            now = time.time()
            await sender.send(full(), now - 60)
            for name in ("agentos_tool_call_duration_seconds_bucket", "agentos_tool_call_errors_total"):
                found = server.ask("query_exemplars", query=name, start="0", end=str(now))
                assert {stored["labels"]["trace_id"] for series in found for stored in series["exemplars"]} == {TRACE}
            # What is gone ends at once, as it does with a scrape.
            await sender.send(some(), now - 30)
            assert sender.outcomes() == {"ok": 2}


@pytest.mark.parametrize("protocol", Protocol)
async def test_a_server_that_was_down_misses_no_increment(tmp_path: Path, protocol: Protocol) -> None:
    metric, labels = "agentos_exporter_polls_total", ("it", "ok")
    with Server(tool("prometheus"), tmp_path, protocol) as server:
        async with Sender(server) as sender:

            async def minutes(number: int) -> None:
                for _ in range(number * 6):
                    sender.offset += 10
                    sender.totals.add(metric, labels)
                    await sender.publisher.publish()
                    await sender.target.work()

            await minutes(5)
            before = sender.outcomes()
            assert before.keys() == {"ok"}
            server._end()
            await minutes(10)
            assert sender.outcomes().keys() == {"ok", "unreachable"}
            server.__enter__()
            await minutes(1)
            await sender.target.send()  # as at the end of the daemon
            assert sender.outcomes()["ok"] > before["ok"]

            snapshot = sender.publisher.snapshot
            assert snapshot is not None
            assert server.series(snapshot.at) == rendered(snapshot.rendered.text)
            found = server.ask("query", query=f"{metric}[20m]", time=f"{snapshot.at:.3f}")["result"]
            values = [float(value) for _, value in found[0]["values"]]
            assert values[0] == 0, "it shows 0 first, though nobody scrapes"
            assert values == sorted(values)
            assert values[-1] == sender.totals.value(metric, labels) == 16 * 6
