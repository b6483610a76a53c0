"""YAML files as tables of nodes with lines, never as values; and outside text in a form that is safe in messages.

The configuration and the price file are read with it: all mistakes are found at once, each with its path and line, and
`off` stays `off`.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import yaml

from exporter.core.errors import ConfigError
from exporter.core.text import escaped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")


class _Composer(yaml.SafeLoader):
    """Reads YAML without aliases (a few lines can stand for gigabytes), without tags, and with limited nesting."""

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
    """The top node of a file; None if the file is empty.

    Args:
        raw: The bytes of the file.
        deepest: How many levels it may have.
        hide: Whether the file's own words may be secrets, which no message repeats.

    Raises:
        ConfigError: It is not YAML as it is allowed here; the message has line and column.

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


# --- Tables ---------------------------------------------------------------------------------------------------------


class RefusedError(ValueError):
    """A value that cannot be used. The text is for the operator, and repeats nothing that may be secret."""


class Problems:
    """Problems, in the order of the file; those without a line come first."""

    def __init__(self) -> None:
        self._found: list[tuple[int, str]] = []

    def add(self, where: str, message: str, place: yaml.Node | int = 0) -> None:
        """Note a problem.

        Args:
            where: Path of the value in the file, or the name of a flag or variable.
            message: What is wrong, and the cure.
            place: Node or line of the value; 0 if it is not in the file.

        """
        line = place.start_mark.line + 1 if isinstance(place, yaml.Node) else place
        self._found.append((line, f"{where}: {message} (line {line})" if line else f"{where}: {message}"))

    def check(self) -> None:
        """Raise ConfigError with all of them, if there are any."""
        if self._found:
            raise ConfigError([text for _, text in sorted(self._found, key=lambda problem: problem[0])])


