"""What tests write into a ledger, and how a file that is none of ours is refused."""

import pytest

from exporter.core.errors import StateRefused
from exporter.core.model import TraceState
from exporter.counting.delta import Delta
from exporter.counting.runs import RunRecord
from exporter.ledger.records import Changes, Record
from exporter.ledger.store import Ledger
from exporter.metrics.series import Limits
from exporter.metrics.totals import Totals

TOOL = "agentos_tool_calls_total"


def changes(trace_id="t", spans=(1, 2**64 - 1), totals=None, amount=1, cursor=None, **more):
    delta = Delta("os")
    delta.add_on(1, TOOL, ("os", "r", "a", "é\u202e🙂"), amount)
    delta.observe("agentos_run_llm_calls", ("os", "agent", "r"), 3)
    plan = (totals or Totals(Limits(), zero_hold=0)).plan(delta, show=False)
    record = Record(
        trace_id,
        "db",
        TraceState.OPEN,
        5,
        2,
        created=10,
        end=20,
        changed=30,
        next_ask=40,
        asks=1,
        misses=0,
        hidden=1,
        root_kind="agent",
        reported=True,
        runs={2**63 + 5: RunRecord("agent", "r", 4)},
        spans=set(spans),
    )
    return Changes("os", [record], plan, cursor=cursor, **more)


# Files that are refused, and left as they are


def refused(path, match):
    before = {one: one.read_bytes() for one in (path, path.with_name(path.name + "-wal")) if one.is_file()}
    with pytest.raises(StateRefused, match=match) as caught:
        Ledger(path)
    assert str(path) in str(caught.value)
    assert {one: one.read_bytes() for one in before} == before
    return str(caught.value)
