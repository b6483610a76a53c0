"""`agentos-exporter series`: what a configuration costs in time series, from what each AgentOS shows."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from cyclopts import Parameter

from exporter.cli.flags import DaemonFlags, given
from exporter.config import format_duration, load
from exporter.core.errors import ConfigError
from exporter.core.logs import complain, configure
from exporter.core.text import escaped
from exporter.counting.users import UserLabels
from exporter.metrics.estimate import Cost, estimate

if TYPE_CHECKING:
    from exporter.config import Config
    from exporter.service.sampling import Sample

OK: Final = 0
FAILED: Final = 1
_ENRICHED: Final = (
    "enrich_runs: details of runs were not asked for; tokens and cost will have up to 5 token classes rather than 2, "
    "and agentos_llm_time_to_first_token_seconds will be there"
)
_HEADER: Final = ("metric", "label sets", "each", "time series", "limit", "saved")


def series(
    flags: DaemonFlags | None = None,
    *,
    output: Annotated[Literal["table", "json"], Parameter(help="for people or for programs")] = "table",
) -> int:
    """Print how many time series a configuration costs, and what users and dropped labels add or save.

    Each AgentOS is read once into memory, as the daemon's first poll does. The state is not opened.
    """
    from exporter.service.daemon import SYSTEM_CLOCK  # noqa: PLC0415 - slow to load
    from exporter.service.sampling import sample  # noqa: PLC0415

    configure("error")
    try:
        config = load(given(flags or DaemonFlags()), os.environ)
        found = asyncio.run(sample(config, SYSTEM_CLOCK))
    except ConfigError as error:
        for problem in error.problems:
            complain(problem)
        return FAILED
    if any(one.traces or not one.error for one in found.readings):
        document = _document(config, found)
        lines = [json.dumps(document, indent=2)] if output == "json" else map(escaped, _lines(document))
        sys.stdout.writelines(f"{line}\n" for line in lines)
    for problem in found.problems:
        complain(problem)
    return FAILED if found.problems else OK


def _document(config: Config, found: Sample) -> dict[str, Any]:
    """What was found, for programs."""
    costs = estimate(found.families, config.limits, config.dropped_labels)
    of_users = [one for one in costs if "user" in one.metric.labels]
    if config.user_labels is UserLabels.OFF:
        costs = [one for one in costs if one not in of_users]
    enriched = any(one.enrich_runs for one in (*config.agentos, *(one.template for one in config.discovery)))
    return {
        "agentos": [
            {"name": one.agentos, "traces": one.traces, "whole": one.whole, "error": one.error or None}
            for one in found.readings
        ],
        "initial_lookback": format_duration(config.initial_lookback),
        "metrics": [_record(one, config.limits.series_per_metric) for one in costs],
        "series": sum(one.series for one in costs),
        "labels": {
            "user": str(config.user_labels),
            "series_of_users": sum(one.series for one in of_users),
            "series_saved_by_drop": sum(one.saved for one in costs),
        },
        "notes": [_ENRICHED] if enriched else [],
    }


def _record(cost: Cost, limit: int) -> dict[str, Any]:
    return {
        "name": cost.metric.name,
        "kind": cost.metric.kind.value,
        "label_sets": cost.label_sets,
        "series_per_label_set": cost.metric.series,
        "series": cost.series,
        "limit": limit if cost.metric.limited else None,
        "saved": cost.saved,
    }


def _lines(document: dict[str, Any]) -> list[str]:
    """The same for people."""
    keys = ("name", "label_sets", "series_per_label_set", "series", "limit", "saved")
    rows = [[one[key] or "" for key in keys] for one in document["metrics"]]
    labels = document["labels"]
    off = labels["user"] == UserLabels.OFF
    users = f"hashed or plain would add {labels['series_of_users']}" if off else f"{labels['series_of_users']} of these"
    return [
        *(_read(one, document["initial_lookback"]) for one in document["agentos"]),
        "",
        *_table([_HEADER, *rows, ("together", "", "", document["series"], "", labels["series_saved_by_drop"])]),
        "",
        f"labels.user {labels['user']}: {users}",
        f"labels.drop saves {labels['series_saved_by_drop']}",
        *document["notes"],
    ]


def _read(one: dict[str, Any], lookback: str) -> str:
    """How one AgentOS was read."""
    if one["error"] and not one["traces"]:
        return f"{one['name']}: could not be read, and is not counted"
    part = "of the last" if one["whole"] else "a part of the last"
    return f"{one['name']}: {one['traces']} traces, {part} {lookback}"


def _table(rows: Sequence[Sequence[object]]) -> list[str]:
    """Aligned columns, numbers to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    first, *others = (max(map(len, column)) for column in zip(*cells, strict=True))
    lines = []
    for name, *numbers in cells:
        aligned = (number.rjust(width) for number, width in zip(numbers, others, strict=True))
        lines.append("  ".join((name.ljust(first), *aligned)).rstrip())
    return lines
