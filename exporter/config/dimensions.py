"""`dimensions` of the configuration: by what of one's own runs and calls are counted as well."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml

from exporter.config.files import content, parse_path, path_shown
from exporter.config.values import parse_switch
from exporter.core.document import RefusedError, Table, compose, kind, quoted
from exporter.core.errors import ConfigError
from exporter.counting.dimensions import LONGEST, MOST, Dimension, Origin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exporter.config.settings import AgentOS

_KEYS: Final = ("from", "map_file", "hash")
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_SPELLED: Final = "metadata.KEY, tag.KEY, user or session"
_WITH_KEY: Final = (Origin.METADATA, Origin.TAG)
_BY_ID: Final = (Origin.USER, Origin.SESSION)


class _Names(Table):
    """A mapping whose keys are names of dimensions."""

    plain_key = re.compile(r"[A-Za-z0-9_.-]{1,40}")

    def takes(self, key: str) -> bool:
        """See Table."""
        return _NAME.fullmatch(key) is not None

    def hint(self, key: str) -> str:  # noqa: ARG002 - see Table
        """See Table."""
        return "a dimension is named by up to 32 small letters, digits and _, such as tenant"


def read_dimensions(table: Table, base: Path) -> tuple[Dimension, ...]:
    """The dimensions of a configuration; mistakes are problems of the table.

    Paths of mapping files are relative to `base`.
    """
    node = table.entries.get("dimensions")
    if node is None:
        return ()
    if not isinstance(node, yaml.MappingNode):
        table.add("dimensions", f"must be a mapping such as {{tenant: metadata.tenant_id}}, not {kind(node)}")
        return ()
    names = _Names(node, "dimensions", (), table.problems)
    if len(names.entries) > MOST:
        table.add("dimensions", f"has {len(names.entries)} entries; there may be {MOST}")
    dimensions = (_dimension(names, name, base) for name in names.entries)
    return tuple(dimension for dimension in dimensions if dimension is not None)


def _dimension(names: _Names, name: str, base: Path) -> Dimension | None:
    if not isinstance(names.entries[name], yaml.MappingNode):
        parsed = names.parsed(name, _parse_origin)
        return None if parsed is None else Dimension(name, *parsed)
    node = names.entries[name]
    assert isinstance(node, yaml.MappingNode)  # noqa: S101 - just looked at
    entry = Table(node, names.where(name), _KEYS, names.problems)
    if "from" not in entry.entries:
        entry.add("from", f"is missing; it is {_SPELLED}")
    parsed = entry.parsed("from", _parse_origin)
    path = entry.parsed("map_file", parse_path(base))
    hashed = entry.parsed("hash", parse_switch) or False
    if parsed is None:
        return None
    if path is not None and parsed[0] not in _BY_ID:
        entry.add("map_file", "belongs to `from: user` or `from: session`")
    values = None
    if path is not None:
        values = entry.parsed("map_file", lambda _: _read_map(path))
    return Dimension(name, *parsed, values=values, hashed=hashed)


def _parse_origin(text: str) -> tuple[Origin, str]:
    head, dot, key = text.partition(".")
    if head in _WITH_KEY and 0 < len(key) <= LONGEST:
        return Origin(head), key
    if head in _BY_ID and not dot:
        return Origin(head), ""
    raise RefusedError(f"{quoted(text)} is not {_SPELLED}")


def _read_map(path: Path) -> dict[str, str]:
    """A mapping of ids to values. Its messages repeat nothing of it: ids may be names of people."""
    where = path_shown(path)
    try:
        node = compose(content(path), deepest=3, hide=True)
    except ConfigError as error:
        raise RefusedError(f"{where}: {'; '.join(error.problems)}") from None
    if not isinstance(node, yaml.MappingNode):
        raise RefusedError(f"{where}: must be a mapping of ids to values, such as `alice: acme`")
    values: dict[str, str] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode) or not isinstance(value, yaml.ScalarNode) or not value.value:
            raise RefusedError(f"{where}: line {line}: must be an id and its value, such as `alice: acme`")
        if key.value in values:
            raise RefusedError(f"{where}: line {line}: this id was given before")
        values[key.value] = value.value
    return values


def untold(dimensions: Sequence[Dimension], instances: Sequence[AgentOS]) -> list[str]:
    """Warnings about dimensions whose values will stay unknown."""
    warnings = []
    for dimension in dimensions:
        for agentos in instances:
            if dimension.origin is Origin.METADATA and agentos.url and not agentos.enrich_runs:
                warnings.append(
                    f"dimensions.{dimension.name}: {agentos.name} tells the metadata of runs only with "
                    "enrich_runs: true"
                )
            if dimension.origin is Origin.TAG and agentos.url:
                warnings.append(
                    f"dimensions.{dimension.name}: {agentos.name} shows tags only if it is read from its database"
                )
    return warnings
