"""Details of runs: how they split tokens and money, and that calls which wait for them count once whatever happens."""

import json
import sqlite3
import tempfile
from collections import Counter
from dataclasses import replace
from decimal import Decimal

import pytest
import structlog
from agno.exceptions import CheckTrigger, InputCheckError
from agno.guardrails import PIIDetectionGuardrail, PromptInjectionGuardrail
from agno.run.agent import RunInput
from hypothesis import given
from hypothesis import strategies as st
from msgspec import json as msgspec_json
from msgspec import structs

from exporter import config
from exporter.bookkeeping.enrich import EXPIRE_EVERY, MOST_REQUESTS, OFF, PATIENCE, expire_quietly, no_details
from exporter.bookkeeping.intake import SESSION_IDLE
from exporter.core.errors import BadAnswer, NoDetails, ServerFailed, SourceTimeout, StateError, Unauthorized
from exporter.core.model import Span, SpanKind, TokenUsage, Trace
from exporter.counting.cashier import Cashier
from exporter.counting.runs import RunRecord
from exporter.counting.waiting import ModelUse, RunDetail, deal, split
from exporter.ledger.store import Ledger
from exporter.metrics.catalog import GUARDRAILS
from exporter.metrics.series import Limits
from exporter.metrics.totals import Totals
from exporter.pricing.money import USD
from exporter.sources.api import runs as wire
from tests.harness.details import (
    CASHIER,
    CLAUDE,
    COST,
    FIRST_TOKEN,
    OPENAI,
    PRICER,
    T0,
    TOKENS,
    Home,
    S,
    call,
    detail,
    run_of,
    use,
)
from tests.harness.examples import examples

RUN_COST, SESSION_COST = "agentos_run_cost_usd", "agentos_session_cost_usd"


# How tokens and money are split


def test_one_call_costs_what_it_costs_with_all_its_tokens_known():
    home = Home({"run1": detail(1, use("gpt-5.4", "OpenAI", 2000, 500, 1024))})
    home.read(run_of(1, call(2000, 500)))
    assert home.of("agentos_llm_calls_total", 0) == {"os": 1}
    assert home.observed("agentos_llm_call_input_tokens") == (1, 2000)
    assert (home.tokens(), home.cost()) == ({}, {})
    assert home.enrich() == 1
    assert home.asked == [("s", "run1", "db")]
    assert home.tokens() == {"input": 976, "cache_read": 1024, "output": 500}
    assert sum(home.cost().values()) == Decimal("0.010196")
    assert {source for _, source in home.cost()} == {"listed"}
    assert home.ledger.waiting("os") == []


def test_a_prompt_that_leaves_cached_tokens_out():
    home = Home({"run1": detail(1, use("claude-sonnet-4-5", "Anthropic", 50, 500, 100_000, 2000))})
    home.read(run_of(1, call(50, 500, **CLAUDE)))
    home.enrich()
    assert home.tokens() == {"input": 50, "cache_read": 100_000, "cache_write": 2000, "output": 500}
    assert sum(home.cost().values()) == Decimal("0.04515")


def test_reasoning_is_no_output_any_more():
    home = Home({"run1": detail(1, use("gpt-5.4", "OpenAI Chat", 100, 80, 0, 0, 30))})
    home.read(run_of(1, call(60, 50), call(40, 30)))
    home.enrich()
    assert home.tokens() == {"input": 100, "output": 50, "reasoning": 30}


def test_xai_leaves_reasoning_out_of_completion_and_the_total_has_it():
    grok = {"provider": "xai", "model": "grok-4", "model_class": "xAI"}
    home = Home({"run1": detail(1, use("grok-4", "xAI", 1000, 50, 400, total=1350))})
    home.read(run_of(1, call(1000, 50, **grok)))
    home.enrich()
    assert sum(home.cost().values()) == Decimal("0.00735")


def test_models_of_one_run_are_split_apart():
    uses = use("gpt-5.4", "OpenAI", 300, 30, 100), use("claude-sonnet-4-5", "Anthropic", 10, 5, 200)
    home = Home({"run1": detail(1, *uses)})
    home.read(run_of(1, call(100, 10), call(10, 5, **CLAUDE), call(200, 20)))
    home.enrich()
    assert home.of(TOKENS, 4, 5) == {
        ("gpt-5.4", "input"): 200,
        ("gpt-5.4", "cache_read"): 100,
        ("gpt-5.4", "output"): 30,
        ("claude-sonnet-4-5", "input"): 10,
        ("claude-sonnet-4-5", "cache_read"): 200,
        ("claude-sonnet-4-5", "output"): 5,
    }
    assert {source for _, source in home.cost()} == {"listed"}


def test_several_calls_in_one_tier_cost_exactly_their_sum():
    home = Home({"run1": detail(1, use("gpt-5.4", "OpenAI", 6000, 1500, 3072))})
    home.read(run_of(1, call(2000, 500), call(1000, 900), call(3000, 100)))
    home.enrich()
    assert sum(home.cost().values()) == 3 * Decimal("0.010196")
    assert {source for _, source in home.cost()} == {"listed"}


def test_calls_in_different_tiers_are_an_estimate_but_their_tokens_are_not():
    home = Home({"run1": detail(1, use("gpt-5.4", "OpenAI", 272_001 + 1000, 20, 1000))})
    home.read(run_of(1, call(272_001, 10), call(1000, 10)))
    home.enrich()
    assert home.tokens() == {"input": 272_001, "cache_read": 1000, "output": 20}
    assert {source for _, source in home.cost()} == {"estimated"}


