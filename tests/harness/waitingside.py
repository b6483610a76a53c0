"""Fill what waits of an AgentOS, with agno's own classes: run it with the Python of any venv that has agno.

    python tests/harness/waitingside.py sqlite:/tmp/agno.db 0

The second argument is the round: 0 makes everything, each later one ends some of what waits and adds some. Or it is
one of `PARTS`, for agno's own scheduler and queue.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from typing import Any

RESOLUTIONS = ("approved", "rejected", "expired", "cancelled")
RUN_STATUSES = ("success", "failed", "success", "cancelled")
DATA: dict[str, dict[str, Any]] = {
    "accuracy": {"avg_score": 7.5, "results": [{"output": "CONTENT"}]},
    "agent_as_judge": {"avg_score": None, "pass_rate": 50.0, "results": [{"reason": "CONTENT"}]},
    "reliability": {"eval_status": "PASSED", "failed_tool_calls": []},
    "performance": {"result": {"avg_run_time": 0.5}},
}
EVALS = 30
APPROVALS = 40


def fill(db: Any, number: int, *, with_schedules: bool = True) -> None:
    """Fill the tables that this database has, or go on with them."""
    now = int(time.time())
    with contextlib.suppress(NotImplementedError):  # MySQL has neither
        approvals(db, number, now)
        if with_schedules:
            schedules(db, number, now)
    evaluations(db, number)
    if not number:
        holdings(db, now)


def approvals(db: Any, number: int, now: int) -> None:
    """Ask for 40 approvals, of which eight wait; in later rounds, resolve half of those that waited before."""
    for each in range(APPROVALS):
        waits = each % 5 == 4
        db.create_approval(
            {
                "id": f"approval-{number}-{each}",
                "run_id": f"run-{number}-{each}",
                "session_id": "session",
                "status": "pending" if waits else RESOLUTIONS[each % 5],
                "source_type": ("agent", "team")[each % 10 == 4],
                "approval_type": "required",
                "pause_type": "confirmation",
                "tool_name": "send",
                "tool_args": {"to": "CONTENT"},
                "agent_id": "confirming",
                "created_at": now - 400 + each,
                "resolved_at": None if waits else now - 300 + each,
            }
        )
    waiting, _ = db.get_approvals(status="pending", limit=1000)
    for one in waiting[: len(waiting) // 2] if number else ():
        db.update_approval(one["id"], status="approved", resolved_at=now)


def schedules(db: Any, number: int, now: int) -> None:
    """Make schedules of which one has missed its time; end the runs that are under way and begin others."""
    for each, name in enumerate(("nightly", "hourly", "disabled")):
        schedule = f"schedule-{each}"
        if number:
            db.update_schedule(schedule, next_run_at=now + 7200 * each + number)
            db.update_schedule_run(f"{schedule}-{number - 1}-4", status="failed", completed_at=now)
        else:
            db.create_schedule(
                {
                    "id": schedule,
                    "name": name,
                    "method": "POST",
                    "endpoint": "/agents/plain/runs",
                    "payload": {"message": "CONTENT"},
                    "cron_expr": "0 3 * * *",
                    "timezone": "UTC",
                    "timeout_seconds": 60,
                    "max_retries": 0,
                    "retry_delay_seconds": 1,
                    "enabled": name != "disabled",
                    "next_run_at": now + 3600 * (each - 1),
                    "created_at": now - 5000,
                }
            )
        for run in range(5):
            ended = run < len(RUN_STATUSES)
            db.create_schedule_run(
                {
                    "id": f"{schedule}-{number}-{run}",
                    "schedule_id": schedule,
                    "attempt": 1,
                    "triggered_at": now - 10 + run,
                    "completed_at": now if ended else None,
                    "status": RUN_STATUSES[run] if ended else "running",
                    "status_code": 200,
                    "error": "CONTENT",
                    "created_at": now - 10 + run,
                }
            )


def evaluations(db: Any, number: int) -> None:
    """Store 30 runs of each type of evaluation; all of them within a second or two."""
    from agno.db.schemas.evals import EvalRunRecord, EvalType

    for kind, data in DATA.items():
        for each in range(EVALS):
            record = {
                "run_id": f"eval-{kind}-{number}-{each}",
                "eval_type": EvalType(kind),
                "eval_data": data,
                "eval_input": {"input": "CONTENT"},
                "name": f"test of {kind}",
                "agent_id": "plain",
                "evaluated_component_name": "Plain",
            }
            db.create_eval_run(EvalRunRecord(**record))


def holdings(db: Any, now: int) -> None:
    """Store a content of each status that the release has, and memories of two users."""
    from agno.db.schemas import UserMemory
    from agno.db.schemas.knowledge import KnowledgeRow
    from agno.knowledge.content import ContentStatus

    # A release that does not know a status fails on the list of all contents.
    statuses = [one.value for one in ContentStatus]
    for each, status in enumerate((*statuses, "completed")):
        row = {"id": f"content-{each}", "name": f"document {each}", "description": "CONTENT", "status": status}
        times = {"created_at": now, "updated_at": now}
        db.upsert_knowledge_content(KnowledgeRow(**row, **times, status_message="CONTENT", linked_to="Handbook"))
    for each in range(6):
        db.upsert_user_memory(UserMemory(memory="CONTENT", memory_id=f"memory-{each}", user_id=f"user-{each % 2}"))


SCHEDULED = {
    "succeeding": "/agents/plain/runs",
    "failing": "/agents/failing-model/runs",
    "refused": "/agents/nobody/runs",
    "pausing": "/agents/confirming/runs",
    "missed": "/agents/plain/runs",
    "disabled": "/agents/plain/runs",
}
"""Schedules for agno's scheduler, and what they run."""
WAITING_JOBS = 7


