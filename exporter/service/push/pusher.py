"""All targets of `push`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from exporter import __version__
from exporter.config.settings import Protocol
from exporter.service.push.target import Target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exporter.bookkeeping.shared import Shared
    from exporter.config import Push
    from exporter.service.jobs import Jobs
    from exporter.service.publisher import Publisher

TICK: Final = 1.0
"""Seconds between two looks whether it is time to push."""
STOP_SECONDS: Final = 2.0
"""Most seconds for the last push."""
_NAME: Final = "agentos-exporter"


class Pusher:
    """Sends the published metrics to all targets, each in its own job, so that no target delays another."""

    def __init__(self, pushes: Sequence[Push], instance: str, publisher: Publisher, shared: Shared, jobs: Jobs) -> None:
        """Push to all configured targets.

        Args:
            pushes: The targets.
            instance: Name of this exporter among others.
            publisher: Has the snapshots.
            shared: What all instances share.
            jobs: Takes a job for each target.

        Raises:
            ConfigError: A target cannot be used as configured.

        """
        self._publisher = publisher
        self._targets = [Target(push, _labels(push.protocol, instance), publisher, shared) for push in pushes]
        for target in self._targets:
            jobs.add(f"push {target.name}", target.work, TICK)

    async def refresh(self) -> None:
        """Set the gauges that change with time alone."""
        for target in self._targets:
            target.refresh()

    async def finish(self) -> None:
        """Send what there is at the end, in `STOP_SECONDS`, and close the connections."""
        try:
            async with asyncio.timeout(STOP_SECONDS):
                if self._targets:
                    await self._publisher.publish()
                await asyncio.gather(*(target.finish() for target in self._targets))
        except TimeoutError:
            pass
        await asyncio.gather(*(target.aclose() for target in self._targets))


def _labels(protocol: Protocol, instance: str) -> dict[str, str]:
    """How the exporter is known to a target."""
    if protocol is Protocol.REMOTE_WRITE:
        return {"job": _NAME, "instance": instance}
    return {"service.name": _NAME, "service.version": __version__, "service.instance.id": instance}
