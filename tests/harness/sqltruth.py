"""What the exporter ought to show where it reads agno's tables itself, counted independently of it.

As `truth.py`, of which it is the other half, this imports nothing of the exporter. On top of what AgentOS's HTTP API
can give, the tables tell the provider, cached and reasoning tokens, what a model says it cost, and the spans that
AgentOS never shows because the one above them is not written: after a crash, below a remote parent, or lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

from tests.harness import truth

CACHED_APART = frozenset({"anthropic", "awsbedrock", "azurefoundry", "vertexai"})
"""Providers whose prompt count leaves out what came from or went to the cache."""


class Row(truth.Row):
    """One span as agno stored it, with all that its attributes tell."""

    __slots__ = ()

    def _count(self, name: str) -> int:
        return int(self.attributes.get(f"llm.token_count.{name}") or 0)

    @property
    def provider(self) -> str:
        """Return the provider that the span names, without the kind of API; else what the model's name stands for."""
        told = str(self.attributes.get("llm.provider") or "")
        for suffix in (" Chat", " Responses"):
            told = told.removesuffix(suffix)
        return told.lower() or super().provider

    @property
    def tokens(self) -> Mapping[str, int]:
        """Return the tokens by class, each in one class only."""
        read, write = self._count("prompt_details.cache_read"), self._count("prompt_details.cache_write")
        reasoning, total = self._count("completion_details.reasoning"), self._count("total")
        fresh, output = self.input_tokens, self.output_tokens
        if self.provider not in CACHED_APART and read + write <= fresh:
            fresh -= read + write
        if self.provider == "xai":  # its output leaves reasoning out, its total does not
            output = max(output, total - self.input_tokens)
        if reasoning <= output:
            output -= reasoning
        return {"input": fresh, "cache_read": read, "cache_write": write, "output": output, "reasoning": reasoning}

    @property
    def cost(self) -> Decimal | None:
        """Return what the model says the call cost, in US dollars."""
        told = self.attributes.get("llm.cost.total")
        return None if told is None else Decimal(str(told))


def count(database: str | Sequence[str], agentos: str, *, own_prefix: str = "") -> truth.Truth:
    """Count everything in agno's tables; the parameters are those of `truth.count`.

    Spans below one that is not written count as if they stood at the top, and are marked; `hidden` of the answer names
    them. A trace without any span does not exist here.
    """
    counted = truth.count(database, agentos, own_prefix=own_prefix, span=Row, orphans=True)
    costs: dict[truth.Sample, Decimal] = {}
    for call in counted.calls:
        assert isinstance(call.row, Row)
        if (cost := call.row.cost) is not None:
            labels = {"agentos": agentos, "root": call.root, "agent": call.agent, "provider": call.row.provider}
            labels |= {"model": call.row.model, "token_class": "", "cost_source": "reported"}
            key = ("agentos_llm_cost_usd_total", frozenset(labels.items()))
            costs[key] = costs.get(key, Decimal(0)) + cost
    counted.totals |= {key: float(cost) for key, cost in costs.items()}
    return counted
