"""What a replica shows and forgets as it wins and loses leases; votes are the test's. Real ones: tests/real."""

import asyncio
import threading
from pathlib import Path

import pytest
import structlog

from exporter.bookkeeping.shared import Shared
from exporter.core.errors import StateError, StateRefused
from exporter.core.model import Clock
from exporter.counting.delta import Delta
from exporter.ledger.leases import FLEET, Election, Lease, Leases, row_of
from exporter.ledger.records import Changes
from exporter.ledger.sqlite import StateFile
from exporter.ledger.store import Ledger
from exporter.metrics.series import Limits
from exporter.metrics.totals import Totals
from exporter.service.leadership import Leadership
from exporter.service.publisher import Publisher

RUNS = "agentos_runs_total"
LEADER = "agentos_exporter_leader"


class Voted(StateFile):
    """A state file whose leases are given and taken by the test; `error` is raised by the next votes."""

    def __init__(self, path, leases):
        super().__init__(path)
        self.leases = leases
        self.given = {}
        self.share = 9
        self.released = []
        self.error = None
        self.meanwhile = lambda: None

    def elect(self, wanted, mark):
        if self.error is not None:
            raise self.error
        self.wanted = wanted
        before, given = self.leases.held, {name: one for name, one in self.given.items() if name in wanted}
        renewed = {row_of(name): lease for name, lease in given.items() if before.get(name) is lease}
        won = {row_of(name): lease for name, lease in given.items() if before.get(name) is not lease}
        began = self.leases.now()
        self.meanwhile()
        self.leases.elected(renewed, won, began)
        return Election(dict.fromkeys(self.given, self.leases.holder), self.share)

    def release(self, names):
        self.released += names
        for name in names:
            del self.given[name]
        self.leases.give_up(map(row_of, names))

    def transaction(self, *, write, agentos, lease):
        held = None if agentos is None else self.leases.find(row_of(agentos))
        if write and agentos is not None and (held is None or lease not in {None, held}):
            raise StateRefused("its lease is lost")
        return super().transaction(write=write, agentos=agentos, lease=lease)


class Replica:
    """A replica without pollers."""

    def __init__(self, path: Path, *given: str) -> None:
        self.now = 100.0
        self.leases = Leases("me", 15.0, lambda: self.now)
        self.place = Voted(path, self.leases)
        self.place.given = {name: Lease(1, 0) for name in (*given, FLEET)}
        self.ledger = Ledger(self.place)
        self.shared = Shared(self.ledger, Totals(Limits(), zero_hold=0), Clock(lambda: self.now, lambda: self.now))
        self.publisher = Publisher(self.shared)
        self.wanted = ["a", "b", "c"]
        self.refits = []
        self.unreadable = set()
        self.leadership = Leadership(self.shared, self.leases, lambda: self.wanted, lambda: self.unreadable)
        self.leadership._show = self.publisher.show
        self.leadership._refit = self._refit

    async def _refit(self):
        self.refits.append(sorted(self.shared.led))
        await self.publisher.publish()  # as the daemon's does, soon after

    async def begin(self):
        await self.leadership.begin(self.wanted)
        await self.publisher.publish()

    def count(self, agentos, amount=1, **lease):
        delta = Delta(agentos)
        delta.add(RUNS, (agentos, "agent", "r"), amount)
        self.shared.commit(Changes(agentos, lease=self.shared.lease(agentos), **lease), delta, show=True)

    def shown(self, metric=RUNS):
        """Values by AgentOS; None while nothing can be shown."""
        rendered = self.publisher.rendered
        if rendered is None:
            return None
        lines = [line for line in rendered.text.decode().splitlines() if line.startswith(f"{metric}{{")]
        return {line.split('agentos="')[1].split('"')[0]: float(line.split()[-1]) for line in lines}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.db"


@pytest.fixture
def replica(path):
    one = Replica(path, "a", "b")
    yield one
    one.ledger.close()


async def test_what_is_led_is_shown_and_counted(replica):
    await replica.begin()
    for name in ("a", "b"):
        replica.count(name)
    with pytest.raises(StateRefused, match="another replica may read c by now"):
        replica.count("c")
    await replica.publisher.publish()
    assert replica.shown() == {"a": 1, "b": 1}
    assert replica.shown(LEADER) == {"a": 1, "b": 1, "c": 0}
    assert replica.leadership.leaders == {"a": "me", "b": "me", FLEET: "me"}


