"""Calls that wait for details when a daemon starts without them."""

import time

from exporter.ledger.store import Ledger
from exporter.service import fleet
from tests.harness.details import COST, TOKENS, Home, call, run_of
from tests.harness.inprocess import Exporter


async def test_what_waited_for_an_agentos_that_is_gone_goes_out(tmp_path, monkeypatch):
    monkeypatch.setattr(fleet, "EXPIRE_AFTER", 0.0)
    ledger = Ledger(tmp_path / "state.db")
    home = Home()
    home.ledger = ledger
    home.open()
    home.read(run_of(1, call(100, 10)))
    ledger.close()
    async with Exporter({"it": "http://127.0.0.1:9"}, tmp_path / "state.db") as exporter:
        shown = await exporter.until(lambda shown: shown(TOKENS, agentos="os") == 110, what="its tokens")
        assert shown(COST, agentos="os", cost_source="estimated") > 0
        assert exporter.daemon.shared.ledger.waiting("os") == []


async def test_enrichment_that_was_switched_off_lets_go_what_waited(tmp_path):
    ledger = Ledger(tmp_path / "state.db")
    home = Home()
    home.ledger = ledger
    home.now = time.time()
    home.open()
    home.read(run_of(1, call(100, 10)))
    ledger.close()
    async with Exporter({"os": "http://127.0.0.1:9"}, tmp_path / "state.db") as exporter:
        # AgentOS is out of reach: no poll will ever do it.
        await exporter.until(lambda shown: shown(TOKENS, agentos="os") == 110, deadline=20, what="its tokens")
