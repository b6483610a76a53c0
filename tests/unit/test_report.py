"""What a period cost: figures by group, what is unknown, and each form of the output. Rows are made by hand."""

import csv
import datetime as dt
import io
import json
import re
from fractions import Fraction
from html.parser import HTMLParser

import pytest
from rich.console import Console

from exporter.core.times import micros
from exporter.ledger.daily import Days, DaySum
from exporter.pricing.money import USD
from exporter.report import csv_rows, json_document, terminal
from exporter.report.columns import KEYS, grouping
from exporter.report.document import make_report
from exporter.report.numbers import count, dollars, label, percent
from exporter.report.page import render as page
from exporter.report.page.axis import ticks
from exporter.report.page.charts import bars
from exporter.report.period import Period
from exporter.report.tables import tabulate

FIRST, SECOND = dt.date(2026, 11, 1), dt.date(2026, 11, 2)
PERIOD = Period(FIRST, SECOND, dt.date(2026, 11, 20))
DASH = "\N{EN DASH}"
HOSTILE = "<script>alert(1)</script>\"'&\u202e"


def row(metric, *labels, value, day=FIRST, agentos="prod"):
    return DaySum(agentos, day, f"agentos_{metric}_total", (agentos, *labels), value)


def tokens(value, root="Flow", agent="Writer", provider="openai", model="gpt", token_class="input", **more):
    return row("llm_tokens", root, agent, provider, model, token_class, value=value, **more)


def cost(
    value, root="Flow", agent="Writer", provider="openai", model="gpt", token_class="input", source="listed", **more
):
    return row("llm_cost_usd", root, agent, provider, model, token_class, source, value=value, **more)


def calls(value, root="Flow", agent="Writer", provider="openai", model="gpt", **more):
    return row("llm_calls", root, agent, provider, model, value=value, **more)


