"""YAML files as nodes with their lines, never as values; and text from outside as messages show it.

The configuration and the price file are read by it: each mistake has its line, `off` stays `off`.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from exporter.errors import ConfigError
from exporter.text import escaped


class _Composer(yaml.SafeLoader):
    """YAML without aliases (a few lines of them can stand for gigabytes), tags and bottomless nesting."""

    depth = 0
    deepest = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:  # noqa: ANN401
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            self._refuse("an alias (*name) is not allowed here; repeat the value", event)
        if getattr(event, "tag", None) is not None:
            self._refuse("a tag (!name) is not allowed here; quote a value that starts with !", event)
        self.depth += 1
        if self.depth > self.deepest:
            self._refuse("nested too deeply", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    @staticmethod
    def _refuse(message: str, event: yaml.Event) -> None:
        raise yaml.MarkedYAMLError(problem=message, problem_mark=event.start_mark)  # type: ignore[arg-type]


def compose(raw: bytes, *, deepest: int, hide: bool = False) -> yaml.Node | None:
    """The top node of a file, None where it says nothing; at most `deepest` levels.

    `hide`: the file's own words may be secrets, no message repeats them. Raises ConfigError with line and column.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError([f"{_place(raw[: error.start].decode('utf-8', 'replace'))}: not UTF-8"]) from None
    loader = None
    try:
        loader = _Composer(text)
        loader.deepest = deepest
        return loader.get_single_node()
    except yaml.reader.ReaderError as error:
        message = f"character U+{ord(text[error.position]):04X} is not allowed in YAML"
        raise ConfigError([f"{_place(text[: error.position])}: {message}"]) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "line 1, column 1"
        raise ConfigError([f"{place}: {_syntax(error, hide=hide)}"]) from None
    except (yaml.YAMLError, ValueError, OverflowError):
        # An escape such as \UFFFFFFFF or a version number of a million digits.
        place = f"line {loader.line + 1}, column {loader.column + 1}" if loader else "line 1, column 1"
        raise ConfigError([f"{place}: not valid YAML"]) from None


def _syntax(error: yaml.MarkedYAMLError, *, hide: bool) -> str:
    problem, context = error.problem or "not valid YAML", error.context or ""
    if "'\\t'" in problem:
        return "a tab cannot indent or start a value in YAML; use spaces"
    if "another document" in problem:
        return "a second document (---) begins here; one is allowed"
    if context.startswith("while") and error.context_mark:
        problem += f", {context} that begins in line {error.context_mark.line + 1}"
    if hide:
        # Names of anchors and tags are the file's own words, and might be a secret's.
        problem = re.sub(r" ?'(?!<)[^'\s]{2,}'", "", problem)
    return shown(problem, 200)


def _place(before: str) -> str:
    lines = before.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return f"line {len(lines)}, column {len(lines[-1]) + 1}"


def shown(text: str, length: int = 80) -> str:
    """The text on one line, printable and of bounded length."""
    text = text if len(text) <= length else text[:length] + "…"
    return escaped(text)


def quoted(text: str) -> str:
    """The same, in quotes."""
    return f"'{shown(text)}'"
