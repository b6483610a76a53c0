"""The catalog for readers: a Markdown page, table rows and JSON, as `agentos-exporter metrics` prints them."""

from __future__ import annotations

import json
from typing import Any, Final

from exporter.metrics.catalog import METRICS, OTHER, Life, Metric

GROUPS: Final = {
    "Runs": ("agentos_traces_", "agentos_run_", "agentos_runs_", "agentos_guardrail_"),
    "Models": ("agentos_llm_", "agentos_cost_"),
    "Tools": ("agentos_tool_",),
    "Spans": ("agentos_spans_", "agentos_error_spans_"),
    "Sessions and users": ("agentos_session", "agentos_active_", "agentos_user_"),
    "Dimensions of your own": ("agentos_dimension_",),
    "Budgets": ("agentos_budget_",),
    "What AgentOS says of itself": ("agentos_info", "agentos_component_", "agentos_up"),
    "What waits, and how it ended": (
        "agentos_surface_",
        "agentos_approval",
        "agentos_schedule_",
        "agentos_queue_",
        "agentos_eval_",
        "agentos_knowledge_",
        "agentos_memor",
    ),
    "The exporter itself": ("agentos_exporter_",),
}
"""Title of each part of the page, and how the names of its metrics start."""

TABLE_HEADER: Final = ("name", "kind", "labels", "unit", "life", "meaning")

_UNITS: Final = ("timestamp_seconds", "seconds", "bytes", "tokens")
_LIVES: Final = {
    Life.DURABLE: "kept in the state file: survives restarts",
    Life.PROCESS: "starts at 0 with the process",
    Life.NOW: "worked out anew, not kept",
}

_INTRO: Final = f"""\
<!-- Generated from exporter/metrics/catalog.py by `agentos-exporter metrics --format markdown`. Do not edit. -->

# Metrics

Every metric that agentos-exporter serves on `/metrics`. `agentos-exporter metrics` prints the same catalog on a
terminal, with `--format json` for programs.

**Counters survive restarts.** Totals, and which spans are already in them, are committed to the state file together;
each span counts once, however often it is read. The few metrics that start at 0 with the process say so below.

**A new series shows 0 first.** Prometheus's `increase()` and `rate()` see a change only between two samples. A series
that first showed up as 1 would lose its first event, and the alert with it. So a new series is served as 0 until it was
scraped, and for at least `zero_hold` (60 s) after that; only then it shows its value. Series found by the first poll of
an AgentOS show their value at once.

**Labels are limited.** Names that come from AgentOS (`root`, `agent`, `provider`, `model`, `tool`, `error_type`,
`schedule`, `name`, `component`), `user` and the `value` of each dimension are admitted up to a limit per label and per
metric; what comes later is counted under `{OTHER}`, so sums stay exact.
`agentos_exporter_series_limited_total` tells where that happened. A value that was admitted stays admitted.
`labels.drop` leaves labels out of a metric altogether; `--format json` names those that can be dropped.

**Ids of runs, sessions and traces are never labels**, and neither are prompts, answers, tool arguments or error texts.
Ids of users are labels only where `labels: {{user: plain}}` asks for it; `hashed` shows 16 digits that nobody can trace
back without the state file.

**Exemplars lead to traces.** Where noted, a series carries the id of one trace as an exemplar (`trace_id`). Exemplars
exist in the OpenMetrics format only, which Prometheus asks for by itself; it keeps them when it runs with
`--enable-feature=exemplar-storage`.

**Common labels.** `agentos` is the configured name of the AgentOS instance. `root` is the name of the outermost agent,
team or workflow span of a run: the entry point that a user called; `root_kind` is its kind. `agent` is the nearest
agent or team at or above the span, '' where there is none. All are spelled as in the spans; `agentos_component_info`
joins them with ids.

**OpenTelemetry's names** are those of its semantic conventions for generative AI, release 0.1.0: a metric, in braces
the attribute that a part of it has, or an attribute or event where there is no such metric. They are the nearest there
is, and not always the same measure. Releases before had `gen_ai.client.operation.duration`, `gen_ai.client.token.usage`
and `gen_ai.workflow.duration` instead. Of labels, `provider` is `gen_ai.provider.name`, `model` `gen_ai.request.model`,
`agent` `gen_ai.agent.name`, `tool` `gen_ai.tool.name` and `error_type` `error.type`.

Besides the metrics below there are `process_*` and `python_info` of the exporter's own process.
"""


