"""Lists of AgentOS instances, read again when they change or their time has come."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
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
    read_at: float = float("-inf")
    stamps: dict[Path, tuple[int, int]] = field(default_factory=dict)
    said: tuple[str, ...] = ()


class Discoverer:
    """All lists of a configuration. What cannot be read leaves what was found before."""

    def __init__(self, shared: Shared, jobs: Jobs, changed: Callable[[], Awaitable[None]]) -> None:
        """`changed` is called when `instances` are others than before."""
        self._shared = shared
        self._jobs = jobs
        self._changed = changed
        self._lists: dict[str, _List] = {}

    def instances(self, listed: Sequence[AgentOS]) -> tuple[AgentOS, ...]:
        """Those that are `listed` in the configuration, and those that were found; the first of a name counts."""
        named = {one.name: one for one in listed}
        for one in self._lists.values():
            for agentos in one.found:
                named.setdefault(agentos.name, agentos)
        return tuple(named.values())

    async def use(self, discoveries: Sequence[Discovery]) -> None:
        """Read these lists from now on; files at once, endpoints as soon as the jobs run."""
        wanted = {f"discovery {number} {one}": one for number, one in enumerate(discoveries)}
        for name in self._lists.keys() - wanted.keys():
            await self._jobs.remove(name)
            del self._lists[name]
        for name, discovery in wanted.items():
            one = self._lists.get(name)
            if one is not None:
                if one.discovery != discovery:
                    one.discovery, one.read_at = discovery, float("-inf")
                    await self._refresh(one, tell=False)
                continue
            one = self._lists[name] = _List(discovery)
            self._jobs.add(name, functools.partial(self._refresh, one), min(LOOK, discovery.refresh))
            if discovery.mechanism == "file":
                await self._refresh(one, tell=False)
        self._show()

    async def _refresh(self, one: _List, *, tell: bool = True) -> None:
        now = self._shared.clock.monotonic()
        stamps = await asyncio.to_thread(_stamps, one.discovery)
        if stamps == one.stamps and now - one.read_at < one.discovery.refresh:
            return
        one.read_at, one.stamps = now, stamps
        problems = await self._read(one)
        before = one.found
        found, refused = instances([group for some in one.groups.values() for group in some], one.discovery, os.environ)
        one.found = tuple(found)
        problems += refused
        if problems and tuple(problems) != one.said:
            log.warning("discovery", source=str(one.discovery), problems=problems)
        one.said = tuple(problems)
        self._show()
        if one.found != before:
            log.info("discovery", source=str(one.discovery), instances=len(one.found))
            if tell:
                await self._changed()

    async def _read(self, one: _List) -> list[str]:
        """Read all that a list consists of; what is wrong with it."""
        of_files = one.discovery.mechanism == "file"
        paths = await asyncio.to_thread(lists.paths, one.discovery.where) if of_files else []
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
    for path in lists.paths(discovery.where):
        try:
            found = path.stat()
        except OSError:
            continue
        stamps[path] = (found.st_mtime_ns, found.st_size)
    return stamps
