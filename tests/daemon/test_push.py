"""A daemon that nobody scrapes: what it pushes is what it would show, to the very end, and a reload leaves it alone."""

import http.server
import threading
from collections.abc import Callable, Iterator
from typing import Any

import cramjam
import pytest

from exporter.service.push import remote_write
from tests.daemon.test_reload import SPANS, Exporter, start  # noqa: F401 - a fixture
from tests.harness.inprocess import Shown

POLLS = "agentos_exporter_polls_total"


class Receiver(http.server.BaseHTTPRequestHandler):
    """Takes remote write; `pushed` has the samples of each request by name and labels."""

    status = 204
    pushed: list[dict[tuple[str, frozenset[tuple[str, str]]], float]] = []  # noqa: RUF012

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        request = remote_write.WriteRequest.FromString(bytes(cramjam.snappy.decompress_raw(body)))
        found = {}
        for series in request.timeseries:
            labels = {label.name: label.value for label in series.labels if label.name not in {"job", "instance"}}
            found[labels.pop("__name__"), frozenset(labels.items())] = series.samples[0].value
        self.pushed.append(found)
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def push() -> Iterator[list[dict[str, Any]]]:
    """The targets of a configuration: one that takes everything, one that is never there."""
    Receiver.status, Receiver.pushed = 204, []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}/api/v1/write"
        yield [{"remote_write_url": url, "name": "it"}, {"otlp_url": "http://127.0.0.1:1/v1/metrics"}]
        server.shutdown()


async def alone(exporter: Exporter, seconds: int) -> None:
    """Let time pass while nobody scrapes."""
    for _ in range(0, seconds, 5):
        await exporter._scheduler.advance(5)
        await exporter.daemon.site.publisher.publish()


def own(sample: tuple[str, Any]) -> bool:
    """Whether a push itself changes a sample, or the time it takes."""
    return sample[0].startswith(("process_", "agentos_exporter_push_"))


async def test_what_is_pushed_is_what_would_be_shown(
    start: Callable[..., Exporter],  # noqa: F811
    push: list[dict[str, Any]],
) -> None:
    async with start("a", "b", push=push) as exporter:
        await alone(exporter, 90)
        polls = (POLLS, frozenset({("agentos", "a"), ("outcome", "ok")}))
        values = [pushed[polls] for pushed in Receiver.pushed if polls in pushed]
        assert values[0] == 0
        assert values[-1] > 0, "the 0 that was pushed is seen"
        assert exporter.value("agentos_exporter_push_total", "it", "ok") == len(Receiver.pushed)
        assert exporter.value("agentos_exporter_push_total", "127.0.0.1:1", "unreachable") > 3
        assert exporter.value("agentos_exporter_push_lag_seconds", "127.0.0.1:1") is None
        assert len(exporter.logged("push", target="127.0.0.1:1")) == 1

        # What nobody published yet is pushed at the end.
        await exporter.run("a", 3, 11)
        await exporter._scheduler.advance(15)
        before = len(Receiver.pushed)
        await exporter.stop()
        expected = Shown(exporter.daemon.site.rendered().text.decode()).samples.items()
        last = Receiver.pushed[-1]
        assert len(Receiver.pushed) == before + 1
        names = {(name, frozenset(label for label in labels if label[1])): value for (name, labels), value in expected}
        assert {key: value for key, value in last.items() if not own(key)} == {
            key: value for key, value in names.items() if not own(key)
        }
        assert sum(value for (name, _), value in last.items() if name == SPANS) > 0
        await exporter.start()


async def test_a_reload_says_that_targets_wait_for_a_restart(
    start: Callable[..., Exporter],  # noqa: F811
    push: list[dict[str, Any]],
) -> None:
    async with start("a", push=push) as exporter:
        exporter.read("a", push=push[:1])
        assert await exporter.reload() == ""
        assert exporter.logged("reload", keys="push")
        assert len(exporter.daemon.config.push) == 2


async def test_since_when_totals_count_survives_a_restart(start: Callable[..., Exporter]) -> None:  # noqa: F811
    async with start("a") as exporter:
        first = exporter.daemon.site.publisher.snapshot
        exporter.world.clock.forward(100)
        await exporter.restart()
        second = exporter.daemon.site.publisher.snapshot
        assert first.durable_since == second.durable_since
        assert second.process_since >= first.process_since + 100
