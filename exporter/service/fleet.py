"""All instances that are read, with their pollers and jobs. Instances come, change and go while the daemon runs.

A changed instance gets a new poller, which continues from the ledger as after a restart; counted totals are not
touched. An instance that is gone keeps its totals in the state, and its series leave /metrics after a grace period.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog

from exporter.bookkeeping.enrich import EXPIRE_EVERY, PATIENCE, Enricher, Fetch, expire_quietly, no_details
from exporter.bookkeeping.intake import Intake
from exporter.bookkeeping.operations import Ends
from exporter.core.errors import ConfigError, StateError
from exporter.core.model import MICROSECONDS
from exporter.counting.dimensions import Origin
from exporter.service.connect import make_source
from exporter.service.operations import Operations
from exporter.service.poller import Figures, Poller
from exporter.sources.position import Settings
from exporter.sources.protocol import DetailsOnRequest

if TYPE_CHECKING:
    from exporter.bookkeeping.shared import Shared
    from exporter.config import AgentOS, Config
    from exporter.counting.cashier import Cashier
    from exporter.ledger.leases import Lease
    from exporter.metrics.totals import Totals
    from exporter.service.jobs import Jobs

log = structlog.get_logger(__name__)

GRACE: Final = 300.0
"""Seconds for which the counters of an AgentOS that is gone stay on /metrics: its last increments are to be scraped."""

EXPIRE_AFTER: Final = PATIENCE
"""Seconds after which calls of a removed AgentOS wait for details no longer. Until then it may return."""
AT_ONCE: Final = 8
"""Instances that may begin in one moment; the first polls of more are spread over the interval."""
MOST_POLLS: Final = 32
"""Polls and surveys at a time, so that hundreds of instances do not use descriptors and memory at once."""
MOST_RETRIES: Final = 8
"""The same for instances whose last poll failed: they have their own queue, and delay no others."""

MOST_LOOKS: Final = 8
"""The same for readings of approvals, schedules and the like, which have their own queue."""


@dataclass(frozen=True, slots=True)
class Member:
    """One AgentOS: its configuration, its poller and other jobs, and the lease under which it is read."""

    agentos: AgentOS
    timing: tuple[object, ...]
    poller: Poller
    lease: Lease | None
    operations: Operations

    def stop(self) -> None:
        """Finish the current transactions, and begin no more."""
        self.poller.stop()
        self.operations.stop()

    def refresh(self, figures: Figures) -> None:
        """Set the gauges that change with time alone."""
        self.poller.refresh(figures)
        self.operations.refresh()


@dataclass(frozen=True, slots=True)
class Plan:
    """The changes that a configuration makes: `members` are all instances to be read, `built` the new ones of them.

    `skipped` are discovered instances that cannot be read as they are, with the reasons.
    """

    config: Config
    members: tuple[Member, ...]
    built: tuple[Member, ...] = field(repr=False)
    skipped: Mapping[str, tuple[str, ...]]


class Fleet:
    """The instances of a process. Its methods run one at a time, in the event loop.

    Attributes:
        configured: Every AgentOS that is to be read, by this process or another replica.
        skipped: Discovered instances that cannot be read as they are, or are read as they were, with the reasons.

    """

    def __init__(self, shared: Shared, cashier: Cashier, jobs: Jobs) -> None:
        self._shared = shared
        self._cashier = cashier
        self._jobs = jobs
        self._members: tuple[Member, ...] = ()
        self.configured: tuple[AgentOS, ...] = ()
        self.skipped: Mapping[str, tuple[str, ...]] = {}
        self._leaving: dict[str, float] = {}
        """names of instances that are gone → monotonic time at which they went"""
        self._expired: set[str] = set()
        """removed instances whose calls no longer wait"""
        self._was_ready = False
        self._turns = asyncio.Semaphore(MOST_POLLS)
        self._retries = asyncio.Semaphore(MOST_RETRIES)
        self._slow = asyncio.Semaphore(MOST_LOOKS)
        jobs.add("waiting", self._expire_waiting, EXPIRE_EVERY, at_once=False)

    @property
    def members(self) -> Sequence[Member]:
        """Every AgentOS, in the order of the configuration."""
        return self._members

    @property
    def names(self) -> set[str]:
        """Those that are to be read, and those that are still shown though they are gone."""
        return {agentos.name for agentos in self.configured} | self._leaving.keys()

    @property
    def unreadable(self) -> set[str]:
        """Instances that this process leads but does not read, since they cannot be built."""
        read = {member.agentos.name for member in self._members}
        return {name for name in self.skipped if name not in read and self._shared.leads(name)}

    @property
    def ready(self) -> bool:
        """Whether a first poll of each AgentOS has ended, well or badly; once this was so, it stays so."""
        self._was_ready = self._was_ready or all(member.poller.polled for member in self._members)
        return self._was_ready

    async def prepare(self, config: Config, *, strict: bool = True) -> Plan:
        """Build what this configuration needs that is not there yet. No request is sent.

        Args:
            config: What is to be in force.
            strict: Whether an AgentOS of the configuration itself that cannot be read is an error, rather than skipped.

        Raises:
            ConfigError: An AgentOS cannot be read as it is configured.
            StateError: The series of a new AgentOS cannot be born. In both cases, nothing has changed.

        """
        timing = _timing(config)
        before = {member.agentos.name: member for member in self._members}
        members: list[Member] = []
        built: list[Member] = []
        skipped: dict[str, tuple[str, ...]] = {}
        try:
            for agentos in filter(lambda instance: self._shared.leads(instance.name), config.own):
                member, lease = before.get(agentos.name), self._shared.lease(agentos.name)
                # What a poller of an earlier lease knows may be out of date: another replica has read meanwhile.
                if member is None or (member.agentos, member.timing, member.lease) != (agentos, timing, lease):
                    try:
                        member = _member(agentos, config, self._shared, self._cashier)
                        built.append(member)
                    except ConfigError as error:
                        if strict and not agentos.discovered:
                            raise
                        skipped[agentos.name] = error.problems
                        if self.skipped.get(agentos.name) != error.problems:
                            log.warning("discovery", agentos=agentos.name, problems=list(error.problems))
                        if member is not None and member.lease is not lease:
                            member = None
                if member is not None:
                    members.append(member)
            for new_member in built:
                async with self._shared.lock:
                    await asyncio.to_thread(new_member.poller.intake.announce)
        except BaseException:
            await _close(built)
            raise
        return Plan(config, tuple(members), tuple(built), skipped)

    async def drop(self, plan: Plan) -> None:
        """Close the new members of a plan that does not take effect."""
        await _close(plan.built)

    async def apply(self, plan: Plan) -> None:
        """Put a plan in force."""
        kept = {id(member) for member in plan.members}
        gone = [member for member in self._members if id(member) not in kept]
        for member in gone:
            member.stop()
        await asyncio.gather(*(self._jobs.remove(name) for member in gone for name in _job_names(member)))
        await _close(gone)
        names = {member.agentos.name for member in plan.members}
        # Many instances that begin in one moment would come due in one moment for ever.
        spread = plan.config.poll_interval / len(plan.built) if len(plan.built) > AT_ONCE else 0.0
        for place, member in enumerate(plan.built):
            self._shared.totals.bring_back(member.agentos.name)
            self._leaving.pop(member.agentos.name, None)
            self._begin(member, plan.config, place * spread)
        self._members, self.skipped, self.configured = plan.members, plan.skipped, plan.config.own
        shown_names = await asyncio.to_thread(self._shared.totals.agentos_names)
        for name in shown_names - names - self._leaving.keys():
            self._shared.totals.forget_gauges(name)
            self._leaving[name] = self._shared.clock.monotonic()
            self._expired.discard(name)

    def _begin(self, member: Member, config: Config, delay: float) -> None:
        """Begin the jobs of an instance, after so many seconds."""
        poller = member.poller
        works = [(poller.poll, config.poll_interval), (poller.survey, config.sessions_interval)]
        for name, (work, seconds) in zip(_job_names(member), works, strict=False):
            self._jobs.add(name, functools.partial(self._in_turn, poller, work), seconds, delay=delay)
        # The first poll of traces goes first.
        work = functools.partial(self._in_turn, poller, member.operations.look, self._slow)
        delay += min(config.operations_interval, config.poll_interval) / 2
        self._jobs.add(_job_names(member)[-1], work, config.operations_interval, delay=delay)

    async def refresh(self) -> None:
        """Set the gauges that change with time, and remove instances that left long enough ago. Raises StateError."""
        figures = await asyncio.to_thread(Figures.read, self._shared.ledger, self._shared.clock.now_us())
        for member in self._members:
            member.refresh(figures)
        now = self._shared.clock.monotonic()
        for name, left_at in list(self._leaving.items()):
            if now - left_at >= EXPIRE_AFTER and name not in self._expired:
                if self._shared.leads(name):
                    await self._resolve_waiting(name)
                self._expired.add(name)
            if now - left_at >= GRACE:
                self._shared.totals.take_off(name)
                del self._leaving[name]

    def stop(self) -> None:
        """Let every poller finish its current batch, and begin no more."""
        for member in self._members:
            member.stop()

    async def aclose(self) -> None:
        """Free all connections."""
        await _close(self._members)

    async def _in_turn(
        self, poller: Poller, work: Callable[[], Awaitable[None]], turns: asyncio.Semaphore | None = None
    ) -> None:
        turns = turns or (self._retries if poller.health.failures else self._turns)
        with poller.awaiting():
            await turns.acquire()
        try:
            await work()
        finally:
            turns.release()

    async def _expire_waiting(self) -> None:
        """Look for calls that waited long enough, whether polls go well or not."""
        for member in self._members:
            if member.poller.enricher is not None and await expire_quietly(member.poller.enricher):
                self._shared.changed()

    async def _resolve_waiting(self, name: str) -> None:
        """Count the calls that wait for details of an AgentOS which is gone; if it fails, at the next start."""
        try:
            async with self._shared.lock:
                enricher = Enricher(name, self._shared, self._cashier, fetch=no_details, databases=tuple)
                await asyncio.to_thread(functools.partial(enricher.resolve, {}, everything=True))
        except StateError as error:
            log.warning("fleet", reason="calls that wait for details cannot be let go", error=str(error))


def settings(config: Config) -> Settings:
    """How sources read, in the units of sources."""
    return Settings(
        overlap=round(config.overlap * MICROSECONDS),
        lookback=lookback(config),
        horizon=round(config.trace_horizon * MICROSECONDS),
        stall_budget=config.stall_budget,
        metadata=any(dimension.origin is Origin.METADATA for dimension in config.dimensions),
        tags=any(dimension.origin is Origin.TAG for dimension in config.dimensions),
    )


def lookback(config: Config) -> int:
    """Microseconds of history that an AgentOS shows which was never read before."""
    # Without a state file every start would count the past again.
    return round(config.initial_lookback * MICROSECONDS) if config.state is not None else 0


def _timing(config: Config) -> tuple[object, ...]:
    """All that pollers are built of besides their AgentOS."""
    return (
        settings(config),
        config.poll_interval,
        config.poll_deadline,
        config.sessions_interval,
        config.operations_interval,
        config.zero_hold,
    )


def _job_names(member: Member) -> tuple[str, ...]:
    return tuple(f"{kind} of {member.agentos.name}" for kind in ("traces", "sessions", "operations"))


def _member(agentos: AgentOS, config: Config, shared: Shared, cashier: Cashier) -> Member:
    """One AgentOS, with its source and what reads it. Raises ConfigError."""
    name = agentos.name
    source = make_source(agentos, settings(config), shared.clock, _counter(shared.totals, name))
    fetch: Fetch = no_details
    databases: Callable[[], Sequence[str]] = tuple
    if isinstance(source, DetailsOnRequest):
        fetch, databases = source.run_detail, source.session_databases
    enricher = Enricher(name, shared, cashier, fetch=fetch, databases=databases, enabled=agentos.enrich_runs)
    intake = Intake(
        name,
        shared,
        overlap=config.overlap,
        horizon=config.trace_horizon,
        cashier=cashier,
        enriches=enricher.active,
    )
    poller = Poller(
        name,
        source,
        intake,
        shared,
        interval=config.poll_interval,
        deadline=config.poll_deadline,
        hold=config.zero_hold,
        enricher=enricher,
    )
    operations = Operations(source.surfaces, Ends(name, shared), shared, poller)
    return Member(agentos, _timing(config), poller, shared.lease(name), operations)


def _counter(totals: Totals, agentos: str) -> Callable[[str, str, int], None]:
    def count(endpoint: str, code: str, size: int) -> None:
        totals.add("agentos_exporter_api_requests_total", (agentos, endpoint, code))
        totals.add("agentos_exporter_api_response_bytes_total", (agentos, endpoint, code), size)

    return count


async def _close(members: Sequence[Member]) -> None:
    await asyncio.gather(*(member.poller.aclose() for member in members))
