"""The contract with everyone who has dashboards and alerts: names, kinds, labels and help, and the rules of naming."""

import re
from decimal import Decimal
from pathlib import Path

import pytest

from exporter.bookkeeping import operations
from exporter.core.error_class import ERROR_CLASSES
from exporter.core.model import MICROSECONDS
from exporter.metrics.catalog import (
    GUARDRAILS,
    IGNORED_REASONS,
    LIMITED_LABELS,
    METRICS,
    OUTCOMES,
    PUSH_OUTCOMES,
    ROOT_KINDS,
    ROW_REASONS,
    WINDOWS,
    Kind,
    Life,
    Metric,
)
from exporter.pricing.money import USD, units
from exporter.sources.operations import RESOLUTIONS, RUN_STATUSES, SCOPES

every_metric = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)

SECONDS = tuple(
    round(bound * MICROSECONDS) for bound in (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600, 1800, 3600)
)
TOKENS = tuple(4**power for power in range(14))
DOLLARS = tuple(
    units(Decimal(bound))
    for bound in (
        "0.0001",
        "0.0003",
        "0.001",
        "0.003",
        "0.01",
        "0.03",
        "0.1",
        "0.25",
        "0.5",
        *map(str, (1, 2.5, 5, 10, 30, 100)),
    )
)
OTEL_METRICS = {
    "gen_ai.invoke_agent.duration",
    "gen_ai.invoke_agent.inference_calls",
    "gen_ai.client.inference.duration",
    "gen_ai.client.inference.time_to_first_chunk",
    "gen_ai.client.inference.usage.*",
    "gen_ai.client.inference.operation.input_tokens",
    "gen_ai.client.inference.operation.output_tokens",
    "gen_ai.execute_tool.duration",
    "http.client.request.duration",
    "http.client.response.body.size",
}
OTEL_EVENTS = {"gen_ai.evaluation.result"}
OTEL_ATTRIBUTES = {
    "error.type",
    "user.id",
    "gen_ai.agent.id",
    "gen_ai.agent.name",
    "gen_ai.conversation.id",
    "gen_ai.evaluation.score.value",
}
SCORES = (100, 250, 500, 750, 900, 990, *range(1000, 10_001, 1000))
RATES = tuple(1000 * rate for rate in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000))
TOKEN_SECONDS = (
    *(1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 75_000, 100_000, 150_000, 200_000, 300_000, 500_000),
    *(1_000_000, 2_500_000),
)
NUMBERS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 100)


def describe(metric: Metric) -> str:
    return f"{metric.name}\n  {metric.kind}, {metric.life}\n  {', '.join(metric.labels)}\n  {metric.documentation}\n"


def test_contract(golden):
    golden("catalog.txt", "\n".join(map(describe, METRICS.values())))


@every_metric
def test_name(metric):
    assert re.fullmatch(r"agentos_[a-z]+(_[a-z]+)*", metric.name)
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert not metric.name.endswith(("_count", "_sum", "_bucket", "_created"))


@every_metric
def test_base_units(metric):
    assert not re.search(r"(?:^|_)(?:milliseconds|ms|minutes|hours|days|kilobytes|kb|mb|percent)(?:_|$)", metric.name)
    is_seconds = metric.name.removesuffix("_total").endswith("_seconds")
    is_usd = metric.name.removesuffix("_total").endswith("_usd")
    is_thousandth = metric.name.endswith(("_score", "_per_second"))
    assert metric.unit == (MICROSECONDS if is_seconds else USD if is_usd else 1000 if is_thousandth else 1)


@every_metric
def test_labels(metric):
    assert all(re.fullmatch(r"[a-z][a-z_]*", label) for label in metric.labels)
    assert len(set(metric.labels)) == len(metric.labels)
    forbidden = {"type", "le", "quantile", "job", "instance", "run_id", "session_id", "trace_id", "span_id", "user_id"}
    assert not forbidden & set(metric.labels)
    assert ("id" in metric.labels) == (metric.name == "agentos_component_info"), "the id of a component, never of a run"
    assert [metric.labels[index] for index in metric.limited] == [one for one in metric.labels if one in LIMITED_LABELS]


