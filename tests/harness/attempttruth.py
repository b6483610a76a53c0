"""What the exporter ought to show of attempts, speed, savings and overhead, counted independently of it.

Attempts come from what the models of `attempting.py` wrote down, the rest from agno's spans and runs by SQL. Prices are
those of `PRICES`. Nothing of the exporter is imported here.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from tests.harness import sqltruth, truth
from tests.harness.attempting import FALLBACK, RETRY, Attempt

PRICES = {
    "gpt-5.4": ("2.5", "0.25", "15"),
    "gpt-5.4-mini": ("0.75", "0.075", "4.5"),
    "gpt-5.4-nano": ("0.2", "0.02", "1.25"),
    "claude-sonnet-4-5": ("3", "0.3", "15"),
    "gemini-2.5-flash": ("0.3", "0.03", "2.5"),
    "deepseek-reasoner": ("0.5", "0.125", "2"),
}
"""US dollars for a million tokens of input, of cached input, and of output."""

EXACT = (
    "agentos_llm_retries_total",
    "agentos_llm_fallbacks_total",
    "agentos_llm_wasted_seconds_total",
    "agentos_llm_cache_savings_usd_total",
    "agentos_run_overhead_tokens_total",
    "agentos_run_overhead_cost_usd_total",
    *(f"agentos_llm_time_to_first_token_seconds_{part}" for part in ("count", "sum")),
    *(f"agentos_llm_time_per_output_token_seconds_{part}" for part in ("count", "sum")),
    *(f"agentos_llm_output_tokens_per_second_{part}" for part in ("count", "sum")),
)
"""The samples that `count` knows."""

_MILLION = 1_000_000


def price_file() -> str:
    """Return `PRICES` as the exporter reads them; JSON is YAML."""
    keys = ("input_mtok", "cache_read_mtok", "output_mtok")
    return json.dumps(
        {"prices": [{"model": model, **dict(zip(keys, map(float, usd), strict=True))} for model, usd in PRICES.items()]}
    )


@dataclass(frozen=True)
class Run:
    """A row of agno's runs: its metrics, its label, and that of the outermost run around it."""

    root: str
    agent: str
    metrics: Mapping[str, Any]

    def uses(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield what each model of the run took, with its role; a model that only failed took nothing."""
        for role, uses in (self.metrics.get("details") or {}).items():
            yield from ((role, use) for use in uses if "output_tokens" in use)


def count(database: str, record: Iterable[Attempt], agentos: str, *, detailed: bool) -> truth.Totals:
    """Count all that is known of `EXACT`.

    `detailed`: cached tokens are known from runs alone, as over the HTTP API, and not from spans.
    """
    sums = _Sums(agentos)
    runs, calls = read_runs(database), sqltruth.count(database, agentos).calls
    _count_attempts(sums, record)
    for call in calls:
        _count_call(sums, call, detailed=detailed)
    for run in runs.values():
        for role, use in run.uses():
            _count_use(sums, run, role, use, detailed=detailed)
    for span_id, run_id, start in _spans_of_runs(database):
        if run_id in runs:
            _count_first_token(sums, runs[run_id], start, [call.row for call in calls if call.row.parent == span_id])
    return {key: float(value) for key, value in sums.totals.items()}


class _Sums:
    """Samples of one AgentOS, added up exactly."""

    def __init__(self, agentos: str) -> None:
        self._agentos = agentos
        self.totals: defaultdict[truth.Sample, Decimal] = defaultdict(Decimal)

    def add(self, name: str, value: Decimal | int, **labels: str) -> None:
        self.totals[f"agentos_{name}", frozenset({"agentos": self._agentos, **labels}.items())] += value

    def observe(self, name: str, value: Decimal, **labels: str) -> None:
        self.add(f"{name}_count", 1, **labels)
        self.add(f"{name}_sum", value, **labels)


def _count_attempts(sums: _Sums, record: Iterable[Attempt]) -> None:
    for one in record:
        place = {"root": one.root, "agent": one.agent}
        if one.why == RETRY:
            sums.add("llm_retries_total", 1, **place, provider=one.provider, model=one.model)
        elif one.why == FALLBACK:
            sums.add("llm_fallbacks_total", 1, **place, from_model=one.instead_of, to_model=one.model)


def _count_call(sums: _Sums, call: truth.Call, *, detailed: bool) -> None:
    row, model = call.row, {"provider": call.row.provider, "model": call.row.model}
    labels = {"root": call.root, "agent": call.agent, **model}
    if row.status == "ERROR":
        sums.add("llm_wasted_seconds_total", Decimal(row.microseconds) / _MILLION, **labels)
        return
    if row.output_tokens:
        thousandths = row.output_tokens * 1000 * _MILLION // row.microseconds  # the exporter keeps no smaller parts
        sums.observe("llm_output_tokens_per_second", Decimal(thousandths) / 1000, **model)
    if not detailed:
        sums.add("llm_cache_savings_usd_total", row.tokens["cache_read"] * _discount(row.model), **labels)


def _count_use(sums: _Sums, run: Run, role: str, use: Mapping[str, Any], *, detailed: bool) -> None:
    model = str(use["id"])
    fresh, cached, output = _classes(use)
    if detailed and role != "reasoning_model":  # its agent has a run of its own, which is not stored
        labels = {"root": run.root, "agent": run.agent, "provider": use["provider"].lower(), "model": model}
        sums.add("llm_cache_savings_usd_total", cached * _discount(model), **labels)
    if role != "model":
        labels = {"root": run.root, "model": model, "role": role.removesuffix("_model")}
        input_price, cached_price, output_price = map(Decimal, PRICES[model])
        cost = (fresh * input_price + cached * cached_price + output * output_price) / _MILLION
        sums.add("run_overhead_tokens_total", fresh + cached + output, **labels)
        sums.add("run_overhead_cost_usd_total", cost, **labels)


def _count_first_token(sums: _Sums, run: Run, began: int, calls: Iterable[truth.Row]) -> None:
    """Count the first token of a run that began at so many microseconds, with the calls of its agent."""
    first = run.metrics.get("time_to_first_token")
    if first is None:
        return
    main = next(use for role, use in run.uses() if role == "model")
    labels = {"provider": main["provider"].lower(), "model": main["id"]}
    microseconds = round(first * _MILLION)
    sums.observe("llm_time_to_first_token_seconds", Decimal(microseconds) / _MILLION, **labels)
    answered = [row for row in calls if row.model == main["id"] and row.output_tokens]
    call = min(answered, key=lambda row: row.start)
    start, came = round(call.start * _MILLION), began + microseconds
    end = start + call.microseconds
    if call.name.endswith("_stream") and start <= came <= end and call.output_tokens > 1:
        rest = (end - came) // (call.output_tokens - 1)
        sums.observe("llm_time_per_output_token_seconds", Decimal(rest) / _MILLION, **labels)


def difference(expected: truth.Totals, got: truth.Totals, agentos: str) -> list[str]:
    """Describe each sample of `EXACT` that differs; a series at 0 equals one that is absent."""
    shown = {key: value for key, value in got.items() if key[0] in EXACT and ("agentos", agentos) in key[1]}
    lines = []
    for key in sorted(expected.keys() | shown.keys(), key=str):
        want, have = expected.get(key, 0.0), shown.get(key, 0.0)
        if abs(want - have) > 1e-12 * max(1.0, abs(want)):  # both are sums of exact numbers, as floats
            lines.append(f"{key[0]} {dict(key[1])}: expected {want:.16g}, got {have:.16g}")
    return lines


def read_runs(database: str) -> dict[str, Run]:
    """Read agno's runs, by id."""
    with truth.snapshot(database) as (connection, schema):
        columns = "run_id, COALESCE(agent_id, team_id, workflow_id), parent_run_id, run_data"
        rows = {row[0]: row[1:] for row in connection.execute(f"SELECT {columns} FROM {schema}agno_runs").fetchall()}

    def label(run_id: str) -> str:
        return str(rows[run_id][0]).replace("-", "_").title()

    def root_of(run_id: str) -> str:
        return root_of(rows[run_id][1]) if rows[run_id][1] in rows else run_id

    return {
        run_id: Run(label(root_of(run_id)), label(run_id), _json(data).get("metrics") or {})
        for run_id, (_, _, data) in rows.items()
    }


def _spans_of_runs(database: str) -> Iterator[tuple[str, str, int]]:
    """Yield the span id of each agent and team, with its run id and when it began in microseconds."""
    with truth.snapshot(database) as (connection, schema):
        rows = connection.execute(f"SELECT span_id, start_time, attributes FROM {schema}agno_spans").fetchall()
    for span_id, start, attributes in rows:
        if run_id := _json(attributes).get("agno.run.id"):
            yield span_id, run_id, round(datetime.fromisoformat(start).timestamp() * _MILLION)


def _classes(use: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return fresh input, cached input and output of an entry; Anthropic's input leaves cached tokens out."""
    total, cached = use.get("input_tokens", 0), use.get("cache_read_tokens", 0)
    return total if use["provider"] == "Anthropic" else total - cached, cached, use.get("output_tokens", 0)


def _discount(model: str) -> Decimal:
    """Return what a cached token costs less than another one."""
    fresh, cached, _ = map(Decimal, PRICES[model])
    return (fresh - cached) / _MILLION


def _json(value: Any) -> Any:
    """SQLite keeps JSON as text."""
    return json.loads(value) if isinstance(value, str) else value