def group(metric: Metric) -> str:
    """Title of the part of the page that shows this metric. Raises KeyError for a name that fits no part."""
    for title, prefixes in GROUPS.items():
        if metric.name.startswith(prefixes):
            return title
    raise KeyError(metric.name)


def base_unit(metric: Metric) -> str:
    """Base unit in which Prometheus sees the values, '' for plain numbers."""
    stem = metric.name.removesuffix("_total")
    return next((unit for unit in _UNITS if stem.endswith(f"_{unit}")), "")


def bucket_bounds(metric: Metric) -> tuple[float, ...]:
    """Upper bounds of a histogram's buckets in base units, without +Inf; empty for other kinds."""
    return tuple(bound // metric.unit if bound % metric.unit == 0 else bound / metric.unit for bound in metric.buckets)


def markdown() -> str:
    """The whole reference page, ending in a line break."""
    parts = [_INTRO]
    for title in GROUPS:
        entries = [_entry(metric) for metric in METRICS.values() if group(metric) == title]
        if entries:
            parts.extend((f"## {title}\n", *entries))
    return "\n".join(parts)


def table_rows() -> list[tuple[str, ...]]:
    """One row a metric, under TABLE_HEADER."""
    return [
        (metric.name, metric.kind.value, ", ".join(metric.labels), base_unit(metric), metric.life.value, metric.help)
        for metric in METRICS.values()
    ]


def as_json() -> str:
    """The catalog as a JSON array, ending in a line break; buckets in base units."""
    return json.dumps([_record(metric) for metric in METRICS.values()], indent=2, ensure_ascii=False) + "\n"


def _record(metric: Metric) -> dict[str, Any]:
    return {
        "name": metric.name,
        "kind": metric.kind.value,
        "group": group(metric),
        "help": metric.help,
        "labels": list(metric.labels),
        "droppable_labels": list(metric.droppable),
        "limited_labels": [metric.labels[index] for index in metric.limited],
        "unit": base_unit(metric),
        "buckets": list(bucket_bounds(metric)),
        "life": metric.life.value,
        "exemplars": metric.exemplars,
        "opentelemetry": metric.otel,
        "notes": metric.notes,
    }


def _entry(metric: Metric) -> str:
    lines = [f"### `{metric.name}`", "", _text(metric.help), ""]
    unit = base_unit(metric)
    lines.append(f"- {metric.kind.value.capitalize()}{f' in {unit}' if unit else ''}; {_LIVES[metric.life]}.")
    if metric.labels:
        lines.append(f"- Labels: {', '.join(f'`{label}`' for label in metric.labels)}.")
    if metric.buckets:
        lines.append(f"- Buckets: {', '.join(f'{bound}' for bound in bucket_bounds(metric))}.")
    if metric.exemplars:
        lines.append("- Carries exemplars.")
    if metric.otel:
        named = " ".join(_code(word) if "." in word else word for word in metric.otel.split(" "))
        lines.append(f"- OpenTelemetry: {named}.")
    if metric.notes:
        lines.append(f"- {_text(metric.notes)}")
    return "\n".join(lines) + "\n"


def _text(text: str) -> str:
    """Prose for Markdown: words with underscores are names, and an underscore outside of code is no emphasis."""
    return " ".join(_code(word) if "_" in word and "`" not in word else word for word in text.split(" "))


def _code(word: str) -> str:
    name = word.rstrip(".,:;()").lstrip("(")
    return word.replace(name, f"`{name}`")
