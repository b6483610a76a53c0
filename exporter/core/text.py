"""Texts that users of AgentOS chose, made fit to be stored, to be shown and to be labels."""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final

_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
_DIGEST_BYTES: Final = 4
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")
_UNPRINTABLE: Final = re.compile("[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def storable(text: str) -> str:
    """The text with U+FFFD for NUL and for half surrogates, which UTF-8 and databases refuse."""
    return text if text.isascii() and "\0" not in text else _UNSTORABLE.sub(_REPLACEMENT, text)


def printable(text: str) -> str:
    """`storable`, and U+FFFD for control characters, line ends, and what turns the direction of the text."""
    return text if text.isascii() and text.isprintable() else _UNPRINTABLE.sub(_REPLACEMENT, text)


def escaped(text: str) -> str:
    """The text on one line, with escapes in place of unprintable characters, which a terminal might obey."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shorten(text: str, length: int) -> str:
    """The text in at most `length` characters: the end of a longer one becomes `…` and 8 hex digits of its digest.

    So texts that differ only beyond `length` stay two.
    """
    if len(text) <= length:
        return text
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).hexdigest()
    return f"{text[: length - len(digest) - 1]}…{digest}"
