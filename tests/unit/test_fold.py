import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from exporter.core.error_class import ERROR_CLASSES
from exporter.core.model import NO_USAGE, Span, SpanKind, TokenUsage, Trace
from exporter.core.span_names import component_name, error_type, http_method, model_class, provider_label
from exporter.counting.cashier import Cashier
from exporter.counting.delta import Delta
from exporter.counting.delta import digest as digest_of
from exporter.counting.fold import fold, observe_session, root_kind
from exporter.counting.runs import RunRecord, settle
from exporter.metrics.catalog import METRICS
from tests.harness.examples import examples

A, T, W, L, X, H, O = (  # noqa: E741 - one letter a kind keeps trees readable
    SpanKind.AGENT,
    SpanKind.TEAM,
    SpanKind.WORKFLOW,
    SpanKind.LLM,
    SpanKind.TOOL,
    SpanKind.HTTP,
    SpanKind.OTHER,
)
USED = TokenUsage(prompt=10, completion=3)


def tree(*nodes, total=None):
    """A trace of (kind, name, parent index) with more fields of Span as a dict."""
    spans = []
    for place, (kind, name, parent, *more) in enumerate(nodes):
        fields = {"model": "gpt", "provider": "openai", "usage": USED} if kind is L else {}
        fields |= more[0] if more else {}
        spans.append(Span(place + 1, parent, kind, name, **{"start": 1_000_000, "end": 3_000_000, **fields}))
    return Trace("t1", "db", 1_000_000, 3_000_000, 1_000_000, len(spans) if total is None else total, tuple(spans))


def counted(trace, *, before=(), final=False, now=4_000_000):
    delta, runs = Delta("os"), {}
    fold(delta, trace, set(before), runs, now=now, final=final)
    return delta, runs


def of(delta, metric):
    """Labels after the AgentOS's name → count, without zeros."""
    return {labels[1:]: count for (name, labels), count in delta.counters.items() if name == metric}


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        pytest.param([(A, "a", -1), (L, "m", 0)], {("a", "a", "agent"): 1, ("a", "a", "llm"): 1}, id="agent"),
        pytest.param(
            [(H, "POST", -1), (A, "a", 0), (L, "m", 1), (X, "x", 1)],
            {("a", "a", "agent"): 1, ("a", "a", "llm"): 1, ("a", "a", "tool"): 1},
            id="http-root",
        ),
        pytest.param(
            [(T, "t", -1), (L, "m", 0), (A, "a", 0), (L, "m", 2), (A, "b", 2), (X, "x", 4)],
            {
                ("t", "t", "team"): 1,
                ("t", "t", "llm"): 1,
                ("t", "a", "agent"): 1,
                ("t", "a", "llm"): 1,
                ("t", "b", "agent"): 1,
                ("t", "b", "tool"): 1,
            },
            id="members",
        ),
        pytest.param(
            [(W, "w", -1), (W, "s", 0), (A, "a", 1), (L, "m", 1), (X, "x", 1), (X, "y", 2)],
            {
                ("w", "", "workflow"): 2,
                ("w", "a", "agent"): 1,
                ("w", "a", "llm"): 1,
                ("w", "a", "tool"): 2,
            },
            id="streaming-step",
        ),
        pytest.param(
            [(W, "w", -1), (A, "a", 0), (T, "b", 0), (L, "m", 0)],
            {("w", "", "workflow"): 1, ("w", "a", "agent"): 1, ("w", "b", "team"): 1, ("w", "", "llm"): 1},
            id="step-with-two-agents",
        ),
        pytest.param(
            [(A, "o", -1), (X, "tool", 0), (W, "w", 1), (L, "m", 2), (O, "emb", 0)],
            {
                ("o", "o", "agent"): 1,
                ("o", "o", "tool"): 1,
                ("o", "o", "workflow"): 1,
                ("o", "o", "llm"): 1,
                ("o", "o", "other"): 1,
            },
            id="workflow-below-an-agent",
        ),
        pytest.param([(X, "x", -1), (L, "m", -1)], {("", "", "tool"): 1, ("", "", "llm"): 1}, id="no-run"),
        pytest.param([(H, "GET", -1), (H, "sdk", 0)], {}, id="http-only"),
        pytest.param([], {}, id="nothing"),
    ],
)
def test_whose_span_it_is(nodes, expected):
    assert of(counted(tree(*nodes), final=True)[0], "agentos_spans_total") == expected


