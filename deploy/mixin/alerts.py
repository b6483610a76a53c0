"""Alerts."""

from __future__ import annotations

from typing import Any

from deploy.mixin.settings import Settings


def groups(settings: Settings) -> list[dict[str, Any]]:
    """All groups of alerts."""
    return []
