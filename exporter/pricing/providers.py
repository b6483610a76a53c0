"""The provider of each model class of agno, and whose prices apply there.

AgentOS's HTTP API does not name the provider of an LLM span, but the span's name starts with the model class's `name`.
Source: the 68 model classes of agno 3.1.10, in `agno_models.json` beside this file.
"""

from __future__ import annotations

import enum
import json
from importlib import resources
from typing import Final, NamedTuple

from exporter.core.span_names import provider_label


class ModelClass(NamedTuple):
    """A model class of agno: its name in code, default model id, `name` (that of its spans) and `provider`."""

    cls: str
    id: str
    name: str
    provider: str


AGNO_MODELS: Final = tuple(
    ModelClass(**fields)
    for fields in json.loads(resources.files(__package__).joinpath("agno_models.json").read_text(encoding="utf-8"))
)
"""All model classes of agno 3.1.10; `cls` of a variant names its host (`Claude@aws`)"""

_BY_NAME: Final = {agno_model.name: provider_label(agno_model.provider) for agno_model in reversed(AGNO_MODELS)}
"""`name` of the model class → provider label; the first of two counts (`Claude` is Anthropic's before Vertex AI's)"""


def provider_of_class(name: str, model: str) -> str:
    """Provider label of an LLM span by its model class's `name` and its model id; '' for other classes than agno's.

    `Claude` is Anthropic's, or Vertex AI's if the id has an `@`.
    """
    if name == "Claude" and "@" in model:
        return provider_label("VertexAI")
    return _BY_NAME.get(name, "")


class Kind(enum.Enum):
    """How the models of a provider are priced."""

    LISTED = "listed"
    """by the price list of `Route.genai`"""
    LOCAL = "local"
    """free: they run on the user's own machines"""
    GATEWAY = "gateway"
    """by the vendor's price list, as an estimate: the gateway's own price is unknown"""
    NO_DATA = "no data"
    """not at all, unless the user's price file has a price"""
    UNKNOWN = "unknown"
    """not one of agno's providers: never guessed"""


class Route(NamedTuple):
    """Where to look for the prices of a provider: `genai` is its id in genai-prices, '' unless LISTED."""

    kind: Kind
    genai: str = ""


_GENAI: Final = {
    "anthropic": "anthropic",
    "awsbedrock": "aws",
    "azure": "azure",
    "azurefoundry": "azure",
    "cerebras": "cerebras",
    "cerebrasopenai": "cerebras",
    "cloudflare": "cloudflare",
    "cohere": "cohere",
    "deepseek": "deepseek",
    "fireworks": "fireworks",
    "google": "google",
    "groq": "groq",
    "llama": "meta",
    "llamaopenai": "meta",
    "minimax": "minimax",
    "mistral": "mistral",
    "moonshot": "moonshotai",
    "nebius": "huggingface_nebius",
    "openai": "openai",
    "openrouter": "openrouter",
    "perplexity": "perplexity",
    "sambanova": "huggingface_sambanova",
    "together": "together",
    "vertexai": "google",
    "xai": "x-ai",
}
_LOCAL: Final = frozenset({"llamacpp", "llmman", "lmstudio", "ollama", "vllm"})
_GATEWAYS: Final = frozenset(
    {
        "aimlapi",
        "flexai",
        "heabsy",
        "langdb",
        "litellm",
        "n1n",
        "neosantara",
        "nexus",
        "openresponses",
        "portkey",
        "ramprouter",
        "requesty",
        "synthorai",
        "tokenlab",
        "trustedrouter",
        "tuning engines",
        "yapi",
    }
)
_NO_DATA: Final = frozenset(
    {
        "dashscope",
        "deepinfra",
        "huggingface",
        "ibm",
        "inceptionlabs",
        "internlm",
        "nvidia",
        "siliconflow",
        "vercel",
        "xiaomi mimo",
    }
)

GATEWAY_CLASSES: Final = frozenset({"CometAPI", "OpenAILike"})
"""`name`s of model classes that report provider OpenAI and talk to someone else"""

PROMPT_WITHOUT_CACHE: Final = frozenset({"anthropic", "awsbedrock", "azurefoundry", "vertexai"})
"""Provider labels whose prompt count leaves cached tokens out (agno 3.1.10; agno is discussing a change)"""