@pytest.mark.parametrize(
    ("nodes", "calls"),
    [
        ([(A, "a", -1), (L, "m", 0), (L, "vendor", 1)], 1),
        ([(A, "a", -1), (L, "m", 0), (L, "vendor", 1), (L, "deeper", 2)], 1),
        ([(A, "a", -1), (L, "m", 0), (H, "sdk", 1), (L, "vendor", 2)], 1),
        ([(A, "a", -1), (L, "m", 0), (O, "chain", 1), (L, "vendor", 2)], 1),
        ([(A, "a", -1), (L, "m", 0), (X, "x", 1), (L, "own", 2)], 2),
        ([(A, "a", -1), (L, "m", 0), (A, "b", 1), (L, "own", 2)], 2),
        ([(L, "m", -1), (L, "vendor", 0)], 1),
    ],
)
def test_a_vendors_view_of_a_call_is_not_counted_again(nodes, calls):
    delta, runs = counted(tree(*nodes))
    assert sum(of(delta, "agentos_llm_calls_total").values()) == calls
    assert sum(of(delta, "agentos_llm_tokens_total").values()) == calls * 13
    assert sum(count for (_, _, kind), count in of(delta, "agentos_spans_total").items() if kind == "llm") == calls
    assert sum(run.llm_calls for run in runs.values()) == (calls if nodes[0][0] is A else 0)


@pytest.mark.parametrize("kind", [L, X])
def test_a_span_beside_its_agent_waits_while_the_agent_may_be_hidden(kind):
    alone = tree((W, "w", -1), (kind, "m", 0), total=3)
    delta, runs = Delta("os"), {}
    first = fold(delta, alone, set(), runs, now=0, final=False)
    assert first == [1]
    whole = tree((W, "w", -1), (kind, "m", 0), (A, "a", 0))
    second = fold(delta, whole, set(first), runs, now=0, final=False)
    assert second == [2, 3]
    assert of(delta, "agentos_spans_total")["w", "a", str(kind)] == 1
    assert counted(alone, final=True)[0].spans == 2
    assert of(counted(alone, final=True)[0], "agentos_spans_total")["w", "", str(kind)] == 1


@pytest.mark.parametrize("kind", [L, X])
def test_a_span_without_any_agent_waits_though_the_trace_looks_complete(kind):
    """An asynchronous database may write the agent last: until then as many spans are reported as are shown."""
    early = tree((W, "flow", -1), (kind, "m", 0))
    assert not early.open
    delta, _ = counted(early)
    assert (of(delta, "agentos_spans_total"), delta.deferred) == ({("flow", "", "workflow"): 1}, 1)
    delta, _ = counted(tree((W, "flow", -1), (kind, "m", 0), (A, "a", 0)), before=[early.spans[0].id])
    assert of(delta, "agentos_spans_total") == {("flow", "a", "agent"): 1, ("flow", "a", str(kind)): 1}
    assert delta.deferred == 0


def test_what_stands_below_an_agent_waits_for_nothing():
    assert counted(tree((W, "w", -1), (A, "a", 0), (L, "m", 1), total=9))[0].spans == 3


def test_errors_are_counted_by_kind_of_span():
    failed = {"error_type": "BoomError"}
    call = failed | {"error_class": "timeout"}
    delta, _ = counted(tree((A, "a", -1, failed), (L, "m", 0, call), (X, "x", 0, {"error_type": "other"})))
    assert of(delta, "agentos_error_spans_total") == {
        ("a", "a", "agent", "BoomError"): 1,
        ("a", "a", "llm", "BoomError"): 1,
        ("a", "a", "tool", "other"): 1,
    }
    assert of(delta, "agentos_run_errors_total") == {("agent", "a", "BoomError"): 1}
    assert of(delta, "agentos_llm_call_errors_total") == {("a", "a", "openai", "gpt", "BoomError"): 1}
    assert of(delta, "agentos_llm_call_errors_by_class_total") == {("a", "a", "openai", "gpt", "timeout"): 1}
    assert of(delta, "agentos_tool_call_errors_total") == {("a", "a", "x", "other"): 1}
    assert {key[0] for key in delta.exemplars} == {
        "agentos_error_spans_total",
        "agentos_run_errors_total",
        "agentos_llm_call_errors_total",
        "agentos_llm_call_errors_by_class_total",
        "agentos_tool_call_errors_total",
    }
    assert {mark.trace_id for mark in delta.exemplars.values()} == {"t1"}


@examples(100)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(SpanKind),
            st.integers(0, 7),
            st.none() | st.sampled_from(["BoomError", "other"]),
            st.sampled_from(ERROR_CLASSES),
        ),
        max_size=8,
    )
)
def test_errors_by_class_are_as_many_as_errors_by_type(nodes):
    delta, _ = counted(
        tree(
            *(
                (kind, f"{kind}{place}", min(parent, place) - 1, {"error_type": error_type, "error_class": why})
                for place, (kind, parent, error_type, why) in enumerate(nodes)
            )
        ),
        final=True,
    )
    sums = []
    for metric in ("agentos_llm_call_errors_total", "agentos_llm_call_errors_by_class_total"):
        by_call = Counter()
        for labels, count in of(delta, metric).items():
            by_call[labels[:-1]] += count
        sums.append(by_call)
    assert sums[0] == sums[1]
    assert sum(sums[0].values()) == sum(
        count for labels, count in of(delta, "agentos_error_spans_total").items() if labels[2] == "llm"
    )


