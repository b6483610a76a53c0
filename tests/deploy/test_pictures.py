"""The pictures: numbers as Grafana writes them, and the boards that there are."""

from __future__ import annotations

import math
import time

import pytest

from deploy.mixin.pictures import __main__ as command
from deploy.mixin.pictures import units
from tests.harness import panels


@pytest.mark.parametrize(
    ("value", "unit", "decimals", "text"),
    [
        (7.512, "currencyUSD", None, "$7.51"),
        (0.0032049, "currencyUSD", None, "$0.00320"),
        (16321.0, "currencyUSD", None, "$16.3K"),
        (-1.5, "currencyUSD", None, "-$1.50"),
        (0.0, "currencyUSD", None, "$0"),
        (2_330_000, "short", None, "2.33 Mil"),
        (999, "short", None, "999"),
        (2293.4, "locale", 0, "2,293"),
        (0.0312, "percentunit", 2, "3.12%"),
        (1.0, "percentunit", None, "100%"),
        (0.0824, "s", None, "82.4 ms"),
        (4.8, "s", None, "4.80 s"),
        (90.0, "s", None, "1.50 mins"),
        (0.0, "s", None, "0 s"),
        (196_083_712, "bytes", None, "187 MiB"),
        (7900, "Bps", None, "7.90 kB/s"),
        (math.nan, "short", None, "NaN"),
    ],
)
def test_numbers(value, unit, decimals, text):
    assert units.written(value, unit, decimals) == text


def test_moments_are_told_from_now():
    assert units.written(1000 * (time.time() - 7 * 60), "dateTimeFromNow") == "7 minutes ago"
    assert units.written(1000 * (time.time() + 15 * 3600), "dateTimeFromNow") == "in 15 hours"


def test_every_unit_of_the_boards_can_be_written():
    boards = panels.boards().values()
    used = {panel["fieldConfig"]["defaults"]["unit"] for board in boards for panel in panels.panels(board)}
    for board in boards:
        for panel in panels.panels(board):
            for override in panel["fieldConfig"]["overrides"]:
                used |= {one["value"] for one in override["properties"] if one["id"] == "unit"}
    for unit in used:
        assert units.written(1.0, unit)


def test_a_board_that_does_not_exist(capsys):
    with pytest.raises(SystemExit):
        command.main(["agentos-nothing"])
    assert "there is no board agentos-nothing" in capsys.readouterr().err
