"""Retries and fallbacks, told from the order of the LLM calls below one span. Pure: no clock, no state.

agno makes one LLM span of each attempt. A call that failed is followed by the same model again (a retry), or by a
fallback model of `FallbackConfig`. The spans do not say which it is, so their order must tell:

- The attempt after a failed call is the first one that starts when it has ended.
- A model is a fallback if its first call comes right after a failed call of another model. A model that was called
  before, such as one that writes memories beside the run, follows a failed call by chance.
- Calls of one model at the same time cannot be told apart. Nothing is said of them.

A reasoning model that fails, and whose agent goes on without it, looks like a fallback.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from exporter.core.model import Span


class Attempt(msgspec.Struct, frozen=True, array_like=True):
    """What followed a failed call: `model` once more, or `fallback` in its place ('' for a retry)."""

    agent: str
    provider: str
    model: str
    fallback: str = ""


class Call(NamedTuple):
    """An LLM span with the name of its agent."""

    span: Span
    agent: str

    @property
    def model(self) -> tuple[str, str]:
        """Provider and model."""
        return self.span.provider, self.span.model


def attempts(siblings: Iterable[Call]) -> list[Attempt]:
    """Retries and fallbacks among the LLM calls below one span, in any order."""
    calls = sorted(siblings, key=lambda call: (call.span.start, call.span.end, call.span.id))
    fallbacks = _fallbacks(calls)
    ended: dict[tuple[str, str], int] = {}
    found = []
    for place, call in enumerate(calls):
        alone = ended.get(call.model, call.span.start) <= call.span.start
        ended[call.model] = max(call.span.end, ended.get(call.model, call.span.end))
        if call.span.error_type is None or not alone:
            continue
        after = _after(call, itertools.islice(calls, place + 1, None), fallbacks)
        if after is not None:
            fallback = "" if after.model == call.model else after.span.model
            found.append(Attempt(call.agent, call.span.provider, call.span.model, fallback))
    return found


def _fallbacks(calls: Sequence[Call]) -> set[tuple[str, str]]:
    """Models whose first call comes right after a failed call of another model."""
    found: set[tuple[str, str]] = set()
    met: set[tuple[str, str]] = set()
    before: Call | None = None
    for call in calls:
        follows = before is not None and before.span.error_type is not None and before.span.end <= call.span.start
        if follows and call.model not in met:
            found.add(call.model)
        met.add(call.model)
        before = call
    return found


def _after(failed: Call, later: Iterable[Call], fallbacks: set[tuple[str, str]]) -> Call | None:
    """The attempt that follows; None where there is none, or where the calls do not tell."""
    for call in later:
        if call.model == failed.model:
            return call if call.span.start >= failed.span.end else None
        if call.model in fallbacks and call.span.start >= failed.span.end:
            return call
    return None