def test_only_the_outermost_is_a_run_and_a_trace_may_hold_several():
    delta, runs = counted(
        tree((H, "POST", -1), (T, "t", 0), (A, "m", 1), (L, "l", 2), (L, "l", 1), (A, "hook", 0), (L, "l", 5))
    )
    assert of(delta, "agentos_runs_total") == {("team", "t"): 1, ("agent", "hook"): 1}
    assert runs == {2: RunRecord("team", "t", 2, start=1_000_000), 6: RunRecord("agent", "hook", 1, start=1_000_000)}
    settle(delta, runs, Cashier())
    assert runs == {}
    observed = {
        key[1][1:]: histogram.total for key, histogram in delta.histograms.items() if key[0] == "agentos_run_llm_calls"
    }
    assert observed == {("team", "t"): 2, ("agent", "hook"): 1}


@pytest.mark.parametrize(
    ("usage", "without", "tokens"),
    [
        (NO_USAGE, 1, {}),
        (TokenUsage(prompt=0, completion=0), 0, {"input": 0, "output": 0}),
        (TokenUsage(prompt=5), 0, {"input": 5}),
        (TokenUsage(completion=7), 0, {"output": 7}),
    ],
)
def test_unknown_tokens_are_not_zero(usage, without, tokens):
    delta, _ = counted(tree((A, "a", -1), (L, "m", 0, {"usage": usage})))
    assert sum(of(delta, "agentos_llm_calls_without_usage_total").values()) == without
    assert {labels[-1]: count for labels, count in of(delta, "agentos_llm_tokens_total").items()} == tokens
    observed = {name for name, _ in delta.histograms if name.endswith("put_tokens")}
    assert observed == {f"agentos_llm_call_{token}_tokens" for token in tokens}


def test_times_in_buckets():
    delta, _ = counted(tree((A, "a", -1, {"start": 0, "end": 100_000}), (X, "x", 0, {"start": 5, "end": 4})), now=-1)
    run = delta.histograms["agentos_run_duration_seconds", ("os", "agent", "a")]
    assert (run.counts[0], run.total) == (1, 100_000)
    tool = delta.histograms["agentos_tool_call_duration_seconds", ("os", "x")]
    assert (tool.counts[0], tool.total) == (1, 0)
    delay = delta.histograms["agentos_exporter_span_ingest_delay_seconds", ("os",)]
    assert (delay.counts[0], delay.total) == (2, 0)


def test_the_bucket_of_a_value_above_all_bounds_is_the_last():
    delta = Delta("os")
    bounds = METRICS["agentos_run_llm_calls"].buckets
    for value in (0, 1, 2, bounds[-1], bounds[-1] + 1):
        delta.observe("agentos_run_llm_calls", ("os", "agent", "a"), value)
    counts = delta.histograms["agentos_run_llm_calls", ("os", "agent", "a")].counts
    assert (counts[0], counts[1], counts[-2], counts[-1]) == (2, 1, 1, 1)


def test_sessions_and_users():
    delta, _ = counted(
        tree(
            (W, "w", -1),
            (A, "a", 0, {"session_id": "s", "user_id": "u", "end": 9_000_000}),
            (A, "b", 0, {"session_id": "s2", "user_id": "u"}),
        )
    )
    assert delta.sessions.keys() == {digest_of("s")}
    assert delta.activity == {
        ("session", digest_of("s")): 9_000_000,
        ("session", digest_of("s2")): 3_000_000,
        ("user", digest_of("u")): 9_000_000,
    }
    part = delta.sessions[digest_of("s")]
    assert (part.first, part.last, part.runs) == (1_000_000, 3_000_000, 1)
    observe_session(delta, part)
    assert delta.histograms["agentos_session_duration_seconds", ("os",)].total == 2_000_000


