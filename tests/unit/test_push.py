"""What is pushed is what /metrics shows, when it is due, to whom it is meant for, and without a secret in the log."""

from __future__ import annotations

import asyncio
import base64
import gzip
import math
import struct
from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import cramjam
import httpx
import pytest
import structlog
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.samples import Sample as Shown

from exporter.bookkeeping.shared import Shared
from exporter.config import Push, Secret
from exporter.config.settings import Credential, Protocol
from exporter.core.logs import redact
from exporter.core.model import Clock
from exporter.ledger.store import Ledger
from exporter.metrics.catalog import METRICS, PUSH_OUTCOMES, Life
from exporter.metrics.increments import Exemplar
from exporter.metrics.render import Renderer, Snapshot
from exporter.metrics.series import Family, Limits, Sample
from exporter.metrics.totals import Totals
from exporter.service.publisher import Publisher
from exporter.service.push import otlp, remote_write
from exporter.service.push.pusher import Pusher
from exporter.service.push.target import PAUSE_LIMIT, Target
from tests.harness.families import AT, COUNTER, TRACE, full, some

NOW, DURABLE, PROCESS = 1_763_617_900.5, 1_763_000_000.0, 1_763_600_000.0
LABELS = {"job": "agentos", "instance": "one"}
SECRET = "t0p-s3cret-token"
URL = "http://prometheus:9090/api/v1/write"


def snapshot(families: list[Family], version: int = 1) -> Snapshot:
    return Snapshot(version, NOW, families, Renderer().render(families), DURABLE, PROCESS)


def shown(one: Snapshot) -> list[Shown]:
    """What /metrics shows, as prometheus_client's own parser reads it."""
    text = one.rendered.openmetrics.decode()
    return [sample for family in parse_openmetrics(text) for sample in family.samples]


def key(name: str, labels: dict[str, str]) -> tuple[Any, ...]:
    return name, tuple(sorted((label, value) for label, value in labels.items() if value))


# --- Remote write ---------------------------------------------------------------------------------------------------


def written(bodies: Iterator[bytes]) -> dict[tuple[Any, ...], Any]:
    """Series by name and labels, which must be sorted and unlike each other."""
    found: dict[tuple[Any, ...], Any] = {}
    for body in bodies:
        request = remote_write.WriteRequest.FromString(bytes(cramjam.snappy.decompress_raw(body)))
        for series in request.timeseries:
            pairs = [(label.name, label.value) for label in series.labels]
            assert pairs == sorted(pairs)
            labels = dict(pairs)
            assert len(labels) == len(pairs)
            name = key(labels.pop("__name__"), labels)
            assert name not in found
            found[name] = series
    return found


@pytest.mark.parametrize("families", [full(), some(), []], ids=["full", "some", "none"])
def test_remote_write_is_what_metrics_shows(families: list[Family]) -> None:
    one = snapshot(families)
    found = written(remote_write.requests(one, [], LABELS))
    expected = {key(sample.name, {**LABELS, **sample.labels}): sample for sample in shown(one)}
    assert found.keys() == expected.keys()
    for name, sample in expected.items():
        (point,) = found[name].samples
        assert (point.value, point.timestamp) == (sample.value, int(NOW * 1000))
        if sample.exemplar is None:
            assert not found[name].exemplars
            continue
        (exemplar,) = found[name].exemplars
        assert {label.name: label.value for label in exemplar.labels} == sample.exemplar.labels
        assert exemplar.value == pytest.approx(sample.exemplar.value)
        assert exemplar.timestamp == pytest.approx(float(sample.exemplar.timestamp) * 1000, abs=1)


def test_a_label_of_the_metric_wins_over_one_of_the_target() -> None:
    found = written(remote_write.requests(snapshot(some()), [], {"agentos": "mine"}))
    values = {dict(labels).get("agentos") for name, labels in found if name.startswith("agentos_")}
    assert values == {"prod", "staging"}


def test_what_is_gone_is_marked_as_stale() -> None:
    before, now = snapshot(full()), snapshot(some(), 2)
    found = written(remote_write.requests(now, now.gone_since(before), LABELS))
    stale = {name for name, series in found.items() if math.isnan(series.samples[0].value)}
    keys = [{key(sample.name, {**LABELS, **sample.labels}) for sample in shown(one)} for one in (before, now)]
    assert stale == keys[0] - keys[1]
    (bits,) = {struct.pack("<d", found[name].samples[0].value) for name in stale}
    assert bits == (0x7FF0000000000002).to_bytes(8, "little")
    assert not any(found[name].exemplars for name in stale)


