import json
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from exporter.core.errors import StateError, StateRefused
from exporter.core.model import TraceState
from exporter.counting.delta import SessionPart
from exporter.counting.runs import RunRecord
from exporter.counting.waiting import WaitingCall
from exporter.ledger import store as ledger_module
from exporter.ledger.copying import copy
from exporter.ledger.records import Changes, Record
from exporter.ledger.store import Ledger
from exporter.ledger.tables import APPLICATION_ID, SCHEMA_VERSION
from exporter.metrics.series import Limits, Plan, StoredSeries
from exporter.metrics.totals import Totals
from tests.harness.examples import examples
from tests.harness.ledgers import TOOL, changes, refused

SCHEMA_4 = Path(__file__).parents[1] / "golden/state/schema-4.sql"
"""A state file as the last version before schema 5 wrote it."""
SCHEMA_3 = Path(__file__).parents[1] / "golden/state/schema-3.sql"
"""A state file as the last version before schema 4 wrote it: runs that are not settled, and calls that wait."""


@pytest.fixture
def state(tmp_path):
    """A state file with something in it, closed."""
    path = tmp_path / "state.db"
    ledger = Ledger(path)
    for number in range(40):
        ledger.commit(changes(f"t{number}", cursor=("db", {"cutoff": number})))
    ledger.close()
    return path


def test_what_is_committed_is_there_after_a_restart(tmp_path):
    path = tmp_path / "state.db"
    ledger = Ledger(path)
    assert ledger.durable
    done = changes(
        activity={("session", -5): 100},
        sessions={-5: SessionPart(1, 9, 2)},
        cursor=("db", {"cutoff": 7, "sentinels": ["t"]}),
    )
    ledger.commit(done)
    ledger.expose([(TOOL, ("os", "r", "a", "é\u202e🙂"))])
    ledger.close()
    ledger.close()

    again = Ledger(path)
    series, admitted = again.load()
    assert {stored.metric: stored.shown for stored in series} == {TOOL: True, "agentos_run_llm_calls": False}
    assert {stored.metric: (stored.value, stored.counts, stored.total) for stored in series} == {
        stored.metric: (stored.value, stored.counts, stored.total) for stored in done.plan.series.values()
    }
    assert set(admitted) == set(done.plan.admitted)
    assert again.cursors("os") == {"db": {"cutoff": 7, "sentinels": ["t"]}}
    assert again.cursors("other") == {}
    assert again.records("os", ["t", "u"]) == {"t": list(done.records)}
    assert again.known_traces("os", "db", ["t"])["t"].next_ask == 40
    assert again.active([100]) == {("os", "session"): (1,)}
    assert again.active([101]) == {}
    assert again.idle_sessions("os", 10) == {-5: SessionPart(1, 9, 2)}
    assert again.count_open() == {"os": 1}
    assert again.any_trace("os")
    assert not again.any_trace("other")
    again.close()


def test_totals_of_any_size_stay_exact():
    ledger, totals = Ledger(None), Totals(Limits(), zero_hold=0)
    for _ in range(3):
        plan = changes(totals=totals, amount=2**70 + 1)
        ledger.commit(plan)
        totals.apply(plan.plan)
    series, _ = ledger.load()
    assert next(stored.value for stored in series if stored.metric == TOOL) == 3 * (2**70 + 1)


