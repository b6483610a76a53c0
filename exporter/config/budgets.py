"""`budgets` of the configuration: the limits of spending."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import yaml

from exporter.config.values import NAME, choice, parse_filter, parse_name, parse_time_zone, parse_usd, parse_user
from exporter.core.document import Table, is_null, quoted
from exporter.counting.budgets import Budget, Period

_BUDGET: Final = ("name", "agentos", "root", "agent", "model", "user", "per", "period", "time_zone", "limit_usd")
_EXAMPLE: Final = "[{name: team, period: month, limit_usd: 5000}]"
_NAMED: Final = 10
"""Names of AgentOS instances that a message repeats, at most."""


class Budgets:
    """The budgets of a configuration; mistakes are problems of the table.

    Attributes:
        read: Those without a mistake.

    """

    def __init__(self, table: Table) -> None:
        self._entries: list[Table] = []
        read: list[Budget] = []
        names: dict[str, int] = {}
        for place, entry in table.mappings("budgets", _EXAMPLE, _BUDGET, "with name, period and limit_usd"):
            self._entries.append(entry)
            budget = _budget(entry)
            name = entry.entries.get("name")
            if isinstance(name, yaml.ScalarNode) and NAME.fullmatch(name.value):
                if name.value in names:
                    entry.add("name", f"{quoted(name.value)} is already the name of budgets[{names[name.value]}]")
                names.setdefault(name.value, place)
            if budget is not None:
                read.append(budget)
        self.read = tuple(read)

    def check_dimensions(self, dimensions: Sequence[str]) -> None:
        """Refuse a budget per dimension that does not exist: it would never see any spending."""
        for entry in self._entries:
            name = _text(entry, "per")
            if name and name not in dimensions:
                cure = f"known are {', '.join(dimensions)}" if dimensions else "name it under dimensions"
                entry.add("per", f"{quoted(name)} is no dimension; {cure}")

    def check_instances(self, names: Collection[str]) -> None:
        """Refuse a budget for an AgentOS that is not read: it would never see any spending."""
        for entry in self._entries:
            check_instance(entry, names)


def check_instance(entry: Table, names: Collection[str]) -> None:
    """Refuse an entry whose key `agentos` names an AgentOS that is not read. Without any names, nothing is checked."""
    instances, name = sorted(names), _text(entry, "agentos")
    if instances and name and name not in instances:
        shown = ", ".join(instances[:_NAMED]) + (", …" if len(instances) > _NAMED else "")
        entry.add("agentos", f"{quoted(name)} is not the name of an AgentOS; known are {shown}")


def _text(entry: Table, key: str) -> str:
    """A single value as it is written; '' if there is none, which is a problem noted elsewhere."""
    node = entry.entries.get(key)
    return str(node.value) if isinstance(node, yaml.ScalarNode) and not is_null(node) else ""


def _budget(entry: Table) -> Budget | None:
    for key, meaning in (
        ("name", "it becomes the value of the label budget"),
        ("period", "day, week or month"),
        ("limit_usd", "it is what may be spent in a period"),
    ):
        if key not in entry.entries:
            entry.add(key, f"is missing; {meaning}")
    name, limit = entry.parsed("name", parse_name), entry.parsed("limit_usd", parse_usd)
    period = entry.parsed("period", choice(*Period))
    time_zone = entry.parsed("time_zone", parse_time_zone)
    filters = {key: entry.parsed(key, parse_filter) or "" for key in ("agentos", "root", "agent", "model")}
    user = entry.parsed("user", parse_user) or ""
    per = entry.text("per") or ""
    if per and user:
        entry.add("user", "makes no sense with per: each value has a budget of its own")
    if name is None or limit is None or period is None:
        return None
    whose = {"user": user, "per": per, **filters}
    return Budget(name=name, period=Period(period), limit=limit, time_zone=time_zone or "UTC", **whose)
