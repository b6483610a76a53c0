"""structlog set-up: one line for each event, without secrets, local variables and forged lines.

All records, ours and those of libraries, go through one handler, and all their values through `Redactor`.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TextIO

import structlog

from exporter.core.errors import ConfigError, ExporterError
from exporter.core.text import escaped

SECRET_MIN_LENGTH: Final = 4
"""Shorter texts are not taken for secrets: replacing them would garble every line."""

VALUE_LENGTH: Final = 500
"""Characters of a value that are logged; what AgentOS sends has no bound of its own."""

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_NOISY: Final = (
    "aiosqlite",
    "hpack",
    "httpcore",
    "httpx",
    "uvicorn.access",
)
_ERRORS_ONLY: Final = ("apscheduler", "asyncio")
"""APScheduler warns at each turn that a long poll skips; the poll's own line says how long it took. asyncio warns of
each connection that a client gave up, so that anybody on the network could fill the log."""
_AGNO: Final = ("agno", "agno-team", "agno-workflow")
_UVICORN: Final = ("uvicorn", "uvicorn.error", "uvicorn.access")
_REDACTED: Final = "[redacted]"
_BEARER: Final = re.compile(r"""\b(bearer)[\s:=]+[^\s,;"']+""", re.IGNORECASE)
_USERINFO: Final = re.compile(r"://[^\s@]+@")
_SCANNED: Final = 64 * 1024
_REMEMBERED: Final = 1000
_BURST: Final = 20
_PACE: Final = 3.0
_KINDS: Final = 1000
_KIND_LENGTH: Final = 200
_CHAIN: Final = 5
_FRAMES: Final = 12
_GROUP: Final = 3

_lock = threading.Lock()
_secrets: dict[str, tuple[str, ...]] = {}
_needles: tuple[str, ...] = ()


def register_secret(value: str) -> None:
    """From now on show `[redacted]` wherever this text appears in a log line, also in its JSON and repr forms.

    Texts under `SECRET_MIN_LENGTH` are passed over. Of tokens that rotate, the last thousand are remembered.
    """
    global _needles  # noqa: PLW0603 - a process has one set of secrets, as it has one log
    if len(value) < SECRET_MIN_LENGTH:
        return
    with _lock:
        registered = _secrets.pop(value, None)
        _secrets[value] = registered or (value, json.dumps(value)[1:-1], repr(value)[1:-1])
        if registered:
            return
        while len(_secrets) > _REMEMBERED:
            del _secrets[next(iter(_secrets))]
        # Longest first: a secret that begins like another must not leave its rest behind.
        _needles = tuple(sorted({form for forms in _secrets.values() for form in forms}, key=len, reverse=True))


def redact(text: str) -> str:
    """The text without registered secrets, bearer tokens and passwords in URLs."""
    for needle in _needles:
        if needle in text:
            text = text.replace(needle, _REDACTED)
    return _USERINFO.sub(f"://{_REDACTED}@", _BEARER.sub(rf"\1 {_REDACTED}", text))


def _clean(value: object) -> object:
    """A value fit for a log line: numbers as they are, anything else as one line of redacted, bounded text."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = redact(_text(value)[:_SCANNED])
    if len(text) > VALUE_LENGTH:
        text = f"{text[:VALUE_LENGTH]}… ({len(text)} characters)"
    return escaped(text)


def _text(value: object) -> str:
    try:
        return value if type(value) is str else str(value)
    except Exception:  # noqa: BLE001 - a value that cannot be shown must not cost the line, nor the daemon
        return f"<{type(value).__name__} without text>"


def as_logged(text: str) -> str:
    """The text as a log line shows it: without secrets, on one line, of bounded length."""
    return str(_clean(text))


def complain(text: str, kind: str = "error") -> None:
    """Write a line without secrets to standard error, for the user of a command. It begins with `kind`, if given."""
    sys.stderr.write(f"{kind}: " * bool(kind) + escaped(redact(text)) + "\n")


def complain_of(error: ExporterError) -> None:
    """Write the error of a command to standard error, a line for each problem of a configuration."""
    for problem in error.problems if isinstance(error, ConfigError) else [str(error)]:
        complain(problem)


def told(error: BaseException) -> str:
    """The text of an exception, where it was raised and its causes, on one line and without secrets."""
    return " < ".join(str(_clean(cause)) for cause in _parts(error))


class Redactor:
    """A structlog processor that makes every value safe to log, and an exception one value of bounded length.

    An exception becomes `Type: text at file:line in function < file:line in function`, innermost frame first, followed
    by its causes; local variables and source lines are left out. `separator` is put between these parts.
    """

    def __init__(self, separator: str = " < ") -> None:
        self._separator = separator

    def __call__(self, _logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:  # noqa: ANN401
        """The event with safe keys and values."""
        error = _error(event.pop("exc_info", None))
        for key in ("stack_info", "stack", "exception"):
            event.pop(key, None)
        for key, value in list(event.items()):
            name = re.sub(r"[^\w.-]", "_", str(key), flags=re.ASCII)
            if name != key:
                del event[key]
            event[name] = value if name in {"ts", "level"} else _clean(value)
        if error is not None:
            event["exception"] = self._separator.join(str(_clean(cause)) for cause in _parts(error))
        return event


def _error(exc_info: object) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        return exc_info[1] if isinstance(exc_info[1], BaseException) else None
    return sys.exc_info()[1] if exc_info else None


def _parts(error: BaseException) -> list[str]:
    parts: list[str] = []
    visited: set[int] = set()
    current: BaseException | None = error
    while current is not None and len(visited) < _CHAIN and id(current) not in visited:
        parts.append(("caused by " if visited else "") + _type_and_text(current))
        visited.add(id(current))
        parts += _frames(current.__traceback__)
        if isinstance(current, BaseExceptionGroup):
            for inner in current.exceptions[:_GROUP]:
                parts.append("with " + _type_and_text(inner))
                parts += _frames(inner.__traceback__)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return parts


def _type_and_text(error: BaseException) -> str:
    kind = type(error)
    name = (
        kind.__qualname__ if kind.__module__ in {"builtins", "__main__"} else f"{kind.__module__}.{kind.__qualname__}"
    )
    text = _text(error)
    return f"{name}: {text}" if text else name


def _frames(trace: TracebackType | None) -> list[str]:
    frames = [(frame.f_code, line) for frame, line in traceback.walk_tb(trace)]
    return [
        f"{'/'.join(Path(code.co_filename).parts[-3:])}:{line} in {code.co_name}"
        for code, line in reversed(frames[-_FRAMES:])
    ]


class _Handler(logging.StreamHandler[TextIO]):
    """The one handler. What cannot be logged is named by its logger alone: the default would print its arguments."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is of logging
        said = logging.LogRecord(record.name, logging.ERROR, "", 0, "a log record could not be written", None, None)
        try:
            self.stream.write(self.format(said) + self.terminator)
        except Exception:  # noqa: BLE001 - the stream itself is gone; that must not cost the daemon
            return


