"""As much of PromQL's grammar as tests need: its pieces, which series an expression names, what is added up by what."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

_TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\]|\\.)*")|(?P<variable>\$\w+)|(?P<name>[A-Za-z_:][\w:]*)|(?P<range>\[[^\]]*\])|(?P<number>\d[\w.]*)
    |(?P<other>[^\s])|\s+""",
    re.VERBOSE,
)
_AGGREGATORS = {"sum", "min", "max", "avg", "count", "quantile", "topk", "bottomk", "group", "stddev", "stdvar"}
_WORDS = {"by", "without", "on", "ignoring", "group_left", "group_right", "and", "or", "unless", "offset", "bool"}


@dataclass
class Selector:
    """A series as an expression names it."""

    name: str
    matchers: dict[str, str]
    """operator and value of each label, such as `=~".+"`"""
    ranged: bool = False
    around: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    """functions and aggregations around it, the innermost first, with the labels that each keeps"""


def selectors(expr: str) -> list[Selector]:
    """All series that an expression names."""
    return list(_read(_tokens(expr), []))


def kept(expr: str) -> set[str]:
    """Labels that some aggregation of the expression keeps, or that it joins in."""
    return {
        name
        for found in re.findall(r"\b(?:by|on|group_left)\s*\(([^)]*)\)", expr)
        for name in re.split(r"\s*,\s*", found.strip())
        if name
    }


def _tokens(expr: str) -> list[str]:
    return [found.group() for found in _TOKEN.finditer(expr) if found.group().strip()]


def _labels(tokens: list[str], at: int) -> tuple[tuple[str, ...], int]:
    """The names in parentheses at a place, and the place after them."""
    end = tokens.index(")", at)
    return tuple(token for token in tokens[at + 1 : end] if token != ","), end + 1


def _read(tokens: list[str], around: list[tuple[str, tuple[str, ...]]]) -> Iterator[Selector]:
    stack: list[tuple[str, tuple[str, ...]]] = list(around)
    opened: list[int] = []
    pending: list[tuple[str, tuple[str, ...]]] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        after = tokens[at + 1] if at + 1 < len(tokens) else ""
        if token in _AGGREGATORS and after in {"by", "without"}:
            labels, at = _labels(tokens, at + 2)
            pending = [(token, labels)]
            continue
        if token in _WORDS:
            at += 1
            if token in {"on", "ignoring"} or (token.startswith("group_") and after == "("):
                _, at = _labels(tokens, at)
            continue
        if token == "(":
            opened.append(len(stack))
            stack += pending
            pending = []
        elif token == ")":
            del stack[opened.pop() :]
        elif re.fullmatch(r"[A-Za-z_:][\w:]*", token):
            if after == "(":
                pending = [(token, ())]
            else:
                selector = Selector(token, {}, around=stack[::-1])
                if after == "{":
                    end = tokens.index("}", at)
                    selector.matchers = _matchers(tokens[at + 2 : end])
                    at = end
                selector.ranged = at + 1 < len(tokens) and tokens[at + 1].startswith("[")
                yield selector
        at += 1


def _matchers(tokens: list[str]) -> dict[str, str]:
    found = {}
    for part in re.split(r"(?<=\")\s*,", "".join(tokens)):
        if part:
            name, operator, value = re.fullmatch(r"(\w+)(=~|!~|!=|=)(.*)", part).groups()  # type: ignore[union-attr]
            found[name] = operator + value
    return found


class Token(NamedTuple):
    """A piece of an expression. `kind`: string, duration, number, name, comparison, matcher or other."""

    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        """Where the next one may begin."""
        return self.start + len(self.text)


_PIECE = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)
    | (?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)
    | (?P<duration>(?:\d+(?:ms|[smhdwy]))+(?![\w.]))
    | (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    | (?P<name>[A-Za-z_:][\w:]*)
    | (?P<comparison>[=!<>]=|=~|!~|[<>=])
    | (?P<other>[-+*/%^@(),{}\[\]:])""",
    re.VERBOSE,
)


def tokens(expr: str) -> list[Token]:
    """The pieces of an expression without spaces and comments. Raises ValueError where it is not PromQL."""
    found: list[Token] = []
    at, braces = 0, 0
    while at < len(expr):
        match = _PIECE.match(expr, at)
        if match is None or match.lastgroup is None:
            raise ValueError(f"not PromQL at {expr[at : at + 20]!r}")
        kind, text = match.lastgroup, match[0]
        braces += (text == "{") - (text == "}")
        if kind == "comparison" and braces:
            kind = "matcher"  # compares a label with a text, not a value with another
        if kind != "space":
            found.append(Token(kind, text, at))
        at = match.end()
    return found


def groupings(expr: str) -> list[tuple[tuple[str, ...], str]]:
    """Of each `sum by (labels) (inner)`: the labels, and what is inside."""
    parts = tokens(expr)
    found = []
    for at, part in enumerate(parts):
        if part.text != "by":
            continue
        close = next(i for i in range(at, len(parts)) if parts[i].text == ")")
        labels = tuple(one.text for one in parts[at + 2 : close] if one.kind == "name")
        depth, end = 0, close + 1
        for end in range(close + 1, len(parts)):
            depth += (parts[end].text == "(") - (parts[end].text == ")")
            if not depth:
                break
        found.append((labels, expr[parts[close + 1].end : parts[end].start]))
    return found
