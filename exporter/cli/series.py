"""`agentos-exporter series`: how many time series a configuration makes, estimated from what each AgentOS shows."""

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
from exporter.core.logs import complain, complain_of, configure
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
        sampled = asyncio.run(sample(config, SYSTEM_CLOCK))
    except ConfigError as error:
        complain_of(error)
        return FAILED
    if any(reading.traces or not reading.error for reading in sampled.readings):
        document = _document(config, sampled)
        lines = [json.dumps(document, indent=2)] if output == "json" else map(escaped, _lines(document))
        sys.stdout.writelines(f"{line}\n" for line in lines)
    for problem in sampled.problems:
        complain(problem)
    return FAILED if sampled.problems else OK


def _document(config: Config, sampled: Sample) -> dict[str, Any]:
    """The result, for programs."""
    costs = estimate(sampled.families, config.limits, config.dropped_labels)
    of_users = [cost for cost in costs if "user" in cost.metric.labels]
    if config.user_labels is UserLabels.OFF:
        costs = [cost for cost in costs if cost not in of_users]
    enriched = any(
        instance.enrich_runs for instance in (*config.agentos, *(instance.template for instance in config.discovery))
    )
    return {
        "agentos": [
            {"name": reading.agentos, "traces": reading.traces, "whole": reading.whole, "error": reading.error or None}
            for reading in sampled.readings
        ],
        "initial_lookback": format_duration(config.initial_lookback),
        "metrics": [_record(cost, config.limits.series_per_metric) for cost in costs],
        "series": sum(cost.series for cost in costs),
        "labels": {
            "user": str(config.user_labels),
            "series_of_users": sum(cost.series for cost in of_users),
            "series_saved_by_drop": sum(cost.saved for cost in costs),
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
    rows = [[metric[key] or "" for key in keys] for metric in document["metrics"]]
    labels = document["labels"]
    off = labels["user"] == UserLabels.OFF
    users = f"hashed or plain would add {labels['series_of_users']}" if off else f"{labels['series_of_users']} of these"
    return [
        *(_read(reading, document["initial_lookback"]) for reading in document["agentos"]),
        "",
        *_table([_HEADER, *rows, ("together", "", "", document["series"], "", labels["series_saved_by_drop"])]),
        "",
        f"labels.user {labels['user']}: {users}",
        f"labels.drop saves {labels['series_saved_by_drop']}",
        *document["notes"],
    ]


def _read(reading: dict[str, Any], lookback: str) -> str:
    """How one AgentOS was read."""
    if reading["error"] and not reading["traces"]:
        return f"{reading['name']}: could not be read, and is not counted"
    extent = "of the last" if reading["whole"] else "a part of the last"
    return f"{reading['name']}: {reading['traces']} traces, {extent} {lookback}"


def _table(rows: Sequence[Sequence[object]]) -> list[str]:
    """Aligned columns, numbers to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    first, *others = (max(map(len, column)) for column in zip(*cells, strict=True))
    lines = []
    for name, *numbers in cells:
        aligned = (number.rjust(width) for number, width in zip(numbers, others, strict=True))
        lines.append("  ".join((name.ljust(first), *aligned)).rstrip())
    return lines
