import copy
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.bookkeeping.intake import Intake
from exporter.bookkeeping.shared import Shared
from exporter.core.errors import BadAnswer
from exporter.core.model import Clock, SpanKind
from exporter.counting.delta import Delta
from exporter.counting.fold import fold
from exporter.ledger.store import Ledger
from exporter.metrics.render import Renderer
from exporter.metrics.series import Limits
from exporter.metrics.totals import Totals
from exporter.sources.api.wire import correct_root, list_page, one_trace, search_page
from exporter.sources.protocol import Batch
from tests.harness.examples import examples

SECRET = "the-patient-is-called-Smith"


def at(seconds, zone="+00:00"):
    return datetime.fromtimestamp(1_790_000_000 + seconds, UTC).isoformat().replace("+00:00", zone)


def us(seconds):
    return (1_790_000_000 + seconds) * 1_000_000


def node(span_id="00000000000000a1", kind="AGENT", name="Clerk.arun", start=0, end=10, spans=(), **more):
    return {
        "id": span_id,
        "name": name,
        "type": kind,
        "duration": "10.00s",
        "start_time": at(start),
        "end_time": at(end),
        "status": "OK",
        "input": SECRET,
        "output": SECRET,
        "error": None,
        "metadata": {"run_id": "r", "prompt": SECRET, "session_id": "s"},
        "spans": list(spans),
        **more,
    }


def llm(span_id="00000000000000b1", **more):
    metadata = {"model": "gpt-5", "input_tokens": 10, "output_tokens": 4, "secret": SECRET}
    fields = {"kind": "LLM", "name": "OpenAIChat.ainvoke", "start": 1, "end": 2, "metadata": metadata}
    return node(span_id, **{**fields, **more})


def row(trace_id="t" * 32, tree=None, **more):
    return {
        "trace_id": trace_id,
        "name": SECRET,
        "status": "OK",
        "duration": "10s",
        "start_time": at(0),
        "end_time": at(10),
        "created_at": at(0),
        "total_spans": 2,
        "error_count": 0,
        "input": SECRET,
        "error": None,
        "run_id": "run",
        "session_id": "session",
        "user_id": "user",
        "tree": [node(spans=[llm()])] if tree is None else tree,
        **more,
    }


def body(*rows, total=None):
    meta = {"page": 1, "limit": 100, "total_count": len(rows) if total is None else total, "search_time_ms": 1.5}
    return json.dumps({"data": list(rows), "meta": meta}).encode()


def decode(*rows):
    return search_page(body(*rows), "db")


GOOD = row("good")


def test_a_page():
    page = decode(row())
    (trace,) = page.traces
    assert (page.total_count, page.search_ms, page.malformed, page.ids) == (1, 1.5, [], {"t" * 32})
    assert (trace.id, trace.db, trace.start, trace.end, trace.created) == ("t" * 32, "db", us(0), us(10), us(0))
    root, call = trace.spans
    assert (root.kind, root.name, root.parent, root.run_id, root.session_id, root.user_id) == (
        SpanKind.AGENT,
        "Clerk",
        -1,
        "r",
        "s",
        "user",
    )
    assert (call.id, call.parent, call.model, call.provider) == (0xB1, 0, "gpt-5", "openai")
    assert (call.usage.prompt, call.usage.completion, call.usage.total) == (10, 4, None)


def test_a_list():
    listing = list_page(body(row(), row("u", end_time=at(5, "+05:00"))))
    assert [seen.id for seen in listing.rows] == ["t" * 32, "u"]
    assert listing.rows[1].end == us(5) - 5 * 3600 * 1_000_000
    assert listing.total_count == 2


@pytest.mark.parametrize("read", [lambda data: search_page(data, "db"), list_page])
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"<HTML>login", "HTML"),
        (b"not json", "not valid JSON"),
        (body(GOOD)[:-30], "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[]", "not a page"),
        (b"null", "not a page"),
        (b"{}", "not a page"),
        (b'{"data":[]}', "not a page"),
        (b'{"data":{},"meta":{"total_count":0}}', "not a page"),
        (b'{"data":[],"meta":{"total_count":"many"}}', "not a page"),
        (b'{"data":[],"meta":null}', "not a page"),
        (b"[" * 10_000, "not a page"),
        (b'{"data":' + b"[" * 10_000, "not valid JSON"),
        (b'{"data":[' + b"[" * 10_000 + b"]" * 10_000 + b"]}", "not valid JSON"),
    ],
)
def test_answers_that_are_no_page(read, data, reason):
    with pytest.raises(BadAnswer, match=reason):
        read(data)


