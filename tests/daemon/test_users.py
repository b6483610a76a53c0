"""Labels of users, and budgets of a user, as a running daemon has them."""

from exporter.config import Address, AgentOS, Config, Web
from exporter.counting.budgets import Budget, Period
from exporter.counting.users import DIGITS, UserLabels
from exporter.service.daemon import running

ALICE = "alice@example.com"


async def test_the_daemon_uses_what_is_configured(tmp_path):
    user = Budget(name="b", period=Period.DAY, limit=1, user=ALICE)
    config = Config(
        agentos=(AgentOS("os", "http://127.0.0.1:1"),),
        state=tmp_path / "state.db",
        web=Web((Address("127.0.0.1", 0),)),
        user_labels=UserLabels.HASHED,
        budgets=(user,),
    )
    async with running(config) as daemon:
        cashier = daemon.pollers[0].intake._cashier
        assert len(cashier.user_label(ALICE)) == DIGITS
        assert cashier.budgets.all == (user,)
        assert daemon.shared.totals.value("agentos_budget_limit_usd", ("", "b", "day")) == 1
