from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from exporter.bookkeeping.shared import Shared
from exporter.bookkeeping.treasury import Treasury
from exporter.config.dimensions import untold
from exporter.config.settings import AgentOS
from exporter.core.model import Clock, Span, SpanKind, TokenUsage, Trace
from exporter.counting.budgets import Budget, Budgets, Calendar, Period
from exporter.counting.cashier import Cashier
from exporter.counting.dimensions import LONGEST, Dimension, Dimensions, Origin
from exporter.counting.users import UserLabels, hashed
from exporter.counting.waiting import RunDetail
from exporter.ledger.records import Changes
from exporter.metrics.series import Limits
from exporter.pricing.money import USD
from exporter.sources.run_metrics import run_detail
from tests.harness.details import COST, PRICER, TOKENS, Home, S, call, detail, run_of, use
from tests.harness.examples import examples

RUNS, ERRORS = "agentos_dimension_runs_total", "agentos_dimension_run_errors_total"
BY_TOKENS, BY_COST = "agentos_dimension_tokens_total", "agentos_dimension_cost_usd_total"
TENANT = Dimension("tenant", Origin.METADATA, "tenant_id")
TEAM = Dimension("team", Origin.USER, values={"u": "blue"})
PERSON = Dimension("person", Origin.USER)
ENV = Dimension("env", Origin.TAG, "env")
SETTLED = ["t1"]


def cashier(*dimensions, key=b""):
    return Cashier(PRICER, dimensions=Dimensions(dimensions, key=key))


# What tells the values


def told(dimensions, values):
    """Values by name, those alone that are known."""
    return {name: value for name, value in dimensions.named(values).items() if value}


def test_ids_are_values_or_are_mapped_to_them():
    dimensions = Dimensions([TEAM, PERSON, Dimension("chat", Origin.SESSION, values={"s": "help"})])
    assert told(dimensions, dimensions.of_ids("u", "s")) == {"team": "blue", "person": "u", "chat": "help"}
    assert told(dimensions, dimensions.of_ids("someone", "other")) == {"person": "someone"}
    assert dimensions.of_ids(None, None) == {}


def test_metadata_and_tags():
    dimensions = Dimensions([TENANT, ENV])
    assert told(dimensions, dimensions.of_metadata({"tenant_id": "acme", "env": "x"})) == {"tenant": "acme"}
    assert dimensions.of_metadata({"tenant_id": ""}) == {}
    assert told(dimensions, dimensions.of_tags(["beta", "env:", "env:prod", "env:test"])) == {"env": "prod"}
    assert told(dimensions, dimensions.of_tags(["env=prod:eu"])) == {"env": "prod:eu"}
    assert dimensions.of_tags(["environment:prod"]) == {}


def test_values_are_printable_short_and_hashed_where_asked():
    plain, secret = Dimensions([TENANT]), Dimensions([replace(TENANT, hashed=True)], key=b"k")
    long = told(plain, plain.of_metadata({"tenant_id": "a\nb" + "x" * 999}))["tenant"]
    assert (long[:3], len(long)) == ("a\N{REPLACEMENT CHARACTER}b", LONGEST)
    assert told(secret, secret.of_metadata({"tenant_id": "acme"})) == {"tenant": hashed("acme", b"k")[:16]}


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (
            {"a": "b", "n": 3, "f": 0.5, "yes": True, "list": [1], "none": None},
            {"a": "b", "n": "3", "f": "0.5", "yes": "true"},
        ),
        ({"a": "x" * 999, "y" * 999: "b"}, {}),
        ("text", None),
    ],
)
def test_only_short_texts_and_numbers_of_metadata_are_kept(metadata, expected):
    found = run_detail("r", None, metadata)
    assert (None if found is None else found.metadata) == expected
    assert "acme" not in repr(run_detail("r", {}, {"tenant_id": "acme"}))


# What is counted


