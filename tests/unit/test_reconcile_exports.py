"""Usage exports of vendors: what is read of each form, and which files are refused with which words."""

import datetime as dt
import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.core.errors import ExportError
from exporter.pricing.money import USD
from exporter.reconcile.exports import records, vendors
from exporter.reconcile.figures import Measure
from exporter.reconcile.reasons import Reason
from tests.harness.examples import examples

SAMPLES = Path(__file__).parents[1] / "exports"
DAY, NEXT = dt.date(2026, 11, 17), dt.date(2026, 11, 18)
MINI, BIG = "gpt-5.4-mini-2026-03-17", "gpt-5.4-2026-03-05"
SONNET, HAIKU = "claude-sonnet-5-5", "claude-haiku-4-5-20251001"


def statement(*names):
    (found,) = vendors.read([SAMPLES / name for name in names])
    return found


def tokens(fresh, read, written, output, **more):
    return {
        Measure.INPUT: fresh,
        Measure.CACHE_READ: read,
        Measure.CACHE_WRITE: written,
        Measure.OUTPUT: output,
        **{Measure[name.upper()]: value for name, value in more.items()},
    }


def usd(text):
    whole, _, rest = text.partition(".")
    return int(whole) * USD + int(rest.ljust(18, "0") or 0)


# --- OpenAI -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["openai_usage.json", "openai_usage.csv"])
def test_openai_usage(name):
    found = statement(name)
    assert (found.by, found.vendor) == ("OpenAI", "openai")
    assert found.rows == {
        (DAY, MINI): tokens(100_000, 20_000, 0, 30_000, calls=60),
        (DAY, BIG): tokens(50_000, 0, 0, 8_000, calls=10),
        (NEXT, MINI): tokens(80_000, 10_000, 0, 20_000, calls=45),
    }
    assert found.days == found.complete == {DAY, NEXT, dt.date(2026, 11, 19)}
    assert (found.remarks, found.shifted, found.beyond) == ((), {}, {})


def test_openai_costs_by_line_item():
    found = statement("openai_costs.json")
    assert found.rows == {
        (DAY, MINI): {Measure.COST: usd("0.2115")},
        (DAY, BIG): {Measure.COST: usd("0.25")},
        (NEXT, MINI): {Measure.COST: usd("0.15")},
    }
    assert found.beyond == {(DAY, "web search tool calls"): usd("0.02")}


def test_openai_costs_that_are_not_told_by_model():
    found = statement("openai_costs.csv")
    assert found.rows == {
        (DAY, ""): {Measure.COST: usd("0.4815000000000001")},
        (NEXT, ""): {Measure.COST: usd("0.15")},
    }


def test_usage_and_costs_are_one_statement():
    found = statement("openai_usage.json", "openai_costs.json")
    assert found.rows[DAY, MINI] == tokens(100_000, 20_000, 0, 30_000, calls=60, cost=usd("0.2115"))


@pytest.mark.parametrize(
    ("line_item", "model"),
    [
        ("gpt-5.4-2026-03-05, cached input", "gpt-5.4-2026-03-05"),
        ("priority | gpt-5.6-sol, output, long context", "gpt-5.6-sol"),
        ("gpt-image-2.5 text, input", "gpt-image-2.5"),
        ("ft:gpt-4o:acme::abc, output", "ft:gpt-4o:acme::abc"),
        ("web search tool calls", None),
        ("assistants api | file search", None),
    ],
)
def test_line_items(line_item, model):
    result = {"amount": {"value": 1, "currency": "usd"}, "line_item": line_item}
    found = parsed({"data": [{"start_time": 1763337600, "end_time": 1763424000, "results": [result]}]})
    if model is None:
        assert [name for _, name in found.beyond] == [line_item]
    else:
        assert [name for _, name in found.rows] == [model]


def parsed(*documents, tmp=None):
    collector = vendors.Collector("OpenAI", "openai")
    for number, document in enumerate(documents):
        export = records.parse(f"{number}.json", json.dumps(document).encode())
        collector.add(vendors.VENDORS["openai"].read(export, collector.remark))
    return collector.statement()


def page(*results, start=1763337600, end=1763424000, **more):
    return {"data": [{"start_time": start, "end_time": end, "results": list(results)}], **more}


