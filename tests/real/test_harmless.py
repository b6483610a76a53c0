"""Harmless: no trace of us in AgentOS, little read twice; no secret and no prompt leaves. Its time: see benchmarks."""

import asyncio
import json
import sqlite3
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from exporter.config import AgentOS
from exporter.sources.api.http import OWN_TRACE_PREFIX
from tests.harness import load, truth
from tests.harness.agentos import UNSAMPLED, RunningAgentOS
from tests.harness.inprocess import Exporter
from tests.harness.seed import seed


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:{tmp_path / 'agno.db'}"


def own_rows(database: str) -> int:
    return sum(trace_id.startswith(OWN_TRACE_PREFIX) for trace_id in truth.read(database)[0])


# No trace of us


@pytest.mark.slow
async def test_forty_idle_polls_leave_no_trace(database: str, tmp_path: Path) -> None:
    with RunningAgentOS(sys.executable, database) as agentos:
        await load.drive(agentos.base_url, runs=8, leaving=False)
        await asyncio.to_thread(agentos.wait_until_quiet)
        traces, rows = truth.read(database)
        async with Exporter({"it": agentos.base_url}, tmp_path / "state.db", poll_interval=0.1) as exporter:
            counted = await exporter.exact(database, "it")
            shown = await exporter.polls(40, "it")
            assert not exporter.logged("own_requests_traced")
            assert shown("agentos_exporter_ignored_traces_total") == 0
        await asyncio.to_thread(agentos.wait_until_quiet, of="")
        assert any(row.type == "UNKNOWN" for row in rows), "AgentOS traces the requests of others"
        assert (sorted(truth.read(database)[0]), len(truth.read(database)[1])) == (sorted(traces), len(rows))
        assert counted.traces == len(traces)


async def test_an_agentos_that_samples_everything(database: str, tmp_path: Path) -> None:
    with RunningAgentOS(sys.executable, database, sampler="always_on") as agentos:
        async with Exporter({"it": agentos.base_url}, tmp_path / "state.db", poll_interval=0.5, overlap=3) as exporter:
            await load.drive(agentos.base_url, runs=12, leaving=False)
            await exporter.until(
                lambda shown: shown("agentos_exporter_ignored_traces_total", reason="own") >= 10, what="own traces"
            )
            counted = await exporter.exact(database, "it")
            shown = await exporter.polls(6, "it")
            # Each poll makes more of them. A sweep counts those of its window; the very first may be before it.
            own = own_rows(database)
            shown = await exporter.until(
                lambda shown: shown("agentos_exporter_ignored_traces_total", reason="own") >= own / 2,
                what=f"half of {own} own traces",
            )
            assert shown("agentos_exporter_ignored_traces_total", reason="own") <= own_rows(database)
            assert len(exporter.logged("own_requests_traced")) == 1
            assert "OTEL_TRACES_SAMPLER" in exporter.logged("own_requests_traced")[0]["reason"]
            assert shown("agentos_traces_total") == counted.traces
            assert shown("agentos_exporter_open_traces") == 0
            assert shown("agentos_exporter_polls_total") == shown("agentos_exporter_polls_total", outcome="ok")
        # No trace of ours grows: each request has an id of its own.
        _, rows = truth.read(database)
        ours = [row.trace_id for row in rows if row.trace_id.startswith(OWN_TRACE_PREFIX)]
        assert max(ours.count(trace_id) for trace_id in set(ours)) < 12


# Nothing leaves that is not ours to show

TOKEN = "sesame-open-4411"
SECRETS = {
    "prompt": "PROMPT-canary-88d1",
    "answer": "ANSWER-canary-17c0",
    "argument": "ARGUMENT-canary-5f2e",
    "result": "RESULT-canary-90ab",
    "error": "ERROR-canary-c3d4",
    "model error": "MODEL-canary-2b6f",
}


@pytest.fixture
def poisoned(database: str) -> Iterator[RunningAgentOS]:
    """An AgentOS whose spans hold a secret wherever a span can hold one."""
    seed(database, 40, spread=timedelta(minutes=5), prompt_bytes=(50, 100), errors=0.3, http_roots=False)
    with sqlite3.connect(database.partition(":")[2]) as connection:
        for span_id, text in connection.execute("SELECT span_id, attributes FROM agno_spans").fetchall():
            attributes = json.loads(text)
            tool = attributes["openinference.span.kind"] == "TOOL"
            attributes["input.value"] = SECRETS["prompt"]
            attributes["output.value"] = SECRETS["result" if tool else "answer"]
            if tool:
                attributes["tool.parameters"] = json.dumps({"query": SECRETS["argument"]})
                attributes["input.value"] = attributes["tool.parameters"]
            changed = json.dumps(attributes), span_id
            connection.execute("UPDATE agno_spans SET attributes = ? WHERE span_id = ?", changed)
        bare, typed = SECRETS["error"], f"ModelProviderError: {SECRETS['model error']}"
        connection.execute(f"UPDATE agno_spans SET status_message = '{bare}' WHERE status_message LIKE 'alice%'")
        connection.execute(f"UPDATE agno_spans SET status_message = '{typed}' WHERE status_message LIKE 'Model%'")
        connection.execute(f"UPDATE agno_spans SET status_message = '{bare}' WHERE status_message LIKE 'run status%'")
    connection.close()
    with RunningAgentOS(sys.executable, database, security_key=TOKEN) as agentos:
        yield agentos


async def test_no_prompt_answer_argument_error_text_or_token_leaves(
    poisoned: RunningAgentOS, database: str, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    folder = tmp_path / "state"
    folder.mkdir()
    instance = AgentOS("it", poisoned.base_url, token_file=token)
    async with Exporter({"it": instance}, folder / "state.db") as exporter:
        async with httpx.AsyncClient(base_url=poisoned.base_url, headers=bearer, timeout=60, trust_env=False) as client:
            for agent in ("plain", "tools", "failing-tool", "failing-model"):
                form = {"message": SECRETS["prompt"], "stream": "false", "user_id": "ann", "session_id": "s-1"}
                await client.post(f"/agents/{agent}/runs", data=form)
            found = (await client.post("/traces/search", json={"limit": 100}, headers=UNSAMPLED)).text
        assert [secret for secret in SECRETS.values() if secret not in found] == [], "AgentOS itself does not show it"
        await asyncio.to_thread(poisoned.wait_until_quiet)
        await exporter.exact(database, "it")
        # Errors have their own way into logs and the page.
        token.write_text("wrong-token-77")
        await exporter.until(lambda shown: shown("agentos_up") == 0)
        page = await exporter.get("/")
        token.write_text(TOKEN)
        await exporter.until(lambda shown: shown("agentos_up") == 1)
        openmetrics = await exporter.get("/metrics")
        everything = [
            exporter.log,
            page,
            openmetrics,
            await exporter.get("/"),
            exporter.daemon.site.rendered().openmetrics,
        ]
        state = [path.read_bytes() for path in folder.iterdir()]
    state += [path.read_bytes() for path in folder.iterdir()]
    outside = [one if isinstance(one, bytes) else one.encode() for one in everything]
    for what, secret in ({"token": TOKEN, "old token": "wrong-token-77"} | SECRETS).items():
        assert not [one for one in (*outside, *state) if secret.encode() in one], what
    assert b"ModelProviderError" in outside[2], "but the type of an error is shown"
