"""Lists of AgentOS, page by page: `{data: [...], meta: {total_count}}`, the newest row first.

Of each row only the wanted fields are decoded; arguments, inputs, outputs and texts of errors are skipped.

A walk goes from the newest row down to the rows that were read before, less a margin: rows may be written late, and
their order has no tie-break. It takes a limited number of pages and continues in the next turn. A row that comes twice
counts once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import msgspec

from exporter.core.errors import BadAnswer
from exporter.core.model import MICROSECONDS
from exporter.sources.api.http import TooLarge, UnknownRoute
from exporter.sources.facts import count
from exporter.sources.surfaces.position import SKEW, Position

if TYPE_CHECKING:
    from exporter.core.model import Clock
    from exporter.sources.api.http import Answer, Api

ANSWER_LIMIT: Final = 16 * 1024 * 1024
"""Longest answer, in bytes: of a page that is longer, fewer rows are asked for."""
TIMEOUT: Final = 10.0
PROBE: Final = 10
"""Rows of the first page: mostly there are not more new ones."""
WHOLE: Final = 5
"""Pages that are asked for as one, before pages are."""
ALIKE: Final = 9
"""Most readings in a row that skip known rows, since neither the number of rows nor the newest has changed."""
TURN: Final = 6
"""Requests of one walk in one turn."""
PAGES: Final = 10
"""Pages of a list that is read as a whole."""
MOST: Final = 20
"""Rows that are asked for by their ids in one turn, a request each."""
Row = TypeVar("Row", bound=msgspec.Struct)
Value = TypeVar("Value")


class Meta(msgspec.Struct, gc=False):
    """The figures of a page about its list."""

    total_count: Any = None


class Page(msgspec.Struct, Generic[Row]):
    """One page; `date` is AgentOS's clock when it answered, in microseconds."""

    data: list[Row]
    meta: Meta | None = None
    date: int = 0

    @property
    def total(self) -> int:
        """Rows of the whole list, if AgentOS tells."""
        return count(self.meta.total_count) if self.meta is not None else 0


class Lists:
    """Reads lists of one AgentOS."""

    def __init__(self, api: Api, clock: Clock) -> None:
        self._api = api
        self._clock = clock

    async def get(self, path: str, params: Mapping[str, Any], endpoint: str) -> tuple[bytes, int]:
        """The body of an answer, and AgentOS's clock in microseconds. Raises SourceError."""
        answer = await self._api.get(path, params, endpoint=endpoint, timeout=TIMEOUT, most=ANSWER_LIMIT)
        return answer.body, self.date(answer)

    async def page(
        self, path: str, params: Mapping[str, Any], decoder: msgspec.json.Decoder[Page[Row]], endpoint: str
    ) -> Page[Row]:
        """Read one page. Raises SourceError."""
        body, date = await self.get(path, params, endpoint)
        page = decode(decoder, body, endpoint)
        page.date = date
        return page

    async def total(self, path: str, params: Mapping[str, Any], endpoint: str) -> int:
        """How many rows a list has; none is decoded. Raises SourceError."""
        return (await self.page(path, {**params, "limit": 1}, _rowless, endpoint)).total

    def date(self, answer: Answer) -> int:
        """AgentOS's clock when it answered, in microseconds; ours if it does not tell."""
        return self._clock.now_us() if answer.date is None else round(answer.date * MICROSECONDS)


async def walk(
    fetch: Callable[[int, int], Awaitable[Page[Row]]],
    dated: Callable[[Row], int | None],
    position: Position,
    *,
    size: int = 100,
    thorough: bool = False,
) -> tuple[list[Row], Position]:
    """Walk down a list, some pages a turn, to the rows that were read before.

    Args:
        fetch: reads a page of the list: which one, and of how many rows.
        dated: the time by which the list is ordered, in microseconds; None for a row without one, which is left out.
        position: where the last committed walk ended.
        size: rows of a page.
        thorough: read down to the position even if the list looks as it did.

    Returns:
        The rows that may be new, and where the walk ended.

    Raises:
        SourceError: a page could not be read.

    """
    floor = position.floor
    began, page, some = position.began, position.page, position.page > 0
    look: tuple[int, int] | None = None
    sizes = [position.size] if page else [PROBE, size, size * WHOLE]
    page = page or 1
    rows: list[Row] = []
    for _ in range(TURN):
        asked = sizes[0]
        try:
            answer = await fetch(page, asked)
        except TooLarge:
            if asked == 1:
                raise
            # The page that holds the first row of this one.
            sizes = [max(1, asked // 5)]
            page = (page - 1) * asked // sizes[0] + 1
            continue
        some = some or bool(answer.data)
        ats = [dated(row) for row in answer.data]
        if not began:
            # Do not move to AgentOS's own clock: another clock may date rows.
            look = (answer.total, _newest(ats, answer.date))
            began = max(answer.date - SKEW, look[1])
        rows.extend(row for row, at in zip(answer.data, ats, strict=True) if at is not None and at >= floor)
        last_page = len(answer.data) < asked or any(at is not None and at < floor for at in ats)
        alike = position.alike + 1 if not thorough and len(sizes) > 1 and look == position.look else 0
        if last_page or 0 < alike <= ALIKE:
            # An empty list may be a database that fails: it moves nothing.
            read_to = max(position.read_to, began) if some else position.read_to
            return rows, Position(read_to, some=some, look=look, alike=0 if last_page else alike)
        if len(sizes) > 1:
            sizes = sizes[1:]  # all again in one answer: between two pages, rows of one second get lost
        else:
            page += 1
    # Deleted rows move later ones to a page that was read already: read one page again.
    return rows, Position(position.read_to, began, max(1, page - 1), sizes[-1], some)


async def each(ids: Iterable[str], fetch: Callable[[str], Awaitable[Value]]) -> dict[str, Value]:
    """Ask for each by its id; those that AgentOS does not know are left out. Raises SourceError."""
    answers: dict[str, Value] = {}
    for id_ in ids:
        with contextlib.suppress(UnknownRoute):
            answers[id_] = await fetch(id_)
    return answers


def _newest(ats: Iterable[int | None], date: int) -> int:
    """The date of the newest row that is not in the future; 0 if there is none."""
    return max((at for at in ats if at is not None and at <= date), default=0)


def decoder(row: type[Row]) -> msgspec.json.Decoder[Page[Row]]:
    """What decodes pages of these rows."""
    return msgspec.json.Decoder(Page[row])  # type: ignore[valid-type]


def decode(decoder: msgspec.json.Decoder[Value], body: bytes, endpoint: str) -> Value:
    """Decode an answer. Raises BadAnswer."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadAnswer(f"{endpoint}: the answer is not that of an AgentOS") from error


class _Rowless(msgspec.Struct, gc=False):
    """A row of which nothing is wanted."""


_rowless: Final = decoder(_Rowless)
