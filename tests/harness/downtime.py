"""An AgentOS that something happens to while an exporter in this process reads it."""

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any

import httpx

from tests.harness import load
from tests.harness.agentos import RunningAgentOS
from tests.harness.inprocess import Exporter, Shown


def sql(database: str, *statements: str) -> None:
    """Change agno's SQLite tables behind its back."""
    with sqlite3.connect(database.partition(":")[2], timeout=30) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def hide(database: str, table: str = "agno_traces") -> None:
    sql(database, f"ALTER TABLE {table} RENAME TO hidden")


def unhide(database: str, table: str = "agno_traces") -> None:
    # AgentOS may have made a new, empty table meanwhile.
    sql(database, f"DROP TABLE IF EXISTS {table}", f"ALTER TABLE hidden RENAME TO {table}")


async def runs(url: str, number: int, *, agent: str = "plain", **headers: str) -> None:
    """Run an agent a few times; each call may fail."""
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False, headers=headers) as client:
        for _ in range(number):
            await client.post(f"/agents/{agent}/runs", data={"message": "Hello", "stream": "false"})


async def quiet(agentos: RunningAgentOS) -> None:
    await asyncio.to_thread(agentos.wait_until_quiet)


def polls(outcome: str, least: int = 1, agentos: str = "it") -> Callable[[Shown], bool]:
    return lambda shown: shown("agentos_exporter_polls_total", agentos=agentos, outcome=outcome) >= least


def up(shown: Shown) -> bool:
    return shown("agentos_up", agentos="it") == 1


def failures(shown: Shown, agentos: str = "it") -> float:
    every = shown("agentos_exporter_polls_total", agentos=agentos)
    return every - shown("agentos_exporter_polls_total", agentos=agentos, outcome="ok")


async def under_load(
    exporter: Exporter,
    agentos: RunningAgentOS,
    breaks: Callable[[], Any],
    mends: Callable[[], Any],
    *,
    broken: Callable[[Shown], bool] = lambda shown: failures(shown) >= 2,
) -> None:
    """Break something while runs go on, until it shows."""
    done = asyncio.Event()
    traffic = asyncio.create_task(load.steady(agentos.base_url, rate=2, until=done, leaving=False, most=8))
    await exporter.until(lambda shown: shown("agentos_runs_total") >= 10)
    await asyncio.to_thread(breaks)
    await exporter.until(broken, what="polls that failed")
    await asyncio.to_thread(mends)
    await exporter.until(up)
    await asyncio.sleep(2)
    done.set()
    await traffic
    await quiet(agentos)


async def exact_but_for_hidden(exporter: Exporter, database: str) -> Shown:
    """Wait until all is counted but for what a crash cut off, which is exported as hidden or had no span at all.

    Returns what is shown then.
    """
    counted = await exporter.exact(database, "it")
    shown = await exporter.shown()
    assert shown("agentos_exporter_hidden_spans_total") == len(counted.hidden)
    assert shown("agentos_exporter_source_resets_total") == 0
    return shown
