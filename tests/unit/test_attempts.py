import pytest

from exporter.core.model import Span, SpanKind, TokenUsage, Trace
from exporter.counting.attempts import Attempt, Call, attempts
from exporter.counting.cashier import Cashier
from exporter.counting.delta import Delta
from exporter.counting.fold import fold
from exporter.counting.runs import settle


def call(model, start, end, *, failed=False):
    error = "ModelProviderError" if failed else None
    return Call(Span(start + 1, 0, SpanKind.LLM, "m", start, end, error, provider="openai", model=model), "agent")


def told(*calls):
    return [(attempt.model, attempt.fallback) for attempt in attempts(calls)]


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        pytest.param([call("a", 0, 1), call("a", 2, 3)], [], id="nothing failed"),
        pytest.param([call("a", 0, 1, failed=True)], [], id="the last one failed"),
        pytest.param([call("a", 0, 1, failed=True), call("a", 1, 2)], [("a", "")], id="retry"),
        pytest.param(
            [call("a", 0, 1, failed=True), call("a", 5, 6, failed=True), call("a", 15, 16)],
            [("a", ""), ("a", "")],
            id="retries with growing pauses",
        ),
        pytest.param([call("a", 0, 1, failed=True), call("b", 1, 2)], [("a", "b")], id="fallback"),
        pytest.param(
            [call("a", 0, 1, failed=True), call("a", 2, 3, failed=True), call("b", 3, 4)],
            [("a", ""), ("a", "b")],
            id="retry, then fallback",
        ),
        pytest.param(
            [call("a", 0, 1, failed=True), call("b", 1, 2, failed=True), call("c", 2, 3)],
            [("a", "b"), ("b", "c")],
            id="two fallbacks",
        ),
        pytest.param(
            [
                *(call("a", 0, 1), call("a", 2, 3, failed=True)),
                *(call("b", 3, 4), call("b", 5, 6, failed=True), call("b", 8, 9)),
            ],
            [("a", "b"), ("b", "")],
            id="the fallback goes on, and is retried",
        ),
        pytest.param(
            [
                *(call("a", 0, 1, failed=True), call("b", 1, 2, failed=True)),
                *(call("a", 5, 6, failed=True), call("b", 6, 7)),
            ],
            [("a", "b"), ("a", "b")],
            id="the whole run began anew after its fallback failed",
        ),
        pytest.param(
            [call("a", 0, 3, failed=True), call("memory", 2, 9), call("b", 4, 5)],
            [("a", "b")],
            id="a model beside the run begins before a fallback",
        ),
        pytest.param(
            [call("a", 0, 3, failed=True), call("memory", 1, 2, failed=True), call("b", 4, 5)],
            [("a", "b")],
            id="a model beside the run fails first",
        ),
        pytest.param(
            [call("a", 0, 1, failed=True), call("memory", 2, 3), call("a", 5, 6)],
            [("a", "")],
            id="a model beside the run begins in the pause before a retry",
        ),
        pytest.param(
            [call("memory", 0, 1, failed=True), call("a", 0, 3), call("parser", 4, 5)],
            [],
            id="a model beside the run failed for good",
        ),
        pytest.param(
            [call("memory", 0, 2), call("a", 0, 1, failed=True), call("memory", 2, 3), call("a", 4, 5)],
            [("a", "")],
            id="a model beside the run is no fallback",
        ),
        pytest.param(
            [call("a", 0, 4), call("a", 1, 2, failed=True), call("a", 5, 6)],
            [],
            id="calls of one model at the same time",
        ),
        pytest.param(
            [call("a", 1, 3, failed=True), call("a", 2, 4), call("a", 5, 6)],
            [],
            id="the next call began before the failed one ended",
        ),
    ],
)
def test_what_follows_a_failed_call(calls, expected):
    assert told(*calls) == expected
    assert told(*reversed(calls)) == expected


def test_the_agent_and_the_provider_are_those_of_the_failed_call():
    (found,) = attempts([call("a", 0, 1, failed=True), call("a", 1, 2)])
    assert found == Attempt("agent", "openai", "a")


def reading(*calls):
    """A trace of one agent with these calls: (model, start, end, failed)."""
    agent = Span(1, -1, SpanKind.AGENT, "bot", 0, 100)
    spans = [
        Span(
            place + 2,
            0,
            SpanKind.LLM,
            "m",
            start,
            end,
            "Error" if failed else None,
            provider="openai",
            model=model,
            usage=TokenUsage(10, 5),
        )
        for place, (model, start, end, failed) in enumerate(calls)
    ]
    return Trace("t", "db", 0, 100, 0, len(calls) + 1, (agent, *spans))


def test_attempts_are_told_once_the_trace_is_settled_whatever_the_order_of_readings():
    failed, again, other = ("a", 0, 10, True), ("a", 10, 20, True), ("b", 20, 30, False)
    delta, runs, counted = Delta("os"), {}, set()
    for calls in ((failed,), (failed, again), (failed, again, other)):
        counted |= set(fold(delta, reading(*calls), counted, runs, now=0, final=True))
        assert not any(name.endswith(("retries_total", "fallbacks_total")) for name, _ in delta.counters)
    settle(delta, runs, Cashier())
    assert delta.counters["agentos_llm_retries_total", ("os", "bot", "bot", "openai", "a")] == 1
    assert delta.counters["agentos_llm_fallbacks_total", ("os", "bot", "bot", "a", "b")] == 1
    settle(delta, runs, Cashier())
    assert delta.counters["agentos_llm_retries_total", ("os", "bot", "bot", "openai", "a")] == 1


def test_time_and_money_of_failed_calls():
    delta = Delta("os")
    fold(delta, reading(("a", 0, 10, True), ("a", 10, 30, False)), (), {}, now=0, final=True)
    labels = ("os", "bot", "bot", "openai", "a")
    assert delta.counters["agentos_llm_wasted_seconds_total", labels] == 10
    assert ("agentos_llm_wasted_cost_usd_total", labels) not in delta.counters, "no prices: not known"
    rates = delta.histograms["agentos_llm_output_tokens_per_second", ("os", "openai", "a")]
    assert (sum(rates.counts), rates.total) == (1, 5 * 1000 * 1_000_000 // 20), "of the call that succeeded"