def test_cached_tokens_may_lift_a_call_over_a_tier_where_the_prompt_leaves_them_out():
    spans = [Span(1, -1, SpanKind.LLM, "", T0 * S, T0 * S, usage=TokenUsage(1000, 1), **CLAUDE)] * 2
    tiered = next(p for p in (PRICER.quote("anthropic", "claude-sonnet-4-5", at=T0 * S),))
    assert CASHIER.one_price(spans, 10)
    assert CASHIER.one_price(spans, 10**6) is not tiered.rates.tiered


def test_prices_that_changed_between_two_calls_make_an_estimate():
    class Changing(Cashier):
        def one_price(self, spans, cached):
            return len({span.start for span in spans}) == 1

    home = Home({"run1": detail(1, use("gpt-5.4", "OpenAI", 200, 20, 50))})
    home.enricher._cashier = Changing(PRICER)
    home.read(run_of(1, call(100, 10), call(100, 10, start=5)))
    home.enrich()
    assert {source for _, source in home.cost()} == {"estimated"}
    assert home.tokens() == {"input": 150, "cache_read": 50, "output": 20}


def test_what_a_detail_reports_as_cost_is_shared_out():
    home = Home({"run1": detail(1, use("gpt-5.4", "OpenAI", 200, 20, cost=Decimal("0.00123")))})
    home.read(run_of(1, call(100, 10), call(100, 10)))
    home.enrich()
    assert home.cost() == {("", "reported"): Decimal("0.00123")}


def test_an_unpriced_model_has_its_tokens_split_too():
    own = {"provider": "openai", "model": "gpt-99", "model_class": "OpenAIChat"}
    home = Home({"run1": detail(1, use("gpt-99", "OpenAI", 100, 10, 40))})
    home.read(run_of(1, call(100, 10, **own)))
    home.enrich()
    assert home.of("agentos_llm_unpriced_tokens_total", 3) == {"input": 60, "cache_read": 40, "output": 10}
    assert home.cost() == {}


def test_the_label_of_the_provider_stays_that_of_the_span():
    own = {"provider": "cometapi", "model": "gpt-5.4", "model_class": "CometAPI"}
    home = Home({"run1": detail(1, use("gpt-5.4", "OpenAI", 100, 10, 40))})
    home.read(run_of(1, call(100, 10, **own)))
    home.enrich()
    assert home.of(TOKENS, 3, 5) == {
        ("cometapi", "input"): 60,
        ("cometapi", "cache_read"): 40,
        ("cometapi", "output"): 10,
    }


@pytest.mark.parametrize(
    ("uses", "calls"),
    [
        pytest.param([use("gpt-5.4", "OpenAI", 101, 10)], [call(100, 10)], id="other-input"),
        pytest.param([use("gpt-5.4", "OpenAI", 100, 11)], [call(100, 10)], id="other-output"),
        pytest.param([use("gpt-5.5", "OpenAI", 100, 10)], [call(100, 10)], id="other-model"),
        pytest.param([], [call(100, 10)], id="no-models"),
        pytest.param(
            [use("gpt-5.4", "OpenAI", 100, 10), use("gpt-5.4", "Azure", 100, 10)], [call(200, 20)], id="whose"
        ),
        pytest.param(
            [use("gpt-5.4", "OpenAI", 200, 20)],
            [call(100, 10), call(100, 10, provider="cometapi", model_class="CometAPI")],
            id="two-classes",
        ),
        pytest.param([use("", "", 110, 11)], [call(100, 10), call(10, 1, **CLAUDE)], id="models-not-told-apart"),
    ],
)
def test_a_detail_that_does_not_agree_is_not_used(uses, calls):
    home, plain = Home({"run1": detail(1, *uses)}), Home(enabled=False)
    home.read(run_of(1, *calls))
    plain.read(run_of(1, *calls))
    home.enrich()
    assert home.tokens() == {}
    assert home.expire(PATIENCE - EXPIRE_EVERY)
    assert (home.tokens(), home.cost()) == (plain.tokens(), plain.cost())
    assert {source for _, source in home.cost()} == {"estimated"}


def test_entries_of_one_model_with_one_provider_add_up():
    home = Home({"run1": detail(1, use("gpt-5.4", "OpenAI", 60, 6, 20), use("gpt-5.4", "openai", 40, 4, 5))})
    home.read(run_of(1, call(100, 10)))
    home.enrich()
    assert home.tokens() == {"input": 75, "cache_read": 25, "output": 10}


@given(st.integers(0, 10**9), st.lists(st.integers(0, 10**6), min_size=1, max_size=20))
def test_what_is_dealt_out_adds_up_and_fits(total, weights):
    parts = deal(total, weights)
    assert sum(parts) == total
    assert min(parts) >= 0
    if total <= sum(weights):
        assert all(part <= weight for part, weight in zip(parts, weights, strict=True))


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 5000)), min_size=1, max_size=6), st.data())
def test_shares_add_up_to_the_detail(tokens, data):
    prompt, completion = sum(p for p, _ in tokens), sum(c for _, c in tokens)
    read = data.draw(st.integers(0, prompt))
    write = data.draw(st.integers(0, prompt - read))
    thought = data.draw(st.integers(0, completion))
    home = Home()
    home.read(run_of(1, *(call(*token) for token in tokens)))
    found = use("gpt-5.4", "OpenAI", prompt, completion, read, write, thought)
    (group,) = split(detail(1, found), home.ledger.waiting("os"))
    total = Counter()
    for _, span in group.shares:
        total.update(CASHIER.price(span).classes._asdict())
    assert dict(total) == {
        "input": prompt - read - write,
        "cache_read": read,
        "cache_write": write,
        "output": completion - thought,
        "reasoning": thought,
    }


# Waiting


