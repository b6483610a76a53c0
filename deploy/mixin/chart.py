"""Copies of the rules and boards for the Helm chart, which has to be whole when it is copied alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Final

FILES: Final = PurePosixPath("deploy/helm/agentos-exporter/files")
MOST: Final = 1024 * 1024
"""Bytes that a ConfigMap holds at most."""


class ChartError(ValueError):
    """A file that would not fit where the chart puts it."""


def files(rules: Mapping[str, str], dashboards: Mapping[str, str]) -> dict[str, str]:
    """The chart's copies: by path in the repository, their text.

    Both arguments have texts by path or file name; of a path only the last part counts. Rules stay as they are;
    boards lose their white space: each is one line of one ConfigMap. Raises ChartError where one is too large for that.
    """
    made = {str(FILES / "rules" / PurePosixPath(name).name): text for name, text in rules.items()}
    for name, text in dashboards.items():
        compact = json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":")) + "\n"
        # What else is in the ConfigMap (names, labels) takes less than this margin.
        if len(compact.encode()) > MOST - 4096:
            raise ChartError(f"{name}: {len(compact.encode())} bytes do not fit into a ConfigMap of {MOST}")
        made[str(FILES / "dashboards" / PurePosixPath(name).name)] = compact
    return made
