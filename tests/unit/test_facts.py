"""What is made of the values that users of AgentOS put into spans."""

import pytest

from exporter.sources.facts import cost, not_believed, tokens


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (0, 0),
        (7, 7),
        (7.0, 7),
        (10**9, 10**9),
        (10**9 + 1, None),
        (2**53, None),
        (-1, None),
        (7.5, None),
        (True, None),
        ("7", None),
        ([7], None),
        ({"a": 7}, None),
        (float("nan"), None),
        (float("inf"), None),
        (None, None),
    ],
)
def test_token_counts(value, count):
    assert tokens(value) == count


@pytest.mark.parametrize(
    ("value", "usd"),
    [
        (0, 0),
        (0.00123, 0.00123),
        (1_000_000, 1_000_000),
        (1_000_001, None),
        (-0.5, None),
        (True, None),
        ("0.5", None),
        (float("nan"), None),
        (float("inf"), None),
        (None, None),
    ],
)
def test_costs(value, usd):
    assert cost(value) == usd


def test_what_is_not_given_is_not_disbelieved():
    assert not_believed((None, 7, 0, "7", None, True), (None, 7, 0, None, None, None)) == ("cache_write", "total")
    assert not_believed((None, "many"), (None, None)) == ("output_tokens",)
    assert not_believed((7, 8), (7, 8)) == ()
