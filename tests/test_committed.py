"""What is remembered of a database, against the plain way and against what SQLite makes of the same rows."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.sources.committed import Committed, Stretch, fraction
from exporter.sources.location import Engine, Location
from exporter.sources.tables import Sql

START = datetime(2027, 1, 15, 7, 59, 30, tzinfo=UTC)
MICROSECONDS = st.integers(0, 90_000_000)


def written(microseconds: int) -> str:
    return (START + timedelta(microseconds=microseconds)).isoformat()


def brute(spans: dict[str, str], since: str) -> Stretch | None:
    times = [time for time in spans.values() if time >= since]
    return Stretch(len(times), sum(map(fraction, times))) if times else None


@given(st.lists(st.tuples(st.lists(MICROSECONDS, max_size=5), MICROSECONDS, st.booleans()), max_size=12))
def test_any_order_of_rows(polls: list[tuple[list[int], int, bool]]) -> None:
    committed, spans, floor = Committed(), {}, ""
    for number, (times, since, forget) in enumerate(polls):
        some = {f"{number}.{place}": written(time) for place, time in enumerate(times)}
        committed.add(some)
        committed.add(some)
        spans |= some
        floor = max(floor, written(since)) if forget else floor
        if forget:
            committed._forget_at = 0
            committed.forget(floor)
        moment = max(floor, written(since))
        left = [(time, span_id) for span_id, time in spans.items() if time >= moment]
        assert not left or committed.newest == max(left)
        assert committed.since(moment) == brute(spans, moment)
        assert all(one in committed.ids for one, time in spans.items() if time >= floor)


def test_what_is_forgotten_is_not_known() -> None:
    committed = Committed()
    committed.add({f"{number:05}": written(number) for number in range(2_000)})
    committed.forget(written(1_500))
    assert ("01499" in committed.ids, "01500" in committed.ids) == (False, True)
    assert committed.since("") == brute({f"{number:05}": written(number) for number in range(1_500, 2_000)}, "")


@given(st.lists(MICROSECONDS, min_size=1, max_size=40), MICROSECONDS)
def test_sqlite_adds_up_the_same(times: list[int], since: int) -> None:
    spans = {str(number): written(time) for number, time in enumerate(times)}
    committed = Committed()
    committed.add(spans)
    known = committed.since(written(since))
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE agno_spans (span_id VARCHAR, created_at VARCHAR)")
        connection.executemany("INSERT INTO agno_spans VALUES (?, ?)", spans.items())
        sql = Sql(Location(Engine.SQLITE, "x")).stretch()
        until = committed.newest[0]
        rows, total = connection.execute(sql, (written(since), until)).fetchone()
    assert (rows, total or 0) == (known or (0, 0))


@pytest.mark.parametrize("time", [5, b"2027", START, None])
def test_times_that_are_all_of_another_form(time: object) -> None:
    committed = Committed()
    committed.add({"a": time, "b": time})
    assert (committed.newest, committed.since("")) == (None, None)


@pytest.mark.parametrize("time", [5, b"x", "2027-01-15T08:00:00.5+01:00", None])
def test_times_of_another_form_are_no_stretch(time: object) -> None:
    committed = Committed()
    committed.add({"a": written(0)})
    committed.add({"b": time, "c": written(1)})
    assert committed.since("") is None
    assert committed.newest is None
    committed.add({"d": written(2)})
    assert committed.since("") is None
    assert "b" in committed.ids
    assert "d" in committed.ids