def test_nothing_is_gone_while_everything_stays() -> None:
    assert snapshot(full(), 2).gone_since(snapshot(full())) == []


def test_many_series_are_several_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_write, "BATCH", 7)
    monkeypatch.setattr(otlp, "BATCH", 7)
    one = snapshot(full())
    bodies = [*remote_write.requests(one, [], LABELS)]
    assert len(bodies) == math.ceil(len(shown(one)) / 7)
    assert len(written(iter(bodies))) == len(shown(one))
    assert len([*otlp.requests(one, [], {})]) > 10
    assert len(exported(otlp.requests(one, [], {}))) == len(shown(one))


# --- OTLP -----------------------------------------------------------------------------------------------------------


def metrics(bodies: Iterator[bytes]) -> Iterator[Any]:
    for body in bodies:
        (whole,) = ExportMetricsServiceRequest.FromString(gzip.decompress(body)).resource_metrics
        (scope,) = whole.scope_metrics
        yield from scope.metrics


def exported(bodies: Iterator[bytes]) -> dict[tuple[Any, ...], Any]:
    """What a reader of OTLP makes of it: points by name and labels; of a histogram by name of the sample, and bound."""
    found: dict[tuple[Any, ...], Any] = {}
    for metric in metrics(bodies):
        kind = metric.WhichOneof("data")
        for point in getattr(metric, kind).data_points:
            labels = {attribute.key: attribute.value.string_value for attribute in point.attributes}
            assert point.time_unix_nano == int(NOW * 1e9)
            if kind != "histogram":
                found[key(metric.name, labels)] = getattr(point, point.WhichOneof("value"))
                continue
            assert sum(point.bucket_counts) == point.count
            bounds, sofar = [*map(float, point.explicit_bounds), math.inf], 0
            for bound, count in zip(bounds, point.bucket_counts, strict=True):
                sofar += count
                le = "+Inf" if math.isinf(bound) else repr(bound)
                found[key(f"{metric.name}_bucket", {**labels, "le": le})] = sofar
            found[key(f"{metric.name}_count", labels)] = point.count
            found[key(f"{metric.name}_sum", labels)] = point.sum
    return found


@pytest.mark.parametrize("families", [full(), some(), []], ids=["full", "some", "none"])
def test_otlp_is_what_metrics_shows(families: list[Family]) -> None:
    one = snapshot(families)

    def name(sample: Shown) -> tuple[Any, ...]:
        le = sample.labels.get("le", "")
        return key(sample.name, {**sample.labels, **({"le": repr(float(le))} if le not in {"", "+Inf"} else {})})

    assert exported(otlp.requests(one, [], {})) == {name(sample): sample.value for sample in shown(one)}


def test_each_kind_is_told_as_such_with_its_start_and_unit() -> None:
    found = {metric.name: metric for metric in metrics(otlp.requests(snapshot(full()), [], {}))}
    cumulative = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    for name, metric in METRICS.items():
        told = found[name]
        data = getattr(told, told.WhichOneof("data"))
        assert told.description == metric.documentation
        assert told.WhichOneof("data") == {"counter": "sum"}.get(metric.kind, metric.kind)
        since = {Life.DURABLE: DURABLE, Life.PROCESS: PROCESS, Life.NOW: 0}[metric.life]
        assert {point.start_time_unix_nano for point in data.data_points} == {int(since * 1e9)}
        assert told.unit == ("s" if "_seconds" in name else "By" if "_bytes" in name else "")
        if metric.life is not Life.NOW:
            assert data.aggregation_temporality == cumulative
    assert found["agentos_runs_total"].sum.is_monotonic
    assert found["process_cpu_seconds_total"].sum.data_points[0].start_time_unix_nano == int(PROCESS * 1e9)


