"""The detail of one run: GET /sessions/{session_id}/runs/{run_id} → `RunDetail`.

The route answers with the whole run, prompts and all; only its metrics are decoded, and what tells that a guardrail
blocked it. A run inside a workflow is mostly not stored by itself, but stands in the workflow's run.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec

from exporter.core.errors import BadAnswer
from exporter.core.model import MICROSECONDS, provider_label
from exporter.counting.waiting import LONGEST_FIRST_TOKEN, ModelUse, RunDetail
from exporter.metrics.catalog import GUARDRAILS, OTHER
from exporter.sources.facts import clean_name, cost, tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from exporter.sources.api.http import Api

ENDPOINT: Final = "session_run"
_MOST_USES: Final = 100
_MOST_RUNS: Final = 1000


_NOTHING: Final = msgspec.Raw(b"null")
_FAILED: Final = "ERROR"
_CHECKS: Final = frozenset({"input_check_error", "output_check_error"})
_MESSAGES: Final = {
    msgspec.json.encode(message): guardrail
    for message, guardrail in {
        "Potential jailbreaking or prompt injection detected.": "prompt_injection",
        "Potential PII detected in input": "pii_detected",
        "OpenAI moderation violation detected.": "input_not_allowed",
    }.items()
}
"""What agno's own guardrails leave as the content, as JSON, of a run that does not stream"""


class _Event(msgspec.Struct, gc=False):
    run_id: Any = None
    error_type: Any = None
    error_id: Any = None


class _Run(msgspec.Struct, gc=False):
    run_id: Any = None
    metrics: Any = None
    status: Any = None
    content: msgspec.Raw = _NOTHING
    events: msgspec.Raw = _NOTHING
    step_executor_runs: list[_Run] | None = None
    member_responses: list[_Run] | None = None


_run = msgspec.json.Decoder(_Run)
_events = msgspec.json.Decoder(list[_Event] | None)


async def fetch_run(api: Api, session_id: str, run_id: str, db: str, *, wait: float) -> Mapping[str, RunDetail]:
    """The detail of a run and of the runs inside it, by run id.

    `wait` is in seconds. Raises SourceError; UnknownRoute if the run is not there.
    """
    path = f"/sessions/{quote(session_id, safe='')}/runs/{quote(run_id, safe='')}"
    answer = await api.get(path, {"db_id": db} if db else {}, endpoint=ENDPOINT, timeout=wait)
    return decode(answer.body)


def decode(body: bytes) -> dict[str, RunDetail]:
    """Details by run id. Raises BadAnswer."""
    try:
        run = _run.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadAnswer(f"{ENDPOINT}: the answer is not a run of AgentOS") from error
    found: dict[str, RunDetail] = {}
    for one in _runs(run):
        if isinstance(one.run_id, str) and isinstance(one.metrics, dict) and one.run_id not in found:
            found[one.run_id] = _detail(one.run_id, one.metrics, _guardrail(one))
    return found


def _runs(run: _Run) -> Iterator[_Run]:
    stack, left = [run], _MOST_RUNS
    while stack and left:
        one = stack.pop()
        left -= 1
        yield one
        stack.extend(one.step_executor_runs or ())
        stack.extend(one.member_responses or ())


def _guardrail(run: _Run) -> str:
    """What blocked a run, '' where nothing did or nothing tells.

    The event of its error names the check. A run of an agent that does not stream has no events: there the content may
    be the words of one of agno's own guardrails.
    """
    if run.status != _FAILED:
        return ""
    try:
        events = _events.decode(run.events) or []
    except (msgspec.DecodeError, RecursionError):
        events = []
    for event in events:
        # Those of members and steps may be among them.
        if event.run_id == run.run_id and isinstance(event.error_type, str) and event.error_type in _CHECKS:
            return event.error_id if event.error_id in GUARDRAILS else OTHER
    return _MESSAGES.get(bytes(run.content), "")


def _detail(run_id: str, metrics: dict[str, Any], guardrail: str) -> RunDetail:
    details = metrics.get("details")
    uses = [use for use in _listed(details) if use is not None] if isinstance(details, dict) else []
    if not uses and (whole := _use(metrics)) is not None:
        uses = [whole]  # agno before 2.5 does not tell models apart
    return RunDetail(run_id, _first_token(metrics.get("time_to_first_token")), tuple(uses), guardrail)


def _listed(details: dict[str, Any]) -> Iterator[ModelUse | None]:
    """Every model of the run, whatever its part in it (`model`, `memory_model`, ...), the run's own first."""
    left = _MOST_USES
    for part in sorted(details, key=lambda part: (part != "model", part)):
        entries = details[part]
        for entry in entries if isinstance(entries, list) else ():
            if left and isinstance(entry, dict):
                left -= 1
                yield _use(entry)


def _use(entry: dict[str, Any]) -> ModelUse | None:
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
    )


def _text(value: object) -> str:
    return clean_name(value) if isinstance(value, str) else ""


def _count(value: object) -> int | None:
    """A count of tokens: 0 where agno leaves it out, None where it is no count."""
    return 0 if value is None else tokens(value)


def _cost(value: object) -> Decimal | None:
    usd = cost(value)
    return None if usd is None else Decimal(repr(usd))


def _first_token(seconds: object) -> int | None:
    """Microseconds."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds <= LONGEST_FIRST_TOKEN:
        return None
    return round(seconds * MICROSECONDS)
