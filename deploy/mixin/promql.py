"""Pieces of PromQL that rules share: who is told apart, durations, and what must never be said twice differently."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

TARGET: Final = ("cluster", "namespace", "job")
"""Labels of the scrape that stay. `instance` and `pod` go: a restarted exporter goes on where it was.

Where a label does not exist it costs nothing.
"""
AGENTOS: Final = (*TARGET, "agentos")
KIND: Final = (*AGENTOS, "span_kind")
ROOT: Final = (*AGENTOS, "root_kind", "root")
MODEL: Final = (*AGENTOS, "provider", "model")
TOOL: Final = (*AGENTOS, "tool")
BUDGET: Final = (*AGENTOS, "budget", "period")

_WIDTH: Final = 140

_SECONDS: Final = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_DURATION: Final = re.compile("".join(rf"(?:(?P<{unit}>\d+){unit})?" for unit in _SECONDS))


def seconds(duration: str) -> int:
    """Seconds of a Prometheus duration such as `1h30m`. Raises ValueError for what is none."""
    match = _DURATION.fullmatch(duration)
    if match is None or not duration:
        raise ValueError(f"{duration!r} is no duration such as 30s, 5m, 1h30m or 7d")
    return sum(int(count) * _SECONDS[unit] for unit, count in match.groupdict().items() if count)


def duration(total: int) -> str:
    """The Prometheus duration of a number of seconds, in the fewest units: 5400 is `1h30m`."""
    parts = []
    for unit, size in _SECONDS.items():
        count, total = divmod(total, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def number(value: float) -> str:
    """A number as PromQL reads it, without a needless `.0`."""
    return str(int(value)) if value == int(value) else repr(value)


def bound(value: float) -> str:
    """A bucket's `le` as the exporter writes it: 60 is `60.0`."""
    return repr(float(value))


def by(labels: tuple[str, ...], inner: str, *, how: str = "sum") -> str:
    """`sum by (labels) (inner)`, on a line if it fits."""
    head = f"{how} by ({', '.join(labels)})"
    return f"{head} ({inner})" if len(head) + len(inner) < _WIDTH else f"{head} (\n  {inner}\n)"


def share(part: str, whole: str) -> str:
    """Part of a whole, both with the same labels, as a ratio.

    Where nothing happened there is no ratio, neither 0 nor NaN. Where something happened and the part has no series at
    all, as with errors before the first one, it is 0.
    """
    return f"(\n  {part}\n  or\n  {whole} * 0\n)\n/\n({whole} > 0)"


def unless_past(window: str) -> str:
    """The end of an expression that judges rates: leaves out an AgentOS whose window tells of the past.

    It does while a backlog is read, and until the jump of the counters has left the window (a recorded series can be
    5 minutes old).
    """
    reach = duration(seconds(window) + 300)
    backlog = by(AGENTOS, f"max_over_time(agentos_exporter_catching_up[{reach}])", how="max")
    return f"unless on ({', '.join(AGENTOS)})\n{backlog} == 1"


class Token(NamedTuple):
    """A piece of an expression. `kind`: string, duration, number, name, comparison, matcher or other."""

    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        """Where the next one may begin."""
        return self.start + len(self.text)


_TOKEN: Final = re.compile(
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
        match = _TOKEN.match(expr, at)
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


class Selector(NamedTuple):
    """A series that an expression reads, and the labels by which it is narrowed down."""

    metric: str
    labels: frozenset[str]


_GROUPING: Final = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})
_WORDS: Final = frozenset({"and", "or", "unless", "offset", "bool", "inf", "nan"}) | _GROUPING


def selectors(expr: str) -> list[Selector]:
    """What an expression reads, in its order."""
    found: list[Selector] = []
    parts = tokens(expr)
    at = 0
    while at < len(parts):
        text, after = parts[at].text, parts[at + 1].text if at + 1 < len(parts) else ""
        if text in _GROUPING and after == "(":
            at = next(i for i in range(at, len(parts)) if parts[i].text == ")")
        elif parts[at].kind == "name" and text.lower() not in _WORDS and after != "(" and not _aggregates(parts, at):
            labels: set[str] = set()
            if after == "{":
                end = next(i for i in range(at, len(parts)) if parts[i].text == "}")
                labels = {one.text for one in parts[at + 2 : end] if one.kind == "name"}
                at = end
            found.append(Selector(text, frozenset(labels)))
        at += 1
    return found


def _aggregates(parts: list[Token], at: int) -> bool:
    return at + 1 < len(parts) and parts[at + 1].text in {"by", "without"}


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
