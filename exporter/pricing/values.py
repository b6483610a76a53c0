"""Single values of a price file.

Every parser takes a text of the file and raises RefusedError, which says what is wrong with it.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from exporter.core import times
from exporter.core.document import RefusedError, quoted, shown
from exporter.pricing.entries import Alias
from exporter.pricing.providers import clean_provider

_NAME: Final = 256
_PATTERN: Final = 200
_REPEATS: Final = 3
_OPTIONS: Final = 6
_TOKENS: Final = 10**9
_MOST: Final = Decimal(10_000)
_LEAST: Final = Decimal("0.0001")
_KCOUNT: Final = Decimal(100_000)
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9][0-9_]*(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")


def parse_provider(text: str) -> str:
    """The label of a provider."""
    label = clean_provider(text)
    if not label or len(label) > _NAME or not label.isprintable():
        raise RefusedError("must be a provider as agno names it, such as Azure")
    return label


def parse_model(text: str) -> str:
    """A model id in lower case."""
    if not text.strip() or len(text) > _NAME or not text.isprintable():
        raise RefusedError(f"must be a model id: 1 to {_NAME} printable characters")
    return text.strip().lower()


def parse_alias(text: str) -> Alias:
    """The model of `provider/model`, or of a model id alone."""
    text = text.strip()
    provider, slash, model = text.partition("/")
    if not text or (slash and not (provider and model)) or len(text) > _NAME or not text.isprintable():
        raise RefusedError("must be provider/model, such as azure/gpt-4o")
    return Alias(clean_provider(provider), model.lower()) if slash else Alias("", text.lower())


def parse_pattern(text: str) -> re.Pattern[str]:
    """A regular expression that ignores case and cannot take exponential time."""
    if not text or len(text) > _PATTERN:
        raise RefusedError(f"must be a regular expression of 1 to {_PATTERN} characters")
    try:
        compiled = re.compile(text, re.IGNORECASE)
    except (re.error, RecursionError, OverflowError) as error:
        raise RefusedError(f"{quoted(text)} is no regular expression: {shown(str(error))}") from None
    _check_speed(text)
    return compiled


def _check_speed(text: str) -> None:
    """Refuse a pattern that can take exponential time on a name: nested repeats, choices in a repeat, many in a row.

    With at most three repeats, on names of at most 160 characters, a search ends within a second; its result is kept.
    Longer names match no pattern.
    """
    if re.search(r"(?<!\\)(?:\\\\)*\\[1-9]|\(\?(?:P=|\(|<?[=!])", text):
        raise RefusedError(f"{quoted(text)}: back references, conditions and look-around are not allowed")
    plain = re.sub(r"\\.", "x", text, flags=re.DOTALL)
    plain = re.sub(r"\[\^?\]?[^\]]*\]", "x", plain)
    plain = re.sub(r"\(\?(?:P<\w+>|[aiLmsux-]*:|>|#)", "(", plain)
    repeats = options = 0
    groups = [False]
    """by open group: whether it has a repeat or a choice"""
    closed = False
    """whether a group that does was closed just now"""
    for match in re.finditer(r"\{[0-9]*,?[0-9]*\}|.", plain, re.DOTALL):
        sign = match.group()
        if sign == "(":
            groups.append(False)
        elif sign == ")":
            closed = groups.pop() if len(groups) > 1 else False
            groups[-1] |= closed
            continue
        elif sign in "|?":
            options += sign == "?" or not groups[-1]
            groups[-1] = True
        elif sign in "*+" or (len(sign) > 1 and sign[0] == "{"):
            repeats += 1
            groups[-1] = True
            if closed:
                raise RefusedError(f"{quoted(text)}: a repeat of a repeat or of a choice is not allowed")
        closed = False
    if repeats > _REPEATS or options > _OPTIONS:
        limits = f"at most {_REPEATS} repeats (*, +, {{n}}) and {_OPTIONS} choices (|, ?) are allowed"
        raise RefusedError(f"{quoted(text)}: {limits}")


def parse_moment(text: str) -> int:
    """A date or time, in microseconds since the epoch."""
    try:
        return times.parse(text.strip())
    except ValueError:
        raise RefusedError(f"{quoted(text)} is not a date or time such as 2026-10-01 or 2026-10-01T12:00Z") from None
    except OverflowError:
        raise RefusedError(f"{quoted(text)} is not a possible time") from None


def _number(text: str) -> Decimal:
    if text.strip().lower().lstrip("+-.") in {"nan", "inf", "infinity"}:
        raise RefusedError(f"must be a price in USD, not {quoted(text)}")
    if not _NUMBER.fullmatch(text):
        raise RefusedError(f"must be a price in USD such as 2.5, not {quoted(text)}")
    number = Decimal(text.replace("_", ""))
    if number < 0:
        raise RefusedError(f"a price is not negative: {quoted(text)}")
    return abs(number)  # -0 is 0


def parse_mtok(text: str) -> Decimal:
    """USD per million tokens."""
    price = _number(text)
    if price > _MOST:
        raise RefusedError(f"{quoted(text)} is over {_MOST} USD per million tokens")
    if 0 < price < _LEAST:
        raise RefusedError(f"{quoted(text)} is below {_LEAST} USD per million tokens; is it a price per token?")
    return price


def parse_per_token(text: str) -> Decimal:
    """USD per token as USD per million tokens."""
    price = _number(text) * 1_000_000
    if price > _MOST:
        raise RefusedError(f"{quoted(text)} is over {_MOST} USD per million tokens; is it a price per million?")
    if 0 < price < _LEAST:
        raise RefusedError(f"{quoted(text)} is below {_LEAST} USD per million tokens")
    return price


def parse_kcount(text: str) -> Decimal:
    """USD per thousand requests."""
    price = _number(text)
    if price > _KCOUNT:
        raise RefusedError(f"{quoted(text)} is over {_KCOUNT} USD per thousand requests")
    return price


def parse_tokens(text: str) -> int:
    """A number of tokens."""
    if not re.fullmatch(r"[1-9][0-9_]{0,12}", text) or int(text.replace("_", "")) > _TOKENS:
        raise RefusedError(f"must be a whole number of tokens between 1 and {_TOKENS}, not {quoted(text)}")
    return int(text.replace("_", ""))
