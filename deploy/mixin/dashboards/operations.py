"""Operations: what waits in AgentOS, for whom, and how what waited ended."""

from __future__ import annotations

from deploy.mixin.dashboards import parts
from deploy.mixin.dashboards.board import Board, Row
from deploy.mixin.dashboards.colors import BLUE, GREEN, GREY, ORANGE, PURPLE, RED, YELLOW, Json, named, steps, words
from deploy.mixin.dashboards.panels import Panel, Query, label, series, stat, table, value
from deploy.mixin.dashboards.parts import share, total
from deploy.mixin.promql import seconds
from deploy.mixin.settings import Settings

UP = "agentos_surface_up"
PENDING = "agentos_approvals_pending"
ASKED = "agentos_approvals_oldest_pending_timestamp_seconds"
NEXT = "agentos_schedule_next_run_timestamp_seconds"
LAST = "agentos_schedule_last_run_timestamp_seconds"
JOBS = "agentos_queue_jobs"
QUEUED = "agentos_queue_oldest_job_timestamp_seconds"
FINISHED = "agentos_queue_jobs_finished_total"
NOT_READ = "nothing there, or not read"
_STATUSES = (
    named("approved", GREEN),
    named("success", GREEN),
    named("completed", GREEN),
    named("rejected", ORANGE),
    named("failed", RED),
    named("expired", YELLOW),
    named("partial", YELLOW),
    named("paused", YELLOW),
    named("cancelled", PURPLE),
    named("running", BLUE),
    named("processing", BLUE),
    named("queued", ORANGE),
    named("other", GREY),
)


def board(settings: Settings) -> Board:
    """The board for whoever runs an AgentOS."""
    return Board(
        parts.OPERATIONS,
        "Operations",
        "What waits beside the traces: approvals, paused runs, schedules, the queue, contents of knowledge bases, "
        "memories. "
        "Where AgentOS has no such part, or the token may not read it, panels are empty: see Parts of AgentOS.",
        (parts.JOB, parts.AGENTOS),
        (
            Row("Now", _now(settings)),
            Row("Approvals", _approvals()),
            Row("Paused runs", _paused()),
            Row("Schedules", _schedules()),
            Row("Queue", _queue()),
            Row("Knowledge and memories", _holdings()),
            Row("What can be read", _surfaces()),
        ),
        period="now-24h",
    )


def _all(metric: str, by: str, only: str = "") -> str:
    """A gauge with these labels; two exporters may show the same."""
    return f"max by ({by}) ({metric}{{@{only and ', '}{only}}})"


def _late(after: str) -> Json:
    """Colours of an age; red: where the alert starts."""
    return steps((None, GREEN), (seconds(after) / 2, ORANGE), (seconds(after), RED))


def _now(settings: Settings) -> tuple[Panel, ...]:
    some = steps((None, GREEN), (1, RED))
    queued = _all(JOBS, "agentos, status", 'status="queued"')
    due, begun = _all(NEXT, "agentos, schedule"), _all(LAST, "agentos, schedule")
    late = f"count(time() - {due} > {seconds(settings.schedule_late_for)} unless {begun} >= {due})"
    return (
        stat(
            "Approvals that wait",
            "For a person, now.",
            f"sum({_all(PENDING, 'agentos, approval_type, source_type')})",
            unit="none",
            empty="not read",
        ),
        stat(
            "Oldest approval",
            "How long the oldest approval has waited.",
            f"time() - min({ASKED}{{@}})",
            unit="s",
            empty="none waits",
            colors=_late(settings.approval_waits_for),
        ),
        stat(
            "Late schedules",
            f"Enabled schedules whose next run lies more than {settings.schedule_late_for} in the past, and has not "
            "begun.",
            late,
            unit="none",
            empty="none",
            colors=some,
        ),
        stat(
            "Failed runs of schedules",
            "In the shown range.",
            total("agentos_schedule_runs_total", only='status="failed"'),
            unit="none",
            empty="none seen",
            colors=some,
            decimals=0,
        ),
        stat(
            "Jobs in the queue",
            "Jobs that are queued: no worker has begun them.",
            f"sum({queued})",
            unit="none",
            empty="not read",
        ),
        stat(
            "Oldest job",
            "How long the oldest job has been queued.",
            f"time() - min({QUEUED}{{@}})",
            unit="s",
            empty="none is queued",
            colors=_late(settings.queue_waits_for),
        ),
    )


