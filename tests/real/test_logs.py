"""What agno logs in a process of its own."""

import subprocess
import sys

import pytest

from tests.harness.commands import fields


class TestAgno:
    PROGRAM = """
import sys, logging
from exporter.core import logs
{first}
{second}
from agno.utils import log
log.set_log_level_to_info()
log.log_info("PROMPT of a user")
log.log_debug("PROMPT of a user")
log.team_logger.info("PROMPT of a user")
log.log_warning("a warning")
log.team_logger.error("an error")
log.set_log_level_to_debug()
log.log_debug("PROMPT of a user")
"""

    @pytest.mark.parametrize("agno_first", [True, False])
    def test_agno_is_routed_and_quiet(self, agno_first: bool) -> None:
        steps = ["import agno.utils.log", "logs.configure('debug', 'logfmt', sys.stderr)"]
        first, second = steps if agno_first else reversed(steps)
        run = subprocess.run(
            [sys.executable, "-c", self.PROGRAM.format(first=first, second=second)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout == ""
        found = [fields(line) for line in run.stderr.splitlines()]
        assert [(line["level"], line["logger"], line["msg"]) for line in found] == [
            ("warning", "agno", "a warning"),
            ("error", "agno-team", "an error"),
        ]