HOSTILE = {
    "no-id": lambda one: one.pop("trace_id"),
    "empty-id": lambda one: one.update(trace_id=""),
    "id-number": lambda one: one.update(trace_id=7),
    "no-tree": lambda one: one.pop("tree"),
    "tree-null": lambda one: one.update(tree=None),
    "tree-text": lambda one: one.update(tree="x"),
    "node-null": lambda one: one.update(tree=[None]),
    "no-end": lambda one: one.pop("end_time"),
    "bad-date": lambda one: one.update(end_time="yesterday"),
    "date-number": lambda one: one.update(end_time=17),
    "year-0": lambda one: one.update(end_time="0000-01-01T00:00:00Z"),
    "total-negative": lambda one: one.update(total_spans=-1),
    "total-text": lambda one: one.update(total_spans="2"),
    "total-huge": lambda one: one.update(total_spans=10**30),
    "total-beyond-sqlite": lambda one: one.update(total_spans=2**63),
    "total-float": lambda one: one.update(total_spans=1.5),
    "total-true": lambda one: one.update(total_spans=True),
    "span-id-number": lambda one: one["tree"][0].update(id=1),
    "span-name-null": lambda one: one["tree"][0].update(name=None),
    "span-status-odd": lambda one: one["tree"][0].update(status="MAYBE"),
    "span-no-time": lambda one: one["tree"][0].pop("start_time"),
    "span-twice": lambda one: one["tree"].append(copy.deepcopy(one["tree"][0])),
    "metadata-list": lambda one: one["tree"][0].update(metadata=[1]),
    "error-number": lambda one: one["tree"][0].update(error=5),
}


@pytest.mark.parametrize("spoil", HOSTILE.values(), ids=HOSTILE)
def test_a_malformed_row_costs_itself_alone(spoil):
    bad = row("bad")
    spoil(bad)
    page = decode(GOOD, bad, row("last"))
    assert [trace.id for trace in page.traces] == ["good", "last"]
    assert len(page.malformed) == 1
    assert page.total_count == 3
    again = decode(bad)
    assert again.malformed == page.malformed, "remembered by the same name each time"


@pytest.mark.parametrize("spoil", ["no-id", "id-number", "bad-date", "total-text", "total-huge", "total-negative"])
def test_a_malformed_row_of_a_list_costs_itself_alone(spoil):
    bad = row("bad")
    HOSTILE[spoil](bad)
    listing = list_page(body(GOOD, bad))
    assert [seen.id for seen in listing.rows] == ["good"]
    assert len(listing.malformed) == 1


@pytest.mark.parametrize("raw", ['"x"', "null", "5", "[]", "{}", '{"trace_id": null}'])
def test_a_row_that_is_nothing_like_one(raw):
    data = b'{"data":[%s,%s],"meta":{"total_count":2}}' % (raw.encode(), json.dumps(GOOD).encode())
    page = search_page(data, "db")
    assert ([trace.id for trace in page.traces], len(page.malformed)) == (["good"], 1)


@pytest.mark.parametrize("levels", [100, 10_000])
def test_deep_trees_never_cost_the_page(levels):
    opening = "".join(json.dumps(node(f"{level:016x}", spans=[]))[:-2] for level in range(levels))
    deep = json.dumps(row("deep", tree=[]))[:-2] + opening + "]}" * levels + "]}"
    data = b'{"data":[%s,%s],"meta":{"total_count":2}}' % (deep.encode(), json.dumps(GOOD).encode())
    page = search_page(data, "db")
    assert "good" in {trace.id for trace in page.traces}
    assert (len(page.ids), page.total_count) == (2, 2)
    if levels == 100:
        assert {trace.id: trace.nodes for trace in page.traces}["deep"] == levels


