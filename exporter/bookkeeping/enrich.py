"""Details of runs: LLM calls wait for them, and are counted without them when they are late.

A detail also tells whether a guardrail blocked the run, so runs that may have been blocked wait for it as well.

A waiting call is a row in the ledger. The transaction that counts its span writes the row, and the transaction that
adds its tokens and cost deletes it. So they are added once, whatever crashes. An error here never fails a poll.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from exporter.core.errors import BadAnswer, ExporterError, NoDetails, StateError, Unauthorized
from exporter.core.model import MICROSECONDS, Span
from exporter.counting.delta import Delta, SessionPart, digest
from exporter.counting.run_details import BLOCKED, DetailedRun, TimedCall, count_blocks, count_detail
from exporter.counting.runs import RunCall, RunRecord, count_call, finish
from exporter.counting.waiting import CallKey, Group, RunDetail, WaitingCall, split
from exporter.ledger.records import Changes, Record

if TYPE_CHECKING:
    from exporter.bookkeeping.shared import Shared
    from exporter.counting.cashier import Cashier, Charged

log = structlog.get_logger(__name__)

PATIENCE: Final = 120.0
"""Seconds that a call waits for its run's detail. Then its tokens and cost count as estimated."""
MOST_REQUESTS: Final = 20
"""requests for details in one poll, one after the other: each keeps AgentOS busy for 2 to 4 ms"""
ROUND: Final = 5.0
"""Seconds that one poll may spend on details: an AgentOS that is slow to answer must not make polls rare."""
OFF: Final = 600.0
"""Seconds without enrichment after AgentOS refused it."""
EXPIRE_EVERY: Final = 5.0
"""Seconds between two searches for calls that waited long enough; they expire that much earlier."""
_RETRIES: Final = (2.0, 5.0, 10.0, 20.0, 30.0)
"""Seconds until the next request for a detail that is missing, or does not agree with its spans (yet)."""
_DETAILED: Final = "timed_run"
"""activity: runs whose detail is counted"""

Fetch = Callable[[str, str, str, float], Awaitable[Mapping[str, RunDetail] | None]]
"""(session id, run id, database, timeout in seconds) → details by run id, None if the run does not exist"""


@dataclass(frozen=True, slots=True)
class _Ask:
    """One run to ask for."""

    run_id: str
    session_id: str
    outer_run_id: str
    db: str