class Table:
    """One mapping of a file: its known keys, each read at most once into a value of its type.

    Attributes:
        path: Where the mapping stands, such as `agentos[0].tls`; empty at the top level.
        line: The line in which it begins.
        entries: The nodes of its known keys.

    """

    plain_key: ClassVar[re.Pattern[str]] = re.compile(r"[A-Za-z_.-]{1,40}[0-9]{0,2}")
    """A word that is no plain key may be a value that lost its key: messages do not repeat it."""

    def __init__(self, node: yaml.MappingNode, path: str, known: tuple[str, ...], problems: Problems) -> None:
        """Read the keys of a mapping. An unknown key, or one that is given twice, is a problem.

        Args:
            node: The mapping.
            path: Its path in the file, '' for the top level.
            known: The keys that it may have.
            problems: Takes note of what is wrong.

        """
        self.path, self.line, self.known, self.problems = path, node.start_mark.line + 1, known, problems
        self.entries: dict[str, yaml.Node] = {}
        lines: dict[str, int] = {}
        for key_node, value in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else ""
            if key in lines:
                problems.add(self.where(key), f"given twice; first in line {lines[key]}", key_node)
            elif key in known or self.takes(key):
                lines[key] = key_node.start_mark.line + 1
                self.entries[key] = value
            elif not self.passes_over(key):
                where = self.where(key) if self.plain_key.fullmatch(key) else path or "top level"
                problems.add(where, f"unknown key; {self.hint(key)}", key_node)

    def takes(self, key: str) -> bool:  # noqa: ARG002 - for tables with keys of a form
        """Whether a key is known that is not listed."""
        return False

    def passes_over(self, key: str) -> bool:  # noqa: ARG002 - see takes
        """Whether an unknown key is no problem."""
        return False

    def hint(self, key: str) -> str:
        """What to write instead of an unknown key."""
        close = difflib.get_close_matches(key, self.known, n=1, cutoff=0.7)
        return f"did you mean {close[0]}?" if close else f"known are {', '.join(self.known)}"

    def where(self, key: str) -> str:
        """The place of a key, as messages name it."""
        return f"{self.path}.{key}" if self.path else key

    def add(self, key: str, message: str) -> None:
        """Note a problem with this key, or with the whole mapping where the key is absent."""
        self.problems.add(self.where(key), message, self.entries.get(key, self.line))

    def text(self, key: str) -> str | None:
        """The value as it is written; None if it is absent or not a single value."""
        node = self.entries.get(key)
        return None if node is None else scalar(node, self.where(key), self.problems)

    def parsed(self, key: str, parse: Callable[[str], T]) -> T | None:
        """The value as `parse` reads it; None if it is absent or refused."""
        text = self.text(key)
        return None if text is None else attempt(parse, text, self.where(key), self.problems, self.entries[key])

    def mapping(self, key: str, known: tuple[str, ...]) -> Self | None:
        """The mapping under a key; None if it is absent or no mapping."""
        node = self.entries.get(key)
        if node is None:
            return None
        if not isinstance(node, yaml.MappingNode):
            self.add(key, f"must be a mapping of {', '.join(known)}, not {kind(node)}")
            return None
        return self.nested(node, self.where(key), known)

    def nested(self, node: yaml.MappingNode, path: str, known: tuple[str, ...]) -> Self:
        """A table of the same class for a mapping inside this one.

        Args:
            node: The mapping.
            path: Its path in the file.
            known: The keys that it may have.

        """
        return type(self)(node, path, known, self.problems)

    def items(self, key: str, example: str) -> list[yaml.Node] | None:
        """The nodes of the list under a key; None if it is absent or no list."""
        node = self.entries.get(key)
        if node is None:
            return None
        if not isinstance(node, yaml.SequenceNode):
            self.add(key, f"must be a list such as {example}, not {kind(node)}")
            return None
        return list(node.value)

    def mappings(self, key: str, example: str, known: tuple[str, ...], needs: str = "") -> Iterator[tuple[int, Self]]:
        """The mappings of the list under a key, each with its place in the list; another node is a problem.

        Args:
            key: The key of the list.
            example: A list as it may be written.
            known: The keys that each mapping may have.
            needs: What a mapping is said to consist of; all known keys by default.

        """
        wanted = needs or f"of {', '.join(known)}"
        for place, node in enumerate(self.items(key, example) or ()):
            path = f"{self.where(key)}[{place}]"
            if isinstance(node, yaml.MappingNode):
                yield place, self.nested(node, path, known)
            else:
                self.problems.add(path, f"must be a mapping {wanted}, not {kind(node)}", node)


def is_null(node: yaml.Node) -> bool:
    """Whether nothing is written there, or `null`."""
    return bool(node.tag == "tag:yaml.org,2002:null")


def kind(node: yaml.Node) -> str:
    """The kind of a node, in words."""
    if is_null(node):
        return "nothing"
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    return "a list" if isinstance(node, yaml.SequenceNode) else "a single value"


def scalar(node: yaml.Node, where: str, problems: Problems) -> str | None:
    """The text of a single value.

    Args:
        node: The value.
        where: Its path in the file.
        problems: Takes note of a value that is a list or a mapping.

    Returns:
        The text; None if the value is empty or refused.

    """
    if not isinstance(node, yaml.ScalarNode):
        problems.add(where, f"must be a single value, not {kind(node)}", node)
    elif is_null(node) or not node.value:
        problems.add(where, "has no value; give it one or remove it", node)
    else:
        return str(node.value)
    return None


def attempt(
    parse: Callable[[str], T], text: str, where: str, problems: Problems, place: yaml.Node | int = 0
) -> T | None:
    """Parse a text, and note a problem instead of raising.

    Args:
        parse: Parses the text; raises RefusedError.
        text: The text.
        where: Path of the value in the file.
        problems: Takes note of what `parse` refuses.
        place: Node or line of the value; 0 if it is not in the file.

    Returns:
        The value; None if `parse` refuses the text.

    """
    try:
        return parse(text)
    except RefusedError as error:
        problems.add(where, str(error), place)
        return None
