"""The user's price file: what is read, what is refused and in which words, and that nothing gets through."""

import contextlib
import math
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.core.errors import ConfigError
from exporter.core.model import TokenUsage
from exporter.pricing import money, pricefile
from exporter.pricing.entries import NO_PRICES
from exporter.pricing.prices import Pricer
from exporter.pricing.rates import Tiered
from tests.harness.examples import examples

HERE = Path(__file__).parents[1] / "prices"
GOOD, BAD = HERE / "good", HERE / "bad"


def micros(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**6


AT = micros("2026-11-20T12:00")


def problems(raw: bytes) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        pricefile.parse(raw)
    return caught.value.problems


def parse(text: str) -> Pricer:
    return Pricer(pricefile.parse(text.encode()))


def usd(pricer: Pricer, provider: str, model: str, at: int = AT, **usage: int) -> str | None:
    priced = pricer.price(provider, model, TokenUsage(**(usage or {"prompt": 1_000_000})), at=at, exact_classes=True)
    return None if priced.total is None else money.text(priced.total)


# --- Bad files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(BAD.glob("*.yml")), ids=lambda path: path.stem)
def test_a_bad_file_is_refused_in_these_words(path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        pricefile.load(path)
    assert "".join(f"{problem}\n" for problem in caught.value.problems) == path.with_suffix(".txt").read_text()


def test_every_bad_file_has_its_words() -> None:
    assert {path.stem for path in BAD.glob("*.yml")} == {path.stem for path in BAD.glob("*.txt")}
    assert len(list(BAD.glob("*.yml"))) >= 15


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "no", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError) as caught:
            pricefile.load(path)
        assert caught.value.problems == (f"prices: cannot read {path}: {reason}",)


def test_a_file_that_is_too_large() -> None:
    assert problems(b"#" * (1024 * 1024 + 1)) == ("prices: the file is larger than 1 MiB",)
    many = "prices:\n" + "- {model: a}\n" * 1001
    assert problems(many.encode()) == ("prices: has 1001 entries; at most 1000 are allowed (line 2)",)


def test_deep_nesting_and_odd_escapes_end_soon() -> None:
    assert problems(b"[" * 1024 * 1024) == ("line 1, column 9: nested too deeply",)
    assert problems(b'prices: "\\UFFFFFFFF"')[0].endswith("not valid YAML")


@pytest.mark.parametrize(
    "pattern", ["a*a*a*b", "^x?(a|b|c)[a-z]+.*a$", r"(?i:[ab]*)[a]*(?P<n>c)\(\*+\*", "^(?:gpt|o)-"]
)
def test_an_allowed_pattern_is_fast_on_anything(pattern: str) -> None:
    pricer = parse(f"prices:\n  - {{match: '{pattern}', input_mtok: 1, output_mtok: 1}}\n")
    begin = time.perf_counter()
    for model in ("a" * 160, "a" * 10_000, "ab" * 80):
        usd(pricer, "", model)
    assert time.perf_counter() - begin < 5


# --- Good files -----------------------------------------------------------------------------------------------------


def test_both_unit_styles_are_the_same_prices() -> None:
    one, other = pricefile.load(GOOD / "both_units.yml").entries
    assert one.rates is not None
    assert other.rates is not None
    assert one.rates.prices == other.rates.prices
    assert one.rates.brackets == other.rates.brackets
    assert one.rates.prices["input_mtok"] == Tiered(Decimal("2.5"), ((200_000, Decimal(5)),))
    assert one.rates.prices["cache_read_mtok"] == Tiered(Decimal("1.25"))


def test_the_example() -> None:
    pricer = Pricer(pricefile.load(GOOD / "example.yml"))
    cached = {"prompt": 2000, "cache_read": 1024, "completion": 500}
    assert usd(pricer, "", "acme-1", **cached) == "0.00872"
    assert usd(pricer, "Anthropic", "acme-1", prompt=976, cache_read=1024, completion=500) == "0.00872"
    assert usd(pricer, "Azure", "my-gpt4o-deployment", **cached) == usd(pricer, "Azure", "gpt-4o", **cached)
    assert usd(pricer, "OpenAI", "my-gpt4o-deployment") is None
    assert usd(pricer, "", "acme-1", at=micros("2026-09-30T23:59")) is None
    assert usd(pricer, "", "acme-1", at=micros("2026-10-01"), prompt=100) == "0.00025"
    assert usd(pricer, "", "my-acme-1") is None
    priced = pricer.price("", "acme-1", TokenUsage(prompt=1), at=AT, exact_classes=True)
    assert (priced.cost_source, priced.rule) == ("custom", "price file, prices[1] (line 3: match ^acme-)")


def test_a_tier_replaces_what_it_names_above_its_edge() -> None:
    pricer = Pricer(pricefile.load(GOOD / "example.yml"))
    assert usd(pricer, "", "acme-1", prompt=200_000, completion=100) == "0.501"
    assert usd(pricer, "", "acme-1", prompt=200_001, completion=100) == "1.001005"
    # Cached tokens count towards the edge; their own price has no tier.
    assert usd(pricer, "", "acme-1", prompt=200_001, cache_read=200_000) == "0.250005"


def test_other_keys_of_litellm_are_passed_over_and_said() -> None:
    file = pricefile.parse(
        b"""prices:
  - model: claude-acme
    max_tokens: 8192
    mode: chat
    supports_vision: true
    search_context_cost_per_query: {search_context_size_low: 0.01}
    input_cost_per_token: 3e-06
    output_cost_per_token: 1.5e-05
    cache_creation_input_token_cost_above_1hr: 6e-06
    input_cost_per_token_batches: 1.5e-06
"""
    )
    assert file.notes == (
        "prices[0] (line 2): passed over max_tokens, mode, supports_vision: no price",
        (
            "prices[0] (line 2): passed over search_context_cost_per_query, cache_creation_input_token_cost_above_1hr, "
            "input_cost_per_token_batches: spans do not count what it prices"
        ),
    )
    assert usd(Pricer(file), "x", "claude-acme") == "3"
    assert pricefile.parse(b"prices: [{model: m, input_mtok: 1, output_mtok: 1}]").notes == ()


def test_an_unknown_key_is_named_in_full() -> None:
    (problem,) = problems(b"prices: [{model: m, input_mtok: 1, output_mtok: 1, fee_above_1hr_of_use: 2}]")
    assert problem.startswith("prices[0].fee_above_1hr_of_use: unknown key; known are ")


def test_precedence() -> None:
    pricer = Pricer(pricefile.load(GOOD / "precedence.yml"))
    assert usd(pricer, "", "acme-pro") == "1"  # both patterns match: the first in the file
    assert usd(pricer, "Acme Chat", "ACME-pro") == "3"  # with a provider
    assert usd(pricer, "acme", "acme-pro", at=micros("2026-05-31")) == "1"  # ... which does not hold yet
    assert usd(pricer, "other", "acme-max") == "4"  # exact
    assert usd(pricer, "acme", "acme-max", at=micros("2026-05-31T23:59")) == "4"
    assert usd(pricer, "acme", "acme-max", at=micros("2026-06-01")) == "5"
    assert usd(pricer, "acme", "acme-max", at=micros("2026-06-02T09:59")) == "5"
    assert usd(pricer, "acme", "acme-max", at=micros("2026-06-02T10:00")) == "6"  # 12:00+02:00
    assert usd(pricer, "acme", "acme-max") == "6"


def test_the_file_comes_before_a_reported_cost_and_that_before_the_list() -> None:
    pricer = parse("prices:\n  - {model: gpt-4o, input_mtok: 1, output_mtok: 1}\n")
    usage = TokenUsage(prompt=1_000_000)
    ours = pricer.price("OpenAI", "gpt-4o", usage, at=AT, reported=9.0, exact_classes=True)
    assert (ours.total, ours.cost_source) == (money.USD, "custom")
    theirs = pricer.price("OpenAI", "gpt-4o-mini", usage, at=AT, reported=9.0, exact_classes=True)
    assert (theirs.usd, theirs.cost_source) == ({"": 9 * money.USD}, "reported")


def test_aliases() -> None:
    pricer = parse(
        "prices:\n"
        "  - {provider: Azure, model: a, use: azure/b}\n"
        "  - {provider: Azure, model: b, use: shared}\n"
        "  - {model: shared, use: x-ai/grok-4, valid_from: 2026-01-01}\n"
        "  - {model: gpt-4o, use: openai/gpt-4o}\n"
        "  - {match: '^router-', use: litellm/claude-sonnet-4-5}\n"
        "  - {model: mine, use: ollama/llama3}\n"
        "  - {model: gone, use: openai/gpt-99}\n"
    )
    assert usd(pricer, "Azure", "a", prompt=1000, completion=10) == "0.00315"
    rule = pricer.quote("Azure", "a", at=AT).rule
    assert rule.startswith("price file, prices[0] (line 2: model a) → azure/b: prices[1] (line 3: model b) → shared: ")
    assert usd(pricer, "Acme", "gpt-4o") == usd(Pricer(), "OpenAI", "gpt-4o")
    assert pricer.quote("Acme", "gpt-4o", at=AT).cost_source == "custom"
    assert pricer.quote("Acme", "router-1", at=AT).cost_source == "estimated"
    assert usd(pricer, "", "mine") == "0"
    assert usd(pricer, "", "gone") is None
    assert "gpt-99" in pricer.quote("", "gone", at=AT).rule
    assert usd(pricer, "Azure", "a", at=micros("2025-12-31")) is None
    assert [entry.model for entry in pricer.dangling()] == ["gone"]
    # A reported cost still counts where the alias leads to nothing.
    priced = pricer.price("", "gone", TokenUsage(prompt=1), at=AT, reported=0.5, exact_classes=True)
    assert priced.cost_source == "reported"


def test_a_new_file_takes_the_place_of_the_old() -> None:
    pricer = parse("prices:\n  - {model: m, input_mtok: 1, output_mtok: 1}\n")
    assert usd(pricer, "", "m") == "1"
    pricer.use(pricefile.parse(b"prices:\n  - {model: m, input_mtok: 2, output_mtok: 1}\n"))
    assert usd(pricer, "", "m") == "2"
    pricer.use(NO_PRICES)
    assert usd(pricer, "", "m") is None


def test_no_entries_a_byte_order_mark_and_windows_line_ends() -> None:
    assert pricefile.parse(b"prices: []").entries == ()
    raw = b"\xef\xbb\xbfprices:\r\n- {model: m, input_mtok: 1_000, output_mtok: -0.0}\r\n"
    assert usd(Pricer(pricefile.parse(raw)), "", "m", prompt=1000, completion=5) == "1"


def test_a_fee_per_request() -> None:
    pricer = parse("prices:\n  - {model: m, input_mtok: 1, output_mtok: 1, requests_kcount: 5}\n")
    priced = pricer.price("", "m", TokenUsage(prompt=1_000_000), at=AT, exact_classes=True)
    assert priced.usd == {"input": money.USD, "": money.USD // 200}


def test_reasoning_has_its_own_price_where_it_is_given() -> None:
    pricer = Pricer(pricefile.load(GOOD / "both_units.yml"))
    assert usd(pricer, "", "acme-1", prompt=0, completion=1000, reasoning=600) == "0.0112"
    plain = pricer.price("", "acme-1", TokenUsage(0, 1000, 0, 0), at=AT, exact_classes=True)
    assert (plain.total, plain.cost_source) == (money.USD // 100, "estimated")


# --- Anything -------------------------------------------------------------------------------------------------------

SCALARS = st.one_of(
    st.sampled_from(
        ["", "1", "-1", "2.5", ".nan", ".inf", "1e-6", "1e400", "2026-10-01", "azure/gpt-4o", "^a", "(", "m"]
    ),
    st.text(max_size=8),
    st.floats(),
    st.integers(-5, 10**12),
    st.none(),
    st.booleans(),
)
KEYS = st.sampled_from(
    (
        *("provider", "model", "match", "use", "valid_from", "tiers", "above", "requests_kcount"),
        *("input_mtok", "output_mtok", "cache_read_mtok", "input_cost_per_token", "output_cost_per_token"),
        "input_cost_per_token_above_200k_tokens",
    )
)
TIERS = st.lists(st.dictionaries(KEYS, SCALARS, max_size=4), max_size=3)
ENTRIES = st.dictionaries(KEYS, SCALARS | TIERS, max_size=8)
SANE = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["m", "n", "gpt-4o"]),
        "input_mtok": st.floats(0, 20_000),
        "output_mtok": st.integers(0, 50),
    },
    optional={
        "provider": st.sampled_from(["OpenAI", "xAI", "Anthropic"]),
        "cache_read_mtok": st.decimals(0, 9, places=7).map(str),
        "valid_from": st.sampled_from(["2026-01-01", "2030-01-01T00:00+05:00"]),
        "tiers": st.lists(st.fixed_dictionaries({"above": st.integers(0, 10**6), "input_mtok": st.integers(0, 9)})),
    },
)
FILES = st.one_of(
    st.fixed_dictionaries({"prices": st.lists(ENTRIES | SANE, max_size=4)}),
    st.fixed_dictionaries({"prices": st.lists(SANE, max_size=4)}),
)
COUNTS = st.none() | st.integers(-5, 10**9)