def test_otlp_has_the_trace_of_an_exemplar_and_other_ids_as_an_attribute() -> None:
    rows = (
        Sample(("prod", "", "", "one", "x"), 2, exemplars=(Exemplar(TRACE, 1, AT),)),
        Sample(("prod", "", "", "two", "x"), 2**70, exemplars=(Exemplar("trace-7", 1, AT),)),
    )
    (found,) = [
        metric
        for metric in metrics(otlp.requests(snapshot([Family(COUNTER, 1, rows)]), [], {}))
        if metric.name == COUNTER.name
    ]
    one, two = found.sum.data_points
    assert one.exemplars[0].trace_id.hex() == TRACE
    assert (one.exemplars[0].as_int, one.exemplars[0].time_unix_nano) == (1, AT // 1000 * 1_000_000)
    assert not two.exemplars[0].trace_id
    assert [(a.key, a.value.string_value) for a in two.exemplars[0].filtered_attributes] == [("trace_id", "trace-7")]
    assert (one.as_int, two.as_double) == (2, 2.0**70)


def test_otlp_says_who_sends_it_and_what_is_gone() -> None:
    before, now = snapshot(full()), snapshot(some(), 2)
    (body,) = otlp.requests(now, now.gone_since(before), {"service.name": "x"})
    (whole,) = ExportMetricsServiceRequest.FromString(gzip.decompress(body)).resource_metrics
    assert [(attribute.key, attribute.value.string_value) for attribute in whole.resource.attributes] == [
        ("service.name", "x")
    ]
    gone = {
        metric.name
        for metric in metrics(iter([body]))
        for point in getattr(metric, metric.WhichOneof("data")).data_points
        if point.flags
    }
    assert gone == set(METRICS)


# --- When and how it is sent ----------------------------------------------------------------------------------------


class World:
    """A target whose server says what the test wants, on a clock that the test moves."""

    def __init__(self, **keys: Any) -> None:
        self.now = 1_000_000.0
        clock = Clock(lambda: self.now, lambda: self.now)
        self.totals = Totals(Limits(), zero_hold=60)
        self.shared = Shared(Ledger(None), self.totals, clock)
        self.publisher = Publisher(self.shared)
        push = Push(**{"name": "it", "url": URL, "protocol": Protocol.REMOTE_WRITE, **keys})
        self.requests: list[tuple[float, httpx.Request]] = []
        self.answer: httpx.Response | Exception = httpx.Response(204)
        self.target = Target(push, LABELS, self.publisher, self.shared)
        self.target._client._transport = httpx.MockTransport(self._serve)

    async def _serve(self, request: httpx.Request) -> httpx.Response:
        self.requests.append((self.now, request))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def forward(self, seconds: int) -> list[float]:
        """Let time pass; when requests came, in seconds from now."""
        began, before = self.now, len(self.requests)
        for _ in range(seconds):
            await self.publisher.publish()
            await self.target.work()
            self.now += 1
        return [at - began for at, _ in self.requests[before:]]

    def outcomes(self) -> dict[str, float]:
        found = {one: self.totals.value("agentos_exporter_push_total", ("it", one)) for one in PUSH_OUTCOMES}
        assert None not in found.values()
        return {outcome: count for outcome, count in found.items() if count}

    @property
    def lag(self) -> float | None:
        return self.totals.value("agentos_exporter_push_lag_seconds", ("it",))


@pytest.fixture(autouse=True)
def no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda _low, high: high)


async def test_the_newest_snapshot_is_sent_at_each_interval() -> None:
    world = World()
    assert await world.forward(95) == [0, 30, 60, 90]
    assert world.outcomes() == {"ok": 4}
    stamps = [
        next(iter(written(iter([request.content])).values())).samples[0].timestamp for _, request in world.requests
    ]
    assert stamps == [int(at * 1000) for at, _ in world.requests]