def test_a_run_counts_by_its_values_once_it_is_settled():
    home = Home(cashier=cashier(PERSON))
    trace = run_of(1, call(100, 10), call(50, 5))
    home.enabled = False
    home.open()
    home.read(trace)
    assert home.of(RUNS, 1, 2) == {}
    home.read(settled=SETTLED)
    home.read(settled=SETTLED)
    assert home.of(RUNS, 1, 2) == {("person", "u"): 1}
    assert home.of(BY_TOKENS, 1, 2, 3) == {("person", "u", "gpt-5.4"): 165}
    assert home.of(BY_COST, 2) == {"u": sum(home.of(COST, 5).values())}
    assert home.of(ERRORS, 1) == {}


def test_the_metadata_of_a_run_comes_with_its_detail():
    home = Home(
        {"run1": detail(1, use("gpt-5.4", "OpenAI", 150, 15), metadata={"tenant_id": "acme"})}, cashier=cashier(TENANT)
    )
    home.read(run_of(1, call(100, 10), call(50, 5)), settled=SETTLED)
    assert home.of(RUNS, 2) == {}
    home.enrich()
    assert home.of(RUNS, 2) == {"acme": 1}
    assert home.of(BY_TOKENS, 2, 3) == {("acme", "gpt-5.4"): 165}
    assert home.of(BY_COST, 2) == {"acme": sum(home.of(COST, 5).values())}


def test_a_run_that_failed_waits_for_its_metadata_though_its_calls_have_no_tokens():
    failed = {**call(None, None), "error_type": "ModelProviderError"}
    home = Home({"run1": RunDetail("run1", metadata={"tenant_id": "acme"})}, cashier=cashier(TENANT))
    home.read(run_of(1, failed, error_type="ModelProviderError"), settled=SETTLED)
    home.enrich()
    assert home.of(RUNS, 2) == home.of(ERRORS, 2) == {"acme": 1}
    assert home.ledger.waiting("os") == []


def test_a_run_whose_only_call_failed_waits_for_its_metadata_though_its_tokens_are_known():
    failed = call(100, 10, error_type="ModelProviderError")
    home = Home({"run1": RunDetail("run1", metadata={"tenant_id": "acme"})}, cashier=cashier(TENANT))
    home.read(run_of(1, failed, error_type="ModelProviderError"), settled=SETTLED)
    assert home.tokens() == {"input": 100, "output": 10}
    assert home.of(RUNS, 2) == {}
    home.enrich()
    assert home.of(RUNS, 2) == home.of(ERRORS, 2) == {"acme": 1}
    assert home.of(BY_TOKENS, 2) == {"acme": 110}
    assert home.ledger.waiting("os") == []


def test_without_a_detail_the_value_is_unknown_and_nothing_is_lost():
    home = Home(cashier=cashier(TENANT))
    home.read(run_of(1, call(100, 10)), settled=SETTLED)
    home.enrich(at=500)
    home.expire(at=600)
    assert home.of(RUNS, 1, 2) == {("tenant", ""): 1}
    assert home.of(BY_TOKENS, 2) == {"": 110}


def test_a_database_tells_metadata_and_tags_with_the_trace():
    spans = (
        Span(1, -1, SpanKind.TEAM, "team", 0, 9, run_id="outer"),
        Span(2, 0, SpanKind.AGENT, "member", 0, 9, run_id="inner"),
        Span(3, 1, SpanKind.LLM, "m", 0, 9, provider="openai", model="gpt-5.4", usage=TokenUsage(5, 1, detailed=True)),
    )
    trace = Trace("t1", "db", 0, 9, 0, 3, spans)
    outer = RunDetail("outer", metadata={"tenant_id": "acme"})
    inner = RunDetail("inner", metadata={"tenant_id": "member", "version": "2"})
    dimensions = (TENANT, ENV, Dimension("version", Origin.METADATA, "version"))
    home = Home(cashier=cashier(*dimensions))
    home.read(trace, details={"outer": outer, "inner": inner}, tags={"t1": ["env:prod"]}, settled=SETTLED)
    assert home.of(RUNS, 1, 2) == {("tenant", "acme"): 1, ("env", "prod"): 1, ("version", "2"): 1}
    assert home.of(BY_TOKENS, 1, 2) == {("tenant", "acme"): 6, ("env", "prod"): 6, ("version", "2"): 6}


