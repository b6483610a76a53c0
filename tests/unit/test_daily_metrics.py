"""AgentOS's own daily metrics: what is read of them, and what they say as a statement."""

import datetime as dt
import json

import pytest

from exporter.core.errors import BadAnswer
from exporter.reconcile.agentos import statement
from exporter.reconcile.figures import Measure
from exporter.sources.api.daily import DailyMetrics, read_daily
from exporter.sources.api.http import Answer

FIRST, LAST = dt.date(2026, 11, 17), dt.date(2026, 11, 19)


class Api:
    """Answers with bodies, one after the other, and notes what it was asked for."""

    def __init__(self, *bodies):
        self.bodies = list(bodies)
        self.asked = []

    async def get(self, path, params, *, endpoint, **_bounds):
        self.asked.append((path, params, endpoint))
        body = self.bodies.pop(0)
        return Answer(body if isinstance(body, bytes) else json.dumps(body).encode(), None, 0.0)


def day(number, **more):
    """Return a day as agno 3.1.10 answers with it."""
    return {
        "id": f"2026-11-{number}_daily",
        "agent_runs_count": 5,
        "agent_sessions_count": 4,
        "team_runs_count": 2,
        "team_sessions_count": 1,
        "workflow_runs_count": 1,
        "workflow_sessions_count": 1,
        "users_count": 1,
        "token_metrics": {"input_tokens": 448, "output_tokens": 148, "total_tokens": 596, "cache_read_tokens": 7},
        "model_metrics": [
            {"model_id": "gpt-5.4", "model_provider": "OpenAI", "count": 5},
            {"model_id": "gpt-5.4", "model_provider": "OpenAI Responses", "count": 1},
        ],
        "date": f"2026-11-{number}T00:00:00Z",
        "created_at": "2026-11-20T12:38:52Z",
        "updated_at": "2026-11-20T12:49:01Z",
        **more,
    }


async def read(*bodies, places=({},)):
    api = Api(*bodies)
    return await read_daily(api, places, FIRST, LAST), api


async def test_the_days_of_all_databases_are_read_each_with_one_request():
    places = ({"db_id": "one"}, {"db_id": "two"})
    found, api = await read({"metrics": [day(17)]}, {"metrics": [day(17), day(19)]}, places=places)
    assert found == [DailyMetrics(dt.date(2026, 11, number), 8, 448, 148, ("gpt-5.4",)) for number in (17, 17, 19)]
    period = {"starting_date": "2026-11-17", "ending_date": "2026-11-19"}
    assert api.asked == [("/metrics", {**period, "db_id": name}, "metrics") for name in ("one", "two")]


@pytest.mark.parametrize(
    "body",
    [
        b"# HELP up\n",
        {"metrics": None},
        {"metrics": [{"agent_runs_count": 1}]},
        {"metrics": [day(17, agent_runs_count="many")]},
        {"metrics": [day(17, token_metrics={"input_tokens": 1.5})]},
    ],
)
async def test_another_answer_is_refused(body):
    with pytest.raises(BadAnswer, match="the answer is not that of an AgentOS"):
        await read(body)


async def test_days_without_a_session_are_0_and_those_of_several_databases_add_up():
    found, _ = await read({"metrics": [day(17), day(17), day(18)]})
    stated = statement(found, FIRST, LAST)
    assert stated.rows == {
        (dt.date(2026, 11, 17), ""): {Measure.RUNS: 16, Measure.PROMPT: 896, Measure.COMPLETION: 296},
        (dt.date(2026, 11, 18), ""): {Measure.RUNS: 8, Measure.PROMPT: 448, Measure.COMPLETION: 148},
        (dt.date(2026, 11, 19), ""): {Measure.RUNS: 0, Measure.PROMPT: 0, Measure.COMPLETION: 0},
    }
    assert stated.models == {"gpt-5.4"}
    assert stated.days == {dt.date(2026, 11, number) for number in (17, 18, 19)}


def test_an_agentos_without_any_day_says_nothing():
    assert statement([], FIRST, LAST).days == frozenset()
