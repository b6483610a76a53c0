"""Fill what waits of an AgentOS, with agno's own classes: run it with the Python of any venv that has agno.

    python tests/harness/waitingside.py sqlite:/tmp/agno.db 0

The second argument is the round: 0 makes everything, each later one ends some of what waits and adds some.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Any

RESOLUTIONS = ("approved", "rejected", "expired")
RUN_STATUSES = ("success", "failed", "success", "cancelled")
DATA: dict[str, dict[str, Any]] = {
    "accuracy": {"avg_score": 7.5, "results": [{"output": "CONTENT"}]},
    "agent_as_judge": {"avg_score": None, "pass_rate": 50.0, "results": [{"reason": "CONTENT"}]},
    "reliability": {"eval_status": "PASSED", "failed_tool_calls": []},
    "performance": {"result": {"avg_run_time": 0.5}},
}
EVALS = 30
APPROVALS = 40


def fill(db: Any, number: int) -> None:
    """Fill the tables that this database has, or go on with them."""
    now = int(time.time())
    with contextlib.suppress(NotImplementedError):  # MySQL has neither
        approvals(db, number, now)
        schedules(db, number, now)
    evaluations(db, number)
    if not number:
        holdings(db, now)


def approvals(db: Any, number: int, now: int) -> None:
    """Ask for 40 approvals, of which ten wait; in later rounds, resolve half of those that wait before."""
    for each in range(APPROVALS):
        waits = each % 4 == 3
        db.create_approval(
            {
                "id": f"approval-{number}-{each}",
                "run_id": f"run-{number}-{each}",
                "session_id": "session",
                "status": "pending" if waits else RESOLUTIONS[each % 4],
                "source_type": ("agent", "team")[each % 8 == 3],
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
    """Store contents of which one failed, and memories of two users."""
    from agno.db.schemas import UserMemory
    from agno.db.schemas.knowledge import KnowledgeRow

    for each, status in enumerate(("processing", "completed", "failed", "completed")):
        row = {"id": f"content-{each}", "name": f"document {each}", "description": "CONTENT", "status": status}
        times = {"created_at": now, "updated_at": now}
        db.upsert_knowledge_content(KnowledgeRow(**row, **times, status_message="CONTENT", linked_to="Handbook"))
    for each in range(6):
        db.upsert_user_memory(UserMemory(memory="CONTENT", memory_id=f"memory-{each}", user_id=f"user-{each % 2}"))


if __name__ == "__main__":
    from server import open_database

    fill(open_database(sys.argv[1], "harness-db"), int(sys.argv[2]))