def test_a_page_that_is_not_the_last_says_so():
    usage = {"input_tokens": 1, "input_cached_tokens": 0}
    (remark,) = parsed(page(usage, has_more=True)).remarks
    assert remark.reason is Reason.PAGES_MISSING
    assert remark.text == "0.json is not the last page of its export; give the next one too"
    assert parsed(page(usage, has_more=True), page(usage, start=1763424000, end=1763510400)).remarks == ()


def test_rows_of_other_things_are_said():
    (remark,) = parsed(page({"object": "organization.usage.embeddings.result", "input_tokens": 7})).remarks
    assert remark.reason is Reason.PASSED_OVER
    assert "organization.usage.embeddings.result" in remark.text


def test_unknown_fields_are_said():
    (remark,) = parsed(page({"input_tokens": 7, "input_cached_tokens": 0, "surprise": 1})).remarks
    assert remark == (Reason.PASSED_OVER, "0.json: fields that are not known: surprise")


def test_input_without_its_cached_part_is_not_compared():
    found = parsed(page({"input_tokens": 7, "output_tokens": 2, "num_model_requests": 1, "model": "m"}))
    assert list(found.rows.values()) == [{Measure.CALLS: 1, Measure.OUTPUT: 2}]
    assert [remark.reason for remark in found.remarks] == [Reason.PASSED_OVER]


def test_the_same_row_in_two_files_counts_once():
    usage = {"input_tokens": 7, "input_cached_tokens": 0, "output_tokens": 2, "num_model_requests": 1, "model": "m"}
    other = {**usage, "project_id": "another"}
    found = parsed(page(usage, other), page(usage))
    assert next(iter(found.rows.values()))[Measure.CALLS] == 2
    assert found.remarks == ((Reason.DUPLICATE_ROWS, "1 row is in the files twice, and counted once"),)


def test_two_files_that_contradict_each_other_are_refused():
    usage = {"input_tokens": 7, "input_cached_tokens": 0, "model": "m"}
    with pytest.raises(ExportError, match=r"^1\.json, row 1, data, row 1, results, row 1: states other figures than 0"):
        parsed(page(usage), page({**usage, "input_tokens": 8}))


def test_a_file_that_is_given_twice_counts_once(tmp_path):
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes((SAMPLES / "google_bigquery.jsonl").read_bytes())
    (found,) = vendors.read([SAMPLES / "google_bigquery.jsonl", copy])
    assert found.rows == statement("google_bigquery.jsonl").rows
    text = "copy.jsonl is the same file as google_bigquery.jsonl, and counted once"
    assert (Reason.DUPLICATE_ROWS, text) in found.remarks


def test_a_row_that_spans_midnight_is_no_day_of_utc():
    found = parsed(page({"input_tokens": 7, "input_cached_tokens": 0}, start=1763337600 - 3600, end=1763424000 - 3600))
    assert set(found.shifted) == {dt.date(2025, 11, 16), dt.date(2025, 11, 17)}


def test_a_last_day_that_is_not_told_to_its_end_is_not_complete():
    usage = {"input_tokens": 7, "input_cached_tokens": 0}
    found = parsed(page(usage), page(usage, start=1763424000, end=1763424000 + 3600))
    assert found.complete == {dt.date(2025, 11, 17)}
    assert found.days == {dt.date(2025, 11, 17), dt.date(2025, 11, 18)}


# --- Anthropic --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["anthropic_usage.json", "anthropic_usage.csv"])
def test_anthropic_usage(name):
    found = statement(name)
    assert found.vendor == "anthropic"
    assert found.rows == {
        (DAY, SONNET): tokens(40_000, 9_000, 2_000, 12_000),
        (DAY, HAIKU): tokens(7_000, 0, 0, 900),
    }


def test_anthropic_costs_are_cents_with_their_fractions():
    found = statement("anthropic_costs.json")
    assert found.rows == {(DAY, SONNET): {Measure.COST: usd("0.300005")}}
    assert found.beyond == {(DAY, "web_search"): usd("0.025")}


def test_costs_of_the_console_are_rounded():
    found = statement("anthropic_costs.csv")
    assert found.rows == {
        (DAY, "claude-sonnet-5-5"): {Measure.COST: usd("0.3")},
        (DAY, "claude-haiku-4-5"): {Measure.COST: usd("0.01")},
    }
    assert found.rounding == {(DAY, "claude-sonnet-5-5"): usd("0.01"), (DAY, "claude-haiku-4-5"): usd("0.005")}
    assert found.beyond == {(DAY, "web_search"): usd("0.01")}


