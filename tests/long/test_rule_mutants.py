"""Every comparison and every number in an alert matters: a rule that is wrong in one place fails its test."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.harness.rules import ALERTS, mutants_of, needed_by, read_test, rules_of, run_test
from tests.harness.tools import tool

EQUIVALENT = {
    ("AgentOSKnowledgeFailed", "[1 -> 0.001]"): "contents are whole: none or at least one",
    ("AgentOSRunawayRun", "[0.5 -> 0.0005]"): "runs are whole: the half only has to be above what rounding leaves",
    ("AgentOSScheduleFailing", "[1 -> 0.001]"): "runs are whole: none or at least one",
    ("AgentOSUnpricedModel", "[1 -> 0.001]"): "tokens are whole: none or at least one",
}
"""Mutants that mean the same as the rule, and why."""


@pytest.mark.prometheus
@pytest.mark.parametrize("alert", ALERTS)
def test_no_mutant_survives(alert: str, tmp_path: Path) -> None:
    survivors = []
    for rule in rules_of(alert):
        mutants = list(mutants_of(rule["expr"]))
        passing = _passing(rule, [expr for _, expr in mutants], tmp_path)
        survivors += [f"{rule['labels']}: {what}" for (what, _), passes in zip(mutants, passing, strict=True) if passes]
    reasons = [change for name, change in EQUIVALENT if name == alert]
    assert all(any(change in survivor for survivor in survivors) for change in reasons), "no longer equivalent"
    unexplained = [survivor for survivor in survivors if not any(change in survivor for change in reasons)]
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
    groups = [*needed_by([rule["expr"]]), {"name": "mutants", "interval": "1m", "rules": rules}]
    tested = run_test(tool("promtool"), content, groups, folder)
    said = tested.stdout + tested.stderr
    # A line for each expectation that fails; other errors have none, and nothing would be known of any mutant.
    failed = set(re.findall(r'^ *expr: ".*?\balertname=\\?"(\w+)\\?"', said, re.MULTILINE))
    assert failed <= set(names)
    assert names[0] not in failed, "the rule itself fails: see test_rules_answer_as_they_should"
    assert bool(failed) is (tested.returncode != 0), said[:2000]
    return [name not in failed for name in names[1:]]


def _content_of(alert: str, labels: dict[str, str]) -> dict[str, Any]:
    """The test of an alert, as far as it is about one of its rules: the others need not be evaluated."""
    content = read_test(alert)
    for test in content["tests"]:
        for one in test["promql_expr_test"]:
            one["exp_samples"] = [
                sample
                for sample in one["exp_samples"]
                if all(f'{name}="{value}"' in sample["labels"] for name, value in labels.items() if name in one["expr"])
            ]
    return content
