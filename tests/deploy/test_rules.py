"""The rules on paper: what they name exists, and every alert has its test, its scenarios and its runbook."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest

from deploy.mixin import promql
from deploy.mixin.settings import described
from exporter.cli.main import main
from exporter.metrics.catalog import METRICS, Kind
from tests.harness.promql import groupings, kept, selectors, tokens
from tests.harness.rules import (
    ALERTS,
    RECORDED,
    RECORDING_TESTS,
    ROOT,
    RULES,
    RUNBOOKS,
    SNIPPETS,
    TESTS,
    asked,
    mutants_of,
    path_of,
    read_by,
    read_test,
    rules_file,
    rules_of,
    scenario_of,
)

HEADINGS = ["Meaning", "Impact", "Diagnose", "Mend", "False alarms and tuning"]
TARGET = {"cluster", "namespace", "job", "instance", "pod"}


def test_every_exception_for_pint_has_its_reason() -> None:
    lines = (ROOT / "deploy/pint.hcl").read_text(encoding="utf-8").splitlines()
    blocks = [at for at, line in enumerate(lines) if line.endswith("{") and not line.startswith(" ")]
    assert blocks
    assert all(lines[at - 1].startswith("# ") for at in blocks)


# What each test has to tell. In a test each AgentOS (or cluster) is named for what it goes through.

FIRING = {"fires", "born", "restart"}
"""It fires; with the first error of a kind; through a restart of the exporter."""
SILENT = {"normal", "sparse", "quiet", "missing", "restarted", "backlog"}
"""Normal traffic, one run of one, a night without any, data that is not there, a restart, a backlog that is read."""
_NO_TRAFFIC = "it does not depend on traffic"
_A_FACT = "what is true of a backlog stays true"
_NO_SIZE = "age alone counts, not how many there are"
_NOW = "it is about what is there now"
LEFT_OUT = {
    "AgentOSApprovalWaits": {"sparse": _NO_SIZE, "backlog": _NOW},
    "AgentOSBudget80": {"backlog": "spending is dated by when a call began, not by when it was counted"},
    "AgentOSBudgetExhausted": {"backlog": "spending is dated by when a call began, not by when it was counted"},
    "AgentOSBudgetProjectedOverrun": {"backlog": "spending is dated by when a call began, not by when it was counted"},
    "AgentOSCostCaptureLow": {"sparse": "it is about money, not calls", "backlog": "nothing is compared meanwhile"},
    "AgentOSTenantOverBudget": {"backlog": "spending is dated by when a call began, not by when it was counted"},
    "AgentOSExporterDown": {
        "quiet": _NO_TRAFFIC,
        "backlog": _NO_TRAFFIC,
        "missing": "an absent target is what it reports: a test of its own, as it has no labels",
    },
    "AgentOSExporterNoLeader": {"sparse": _NO_TRAFFIC, "quiet": _NO_TRAFFIC, "backlog": _NO_TRAFFIC},
    "AgentOSExporterPushFailing": {"quiet": _NO_TRAFFIC, "backlog": _NO_TRAFFIC},
    "AgentOSHiddenSpans": {"backlog": _A_FACT},
    "AgentOSKnowledgeFailed": {"sparse": "one content is enough", "backlog": _NOW},
    "AgentOSPollStalled": {"quiet": "a poll without new traces ends well, too"},
    "AgentOSRunawayRun": {"backlog": _A_FACT},
    "AgentOSQueueStuck": {"sparse": _NO_SIZE, "backlog": _NOW},
    "AgentOSScheduleFailing": {"sparse": "one failed run without a success is enough", "backlog": _A_FACT},
    "AgentOSScheduleMissed": {"sparse": _NO_SIZE, "backlog": _NOW},
    "AgentOSScoreDropped": {"backlog": "means are compared: scores that are read late say the same"},
    "AgentOSSeriesLimited": {"sparse": "one increment is enough", "backlog": _A_FACT},
    "AgentOSSilentEmpty": {"backlog": "nothing is read"},
    "AgentOSTrafficDropped": {
        "born": "what was never there has no norm: `new` stays silent",
        "backlog": "a backlog adds runs, it takes none away",
    },
    "AgentOSUnpricedModel": {"sparse": "one token is enough", "backlog": _A_FACT},
    "AgentOSUnreachable": {"quiet": _NO_TRAFFIC, "backlog": "nothing is read"},
    "AgentOSUsageMissing": {"backlog": _A_FACT},
}


def test_every_alert_has_its_test_and_its_runbook_and_no_other_is_there() -> None:
    assert sorted(TESTS) == ALERTS
    assert sorted(RUNBOOKS) == ALERTS
    assert set(LEFT_OUT) <= set(ALERTS)


def test_every_recorded_series_is_asked_for_in_a_test() -> None:
    assert read_by([one["expr"] for name in RECORDING_TESTS for one in asked(name)]) == set(RECORDED)


@pytest.mark.parametrize("alert", ALERTS)
def test_every_scenario_is_told(alert: str) -> None:
    scenarios = {name for test in read_test(alert)["tests"] for name in _scenarios(test)}
    left_out = set(LEFT_OUT.get(alert, {}))
    assert not (FIRING | SILENT) - scenarios - left_out, "nobody goes through it"
    if alert != "AgentOSExporterDown":
        assert not left_out & scenarios, "left out and told"


@pytest.mark.parametrize("alert", ALERTS)
def test_at_the_end_all_who_fired_are_known(alert: str) -> None:
    for test in read_test(alert)["tests"]:
        *moments, last = test["promql_expr_test"]
        assert last["expr"].startswith("count by"), last
        assert f'count_over_time(ALERTS{{alertname="{alert}",alertstate="firing"}}[10d])' in last["expr"]
        assert all(promql.seconds(moment["eval_time"]) <= promql.seconds(last["eval_time"]) for moment in moments)
        expected = {scenario_of(sample["labels"]) for sample in last["exp_samples"]}
        absent = {""} if (alert, test["name"]) == ("AgentOSExporterDown", "no such target") else set()
        assert expected == (_scenarios(test) & FIRING) | absent


@pytest.mark.parametrize("name", [*TESTS, *RECORDING_TESTS])
def test_groups_are_evaluated_in_one_order_whoever_runs_the_test(name: str) -> None:
    """Without `group_eval_order` promtool takes groups of several files in any order, and tests fail by chance."""
    content = read_test(name)
    kinds = [kind for kind in RULES if any(file.endswith(f"rules-{kind}.yml") for file in content["rule_files"])]
    assert len(kinds) == len(content["rule_files"])
    assert content["group_eval_order"] == [group["name"] for kind in kinds for group in RULES[kind]]


@pytest.mark.parametrize("name", sorted(TESTS | RECORDING_TESTS))
def test_test_files_are_about_the_shipped_rules_and_real_series(name: str) -> None:
    content = read_test(name)
    found = [(path_of(name).parent / file).resolve() for file in content["rule_files"]]
    assert found == [rules_file(kind) for kind in (RULES if name in TESTS else ("recording",))]
    for test in content["tests"]:
        for series in test["input_series"]:
            (selector,) = selectors(series["series"])
            assert set(selector.matchers) <= _labels(selector.name) | TARGET, series


def _scenarios(test: dict[str, Any]) -> set[str]:
    return {scenario_of(series["series"]) for series in test["input_series"]}


# Mutants: rules that are wrong in one place. A test that still passes does not look there.


def test_every_alert_has_mutants() -> None:
    for alert in ALERTS:
        for rule in rules_of(alert):
            assert sum(1 for _ in mutants_of(rule["expr"])) >= 2, alert


def test_mutants_change_values_and_leave_labels_durations_and_texts_alone() -> None:
    expr = 'sum by (a1) (rate(x_5{le="60.0",b!="> 1"}[5m] offset 1h)) / 1e3 >= bool 0.5 # > 7\nunless y == 0'
    assert [(token.text) for token in tokens(expr) if token.kind in {"comparison", "number"}] == [
        "1e3",
        ">=",
        "0.5",
        "==",
        "0",
    ]
    assert [mutant.replace(expr.split(" / ", maxsplit=1)[0], "X") for _, mutant in mutants_of(expr)] == [
        "X / 1000000 >= bool 0.5 # > 7\nunless y == 0",
        "X / 1 >= bool 0.5 # > 7\nunless y == 0",
        "X / 1e3 < bool 0.5 # > 7\nunless y == 0",
        "X / 1e3 >= bool 500 # > 7\nunless y == 0",
        "X / 1e3 >= bool 0.0005 # > 7\nunless y == 0",
        "X / 1e3 >= bool 0.5 # > 7\nunless y != 0",
        "X / 1e3 >= bool 0.5 # > 7\nunless y == 1000",
    ]
    assert [(selector.name, set(selector.matchers)) for selector in selectors(expr)] == [
        ("x_5", {"le", "b"}),
        ("y", set()),
    ]
    assert groupings(expr) == [(("a1",), 'rate(x_5{le="60.0",b!="> 1"}[5m] offset 1h)')]


# Names

LEVELS = {
    "agentos": promql.AGENTOS,
    "agentos_root": promql.ROOT,
    "agentos_kind": promql.KIND,
    "agentos_model": promql.MODEL,
    "agentos_tool": promql.TOOL,
}
EXPRS = [rule["expr"] for groups in RULES.values() for group in groups for rule in group["rules"]]


def _labels(metric: str) -> set[str]:
    """Labels of a series that rules may read. Fails where there is no such series."""
    if metric in RECORDED:
        return set(LEVELS[metric.split(":", maxsplit=1)[0]])
    if metric == "up":
        return {"job", "instance"}
    base = re.sub(r"_(bucket|sum|count)$", "", metric)
    if metric not in METRICS:
        assert METRICS[base].kind is Kind.HISTOGRAM, f"{metric}: only histograms have it"
        return {*METRICS[base].labels, *(("le",) if metric.endswith("_bucket") else ())}
    assert METRICS[metric].kind is not Kind.HISTOGRAM, f"{metric} is a histogram: it has no such series"
    return set(METRICS[metric].labels)


@pytest.mark.parametrize("expr", EXPRS)
def test_rules_name_what_exists(expr: str) -> None:
    read = selectors(expr)
    assert read
    for one in read:
        assert set(one.matchers) <= _labels(one.name) | TARGET, one.name
    for labels, inner in groupings(expr):
        known = {"day"}.union(TARGET, *(_labels(selector.name) for selector in selectors(inner)))
        assert set(labels) <= known, inner
        assert not {"instance", "pod"} & set(labels), "what a restart changes must not tell series apart"


@pytest.mark.parametrize("record", RECORDED)
def test_recorded_series_have_the_labels_of_their_level(record: str) -> None:
    level, metric, operation = record.split(":")
    assert all((level, metric, operation))
    levels = {labels for labels, _ in groupings(RECORDED[record])} or {
        tuple(LEVELS[selector.name.split(":")[0]]) for selector in selectors(RECORDED[record])
    }
    assert {tuple(label for label in labels if label != "le") for labels in levels} == {LEVELS[level]}


def test_the_labels_that_rules_read_are_told_to_those_who_drop_labels() -> None:
    """The table in docs/limits.md: by metric, what of its labels can be dropped and is read by a rule."""
    read: dict[str, set[str]] = {}
    for expr in EXPRS:
        for selector in selectors(expr):
            name = selector.name if selector.name in METRICS else re.sub(r"_(bucket|sum|count)$", "", selector.name)
            if name in METRICS:
                labels = {*selector.matchers, *kept(expr)} & set(METRICS[name].droppable)
                read.setdefault(name, set()).update(labels)
    expected = {name: [label for label in METRICS[name].droppable if label in labels] for name, labels in read.items()}
    text = (ROOT / "docs/limits.md").read_text(encoding="utf-8").partition("### Labels that the shipped rules read")[2]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.MULTILINE)
    assert {name: re.findall(r"`(\w+)`", cell) for name, cell in rows} == {k: v for k, v in expected.items() if v}


def test_nothing_is_filled_with_zero_and_errors_are_not_added_across_kinds() -> None:
    for expr in EXPRS:
        assert "vector(" not in expr
        for labels, inner in groupings(expr):
            if any(selector.name == "agentos_error_spans_total" for selector in selectors(inner)):
                assert "span_kind" in labels


def test_the_series_that_boards_rely_on_are_recorded() -> None:
    assert {
        *(f"agentos_root:{what}:ratio_rate{w}" for what in ("run_errors", "slow_runs") for w in promql_windows()),
        "agentos_kind:error_spans:ratio_rate5m",
        "agentos_kind:error_spans:ratio_baseline1d",
        "agentos:llm_cost_usd:increase1h",
        "agentos:llm_cost_usd:increase1d",
        "agentos_root:run_cost_usd:mean1h",
        "agentos_model:llm_cache_hit:ratio_rate1h",
        *(f"agentos_root:run_duration_seconds:{p}_rate5m" for p in ("p50", "p95", "p99")),
        *(f"agentos_model:llm_call_duration_seconds:{p}_rate5m" for p in ("p50", "p95", "p99")),
    } <= set(RECORDED)


def promql_windows() -> tuple[str, ...]:
    return ("5m", "30m", "1h", "6h", "3d")


# What an alert says

BOARDS = {
    f"agentos-{name}"
    for name in ("overview", "cost", "agent", "models", "tools", "slo", "operations", "quality", "exporter")
}


@pytest.mark.parametrize("alert", ALERTS)
def test_alerts_say_how_bad_it_is_and_where_to_go(alert: str) -> None:
    for rule in rules_of(alert):
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        notes = rule["annotations"]
        assert set(notes) == {"summary", "description", "runbook_url", "dashboard_url"}
        assert notes["runbook_url"].endswith(f"/docs/runbooks/{alert}.md")
        board = re.fullmatch(r"http://localhost:3000/d/([a-z-]+)(\?.*)?", notes["dashboard_url"])
        assert board, notes["dashboard_url"]
        assert board[1] in BOARDS
        kept = {label for labels, _ in groupings(rule["expr"]) for label in labels}
        kept |= {label for selector in selectors(rule["expr"]) for label in _labels(selector.name)}
        for label in re.findall(r"\$labels\.(\w+)", "".join(notes.values())):
            assert label in kept, label


@pytest.mark.parametrize("alert", ALERTS)
def test_runbooks_have_their_parts(alert: str) -> None:
    text = RUNBOOKS[alert].read_text(encoding="utf-8")
    assert text.startswith(f"# {alert}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS
    for part in re.split(r"^## .+$", text, flags=re.MULTILINE)[1:]:
        assert len(part.split()) >= 8, "a part says nothing"


@pytest.mark.parametrize("alert", ALERTS)
def test_runbooks_ask_for_what_exists(alert: str) -> None:
    assert SNIPPETS[alert], "nothing to paste"
    for expr in SNIPPETS[alert]:
        for selector in selectors(expr):
            if not selector.name.startswith("process_"):
                assert set(selector.matchers) <= _labels(selector.name) | TARGET, expr
        for labels, inner in groupings(expr):
            assert set(labels) <= TARGET.union(*(_labels(selector.name) for selector in selectors(inner))), expr


@pytest.mark.parametrize("alert", ALERTS)
def test_runbooks_call_commands_that_are_there(alert: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The parser of the command line itself reads them."""
    text = RUNBOOKS[alert].read_text(encoding="utf-8")
    lines = re.findall(r"^ *\$ agentos-exporter (.+)$", text, re.MULTILINE)
    lines += re.findall(r"`agentos-exporter ((?:traces|prices|check-config) [^`]+)`", text)
    for line in lines:
        group, *rest = shlex.split(line)
        command = [group, rest[0]] if group in {"traces", "prices"} else [group]
        assert main([*command, "--help"]) == 0, line
        told = capsys.readouterr().out
        for flag in (word for word in rest if word.startswith("-")):
            assert re.search(rf"(?<![\w.-]){re.escape(flag)}(?![\w.-])", told), f"{line}: no {flag}"


def test_links_between_pages_lead_somewhere() -> None:
    pages = [*RUNBOOKS.values(), ROOT / "docs/runbooks/README.md", ROOT / "docs/alerting.md"]
    for page in pages:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).is_file(), f"{page.name}: {link}"


def test_settings_that_runbooks_name_exist() -> None:
    names = {name for name, _, _ in described()}
    for alert, path in RUNBOOKS.items():
        tuning = path.read_text(encoding="utf-8").split(f"## {HEADINGS[-1]}")[1]
        found = set(re.findall(r"`([a-z0-9]+(?:_[a-z0-9]+)+)`", tuning))
        known = set(METRICS) | {"trace_horizon", "poll_interval", "enrich_runs", "initial_lookback", "tool_call_limit"}
        assert found <= names | known | {"cost_source", "burn_", "_for"}, alert