class Enricher:
    """The calls of one AgentOS that wait. Methods that block are meant for a thread, under the lock of all commits."""

    def __init__(
        self,
        agentos: str,
        shared: Shared,
        cashier: Cashier,
        *,
        fetch: Fetch,
        databases: Callable[[], Sequence[str]],
        enabled: bool = True,
        patience: float = PATIENCE,
    ) -> None:
        """Read details of runs, and count the calls that wait for them.

        Args:
            agentos: Name of the instance.
            shared: What all instances share.
            cashier: Prices and charges calls.
            fetch: Reads the detail of one run.
            databases: Names the databases that may hold sessions.
            enabled: Whether details are wanted. Otherwise calls that wait from earlier are counted without them.
            patience: Seconds after which a call waits no more.

        """
        self.agentos = agentos
        self.history = False
        """whether calls of the very first pass still wait"""
        self._ledger = shared.ledger
        self._shared = shared
        self._lease = shared.lease(agentos)
        self._clock = shared.clock
        self._cashier = cashier
        self._fetch = fetch
        self._databases = databases
        self._lock = shared.lock
        self._patience = round(patience * MICROSECONDS)
        self._off_until = float("-inf") if enabled else float("inf")
        self._stopping = False
        self._left = 0
        """requests that the poll under way may still make"""
        self._refused = False
        self._logged = ""
        self._tried: dict[str, tuple[int, float]] = {}
        """run id → (how often it was asked for in vain, monotonic time of the next try)"""

    def active(self) -> bool:
        """Whether calls are to wait for details at all."""
        return self._clock.monotonic() >= self._off_until

    def stop(self) -> None:
        """Finish the current request, and send no more."""
        self._stopping = True

    # Once a poll

    async def run(self, deadline: float) -> int:
        """Read details of runs whose calls wait, and count the calls; return the number of requests.

        `deadline` is a monotonic time in seconds. Raises only StateError.
        """
        calls = await asyncio.to_thread(self._ledger.waiting, self.agentos)
        self.history = any(call.first for call in calls)
        if not calls:
            self._tried.clear()
            return 0
        details: dict[str, RunDetail] = {}
        deadline = min(deadline, self._clock.monotonic() + ROUND)
        requests = await self._ask(self._due(calls), details, deadline) if self.active() else 0
        if details or not self.active():
            await self._settle(lambda: self.resolve(details, everything=not self.active()))
        return requests

    async def expire(self) -> bool:
        """Count the calls that waited long enough, or whose detail cannot come, even if AgentOS does not answer.

        Returns whether there was any. Raises StateError.
        """
        waiting = await asyncio.to_thread(self._ledger.waiting_since, self.agentos)
        off = not self.active()
        if waiting is None or not (off or self._late(waiting[0]) or self._late(waiting[1])):
            return False
        await self._settle(lambda: self.resolve({}, everything=off))
        return True

    async def _settle(self, work: Callable[[], int]) -> None:
        async with self._lock:
            await asyncio.to_thread(work)
        calls = await asyncio.to_thread(self._ledger.waiting, self.agentos)
        self.history = any(call.first for call in calls)

    def _late(self, since: int) -> bool:
        # If the clock went back by more than the patience, the wait is unknown: the call is counted now.
        waited = self._clock.now_us() - since
        return waited >= self._patience - round(EXPIRE_EVERY * MICROSECONDS) or waited < -self._patience

    def _due(self, calls: Sequence[WaitingCall]) -> list[_Ask]:
        """The runs to ask for now: those never asked for, then the others, each in the order in which they wait."""
        runs: dict[str, _Ask] = {}
        for call in calls:
            runs.setdefault(call.run_id, _Ask(call.run_id, call.session_id, call.outer_run_id, call.db))
        self._tried = {run_id: tried for run_id, tried in self._tried.items() if run_id in runs}
        now = self._clock.monotonic()
        due = [ask for ask in runs.values() if self._tried.get(ask.run_id, (0, now))[1] <= now]
        # Steps of a workflow may never be stored. New runs come before those that are asked for again.
        return sorted(due, key=lambda ask: self._tried.get(ask.run_id, (0, now))[0])

    async def _ask(self, asks: Sequence[_Ask], details: dict[str, RunDetail], deadline: float) -> int:
        """Fill `details`; returns the requests made. Never raises."""
        self._left, failed = MOST_REQUESTS, False
        for ask in asks:
            if self._left <= 0 or self._stopping or self._clock.monotonic() >= deadline:
                break
            self._postpone(ask.run_id)
            try:
                await self._ask_one(ask, details, deadline)
            except (Unauthorized, NoDetails) as error:
                self._note_refusal(error, off=isinstance(error, NoDetails) or "403" in str(error))
                failed = True
                break
            except ExporterError as error:
                failed = True
                self._log_once(error)
                if not isinstance(error, BadAnswer):  # AgentOS is ill or unreachable: ask again in the next poll
                    break
            except Exception:  # an unexpected error here must not fail the poll
                log.exception("enrich_bug", agentos=self.agentos)
                break
        requests = MOST_REQUESTS - self._left
        if requests and not failed:
            self._logged, self._refused = "", False
        return requests

    async def _ask_one(self, ask: _Ask, details: dict[str, RunDetail], deadline: float) -> None:
        """Read the detail of one run from the databases that may have it. Raises SourceError."""
        dbs = [ask.db, *(db for db in self._databases() if db != ask.db)]
        for run_id, db in ((run_id, db) for run_id in (ask.run_id, ask.outer_run_id) if run_id for db in dbs):
            wait = deadline - self._clock.monotonic()
            if ask.run_id in details or self._left <= 0 or wait <= 0:
                break
            self._left -= 1
            details.update(await self._fetch(ask.session_id, run_id, db, wait) or {})

    def _postpone(self, run_id: str) -> None:
        """Do not ask again for a while. The run is forgotten once none of its calls waits."""
        tried = self._tried.get(run_id, (0, 0.0))[0]
        pause = _RETRIES[min(tried, len(_RETRIES) - 1)]
        self._tried[run_id] = (tried + 1, self._clock.monotonic() + pause)

    def _note_refusal(self, error: ExporterError, *, off: bool) -> None:
        """AgentOS refuses the detail; with `off`, do not ask for any detail for a while."""
        if not off:
            self._log_once(error)
            return
        self._off_until = self._clock.monotonic() + OFF
        if not self._refused:
            reason = "enrich_runs needs the scope sessions:read; until it is given, cost is estimated"
            if isinstance(error, NoDetails):
                reason = "this AgentOS has no details of runs: cost is estimated"
            log.warning("enrich_off", agentos=self.agentos, error=str(error), reason=reason, seconds=OFF)
        self._refused = True

    def _log_once(self, error: ExporterError) -> None:
        """Once, until all went well again."""
        if self._logged != (kind := type(error).__name__):
            log.warning("enrich", agentos=self.agentos, error=str(error), reason="asked for again while calls wait")
            self._logged = kind

    # Transactions

    def resolve(self, details: Mapping[str, RunDetail], *, everything: bool = False) -> int:
        """Count calls whose detail came, and calls that waited long enough; return how many.

        With `everything`, count all calls that wait. Blocks. Raises StateError; nothing is counted then.
        """
        done = 0
        calls = self._ledger.waiting(self.agentos)
        # Series of history show their value at once; other new series show 0 first.
        for first in (True, False):
            group = [call for call in calls if call.first is first]
            if group:
                done += self._resolve(group, details, everything=everything, show=first)
        return done

    def _resolve(
        self, calls: Sequence[WaitingCall], details: Mapping[str, RunDetail], *, everything: bool, show: bool
    ) -> int:
        records = self._ledger.records(self.agentos, {call.trace for call in calls})
        delta, bills = Delta(self.agentos), _Bills(records, self._cashier)
        self._count_blocks(delta, calls, details)
        done = [
            call for call in calls if call.check and (everything or call.run_id in details or self._late(call.since))
        ]
        runs: dict[str, list[WaitingCall]] = {}
        for call in calls:
            if not call.check:
                runs.setdefault(call.run_id, []).append(call)
        for run_id, run_calls in runs.items():
            self._charge_run(delta, bills, run_calls, details.get(run_id), everything=everything)
        for call in done:
            bills.release(delta, call, details.get(call.run_id))
        self._count_details(delta, runs, details)
        resolved = sorted({*bills.paid, *(call.key for call in done)})
        if not resolved and not delta.activity and not bills.touched:
            return 0
        changes = Changes(
            self.agentos,
            bills.touched,
            activity=delta.activity,
            sessions=delta.sessions,
            resolved=resolved,
            spending=delta.spending,
            allowances=delta.allowances,
            lease=self._lease,
        )
        self._shared.commit(changes, delta, show=show)
        return len(resolved)

    def _charge_run(
        self, delta: Delta, bills: _Bills, calls: Sequence[WaitingCall], detail: RunDetail | None, *, everything: bool
    ) -> None:
        """Charge the calls of one run that its detail speaks of, and those that waited long enough."""
        if detail is not None:
            bills.note(detail, calls)
            # The sums of a run leave out calls that report no tokens.
            for group in split(detail, [call for call in calls if call.counted]):
                estimated = self._is_estimate(group)
                for call, span in group.shares:
                    bills.add(delta, call, self._charge(delta, call, span, estimated=estimated))
        for call in calls:
            has_detail = detail is not None and not call.counted
            if call.key not in bills.paid and (everything or has_detail or self._late(call.since)):
                bills.add(delta, call, self._charge(delta, call, call.as_span()))

    def _charge(self, delta: Delta, call: WaitingCall, span: Span, *, estimated: bool = False) -> Charged:
        tally = delta.calls(call.root_name, call.agent_name, span)
        return self._cashier.charge(delta, tally, span, call.user_id or "", estimated=estimated)

    def _is_estimate(self, group: Group) -> bool:
        """Whether it matters for the cost of these calls how the tokens were dealt out among them."""
        spans = [span for _, span in group.shares]
        return len(spans) > 1 and not self._cashier.one_price(spans, group.cached)

    def _count_details(
        self, delta: Delta, runs: Mapping[str, list[WaitingCall]], details: Mapping[str, RunDetail]
    ) -> None:
        """Count the other figures of details, for runs whose detail came for the first time."""
        fetched = {run_id: detail for run_id, detail in details.items() if run_id in runs}
        counted = self._ledger.seen(self.agentos, _DETAILED, map(digest, fetched))
        new = [detail for run_id, detail in fetched.items() if digest(run_id) not in counted]
        for detail in new:
            calls = runs[detail.run_id]
            timed = [
                TimedCall(call.start, call.end, call.provider, call.model, call.completion, call.streamed)
                for call in calls
                if call.counted
            ]
            run = DetailedRun(calls[0].root_name, calls[0].run_start, timed)
            count_detail(delta, detail, run, self._cashier)
            delta.see(_DETAILED, detail.run_id, self._clock.now_us())

    def _count_blocks(self, delta: Delta, calls: Sequence[WaitingCall], details: Mapping[str, RunDetail]) -> None:
        """Count the runs among these that a guardrail blocked, each once."""
        roots = {call.run_id: call.root_name for call in calls}
        counted = self._ledger.seen(self.agentos, BLOCKED, map(digest, roots.keys() & details.keys()))
        count_blocks(delta, roots, details, counted, self._clock.now_us())


