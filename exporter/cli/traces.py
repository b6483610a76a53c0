"""`agentos-exporter traces list|show|sessions`: look into a live AgentOS, from an alert's exemplar to the cause.

What a person may see here is what AgentOS shows its operator: error texts, and prompts and answers on demand. It comes
from outside and goes to a terminal, so every text passes `plain` and none is ever read as markup.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from exporter import config as configuration
from exporter.core.errors import ConfigError, ExporterError, SourceError
from exporter.core.logs import complain, configure
from exporter.core.model import MICROSECONDS, Clock, SpanKind, model_class
from exporter.core.text import escaped
from exporter.core.times import utc

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from exporter.sources.api.inspect import Inspector, Query, SpanView, TraceView
    from exporter.sources.api.source import AgentOSSource

COMMANDS: Final = ("list", "show", "sessions")
OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2

SCAN: Final = 1000
"""Traces that are read in search of those asked for, unless --scan says otherwise."""
_PAGE: Final = 25
"""Trees in one request: AgentOS answers nobody else while it collects them."""
_MOST: Final = 1_000_000
_PREFIX: Final = 8
_WHOLE_ID: Final = 32
_CONTENT: Final = 4000
_PIPED_WIDTH: Final = 240
_NARROW: Final = 116
_CRAMPED: Final = 100
_WIDE: Final = 150
_NOTHING: Final = (
    "AgentOS also answers with nothing when its database fails, or when the token sees only its own runs "
    "(it needs agent_os:admin)"
)
_STYLES: Final = {"OK": "green", "ERROR": "bold red", "UNSET": "yellow"}


def plain(text: str, *, lines: bool = False) -> str:
    """The text without anything that a terminal obeys: unprintable characters show as escapes.

    Line breaks stay where `lines` is set; tabs are spaces.
    """
    text = text.replace("\r\n", "\n").replace("\t", "    ")
    return "\n".join(map(escaped, text.split("\n"))) if lines else escaped(text)


# --- Arguments --------------------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommands of `traces`, with their flags."""
    commands = parser.add_subparsers(dest="traces_command", metavar="COMMAND", required=True)

    def add(name: str, text: str, flags: Callable[[argparse.ArgumentParser], None]) -> None:
        added = commands.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", formatter_class=_Formatter
        )
        flags(added)
        added.add_argument("--output", choices=("table", "json"), default="table", help="for people or for programs")
        _connection(added.add_argument_group("which AgentOS"))

    add("list", "recent traces", _list_flags)
    add("show", "one trace, span by span", _show_flags)
    add("sessions", "sessions and what they did", _sessions_flags)
    parser.formatter_class = _Formatter
    parser.epilog = "Without a command: --trace-id ID is show, --stats is sessions, anything else is list."


class _Formatter(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)


def _list_flags(parser: argparse.ArgumentParser) -> None:
    flag = parser.add_argument
    flag("--user", metavar="ID", help="of this user")
    flag("--session", metavar="ID", help="of this session")
    flag("--run", metavar="ID", help="with this run")
    flag("--agent", metavar="NAME", help="in which this agent (id or name) took part")
    flag("--team", metavar="NAME", help="in which this team (id or name) took part")
    flag("--workflow", metavar="NAME", help="with this workflow (id or name), or step (name)")
    flag("--status", choices=("OK", "ERROR", "UNSET"), type=str.upper, help="ERROR: any of its spans failed")
    flag("--since", type=_moment, metavar="TIME", help="started since: 30m, 1h, 2d ago, or an ISO time")
    flag("--until", type=_moment, metavar="TIME", help="started until then")
    flag("--all", action="store_true", help="HTTP requests to AgentOS that ran nothing, too")
    orders = ("start", "duration", "spans", "errors")
    flag("--sort", choices=orders, default="start", help="largest first; latest first by default")
    _rows(parser)


def _show_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("trace_id", metavar="TRACE_ID", help=f"the id, or at least its first {_PREFIX} digits")
    parser.add_argument("--content", action="store_true", help="prompts, answers and tool arguments, too")


def _sessions_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--user", metavar="ID", help="of this user")
    parser.add_argument("--agent", metavar="NAME", help="in which this agent (id or name) took part")
    orders = ("last", "first", "traces", "session")
    parser.add_argument("--sort", choices=orders, default="last", help="last active first by default")
    _rows(parser)


