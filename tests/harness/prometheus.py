"""A real Prometheus as a context manager, and what tests ask it.

with RunningPrometheus(tool("prometheus"), tmp_path, exporter.port, rules=shipped_rules()) as prometheus:
    print(prometheus.value("sum(agentos_runs_total)"))
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from tests.harness.agentos import free_port
from tests.harness.process import ServingProcess

DEPLOY = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"
JOB = "agentos-exporter"
"""The job name of the shipped scrape configuration; rules may name it."""


class Prometheus:
    """Any Prometheus that runs.

    Attributes:
        url: of its web server.

    """

    url: str

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an API answer.

        Raises:
            AssertionError: if it answers with an error.

        """
        # To load certificates would take longer than the answer does.
        url = f"{self.url}/api/v1/{path}"
        answer = httpx.get(url, params=parameters, timeout=60, trust_env=False, verify=False).json()
        assert answer["status"] == "success", f"{parameters}: {answer}"
        return answer["data"]

    def query(self, query: str) -> list[Any]:
        """Return the elements of an instant query; a scalar is one without labels."""
        data = self.ask("query", query=query)
        return [{"metric": {}, "value": data["result"]}] if data["resultType"] == "scalar" else data["result"]

    def value(self, query: str) -> float | None:
        """Return the one value of an instant query, None where there is none."""
        result = self.query(query)
        assert len(result) <= 1, result
        return float(result[0]["value"][1]) if result else None

    def parse(self, query: str) -> dict[str, Any]:
        """Return the syntax tree of a query. Prometheus 2 cannot say."""
        return self.ask("parse_query", query=query)

    def rules(self, kind: str = "") -> list[Any]:
        """Return the loaded rules with their health: all, or those of a kind: `alert`, `record`."""
        kinds = {"type": kind} if kind else {}
        return [rule for group in self.ask("rules", **kinds)["groups"] for rule in group["rules"]]

    def evaluated(self, since: float) -> bool:
        """Tell whether each rule has been evaluated after a moment, in seconds of the wall clock."""
        return all(datetime.fromisoformat(rule["lastEvaluation"]).timestamp() > since for rule in self.rules())

    def exemplar_traces(self, query: str) -> set[str]:
        """Return trace ids of the exemplars that are kept for a query."""
        now = time.time()
        found = self.ask("query_exemplars", query=query, start=str(now - 600), end=str(now + 60))
        return {exemplar["labels"]["trace_id"] for entry in found for exemplar in entry["exemplars"]}


class KnownPrometheus(Prometheus):
    """A Prometheus that somebody else started."""

    def __init__(self, url: str) -> None:
        self.url = url


class RunningPrometheus(ServingProcess, Prometheus):
    """A Prometheus of one's own on a free port; it scrapes ports of this machine as the shipped job does."""

    def __init__(
        self,
        binary: str,
        folder: Path,
        *targets: int,
        rules: Sequence[Path] = (),
        alertmanager: str | None = None,
        scrape_interval: str = "1s",
        evaluation_interval: str = "1s",
        scrape: Mapping[str, object] | None = None,
        flags: Sequence[str] = (),
        settings: Mapping[str, object] | None = None,
    ) -> None:
        """Describe it; entering the context starts it.

        Args:
            binary: path of the program.
            folder: for its configuration and data.
            targets: ports to scrape.
            rules: rule files to load.
            alertmanager: URL of the Alertmanager that alerts are sent to.
            scrape_interval: of all targets.
            evaluation_interval: of the groups that give none.
            scrape: further keys of the scrape configuration.
            flags: further flags.
            settings: further keys of the whole configuration.

        """
        config = {
            "global": {"scrape_interval": scrape_interval, "evaluation_interval": evaluation_interval},
            "scrape_configs": [
                {
                    "job_name": JOB,
                    "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in targets]}],
                    **(scrape or {}),
                }
            ],
            "rule_files": [str(path.resolve()) for path in rules],
            **(settings or {}),
        }
        if alertmanager is not None:
            config["alerting"] = {
                "alertmanagers": [{"static_configs": [{"targets": [alertmanager.removeprefix("http://")]}]}]
            }
        file = folder / "prometheus.yml"
        file.write_text(json.dumps(config))  # JSON is YAML
        port = free_port()
        command = (
            binary,
            f"--config.file={file}",
            f"--storage.tsdb.path={folder / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
            "--enable-feature=exemplar-storage",
            "--rules.alert.resend-delay=1s",
            *flags,
        )
        super().__init__(command, f"http://127.0.0.1:{port}", ready="/-/ready")


def shipped_rules() -> list[Path]:
    """Return the rule files that a user is told to load."""
    return sorted(DEPLOY.glob("rules*.yml"))