ROWS = (
    calls(3),
    calls(2, day=SECOND, agentos="lab"),
    row("llm_call_errors", "Flow", "Writer", "openai", "gpt", "TimeoutError", value=1),
    row("llm_calls_without_usage", "Flow", "Writer", "openai", "gpt", value=1),
    tokens(100),
    tokens(40, token_class="cache_read"),
    tokens(5, token_class="cache_write"),
    tokens(20, token_class="output"),
    tokens(7, token_class="reasoning"),
    tokens(50, day=SECOND, agentos="lab"),
    cost(3 * USD),
    cost(USD + 1, token_class="output"),
    cost(USD // 2, day=SECOND, agentos="lab", source="estimated"),
    calls(4, agent="", model="house"),
    tokens(900, agent="", model="house"),
    row("llm_unpriced_tokens", "openai", "house", "input", value=900),
    row("tool_calls", "Flow", "Writer", "search", value=6),
    row("llm_cache_savings_usd", "Flow", "Writer", "openai", "gpt", value=USD // 4),
    row("runs", "agent", "Flow", value=8),
    row("run_errors", "agent", "Flow", "TimeoutError", value=2),
    row("dimension_cost_usd", "tenant", "acme", "gpt", value=4 * USD),
    row("dimension_tokens", "tenant", "acme", "gpt", value=172),
    row("dimension_runs", "tenant", "acme", value=7),
    row("dimension_runs", "version", "2", value=8),
    row("dimension_run_errors", "version", "2", value=2),
    row("user_cost_usd", "alice", value=3 * USD),
    row("user_tokens", "bob", value=11),
)


def by(*keys, rows=ROWS, dimensions=("tenant", "version"), users=True):
    return tabulate(rows, grouping(keys, dimensions, users=users))


def figures(table):
    """Return the figures by labels, those of one key by its value."""
    return {group.labels if len(group.labels) > 1 else group.labels[0]: group.figures for group in table.groups}


def report(rows=ROWS, names=("prod", "lab"), period=PERIOD, keys=("model",), more=(), dropped=None):
    start = micros(dt.datetime(2026, 10, 1, tzinfo=dt.UTC))
    groupings = [grouping(one, ("tenant",), users=True) for one in (keys, *more)]
    return make_report(Days(dict.fromkeys(names, start), rows), period, names, groupings, dropped or {})


# --- Figures ----------------------------------------------------------------------------------------------------------


def test_by_model_all_figures_are_there_and_the_dearest_comes_first():
    table = by("model")
    assert [group.labels for group in table.groups] == [("gpt",), ("house",)]
    assert table.groups[0].figures == {
        "cost_usd": 4 * USD + 1 + USD // 2,
        "tokens": 222,
        "input_tokens": 150,
        "cached_tokens": 45,
        "output_tokens": 27,
        "unpriced_tokens": 0,
        "calls": 5,
        "call_errors": 1,
        "calls_without_usage": 1,
        "cache_savings_usd": USD // 4,
    }


def test_what_no_sum_tells_is_unknown_and_a_part_of_a_known_whole_is_0():
    house = figures(by("model"))["house"]
    assert not {"cost_usd", "cached_tokens", "output_tokens", "cache_savings_usd"} & house.keys()
    assert (house["call_errors"], house["unpriced_tokens"], house["calls"]) == (0, 900, 4)


def test_the_total_is_that_of_all_groups():
    for keys in (("model",), ("day",), ("agentos", "agent"), ("root",), ("tenant",), ("user",), ("token_class",)):
        table = by(*keys)
        for column in table.grouping.columns:
            known = [group.figures[column.name] for group in table.groups if column.name in group.figures]
            assert table.total.figures.get(column.name, 0) == sum(known), (keys, column.name)


def test_runs_and_tools_are_there_where_their_counters_have_the_labels():
    flow = figures(by("root"))["Flow"]
    assert (flow["runs"], flow["run_errors"], flow["tool_calls"]) == (8, 2, 6)
    names = {column.name for column in by("agent").grouping.columns}
    assert "tool_calls" in names
    assert "runs" not in names


def test_days_come_in_their_order_and_the_dearest_first_in_each():
    table = by("day", "model", rows=[*ROWS, cost(9 * USD, day=SECOND, model="big")])
    assert [group.labels for group in table.groups] == [
        ("2026-11-01", "gpt"),
        ("2026-11-01", "house"),
        ("2026-11-02", "big"),
        ("2026-11-02", "gpt"),
    ]


def test_by_token_class_there_is_one_sum_of_tokens_and_by_source_only_money():
    assert figures(by("token_class"))["cache_read"] == {"tokens": 40, "unpriced_tokens": 0}
    assert [column.name for column in by("token_class").shown] == ["cost_usd", "tokens"]
    assert figures(by("cost_source")) == {"listed": {"cost_usd": 4 * USD + 1}, "estimated": {"cost_usd": USD // 2}}


def test_a_dimension_has_its_own_values_alone():
    assert figures(by("tenant")) == {"acme": {"cost_usd": 4 * USD, "tokens": 172, "runs": 7, "run_errors": 0}}
    assert figures(by("version")) == {"2": {"runs": 8, "run_errors": 2}}
    assert figures(by("day", "tenant", "model")) == {
        ("2026-11-01", "acme", "gpt"): {"cost_usd": 4 * USD, "tokens": 172}
    }


def test_a_dimension_that_is_named_like_a_label_has_a_spelling_of_its_own():
    rows = [row("dimension_cost_usd", "model", "mine", "gpt", value=5), cost(7)]
    asked = {"rows": rows, "dimensions": ("model",)}
    assert figures(by("dimension.model", **asked)) == {"mine": {"cost_usd": 5}}
    assert figures(by("dimension.model", "model", **asked)) == {("mine", "gpt"): {"cost_usd": 5}}
    assert figures(by("model", **asked)) == {"gpt": {"cost_usd": 7}}


def test_users_have_cost_and_tokens():
    assert figures(by("user")) == {"alice": {"cost_usd": 3 * USD}, "bob": {"tokens": 11}}


@pytest.mark.parametrize("key", KEYS)
def test_each_key_can_be_asked_for(key):
    assert by(key).groups


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        (["colour"], "'colour' is nothing to group by; known are day, agentos"),
        (["day", "day"], "day is given twice"),
        (["tenant", "version"], "tenant and version are dimensions, of which one at a time"),
        (["tenant", "agent"], "no counter has tenant and agent together"),
        (["user", "model"], "no counter has user and model together"),
    ],
)
def test_what_no_counter_tells_is_refused(keys, problem):
    with pytest.raises(ValueError, match=re.escape(problem)):
        grouping(keys, ("tenant", "version"), users=True)


def test_users_that_are_not_counted_are_refused():
    with pytest.raises(ValueError, match=r"labels\.user is off"):
        grouping(["user"], (), users=False)


def test_shares_are_parts_of_the_known_cost():
    table = by("model", rows=[cost(3 * USD), cost(USD, model="mini"), tokens(5, model="house")])
    assert [table.share(group) for group in table.groups] == [Fraction(3, 4), Fraction(1, 4), None]
    assert by("model", rows=[cost(0)]).share(by("model", rows=[cost(0)]).groups[0]) is None


def test_groups_beyond_the_most_are_added_up():
    table = by("model", rows=[cost(n * USD, model=f"m{n}") for n in range(1, 5)])
    groups, others = table.split(2)
    assert ([group.labels[0] for group in groups], others.figures) == (["m4", "m3"], {"cost_usd": 3 * USD})
    assert table.split(4)[1] is None


# --- Notes ------------------------------------------------------------------------------------------------------------


def test_notes_say_what_is_missing():
    assert report().notes == (
        "900 tokens of model house (openai) have no price: the cost is at least what is shown",
        "the cost of 1 call is not known: it reported no tokens (failed calls often do not)",
        "0.5 USD of the cost is estimated: cached tokens, or the price of a gateway, are not known",
    )


def test_nothing_is_noted_where_all_is_known():
    assert report(rows=[calls(1), tokens(1), cost(USD)]).notes == ()


def test_models_without_a_price_beyond_ten_are_added_up():
    rows = [row("llm_unpriced_tokens", "", f"m{n:02}", "input", value=100 - n) for n in range(12)]
    notes = report(rows=rows).notes
    assert notes[0] == "100 tokens of model m00 have no price: the cost is at least what is shown"
    assert notes[10:] == ("179 tokens of 2 more models have no price",)


def test_partial_days_are_noted():
    since = {"prod": micros(dt.datetime(2026, 11, 1, 8, 30, tzinfo=dt.UTC))}
    made = make_report(
        Days(since, ()), Period(FIRST, SECOND, SECOND), ["prod", "lab"], [grouping(("model",), (), users=False)], {}
    )
    assert made.notes == (
        "prod: the sums are complete from 2026-11-01 08:30 UTC on; of what began before, some or all is missing",
        "lab: there are no daily sums of it",
        "today, 2026-11-02 in UTC, is not over",
    )
    assert made.partial == {FIRST, SECOND}
    assert report().partial == frozenset()


def test_values_that_limits_folded_are_explained_where_they_show():
    rows = [cost(USD, agent="other", source="other")]
    assert report(rows=rows).notes == ()
    (note,) = report(rows=rows, keys=("agent",)).notes
    assert note.startswith("agent other: values beyond the limits")
    (folded, settled) = report(rows=[row("dimension_runs", "tenant", "other", value=1)], keys=("tenant",)).notes
    assert folded.startswith("tenant other: values beyond the limits")
    assert settled.startswith("tenant: a run counts once it is settled")


def test_dropped_labels_are_noted_where_they_are_asked_for():
    dropped = {"agentos_llm_cost_usd_total": frozenset({"agent"})}
    assert report(rows=[cost(USD, agent="")], dropped=dropped).notes == ()
    assert report(rows=[cost(USD, agent="")], keys=("agent",), dropped=dropped).notes == (
        "agent: labels.drop takes it from agentos_llm_cost_usd_total, of which the whole stands at (no agent)",
    )


# --- Numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amount", "places", "shown"),
    [
        (None, 2, DASH),
        (0, 2, "0.00"),
        (1, 4, "<0.0001"),
        (USD // 10**4, 4, "0.0001"),
        (1234567 * USD + 5 * USD // 1000, 2, "1,234,567.00"),
        (12345678901234567890 * USD, 2, "12,345,678,901,234,567,890.00"),
    ],
)
def test_dollars(amount, places, shown):
    assert dollars(amount, places) == shown


def test_unknown_is_a_dash():
    assert (count(None), count(0), count(1234567)) == (DASH, "0", "1,234,567")
    assert [percent(part) for part in (None, Fraction(0), Fraction(1, 3000), Fraction(1, 3), Fraction(1))] == [
        DASH,
        "0.0 %",
        "<0.1 %",
        "33.3 %",
        "100.0 %",
    ]
    assert [label(""), label("", "agent"), label("a\nb\u202e")] == ["(unknown)", "(no agent)", "a\\nb\\u202e"]


@pytest.mark.parametrize(
    ("largest", "marks"),
    [
        (1, [0, 1]),
        (7, [0, 2, 4, 6, 8]),
        (10, [0, 2, 4, 6, 8, 10]),
        (51, [0, 20, 40, 60]),
        (100, [0, 20, 40, 60, 80, 100]),
    ],
)
def test_an_axis_has_round_marks_up_to_the_largest(largest, marks):
    assert ticks(largest) == marks


# --- CSV, JSON, terminal ----------------------------------------------------------------------------------------------


def test_csv_has_exact_figures_and_is_empty_where_nothing_is_known():
    text = csv_rows.render(by("model"))
    assert text.count("\r\n") == text.count("\n") == 3
    gpt, house = csv.DictReader(io.StringIO(text))
    assert (gpt["model"], gpt["cost_usd"], gpt["tokens"]) == ("gpt", "4.500000000000000001", "222")
    assert (house["cost_usd"], house["call_errors"], house["unpriced_tokens"]) == ("", "0", "900")


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_csv_holds_no_formula(start):
    table = by("model", rows=[cost(USD, model=f'{start}cmd|"x",\n1'), cost(1, model=f"a{start}b")])
    rows = list(csv.reader(io.StringIO(csv_rows.render(table), newline="")))
    assert [row[0] for row in rows[1:]] == [f'\'{start}cmd|"x",\n1', f"a{start}b"]


def test_json_has_exact_money_as_text_and_null_for_unknown():
    made = json.loads(json_document.render(report()))
    assert (made["from"], made["to"], made["agentos"]) == ("2026-11-01", "2026-11-02", ["prod", "lab"])
    gpt, house = made["groups"]
    assert (gpt["labels"], gpt["cost_usd"], gpt["calls"]) == ({"model": "gpt"}, "4.500000000000000001", 5)
    assert (house["cost_usd"], house["call_errors"]) == (None, 0)
    assert made["total"]["tokens"] == 1122
    assert made["cost_usd_by_source"] == {"listed": "4.000000000000000001", "estimated": "0.5"}
    assert len(made["notes"]) == 3


def drawn(made):
    out = io.StringIO()
    terminal.draw(Console(file=out, width=200), made)
    return out.getvalue()


def test_a_terminal_shows_groups_totals_sources_and_notes():
    lines = drawn(report()).splitlines()
    assert lines[0] == "2026-11-01 to 2026-11-02 (UTC): prod, lab"
    cells = [re.split(r" {2,}", line.strip()) for line in lines[2:6]]
    assert cells == [
        ["model", "cost USD", "share", "in", "cached", "out", "calls", "errors"],
        ["gpt", "4.5000", "100.0 %", "150", "45", "27", "5", "1"],
        ["house", DASH, DASH, "900", DASH, DASH, "4", "0"],
        ["total", "4.5000", "100.0 %", "1,050", "45", "27", "9", "1"],
    ]
    assert "cost in USD by source: listed 4.0000, estimated 0.5000" in lines
    assert sum(line.startswith("note: ") for line in lines) == 3


def test_a_terminal_obeys_no_text():
    text = drawn(report(rows=[cost(USD, model="[red]x\x1b[31m\u202e")]))
    assert "[red]x\\x1b[31m\\u202e" in text
    assert "\x1b" not in text


def test_a_terminal_says_that_there_is_nothing():
    assert "nothing was counted" in drawn(report(rows=[]))


# --- The page ---------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Reads a page: that each tag is closed, its texts and its attributes."""

    VOID = frozenset({"meta"})

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.tags, self.attributes = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip() and self.open[-1] != "style":
            self.texts.append(data.strip())


EVERY = (("agent",), ("root",), ("tenant",), ("user",), ("day", "model"))


def read(made):
    text = page.render(made)
    assert text.isascii()
    return text, Page(text)


def test_a_page_has_headline_notes_charts_and_tables():
    made = report(more=EVERY)
    text, found = read(made)
    assert found.texts[found.texts.index("USD, at least") + 1] == "4.50"
    assert all(note in found.texts for note in made.notes)
    assert found.tags.count("svg") == 2
    titles = ["By model", "By agent", "By root", "By tenant", "By user", "By day and model", "Where prices come from"]
    assert [one for one in found.texts if one in titles] == titles
    assert "2026-11-01: gpt 4.0000 USD" in found.texts
    assert DASH in found.texts
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_a_page_needs_nothing_from_elsewhere():
    text, found = read(report(more=EVERY))
    assert not {"script", "link", "img", "iframe", "object", "a", "form"} & set(found.tags)
    assert not {"src", "href", "style", "action"} & {name for name, _ in found.attributes}
    assert "://" not in text
    assert not re.search(r"url\(|@import", text)
    policy = next(value for name, value in found.attributes if name == "content" and value.startswith("default-src"))
    assert policy.startswith("default-src 'none'; style-src 'sha256-")


def test_a_page_escapes_all_that_users_chose():
    rows = [
        cost(USD, root=HOSTILE, agent=HOSTILE, model=HOSTILE, provider=HOSTILE, source=HOSTILE, agentos=HOSTILE),
        row("llm_unpriced_tokens", HOSTILE, HOSTILE, "input", value=1),
        row("dimension_cost_usd", "tenant", HOSTILE, HOSTILE, value=USD),
        row("user_cost_usd", HOSTILE, value=USD),
    ]
    text, found = read(report(rows=rows, names=(HOSTILE,), more=EVERY))
    shown = HOSTILE.replace("\u202e", "\\u202e")
    assert not {"script", "b"} & set(found.tags)
    assert found.texts.count(shown) == 8  # six tables, the legend, the source
    assert sum(shown in one for one in found.texts) == 12  # with the address line, titles of two bars and a note
    assert "\u202e" not in text
    assert "&#8238;" not in text


def test_a_page_without_anything_is_whole():
    _, found = read(report(rows=[], more=EVERY))
    assert "svg" not in found.tags
    assert found.texts.count(DASH) > 5


def test_models_beyond_the_colours_and_rows_beyond_the_table_are_added_up():
    rows = [cost(USD, model=f"m{n:02}") for n in range(60)]
    _, found = read(report(rows=rows))
    assert "52 more models" in found.texts
    assert found.texts[found.texts.index("10 more") + 1] == "10.0000"
    assert "m50" not in found.texts


def test_incomplete_days_are_marked_in_the_chart():
    _, found = read(report(period=Period(FIRST, SECOND, SECOND)))
    assert "2026-11-02: incomplete" in found.texts
    assert "incomplete day" in found.texts
    assert "incomplete day" not in read(report())[1].texts


def test_bars_are_as_long_as_what_they_show():
    chart = bars([("one", 4 * USD), ("a name that is longer than its room", USD)], "Cost")
    widths = [float(one) for one in re.findall(r'<rect class="s0"[^>]* width="([\d.]+)"', chart)]
    assert widths[0] == 4 * widths[1]
    assert "a name that is longer tha…</text>" in chart
    assert bars([("free", 0)], "Cost") == ""
