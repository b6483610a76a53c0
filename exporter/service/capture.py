"""How much of vendors' bills the ledger has, once a day: the gauge of `reconcile`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from exporter.core.errors import ExportError, StateError
from exporter.core.times import utc
from exporter.reconcile.capture import capture_ratio
from exporter.reconcile.exports import vendors
from exporter.reconcile.figures import DAY, start_of
from exporter.reconcile.ours import ours

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable, Sequence
    from decimal import Decimal

    from exporter.bookkeeping.shared import Shared
    from exporter.config import AgentOS, Check, Config
    from exporter.service.jobs import Jobs

log = structlog.get_logger(__name__)

EVERY: Final = 86_400.0
"""Seconds between two checks."""
LOOK: Final = 60.0
"""Seconds between two looks at whether a check is due."""
AGAIN: Final = 3600.0
"""Seconds after which a failed check is tried again."""
_GAUGE: Final = "agentos_cost_capture_ratio"
_READ: Final = "agentos_exporter_last_success_timestamp_seconds"
_CATCHING_UP: Final = "agentos_exporter_catching_up"


class CostCapture:
    """Compares cost with vendors' exports, and shows the ratio. A check that fails concerns itself alone."""

    def __init__(
        self,
        shared: Shared,
        jobs: Jobs,
        config: Callable[[], Config],
        configured: Callable[[], Sequence[AgentOS]],
    ) -> None:
        """Compare bills once a day.

        Args:
            shared: What all instances share.
            jobs: Takes the job.
            config: Returns the configuration in force.
            configured: Returns all instances that are read, including those of lists.

        """
        self._shared = shared
        self._config = config
        self._configured = configured
        self._due: dict[Check, float] = {}
        """when each check is due, in monotonic seconds"""
        self._logged: dict[Check, str] = {}
        jobs.add("reconcile", self.look, LOOK)

    async def look(self) -> None:
        """Do the comparisons that are due. A check that is no longer configured shows nothing."""
        checks, now = self._config().reconcile, self._shared.clock.monotonic()
        for gone in [check for check in self._due if check not in checks]:
            del self._due[gone]
            self._logged.pop(gone, None)
            self._show(gone, None)
        for check in checks:
            names = self._names(check)
            if now >= self._due.setdefault(check, now) and self._is_ready(check, names):
                self._due[check] = now + await self._check(check, names)

    def _names(self, check: Check) -> list[str]:
        return [agentos.name for agentos in self._configured() if check.agentos in {"", agentos.name}]

    def _is_ready(self, check: Check, names: list[str]) -> bool:
        """Whether all of it was read up to now: yesterday is not whole while a backlog is read."""
        led = [name for name in names if self._shared.leads(name)]
        value = self._shared.totals.value
        read = all(value(_READ, (name,)) is not None and value(_CATCHING_UP, (name,)) == 0 for name in led)
        return bool(names) and self._shared.leads(check.agentos) and read

    async def _check(self, check: Check, names: list[str]) -> float:
        """Compare once; return the seconds until it is to be done again."""
        today = utc(self._shared.clock.now_us()).date()
        try:
            ratio, error = await asyncio.to_thread(self._ratio, check, names, today), ""
        except (ExportError, StateError) as failure:
            ratio, error = None, str(failure)
        except Exception:  # a surprise in one export must not stop the others
            log.exception("reconcile_bug", agentos=check.agentos, vendor=check.vendor)
            ratio, error = None, "a bug of agentos-exporter, please report it"
        self._show(check, ratio)
        if error and error != self._logged.get(check):
            log.warning("reconcile", agentos=check.agentos, vendor=check.vendor, error=error)
        self._logged[check] = error
        if error:
            return AGAIN
        log.info("reconcile", agentos=check.agentos, vendor=check.vendor, ratio=None if ratio is None else float(ratio))
        return EVERY

    def _ratio(self, check: Check, names: list[str], today: dt.date) -> Decimal | None:
        """Blocks. Raises ExportError and StateError."""
        pattern = Path(check.usage)
        paths = sorted(pattern.parent.glob(pattern.name))
        if not paths:
            raise ExportError(f"{pattern.name}: there is no such file")
        (statement,) = vendors.read(paths, check.vendor)
        first = utc(start_of(today) - check.days * DAY).date()
        days = self._shared.ledger.days(check.agentos or None, first, today)
        return capture_ratio(ours(days, names, cache_known=True), statement, days=check.days, today=today)

    def _show(self, check: Check, ratio: Decimal | None) -> None:
        self._shared.totals.gauge(_GAUGE, (check.agentos, check.vendor), None if ratio is None else float(ratio))
        self._shared.changed()