async def test_one_snapshot_is_not_sent_twice() -> None:
    world = World(interval=1)
    await world.publisher.publish()
    for _ in range(5):
        await world.target.work()
        world.now += 1
    assert len(world.requests) == 1


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (httpx.ConnectError("refused"), "unreachable"),
        (httpx.ReadTimeout("slow"), "timeout"),
        (httpx.Response(429), "throttled"),
        (httpx.Response(503), "server_error"),
    ],
)
async def test_what_may_succeed_is_tried_again_after_longer_and_longer_pauses(
    answer: httpx.Response | Exception, outcome: str
) -> None:
    world = World()
    world.answer = answer
    assert await world.forward(130) == [0, 1, 3, 7, 15, 31, 61, 91, 121]
    assert world.outcomes() == {outcome: 9}
    assert world.lag is None, "nothing was taken yet: unknown is not 0"
    world.answer = httpx.Response(200)
    assert len(await world.forward(60)) == 2
    assert world.outcomes() == {outcome: 9, "ok": 2}
    assert world.lag is not None


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (httpx.Response(400, text="out of order"), "refused"),
        (httpx.Response(401), "unauthorized"),
        (httpx.Response(403), "unauthorized"),
        (httpx.Response(302, headers={"Location": "https://elsewhere/"}), "refused"),
    ],
)
async def test_what_is_refused_waits_for_the_next_snapshot(answer: httpx.Response, outcome: str) -> None:
    world = World()
    world.answer = answer
    with structlog.testing.capture_logs() as lines:
        assert await world.forward(95) == [0, 30, 60, 90]
    assert world.outcomes() == {outcome: 4}
    assert [(line["log_level"], line["outcome"]) for line in lines] == [("warning", outcome)]


async def test_each_kind_of_failure_is_logged_once_and_so_is_its_end() -> None:
    world = World()
    with structlog.testing.capture_logs() as lines:
        for answer in (httpx.Response(503), httpx.Response(500), httpx.ConnectError("x"), httpx.Response(503)):
            world.answer = answer
            await world.forward(120)
        world.answer = httpx.Response(200)
        await world.forward(120)
    said = [line["outcome"] for line in lines if line["event"] == "push"]
    assert said == ["server_error", "server_error", "unreachable", "ok"]


@pytest.mark.parametrize(
    ("header", "next_at"),
    [("100", 100), ("86400", PAUSE_LIMIT), ("0", 1), ("soon", 1), ("-5", 1), ("nan", 1), ("date", 50)],
)
async def test_a_target_is_left_alone_as_long_as_it_asks(header: str, next_at: int) -> None:
    world = World()
    text = formatdate(world.now + 50, usegmt=True) if header == "date" else header
    world.answer = httpx.Response(429, headers={"Retry-After": text})
    assert (await world.forward(int(PAUSE_LIMIT) + 2))[:2] == [0, next_at]


async def test_nothing_queues_up_while_a_target_is_down() -> None:
    world = World()
    world.answer = httpx.ConnectError("refused")
    await world.forward(5)
    sizes = [len(repr(world.target.__dict__))]
    for _ in range(3):
        await world.forward(200)
        sizes.append(len(repr(world.target.__dict__)))
    assert max(sizes) - min(sizes) < 100
    bodies = {len(request.content) for _, request in world.requests}
    assert max(bodies) < 2 * min(bodies)


async def test_a_zero_that_was_pushed_is_seen() -> None:
    world = World()
    world.totals.add("agentos_exporter_polls_total", ("it", "ok"), 3)

    def value() -> float:
        found = written(iter([world.requests[-1][1].content]))
        return found[key("agentos_exporter_polls_total", {**LABELS, "agentos": "it", "outcome": "ok"})].samples[0].value

    await world.forward(31)
    assert value() == 0
    await world.forward(60)
    assert value() == 3


async def test_a_zero_that_nobody_took_is_not_seen() -> None:
    world = World()
    world.totals.add("agentos_exporter_polls_total", ("it", "ok"), 3)
    world.answer = httpx.Response(500)
    await world.forward(200)
    world.answer = httpx.Response(200)
    await world.forward(31)
    found = written(iter([world.requests[-1][1].content]))
    name = key("agentos_exporter_polls_total", {**LABELS, "agentos": "it", "outcome": "ok"})
    assert found[name].samples[0].value == 0


async def test_headers_and_a_token_that_is_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{SECRET}\n")
    headers = (("X-Scope-OrgID", Secret("team-a")),)
    world = World(headers=headers, token=Credential("token", file=file))
    await world.forward(1)
    file.write_text("another-t0ken\n")
    await world.forward(30)
    first, second = (request.headers for _, request in world.requests)
    assert first["Authorization"] == f"Bearer {SECRET}"
    assert second["Authorization"] == "Bearer another-t0ken"
    assert first["X-Scope-OrgID"] == "team-a"
    assert first["Content-Encoding"] == "snappy"
    assert first["X-Prometheus-Remote-Write-Version"] == "0.1.0"
    assert first["User-Agent"].startswith("agentos-exporter/")

    file.unlink()
    await world.forward(30)
    assert world.outcomes() == {"ok": 2, "unauthorized": 1}