def test_what_is_late_goes_out_as_if_nobody_had_asked():
    home, plain = Home(), Home(enabled=False)
    for one in (home, plain):
        one.read(run_of(1, call(100, 10), call(200, 20)))
    home.enrich()
    for at in (5, 30, 60, 110):
        home.enrich(at)
        assert not home.expire()
    assert home.tokens() == {}
    assert home.expire(PATIENCE - EXPIRE_EVERY)
    assert (home.tokens(), home.cost()) == (plain.tokens(), plain.cost())
    assert not home.expire(PATIENCE + 1)
    home.details["run1"] = detail(1, use("gpt-5.4", "OpenAI", 300, 30, 100))
    home.enrich(PATIENCE + 2)
    assert home.tokens() == plain.tokens()


def test_two_minutes_are_two_minutes_across_a_restart():
    home = Home()
    home.read(run_of(1, call(100, 10)))
    home.now += 100
    home.open()
    assert not home.expire()
    home.now += 15
    home.open()
    assert home.expire()
    assert home.tokens() == {"input": 100, "output": 10}


def test_a_clock_that_goes_back_keeps_nobody_waiting_for_ever():
    home = Home()
    home.read(run_of(1, call(100, 10)))
    assert not home.expire(-60)
    assert home.expire(-3600)
    assert home.tokens() == {"input": 100, "output": 10}


def test_a_run_that_is_not_stored_yet_is_asked_for_less_and_less_often():
    home = Home()
    home.read(run_of(1, call(100, 10)))
    asked = [at for at in range(110) if home.enrich(at)]
    assert asked == [0, 2, 7, 17, 37, 67, 97]
    home.details["run1"] = detail(1, use("gpt-5.4", "OpenAI", 100, 10, 60))
    assert not home.expire(110)
    home.open()  # a start asks at once
    home.enrich()
    assert home.tokens() == {"input": 40, "cache_read": 60, "output": 10}


def test_calls_that_show_later_make_the_sum_complete():
    calls = [call(100, 10), call(200, 20)]
    home = Home({"run1": detail(1, use("gpt-5.4", "OpenAI", 300, 30, 90))})
    home.read(run_of(1, *calls, shown=1))
    home.enrich()
    assert home.tokens() == {}
    home.read(run_of(1, *calls), at=3)
    home.enrich()
    assert home.tokens() == {"input": 210, "cache_read": 90, "output": 30}


def test_without_ids_usage_or_enrichment_nothing_waits():
    for home, trace in (
        (Home(), run_of(1, call(100, 10), run_id=None, session=None)),
        (Home(), run_of(1, call(None, None))),
        (Home(enabled=False), run_of(1, call(100, 10))),
    ):
        home.read(trace)
        assert home.ledger.waiting("os") == []


def test_members_have_runs_of_their_own():
    team = Span(1, -1, SpanKind.TEAM, "Team", T0 * S, (T0 + 9) * S, run_id="outer", session_id="s")
    member = Span(2, 0, SpanKind.AGENT, "Member", T0 * S, (T0 + 9) * S, run_id="inner", session_id="s")
    calls = [
        Span(3, 0, SpanKind.LLM, "m", T0 * S, T0 * S, usage=TokenUsage(100, 10), **OPENAI),
        Span(4, 1, SpanKind.LLM, "m", T0 * S, T0 * S, usage=TokenUsage(200, 20), **OPENAI),
        Span(5, 3, SpanKind.LLM, "vendor", T0 * S, T0 * S, usage=TokenUsage(200, 20), **OPENAI),
    ]
    home = Home(
        {
            "outer": RunDetail("outer", None, (use("gpt-5.4", "OpenAI", 100, 10, 10),)),
            "inner": RunDetail("inner", None, (use("gpt-5.4", "OpenAI", 200, 20, 50),)),
        }
    )
    home.read(Trace("t", "db", T0 * S, (T0 + 9) * S, T0 * S, 5, (team, member, *calls)))
    home.enrich()
    assert home.of(TOKENS, 2, 5) == {
        ("Team", "input"): 90,
        ("Team", "cache_read"): 10,
        ("Team", "output"): 10,
        ("Member", "input"): 150,
        ("Member", "cache_read"): 50,
        ("Member", "output"): 20,
    }


def test_a_run_inside_a_workflow_is_looked_for_in_the_workflows_run():
    flow = Span(1, -1, SpanKind.WORKFLOW, "Flow", T0 * S, (T0 + 9) * S, run_id="flow", session_id="s")
    agent = Span(2, 0, SpanKind.AGENT, "Agent", T0 * S, (T0 + 9) * S, run_id="step", session_id="s")
    llm = Span(3, 1, SpanKind.LLM, "m", T0 * S, T0 * S, usage=TokenUsage(100, 10), **OPENAI)
    home = Home({"flow": [RunDetail("flow"), RunDetail("step", None, (use("gpt-5.4", "OpenAI", 100, 10, 10),))]})
    home.read(Trace("t", "db", T0 * S, (T0 + 9) * S, T0 * S, 3, (flow, agent, llm)))
    assert home.enrich() == 2
    assert home.tokens() == {"input": 90, "cache_read": 10, "output": 10}


def test_a_session_may_be_in_another_database_than_the_trace():
    home = Home(databases=("db", "other"))
    home.read(run_of(1, call(100, 10)))
    home.enrich()
    assert home.asked == [("s", "run1", "db"), ("s", "run1", "other")]