async def test_what_is_lost_is_shown_no_more_from_that_moment_on(replica):
    await replica.begin()
    for name in ("a", "b"):
        replica.count(name)
    await replica.publisher.publish()
    del replica.place.given["a"]
    await replica.leadership.vote()
    assert replica.shown() is None
    await replica.publisher.publish()  # a publish that comes between knows nothing of it yet
    assert replica.shown() is None
    await replica.leadership.follow()
    assert replica.shown() == {"b": 1}
    assert replica.shown(LEADER) == {"a": 0, "b": 1, "c": 0}
    assert replica.refits == [[FLEET, "b"]]
    assert replica.shared.totals.value(RUNS, ("a", "agent", "r")) is None


async def test_who_takes_over_counts_on_from_the_state(replica):
    await replica.begin()
    replica.count("a")
    before = replica.shared.lease("a")
    # It is lost, another replica counts, and it is won again before anybody looked.
    replica.place.given["a"] = Lease(3, 5)
    await replica.leadership.vote()
    delta = Delta("a")
    delta.add(RUNS, ("a", "agent", "r"), 41)
    other = Totals(Limits(), zero_hold=0)
    other.restore(*replica.ledger.load(["a"]))
    replica.ledger.commit(Changes("a", plan=other.plan(delta, show=True)))
    stale = Changes("a", lease=before)
    with pytest.raises(StateRefused, match="its lease is lost"):
        replica.shared.commit(stale, delta, show=True)
    await replica.leadership.follow()
    assert replica.shown() == {"a": 42}
    assert replica.refits == [[FLEET, "b"], [FLEET, "a", "b"]]
    replica.count("a")
    await replica.publisher.publish()
    assert replica.shown() == {"a": 43}


async def test_what_is_committed_while_the_lease_is_dropped_is_left_to_the_next_leader(replica):
    await replica.begin()
    delta, changes = Delta("a"), Changes("a", lease=replica.shared.lease("a"))
    delta.add(RUNS, ("a", "agent", "r"), 7)
    commit = replica.ledger.commit

    def late(changes):
        commit(changes)
        replica.shared.led = {}

    replica.ledger.commit = late
    replica.shared.commit(changes, delta, show=True)
    assert replica.shared.totals.value(RUNS, ("a", "agent", "r")) is None
    assert [series.value for series in replica.ledger.load(["a"])[0]] == [7]


async def test_leases_that_ran_out(replica):
    await replica.begin()
    replica.count("a")
    await replica.publisher.publish()
    replica.now += 14.9
    assert replica.shown() == {"a": 1}
    replica.now += 0.2
    await replica.leadership.follow()
    assert replica.shown() == {}
    replica.place.error = StateError("the database is down")
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            await replica.leadership.vote()
            await replica.leadership.follow()
    assert [entry["error"] for entry in logs if "error" in entry] == ["the database is down"]
    assert replica.shown() == {}
    assert replica.shown(LEADER) == {"a": 0, "b": 0, "c": 0}
    replica.place.error = None
    replica.place.given = {name: Lease(2, 1) for name in ("a", "b", FLEET)}
    await replica.leadership.vote()
    await replica.leadership.follow()
    assert replica.shown() == {"a": 1}


async def test_more_than_a_fair_share_is_handed_over_without_a_gap_for_the_rest(replica):
    await replica.begin()
    for name in ("a", "b"):
        replica.count(name)
    await replica.publisher.publish()
    replica.place.share = 2
    await replica.leadership.vote()
    await replica.leadership.follow()
    assert replica.place.released == ["b"]
    assert replica.shown() == {"a": 1}
    assert replica.refits == [[FLEET, "a"]]


async def test_what_nobody_wants_any_more_is_given_back(replica):
    await replica.begin()
    replica.wanted = ["b"]
    await replica.leadership.follow()
    assert replica.place.released == ["a"]
    assert replica.shown(LEADER) == {"b": 1}