async def test_a_user_and_no_secret_in_the_log(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(SECRET)
    world = World(username="me", password=Credential("password", file=file), headers=(("X", Secret("k3y" * 10)),))
    pair = base64.b64encode(f"me:{SECRET}".encode()).decode()
    world.answer = httpx.Response(400, text=f"who is {pair} or {SECRET} or {'k3y' * 10}?")
    with structlog.testing.capture_logs() as lines:
        await world.forward(1)
    assert world.requests[0][1].headers["Authorization"] == f"Basic {pair}"
    logged = redact(str(lines))
    assert "who is [redacted] or [redacted] or [redacted]?" in logged


async def test_what_an_otlp_receiver_rejects_is_told() -> None:
    world = World(protocol=Protocol.OTLP)
    answer = ExportMetricsServiceResponse()
    headers = {"Content-Type": "application/x-protobuf"}
    world.answer = httpx.Response(200, headers=headers, content=answer.SerializeToString())
    await world.forward(1)
    assert world.requests[0][1].headers["Content-Encoding"] == "gzip"
    answer.partial_success.rejected_data_points, answer.partial_success.error_message = 3, "too old"
    world.answer = httpx.Response(200, headers=headers, content=answer.SerializeToString())
    with structlog.testing.capture_logs() as lines:
        await world.forward(30)
    assert [line["error"] for line in lines] == ["3 points were not taken: too old"]
    world.answer = httpx.Response(200, headers=headers, content=b"\xff\xff")
    await world.forward(30)
    assert world.outcomes() == {"ok": 2, "partial": 1}


async def test_a_bug_costs_the_push_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()

    def fails(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(remote_write, "requests", fails)
        await world.forward(1)
    await world.forward(30)
    assert world.outcomes() == {"bug": 1, "ok": 1}


async def test_a_slow_target_times_out() -> None:
    world = World(timeout=0.01)

    async def hangs(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    world.target._client._transport = httpx.MockTransport(hangs)
    await world.forward(1)
    assert world.outcomes() == {"timeout": 1}


class Jobs:
    """Remembers jobs."""

    def __init__(self) -> None:
        self.work: dict[str, Any] = {}

    def add(self, name: str, work: Any, _seconds: float) -> None:
        self.work[name] = work


async def test_a_target_that_hangs_delays_no_other_and_the_last_snapshot_is_pushed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("exporter.service.push.pusher.STOP_SECONDS", 0.2)
    world, jobs = World(), Jobs()
    pushes = [Push(name, URL, Protocol.REMOTE_WRITE) for name in ("hangs", "works")]
    pusher = Pusher(pushes, "host:9777", world.publisher, world.shared, jobs)
    hangs, works = pusher._targets

    async def never(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    hangs._client._transport = httpx.MockTransport(never)
    works._client._transport = httpx.MockTransport(world._serve)
    await world.publisher.publish()
    hanging = asyncio.create_task(jobs.work["push hangs"]())
    await jobs.work["push works"]()
    assert len(world.requests) == 1
    assert not hanging.done()
    hanging.cancel()
    await asyncio.gather(hanging, return_exceptions=True)

    world.totals.gauge("agentos_up", ("it",), 1)
    world.now += 1
    await pusher.finish()
    found = written(iter([world.requests[-1][1].content]))
    labels = {"job": "agentos-exporter", "instance": "host:9777", "agentos": "it"}
    assert found[key("agentos_up", labels)].samples[0].value == 1
    assert hangs._client.is_closed
    assert works._client.is_closed


async def test_who_never_pushed_pushes_nothing_at_the_end() -> None:
    world = World()
    await world.publisher.publish()
    await world.target.finish()
    assert world.requests == []


def test_a_snapshot_knows_since_when_it_counts() -> None:
    one = replace(snapshot([]), durable_since=1.0, process_since=2.0)
    assert one.since("agentos_runs_total") == 1.0
    assert one.since("agentos_exporter_polls_total") == one.since("process_cpu_seconds_total") == 2.0
