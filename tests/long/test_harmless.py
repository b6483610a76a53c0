"""Hardly more is read than there is."""

import asyncio
import sys
from pathlib import Path

import httpx

from tests.harness import load
from tests.harness.agentos import UNSAMPLED, RunningAgentOS
from tests.harness.inprocess import Exporter
from tests.harness.reading import read_bytes, read_once


async def test_hardly_more_is_read_than_there_is(tmp_path: Path) -> None:
    database = f"sqlite:{tmp_path / 'agno.db'}"
    with RunningAgentOS(sys.executable, database) as agentos:
        settings = {"poll_interval": 5, "overlap": 20, "sessions_interval": 3600, "operations_interval": 3600}
        async with Exporter({"it": agentos.base_url}, tmp_path / "state.db", **settings) as exporter:
            await load.steady(agentos.base_url, rate=2, seconds=90, leaving=False)
            await asyncio.to_thread(agentos.wait_until_quiet)
            counted = await exporter.exact(database, "it")
            polled = read_bytes(await exporter.shown())
        url = agentos.base_url
        async with httpx.AsyncClient(base_url=url, headers=UNSAMPLED, timeout=60, trust_env=False) as client:
            single = await read_once(client)
    spans = len(counted.visible)
    print(f"{spans} spans: {polled / spans:.0f} bytes a span; once {single / spans:.0f}: {polled / single:.3f} times")
    # Measured on a quiet machine in benchmarks/harmless.py (bound: 1.25). Here runs may be slow and read while they
    # grow, so they are few; but who reads each overlap again reads everything four times.
    assert polled <= 2 * single
