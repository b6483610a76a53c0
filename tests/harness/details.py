"""One AgentOS whose runs have details: its ledger, totals, intake and enricher on a clock that a test moves."""

import asyncio
from collections import Counter
from decimal import Decimal

from exporter.bookkeeping.enrich import Enricher
from exporter.bookkeeping.intake import Intake
from exporter.bookkeeping.shared import Shared
from exporter.core.model import Clock, Span, SpanKind, TokenUsage, Trace
from exporter.counting.cashier import Cashier
from exporter.counting.waiting import ModelUse, RunDetail
from exporter.ledger.store import Ledger
from exporter.metrics.series import Limits
from exporter.metrics.totals import Totals
from exporter.pricing.money import USD
from exporter.pricing.prices import Pricer
from exporter.sources.protocol import Batch

S = 1_000_000
T0 = 1_795_000_000  # November 2026
TOKENS, COST = "agentos_llm_tokens_total", "agentos_llm_cost_usd_total"
FIRST_TOKEN = "agentos_llm_time_to_first_token_seconds"
OPENAI = {"provider": "openai", "model": "gpt-5.4", "model_class": "OpenAIChat"}
CLAUDE = {"provider": "anthropic", "model": "claude-sonnet-4-5", "model_class": "Claude"}
PRICER = Pricer()


CASHIER = Cashier(PRICER)


class Home:
    """Ledger, totals, intake and enricher of one AgentOS, on a clock that only the test moves."""

    def __init__(self, details=None, *, enabled=True, databases=(), cashier=CASHIER) -> None:
        self.now = float(T0)
        self.ledger = Ledger(None)
        self.details = {} if details is None else details
        self.asked = []
        self.enabled = enabled
        self.cashier = cashier
        self.databases = databases
        self.seen = {}
        self.limits = Limits()
        self.open()

    def open(self) -> None:
        """As after a start: of what was, only the ledger is left."""
        clock = Clock(lambda: self.now, lambda: self.now)
        self.totals = Totals(self.limits, zero_hold=60)
        self.totals.restore(*self.ledger.load())
        shared = Shared(self.ledger, self.totals, clock)
        self.enricher = Enricher(
            "os",
            shared,
            self.cashier,
            fetch=self.fetch,
            databases=lambda: self.databases,
            enabled=self.enabled,
        )
        self.intake = Intake(
            "os",
            shared,
            overlap=60,
            horizon=3600,
            cashier=self.cashier,
            enriches=self.enricher.active,
        )

    async def fetch(self, session_id, run_id, db, wait):
        self.asked.append((session_id, run_id, db))
        found = self.details.get(run_id)
        if isinstance(found, Exception):
            raise found
        return None if found is None else {one.run_id: one for one in (found if isinstance(found, list) else [found])}

    def read(self, *traces, at=None, **more):
        self.at(at)
        return self.intake.absorb(Batch("db", traces, as_of=int(self.now * S), **more))

    def at(self, seconds):
        if seconds is not None:
            self.now = T0 + seconds

    def enrich(self, at=None, *, deadline=60):
        self.at(at)
        return asyncio.run(self.enricher.run(self.now + deadline))

    def expire(self, at=None):
        self.at(at)
        return asyncio.run(self.enricher.expire())

    def of(self, metric, *places):
        """Sums of a counter by the labels at these places, without zeros."""
        found = Counter()
        for series in self.totals.stored():
            if series.metric == metric and series.value:
                found[tuple(series.labels[place] for place in places)] += series.value
        return {key[0] if len(places) == 1 else key: value for key, value in found.items()}

    def tokens(self):
        return self.of(TOKENS, 5)

    def cost(self):
        """(token class, cost source) → USD."""
        return {key: Decimal(value) / USD for key, value in self.of(COST, 5, 6).items()}

    def observed(self, metric):
        """(observations, their sum) over all series of a histogram."""
        found = [series for series in self.totals.stored() if series.metric == metric]
        return sum(sum(one.counts) for one in found), sum(one.total for one in found)

    def never_falls(self):
        for series in self.totals.stored():
            key, value = (series.metric, series.labels), (series.value, *series.counts, series.total)
            assert all(new >= old for new, old in zip(value, self.seen.get(key, value), strict=True)), key
            self.seen[key] = value


def run_of(number, *calls, shown=None, run_id=None, session="s", kind=SpanKind.AGENT, **more):
    """A trace with one run, whose calls are fields of Span with `tokens` as (prompt, completion)."""
    ids = {"run_id": run_id or f"run{number}", "session_id": session, "user_id": "u"} | more
    spans = [Span(number * 100 + 1, -1, kind, "Agent", T0 * S, (T0 + 9) * S, **ids)]
    for place, call in enumerate(calls):
        fields = dict(call)
        usage = TokenUsage(*fields.pop("tokens"))
        start = (T0 + fields.pop("start", place)) * S
        spans.append(Span(number * 100 + place + 2, 0, SpanKind.LLM, "m", start, start + S, usage=usage, **fields))
    visible = spans if shown is None else spans[: 1 + shown]
    return Trace(f"t{number}", "db", T0 * S, (T0 + 9) * S, T0 * S, len(spans), tuple(visible))


def detail(number, *uses, first_token=250_000, **more):
    return RunDetail(more.get("run_id", f"run{number}"), first_token, uses, metadata=more.get("metadata", {}))


def call(*tokens, **more):
    return {"tokens": tokens, **OPENAI, **more}


def use(model, provider, *counts, **more):
    names = ("prompt", "completion", "cache_read", "cache_write", "reasoning")
    return ModelUse(model, provider, **dict(zip(names, counts, strict=False)), **more)
