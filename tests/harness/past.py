"""What ended in a span of time, counted from agno's tables without code of the exporter; and a price for each token.

`PRICES` is a price file, and `Past.spent` what calls cost by it, exactly.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.harness import truth

ROOT = Path(__file__).parents[2]
_USD: Mapping[str, Mapping[str, str]] = {
    "gpt-5.4-mini": {"input": "0.75", "cache_read": "0.075", "output": "4.5"},
    "claude-sonnet-5-5": {"input": "3", "cache_read": "0.3", "output": "15"},
    "gemini-3.7-flash": {"input": "0.31", "cache_read": "0.07", "output": "2.13"},
}
PRICES = {
    "prices": [
        {"model": model, **{f"{token_class}_mtok": float(usd) for token_class, usd in classes.items()}}
        for model, classes in _USD.items()
    ]
}
"""of the models that `seed` writes, in US dollars per million tokens"""


def usd(model: str, token_class: str, tokens: int) -> Decimal:
    """Return what so many tokens cost in US dollars, exactly."""
    return tokens * Decimal(_USD[model][token_class]) / 1_000_000


class Past:
    """The spans of a database."""

    def __init__(self, database: str, span: type[truth.Row] = truth.Row) -> None:
        _, self.rows = truth.read(database, span)
        self.calls = [row for row in self.rows if row.type == "LLM"]

    def tokens(self, since: float, until: float) -> int:
        """Return the tokens of calls that ended in (since, until], in seconds since the epoch."""
        return sum(sum(row.tokens.values()) for row in self.calls if since < row.end <= until)

    def spent(self, since: float, until: float) -> Decimal:
        """Return what these calls cost in US dollars."""
        return sum(
            (
                usd(row.model, token_class, tokens)
                for row in self.calls
                if since < row.end <= until
                for token_class, tokens in row.tokens.items()
                if tokens
            ),
            Decimal(0),
        )

    def runs(self, since: float, until: float) -> int:
        """Return the agents' runs that ended then; none of them is inside another."""
        return sum(row.type == "AGENT" and since < row.end <= until for row in self.rows)

    def errors(self, since: float, until: float) -> int:
        """Return the spans with an error that ended then."""
        return sum(row.status == "ERROR" and since < row.end <= until for row in self.rows)


def backfill(config: Path, *arguments: object) -> subprocess.Popen[str]:
    """Start the command in a process of its own."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AGENTOS_EXPORTER_")}
    return subprocess.Popen(
        (sys.executable, "-m", "exporter", "backfill", "--config.file", str(config), *map(str, arguments)),
        cwd=ROOT,
        env=environment | {"NO_PROXY": "127.0.0.1"},
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> str:
    """Wait until the command is done, and return what it said.

    Raises:
        AssertionError: if it failed.

    """
    _, said = process.communicate()
    assert process.returncode == 0, said
    return said


def configured(folder: Path, state: Path | str, *, name: str = "backfill.yml", **agentos: Any) -> Path:
    """Write a configuration of one AgentOS called `it`, with these prices, and return its path."""
    (folder / "prices.yml").write_text(json.dumps(PRICES))
    path = folder / name
    path.write_text(json.dumps({"state": str(state), "prices": "prices.yml", "agentos": [{"name": "it", **agentos}]}))
    return path


def files(folder: Path) -> Mapping[str, bytes]:
    """Return the files of a folder by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def make_blocks(promtool: str, texts: Sequence[Path], data: Path) -> None:
    """Let promtool make blocks of files of OpenMetrics.

    Raises:
        CalledProcessError: if it refuses one.

    """
    for text in texts:
        # Longer blocks spare promtool from reading a day twelve times.
        flags = ("--max-block-duration", "24h")
        command = (promtool, "tsdb", "create-blocks-from", "openmetrics", *flags, str(text), str(data))
        subprocess.run(command, check=True, capture_output=True)
