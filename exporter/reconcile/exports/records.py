"""Files of JSON, of JSON lines and of CSV as records whose fields are read exactly. Files are not trusted."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final, NoReturn

from exporter.core.document import quoted, shown
from exporter.core.errors import ExportError
from exporter.core.model import MICROSECONDS
from exporter.core.times import micros
from exporter.pricing import money

MOST_BYTES: Final = 64 * 1024 * 1024
MOST_ROWS: Final = 1_000_000
_MOST_TOKENS: Final = 10**18
_MOST_USD: Final = 10**12
_NUMBER: Final = re.compile(r"[+-]?(\d{1,30}|\d{1,3}(,\d{3}){1,9})(\.\d{1,40})?([eE][+-]?\d{1,2})?")
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d")
_LATEST: Final = 253_370_764_800
"""Seconds since the epoch of the year 9999."""


@dataclass(frozen=True, slots=True)
class Record:
    """One row, or one object of a JSON file.

    Attributes:
        place: Where it is, for messages: the file and the row.
        fields: Its fields by name. Of a CSV file all are texts.

    """

    place: str
    fields: Mapping[str, Any]

    def refuse(self, problem: str) -> NoReturn:
        """Raise ExportError for this record."""
        raise ExportError(f"{self.place}: {problem}")

    def has(self, key: str) -> bool:
        """Whether a field has a value."""
        value = self.fields.get(key)
        return value is not None and value != ""

    def text(self, key: str) -> str:
        """A field as text; '' if it has no value."""
        value = self.fields.get(key)
        if value is None:
            return ""
        if not isinstance(value, str):
            self.refuse(f"{key} must be a text")
        return value.strip()

    def identity(self, figures: frozenset[str]) -> tuple[tuple[str, str], ...]:
        """All fields that have a value, but for its figures."""
        return tuple(sorted((name, str(value)) for name, value in self.fields.items() if name not in figures and value))

    def inner(self, key: str) -> Record:
        """A field that is an object; an empty one if it is absent."""
        value = self.fields.get(key)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            self.refuse(f"{key} must be an object")
        return Record(self.place, value)

    def each(self, key: str) -> Iterator[Record]:
        """The objects of a field that is a list; none if it is absent."""
        value = self.fields.get(key)
        yield from _objects([] if value is None else value, f"{self.place}, {key}")

    def count(self, key: str) -> int:
        """A field as a whole number of at least 0; 0 if it has no value."""
        number = self._number(key)
        if number is None:
            return 0
        if number != number.to_integral_value() or not 0 <= number <= _MOST_TOKENS:
            self.refuse(f"{key} must be a whole number of at least 0, not {quoted(str(self.fields[key]))}")
        return int(number)

    def usd(self, key: str, *, cents: bool = False) -> int:
        """A field as money, in units of 10**-18 USD; it may be negative, and is 0 if it has no value."""
        number = self._number(key)
        if number is None:
            return 0
        if abs(number) > _MOST_USD:
            self.refuse(f"{key} must be at most {_MOST_USD} USD, not {quoted(str(self.fields[key]))}")
        amount = money.units(abs(number), money.USD // 100 if cents else money.USD)
        return -amount if number < 0 else amount

    def _number(self, key: str) -> Decimal | None:
        value = self.fields.get(key)
        if value is None or value == "":
            return None
        text = str(value) if isinstance(value, (int, Decimal)) and not isinstance(value, bool) else value
        if not isinstance(text, str) or not _NUMBER.fullmatch(text.strip()):
            self.refuse(f"{key} must be a number, not {quoted(str(value))}")
        try:
            return Decimal(text.strip().replace(",", ""))
        except InvalidOperation:
            self.refuse(f"{key} must be a number, not {quoted(str(value))}")

    def moment(self, key: str) -> int:
        """A field as microseconds since the epoch: seconds since it, or a date and time; without a zone it is UTC."""
        value = self.fields.get(key)
        text = str(value).strip()
        if isinstance(value, (int, Decimal)) or text.isdigit():
            seconds = self._number(key)
            assert seconds is not None  # noqa: S101 - it has a value
            if not 0 <= seconds <= _LATEST:
                self.refuse(f"{key} must be seconds since 1970, not {quoted(text)}")
            return int(seconds * MICROSECONDS)
        try:
            return micros(dt.datetime.fromisoformat(re.sub(r" UTC$", "+00:00", text)))
        except (ValueError, OverflowError):
            self.refuse(f"{key} must be a time such as 2026-11-20T00:00:00Z, not {quoted(text)}")

    def day(self, key: str) -> dt.date:
        """A field as a day."""
        text = self.text(key)
        try:
            return dt.date.fromisoformat(text if _DATE.fullmatch(text) else "")
        except ValueError:
            self.refuse(f"{key} must be a day such as 2026-11-20, not {quoted(text)}")


@dataclass(frozen=True, slots=True)
class Export:
    """One file.

    Attributes:
        name: Its name, for messages.
        columns: The columns of a CSV file; none of a JSON file.
        records: Its rows, or the objects at its top.

    """

    name: str
    columns: tuple[str, ...]
    records: tuple[Record, ...]


def load(path: Path) -> tuple[Export, bytes]:
    """A file and its bytes. Raises ExportError."""
    name = shown(path.name, 200)
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or "not a possible path"
        raise ExportError(f"{shown(str(path), 4096)}: cannot be read: {problem}") from None
    if len(raw) > MOST_BYTES:
        raise ExportError(f"{name}: is larger than {MOST_BYTES // 2**20} MiB; export fewer days at once")
    return parse(name, raw), raw


def parse(name: str, raw: bytes) -> Export:
    """The content of a file. Raises ExportError."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ExportError(f"{name}: is no UTF-8; save it as CSV or JSON in UTF-8") from None
    if not text.strip():
        raise ExportError(f"{name}: is empty; export it once more")
    if text.lstrip()[0] in "{[":
        return Export(name, (), tuple(_bounded(name, _json(name, text))))
    return _csv(name, text)


