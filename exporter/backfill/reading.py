"""Reads the past of an AgentOS into the work file, batch by batch: no faster than allowed, and on after failures."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from exporter.core.errors import NoPast, ServerFailed, SourceError, Unauthorized

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from exporter.backfill.counting import Counter
    from exporter.backfill.period import Period
    from exporter.backfill.work import Work
    from exporter.core.model import Clock
    from exporter.sources.protocol import PastSource

log = structlog.get_logger(__name__)

MOST_FAILURES: Final = 8
"""Failures in a row after which reading ends."""
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 300.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far reading is: `reached` is the end of the newest trace, in microseconds; `traces` counts this run's."""

    reached: int
    traces: int


class Reading:
    """Reads from one source. `rate` is the most traces a second, None for as many as the source gives."""

    def __init__(
        self,
        source: PastSource,
        counter: Counter,
        work: Work,
        clock: Clock,
        *,
        rate: float | None = None,
        progress: Callable[[Progress], None] = lambda _progress: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Read the past of one AgentOS into a work file.

        Args:
            source: Hands over the past.
            counter: Counts each batch.
            work: The work file.
            clock: The clocks.
            rate: Most traces a second; None for no limit.
            progress: Called after each batch.
            sleep: Waits for seconds.

        """
        self._source = source
        self._counter = counter
        self._work = work
        self._clock = clock
        self._rate = rate
        self._progress = progress
        self._sleep = sleep
        self._failures = 0
        self._read_any = False
        self._traces = 0
        self._newest = 0

    async def run(self, period: Period) -> None:
        """Read the whole period. Raises SourceError; what was read until then is kept."""
        while True:
            try:
                await self._read(period)
            except (Unauthorized, NoPast):
                raise
            except SourceError as error:
                self._failures += 1
                # An error before anything was read is more likely a wrong address than a short failure.
                if self._failures >= MOST_FAILURES or not self._read_any:
                    raise
                pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (self._failures - 1))
                if isinstance(error, ServerFailed) and error.retry_after is not None:
                    pause = min(_LONGEST_PAUSE, max(pause, error.retry_after))
                log.warning("read_again", error=str(error), failures=self._failures, most=MOST_FAILURES, again_in=pause)
                await self._sleep(pause)
            else:
                return

    async def _read(self, period: Period) -> None:
        reached = await asyncio.to_thread(self._work.reached)
        async with aclosing(self._source.past(period.since, period.until, reached)) as batches:
            began = self._clock.monotonic()
            async for batch in batches:
                self._traces += await asyncio.to_thread(self._counter.absorb, batch)
                self._failures, self._read_any = 0, True
                self._newest = max([self._newest, *(trace.end for trace in batch.traces)])
                self._progress(Progress(self._newest, self._traces))
                if self._rate is not None:
                    began += len(batch.traces) / self._rate
                    await self._sleep(max(0.0, began - self._clock.monotonic()))
                    began = max(began, self._clock.monotonic())
