"""What a span costs: the worked cases, all of agno's model classes, awkward ids, tokens, tiers and times.

Prices are those of genai-prices 0.2.3.
"""

import importlib.metadata
import json
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import genai_prices
import pytest
from genai_prices import data_snapshot
from genai_prices.types import (
    ClauseAnd,
    ClauseContains,
    ClauseEndsWith,
    ClauseEquals,
    ClauseOr,
    ClauseRegex,
    ClauseStartsWith,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    StartDateConstraint,
    TieredPrices,
    TimeOfDateConstraint,
)
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.core.model import TokenUsage
from exporter.pricing import money, pricefile, prices
from exporter.pricing.matching import is_strict
from exporter.pricing.price_list import PriceList
from exporter.pricing.prices import Priced, Pricer
from exporter.pricing.providers import (
    AGNO_MODELS,
    GENAI_IDS,
    PREFIXES,
    PROMPT_WITHOUT_CACHE,
    Kind,
    Route,
    provider_of_class,
    route,
    seller_of,
)
from exporter.pricing.rates import PRICE_KEYS
from exporter.pricing.schedule import Schedule, newest_price
from exporter.pricing.tokens import Classes, classify, habits_of
from tests.harness.examples import examples

COOKBOOK = Path(__file__).parents[1] / "prices" / "cookbook.json"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(text: str) -> int:
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


AT = micros("2026-11-20T12:00")
PRICER = Pricer()


def price(
    provider: str, model: str, *, exact: bool = True, at: int = AT, reported: object = None, **usage: int
) -> Priced:
    counts = TokenUsage(**(usage or {"prompt": 1000, "completion": 100}))
    return PRICER.price(provider, model, counts, at=at, reported=reported, exact_classes=exact)


def source(provider: str, model: str, model_class: str = "") -> str:
    return PRICER.quote(provider, model, at=AT, model_class=model_class).cost_source


def test_these_are_the_prices_that_the_tests_know() -> None:
    assert importlib.metadata.version("genai-prices").startswith("0.2."), "another version, other prices"


# --- Worked cases ---------------------------------------------------------------------------------------------------

CLAUDE = {"prompt": 50, "cache_read": 100_000, "cache_write": 2000, "completion": 500}
WORKED = [
    ("OpenAI", "gpt-5.4", {"prompt": 2000, "cache_read": 1024, "completion": 500}, "0.010196", "listed"),
    ("OpenAI", "gpt-5.4", {"prompt": 272_000, "completion": 1000}, "0.695", "listed"),
    ("OpenAI", "gpt-5.4", {"prompt": 272_001, "completion": 1000}, "1.382505", "listed"),
    ("OpenAI", "gpt-5.4-mini", {"prompt": 1234, "completion": 567}, "0.003477", "listed"),
    ("Anthropic", "claude-sonnet-4-5", CLAUDE, "0.04515", "listed"),
    ("AwsBedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", CLAUDE, "0.049665", "listed"),
    ("xAI", "grok-4", {"prompt": 1000, "cache_read": 400, "completion": 50, "total": 1350}, "0.00735", "listed"),
    ("Ollama", "gpt-4o", {"prompt": 1000, "completion": 1000}, "0", "listed"),
    ("OpenAI", "gpt-99", {"prompt": 1000, "completion": 1000}, None, ""),
]


@pytest.mark.parametrize(("provider", "model", "usage", "usd", "cost_source"), WORKED)
def test_a_worked_case(provider: str, model: str, usage: dict[str, int], usd: str | None, cost_source: str) -> None:
    priced = price(provider, model, **usage)
    assert (priced.total is None) == (usd is None)
    if usd is not None:
        assert money.decimal(priced.total) == Decimal(usd)
    assert priced.cost_source == cost_source
    assert priced.rule


def test_the_worked_case_of_the_plain_api() -> None:
    priced = price("OpenAI", "gpt-5.4", exact=False, prompt=2000, completion=500)
    assert money.text(priced.total) == "0.0125"
    assert priced.cost_source == "estimated"
    assert priced.classes == Classes(input=2000, output=500)
    assert priced.rule.endswith("cached tokens are unknown and count as input, an upper bound")


def test_the_worked_case_of_a_reported_cost() -> None:
    priced = price("OpenRouter", "openai/gpt-4o", reported=0.00123)
    assert priced.usd == {"": 1_230_000 * 10**9}
    assert (money.text(priced.total), priced.cost_source) == ("0.00123", "reported")
    assert priced.classes.total == 1100


@pytest.mark.parametrize("nonsense", [-1, float("nan"), float("inf"), Decimal("NaN"), True])
def test_a_reported_cost_that_is_none_is_passed_over(nonsense: object) -> None:
    assert price("OpenAI", "gpt-4o", reported=nonsense).cost_source == "listed"


def test_a_reported_cost_of_nothing_is_a_cost() -> None:
    assert price("", "acme", reported=0).usd == {"": 0}


