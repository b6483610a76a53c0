"""The configuration read anew: instances come, change and go; what is counted stays exact."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from exporter import config
from exporter.core.errors import StateError
from exporter.service import fleet
from tests.harness import sqltruth
from tests.harness.driven import Driven, DrivenClock
from tests.harness.inprocess import Shown
from tests.harness.seed import seed

SPANS = "agentos_spans_total"
SUCCESSFUL = "agentos_exporter_config_last_reload_successful"
AT = "agentos_exporter_config_last_reload_success_timestamp_seconds"


class Exporter(Driven):
    """A daemon that reads the databases of a folder, on a clock that the test moves."""

    def __init__(self, folder: Path, clock: DrivenClock, flags: dict[str, Any]) -> None:
        self.flags = flags
        self.folder = folder
        world: Any = SimpleNamespace(clock=clock, way=lambda: None)
        super().__init__(world, folder, {}, {})

    def read(self, *names: str, **settings: Any) -> None:
        """Write a file that says which instances are read, and what else holds."""
        self._agentos = {name: {"database": f"sqlite:///{self.folder / name}.db"} for name in names}
        self._settings = settings
        self.configure()

    def _load(self) -> config.Config:
        return config.load({"config_file": str(self._file), "listen_address": "127.0.0.1:0", **self.flags}, {})

    async def reload(self) -> str:
        """Read the file anew; what is wrong with it."""
        return await self.daemon.reload()

    def value(self, metric: str, *labels: str) -> float | None:
        return self.daemon.shared.totals.value(metric, labels)

    async def run(self, name: str, count: int, number: int) -> None:
        """Write traces that end now."""
        now = datetime.fromtimestamp(self.world.clock.now(), UTC)
        await asyncio.to_thread(write, self.folder, name, count, number, now)

    async def leaves(self, name: str) -> float:
        """Scrape until an instance is gone; seconds that it took. That its counters fall is no fault then."""
        seconds = 0.0
        while self.scrapes[-1].of(name):
            assert seconds < 2 * fleet.GRACE
            self.scrapes.clear()
            await self.forward(15)
            seconds += 15
        return seconds

    async def counted(self, *names: str) -> None:
        """Fail unless what is shown of these instances is what their tables hold."""
        for name in names:
            await self.agree(sqltruth.count(f"sqlite:{self.folder / name}.db", name).totals, name)


def write(folder: Path, name: str, count: int, number: int, until: datetime) -> None:
    spread = timedelta(seconds=5)
    seed(f"sqlite:{folder / name}.db", count, until=until, spread=spread, prompt_bytes=(50, 100), number=number)


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Exporter]:
    for number, name in enumerate(("a", "b", "c")):
        write(tmp_path, name, 4, number, datetime.now(UTC))

    clock = DrivenClock()  # time goes on from one daemon to the next

    def begin(*names: str, flags: dict[str, Any] | None = None, **settings: Any) -> Exporter:
        exporter = Exporter(tmp_path, clock, flags or {})
        exporter.read(*names, **settings)
        return exporter

    return begin


async def test_instances_come_and_go(start):
    async with start("a", "b") as exporter:
        await exporter.forward(120)
        (kept, _) = exporter.daemon.pollers
        before = exporter.scrapes[-1]

        exporter.read("a", "c")
        assert await exporter.reload() == ""
        assert exporter.daemon.pollers[0] is kept
        shown = await exporter.forward(60)
        assert not shown.present("agentos_up", agentos="b")  # nobody knows any more
        assert shown(SPANS, agentos="b") == before(SPANS, agentos="b")  # the last increments are still to be scraped
        await exporter.counted("a", "c")
        assert await exporter.leaves("b") <= fleet.GRACE

        await exporter.run("b", 3, 11)
        exporter.read("a", "b", "c")
        assert await exporter.reload() == ""
        await exporter.counted("a", "b", "c")


async def test_an_instance_that_changes_is_counted_once(start):
    async with start("a", "b") as exporter:
        await exporter.forward(30)
        before = exporter.daemon.pollers
        for interval in ("30s", "20s"):
            exporter.read("a", "b", poll_interval=interval)
            assert await exporter.reload() == ""
            await exporter.run("a", 2, int(interval[0]) + 10)
            await exporter.forward(60)
        assert not {id(poller) for poller in exporter.daemon.pollers} & {id(one) for one in before}
        await exporter.counted("a", "b")
        assert exporter.logged("reload", changed="poll_interval")


async def test_what_is_refused_changes_nothing(start):
    async with start("a", "b") as exporter:
        await exporter.forward(60)
        pollers, started = exporter.daemon.pollers, exporter.value(AT)
        assert exporter.value(SUCCESSFUL) == 1
        assert started is not None
        for broken in ('{"agentos": [', json.dumps({"agentos": [{"name": "a"}]}), '{"poll_interval": "soon"}'):
            exporter._file.write_text(broken)
            assert "the configuration is refused" in await exporter.reload()
            assert (exporter.value(SUCCESSFUL), exporter.value(AT)) == (0, started)
            assert exporter.daemon.pollers == pollers
        exporter.read("a", "b")
        assert await exporter.reload() == ""
        assert exporter.value(SUCCESSFUL) == 1
        assert exporter.value(AT) > started
        assert exporter.daemon.pollers == pollers


async def test_a_state_that_cannot_be_written_changes_nothing(start, monkeypatch):
    async with start("a") as exporter:
        await exporter.forward(60)
        pollers = exporter.daemon.pollers
        exporter.read("a", "b", budgets=[{"name": "x", "period": "day", "limit_usd": 1}])

        def full(*_: object) -> None:
            raise StateError("disk full")

        with monkeypatch.context() as patched:
            patched.setattr(exporter.daemon.shared.ledger, "keep_budgets", full)
            assert "the state cannot be written" in await exporter.reload()
        assert exporter.daemon.pollers == pollers
        assert exporter.value("agentos_budget_limit_usd", "", "x", "day") is None
        assert await exporter.reload() == ""
        await exporter.counted("a", "b")


async def test_limits_and_labels(start):
    async with start("a", limits={"values_per_label": 1}) as exporter:
        shown = await exporter.forward(120)
        assert shown.present(SPANS, agent="other")
        assert not shown.present("agentos_user_tokens_total")
        exporter.read("a", limits={"values_per_label": 50}, labels={"user": "plain"})
        assert await exporter.reload() == ""
        await exporter.run("a", 3, 12)
        shown = await exporter.forward(120)
        assert shown.present("agentos_user_tokens_total", agentos="a")
        assert exporter.logged("reload", changed="limits, labels.user")


async def test_labels_are_dropped_and_come_back(start):
    durations = "agentos_llm_call_duration_seconds"
    async with start("a") as exporter:
        before = shown = await exporter.forward(120)
        for number, drop in enumerate(({SPANS: ["root", "agent"], durations: ["model"]}, {})):
            exporter.read("a", labels={"drop": drop})
            assert await exporter.reload() == ""
            await exporter.run("a", 3, 12 + number)
            before, shown = shown, await exporter.forward(120)
            counted = sqltruth.count(f"sqlite:{exporter.folder / 'a'}.db", "a").totals
            for metric in (SPANS, f"{durations}_count"):
                assert shown(metric, agentos="a") == sum(n for (name, _), n in counted.items() if name == metric)
            # What grows is either the folded series or the others.
            folded = shown(SPANS, agentos="a", root="") - before(SPANS, agentos="a", root="")
            whole = shown(SPANS, agentos="a") - before(SPANS, agentos="a")
            assert whole > 0
            assert folded == (whole if drop else 0)
        assert shown.present(SPANS, agentos="a", root="", agent="", span_kind="llm")
        assert shown.present(f"{durations}_count", agentos="a", model="")
        assert len(exporter.logged("reload", changed="labels.drop")) == 2


async def test_what_waits_for_a_restart_is_said(start, tmp_path):
    async with start("a") as exporter:
        before = exporter.daemon.config
        exporter._settings = {"state": str(tmp_path / "other.db")}
        exporter.configure()
        assert await exporter.reload() == ""
        (line,) = [line for line in exporter.logged("reload") if "keys" in line]
        assert line["keys"] == "state"
        assert exporter.daemon.config.state == before.state


async def test_who_is_not_configured_any_more_leaves_after_a_start(start):
    async with start("a", "b") as exporter:
        await exporter.forward(120)
        await exporter.counted("b")
    async with start("a") as exporter:
        assert (await exporter.forward(30))(SPANS, agentos="b") > 0
        assert await exporter.leaves("b") <= fleet.GRACE
    async with start("b") as exporter:
        await exporter.run("b", 3, 13)
        await exporter.forward(30)
        await exporter.leaves("a")
        await exporter.counted("b")


@pytest.mark.parametrize("enabled", [True, False])
async def test_reload_over_http(start, enabled):
    flags = {"web_enable_lifecycle": True} if enabled else {}
    async with start("a", flags=flags) as exporter, httpx.AsyncClient(trust_env=False, timeout=30) as client:
        url = f"http://127.0.0.1:{exporter.daemon.port}/-/reload"
        assert (await client.get(url)).status_code == 405
        exporter.read("a", "b")
        answer = await client.post(url)
        if not enabled:
            assert (answer.status_code, len(exporter.daemon.pollers)) == (403, 1)
            assert "--web.enable-lifecycle" in answer.text
            return
        assert (answer.status_code, len(exporter.daemon.pollers)) == (200, 2)
        exporter._file.write_text("poll_interval: soon")
        answer = await client.put(url)
        assert answer.status_code == 500
        assert "poll_interval: 'soon' is not a duration" in answer.text


async def test_routes_below_a_prefix(start):
    flags = {"web_external_url": "https://x.example.com/agentos", "web_telemetry_path": "/m"}
    async with start("a", flags=flags) as exporter:
        assert Shown(await exporter.get("/agentos/m")).present("agentos_exporter_build_info")
        page = await exporter.get("/agentos/")
        assert 'href="/agentos/m"' in page
        assert 'href="/agentos/-/ready"' in page
        for path in ("/", "/m", "/metrics", "/agentos/metrics"):
            assert (await exporter.get(path)) == "404 page not found\n"


async def test_shards_read_each_instance_once(start):
    names = ("a", "b", "c")
    budgets = [{"name": f"of-{name}", "agentos": name, "period": "day", "limit_usd": 1} for name in names]
    read: list[str] = []
    for index in range(2):
        flags = {"shard_index": str(index), "shard_count": "2", "state": "memory"}
        async with start(*names, flags=flags, budgets=budgets, initial_lookback="1h") as exporter:
            mine = [poller.name for poller in exporter.daemon.pollers]
            shown = await exporter.forward(60)
            assert all(
                shown.present("agentos_budget_limit_usd", budget=f"of-{name}") == (name in mine) for name in names
            )
            read += mine
    assert sorted(read) == ["a", "b", "c"]
