"""A state in a real PostgreSQL: exact through restarts, kills, broken connections, failover, and a second daemon."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from exporter.cli.main import main
from exporter.core.errors import StateError, StateRefused
from exporter.ledger.postgres import StateDatabase
from exporter.ledger.store import Ledger
from exporter.metrics.totals import Limits, Totals
from tests.harness import load, truth
from tests.harness.agentos import RunningAgentOS
from tests.harness.exporter import RunningExporter, total
from tests.harness.kills import Watch
from tests.harness.ledgers import TOOL, changes
from tests.harness.postgres import Postgres

pytestmark = pytest.mark.postgres

LEASE = 1.0
Open = Callable[..., Ledger]


@pytest.fixture
def opened(postgres: Postgres) -> Iterator[Open]:
    """Opens ledgers in one schema, by default as a process that waits for nobody."""
    url = postgres.url("state")
    with contextlib.ExitStack() as stack:

        def connect(connection: type[psycopg.Connection] = psycopg.Connection) -> psycopg.Connection:
            return connection.connect(url, prepare_threshold=None)

        def open_one(holder: str = "one", *, patience: float = 0.0, **options) -> Ledger:
            options = {"schema": "agentos_exporter", "lease": LEASE, "connect": connect} | options
            ledger = Ledger(StateDatabase("postgresql://here/state", holder=holder, patience=patience, **options))
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
    assert {(one.metric, one.value, one.shown) for one in again.load()[0] if one.metric == TOOL} == {(TOOL, 2, True)}


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
    assert [one.shown for one in ledger.load()[0] if one.metric == TOOL] == [True]


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


# The lease


def test_a_second_process_is_refused_and_told_who_has_it(opened: Open) -> None:
    opened("one, process 1")
    with pytest.raises(StateRefused, match=r"another agentos-exporter \(one, process 1\) is using it"):
        opened("two")


def test_who_lost_the_lease_commits_nothing_any_more(opened: Open, postgres: Postgres) -> None:
    old = opened("old")
    old.commit(changes("t"))
    postgres.sql("UPDATE agentos_exporter.lease SET until = now() - interval '1 s'", "state")
    new = opened("new")
    for write in (lambda: old.commit(changes("u")), old.renew, lambda: old.keep_budgets({}), old.user_key):
        with pytest.raises(StateRefused, match="another agentos-exporter took it over"):
            write()
    new.commit(changes("u"))
    old.close()  # which must not end the lease of the new one
    with pytest.raises(StateRefused, match="new"):
        opened("third")
    assert new.records("os", ["t", "u"]).keys() == {"t", "u"}


def test_the_lease_grows_with_each_sign_of_life(opened: Open, postgres: Postgres) -> None:
    ledger, ends = opened(lease=3600.0), []
    for alive in (ledger.renew, lambda: ledger.commit(changes("t"))):
        ends.append(postgres.sql("SELECT until FROM agentos_exporter.lease", "state"))
        alive()
    ends.append(postgres.sql("SELECT until FROM agentos_exporter.lease", "state"))
    assert ends == sorted(set(ends))
    ledger.close()
    opened("the next one waits for nobody")


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


def test_where_it_cannot_be_told_whether_a_commit_was_done_the_process_ends(opened: Open, postgres: Postgres) -> None:
    url, down = postgres.url("state"), []

    def connect() -> psycopg.Connection:
        if down:
            raise ValueError("as of a password that cannot be read")
        return Breaks.connect(url, prepare_threshold=None)

    ledger = opened(connect=connect)
    ledger.commit(changes("t"))
    Breaks.when = "after"
    down.append(True)
    for _ in range(2):
        with pytest.raises(StateRefused, match="whether the last batch was committed cannot be told"):
            ledger.commit(changes("u"))
    down.clear()


def test_commits_that_are_gone_end_the_process(opened: Open, postgres: Postgres) -> None:
    """As after a failover to a standby that lacked them: what memory counted would be counted again."""
    ledger = opened()
    for trace in ("t", "u"):
        ledger.commit(changes(trace))
    postgres.sql("DELETE FROM agentos_exporter.traces WHERE id = 'u'", "state")
    postgres.sql("UPDATE agentos_exporter.lease SET commits = commits - 1", "state")
    with pytest.raises(StateRefused, match="commits are gone"):
        ledger.commit(changes("u"))


def test_an_owner_that_hangs_in_a_transaction_is_told_of(opened: Open, postgres: Postgres) -> None:
    opened().close()
    with psycopg.connect(postgres.url("state")) as hanging:
        hanging.execute("UPDATE agentos_exporter.lease SET holder = 'hanging'")
        with pytest.raises(StateRefused, match="is using it"):
            opened("two")


# Daemons


def settings(postgres: Postgres) -> dict[str, object]:
    return {"state": {"url": postgres.url("state"), "lease": f"{LEASE:.0f}s"}}


def test_kills(tmp_path: Path, postgres: Postgres) -> None:
    database = f"sqlite:{tmp_path / 'agno.db'}"
    with (
        RunningAgentOS(sys.executable, database) as agentos,
        RunningExporter(tmp_path, {"it": agentos.base_url}, **settings(postgres)) as exporter,
        Watch(f"{exporter.base_url}/metrics") as watch,
    ):
        for number in range(4):
            outcome = asyncio.run(load.drive(agentos.base_url, runs=6, seed=number, leaving=False))
            assert outcome.failed == {}
            before = watch.spans
            truth.wait_until(lambda before=before: watch.spans > before)
            if number == 2:
                postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'state'"
                             " AND pid <> pg_backend_pid()", "postgres")  # fmt: skip
            exporter.kill()
            exporter.start()
        agentos.wait_until_quiet()
        expected = truth.count(database, "it")
        samples = exporter.agree(expected)
        assert exporter.stop()[0] == 0
    assert watch.violations == []
    assert expected.traces == 24
    assert total(samples, "agentos_exporter_state_durable") == 1


def test_a_daemon_that_lost_its_state_ends(tmp_path: Path, postgres: Postgres) -> None:
    with RunningExporter(tmp_path, {"nobody": "http://127.0.0.1:9"}, **settings(postgres)) as exporter:
        postgres.sql("UPDATE agentos_exporter.lease SET token = token + 1", "state")
        assert exporter.process is not None
        assert exporter.process.wait(60) == 1
        assert "another agentos-exporter took it over; this one counts nothing any more" in exporter.logs
        exporter.process = None
