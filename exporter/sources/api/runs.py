"""The detail of one run: GET /sessions/{session_id}/runs/{run_id} → `RunDetail`.

The route answers with the whole run, prompts and all; only its metrics are decoded, and what tells that a guardrail
blocked it. A run inside a workflow is mostly not stored by itself, but stands in the workflow's run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec

from exporter.core.errors import BadAnswer
from exporter.metrics.catalog import GUARDRAILS, OTHER
from exporter.sources.run_metrics import run_detail

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from exporter.counting.waiting import RunDetail
    from exporter.sources.api.http import Api

ENDPOINT: Final = "session_run"
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
    metadata: Any = None
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
        if isinstance(one.run_id, str) and one.run_id not in found:
            detail = run_detail(one.run_id, one.metrics, one.metadata, guardrail=_guardrail(one))
            if detail is not None:
                found[one.run_id] = detail
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
