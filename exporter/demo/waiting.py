"""The demo's approvals, schedules, jobs, evaluations, contents and memories.

agno itself makes approvals, runs of schedules and jobs. Evaluations, contents and memories are written to the database
as agno would write them. In each part something fails now and then, so that boards and alerts have something to show.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterable
from random import Random
from typing import Any, Final

from agno.approval import approval
from agno.client import AgentOSClient
from agno.db.schemas import UserMemory
from agno.db.schemas.evals import EvalRunRecord, EvalType
from agno.db.schemas.jobs import QueuedJob
from agno.db.schemas.knowledge import KnowledgeRow
from agno.db.sqlite import SqliteDb
from agno.job_queue.config import QueueConfig
from agno.job_queue.store import InMemoryQueueStore
from agno.scheduler import ScheduleExecutor, SchedulePoller
from agno.tools import tool

from exporter.demo.traffic import USERS

_CHANCE: Final = Random()
_PENDING: Final = 3
"""Approvals that always wait."""
_DECISIONS: Final = ("approved", "approved", "rejected", "approved", "expired")
_EVERY: Final = 20
"""Seconds from the end of a schedule's run to its next one."""
_SCHEDULES: Final = (
    ("Morning Digest", "translator", "Translate the digest of today into German."),
    ("Archive Summary", "summarizer", "Summarize the whole archive."),
    ("Stock Check", "triage", "Which shelves are empty?"),
    ("Old Newsletter", "assistant", "Draft the newsletter."),
)
"""Name, agent and prompt. The second fails, the third is missed, the last is disabled."""
_MISSED: Final = "Stock Check"
_DISABLED: Final = "Old Newsletter"
_JOBS: Final = (
    ("summarizer", "Summarize call {n}."),
    ("data-analyst", "Revenue of week {n}?"),
    ("summarizer", "Summarize the whole archive of {n}."),
    ("translator", "Translate article {n} into German."),
)
_DROP: Final = (120.0, 40.0)
"""Seconds of a cycle, and of these at its end those in which evaluations score worse."""
_CONTENTS: Final = ("completed", "completed", "completed", "failed", "partial", "processing")
_MOST_MEMORIES: Final = 500


@tool(requires_confirmation=True)
@approval
async def pay_out(text: str) -> str:
    """Pay an invoice, once a person has approved it."""
    return f"Paid: {text}"


def queue() -> QueueConfig:
    """A queue that runs one job at a time, so that others wait."""
    return QueueConfig(durable=True, db=InMemoryQueueStore(), max_concurrency=1)


async def keep_up(url: str, db: SqliteDb, jobs: QueueConfig) -> None:
    """Make approvals, schedules and the like wait, end and fail, until cancelled."""
    client = AgentOSClient(url, timeout=120)
    executor = ScheduleExecutor(url, internal_service_token="demo", poll_interval=1)  # noqa: S106 - nobody asks for it
    scheduler = SchedulePoller(db, executor, poll_interval=1)
    _make(db)
    await _strand(jobs)
    decisions, numbers = itertools.cycle(_DECISIONS), itertools.count()
    await scheduler.start()
    try:
        async with asyncio.TaskGroup() as tasks:
            for seconds, step in (
                (4.0, lambda: _approve(client, db, decisions)),
                (2.0, lambda: _arm(db)),
                (12.0, lambda: _submit(client)),
                (5.0, lambda: _evaluate(db, next(numbers))),
                (10.0, lambda: _learn(db, next(numbers))),
            ):
                tasks.create_task(_repeat(seconds, step))
    finally:
        await scheduler.stop()


