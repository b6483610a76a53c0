"""What is remembered of a database, against the plain way and against what SQLite makes of the same rows."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.sources.committed import Committed, Stretch, fractions
from exporter.sources.location import Engine, Location
from exporter.sources.tables import Sql

START = datetime(2027, 1, 15, 7, 59, 30, tzinfo=UTC)
MICROSECONDS = st.integers(0, 90_000_000)


def written(microseconds: int) -> str:
    return (START + timedelta(microseconds=microseconds)).isoformat()


def brute(spans: dict[str, str], since: str) -> Stretch | None:
    times = [time for time in spans.values() if time >= since]
    return Stretch(len(times), fractions(times)) if times else None


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
            committed.forget(floor)
        moment = max(floor, written(since))
        left = [(time, span_id) for span_id, time in spans.items() if time >= moment]
        assert not left or committed.newest == max(left)
        assert committed.since(moment) == brute(spans, moment)
        assert all(committed.knows(time, one) for one, time in spans.items() if time >= floor)


def test_what_is_forgotten_is_not_known() -> None:
    committed, second = Committed(), 1_000_000
    spans = {f"{number:05}": written(number * second // 10) for number in range(200)}
    committed.add(spans)
    committed.forget(written(15 * second + second // 2))
    left = {span_id: time for span_id, time in spans.items() if time >= written(15 * second)}
    assert len(left) == 50
    assert {span_id for span_id, time in spans.items() if committed.knows(time, span_id)} == set(left)
    assert committed.since("") == brute(left, "")


@pytest.mark.parametrize(
    ("time", "kept"), [(b"2027", True), (None, True), ("x", True), (START, True), (START.replace(second=29), False)]
)
def test_of_what_is_no_text_only_old_dates_are_forgotten(time: object, *, kept: bool) -> None:
    committed = Committed()
    committed.add({"a": time, b"b": time, "c": "2027-01-15T07:59:29.9"})
    assert committed.knows(time, "a")
    committed.forget(written(0))
    assert (committed.knows(time, "a"), committed.knows(time, b"b")) == (kept, kept)
    assert not committed.knows("2027-01-15T07:59:29.9", "c")


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
    assert committed.knows(time, "b")
    assert committed.knows(written(2), "d")
