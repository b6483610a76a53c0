"""Why a figure differs: one rule for each reason, and each uses only known facts.

A rule names its reason if known facts could make such a difference. Several reasons may apply; how much each of them
contributes is unknown, and not stated.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Final, NamedTuple

from exporter.core.times import stamp
from exporter.pricing.money import USD
from exporter.reconcile.figures import DAY, TOKENS, Figures, Measure, Statement, start_of
from exporter.reconcile.ours import Ours, Tally
from exporter.reconcile.reasons import Finding, Reason

_INPUTS: Final = (Measure.INPUT, Measure.CACHE_READ, Measure.CACHE_WRITE)
_MILLION: Final = 1_000_000


class Case(NamedTuple):
    """One figure that differs, with all that is known of its day and model.

    `group` and `stated` are all figures of that day and model, ours and theirs; `tally` is None if the ledger has none
    of the model, `stated` if the other side does not name it. `sums` are those of the whole period, by measure.
    """

    ledger: Ours
    statement: Statement
    today: dt.date
    day: dt.date
    model: str
    measure: Measure
    tally: Tally | None
    group: Figures
    stated: Figures | None
    sums: Mapping[Measure, tuple[int, int]] = {}

    @property
    def ours(self) -> int | None:
        """Our figure."""
        return self.group.get(self.measure)

    @property
    def theirs(self) -> int | None:
        """Their figure."""
        return None if self.stated is None else self.stated.get(self.measure)

    @property
    def lacking(self) -> bool:
        """Whether we have less, or do not know."""
        return self.theirs is not None and (self.ours is None or self.ours < self.theirs)

    @property
    def whole_day(self) -> bool:
        """Whether both sides cover the same whole day; otherwise they have different calls for that reason alone."""
        since, until = self.ledger.since, self.ledger.until
        begun = since is not None and since <= start_of(self.day)
        read = until is None or until >= start_of(self.day) + DAY
        return begun and read and self.day < self.today and self.day not in self.statement.shifted

    def both(self, measure: Measure) -> tuple[int, int] | None:
        """(ours, theirs) of another measure of this group; None unless both are known."""
        theirs = None if self.stated is None else self.stated.get(measure)
        counted = self.group.get(measure)
        return None if counted is None or theirs is None else (counted, theirs)


Rule = Callable[[Case], Finding | None]


def explain(rules: tuple[Rule, ...], case: Case) -> tuple[Finding, ...]:
    """All reasons that apply; `unexplained` if none does."""
    findings = tuple(finding for rule in rules if (finding := rule(case)) is not None)
    return findings or (Finding(Reason.UNEXPLAINED, "nothing that the ledger or the other side tells makes it"),)


# --- Both kinds of other sides ----------------------------------------------------------------------------------------


def _day_not_over(case: Case) -> Finding | None:
    if case.day < case.today:
        return None
    return Finding(Reason.DAY_NOT_OVER, "the day is not over: both sides still count")


def _ledger_begins_later(case: Case) -> Finding | None:
    since = case.ledger.since
    if since is None or since <= start_of(case.day) or not case.lacking:
        return None
    return Finding(Reason.LEDGER_BEGINS_LATER, f"the ledger's daily sums begin at {stamp(since)}")


def _ledger_ends_earlier(case: Case) -> Finding | None:
    until = case.ledger.until
    if until is None or until >= start_of(case.day) + DAY or not case.lacking:
        return None
    return Finding(Reason.LEDGER_ENDS_EARLIER, f"the ledger has what ended before {stamp(until)}")


def _calls_wait(case: Case) -> Finding | None:
    waiting = case.ledger.waiting
    if not waiting or case.measure not in {*TOKENS, Measure.COST} or not case.lacking:
        return None
    return Finding(Reason.CALLS_WAIT, f"{waiting} calls, of whatever day, still wait for their tokens and cost")


def _hidden(case: Case) -> Finding | None:
    hidden, ignored = case.ledger.hidden, case.ledger.ignored
    if not case.lacking or not (hidden or ignored):
        return None
    text = f"{hidden} spans were never shown and {ignored} traces not counted since the ledger began; none is dated"
    return Finding(Reason.HIDDEN_SPANS, text)


def _calls_without_usage(case: Case) -> Finding | None:
    tally = case.tally
    if tally is None or case.measure not in {*TOKENS, Measure.COST} or not case.lacking:
        return None
    silent = tally.without_usage - tally.failed
    if silent <= 0:
        return None
    return Finding(Reason.CALLS_WITHOUT_USAGE, f"{silent} of our calls report no tokens, though they did not fail")


# --- Vendors ----------------------------------------------------------------------------------------------------------


def _time_zone(case: Case) -> Finding | None:
    why = case.statement.shifted.get(case.day)
    return None if why is None else Finding(Reason.TIME_ZONE, f"the day is not that of UTC: {why}")


def _model_only_theirs(case: Case) -> Finding | None:
    if case.tally is not None or not case.model:
        return None
    return Finding(Reason.MODEL_ONLY_THEIRS, "the ledger has no call of this model on that day")


def _model_only_ours(case: Case) -> Finding | None:
    if case.stated is not None:
        return None
    return Finding(Reason.MODEL_ONLY_OURS, f"{case.statement.by} does not name this model on that day")


def _calls_not_seen(case: Case) -> Finding | None:
    calls = case.both(Measure.CALLS)
    if case.tally is None or calls is None or calls[0] >= calls[1] or not case.lacking or not case.whole_day:
        return None
    more = calls[1] - calls[0]
    text = f"{more} calls were not run through this AgentOS, or were repeated by the client below agno"
    return Finding(Reason.CALLS_NOT_SEEN, text)


def _failed_calls(case: Case) -> Finding | None:
    calls, tally = case.both(Measure.CALLS), case.tally
    if case.measure is not Measure.CALLS or tally is None or not tally.failed or calls is None or calls[0] <= calls[1]:
        return None
    return Finding(Reason.FAILED_CALLS, f"{tally.failed} of our calls failed, and may not be billed")


def _cache_unknown(case: Case) -> Finding | None:
    if case.ledger.cache_known or case.tally is None or case.measure not in _INPUTS or case.stated is None:
        return None
    text = "cached tokens are not told apart by the API; enrich_runs or a database does"
    if case.measure is not Measure.INPUT:
        return Finding(Reason.CACHE_UNKNOWN, text) if case.ours is None else None
    parts = [case.stated.get(measure) for measure in _INPUTS]
    whole = sum(part for part in parts if part is not None)
    if case.ours != whole:
        return None
    return Finding(Reason.CACHE_UNKNOWN, f"our input is their input with cached tokens: {text}")


def _unpriced_tokens(case: Case) -> Finding | None:
    tally = case.tally
    if case.measure is not Measure.COST or tally is None or not tally.unpriced or not case.lacking:
        return None
    return Finding(Reason.UNPRICED_TOKENS, f"{tally.unpriced} of our tokens have no price; give one in the price file")


def _estimated_cost(case: Case) -> Finding | None:
    tally = case.tally
    if case.measure is not Measure.COST or tally is None or not tally.estimated:
        return None
    return Finding(Reason.ESTIMATED_COST, f"{_usd(tally.estimated)} USD of ours are an estimate")


def _price_differs(case: Case) -> Finding | None:
    tally = case.tally
    if case.measure is not Measure.COST or tally is None or tally.unpriced or case.ours is None or case.theirs is None:
        return None
    # If ours is more, an estimate can be too high by at most its own amount.
    if tally.estimated and case.ours - case.theirs <= tally.estimated:
        return None
    tokens = _same_tokens(case)
    if not tokens:
        return None
    ours, theirs = _per_million(case.ours, tokens), _per_million(case.theirs, tokens)
    return Finding(Reason.PRICE_DIFFERS, f"the tokens are the same: a million cost {ours} USD here, {theirs} there")


def _usage_not_stated(case: Case) -> Finding | None:
    if case.measure is not Measure.COST or case.stated is None or any(measure in case.stated for measure in TOKENS):
        return None
    return Finding(Reason.USAGE_NOT_STATED, "the export has costs alone; its usage export would tell more")


def _tokens_differ(case: Case) -> Finding | None:
    if case.measure is not Measure.COST or case.tally is None or case.stated is None:
        return None
    pairs = [case.both(measure) for measure in TOKENS]
    if any(pair is not None and pair[0] != pair[1] for pair in pairs):
        return Finding(Reason.TOKENS_DIFFER, "the tokens differ, for the reasons of their lines")
    return None


def _same_tokens(case: Case) -> int:
    """How many tokens both sides have; 0 where they differ, or one does not know."""
    stated = case.stated or {}
    pairs = [case.both(measure) for measure in TOKENS if measure in stated]
    if not pairs or any(pair is None or pair[0] != pair[1] for pair in pairs):
        return 0
    return sum(pair[0] for pair in pairs if pair is not None)


def _usd(amount: int) -> str:
    return f"{(Decimal(amount) / USD).quantize(Decimal('0.000001')).normalize():f}"


def _per_million(amount: int, tokens: int) -> str:
    return _usd(amount * _MILLION // tokens)


# --- AgentOS ----------------------------------------------------------------------------------------------------------


def _inner_runs(case: Case) -> Finding | None:
    if case.measure is not Measure.RUNS or not case.lacking:
        return None
    text = "AgentOS counts runs inside runs too: members of teams, agents as tools, agents of steps"
    return Finding(Reason.INNER_RUNS, text)


def _dated_by_session(case: Case) -> Finding | None:
    """A run counts on the day on which its session began, so days differ and their sum does not."""
    sums = case.sums.get(_proof(case))
    if sums is None or sums[0] != sums[1]:
        return None
    text = "AgentOS counts a run on the day its session began; over the whole period both sides are the same"
    return Finding(Reason.DATED_BY_SESSION, text)


def _sessions_missing(case: Case) -> Finding | None:
    sums = case.sums.get(_proof(case))
    if sums is None or sums[0] <= sums[1] or case.theirs is None or case.lacking:
        return None
    text = (
        "AgentOS has less over the whole period: it leaves out sessions that were deleted or began before, runs after "
        "the day of their session, and some of the runs that went on at once in one session"
    )
    return Finding(Reason.SESSIONS_MISSING, text)


def _proof(case: Case) -> Measure:
    """Evidence for the day of AgentOS's runs: tokens, since numbers of runs differ for other reasons too."""
    return Measure.PROMPT if case.measure is Measure.RUNS else case.measure


_BOTH: Final = (
    *(_day_not_over, _ledger_begins_later, _ledger_ends_earlier),
    *(_calls_wait, _hidden, _calls_without_usage),
)
VENDOR_RULES: Final[tuple[Rule, ...]] = (
    *_BOTH,
    *(_time_zone, _model_only_theirs, _model_only_ours, _calls_not_seen, _failed_calls, _cache_unknown),
    *(_unpriced_tokens, _estimated_cost, _price_differs, _usage_not_stated, _tokens_differ),
)
AGENTOS_RULES: Final[tuple[Rule, ...]] = (*_BOTH, _inner_runs, _dated_by_session, _sessions_missing)
