"""A state in a real PostgreSQL: exact through restarts, kills, broken connections, failover, and a second daemon."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.cli.main import main
from exporter.core.errors import StateError, StateRefused
from exporter.ledger import coverage, daily, looking
from exporter.ledger.leases import FLEET, Leases, share
from exporter.ledger.postgres import StateDatabase
from exporter.ledger.records import Changes
from exporter.ledger.store import Ledger
from exporter.metrics.series import Limits
from exporter.metrics.totals import Totals
from tests.harness.ledgers import TOOL, changes
from tests.harness.postgres import Postgres

pytestmark = pytest.mark.postgres

LEASE = 600.0
Open = Callable[..., Ledger]


@pytest.fixture
def opened(postgres: Postgres) -> Iterator[Open]:
    """Opens ledgers in one schema: by default for a process alone, else for one that is to be elected."""
    url = postgres.url("state")
    with contextlib.ExitStack() as stack:

        def connect(connection: type[psycopg.Connection] = psycopg.Connection) -> psycopg.Connection:
            return connection.connect(url, prepare_threshold=None)

        def open_one(holder: str = "one", *, lease: float = LEASE, whole: bool = True, **options) -> Ledger:
            leases = options.pop("leases", None) or Leases(holder, lease)
            options = {"schema": "agentos_exporter", "whole": whole, "connect": connect} | options
            ledger = Ledger(StateDatabase("postgresql://here/state", leases=leases, **options))
            stack.callback(ledger.close)
            return ledger

        yield open_one


def everything(ledger: Ledger) -> object:
    return (
        *(sorted(rows, key=repr) for rows in ledger.load()),
        ledger.records("os", ["t", "u", "long"]),
        ledger.cursors("os"),
        ledger.waiting("os"),
        ledger.budgets(),
        ledger.spent(0),
        ledger.active([0, 100]),
        ledger.idle_sessions("os", 10**18),
        ledger.user_key(),
    )


def filled(ledger: Ledger) -> None:
    totals = Totals(Limits(), zero_hold=0)
    more = {"activity": {("session", -5): 100}, "cursor": ("db", {"x": 1}), "spending": {("b", 7): 10**30}}
    for trace in ("t", "u"):
        done = changes(trace, totals=totals, **more)
        ledger.commit(done)
        totals.apply(done.plan)
    ledger.expose([key for key in done.plan.series if key[0] == TOOL])
    ledger.keep_budgets({"b": ("definition", 3)})


def test_what_is_committed_is_there_after_a_restart(opened: Open) -> None:
    ledger = opened()
    filled(ledger)
    known = everything(ledger)
    ledger.close()
    again = opened("another")
    assert everything(again) == known
    assert {(series.metric, series.value, series.shown) for series in again.load()[0] if series.metric == TOOL} == {
        (TOOL, 2, True)
    }


def test_labels_of_any_length(opened: Open) -> None:
    """An index of PostgreSQL holds 2,704 bytes."""
    ledger, totals = opened(), Totals(Limits(), zero_hold=0)
    long = changes("long", totals=totals)
    long.plan.admitted.append(("tool", "界" * 4000))
    (key,) = [key for key in long.plan.series if key[0] == TOOL]
    long.plan.series[key] = dataclasses.replace(long.plan.series[key], labels=("os", "r", "a", "界" * 4000))
    for _ in range(2):
        ledger.commit(long)
    ledger.expose([(TOOL, ("os", "r", "a", "界" * 4000))])
    assert [series.shown for series in ledger.load()[0] if series.metric == TOOL] == [True]


def test_labels_that_one_leader_drops_and_the_next_does_not(opened: Open) -> None:
    for holder, dropped in (("one", {"root", "tool"}), ("two", set()), ("three", {"agent"})):
        ledger, totals = opened(holder), Totals(Limits(), zero_hold=0, dropped={TOOL: frozenset(dropped)})
        totals.restore(*ledger.load())
        for trace in "tu":
            done = changes(f"{holder}-{trace}", totals=totals)
            ledger.commit(done)
            totals.apply(done.plan)
        ledger.close()
    found = {
        series.labels[:3]: (series.value, bool(series.labels[3]))
        for series in opened("last").load()[0]
        if series.metric == TOOL
    }
    assert found == {("os", "", "a"): (2, False), ("os", "r", "a"): (2, True), ("os", "r", ""): (2, True)}


def test_there_and_back(opened: Open, postgres: Postgres, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = Ledger(tmp_path / "first.db")
    filled(first)
    known = everything(first)
    first.close()
    url = postgres.url("copies")
    assert main(["state", "copy", str(tmp_path / "first.db"), url]) == 0
    assert "series       2\n" in capsys.readouterr().out
    assert main(["state", "copy", str(tmp_path / "first.db"), url]) == 1
    assert "is not empty" in capsys.readouterr().err
    assert main(["state", "copy", url, str(tmp_path / "second.db")]) == 0
    second = Ledger(tmp_path / "second.db")
    assert everything(second) == known
    second.close()
    assert main(["state", "copy", str(tmp_path / "nowhere.db"), url]) == 1
    assert "there is no file" in capsys.readouterr().err
    assert main(["state", "copy", postgres.url("empty"), str(tmp_path / "third.db")]) == 1
    assert "there is no state" in capsys.readouterr().err


def test_a_schema_of_somebody_else_is_left_alone(opened: Open, postgres: Postgres) -> None:
    postgres.url("state")
    for name, columns in (("things", "x int"), ("meta", "a int"), ("meta", "key text, value text")):
        postgres.sql(
            f"DROP SCHEMA IF EXISTS theirs CASCADE; CREATE SCHEMA theirs; CREATE TABLE theirs.{name} ({columns})",
            "state",
        )
        with pytest.raises(StateRefused, match="tables of somebody else"):
            opened(schema="theirs")
        assert postgres.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'theirs'", "state").strip() == "1"


def test_a_later_schema_version_is_refused(opened: Open, postgres: Postgres) -> None:
    opened().close()
    postgres.sql("UPDATE agentos_exporter.meta SET value = '99' WHERE key = 'version'", "state")
    with pytest.raises(StateRefused, match="of a later schema \\(99\\)"):
        opened()


# Leases


def expire(postgres: Postgres, name: str = "%") -> None:
    postgres.sql(f"UPDATE agentos_exporter.lease SET until = now() - interval '1 s' WHERE name LIKE '{name}'", "state")


def test_a_state_that_is_one_s_alone_is_nobody_else_s(opened: Open) -> None:
    opened("one, process 1")
    for whole in (True, False):
        with pytest.raises(StateRefused, match=r"another agentos-exporter \(one, process 1\) is using it"):
            opened("two", whole=whole)


def test_what_replicas_use_is_nobody_s_alone(opened: Open) -> None:
    one = opened("one, process 1", whole=False, lease=600)
    one.elect(["os"])
    with pytest.raises(StateRefused, match=r"another agentos-exporter \(one, process 1\) is using it"):
        opened("two")
    one.close()
    opened("two")


def test_replicas_share_evenly_and_one_that_goes_leaves_its_part_to_the_others(opened: Open) -> None:
    names = [f"os{number}" for number in range(10)]
    replicas = {name: opened(name, whole=False, lease=600) for name in "abc"}
    for ledger in [*replicas.values()] * 3:  # the first has all until the others are there
        ledger.release([*ledger.leases.held])
        ledger.elect(names)

    def led() -> dict[str, set[str]]:
        return {name: set(ledger.leases.held) for name, ledger in replicas.items()}

    assert [len(some) for some in led().values()] == [4, 3, 3]
    assert set().union(*led().values()) == set(names)
    before = led()
    replicas.pop("a").close()
    votes = [ledger.elect(names) for ledger in replicas.values()]
    assert [vote.share for vote in votes] == [5, 5]
    assert all(before[name] < led()[name] for name in "bc")
    assert votes[-1].leaders == {name: holder for holder, some in led().items() for name in some}
    # One that comes gets what others hand over.
    late = opened("late", whole=False, lease=600)
    assert late.elect(names).share == 3
    assert late.leases.held == {}
    replicas["b"].release(["os1"])
    late.elect(names)
    assert set(late.leases.held) <= {"os1"}


@given(st.integers(0, 300), st.integers(1, 9), st.data())
def test_shares(count: int, replicas: int, data: st.DataObject) -> None:
    """All is shared, evenly; when one goes, nobody has less."""
    names = sorted("abcdefghi"[:replicas])
    shares = {name: share(count, names, name) for name in names}
    assert sum(shares.values()) == count
    assert max(shares.values()) - min(shares.values()) <= 1
    gone = data.draw(st.sampled_from(names))
    left = [name for name in names if name != gone]
    assert all(share(count, left, name) >= shares[name] for name in left)
    assert share(count, left, gone) == 0


def test_who_lost_a_lease_commits_nothing_any_more(opened: Open, postgres: Postgres) -> None:
    old, new = opened("old", whole=False), opened("new", whole=False)
    old.elect(["os"])
    old.commit(changes("t"))
    term, exposed = old.leases.term, list(changes().plan.series)
    postgres.sql("DELETE FROM agentos_exporter.replica", "state")  # as if its heart had stopped
    expire(postgres)
    new.elect(["os"])
    assert "os" in new.leases.held
    for write in (
        lambda: old.commit(changes("u")),
        lambda: old.expose(exposed),
        lambda: old.prune("os", "db", created_before=0, active_before=0),
    ):
        with pytest.raises(StateRefused, match="its lease is lost"):
            write()
    assert old.leases.term > term
    new.commit(changes("u"))
    old.close()  # which must not end the leases of the new one
    assert opened("third", whole=False).elect(["os"]).leaders == {"os": "new"}
    assert new.records("os", ["t", "u"]).keys() == {"t", "u"}


def test_a_lease_grows_with_each_vote_and_each_commit(opened: Open, postgres: Postgres) -> None:
    ledger, ends = opened(whole=False, lease=3600.0), []
    until = "SELECT until FROM agentos_exporter.lease WHERE name = 'agentos:os'"
    ledger.elect(["os"])
    for alive in (lambda: ledger.elect(["os"]), lambda: ledger.commit(changes("t"))):
        ends.append(postgres.sql(until, "state"))
        alive()
    ends.append(postgres.sql(until, "state"))
    assert ends == sorted(set(ends))
    ledger.close()
    assert "os" in opened("the next one waits for nobody", whole=False).elect(["os"]).leaders


def test_leases_run_out_by_the_clock_of_who_holds_them(opened: Open) -> None:
    now = [0.0]
    ledger = opened(whole=False, leases=Leases("one", 10.0, lambda: now[0]))
    ledger.elect(["os", FLEET])
    first = ledger.leases.held
    term = ledger.leases.term
    now[0] = 9.9
    assert ledger.leases.held == first
    ledger.elect(["os"])
    now[0] = 19.8
    assert ledger.leases.held == first
    assert ledger.leases.term == term
    now[0] = 19.9
    assert ledger.leases.held == {}
    assert ledger.leases.term == term + 1


def test_another_version_is_not_voted_for(opened: Open, postgres: Postgres) -> None:
    ledger = opened(whole=False, lease=600)
    ledger.elect(["os"])
    postgres.sql("UPDATE agentos_exporter.meta SET value = '99' WHERE key = 'mark'", "state")
    with pytest.raises(StateRefused, match="another version of agentos-exporter has changed it"):
        ledger.elect(["os"])


def test_an_upgrade_takes_the_leases_of_the_version_before(opened: Open, postgres: Postgres) -> None:
    old = opened("old", whole=False, lease=600)
    old.elect(["os"])
    old.commit(changes("t"))
    for statement in (
        "UPDATE meta SET value = '5' WHERE key = 'version'",
        "UPDATE meta SET value = 'as of version 5' WHERE key = 'mark'",
        "ALTER TABLE series DROP COLUMN agentos",
    ):
        postgres.sql(f"SET search_path TO agentos_exporter; {statement}", "state")
    new = opened("new", whole=False, lease=600)
    with pytest.raises(StateRefused, match="its lease is lost"):
        old.commit(changes("u"))
    new.elect(["os"])
    assert {series.metric: series.value for series in new.load(["os"])[0] if series.metric == TOOL} == {TOOL: 1}
    assert new.load(["another"])[0] == []
    new.commit(changes("u"))


def test_a_version_with_other_series_takes_the_leases_as_well(opened: Open, postgres: Postgres) -> None:
    """What the one before would write has other labels: it could not be read any more."""
    old = opened("old", whole=False, lease=600)
    old.elect(["os"])
    old.commit(changes("t"))
    postgres.sql("UPDATE agentos_exporter.meta SET value = 'with other labels' WHERE key = 'mark'", "state")
    new = opened("new", whole=False, lease=600)
    with pytest.raises(StateRefused, match="its lease is lost"):
        old.commit(changes("u"))
    new.elect(["os"])
    assert "os" in new.leases.held


def test_a_copy_fences_who_hangs(opened: Open, postgres: Postgres) -> None:
    hung = opened("hung", whole=False, lease=600)
    hung.elect(["os"])
    hung.commit(changes("t"))
    expire(postgres)
    opened("copy")
    with pytest.raises(StateRefused, match="its lease is lost"):
        hung.commit(changes("u"))


def test_who_wants_other_instances_takes_no_part_in_the_shares(opened: Open) -> None:
    one, two = (opened(name, whole=False, lease=600) for name in ("one", "two"))
    two.elect([FLEET])
    names = [f"os{number}" for number in range(9)]
    assert one.elect([*names, FLEET]).share == 10
    assert two.elect(names[5:]).share == 4
    assert {*one.leases.held} == {*names}
    one.close()
    two.elect(names[5:])
    assert {*two.leases.held} - {FLEET} == {*names[5:]}


def test_a_database_that_hangs_is_broken_off(opened: Open, postgres: Postgres) -> None:
    ledger = opened(whole=False, lease=600)
    ledger.elect(["os"])
    with postgres.frozen(), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ledger.elect, ["os"])
        while not ledger._guard.locked():
            time.sleep(0.01)
        ledger.break_off(for_good=True)
        with pytest.raises(StateError):
            waiting.result()
        with pytest.raises(StateError, match="the daemon ends"):
            ledger.elect(["os"])
        ledger.close()


def test_several_that_start_at_once_make_the_schema_once(opened: Open) -> None:
    with ThreadPoolExecutor(4) as pool:
        ledgers = list(pool.map(lambda number: opened(f"replica {number}", whole=False), range(4)))
    assert [ledger.cursors("os") for ledger in ledgers] == [{}] * 4


def test_two_leaders_charge_one_budget(opened: Open) -> None:
    one, two = (opened(name, whole=False, lease=600) for name in ("one", "two"))
    one.elect(["os"])
    two.elect(["so"])
    budgets = {"b": ("definition", 0), "c": ("definition", 0)}
    for ledger in (one, two):
        ledger.keep_budgets(budgets)

    def charge(ledger: Ledger) -> None:
        (name,) = ledger.leases.held
        for _ in range(50):
            spending = {("b", 7): 1, ("c", 7): 10**20, ("b", 9): 1}
            ledger.commit(Changes(name, spending=dict(sorted(spending.items(), reverse=ledger is one))))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(charge, (one, two)))
    assert one.spent(0) == {("b", 7): 100, ("b", 9): 100, ("c", 7): 100 * 10**20}
    # With another definition it is another budget: who has the old one charges nothing to it.
    two.keep_budgets(budgets | {"b": ("new", 0)})
    with pytest.raises(StateRefused, match="another replica has another definition of budget b"):
        charge(one)
    charge(two)
    assert two.spent(0)["b", 7] == 50


# Connections that break


class Breaks(psycopg.Connection):
    """A connection that breaks at a COMMIT: before it is sent, or when it is done and the answer is lost."""

    when = ""

    def commit(self) -> None:
        when, type(self).when = self.when, ""
        if when == "after":
            super().commit()
        if when:
            self.close()
            raise psycopg.OperationalError("the connection is lost")
        super().commit()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_commit_whose_answer_is_lost(opened: Open, postgres: Postgres, when: str) -> None:
    url = postgres.url("state")
    ledger = opened(connect=lambda: Breaks.connect(url, prepare_threshold=None))
    ledger.commit(changes("t"))
    Breaks.when = when
    if when == "after":
        ledger.commit(changes("u"))
    else:
        with pytest.raises(StateError, match="nothing was lost") as caught:
            ledger.commit(changes("u"))
        assert not isinstance(caught.value, StateRefused)
    assert ledger.records("os", ["t", "u"]).keys() == ({"t", "u"} if when == "after" else {"t"})
    ledger.commit(changes("v"))
    assert ledger.records("os", ["v"])


def test_where_it_cannot_be_told_whether_a_commit_was_done_the_lease_ends(opened: Open, postgres: Postgres) -> None:
    url, down = postgres.url("state"), []

    def connect() -> psycopg.Connection:
        if down:
            raise ValueError("as of a password that cannot be read")
        return Breaks.connect(url, prepare_threshold=None)

    ledger = opened(connect=connect, whole=False, lease=600)
    ledger.elect(["os"])
    ledger.commit(changes("t"))
    Breaks.when = "after"
    down.append(True)
    with pytest.raises(StateRefused, match="whether the last batch was committed cannot be told"):
        ledger.commit(changes("u"))
    down.clear()
    with pytest.raises(StateRefused, match="its lease is lost"):
        ledger.commit(changes("v"))
    expire(postgres)
    ledger.elect(["os"])
    assert ledger.records("os", ["t", "u", "v"]).keys() == {"t", "u"}
    ledger.commit(changes("v"))


def test_commits_that_are_gone_cost_the_lease(opened: Open, postgres: Postgres) -> None:
    """As after a failover to a standby that lacked them: what memory counted would be written over them."""
    ledger = opened(whole=False, lease=600)
    ledger.elect(["os"])
    for trace in ("t", "u"):
        ledger.commit(changes(trace))
    postgres.sql("DELETE FROM agentos_exporter.traces WHERE id = 'u'", "state")
    postgres.sql("UPDATE agentos_exporter.lease SET commits = commits - 1 WHERE name = 'agentos:os'", "state")
    other = opened("vote", whole=False, lease=600)
    assert "os" in other.elect(["os"]).leaders
    before = ledger.leases.held["os"]
    with pytest.raises(StateRefused, match="or commits are gone"):
        ledger.commit(changes("u"))
    expire(postgres)
    other.close()
    ledger.elect(["os"])
    assert ledger.leases.held["os"] is not before
    ledger.commit(changes("u"))


def test_a_vote_notices_commits_that_are_gone(opened: Open, postgres: Postgres) -> None:
    ledger = opened(whole=False, lease=600)
    ledger.elect(["os"])
    ledger.commit(changes("t"))
    postgres.sql("UPDATE agentos_exporter.lease SET commits = 0", "state")
    term = ledger.leases.term
    ledger.elect(["os"])
    assert ledger.leases.held == {}
    assert ledger.leases.term == term + 1


def test_an_owner_that_hangs_in_a_transaction_is_told_of(opened: Open, postgres: Postgres) -> None:
    opened().close()
    with psycopg.connect(postgres.url("state")) as hanging:
        hanging.execute("UPDATE agentos_exporter.lease SET holder = 'hanging'")
        with pytest.raises((StateRefused, StateError), match=r"is using it|lock timeout"):
            opened("two")


# Who reads beside it


def test_a_backfill_reads_what_is_counted_and_disturbs_nobody(opened: Open, postgres: Postgres) -> None:
    url, ledger = postgres.url("state"), opened()
    ledger.commit(changes(totals=Totals(Limits(), zero_hold=0), cursor=("db", {"floor": 5})))
    key = ledger.user_key()

    def look(agentos: str) -> coverage.Coverage:
        with looking.database(lambda: psycopg.connect(url), "postgresql://here/state", "agentos_exporter") as state:
            return coverage.read(state, agentos)

    found = look("os")
    assert (found.since, found.user_key) == (5, key)
    assert (TOOL, ("os", "r", "a", "é\u202e🙂")) in found.series
    assert ("tool", "é\u202e🙂") in found.admitted
    assert (look("another").since, look("another").series) == (None, ())
    ledger.commit(changes("u"))
    with looking.database(lambda: psycopg.connect(url), "postgresql://here/state", "agentos_exporter") as state:
        sums = daily.read(state, "os", dt.date(1970, 1, 1), dt.date(1970, 1, 2)).rows
    assert [(day_sum.day, day_sum.metric, day_sum.value) for day_sum in sums] == [(dt.date(1970, 1, 2), TOOL, 2)]
    with (
        pytest.raises(StateError, match="does not exist"),
        looking.database(lambda: psycopg.connect(url), "postgresql://here/state", "nobody"),
    ):
        pytest.fail("it was opened")
