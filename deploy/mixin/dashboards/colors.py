"""Colours of boards: fixed ones, thresholds, and colours of names and values, as Grafana's JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

Json = dict[str, Any]
"""An object of Grafana's JSON."""


RED: Final = "red"
ORANGE: Final = "orange"
YELLOW: Final = "yellow"
GREEN: Final = "green"
BLUE: Final = "blue"
PURPLE: Final = "purple"
GREY: Final = "text"

PALETTE: Final = {"mode": "palette-classic"}
"""Colours by order. Prometheus sorts by labels: the same names have the same colours on panels that show the same set.

By name they would always be, but then a hash picks them, among them ones that a dark wall swallows.
"""


def fixed(color: str) -> Json:
    """One colour for all that a panel shows."""
    return {"mode": "fixed", "fixedColor": color}


def shades(color: str) -> Json:
    """Shades of one colour, a series each."""
    return {"mode": "shades", "fixedColor": color}


def steps(*thresholds: tuple[float | None, str]) -> Json:
    """Thresholds: each colour holds from its value up; the first one has None."""
    return {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in thresholds]}


def named(name: str, color: str) -> Json:
    """Override: this series has this colour."""
    return {"matcher": {"id": "byName", "options": name}, "properties": [{"id": "color", "value": fixed(color)}]}


def words(texts: Mapping[int | float, tuple[str, str]]) -> Json:
    """Value mapping: text and colour for a value."""
    return {
        "type": "value",
        "options": {
            str(number): {"text": text, "color": color, "index": index}
            for index, (number, (text, color)) in enumerate(texts.items())
        },
    }
