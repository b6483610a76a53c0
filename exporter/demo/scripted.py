"""A language model that needs no key and no network: it plays a script.

`ScriptedModel` is a real agno `Model`. Agno runs it like any vendor's model, executes the tools it asks for and traces
it, so everything downstream (spans, token counts, errors) is genuine; only the words are made up::

    def script(messages):
        if turn_of(messages) == 0:
            return Reply(tool_calls=(ToolCall("weather", {"city": "Paris"}),), usage=usage_for(messages))
        return Reply("Sunny.", usage=usage_for(messages, "Sunny."))

    ScriptedModel(id="gpt-5.4-mini", name="OpenAIChat", provider="OpenAI", script=script)

A script is a pure function of the messages, so equal prompts give equal runs. The module imports agno and the standard
library only and works on every agno from 2.3 on, also when it is loaded by its path.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import agno.models.base
from agno.exceptions import ModelProviderError
from agno.models.base import Model
from agno.models.message import Message
from agno.models.response import ModelResponse

try:
    from agno.metrics import MessageMetrics as Metrics
except ImportError:  # agno < 2.5 kept one class for messages, runs and sessions
    from agno.models.metrics import Metrics  # type: ignore[import-not-found,no-redef]

__all__ = [
    "Reply",
    "Script",
    "ScriptedModel",
    "ToolCall",
    "Usage",
    "plays",
    "prompt_of",
    "random_for",
    "turn_of",
    "usage_for",
]


@dataclass(frozen=True)
class Usage:
    """Tokens of one call, counted as OpenAI does: `input` includes the cached ones, `output` the reasoning ones."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0
    cost: float | None = None  # US dollars, as a few providers report it themselves


@dataclass(frozen=True)
class ToolCall:
    """One request to run a tool; several of them in one `Reply` run in parallel."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """The model's reply to one call: wait, then fail with `error`, or answer with text, tool calls, or both."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage | None = None  # None: the vendor reported no token counts
    delay: float = 0.0  # seconds; a streaming answer spends them half before, half among its chunks
    error: str | None = None  # raised as ModelProviderError
    error_status: int = 502


Script = Callable[[Sequence[Message]], Reply]


def prompt_of(messages: Sequence[Message]) -> str:
    """The text of the last user message, '' if there is none."""
    for message in reversed(messages):
        if message.role == "user":
            return str(message.content or "")
    return ""


def turn_of(messages: Sequence[Message]) -> int:
    """Return how often the model has already answered the last user message: 0 on the first call of a run."""
    turn = 0
    for message in reversed(messages):
        if message.role == "user":
            break
        turn += message.role == "assistant"
    return turn


def random_for(messages: Sequence[Message]) -> Random:
    """Return a generator seeded by the prompt and the turn: the same conversation draws the same numbers."""
    seed = f"{turn_of(messages)}\0{prompt_of(messages)}".encode()
    return Random(int.from_bytes(hashlib.sha256(seed).digest()[:8], "big"))


def usage_for(messages: Sequence[Message], text: str = "", *, cached: float = 0.0, reasoning: int = 0) -> Usage:
    """Token counts of a plausible size for a conversation.

    Args:
        messages: The conversation.
        text: The answer.
        cached: The share of the prompt that is read from a prompt cache.
        reasoning: Reasoning tokens.

    """
    size = sum(len(str(message.content or "")) for message in messages)
    prompt = 20 + size // 4 + random_for(messages).randrange(200)
    return Usage(
        input=prompt,
        output=8 + len(text) // 4 + reasoning + random_for(messages).randrange(60),
        cache_read=int(prompt * cached),
        reasoning=reasoning,
    )


def plays(*replies: Reply) -> Script:
    """Return a script that gives one reply a turn, and the last one from then on."""

    def script(messages: Sequence[Message]) -> Reply:
        return replies[min(turn_of(messages), len(replies) - 1)]

    return script


def _echo(messages: Sequence[Message]) -> Reply:
    text = f"You said: {prompt_of(messages)}"
    return Reply(text, usage=usage_for(messages, text))


