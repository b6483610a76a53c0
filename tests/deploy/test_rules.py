"""The rules: each alert fires when it should and only then, and every comparison in it matters."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.mixin import promql
from deploy.mixin.settings import described
from exporter.catalog import METRICS, Kind
from exporter.cli import main
from tests.golden_plugin import Golden
from tests.harness.tools import current, tool, tools

ROOT = Path(__file__).parents[2]
RULES = {
    kind: yaml.safe_load((ROOT / "deploy/prometheus" / f"rules-{kind}.yml").read_text(encoding="utf-8"))["groups"]
    for kind in ("recording", "alerts")
}
RECORDED = {rule["record"]: rule["expr"] for group in RULES["recording"] for rule in group["rules"]}
ALERTS = sorted({rule["alert"] for group in RULES["alerts"] for rule in group["rules"]})
TESTS = {path.stem: path for path in (ROOT / "tests/rules").glob("AgentOS*.yml")}
RECORDING_TESTS = {path.stem: path for path in (ROOT / "tests/rules").glob("recording*.yml")}
RUNBOOKS = {path.stem: path for path in (ROOT / "docs/runbooks").glob("AgentOS*.md")}
HEADINGS = ["Meaning", "Impact", "Diagnose", "Mend", "False alarms and tuning"]
TARGET = {"cluster", "namespace", "job", "instance", "pod"}

Groups = list[dict[str, Any]]


# Tools


EACH_PROMTOOL = pytest.mark.parametrize("promtool", tools("promtool"))


def _promtool(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = (program, *map(str, arguments))
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


@pytest.mark.prometheus
@EACH_PROMTOOL
@pytest.mark.parametrize("kind", list(RULES))
def test_prometheus_takes_the_rules(kind: str, promtool: str) -> None:
    checked = _promtool(promtool, "check", "rules", "--lint=all", "--lint-fatal", _path(kind))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def _pint(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = (current("pint"), "--no-color", "--config", str(ROOT / "deploy/pint.hcl"), "--offline", "lint")
    strict = ("--min-severity", "info", "--fail-on", "info")
    return subprocess.run(
        (*command, *strict, *map(str, arguments)), capture_output=True, text=True, check=False, cwd=ROOT
    )


@pytest.mark.prometheus
def test_pint_finds_nothing() -> None:
    linted = _pint(*(_path(kind).relative_to(ROOT) for kind in RULES))
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.prometheus
def test_pint_would_find_something(tmp_path: Path) -> None:
    bad = [
        {
            "alert": "AgentOSBad",
            "expr": "sum(agentos_up) without(agentos) == 0",
            "annotations": {"x": "{{ $labels.agentos }}"},
        }
    ]
    rules = tmp_path / "bad.yml"
    rules.write_text(yaml.safe_dump({"groups": [{"name": "bad", "rules": bad}]}), encoding="utf-8")
    linted = _pint(rules)
    assert linted.returncode == 1
    assert "alerts/template" in linted.stdout + linted.stderr


def test_every_exception_for_pint_has_its_reason() -> None:
    lines = (ROOT / "deploy/pint.hcl").read_text(encoding="utf-8").splitlines()
    blocks = [at for at, line in enumerate(lines) if line.endswith("{") and not line.startswith(" ")]
    assert blocks
    assert all(lines[at - 1].startswith("# ") for at in blocks)


def _path(kind: str) -> Path:
    return ROOT / "deploy/prometheus" / f"rules-{kind}.yml"


def _slow(names: Iterable[str]) -> list[Any]:
    """As parameters; those whose tests take days of time, and seconds of ours, are marked."""
    long = {"AgentOSTrafficDropped", "AgentOSCostSpike", "recording-days", "recording-weeks"}
    return [
        pytest.param(name, marks=pytest.mark.slow) if name in long or name.endswith("BudgetBurn") else name
        for name in names
    ]


@pytest.mark.prometheus
@EACH_PROMTOOL
@pytest.mark.parametrize("name", _slow(sorted(TESTS | RECORDING_TESTS)))
def test_rules_answer_as_they_should(name: str, promtool: str, tmp_path: Path) -> None:
    tested = _run(promtool, name, _needed(name), tmp_path)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def _run(promtool: str, name: str, groups: Groups, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a test file on these rules instead of all that are shipped: eight days of all of them take a minute."""
    return _run_content(promtool, _content(name), groups, folder)