@pytest.mark.parametrize("many", [0, 1, 2, 3, 52, 53, 120, 1000])
def test_as_much_as_a_batch_holds_is_written_and_written_over(many):
    ledger = Ledger(None)
    for round_ in (1, 2):
        records = [
            Record(
                f"t{n}",
                f"db{n % 2}",
                TraceState(n % 5),
                *(1000 * place + n + round_ for place in range(8)),
                hidden=n,
                root_kind=f"kind{n}",
                reported=n % 3 == round_,
                runs={n: RunRecord("agent", f"r{n}", 1, 2, 3**50 + round_, 4, settled=n % 2 == 1)} if n % 7 else {},
                spans={n, 2**64 - 1 - n * round_},
            )
            for n in range(many)
        ]
        plan = Plan(admitted=[("model", f"m{n}") for n in range(many)])
        for n in range(many):
            labels = ("os", "r", "a", f"tool{n}")
            plan.series[TOOL, labels] = StoredSeries(TOOL, labels, value=n * 2**70 + round_, shown=n % 2 == round_ - 1)
        ledger.commit(
            Changes(
                "os",
                records,
                plan,
                activity={("session", -n): (100 + n) // round_ for n in range(many)},
                sessions={-n: SessionPart(50 - round_, 50 + round_, n, 10**20) for n in range(many)},
                spending={(f"budget{n}", n): 10**20 for n in range(many)},
            )
        )
        found = ledger.records("os", [one.id for one in records])
        assert [one for record in records for one in found[record.id]] == records
        assert [type(one.reported) for (one,) in found.values()] == [bool] * many
        series, admitted = ledger.load()
        # What was shown first stays: only `expose` changes it.
        assert {(stored.labels[3], stored.value, stored.shown) for stored in series} == {
            (f"tool{n}", n * 2**70 + round_, n % 2 == 0) for n in range(many)
        }
        assert sorted(admitted) == sorted(plan.admitted)
        # The latest activity stays.
        assert ledger.active([0, 102]) == ({("os", "session"): (many, max(0, many - 2))} if many else {})
        assert ledger.idle_sessions("os", 100, limit=2000) == {
            -n: SessionPart(50 - round_, 50 + round_, n * round_, round_ * 10**20) for n in range(many)
        }
        assert ledger.spent(0) == {(f"budget{n}", n): round_ * 10**20 for n in range(many)}


def test_a_part_of_a_session_is_left_as_it_was_when_it_is_added():
    ledger = Ledger(None)
    part = SessionPart(5, 6, 1, 2)
    for _ in range(2):
        ledger.commit(Changes("os", sessions={1: part}))
    assert part == SessionPart(5, 6, 1, 2)
    assert ledger.idle_sessions("os", 10) == {1: SessionPart(5, 6, 2, 4)}


def test_sentinels_are_the_newest_that_can_be_asked_for():
    ledger = Ledger(None)
    records = [
        Record(
            f"t{n}", f"db{n % 2}", TraceState(n * 7 % 5), 1, 1, 0, end=n * 37 % 101, changed=0, misses=n // 11 % 3 % 2
        )
        for n in range(101)
    ]
    ledger.commit(Changes("os", records))
    ledger.commit(Changes("other", [Record("x", "db1", TraceState.SETTLED, 1, 1, 0, 1000, 0)]))
    for ages in ([], [2**62, 60, 60], [100, 99, 98, 50, 1, 0, -1], [3, 90]):
        expected = []
        for age in ages:
            fit = [
                record
                for record in records
                if record.db == "db1"
                and record.state is not TraceState.IGNORED
                and not record.misses
                and record.end <= age
            ]
            rest = [one for one in fit if one.id not in expected]
            expected += [max(rest, key=lambda one: one.end).id] if rest else []
        assert ledger.sentinels("os", "db1", ages) == expected


def test_sentinels_are_found_without_going_through_all_traces(tmp_path):
    ledger = Ledger(tmp_path / "state.db")
    asked = []
    sa.event.listen(ledger._place.engine, "before_cursor_execute", lambda *told: asked.append(told[2:4]))
    ledger.sentinels("os", "db", [5])
    ((text, values),) = [one for one in asked if one[0].startswith("SELECT")]
    with ledger.transaction() as connection:
        plan = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values)]
    searches = [line for line in plan if "traces" in line]
    assert len(searches) == len(TraceState) - 1
    assert {line.partition(" USING ")[2] for line in searches} == {
        "INDEX traces_ended (agentos=? AND db=? AND state=? AND end<?)"
    }
    ledger.close()


def test_many_ids_in_one_question():
    ledger = Ledger(None)
    for number in range(3):
        ledger.commit(changes(f"t{number}"))
    ids = [f"t{number}" for number in range(5000)]
    assert ledger.known_traces("os", "db", ids).keys() == {"t0", "t1", "t2"}
    assert ledger.records("os", iter(ids)).keys() == {"t0", "t1", "t2"}


