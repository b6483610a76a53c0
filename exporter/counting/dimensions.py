"""Dimensions of the user's own: which tenant, version or team a run belongs to. Pure: no clock, no network.

A run has one value of each dimension: from the metadata of the run, from tags of its spans, or from the id of its user
or session by a mapping. An unknown value is ''. All calls of a run have its values, so the sums over the values of a
dimension are the whole.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from exporter.core.text import printable
from exporter.counting.users import DIGITS, hashed

MOST: Final = 4
"""How many dimensions there may be."""
LONGEST: Final = 256
"""Characters of a value; longer ones are cut."""


class Origin(enum.StrEnum):
    """Where the value of a dimension comes from."""

    METADATA = "metadata"
    TAG = "tag"
    USER = "user"
    SESSION = "session"


@dataclass(frozen=True, slots=True)
class Dimension:
    """One dimension.

    Attributes:
        name: The value of the label `dimension`.
        origin: Where its values come from.
        key: The key in the metadata, or the part of a tag before its `:` or `=`.
        values: Id of a user or session → value, where the mapping has one. None: the id itself is the value.
        hashed: Whether the value is shown as a hash.

    """

    name: str
    origin: Origin
    key: str = ""
    values: Mapping[str, str] | None = field(default=None, repr=False)
    hashed: bool = False

    @property
    def mark(self) -> str:
        """What its values mean, as text: another one where they come from elsewhere, or are shown in another way."""
        return json.dumps([self.name, self.origin, self.key, self.values is not None, self.hashed])


class Dimensions:
    """All dimensions; they find the values of a run, by `Dimension.mark`. Without any dimension it is false."""

    def __init__(self, dimensions: Sequence[Dimension] = (), *, key: bytes = b"") -> None:
        """`key` is that of the hashes."""
        self.all = tuple(dimensions)
        self._key = key
        self._of = {origin: [dimension for dimension in self.all if dimension.origin is origin] for origin in Origin}

    def __bool__(self) -> bool:
        return bool(self.all)

    def needs(self, origin: Origin) -> bool:
        """Whether any value comes from there."""
        return bool(self._of[origin])

    def of_ids(self, user: str | None, session: str | None) -> dict[str, str]:
        """Values from the ids of a run's user and session."""
        ids = ((Origin.USER, user), (Origin.SESSION, session))
        return self._found(
            (dimension, (dimension.values.get(identifier) if dimension.values is not None else identifier))
            for origin, identifier in ids
            if identifier
            for dimension in self._of[origin]
        )

    def of_metadata(self, metadata: Mapping[str, str]) -> dict[str, str]:
        """Values from the metadata of a run."""
        return self._found((dimension, metadata.get(dimension.key)) for dimension in self._of[Origin.METADATA])

    def of_tags(self, tags: Sequence[str]) -> dict[str, str]:
        """Values from tags: `tenant:acme` or `tenant=acme`; the first one counts."""
        by_key: dict[str, str] = {}
        for tag in tags:
            for separator in ":=":
                key, middle, value = tag.partition(separator)
                if middle and value and key not in by_key:
                    by_key[key] = value
        return self._found((dimension, by_key.get(dimension.key)) for dimension in self._of[Origin.TAG])

    def _found(self, told: Iterable[tuple[Dimension, str | None]]) -> dict[str, str]:
        return {dimension.mark: self._shown(dimension, value) for dimension, value in told if value}

    def named(self, values: Mapping[str, str]) -> dict[str, str]:
        """Values by the name of their dimension; '' where one is not known, or has another meaning by now."""
        return {dimension.name: values.get(dimension.mark, "") for dimension in self.all}

    def _shown(self, dimension: Dimension, value: str) -> str:
        return hashed(value, self._key)[:DIGITS] if dimension.hashed else printable(value)[:LONGEST]