class _Bills:
    """The runs and sessions of the calls that are resolved in one transaction."""

    def __init__(self, records: Mapping[str, list[Record]], cashier: Cashier) -> None:
        self._records = records
        self._cashier = cashier
        self._values: dict[str, dict[str, str]] = {}
        """by run id: values of dimensions from its detail"""
        self._touched: dict[tuple[str, str], Record] = {}
        self.paid: set[CallKey] = set()

    @property
    def touched(self) -> list[Record]:
        return list(self._touched.values())

    def note(self, detail: RunDetail, calls: Sequence[WaitingCall]) -> None:
        """Note values of dimensions from the detail of a run, in the outermost runs of its calls."""
        metadata_values = self._values[detail.run_id] = self._cashier.dimensions.of_metadata(detail.metadata)
        if not metadata_values:
            return
        for call in calls:
            if (place := self._find(call)) is not None:
                record, run = place
                values = run.values | metadata_values if call.outermost else metadata_values | run.values
                if values != run.values:
                    run.values = values
                    self._touched[record.id, record.db] = record

    def release(self, delta: Delta, check: WaitingCall, detail: RunDetail | None) -> None:
        """End the wait of a run for its detail, which would say whether a guardrail blocked it.

        Args:
            delta: What the transaction adds up to.
            check: The run.
            detail: Its detail; None if it did not come.

        """
        if detail is not None:
            self.note(detail, [check])
        if (place := self._find(check)) is not None:
            place[1].waiting -= 1
            self._finish(delta, check, *place)

    def _finish(self, delta: Delta, call: WaitingCall, record: Record, run: RunRecord) -> None:
        """Count the figures of the run if none of its calls waits any more."""
        if run.settled and not run.waiting:
            finish(delta, run, self._cashier)
            del record.runs[call.root]
        self._touched[record.id, record.db] = record

    def _find(self, call: WaitingCall) -> tuple[Record, RunRecord] | None:
        """The run of a call, and its record; None if the run settled without the call."""
        for record in self._records.get(call.trace, ()):
            if (run := record.runs.get(call.root)) is not None:
                return record, run
        return None

    def add(self, delta: Delta, call: WaitingCall, charged: Charged) -> None:
        """Take a charged call into its session, its run and its dimensions.

        Args:
            delta: What the transaction adds up to.
            call: The call, which waits no more.
            charged: Its tokens and cost.

        """
        cost = charged.cost
        self.paid.add(call.key)
        if cost and call.session is not None:
            session = SessionPart(call.start, call.end, cost=cost)
            recorded = delta.sessions.setdefault(call.session, session)
            if recorded is not session:
                recorded.join(session)
        counted = RunCall(call.agent_name, call.model, call.start, charged.tokens, cost)
        if (place := self._find(call)) is None:
            values = self._cashier.dimensions.of_ids(call.user_id, call.session_id) | self._values.get(call.run_id, {})
            count_call(delta, counted, call.root_name, values, self._cashier)
            return
        record, run = place
        run.waiting -= 1
        run.add_cost(cost)
        if run.divided:
            run.calls.append(counted)
        self._finish(delta, call, record, run)


async def no_details(*_: object) -> None:
    """`fetch` of an AgentOS that cannot be asked."""


async def expire_quietly(enricher: Enricher) -> bool:
    """`Enricher.expire` for a scheduler: an error is logged, and the next turn tries again."""
    try:
        return await enricher.expire()
    except StateError as error:
        log.warning("enrich", agentos=enricher.agentos, error=str(error))
    except Exception:
        log.exception("enrich_bug", agentos=enricher.agentos)
    return False