def test_a_reported_cost_counts_without_tokens() -> None:
    usage = TokenUsage()
    priced = PRICER.price("OpenAI", "gpt-4o", usage, at=AT, reported=Decimal("0.5"), exact_classes=True)
    assert priced == (Classes(), {"": money.USD // 2}, "reported", "the cost that the span itself reports", None)
    none = PRICER.price("Perplexity", "sonar", usage, at=AT, exact_classes=True)
    assert none == (Classes(), None, "", "the span has no token counts", None)


# --- Providers ------------------------------------------------------------------------------------------------------

UNPRICED = {
    "AzureOpenAI": "genai-prices 0.2.3 has no model not-provided of azure",
    "AzureOpenAIResponses": "genai-prices 0.2.3 has no model not-provided of azure",
    "DashScope": "no price data for dashscope",
    "DeepInfra": "no price data for deepinfra",
    "Heabsy": "gateway Heabsy: the id qwen38 does not tell who sells the model",
    "HuggingFace": "no price data for huggingface",
    "Inception": "no price data for inceptionlabs",
    "InternLM": "no price data for internlm",
    "Llama": "genai-prices 0.2.3 has no model llama-4-maverick-17b-128e-instruct-fp8 of meta",
    "LlamaOpenAI": "genai-prices 0.2.3 has no model llama-4-maverick-17b-128e-instruct-fp8 of meta",
    "MiMo": "no price data for xiaomi mimo",
    "Nebius": "genai-prices 0.2.3 has no model openai/gpt-oss-20b of huggingface_nebius",
    "Nvidia": "no price data for nvidia",
    "OpenAILike": "gateway OpenAILike: the id not-provided does not tell who sells the model",
    "OpenResponses": "gateway OpenResponses: the id not-provided does not tell who sells the model",
    "Siliconflow": "no price data for siliconflow",
    "TrustedRouter": "gateway TrustedRouter: the id trustedrouter/zdr does not tell who sells the model",
    "V0": "no price data for vercel",
    "WatsonX": "no price data for ibm",
}
FREE = {"LlamaCpp", "Llmman", "LMStudio", "Ollama", "OllamaResponses", "VLLM"}
GATEWAYS = (
    {"AIMLAPI", "CometAPI", "FlexAI", "LangDB", "LiteLLM", "LiteLLMOpenAI", "N1N", "Neosantara", "Nexus", "Portkey"}
    | {"RampRouter", "Requesty", "Synthorai", "TokenLab", "TuningEngines", "YAPI"}
)  # fmt: skip


@pytest.mark.parametrize("known", AGNO_MODELS, ids=lambda known: known.cls)
def test_each_default_model_is_priced_free_a_gateways_or_unpriced_for_a_reason(known) -> None:
    quote = PRICER.quote(known.provider, known.id, at=AT, model_class=known.name)
    if known.cls in UNPRICED:
        assert (quote.rates, quote.cost_source, quote.rule) == (None, "", UNPRICED[known.cls])
        return
    assert quote.rates is not None
    assert quote.rates.free == (known.cls in FREE)
    assert quote.cost_source == ("estimated" if known.cls in GATEWAYS else "listed")


def test_all_classes_are_known() -> None:
    assert len({known.cls for known in AGNO_MODELS}) == len(AGNO_MODELS) == 68
    classes = {known.cls for known in AGNO_MODELS}
    assert classes >= UNPRICED.keys() | FREE | GATEWAYS
    assert all(route(known.provider).kind is not Kind.UNKNOWN for known in AGNO_MODELS)


def test_coverage() -> None:
    priced = [k for k in AGNO_MODELS if PRICER.quote(k.provider, k.id, at=AT, model_class=k.name).rates is not None]
    assert len(priced) / len(AGNO_MODELS) >= 0.71
    by_class = {known.cls: known for known in AGNO_MODELS}
    uses = json.loads(COOKBOOK.read_text())
    hits = sum(count for cls, model, count in uses if source(by_class[cls].provider, model, by_class[cls].name))
    assert hits / sum(count for *_, count in uses) >= 0.95


def test_the_provider_of_a_class() -> None:
    for known in AGNO_MODELS:
        label = provider_of_class(known.name, known.id)
        assert route(label, known.name) == route(known.provider, known.name)
    assert provider_of_class("Claude", "claude-sonnet-4-5") == "anthropic"
    assert provider_of_class("Claude", "claude-sonnet-4@20250514") == "vertexai"
    assert provider_of_class("MyOwn", "gpt-4o") == ""


@pytest.mark.parametrize("spelling", ["OpenAI", "openai", " OpenAI ", "OpenAI Chat", "OpenAI Responses"])
def test_spellings_of_a_provider(spelling: str) -> None:
    assert route(spelling) == Route(Kind.LISTED, "openai")
    assert source(spelling, "gpt-4o") == "listed"


def test_every_price_list_exists() -> None:
    assert {provider.id for provider in data_snapshot.get_snapshot().providers} >= GENAI_IDS
    lists = {provider.id for provider in data_snapshot.get_snapshot().providers} | {"local", "", "openrouter"}
    assert set(PREFIXES.values()) <= lists


def test_classes_that_report_openai_and_talk_to_someone_else() -> None:
    assert source("OpenAI", "gpt-5-mini") == "listed"
    assert source("OpenAI", "gpt-5-mini", "OpenAIChat") == "listed"
    assert source("OpenAI", "gpt-5-mini", "CometAPI") == "estimated"
    assert source("OpenAI", "gpt-5-mini", "OpenAILike") == "estimated"


@pytest.mark.parametrize("provider", ["", "Acme", "MyModel", "deepseek-ai", "aws", "x-ai"])
def test_a_price_is_never_guessed_for_an_unknown_provider(provider: str) -> None:
    for model in ("gpt-4o", "claude-sonnet-4-5", "deepseek-r1:8b", "anthropic/claude-sonnet-4-5"):
        quote = PRICER.quote(provider, model, at=AT)
        assert (quote.rates, quote.cost_source) == (None, "")
        assert "never guessed" in quote.rule


# --- Awkward ids ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "model", "input_mtok"),
    [
        ("OpenAI", "gpt-5.4-2026-03-05", "2.5"),
        ("OpenAI", "GPT-5.4", "2.5"),
        ("Anthropic", "claude-sonnet-4-5-20250929", "3"),
        ("VertexAI", "claude-sonnet-4@20250514", "3"),
        ("VertexAI", "claude-sonnet-4-5@20250929", "3"),
        ("AwsBedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "3.3"),
        ("AwsBedrock", "eu.anthropic.claude-sonnet-4-5-20250929-v1:0", "3.3"),
        ("AwsBedrock", "global.anthropic.claude-sonnet-4-5-20250929-v1:0", "3"),
        (
            "AwsBedrock",
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/global.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "3",
        ),
        ("AwsBedrock", "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-pro-v1:0", "0.8"),
        ("Google", "models/gemini-2.5-pro", "1.25"),
        ("Google", "publishers/google/models/gemini-2.5-pro", "1.25"),
        ("Google", "projects/my-project/locations/us/publishers/google/models/gemini-2.5-pro", "1.25"),
        ("VertexAI", "publishers/anthropic/models/claude-sonnet-4-5@20250929", "3"),
        ("Fireworks", "accounts/fireworks/models/gpt-oss-120b", "0.15"),
        ("OpenRouter", "openai/gpt-5.4-mini", "0.75"),
        ("OpenRouter", "gpt-5.4-mini", "0.75"),
        ("OpenRouter", "openai/gpt-4o:nitro", "2.5"),
        ("OpenRouter", "openai/gpt-4o:floor", "2.5"),
        ("OpenRouter", "openai/gpt-4o:exacto", "2.5"),
        ("OpenRouter", "deepseek/deepseek-r1:free", "0"),
        ("OpenRouter", "acme/anything:free", "0"),
        ("OpenAI", "ft:gpt-4o-2024-08-06:my-org::abc123", "3.75"),
        ("OpenAI", "ft:gpt-4o-mini-2024-07-18:my-org:name:abc123", "0.3"),
        ("Google", "gemma-3-27b-it", "0"),
        ("Sambanova", "Meta-Llama-3.3-70B-Instruct", None),
    ],
)
def test_an_awkward_id_has_its_price(provider: str, model: str, input_mtok: str | None) -> None:
    quote = PRICER.quote(provider, model, at=AT)
    assert quote.cost_source == "listed", quote.rule
    assert quote.rates is not None
    if input_mtok is not None:
        assert quote.rates.prices["input_mtok"].base == Decimal(input_mtok)


@pytest.mark.parametrize(
    ("provider", "model", "input_mtok"),
    [
        ("LiteLLM", "anthropic/claude-sonnet-4-5", "3"),
        ("LiteLLM", "bedrock/us.anthropic.claude-sonnet-4-5-20250929-v1:0", "3.3"),
        ("LiteLLM", "vertex_ai/gemini-2.5-pro", "1.25"),
        ("LiteLLM", "openrouter/openai/gpt-5.4-mini", "0.75"),
        ("LiteLLM", "groq/openai/gpt-oss-120b", "0.15"),
        ("LiteLLM", "ollama/llama3.1", "0"),
        ("Portkey", "@my-openai/gpt-4o-mini", "0.15"),
        ("Neosantara", "grok-4.1-fast-non-reasoning", "0.2"),
        ("Requesty", "claude-sonnet-4-5", "3"),
        ("OpenRouter", "gpt-4o:online", "2.5"),
    ],
)
def test_a_gateways_price_is_the_vendors_as_an_estimate(provider: str, model: str, input_mtok: str) -> None:
    quote = PRICER.quote(provider, model, at=AT)
    assert quote.cost_source == "estimated"
    assert quote.rates is not None
    assert quote.rates.prices["input_mtok"].base == Decimal(input_mtok)


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("OpenAI", "gpt-99"),
        ("OpenAI", "gpt-5.4-ultra"),
        ("OpenAI", "gpt-5-nano-lite"),
        ("OpenAI", "not-provided"),
        ("OpenAI", ""),
        ("OpenAI", "x" * 10_000),
        ("OpenAI", "claude-sonnet-4-5"),
        ("OpenAI", "ft:gpt-5.4:my-org::abc"),
        ("OpenAI", "ft:gpt-4-0613:my-org::abc"),  # the data has the base model's price
        ("OpenAI", "omni-moderation-latest"),
        ("Anthropic", "claude-99"),
        ("Anthropic", "claude-sonnet-4-50"),
        ("Anthropic", "claude-haiku-4-5-ultra"),
        ("Google", "gemini-3.7-flash-lite"),
        ("Google", "gemini-99-pro"),
        ("Google", "tunedModels/my-gemini-2.5-pro"),
        ("DeepSeek", "deepseek-r1:8b"),
        ("DeepSeek", "deepseek-r1-distill-llama-8b"),
        ("Azure", "my-gpt4o-deployment"),
        ("Azure", "my-o4-mini"),
        ("Azure", "team-gpt-4o"),
        ("AwsBedrock", "claude-sonnet-4-5"),
        ("AwsBedrock", "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123"),
        ("AwsBedrock", "arn:aws:bedrock:us-east-1:1:custom-model/anthropic.claude-sonnet-4-5-20250929-v1:0/x"),
        ("AwsBedrock", "arn:aws:bedrock:us-east-1:1:provisioned-model/amazon.nova-pro-v1:0"),
        ("OpenRouter", "openrouter/auto"),
        ("OpenRouter", "openrouter/auto:online"),
        ("OpenRouter", "gpt-99"),
        ("OpenRouter", "acme/gpt-99:nitro"),
        ("Ollama", "gpt-oss:120b-cloud"),
        ("Ollama", "glm-4.6:cloud"),
        ("LiteLLM", "gpt-99"),
        ("LiteLLM", "anthropic/claude-99"),
        ("LiteLLM", "azure/my-deployment"),
        ("LiteLLM", "ollama/gpt-oss:120b-cloud"),
        ("Requesty", "my-own-model"),
        ("Dashscope", "qwen-plus"),
    ],
)
def test_what_has_no_price_is_unpriced_and_not_free(provider: str, model: str) -> None:
    priced = price(provider, model)
    assert (priced.usd, priced.total, priced.cost_source) == (None, None, "")
    assert priced.classes == Classes(1000, 0, 0, 100, None)
    assert priced.rule