async def _repeat(seconds: float, step: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await step()
        except Exception as error:  # noqa: BLE001 - the next time it may work
            print(f"{type(error).__name__}: {error}", flush=True)
        await asyncio.sleep(seconds)


def _make(db: SqliteDb) -> None:
    """Make the schedules and the first contents, unless an earlier demo has."""
    now = int(time.time())
    for name, agent, prompt in _SCHEDULES:
        if db.get_schedule(name) is not None:
            continue
        schedule: dict[str, Any] = {
            "id": name,
            "name": name,
            "method": "POST",
            "endpoint": f"/agents/{agent}/runs",
            "payload": {"message": prompt},
            # Without croniter agno runs schedules only on demand: `_arm` sets the time.
            "cron_expr": "",
            "timezone": "UTC",
            "timeout_seconds": 60,
            "max_retries": 0,
            "retry_delay_seconds": 1,
            "enabled": name != _DISABLED,
            "next_run_at": now,
            "created_at": now,
        }
        if name == _MISSED:
            # A scheduler that no longer runs holds it, and its clock was days ahead.
            schedule |= {"next_run_at": now - 900, "locked_by": "gone", "locked_at": now + 7 * 86400}
        db.create_schedule(schedule)
    for number, status in enumerate(_CONTENTS):
        _store(db, f"page-{number}", status)


async def _strand(jobs: QueueConfig) -> None:
    """Queue a job for a deployment that no longer runs."""
    job = QueuedJob("stranded", "agent", "data-analyst", "stranded", deployment_id="gone")
    store: InMemoryQueueStore = jobs.db  # type: ignore[assignment]
    await store.enqueue_job(job.to_dict())


async def _approve(client: AgentOSClient, db: SqliteDb, decisions: Iterable[str]) -> None:
    """Ask for a payment, and decide on the oldest ones of those that wait."""
    number = _CHANCE.randrange(1000, 9999)
    await client.run_agent("payouts", f"Pay invoice {number}.", session_id=f"payouts-{number}", user_id=USERS[0])
    pending, _ = db.get_approvals(status="pending", limit=100)
    oldest = sorted(pending, key=lambda row: row["created_at"])
    for row, decision in zip(oldest[:-_PENDING], decisions, strict=False):
        db.update_approval(row["id"], status=decision, resolved_at=int(time.time()), resolved_by="manager")
        if decision != "expired":
            await client.continue_agent_run(
                "payouts", row["run_id"], [], session_id=row["session_id"], user_id=row["user_id"]
            )


async def _arm(db: SqliteDb) -> None:
    """Set the next run of schedules whose run has ended."""
    for name, _, _ in _SCHEDULES:
        schedule = db.get_schedule(name)
        if schedule is not None and schedule["next_run_at"] is None:
            db.update_schedule(name, next_run_at=int(time.time()) + _EVERY)


async def _submit(client: AgentOSClient) -> None:
    """Submit some runs as jobs of the queue, and cancel the last of them."""
    for agent, prompt in _JOBS:
        number = _CHANCE.randrange(1000, 9999)
        job = await client.run_agent(
            agent, prompt.format(n=number), session_id=f"job-{number}", user_id=USERS[1], background="true"
        )
    if job.run_id is not None:
        await client.cancel_agent_run(agent, job.run_id)


async def _evaluate(db: SqliteDb, number: int) -> None:
    """Evaluate an answer, its tone, the tools that it took, and how long it took."""
    cycle, bad = _DROP
    worse = time.monotonic() % cycle > cycle - bad
    score = _CHANCE.gauss(5.0 if worse else 8.5, 0.5)
    for kind, name, agent, component, data in (
        (EvalType.ACCURACY, "Known answers", "assistant", "Assistant", {"avg_score": round(min(10.0, score), 1)}),
        (EvalType.AGENT_AS_JUDGE, "Tone", "assistant", "Assistant", {"pass_rate": 60.0 if worse else 100.0}),
        (
            EvalType.RELIABILITY,
            "Right tools",
            "order-desk",
            "Order Desk",
            {"eval_status": "FAILED" if worse and number % 2 else "PASSED"},
        ),
        (EvalType.PERFORMANCE, "Speed", "triage", "Triage", {"result": {"avg_run_time": _CHANCE.uniform(0.1, 0.3)}}),
    ):
        record = EvalRunRecord(
            run_id=f"{name}-{time.time_ns()}",
            eval_type=kind,
            eval_data=data,
            name=name,
            agent_id=agent,
            evaluated_component_name=component,
        )
        db.create_eval_run(record)


async def _learn(db: SqliteDb, number: int) -> None:
    """Add a content to the handbook, one of ten of which fails, and a memory of a user."""
    _store(db, f"chapter-{number}", "failed" if number % 10 == 9 else "completed")  # noqa: PLR2004
    memory = f"memory-{number % _MOST_MEMORIES}"
    db.upsert_user_memory(UserMemory(memory="Likes short answers.", memory_id=memory, user_id=_CHANCE.choice(USERS)))


def _store(db: SqliteDb, identifier: str, status: str) -> None:
    now = int(time.time())
    row = KnowledgeRow(
        id=identifier, name=identifier, description="", status=status, linked_to="Handbook", created_at=now
    )
    db.upsert_knowledge_content(row)
