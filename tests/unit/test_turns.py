"""Several databases of one AgentOS: which is read first when time is short."""

from collections.abc import AsyncGenerator

import pytest

from exporter.core.errors import SourceTimeout
from exporter.core.model import Clock
from exporter.ledger.store import Ledger
from exporter.service.poller import View
from exporter.sources.api.source import AgentOSSource, Target
from exporter.sources.position import Settings
from exporter.sources.protocol import Batch
from exporter.sources.turns import Turns


def test_each_database_is_first_in_its_turn() -> None:
    turns, orders = Turns(), []
    for _ in range(4):
        orders.append("".join(turns.order("abc")))
        turns.ran_out_of_time()
    assert orders == ["abc", "bca", "cab", "abc"]
    assert (turns.order([]), turns.order("x")) == ([], ["x"])


async def test_a_database_that_hangs_starves_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    target = Target("os", "http://127.0.0.1:9", lambda: None)
    source = AgentOSSource(target, Settings(1, 1, 1, 1), Clock(lambda: 0, lambda: 0))
    asked: list[str] = []

    async def databases(_deadline: float) -> list[str]:
        return ["hangs", "answers"]

    async def read(db: str, *_: object) -> AsyncGenerator[Batch]:
        asked.append(db)
        if db == "hangs":
            raise SourceTimeout("no answer")
        yield Batch(db)

    async def poll() -> list[str]:
        return [batch.db async for batch in source.read(View(Ledger(None), "os"), deadline=60)]

    monkeypatch.setattr(source, "_databases", databases)
    monkeypatch.setattr(source, "_read_database", read)
    for _ in range(4):
        with pytest.raises(SourceTimeout):
            await poll()
    assert asked == ["hangs", "answers", "hangs", "hangs", "answers", "hangs"]
    await source.aclose()
