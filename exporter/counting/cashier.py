"""The cost of calls, and charging it to users, budgets and dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from exporter.core.times import day_of
from exporter.counting.budgets import Budgets
from exporter.counting.dimensions import Dimensions
from exporter.pricing.tokens import NO_CLASSES, Classes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from exporter.core.model import Span
    from exporter.counting.delta import CallTally, Delta
    from exporter.metrics.increments import Labels
    from exporter.pricing.prices import Priced, Pricer

_REPORTED: Final = "reported"
_ESTIMATED: Final = "estimated"


class Charged(NamedTuple):
    """What a call took: tokens of all classes, and its cost in 10**-18 USD; None if unknown."""

    tokens: int | None
    cost: int | None


class Cashier:
    """Prices calls and charges them. Changes take effect from the next batch on.

    Attributes:
        user_label: Makes a label of the id of a user. None: there are no metrics by user.
        budgets: The budgets in force.
        dimensions: The dimensions by which runs and calls are counted as well.

    """

    def __init__(
        self,
        pricer: Pricer | None = None,
        *,
        user_label: Callable[[str], str] | None = None,
        budgets: Budgets | None = None,
        dimensions: Dimensions | None = None,
    ) -> None:
        """Price calls, and charge them to users, budgets and dimensions.

        Args:
            pricer: Prices calls; without it nothing has a cost.
            user_label: Makes a label of the id of a user; without it users are not counted.
            budgets: The budgets in force.
            dimensions: The dimensions in force.

        """
        self.user_label = user_label
        self.budgets = budgets if budgets is not None else Budgets()
        self.dimensions = dimensions if dimensions is not None else Dimensions()
        self._pricer = pricer

    @property
    def charges(self) -> bool:
        """Whether it matters who made a call."""
        return self.user_label is not None or bool(self.budgets)

    def price(self, span: Span) -> Priced | None:
        """The price of an LLM span; None without a pricer."""
        if self._pricer is None:
            return None
        return self._pricer.price(
            span.provider,
            span.model,
            span.usage,
            at=span.start,
            reported=span.reported_cost,
            exact_classes=span.usage.detailed,
            model_class=span.model_class,
        )

    def one_price(self, spans: Sequence[Span], cached: int) -> bool:
        """Whether calls of one model share a price, whichever way the cached tokens are divided among them."""
        if self._pricer is None:
            return True
        first, calls = spans[0], [(span.start, span.usage.prompt or 0) for span in spans]
        return self._pricer.one_price(first.provider, first.model, calls, cached=cached, model_class=first.model_class)

    def charge(self, delta: Delta, tally: CallTally, span: Span, user: str = "", *, estimated: bool = False) -> Charged:
        """Add tokens and cost of a call to its tally, its user and its budgets.

        Args:
            delta: What the transaction adds up to.
            tally: The tally of calls with the labels of this one.
            span: The call.
            user: The id of whom it is charged to, empty where unknown.
            estimated: Whether its tokens are known of several calls together alone.

        Returns:
            What the call took.

        """
        usage = span.usage
        priced = self.price(span) if usage.reported or span.reported_cost is not None else None
        if estimated and priced is not None and priced.usd is not None:
            priced = priced._replace(cost_source=_ESTIMATED)
        if self.charges:
            self._put_on_accounts(delta, tally.labels, span, user, priced)
        if priced is None:
            plain = Classes(usage.prompt, None, None, usage.completion, None)
            tally.add_tokens(plain)
            return Charged(_tokens(plain), None)
        tally.add_tokens(priced.classes)
        if priced.usd is None:
            tally.add_unpriced(priced.classes)
            return Charged(_tokens(priced.classes), None)
        # Free classes show 0, which is known. A reported total has no classes.
        tally.add_cost(
            NO_CLASSES if priced.cost_source == _REPORTED else priced.classes, priced.usd, priced.cost_source
        )
        cost = sum(priced.usd.values())
        if span.error_type is not None:
            tally.add_wasted_cost(cost)
        if priced.saved is not None:
            tally.add_savings(priced.saved)
        return Charged(_tokens(priced.classes), cost)

    def _put_on_accounts(self, delta: Delta, call: Labels, span: Span, user: str, priced: Priced | None) -> None:
        """Put a call on the account of its user and of its budgets; `call` are the labels of its tally."""
        usage = span.usage
        cost = priced.total if priced is not None else None
        if self.user_label is not None:
            labels, day = (delta.agentos, self.user_label(user)), day_of(span.start)
            tokens = (usage.prompt, usage.completion) if priced is None else priced.classes
            if usage.reported:
                delta.add_on(day, "agentos_user_tokens_total", labels, sum(filter(None, tokens)))
            if cost is not None:
                delta.add_on(day, "agentos_user_cost_usd_total", labels, cost)
        if cost:
            agentos, root, agent, *_ = call
            for charge in self.budgets.charges((agentos, root, agent), span.model, user, span.start):
                delta.spending[charge] = delta.spending.get(charge, 0) + cost


def _tokens(classes: Classes) -> int | None:
    return None if classes == NO_CLASSES else classes.total
