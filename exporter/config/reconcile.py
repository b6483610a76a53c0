"""`reconcile` of the configuration: bills of vendors that the daemon compares with its own cost once a day."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Final

from exporter.config.budgets import check_instance
from exporter.config.settings import Check
from exporter.config.values import choice, integer, parse_filter, parse_pattern
from exporter.core.document import Table
from exporter.reconcile.exports.vendors import VENDORS

_KEYS: Final = ("agentos", "vendor", "usage", "days")
_EXAMPLE: Final = "[{vendor: openai, usage: exports/openai-*.json}]"
_MOST_DAYS: Final = 90
_SUFFIXES: Final = (".json", ".jsonl", ".ndjson", ".csv", ".tsv")


class Checks:
    """The bills that the daemon compares; mistakes are problems of the table.

    Attributes:
        read: Those without a mistake.

    """

    def __init__(self, table: Table, base: Path) -> None:
        """`base` is the folder that paths are relative to."""
        self._entries: list[Table] = []
        checks: dict[tuple[str, str], int] = {}
        read: list[Check] = []
        for place, entry in table.mappings("reconcile", _EXAMPLE, _KEYS):
            self._entries.append(entry)
            check = _check(entry, base)
            if check is None:
                continue
            before = checks.setdefault((check.agentos, check.vendor), place)
            if before != place:
                entry.add("vendor", f"is already checked by reconcile[{before}] for the same AgentOS")
            else:
                read.append(check)
        self.read = tuple(read)

    def check_instances(self, names: Collection[str]) -> None:
        """Refuse a check of an AgentOS that is not read."""
        for entry in self._entries:
            check_instance(entry, names)


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