@dataclass
class ScriptedModel(Model):
    """An agno model that answers from `script`.

    `name` becomes the name of its spans (`OpenAIChat.ainvoke`); `provider` and `id` become attributes. Subclasses may
    wrap `call` and `acall`, which take the place of a vendor's SDK.
    """

    id: str = "scripted"
    name: str | None = "ScriptedModel"
    provider: str | None = "Scripted"
    script: Script = _echo

    # Parameters are named as in every agno model: the instrumentor binds and records them by name.

    def invoke(self, messages: list[Message], assistant_message: Message | None = None, **_: object) -> ModelResponse:
        """Answer in one piece.

        Raises:
            ModelProviderError: if the script says so.
        """
        reply = self.call(messages)
        return self._response(messages, reply, text=reply.text, final=True)

    async def ainvoke(
        self, messages: list[Message], assistant_message: Message | None = None, **_: object
    ) -> ModelResponse:
        """Answer in one piece, like `invoke`."""
        reply = await self.acall(messages)
        return self._response(messages, reply, text=reply.text, final=True)

    def invoke_stream(
        self, messages: list[Message], assistant_message: Message | None = None, **_: object
    ) -> Iterator[ModelResponse]:
        """Answer word by word; tool calls and token counts come with the last chunk."""
        reply = self.call(messages, share=0.5)
        words = _words(reply.text)
        for number, word in enumerate(words, 1):
            time.sleep(reply.delay * 0.5 / len(words))
            yield self._response(messages, reply, text=word, final=number == len(words))

    async def ainvoke_stream(
        self, messages: list[Message], assistant_message: Message | None = None, **_: object
    ) -> AsyncIterator[ModelResponse]:
        """Answer word by word, like `invoke_stream`."""
        reply = await self.acall(messages, share=0.5)
        words = _words(reply.text)
        for number, word in enumerate(words, 1):
            await asyncio.sleep(reply.delay * 0.5 / len(words))
            yield self._response(messages, reply, text=word, final=number == len(words))

    def call(self, messages: Sequence[Message], *, share: float = 1.0) -> Reply:
        """In place of the vendor's request: find the reply, wait for `share` of its delay, and fail if it fails."""
        reply = self.script(messages)
        time.sleep(reply.delay * share)
        return self._checked(reply)

    async def acall(self, messages: Sequence[Message], *, share: float = 1.0) -> Reply:
        """In place of the vendor's asynchronous request, like `call`."""
        reply = self.script(messages)
        await asyncio.sleep(reply.delay * share)
        return self._checked(reply)

    def _checked(self, reply: Reply) -> Reply:
        if reply.error is not None:
            raise ModelProviderError(reply.error, reply.error_status, model_name=self.name, model_id=self.id)
        return reply

    def _response(self, messages: Sequence[Message], reply: Reply, *, text: str, final: bool) -> ModelResponse:
        response = ModelResponse(role="assistant", content=text)
        if not final:
            return response
        ids = random_for(messages)
        response.tool_calls = [
            {
                "id": f"call_{ids.getrandbits(64):016x}",
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments))},
            }
            for call in reply.tool_calls
        ]
        if (usage := reply.usage) is not None:
            metrics = Metrics(
                input_tokens=usage.input,
                output_tokens=usage.output,
                total_tokens=usage.input + usage.output,
                cache_read_tokens=usage.cache_read,
                cache_write_tokens=usage.cache_write,
                reasoning_tokens=usage.reasoning,
            )
            if usage.cost is not None:  # agno < 2.5 has no such field, and nothing reads it
                metrics.cost = usage.cost
            response.response_usage = metrics
        return response

    def _parse_provider_response(self, response: object, **_: object) -> ModelResponse:
        raise NotImplementedError  # abstract in Model; `invoke` builds agno's response itself

    def _parse_provider_response_delta(self, response: object) -> ModelResponse:
        raise NotImplementedError


def _words(text: str) -> list[str]:
    """Split a text into chunks that join to it again; never empty, so that a final chunk exists."""
    return text.replace(" ", " \0").split("\0")


# The OpenInference instrumentor wraps the model classes it finds in agno's own modules. Standing in one of them is what
# gives this model LLM spans; it has to happen before tracing is set up.
setattr(agno.models.base, ScriptedModel.__name__, ScriptedModel)
