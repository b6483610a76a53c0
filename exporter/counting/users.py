"""User ids → values of the label `user`: not at all, hashed, or plain. Pure: the key of the hashes is a parameter."""

from __future__ import annotations

import enum
import hmac
from collections.abc import Callable
from typing import Final

from exporter.core.text import printable

DIGITS: Final = 16
"""Hexadecimal digits of a hashed user id."""


class UserLabels(enum.StrEnum):
    """What becomes of user ids in labels."""

    OFF = "off"
    HASHED = "hashed"
    PLAIN = "plain"


def labeller(mode: UserLabels, key: bytes) -> Callable[[str], str] | None:
    """What makes a label value of a user id, None with `off`. An unknown user, '', stays ''."""
    if mode is UserLabels.HASHED:
        return lambda user: hashed(user, key)[:DIGITS]
    return printable if mode is UserLabels.PLAIN else None


def hashed(user: str, key: bytes) -> str:
    """HMAC-SHA256 of a user id in hexadecimal digits: without the key, ids cannot be tried against it."""
    return hmac.digest(key, user.encode("utf-8", "surrogatepass"), "sha256").hex() if user else ""