# --- Google -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["google_bigquery.jsonl", "google_bigquery.csv"])
def test_google_bigquery(name):
    found = statement(name)
    assert found.rows == {
        (DAY, "gemini-3.7-flash"): {
            Measure.INPUT: 100_000,
            Measure.CACHE_READ: 20_000,
            Measure.OUTPUT: 30_000,
            Measure.COST: usd("0.0963"),
        },
        (DAY, "gemini-2.5-pro"): {Measure.INPUT: 5_000, Measure.OUTPUT: 1_200, Measure.COST: usd("0.01825")},
    }
    assert found.beyond == {(DAY, "Cached content storage token hours gemini 3.7 flash"): usd("0.004")}
    assert (Reason.PASSED_OVER, f"{name}: 1 rows of other services") in found.remarks
    assert ((Reason.CREDITS, f"{name}: credits of -0.01 USD are not taken off") in found.remarks) is name.endswith("l")


def test_days_of_a_billing_report_are_not_those_of_utc():
    found = statement("google_report.csv")
    assert found.rows == {
        (DAY, "gemini-3.7-flash"): {Measure.INPUT: 100_000, Measure.OUTPUT: 30_000, Measure.COST: usd("0.0949")}
    }
    assert "Pacific time" in found.shifted[DAY]


@pytest.mark.parametrize(
    ("sku", "model", "measure"),
    [
        (
            "Generate content output token count gemini 2.5 flash lite short output text",
            "gemini-2.5-flash-lite",
            "OUTPUT",
        ),
        ("Generate content output token count gemini 2.5 flash short input text", "gemini-2.5-flash", "OUTPUT"),
        ("Gemini 3.5 Flash Global Text Input - Predictions", "gemini-3.5-flash", "INPUT"),
        ("Gemini 3.0 Pro Text Input Caching", "gemini-3.0-pro", "CACHE_READ"),
        ("Generate content input token count gemini 3.7 flash image flex caching", "gemini-3.7-flash", "CACHE_READ"),
        (" Gemini 2.5 Flash GA Thinking Text Output - Predictions", "gemini-2.5-flash", "OUTPUT"),
    ],
)
def test_skus(sku, model, measure):
    row = {
        "sku": {"description": sku},
        "usage_start_time": "2026-11-17T07:00:00Z",
        "usage_end_time": "2026-11-17T08:00:00Z",
        "cost": 0,
        "currency": "USD",
        "usage": {"amount": 3, "unit": "count"},
    }
    export = records.parse("one.json", json.dumps([row]).encode())
    collector = vendors.Collector("Google", "google")
    collector.add(vendors.VENDORS["google"].read(export, collector.remark))
    assert collector.statement().rows == {(DAY, model): {Measure.COST: 0, Measure[measure]: 3}}


# --- Files that are refused -------------------------------------------------------------------------------------------