@pytest.mark.parametrize("together", [True, False])
def test_calls_of_several_traces_may_have_one_span_id(together):
    home = Home({"run1": detail(1, use("gpt-5.4", "OpenAI", 100, 10, 60))})
    copies = run_of(1, call(100, 10)), structs.replace(run_of(1, call(100, 10), run_id="run2"), id="t2")
    for some in [copies] if together else [[copy] for copy in copies]:
        home.read(*some)
    home.enrich()
    assert [one.trace for one in home.ledger.waiting("os")] == ["t2"]
    assert home.tokens() == {"input": 40, "cache_read": 60, "output": 10}
    assert home.expire(PATIENCE)
    assert home.tokens() == {"input": 140, "cache_read": 60, "output": 20}
    assert home.ledger.waiting("os") == []


@pytest.mark.parametrize("together", [True, False])
def test_a_detail_holds_for_each_copy_of_a_trace(together):
    home = Home({"run1": detail(1, use("gpt-5.4", "OpenAI", 300, 30, 180))})
    run = run_of(1, call(100, 10), call(200, 20))
    copies = run, structs.replace(run, id="t2")
    for at, some in enumerate([copies] if together else [[copy] for copy in copies]):
        home.read(*some)
        home.enrich(10 * at)
    assert home.tokens() == {"input": 240, "cache_read": 360, "output": 60}
    assert home.ledger.waiting("os") == []


SCHEMA_2 = """\
DROP TABLE layouts;
ALTER TABLE waiting RENAME TO later;
CREATE TABLE waiting (
    agentos TEXT NOT NULL, span TEXT NOT NULL, trace TEXT NOT NULL, session BIGINT, since BIGINT NOT NULL,
    data TEXT NOT NULL, PRIMARY KEY (agentos, span)
);
INSERT INTO waiting SELECT agentos, span, trace, session, since, data FROM later;
DROP TABLE later;
CREATE INDEX waiting_since ON waiting (agentos, since);
CREATE INDEX waiting_trace ON waiting (agentos, trace);
PRAGMA user_version = 2;
"""


DECODE_RUNS = msgspec_json.Decoder(dict[int, RunRecord]).decode
RUN_FIELDS, CALL_FIELDS = 7, 20
"""how many fields of a run, and of a call that waits, the schema before knew"""


def test_what_waits_in_a_state_file_of_the_schema_before_waits_on(tmp_path):
    home = Home()
    home.ledger = Ledger(tmp_path / "state.db")
    home.open()
    home.read(run_of(1, call(100, 10), call(200, 20)))
    before = home.ledger.waiting("os")
    home.ledger.close()
    with sqlite3.connect(tmp_path / "state.db") as connection:
        for key, runs in connection.execute("SELECT rowid, runs FROM traces").fetchall():
            lists = [[int(span), *structs.astuple(run)[:RUN_FIELDS]] for span, run in DECODE_RUNS(runs).items()]
            connection.execute("UPDATE traces SET runs = ? WHERE rowid = ?", (json.dumps(lists), key))
        for key, data in connection.execute("SELECT rowid, data FROM waiting").fetchall():
            values = list(json.loads(data).values())[:CALL_FIELDS]
            connection.execute("UPDATE waiting SET data = ? WHERE rowid = ?", (json.dumps(values), key))
        connection.executescript(SCHEMA_2)
    connection.close()
    home.ledger = Ledger(tmp_path / "state.db")
    home.open()
    assert len(before) == 2
    assert home.ledger.waiting("os") == [replace(call, run_start=0, outermost=False) for call in before]
    home.read(structs.replace(run_of(1, call(100, 10), run_id="run2"), id="t2"))
    assert home.expire(PATIENCE)
    assert home.tokens() == {"input": 400, "output": 40}
    home.ledger.close()


# Runs and sessions


def test_the_cost_of_a_run_is_observed_once_when_all_its_calls_are_known():
    home = Home()
    home.read(run_of(1, call(2000, 500), call(2000, 500)))
    home.read(settled=["t1"])
    assert home.observed("agentos_run_llm_calls") == (1, 2)
    assert home.observed(RUN_COST) == (0, 0)
    home.read(run_of(1, call(2000, 500), call(2000, 500)), settled=["t1"])
    home.details["run1"] = detail(1, use("gpt-5.4", "OpenAI", 4000, 1000, 2048))
    home.open()
    home.enrich()
    assert home.observed(RUN_COST) == (1, round(Decimal("0.020392") * USD))
    assert home.observed("agentos_run_llm_calls") == (1, 2)
    assert home.intake.prune("db", created_before=2**60) == 1


def test_the_cost_of_a_run_that_settles_later_is_observed_then():
    home = Home({"run1": detail(1, use("gpt-5.4", "OpenAI", 2000, 500, 1024))})
    home.read(run_of(1, call(2000, 500)))
    home.enrich()
    assert home.observed(RUN_COST) == (0, 0)
    home.read(settled=["t1"])
    assert home.observed(RUN_COST) == (1, round(Decimal("0.010196") * USD))


def test_a_run_is_not_forgotten_and_a_session_not_observed_while_cost_is_awaited():
    home = Home()
    home.read(run_of(1, call(2000, 500)))
    home.read(settled=["t1"])
    idle = (T0 + 9) * S + 2 * SESSION_IDLE
    assert home.intake.prune("db", created_before=2**60) == 0
    assert home.intake.observe_idle_sessions(idle) == 0
    home.expire(PATIENCE)
    assert home.intake.observe_idle_sessions(idle) == 1
    assert home.observed(SESSION_COST) == (1, round(Decimal("0.0125") * USD))
    assert home.observed("agentos_session_runs")[0] == 1
    assert home.intake.prune("db", created_before=2**60) == 1


