"""Schedules, and how their runs ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from exporter.core.model import MICROSECONDS
from exporter.sources.facts import clean_name, identifier, moment
from exporter.sources.operations import KEPT, OTHER, RUN_STATUSES, Ended, Labels, Reading
from exporter.sources.surfaces.position import Position, beginning
from exporter.sources.surfaces.waiting import Followed, Waiting, follow

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

_UNDER_WAY: Final = frozenset({"running", "pending", "queued"})
STUCK_AFTER: Final = 24 * 3600 * MICROSECONDS
"""A run that did not end for so long never will: its AgentOS was killed."""


class Schedule(msgspec.Struct, gc=False):
    """A row; only these fields are read."""

    id: Any = None
    name: Any = None
    enabled: Any = None
    next_run_at: Any = None

    @property
    def next_run(self) -> int | None:
        """When it is to run, in microseconds."""
        return moment(self.next_run_at)


class Run(msgspec.Struct, gc=False):
    """A run of a schedule; only these fields are read."""

    id: Any = None
    status: Any = None
    created_at: Any = None
    triggered_at: Any = None

    @property
    def created(self) -> int | None:
        """When its row was written, in microseconds."""
        return moment(self.created_at)

    @property
    def triggered(self) -> int:
        """When it began; 0 if unknown."""
        return moment(self.triggered_at) or self.created or 0

    @property
    def under_way(self) -> bool:
        """Whether it has not ended yet."""
        return self.status in _UNDER_WAY


class FollowedSchedule(msgspec.Struct):
    """One schedule: how far its runs are read, its next and its last run, and the runs that are under way."""

    list: Position
    next: int = 0
    last: int = 0
    waiting: dict[str, Waiting] = {}


class ScheduleRows(Protocol):
    """Where schedules are read from. All `async` methods raise SourceError."""

    most: int
    """Runs of a schedule that can be asked for by their ids in a turn."""

    async def listed(self) -> tuple[dict[str, Schedule], int]:
        """Schedules by id, and AgentOS's clock in microseconds."""

    def chosen(self, listed: Mapping[str, Schedule], known: Mapping[str, FollowedSchedule], now: int) -> Sequence[str]:
        """Ids of the schedules whose runs are read in this turn."""

    async def runs(self, positions: Mapping[str, Position]) -> Mapping[str, tuple[Sequence[Run], Position]]:
        """Runs that may be new, by schedule; one that was deleted just now is left out."""

    async def runs_by_id(self, schedule: str, ids: Collection[str]) -> Mapping[str, Run]:
        """Those of these runs that are found."""


class _State(msgspec.Struct):
    since: int
    schedules: dict[str, FollowedSchedule] = {}


class Schedules:
    """The schedules of one AgentOS."""

    def __init__(self, rows: ScheduleRows) -> None:
        self._rows = rows

    async def read(self, position: Mapping[str, Any] | None, since: int) -> Reading:
        """See OperationsSource; `since` is where counting begins, in microseconds. Raises SourceError."""
        before = _State(since) if position is None else msgspec.convert(position, _State)
        listed, now = await self._rows.listed()
        start = _read_to(before.schedules.values(), beginning(before.since).read_to)
        followed_schedules = {
            id_: before.schedules.get(id_) or FollowedSchedule(Position(start), next=-1) for id_ in listed
        }
        ended: list[Ended] = []
        followed = Followed()
        for gone in before.schedules.keys() - listed.keys():
            for _ in before.schedules[gone].waiting:
                followed.count_lost("gone")
        chosen = self._rows.chosen(listed, followed_schedules, now)
        runs = await self._rows.runs({id_: followed_schedules[id_].list for id_ in chosen})
        for id_, (rows, read_to) in runs.items():
            followed_schedules[id_] = await self._settle(
                id_, listed[id_], followed_schedules[id_], rows, read_to, ended, followed, now
            )
        return Reading(
            position=msgspec.to_builtins(_State(before.since, followed_schedules)),
            ended=ended,
            gauges=_gauges(listed, followed_schedules),
            born=_born(listed, before),
            lost=followed.lost,
            forget_before=_read_to(followed_schedules.values(), before.since) - KEPT,
            doubtful=bool(before.schedules) and not listed,
        )

    async def _settle(
        self,
        id_: str,
        schedule: Schedule,
        before: FollowedSchedule,
        rows: Sequence[Run],
        read_to: Position,
        ended: list[Ended],
        followed: Followed,
        now: int,
    ) -> FollowedSchedule:
        """Sort the runs of one schedule; ended ones are added to `ended`, lost ones to `followed`."""
        name = _name(schedule)
        waiting: dict[str, Waiting] = {}
        done: dict[str, Ended] = {}
        last = before.last
        for row in rows:
            if (run_id := identifier(row.id)) is None or (created := row.created) is None:
                continue
            last = max(last, min(row.triggered, now))
            if row.under_way:
                waiting[run_id] = Waiting(created)
            else:
                done[run_id] = _ended(run_id, created, name, row)

        async def find(asked: Mapping[str, Waiting]) -> dict[str, Ended | None]:
            runs = await self._rows.runs_by_id(id_, asked)
            return {
                run_id: None if run.under_way else _ended(run_id, asked[run_id].created, name, run)
                for run_id, run in runs.items()
            }

        missing = {run_id: run for run_id, run in before.waiting.items() if run_id not in waiting | done}
        asked_for = await follow(missing, find, most=self._rows.most, believed=read_to.some)
        for run_id, run in list((waiting | asked_for.waiting).items()):
            waiting[run_id] = run
            if now - run.created > STUCK_AFTER:
                del waiting[run_id]
                asked_for.count_lost("stuck")
        ended.extend((done | asked_for.ended).values())
        for reason, number in asked_for.lost.items():
            followed.lost[reason] = followed.lost.get(reason, 0) + number
        return FollowedSchedule(read_to, schedule.next_run or 0, last, waiting)


def _read_to(schedules: Iterable[FollowedSchedule], otherwise: int) -> int:
    """How far all schedules are read that ever ran. One that is new was made later, so it begins there."""
    return min((schedule.list.read_to for schedule in schedules if schedule.last), default=otherwise)


def _name(schedule: Schedule) -> str:
    return clean_name(schedule.name) if isinstance(schedule.name, str) else ""


def _born(listed: Mapping[str, Schedule], before: _State) -> list[Labels]:
    new = listed.keys() - before.schedules.keys()
    return [(_name(listed[id_]), status) for id_ in new for status in ("success", "failed")]


def _ended(id_: str, created: int, name: str, run: Run) -> Ended:
    return Ended(id_, created, (name, run.status if run.status in RUN_STATUSES else OTHER))


def _gauges(listed: Mapping[str, Schedule], known: Mapping[str, FollowedSchedule]) -> dict[str, dict[Labels, float]]:
    """Names are those of their owner: of several schedules with one name, the next and the last run count."""
    enabled: dict[Labels, float] = {}
    following: dict[Labels, float] = {}
    last: dict[Labels, float] = {}
    for id_, schedule in listed.items():
        labels = (_name(schedule),)
        enabled[labels] = max(enabled.get(labels, 0), int(schedule.enabled is True))
        if schedule.enabled is True and (at := schedule.next_run) is not None:
            following[labels] = min(following.get(labels, at), at)
        if known[id_].last:
            last[labels] = max(last.get(labels, 0), known[id_].last)
    return {
        "agentos_schedule_enabled": enabled,
        "agentos_schedule_next_run_timestamp_seconds": following,
        "agentos_schedule_last_run_timestamp_seconds": last,
    }
