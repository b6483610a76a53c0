"""AgentOS's own daily metrics: GET /metrics, whose figures are sums over the sessions that began on a day.

In agno 3.1.10, a session's tokens and all its runs count on the day (UTC) on which the session began, even if the runs
are later. A day is computed again until it is over, when it is read and at most once a minute; after that it stays.
Deleted sessions are in no day that is computed later. Days on which no session began are left out. Runs are rows of the
table of runs: those of team members, nested agents and agents of steps count as well, workflows may not.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from exporter.core.errors import BadAnswer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from exporter.sources.api.http import Api

ENDPOINT: Final = "metrics"
_MOST_BYTES: Final = 16 * 1024 * 1024
_TIMEOUT: Final = 60.0
"""Seconds: AgentOS may work out its figures before it answers."""


class DailyMetrics(NamedTuple):
    """What AgentOS says of one day.

    `prompt` and `completion` are tokens as the providers report them; `models` are those of its runs, not of all calls.
    """

    day: dt.date
    runs: int
    prompt: int
    completion: int
    models: tuple[str, ...]


class _Model(msgspec.Struct):
    model_id: str = ""


class _Tokens(msgspec.Struct):
    input_tokens: int = 0
    output_tokens: int = 0


class _Day(msgspec.Struct):
    date: dt.datetime
    agent_runs_count: int = 0
    team_runs_count: int = 0
    workflow_runs_count: int = 0
    token_metrics: _Tokens = msgspec.field(default_factory=_Tokens)
    model_metrics: list[_Model] = msgspec.field(default_factory=list)


class _Answer(msgspec.Struct):
    metrics: list[_Day]


_decoder: Final = msgspec.json.Decoder(_Answer)


async def read_daily(
    api: Api, places: Iterable[Mapping[str, str]], first: dt.date, last: dt.date
) -> Sequence[DailyMetrics]:
    """AgentOS's own daily metrics: the days on which a session began, in one request for each database.

    Args:
        api: Sends the requests.
        places: The databases, as parameters of a request.
        first: The first day.
        last: The last day.

    Raises:
        SourceError: AgentOS does not answer.

    """
    days: list[DailyMetrics] = []
    for place in places:
        params = {"starting_date": first.isoformat(), "ending_date": last.isoformat(), **place}
        answer = await api.get("/metrics", params, endpoint=ENDPOINT, timeout=_TIMEOUT, most=_MOST_BYTES)
        try:
            days += map(_day, _decoder.decode(answer.body).metrics)
        except (msgspec.DecodeError, RecursionError) as error:
            raise BadAnswer("/metrics: the answer is not that of an AgentOS; is this its URL?") from error
    return days


def _day(day: _Day) -> DailyMetrics:
    models = dict.fromkeys(model.model_id for model in day.model_metrics)
    runs = day.agent_runs_count + day.team_runs_count + day.workflow_runs_count
    tokens = day.token_metrics
    return DailyMetrics(day.date.date(), runs, tokens.input_tokens, tokens.output_tokens, tuple(models))