@pytest.mark.parametrize(
    ("clause", "same", "others"),
    [
        (ClauseEquals("M-1"), ["m-1"], ["m-1-latest"]),
        (ClauseStartsWith("M-1"), ["m-1", "m-1-20260101", "m-1-latest", "m-1@default"], ["m-12", "m-1-2", "m-1-mini"]),
        (ClauseStartsWith("m-1@"), ["m-1@20260101"], ["m-1@mini"]),
        (ClauseStartsWith("m-2025"), ["m-20250514", "m-2025-05-14"], ["m-2025x"]),
        (ClauseStartsWith("m-"), ["m-27b-it", "m-2026-01-01"], ["m-27b-mini"]),
        (ClauseStartsWith("ft:m"), ["ft:m:org::x", "ft:m-0125:org:n:x"], ["ft:mini:org::x", "ft:m-mini:org::x"]),
        (ClauseEndsWith("m-1"), ["m-1", "vendor/m-1", "us.amazon.m-1"], ["my-m-1", "acme.m-1"]),
        (ClauseContains("m-1"), ["m-1", "us-gov.amazon.m-1-v1:0", "a/m-1@20260101"], ["my-m-1", "m-10"]),
        (ClauseRegex("^m-[12]"), ["m-1", "m-2-latest"], ["m-12", "m-1-mini"]),
        (ClauseRegex("^(?!.*-tts)"), [], ["m-1"]),
        (
            ClauseAnd([ClauseStartsWith("m-1"), ClauseRegex("^(?!.*-tts)")]),
            ["m-1-preview"],
            ["m-1-preview-tts", "m-1-x"],
        ),
        (ClauseOr([ClauseEquals("m-2"), ClauseStartsWith("m-1")]), ["m-2", "m-1-latest"], ["m-1-mini", "m-3"]),
        ("a clause of a later version", [], ["m-1"]),
    ],
)
def test_strict_matching(clause, same: list[str], others: list[str]) -> None:
    assert {ref: is_strict(clause, ref) for ref in same} == dict.fromkeys(same, True)
    matched = [ref for ref in others if not hasattr(clause, "is_match") or clause.is_match(ref)]
    assert {ref: is_strict(clause, ref) for ref in matched} == dict.fromkeys(matched, False)