def test_time_to_first_token_once_a_run():
    home = Home({"run1": detail(1, use("gpt-5.4", "OpenAI", 300, 30), first_token=250_000)})
    home.read(run_of(1, call(100, 10), call(200, 20), shown=1))
    home.enrich()  # does not agree yet, but the time is the run's
    assert home.observed(FIRST_TOKEN) == (1, 250_000)
    home.read(run_of(1, call(100, 10), call(200, 20)), at=3)
    home.open()
    home.enrich()
    assert home.tokens() == {"input": 300, "output": 30}
    assert home.observed(FIRST_TOKEN) == (1, 250_000)
    assert {series.labels for series in home.totals.stored() if series.metric == FIRST_TOKEN} == {
        ("os", "openai", "gpt-5.4")
    }


def test_history_shows_at_once_and_is_a_backlog_while_it_waits():
    home = Home()
    home.read(run_of(1, call(100, 10)), first=True)
    home.read(run_of(2, call(100, 10, model="gpt-5.4-mini")))
    home.enrich()
    assert home.enricher.history
    home.expire(PATIENCE)
    assert not home.enricher.history
    shown = {series.labels[4]: series.shown for series in home.totals.stored() if series.metric == TOKENS}
    assert shown == {"gpt-5.4": True, "gpt-5.4-mini": False}


# What AgentOS answers, and what it costs


def test_requests_of_a_poll_are_bounded_and_those_that_wait_longest_come_first():
    many = {f"run{n}": detail(n, use("gpt-5.4", "OpenAI", 100, 10, n)) for n in range(1, 51)}
    home = Home(many)
    for n in range(1, 51):
        home.read(run_of(n, call(100, 10)), at=n / 100)
    assert [home.enrich() for _ in range(4)] == [MOST_REQUESTS, MOST_REQUESTS, 10, 0]
    assert [run for _, run, _ in home.asked] == [f"run{n}" for n in range(1, 51)]
    assert home.tokens() == {"input": 5000 - 1275, "cache_read": 1275, "output": 500}


def test_requests_are_bounded_however_many_databases_and_bad_answers_there_are():
    home = Home({f"run{n}": BadAnswer("x") for n in range(1, 9)}, databases=("db", "b", "c", "d", "e", "f"))
    home.details |= {f"run{n}": None for n in range(9, 30)}
    home.read(*(run_of(n, call(100, 10)) for n in range(1, 30)))
    assert home.enrich() == len(home.asked) == MOST_REQUESTS


def test_a_deadline_that_is_over_asks_for_nothing():
    home = Home({"run1": detail(1, use("gpt-5.4", "OpenAI", 100, 10))})
    home.read(run_of(1, call(100, 10)))
    assert home.enrich(deadline=0) == 0
    assert home.enrich() == 1


def said(capsys):
    return [line for line in capsys.readouterr().out.splitlines() if "enrich" in line]


def test_403_is_said_once_and_lets_everything_go(capsys):
    structlog.reset_defaults()  # a daemon that another test ran in this process may have set up its logging
    refused = Unauthorized("session_run: 403 Insufficient permissions. Required scope(s): sessions:read")
    home = Home({f"run{n}": refused for n in range(1, 9)})
    home.read(run_of(1, call(100, 10)), run_of(2, call(100, 10)))
    assert home.enrich() == 1
    assert len(home.asked) == 1
    assert home.tokens() == {"input": 200, "output": 20}
    home.read(run_of(3, call(100, 10)), at=30)
    assert home.tokens() == {"input": 300, "output": 30}  # nothing waits any more
    home.read(run_of(4, call(100, 10)), at=OFF + 1)
    assert home.tokens() == {"input": 300, "output": 30}
    home.enrich()
    assert home.tokens() == {"input": 400, "output": 40}
    (line,) = said(capsys)
    assert "sessions:read" in line
    home.details.clear()
    home.details["run5"] = detail(5, use("gpt-5.4", "OpenAI", 100, 10, 50))
    home.read(run_of(5, call(100, 10)), at=2 * OFF + 2)
    home.enrich()
    assert home.tokens()["cache_read"] == 50


def test_an_agentos_without_the_route_is_not_asked_again_and_again():
    home = Home({"run1": NoDetails("session_run: 404 Not Found")})
    home.read(run_of(1, call(100, 10)))
    home.enrich()
    assert not home.enricher.active()
    assert home.tokens() == {"input": 100, "output": 10}


def test_one_bad_answer_keeps_no_other_run_waiting_and_an_ill_agentos_is_left_alone():
    good = detail(2, use("gpt-5.4", "OpenAI", 100, 10, 5))
    for error, requests in ((BadAnswer("x"), 2), (ServerFailed("x"), 1), (SourceTimeout("x"), 1), (ValueError(), 1)):
        home = Home({"run1": error, "run2": good})
        home.read(run_of(1, call(100, 10)), at=0)
        home.read(run_of(2, call(100, 10)), at=0.1)
        assert home.enrich() == requests
        home.enrich(0.2)
        assert home.tokens() == {"input": 95, "cache_read": 5, "output": 10}, error


def test_an_unauthorized_that_is_no_403_turns_nothing_off():
    home = Home({"run1": Unauthorized("session_run: 401 Token has expired")})
    home.read(run_of(1, call(100, 10)))
    home.enrich()
    assert home.enricher.active()


async def test_a_state_that_cannot_be_written_is_no_end(monkeypatch):
    home = Home()
    home.read(run_of(1, call(100, 10)))
    home.at(PATIENCE)
    with monkeypatch.context() as broken:
        broken.setattr(home.ledger, "commit", failing)
        assert not await expire_quietly(home.enricher)
    assert home.tokens() == {}
    assert await expire_quietly(home.enricher)
    assert home.tokens() == {"input": 100, "output": 10}
    assert await no_details() is None


def failing(_):
    raise StateError("the disk is full")


# Each token once

