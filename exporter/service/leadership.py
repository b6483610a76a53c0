"""Which AgentOS instances this process reads, if replicas share a state: each instance has one leader.

The leader reads an instance and shows its series. A replica that takes an instance over continues from the state. So a
process that loses an instance shows nothing of it from then on, and forgets what it knew.
"""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import structlog

from exporter.core.errors import StateError, StateRefused
from exporter.ledger.leases import FLEET, Election

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable

    from exporter.bookkeeping.shared import Shared
    from exporter.ledger.leases import Lease, Leases

log = structlog.get_logger(__name__)

_LEADER: Final = "agentos_exporter_leader"
VOTES: Final = 3
"""Votes in the time of a lease: two may fail."""
LOOK: Final = 1.0
"""Longest time, in seconds, until a lease that was lost between two votes is noticed."""
BARRED: Final = 10
"""Terms of a lease to wait before trying to lead an unreadable instance again: another process may be able to."""


class Leadership:
    """Wins and loses AgentOS instances while the daemon runs. `shared.led` has the instances that it leads."""

    def __init__(
        self,
        shared: Shared,
        leases: Leases,
        wanted: Callable[[], Collection[str]],
        unreadable: Callable[[], Collection[str]] = tuple,
    ) -> None:
        """Lead no instance yet.

        Args:
            shared: What all instances share.
            leases: The leases of this process.
            wanted: Names the instances that are to be read, by this process or another.
            unreadable: Names those that this process leads but cannot read as configured.

        """
        self._shared = shared
        self._leases = leases
        self._all = wanted
        self._unreadable = unreadable
        # A vote must not wait behind the work of polls.
        self._thread = ThreadPoolExecutor(1, "vote")
        self._barred: dict[str, float] = {}
        """names that this process does not want → until when, in monotonic seconds"""
        self._election = Election()
        self._error = ""
        self._voted = asyncio.Event()
        self._show: Callable[[], Awaitable[None]] | None = None
        self._refit: Callable[[], Awaitable[None]] | None = None
        self._published: set[str] = set()
        self._publish_led({})

    async def begin(self, wanted: Collection[str]) -> None:
        """Lead free instances, before anything is read. Raises StateError."""
        await self._vote(wanted)
        await self._take_up()

    async def keep(self) -> None:
        """Vote again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._leases.seconds / VOTES)
            await self.vote()

    async def run(self, show: Callable[[], Awaitable[None]], refit: Callable[[], Awaitable[None]]) -> None:
        """Act on each vote, until cancelled. `show` renders /metrics again, `refit` reads exactly the led instances."""
        self._show, self._refit = show, refit
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._voted.wait()
            self._voted.clear()
            try:
                await self.follow()
            except Exception:
                log.exception("leadership_bug")

    @property
    def leaders(self) -> dict[str, str]:
        """AgentOS → who leads it, as of the last vote."""
        return dict(self._election.leaders)

    async def vote(self) -> None:
        """Renew the leases, and take free ones. Errors are logged."""
        try:
            await self._vote(self._wanted())
            self._error = ""
        except StateError as error:
            if str(error) != self._error:
                log.warning("leadership", error=str(error))
            self._error = str(error)
        self._voted.set()

    async def _vote(self, wanted: Collection[str]) -> None:
        ledger = self._shared.ledger
        loop = asyncio.get_running_loop()
        voting = loop.run_in_executor(self._thread, ledger.elect, {*wanted, FLEET})
        await asyncio.wait({voting}, timeout=self._leases.seconds)
        if not voting.done():
            ledger.break_off()  # a database that hangs may never answer on this connection
        self._election = await voting

    def _wanted(self) -> set[str]:
        """What this process would read."""
        now = self._leases.now()
        self._barred = {name: until for name, until in self._barred.items() if until > now}
        return {*self._all()} - self._barred.keys()

    def _bar(self, name: str) -> None:
        self._barred[name] = self._leases.now() + BARRED * self._leases.seconds

    async def follow(self) -> None:
        """Drop lost instances, take up new ones, and hand over those beyond a fair share."""
        self._leases.expire()
        # Read the term before the held leases: if a lease is lost in between, the next turn sees it.
        term, held = self._leases.term, self._leases.held
        led = self._shared.led or {}
        lost = [name for name, lease in led.items() if held.get(name) is not lease]
        self._count(led)
        if lost:
            log.warning("leadership", reason="other replicas may lead these by now", agentos=sorted({*lost} - {FLEET}))
            await self._drop(lost, term)
        elif term != self._shared.term:
            self._shared.term = term
            await self._rendered()
        try:
            if await self._take_up():
                await self._refitted()
            for name in self._unreadable():
                self._bar(name)
            await self._hand_over()
        except StateError as error:
            log.warning("leadership", error=str(error))

    async def _take_up(self) -> bool:
        """Lead an instance whose lease is held and that is not led yet; False if there is none. Raises StateError."""
        before = dict(self._shared.led or {})
        new = {name: lease for name, lease in self._leases.held.items() if name not in before}
        won = {name: lease for name, lease in new.items() if await self._load(name)}
        if not won:
            return False
        led = before | won
        log.info("leadership", won=sorted(won.keys() - {FLEET}), leads=len(led.keys() - {FLEET}))
        self._publish_led(led)
        return True

    async def _load(self, name: str) -> bool:
        """Load the series of an AgentOS from the state; False if they cannot be understood. Raises StateError."""
        ledger, totals = self._shared.ledger, self._shared.totals
        try:
            series, admitted = await asyncio.to_thread(ledger.load, [name])
        except StateRefused as error:
            log.warning("leadership", agentos=name, error=str(error))
            self._bar(name)
            await asyncio.to_thread(ledger.release, [name])
            return False
        totals.forget(name)
        totals.restore(series, admitted)
        return True

    async def _hand_over(self) -> None:
        """Release instances beyond a fair share, and those that are no longer wanted. Raises StateError."""
        wanted = {*self._wanted(), FLEET}
        led = sorted((self._shared.led or {}).keys() & wanted)
        gone = (self._shared.led or {}).keys() - wanted
        names = [*gone, *led[self._election.share :]]
        if names:
            log.info("leadership", handed_over=sorted({*names} - {FLEET}))
            await self._drop(names, self._shared.term)
            await asyncio.to_thread(self._shared.ledger.release, names)

    async def _drop(self, names: Iterable[str], term: int) -> None:
        """Stop showing these instances, then stop reading them, then forget them."""
        gone = set(names)
        self._publish_led({name: lease for name, lease in (self._shared.led or {}).items() if name not in gone})
        self._shared.term = term
        await self._rendered()
        await self._refitted()
        for name in gone:
            self._shared.totals.forget(name)

    def _publish_led(self, led: dict[str, Lease]) -> None:
        """Publish the set of led instances inside the process."""
        self._shared.led = led
        self._shared.totals.lead(frozenset(led))
        self._count(led)

    def _count(self, led: Collection[str]) -> None:
        """Show which of those that are to be read are led."""
        wanted = {*self._all()} - {FLEET}
        for name in wanted:
            self._shared.totals.gauge(_LEADER, (name,), int(name in led))
        for name in self._published - wanted:
            self._shared.totals.gauge(_LEADER, (name,), None)
        self._published = wanted

    async def _rendered(self) -> None:
        if self._show is not None:
            await self._show()

    async def _refitted(self) -> None:
        if self._refit is not None:
            await self._refit()
