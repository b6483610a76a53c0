"""Lists of AgentOS instances, read again when they change or their time has come."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from exporter.config.discovery import instances
from exporter.config.secrets import read_secret
from exporter.core.document import RefusedError
from exporter.core.errors import SourceError, Unauthorized
from exporter.core.logs import register_secret
from exporter.sources import discovery as lists

if TYPE_CHECKING:
    from exporter.bookkeeping.shared import Shared
    from exporter.config import AgentOS, Discovery
    from exporter.service.jobs import Jobs

log = structlog.get_logger(__name__)

LOOK: Final = 5.0
"""Seconds between two looks whether a file has changed."""
_SUCCESSFUL: Final = "agentos_exporter_discovery_last_refresh_successful"


@dataclass(slots=True)
class _List:
    """One list, and what it said last.

    Attributes:
        groups: By file or URL, what was last read there. One that cannot be read keeps what it said before.
        stamps: By file, when it was changed, and its size.

    """

    discovery: Discovery
    groups: dict[str, list[lists.Group]] = field(default_factory=dict)
    found: tuple[AgentOS, ...] = ()
    failed: bool = False
    tried: bool = False
    read_at: float = float("-inf")
    stamps: dict[Path, tuple[int, int]] = field(default_factory=dict)
    said: tuple[str, ...] = ()

    def resolve(self) -> list[str]:
        """Make instances of the groups; what is wrong with single targets."""
        groups = [group for some in self.groups.values() for group in some]
        found, refused = instances(groups, self.discovery, os.environ)
        self.found = tuple(found)
        return refused


class Discoverer:
    """All lists of a configuration. What cannot be read leaves what was found before."""

    def __init__(self, shared: Shared, jobs: Jobs) -> None:
        self._shared = shared
        self._jobs = jobs
        self._lists: dict[str, _List] = {}

    @property
    def tried(self) -> bool:
        """Whether each list was read once, well or badly."""
        return all(one.tried for one in self._lists.values())

    def instances(self, listed: Sequence[AgentOS], lists: Mapping[str, _List] | None = None) -> tuple[AgentOS, ...]:
        """Those that are `listed` in the configuration, and those that lists name; the first of a name counts."""
        named = {one.name: one for one in listed}
        for one in (self._lists if lists is None else lists).values():
            for agentos in one.found:
                named.setdefault(agentos.name, agentos)
        return tuple(named.values())

    async def prepare(self, discoveries: Sequence[Discovery], *, endpoints: bool = False) -> dict[str, _List]:
        """These lists, with what is known of them already; files are read, and `endpoints` as well where that is asked.

        Nothing changes by it.
        """
        lists: dict[str, _List] = {}
        for discovery in discoveries:
            name = f"discovery {discovery.mechanism} {' '.join(discovery.where)}"
            while name in lists:
                name += " again"
            old = self._lists.get(name)
            if old is None:
                one = _List(discovery)
                if endpoints or discovery.mechanism == "file":
                    await self._read_anew(one, await asyncio.to_thread(_stamps, discovery))
            else:
                one = replace(old, discovery=discovery, groups=dict(old.groups))
                one.resolve()
            lists[name] = one
        return lists

    async def use(self, lists: dict[str, _List]) -> None:
        """Follow these lists from now on, endpoints as soon as the jobs run."""
        for name, old in self._lists.items():
            if name not in lists or lists[name].discovery.refresh != old.discovery.refresh:
                await self._jobs.remove(name, cancel=True)
        before, self._lists = self._lists, lists
        for name, one in lists.items():
            if name not in before or before[name].discovery.refresh != one.discovery.refresh:
                self._jobs.add(name, functools.partial(self._refresh, name), min(LOOK, one.discovery.refresh))
        self._show()

    async def _refresh(self, name: str) -> None:
        one = self._lists[name]
        stamps = await asyncio.to_thread(_stamps, one.discovery)
        due = self._shared.clock.monotonic() - one.read_at >= one.discovery.refresh
        # A file that could not be read may be readable now, and look as before.
        if due or stamps != one.stamps or (stamps and one.failed):
            await self._read_anew(one, stamps)
            self._show()

    async def _read_anew(self, one: _List, stamps: dict[Path, tuple[int, int]]) -> None:
        """`stamps` are of before the files are read: a change in between is noticed the next time."""
        one.read_at, one.tried, one.failed, one.stamps = self._shared.clock.monotonic(), True, True, stamps
        before = one.found
        problems = await self._read(one) + one.resolve()
        if problems and tuple(problems) != one.said:
            log.warning("discovery", source=str(one.discovery), problems=problems)
        one.said = tuple(problems)
        if one.found != before:
            log.info("discovery", source=str(one.discovery), instances=len(one.found))

    async def _read(self, one: _List) -> list[str]:
        """Read all that a list consists of; what is wrong with it."""
        of_files = one.discovery.mechanism == "file"
        try:
            paths = await asyncio.to_thread(lists.paths, one.discovery.where) if of_files else []
        except SourceError as error:
            return [str(error)]
        wanted = [str(path) for path in paths] if of_files else [one.discovery.where[0]]
        one.groups = {where: groups for where, groups in one.groups.items() if where in wanted}
        one.failed = False
        problems: list[str] = []
        for where in wanted:
            try:
                if of_files:
                    one.groups[where], wrong = await asyncio.to_thread(lists.read, Path(where))
                else:
                    one.groups[where], wrong = await self._fetch(one.discovery)
                problems += wrong
            except SourceError as error:
                one.failed = True
                problems.append(str(error))
        return problems

    @staticmethod
    async def _fetch(discovery: Discovery) -> tuple[list[lists.Group], list[str]]:
        """Raises SourceError."""
        token = None
        if discovery.token_file is not None:
            try:
                token = read_secret(discovery.token_file, "token")
            except RefusedError as error:
                raise Unauthorized(str(error)) from None
            register_secret(token)
        return await lists.fetch(discovery.where[0], token=token, refresh=discovery.refresh)

    def _show(self) -> None:
        for mechanism in ("file", "http"):
            some = [one.failed for one in self._lists.values() if one.discovery.mechanism == mechanism]
            self._shared.totals.gauge(_SUCCESSFUL, (mechanism,), int(not any(some)) if some else None)


def _stamps(discovery: Discovery) -> dict[Path, tuple[int, int]]:
    """When the files of a list were changed, and their sizes."""
    if discovery.mechanism != "file":
        return {}
    stamps = {}
    with contextlib.suppress(SourceError):
        for path in lists.paths(discovery.where):
            with contextlib.suppress(OSError):
                found = path.stat()
                stamps[path] = (found.st_mtime_ns, found.st_size)
    return stamps
