"""Three hundred AgentOS instances in one exporter."""

from pathlib import Path

from tests.harness.agentos import RunningAgentOS
from tests.real.test_fleet import check


def test_hundreds_of_instances(agentos: RunningAgentOS, database: str, tmp_path: Path) -> None:
    check(agentos, database, tmp_path, instances=300, interval=10)
