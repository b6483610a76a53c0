"""The figures that are collected of one run until its trace settles, and the increments that they make then. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from exporter.core.times import day_of
from exporter.counting.attempts import Attempt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.counting.cashier import Cashier
    from exporter.counting.delta import Delta


class RunCall(msgspec.Struct, frozen=True, array_like=True):
    """An LLM call of a run: `start` in microseconds, `cost` in 10**-18 USD; None if unknown."""

    agent: str
    model: str
    start: int
    tokens: int | None
    cost: int | None


class RunRecord(msgspec.Struct, omit_defaults=True):
    """The figures that are collected of one run; `cost` in 10**-18 USD, of the calls that are `priced`.

    Attributes:
        root_kind: The kind of its outermost span.
        root: The name of it.
        llm_calls: How many LLM calls it has.
        priced: How many of them have a known cost.
        cost: Their sum.
        waiting: How many calls wait for the detail of the run.
        settled: Whether its trace is. The run is kept then only while the cost of some of its calls is waited for.
        attempts: What followed failed calls, as the last reading of its trace shows it.
        failed: Whether its outermost span did.
        divided: Whether there were dimensions when it was first read: it counts by them.
        values: Its values of dimensions, as far as they are known, by their marks.
        calls: Its LLM calls, if it is divided.
        start: When it began, in microseconds; of one that is older than schema 8 of the state, the end of its trace.

    """

    root_kind: str
    root: str
    llm_calls: int = 0
    priced: int = 0
    cost: int = 0
    waiting: int = 0
    settled: bool = False
    attempts: list[Attempt] = []
    failed: bool = False
    divided: bool = False
    values: dict[str, str] = {}
    calls: list[RunCall] = []
    start: int = 0

    def add_cost(self, cost: int | None) -> None:
        """What one LLM call of the run costs; None: it is not known."""
        if cost is not None:
            self.priced += 1
            self.cost += cost


def settle(delta: Delta, runs: dict[int, RunRecord], cashier: Cashier) -> None:
    """Count the figures of settled runs, and forget the runs.

    A run with calls that wait for details is kept until they are priced.

    Args:
        delta: What the transaction adds up to.
        runs: The runs of a settled trace, by id of their outermost span; changed in place.
        cashier: Charges dimensions and their budgets.

    """
    for span, run in list(runs.items()):
        if not run.settled:
            delta.observe("agentos_run_llm_calls", (delta.agentos, run.root_kind, run.root), run.llm_calls)
            _count_attempts(delta, run)
            run.settled = True
        if not run.waiting:
            finish(delta, run, cashier)
            del runs[span]


def finish(delta: Delta, run: RunRecord, cashier: Cashier) -> None:
    """Count the figures of a settled run whose calls all have their final cost.

    Args:
        delta: What the transaction adds up to.
        run: The run.
        cashier: Charges dimensions and their budgets.

    """
    if run.priced or not run.llm_calls:
        delta.observe("agentos_run_cost_usd", (delta.agentos, run.root_kind, run.root), run.cost)
    if not run.divided:
        return
    for name, value in cashier.dimensions.named(run.values).items():
        labels = (delta.agentos, name, value)
        delta.add_on(day_of(run.start), "agentos_dimension_runs_total", labels)
        delta.add_on(day_of(run.start), "agentos_dimension_run_errors_total", labels, int(run.failed))
    for call in run.calls:
        count_call(delta, call, run.root, run.values, cashier)


def count_call(delta: Delta, call: RunCall, root: str, values: Mapping[str, str], cashier: Cashier) -> None:
    """Count an LLM call by dimension, and charge it to the budgets of its values.

    Args:
        delta: What the transaction adds up to.
        call: The call.
        root: Name of its outermost run.
        values: The values of its run, by dimension.
        cashier: Charges the budgets.

    """
    named, day = cashier.dimensions.named(values), day_of(call.start)
    for name, value in named.items():
        labels = (delta.agentos, name, value, call.model)
        if call.tokens is not None:
            delta.add_on(day, "agentos_dimension_tokens_total", labels, call.tokens)
        if call.cost is not None:
            delta.add_on(day, "agentos_dimension_cost_usd_total", labels, call.cost)
    if call.cost:
        base = (delta.agentos, root, call.agent)
        for allowance in cashier.budgets.allowances(base, call.model, named, call.start):
            delta.allowances[allowance] = delta.allowances.get(allowance, 0) + call.cost


def _count_attempts(delta: Delta, run: RunRecord) -> None:
    for attempt in run.attempts:
        base = (delta.agentos, run.root, attempt.agent)
        if attempt.fallback:
            delta.add("agentos_llm_fallbacks_total", (*base, attempt.model, attempt.fallback))
        else:
            delta.add("agentos_llm_retries_total", (*base, attempt.provider, attempt.model))
    run.attempts.clear()
