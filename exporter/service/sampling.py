"""Each AgentOS read once, into memory: what would be shown of it. No state is opened, and nothing is served."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from exporter.bookkeeping.shared import Shared
from exporter.bookkeeping.treasury import Treasury
from exporter.config import DEFAULT_STATE
from exporter.core.logs import as_logged
from exporter.core.model import FUTURE
from exporter.counting.cashier import Cashier
from exporter.counting.users import UserLabels
from exporter.ledger.store import Ledger
from exporter.metrics.totals import Totals
from exporter.service.discovery import Discoverer
from exporter.service.fleet import Fleet
from exporter.service.jobs import Jobs
from exporter.service.poller import Figures
from exporter.service.prices import make_pricer
from exporter.service.reload import put_budgets_in_force

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exporter.config import Config
    from exporter.core.model import Clock
    from exporter.metrics.series import Family
    from exporter.service.fleet import Member


@dataclass(frozen=True, slots=True)
class Reading:
    """How one AgentOS was read.

    Attributes:
        agentos: Its name.
        traces: How many traces were read.
        whole: Whether that is all of the last `initial_lookback`.
        error: What went wrong, '' if nothing did.

    """

    agentos: str
    traces: int
    whole: bool
    error: str


@dataclass(frozen=True, slots=True)
class Sample:
    """What all instances show.

    Attributes:
        readings: How each AgentOS was read.
        problems: Whatever keeps the sample from being whole, a line each.
        families: All series: those of users too, without limits, and no label is dropped.

    """

    readings: Sequence[Reading]
    problems: Sequence[str]
    families: Sequence[Family]


async def sample(config: Config, clock: Clock) -> Sample:
    """Read the last `initial_lookback` of each AgentOS, one after the other, each as one poll of the daemon does.

    Details of runs are not asked for. Raises ConfigError where an AgentOS or the prices cannot be read as configured.
    """
    # With `state: memory` nothing would be read that ended before. Without an overlap every complete trace is settled.
    config = replace(config, state=config.state or DEFAULT_STATE, overlap=0.0, prices_update=False)
    limits = replace(config.limits, series_per_metric=sys.maxsize, values_per_label=sys.maxsize)
    async with contextlib.AsyncExitStack() as stack:
        shared = Shared(Ledger(None), Totals(limits, zero_hold=0), clock)
        stack.callback(shared.ledger.close)
        pricer = await asyncio.to_thread(make_pricer, config)
        stack.callback(pricer.close)
        cashier, jobs = Cashier(pricer), Jobs()
        treasury = Treasury(shared, cashier, user_labels=UserLabels.HASHED, dimensions=config.dimensions)
        discoverer, fleet = Discoverer(shared, jobs), Fleet(shared, cashier, jobs)
        lists = await discoverer.prepare(config.discovery, endpoints=True)
        configured = discoverer.instances(config.agentos, lists)
        config = replace(config, agentos=tuple(replace(agentos, enrich_runs=False) for agentos in configured))
        await put_budgets_in_force(treasury, shared, config)
        plan = await fleet.prepare(config)
        stack.push_async_callback(fleet.drop, plan)
        readings = [await _read(member, shared) for member in plan.members]
        problems = [
            f"{instance_list.discovery}: {problem}"
            for instance_list in lists.values()
            for problem in instance_list.said
        ]
        problems += [problem for refused in plan.skipped.values() for problem in refused]
        problems += [f"agentos {reading.agentos}: {reading.error}" for reading in readings if reading.error]
        if not readings and not problems:
            problems.append("no AgentOS to read: the lists name none")
        return Sample(readings, problems, shared.totals.families()[1])


async def _read(member: Member, shared: Shared) -> Reading:
    poller = member.poller
    await poller.poll()
    # Sessions that are not idle yet will be.
    await asyncio.to_thread(poller.intake.observe_idle_sessions, FUTURE)
    if member.operations is not None:
        await member.operations.look()
    member.refresh(await asyncio.to_thread(Figures.read, shared.ledger, shared.clock.now_us()))
    error, source = poller.health.error, poller.source
    return Reading(poller.name, source.stats.traces, not error and not source.catching_up, as_logged(error))