@pytest.mark.parametrize(
    ("nodes", "kind"),
    [
        ([], "unknown"),
        ([(H, "POST", -1), (L, "m", 0)], "http"),
        ([(H, "POST", -1), (T, "t", 0), (A, "a", 1)], "team"),
        ([(W, "w", -1), (A, "a", 0)], "workflow"),
    ],
)
def test_the_kind_of_a_traces_root(nodes, kind):
    assert root_kind(tree(*nodes)) == kind


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ModelProviderError: boom", "ModelProviderError"),
        ("ModelProviderError", "ModelProviderError"),
        ("openai.RateLimitError: 429", "openai.RateLimitError"),
        ("KeyboardInterrupt", "KeyboardInterrupt"),
        ("SystemExit: 1", "SystemExit"),
        ("httpx.ReadTimeout:", "httpx.ReadTimeout"),
        ("UserWarning: x", "UserWarning"),
        ("alice: not found", "other"),
        ("Errors: many", "other"),
        ("Error in line 5", "other"),
        (" ValueError: x", "other"),
        ("my secret ValueError: x", "other"),
        ("ValueError\n: x", "other"),
        ("ValueError;: x", "other"),
        ("a..ValueError: x", "other"),
        (".ValueError: x", "other"),
        ("x" * 59 + "Error", "x" * 59 + "Error"),
        ("x" * 60 + "Error", "other"),
        ("x" * 5000 + "Error", "other"),
        ("", "other"),
        (None, "other"),
    ],
)
def test_error_types(text, expected):
    assert error_type(text) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Clerk.run", "Clerk"),
        ("Clerk.arun", "Clerk"),
        ("Clerk.continue_run", "Clerk"),
        ("Clerk.acontinue_run", "Clerk"),
        ("Flow._aexecute", "Flow"),
        ("Step.aexecute_stream", "Step"),
        ("Step.execute", "Step"),
        ("Nesting_Agent_v1.2.arun", "Nesting_Agent_v1.2"),
        ("run", "run"),
        ("Clerk.runner", "Clerk.runner"),
        ("Clerk.run.run", "Clerk.run"),
    ],
)
def test_names_of_components(name, expected):
    assert component_name(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("POST /agents/{agent_id}/runs", "POST"),
        ("POST /agents/{agent_id}/runs http send", "POST"),
        ("GET /sessions", "GET"),
        ("OPTIONS /", "OPTIONS"),
        ("POST", "POST"),
        ("POSTAL", ""),
        ("Clerk.arun", ""),
        ("OpenAI Chat", ""),
        ("connect POST /", ""),
        ("", ""),
    ],
)
def test_methods_of_requests(name, expected):
    assert http_method(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("OpenAIChat.ainvoke", "OpenAIChat"),
        ("OpenAIChat.invoke_stream", "OpenAIChat"),
        ("Claude.ainvoke_stream", "Claude"),
        ("Claude.response", "Claude"),
        ("ChatCompletion", ""),
    ],
)
def test_names_of_models(name, expected):
    assert model_class(name) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("OpenAI Chat", "openai"), ("OpenAI Responses", "openai"), ("Anthropic", "anthropic"), ("", "")],
)
def test_names_of_providers(text, expected):
    assert provider_label(text) == expected


@st.composite
def trees(draw):
    kinds = draw(st.lists(st.sampled_from([A, T, W, L, X, H, O]), max_size=12))
    parents = [draw(st.integers(-1, place - 1)) for place in range(len(kinds))]
    return tree(
        *((kind, f"n{place % 3}", parent) for place, (kind, parent) in enumerate(zip(kinds, parents, strict=True)))
    )


@given(trees(), st.data())
def test_spans_split_over_two_readings_count_as_in_one(trace, data):
    whole, whole_runs = counted(trace)
    already = data.draw(st.sets(st.sampled_from(range(len(trace.spans)))) if trace.spans else st.just(set()))
    shown, place = [], {}
    for index, span in enumerate(trace.spans):  # ancestor-closed
        if index in already and (span.parent < 0 or span.parent in place):
            place[index] = len(shown)
            shown.append(structs.replace(span, parent=place.get(span.parent, -1)))
    part = Trace("t1", "db", 0, 0, 0, len(trace.spans) + (len(shown) == len(trace.spans)), tuple(shown))
    delta, runs = Delta("os"), {}
    first = fold(delta, part, set(), runs, now=4_000_000, final=False)
    second = fold(delta, trace, set(first), runs, now=4_000_000, final=False)
    assert not set(first) & set(second)
    assert delta.counters == whole.counters
    assert delta.histograms.keys() == whole.histograms.keys()
    for key, histogram in delta.histograms.items():
        assert (histogram.counts, histogram.total) == (whole.histograms[key].counts, whole.histograms[key].total)
    assert runs == whole_runs


@given(trees())
def test_the_parts_of_a_total_are_the_total(trace):
    delta, _ = counted(trace)
    spans = of(delta, "agentos_spans_total")
    by_kind = {kind: sum(count for labels, count in spans.items() if labels[-1] == kind) for kind in ("llm", "tool")}
    assert sum(of(delta, "agentos_llm_calls_total").values()) == by_kind["llm"]
    assert sum(of(delta, "agentos_tool_calls_total").values()) == by_kind["tool"]
    assert sum(spans.values()) == delta.spans
    pairs = itertools.chain(delta.counters, delta.histograms)
    assert all(len(labels) == len(METRICS[name].labels) for name, labels in pairs)