def test_genai_prices_itself_is_not_strict() -> None:
    """Why `_is_strict` exists: should this fail one day, it may go."""
    usage = genai_prices.Usage(input_tokens=1)
    for provider, model in (
        ("azure", "my-o4-mini"),
        ("google", "gemini-3.7-flash-lite"),
        ("anthropic", "claude-sonnet-4-50"),
    ):
        assert genai_prices.calc_price(usage, model, provider_id=provider).total_price > 0


def test_every_id_that_genai_prices_finds_itself_has_its_price() -> None:
    snapshot = data_snapshot.get_snapshot()
    prices = PriceList(snapshot)
    for provider in snapshot.providers:
        for model in provider.models:
            if provider.id in GENAI_IDS and provider.find_model(model.id) is model and not model.id.endswith("-"):
                assert prices.match(provider.id, model.id.lower()) is model


def test_openrouter_chooses_and_reports() -> None:
    assert price("OpenRouter", "openrouter/auto", reported=0.5).cost_source == "reported"


# --- Tokens ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "usage", "expected"),
    [
        ("OpenAI", TokenUsage(100, 10, 30, 20), Classes(50, 30, 20, 10, None)),
        ("OpenAI", TokenUsage(100, 10, 60, 40), Classes(0, 60, 40, 10, None)),
        ("OpenAI", TokenUsage(100, 10, 60, 41), Classes(100, 60, 41, 10, None)),  # contradicts itself: the sum
        ("Google", TokenUsage(100, 10, 30), Classes(70, 30, 0, 10, None)),
        ("Azure", TokenUsage(100, 10, 30), Classes(70, 30, 0, 10, None)),
        ("Anthropic", TokenUsage(100, 10, 30, 20), Classes(100, 30, 20, 10, None)),
        ("AwsBedrock", TokenUsage(100, 10, 30, 20), Classes(100, 30, 20, 10, None)),
        ("AzureFoundry", TokenUsage(100, 10, 30, 20), Classes(100, 30, 20, 10, None)),
        ("VertexAI", TokenUsage(100, 10, 30, 20), Classes(100, 30, 20, 10, None)),
        ("Anthropic", TokenUsage(None, 10, 30), Classes(0, 30, 0, 10, None)),  # all of it cached: no attribute
        ("OpenAI", TokenUsage(100, None), Classes(100, 0, 0, 0, None)),
        ("OpenAI", TokenUsage(100, None, total=120), Classes(100, 0, 0, 20, None)),
        ("OpenAI", TokenUsage(None, 20, total=120), Classes(100, 0, 0, 20, None)),
        ("Anthropic", TokenUsage(50, None, 1000, total=1050), Classes(50, 1000, 0, 0, None)),
        ("OpenAI", TokenUsage(100, 50, reasoning=30), Classes(100, 0, 0, 20, 30)),
        ("OpenAI", TokenUsage(100, 50, reasoning=50), Classes(100, 0, 0, 0, 50)),
        ("OpenAI", TokenUsage(100, 50, reasoning=60), Classes(100, 0, 0, 50, 60)),  # cannot have been a part
        ("OpenAI", TokenUsage(100, 50, total=900), Classes(100, 0, 0, 50, None)),
        ("xAI", TokenUsage(1000, 50, 400, total=1350), Classes(600, 400, 0, 350, None)),
        ("xAI", TokenUsage(1000, 50, 400, reasoning=300, total=1350), Classes(600, 400, 0, 50, 300)),
        ("xAI", TokenUsage(1000, 350, 400, reasoning=300, total=1350), Classes(600, 400, 0, 50, 300)),
        ("xAI", TokenUsage(1000, 350, total=1100), Classes(1000, 0, 0, 350, None)),
        ("xAI", TokenUsage(1000, 50, reasoning=300), Classes(1000, 0, 0, 50, 300)),
        ("Google", TokenUsage(1000, 50, 400, total=1350), Classes(600, 400, 0, 50, 300)),
        ("Google", TokenUsage(1000, 50, 400, reasoning=300, total=1050), Classes(600, 400, 0, 50, 300)),
        ("Google", TokenUsage(1000, 50, reasoning=30), Classes(1000, 0, 0, 50, 30)),
        ("Google", TokenUsage(1000, 50, total=900), Classes(1000, 0, 0, 50, None)),
        ("OpenAI", TokenUsage(-5, 10, -1, -1, -1, -1), Classes(0, 0, 0, 10, None)),
        ("OpenAI", TokenUsage(0, 0), Classes(0, 0, 0, 0, None)),
        ("OpenAI", TokenUsage(), Classes()),
        ("OpenAI", TokenUsage(total=100), Classes()),
    ],
)
def test_classes_of_a_source_that_knows_cache_detail(provider: str, usage: TokenUsage, expected: Classes) -> None:
    assert classify(usage, habits_of(provider), exact=True) == expected


