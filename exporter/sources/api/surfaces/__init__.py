"""What AgentOS tells of itself beside traces, over its HTTP API.

What its routes answer, measured on agno 3.1.10, 2.6.22 and 2.3.26 with SQLite:

| route | order | where it is not | when its database fails |
|---|---|---|---|
| /approvals | created_at | 503 "not available: pass a `db`" | 500; 200 and empty after a restart |
| /approvals/{id} | | | 404, as for an id that is not there |
| /schedules | created_at, id | 503, likewise | 200 and empty |
| /schedules/{id}/runs | created_at | | 404 "Schedule not found" |
| /queue/stats, /queue/jobs | as asked for | 503; 404 on 2.6 | 200, no counts, an empty list |
| /eval-runs | as asked for | 404 | 500; beyond its last page it counts 0 rows |
| /knowledge/content | as asked for | 404; 400 on 2.3 | 500 |
| /user_memory_stats, /memories | | 404 | 500 |

Lists have the newest row first and, but for schedules, no tie-break. An emptiness after rows is doubtful: the caller
believes it only if it lasts, and traces can be read meanwhile.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from exporter.core.errors import ServerFailed, SourceError, Unauthorized
from exporter.sources.api.http import UnknownRoute
from exporter.sources.api.surfaces.approvals import ListedApprovals
from exporter.sources.api.surfaces.evals import ListedEvals
from exporter.sources.api.surfaces.holdings import Knowledge, Memory
from exporter.sources.api.surfaces.lists import Lists
from exporter.sources.api.surfaces.queue import ListedJobs
from exporter.sources.api.surfaces.schedules import ListedSchedules
from exporter.sources.operations import (
    APPROVALS,
    EVALS,
    KNOWLEDGE,
    MEMORY,
    QUEUE,
    SCHEDULES,
    SCOPES,
    NoSurface,
    Reading,
    Refused,
)
from exporter.sources.surfaces.approvals import Approvals
from exporter.sources.surfaces.evals import Evals
from exporter.sources.surfaces.queue import Queue
from exporter.sources.surfaces.schedules import Schedules

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from exporter.core.model import Clock
    from exporter.sources.api.http import Api

_NOT_THERE: Final = ("not available: pass a", "not supported by the configured database")
"""The text of a 503 for a part that is not configured."""


class ApiSurfaces:
    """The surfaces of one AgentOS. See OperationsSource."""

    surfaces = tuple(SCOPES)

    def __init__(
        self, api: Api, clock: Clock, *, lookback: int, places: Callable[[str], Sequence[Mapping[str, str]]]
    ) -> None:
        """Read approvals, schedules and the like of one AgentOS.

        Args:
            api: Sends the requests.
            clock: The clocks.
            lookback: Microseconds of history that are read at first.
            places: Names the databases of a part, as parameters of a request.

        """
        self._clock = clock
        self._places = places
        self._lookback = lookback
        lists = Lists(api, clock)
        self._ending = {
            APPROVALS: Approvals(ListedApprovals(lists)).read,
            SCHEDULES: Schedules(ListedSchedules(lists)).read,
            QUEUE: Queue(ListedJobs(lists)).read,
            EVALS: Evals(ListedEvals(lists, lambda: _existing(places("evals")))).read,
        }
        self._holding = {
            KNOWLEDGE: Knowledge(lists, lambda: _existing(places("knowledge"))).read,
            MEMORY: Memory(lists, lambda: _existing(places("memory"))).read,
        }

    async def read(self, surface: str, position: Mapping[str, Any] | None) -> Reading:
        """See OperationsSource."""
        try:
            if surface == QUEUE:
                _existing(self._places("queue"))
            if surface in self._holding:
                return await self._holding[surface]()
            return await self._ending[surface](position, self._clock.now_us() - self._lookback)
        except UnknownRoute as error:
            raise NoSurface(_reason(error)) from error
        except Unauthorized as error:
            raise Refused(f"{_reason(error)}; the token needs the scope {SCOPES[surface]}") from error
        except ServerFailed as error:
            if error.status != HTTPStatus.SERVICE_UNAVAILABLE:
                raise
            kind: type[SourceError] = NoSurface if any(phrase in str(error) for phrase in _NOT_THERE) else Refused
            raise kind(str(error)) from error


def _existing(places: Sequence[Mapping[str, str]]) -> Sequence[Mapping[str, str]]:
    """The places. Raises NoSurface if there is none."""
    if not places:
        raise NoSurface("config: AgentOS says that it has none")
    return places


def _reason(error: SourceError) -> str:
    """The text of a refusal without its cure, which is one for traces."""
    return str(error).partition(";")[0]