def _json(name: str, text: str) -> Iterator[Record]:
    try:
        top = _decoded(text)
    except (ValueError, RecursionError) as error:
        if not text.lstrip().startswith("{") or "\n" not in text.strip():
            raise ExportError(f"{name}: is no valid JSON ({_position(error)}); export it once more") from None
        yield from _json_lines(name, text)
        return
    yield from _objects(top if isinstance(top, list) else [top], name)


def _json_lines(name: str, text: str) -> Iterator[Record]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            top = _decoded(line)
        except (ValueError, RecursionError):
            raise ExportError(f"{name}, row {number}: is no valid JSON; export it once more") from None
        if not isinstance(top, dict):
            raise ExportError(f"{name}, row {number}: must be an object; export it once more")
        yield Record(f"{name}, row {number}", top)


def _decoded(text: str) -> Any:  # noqa: ANN401 - whatever JSON says
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no number")

    return json.loads(text, parse_float=Decimal, parse_constant=refuse)


def _position(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno}, column {error.colno}"
    return "nested too deeply" if isinstance(error, RecursionError) else "one of its numbers is none"


def _objects(values: object, place: str) -> Iterator[Record]:
    if not isinstance(values, list):
        raise ExportError(f"{place}: must be a list")
    for number, row in enumerate(values, 1):
        if not isinstance(row, dict):
            raise ExportError(f"{place}, row {number}: must be an object")
        yield Record(f"{place}, row {number}", row)


def _csv(name: str, text: str) -> Export:
    head = text.lstrip().splitlines()[0]
    delimiter = max(",;\t", key=head.count)
    rows = csv.reader(io.StringIO(text.lstrip(), newline=""), delimiter=delimiter, strict=True)
    try:
        columns = tuple(column.strip() for column in next(rows))
        records = tuple(_bounded(name, _rows(name, columns, rows)))
    except csv.Error as error:
        raise ExportError(f"{name}, row {rows.line_num}: is no valid CSV ({error}); export it once more") from None
    return Export(name, columns, records)


def _rows(name: str, columns: tuple[str, ...], rows: Iterable[list[str]]) -> Iterator[Record]:
    if len(set(columns)) < len(columns):
        raise ExportError(f"{name}: has a column twice; export it once more")
    for number, row in enumerate(rows, 2):
        if not any(row):
            continue
        if len(row) > len(columns):
            raise ExportError(f"{name}, row {number}: has more fields than columns; export it once more")
        yield Record(f"{name}, row {number}", dict(zip(columns, row, strict=False)))


def _bounded(name: str, records: Iterable[Record]) -> Iterator[Record]:
    for number, record in enumerate(records, 1):
        if number > MOST_ROWS:
            raise ExportError(f"{name}: has more than {MOST_ROWS} rows; export fewer days at once")
        yield record