def _rows(parser: argparse.ArgumentParser) -> None:
    flag = parser.add_argument
    flag("--reverse", action="store_true", help="the other way round")
    flag("--limit", type=_positive, default=20, metavar="N", help="rows to show (default: 20)")
    flag("--page", type=_positive, default=1, metavar="N", help="which page of so many rows (default: 1)")
    flag("--scan", type=_positive, default=SCAN, metavar="N", help=f"most traces to read (default: {SCAN})")


def _connection(group: argparse._ArgumentGroup) -> None:
    prefix = configuration.ENV_PREFIX
    group.add_argument("--url", metavar="URL", help=f"of the AgentOS (environment: {prefix}AGENTOS_URL)")
    group.add_argument("--config.file", dest="config_file", metavar="FILE", help="or: the exporter's configuration")
    group.add_argument("--agentos", metavar="NAME", help="which one of the file")
    token = group.add_mutually_exclusive_group()
    token.add_argument("--token-file", metavar="FILE", help=f"holds the token (environment: {prefix}TOKEN_FILE)")
    token.add_argument(
        "--token-env", metavar="NAME", help=f"environment variable that holds it (default: {prefix}TOKEN)"
    )
    group.add_argument("--tls.ca-file", dest="ca_file", metavar="FILE", help="authority of AgentOS's certificate (PEM)")
    group.add_argument(
        "--db-id", action="append", metavar="ID", help="which of its databases; may be repeated (default: all)"
    )
    group.add_argument("--timeout", type=_seconds, default=30.0, metavar="TIME", help="for each request (default: 30s)")


def rewrite(arguments: Sequence[str]) -> list[str]:
    """Arguments after `traces`, with the command in front.

    Without a command `--trace-id ID` stands for `show ID`, `--stats` for `sessions`, and anything else for `list`.
    """
    rest = list(arguments)
    if not rest or not rest[0].startswith("-"):
        return rest or ["list"]
    flags = ("--all", "--content", "--reverse", "--stats")
    for place, word in enumerate(rest):
        takes_this = place > 0 and rest[place - 1].startswith("--") and "=" not in rest[place - 1]
        if word in COMMANDS and not (takes_this and rest[place - 1] not in flags):
            return [word, *rest[:place], *rest[place + 1 :]]
    if rest[0] in {"-h", "--help"}:
        return rest
    for place, word in enumerate(rest):
        name, equals, value = word.partition("=")
        if name == "--trace-id" and (equals or place + 1 < len(rest)):
            ours = place + (1 if equals else 2)
            return ["show", *rest[:place], *rest[ours:], "--", value if equals else rest[place + 1]]
    if "--stats" in rest:
        return ["sessions", *(word for word in rest if word != "--stats")]
    return ["list", *rest]


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= _MOST:
        raise argparse.ArgumentTypeError(f"'{plain(text[:80])}' is not a whole number from 1 on")
    return int(text)


