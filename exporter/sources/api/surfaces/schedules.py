"""Schedules, and how their runs ended.

The list of schedules tells when each runs next, but not how its last run went: that takes one request for each
schedule. So runs are asked for where one was due or is under way, and of some other schedules each turn: a run that
somebody triggers by hand changes nothing in the list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec

from exporter.core.model import MICROSECONDS
from exporter.sources.api.http import UnknownRoute
from exporter.sources.api.surfaces.lists import MARGIN, PAGES, Lists, Page, Position, decode, decoder, moment, walk
from exporter.sources.api.surfaces.waiting import Followed, Waiting, follow
from exporter.sources.facts import clean_name, identifier
from exporter.sources.operations import KEPT, OTHER, RUN_STATUSES, Ended, Labels, Reading

if TYPE_CHECKING:
    from collections.abc import Mapping

_PATH: Final = "/schedules"
_ENDPOINT: Final = "schedules"
_RUNS: Final = "schedule_runs"
_UNDER_WAY: Final = frozenset({"running", "pending", "queued"})
_DUE: Final = 50
"""Schedules in a turn whose runs are asked for since one was due."""
_OTHERS: Final = 5
"""The same, in turn, for no reason."""
STUCK_AFTER: Final = 24 * 3600 * MICROSECONDS
"""A run that did not end for so long never will: its AgentOS was killed."""


class _Schedule(msgspec.Struct, gc=False):
    id: Any = None
    name: Any = None
    enabled: Any = None
    next_run_at: Any = None


class _Run(msgspec.Struct, gc=False):
    id: Any = None
    status: Any = None
    created_at: Any = None
    triggered_at: Any = None

    @property
    def created(self) -> int | None:
        return moment(self.created_at)

    @property
    def triggered(self) -> int:
        """When it began; 0 where it does not say."""
        return moment(self.triggered_at) or self.created or 0

    @property
    def under_way(self) -> bool:
        return self.status in _UNDER_WAY


class Known(msgspec.Struct):
    """What is known of one schedule: how far its runs are read, its next and its last run, and what is under way."""

    list: Position
    next: int = 0
    last: int = 0
    waiting: dict[str, Waiting] = {}


class _Standing(msgspec.Struct):
    since: int
    schedules: dict[str, Known] = {}


_page: Final = decoder(_Schedule)
_runs: Final = decoder(_Run)
_run: Final = msgspec.json.Decoder(_Run)


class Schedules:
    """The schedules of one AgentOS."""

    def __init__(self, lists: Lists) -> None:
        self._lists = lists
        self._turn = 0
        """of those that are asked for no reason"""

    async def read(self, position: Mapping[str, Any] | None, since: int) -> Reading:
        """See OperationsSource; `since` is where counting begins, in microseconds. Raises SourceError."""
        before = _Standing(since) if position is None else msgspec.convert(position, _Standing)
        listed, now = await self._listed()
        known = {id_: before.schedules.get(id_) or Known(Position(before.since + MARGIN), next=-1) for id_ in listed}
        born = [
            (_name(listed[id_]), status)
            for id_ in listed.keys() - before.schedules.keys()
            for status in ("success", "failed")
        ]
        ended: list[Ended] = []
        followed = Followed()
        for gone in before.schedules.keys() - listed.keys():
            for _ in before.schedules[gone].waiting:
                followed.lose("gone")
        for id_ in self._chosen(listed, known, now):
            known[id_] = await self._read_runs(id_, listed[id_], known[id_], ended, followed, now)
        read_to = [one.list.read_to for one in known.values() if one.last]
        return Reading(
            position=msgspec.to_builtins(_Standing(before.since, known)),
            ended=ended,
            gauges=_gauges(listed, known),
            born=born,
            lost=followed.lost,
            forget_before=min(read_to, default=before.since) - KEPT,
            doubtful=bool(before.schedules) and not listed,
        )

    async def _listed(self) -> tuple[dict[str, _Schedule], int]:
        """Schedules by id, and AgentOS's clock."""
        found: dict[str, _Schedule] = {}
        for page in range(1, PAGES + 1):
            answer = await self._lists.page(_PATH, {"limit": 100, "page": page}, _page, _ENDPOINT)
            found |= {id_: one for one in answer.data if (id_ := identifier(one.id)) is not None}
            if len(answer.data) < 100:  # noqa: PLR2004 - the limit
                break
        return found, answer.date

    def _chosen(self, listed: Mapping[str, _Schedule], known: Mapping[str, Known], now: int) -> list[str]:
        """Ids of the schedules whose runs are asked for in this turn."""
        due = [
            id_
            for id_, one in listed.items()
            if (next_run := moment(one.next_run_at) or 0) != known[id_].next
            or (one.enabled is True and 0 < next_run <= now)
            or known[id_].waiting
            or known[id_].list.page
        ]
        # Those that were not read for longest come first: of many that are due, none starves.
        due.sort(key=lambda id_: known[id_].list.read_to)
        others = sorted(listed.keys() - set(due))
        first = self._turn % len(others) if others else 0
        self._turn = first + _OTHERS
        return due[:_DUE] + (others[first:] + others[:first])[:_OTHERS]

    async def _read_runs(
        self, id_: str, schedule: _Schedule, before: Known, ended: list[Ended], followed: Followed, now: int
    ) -> Known:
        """Read the runs of one schedule; what ended and what is lost is added to `ended` and `followed`."""
        path, name = f"{_PATH}/{quote(id_, safe='')}/runs", _name(schedule)

        async def fetch(page: int, size: int) -> Page[_Run]:
            return await self._lists.page(path, {"limit": size, "page": page}, _runs, _RUNS)

        async def fetch_one(run: str, waiting: Waiting) -> Ended | None:
            body, _ = await self._lists.get(f"{path}/{quote(run, safe='')}", {}, "schedule_run")
            one = decode(_run, body, _RUNS)
            return None if one.under_way else _ended(run, waiting.created, name, one)

        try:
            rows, read_to = await walk(fetch, lambda row: row.created, before.list, size=50)
        except UnknownRoute:
            return before  # it was deleted just now, or the database failed
        waiting: dict[str, Waiting] = {}
        done: dict[str, Ended] = {}
        last = before.last
        for row in rows:
            if (run := identifier(row.id)) is None or (created := row.created) is None:
                continue
            last = max(last, min(row.triggered, now))
            if row.under_way:
                waiting[run] = Waiting(created)
            else:
                done[run] = _ended(run, created, name, row)
        missing = {run: one for run, one in before.waiting.items() if run not in waiting and run not in done}
        more = await follow(missing, fetch_one, believed=read_to.some)
        for run, one in list((waiting | more.waiting).items()):
            waiting[run] = one
            if now - one.created > STUCK_AFTER:
                del waiting[run]
                more.lose("stuck")
        ended.extend((done | more.ended).values())
        for reason, number in more.lost.items():
            followed.lost[reason] = followed.lost.get(reason, 0) + number
        return Known(read_to, moment(schedule.next_run_at) or 0, last, waiting)


def _name(schedule: _Schedule) -> str:
    return clean_name(schedule.name) if isinstance(schedule.name, str) else ""


def _ended(id_: str, created: int, name: str, run: _Run) -> Ended:
    return Ended(id_, created, (name, run.status if run.status in RUN_STATUSES else OTHER))


def _gauges(listed: Mapping[str, _Schedule], known: Mapping[str, Known]) -> dict[str, dict[Labels, float]]:
    """Names are those of their owner: of several schedules with one name, the next and the last run count."""
    enabled: dict[Labels, float] = {}
    following: dict[Labels, float] = {}
    last: dict[Labels, float] = {}
    for id_, one in listed.items():
        labels = (_name(one),)
        enabled[labels] = max(enabled.get(labels, 0), int(one.enabled is True))
        if one.enabled is True and (at := moment(one.next_run_at)) is not None:
            following[labels] = min(following.get(labels, at), at)
        if known[id_].last:
            last[labels] = max(last.get(labels, 0), known[id_].last)
    return {
        "agentos_schedule_enabled": enabled,
        "agentos_schedule_next_run_timestamp_seconds": following,
        "agentos_schedule_last_run_timestamp_seconds": last,
    }
