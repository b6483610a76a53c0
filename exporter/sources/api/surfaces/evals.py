"""Runs of evaluations, from a list for each database."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

from exporter.sources.api.surfaces.lists import Lists, Page, decoder, walk
from exporter.sources.surfaces.evals import Eval

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from exporter.sources.surfaces.position import Position

_SIZE: Final = 50
_page: Final = decoder(Eval)


class ListedEvals:
    """See EvalRows; `places` names the databases, as parameters of a request."""

    def __init__(self, lists: Lists, places: Callable[[], Sequence[Mapping[str, str]]]) -> None:
        self._lists = lists
        self._places = places

    def places(self) -> list[str]:
        """See EvalRows; '' is a database that has no name."""
        return [place.get("db_id", "") for place in self._places()]

    async def since(self, place: str, position: Position) -> tuple[list[Eval], Position]:
        """See EvalRows."""
        fetch = functools.partial(self._fetch, {"db_id": place} if place else {})
        return await walk(fetch, lambda row: row.created, position, size=_SIZE)

    async def _fetch(self, place: Mapping[str, str], page: int, size: int) -> Page[Eval]:
        wanted = {"sort_by": "created_at", "sort_order": "desc", "limit": size, "page": page, **place}
        return await self._lists.page("/eval-runs", wanted, _page, "eval_runs")
