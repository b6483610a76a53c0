"""docs/deployment.md by the letter: what it names is there; what helm makes of it: tests/tools/test_docs.py."""

from __future__ import annotations

import re
import shutil
import ssl
from pathlib import Path

import pytest
import yaml

from exporter import __version__
from exporter.config import DEFAULT_STATE
from exporter.config.web import RateLimit, load_web
from exporter.core.errors import ConfigError
from tests.harness.compose import FOLDER, services
from tests.harness.manifests import ROOT

TEXT = (ROOT / "docs/deployment.md").read_text()


def test_every_path_is_there() -> None:
    named = {path.rstrip("/.") for path in re.findall(r"(?<![\w/.])deploy/[\w./-]+", TEXT)}
    assert len(named) > 10
    made_by_the_reader = {"deploy/compose/grafana-admin-password", "deploy/compose/exporter/demo.token"}
    assert {path for path in named - made_by_the_reader if not (ROOT / path).exists()} == set()
    assert (FOLDER / ".gitignore").read_text().split() == [
        *("grafana-admin-password", "exporter/*.token"),
        *("tls/exporter/", "tls/prometheus/*", "!tls/prometheus/prometheus.yml"),
    ]


def test_every_anchor_and_link_leads_somewhere() -> None:
    titles = re.findall(r"^#+ (.*)", TEXT, re.MULTILINE)
    headings = {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}
    for text in re.findall(r"\]\(([^)]+)\)", TEXT):
        if text.startswith("https://"):
            continue
        file, _, anchor = text.partition("#")
        if not file:
            assert anchor in headings, text
            continue
        target = (ROOT / "docs" / file).read_text()
        assert re.search(rf"^#+ {anchor.replace('-', '[ -]')}$", target, re.MULTILINE | re.IGNORECASE), text


def test_the_table_of_prometheus_files_is_complete() -> None:
    (table,) = re.findall(r"^## Prometheus\n\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    assert set(re.findall(r"`([\w-]+\.yml)`", table)) == {
        path.name for path in (ROOT / "deploy/prometheus").glob("*.yml")
    }


def test_a_restored_file_is_the_owners_of_its_folder() -> None:
    """The folder is handed over by systemd, but not what root has put into it since."""
    (shown,) = re.findall(r"  # systemctl stop agentos-exporter.*?```", TEXT, re.DOTALL)
    assert "chown --reference=. state.db" in shown
    assert f"cd {DEFAULT_STATE.parent}/" in shown
    assert shown.index("rm -f state.db-wal state.db-shm") < shown.index("cp backup.db state.db")


def test_every_command_names_the_same_image() -> None:
    image = rf"registry\.example\.com/agentos-exporter:{re.escape(__version__)}"
    assert len(re.findall(image, TEXT)) == len(re.findall(r"registry\.example\.com/agentos-exporter:", TEXT)) == 4


def test_what_it_says_of_the_stack_is_so() -> None:
    assert "http://127.0.0.1:3000" in TEXT
    assert services()["grafana"]["ports"] == ["127.0.0.1:3000:3000"]
    assert "readable for user 472" in TEXT
    assert services()["grafana"]["user"].startswith("472:")


def test_the_web_config_that_it_shows_is_one(tmp_path: Path) -> None:
    (shown,) = re.findall(r"```yaml\n(# web.yml\n.*?)```", TEXT, re.DOTALL)
    for name in ("server.crt", "server.key", "ca.crt"):
        shutil.copy(ROOT / "tests/tls" / name, tmp_path)
    (tmp_path / "web.yml").write_text(shown)
    config = load_web(tmp_path / "web.yml")
    assert config.tls is not None
    assert config.tls.client_auth is ssl.CERT_REQUIRED
    assert config.rate_limit == RateLimit(0.1, 20)
    # Whom Prometheus's examples log in as.
    assert list(config.users) == ["prometheus"]
    for file in ("deploy/prometheus/scrape-tls.yml", "deploy/compose/tls/prometheus/prometheus.yml"):
        (job,) = yaml.safe_load((ROOT / file).read_text())["scrape_configs"]
        assert job["basic_auth"]["username"] == "prometheus"


def test_what_it_says_is_refused_is(tmp_path: Path) -> None:
    (line,) = re.findall(r"^- Options that the exporter cannot honour are refused by name: (.*)$", TEXT, re.MULTILINE)
    cases = {
        "RequireAnyClientCert": "tls_server_config: {client_auth_type: RequireAnyClientCert}",
        "RequireClientCert": "tls_server_config: {client_auth_type: RequireClientCert}",
        "curve_preferences": "tls_server_config: {curve_preferences: [X25519, CurveP256]}",
        "http2: true": "http_server_config: {http2: true}",
        "TLS10": "tls_server_config: {min_version: TLS10}",
        "TLS11": "tls_server_config: {min_version: TLS11}",
    }
    assert re.findall(r"`([^`]+)`", line) == list(cases)
    for name, text in cases.items():
        (tmp_path / "web.yml").write_text(text)
        with pytest.raises(ConfigError, match=name.partition(":")[0]):
            load_web(tmp_path / "web.yml")


def test_the_alert_and_metric_that_it_names_exist() -> None:
    alerts = {
        rule["alert"]
        for group in yaml.safe_load((ROOT / "deploy/prometheus/rules-alerts.yml").read_text())["groups"]
        for rule in group["rules"]
    }
    assert set(re.findall(r"`(AgentOS\w+)`", TEXT)) <= alerts
    metrics = (ROOT / "docs/metrics.md").read_text()
    for name in re.findall(r"`(agentos_\w+)`", TEXT):
        assert f"`{name}`" in metrics, name