def _run_content(
    promtool: str, content: dict[str, Any], groups: Groups, folder: Path
) -> subprocess.CompletedProcess[str]:
    rules, test = folder / "rules.yml", folder / "test.yml"
    rules.write_text(yaml.safe_dump({"groups": groups}), encoding="utf-8")
    # As listed, what is recorded before what reads it: otherwise the order is another one each time.
    order = {"rule_files": [str(rules)], "group_eval_order": [group["name"] for group in groups]}
    test.write_text(yaml.safe_dump({**content, **order}, sort_keys=False), encoding="utf-8")
    return _promtool(promtool, "test", "rules", test)


def _test_path(name: str) -> Path:
    return (TESTS | RECORDING_TESTS)[name]


def _needed(name: str) -> Groups:
    """The rules that a test is about and those that they read, directly or not."""
    return [
        *_needed_by([one["expr"] for one in (*_asked(name), *_rules(name))]),
        *_pick(RULES["alerts"], lambda rule: rule["alert"] == name),
    ]


def _needed_by(exprs: list[str]) -> Groups:
    wanted = _reads(exprs)
    while (more := wanted | _reads([RECORDED[one] for one in wanted])) != wanted:
        wanted = more
    return _pick(RULES["recording"], lambda rule: rule["record"] in wanted)


def _reads(exprs: list[str]) -> set[str]:
    return {one.metric for expr in exprs for one in promql.selectors(expr)} & set(RECORDED)


def _pick(groups: Groups, wanted: Callable[[dict[str, Any]], bool]) -> Groups:
    picked = [{**group, "rules": [rule for rule in group["rules"] if wanted(rule)]} for group in groups]
    return [group for group in picked if group["rules"]]


def _rules(alert: str) -> list[dict[str, Any]]:
    return [rule for group in RULES["alerts"] for rule in group["rules"] if rule["alert"] == alert]


# What each test has to tell. In a test each AgentOS (or cluster) is named for what it goes through.

