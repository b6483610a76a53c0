"""Schedules, from their list, and their runs, from a list for each schedule.

The list of schedules tells when each runs next, but not how its last run ended: that takes one request for each
schedule. So the runs of a schedule are read if one was due or is under way. The runs of some other schedules are read
in each turn, since a run that a person triggers changes nothing in the list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import msgspec

from exporter.sources.api.surfaces.lists import MOST, PAGES, Lists, Page, decode, decoder, each, walk
from exporter.sources.facts import identifier
from exporter.sources.surfaces.schedules import Run, Schedule

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from exporter.sources.surfaces.position import Position
    from exporter.sources.surfaces.schedules import FollowedSchedule

_PATH: Final = "/schedules"
_ENDPOINT: Final = "schedules"
_RUNS: Final = "schedule_runs"
_DUE: Final = 50
"""Schedules in a turn whose runs are read because one was due."""
_OTHERS: Final = 5
"""The same, in turn, for no reason."""
_page: Final = decoder(Schedule)
_runs: Final = decoder(Run)
_run: Final = msgspec.json.Decoder(Run)


class ListedSchedules:
    """See ScheduleRows."""

    most = MOST

    def __init__(self, lists: Lists) -> None:
        self._lists = lists
        self._turn = 0
        """of those that are asked for no reason"""

    async def listed(self) -> tuple[dict[str, Schedule], int]:
        """See ScheduleRows."""
        schedules: dict[str, Schedule] = {}
        for page in range(1, PAGES + 1):
            answer = await self._lists.page(_PATH, {"limit": 100, "page": page}, _page, _ENDPOINT)
            schedules |= {id_: schedule for schedule in answer.data if (id_ := identifier(schedule.id)) is not None}
            if len(answer.data) < 100:  # noqa: PLR2004 - the limit
                break
        return schedules, answer.date

    def chosen(self, listed: Mapping[str, Schedule], known: Mapping[str, FollowedSchedule], now: int) -> list[str]:
        """See ScheduleRows."""
        due = [
            id_
            for id_, schedule in listed.items()
            if (next_run := schedule.next_run or 0) != known[id_].next
            or (schedule.enabled is True and 0 < next_run <= now)
            or known[id_].waiting
            or known[id_].list.page
        ]
        # Schedules that were not read for longest come first, so none of many starves.
        due.sort(key=lambda id_: known[id_].list.read_to)
        others = sorted(listed.keys() - set(due))
        first = self._turn % len(others) if others else 0
        self._turn = first + _OTHERS
        return due[:_DUE] + (others[first:] + others[:first])[:_OTHERS]

    async def runs(self, positions: Mapping[str, Position]) -> dict[str, tuple[list[Run], Position]]:
        """See ScheduleRows. AgentOS also says that it has no such schedule when its database fails."""
        return await each(positions, lambda id_: self._runs(id_, positions[id_]))

    async def _runs(self, schedule: str, position: Position) -> tuple[list[Run], Position]:
        async def fetch(page: int, size: int) -> Page[Run]:
            return await self._lists.page(_path(schedule), {"limit": size, "page": page}, _runs, _RUNS)

        return await walk(fetch, lambda row: row.created, position, size=50)

    async def runs_by_id(self, schedule: str, ids: Collection[str]) -> dict[str, Run]:
        """See ScheduleRows."""

        async def fetch(run: str) -> Run:
            body, _ = await self._lists.get(f"{_path(schedule)}/{quote(run, safe='')}", {}, "schedule_run")
            return decode(_run, body, _RUNS)

        return await each(ids, fetch)


def _path(schedule: str) -> str:
    return f"{_PATH}/{quote(schedule, safe='')}/runs"
