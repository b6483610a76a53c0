"""Scheduled work of the daemon: one job of a kind at a time, and finished before the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

log = structlog.get_logger(__name__)

GRACE: Final = 2.0
"""Seconds that a running job may take when the daemon stops; the whole stop takes at most 5."""
_JITTER: Final = 0.1
"""Part of an interval over which jobs that begin together are spread."""


class Jobs:
    """Jobs on a schedule. A run that is late is folded into the next one."""

    def __init__(self) -> None:
        self._scheduler = AsyncIOScheduler(
            timezone=UTC, job_defaults={"max_instances": 1, "coalesce": True, "misfire_grace_time": None}
        )
        self._running: dict[asyncio.Task[None], str] = {}
        """runs in hand → the name of their job"""

    def add(
        self,
        name: str,
        work: Callable[[], Awaitable[object]],
        seconds: float,
        *,
        at_once: bool = True,
        delay: float = 0.0,
    ) -> None:
        """Do something again and again.

        Args:
            name: The name of the job, which no other job has.
            work: What is done.
            seconds: Seconds from one beginning to the next.
            at_once: Whether it begins `delay` seconds from now, and has jitter; otherwise after `seconds`, without.
            delay: Seconds until it begins for the first time.

        """
        job, interval = self._known(name, work), IntervalTrigger(seconds=seconds)
        if at_once:
            interval = IntervalTrigger(seconds=seconds, jitter=max(seconds * _JITTER, 0.01))
            self._scheduler.add_job(
                job, interval, id=name, name=name, next_run_time=datetime.now(UTC) + timedelta(seconds=delay)
            )
        else:
            self._scheduler.add_job(job, interval, id=name, name=name)

    async def remove(self, name: str, *, cancel: bool = False) -> None:
        """Stop this job; returns when its current run has ended.

        With `cancel` that run is cancelled; otherwise the caller sees to its end.
        """
        self._scheduler.remove_job(name)
        running = [task for task, of in self._running.items() if of == name]
        if cancel:
            for task in running:
                task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def start(self) -> None:
        """Begin."""
        self._scheduler.start()

    async def stop(self) -> None:
        """Begin no more jobs, let running ones finish, and cancel those that take longer than GRACE."""
        self._scheduler.pause()
        if self._running:
            _, late = await asyncio.wait(set(self._running), timeout=GRACE)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        self._scheduler.shutdown(wait=False)

    def _known(self, name: str, work: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[None]]:
        """The job, known to `stop`."""

        async def job() -> None:
            task = asyncio.current_task()
            assert task is not None  # noqa: S101 - a scheduler runs it in one
            self._running[task] = name
            try:
                await work()
            except asyncio.CancelledError:
                log.debug("stopped_waiting", reason="it is read no more: AgentOS is not waited for")
            finally:
                del self._running[task]

        return job
