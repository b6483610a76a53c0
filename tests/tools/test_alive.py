"""The demo under real Prometheus, of both ages, with the shipped rules and boards: each query finds its data."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.harness import panels
from tests.harness.demo import RunningDemo
from tests.harness.process import eventually
from tests.harness.prometheus import Prometheus, RunningPrometheus, shipped_rules
from tests.harness.questions import Parse, questions, without_offsets
from tests.harness.tools import debian, tool

pytestmark = [pytest.mark.prometheus, pytest.mark.slow]

PATIENCE = 150.0
"""Seconds until everything must have been there; it takes about 30."""
EMPTY: Mapping[str, str] = {
    "agentos_cost_capture_ratio": "nobody sends the demo a bill",
    "agentos_exporter_push_total": "the demo pushes nothing",
    "agentos_exporter_series_limited_total": "the demo stays within all limits",
    "agentos_exporter_leader": "the demo's state is no PostgreSQL: it has no replicas",
}
"""Metrics of which the demo has no series, and why."""
LATE: Mapping[tuple[str, str, str], str] = {
    ("agentos-cost", "Where prices come from", "D"): "a call waits two minutes for its detail, then it is estimated",
}
"""Queries that have a result, but later than anybody wants to wait."""


@dataclass(frozen=True)
class Question:
    """What must have an answer: any of some queries, asked for somebody."""

    who: str
    queries: tuple[str, ...]
    excuse: str = ""

    def answered(self, server: Prometheus) -> bool:
        """Tell whether a query has a result that is a number."""
        return any(sample["value"][1] != "NaN" for query in self.queries for sample in server.query(query))


def test_every_query_finds_its_data(tmp_path: Path) -> None:
    binaries = {"debian": debian("prometheus"), "current": tool("prometheus")}
    folders = {name: tmp_path / name for name in ("parser", *binaries)}
    for folder in folders.values():
        folder.mkdir()
    with contextlib.ExitStack() as stack:
        demo = stack.enter_context(RunningDemo(None, rate=2))
        parser = stack.enter_context(RunningPrometheus(binaries["current"], folders["parser"]))
        rules = [hastened(parser.parse, file, tmp_path) for file in shipped_rules()]
        asked = [*asked_by_rules(parser.parse), *asked_by_panels(parser.parse)]
        assert rules
        servers = {
            name: stack.enter_context(RunningPrometheus(binary, folders[name], demo.port, rules=rules))
            for name, binary in binaries.items()
        }
        for server in servers.values():  # else the first rounds would all be in vain
            eventually(lambda server=server: server.query("agentos_root:run_errors:ratio_rate5m"), "what rules record")
        waiting = {name: list(asked) for name in servers}
        began, left = time.monotonic(), -1
        print(f"{len(asked)} questions: {', '.join(servers)}")
        while any(not question.excuse for each in waiting.values() for question in each):
            for name, server in servers.items():
                waiting[name] = [question for question in waiting[name] if not question.answered(server)]
            if left != (left := sum(map(len, waiting.values()))):
                print(f"{time.monotonic() - began:4.0f} s: {left} of {len(asked) * len(servers)} unanswered")
            if time.monotonic() > began + PATIENCE:
                break
            time.sleep(1)
        for name, server in servers.items():
            for question in waiting[name]:
                print(f"{name}: {question.who}: {question.excuse or 'MISSING'}: {question.queries[0]}")
            sick = {rule["name"]: rule.get("lastError", "") for rule in server.rules() if rule["health"] != "ok"}
            assert not sick, name
            assert not [question for question in waiting[name] if not question.excuse], name
            for metric, why in EMPTY.items():
                assert not server.query(metric), f"{name}: {metric} is there, though {why}"
            for board, variable, series, label in panels.offered():
                values = server.ask(f"label/{label}/values", **{"match[]": series})
                assert values, f"{name}: {board}: ${variable} offers nothing"
            for _, _, query in panels.marks():
                server.query(query)


def hastened(parse: Parse, file: Path, folder: Path) -> Path:
    """The rules of a file, evaluated every few seconds, and with no look at days that this Prometheus has not seen."""
    content = yaml.safe_load(file.read_text())
    for group in content["groups"]:
        group["interval"] = "5s"
        for rule in group["rules"]:
            rule["expr"] = without_offsets(parse, rule["expr"])
    made = folder / file.name
    made.write_text(json.dumps(content))
    return made


def asked_by_rules(parse: Parse) -> Iterator[Question]:
    """Of alerts and records what they read; of records also what they write."""
    for file in shipped_rules():
        for group in yaml.safe_load(file.read_text())["groups"]:
            for rule in group["rules"]:
                who = rule.get("alert") or rule["record"]
                found = questions(parse, rule["expr"]) + ([rule["record"]] if "record" in rule else [])
                for query in found:
                    yield Question(who, (query,), next((why for metric, why in EMPTY.items() if metric in query), ""))


def asked_by_panels(parse: Parse) -> Iterator[Question]:
    """All that the boards show."""
    for each in panels.asked():
        panel = (each.board, each.panel)
        query = (*panel, each.ref)
        excuse = panels.EMPTY.get(panel) or panels.EMPTY_QUERIES.get(query) or LATE.get(query, "")
        # What is compared with a past has a result if either there is none yet, or the past is like the present.
        queries = tuple(dict.fromkeys((each.expr, without_offsets(parse, each.expr))))
        yield Question(f"{each.board}: {each.panel} {each.ref}", queries, excuse)