def test_deep_nesting_in_what_is_skipped():
    deep = "[" * 10_000 + "]" * 10_000
    text = json.dumps(row("deep")).replace('"prompt": "' + SECRET + '"', f'"prompt": {deep}', 1)
    data = b'{"data":[%s,%s],"meta":{"total_count":2}}' % (text.encode(), json.dumps(GOOD).encode())
    page = search_page(data, "db")
    assert "good" in {trace.id for trace in page.traces}
    assert len(page.ids) == 2


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (5, 5),
        (0, 0),
        (5.0, 5),
        (5.5, None),
        (-1, None),
        (True, None),
        ("5", None),
        (None, None),
        (10**9, 10**9),
        (10**9 + 1, None),
        (10**40, None),
        ([], None),
        ({"a": 1}, None),
    ],
)
def test_token_counts(given, expected):
    (trace,) = decode(row(tree=[llm(metadata={"model": "m", "input_tokens": given})])).traces
    assert trace.spans[0].usage.prompt == expected


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "-0", "1e3"])
def test_odd_numbers_never_cost_the_page(number):
    text = body(GOOD, row("odd")).decode()
    head, tail = text.rsplit('"input_tokens": 10', 1)
    data = f'{head}"input_tokens": {number}{tail}'.encode()
    page = search_page(data, "db")
    assert "good" in page.ids
    assert len(page.ids) == 2
    for trace in page.traces:
        for span in trace.spans:
            assert span.usage.prompt in {None, 0, 10, 1000}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (at(10), us(10)),
        (at(10, "Z"), us(10)),
        (at(10, ""), us(10)),
        (at(10, "+02:00"), us(10 - 7200)),
        (at(10, "-05:30"), us(10 + 19800)),
        ("2026-11-20T10:00:00.5Z", 1_795_168_800_500_000),
        ("2026-11-20 10:00:00.000001+00:00", 1_795_168_800_000_001),
        ("1969-12-31T23:59:59Z", -1_000_000),
        ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999),
    ],
)
def test_times_of_any_zone(given, expected):
    (trace,) = decode(row(end_time=given)).traces
    assert trace.end == expected


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("00000000000000a1", True),
        ("00000000000000A1", True),
        ("-0000000000000a1", False),
        ("+0000000000000a1", False),
        ("0x000000000000a1", False),
        ("0_0_0_0_0_0_00a1", False),
        (" 0000000000000a1", False),
        ("a1", False),
        ("", False),
        ("x" * 16, False),
        ("\N{ARABIC-INDIC DIGIT ZERO}" * 16, False),
        ("ffffffffffffffff", False),
        ("a1" * 500, False),
    ],
)
def test_span_ids_are_64_bits_whatever_they_say(text, same):
    (trace,) = decode(row(tree=[node(text)])).traces
    assert 0 <= trace.spans[0].id < 2**64
    assert (trace.spans[0].id == 0xA1) is same


def test_an_error_is_the_roots_own_or_the_traces():
    failed = {"status": "ERROR"}
    own = decode(row(tree=[node(**failed, error="OwnError: x")], error="TraceError: y")).traces[0]
    assert own.spans[0].error_type == "OwnError"
    of_trace = decode(row(tree=[node(**failed)], error="TraceError: y")).traces[0]
    assert of_trace.spans[0].error_type == "TraceError"
    below = decode(row(tree=[node("00000000000000a0", "UNKNOWN", spans=[node(**failed)])], error="TraceError")).traces[
        0
    ]
    assert below.spans[1].error_type == "other"
    fine = decode(row(tree=[node()], error="TraceError")).traces[0]
    assert fine.spans[0].error_type is None


@pytest.mark.parametrize(("kind", "expected"), [("LLM", "rate_limit"), ("AGENT", "other"), ("TOOL", "other")])
@pytest.mark.parametrize("status", ["ERROR", "OK"])
def test_why_a_call_failed(kind, expected, status):
    text = "ModelProviderError: Rate limit reached for gpt-5"
    below = node("00000000000000b1", kind, status=status, error=text)
    span = decode(row(tree=[node(spans=[below])])).traces[0].spans[1]
    assert span.error_class == (expected if status == "ERROR" else "other")
    assert "Rate limit" not in repr(span)


@pytest.mark.parametrize(
    ("tree", "times", "ids"),
    [
        ([node(spans=[llm()])], [], [0]),
        ([node(spans=[llm(start=0)])], [0], [0]),
        ([node(spans=[llm(end=10)])], [0], [0]),
        ([node(spans=[llm(spans=[node("00000000000000c1", start=1, end=11)])])], [0], [0]),
        ([node(), node("00000000000000a2")], [0, 1], [0, 1]),
        ([node("00000000000000a0", "UNKNOWN", spans=[node(spans=[llm(end=10)])])], [], []),
        ([llm()], [], []),
        ([], [], []),
    ],
)
def test_which_roots_may_not_show_their_own_facts(tree, times, ids):
    doubt = decode(row(tree=tree)).doubts.get("t" * 32)
    assert (doubt.times if doubt else []) == times
    assert (doubt.ids if doubt else []) == ids


