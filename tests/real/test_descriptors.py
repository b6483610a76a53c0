"""An exporter that has no file descriptor left: it says so in a few lines, and serves again once there are some."""

from __future__ import annotations

import resource
import socket
import time
from pathlib import Path

from tests.harness.exporter import RunningExporter
from tests.harness.patience import HANG

LEFT = 8
"""descriptors that the exporter may still open"""
MOST_LINES = 100
"""of the log: before, each attempt of the event loop wrote one, ten thousand a second"""


def test_without_descriptors_the_log_stays_short_and_the_exporter_recovers(tmp_path: Path) -> None:
    with RunningExporter(tmp_path, {"down": "http://127.0.0.1:9"}, poll_interval="1s") as exporter:
        exporter.kill()
        exporter.spawn(fork=False)  # a forked one would have loaded what the error needs
        exporter.wait_until_serving()
        process = exporter.process
        assert process is not None
        used = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
        soft, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (used + LEFT, hard))
        idle = [socket.create_connection(("127.0.0.1", exporter.port)) for _ in range(4 * LEFT)]
        end = time.monotonic() + HANG
        while exporter.logs.count("out of system resource") < 3:
            assert time.monotonic() < end
            time.sleep(0.1)
        lines = exporter.logs.splitlines()
        assert len(lines) < MOST_LINES
        assert not [line for line in lines if "could not be written" in line]
        for one in idle:
            one.close()
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (soft, hard))
        exporter.wait_until_serving()
