"""Days on the command line: a period of which the state has daily sums."""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

from exporter.core.errors import ConfigError
from exporter.core.text import escaped

_MOST: Final = 400
"""As long as the state keeps daily sums"""


def parse(text: str) -> dt.date:
    """A day. Raises ValueError."""
    try:
        return dt.date.fromisoformat(text if re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII) else "")
    except ValueError:
        raise ValueError(f"{escaped(text[:40])!r} is not a day such as 2026-11-01") from None


def check(first: dt.date, last: dt.date) -> None:
    """Refuse a period that ends before it begins, or is too long. Raises ConfigError."""
    if last < first:
        raise ConfigError(["--to: must not be before --from"])
    if (last - first).days >= _MOST:
        raise ConfigError([f"--from: must be within {_MOST} days of --to"])