def _approvals() -> tuple[Panel, ...]:
    return (
        series(
            "Waiting approvals",
            "By type and by what asks for them.",
            Query(
                f"sum by (approval_type, source_type) ({_all(PENDING, 'agentos, approval_type, source_type')})",
                "{{approval_type}}, {{source_type}}",
            ),
            unit="none",
            empty=NOT_READ,
            stack=True,
            width=8,
        ),
        _ended("Approvals that wait no more", "agentos_approvals_resolved_total", "resolution"),
        series(
            "Time until an approval is resolved",
            "Of those that were resolved around each moment, where AgentOS tells both times.",
            *parts.quantiles("agentos_approval_wait_seconds"),
            unit="s",
            empty="none resolved",
            overrides=parts.QUANTILES,
            width=8,
        ),
    )


def _paused() -> tuple[Panel, ...]:
    by = "agentos, root_kind, root"
    return (
        series(
            "Paused runs",
            "Runs that are paused until a person decides, by agent, team or workflow. "
            "AgentOS's database alone tells it.",
            Query(f"sum by (agentos, root) ({_all('agentos_runs_paused', by)})", "{{agentos}}: {{root}}"),
            unit="none",
            empty=NOT_READ,
            stack=True,
            width=24,
        ),
    )


def _ended(title: str, metric: str, by: str) -> Panel:
    return series(
        title,
        f"Each hour, by {by}.",
        Query(f"3600 * {parts.rate(metric, by)}", f"{{{{{by}}}}}"),
        empty=NOT_READ,
        overrides=_STATUSES,
        width=8,
    )


def _schedules() -> tuple[Panel, ...]:
    by, runs = "agentos, schedule", "agentos_schedule_runs_total"
    enabled = words({1: ("enabled", GREEN), 0: ("disabled", GREY)})
    return (
        table(
            "Schedules",
            "Next: in the past, AgentOS has missed it, or its run is under way. Runs are those that ended in "
            "the shown range.",
            label("agentos", "AgentOS"),
            label("schedule", "Schedule"),
            value("Enabled", _all("agentos_schedule_enabled", by), "none", mappings=(enabled,)),
            value("Next", f"1000 * {_all(NEXT, by)}", "dateTimeFromNow"),
            value("Last", f"1000 * {_all(LAST, by)}", "dateTimeFromNow"),
            value("Runs", total(runs, by), "locale", decimals=0),
            value("Failed", total(runs, by, 'status="failed"'), "locale", decimals=0, colors=steps((None, RED))),
            sort="Failed",
            empty=NOT_READ,
            width=16,
            height=8,
        ),
        _ended("Runs of schedules", runs, "status"),
    )


def _queue() -> tuple[Panel, ...]:
    by = "agentos, component"
    failed = total(FINISHED, by, 'status="failed"')
    return (
        series(
            "Jobs",
            "By status. AgentOS deletes what has ended after a day, or after its retention.",
            Query(f"sum by (status) ({_all(JOBS, 'agentos, status')})", "{{status}}"),
            unit="none",
            empty=NOT_READ,
            overrides=_STATUSES,
            width=8,
        ),
        _ended("Jobs that ended", FINISHED, "status"),
        table(
            "Jobs by component",
            "Attempts that ended in the shown range, by the id of the agent, team or workflow.",
            label("agentos", "AgentOS"),
            label("component", "Component"),
            value("Ended", total(FINISHED, by), "locale", decimals=0),
            value("Failed", share(failed, total(FINISHED, by)), "percentunit"),
            sort="Failed",
            empty=NOT_READ,
            width=8,
            height=8,
        ),
    )


def _holdings() -> tuple[Panel, ...]:
    return (
        series(
            "Contents of knowledge bases",
            "By status. Partial: some chunks cannot be found.",
            Query(f"sum by (status) ({_all('agentos_knowledge_contents', 'agentos, status')})", "{{status}}"),
            unit="none",
            empty=NOT_READ,
            overrides=_STATUSES,
        ),
        series(
            "Memories",
            "Memories of users, and users of whom there are some, by AgentOS.",
            Query(_all("agentos_memories", "agentos"), "{{agentos}}: memories"),
            Query(_all("agentos_memory_users", "agentos"), "{{agentos}}: users"),
            unit="none",
            empty=NOT_READ,
        ),
    )


def _surfaces() -> tuple[Panel, ...]:
    return (
        table(
            "Parts of AgentOS",
            "Down: AgentOS refuses or fails; the log of the exporter names the scope that a token lacks. "
            "A part that AgentOS does not have is not listed.",
            label("agentos", "AgentOS"),
            label("surface", "Part"),
            value("Read", f"min by (agentos, surface) ({UP}{{@}})", "none", mappings=(parts.UP,)),
            sort="Part",
            descending=False,
            empty="not read",
            height=8,
        ),
        series(
            "Rows whose end is unknown",
            "Each hour. Gone: AgentOS deleted them before they were read. Stuck: runs of schedules that did not end "
            "within a day.",
            Query(
                f"3600 * {parts.rate('agentos_exporter_ignored_rows_total', 'surface, reason')}",
                "{{surface}}: {{reason}}",
            ),
            empty="none seen",
        ),
    )
