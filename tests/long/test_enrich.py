"""Details of runs of a real AgentOS: tokens and cost are those of agno's own table, whatever is killed."""

import asyncio
import json
import sqlite3
import sys
import time
from collections import Counter
from datetime import datetime
from decimal import Decimal
from random import Random

import genai_prices
import httpx
import pytest

from exporter.bookkeeping.enrich import MOST_REQUESTS
from exporter.config import AgentOS
from tests.harness import load, truth
from tests.harness.agentos import RunningAgentOS
from tests.harness.details import COST, FIRST_TOKEN, TOKENS, S
from tests.harness.exporter import RunningExporter
from tests.harness.inprocess import Exporter

RUNS_DRIVEN = 150
AGENTS = ("AGENT", "TEAM")
READ, WRITE = "llm.token_count.prompt_details.cache_read", "llm.token_count.prompt_details.cache_write"
THOUGHT = 40  # of each call of the test server's Gemini agent, beside its output; its spans do not say so
SELLERS = {"OpenAIChat": "openai", "Claude": "anthropic", "Gemini": "google"}


def llm_spans(path):
    """(run id, session id, agent, class, model, attributes, start) of each call, from agno's own table."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        rows = connection.execute("SELECT span_id, parent_span_id, name, attributes, start_time FROM agno_spans")
        spans = {row: (parent, name, json.loads(more), start) for row, parent, name, more, start in rows}
    kinds = {span: str(more.get("openinference.span.kind")) for span, (_, _, more, _) in spans.items()}

    def nearest(one, wanted):
        above = spans[one][0]
        while above and kinds[above] not in wanted:
            above = spans[above][0]
        return above

    for span, (_, name, more, start) in spans.items():
        if kinds[span] != "LLM" or kinds.get(nearest(span, {"LLM", "TOOL", "CHAIN", *AGENTS})) == "LLM":
            continue  # a vendor's view of the call above is no call
        owner = nearest(span, {"CHAIN", *AGENTS})
        beside = [other for other, (above, *_) in spans.items() if above == owner and kinds[other] in AGENTS]
        agent = beside[0] if kinds.get(owner) == "CHAIN" and len(beside) == 1 else nearest(span, AGENTS)
        _, called, own, _ = spans[agent] if agent else ("", "", {}, "")
        yield (
            own.get("agno.run.id"),
            own.get("session.id"),
            called.rpartition(".")[0],
            name.rpartition(".")[0],
            more,
            start,
        )


def tells(answer):
    """Whether AgentOS knows more of a run: its input and output by model, None where it does not."""
    if answer.status_code != 200:
        return None
    entries = answer.json()["metrics"].get("details", {}).get("model", [])
    return {entry["id"]: (entry.get("input_tokens", 0), entry.get("output_tokens", 0)) for entry in entries}


async def expected(path, url):
    """(tokens by agent, model and class; USD by model and cost source; runs known in detail), without our own code."""
    calls = list(llm_spans(path))
    sums = {}
    for run_id, _, _, _, more, _ in calls:
        model = sums.setdefault(run_id, {}).setdefault(more["llm.model_name"], [0, 0])
        model[0] += more.get("llm.token_count.prompt", 0)
        model[1] += more.get("llm.token_count.completion", 0)
    known = {}
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        for run_id, session_id in {(call[0], call[1]) for call in calls if call[0]}:
            known[run_id] = tells(await client.get(f"/sessions/{session_id}/runs/{run_id}"))
    tokens, dollars = Counter(), Counter()
    for run_id, _, agent, cls, more, start in calls:
        model = more["llm.model_name"]
        prompt, completion = more.get("llm.token_count.prompt"), more.get("llm.token_count.completion")
        if prompt is None and completion is None:
            continue
        detailed = (known.get(run_id) or {}).get(model) == tuple(sums[run_id][model])
        read, write = (more.get(READ, 0), more.get(WRITE, 0)) if detailed else (0, 0)
        thought = THOUGHT if detailed and cls == "Gemini" else 0
        apart = cls == "Claude"  # Anthropic's prompt, and that of Vertex AI, leaves cached tokens out
        for token_class, count in (
            ("input", prompt if apart else prompt - read - write),
            ("cache_read", read),
            ("cache_write", write),
            ("output", completion),
            ("reasoning", thought),
        ):
            tokens[agent, model, token_class] += count
        usage = genai_prices.Usage(
            input_tokens=prompt + read + write if apart else prompt,
            cache_read_tokens=read,
            cache_write_tokens=write,
            output_tokens=completion + thought,
        )
        seller = "google" if "@" in model else SELLERS.get(cls)
        if seller:
            paid = genai_prices.calc_price(
                usage, model, provider_id=seller, genai_request_timestamp=datetime.fromisoformat(start)
            )
            dollars[model, "listed" if detailed else "estimated"] += paid.total_price
    return +tokens, +dollars, {run_id for run_id, one in known.items() if one}


def shown_by(samples, metric, *labels):
    found = Counter()
    for (name, have), value in samples.items():
        if name == metric:
            known = dict(have)
            found[tuple(known[label] for label in labels)] += value
    return +found


async def test_with_details_tokens_and_cost_are_those_of_the_spans_own_attributes(tmp_path):
    path, requests = tmp_path / "agno.db", []
    with RunningAgentOS(sys.executable, f"sqlite:{path}") as agentos:
        one = {"it": AgentOS("it", agentos.base_url, enrich_runs=True)}
        began = time.monotonic()
        async with Exporter(one, tmp_path / "state.db") as exporter:
            enricher = exporter.daemon.pollers[0].enricher
            enricher._patience = 3600 * S  # however slow the machine is
            await load.drive(agentos.base_url, runs=RUNS_DRIVEN // 2, seed=3)
        await load.drive(agentos.base_url, runs=RUNS_DRIVEN // 2, seed=4)
        await asyncio.to_thread(agentos.wait_until_quiet)
        tokens, dollars, known = await expected(path, agentos.base_url)
        async with Exporter(one, tmp_path / "state.db") as exporter:
            enricher = exporter.daemon.pollers[0].enricher
            enricher._patience = round((time.monotonic() - began + 45) * S)  # the first calls wait since then
            run = enricher.run

            async def counted(deadline):
                requests.append(await run(deadline))

            enricher.run = counted
            await exporter.until(
                lambda shown: shown_by(shown.samples, TOKENS, "agent", "model", "token_class") == tokens,
                what="tokens by class",
            )
            shown = await exporter.polls(2, "it")
            assert exporter.daemon.shared.ledger.waiting("it") == []
            assert shown_by(shown.samples, TOKENS, "agent", "model", "token_class") == tokens
            paid = shown_by(shown.samples, COST, "model", "cost_source")
            assert paid.keys() == dollars.keys()
            assert all(abs(Decimal(paid[key]) - dollars[key]) < Decimal("1e-9") for key in dollars)
            assert sum(usd for (_, source), usd in dollars.items() if source == "listed") > 0
            assert {token_class for _, _, token_class in tokens} >= {"input", "cache_read", "output", "reasoning"}
            assert 0 < shown(f"{FIRST_TOKEN}_count") <= len(known)
            assert shown("agentos_exporter_polls_total", outcome="ok") == shown("agentos_exporter_polls_total")
            assert max(requests) <= MOST_REQUESTS
            assert sum(requests) > 0
            count = await asyncio.to_thread(truth.count, f"sqlite:{path}", "it")
            await exporter.until(
                lambda shown: shown("agentos_run_llm_calls_count") == count.total("agentos_run_llm_calls_count"),
                what="all runs settled",
            )
            # Runs of models without a price, and calls without usage, have no cost.
            assert shown("agentos_run_cost_usd_count") <= shown("agentos_run_llm_calls_count")


@pytest.mark.crash
async def test_kills_lose_and_double_nothing(tmp_path):
    path, random = tmp_path / "agno.db", Random(7)
    with RunningAgentOS(sys.executable, f"sqlite:{path}") as agentos:
        one = [{"name": "it", "url": agentos.base_url, "enrich_runs": True}]
        with RunningExporter(tmp_path, {}, agentos=one) as exporter:
            traffic = asyncio.create_task(load.steady(agentos.base_url, rate=3, seconds=25, seed=7, leaving=False))
            while not traffic.done():
                await asyncio.sleep(random.uniform(0.5, 2.5))
                exporter.kill()
                await asyncio.to_thread(exporter.start)
            await traffic
            await asyncio.to_thread(agentos.wait_until_quiet)
            tokens, dollars, _ = await expected(path, agentos.base_url)

            def agrees():
                samples = exporter.samples()
                paid = shown_by(samples, COST, "model", "cost_source")
                return shown_by(samples, TOKENS, "agent", "model", "token_class") == tokens and all(
                    abs(Decimal(paid[key]) - dollars[key]) < Decimal("1e-9") for key in {*dollars, *paid}
                )

            # What stays without details is let go after two minutes.
            await asyncio.to_thread(truth.wait_until, agrees, pause=1)