def test_calls_outside_of_a_run_and_calls_that_come_late_count_too():
    home = Home(cashier=cashier(PERSON))
    home.enabled = False
    home.open()
    lone = Span(9, -1, SpanKind.LLM, "m", 0, 9, provider="openai", model="gpt-5.4", usage=TokenUsage(5, 1), user_id="u")
    home.read(Trace("t9", "db", 0, 9, 0, 1, (lone,)))
    assert home.of(BY_TOKENS, 2) == {"u": 6}
    late = run_of(1, call(100, 10), call(50, 5))
    home.read(structs.replace(late, spans=late.spans[:2], total_spans=2), settled=SETTLED)
    home.read(late, settled=SETTLED)
    assert home.of(BY_TOKENS, 2) == {"u": 171}
    assert home.of(RUNS, 2) == {"u": 1}


def test_what_was_told_in_another_way_is_not_shown_once_ids_are_to_be_hashed():
    home = Home(cashier=cashier(PERSON), enabled=False)
    home.read(run_of(1, call(100, 10), user_id="alice@example.com"))
    home.cashier.dimensions = Dimensions([replace(PERSON, hashed=True)], key=b"k")
    home.read(settled=SETTLED)
    assert home.of(RUNS, 1, 2) == {("person", ""): 1}
    assert home.of(BY_TOKENS, 2) == {"": 110}


def test_runs_that_were_read_before_there_were_dimensions_do_not_count_by_them():
    home = Home(cashier=cashier(), enabled=False)
    home.read(run_of(1, call(100, 10)))
    home.cashier.dimensions = Dimensions([PERSON])
    home.read(settled=SETTLED)
    home.read(run_of(2, call(100, 10)), settled=["t2"])
    assert home.of(RUNS, 1, 2) == {("person", "u"): 1}
    assert home.of(BY_TOKENS, 2) == {"u": 110}


def test_a_run_that_goes_on_in_a_trace_of_its_own_keeps_its_values():
    home = Home(cashier=cashier(TENANT))
    home.read(run_of(1, call(100, 10)), settled=SETTLED)
    home.details["run1"] = detail(1, use("gpt-5.4", "OpenAI", 100, 10), metadata={"tenant_id": "acme"})
    home.enrich()
    home.read(run_of(2, call(50, 5), run_id="run1", continued=True), settled=["t2"])
    home.details["run1"] = detail(1, use("gpt-5.4", "OpenAI", 150, 15), metadata={"tenant_id": "acme"})
    home.enrich(at=30)
    home.expire(at=600)
    assert home.of(RUNS, 2) == {"acme": 2}
    assert home.of(BY_TOKENS, 2) == {"acme": 165}


def test_a_run_without_calls_waits_for_its_metadata_as_it_does_for_guardrails():
    blocked = RunDetail("run1", metadata={"tenant_id": "acme"}, guardrail="prompt_injection")
    home = Home({"run1": blocked}, cashier=cashier(TENANT))
    home.read(run_of(1, error_type="other"), settled=SETTLED)
    assert home.of(RUNS, 2) == {}
    home.enrich()
    assert home.of(RUNS, 2) == home.of(ERRORS, 2) == {"acme": 1}
    assert home.of("agentos_guardrail_blocks_total", 2) == {"prompt_injection": 1}


def test_unknown_tokens_are_no_tokens_of_nobody():
    home = Home(cashier=cashier(PERSON), enabled=False)
    home.read(run_of(1, call(None, None)), settled=SETTLED)
    assert not [series for series in home.totals.stored() if series.metric == BY_TOKENS]