def due(db: Any) -> None:
    """Make schedules that are due now; one of them is held by a scheduler that was killed."""
    now = int(time.time())
    for name, endpoint in SCHEDULED.items():
        held = {"locked_by": "killed", "locked_at": now} if name == "missed" else {}
        db.create_schedule(
            {
                "id": name,
                "name": name,
                "method": "POST",
                "endpoint": endpoint,
                "payload": {"message": "CONTENT"},
                "cron_expr": "",
                "timezone": "UTC",
                "timeout_seconds": 60,
                "max_retries": 1 if name == "failing" else 0,
                "retry_delay_seconds": 1,
                "enabled": name != "disabled",
                "next_run_at": now - 700,
                "created_at": now - 5000,
                **held,
            }
        )


def again(db: Any) -> None:
    """Let the same schedules be due once more."""
    for name in ("succeeding", "failing", "pausing"):
        db.update_schedule(name, next_run_at=int(time.time()))


def stopped(db: Any) -> None:
    """Queue jobs for a deployment that nobody works for any more, and cancel one of them."""
    from agno.db.schemas.jobs import QueuedJob

    for each in range(WAITING_JOBS + 1):
        job = QueuedJob(f"job-{each}", "agent", "plain", "session", deployment_id="gone", payload={"input": "CONTENT"})
        db.enqueue_job(job.to_dict())
    db.cancel_job("job-0")


def cleaned(db: Any) -> None:
    """Delete the jobs that ended, as AgentOS does once they are a day old."""
    db.cleanup_jobs(older_than_seconds=0)


PARTS = {"due": due, "again": again, "stopped": stopped, "cleaned": cleaned}


def main() -> None:
    """Fill, as the command line says."""
    parser = argparse.ArgumentParser(description="What waits of an AgentOS")
    parser.add_argument("database", help="as server.py takes it")
    parser.add_argument("what", help=f"the number of the round, or one of {', '.join(PARTS)}")
    parser.add_argument("--no-schedules", action="store_true", help="in a round, as agno's scheduler would run them")
    parser.add_argument("--ahead", type=int, default=0, help="seconds by which the clock is ahead")
    options = parser.parse_args()
    from server import open_database

    now = time.time
    time.time = lambda: now() + options.ahead
    db = open_database(options.database, "harness-db")
    if options.what in PARTS:
        PARTS[options.what](db)
    else:
        fill(db, int(options.what), with_schedules=not options.no_schedules)


if __name__ == "__main__":
    main()