@examples(300)
@given(FILES, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, st.floats() | st.none(), st.booleans())
@example({"prices": [{"model": "m", "input_mtok": 1, "output_mtok": 1}]}, -1, 5, None, None, 9, None, math.nan, True)
def test_no_file_and_no_counts_make_a_crash_or_money_that_is_none(
    file, prompt, completion, read, write, reasoning, total, reported, exact
) -> None:
    pricer = Pricer()
    with contextlib.suppress(ConfigError):
        pricer = Pricer(pricefile.parse(yaml.safe_dump(file, allow_unicode=True).encode("utf-8", "surrogatepass")))
    usage = TokenUsage(prompt, completion, read, write, reasoning, total)
    for provider, model in (("OpenAI", "gpt-4o"), ("xAI", "grok-4"), ("Anthropic", "m"), ("", "n"), ("Ollama", "m")):
        priced = pricer.price(provider, model, usage, at=AT, reported=reported, exact_classes=exact)
        assert all(count is None or count >= 0 for count in priced.classes)
        if priced.usd is None:
            assert priced.cost_source == ""
        else:
            assert priced.cost_source in {"custom", "listed", "estimated", "reported"}
            assert all(type(amount) is int and amount >= 0 for amount in priced.usd.values())


@examples(300)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    for file in (raw, b"prices:\n  - " + raw, b"prices: [{model: " + raw):
        with contextlib.suppress(ConfigError):
            pricefile.parse(file)
