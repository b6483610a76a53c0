"""The plain manifests are what helm renders; `pytest --update-golden` writes them anew.

The object with the rules is written by `python -m deploy.mixin`, which needs no Helm; it says the same as the chart's.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from deploy.mixin.__main__ import main as mixin
from tests.harness.manifests import CHART, OPERATOR, PLAIN, ROOT, objects, only, template, written

VALUES = {
    "config": {
        "agentos": [
            {
                "name": "prod",
                "url": "http://agentos.agents.svc:7777",
                "token_file": "/run/secrets/agentos-exporter/prod-token",
            }
        ]
    },
    "secrets": [{"name": "prod-token", "secret": "agentos-tokens", "key": "prod"}],
    # An AgentOS behind https, and its own port.
    "networkPolicy.egressPorts": [443, 7777],
    "serviceMonitor.enabled": True,
    "prometheusRule.enabled": True,
}
RULES = "prometheus-operator/prometheusrule.yaml"
_HELM = re.compile(
    r"^# Source: .*\n"
    r"|^ *(?:helm\.sh/chart|app\.kubernetes\.io/managed-by): .*\n"
    # Who edits the configuration by hand would have to know a hash.
    r"|^ *# A changed configuration is a new pod.*\n *checksum/config: .*\n",
    re.MULTILINE,
)


def rendered() -> dict[str, str]:
    """The manifests by path below deploy/kubernetes, without what only Helm needs."""
    files = {}
    for part in re.split(r"^---\n", template(sets=VALUES), flags=re.MULTILINE):
        text = _HELM.sub("", part)
        found = objects(text)
        if found:
            (one,) = found
            name = f"{one['kind'].lower()}.yaml"
            files[f"prometheus-operator/{name}" if one["kind"] in OPERATOR else name] = text
    return files


def without_rules(files: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in files.items() if name != RULES}


def test_they_are_what_the_chart_renders(request: pytest.FixtureRequest) -> None:
    made = without_rules(rendered())
    if request.config.getoption("--update-golden"):
        for name, text in made.items():
            (PLAIN / name).write_text(text)
    assert without_rules(written()) == made, "pytest tests/tools/test_kubernetes.py --update-golden writes them anew"


def test_the_rules_are_the_charts() -> None:
    assert objects(written()[RULES]) == objects(rendered()[RULES])


def test_settings_of_ones_own_reach_the_rules(tmp_path: Path) -> None:
    settings = tmp_path / "my.yml"
    settings.write_text("grafana_url: https://grafana.example.com\nunreachable_for: 17m\n")
    assert mixin(["--settings", str(settings), "--out", str(tmp_path)]) == 0
    (plain,) = objects((tmp_path / "deploy/kubernetes" / RULES).read_text())
    chart = tmp_path / "chart"
    shutil.copytree(CHART, chart)
    shutil.copytree(tmp_path / CHART.relative_to(ROOT) / "files", chart / "files", dirs_exist_ok=True)
    given = only("PrometheusRule", objects(template(chart=chart, sets=VALUES)))
    assert plain["spec"] == given["spec"]
    alerts = [rule for group in plain["spec"]["groups"] for rule in group["rules"] if "alert" in rule]
    assert {rule["for"] for rule in alerts if rule["alert"] == "AgentOSUnreachable"} == {"17m"}
    assert all(rule["annotations"]["dashboard_url"].startswith("https://grafana.example.com/d/") for rule in alerts)