CALLS = ((2000, 500), (1000, 0), (300_000, 7))
RUNS = tuple(run_of(n, *(call(*tokens) for tokens in CALLS[:n])) for n in (1, 2, 3))
DETAILS = {
    f"run{n}": detail(n, use("gpt-5.4", "OpenAI", sum(p for p, _ in CALLS[:n]), sum(c for _, c in CALLS[:n]), 700 * n))
    for n in (1, 2, 3)
}
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.sampled_from(RUNS), st.integers(0, 3)),
        st.tuples(st.just("settle"), st.sampled_from(["t1", "t2", "t3"])),
        st.tuples(st.just("stored"), st.sampled_from(sorted(DETAILS)), st.booleans()),
        st.tuples(st.just("enrich")),
        st.tuples(st.just("expire")),
        st.tuples(st.just("wait"), st.sampled_from([1, 10, 60, 119, 130])),
        st.tuples(st.just("crash"), st.sampled_from(["before", "after"])),
        st.tuples(st.just("restart")),
        st.tuples(st.just("enable"), st.booleans()),
    ),
    max_size=30,
)


class Killing:
    """Fails the next commit of a ledger as a kill does, once for each time that `when` is set.

    `when` is "before" or "after" the commit is written, or None.
    """

    def __init__(self, home):
        self.when = None
        self._commit = home.ledger.commit
        home.ledger.commit = self._killed

    def _killed(self, changes):
        when, self.when = self.when, None
        if when == "before":
            raise StateError("killed before it was written")
        self._commit(changes)
        if when == "after":
            raise StateError("killed after it was written")


@given(STEPS)
@examples(150)
def test_any_order_of_spans_details_timeouts_and_crashes_gives_each_token_once(steps):
    home = Home({})
    killing = Killing(home)

    def survive(work, *what, **more):
        """What kills the process leaves the ledger alone."""
        try:
            work(*what, **more)
        except StateError:
            home.open()

    for name, *what in steps:
        if name == "read":
            full, shown = what
            survive(home.read, structs.replace(full, spans=full.spans[: 1 + shown]))
        elif name == "settle":
            survive(home.read, settled=what)
        elif name == "stored":
            run_id, agrees = what
            known = DETAILS[run_id]
            other = replace(known.uses[0], prompt=known.uses[0].prompt + 1)
            home.details[run_id] = known if agrees else replace(known, uses=(other,))
        elif name == "enrich":
            survive(home.enrich)
        elif name == "expire":
            survive(home.expire)
        elif name == "wait":
            home.now += what[0]
        elif name == "crash":
            killing.when = what[0]
        elif name == "restart":
            home.open()
        else:
            home.enabled = what[0]
            home.open()
        home.never_falls()
    killing.when = None
    for full in RUNS:
        home.read(full)
    home.now += PATIENCE
    home.read(*RUNS)
    home.now += 61
    home.read(*RUNS)
    home.expire()
    home.read(settled=["t1", "t2", "t3"])
    home.never_falls()
    assert home.ledger.waiting("os") == []
    tokens = home.tokens()
    assert sum(tokens.values()) == sum(sum(map(sum, CALLS[:n])) for n in (1, 2, 3))
    assert tokens["output"] == sum(c for n in (1, 2, 3) for _, c in CALLS[:n])
    assert home.observed("agentos_run_llm_calls") == (3, 6)
    count, cost = home.observed(RUN_COST)
    # A call that is shown only after its run settled is no part of it, with details as without.
    assert count == 3
    assert cost <= sum(home.of(COST, 0).values())
    assert home.observed(FIRST_TOKEN)[0] <= 3
    restored = Totals(Limits(), zero_hold=60)
    restored.restore(*home.ledger.load())
    assert {series.labels: series.value for series in restored.stored() if series.metric == COST} == {
        series.labels: series.value for series in home.totals.stored() if series.metric == COST
    }


# Runs that a guardrail blocked

BLOCKS = "agentos_guardrail_blocks_total"


def blocked(number, *calls, error_type=None, root=None, **more):
    """A trace with one run, as `run_of`, whose agent ended so; under a team of this name, if one is given."""
    trace = run_of(number, *calls, **more)
    spans = (structs.replace(trace.spans[0], error_type=error_type), *trace.spans[1:])
    if root is not None:
        team = Span(number * 100 + 99, -1, SpanKind.TEAM, root, T0 * S, (T0 + 9) * S)
        spans = (team, *(structs.replace(span, parent=span.parent + 1) for span in spans))
    return structs.replace(trace, spans=spans, total_spans=len(spans))


def told(number, guardrail, *uses):
    return replace(detail(number, *uses), guardrail=guardrail)


FAILED_CALL = call(None, None, error_type="ModelProviderError")


@pytest.mark.parametrize(
    ("trace", "waits"),
    [
        pytest.param(blocked(1), True, id="streams-no-call"),
        pytest.param(blocked(1, error_type="other"), True, id="failed-no-call"),
        pytest.param(blocked(1, call(None, None), error_type="other"), True, id="failed-call-well"),
        pytest.param(blocked(1, call(None, None)), False, id="all-well"),
        pytest.param(blocked(1, FAILED_CALL, error_type="other"), False, id="failed-with-its-call"),
        pytest.param(blocked(1, FAILED_CALL), False, id="streams-failed-call"),
        pytest.param(blocked(1, FAILED_CALL, call(None, None), error_type="other"), False, id="one-call-failed"),
        pytest.param(blocked(1, error_type="other", run_id="", session="s"), True, id="no-run-id-is-run1"),
        pytest.param(blocked(1, error_type="other", session=None), False, id="no-session"),
        pytest.param(blocked(1, error_type="other", kind=SpanKind.WORKFLOW), False, id="workflow"),
        pytest.param(blocked(1, error_type="other", kind=SpanKind.TEAM), True, id="team"),
    ],
)
def test_which_runs_may_have_been_blocked(trace, waits):
    home = Home()
    home.read(trace)
    assert [(one.run_id, one.check) for one in home.ledger.waiting("os")] == [("run1", True)] * waits
    off = Home(enabled=False)
    off.read(trace)
    assert off.ledger.waiting("os") == []


