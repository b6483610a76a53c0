"""What anybody on the network may send: the daemon serves on, its memory stays bounded, and no secret comes back."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.harness.exporter import RunningExporter
from tests.harness.fuzz import RAW, SHAPES, SMUGGLED, Hammer
from tests.harness.process import resident
from tests.harness.web import HASHED, PASSWORD, TLS, client, guarded

REQUESTS = 4_000
MOST_GROWTH = 24
"""MiB: 256 connections that hold a head of 16 KiB and what TLS buffers."""


def check(folder: Path, requests: int, seed: int) -> None:
    """Send so many requests; print what came of them."""
    file = guarded(folder / "web.yml")
    with RunningExporter(folder, {"nobody": "http://127.0.0.1:9"}, web=(file, client())) as exporter:
        assert exporter.process is not None
        hammer = Hammer(exporter.port, seed)
        asyncio.run(hammer.send(requests // 4))
        before = resident(exporter.process.pid)
        asyncio.run(hammer.send(requests - requests // 4))
        grown = resident(exporter.process.pid) - before
        outcome = hammer.outcome
        print(f"seed {seed}: {outcome.sent.total()} requests, answers {dict(outcome.answers)}, {grown:.1f} MiB")
        assert grown < MOST_GROWTH
        assert exporter.process.poll() is None
        assert "agentos_up" in exporter.metrics()
        logs = exporter.logs
    said = b"\n".join(outcome.text).decode("latin-1") + logs
    key = (TLS / "server.key").read_text().splitlines()[3]
    for secret in (PASSWORD, HASHED, key):
        assert secret not in said
    assert not [answer for answer in SMUGGLED if answer in said]
    assert logs.count("\n") < 200, logs[-3000:]
    assert set(outcome.sent) == {*SHAPES, *RAW, "slow"}
    assert {"200", "400", "401", "404"} <= outcome.answers.keys()
    assert not [status for status in outcome.answers if status.startswith("5")], outcome.answers


def test_some(tmp_path: Path) -> None:
    check(tmp_path, REQUESTS, seed=1)
