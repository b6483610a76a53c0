"""Alerts on approvals, schedules, the queue, knowledge and evaluations.

Without such a part in AgentOS, or without the right to read it, there are no series and no alerts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from deploy.mixin.alerts.alert import INFO, WARNING, Alert, last_value
from deploy.mixin.promql import AGENTOS, APPROVAL, EVALUATION, SCHEDULE, by, number, seconds
from deploy.mixin.settings import Settings


def _old(timestamp: str, labels: tuple[str, ...], waits_for: str, still: str) -> str:
    """Where a moment is so far in the past: of two exporters the later one is right, such moments only move on.

    A gauge that is gone is seen for 5m; `still` says whether there is anything to wait for.
    """
    return f"time()\n- {last_value(timestamp, labels)}\n> {number(seconds(waits_for))}\nand\n{still}"


def _approvals(settings: Settings) -> Iterator[Alert]:
    yield Alert(
        "AgentOSApprovalWaits",
        _old(
            "agentos_approvals_oldest_pending_timestamp_seconds",
            APPROVAL,
            settings.approval_waits_for,
            f"{last_value('agentos_approvals_pending', APPROVAL)} > 0",
        ),
        WARNING,
        "An approval of {{ $labels.agentos }} has waited for {{ $value | humanizeDuration }}",
        "The oldest approval ({{ $labels.approval_type }}) that {{ $labels.source_type }} runs of "
        "{{ $labels.agentos }} asked for has waited for {{ $value | humanizeDuration }}. Its run stands still "
        "until a person decides.",
        "agentos-operations",
        when="the oldest approval that waits for a person is older than {approval_waits_for}",
    )


def _schedules(settings: Settings) -> Iterator[Alert]:
    def runs(status: str) -> str:
        return by(SCHEDULE, f'increase(agentos_schedule_runs_total{{status="{status}"}}[6h])')

    # AgentOS says when a schedule runs next once its run has ended: a long one is not missed.
    last, due = "agentos_schedule_last_run_timestamp_seconds", "agentos_schedule_next_run_timestamp_seconds"
    begun = f"{last_value(last, SCHEDULE)}\n>= {last_value(due, SCHEDULE)}"
    of = "The schedule {{ $labels.schedule }} of {{ $labels.agentos }}"
    yield Alert(
        "AgentOSScheduleMissed",
        _old(
            due,
            SCHEDULE,
            settings.schedule_late_for,
            f"{last_value('agentos_schedule_enabled', SCHEDULE)} == 1\nunless\n{begun}",
        ),
        WARNING,
        f"{of} does not run",
        f"{of} is enabled, and was to run {{{{ $value | humanizeDuration }}}} ago. AgentOS has not begun it: "
        "its scheduler stands still or is not on.",
        "agentos-operations",
        lasts=settings.schedule_for,
        when=(
            "the next run of an enabled schedule lies {schedule_late_for} in the past and has not "
            "begun, for {schedule_for}"
        ),
    )
    yield Alert(
        "AgentOSScheduleFailing",
        f"{runs('failed')} >= {number(settings.schedule_min_failed)}\nunless\n{runs('success')} > 0",
        WARNING,
        f"{of} fails",
        f'{of} failed about {{{{ $value | printf "%.0f" }}}} times in the last 6h, retries among them, and '
        "succeeded not once.",
        "agentos-operations",
        when="{schedule_min_failed} or more runs of a schedule failed in 6h, and none succeeded",
    )


def _queue(settings: Settings) -> Iterator[Alert]:
    queued = 'agentos_queue_jobs{status="queued"}'
    yield Alert(
        "AgentOSQueueStuck",
        _old(
            "agentos_queue_oldest_job_timestamp_seconds",
            AGENTOS,
            settings.queue_waits_for,
            f"{last_value(queued, AGENTOS)} > 0",
        ),
        WARNING,
        "A job of {{ $labels.agentos }} has been queued for {{ $value | humanizeDuration }}",
        "The oldest job in the queue of {{ $labels.agentos }} was accepted {{ $value | humanizeDuration }} ago, "
        "and no worker has begun it.",
        "agentos-operations",
        when="the oldest queued job is older than {queue_waits_for}",
    )


def _knowledge(settings: Settings) -> Iterator[Alert]:
    failed = 'agentos_knowledge_contents{status=~"failed|partial"}'
    # It stays until somebody deletes the content: nobody has to come today.
    yield Alert(
        "AgentOSKnowledgeFailed",
        f"{last_value(failed, (*AGENTOS, 'status'))} >= {number(settings.knowledge_min_failed)}",
        INFO,
        "{{ $value }} contents of knowledge bases of {{ $labels.agentos }} are {{ $labels.status }}",
        "{{ $value }} contents of knowledge bases of {{ $labels.agentos }} are {{ $labels.status }}: agents "
        "cannot find them, or not all of them.",
        "agentos-operations",
        when="{knowledge_min_failed} or more contents of knowledge bases are failed or partial",
    )


def _scores(settings: Settings) -> Iterator[Alert]:
    def of(part: str, window: str) -> str:
        return by(EVALUATION, f"increase(agentos_eval_score_{part}{window})")

    def mean(window: str) -> str:
        return f"(\n  {of('sum', window)}\n  /\n  ({of('count', window)} > 0)\n)"

    # Means are judged, not rates: scores that are read late say the same.
    day, week, least = "[1d]", "[7d] offset 1d", number(settings.score_min_runs)
    yield Alert(
        "AgentOSScoreDropped",
        f"{mean(day)}\n< {number(settings.score_drop_ratio)} *\n{mean(week)}\nand\n"
        f"{of('count', day)} >= {least}\nand\n{of('count', week)} >= {least}",
        WARNING,
        "The evaluation {{ $labels.name }} scores {{ $value | humanize }}",
        "Runs of the {{ $labels.eval_type }} evaluation {{ $labels.name }} "
        "{{ with $labels.component }}of {{ . }} {{ end }}on {{ $labels.agentos }} scored "
        "{{ $value | humanize }} on average in the last day, less than "
        f"{number(settings.score_drop_ratio * 100)} % of the week before.",
        "agentos-quality",
        ("agentos", "eval_type", "component", "name"),
        settings.score_for,
        when=(
            "the mean score of an evaluation in a day is below {score_drop_ratio} of that of the week "
            "before, with {score_min_runs} scores in each"
        ),
    )


ALERTS: Final = (_approvals, _schedules, _queue, _knowledge, _scores)