USAGE = {"input_tokens": 7, "input_cached_tokens": 0}
COSTS = {"object": "organization.costs.result"}
HEAD = "usage_date_utc,model_version,usage_output_tokens\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "one: is empty; export it once more"),
        (b"\xff\xfe", "one: is no UTF-8; save it as CSV or JSON in UTF-8"),
        ("[" * 100_000, "one: is no valid JSON (nested too deeply); export it once more"),
        ('{"a": NaN}', "one: is no valid JSON (one of its numbers is none); export it once more"),
        ("[1]", "one, row 1: must be an object"),
        ('{"a": 1}\n{"b"', "one, row 2: is no valid JSON; export it once more"),
        (
            "a,b\n1,2\n",
            "one: is no export that is known; take one of openai, anthropic, google as docs/reconcile.md says",
        ),
        ("start_time,end_time,surprise\n1,2,3\n", "one: is no export that is known; take one of openai, anthropic"),
        ("a,a\n1,2\n", "one: has a column twice; export it once more"),
        ("a,b\n1,2,3\n", "one, row 2: has more fields than columns; export it once more"),
        ('a,b\n"1,2\n', "one, row 2: is no valid CSV (unexpected end of data); export it once more"),
        (HEAD, "one: has no rows; export it once more"),
        (HEAD + "yesterday,m,1\n", "one, row 2: usage_date_utc must be a day such as 2026-11-20, not 'yesterday'"),
        (
            HEAD + "2026-11-17,m,1.5\n",
            "one, row 2: usage_output_tokens must be a whole number of at least 0, not '1.5'",
        ),
        (HEAD + "2026-11-17,m,-1\n", "one, row 2: usage_output_tokens must be a whole number of at least 0, not '-1'"),
        (HEAD + "2026-11-17,m,many\n", "one, row 2: usage_output_tokens must be a number, not 'many'"),
        (
            page({**USAGE, "input_cached_tokens": 8}),
            "one, row 1, data, row 1, results, row 1: has more cached tokens than input tokens; export it once more",
        ),
        (
            page({**COSTS, "amount": {"value": 1, "currency": "eur"}}),
            "one, row 1, data, row 1, results, row 1: is in eur, not in USD; export it in USD",
        ),
        (
            page({**COSTS, "amount": {"value": True, "currency": "usd"}}),
            "one, row 1, data, row 1, results, row 1: value must be a number, not 'True'",
        ),
        (page({**USAGE, "model": 7}), "one, row 1, data, row 1, results, row 1: model must be a text"),
        (page(USAGE, end=1763337600), "one, row 1, data, row 1: ends before it begins; export it once more"),
        (
            page(start="soon"),
            "one, row 1, data, row 1: start_time must be a time such as 2026-11-20T00:00:00Z, not 'soon'",
        ),
        (page(start=1e300), "one, row 1, data, row 1: start_time must be a number, not"),
        (
            {"data": [{"start_time": 1, "end_time": 2, "results": 3}]},
            "one, row 1, data, row 1, results: must be a list",
        ),
    ],
    ids=lambda value: None if not isinstance(value, str) else value[-40:],
)
def test_what_is_refused_and_in_which_words(tmp_path, content, message):
    path = tmp_path / "one"
    if not isinstance(content, (str, bytes)):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ExportError) as caught:
        vendors.read([path])
    assert str(caught.value).startswith(message)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ExportError, match=r"none\.json: cannot be read: No such file or directory$"):
        vendors.read([tmp_path / "none.json"])


def test_sizes_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "MOST_BYTES", 100)
    path = tmp_path / "large.csv"
    path.write_text("a" * 101)
    with pytest.raises(ExportError, match="is larger than"):
        vendors.read([path])
    monkeypatch.setattr(records, "MOST_ROWS", 1)
    path.write_text(HEAD + "2026-11-17,m,1\n" * 2)
    with pytest.raises(ExportError, match="has more than 1 rows; export fewer days at once"):
        vendors.read([path])
    monkeypatch.setattr(vendors, "MOST_FILES", 1)
    path.write_text(HEAD + "2026-11-17,m,1\n")
    with pytest.raises(ExportError, match="more than 1 files"):
        vendors.read([path, path])


def test_another_vendor_than_the_one_that_is_wanted():
    with pytest.raises(ExportError, match=r"openai_usage\.csv: is an export of openai, not of google"):
        vendors.read([SAMPLES / "openai_usage.csv"], "google")


def test_each_vendor_has_a_statement_of_its_own():
    found = vendors.read([SAMPLES / "openai_usage.csv", SAMPLES / "anthropic_usage.csv"])
    assert [one.vendor for one in found] == ["openai", "anthropic"]


SEEDS = [path.read_bytes() for path in sorted(SAMPLES.iterdir()) if path.suffix != ".md"]


@st.composite
def damaged(draw):
    """A sample with some of its bytes replaced, left out or repeated."""
    raw = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(raw)))
        end = min(len(raw), at + draw(st.integers(0, 30)))
        raw[at:end] = draw(st.one_of(st.binary(max_size=6), st.sampled_from([b"", b"null", b"-1", b"1e9", b"{", b'"'])))
    return bytes(raw)


@given(damaged())
@example(b'{"data": [{"start_time": 1, "end_time": 9e99, "results": []}]}')
@examples(300)
def test_whatever_a_file_holds_it_is_read_or_refused(tmp_path_factory, raw):
    path = tmp_path_factory.mktemp("fuzz") / "one"
    path.write_bytes(raw)
    try:
        found, said = vendors.read([path]), "one"
    except ExportError as error:
        found, said = [], str(error)
    assert said.startswith("one")
    assert all(amount is not None for one in found for row in one.rows.values() for amount in row.values())
