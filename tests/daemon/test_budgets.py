"""Budgets of a running daemon: its configuration read anew."""

import asyncio
import os
import signal

import pytest

from exporter import config
from exporter.bookkeeping.treasury import COVERED, LIMIT, RESET, SPENT
from exporter.pricing.money import USD
from exporter.service import daemon as service
from tests.harness.inprocess import Exporter

FILE = """\
state: {state}
zero_hold: {hold}
agentos: [{{name: os, url: "http://127.0.0.1:1"}}]
budgets: [{budgets}]
{more}
"""
TEAM = "{{name: team, period: month, limit_usd: {limit}}}"


@pytest.fixture
def write(tmp_path):
    path = tmp_path / "config.yml"

    def write(*limits, hold="0s", more=""):
        budgets = ", ".join(TEAM.format(limit=limit) if place == 0 else limit for place, limit in enumerate(limits))
        path.write_text(FILE.format(state=tmp_path / "state.db", hold=hold, budgets=budgets, more=more))
        return path

    return write


def configured(path):
    exporter = Exporter({"os": "http://127.0.0.1:1"}, None)
    exporter.config = config.load({"config_file": str(path), "listen_address": "127.0.0.1:0"}, {})
    exporter.load = lambda: config.load(
        {"config_file": str(path), "listen_address": "127.0.0.1:0"}, {}, check_prices=False
    )
    return exporter


async def test_reload(write):
    path = write(5)
    async with configured(path) as exporter:
        daemon = exporter.daemon

        def limit(name="team"):
            return daemon.shared.totals.value(LIMIT, ("", name, "month"))

        assert limit() == 5 * USD
        shown = await exporter.until(lambda shown: shown(LIMIT, budget="team") == 5, what="the limit")
        assert shown(SPENT, budget="team") == 0
        assert shown(RESET, budget="team") > shown(COVERED, budget="team")

        write(7, TEAM.format(limit=1).replace("team", "second"))
        await daemon.reload()
        assert (limit(), limit("second")) == (7 * USD, USD)
        assert exporter.logged("reload")[-1]["changed"] == "budgets"
        assert exporter.logged("reload", level="warning") == []

        write("free")
        await daemon.reload()
        assert limit() == 7 * USD
        said = next(line for line in exporter.logged("reload") if "problems" in line)
        assert said["reason"] == "the configuration is refused, the old one holds"
        assert "budgets[0].limit_usd: must be an amount" in str(said["problems"])

        write(9, hold="9s", more="labels: {user: plain}")
        await daemon.reload()
        assert (limit(), limit("second")) == (9 * USD, None)
        assert exporter.logged("reload")[-1]["changed"] == "zero_hold, labels.user, budgets"


async def test_reload_of_prices(write, tmp_path):
    path = write(5)
    reloaded = "agentos_exporter_price_file_last_reload_successful"
    async with configured(path) as exporter:
        daemon = exporter.daemon
        assert daemon.shared.totals.value(reloaded, ()) is None
        (tmp_path / "prices.yml").write_text("prices: [{model: m, input_mtok: 1, output_mtok: 1}]")
        write(5, more="prices: prices.yml")
        await daemon.reload()
        assert daemon.shared.totals.value(reloaded, ()) == 1
        (tmp_path / "prices.yml").write_text("prices: [{model: m, input_mtok: -1, output_mtok: 1}]")
        write(6, more="prices: prices.yml")
        await daemon.reload()
        assert daemon.shared.totals.value(reloaded, ()) == 0
        assert daemon.shared.totals.value(LIMIT, ("", "team", "month")) == 5 * USD
        write(6)
        await daemon.reload()
        assert daemon.shared.totals.value(reloaded, ()) is None
        assert daemon.shared.totals.value(LIMIT, ("", "team", "month")) == 6 * USD


async def test_sighup_while_it_starts_is_not_lost(write):
    loaded = configured(write(5))
    reloads = []

    def load():
        reloads.append(loaded.load())
        return reloads[-1]

    run = asyncio.create_task(service.run(loaded.config, load))
    await asyncio.sleep(0)  # the signal handlers are there
    write(8)
    os.kill(os.getpid(), signal.SIGHUP)
    async with asyncio.timeout(30):
        while not reloads:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)
        await run
    assert reloads[-1].budgets[0].limit == 8 * USD


async def test_reload_without_a_file(tmp_path):
    exporter = Exporter({"os": "http://127.0.0.1:1"}, None)
    async with exporter:
        await exporter.daemon.reload()
    assert "there is no file to read anew" in exporter.log
