from decimal import Decimal

import pytest

from exporter.core.model import MICROSECONDS, Span, SpanKind, TokenUsage, Trace
from exporter.counting.cashier import Cashier
from exporter.counting.delta import Delta
from exporter.counting.fold import count_details
from exporter.counting.run_details import DetailedRun, TimedCall, count_detail
from exporter.counting.waiting import ModelUse, RunDetail
from exporter.pricing.money import USD
from exporter.pricing.prices import Pricer
from exporter.sources.run_metrics import role_of

S = MICROSECONDS
PER_TOKEN = "agentos_llm_time_per_output_token_seconds"


def counted(detail, *calls, start=0):
    delta = Delta("os")
    count_detail(delta, detail, DetailedRun("root", start, calls), Cashier(Pricer()))
    return delta


def streamed(start, end, output=11, model="gpt-5.4", *, in_parts=True):
    return TimedCall(start, end, "openai", model, output, in_parts)


def test_time_per_output_token_begins_with_the_first_token():
    delta = counted(RunDetail("r", S), streamed(S // 2, 3 * S))
    labels = ("os", "openai", "gpt-5.4")
    assert delta.histograms["agentos_llm_time_to_first_token_seconds", labels].total == S
    assert delta.histograms[PER_TOKEN, labels].total == 2 * S // 10


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(streamed(0, 3 * S, in_parts=False), id="the answer came whole"),
        pytest.param(streamed(0, 3 * S, output=1), id="one token"),
        pytest.param(streamed(0, 3 * S, output=None), id="unknown tokens"),
        pytest.param(streamed(2 * S, 3 * S), id="the first token came before the call"),
        pytest.param(streamed(0, S // 2), id="the first token came after the call"),
    ],
)
def test_time_per_output_token_is_absent_where_it_cannot_be_told(call):
    assert all(name != PER_TOKEN for name, _ in counted(RunDetail("r", S), call).histograms)


def test_the_first_token_is_that_of_the_first_call_of_the_main_model():
    detail = RunDetail("r", S, (ModelUse("main", "openai", 10, 5), ModelUse("b", "openai", 1, 1, role="memory")))
    delta = counted(detail, streamed(0, S, model="b"), streamed(0, 2 * S, model="main"), streamed(2, 3, model="main"))
    assert [labels for _, labels in delta.histograms if _.endswith("first_token_seconds")] == [("os", "openai", "main")]


def test_the_first_token_is_not_that_of_a_call_that_failed():
    agent = Span(1, -1, SpanKind.AGENT, "bot", 0, 9 * S, run_id="r")
    call = {"provider": "openai", "model": "gpt-5.4", "streamed": True}
    failed = Span(2, 0, SpanKind.LLM, "m", 0, S, "Error", **call)
    retry = Span(3, 0, SpanKind.LLM, "m", 2 * S, 8 * S, usage=TokenUsage(10, 11), **call)
    delta = Delta("os")
    details = {"r": RunDetail("r", 3 * S)}
    count_details(delta, Trace("t", "db", 0, 9 * S, 0, 3, (agent, failed, retry)), {1}, details, Cashier())
    assert delta.histograms[PER_TOKEN, ("os", "openai", "gpt-5.4")].total == 5 * S // 10


def test_tokens_and_cost_of_models_beside_the_main_one():
    uses = (
        ModelUse("gpt-5.4", "openai", 2000, 500),
        ModelUse("gpt-5.4", "openai", 2000, 500, 1024, role="memory"),
        ModelUse("acme", "acme", 10, 5, role="parser"),
        ModelUse("paid", "openrouter", 10, 5, cost=Decimal("0.5"), role="reasoning"),
    )
    counters = counted(RunDetail("r", None, uses)).counters
    tokens, cost = "agentos_run_overhead_tokens_total", "agentos_run_overhead_cost_usd_total"
    assert {key: value for key, value in counters.items() if key[0] == tokens} == {
        (tokens, ("os", "root", "gpt-5.4", "memory")): 2500,
        (tokens, ("os", "root", "acme", "parser")): 15,
        (tokens, ("os", "root", "paid", "reasoning")): 15,
    }
    assert {key: value for key, value in counters.items() if key[0] == cost} == {
        (cost, ("os", "root", "gpt-5.4", "memory")): round(Decimal("0.010196") * USD),
        (cost, ("os", "root", "paid", "reasoning")): USD // 2,
    }


@pytest.mark.parametrize(
    ("key", "role"),
    [("model", ""), ("memory_model", "memory"), ("session_summary_model", "session_summary"), ("new_model", "other")],
)
def test_roles(key, role):
    assert role_of(key) == role
