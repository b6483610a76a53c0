"""Retries and fallbacks, derived from the order of the LLM calls below one span. Pure: no clock, no state.

agno makes one LLM span for each attempt. After a failed call comes the same model again (a retry), or a fallback model
of `FallbackConfig`. Spans do not say which of the two a call is, so their order decides:

- A fallback appears for the first time right after the failed call, with no other call ending in between. From then on
  it is the fallback of that model. A model that was called before, such as one that writes memories, is no fallback.
- A model that is called again was not replaced, unless its fallback failed too: then the whole run began again.
- Any other next call of the failed model is a retry. Calls of one model at the same time cannot be separated, so they
  count as neither.

A model beside the run looks like a fallback if it is called for the first time right after another model failed for
good. An agent that begins again after its fallback failed shows no retry.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

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

    @property
    def failed(self) -> bool:
        """Whether it ended in an error."""
        return self.span.error_type is not None


def attempts(siblings: Iterable[Call]) -> list[Attempt]:
    """Retries and fallbacks among the LLM calls below one span, in any order."""
    calls = sorted(siblings, key=lambda call: (call.span.start, call.span.end, call.span.id))
    next_calls = _next_calls(calls)
    fallbacks = _fallbacks(calls, next_calls)
    in_place = set(fallbacks.values())
    noted = []
    for place, call in enumerate(calls):
        following = fallbacks.get(place)
        if following is not None:
            noted.append(Attempt(call.agent, *call.model, calls[following].span.model))
        elif call.failed and (retry := next_calls.get(place)) is not None and retry not in in_place:
            noted.append(Attempt(call.agent, *call.model))
    return noted


def _next_calls(calls: Sequence[Call]) -> dict[int, int]:
    """Place of a call → place of the next call of its model, unless one of the two overlaps with others of it."""
    retries: dict[int, int] = {}
    latest: dict[tuple[str, str], int | None] = {}
    ended: dict[tuple[str, str], int] = {}
    for place, call in enumerate(calls):
        alone = ended.get(call.model, call.span.start) <= call.span.start
        before = latest.get(call.model)
        if alone and before is not None:
            retries[before] = place
        latest[call.model] = place if alone else None
        ended[call.model] = max(call.span.end, ended.get(call.model, call.span.end))
    return retries


def _fallbacks(calls: Sequence[Call], next_calls: Mapping[int, int]) -> dict[int, int]:
    """Place of a failed call → place of the call of its fallback."""
    before = _before(calls)
    fallbacks: dict[int, int] = {}
    pairs: set[tuple[tuple[str, str], tuple[str, str]]] = set()
    met: set[tuple[str, str]] = set()
    for place, call in enumerate(calls):
        failed = before[place]
        if failed is not None and failed not in fallbacks and calls[failed].failed:
            pair = calls[failed].model, call.model
            if call.model not in met and not _retried(calls, before, next_calls.get(failed), call.model):
                pairs.add(pair)
            if pair in pairs:
                fallbacks[failed] = place
        met.add(call.model)
    return fallbacks


def _retried(
    calls: Sequence[Call], before: Sequence[int | None], next_calls: int | None, fallback: tuple[str, str]
) -> bool:
    """Whether the next call, at `again`, of a failed model is a retry, although another model began before it.

    After a failure of that other model it is no retry: the run began again after its fallback failed.
    """
    if next_calls is None:
        return False
    last = before[next_calls]
    return last is None or not (calls[last].failed and calls[last].model == fallback)


def _before(calls: Sequence[Call]) -> list[int | None]:
    """For each call the place of the one that ended last before it began."""
    before: list[int | None] = []
    running: list[tuple[int, int]] = []
    last: int | None = None
    for place, call in enumerate(calls):
        while running and running[0][0] <= call.span.start:
            last = heapq.heappop(running)[1]
        before.append(last)
        heapq.heappush(running, (call.span.end, place))
    return before
