"""Pricing of 100,000 LLM spans over 200 models: look-up, normalisation and arithmetic, beside genai-prices' own call.

It also prints how many of agno's default models and of the uses of models in agno's cookbook have a price.
"""

from __future__ import annotations

import json
import random
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.measure import child, report

_AT = datetime(2026, 11, 20, 12, tzinfo=UTC)
_COOKBOOK = Path(__file__).parent.parent / "tests" / "prices" / "cookbook.json"
_MODELS = 200


def main(*, quick: bool) -> None:
    """Price the same spans both ways, and print coverage."""
    spans = 10_000 if quick else 100_000
    ours = child(__name__, "ours", spans).figures
    theirs = child(__name__, "theirs", max(1000, spans // 10)).figures
    print(f"{'':>14} {'spans':>8} {'models':>7} {'us/span':>9} {'us/span, best of 5':>19}")
    for name, figures in (("exporter", ours), ("calc_price", theirs)):
        cells = f"{figures['spans']:>8} {figures['models']:>7} {figures['us']:>9.2f} {figures['best']:>19.2f}"
        print(f"{name:>14} {cells}")
    print(f"{theirs['us'] / ours['us']:.0f} x faster (bound: 15 us a span)")
    print(
        f"coverage: {ours['defaults']} of {ours['classes']} default models of agno "
        f"({ours['defaults'] / ours['classes']:.1%}, bound: 71 %), "
        f"{ours['priced_uses']} of {ours['uses']} uses in its cookbook "
        f"({ours['priced_uses'] / ours['uses']:.1%}, bound: 95 %)"
    )


def _spans(count: int) -> list[tuple[str, str, str, int, int, int]]:
    """For each span (agno's provider, genai-prices' provider, model, prompt, cached, completion)."""
    from genai_prices.data import providers
    from genai_prices.types import ClauseEquals

    labels = {"openai": "OpenAI", "groq": "Groq", "mistral": "Mistral", "openrouter": "OpenRouter", "x-ai": "xAI"}
    dice = random.Random(4)
    models = [
        (labels[provider.id], provider.id, model.id)
        for provider in providers
        if provider.id in labels
        for model in provider.models
        if "free" not in model.id
        and not model.id.startswith("openrouter/")
        and (isinstance(model.match, ClauseEquals) or provider.id != "openrouter")
        and getattr(model.get_prices(_AT), "input_mtok", None) is not None
        and getattr(model.get_prices(_AT), "output_mtok", None) is not None
    ]
    chosen = dice.sample(models, _MODELS)
    return [
        (*dice.choice(chosen), prompt := dice.randrange(300_000), dice.randrange(prompt + 1), dice.randrange(5_000))
        for _ in range(count)
    ]


def ours(spans: int) -> None:
    from exporter.core.model import TokenUsage
    from exporter.pricing.prices import Pricer
    from exporter.pricing.providers import AGNO_MODELS

    at = int(_AT.timestamp()) * 1_000_000
    calls = [
        (provider, model, TokenUsage(prompt, completion, cached))
        for provider, _, model, prompt, cached, completion in _spans(spans)
    ]
    took = []
    for _ in range(5):
        pricer = Pricer()  # its look-ups are part of the first pass over its models
        begin = time.perf_counter()
        for provider, model, usage in calls:
            pricer.price(provider, model, usage, at=at, exact_classes=True)
        took.append(time.perf_counter() - begin)
    pricer = Pricer()
    by_class = {known.cls: known for known in AGNO_MODELS}

    def has_price(cls: str, model: str) -> bool:
        known = by_class[cls]
        return pricer.quote(known.provider, model, at=at, model_class=known.name).rates is not None

    uses = json.loads(_COOKBOOK.read_text())
    report(
        spans=spans,
        models=_MODELS,
        us=1e6 * sorted(took)[2] / spans,
        best=1e6 * min(took) / spans,
        classes=len(AGNO_MODELS),
        defaults=sum(has_price(known.cls, known.id) for known in AGNO_MODELS),
        uses=sum(count for *_, count in uses),
        priced_uses=sum(count for cls, model, count in uses if has_price(cls, model)),
    )


def theirs(spans: int) -> None:
    from genai_prices import Usage, calc_price

    calls = _spans(spans)
    took = []
    for _ in range(5):
        begin = time.perf_counter()
        for _, provider, model, prompt, cached, completion in calls:
            usage = Usage(input_tokens=prompt, cache_read_tokens=cached, output_tokens=completion)
            calc_price(usage, model, provider_id=provider, genai_request_timestamp=_AT)
        took.append(time.perf_counter() - begin)
    report(spans=spans, models=_MODELS, us=1e6 * sorted(took)[2] / spans, best=1e6 * min(took) / spans)


if __name__ == "__main__":
    import sys

    {"ours": ours, "theirs": theirs}[sys.argv[1]](int(sys.argv[2]))