def test_a_blocked_run_counts_once_under_its_root():
    home = Home({"run1": told(1, "pii_detected"), "run2": told(2, ""), "run3": told(3, "other")})
    home.read(blocked(1, root="Desk"), blocked(2, error_type="other"), blocked(3, root="Desk"))
    home.enrich()
    assert home.of(BLOCKS, 0, 1, 2) == {("os", "Desk", "pii_detected"): 1, ("os", "Desk", "other"): 1}
    assert home.ledger.waiting("os") == []
    copy = structs.replace(blocked(1, root="Desk"), id="copy")
    home.read(copy)
    assert len(home.ledger.waiting("os")) == 1
    home.open()
    home.enrich()
    assert home.ledger.waiting("os") == []
    assert home.of(BLOCKS, 2) == {"pii_detected": 1, "other": 1}


def test_a_run_whose_answer_was_blocked_is_told_by_the_detail_that_its_calls_wait_for():
    uses = use("gpt-5.4", "OpenAI", 100, 10, 60)
    home = Home({"run1": told(1, "output_not_allowed", replace(uses, prompt=99))})
    home.read(run_of(1, call(100, 10)))
    home.enrich()
    assert home.of(BLOCKS, 1, 2) == {("Agent", "output_not_allowed"): 1}
    assert home.tokens() == {}
    home.details["run1"] = told(1, "output_not_allowed", uses)
    home.open()
    home.enrich(5)
    assert home.of(BLOCKS, 2) == {"output_not_allowed": 1}
    assert home.tokens() == {"input": 40, "cache_read": 60, "output": 10}
    assert home.observed(FIRST_TOKEN)[0] == 1


def test_a_run_whose_end_nobody_tells_is_let_go_uncounted():
    home = Home()
    home.read(blocked(1))
    home.enrich()
    assert not home.expire(60)
    assert home.expire(PATIENCE)
    assert home.ledger.waiting("os") == []
    home.details["run1"] = told(1, "other")
    home.enrich(PATIENCE + 1)
    assert home.of(BLOCKS, 2) == {}
    assert home.of(TOKENS, 0) == home.of(COST, 0) == home.of("agentos_llm_calls_total", 0) == {}


def test_a_run_of_the_first_pass_shows_its_block_at_once():
    home = Home({"run1": told(1, "off_topic")})
    home.read(blocked(1), first=True)
    home.enrich()
    (series,) = [one for one in home.totals.stored() if one.metric == BLOCKS]
    assert series.shown


BLOCKED_RUNS = [
    blocked(1),
    blocked(2, error_type="other", root="Desk"),
    run_of(3, call(100, 10)),
    blocked(4, call(100, 10), error_type="other"),
    run_of(5, call(100, 10)),
]
BLOCKED_DETAILS = [
    told(1, "prompt_injection"),
    told(2, "other"),
    told(3, "output_not_allowed", use("gpt-5.4", "OpenAI", 100, 10)),
    told(4, "validation_failed", use("gpt-5.4", "OpenAI", 100, 10)),
    told(5, "", use("gpt-5.4", "OpenAI", 100, 10)),
]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("read"), st.integers(0, 4), st.booleans()),
            st.tuples(st.just("enrich")),
            st.tuples(st.just("restart")),
            st.tuples(st.just("crash"), st.sampled_from(["before", "after"])),
        ),
        max_size=25,
    )
)
@examples(100)
def test_whatever_crashes_each_blocked_run_counts_once(steps):
    home = Home({one.run_id: one for one in BLOCKED_DETAILS})
    killing = Killing(home)
    for name, *what in steps:
        try:
            if name == "read":
                number, copied = what
                trace = BLOCKED_RUNS[number]
                home.read(structs.replace(trace, id=f"copy{number}") if copied else trace)
            elif name == "enrich":
                home.enrich()
            elif name == "crash":
                killing.when = what[0]
            else:
                home.open()
        except StateError:
            home.open()
        home.now += 2
        home.never_falls()
    killing.when = None
    home.open()
    home.read(*BLOCKED_RUNS)
    home.enrich()
    home.never_falls()
    assert home.ledger.waiting("os") == []
    assert home.of(BLOCKS, 1, 2) == {
        ("Agent", "prompt_injection"): 1,
        ("Desk", "other"): 1,
        ("Agent", "output_not_allowed"): 1,
        ("Agent", "validation_failed"): 1,
    }


# The route's answer


CHECKED = {"run_id": "r", "error_type": "input_check_error", "error_id": "off_topic", "content": "secret"}
INJECTION = "Potential jailbreaking or prompt injection detected."


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"events": [{"event": "RunStarted", "run_id": "r"}, CHECKED]}, "off_topic"),
        ({"events": [CHECKED | {"error_type": "output_check_error"}]}, "off_topic"),
        ({"events": [CHECKED | {"error_id": "my_rule"}]}, "other"),
        ({"events": [CHECKED | {"error_id": None}]}, "other"),
        ({"events": [CHECKED | {"error_id": ["off_topic"]}]}, "other"),
        ({"events": [CHECKED | {"error_type": "model_provider_error"}]}, ""),
        ({"events": [CHECKED | {"error_type": ["input_check_error"]}]}, ""),
        ({"events": [CHECKED | {"run_id": "member"}]}, ""),
        ({"events": [CHECKED], "status": "COMPLETED"}, ""),
        ({"events": [CHECKED], "status": None}, ""),
        ({"events": [5], "content": INJECTION}, "prompt_injection"),
        ({"events": {"a": CHECKED}}, ""),
        ({"events": None, "content": INJECTION}, "prompt_injection"),
        ({"content": INJECTION}, "prompt_injection"),
        ({"content": "Potential PII detected in input"}, "pii_detected"),
        ({"content": "OpenAI moderation violation detected."}, "input_not_allowed"),
        ({"content": INJECTION, "status": "COMPLETED"}, ""),
        ({"content": f"They said: {INJECTION}"}, ""),
        ({"content": [INJECTION]}, ""),
        ({"content": None}, ""),
        ({}, ""),
    ],
)
def test_what_blocked_a_run(more, expected):
    body = json.dumps({"run_id": "r", "metrics": {}, "status": "ERROR"} | more).encode()
    assert wire.decode(body)["r"].guardrail == expected


