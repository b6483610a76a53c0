"""`agentos-exporter report` on the state of a daemon that runs: its totals are those of the counters."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path

import pytest

from exporter.cli import main as cli
from exporter.cli import report as command
from tests.harness.driven import World


async def test_a_report_adds_up_to_the_counters(
    world: World, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whatever it is asked for, exactly; and it reads a state that is in use."""
    monkeypatch.setattr(command.time, "time", world.clock.now)
    dimensions = {"user_group": "user"}
    await world.drive(runs=30)
    async with world.exporter(folder, labels={"user": "plain"}, dimensions=dimensions) as exporter:
        await exporter.exact()
        shown = exporter.scrapes[-1]
        after = (dt.datetime.fromtimestamp(world.clock.now(), dt.UTC) + dt.timedelta(days=1)).date()

        def total(*by: str) -> dict[str, str | int | None]:
            keys = [text for key in by for text in ("--by", key)]
            arguments = ["--config.file", str(folder / "exporter.yml"), "--to", str(after), "--output", "json", *keys]
            assert cli.main(["report", *arguments]) == 0
            return json.loads(capsys.readouterr().out)["total"]

        by_model, by_root = total("model"), total("day", "root")
        for figures in (by_model, by_root, total("agent"), total("agentos")):
            assert figures["calls"] == shown("agentos_llm_calls_total") > 0
            assert figures["call_errors"] == shown("agentos_llm_call_errors_total") > 0
            assert figures["tokens"] == shown("agentos_llm_tokens_total") > 0
            assert figures["output_tokens"] == shown("agentos_llm_tokens_total", token_class="output")
            assert float(Decimal(figures["cost_usd"])) == pytest.approx(shown("agentos_llm_cost_usd_total"), rel=1e-12)
        assert by_model["unpriced_tokens"] == shown("agentos_llm_unpriced_tokens_total")
        assert by_root["runs"] == shown("agentos_runs_total") > 0
        assert by_root["run_errors"] == shown("agentos_run_errors_total") > 0
        assert by_root["tool_calls"] == shown("agentos_tool_calls_total") > 0
        assert total("user")["tokens"] == shown("agentos_user_tokens_total") > 0
        assert total("user_group")["runs"] == shown("agentos_dimension_runs_total") > 0
