"""The commands: their requests to AgentOS, and the documents that they make of the answers."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from exporter import config as configuration
from exporter.cli.traces.arguments import (
    ID_PREFIX,
    ListOptions,
    Options,
    RowOptions,
    SessionOptions,
    ShowOptions,
    find_agentos,
)
from exporter.cli.traces.drawing import draw_list, draw_sessions, draw_trace
from exporter.cli.traces.find import FACTS, Scan, newest, rows_lack_ids, scan_through
from exporter.cli.traces.records import Session, session_record, span_record, trace_record
from exporter.cli.traces.texts import counted, plain, when
from exporter.core.errors import ConfigError, ExporterError, SourceError
from exporter.core.logs import complain, complain_of, configure
from exporter.core.model import Clock, SpanKind

if TYPE_CHECKING:
    from rich.console import Console

    from exporter.sources.api.inspect import Inspector
    from exporter.sources.api.source import AgentOSSource
    from exporter.sources.api.views import TraceView

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
_WHOLE_ID: Final = 32
_PIPED_WIDTH: Final = 240
_NOTHING: Final = (
    "AgentOS also answers with nothing when its database fails, or when the token sees only its own runs "
    "(it needs agent_os:admin)"
)

OptionsT = TypeVar("OptionsT", bound=Options)


@dataclass(slots=True)
class Answer:
    """The result of a command: `document` for programs, `draw` for people, `notes` on how it was found."""

    document: dict[str, Any]
    draw: Callable[[Console], None]
    notes: list[str] = field(default_factory=list)
    code: int = OK


Command = Callable[["Inspector", "list[str | None]", OptionsT], Awaitable[Answer]]
"""(AgentOS, the databases to read, flags) → the result"""


def run(command: Command[OptionsT], options: OptionsT, environ: Mapping[str, str]) -> int:
    """Carry out one of the commands below.

    Args:
        command: What asks AgentOS.
        options: Its flags.
        environ: The environment, which may name the AgentOS and its token.

    Returns:
        The exit code.

    """
    configure("error")
    try:
        agentos = find_agentos(options, environ)
        answer = asyncio.run(_ask(command, agentos, options))
    except ConfigError as error:
        complain_of(error)
        return USAGE
    except ExporterError as error:
        complain(str(error))
        return FAILED
    if options.output == "json":
        print(json.dumps({**answer.document, "notes": answer.notes}, indent=2))
        return answer.code
    console = _console(environ)
    answer.draw(console)
    if answer.notes:
        console.print()
    for note in answer.notes:
        console.print(plain(note), style="dim")
    return answer.code


def _console(environ: Mapping[str, str]) -> Console:
    from rich.console import Console  # noqa: PLC0415 - slow, and JSON does without

    width = None if sys.stdout.isatty() or "COLUMNS" in environ else _PIPED_WIDTH
    return Console(width=width, highlight=False, markup=False, emoji=False)


async def _ask(command: Command[OptionsT], agentos: configuration.AgentOS, options: OptionsT) -> Answer:
    # Only now: agno takes a second to import.
    from exporter.service.connect import make_source  # noqa: PLC0415
    from exporter.sources.api.inspect import Inspector  # noqa: PLC0415
    from exporter.sources.position import Settings  # noqa: PLC0415

    agentos.read_token()  # an unreadable token is a mistake of the configuration, not of AgentOS
    source = cast("AgentOSSource", make_source(agentos, Settings(0, 0, 0, 0.05), Clock(time.time, time.monotonic)))
    try:
        inspector = Inspector(source, timeout=options.timeout)
        databases = await _databases(inspector, agentos, options)
        answer = await command(inspector, databases, options)
    finally:
        await source.aclose()
    answer.document = {"agentos": {"name": agentos.name, "url": agentos.url}, **answer.document}
    if inspector.unreadable:
        answer.notes.append(f"passed over: {counted(inspector.unreadable, 'trace')} that cannot be read")
    if inspector.lists:
        answer.notes.append("this AgentOS cannot search its traces: they were listed and fetched one by one")
    return answer


async def _databases(inspector: Inspector, agentos: configuration.AgentOS, options: Options) -> list[str | None]:
    by_name = any(getattr(options, kind, None) for kind in ("agent", "team", "workflow"))
    if agentos.db_ids is None or by_name:
        listed = await inspector.databases()
    return list(agentos.db_ids) if agentos.db_ids is not None else listed


async def list_traces(inspector: Inspector, databases: list[str | None], options: ListOptions) -> Answer:
    """Recent traces."""
    from exporter.sources.api.inspect import Query  # noqa: PLC0415 - imports agno

    ids = [(key, getattr(options, flag)) for key, flag in zip(FACTS, ("run", "session", "user"), strict=True)]
    wanted = tuple((key, value) for key, value in ids if value)
    components = _components(inspector, options)
    enough = options.page * options.limit + 1
    query = Query(options.since, options.until)

    def fits(trace: TraceView) -> bool:
        return (
            all(value in trace.every(key) for key, value in wanted)
            and all(_took_part(trace, kind, name) for kind, name in components)
            and (options.status is None or trace.status == options.status)
        )

    async def search(query: Query) -> Scan:
        traces = newest(inspector, databases, query)
        return await scan_through(traces, fits, enough=enough, most=options.scan, requests=options.all)

    scan, asked_rows = Scan(), False
    if wanted and not await rows_lack_ids(inspector, databases, query):
        asked_rows = True
        scan = await search(replace(query, ids=wanted))
    if not scan.traces:
        asked_rows = False
        scan = await search(query)
    rows = scan.traces[enough - 1 - options.limit : enough - 1]
    notes = _scan_notes(scan, options, bool(wanted or components or options.status) and not asked_rows, bool(wanted))
    orders: dict[str, Callable[[TraceView], Any]] = {
        "start": lambda trace: trace.start,
        "duration": lambda trace: trace.duration,
        "spans": lambda trace: trace.total_spans,
        "errors": lambda trace: trace.failed,
    }
    rows = sorted(rows, key=orders[options.sort], reverse=not options.reverse)
    if len(rows) > 1 and (options.sort != "start" or options.reverse):
        notes.append(f"sorted among these {len(rows)} traces only: AgentOS knows no other order than the latest first")
    document = _paged(options, notes, more=len(scan.traces) == enough)
    document["traces"] = [trace_record(row) for row in rows]
    return Answer(document, lambda console: draw_list(console, rows, several=len(databases) > 1), notes)


def _paged(options: RowOptions, notes: list[str], *, more: bool) -> dict[str, Any]:
    """The start of a document of one page; a note says how to get the next."""
    if more:
        notes.append(f"there are more: --page {options.page + 1}")
    return {"page": options.page, "limit": options.limit, "more": more}


def _components(inspector: Inspector, options: ListOptions | SessionOptions) -> list[tuple[SpanKind, str]]:
    kinds = (SpanKind.AGENT, SpanKind.TEAM, SpanKind.WORKFLOW)
    return [
        (kind, inspector.span_name(kind.value, name)) for kind in kinds if (name := getattr(options, kind.value, None))
    ]


def _took_part(trace: TraceView, kind: SpanKind, name: str) -> bool:
    return any(span.kind is kind and span.name == name for span in trace.spans)


def _scan_notes(scan: Scan, options: ListOptions, filtered: bool, by_id: bool) -> list[str]:  # noqa: FBT001
    notes = []
    if filtered:
        why = "trace rows have no such ids" if by_id else "own filters miss failed spans and members"
        notes.append(f"AgentOS's {why}: the newest {scan.read} traces were read, and filtered by their spans")
    if scan.requests:
        notes.append(f"left out: {counted(scan.requests, 'HTTP request')} to AgentOS that ran nothing (--all)")
    if scan.capped:
        notes.append(f"stopped after {scan.read} traces, at {when(scan.oldest)}: --scan or --until goes further back")
    if not scan.read and options.page == 1:
        notes.append(_NOTHING)
    return notes


async def show_trace(inspector: Inspector, databases: list[str | None], options: ShowOptions) -> Answer:
    """One trace, span by span."""
    asked = options.trace_id.strip().lower()
    if not asked or not all(c in "0123456789abcdef" for c in asked) or not ID_PREFIX <= len(asked) <= _WHOLE_ID:
        raise ConfigError([f"TRACE_ID: {ID_PREFIX} to {_WHOLE_ID} hexadecimal digits, not '{plain(options.trace_id)}'"])
    names = ", ".join(db for db in databases if db) or "the database"
    missing = f"trace {asked} not found in {names}; AgentOS also answers so when its database is down"
    candidates = [(db, asked) for db in databases]
    if len(asked) < _WHOLE_ID:
        candidates = [(db, candidate) for db in databases for candidate in await inspector.with_prefix(db, asked)]
        if len(candidates) > 1:
            raise SourceError(
                f"several traces start with {asked}: {', '.join(candidate for _, candidate in candidates)}"
            )
    for db, trace_id in candidates:
        trace = await inspector.trace(db, trace_id)
        if trace is not None:
            return _shown(trace, content=options.content)
    raise SourceError(missing)


def _shown(trace: TraceView, *, content: bool) -> Answer:
    notes = []
    if trace.hidden:
        notes.append(
            f"{trace.hidden} of {trace.total_spans} spans not visible yet: a span shows once all above it are written"
        )
    elif not trace.total_spans:
        notes.append("no span of this trace is written yet")
    if trace.spans and trace.spans[0].kind in {SpanKind.AGENT, SpanKind.TEAM, SpanKind.WORKFLOW}:
        notes.append("AgentOS gives the outermost span the start and end of the whole trace")
    if any(call.input_tokens is None for call in trace.llm_calls):
        notes.append("?: a model call did not report its tokens")
    has_content = any(span.input or span.output or span.arguments for span in trace.spans)
    if has_content and not content:
        notes.append("--content shows prompts, answers and tool arguments")
    spans = [span_record(trace, span, content=content) for span in trace.spans]
    document = {"trace": {**trace_record(trace), "spans": spans}}
    return Answer(document, lambda console: draw_trace(console, trace, content=content), notes)


async def list_sessions(inspector: Inspector, databases: list[str | None], options: SessionOptions) -> Answer:
    """Sessions and what they did."""
    from exporter.sources.api.inspect import Query  # noqa: PLC0415 - imports agno

    enough = options.page * options.limit + 1
    sessions: list[Session] = []
    notes: list[str] = []
    derived = await rows_lack_ids(inspector, databases, Query())
    if not derived:
        sessions = await _own_statistics(inspector, databases, options, enough)
    if not sessions:
        components = _components(inspector, options)
        traces = newest(inspector, databases, Query())
        scan = await scan_through(
            traces,
            lambda trace: all(_took_part(trace, kind, name) for kind, name in components),
            enough=None,
            most=options.scan,
            requests=False,
        )
        sessions = _gather(scan.traces, options.user)
        derived = bool(sessions)
        if derived:
            notes.append(
                f"AgentOS's trace rows have no session ids: worked out from the newest {scan.read} traces"
                + (" (--scan reads more)" if scan.capped else "")
            )
        elif not scan.read:
            notes.append(_NOTHING)
    orders: dict[str, Callable[[Session], Any]] = {
        "last": lambda session: -session.last,
        "first": lambda session: -session.first,
        "traces": lambda session: -session.traces,
        "session": lambda session: session.id,
    }
    # Derived sessions are all known; AgentOS's statistics come page by page.
    if not derived:
        sessions.sort(key=orders["last"])
        more, sessions = len(sessions) >= enough, sessions[enough - 1 - options.limit : enough - 1]
    sessions.sort(key=orders[options.sort], reverse=options.reverse)
    if derived:
        more, sessions = len(sessions) >= enough, sessions[enough - 1 - options.limit : enough - 1]
    elif len(sessions) > 1 and (options.sort != "last" or options.reverse):
        notes.append(f"sorted among these {len(sessions)} sessions only: AgentOS has the last active first")
    document = _paged(options, notes, more=more)
    document["source"] = "traces" if derived else "agentos"
    document["sessions"] = [session_record(session) for session in sessions]
    return Answer(document, lambda console: draw_sessions(console, sessions, derived=derived), notes)


async def _own_statistics(
    inspector: Inspector, databases: Sequence[str | None], options: SessionOptions, enough: int
) -> list[Session]:
    agent = inspector.agent_id(options.agent) if options.agent else None
    sessions = []
    for db in databases:
        sessions_of_db, _ = await inspector.sessions(db, user=options.user, agent=agent, page=1, size=enough)
        sessions += [
            Session(session.id, session.user_id, list(session.components), session.traces, session.first, session.last)
            for session in sessions_of_db
        ]
    return sessions


def _gather(traces: Sequence[TraceView], user: str | None) -> list[Session]:
    """Sessions of the outermost runs."""
    sessions: dict[str, Session] = {}
    for trace in traces:
        session_id = trace.first("session_id")
        if not session_id:
            continue
        owner = trace.first("user_id")
        if user is not None and owner != user:
            continue
        session = sessions.setdefault(session_id, Session(session_id, owner, [], 0, trace.start, trace.end, 0))
        session.user = session.user or owner
        session.traces += 1
        session.first, session.last = min(session.first, trace.start), max(session.last, trace.end)
        session.failed = (session.failed or 0) + (trace.status == "ERROR")
        session.calls += trace.llm_calls
        if trace.root is not None and trace.root.name not in session.components:
            session.components.append(trace.root.name)
    return list(sessions.values())
