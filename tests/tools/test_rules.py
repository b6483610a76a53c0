"""The rules as promtool and pint read them: each alert fires when it should and only then, and says why."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.golden_plugin import Golden
from tests.harness.rules import (
    ALERTS,
    RECORDING_TESTS,
    ROOT,
    RULES,
    SNIPPETS,
    TESTS,
    Groups,
    asked,
    needed_by,
    pick,
    read_test,
    rules_file,
    rules_of,
    run_promtool,
    run_test,
    scenario_of,
)
from tests.harness.tools import tool, tools

EACH_PROMTOOL = pytest.mark.parametrize("promtool", tools("promtool"))


@pytest.mark.prometheus
@EACH_PROMTOOL
@pytest.mark.parametrize("kind", list(RULES))
def test_prometheus_takes_the_rules(kind: str, promtool: str) -> None:
    checked = run_promtool(promtool, "check", "rules", "--lint=all", "--lint-fatal", rules_file(kind))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def _pint(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = (tool("pint"), "--no-color", "--config", str(ROOT / "deploy/pint.hcl"), "--offline", "lint")
    strict = ("--min-severity", "info", "--fail-on", "info")
    return subprocess.run(
        (*command, *strict, *map(str, arguments)), capture_output=True, text=True, check=False, cwd=ROOT
    )


@pytest.mark.prometheus
def test_pint_finds_nothing() -> None:
    linted = _pint(*(rules_file(kind).relative_to(ROOT) for kind in RULES))
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


def _slow(names: Iterable[str]) -> list[Any]:
    """As parameters; those whose tests take days of time, and seconds of ours, are marked."""
    long = {"AgentOSTrafficDropped", "AgentOSCostSpike", "AgentOSScoreDropped", "recording-days", "recording-weeks"}
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


@pytest.mark.prometheus
@pytest.mark.parametrize("name", _slow(sorted(TESTS | RECORDING_TESTS)))
def test_they_answer_alike_where_series_name_the_exporter(name: str, tmp_path: Path) -> None:
    """Series of replicas have no `instance` and no `pod`, those of a single exporter have: both must do."""
    content = read_test(name)
    for test in content["tests"]:
        for series in test["input_series"]:
            if "instance=" not in series["series"]:
                series["series"] = series["series"].replace("{", '{instance="a",pod="a",', 1)
                assert "instance=" in series["series"]
    tested = run_test(tool("promtool"), content, _needed(name), tmp_path)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def _run(promtool: str, name: str, groups: Groups, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a test file on these rules instead of all that are shipped: eight days of all of them take a minute."""
    return run_test(promtool, read_test(name), groups, folder)


def _needed(name: str) -> Groups:
    """The rules that a test is about and those that they read, directly or not."""
    return [
        *needed_by([one["expr"] for one in (*asked(name), *rules_of(name))]),
        *pick(RULES["alerts"], lambda rule: rule["alert"] == name),
    ]


# What an alert says


@pytest.mark.prometheus
@EACH_PROMTOOL
def test_prometheus_takes_what_runbooks_ask(promtool: str, tmp_path: Path) -> None:
    asked = [expr for exprs in SNIPPETS.values() for expr in exprs]
    rules = tmp_path / "snippets.yml"
    group = {"name": "snippets", "rules": [{"record": f"a:b:{at}", "expr": expr} for at, expr in enumerate(asked)]}
    rules.write_text(yaml.safe_dump({"groups": [group]}), encoding="utf-8")
    checked = run_promtool(promtool, "check", "rules", rules)
    assert checked.returncode == 0, checked.stdout + checked.stderr


# What people read

MOMENTS = {
    alert: next(
        one["eval_time"]
        for one in [*asked(alert)][::-1]
        if "count_over_time" not in one["expr"]
        and any(scenario_of(sample["labels"]) in {"fires", ""} for sample in one["exp_samples"])
    )
    for alert in TESTS
}


@pytest.mark.prometheus
@pytest.mark.parametrize("alert", _slow(ALERTS))
def test_what_an_alert_says(alert: str, tmp_path: Path, golden: Golden) -> None:
    """Its words, with values filled in, are in tests/golden/alerts; `--update-golden` writes them anew."""
    content = read_test(alert)
    for test in content["tests"]:
        del test["promql_expr_test"]
        test["alert_rule_test"] = [{"eval_time": MOMENTS[alert], "alertname": alert, "exp_alerts": []}]
    # Ages of Prometheus extrapolate differently: the current one decides.
    tested = run_test(tool("promtool"), content, _needed(alert), tmp_path)
    found = re.findall(r"Labels:\{(.*)\}\n\s*Annotations:\{(.*)\}", tested.stdout + tested.stderr)
    said = sorted(_apart(labels) + _apart(notes) for labels, notes in found if scenario_of(labels) in {"fires", ""})
    assert said
    assert "<no value>" not in "".join(said)
    assert "error expanding" not in "".join(said)
    golden(f"alerts/{alert}.txt", "\n".join(said))


def _apart(pairs: str) -> str:
    return "".join(f"{name}: {value}\n" for name, value in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', pairs))