def test_a_dimension_changes_no_other_metric():
    def others(*dimensions):
        retried = [{**call(None, None), "error_type": "E"}, call(100, 11, start=1, streamed=True)]
        details = {"run1": detail(1, use("gpt-5.4", "OpenAI", 100, 11), first_token=1_500_000)}
        home = Home(details, cashier=cashier(*dimensions))
        home.read(run_of(1, *retried), settled=SETTLED)
        reported = {**call(None, None), "reported_cost": 0.5}
        home.read(run_of(2, reported), settled=["t2"])
        home.enrich()
        home.expire(at=600)
        return {series for series in home.totals.stored() if not series.metric.startswith("agentos_dimension_")}

    assert others(TENANT, PERSON) == others()


STEPS = st.lists(
    st.tuples(st.sampled_from(["read", "settle", "detail", "restart", "late"]), st.integers(1, 4)), max_size=20
)


@examples(150)
@given(STEPS)
def test_the_sum_over_values_is_the_whole_whatever_happens_when(steps):
    """Readings, details, restarts and settling in any order; in the end all is settled and waited for in vain."""
    details = {
        f"run{n}": detail(n, use("gpt-5.4", "OpenAI", 150, 15), metadata={"tenant_id": f"tenant{n % 2}"})
        for n in (1, 2, 3)
    }
    home = Home(cashier=cashier(TENANT, PERSON))
    traces = {n: run_of(n, call(100, 10), call(50, 5), call(None, None, error_type="E")) for n in (1, 2, 3, 4)}
    clock = 0
    for step, n in steps:
        clock += 1
        if step == "read":
            home.read(traces[n], at=clock)
        elif step == "late":
            home.read(structs.replace(traces[n], spans=traces[n].spans[:2], total_spans=2), at=clock)
        elif step == "settle":
            home.read(settled=[f"t{n}"], at=clock)
        elif step == "detail":
            home.details[f"run{n}"] = details.get(f"run{n}")
            home.enrich(at=clock)
        else:
            home.open()
        home.never_falls()
    for n, trace in traces.items():
        home.read(trace, settled=[f"t{n}"], at=clock + 1)
    home.expire(at=clock + 600)
    for name in ("tenant", "person"):
        for whole, part in (("agentos_runs_total", RUNS), (TOKENS, BY_TOKENS), (COST, BY_COST)):
            assert home.of(part, 1).get(name, 0) == sum(home.of(whole, 0).values())


def test_each_dimension_has_a_limit_of_its_own():
    home = Home(cashier=cashier(PERSON, ENV))
    home.enabled = False
    home.open()
    home.totals.use(Limits(values_per_label=2), zero_hold=60, dropped={})
    for n in range(1, 6):
        home.read(run_of(n, call(10, 1), user_id=f"user{n}"), tags={f"t{n}": ["env:prod"]}, settled=[f"t{n}"])
    assert home.of(RUNS, 1, 2) == {
        ("person", "user1"): 1,
        ("person", "user2"): 1,
        ("person", "other"): 3,
        ("env", "prod"): 5,
    }


def test_where_nothing_will_tell_values_a_warning_says_so():
    api, known = AgentOS("a", "http://a"), AgentOS("b", "http://b", enrich_runs=True)
    assert untold([TENANT, ENV, PERSON], [api, known, AgentOS("c", "")]) == [
        "dimensions.tenant: a tells the metadata of runs only with enrich_runs: true",
        "dimensions.env: a shows tags only if it is read from its database",
        "dimensions.env: b shows tags only if it is read from its database",
    ]


# Budgets that each value has

PER_TENANT = Budget(name="each", period=Period.DAY, limit=USD, per="person")


def spent(home, start):
    return home.ledger.allowances("each", start, most=100, at_least=0, top=100)


