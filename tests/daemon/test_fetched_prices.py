"""Prices that are fetched while the daemon runs take effect, and their age shows."""

from exporter.config import Address, AgentOS, Config
from exporter.service.daemon import Daemon

AGE = ("agentos_exporter_price_data_timestamp_seconds", ())


async def test_fetched_prices_are_taken_over_before_a_publish(tmp_path, monkeypatch):
    daemon = Daemon(
        Config(
            agentos=(AgentOS("it", "http://127.0.0.1:9"),),
            state=tmp_path / "state.db",
            listen_address=Address("127.0.0.1", 0),
        )
    )
    await daemon.start()
    try:
        bundled = daemon.totals.value(*AGE)
        asked = []
        monkeypatch.setattr(daemon._pricer, "refresh", lambda: asked.append(1) or True)
        monkeypatch.setattr(daemon._pricer, "data_timestamp", lambda _now: bundled + 1)
        daemon._publisher._refreshed = float("-inf")
        await daemon._publisher.publish()
        assert asked
        assert daemon.totals.value(*AGE) == bundled + 1
    finally:
        await daemon.stop()
