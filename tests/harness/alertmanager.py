"""A real Alertmanager as a context manager, and the webhook that it notifies.

with Webhook() as webhook, RunningAlertmanager(tool("alertmanager"), tmp_path, webhook.url) as alertmanager:
    ...
    print(webhook.notified("firing", "AgentOSDown"))
"""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.harness.agentos import free_port
from tests.harness.process import ServingProcess


@dataclass(frozen=True)
class Notification:
    """One alert in one request of Alertmanager."""

    received: float
    """wall clock, seconds"""
    status: str
    """firing or resolved"""
    labels: dict[str, str]
    annotations: dict[str, str]
    starts_at: str
    ends_at: str

    @property
    def name(self) -> str:
        """Return the alert's name."""
        return self.labels["alertname"]


class Webhook:
    """A web server in a thread that keeps what Alertmanager posts."""

    def __init__(self) -> None:
        self.notifications: list[Notification] = []
        kept = self.notifications

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                now = time.time()
                kept.extend(_notification(alert, now) for alert in body["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                """Keep the output of tests clean."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def __enter__(self) -> Self:
        """Serve."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def notified(self, status: str, name: str, **labels: str) -> list[Notification]:
        """Return the notifications of a status about an alert that has these labels, oldest first."""
        return [
            each
            for each in tuple(self.notifications)
            if (each.status, each.name) == (status, name) and labels.items() <= each.labels.items()
        ]

    def names(self, status: str = "firing") -> set[str]:
        """Return the names of the alerts it was notified of."""
        return {each.name for each in tuple(self.notifications) if each.status == status}


class RunningAlertmanager(ServingProcess):
    """An Alertmanager of one's own on a free port; it notifies one webhook of each alert by itself, and soon."""

    def __init__(
        self, binary: str, folder: Path, webhook: str, *, group_wait: str = "1s", inhibit: Sequence[Any] = ()
    ) -> None:
        """Describe it; entering the context starts it.

        Args:
            binary: path of the program.
            folder: for its configuration and data.
            webhook: URL to notify.
            group_wait: how long it waits for more alerts of a group, also between two notifications of one.
            inhibit: inhibition rules.

        """
        config = {
            "route": {
                "receiver": "webhook",
                "group_by": ["..."],
                "group_wait": group_wait,
                "group_interval": group_wait,
                "repeat_interval": "1h",
            },
            "receivers": [{"name": "webhook", "webhook_configs": [{"url": webhook, "send_resolved": True}]}],
            "inhibit_rules": list(inhibit),
        }
        file = folder / "alertmanager.yml"
        file.write_text(json.dumps(config))  # JSON is YAML
        port = free_port()
        command = (
            binary,
            f"--config.file={file}",
            f"--storage.path={folder / 'alertmanager'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",  # alone
        )
        super().__init__(command, f"http://127.0.0.1:{port}", ready="/-/ready")

    def alerts(self) -> list[Any]:
        """Return the alerts it holds."""
        answer = httpx.get(f"{self.url}/api/v2/alerts", trust_env=False)
        return answer.raise_for_status().json()


def _notification(alert: Any, received: float) -> Notification:
    return Notification(
        received, alert["status"], alert["labels"], alert["annotations"], alert["startsAt"], alert["endsAt"]
    )
