"""Every threshold, window and delay of the rules, and every SLO target of the boards: the one place to look.

`python -m deploy.mixin --settings my.yml --out DIR` takes a YAML file with the fields that are to differ.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Final, get_type_hints

import yaml

from deploy.mixin.promql import number, seconds
from exporter.metrics.catalog import METRICS
from exporter.metrics.reference import bucket_bounds


class SettingsError(Exception):
    """What is wrong with a file of settings: one line for each mistake."""


def _ratio(value: object) -> float:
    ratio = _positive(value)
    if ratio >= 1:
        raise ValueError("must be a share above 0 and below 1, such as 0.05 for 5 %")
    return ratio


def _positive(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ValueError("must be a number above 0")
    return value


def _factor(value: object) -> float:
    factor = _positive(value)
    if factor < 1:
        raise ValueError("must be a number of at least 1")
    return factor


def _duration(value: object) -> str:
    if not isinstance(value, str) or not seconds(value):
        raise ValueError("must be a duration above 0s, such as 5m")
    return value


def _url(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"https?://[^\s{}?#]+", value):
        raise ValueError("must be an address such as https://grafana.example.com, without ? and #")
    return value.rstrip("/")


def _pattern(value: object) -> str:
    try:
        re.compile(value if isinstance(value, str) else "(")
    except re.error:
        raise ValueError("must be a job name or a regular expression") from None
    if not value or '"' in str(value) or "`" in str(value) or "\\" in str(value):
        raise ValueError("must be a job name or a regular expression, without quotes and backslashes")
    return str(value)


def _bucket(metric: str) -> Callable[[object], float]:
    bounds = bucket_bounds(METRICS[metric])

    def check(value: object) -> float:
        chosen = _positive(value)
        if chosen not in bounds:
            raise ValueError(f"must be a bucket of {metric}: {', '.join(number(bound) for bound in bounds)}")
        return chosen

    return check


Ratio = Annotated[float, _ratio]
Positive = Annotated[float, _positive]
Factor = Annotated[float, _factor]
Duration = Annotated[str, _duration]
Url = Annotated[str, _url]


@dataclass(frozen=True, slots=True)
class Settings:
    """Defaults suit an AgentOS with tens to thousands of runs an hour; the runbooks say what to tune and when."""

    # Where things are
    exporter_job: Annotated[str, _pattern] = "agentos-exporter"
    """Prometheus's job of the exporters, a name or a regular expression: how their absence is noticed."""
    grafana_url: Url = "http://localhost:3000"
    """Base address of the boards that alerts link to."""
    runbook_url: Url = "https://github.com/agentos-exporter/agentos-exporter/blob/main/docs/runbooks"
    """Base address of the runbooks that alerts link to."""

    # How often rules are evaluated
    fast_interval: Duration = "1m"
    """Evaluation interval of rules over windows up to an hour, and of alerts."""
    slow_interval: Duration = "2m"
    """Evaluation interval of rules over hours and days. Below 5m, or their series have gaps."""

    # Objectives
    run_success_target: Ratio = 0.99
    """Share of runs that end without error, over 30 days."""
    latency_objective_seconds: Annotated[float, _bucket("agentos_run_duration_seconds")] = 60
    """How long a run may take. A bucket of `agentos_run_duration_seconds`."""
    latency_target: Ratio = 0.95
    """Share of runs that take no longer than that, over 30 days."""
    burn_fast: Factor = 14.4
    """Burn rate over 1h and 5m that pages: 2 % of a budget of 30 days in an hour."""
    burn_medium: Factor = 6
    """Burn rate over 6h and 30m that pages: 5 % of a budget of 30 days in six hours."""
    burn_slow: Factor = 1
    """Burn rate over 3d and 6h that warns: 10 % of a budget of 30 days in three days."""
    burn_min_events: Positive = 5
    """Failed (or slow) runs in the longer window below which no budget alert fires: one run of one is 100 %."""
    burn_fast_for: Duration = "2m"
    """How long the fast burn must last."""
    burn_medium_for: Duration = "15m"
    """How long the medium burn must last."""
    burn_slow_for: Duration = "1h"
    """How long the slow burn must last."""

    # Errors
    error_spike_factor: Factor = 3
    """How many times its baseline the share of failed spans of a kind must reach."""
    error_spike_floor: Ratio = 0.05
    """Share of failed spans below which nothing is a spike."""
    error_spike_min_errors: Positive = 5
    """Failed spans in 5m below which nothing is a spike."""
    error_spike_baseline_age: Duration = "1h"
    """Age at which a day's baseline ends, so that a spike does not become its own baseline."""
    error_spike_for: Duration = "2m"
    """How long a spike must last."""
    provider_error_ratio: Ratio = 0.25
    """Share of failed calls of a model in 10m from which its provider counts as failing."""
    provider_min_errors: Positive = 5
    """Failed calls of a model in 10m below which its provider is not judged."""
    provider_for: Duration = "2m"
    """How long a provider must fail."""
    rate_limit_ratio: Ratio = 0.1
    """Share of calls of a model in 10m that a rate limit or a quota refused, from which it is a storm."""
    rate_limit_min_errors: Positive = 10
    """Such calls in 10m below which a model is not judged."""
    rate_limit_for: Duration = "5m"
    """How long the storm must last."""
    tool_error_ratio: Ratio = 0.5
    """Share of failed calls of a tool in 15m from which it counts as failing."""
    tool_min_errors: Positive = 5
    """Failed calls of a tool in 15m below which it is not judged."""
    tool_for: Duration = "5m"
    """How long a tool must fail."""

    # Traffic
    traffic_drop_ratio: Ratio = 0.25
    """Share of the norm of this hour below which traffic has dropped."""
    traffic_min_runs: Positive = 20
    """Runs that the norm must expect in 30m: quieter hours are not judged."""
    traffic_for: Duration = "10m"
    """How long traffic must be low."""

    # Money
    cost_spike_factor: Factor = 3
    """How many times the cost of this hour on other days an hour must cost."""
    cost_spike_floor_usd: Positive = 10
    """US dollars an hour below which nothing is a spike."""
    cost_spike_baseline_age: Duration = "2h"
    """In the first day there are no other days: age at which the baseline of the day so far ends."""
    cost_spike_for: Duration = "5m"
    """How long the cost must be high."""
    budget_warning_ratio: Ratio = 0.8
    """Share of a budget that warns when it is spent."""
    budget_projection_after: Ratio = 0.25
    """Share of a period (of its known part) that must have passed before its end is projected."""
    budget_projection_for: Duration = "30m"
    """How long the projection must be above the limit."""
    cost_capture_ratio: Ratio = 0.9
    """Our cost divided by a vendor's bill (`reconcile`) below which too much of it is not counted."""
    unpriced_min_tokens: Positive = 1
    """Tokens without a price in 1h from which a model is reported."""

    # Models
    runaway_llm_calls: Annotated[float, _bucket("agentos_run_llm_calls")] = 55
    """LLM calls of one run beyond which it is a runaway. A bucket of `agentos_run_llm_calls`."""
    fallback_min: Positive = 5
    """Calls of a fallback model in 30m, in place of one that failed, from which it is reported."""
    speed_drop_ratio: Ratio = 0.5
    """Share of its baseline below which a model's output tokens per second have dropped."""
    speed_min_calls: Positive = 20
    """Calls of a model with output in 1h below which its speed is not judged."""
    speed_baseline_age: Duration = "2h"
    """Age at which a day's baseline of the speed ends."""
    speed_for: Duration = "15m"
    """How long a model must be slow."""
    usage_missing_ratio: Ratio = 0.1
    """Share of a model's calls in 1h that neither failed nor reported tokens."""
    usage_missing_min_calls: Positive = 5
    """Such calls in 1h below which a model is not judged."""
    usage_missing_for: Duration = "15m"
    """How long usage must be missing."""
    cache_drop_ratio: Ratio = 0.5
    """Share of its baseline below which a cache-hit ratio has dropped."""
    cache_min_baseline: Ratio = 0.2
    """Baseline below which a cache is not judged."""
    cache_min_prompt_tokens: Positive = 100_000
    """Prompt tokens of a model in 1h below which its cache is not judged."""
    cache_baseline_age: Duration = "2h"
    """Age at which a day's baseline of the cache-hit ratio ends."""
    cache_for: Duration = "30m"
    """How long a cache must be cold."""

    # What waits in AgentOS
    approval_waits_for: Duration = "1h"
    """Age of the oldest approval from which it has waited too long for a person."""
    schedule_late_for: Duration = "10m"
    """How far in the past the next run of a schedule may lie."""
    schedule_for: Duration = "5m"
    """How long a schedule must be late: an AgentOS that was down runs what it missed."""
    schedule_min_failed: Positive = 1
    """Failed runs of a schedule in 6h, without any success, from which it fails."""
    queue_waits_for: Duration = "15m"
    """Age of the oldest queued job from which the queue is stuck."""
    knowledge_min_failed: Positive = 1
    """Contents of knowledge bases that failed, or are partial, from which they are reported."""
    score_drop_ratio: Ratio = 0.8
    """Share of the mean score of the week before, below which the score of a day has dropped."""
    score_min_runs: Positive = 3
    """Scores in the day, and in the week before it, below which an evaluation is not judged."""
    score_for: Duration = "30m"
    """How long a score must be low."""

    # What AgentOS shows, and the exporter itself
    unreachable_for: Duration = "5m"
    """How long an AgentOS must be down."""
    stalled_after: Duration = "10m"
    """Age of the last successful poll, and time without any poll, that count as a stall. Well above `poll_interval`."""
    stalled_for: Duration = "5m"
    """How long polls must be stalled."""
    behind_for: Duration = "1h"
    """How long a backlog may be read, during which rates and costs are not judged."""
    silent_empty_min_polls: Positive = 2
    """Polls in 15m whose empty answer was not believed: one can be a database that restarts."""
    hidden_min_spans: Positive = 10
    """Spans that never showed, in 6h, from which they are reported."""
    hidden_ratio: Ratio = 0.01
    """Share of spans that never showed, in 6h, from which they are reported."""
    hidden_min_traces: Positive = 5
    """Traces that never showed any span, in 6h, from which they are reported."""
    hidden_traces_ratio: Ratio = 0.01
    """Share of traces that never showed any span, in 6h, from which they are reported."""
    leader_for: Duration = "3m"
    """How long an AgentOS must have no leader, or several, among the replicas of an exporter."""
    exporter_down_for: Duration = "5m"
    """How long an exporter must be down or absent, or go up and down."""
    exporter_flap_ratio: Ratio = 0.8
    """Share of scrapes in 15m below which an exporter that goes up and down counts as down."""
    exporter_flap_changes: Positive = 3
    """Changes between up and down in 15m from which it does: a restart makes two."""
    push_failing_for: Duration = "5m"
    """How long no push to a target must have been taken whole, after 15m of it."""


