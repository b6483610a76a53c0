"""The boards as promtool and the linter of dashboards read them."""

from __future__ import annotations

import subprocess

import pytest
import yaml

from tests.harness import panels
from tests.harness.tools import tool, tools

ASKED = list(panels.asked())


@pytest.mark.prometheus
@pytest.mark.parametrize("promtool", tools("promtool"))
def test_prometheus_reads_every_query(promtool, tmp_path):
    exprs = [query.expr for query in ASKED] + [expr for *_, expr in panels.marks()]
    rules = [{"record": f"read:query:{n}", "expr": expr} for n, expr in enumerate(exprs)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "boards", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"SUCCESS: {len(exprs)} rules" in done.stdout


@pytest.mark.prometheus
@pytest.mark.parametrize("promtool", tools("promtool"))
def test_an_exporter_that_is_down_is_shown_as_down_and_another_process_is_not(promtool, tmp_path):
    (scraped,) = (query.expr for query in ASKED if query.panel == "Exporter scraped")
    assert 'job=~".+"' in scraped
    series = {
        'up{job="agentos-exporter",instance="a"}': "1x10 0x120",
        'agentos_exporter_build_info{job="agentos-exporter",instance="a",version="1"}': "1x10 stale",
        'up{job="node",instance="b"}': "0x130",
    }
    shown = {"5m": [1], "2h": [0]}
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {"expr": scraped, "eval_time": at, "exp_samples": [{"labels": "{}", "value": value} for value in values]}
            for at, values in shown.items()
        ],
    }
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump({"tests": [test]}))
    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("board", panels.boards().values(), ids=panels.boards())
def test_dashboard_linter(board):
    file = panels.DASHBOARDS / f"{board['uid']}.json"
    command = [tool("dashboard-linter"), "lint", "--strict", "--verbose", file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Checks that each target uses a valid PromQL query." in done.stdout
