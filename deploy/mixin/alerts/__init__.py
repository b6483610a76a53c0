"""Alerts: what each asks, how bad it is, what it says, and where it leads.

Habits that hold for all of them:
- A ratio is judged together with a count: one failure of one run is 100 %.
- A baseline that does not exist yet counts as 0; the floor decides alone.
- Gauges are read through `last_over_time`, rates look further back than a restart takes: neither loses an alert.
- What belongs to the past does not fire: an exporter that reads a backlog is left out where rates and costs are judged.
  Facts that stay true, such as tokens without a price, are reported from a backlog as well.
- Nothing is filled with 0: what is absent is unknown. `AgentOSExporterDown` is there for that.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from deploy.mixin.alerts import exporter, models, money, operations, runs
from deploy.mixin.alerts.alert import Alert
from deploy.mixin.settings import Settings

_GROUPS: Final = {"runs": runs, "models": models, "money": money, "operations": operations, "exporter": exporter}


def groups(settings: Settings) -> list[dict[str, Any]]:
    """All groups of alerts, as Prometheus reads them."""
    return [
        {
            "name": f"agentos-alerts-{name}",
            "interval": settings.fast_interval,
            "rules": [alert.rule(settings) for make in module.ALERTS for alert in make(settings)],
        }
        for name, module in _GROUPS.items()
    ]


def alerts(settings: Settings) -> Iterator[Alert]:
    """All alerts, in the order of their groups."""
    for module in _GROUPS.values():
        for make in module.ALERTS:
            yield from make(settings)