def test_what_a_model_with_a_price_for_audio_or_images_costs_is_an_estimate() -> None:
    usage = TokenUsage(592, 0, total=592, detailed=True)
    for model, media in (("gpt-audio", "audio"), ("gpt-realtime", "audio and image"), ("gpt-image-2", "image")):
        priced = Pricer().price("OpenAI", model, usage, at=AT, exact_classes=True)
        assert priced.cost_source == "estimated"
        assert priced.rule.endswith(f"; tokens of {media} are not told apart and count as text, a lower bound")
    assert Pricer().price("OpenAI", "gpt-5.4", usage, at=AT, exact_classes=True).cost_source == "listed"


@pytest.mark.parametrize(
    ("provider", "usage", "expected"),
    [
        ("OpenAI", TokenUsage(100, 10), Classes(input=100, output=10)),
        ("Anthropic", TokenUsage(100, 10), Classes(input=100, output=10)),
        ("xAI", TokenUsage(100, 10), Classes(input=100, output=10)),
        ("OpenAI", TokenUsage(100), Classes(input=100)),
        ("OpenAI", TokenUsage(None, 10), Classes(output=10)),
        ("OpenAI", TokenUsage(100, 10, 30), Classes(input=70, cache_read=30, output=10)),
        ("OpenAI", TokenUsage(), Classes()),
    ],
)
def test_classes_of_the_plain_api(provider: str, usage: TokenUsage, expected: Classes) -> None:
    assert classify(usage, habits_of(provider), exact=False) == expected