async def test_a_state_that_cannot_be_loaded_is_tried_again(replica, monkeypatch):
    def fail(_):
        raise StateError("gone")

    load = replica.ledger.load
    monkeypatch.setattr(replica.ledger, "load", fail)
    with pytest.raises(StateError):
        await replica.begin()
    with structlog.testing.capture_logs() as logs:
        await replica.leadership.follow()
    assert [entry["error"] for entry in logs] == ["gone"]
    assert replica.shared.led == {}
    monkeypatch.setattr(replica.ledger, "load", load)
    await replica.leadership.follow()
    assert replica.shared.led.keys() == {"a", "b", FLEET}


async def test_budgets_over_all_instances_have_a_leader_too(replica):
    await replica.begin()
    budget = ("", "all", "month")
    replica.shared.totals.gauge("agentos_budget_spent_usd", budget, 1)
    await replica.publisher.publish()
    assert replica.shown("agentos_budget_spent_usd") == {"": 1e-18}
    del replica.place.given[FLEET]
    await replica.leadership.vote()
    await replica.leadership.follow()
    replica.shared.totals.gauge("agentos_budget_spent_usd", budget, 2)
    await replica.publisher.publish()
    assert replica.shown("agentos_budget_spent_usd") == {}


async def test_a_lease_that_ran_out_while_a_vote_renewed_it_stays_lost(replica):
    """The database hung in the vote: what this process knew may be half forgotten by now."""
    await replica.begin()
    replica.count("a")
    stale = Changes("a", lease=replica.shared.lease("a"))

    def meanwhile():
        replica.now += 16
        replica.leases.expire()

    replica.place.meanwhile = meanwhile
    await replica.leadership.vote()
    assert replica.leases.held == {}
    delta = Delta("a")
    delta.add(RUNS, ("a", "agent", "r"), 1)
    with pytest.raises(StateRefused):
        replica.ledger.commit(stale)
    await replica.leadership.follow()
    with pytest.raises(StateRefused, match="another replica may read a by now"):
        replica.shared.commit(stale, delta, show=True)
    assert [series.value for series in replica.ledger.load(["a"])[0]] == [1]


async def test_what_cannot_be_understood_or_built_is_left_to_others_for_a_while(replica, monkeypatch):
    load = replica.ledger.load

    def broken(names):
        if names == ["a"]:
            raise StateRefused("a row is broken")
        return load(names)

    monkeypatch.setattr(replica.ledger, "load", broken)
    with structlog.testing.capture_logs() as logs:
        await replica.begin()
    assert [(entry["agentos"], entry["error"]) for entry in logs if "error" in entry] == [("a", "a row is broken")]
    assert replica.shared.led.keys() == {"b", FLEET}
    assert replica.place.released == ["a"]
    replica.unreadable = {"b"}
    await replica.leadership.follow()
    assert replica.place.released == ["a", "b"]
    replica.unreadable = set()
    await replica.leadership.vote()
    assert replica.place.wanted == {"c", FLEET}
    replica.now += 151
    await replica.leadership.vote()
    assert replica.place.wanted == {"a", "b", "c", FLEET}


async def test_a_vote_that_hangs_is_broken_off(replica, monkeypatch):
    await replica.begin()
    monkeypatch.setattr(replica.leases, "seconds", 0.01)
    hung = threading.Event()

    def hang():
        hung.wait(60)
        raise StateError("the connection is gone")

    replica.place.meanwhile = hang
    replica.place.break_off = lambda **_: hung.set()
    with structlog.testing.capture_logs() as logs:
        await replica.leadership.vote()
    assert [entry["error"] for entry in logs] == ["the connection is gone"]


async def test_it_votes_and_follows_until_it_is_cancelled(replica, monkeypatch):
    await replica.begin()
    monkeypatch.setattr(replica.leases, "seconds", 0.03)
    seen = asyncio.Event()

    async def refit():
        if replica.shared.led.keys() == {FLEET}:
            seen.set()
            raise RuntimeError("a bug")

    with structlog.testing.capture_logs() as logs:
        tasks = [
            asyncio.create_task(replica.leadership.run(replica.publisher.show, refit)),
            asyncio.create_task(replica.leadership.keep()),
        ]
        del replica.place.given["a"], replica.place.given["b"]
        await seen.wait()
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert "leadership_bug" in [entry["event"] for entry in logs if entry["log_level"] == "error"]
