"""The detail of one run: GET /sessions/{session_id}/runs/{run_id} → `RunDetail`.

The route answers with the whole run, including prompts. Only its metrics are decoded, and the fields that tell whether
a guardrail blocked it. A run inside a workflow is mostly not stored by itself, but inside the workflow's run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec

from exporter.core.errors import BadAnswer
from exporter.sources.guardrails import FAILED, blocked_by
from exporter.sources.run_metrics import run_detail

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from exporter.counting.waiting import RunDetail
    from exporter.sources.api.http import Api

ENDPOINT: Final = "session_run"
_MOST_RUNS: Final = 1000
_NOTHING: Final = msgspec.Raw(b"null")


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


async def fetch_run(api: Api, session_id: str, run_id: str, db: str, *, wait: float) -> Mapping[str, RunDetail]:
    """The detail of a run, and of the runs inside it.

    Args:
        api: Sends the request.
        session_id: The session.
        run_id: The run.
        db: The database, '' if AgentOS does not name it.
        wait: Seconds.

    Returns:
        The details, by run id.

    Raises:
        UnknownRoute: The run is not there.
        SourceError: AgentOS does not answer.

    """
    path = f"/sessions/{quote(session_id, safe='')}/runs/{quote(run_id, safe='')}"
    answer = await api.get(path, {"db_id": db} if db else {}, endpoint=ENDPOINT, timeout=wait)
    return decode(answer.body)


def decode(body: bytes) -> dict[str, RunDetail]:
    """Details by run id. Raises BadAnswer."""
    try:
        outermost = _run.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadAnswer(f"{ENDPOINT}: the answer is not a run of AgentOS") from error
    details: dict[str, RunDetail] = {}
    for run in _runs(outermost):
        if isinstance(run.run_id, str) and run.run_id not in details:
            guardrail = blocked_by(run.run_id, run.content, run.events) if run.status == FAILED else ""
            detail = run_detail(run.run_id, run.metrics, run.metadata, guardrail=guardrail)
            if detail is not None:
                details[run.run_id] = detail
    return details


def _runs(run: _Run) -> Iterator[_Run]:
    stack, remaining = [run], _MOST_RUNS
    while stack and remaining:
        run = stack.pop()
        remaining -= 1
        yield run
        stack.extend(run.step_executor_runs or ())
        stack.extend(run.member_responses or ())