# Files that are refused, and left as they are


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "empty"),
        (b"agentos:\n  - name: prod\n", "not a state file"),
        (b"\0" * 4096, "not a state file"),
        (b"SQLite format 3", "not a state file"),
        (b"SQLite format 3\0", "truncated"),
        (b"SQLite format 3\0" + b"\xff" * 4080, "broken|truncated"),
    ],
)
def test_files_of_others_are_refused(tmp_path, content, match):
    path = tmp_path / "state.db"
    path.write_bytes(content)
    refused(path, match)
    refused(path, match)  # nor does the refusal leave a lock behind


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_database_of_others_is_refused_and_not_even_checkpointed(tmp_path, mode):
    path = tmp_path / "state.db"
    theirs = sqlite3.connect(path)
    theirs.execute(f"PRAGMA journal_mode = {mode}")
    theirs.execute("CREATE TABLE precious (x)")
    theirs.execute("INSERT INTO precious VALUES (1)")
    theirs.commit()
    refused(path, "not a state file of agentos-exporter")
    theirs.close()
    refused(path, "not a state file of agentos-exporter")
    with sqlite3.connect(path) as again:
        assert again.execute("SELECT x FROM precious").fetchall() == [(1,)]
    again.close()


@pytest.mark.parametrize("part", [1, 16, 50, 99, 100, 101, 512, 1000, 4095, 4096, 4097, 8192, 12288, 0.5, -4096, -1])
def test_a_truncated_file_is_refused(state, part):
    whole = state.read_bytes()
    at = int(len(whole) * part) if isinstance(part, float) else part
    state.write_bytes(whole[:at])
    refused(state, "truncated|broken|not a state file")