class _Loader(yaml.SafeLoader):
    """YAML in which no key comes twice: the second would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        keys = [key.value for key, _ in node.value]
        for key, _ in node.value:
            if keys.count(key.value) > 1:
                raise yaml.MarkedYAMLError(problem=f"{key.value} comes twice", problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)


def load(path: Path) -> Settings:
    """The defaults with what a YAML file changes. Raises SettingsError with every mistake at once, and OSError."""
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - it is a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: no YAML: {' '.join(str(error).split())}") from None
    if document is None:
        return Settings()
    if not isinstance(document, dict):
        raise SettingsError(f"{path}: must be a mapping of settings, such as `run_success_target: 0.995`")
    return changed(document, where=f"{path}: ")


def changed(values: dict[str, Any], *, where: str = "") -> Settings:
    """The defaults with these values instead. Raises SettingsError with every mistake at once."""
    checks = _checks()
    good: dict[str, Any] = {}
    problems: list[str] = []
    for key, value in values.items():
        if key not in checks:
            problems.append(f"{where}{key}: there is no such setting; there are {', '.join(checks)}")
            continue
        try:
            good[key] = checks[key](value)
        except ValueError as error:
            problems.append(f"{where}{key}: {error}; it is {value!r}")
    settings = replace(Settings(), **good)
    if seconds(settings.slow_interval) >= _STALE:
        problems.append(f"{where}slow_interval: must be below 5m, or the series it makes have gaps")
    if seconds(settings.fast_interval) > seconds(settings.slow_interval):
        problems.append(f"{where}fast_interval: must not be above slow_interval")
    if (worst := settings.burn_fast * round(1 - min(settings.run_success_target, settings.latency_target), 9)) >= 1:
        budget = number(round(100 * worst / settings.burn_fast, 6))
        problems.append(
            f"{where}burn_fast: at {number(settings.burn_fast)} times a budget of {budget} %, no share of runs is "
            "large enough to fire: raise the target or lower the burn rate"
        )
    if problems:
        raise SettingsError("\n".join(problems))
    return settings


_STALE: Final = 300


def _checks() -> dict[str, Callable[[object], Any]]:
    return {name: hint.__metadata__[0] for name, hint in get_type_hints(Settings, include_extras=True).items()}


def described() -> list[tuple[str, str, str]]:
    """Of each setting: its name, its default as YAML has it, and what it means."""
    tree = ast.parse(inspect.getsource(Settings)).body[0]
    assert isinstance(tree, ast.ClassDef)  # noqa: S101 - of a class
    texts = {
        field.target.id: text.value.value
        for field, text in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }
    return [(setting.name, str(setting.default), str(texts[setting.name])) for setting in fields(Settings)]
