"""`state` of the configuration: where totals and counted ids are kept."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml

from exporter.config.secrets import Found
from exporter.config.settings import DEFAULT_LEASE, SharedState
from exporter.config.values import parse_identifier, state_path, within
from exporter.core.document import RefusedError, Table
from exporter.sources.database import location

if TYPE_CHECKING:
    from exporter.config.access import Access

_STATE: Final = ("url", "schema", "lease", "password_file", "password_env")
_SCHEMA: Final = "agentos_exporter"
_POSTGRES_URL: Final = re.compile(r"postgres(ql)?(\+\w+)?://", re.IGNORECASE)


def read_state(table: Table, access: Access) -> tuple[Path | SharedState | None] | None:
    """The key `state`: a path, memory, a URL, or a mapping of a URL and further keys.

    Returns the value in a tuple, since it is None for memory; without a tuple, None means absent or refused.
    """
    node = table.entries.get("state")
    if not isinstance(node, yaml.MappingNode):
        return table.parsed("state", lambda text: (parse_state(access.base)(text),))
    inner = table.nested(node, "state", _STATE)
    lease = inner.parsed("lease", within(1.0, 600.0)) or DEFAULT_LEASE
    schema, secret = inner.parsed("schema", parse_identifier), access.secret(inner, "password")
    if "url" not in inner.entries:
        inner.add("url", "is missing; it is the URL of a PostgreSQL database")
        return None
    if not _POSTGRES_URL.match(inner.text("url") or "postgresql://"):
        inner.add("url", "must be the URL of a PostgreSQL database")
        return None
    return inner.parsed("url", lambda text: (parse_state(access.base, schema, secret, lease)(text),))


def parse_state(
    base: Path, schema: str | None = None, secret: Found = (None, None, None), lease: float = DEFAULT_LEASE
) -> Callable[[str], Path | SharedState | None]:
    """Make a parser of `state`.

    Args:
        base: The folder that relative paths start from.
        schema: The schema in PostgreSQL; None for the default.
        secret: Where the password of the database is.
        lease: Seconds that a lease lasts.

    Returns:
        A parser of a path, `memory` (None), or the URL of a PostgreSQL database.

    """

    def parse(text: str) -> Path | SharedState | None:
        if not _POSTGRES_URL.match(text):
            return state_path(base)(text)
        try:
            place = location.parse(text, base, schema or _SCHEMA)
        except ValueError as error:
            raise RefusedError(str(error)) from None
        path, variable, password = secret
        return SharedState(place, password, path, variable, lease)

    return parse
