"""Results as tables and trees for people. No text in them is read as markup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from exporter.cli.traces.texts import all_today, counted, lasted, plain, when
from exporter.core.model import SpanKind
from exporter.core.span_names import model_class

if TYPE_CHECKING:
    from rich.console import Console, JustifyMethod
    from rich.text import Text

    from exporter.cli.traces.records import Session
    from exporter.sources.api.views import SpanView, TraceView

_CONTENT: Final = 4000
"""Characters of a prompt or answer that are shown."""
_NARROW: Final = 116
_CRAMPED: Final = 100
_WIDE: Final = 150
_STYLES: Final = {"OK": "green", "ERROR": "bold red", "UNSET": "yellow"}


def _tokens(calls: Sequence[SpanView], side: str) -> str:
    """The sum, `?` where a call does not report its tokens: unknown is not zero."""
    counts = [count for call in calls if (count := getattr(call, f"{side}_tokens")) is not None]
    unknown = any(call.input_tokens is None for call in calls)
    if not calls:
        return ""
    return (f"{sum(counts):,}" + ("+?" if unknown else "")) if counts else "?"


@dataclass(slots=True)
class _Column:
    title: str
    cells: list[Text]
    flexible: bool = False
    right: bool = False


def _text(text: str, style: str = "") -> Text:
    from rich.text import Text  # noqa: PLC0415

    return Text(plain(text), style=style, no_wrap=True, overflow="ellipsis")


def _column(title: str, cells: Sequence[str], *, flexible: bool = False, right: bool = False) -> _Column:
    return _Column(title, [_text(cell) for cell in cells], flexible, right)


def _draw_table(console: Console, columns: Sequence[_Column]) -> None:
    """A table with a line a row; columns that are empty are left out, but for the first."""
    from rich.table import Table  # noqa: PLC0415

    gap = 2 if console.width >= _CRAMPED else 1
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    shown = [column for column in columns if any(cell.plain for cell in column.cells) or column is columns[0]]
    for column in shown:
        # rich narrows columns that may wrap, the widest first, and leaves the others whole.
        justify: JustifyMethod = "right" if column.right else "left"
        table.add_column(column.title, justify=justify, no_wrap=not column.flexible, min_width=len(column.title))
    for cells in zip(*(column.cells for column in shown), strict=True):
        table.add_row(*cells)
    console.print(table)


def draw_list(console: Console, rows: Sequence[TraceView], *, several: bool) -> None:
    """Draw a table of traces.

    Args:
        console: Where to draw.
        rows: The traces.
        several: Whether they come from several databases.

    """
    if not rows:
        console.print("no traces found")
        return
    wide = console.width >= _WIDE
    dated = wide or not all_today([row.start for row in rows])
    names = [_root_name(row) for row in rows]
    sessions = [row.first("session_id") for row in rows if console.width >= _NARROW]
    columns = [
        _column("start", [when(row.start, dated=dated) for row in rows]),
        _column("trace", [row.id if wide else row.id[:12] for row in rows]),
        _column("kind", [kind for kind, _ in names if console.width >= _NARROW]),
        _column("root", [name for _, name in names], flexible=True),
        _Column("status", [_text(row.status, _STYLES.get(row.status, "")) for row in rows]),
        _column("duration", [lasted(row.duration) for row in rows], right=True),
        _column("spans", [_spans_shown(row) for row in rows], right=True),
        _column("llm", [str(len(row.llm_calls) or "") for row in rows], right=True),
        _column("in", [_tokens(row.llm_calls, "input") for row in rows], right=True),
        _column("out", [_tokens(row.llm_calls, "output") for row in rows], right=True),
        _column("user", [row.first("user_id") for row in rows], flexible=True),
        _column("session", sessions, flexible=True),
        _column("db", [row.db for row in rows if several], flexible=True),
    ]
    _draw_table(console, [column for column in columns if column.cells])


def _root_name(trace: TraceView) -> tuple[str, str]:
    if trace.root is not None:
        return trace.root.kind.value, trace.root.name
    if trace.spans:
        return trace.spans[0].kind.value, trace.spans[0].name
    return "", "(not visible yet)"


def _spans_shown(trace: TraceView) -> str:
    return f"{len(trace.spans)}/{trace.total_spans}" if trace.hidden else str(len(trace.spans))


def draw_sessions(console: Console, rows: Sequence[Session], *, derived: bool) -> None:
    """Draw a table of sessions.

    Args:
        console: Where to draw.
        rows: The sessions.
        derived: Whether they were derived from traces, which have more figures than AgentOS's own statistics.

    """
    if not rows:
        console.print("no sessions found")
        return
    dated = console.width >= _WIDE or not all_today([row.first for row in rows])
    columns = [
        _column("session", [row.id for row in rows], flexible=True),
        _column("user", [row.user for row in rows], flexible=True),
        _column("agents, teams, workflows", [", ".join(row.components) for row in rows], flexible=True),
        _column("traces", [f"{row.traces:,}" for row in rows], right=True),
    ]
    if derived:
        failed = [_text(f"{row.failed:,}" if row.failed else "", _STYLES["ERROR"]) for row in rows]
        columns += [
            _Column("failed", failed, right=True),
            _column("in", [_tokens(row.calls, "input") for row in rows], right=True),
            _column("out", [_tokens(row.calls, "output") for row in rows], right=True),
        ]
    columns.append(_column("first", [when(row.first, dated=dated) for row in rows]))
    columns.append(_column("last", [when(row.last, dated=dated) for row in rows]))
    if console.width < _CRAMPED:
        columns[2].title = "components"
    _draw_table(console, columns)


def draw_trace(console: Console, trace: TraceView, *, content: bool) -> None:
    """Draw a trace, and its spans as a tree.

    Args:
        console: Where to draw.
        trace: The trace.
        content: Whether to show prompts, answers and arguments.

    """
    from rich.text import Text  # noqa: PLC0415

    kind, name = _root_name(trace)
    calls = trace.llm_calls
    spans = f"{len(trace.spans)} of {trace.total_spans}" if trace.hidden else str(len(trace.spans))
    facts = [
        ("trace", _text(trace.id + (f"  in {trace.db}" if trace.db else ""))),
        ("root", _text(f"{kind} {name}".strip(), "bold")),
        ("status", _text(trace.status, _STYLES.get(trace.status, ""))),
        ("start", _text(f"{when(trace.start)}, took {lasted(trace.duration)}")),
        ("run", _text(trace.first("run_id"))),
        ("session", _text(trace.first("session_id"))),
        ("user", _text(trace.first("user_id"))),
        ("spans", _text(spans + (f", {trace.failed} failed" if trace.failed else ""))),
        ("models", _text(_models(calls))),
    ]
    for title, text in facts:
        if text.plain:
            console.print(Text.assemble((f"{title:<9}", "dim"), text))
    if not trace.spans:
        return
    console.print()
    texts = [_span_text(span) for span in trace.spans]
    guides = [(_shortened(guide, console), _shortened(below, console)) for guide, below in _guides(trace)]
    numbers = [
        (
            f"+{lasted(max(0, span.start - trace.start))}",
            lasted(span.duration),
            "" if span.nested else _tokens([span] if span.kind is SpanKind.LLM else [], "input"),
            "" if span.nested else _tokens([span] if span.kind is SpanKind.LLM else [], "output"),
        )
        for span in trace.spans
    ]
    titles = ("start", "took", "in", "out")
    widths = [max(len(title), *(len(row[place]) for row in numbers)) for place, title in enumerate(titles)]
    longest = max(len(guide) + text.cell_len for (guide, _), text in zip(guides, texts, strict=True))
    room = max(20, min(longest, console.width - sum(widths) - 2 * len(widths)))
    console.print(_numbered(Text("span".ljust(room)), titles, widths, "bold"), no_wrap=True, crop=True)
    for span, (guide, below), text, row in zip(trace.spans, guides, texts, numbers, strict=True):
        shown = Text.assemble((guide, "dim"), text)
        shown.truncate(room, overflow="ellipsis", pad=True)
        console.print(_numbered(shown, row, widths, "dim" if span.kind is SpanKind.HTTP else ""), no_wrap=True)
        if span.error:
            _draw_block(console, below, "✗ ", span.error, "red")
        elif span.status == "ERROR":
            _draw_block(console, below, "✗ ", "failed, without a message", "red")
        if content:
            for label, value in (("arguments", span.arguments), ("in", span.input), ("out", span.output)):
                if value:
                    _draw_block(console, below, f"{label}: ", value, "cyan")


def _models(calls: Sequence[SpanView]) -> str:
    models = ", ".join(sorted({call.model for call in calls if call.model}))
    tokens = f"{_tokens(calls, 'input')} tokens in, {_tokens(calls, 'output')} out"
    return f"{counted(len(calls), 'call')}, {tokens}" + (f" ({models})" if models else "") if calls else ""


def _numbered(text: Text, row: Sequence[str], widths: Sequence[int], style: str) -> Text:
    line = text.copy()
    for cell, width in zip(row, widths, strict=True):
        line.append("  " + cell.rjust(width), style=style)
    line.rstrip()
    return line


def _span_text(span: SpanView) -> Text:
    from rich.text import Text  # noqa: PLC0415

    failed = span.status == "ERROR"
    if span.kind is SpanKind.HTTP:
        return _text(span.name, "bold red" if failed else "dim")
    name = (model_class(span.name) or span.name) if span.kind is SpanKind.LLM else span.name
    text = Text.assemble(
        (f"{span.kind.value} ", _KIND_STYLES.get(span.kind, "dim")),
        _text(span.model or name, "bold red" if failed else "bold"),
    )
    if span.model:
        text.append_text(_text(f" {name}", "dim"))
    if span.nested:
        text.append(" (the same call)", style="dim")
    if span.status not in {"OK", "ERROR"}:
        text.append_text(_text(f" {span.status}", _STYLES["UNSET"]))
    return text


_KIND_STYLES: Final = {
    SpanKind.AGENT: "blue",
    SpanKind.TEAM: "blue",
    SpanKind.WORKFLOW: "blue",
    SpanKind.LLM: "magenta",
    SpanKind.TOOL: "cyan",
}


def _guides(trace: TraceView) -> list[tuple[str, str]]:
    """For each span: the tree's lines before its name, and those before the text below it."""
    last = {span.parent: place for place, span in enumerate(trace.spans)}
    bars: list[str] = []
    guides = []
    for place, span in enumerate(trace.spans):
        if span.parent < 0:
            guide, bar = "", ""
        else:
            final = last[span.parent] == place
            guide = bars[span.parent] + ("└─ " if final else "├─ ")
            bar = bars[span.parent] + ("   " if final else "│  ")
        bars.append(bar)
        guides.append((guide, bar + ("│  " if place in last else "   ")))
    return guides


def _shortened(guide: str, console: Console) -> str:
    """A guide that leaves room for its span, however deep the tree is."""
    most = max(12, console.width // 3 // 3 * 3)
    return guide if len(guide) <= most else "⋯  " + guide[-(most - 3) :]


def _draw_block(console: Console, guide: str, label: str, text: str, style: str) -> None:
    """A text of several lines below a span, indented as it is; the label comes before the first line."""
    from rich.text import Text  # noqa: PLC0415

    cut = len(text) - _CONTENT
    shown = plain(text[:_CONTENT], lines=True).strip("\n") + (f"… ({cut:,} more: --output json)" if cut > 0 else "")
    room = max(20, console.width - len(guide) - len(label))
    lines = Text(shown, style=style).wrap(console, room)
    for number, line in enumerate(lines):
        line.rstrip()
        before = label if number == 0 else " " * len(label)
        console.print(Text.assemble((guide, "dim"), (before, style), line), no_wrap=True, crop=False)