def test_the_truth_about_a_root():
    (trace,) = decode(row()).traces
    said = json.dumps(node(start=3, end=4, status="ERROR", error="BoomError: x", metadata={"run_id": "r2"})).encode()
    both = correct_root(trace, 0, said, times=True, ids=True).spans[0]
    assert (both.start, both.end, both.error_type) == (us(3), us(4), "BoomError")
    assert (both.run_id, both.session_id, both.user_id) == ("r2", None, None)
    neither = correct_root(trace, 0, said, times=False, ids=False)
    assert (neither.spans[0].start, neither.spans[0].run_id) == (us(0), "r")
    assert neither.spans[1] == trace.spans[1]


@pytest.mark.parametrize("said", [b"", b"<html>", b"{}", b"null", b"[" * 10_000, b'{"spans":[' * 10_000])
def test_no_truth_about_a_root(said):
    (trace,) = decode(row()).traces
    with pytest.raises(BadAnswer):
        correct_root(trace, 0, said, times=True, ids=True)


def test_one_trace():
    assert one_trace(json.dumps(row()).encode(), "db", "t" * 32).traces == decode(row()).traces
    assert one_trace(b'{"trace_id": 5}', "db", "asked").malformed == ["asked"]
    assert one_trace(b"[" * 10_000 + b"]" * 10_000, "db", "asked").malformed == ["asked"]
    with pytest.raises(BadAnswer, match="HTML"):
        one_trace(b"<html>", "db", "asked")


odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from(
        ["", "\ud800", "\0", "x" * 5000, "🙂" * 300, "\u202e", "é", "OK", "LLM", at(0), "9999-12-31T23:59:59Z"]
    ),
    st.text(max_size=5),
    st.builds(list),
    st.builds(dict),
    st.builds(lambda: [node("00000000000000a1")]),
)


@st.composite
def spoiled(draw):
    """A row with some of its values replaced, anywhere."""
    one = row("spoiled", tree=[node(spans=[llm(), node("00000000000000c1", "TOOL", "x")])])
    for _ in range(draw(st.integers(1, 3))):
        target = one
        while True:
            keys = list(target) if isinstance(target, dict) else list(range(len(target)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            inner = target[key]
            if isinstance(inner, dict | list) and inner and draw(st.booleans()):
                target = inner
                continue
            if draw(st.booleans()) and isinstance(target, dict):
                del target[key]
            else:
                target[key] = draw(odd)
            break
    return one


@examples(150)
@given(st.lists(spoiled(), min_size=1, max_size=3))
def test_whatever_stands_in_rows_the_others_are_read_and_all_can_be_stored(rows):
    page = search_page(body(GOOD, *rows), "db")
    assert "good" in {trace.id for trace in page.traces}
    assert len(page.traces) + len(page.malformed) == 1 + len(rows)
    ledger, totals = Ledger(None), Totals(Limits(), zero_hold=0)
    clock = Clock(lambda: 1_790_000_100.0, lambda: 0.0)
    intake = Intake("os", Shared(ledger, totals, clock), overlap=60, horizon=3600)
    try:
        ignored = [(one, "malformed") for one in page.malformed]
        intake.absorb(Batch("db", page.traces, ignored=ignored, first=True))
        Renderer().render(totals.families()[1])
    finally:
        ledger.close()


def test_prompts_and_answers_never_become_labels():
    dirty = {"input": SECRET, "output": SECRET, "error": f"{SECRET}: boom", "status": "ERROR"}
    tree = [
        node(
            **dirty,
            spans=[
                llm(**dirty),
                node("00000000000000c1", "TOOL", "search", **dirty),
                node("00000000000000d1", "UNKNOWN", SECRET, **dirty),
                node("00000000000000e1", "RETRIEVER", SECRET, **dirty),
            ],
        )
    ]
    tree[0]["metadata"] |= {"run_id": SECRET, "session_id": SECRET, "user_id": SECRET}
    (trace,) = decode(row(tree=tree, error=f"{SECRET}: boom", run_id=SECRET, total_spans=5)).traces
    delta = Delta("os")
    fold(delta, trace, set(), {}, now=us(20), final=True)
    labels = [*delta.counters, *delta.histograms]
    assert SECRET not in repr(labels)
    assert SECRET not in repr(delta.exemplars)
    totals = Totals(Limits(), zero_hold=0)
    totals.apply(totals.plan(delta, show=True))
    rendered = Renderer().render(totals.families()[1])
    assert SECRET.encode() not in rendered.text + rendered.openmetrics
    assert b'error_type="other"' in rendered.text