class _RepeatLimit:
    """A filter of the handler: a warning that repeats passes 20 times, and from then on once in 3 seconds.

    The next one that passes says in `repeated` how many did not. Warnings are the same if their logger, their event
    and their AgentOS are.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._kinds: dict[tuple[str, ...], tuple[float, int]] = {}
        """by kind: until when its burst is used up, and how many did not pass since one did"""

    def __call__(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        event = record.msg if isinstance(record.msg, Mapping) else {"event": record.msg}
        kind = (record.name, *(_text(event.get(key, ""))[:_KIND_LENGTH] for key in ("event", "agentos")))
        with self._lock:
            now = self._now()
            until, held = self._kinds.pop(kind, (now, 0))
            until = max(until, now)
            passes = until + _PACE <= now + _BURST * _PACE
            self._kinds[kind] = (until + _PACE, 0) if passes else (until, held + 1)
            if len(self._kinds) > _KINDS:
                del self._kinds[next(iter(self._kinds))]
        if passes and held:
            self._say(record, held)
        return passes

    @staticmethod
    def _say(record: logging.LogRecord, held: int) -> None:
        if isinstance(record.msg, Mapping):
            record.msg = {**record.msg, "repeated": held}
        else:
            record.msg, record.args = f"{record.getMessage()} (repeated {held} times)", ()


def _no_agno_chatter(record: logging.LogRecord) -> bool:
    """Stop agno's own log lines here: agno sets the levels of its loggers again at each run."""
    return record.levelno >= logging.WARNING or not re.match(r"agno(?:[.-]|$)", record.name)


def _ordered(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:  # noqa: ANN401
    first = {key: event[key] for key in ("ts", "level", "logger") if key in event}
    return {**first, "msg": event.pop("event", ""), **event}


def _renderer(log_format: str | None, stream: TextIO) -> list[Any]:
    if log_format is None and stream.isatty():
        colors = not os.environ.get("NO_COLOR")
        console = structlog.dev.ConsoleRenderer(colors=colors, timestamp_key="ts", event_key="msg", sort_keys=False)
        # A person reads one frame a line; the indent keeps a forged line apart from a real one.
        return [Redactor("\n    "), _ordered, console]
    if log_format == "json":
        return [Redactor(), _ordered, structlog.processors.JSONRenderer(default=str)]
    return [Redactor(), _ordered, structlog.processors.LogfmtRenderer(bool_as_flag=False)]


def _load_what_errors_need() -> None:
    """Import now the modules that the first error would import: later, no file may be open any more."""
    told(ExceptionGroup("\x1b", [OSError(errno.EMFILE, "\x1b")]))


def configure(level: str = "info", log_format: str | None = None, stream: TextIO | None = None) -> None:
    """Set up the log. A later call replaces the set-up.

    Args:
        level: The lowest level that is logged: debug, info, warn or error.
        log_format: logfmt or json; None for logfmt, or for colours on a terminal.
        stream: Where lines go; None for standard error.

    Raises:
        ValueError: There is no such level or format.

    """
    if level not in _LEVELS or log_format not in {None, "logfmt", "json"}:
        raise ValueError(f"no such log level or format: {level}, {log_format}")
    stream = sys.stderr if stream is None else stream
    threshold = _LEVELS[level]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,  # a logger cached before this call would keep the old set-up
    )
    handler = _Handler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderer(log_format, stream)],
            foreign_pre_chain=shared,
        )
    )
    handler.addFilter(_no_agno_chatter)
    handler.addFilter(_RepeatLimit())
    _load_what_errors_need()
    root = logging.getLogger()
    for old in [old for old in root.handlers if type(old) in {_Handler, logging.StreamHandler}]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(threshold)
    for name in _ERRORS_ONLY:
        logging.getLogger(name).setLevel(max(threshold, logging.ERROR))
    for name in (*_AGNO, *_UVICORN, *_NOISY):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        # Agno adds its own handlers, prompts and all, unless its loggers have a level by then.
        library.setLevel(max(threshold, logging.WARNING) if name in (*_AGNO, *_NOISY) else logging.NOTSET)
    logging.captureWarnings(capture=True)
