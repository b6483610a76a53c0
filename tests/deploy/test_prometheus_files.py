"""The Prometheus and Alertmanager configurations on paper."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PLACE = ROOT / "deploy/prometheus"
SCRAPES = sorted(PLACE.glob("scrape*.yml"))
ALERTMANAGER = ROOT / "deploy/alertmanager/alertmanager.yml"

# --- Prometheus -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", SCRAPES, ids=lambda file: file.stem)
def test_every_example_scrapes_often_enough(file: Path) -> None:
    """At most half of the default zero_hold."""
    config = yaml.safe_load(file.read_text())
    for job in config["scrape_configs"]:
        interval = job.get("scrape_interval") or config["global"]["scrape_interval"]
        assert int(re.fullmatch(r"(\d+)s", interval)[1]) <= 30


# --- Alertmanager -----------------------------------------------------------------------------------------------------


def test_inhibitions_name_alerts_and_labels_that_exist() -> None:
    groups = yaml.safe_load((PLACE / "rules-alerts.yml").read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"]}
    severities = {rule["labels"]["severity"] for group in groups for rule in group["rules"]}
    text = (PLACE / "rules-alerts.yml").read_text()
    for rule in yaml.safe_load(ALERTMANAGER.read_text())["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            label, values = re.fullmatch(r'(\w+)=~?"([^"]+)"', matcher).groups()
            known = {"alertname": alerts, "severity": severities}[label]
            assert set(values.split("|")) <= known
        for label in set(rule["equal"]) - {"alertname"}:
            assert re.search(rf"by \([^)]*\b{label}\b[^)]*\)", text), label
