"""Budgets in force: how much of each is spent, since when that is known, and their gauges."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Final

from exporter.core.errors import StateError
from exporter.core.model import MICROSECONDS
from exporter.counting.budgets import KEPT, Budget, Budgets, known_since
from exporter.counting.dimensions import Dimensions
from exporter.counting.users import UserLabels, hashed, labeller

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exporter.bookkeeping.shared import Shared
    from exporter.counting.cashier import Cashier
    from exporter.counting.dimensions import Dimension
    from exporter.metrics.increments import Labels

LIMIT: Final = "agentos_budget_limit_usd"
SPENT: Final = "agentos_budget_spent_usd"
RESET: Final = "agentos_budget_reset_timestamp_seconds"
COVERED: Final = "agentos_budget_covered_since_timestamp_seconds"
OF_VALUE: Final = "agentos_budget_value_spent_usd"
VALUES: Final = "agentos_budget_values"
_GAUGES: Final = (LIMIT, SPENT, RESET, COVERED, VALUES)
TOP: Final = 20
"""Values of a budget that is shown for each value, those that have spent most."""
MOST: Final = 500
"""Values that are shown at most, those included that have spent 80 %."""
_DAY: Final = 86_400 * MICROSECONDS


class Treasury:
    """All methods block and raise StateError; they may be called from any thread."""

    def __init__(
        self, shared: Shared, cashier: Cashier, *, user_labels: UserLabels, dimensions: Sequence[Dimension] = ()
    ) -> None:
        """Keep the budgets; `configure` hands them to the cashier.

        Args:
            shared: What all instances share.
            cashier: Charges calls to budgets.
            user_labels: How ids of users are shown.
            dimensions: The configured dimensions.

        """
        self._ledger = shared.ledger
        self._totals = shared.totals
        self._clock = shared.clock
        self._guard = threading.Lock()
        self._known: dict[str, tuple[str, int]] = {}
        """by name of a budget: its definition, and since when its spending is known"""
        self._unread: set[str] = set()
        """names of AgentOS instances that were never read"""
        self._lookback = 0
        self._shown: set[Labels] = set()
        self._values: set[Labels] = set()
        self._pruned = 0
        self._cashier = cashier
        self.divide(user_labels, dimensions)

    def divide(self, mode: UserLabels, dimensions: Sequence[Dimension]) -> None:
        """Set how users and dimensions are counted from now on. Raises StateError.

        No batch may be committed meanwhile.
        """
        hashes = mode is UserLabels.HASHED or any(dimension.hashed for dimension in dimensions)
        key = self._ledger.user_key() if hashes else b""
        self._cashier.user_label = labeller(mode, key)
        self._cashier.dimensions = Dimensions(dimensions, key=key)

    def configure(
        self,
        budgets: Sequence[Budget],
        agentos: Sequence[str],
        *,
        lookback: int,
        dimensions: Sequence[Dimension] = (),
    ) -> list[str]:
        """Put these budgets in force and show them; no batch may be committed meanwhile.

        Args:
            budgets: The budgets.
            agentos: The names of all instances.
            lookback: Microseconds of history that an instance which was never read still shows.
            dimensions: What budgets are for each value of.

        Returns:
            The names of budgets that start anew because their definition changed.

        """
        with self._guard:
            matchers = Budgets(budgets)  # a refused time zone changes nothing
            key = self._ledger.user_key() if any(budget.user for budget in budgets) else b""
            marks = {dimension.name: dimension.mark for dimension in dimensions}
            read = {name: bool(self._ledger.cursors(name)) for name in agentos} if budgets else {}
            before = self._ledger.budgets()
            now = self._clock.now_us()
            stored: dict[str, tuple[str, int]] = {}
            for budget in budgets:
                definition = budget.definition(hashed(budget.user, key), marks.get(budget.per, ""))
                old = before.get(budget.name)
                reach = {name: was for name, was in read.items() if budget.agentos in {"", name}}
                since = known_since(
                    known=old[1] if old is not None and old[0] == definition else None,
                    agentos=reach,
                    now=now,
                    lookback=lookback,
                )
                stored[budget.name] = (definition, since)
            if stored or before:  # else nothing is charged, and a start writes nothing
                self._ledger.keep_budgets(stored)
            self._known, self._lookback = stored, lookback
            self._unread = {name for name, was in read.items() if not was}
            self._cashier.budgets = matchers
        with contextlib.suppress(StateError):  # the budgets are in force; the publisher shows them later
            self.refresh()
        return [name for name, (definition, _) in stored.items() if name in before and before[name][0] != definition]

    def refresh(self) -> None:
        """Set the gauges as of now."""
        with self._guard:
            budgets, now = self._cashier.budgets, self._clock.now_us()
            if not budgets and not self._shown:
                return
            self._wait_for_unread(now)
            bounds = {budget.name: budgets.calendar(budget).bounds(now) for budget in budgets.all}
            spent = self._ledger.spent(min((start for start, _ in bounds.values()), default=now))
            shown: set[Labels] = set()
            of_values: dict[Labels, float] = {}
            for budget in budgets.all:
                start, end = bounds[budget.name]
                labels: Labels = (budget.agentos, budget.name, budget.period.value)
                total_spent = None if budget.per else spent.get((budget.name, start), 0)
                number = self._ledger.allowed(budget.name, start) if budget.per else None
                values = (budget.limit, total_spent, end, max(start, self._known[budget.name][1]), number)
                for metric, value in zip(_GAUGES, values, strict=True):
                    self._totals.gauge(metric, labels, value)
                shown.add(labels)
                if budget.per:
                    most = self._ledger.allowances(
                        budget.name, start, most=MOST, at_least=budget.limit * 4 // 5, top=TOP
                    )
                    of_values |= {(*labels, value): amount for value, amount in most.items()}
            for labels in self._values - of_values.keys():
                self._totals.gauge(OF_VALUE, labels, None)
            for labels, amount in of_values.items():
                self._totals.gauge(OF_VALUE, labels, amount)
            self._values = set(of_values)
            for labels in self._shown - shown:
                for metric in _GAUGES:
                    self._totals.gauge(metric, labels, None)
            self._shown = shown
            if now - self._pruned >= _DAY:
                self._ledger.prune_spending(now - KEPT)
                self._pruned = now

    def _wait_for_unread(self, now: int) -> None:
        """Until an AgentOS is first reached, the time since which its spending is known moves with the clock."""
        if not self._unread:
            return
        reached = {name for name in self._unread if self._ledger.cursors(name)}
        waiting = self._unread - reached
        for budget in self._cashier.budgets.all:
            definition, since = self._known[budget.name]
            if budget.agentos in waiting or (waiting and not budget.agentos):
                self._known[budget.name] = (definition, max(since, now - self._lookback))
        if reached:
            self._ledger.keep_budgets(self._known)
            self._unread = waiting