COUNTS = st.none() | st.integers(-10, 10**7)
USAGES = st.builds(TokenUsage, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)


@given(USAGES, st.sampled_from(["OpenAI", "Anthropic", "xAI", "Google", ""]), st.booleans())
def test_classes_are_never_negative_and_lose_no_token(usage: TokenUsage, provider: str, exact: bool) -> None:
    classes = classify(usage, habits_of(provider), exact=exact)
    assert all(count is None or count >= 0 for count in classes)
    for part in (usage.cache_read, usage.cache_write, usage.reasoning):
        assert part is None or part < 0 or part <= classes.total or classes == Classes()
    if usage.prompt is not None and usage.prompt >= 0:
        assert classes.billed_input >= usage.prompt
    if usage.completion is not None and usage.completion >= 0:
        assert (classes.output or 0) + (classes.reasoning or 0) >= usage.completion


# --- What is exact --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "model", "plain"),
    [
        ("OpenAI", "gpt-5.4", "estimated"),  # cached tokens cost less
        ("OpenAI", "gpt-4", "listed"),  # no price for cached tokens: nothing to be mistaken about
        ("Anthropic", "claude-sonnet-4-5", "estimated"),
        ("AwsBedrock", "mistral.mistral-small-2402-v1:0", "estimated"),
        ("Ollama", "llama3", "listed"),
        ("xAI", "grok-4-1-fast-non-reasoning", "estimated"),
        ("LiteLLM", "gpt-4", "estimated"),
        ("Groq", "llama-3.1-8b-instant", "listed"),
    ],
)
def test_the_plain_api_estimates_where_detail_matters(provider: str, model: str, plain: str) -> None:
    assert price(provider, model, exact=False).cost_source == plain


def test_a_lower_bound_says_so() -> None:
    assert price("Anthropic", "claude-sonnet-4-5", exact=False).rule.endswith("left out, a lower bound")
    assert price("xAI", "grok-4").rule.endswith("xAI may have left reasoning out, a lower bound")
    assert price("xAI", "grok-4", prompt=1000, completion=100, total=1100).cost_source == "listed"
    assert price("xAI", "grok-4-1-fast-non-reasoning").cost_source == "listed"
    assert price("OpenAI", "gpt-4", exact=False, prompt=5).rule.endswith("some token counts are missing, a lower bound")
    assert price("Perplexity", "sonar-deep-research").cost_source == "estimated"
    known = {"prompt": 10, "completion": 1000, "reasoning": 400}
    assert money.text(price("Perplexity", "sonar-deep-research", **known).total) == "0.00602"


def test_a_fee_per_request_is_money_without_tokens() -> None:
    priced = price("Perplexity", "sonar", prompt=1000, completion=100)
    assert priced.usd == {"input": money.USD // 1000, "output": money.USD // 10_000, "": 12 * money.USD // 1000}


def test_classes_without_tokens_have_no_money() -> None:
    assert price("OpenAI", "gpt-5.4", prompt=10, completion=0).usd == {"input": 25 * 10**12}
    assert price("OpenAI", "gpt-5.4", prompt=0, completion=0).usd == {}
    assert price("Ollama", "llama3", prompt=10, completion=5).usd == {"input": 0, "output": 0}


def test_tokens_without_a_price_leave_the_span_unpriced() -> None:
    assert price("OpenAI", "text-embedding-3-small", prompt=1_000_000).total == 2 * money.USD // 100
    priced = price("OpenAI", "text-embedding-3-small", prompt=10, completion=5)
    assert (priced.usd, priced.cost_source) == (None, "")
    assert priced.rule.endswith("it has no price for some of these tokens")


# --- Times ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "usd"),
    [
        ("2026-08-16T23:59:59.999999", "0.14"),
        ("2026-08-17T00:00", "0.22"),
        ("2026-09-09T23:59:59.999999", "0.22"),
        ("2026-09-10T00:00", "0.15"),
        ("2026-11-20T00:59:59.999999", "0.15"),
        ("2026-11-20T01:00", "0.3"),
        ("2026-11-20T03:59:59.999999", "0.3"),
        ("2026-11-20T04:00", "0.15"),
        ("2026-11-20T06:00", "0.3"),
        ("2026-11-20T10:00", "0.15"),
    ],
)
def test_the_price_in_force_when_the_call_began(at: str, usd: str) -> None:
    """DeepSeek: new prices by date, and higher ones at certain hours."""
    priced = price("DeepSeek", "deepseek-v4-flash", at=micros(at), prompt=1_000_000)
    assert money.text(priced.total) == usd


def zoned(hour: int, minute: int = 0, east: int = 0) -> time:
    return time(hour, minute, tzinfo=timezone(timedelta(hours=east)))


