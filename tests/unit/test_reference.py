import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from exporter.metrics import reference
from exporter.metrics.catalog import METRICS

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_page_is_what_the_catalog_says():
    assert PAGE.read_text(encoding="utf-8") == reference.markdown(), (
        "write it anew: agentos-exporter metrics --format markdown > docs/metrics.md"
    )


def test_the_page_shows_each_metric_once():
    assert sorted(re.findall(r"^### `(\w+)`$", reference.markdown(), re.MULTILINE)) == sorted(METRICS)


def test_every_metric_has_a_part_of_the_page_and_no_part_is_empty():
    assert {reference.group(metric) for metric in METRICS.values()} == set(reference.GROUPS)
    with pytest.raises(KeyError):
        reference.group(replace(METRICS["agentos_up"], name="agentos_unheard_of"))


def test_units_and_buckets_are_in_base_units():
    duration = METRICS["agentos_llm_call_duration_seconds"]
    assert reference.base_unit(duration) == "seconds"
    assert reference.bucket_bounds(duration)[:5] == (0.1, 0.25, 0.5, 1, 2.5)
    assert reference.base_unit(METRICS["agentos_llm_tokens_total"]) == "tokens"
    assert reference.base_unit(METRICS["agentos_exporter_watermark_timestamp_seconds"]) == "timestamp_seconds"
    assert reference.base_unit(METRICS["agentos_runs_total"]) == ""


def test_table():
    rows = reference.table_rows()
    assert [row[0] for row in rows] == list(METRICS)
    assert {len(row) for row in rows} == {len(reference.TABLE_HEADER)}


def test_json():
    records = json.loads(reference.as_json())
    assert [record["name"] for record in records] == list(METRICS)
    tokens = next(record for record in records if record["name"] == "agentos_llm_tokens_total")
    assert tokens["labels"] == ["agentos", "root", "agent", "provider", "model", "token_class"]
    assert tokens["limited_labels"] == ["root", "agent", "provider", "model"]
    assert (tokens["kind"], tokens["unit"], tokens["life"], tokens["buckets"]) == ("counter", "tokens", "durable", [])
