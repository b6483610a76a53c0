"""Whether a guardrail blocked a run, from the fields in which agno stores and shows that. Nothing else is decoded."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from exporter.metrics.catalog import GUARDRAILS, OTHER

FAILED: Final = "ERROR"
"""the status of a run that a guardrail may have blocked"""
LONGEST_CONTENT: Final = 200
"""Characters of a content, as JSON, that may be the words of a guardrail: more than the longest of them has"""
_CHECKS: Final = frozenset({"input_check_error", "output_check_error"})
_MESSAGES: Final = {
    msgspec.json.encode(message): guardrail
    for message, guardrail in {
        "Potential jailbreaking or prompt injection detected.": "prompt_injection",
        "Potential PII detected in input": "pii_detected",
        "OpenAI moderation violation detected.": "input_not_allowed",
    }.items()
}
"""Texts that agno's own guardrails leave as the content, as JSON, of a run that does not stream"""


class _Event(msgspec.Struct, gc=False):
    run_id: Any = None
    error_type: Any = None
    error_id: Any = None


_events = msgspec.json.Decoder(list[_Event] | None)


def blocked_by(run_id: object, content: bytes | msgspec.Raw, events: bytes | msgspec.Raw) -> str:
    """The guardrail that blocked a failed run, '' if none did or agno does not tell.

    The event of its error names the check. A run of an agent that does not stream has no events; then its content may
    be the text of one of agno's own guardrails.

    Args:
        run_id: The run's own id.
        content: Its content, as JSON.
        events: Its events, as JSON; those of members and steps may be among them.

    """
    try:
        listed = _events.decode(events) or []
    except (msgspec.DecodeError, RecursionError):
        listed = []
    for event in listed:
        if event.run_id == run_id and isinstance(event.error_type, str) and event.error_type in _CHECKS:
            return event.error_id if event.error_id in GUARDRAILS else OTHER
    return _MESSAGES.get(bytes(content), "")
