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
class _InstanceList:
    """One list of instances, and its last content.

    Attributes:
        groups: By file or URL, the groups that were last read there. If reading fails, the earlier groups stay.
        stamps: By file, the time of its last change, and its size.

    """

    discovery: Discovery
    groups: dict[str, list[lists.Group]] = field(default_factory=dict)
    agentos: tuple[AgentOS, ...] = ()
    failed: bool = False
    tried: bool = False
    read_at: float = float("-inf")
    stamps: dict[Path, tuple[int, int]] = field(default_factory=dict)
    said: tuple[str, ...] = ()

    def resolve(self) -> list[str]:
        """Make instances of the groups; return the problems of single targets."""
        groups = [group for some in self.groups.values() for group in some]
        named, refused = instances(groups, self.discovery, os.environ)
        self.agentos = tuple(named)
        return refused


class Discoverer:
    """All lists of a configuration. If a list cannot be read, its earlier instances stay."""

    def __init__(self, shared: Shared, jobs: Jobs) -> None:
        self._shared = shared
        self._jobs = jobs
        self._lists: dict[str, _InstanceList] = {}

    @property
    def tried(self) -> bool:
        """Whether each list was read once, well or badly."""
        return all(instance_list.tried for instance_list in self._lists.values())

    def instances(
        self, listed: Sequence[AgentOS], lists: Mapping[str, _InstanceList] | None = None
    ) -> tuple[AgentOS, ...]:
        """Those that are `listed` in the configuration, and those that lists name; the first of a name counts."""
        named = {agentos.name: agentos for agentos in listed}
        for instance_list in (self._lists if lists is None else lists).values():
            for agentos in instance_list.agentos:
                named.setdefault(agentos.name, agentos)
        return tuple(named.values())

    async def prepare(self, discoveries: Sequence[Discovery], *, endpoints: bool = False) -> dict[str, _InstanceList]:
        """These lists with their known content. Files are read, and with `endpoints` addresses too.

        Nothing takes effect by this.
        """
        lists: dict[str, _InstanceList] = {}
        for discovery in discoveries:
            name = f"discovery {discovery.mechanism} {' '.join(discovery.where)}"
            while name in lists:
                name += " again"
            old = self._lists.get(name)
            if old is None:
                instance_list = _InstanceList(discovery)
                if endpoints or discovery.mechanism == "file":
                    await self._read_anew(instance_list, await asyncio.to_thread(_stamps, discovery))
            else:
                instance_list = replace(old, discovery=discovery, groups=dict(old.groups))
                instance_list.resolve()
            lists[name] = instance_list
        return lists

    async def use(self, lists: dict[str, _InstanceList]) -> None:
        """Follow these lists from now on, endpoints as soon as the jobs run."""
        for name, old in self._lists.items():
            if name not in lists or lists[name].discovery.refresh != old.discovery.refresh:
                await self._jobs.remove(name, cancel=True)
        before, self._lists = self._lists, lists
        for name, instance_list in lists.items():
            if name not in before or before[name].discovery.refresh != instance_list.discovery.refresh:
                self._jobs.add(name, functools.partial(self._refresh, name), min(LOOK, instance_list.discovery.refresh))
        self._show()

    async def _refresh(self, name: str) -> None:
        instance_list = self._lists[name]
        stamps = await asyncio.to_thread(_stamps, instance_list.discovery)
        due = self._shared.clock.monotonic() - instance_list.read_at >= instance_list.discovery.refresh
        # A file that could not be read before may be readable now with the same stamps.
        if due or stamps != instance_list.stamps or (stamps and instance_list.failed):
            await self._read_anew(instance_list, stamps)
            self._show()

    async def _read_anew(self, instance_list: _InstanceList, stamps: dict[Path, tuple[int, int]]) -> None:
        """`stamps` are of before the files are read: a change in between is noticed the next time."""
        instance_list.read_at, instance_list.tried, instance_list.failed, instance_list.stamps = (
            self._shared.clock.monotonic(),
            True,
            True,
            stamps,
        )
        before = instance_list.agentos
        problems = await self._read(instance_list) + instance_list.resolve()
        if problems and tuple(problems) != instance_list.said:
            log.warning("discovery", source=str(instance_list.discovery), problems=problems)
        instance_list.said = tuple(problems)
        if instance_list.agentos != before:
            log.info("discovery", source=str(instance_list.discovery), instances=len(instance_list.agentos))

    async def _read(self, instance_list: _InstanceList) -> list[str]:
        """Read all files of a list, or its address; return the problems."""
        of_files = instance_list.discovery.mechanism == "file"
        try:
            paths = await asyncio.to_thread(lists.paths, instance_list.discovery.where) if of_files else []
        except SourceError as error:
            return [str(error)]
        wanted = [str(path) for path in paths] if of_files else [instance_list.discovery.where[0]]
        instance_list.groups = {where: groups for where, groups in instance_list.groups.items() if where in wanted}
        instance_list.failed = False
        problems: list[str] = []
        for where in wanted:
            try:
                if of_files:
                    instance_list.groups[where], wrong = await asyncio.to_thread(lists.read, Path(where))
                else:
                    instance_list.groups[where], wrong = await self._fetch(instance_list.discovery)
                problems += wrong
            except SourceError as error:
                instance_list.failed = True
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
            some = [
                instance_list.failed
                for instance_list in self._lists.values()
                if instance_list.discovery.mechanism == mechanism
            ]
            self._shared.totals.gauge(_SUCCESSFUL, (mechanism,), int(not any(some)) if some else None)


def _stamps(discovery: Discovery) -> dict[Path, tuple[int, int]]:
    """When the files of a list were changed, and their sizes."""
    if discovery.mechanism != "file":
        return {}
    stamps = {}
    with contextlib.suppress(SourceError):
        for path in lists.paths(discovery.where):
            with contextlib.suppress(OSError):
                status = path.stat()
                stamps[path] = (status.st_mtime_ns, status.st_size)
    return stamps