@examples(200)
@given(
    st.sampled_from(
        [
            TimeOfDateConstraint(zoned(22, 30), zoned(4)),  # over midnight
            TimeOfDateConstraint(time(0, 30), time(16, 30)),  # without a zone it is UTC
            TimeOfDateConstraint(zoned(9, east=8), zoned(18, east=8)),
            TimeOfDateConstraint(zoned(5, east=8), zoned(12, east=8)),  # over midnight in UTC
            TimeOfDateConstraint(time(7), time(7)),
            StartDateConstraint(date(2026, 5, 1)),
            None,
        ]
    ),
    st.datetimes(datetime(2026, 4, 29), datetime(2026, 5, 3)),  # noqa: DTZ001 - hypothesis wants bounds without zone
)
@example(TimeOfDateConstraint(zoned(22, 30), zoned(4)), datetime(2026, 5, 1, 4))  # noqa: DTZ001
@example(TimeOfDateConstraint(zoned(22, 30), zoned(4)), datetime(2026, 5, 1, 22, 30))  # noqa: DTZ001
@example(StartDateConstraint(date(2026, 5, 1)), datetime(2026, 5, 1))  # noqa: DTZ001
def test_times_are_the_librarys(constraint, moment: datetime) -> None:
    moment = moment.replace(tzinfo=UTC)
    base, other = ModelPrice(input_mtok=Decimal(1)), ModelPrice(input_mtok=Decimal(2))
    dated = [ConditionalPrice(prices=base), ConditionalPrice(constraint, prices=other)]
    theirs = ModelInfo("m", ClauseEquals("m"), prices=dated).get_prices(moment)
    ours = Schedule(dated).at((moment - EPOCH) // timedelta(microseconds=1))
    assert ours.prices["input_mtok"].base == theirs.input_mtok


def test_before_the_first_of_dated_prices_the_first_holds() -> None:
    dated = [ConditionalPrice(StartDateConstraint(date(2026, 5, 1)), prices=ModelPrice(input_mtok=Decimal(1)))] * 2
    assert Schedule(dated).at(0).prices["input_mtok"].base == 1


def test_the_age_of_the_data() -> None:
    stamp = PRICER.data_timestamp(AT)
    assert stamp == newest_price(data_snapshot.get_snapshot().providers, AT) == micros("2026-11-09")
    assert PRICER.data_timestamp(AT + 10**16) == stamp  # announced prices make old data no younger


def test_updates_only_where_they_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[float] = []

    class FakeUpdates:
        def __init__(self, update_interval: float) -> None:
            self.every = update_interval

        def start(self) -> None:
            started.append(self.every)

        def stop(self) -> None:
            started.append(-1)

    monkeypatch.setattr(genai_prices, "UpdatePrices", FakeUpdates)
    fresh = data_snapshot.DataSnapshot(providers=[], from_auto_update=True, timestamp=EPOCH + timedelta(days=1))
    closed, opened = Pricer(), Pricer(prices_update=True)
    try:
        assert (closed.start_updates(), opened.start_updates(60), opened.start_updates(60)) == (False, True, False)
        assert (closed.refresh(), opened.refresh()) == (False, False)
        usage = TokenUsage(1, 1)
        assert opened.price("OpenAI", "gpt-4o", usage, at=AT, exact_classes=True).usd is not None
        data_snapshot.set_custom_snapshot(fresh)
        assert (closed.refresh(), opened.refresh(), opened.refresh()) == (False, True, False)
        gone = opened.price("OpenAI", "gpt-4o", usage, at=AT, exact_classes=True)
        assert (gone.usd, gone.rule) == (None, "genai-prices, updated has no model gpt-4o of openai")
        assert closed.price("OpenAI", "gpt-4o", usage, at=AT, exact_classes=True).usd is not None
        assert opened.data_timestamp(AT) == micros("1970-01-02")
        assert Pricer().price("OpenAI", "gpt-4o", usage, at=AT, exact_classes=True).usd is not None
    finally:
        data_snapshot.set_custom_snapshot(None)
    opened.close()
    opened.close()
    closed.close()
    assert started == [60, -1]


# --- Against the library --------------------------------------------------------------------------------------------


def listed_models() -> list[tuple[str, str, str]]:
    labels = {route(known.provider).genai: known.provider for known in AGNO_MODELS if known.cls != "Claude@azure"}
    del labels["openrouter"]  # most of its models cost what their vendor asks
    assert len(labels) == len(GENAI_IDS)  # with '' for the others
    del labels[""]
    return [
        (labels[provider.id], provider.id, model.id)
        for provider in data_snapshot.get_snapshot().providers
        if provider.id in labels
        for model in provider.models
        if provider.find_model(model.id) is model and source(labels[provider.id], model.id)
    ]


@examples(600)
@given(
    st.sampled_from(listed_models()),
    st.integers(0, 600_000),
    st.integers(0, 300_000),
    st.integers(0, 50_000),
    st.integers(0, 100_000),
    st.floats(0, 1),
    st.datetimes(datetime(2025, 1, 1), datetime(2027, 6, 1)),  # noqa: DTZ001 - hypothesis wants bounds without zone
)
@example(("OpenAI", "openai", "gpt-5.4"), 272_000, 0, 0, 1, 0, datetime(2026, 11, 20))  # noqa: DTZ001
@example(("Anthropic", "anthropic", "claude-sonnet-4-5"), 0, 200_001, 0, 1, 0, datetime(2026, 11, 20))  # noqa: DTZ001
@example(("xAI", "x-ai", "grok-4-0709"), 199_999, 1, 0, 1, 0, datetime(2026, 11, 20))  # noqa: DTZ001
def test_the_arithmetic_is_the_librarys(known, fresh, read, write, completion, thought, moment) -> None:
    label, provider, model = known
    moment = moment.replace(tzinfo=UTC)
    reasoning = int(completion * thought)
    billed = fresh + read + write
    prompt = fresh if label.lower() in PROMPT_WITHOUT_CACHE else billed
    usage = TokenUsage(prompt, completion, read, write, reasoning, prompt + completion)
    at = (moment - EPOCH) // timedelta(microseconds=1)
    priced = PRICER.price(label, model, usage, at=at, exact_classes=True)
    assert priced.classes == (fresh, read, write, completion - reasoning, reasoning)
    theirs = genai_prices.calc_price(
        genai_prices.Usage(
            input_tokens=billed,
            cache_read_tokens=read,
            cache_write_tokens=write,
            output_tokens=completion,
            output_reasoning_tokens=reasoning,
        ),
        model,
        provider_id=provider,
        genai_request_timestamp=moment,
    )
    if priced.total is None:
        assert theirs.model_price.output_mtok is None or theirs.model_price.input_mtok is None
    else:
        assert money.decimal(priced.total) == theirs.total_price


def test_list_prices_fit_our_unit() -> None:
    for provider in data_snapshot.get_snapshot().providers:
        for model in provider.models:
            for entry in model.prices if isinstance(model.prices, list) else [model]:
                for key in PRICE_KEYS:
                    value = getattr(entry.prices, key)
                    tiered = value if isinstance(value, TieredPrices) else TieredPrices(value or Decimal(0), [])
                    for amount in (tiered.base, *(tier.price for tier in tiered.tiers)):
                        assert (amount * money.PER_TOKEN) % 1 == 0, (provider.id, model.id)


def test_what_comes_from_outside_fills_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prices, "_PLANS", 10)
    pricer = Pricer()
    for number in range(100):
        pricer.price("OpenAI", f"gpt-{number}", TokenUsage(1, 1), at=AT, exact_classes=True)
    assert len(pricer._plans) <= 10


