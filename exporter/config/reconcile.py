"""`reconcile` of the configuration: bills of vendors that the daemon compares with its own cost once a day."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml

from exporter.config.settings import Check
from exporter.config.values import choice, integer, parse_filter, parse_pattern
from exporter.core.document import Table, kind
from exporter.reconcile.exports.vendors import VENDORS

if TYPE_CHECKING:
    from collections.abc import Callable

_KEYS: Final = ("agentos", "vendor", "usage", "days")
_MOST_DAYS: Final = 90
_SUFFIXES: Final = (".json", ".jsonl", ".ndjson", ".csv", ".tsv")


def read_reconcile(table: Table, base: Path, noted: Callable[[Table], None]) -> tuple[Check, ...]:
    """What a configuration lets check.

    Args:
        table: The whole configuration. Its problems are noted in it.
        base: The folder that paths are relative to.
        noted: Called with each entry, whose key `agentos` names an AgentOS.

    """
    found: dict[tuple[str, str], int] = {}
    checks: list[Check] = []
    for i, node in enumerate(table.items("reconcile", "[{vendor: openai, usage: exports/openai-*.json}]") or ()):
        path = f"reconcile[{i}]"
        if not isinstance(node, yaml.MappingNode):
            table.problems.add(path, f"must be a mapping of {', '.join(_KEYS)}, not {kind(node)}", node)
            continue
        entry = type(table)(node, path, _KEYS, table.problems)
        noted(entry)
        check = _check(entry, base)
        if check is None:
            continue
        before = found.setdefault((check.agentos, check.vendor), i)
        if before != i:
            entry.add("vendor", f"is already checked by reconcile[{before}] for the same AgentOS")
        else:
            checks.append(check)
    return tuple(checks)


def _check(entry: Table, base: Path) -> Check | None:
    for key, meaning in (
        ("vendor", f"one of {', '.join(VENDORS)}"),
        ("usage", "it is the path of the vendor's cost export, which may have * in its last part"),
    ):
        if key not in entry.entries:
            entry.add(key, f"is missing; {meaning}")
    vendor = entry.parsed("vendor", choice(*VENDORS))
    usage = entry.parsed("usage", parse_pattern(base, _SUFFIXES))
    agentos = entry.parsed("agentos", parse_filter) or ""
    days = entry.parsed("days", integer(1, _MOST_DAYS))
    if vendor is None or usage is None:
        return None
    check = Check(vendor, usage, agentos)
    return check if days is None else check._replace(days=days)
