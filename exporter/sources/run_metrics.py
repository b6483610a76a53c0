"""The metrics of one run, as agno stores and shows them → `RunDetail`. All of it is limited in size."""

from __future__ import annotations

import itertools
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from exporter.core.model import MICROSECONDS
from exporter.core.span_names import provider_label
from exporter.counting.waiting import LONGEST_FIRST_TOKEN, ROLES, ModelUse, RunDetail
from exporter.sources.facts import clean_name, cost, tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST_USES: Final = 100


_MOST_METADATA: Final = 100
_LONGEST_TEXT: Final = 256


def run_detail(run_id: str, metrics: object, metadata: object = None, *, guardrail: str = "") -> RunDetail | None:
    """The detail of a run, from the JSON objects that agno stores.

    Args:
        run_id: The run.
        metrics: Its `metrics`.
        metadata: Its `metadata`.
        guardrail: The guardrail that blocked it.

    Returns:
        The detail; None if the objects tell nothing.

    """
    if not isinstance(metrics, dict) and not isinstance(metadata, dict) and not guardrail:
        return None
    texts = _texts(metadata) if isinstance(metadata, dict) else {}
    if not isinstance(metrics, dict):
        return RunDetail(run_id, guardrail=guardrail, metadata=texts)
    details = metrics.get("details")
    uses = [use for use in _listed(details) if use is not None] if isinstance(details, dict) else []
    if not uses and (whole := _use(metrics)) is not None:
        uses = [whole]  # agno before 2.5 does not tell models apart
    return RunDetail(run_id, _first_token(metrics.get("time_to_first_token")), tuple(uses), guardrail, texts)


def _texts(metadata: dict[str, Any]) -> dict[str, str]:
    """Short texts and numbers at the top of the metadata."""
    some = itertools.islice(metadata.items(), _MOST_METADATA)
    shown = {
        key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in some if _is_scalar(value)
    }
    return {key: text for key, text in shown.items() if len(key) <= _LONGEST_TEXT and len(text) <= _LONGEST_TEXT}


def _is_scalar(value: object) -> bool:
    return isinstance(value, (str, int, float))


def _listed(details: dict[str, Any]) -> Iterator[ModelUse | None]:
    """Every model of the run, whatever its part in it (`model`, `memory_model`, ...), the run's own first."""
    remaining = _MOST_USES
    for role in sorted(details, key=lambda role: (role != "model", role)):
        entries = details[role]
        for entry in entries if isinstance(entries, list) else ():
            if remaining and isinstance(entry, dict):
                remaining -= 1
                yield _use(entry, role_of(role))


def role_of(part: str) -> str:
    """The purpose of a model, by its key in the detail (`memory_model` → `memory`); '' for the run's own."""
    if part == "model":
        return ""
    role = part.removesuffix("_model")
    return role if role in ROLES else "other"


def _use(entry: dict[str, Any], role: str = "") -> ModelUse | None:
    """What an entry says; None for what cannot be."""
    names = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens")
    counts = [_count(entry.get(name)) for name in (*names, "total_tokens")]
    if any(count is None for count in counts) or not any(counts):
        return None
    prompt, completion, read, write, reasoning, total = (count or 0 for count in counts)
    return ModelUse(
        _text(entry.get("id")),
        provider_label(_text(entry.get("provider"))),
        prompt,
        completion,
        read,
        write,
        reasoning,
        total,
        _cost(entry.get("cost")),
        role,
    )


def _text(value: object) -> str:
    return clean_name(value) if isinstance(value, str) else ""


def _count(value: object) -> int | None:
    """A count of tokens: 0 if agno leaves it out, None if it is no count."""
    return 0 if value is None else tokens(value)


def _cost(value: object) -> Decimal | None:
    usd = cost(value)
    return None if usd is None else Decimal(repr(usd))


def _first_token(seconds: object) -> int | None:
    """Microseconds."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds <= LONGEST_FIRST_TOKEN:
        return None
    return round(seconds * MICROSECONDS)
