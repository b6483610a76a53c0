"""End to end, with a real AgentOS and a real daemon: what is shown as cost is what its spans cost, to the nano-dollar.

What is expected is worked out from agno's own tables, with genai-prices' own `calc_price` and none of our code. With
details of runs (`enrich_runs`) the same is done in test_enrich.py.
"""

import asyncio
import sys
from collections import Counter, defaultdict
from datetime import UTC, datetime
from decimal import Decimal

import genai_prices
import httpx

from exporter.bookkeeping import intake
from tests.harness import load
from tests.harness.agentos import RunningAgentOS
from tests.harness.inprocess import Exporter

RUNS, LOCAL_RUNS = 150, 4
NAME = "it"
NOTHING = Decimal(0)
CLOSE = Decimal("1e-9")

SELLERS = {"openai": "openai", "anthropic": "anthropic", "vertexai": "google", "google": "google"}
"""The test server's providers, as genai-prices calls them"""
FREE = {"ollama"}
NOBODY = {""}
"""What the HTTP API shows of a class that agno does not have"""


def priced(call):
    """(USD by token class, cost source) of a call, without what the HTTP API does not show; None: unpriced."""
    row = call.row
    tokens = {"input": row.input_tokens, "output": row.output_tokens}
    if row.provider in FREE:
        return dict.fromkeys(tokens, NOTHING), "listed"
    if row.provider in NOBODY:
        return None
    price = genai_prices.calc_price(
        genai_prices.Usage(input_tokens=tokens["input"], output_tokens=tokens["output"]),
        row.model,
        provider_id=SELLERS[row.provider],
        genai_request_timestamp=datetime.fromtimestamp(row.start, UTC),
    )
    usd = {"input": price.input_price, "output": price.output_price}
    assert sum(usd.values()) == price.total_price
    return usd, "estimated"  # how much of the prompt was cached is not known


class Expected:
    """Every sum that has to do with money, from the spans."""

    def __init__(self, counted):
        self.cost, self.unpriced = defaultdict(Decimal), Counter()
        self.run_cost, self.run_count = defaultdict(Decimal), Counter()
        self.total = NOTHING
        self.sessions = set(counted.session_of.values())
        calls_of, priced_of = Counter(), Counter()
        cost_of = defaultdict(Decimal)
        for call in counted.calls:
            row = call.row
            calls_of[call.run] += 1
            if not row.input_tokens and not row.output_tokens:
                continue
            found = priced(call)
            if found is None:
                self.unpriced[row.provider, row.model, "input"] += row.input_tokens
                self.unpriced[row.provider, row.model, "output"] += row.output_tokens
                continue
            usd, source = found
            for token_class, amount in usd.items():
                self.cost[call.root, call.agent, row.provider, row.model, token_class, source] += amount
            priced_of[call.run] += 1
            cost_of[call.run] += sum(usd.values())
            self.total += sum(usd.values())
        for run, row in counted.runs.items():
            if priced_of[run] or not calls_of[run]:  # else nothing is known of its cost
                self.run_cost[row.type.lower(), row.label] += cost_of[run]
                self.run_count[row.type.lower(), row.label] += 1


def shown_by(shown, metric, *labels):
    """Values by these labels, as they are shown; what is 0 is there too."""
    found = defaultdict(Decimal)
    for (name, have), value in shown.samples.items():
        if name == metric:
            known = dict(have)
            found[tuple(known[label] for label in labels)] += Decimal(value)
    return found


def apart(expected, got):
    """What differs, one line each: by more than 1e-9 USD, or by being there."""
    return [
        f"{key}: expected {expected.get(key)}, got {got.get(key)}"
        for key in sorted({*expected, *got})
        if key not in expected or key not in got or abs(Decimal(expected[key]) - got[key]) > CLOSE
    ]


async def run_locally(url):
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
        for number in range(LOCAL_RUNS):
            form = {"message": f"Hello #{number}", "stream": "false", "session_id": "local", "user_id": "user-0"}
            (await client.post("/agents/local/runs", data=form)).raise_for_status()


async def test_cost_is_that_of_the_spans_as_the_plain_api_shows_them(tmp_path, monkeypatch):
    database = f"sqlite:{tmp_path / 'agno.db'}"
    with RunningAgentOS(sys.executable, database) as agentos:
        async with Exporter({NAME: agentos.base_url}, tmp_path / "state.db") as exporter:
            outcome = await load.drive(agentos.base_url, runs=RUNS, seed=11)
            assert (outcome.started, outcome.failed) == (RUNS, {})
            await run_locally(agentos.base_url)
            await asyncio.to_thread(agentos.wait_until_quiet)
            counted = await exporter.exact(database, NAME)
            expected = Expected(counted)
            await exporter.until(
                lambda shown: shown("agentos_run_cost_usd_count") == expected.run_count.total(), what="all runs settled"
            )
            shown = await exporter.polls(2, NAME)

            # The mix has what is awkward: the same tokens twice, tokens without a price, calls without tokens.
            assert counted.nested_llm > 0
            assert {(call.row.provider, call.row.model) for call in counted.calls} == {
                ("openai", "gpt-5.4-mini"),
                ("openai", "gpt-5.4-nano"),
                ("openai", "gpt-5.4"),
                ("anthropic", "claude-sonnet-5-5"),
                ("vertexai", "claude-sonnet-4@20250514"),
                ("google", "gemini-3.7-flash"),
                ("ollama", "llama3.2:3b"),
                ("", "our-model-7b"),
            }
            labels = ("root", "agent", "provider", "model", "token_class", "cost_source")
            got = shown_by(shown, "agentos_llm_cost_usd_total", *labels)
            assert apart(expected.cost, got) == []
            assert abs(sum(got.values()) - expected.total) <= CLOSE
            assert expected.total > 0
            assert {key: value for key, value in got.items() if key[2] == "ollama"} == {
                ("Local", "Local", "ollama", "llama3.2:3b", token_class, "listed"): 0
                for token_class in ("input", "output")
            }

            unpriced = shown_by(shown, "agentos_llm_unpriced_tokens_total", "provider", "model", "token_class")
            assert unpriced == expected.unpriced
            assert {model for _, model, _ in unpriced} == {"our-model-7b"}

            run = ("root_kind", "root")
            assert shown_by(shown, "agentos_run_cost_usd_count", *run) == expected.run_count
            assert apart(expected.run_cost, shown_by(shown, "agentos_run_cost_usd_sum", *run)) == []
            assert ("agent", "Home_Grown") not in expected.run_cost
            assert {kind for kind, _ in expected.run_cost} == {"agent", "team", "workflow"}

            # Half an hour later, as far as sessions go.
            assert shown("agentos_session_cost_usd_count") == 0
            monkeypatch.setattr(intake, "SESSION_IDLE", 0)
            shown = await exporter.until(
                lambda shown: shown("agentos_session_cost_usd_count") >= len(expected.sessions),
                what="sessions observed",
            )
            assert shown("agentos_session_cost_usd_count") == len(expected.sessions)
            assert abs(Decimal(shown("agentos_session_cost_usd_sum")) - expected.total) <= CLOSE