@examples(40)
@given(st.data())
def test_a_file_with_damage_is_refused_or_read_but_never_crashes(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damage") / "state.db"
    ledger = Ledger(path)
    ledger.commit(changes(cursor=("db", {"cutoff": 1})))
    ledger.close()
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        ledger = Ledger(path)
    except StateError:
        assert path.read_bytes() == content
        return
    try:
        ledger.load()
        ledger.cursors("os")
        ledger.records("os", ["t"])
    except StateError:
        pass
    finally:
        ledger.close()


def test_a_file_of_a_later_schema_is_refused(state):
    with sqlite3.connect(state) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    assert "upgrade" in refused(state, "later schema")


def test_a_state_file_without_one_of_its_tables_is_refused(state):
    with sqlite3.connect(state) as connection:
        connection.execute("DROP TABLE series")
    connection.close()
    with pytest.raises(StateRefused, match="table series is missing"):
        Ledger(state)


def test_a_first_start_that_was_killed_half_way_is_no_obstacle(tmp_path):
    """SQLite writes the header when WAL is switched on, before anything of ours is in the file."""
    path = tmp_path / "state.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    Ledger(path).close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    connection.close()


def test_a_state_knows_since_when_it_counts(state, tmp_path):
    ledger = Ledger(state)
    assert ledger.created == 0
    ledger.date(1_000)
    assert ledger.created == 1_000
    ledger.close()

    again = Ledger(state)
    again.date(2_000)
    assert again.created == 1_000

    target = Ledger(tmp_path / "copy.db")
    copy(again, target)
    target.date(3_000)
    assert target.created == 1_000
    for each in (again, target):
        each.close()


def test_a_state_file_of_schema_3_goes_on_with_all_it_holds(tmp_path):
    path = tmp_path / "state.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(SCHEMA_3.read_text())
    connection.close()
    ledger = Ledger(path)
    assert ledger.begun_anew == []
    series, admitted = ledger.load()
    values = {(stored.metric, *stored.labels): stored.value or (stored.counts, stored.total) for stored in series}
    assert values["agentos_llm_calls_total", "os", "Agent", "Agent", "openai", "gpt-5.4"] == 3
    assert values["agentos_run_duration_seconds", "os", "agent", "Agent"] == ((*[0] * 6, 3, *[0] * 9), 27_000_000)
    assert len(values) == 15
    assert {stored.metric for stored in series if stored.shown} == {"agentos_runs_total"}
    assert ("model", "claude-sonnet-4-5") in admitted
    records = ledger.records("os", ["t1", "t2", "t9"])
    end = records["t1"][0].end
    assert records["t1"][0].runs == {101: RunRecord("agent", "Agent", llm_calls=2, waiting=2, start=end)}
    end = records["t9"][0].end
    assert records["t9"][0].runs == {101: RunRecord("agent", "Agent", llm_calls=1, waiting=1, settled=True, start=end)}
    assert records["t2"][0].spans == {101, 102}
    calls = {(call.trace, call.span): call for call in ledger.waiting("os")}
    assert set(calls) == {("t1", 102), ("t1", 103), ("t2", 102), ("t9", 102)}
    assert calls["t1", 103] == WaitingCall(
        *(103, "t1", "db", "run1", "s", "", 101, -1852803795767038242, "u", "Agent", "Agent"),
        *("openai", "gpt-5.4", "OpenAIChat", 200, 20, 1795000001000000, 1795000002000000, 1795000000000000),
    )
    ledger.commit(changes("new"))
    ledger.close()
    again = Ledger(path)
    assert again.begun_anew == []
    assert len(again.waiting("os")) == 4
    again.close()


def test_a_state_file_of_schema_4_goes_on_with_all_it_holds(tmp_path):
    path = tmp_path / "state.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(SCHEMA_4.read_text())
    connection.close()
    ledger, totals = Ledger(path), Totals(Limits(), zero_hold=0)
    assert ledger.begun_anew == []
    totals.restore(*ledger.load())
    assert {(one.metric, one.value or one.total, one.shown) for one in totals.stored()} == {
        (TOOL, 1, True),
        ("agentos_run_llm_calls", 3, False),
    }
    ledger.commit(changes("t2", totals=totals))
    series, admitted = ledger.load()
    assert {stored.metric: stored.value or stored.total for stored in series} == {TOOL: 2, "agentos_run_llm_calls": 6}
    assert len(admitted) == len(set(admitted)) == 3
    assert ledger.records("os", ["t1", "t2"]).keys() == {"t1", "t2"}
    assert ledger.cursors("os") == {"db": {"x": 1}}
    ledger.close()


CALLS = "agentos_llm_calls_total"


def test_series_of_schema_3_that_do_not_fit_the_catalog_begin_anew(tmp_path):
    path = tmp_path / "state.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(SCHEMA_3.read_text())
        connection.execute("""UPDATE series SET labels = '["os"]' WHERE labels LIKE '%gpt%' AND metric = ?""", (CALLS,))
    connection.close()
    ledger = Ledger(path)
    assert ledger.begun_anew == [CALLS]
    series, _ = ledger.load()
    assert CALLS not in {stored.metric for stored in series}
    assert len(series) == 13
    ledger.close()
    again = Ledger(path)
    assert again.begun_anew == []
    again.close()


@pytest.mark.parametrize(
    "change",
    [
        """'$.labels[2]', 'crew'""",
        """'$.labels[4]', 'sixth'""",
        """'$.unit', 1000""",
        """'$.buckets[0]', 7""",
    ],
)
def test_a_metric_with_other_labels_buckets_or_unit_begins_anew_and_no_other_does(state, change):
    with sqlite3.connect(state) as connection:
        connection.execute(f"UPDATE layouts SET layout = json_set(layout, {change}) WHERE metric = ?", (TOOL,))
    connection.close()
    ledger = Ledger(state)
    assert ledger.begun_anew == [TOOL]
    assert {series.metric for series in ledger.load()[0]} == {"agentos_run_llm_calls"}
    ledger.commit(changes("again"))
    ledger.close()
    again = Ledger(state)
    assert again.begun_anew == []
    assert next(series.value for series in again.load()[0] if series.metric == TOOL) == 1
    again.close()


def test_a_layout_that_cannot_be_read_is_refused(state):
    with sqlite3.connect(state) as connection:
        connection.execute("UPDATE layouts SET layout = '{'")
    connection.close()
    with pytest.raises(StateRefused, match="broken: the layout of a total"):
        Ledger(state)


def test_a_read_only_file_is_refused(state):
    state.chmod(0o444)
    refused(state, "read-only")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(StateRefused, match="there is no folder"):
        Ledger(tmp_path / "missing" / "state.db")
    assert not (tmp_path / "missing").exists()


def test_a_folder_is_no_file(tmp_path):
    path = tmp_path / "state.db"
    path.mkdir()
    with pytest.raises(StateRefused, match="not a regular file"):
        Ledger(path)


GARBAGE = {
    "series-value": "UPDATE series SET value = 'many' WHERE metric LIKE '%calls_total'",
    "series-shape": "UPDATE series SET value = '[[1, 2], 3]' WHERE value LIKE '[%'",
    "series-number": "UPDATE series SET value = '5' WHERE value LIKE '[%'",
    "series-infinite": "UPDATE series SET value = replace(value, ', 3]', ', Infinity]') WHERE value LIKE '[%'",
    "series-labels": "UPDATE series SET labels = '[\"os\"]' WHERE metric LIKE '%calls_total'",
    "series-labels-number": "UPDATE series SET labels = '5' WHERE metric LIKE '%calls_total'",
    "series-blob": "UPDATE series SET value = x'ff' WHERE metric LIKE '%calls_total'",
    "series-deep": f"UPDATE series SET value = '{'[' * 100_000}' WHERE value LIKE '[%'",
    "cursor": "UPDATE cursors SET data = '{'",
    "cursor-number": "UPDATE cursors SET data = '5'",
    "cursor-list": "UPDATE cursors SET data = '[1]'",
    "trace-state": "UPDATE traces SET state = 99",
    "trace-runs": "UPDATE traces SET runs = '[[1]]'",
    "trace-runs-number": """UPDATE traces SET runs = '{"1": {"root_kind": "agent", "root": 5}}'""",
    "trace-runs-text": "UPDATE traces SET runs = 'x'",
    "trace-spans": "UPDATE traces SET spans = x'0102'",
    "trace-spans-text": "UPDATE traces SET spans = 'text'",
}


@pytest.mark.parametrize("statement", GARBAGE.values(), ids=GARBAGE)
def test_garbage_in_rows_is_refused_when_it_is_met(state, statement):
    with sqlite3.connect(state) as connection:
        assert connection.execute(statement).rowcount > 0
    connection.close()
    ledger = Ledger(state)

    def read_all():
        ledger.load()
        ledger.cursors("os")
        ledger.known_traces("os", "db", ["t0"])
        ledger.records("os", ["t0"])

    with pytest.raises(StateRefused, match="broken"):
        read_all()
    ledger.close()


# A disk that is full


def test_a_full_disk_commits_nothing_and_is_recovered_from(tmp_path):
    ledger = Ledger(tmp_path / "state.db")
    ledger.commit(changes("before"))
    with ledger._place.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    big = changes("big", spans=range(100_000), amount=7)
    with pytest.raises(StateError, match="the disk is full") as caught:
        ledger.commit(big)
    assert not isinstance(caught.value, StateRefused)
    assert ledger.records("os", ["before", "big"]).keys() == {"before"}
    assert next(series.value for series in ledger.load()[0] if series.metric == TOOL) == 1
    with ledger._place.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1073741823")
    ledger.commit(big)
    ledger.close()
    again = Ledger(tmp_path / "state.db")
    assert len(again.records("os", ["big"])["big"][0].spans) == 100_000
    again.close()


def test_a_disk_that_is_full_at_the_start_promises_no_polling(tmp_path, monkeypatch):
    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(ledger_module, "take_up_layouts", full)
    with pytest.raises(StateError, match=r"the disk is full; free some space first$"):
        Ledger(tmp_path / "state.db")


def test_exposing_is_never_undone_by_a_commit():
    ledger, totals = Ledger(None), Totals(Limits(), zero_hold=0)
    first = changes(totals=totals)
    ledger.commit(first)
    totals.apply(first.plan)
    ledger.expose([key for key in first.plan.series if key[0] == TOOL])
    ledger.commit(changes(totals=totals))
    assert {series.metric: (series.shown, series.value) for series in ledger.load()[0] if series.metric == TOOL} == {
        TOOL: (True, 2)
    }


def test_the_file_says_whose_it_is(state):
    with sqlite3.connect(state) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        (labels,) = connection.execute("SELECT labels FROM series WHERE metric = ?", (TOOL,)).fetchone()
    connection.close()
    assert json.loads(labels) == ["os", "r", "a", "é\u202e🙂"]
