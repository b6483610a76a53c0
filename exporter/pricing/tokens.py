"""Token counts of a span → classes that do not overlap, whose sum is billed.

The rules, by provider (measured with agno 3.1.10):

- The prompt of Anthropic, AwsBedrock, AzureFoundry and VertexAI leaves cached tokens out; the others include them. If
  more tokens are cached than sent, the count contradicts itself: then it must have left them out too.
- Completion includes reasoning. If reasoning alone is more, completion must have left it out, and it is added.
- xAI's chat leaves reasoning out of completion: the total minus prompt and completion is output.
- A source with cache detail omits counts of 0 (openinference-instrumentation-agno sets no attribute for them): a
  missing count is 0, except reasoning, which its spans never have. The plain API has prompt and completion only: the
  others are unknown, which is not 0.
- Google's completion leaves reasoning (Gemini's thoughts) out. The detail of a run has it; a span shows it only by a
  total above prompt and completion. agno's own total leaves it out, too: then output is a lower bound.
- A negative count is no count.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from exporter.core.model import TokenUsage
from exporter.pricing.providers import PROMPT_WITHOUT_CACHE, clean_provider

TOKEN_CLASSES: Final = ("input", "cache_read", "cache_write", "output", "reasoning")


class Classes(NamedTuple):
    """Tokens by class, each counted once; None if the source does not tell.

    Without `cache_read` or `cache_write`, `input` includes them if the prompt does; without `reasoning`, `output`
    includes it.
    """

    input: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    output: int | None = None
    reasoning: int | None = None

    @property
    def billed_input(self) -> int:
        """The number that decides the price tier: input of all classes, as far as known."""
        return (self.input or 0) + (self.cache_read or 0) + (self.cache_write or 0)

    @property
    def total(self) -> int:
        """All tokens that are known of."""
        return sum(count for count in self if count)


NO_CLASSES: Final = Classes()


class Habits(NamedTuple):
    """What a provider's counts leave out.

    `without_cache`: the prompt leaves out cached tokens. `reasoning_in_total`: completion may leave out reasoning that
    the total has. `without_reasoning`: completion leaves out reasoning.
    """

    without_cache: bool = False
    reasoning_in_total: bool = False
    without_reasoning: bool = False


def habits_of(provider: str) -> Habits:
    """The habits of a provider."""
    label = clean_provider(provider)
    return Habits(label in PROMPT_WITHOUT_CACHE, label == "xai", label == "google")


def classify(usage: TokenUsage, habits: Habits, *, exact: bool) -> Classes:
    """Divide token counts into classes that do not overlap.

    Args:
        usage: The counts as the span reports them.
        habits: Which counts of the provider include which others.
        exact: Whether the source knows cache detail, so that a missing count is 0.

    """
    without_cache = habits.without_cache
    prompt, completion, total = usage.prompt, usage.completion, usage.total
    read, write, reasoning = usage.cache_read, usage.cache_write, usage.reasoning
    if min(prompt or 0, completion or 0, total or 0, read or 0, write or 0, reasoning or 0) < 0:
        prompt, completion, total = _count(prompt), _count(completion), _count(total)
        read, write, reasoning = _count(read), _count(write), _count(reasoning)
    if exact:
        if prompt is None and completion is None and not (read or write or reasoning):
            return NO_CLASSES
        read, write = read or 0, write or 0
        uncached = None if without_cache else total  # the total may include cached tokens, so input is unknown
        if prompt is None:
            prompt = 0 if uncached is None else max(0, uncached - (completion or 0))
        if completion is None:
            completion = 0 if uncached is None else max(0, uncached - prompt)
    fresh = prompt
    if prompt is not None and not without_cache:
        cached = (read or 0) + (write or 0)
        if cached <= prompt:
            fresh = prompt - cached
    output = completion
    if output is not None:
        output, reasoning = _reasoning_apart(prompt, output, reasoning, total, habits)
    return Classes(fresh, read, write, output, reasoning)


def _reasoning_apart(
    prompt: int | None, completion: int, reasoning: int | None, total: int | None, habits: Habits
) -> tuple[int, int | None]:
    """(output without reasoning, reasoning)."""
    if habits.without_reasoning:
        beyond = 0 if total is None or prompt is None else total - prompt - completion
        return completion, max(reasoning or 0, beyond) or reasoning
    output = completion
    if habits.reasoning_in_total and total is not None:
        output = max(output, total - (prompt or 0))
    return output - (reasoning if reasoning is not None and reasoning <= output else 0), reasoning


def _count(count: int | None) -> int | None:
    return None if count is None or count < 0 else count
