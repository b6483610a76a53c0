"""The demo under real Prometheus, of both ages, with the shipped rules: each query finds its data."""

from __future__ import annotations

import contextlib
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from tests.harness.demo import RunningDemo
from tests.harness.prometheus import Prometheus, RunningPrometheus, shipped_rules
from tests.harness.promql import Node, questions, without_offsets
from tests.harness.tools import current, debian

pytestmark = [pytest.mark.prometheus, pytest.mark.slow]

PATIENCE = 150.0
"""Seconds until everything must have been there. The demo has its second vendor's outage after 110 s."""
EMPTY: Mapping[str, str] = {}
"""What has no data in a demo of a minute: a selector or record, and why."""


def parse(prometheus: Prometheus, query: str) -> Node:
    return prometheus.ask("parse_query", query=query)


def hastened(prometheus: Prometheus, file: Path, folder: Path) -> Path:
    """The rules of a file, evaluated every few seconds, and with no look at days that this Prometheus has not seen."""
    content = yaml.safe_load(file.read_text())
    for group in content["groups"]:
        group["interval"] = "5s"
        for rule in group["rules"]:
            rule["expr"] = without_offsets(lambda query: parse(prometheus, query), rule["expr"])
    made = folder / file.name
    made.write_text(json.dumps(content))
    return made


def asked_by_rules(prometheus: Prometheus) -> Iterator[tuple[str, str]]:
    """Where a question comes from, and the question."""
    for file in shipped_rules():
        for group in yaml.safe_load(file.read_text())["groups"]:
            for rule in group["rules"]:
                name = rule.get("alert") or rule["record"]
                for question in questions(lambda query: parse(prometheus, query), rule["expr"]):
                    yield name, question
                if "record" in rule:
                    yield name, rule["record"]


def test_every_query_finds_its_data(tmp_path: Path) -> None:
    binaries = {"debian": debian("prometheus"), "current": current("prometheus")}
    folders = {name: tmp_path / name for name in (*binaries, "parser")}
    for folder in folders.values():
        folder.mkdir()
    with contextlib.ExitStack() as stack:
        demo = stack.enter_context(RunningDemo(None, rate=2))
        parser = stack.enter_context(RunningPrometheus(binaries["current"], folders["parser"]))
        asked: dict[str, set[str]] = defaultdict(set)
        for where, question in asked_by_rules(parser):
            asked[question].add(where)
        rules = [hastened(parser, file, folders["parser"]) for file in shipped_rules()]
        servers = {
            name: stack.enter_context(RunningPrometheus(binary, folders[name], demo.port, rules=rules))
            for name, binary in binaries.items()
        }
        began = time.monotonic()
        open_questions = {(name, question) for name in servers for question in asked}
        print(f"{len(asked)} queries, asked of {' and '.join(servers)}")
        while time.monotonic() < began + PATIENCE:
            open_questions = {
                (name, question) for name, question in open_questions if not servers[name].query(question)
            }
            print(f"after {time.monotonic() - began:.0f} s: {len(open_questions)} without a result")
            if not any(question not in EMPTY for _, question in open_questions):
                break
            time.sleep(2)
        for name, question in sorted(open_questions):
            print(f"{name}: {question}: asked by {', '.join(sorted(asked[question]))}")
        sick = {
            (name, rule["name"], rule["lastError"])
            for name, server in servers.items()
            for rule in server.rules()
            if rule["health"] != "ok"
        }
        assert not sick
        assert not open_questions
