"""The rules that are shipped, their tests and runbooks; a run of promtool on some of them, and rules with a mistake."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from deploy.mixin import promql
from tests.harness.promql import selectors, tokens

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
SNIPPETS = {
    name: re.findall(r"^ *```promql\n(.*?)^ *```$", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for name, path in RUNBOOKS.items()
}
"""Expressions that runbooks ask for, by alert."""

Groups = list[dict[str, Any]]


def run_promtool(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = (program, *map(str, arguments))
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


def rules_file(kind: str) -> Path:
    return ROOT / "deploy/prometheus" / f"rules-{kind}.yml"


def run_test(promtool: str, content: dict[str, Any], groups: Groups, folder: Path) -> subprocess.CompletedProcess[str]:
    rules, test = folder / "rules.yml", folder / "test.yml"
    rules.write_text(yaml.safe_dump({"groups": groups}), encoding="utf-8")
    # As listed, what is recorded before what reads it: otherwise the order is another one each time.
    order = {"rule_files": [str(rules)], "group_eval_order": [group["name"] for group in groups]}
    test.write_text(yaml.safe_dump({**content, **order}, sort_keys=False), encoding="utf-8")
    return run_promtool(promtool, "test", "rules", test)


def path_of(name: str) -> Path:
    return (TESTS | RECORDING_TESTS)[name]


def needed_by(exprs: list[str]) -> Groups:
    wanted = read_by(exprs)
    while (more := wanted | read_by([RECORDED[one] for one in wanted])) != wanted:
        wanted = more
    return pick(RULES["recording"], lambda rule: rule["record"] in wanted)


def read_by(exprs: list[str]) -> set[str]:
    return {one.name for expr in exprs for one in selectors(expr)} & set(RECORDED)


def pick(groups: Groups, wanted: Callable[[dict[str, Any]], bool]) -> Groups:
    picked = [{**group, "rules": [rule for rule in group["rules"] if wanted(rule)]} for group in groups]
    return [group for group in picked if group["rules"]]


def rules_of(alert: str) -> list[dict[str, Any]]:
    return [rule for group in RULES["alerts"] for rule in group["rules"] if rule["alert"] == alert]


# Tests. In each of them an AgentOS (or cluster) is named for what it goes through.


def read_test(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path_of(name).read_text(encoding="utf-8"))
    return found


def asked(name: str) -> list[dict[str, Any]]:
    return [one for test in read_test(name)["tests"] for one in test["promql_expr_test"]]


def scenario_of(labels: str) -> str:
    found = re.search(r'\b(?:agentos|cluster)="(\w+)"', labels)
    return found[1] if found else ""


# Mutants: rules that are wrong in one place. A test that still passes does not look there.

OPPOSITE = {">": "<=", ">=": "<", "<": ">=", "<=": ">", "==": "!=", "!=": "=="}


def mutants_of(expr: str) -> Iterator[tuple[str, str]]:
    """Each comparison turned, each number a thousand times as large and as small: what changed, and the expression."""
    for token in tokens(expr):
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