def _seconds(text: str) -> float:
    try:
        found = configuration.parse_duration(f"{text}s" if text.isdigit() else text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if found <= 0:
        raise argparse.ArgumentTypeError("must be longer than 0s")
    return found


def _moment(text: str) -> int:
    """Microseconds since the epoch: a duration before now, or an ISO time, which is local unless it has a zone."""
    try:
        return int((time.time() - configuration.parse_duration(text)) * MICROSECONDS)
    except ValueError:
        pass
    try:
        return int(datetime.fromisoformat(text).astimezone().timestamp() * MICROSECONDS)
    except (ValueError, OverflowError, OSError):
        shown = plain(text[:80])
        raise argparse.ArgumentTypeError(
            f"'{shown}' is neither a duration such as 1h nor a time such as 2026-11-20T08:00"
        ) from None


# --- Which AgentOS ----------------------------------------------------------------------------------------------------


def find_agentos(options: argparse.Namespace, environ: Mapping[str, str]) -> configuration.AgentOS:
    """The AgentOS that flags, environment and file name. Raises ConfigError."""
    prefix = configuration.ENV_PREFIX
    ours = {f"{prefix}{name}" for name in ("CONFIG_FILE", "AGENTOS_URL", "TOKEN", "TOKEN_FILE")}
    # What only concerns the daemon must not keep anybody from looking.
    environ = {name: value for name, value in environ.items() if not name.startswith(prefix) or name in ours}
    if options.agentos is not None or (options.config_file is not None and options.url is None):
        environ.pop(f"{prefix}AGENTOS_URL", None)
    if options.token_file is not None or options.token_env is not None:
        kept = {name: value for name, value in environ.items() if name not in _token_variables()}
    else:
        kept = environ
    try:
        found = configuration.load({"config_file": options.config_file, "agentos_url": options.url}, kept)
    except ConfigError as error:
        raise ConfigError([line.replace("--agentos.url", "--url") for line in error.problems]) from None
    agentos = _named(found.agentos, options.agentos)
    if agentos.databases:
        raise ConfigError([f"agentos {agentos.name}: is read from its database; name its API with --url"])
    if options.token_file is not None:
        agentos = replace(agentos, token_file=Path(options.token_file), token=None, token_env=None)
    elif options.token_env is not None:
        secret = _from_variable(options.token_env, environ)
        agentos = replace(agentos, token_file=None, token=secret, token_env=options.token_env)
    if options.ca_file is not None:
        if agentos.url.startswith("http://"):
            raise ConfigError(["--tls.ca-file: makes no sense with an http:// url"])
        agentos = replace(agentos, tls=replace(agentos.tls or configuration.Tls(), ca_file=Path(options.ca_file)))
    return replace(agentos, db_ids=tuple(options.db_id)) if options.db_id else agentos


def _token_variables() -> set[str]:
    return {name for name, _ in configuration.VARIABLES}


def _named(found: tuple[configuration.AgentOS, ...], name: str | None) -> configuration.AgentOS:
    names = ", ".join(agentos.name for agentos in found)
    if name is None:
        if len(found) == 1:
            return found[0]
        raise ConfigError([f"--agentos: the configuration has several; name one of {names}"])
    for agentos in found:
        if agentos.name == name:
            return agentos
    raise ConfigError([f"--agentos: the configuration has no '{plain(name)}'; it has {names}"])


def _from_variable(name: str, environ: Mapping[str, str]) -> configuration.Secret:
    token = environ.get(name, "").strip()
    if not token:
        raise ConfigError(["--token-env: names no environment variable that is set"])
    if not (token.isascii() and token.isprintable()):
        raise ConfigError(["--token-env: the variable must hold the token alone, in one line of printable ASCII"])
    return configuration.Secret(token)


# --- The commands -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Answer:
    """What a command found: `document` for programs, `draw` for people, `notes` on how it was found."""

    document: dict[str, Any]
    draw: Callable[[Console], None]
    notes: list[str] = field(default_factory=list)
    code: int = OK


def run(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Carry out `traces` with parsed arguments; returns the exit code."""
    configure("error")
    try:
        agentos = find_agentos(options, environ)
        answer = asyncio.run(_ask(agentos, options))
    except ConfigError as error:
        for problem in error.problems:
            complain(problem)
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


async def _ask(agentos: configuration.AgentOS, options: argparse.Namespace) -> Answer:
    # Only now: agno takes a second to import.
    from exporter.service.connect import make_source  # noqa: PLC0415
    from exporter.sources.api.inspect import Inspector  # noqa: PLC0415
    from exporter.sources.position import Settings  # noqa: PLC0415

    agentos.read_token()  # what cannot be read is a mistake of the configuration, not of AgentOS
    source = cast("AgentOSSource", make_source(agentos, Settings(0, 0, 0, 0.05), Clock(time.time, time.monotonic)))
    try:
        inspector = Inspector(source, timeout=options.timeout)
        databases = await _databases(inspector, agentos, options)
        answer = await _COMMANDS[options.traces_command](inspector, databases, options)
    finally:
        await source.aclose()
    answer.document = {"agentos": {"name": agentos.name, "url": agentos.url}, **answer.document}
    if inspector.unreadable:
        answer.notes.append(f"passed over: {_number(inspector.unreadable, 'trace')} that cannot be read")
    if inspector.lists:
        answer.notes.append("this AgentOS cannot search its traces: they were listed and fetched one by one")
    return answer


async def _databases(
    inspector: Inspector, agentos: configuration.AgentOS, options: argparse.Namespace
) -> list[str | None]:
    by_name = any(getattr(options, kind, None) for kind in ("agent", "team", "workflow"))
    if agentos.db_ids is None or by_name:
        listed = await inspector.databases()
    return list(agentos.db_ids) if agentos.db_ids is not None else listed


async def _newest(inspector: Inspector, databases: Sequence[str | None], query: Query) -> AsyncGenerator[TraceView]:
    """The traces of all databases, latest start first, each once."""

    async def feed(db: str | None) -> AsyncGenerator[TraceView]:
        met, page = set[str](), 0
        while True:
            page += 1
            got = await inspector.traces(db, query, page=page, size=_PAGE)
            for trace in got.found:
                if trace.id not in met:
                    met.add(trace.id)
                    yield trace
            if got.rows < _PAGE:
                return

    feeds = [feed(db) for db in databases]
    heads = [await anext(each, None) for each in feeds]
    while any(head is not None for head in heads):
        _, place = max((head.start, -place) for place, head in enumerate(heads) if head is not None)
        head = heads[-place]
        assert head is not None  # noqa: S101
        yield head
        heads[-place] = await anext(feeds[-place], None)


@dataclass(slots=True)
class _Scan:
    """Traces found among those read."""

    found: list[TraceView] = field(default_factory=list)
    read: int = 0
    requests: int = 0
    """HTTP requests that ran nothing, left out"""
    oldest: int = 0
    capped: bool = False


async def _scan(
    traces: AsyncGenerator[TraceView],
    fits: Callable[[TraceView], bool],
    *,
    enough: int | None,
    most: int,
    requests: bool,
) -> _Scan:
    """Read until `enough` fit, `most` are read or there are no more."""
    scan = _Scan()
    async with aclosing(traces):
        async for trace in traces:
            if scan.read == most:
                scan.capped = True
                break
            scan.read += 1
            scan.oldest = trace.start
            if trace.only_requests and not requests:
                scan.requests += 1
            elif fits(trace):
                scan.found.append(trace)
                if len(scan.found) == enough:
                    break
    return scan


async def _rows_lack_ids(inspector: Inspector, databases: Sequence[str | None], query: Query) -> bool:
    """Whether spans of recent traces name ids that their rows do not: then AgentOS cannot be asked for them."""
    for db in databases:
        page = await inspector.traces(db, query, page=1, size=_PAGE)
        for trace in page.found:
            if any(getattr(span, fact) and not trace.row[fact] for span in trace.spans for fact in _FACTS):
                return True
    return False


_FACTS: Final = ("run_id", "session_id", "user_id")


async def _list(inspector: Inspector, databases: list[str | None], options: argparse.Namespace) -> Answer:
    from exporter.sources.api.inspect import Query  # noqa: PLC0415 - imports agno

    ids = [(key, getattr(options, flag)) for key, flag in zip(_FACTS, ("run", "session", "user"), strict=True)]
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

    async def search(query: Query) -> _Scan:
        traces = _newest(inspector, databases, query)
        return await _scan(traces, fits, enough=enough, most=options.scan, requests=options.all)

    scan, asked_rows = _Scan(), False
    if wanted and not await _rows_lack_ids(inspector, databases, query):
        asked_rows = True
        scan = await search(replace(query, ids=wanted))
    if not scan.found:
        asked_rows = False
        scan = await search(query)
    rows = scan.found[enough - 1 - options.limit : enough - 1]
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
    more = len(scan.found) == enough
    if more:
        notes.append(f"there are more: --page {options.page + 1}")
    document = {"page": options.page, "limit": options.limit, "more": more, "traces": [_record(row) for row in rows]}
    return Answer(document, lambda console: _draw_list(console, rows, several=len(databases) > 1), notes)


def _components(inspector: Inspector, options: argparse.Namespace) -> list[tuple[SpanKind, str]]:
    kinds = (SpanKind.AGENT, SpanKind.TEAM, SpanKind.WORKFLOW)
    return [
        (kind, inspector.span_name(kind.value, name)) for kind in kinds if (name := getattr(options, kind.value, None))
    ]


def _took_part(trace: TraceView, kind: SpanKind, name: str) -> bool:
    return any(span.kind is kind and span.name == name for span in trace.spans)


def _scan_notes(scan: _Scan, options: argparse.Namespace, filtered: bool, by_id: bool) -> list[str]:  # noqa: FBT001
    notes = []
    if filtered:
        why = "trace rows have no such ids" if by_id else "own filters miss failed spans and members"
        notes.append(f"AgentOS's {why}: the newest {scan.read} traces were read, and filtered by their spans")
    if scan.requests:
        notes.append(f"left out: {_number(scan.requests, 'HTTP request')} to AgentOS that ran nothing (--all)")
    if scan.capped:
        notes.append(f"stopped after {scan.read} traces, at {_when(scan.oldest)}: --scan or --until goes further back")
    if not scan.read and options.page == 1:
        notes.append(_NOTHING)
    return notes


async def _show(inspector: Inspector, databases: list[str | None], options: argparse.Namespace) -> Answer:
    asked = options.trace_id.strip().lower()
    if not asked or not all(c in "0123456789abcdef" for c in asked) or not _PREFIX <= len(asked) <= _WHOLE_ID:
        raise ConfigError([f"TRACE_ID: {_PREFIX} to {_WHOLE_ID} hexadecimal digits, not '{plain(options.trace_id)}'"])
    names = ", ".join(db for db in databases if db) or "the database"
    missing = f"trace {asked} not found in {names}; AgentOS also answers so when its database is down"
    candidates = [(db, asked) for db in databases]
    if len(asked) < _WHOLE_ID:
        candidates = [(db, found) for db in databases for found in await inspector.with_prefix(db, asked)]
        if len(candidates) > 1:
            raise SourceError(f"several traces start with {asked}: {', '.join(found for _, found in candidates)}")
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
    spans = [_span_record(trace, span, content=content) for span in trace.spans]
    document = {"trace": {**_record(trace), "spans": spans}}
    return Answer(document, lambda console: _draw_trace(console, trace, content=content), notes)


@dataclass(slots=True)
class _Session:
    """One session, from AgentOS's statistics or (`failed` is not None) from traces."""

    id: str
    user: str
    components: list[str]
    traces: int
    first: int
    last: int
    failed: int | None = None
    calls: list[SpanView] = field(default_factory=list)


async def _sessions(inspector: Inspector, databases: list[str | None], options: argparse.Namespace) -> Answer:
    from exporter.sources.api.inspect import Query  # noqa: PLC0415 - imports agno

    enough = options.page * options.limit + 1
    found: list[_Session] = []
    notes: list[str] = []
    derived = await _rows_lack_ids(inspector, databases, Query())
    if not derived:
        found = await _own_statistics(inspector, databases, options, enough)
    if not found:
        components = _components(inspector, options)
        traces = _newest(inspector, databases, Query())
        scan = await _scan(
            traces,
            lambda trace: all(_took_part(trace, kind, name) for kind, name in components),
            enough=None,
            most=options.scan,
            requests=False,
        )
        found = _gather(scan.found, options.user)
        derived = bool(found)
        if derived:
            notes.append(
                f"AgentOS's trace rows have no session ids: worked out from the newest {scan.read} traces"
                + (" (--scan reads more)" if scan.capped else "")
            )
        elif not scan.read:
            notes.append(_NOTHING)
    orders: dict[str, Callable[[_Session], Any]] = {
        "last": lambda one: -one.last,
        "first": lambda one: -one.first,
        "traces": lambda one: -one.traces,
        "session": lambda one: one.id,
    }
    # What was worked out here is known as a whole; of AgentOS's statistics there is only the page.
    if not derived:
        found.sort(key=orders["last"])
        more, found = len(found) >= enough, found[enough - 1 - options.limit : enough - 1]
    found.sort(key=orders[options.sort], reverse=options.reverse)
    if derived:
        more, found = len(found) >= enough, found[enough - 1 - options.limit : enough - 1]
    elif len(found) > 1 and (options.sort != "last" or options.reverse):
        notes.append(f"sorted among these {len(found)} sessions only: AgentOS has the last active first")
    if more:
        notes.append(f"there are more: --page {options.page + 1}")
    document = {
        "page": options.page,
        "limit": options.limit,
        "more": more,
        "source": "traces" if derived else "agentos",
        "sessions": [_session_record(one) for one in found],
    }
    return Answer(document, lambda console: _draw_sessions(console, found, derived=derived), notes)


async def _own_statistics(
    inspector: Inspector, databases: Sequence[str | None], options: argparse.Namespace, enough: int
) -> list[_Session]:
    agent = inspector.agent_id(options.agent) if options.agent else None
    found = []
    for db in databases:
        own, _ = await inspector.sessions(db, user=options.user, agent=agent, page=1, size=enough)
        found += [_Session(one.id, one.user_id, list(one.components), one.traces, one.first, one.last) for one in own]
    return found


def _gather(traces: Sequence[TraceView], user: str | None) -> list[_Session]:
    """Sessions of the outermost runs."""
    sessions: dict[str, _Session] = {}
    for trace in traces:
        session_id = trace.first("session_id")
        if not session_id:
            continue
        owner = trace.first("user_id")
        if user is not None and owner != user:
            continue
        one = sessions.setdefault(session_id, _Session(session_id, owner, [], 0, trace.start, trace.end, 0))
        one.user = one.user or owner
        one.traces += 1
        one.first, one.last = min(one.first, trace.start), max(one.last, trace.end)
        one.failed = (one.failed or 0) + (trace.status == "ERROR")
        one.calls += trace.llm_calls
        if trace.root is not None and trace.root.name not in one.components:
            one.components.append(trace.root.name)
    return list(sessions.values())


_COMMANDS: Final = {"list": _list, "show": _show, "sessions": _sessions}


# --- For programs -----------------------------------------------------------------------------------------------------


def _iso(micros: int) -> str:
    return utc(micros).isoformat(timespec="microseconds")


def _record(trace: TraceView) -> dict[str, Any]:
    root = trace.root
    return {
        "trace_id": trace.id,
        "db_id": trace.db or None,
        "start": _iso(trace.start),
        "end": _iso(trace.end),
        "duration_seconds": trace.duration / MICROSECONDS,
        "status": trace.status,
        "root": {"kind": root.kind.value, "name": root.name} if root is not None else None,
        "run_id": trace.first("run_id") or None,
        "session_id": trace.first("session_id") or None,
        "user_id": trace.first("user_id") or None,
        "span_counts": {
            "total": trace.total_spans,
            "visible": len(trace.spans),
            "hidden": trace.hidden,
            "failed": trace.failed,
        },
        "llm": _usage(trace.llm_calls),
    }


def _usage(calls: Sequence[SpanView]) -> dict[str, Any]:
    return {
        "calls": len(calls),
        "calls_without_tokens": sum(call.input_tokens is None for call in calls),
        "input_tokens": sum(call.input_tokens or 0 for call in calls),
        "output_tokens": sum(call.output_tokens or 0 for call in calls),
        "models": sorted({call.model for call in calls if call.model}),
    }


def _span_record(trace: TraceView, span: SpanView, *, content: bool) -> dict[str, Any]:
    record = {
        "span_id": span.id,
        "parent_span_id": trace.spans[span.parent].id if span.parent >= 0 else None,
        "depth": span.depth,
        "kind": span.kind.value,
        "name": span.name,
        "start": _iso(span.start),
        "end": _iso(span.end),
        "duration_seconds": span.duration / MICROSECONDS,
        "status": span.status,
        "error": span.error or None,
        "model": span.model or None,
        "input_tokens": span.input_tokens,
        "output_tokens": span.output_tokens,
        "same_call_as_parent": span.nested,
        "run_id": span.run_id or None,
        "session_id": span.session_id or None,
        "user_id": span.user_id or None,
    }
    if content:
        for key in ("input", "output", "arguments"):
            record[key] = getattr(span, key) or None
    return record


def _session_record(one: _Session) -> dict[str, Any]:
    return {
        "session_id": one.id,
        "user_id": one.user or None,
        "components": one.components,
        "traces": one.traces,
        "first": _iso(one.first),
        "last": _iso(one.last),
        "failed_traces": one.failed,
        "llm": _usage(one.calls) if one.failed is not None else None,
    }


# --- For people -------------------------------------------------------------------------------------------------------


def _number(count: int, thing: str) -> str:
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def _local(micros: int) -> datetime:
    time = utc(micros)
    try:
        return time.astimezone()
    except (OverflowError, ValueError, OSError):  # in the year 1 or 9999 another zone may be out of range
        return time


def _when(micros: int, *, dated: bool = True) -> str:
    local = _local(micros)
    return local.strftime("%Y-%m-%d %H:%M:%S" if dated else "%H:%M:%S")


def _all_today(times: Sequence[int]) -> bool:
    today = datetime.now().astimezone().date()
    return all(_local(one).date() == today for one in times)


def _lasted(micros: int) -> str:
    seconds = micros / MICROSECONDS
    if seconds < 1:
        return f"{micros / 1000:.0f} ms" if micros >= 1000 or not micros else f"{micros / 1000:.1f} ms"  # noqa: PLR2004
    if seconds < 60:  # noqa: PLR2004
        return f"{seconds:.2f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest:02}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02}m"  # noqa: PLR2004


def _tokens(calls: Sequence[SpanView], side: str) -> str:
    """The sum, `?` where a call does not report its tokens: unknown is not zero."""
    known = [count for call in calls if (count := getattr(call, f"{side}_tokens")) is not None]
    unknown = any(call.input_tokens is None for call in calls)
    if not calls:
        return ""
    return (f"{sum(known):,}" + ("+?" if unknown else "")) if known else "?"


@dataclass(slots=True)
class _Column:
    title: str
    cells: list[Text]
    flexible: bool = False
    right: bool = False


def _text(text: str, style: str = "") -> Text:
    from rich.text import Text  # noqa: PLC0415

    return Text(plain(text), style=style)


def _column(title: str, cells: Sequence[str], *, flexible: bool = False, right: bool = False) -> _Column:
    return _Column(title, [_text(cell) for cell in cells], flexible, right)


def _draw_table(console: Console, columns: Sequence[_Column]) -> None:
    """Columns side by side on one line a row: the flexible ones share, fairly, what the others leave."""
    from rich.text import Text  # noqa: PLC0415

    columns = [one for one in columns if any(cell.plain for cell in one.cells) or one.title == columns[0].title]
    gap = 2 if console.width >= _CRAMPED else 1
    widths = [max(len(one.title), *(cell.cell_len for cell in one.cells)) for one in columns]
    left = (
        console.width
        - gap * (len(columns) - 1)
        - sum(width for one, width in zip(columns, widths, strict=True) if not one.flexible)
    )
    flexible = sorted((width, place) for place, width in enumerate(widths) if columns[place].flexible)
    for number, (width, place) in enumerate(flexible):
        widths[place] = max(len(columns[place].title), min(width, left // (len(flexible) - number)))
        left -= widths[place]
    header = [Text(one.title, style="bold") for one in columns]
    for cells in (header, *zip(*(one.cells for one in columns), strict=True)):
        line = Text(no_wrap=True, overflow="ellipsis", end="")
        for place, (cell, one, width) in enumerate(zip(cells, columns, widths, strict=True)):
            fitted = cell.copy()
            fitted.truncate(width, overflow="ellipsis")
            fitted.align("right" if one.right else "left", width)
            line.append_text(fitted)
            if place < len(columns) - 1:
                line.append(" " * gap)
        line.rstrip()
        console.print(line, crop=True)


def _draw_list(console: Console, rows: Sequence[TraceView], *, several: bool) -> None:
    if not rows:
        console.print("no traces found")
        return
    wide = console.width >= _WIDE
    dated = wide or not _all_today([row.start for row in rows])
    names = [_root_name(row) for row in rows]
    sessions = [row.first("session_id") for row in rows if console.width >= _NARROW]
    columns = [
        _column("start", [_when(row.start, dated=dated) for row in rows]),
        _column("trace", [row.id if wide else row.id[:12] for row in rows]),
        _column("kind", [kind for kind, _ in names if console.width >= _NARROW]),
        _column("root", [name for _, name in names], flexible=True),
        _Column("status", [_text(row.status, _STYLES.get(row.status, "")) for row in rows]),
        _column("duration", [_lasted(row.duration) for row in rows], right=True),
        _column("spans", [_spans_shown(row) for row in rows], right=True),
        _column("llm", [str(len(row.llm_calls) or "") for row in rows], right=True),
        _column("in", [_tokens(row.llm_calls, "input") for row in rows], right=True),
        _column("out", [_tokens(row.llm_calls, "output") for row in rows], right=True),
        _column("user", [row.first("user_id") for row in rows], flexible=True),
        _column("session", sessions, flexible=True),
        _column("db", [row.db for row in rows if several], flexible=True),
    ]
    _draw_table(console, [one for one in columns if one.cells])


def _root_name(trace: TraceView) -> tuple[str, str]:
    if trace.root is not None:
        return trace.root.kind.value, trace.root.name
    if trace.spans:
        return trace.spans[0].kind.value, trace.spans[0].name
    return "", "(not visible yet)"


def _spans_shown(trace: TraceView) -> str:
    return f"{len(trace.spans)}/{trace.total_spans}" if trace.hidden else str(len(trace.spans))


def _draw_sessions(console: Console, rows: Sequence[_Session], *, derived: bool) -> None:
    if not rows:
        console.print("no sessions found")
        return
    dated = console.width >= _WIDE or not _all_today([one.first for one in rows])
    columns = [
        _column("session", [one.id for one in rows], flexible=True),
        _column("user", [one.user for one in rows], flexible=True),
        _column("agents, teams, workflows", [", ".join(one.components) for one in rows], flexible=True),
        _column("traces", [f"{one.traces:,}" for one in rows], right=True),
    ]
    if derived:
        failed = [_text(f"{one.failed:,}" if one.failed else "", _STYLES["ERROR"]) for one in rows]
        columns += [
            _Column("failed", failed, right=True),
            _column("in", [_tokens(one.calls, "input") for one in rows], right=True),
            _column("out", [_tokens(one.calls, "output") for one in rows], right=True),
        ]
    columns.append(_column("first", [_when(one.first, dated=dated) for one in rows]))
    columns.append(_column("last", [_when(one.last, dated=dated) for one in rows]))
    if console.width < _CRAMPED:
        columns[2].title = "components"
    _draw_table(console, columns)


def _draw_trace(console: Console, trace: TraceView, *, content: bool) -> None:
    from rich.text import Text  # noqa: PLC0415

    kind, name = _root_name(trace)
    calls = trace.llm_calls
    spans = f"{len(trace.spans)} of {trace.total_spans}" if trace.hidden else str(len(trace.spans))
    facts = [
        ("trace", _text(trace.id + (f"  in {trace.db}" if trace.db else ""))),
        ("root", _text(f"{kind} {name}".strip(), "bold")),
        ("status", _text(trace.status, _STYLES.get(trace.status, ""))),
        ("start", _text(f"{_when(trace.start)}, took {_lasted(trace.duration)}")),
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
            f"+{_lasted(max(0, span.start - trace.start))}",
            _lasted(span.duration),
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
    return f"{_number(len(calls), 'call')}, {tokens}" + (f" ({models})" if models else "") if calls else ""


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
    """For each span the lines before its name, and those before what is said below it."""
    last = {span.parent: place for place, span in enumerate(trace.spans)}
    bars: list[str] = []
    found = []
    for place, span in enumerate(trace.spans):
        if span.parent < 0:
            guide, bar = "", ""
        else:
            final = last[span.parent] == place
            guide = bars[span.parent] + ("└─ " if final else "├─ ")
            bar = bars[span.parent] + ("   " if final else "│  ")
        bars.append(bar)
        found.append((guide, bar + ("│  " if place in last else "   ")))
    return found


def _shortened(guide: str, console: Console) -> str:
    """A guide that leaves room for what it leads to, however deep the tree."""
    most = max(12, console.width // 3 // 3 * 3)
    return guide if len(guide) <= most else "⋯  " + guide[-(most - 3) :]


def _draw_block(console: Console, guide: str, label: str, text: str, style: str) -> None:
    """A text of several lines below a span, indented as it is; the label stands before the first line."""
    from rich.text import Text  # noqa: PLC0415

    cut = len(text) - _CONTENT
    shown = plain(text[:_CONTENT], lines=True).strip("\n") + (f"… ({cut:,} more: --output json)" if cut > 0 else "")
    room = max(20, console.width - len(guide) - len(label))
    lines = Text(shown, style=style).wrap(console, room)
    for number, line in enumerate(lines):
        line.rstrip()
        before = label if number == 0 else " " * len(label)
        console.print(Text.assemble((guide, "dim"), (before, style), line), no_wrap=True, crop=False)