FIRING = {"fires", "born", "restart"}
"""It fires; with the first error of a kind; through a restart of the exporter."""
SILENT = {"normal", "sparse", "quiet", "missing", "restarted", "backlog"}
"""Normal traffic, one run of one, a night without any, data that is not there, a restart, a backlog that is read."""
_NO_TRAFFIC = "it does not depend on traffic"
_A_FACT = "what is true of a backlog stays true"
LEFT_OUT = {
    "AgentOSBudget80": {"backlog": "spending is dated by when a call began, not by when it was counted"},
    "AgentOSBudgetExhausted": {"backlog": "spending is dated by when a call began, not by when it was counted"},
    "AgentOSBudgetProjectedOverrun": {"backlog": "spending is dated by when a call began, not by when it was counted"},
    "AgentOSExporterDown": {
        "quiet": _NO_TRAFFIC,
        "backlog": _NO_TRAFFIC,
        "missing": "an absent target is what it reports: a test of its own, as it has no labels",
    },
    "AgentOSHiddenSpans": {"backlog": _A_FACT},
    "AgentOSPollStalled": {"quiet": "a poll without new traces ends well, too"},
    "AgentOSRunawayRun": {"backlog": _A_FACT},
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
    assert _reads([one["expr"] for name in RECORDING_TESTS for one in _asked(name)]) == set(RECORDED)


@pytest.mark.parametrize("alert", ALERTS)
def test_every_scenario_is_told(alert: str) -> None:
    scenarios = {name for test in _content(alert)["tests"] for name in _scenarios(test)}
    left_out = set(LEFT_OUT.get(alert, {}))
    assert not (FIRING | SILENT) - scenarios - left_out, "nobody goes through it"
    if alert != "AgentOSExporterDown":
        assert not left_out & scenarios, "left out and told"


@pytest.mark.parametrize("alert", ALERTS)
def test_at_the_end_all_who_fired_are_known(alert: str) -> None:
    for test in _content(alert)["tests"]:
        *moments, last = test["promql_expr_test"]
        assert last["expr"].startswith("count by"), last
        assert f'count_over_time(ALERTS{{alertname="{alert}",alertstate="firing"}}[10d])' in last["expr"]
        assert all(promql.seconds(one["eval_time"]) <= promql.seconds(last["eval_time"]) for one in moments)
        expected = {_scenario(sample["labels"]) for sample in last["exp_samples"]}
        absent = {""} if (alert, test["name"]) == ("AgentOSExporterDown", "no such target") else set()
        assert expected == (_scenarios(test) & FIRING) | absent


@pytest.mark.parametrize("name", sorted(TESTS | RECORDING_TESTS))
def test_test_files_are_about_the_shipped_rules_and_real_series(name: str) -> None:
    content = _content(name)
    found = [(_test_path(name).parent / file).resolve() for file in content["rule_files"]]
    assert found == [_path(kind) for kind in (RULES if name in TESTS else ("recording",))]
    for test in content["tests"]:
        for series in test["input_series"]:
            (selector,) = promql.selectors(series["series"])
            assert selector.labels <= _labels(selector.metric) | TARGET, series


def _content(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(_test_path(name).read_text(encoding="utf-8"))
    return found


def _asked(name: str) -> list[dict[str, Any]]:
    return [one for test in _content(name)["tests"] for one in test["promql_expr_test"]]


def _scenarios(test: dict[str, Any]) -> set[str]:
    return {_scenario(series["series"]) for series in test["input_series"]}


def _scenario(labels: str) -> str:
    found = re.search(r'\b(?:agentos|cluster)="(\w+)"', labels)
    return found[1] if found else ""


# Mutants: rules that are wrong in one place. A test that still passes does not look there.

OPPOSITE = {">": "<=", ">=": "<", "<": ">=", "<=": ">", "==": "!=", "!=": "=="}
EQUIVALENT = {
    ("AgentOSRunawayRun", "[0.5 -> 0.0005]"): "runs are whole: the half only has to be above what rounding leaves",
    ("AgentOSUnpricedModel", "[1 -> 0.001]"): "tokens are whole: none or at least one",
}
"""Mutants that mean the same as the rule, and why."""


def _mutants(expr: str) -> Iterator[tuple[str, str]]:
    """Each comparison turned, each number a thousand times as large and as small: what changed, and the expression."""
    for token in promql.tokens(expr):
        if token.kind == "comparison":
            others = [OPPOSITE[token.text]]
        elif token.kind == "number":
            value = float(token.text)
            others = [promql.number(value * 1000), promql.number(value / 1000)] if value else ["1000"]
        else:
            continue
        for new in others:
            around = expr[max(0, token.start - 60) : token.start], expr[token.end : token.end + 20]
            what = " ".join(f"{around[0]}[{token.text} -> {new}]{around[1]}".split())
            yield what, expr[: token.start] + new + expr[token.end :]


@pytest.mark.slow
@pytest.mark.prometheus
@pytest.mark.parametrize("alert", ALERTS)
def test_no_mutant_survives(alert: str, tmp_path: Path) -> None:
    survivors = []
    for rule in _rules(alert):
        mutants = list(_mutants(rule["expr"]))
        passing = _passing(rule, [expr for _, expr in mutants], tmp_path)
        survivors += [f"{rule['labels']}: {what}" for (what, _), passes in zip(mutants, passing, strict=True) if passes]
    reasons = [change for name, change in EQUIVALENT if name == alert]
    assert all(any(change in one for one in survivors) for change in reasons), "no longer equivalent"
    unexplained = [one for one in survivors if not any(change in one for change in reasons)]
    assert not unexplained, "these wrong rules pass the test of the alert:\n" + "\n".join(unexplained)


def _passing(rule: dict[str, Any], exprs: list[str], folder: Path) -> list[bool]:
    """Whether a rule with each of these expressions passes the test of its alert.

    All run at once, each under a name of its own: what they read is recorded once. The rule itself is the first of
    them, and has to pass.
    """
    alert, content = rule["alert"], _content_of(rule["alert"], rule["labels"])
    names = [f"{alert}_{at}" for at in range(len(exprs) + 1)]
    rules = [{**rule, "alert": name, "expr": expr} for name, expr in zip(names, [rule["expr"], *exprs], strict=True)]
    for test in content["tests"]:
        test["promql_expr_test"] = [
            {**one, "expr": one["expr"].replace(f'"{alert}"', f'"{name}"')}
            for one in test["promql_expr_test"]
            for name in names
        ]
    groups = [*_needed_by([rule["expr"]]), {"name": "mutants", "interval": "1m", "rules": rules}]
    tested = _run_content(tool("promtool"), content, groups, folder)
    said = tested.stdout + tested.stderr
    # A line for each expectation that fails; other errors have none, and nothing would be known of any mutant.
    failed = set(re.findall(r'^ *expr: ".*?\balertname=\\?"(\w+)\\?"', said, re.MULTILINE))
    assert failed <= set(names)
    assert names[0] not in failed, "the rule itself fails: see test_rules_answer_as_they_should"
    assert bool(failed) is (tested.returncode != 0), said[:2000]
    return [name not in failed for name in names[1:]]


def test_every_alert_has_mutants() -> None:
    for alert in ALERTS:
        for rule in _rules(alert):
            assert sum(1 for _ in _mutants(rule["expr"])) >= 2, alert


def _content_of(alert: str, labels: dict[str, str]) -> dict[str, Any]:
    """The test of an alert, as far as it is about one of its rules: the others need not be evaluated."""
    content = _content(alert)
    for test in content["tests"]:
        for one in test["promql_expr_test"]:
            one["exp_samples"] = [
                sample
                for sample in one["exp_samples"]
                if all(f'{name}="{value}"' in sample["labels"] for name, value in labels.items() if name in one["expr"])
            ]
    return content


def test_mutants_change_values_and_leave_labels_durations_and_texts_alone() -> None:
    expr = 'sum by (a1) (rate(x_5{le="60.0",b!="> 1"}[5m] offset 1h)) / 1e3 >= bool 0.5 # > 7\nunless y == 0'
    assert [(token.text) for token in promql.tokens(expr) if token.kind in {"comparison", "number"}] == [
        "1e3",
        ">=",
        "0.5",
        "==",
        "0",
    ]
    assert [mutant.replace(expr.split(" / ", maxsplit=1)[0], "X") for _, mutant in _mutants(expr)] == [
        "X / 1000000 >= bool 0.5 # > 7\nunless y == 0",
        "X / 1 >= bool 0.5 # > 7\nunless y == 0",
        "X / 1e3 < bool 0.5 # > 7\nunless y == 0",
        "X / 1e3 >= bool 500 # > 7\nunless y == 0",
        "X / 1e3 >= bool 0.0005 # > 7\nunless y == 0",
        "X / 1e3 >= bool 0.5 # > 7\nunless y != 0",
        "X / 1e3 >= bool 0.5 # > 7\nunless y == 1000",
    ]
    assert promql.selectors(expr) == [("x_5", {"le", "b"}), ("y", set())]
    assert promql.groupings(expr) == [(("a1",), 'rate(x_5{le="60.0",b!="> 1"}[5m] offset 1h)')]


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
    read = promql.selectors(expr)
    assert read
    for metric, labels in read:
        assert labels <= _labels(metric) | TARGET, metric
    for labels, inner in promql.groupings(expr):
        known = {"day"}.union(TARGET, *(_labels(one.metric) for one in promql.selectors(inner)))
        assert set(labels) <= known, inner
        assert not {"instance", "pod"} & set(labels), "what a restart changes must not tell series apart"


@pytest.mark.parametrize("record", RECORDED)
def test_recorded_series_have_the_labels_of_their_level(record: str) -> None:
    level, metric, operation = record.split(":")
    assert all((level, metric, operation))
    kept = {labels for labels, _ in promql.groupings(RECORDED[record])} or {
        tuple(LEVELS[one.metric.split(":")[0]]) for one in promql.selectors(RECORDED[record])
    }
    assert {tuple(label for label in labels if label != "le") for labels in kept} == {LEVELS[level]}


def test_nothing_is_filled_with_zero_and_errors_are_not_added_across_kinds() -> None:
    for expr in EXPRS:
        assert "vector(" not in expr
        for labels, inner in promql.groupings(expr):
            if any(one.metric == "agentos_error_spans_total" for one in promql.selectors(inner)):
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

BOARDS = {f"agentos-{name}" for name in ("overview", "cost", "agent", "models", "tools", "slo", "exporter")}


@pytest.mark.parametrize("alert", ALERTS)
def test_alerts_say_how_bad_it_is_and_where_to_go(alert: str) -> None:
    for rule in _rules(alert):
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        notes = rule["annotations"]
        assert set(notes) == {"summary", "description", "runbook_url", "dashboard_url"}
        assert notes["runbook_url"].endswith(f"/docs/runbooks/{alert}.md")
        board = re.fullmatch(r"http://localhost:3000/d/([a-z-]+)(\?.*)?", notes["dashboard_url"])
        assert board, notes["dashboard_url"]
        assert board[1] in BOARDS
        kept = {label for labels, _ in promql.groupings(rule["expr"]) for label in labels}
        kept |= {label for one in promql.selectors(rule["expr"]) for label in _labels(one.metric)}
        for label in re.findall(r"\$labels\.(\w+)", "".join(notes.values())):
            assert label in kept, label


@pytest.mark.parametrize("alert", ALERTS)
def test_runbooks_have_their_parts(alert: str) -> None:
    text = RUNBOOKS[alert].read_text(encoding="utf-8")
    assert text.startswith(f"# {alert}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS
    for part in re.split(r"^## .+$", text, flags=re.MULTILINE)[1:]:
        assert len(part.split()) >= 8, "a part says nothing"


SNIPPETS = {
    name: re.findall(r"^ *```promql\n(.*?)^ *```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for name, path in RUNBOOKS.items()
}


@pytest.mark.parametrize("alert", ALERTS)
def test_runbooks_ask_for_what_exists(alert: str) -> None:
    assert SNIPPETS[alert], "nothing to paste"
    for expr in SNIPPETS[alert]:
        for metric, labels in promql.selectors(expr):
            if not metric.startswith("process_"):
                assert labels <= _labels(metric) | TARGET, expr
        for labels, inner in promql.groupings(expr):
            assert set(labels) <= TARGET.union(*(_labels(one.metric) for one in promql.selectors(inner))), expr


@pytest.mark.prometheus
@EACH_PROMTOOL
def test_prometheus_takes_what_runbooks_ask(promtool: str, tmp_path: Path) -> None:
    asked = [expr for exprs in SNIPPETS.values() for expr in exprs]
    rules = tmp_path / "snippets.yml"
    group = {"name": "snippets", "rules": [{"record": f"a:b:{at}", "expr": expr} for at, expr in enumerate(asked)]}
    rules.write_text(yaml.safe_dump({"groups": [group]}), encoding="utf-8")
    checked = _promtool(promtool, "check", "rules", rules)
    assert checked.returncode == 0, checked.stdout + checked.stderr


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


# What people read

MOMENTS = {
    alert: next(
        one["eval_time"]
        for one in [*_asked(alert)][::-1]
        if "count_over_time" not in one["expr"]
        and any(_scenario(sample["labels"]) in {"fires", ""} for sample in one["exp_samples"])
    )
    for alert in TESTS
}


@pytest.mark.prometheus
@pytest.mark.parametrize("alert", _slow(ALERTS))
def test_what_an_alert_says(alert: str, tmp_path: Path, golden: Golden) -> None:
    """Its words, with values filled in, are in tests/golden/alerts; `--update-golden` writes them anew."""
    content = _content(alert)
    for test in content["tests"]:
        del test["promql_expr_test"]
        test["alert_rule_test"] = [{"eval_time": MOMENTS[alert], "alertname": alert, "exp_alerts": []}]
    # Ages of Prometheus extrapolate differently: the current one decides.
    tested = _run_content(current("promtool"), content, _needed(alert), tmp_path)
    found = re.findall(r"Labels:\{(.*)\}\n\s*Annotations:\{(.*)\}", tested.stdout + tested.stderr)
    said = sorted(_apart(labels) + _apart(notes) for labels, notes in found if _scenario(labels) in {"fires", ""})
    assert said
    assert "<no value>" not in "".join(said)
    assert "error expanding" not in "".join(said)
    golden(f"alerts/{alert}.txt", "\n".join(said))


def _apart(pairs: str) -> str:
    return "".join(f"{name}: {value}\n" for name, value in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', pairs))
