"""What happens to spans in real life: callers that trace too, and rows that are lost."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Sequence
from random import Random
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.harness import truth


async def remote_parents(base_url: str, runs: int, *, agents: Sequence[str] = ("plain", "tools"), seed: int = 0) -> int:
    """Run agents as a caller does that is traced itself and sampled: the root has a parent that AgentOS never writes.

    Returns how many runs were answered.
    """
    random = Random(f"remote {seed}")

    async def one(number: int) -> int:
        parent = f"00-{random.getrandbits(128):032x}-{random.getrandbits(64):016x}-01"
        form = {"message": f"From afar #{number}", "stream": "false", "user_id": "user-0", "session_id": "remote"}
        url = f"/agents/{agents[number % len(agents)]}/runs"
        return (await client.post(url, data=form, headers={"traceparent": parent})).status_code

    async with httpx.AsyncClient(base_url=base_url, timeout=60, trust_env=False) as client:
        codes = await asyncio.gather(*(one(number) for number in range(runs)))
    return codes.count(200)


def lose(database: str, *, seed: int = 0) -> int:
    """Delete spans that others stand below, and all spans of one trace; return how many.

    Of each fifth trace the root, of each fifth an agent's span, of each fifth a step's; nobody may write meanwhile.
    """
    traces, rows = truth.read(database)
    random = Random(f"lose {seed}")
    parents = {row.parent for row in rows}
    some = {trace_id: number % 5 for number, trace_id in enumerate(random.sample(sorted(traces), len(traces)))}
    gone = [
        row.span_id
        for row in rows
        if row.span_id in parents
        and (
            (some[row.trace_id] == 0 and not row.parent)
            or (some[row.trace_id] == 1 and row.name.endswith(".arun"))
            or (some[row.trace_id] == 2 and ".aexecute" in row.name)
        )
    ]
    last = max(traces)
    gone = sorted({*gone, *(row.span_id for row in rows if row.trace_id == last)})
    change(database, *(f"DELETE FROM {{}}agno_spans WHERE span_id = '{span_id}'" for span_id in gone))
    return len(gone)


def change(database: str, *statements: str) -> None:
    """Change agno's tables behind its back, in one transaction; `{}` stands for the prefix of the tables."""
    with truth.snapshot(database) as (_, prefix):
        pass
    kind, _, rest = database.removeprefix("async-").partition(":")
    connection: Any
    if kind == "sqlite":
        connection = sqlite3.connect(rest, timeout=30)
    elif kind == "postgres":
        import psycopg

        connection = psycopg.connect(re.sub(r"^postgres(ql)?(\+\w+)?://", "postgresql://", rest))
    else:
        import pymysql

        parts = urlsplit(rest)
        where = {"host": parts.hostname, "port": parts.port or 3306, "user": parts.username}
        connection = pymysql.connect(**where, database=parts.path.strip("/"))
    try:
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement.format(prefix or ""))
        connection.commit()
    finally:
        connection.close()
