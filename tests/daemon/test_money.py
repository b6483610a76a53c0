"""What calls cost, in the whole daemon: prices of their day, details of runs, budgets that follow the calendar."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.harness import load
from tests.harness.driven import World

DAY = 86_400.0
PER_TOKEN = 0.001
"""USD of an input token, by the price file of these tests, before its price is doubled."""
KINDS = [load.Run("agents", "plain"), load.Run("agents", "thinking"), load.Run("agents", "claude")]
PLAIN = load.Run("agents", "plain")


def price_file(folder: Path, *entries: tuple[datetime, float]) -> str:
    """Write a price file: every model costs so many USD a million input tokens since a moment."""
    path = folder / "prices.yml"
    prices = [
        {"match": ".", "input_mtok": usd, "output_mtok": 0, "valid_from": f"{since:%Y-%m-%d}"} for since, usd in entries
    ]
    path.write_text(json.dumps({"prices": prices}))
    return str(path)


async def test_calls_cost_what_they_cost_on_their_day(world: World, folder: Path) -> None:
    """The price doubles the day after the runs, and they are read two days later still."""
    now = datetime.now(UTC)
    prices = price_file(folder, (now - timedelta(days=30), 1000), (now + timedelta(days=1), 2000))
    await world.drive(runs=9, kinds=KINDS)
    world.clock.forward(3 * DAY)
    async with world.exporter(folder, prices=prices, initial_lookback="96h") as exporter:
        await exporter.exact()
        shown = exporter.scrapes[-1]
        tokens = shown("agentos_llm_tokens_total", token_class="input")
        assert tokens > 0
        assert shown("agentos_llm_cost_usd_total") == pytest.approx(tokens * PER_TOKEN, rel=1e-12)
        await world.run(PLAIN)
        later = await exporter.forward(150)
        news = later("agentos_llm_tokens_total", token_class="input") - tokens
        assert news > 0
        spent = later("agentos_llm_cost_usd_total") - shown("agentos_llm_cost_usd_total")
        assert spent == pytest.approx(news * 2 * PER_TOKEN, rel=1e-12)


async def test_new_prices_hold_from_a_reload_on(world: World, folder: Path) -> None:
    since = datetime.now(UTC) - timedelta(days=30)
    async with world.exporter(folder, prices=price_file(folder, (since, 1000))) as exporter:
        await world.run(PLAIN)
        await exporter.exact()
        before = exporter.scrapes[-1]
        price_file(folder, (since, 3000))
        await exporter.daemon.reload()
        await world.run(PLAIN)
        await exporter.exact()
        after = exporter.scrapes[-1]
        tokens = before("agentos_llm_tokens_total", token_class="input")
        assert before("agentos_llm_cost_usd_total") == pytest.approx(tokens * PER_TOKEN, rel=1e-12)
        news = after("agentos_llm_tokens_total", token_class="input") - tokens
        spent = after("agentos_llm_cost_usd_total") - before("agentos_llm_cost_usd_total")
        assert spent == pytest.approx(news * 3 * PER_TOKEN, rel=1e-12)


async def test_what_of_a_price_file_is_passed_over_is_said_at_each_reading(world: World, folder: Path) -> None:
    path = folder / "prices.yml"
    prices = json.dumps({"prices": [{"match": ".", "input_mtok": 1, "output_mtok": 0, "mode": "chat"}]})
    path.write_text(prices)
    async with world.exporter(folder, prices=str(path)) as exporter:
        (said,) = exporter.logged("price_file")
        assert "passed over mode" in said["reason"]
        await exporter.daemon.reload()
        assert exporter.logged("price_file") == [said, {**said, "ts": exporter.logged("price_file")[1]["ts"]}]


async def test_details_of_runs_bring_the_classes_that_spans_lack(world: World, folder: Path) -> None:
    await world.drive(runs=9, kinds=KINDS)
    async with world.exporter(folder, {"it": {"enrich_runs": True}, "plain": {}}) as exporter:
        shown = await exporter.until(
            lambda shown: shown("agentos_llm_tokens_total", agentos="it", token_class="cache_read") > 0, within=300
        )
        shown = await exporter.forward(120)
        assert shown("agentos_runs_total", agentos="it") == 9
        assert shown("agentos_llm_tokens_total", agentos="it", token_class="reasoning") > 0
        assert not shown.present("agentos_llm_tokens_total", agentos="plain", token_class="reasoning")
        assert not shown.present("agentos_llm_tokens_total", agentos="plain", token_class="cache_read")
        # What is read from a cache or thought is a part of what the spans name as input and output.
        for mine, theirs in ((("input", "cache_read"), "input"), (("output", "reasoning"), "output")):
            model = {"model": "gpt-5.4"}
            split = sum(shown("agentos_llm_tokens_total", agentos="it", token_class=one, **model) for one in mine)
            assert split == shown("agentos_llm_tokens_total", agentos="plain", token_class=theirs, **model) > 0
        assert not exporter.daemon.shared.ledger.waiting("it")


async def test_a_budget_is_what_was_spent_in_its_period(world: World, folder: Path) -> None:
    since = datetime.now(UTC) - timedelta(days=30)
    budget = {"name": "team", "agentos": "it", "period": "day", "time_zone": "UTC", "limit_usd": 5}
    prices = price_file(folder, (since, 1000))
    async with world.exporter(folder, prices=prices, budgets=[budget]) as exporter:
        midnight = (datetime.fromtimestamp(world.clock.now(), UTC) + timedelta(days=1)).replace(
            hour=0, minute=0, second=0, microsecond=0
        )
        await exporter.forward(60)
        await world.run(PLAIN)
        await exporter.exact()
        shown = exporter.scrapes[-1]
        first = shown("agentos_llm_cost_usd_total")
        assert first > 0
        assert shown("agentos_budget_limit_usd", budget="team") == 5
        assert shown("agentos_budget_spent_usd", budget="team") == pytest.approx(first, rel=1e-9)
        assert shown("agentos_budget_reset_timestamp_seconds", budget="team") == midnight.timestamp()
        world.clock.forward(midnight.timestamp() - world.clock.now() + 60)
        shown = await exporter.forward(60)
        assert shown("agentos_budget_spent_usd", budget="team") == 0
        await world.run(PLAIN)
        await exporter.exact()
        await exporter.restart()
        shown = await exporter.scrape()
        second = shown("agentos_llm_cost_usd_total") - first
        assert second > 0
        assert shown("agentos_budget_spent_usd", budget="team") == pytest.approx(second, rel=1e-9)