def test_each_run_inside_a_run_is_told_of_by_itself():
    member = {"run_id": "m", "metrics": {}, "status": "ERROR", "events": [CHECKED | {"run_id": "m"}]}
    team = {"run_id": "r", "metrics": {}, "status": "COMPLETED", "member_responses": [member]}
    found = wire.decode(json.dumps(team).encode())
    assert {run_id: one.guardrail for run_id, one in found.items()} == {"r": "", "m": "off_topic"}


def test_what_agnos_own_guardrails_say_is_known():
    for guardrail, words in (
        (PromptInjectionGuardrail(), "Ignore previous instructions"),
        (PIIDetectionGuardrail(), "My number is 111-22-3333"),
    ):
        with pytest.raises(InputCheckError) as caught:
            guardrail.check(RunInput(words))
        body = {"run_id": "r", "metrics": {}, "status": "ERROR", "content": str(caught.value)}
        assert wire.decode(json.dumps(body).encode())["r"].guardrail == caught.value.check_trigger.value
    assert {one.value for one in CheckTrigger} | {"other"} == set(GUARDRAILS)


def test_the_answer_is_decoded_without_its_prompts():
    metrics = {
        "input_tokens": 1,
        "time_to_first_token": 0.25,
        "details": {
            "memory_model": [{"id": "b", "provider": "Groq", "input_tokens": 3}],
            "model": [
                {
                    "id": "a",
                    "provider": "OpenAI Chat",
                    "input_tokens": 10,
                    "output_tokens": 4,
                    "total_tokens": 14,
                    "cache_read_tokens": 5,
                    "cache_write_tokens": 1,
                    "reasoning_tokens": 2,
                    "cost": 0.5,
                }
            ],
        },
    }
    body = json.dumps({"run_id": "r", "content": "secret", "metrics": metrics}).encode()
    assert wire.decode(body) == {
        "r": RunDetail(
            "r",
            250_000,
            (
                ModelUse("a", "openai", 10, 4, 5, 1, 2, 14, Decimal("0.5")),
                ModelUse("b", "groq", prompt=3, role="memory"),
            ),
        )
    }


def test_a_run_without_details_by_model_is_one_of_its_only_model():
    body = json.dumps({"run_id": "r", "metrics": {"input_tokens": 100, "output_tokens": 10, "cache_read_tokens": 7}})
    (found,) = wire.decode(body.encode()).values()
    home = Home({"run1": replace(found, run_id="run1")})
    home.read(run_of(1, call(100, 10)))
    home.enrich()
    assert home.tokens() == {"input": 93, "cache_read": 7, "output": 10}


def test_runs_inside_a_run_are_found():
    member = {"run_id": "m", "metrics": {"input_tokens": 2}}
    step = {"run_id": "s", "metrics": {"input_tokens": 1}, "member_responses": [member]}
    body = json.dumps({"run_id": "w", "metrics": {"steps": {}}, "step_executor_runs": [step]}).encode()
    assert {run_id: len(one.uses) for run_id, one in wire.decode(body).items()} == {"w": 0, "s": 1, "m": 1}


@pytest.mark.parametrize(
    "metrics",
    [
        None,
        [],
        {"details": 5},
        {"details": {"model": 5}},
        {"details": {"model": [5, {"id": 7, "input_tokens": -1}]}},
        {"details": {"model": [{"id": "a", "input_tokens": 1.5}, {"id": "a", "output_tokens": True}]}},
        {"time_to_first_token": -1, "input_tokens": "many"},
        {"time_to_first_token": 1e300, "cost": -1},
        {"time_to_first_token": True},
    ],
)
def test_what_cannot_be_is_not_believed(metrics):
    for found in wire.decode(json.dumps({"run_id": "r", "metrics": metrics}).encode()).values():
        assert (found.first_token, found.uses) == (None, ())


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"step_executor_runs": 5}', b'{"a":' * 5000])
def test_what_is_no_run_is_a_bad_answer(body):
    with pytest.raises(BadAnswer):
        wire.decode(body)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.integers()
        | st.text(max_size=5),
        st.lists,
        max_leaves=9,
    )
)
def test_no_metrics_crash_the_decoder(value):
    keys = ("input_tokens", "time_to_first_token", "cost", "details")
    for metrics in (dict.fromkeys(keys, value), {"details": {"model": [dict.fromkeys(keys, value), value]}}):
        wire.decode(json.dumps({"run_id": "r", "metrics": metrics}).encode())


# Configuration


def test_the_configuration_asks_for_it():
    for text, wanted in (("true", True), ("on", True), ("false", False)):
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
            file.write(f"state: memory\nagentos:\n  - {{name: it, url: 'http://h', enrich_runs: {text}}}\n")
            file.flush()
            (one,) = config.load({"config_file": file.name}, {}).agentos
            assert one.enrich_runs is wanted
