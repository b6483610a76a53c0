"""Facts in the names and error texts of spans: components, methods of requests, model classes, types of errors."""

from __future__ import annotations

import re
from typing import Final

_METHOD = re.compile(r"\._?a?(?:continue_run|run|execute)(?:_stream)?$")
_CONTINUE = re.compile(r"\._?a?continue_run(?:_stream)?$")
_MODEL_METHOD = re.compile(r"\.a?(?:invoke|response)(?:_stream)?$")
_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
_LONGEST_METHOD: Final = 1 + max(map(len, _METHODS))
_ERROR_TYPE = re.compile(r"^\w+(?:\.\w+)*(?:Error|Exception|Timeout|Interrupt|Exit|Warning)(?=:|$)")
_ERROR_TYPE_LENGTH: Final = 64
_ERROR_TEXT: Final = 4096


def component_name(span_name: str) -> str:
    """Name of the agent, team, workflow or step of a span with this name (`Nesting_Agent_v1.2.arun` → …`_v1.2`)."""
    return _METHOD.sub("", span_name)


def is_continuation(span_name: str) -> bool:
    """Whether the span is of a run that had paused, for a person's confirmation say (`Agent.acontinue_run`)."""
    return _CONTINUE.search(span_name) is not None


def http_method(span_name: str) -> str:
    """Method of the HTTP request of a span with this name (`POST /agents/{agent_id}/runs` → `POST`), '' if none.

    The name of such a span is `{method} {route}`, by OpenTelemetry's semantic conventions.
    """
    method, _, _ = span_name[:_LONGEST_METHOD].partition(" ")
    return method if method in _METHODS else ""


def is_streamed(span_name: str) -> bool:
    """Whether the answer of the LLM call came in parts, by the name of its span (`OpenAIChat.ainvoke_stream`)."""
    return span_name.endswith("_stream")


def model_class(span_name: str) -> str:
    """Model name in an LLM span's name (`OpenAIChat.ainvoke` → `OpenAIChat`), '' if it has none."""
    match = _MODEL_METHOD.search(span_name)
    return span_name[: match.start()] if match else ""


def error_type(text: str | None) -> str:
    """Exception type at the start of an error text, else `other`.

    Tool errors carry bare messages (`alice: not found`) which must not leak into a label.
    """
    match = _ERROR_TYPE.match(text[:_ERROR_TEXT]) if text else None
    kind = match.group() if match else ""
    return kind if 0 < len(kind) <= _ERROR_TYPE_LENGTH else "other"


def provider_label(provider: str) -> str:
    """Provider as a label: agno's string without a trailing " Chat" or " Responses", lowercased."""
    return provider.removesuffix(" Chat").removesuffix(" Responses").lower()
