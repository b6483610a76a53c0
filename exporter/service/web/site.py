"""The interface between the web server and the daemon, and the paths of the routes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from exporter.metrics.render import Rendered

NAME: Final = "agentos-exporter"


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    """One AgentOS as the landing page shows it.

    `state` is `ok`, `starting` or the outcome of the last poll, `url` how it is reached (user and password are never
    shown), times are in seconds since the epoch and None where there was none, `error` is '' while all is well.
    """

    name: str
    url: str
    state: str
    last_poll: float | None = None
    last_success: float | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Paths:
    """Where the routes lie.

    Attributes:
        prefix: Stands before all of them; no slash at its end.
        telemetry: The metrics, below the prefix.
        external: The prefix as browsers see it, which a proxy may change.

    """

    prefix: str = ""
    telemetry: str = "/metrics"
    external: str = ""


class Site(Protocol):
    """What the web server needs from the daemon. Every call runs in the event loop and must return at once."""

    @property
    def version(self) -> str:
        """Version of the exporter."""

    def rendered(self) -> Rendered | None:
        """What /metrics sends now; None before anything was rendered."""

    def scraped(self) -> None:
        """A GET of /metrics is about to be answered with what `rendered` has just returned."""

    def ready(self) -> bool:
        """Whether the state is loaded and a first poll of each AgentOS has ended."""

    def instances(self) -> Sequence[InstanceStatus]:
        """Every configured AgentOS."""