@every_metric
def test_labels_that_may_be_dropped(metric):
    assert "agentos" not in metric.droppable
    assert set(metric.apart) <= set(metric.labels)
    assert not set(metric.apart) & set(metric.droppable)
    assert not metric.droppable or (metric.life is Life.DURABLE and metric.labels[0] == "agentos")


def test_who_counts_a_metric_tells_whether_it_is_of_spans():
    """A backfill writes all that is of spans, and gives nothing else a sample."""
    beside = Path(operations.__file__).read_text()
    for metric in METRICS.values():
        of_the_exporter = metric.name.startswith("agentos_exporter_")
        counted = metric.kind is not Kind.GAUGE
        assert metric.of_spans == (counted and not of_the_exporter and f'"{metric.name}"' not in beside), metric.name


@every_metric
def test_help(metric):
    assert re.fullmatch(r"[A-Z1].*\.", metric.help), "one sentence or more"
    assert not re.search(r"[\n\\]", metric.documentation)
    assert metric.help in metric.documentation
    assert metric.otel in metric.documentation


@every_metric
def test_opentelemetry_names_are_told_apart(metric):
    """Metrics stand alone; what is an attribute or an event says so."""
    if not metric.otel:
        return
    found = re.fullmatch(
        r"(?:(attributes?|event) )?([a-z_.*, ]+?)(?:\{([a-z_.]+)\})?(?: \((?:count|sum)\))?", metric.otel
    )
    assert found
    kind, names, attribute = found.groups()
    known = {None: OTEL_METRICS, "event": OTEL_EVENTS}.get(kind, OTEL_ATTRIBUTES)
    assert set(names.split(", ")) <= known
    assert attribute is None or (kind is None and attribute in OTEL_ATTRIBUTES)
    assert (kind == "attributes") == ("," in names)


@every_metric
def test_buckets(metric):
    if metric.kind is not Kind.HISTOGRAM:
        assert metric.buckets == ()
    elif metric.name == "agentos_llm_time_per_output_token_seconds":
        assert metric.buckets == TOKEN_SECONDS
    elif metric.name.endswith("_per_second"):
        assert metric.buckets == RATES
    elif metric.name.endswith("_seconds"):
        assert metric.buckets == SECONDS
    elif metric.name.endswith("_tokens"):
        assert metric.buckets == TOKENS
    elif metric.name.endswith("_usd"):
        assert metric.buckets == DOLLARS
    elif metric.name.endswith("_score"):
        assert metric.buckets == SCORES
    else:
        assert metric.buckets == NUMBERS


@every_metric
def test_life_and_exemplars(metric):
    assert (metric.life is Life.NOW) == (metric.kind is Kind.GAUGE)
    assert not (metric.exemplars and metric.kind is Kind.GAUGE), "OpenMetrics allows none"


def test_the_catalog_is_keyed_by_name():
    assert [metric.name for metric in METRICS.values()] == list(METRICS)


def test_enumerations_are_spelled_in_the_help():
    for outcome in OUTCOMES:
        assert outcome in METRICS["agentos_exporter_polls_total"].help
    for outcome in PUSH_OUTCOMES:
        assert outcome in METRICS["agentos_exporter_push_total"].help
    for reason in IGNORED_REASONS:
        assert reason in METRICS["agentos_exporter_ignored_traces_total"].help
    for reason in ROW_REASONS:
        assert reason in METRICS["agentos_exporter_ignored_rows_total"].help
    for surface in SCOPES:
        assert surface in METRICS["agentos_surface_up"].help
    for resolution in RESOLUTIONS:
        assert resolution in METRICS["agentos_approvals_resolved_total"].help
    for status in RUN_STATUSES:
        assert status in METRICS["agentos_schedule_runs_total"].help
    for kind in ROOT_KINDS:
        assert kind in METRICS["agentos_traces_total"].help
    for guardrail in GUARDRAILS:
        assert guardrail in METRICS["agentos_guardrail_blocks_total"].help
    for error_class in ERROR_CLASSES:
        assert error_class in METRICS["agentos_llm_call_errors_by_class_total"].help
    assert list(WINDOWS.values()) == sorted(WINDOWS.values())