@pytest.mark.parametrize(
    ("provider", "model", "usage", "saved"),
    [
        pytest.param("OpenAI", "gpt-5.4", TokenUsage(2000, 500, 1024), "0.002304", id="read"),
        pytest.param("OpenAI", "gpt-5.4", TokenUsage(2000, 500), "0", id="nothing read"),
        pytest.param(
            "Anthropic", "claude-sonnet-4-5", TokenUsage(50, 500, 100_000, 2000), "0.27", id="read and written"
        ),
        pytest.param("OpenAI", "gpt-99", TokenUsage(2000, 500, 1024), None, id="unpriced"),
    ],
)
def test_what_a_cache_saved(provider, model, usage, saved) -> None:
    priced = PRICER.price(provider, model, usage, at=AT, exact_classes=True)
    assert priced.saved == (None if saved is None else money.units(Decimal(saved)))


def test_what_a_cache_saved_is_unknown_where_cached_tokens_are() -> None:
    assert PRICER.price("OpenAI", "gpt-5.4", TokenUsage(2000, 500), at=AT, exact_classes=False).saved is None


# Names of models, and who bills them


@pytest.mark.parametrize(
    ("provider", "one", "other"),
    [
        ("openai", "gpt-5.4", "gpt-5.4-2026-03-05"),
        ("openai", "GPT-4o", "gpt-4o-2024-08-06"),
        ("anthropic", "claude-haiku-4-5", "claude-haiku-4-5-20251001"),
        ("google", "models/gemini-2.5-flash", "gemini-2.5-flash"),
    ],
)
def test_spellings_of_one_model(provider, one, other):
    pricer = Pricer()
    assert pricer.common_name(provider, one, provider) == pricer.common_name(provider, other, provider)


def test_models_of_similar_names_are_not_one():
    pricer = Pricer()
    names = ("gpt-5.4", "gpt-5.4-mini", "my-gpt-5.4", "gpt-5.4-unheard-of")
    assert len({pricer.common_name("openai", name, "openai") for name in names}) == 4


def test_an_alias_of_the_price_file_is_the_model_that_it_stands_for(tmp_path):
    path = tmp_path / "prices.yml"
    path.write_text(
        "prices:\n  - {model: house, use: openai/gpt-5.4}\n  - {model: own, input_mtok: 1, output_mtok: 2}\n"
    )
    pricer = Pricer(pricefile.load(path))
    assert pricer.common_name("openai", "house", "openai") == "gpt-5.4"
    assert pricer.common_name("google", "house", "google") == "house"
    assert pricer.common_name("openai", "Own", "openai") == "own"


@pytest.mark.parametrize(
    ("provider", "model", "seller"),
    [
        ("openai", "anything", "openai"),
        ("OpenAI Responses", "gpt-5.4", "openai"),
        ("vertexai", "claude-sonnet-5-5", "google"),
        ("azure", "gpt-5.4", "azure"),
        ("", "gpt-5.4", "openai"),
        ("", "Claude-Haiku-4-5", "anthropic"),
        ("", "unheard-of", ""),
        ("ollama", "gpt-oss", ""),
    ],
)
def test_who_bills_a_call(provider, model, seller):
    assert seller_of(provider, model) == seller