@pytest.mark.parametrize("period", Period)
def test_each_value_has_a_budget_of_its_own_and_calls_belong_to_the_period_they_began_in(period):
    budget = replace(PER_TENANT, period=period, time_zone="Europe/Berlin")
    home = Home(cashier=Cashier(PRICER, dimensions=Dimensions([PERSON]), budgets=Budgets([budget])))
    home.enabled = False
    home.open()
    this, end = Calendar(period, "Europe/Berlin").bounds(int(home.now * S))
    edge = end // S - int(home.now)
    # The second call of the first run begins in the first second of the next period.
    calls = [call(2000, 500, start=edge - 1), call(1000, 0, start=edge)]
    home.read(run_of(1, *calls, user_id="alice"), run_of(2, call(2000, 500), user_id="bob"), settled=["t1", "t2"])
    home.read(run_of(3, call(2000, 500), user_id=None), settled=["t3"])
    of_one = round(Decimal("0.0125") * USD)
    assert spent(home, this) == {"alice": of_one, "bob": of_one}
    assert spent(home, end) == {"alice": round(Decimal("0.0025") * USD)}
    home.read(run_of(4, call(2000, 500), user_id="bob"), settled=["t4"])
    home.open()
    assert spent(home, this) == {"alice": of_one, "bob": 2 * of_one}
    assert home.ledger.allowed("each", this) == 2
    assert home.ledger.prune_spending(this + 1) == 2
    assert spent(home, this) == {}


def test_those_that_spent_most_are_shown_and_all_that_are_nearly_through():
    home = Home()
    rows = {("each", 0, f"tenant{n}"): n * USD // 10 for n in range(1, 13)}
    home.ledger.commit(Changes("os", allowances=rows))
    home.ledger.commit(Changes("os", allowances={("each", 0, "tenant1"): 10 * USD}))
    shown = home.ledger.allowances("each", 0, most=6, at_least=8 * USD // 10, top=3)
    assert list(shown) == ["tenant1", "tenant12", "tenant11", "tenant10", "tenant9", "tenant8"]
    assert shown["tenant1"] == USD // 10 + 10 * USD
    assert list(home.ledger.allowances("each", 0, most=100, at_least=20 * USD, top=2)) == ["tenant1", "tenant12"]


def test_the_gauges_of_a_budget_that_each_value_has():
    books = Cashier(PRICER, dimensions=Dimensions([PERSON]))
    home = Home(cashier=books)
    home.enabled = False
    home.open()
    shared = Shared(home.ledger, home.totals, Clock(lambda: home.now, lambda: home.now))
    treasury = Treasury(shared, books, user_labels=UserLabels.OFF, dimensions=[PERSON])
    treasury.configure([PER_TENANT], ["os"], lookback=0, dimensions=[PERSON])
    labels = ("", "each", "day")
    assert home.totals.value("agentos_budget_values", labels) == 0
    home.read(run_of(1, call(2000, 500), user_id="alice"), settled=["t1"])
    treasury.refresh()
    value = home.totals.value
    assert value("agentos_budget_values", labels) == 1
    assert value("agentos_budget_limit_usd", labels) == USD
    assert value("agentos_budget_spent_usd", labels) is None
    assert value("agentos_budget_value_spent_usd", (*labels, "alice")) == round(Decimal("0.0125") * USD)
    home.now += 86_400
    treasury.refresh()
    assert value("agentos_budget_value_spent_usd", (*labels, "alice")) is None
    assert value("agentos_budget_values", labels) == 0


def test_a_budget_of_values_starts_anew_when_they_mean_something_else():
    books = Cashier(PRICER, dimensions=Dimensions([PERSON]))
    home = Home(cashier=books, enabled=False)
    shared = Shared(home.ledger, home.totals, Clock(lambda: home.now, lambda: home.now))
    treasury = Treasury(shared, books, user_labels=UserLabels.OFF, dimensions=[PERSON])
    treasury.configure([PER_TENANT], ["os"], lookback=0, dimensions=[PERSON])
    home.read(run_of(1, call(2000, 500), user_id="alice"), settled=["t1"])
    assert treasury.configure([PER_TENANT], ["os"], lookback=0, dimensions=[PERSON]) == []
    secret = replace(PERSON, hashed=True)
    assert treasury.configure([PER_TENANT], ["os"], lookback=0, dimensions=[secret]) == ["each"]
    shown = [one.labels for _, one in home.totals._shown("agentos_budget_value_spent_usd")]
    assert shown == []