GENAI_IDS: Final = frozenset(_GENAI.values())
"""Ids of genai-prices that some provider of agno leads to"""


def clean_provider(provider: str) -> str:
    """The provider label of any spelling: `OpenAI Chat`, ` openai ` and `openai` are one."""
    return provider_label(provider.strip()).strip()


def route(provider: str, model_class: str = "") -> Route:
    """Where the prices of this provider label are; `model_class` tells gateways apart that report OpenAI."""
    label = clean_provider(provider)
    if model_class in GATEWAY_CLASSES or label in _GATEWAYS:
        return Route(Kind.GATEWAY)
    if label in _GENAI:
        return Route(Kind.LISTED, _GENAI[label])
    if label in _LOCAL:
        return Route(Kind.LOCAL)
    return Route(Kind.NO_DATA if label in _NO_DATA else Kind.UNKNOWN)


# --- Vendors: who made a model, for gateways and for ids without their vendor --------------------------------------

PREFIXES: Final = {
    "ai21": "",
    "amazon": "aws",
    "anthropic": "anthropic",
    "aws": "aws",
    "azure": "azure",
    "azure_ai": "azure",
    "bedrock": "aws",
    "cerebras": "cerebras",
    "cloudflare": "cloudflare",
    "cohere": "cohere",
    "cohere_chat": "cohere",
    "deepseek": "deepseek",
    "deepseek-ai": "deepseek",
    "fireworks": "fireworks",
    "fireworks_ai": "fireworks",
    "gemini": "google",
    "google": "google",
    "groq": "groq",
    "hosted_vllm": "local",
    "llamafile": "local",
    "lm_studio": "local",
    "meta-llama": "meta",
    "minimax": "minimax",
    "minimaxai": "minimax",
    "mistral": "mistral",
    "mistralai": "mistral",
    "moonshot": "moonshotai",
    "moonshotai": "moonshotai",
    "ollama": "local",
    "ollama_chat": "local",
    "openai": "openai",
    "openrouter": "openrouter",
    "perplexity": "perplexity",
    "together": "together",
    "together_ai": "together",
    "vertex_ai": "google",
    "x-ai": "x-ai",
    "xai": "x-ai",
    "z-ai": "zai",
    "zai-org": "zai",
}
"""First part of an id (`anthropic/…`, as LiteLLM and OpenRouter write it) → id of genai-prices, `local`, '' for none"""

_VENDORS: Final = (
    (("gpt-", "chatgpt-", "o1", "o3", "o4", "ft:gpt-"), "openai", "openai"),
    (("claude-",), "anthropic", "anthropic"),
    (("gemini-",), "google", "google"),
    (("grok-",), "x-ai", "x-ai"),
    (("deepseek-",), "deepseek", "deepseek"),
    (("mistral-", "ministral-", "magistral-", "codestral-", "devstral-", "pixtral-"), "mistral", "mistralai"),
    (("command-",), "cohere", "cohere"),
    (("kimi-",), "moonshotai", "moonshotai"),
    (("minimax-",), "minimax", "minimax"),
    (("sonar",), "perplexity", "perplexity"),
    (("llama-",), "meta", "meta-llama"),
    (("glm-",), "zai", "z-ai"),
    (("qwen",), "", "qwen"),
)


class Vendor(NamedTuple):
    """The maker of a model: its id in genai-prices ('' if it sells no calls itself), and its prefix at OpenRouter."""

    genai: str
    prefix: str


def vendor_of(model: str) -> Vendor | None:
    """The vendor by the beginning of a lower-case model id without prefix; None if the name does not tell."""
    for starts, genai, prefix in _VENDORS:
        if model.startswith(starts):
            return Vendor(genai, prefix)
    return None


def seller_of(provider: str, model: str) -> str:
    """Id in genai-prices of the company that bills a call; '' if unknown.

    If the provider is unknown, the model's name decides.
    """
    label = clean_provider(provider)
    if label:
        return route(label).genai
    vendor = vendor_of(model.strip().lower())
    return "" if vendor is None else vendor.genai
