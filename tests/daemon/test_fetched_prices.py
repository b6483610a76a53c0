"""Prices that are fetched while the daemon runs take effect, and their age shows."""

from exporter.config import Address, AgentOS, Config, Web
from exporter.service.daemon import running

AGE = ("agentos_exporter_price_data_timestamp_seconds", ())


async def test_fetched_prices_are_taken_over_before_a_publish(tmp_path, monkeypatch):
    config = Config(
        agentos=(AgentOS("it", "http://127.0.0.1:9"),),
        state=tmp_path / "state.db",
        web=Web((Address("127.0.0.1", 0),)),
    )
    async with running(config) as daemon:
        totals, publisher = daemon.shared.totals, daemon.site.publisher
        bundled = totals.value(*AGE)
        asked = []
        monkeypatch.setattr(daemon.prices.pricer, "refresh", lambda: asked.append(1) or True)
        monkeypatch.setattr(daemon.prices.pricer, "data_timestamp", lambda _now: bundled + 1)
        publisher._refreshed = float("-inf")
        await publisher.publish()
        assert asked
        assert totals.value(*AGE) == bundled + 1
