"""Anthropic: pages of its Usage and Cost Admin API, and the CSV exports of the Claude Console.

Sources: https://platform.claude.com/docs/en/api/admin/usage_report/retrieve_messages and .../cost_report/retrieve
(JSON), https://support.claude.com/en/articles/9534590-cost-and-usage-reporting-in-the-claude-console (CSV).

`amount` of the API is in cents. The Console rounds each row to cents, and names models as people do (`Claude Haiku
4.5`). Neither states a number of calls. Days are those of UTC.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from exporter.pricing.money import USD
from exporter.reconcile.exports.items import NOISE, Item, Remark, more_behind, remark_unknown
from exporter.reconcile.exports.records import Export, Record
from exporter.reconcile.figures import DAY, Measure, start_of

NAME: Final = "Anthropic"
_HALF_CENT: Final = USD // 200
_FIGURES: Final = frozenset(
    {
        *("uncached_input_tokens", "cache_creation", "cache_read_input_tokens", "output_tokens", "server_tool_use"),
        *("usage_input_tokens_no_cache", "usage_input_tokens_cache_write_5m", "usage_input_tokens_cache_write_1h"),
        *("usage_input_tokens_cache_write", "usage_input_tokens_cache_read", "usage_output_tokens"),
        *("web_search_count", "amount", "currency", "cost_usd", "list_price_usd"),
    }
)
_FIELDS: Final = frozenset(
    {
        *("api_key_id", "workspace_id", "model", "service_tier", "context_window", "inference_geo", "speed"),
        *("account_id", "service_account_id", "cost_type", "description", "token_type", "usage_date_utc"),
        *("model_version", "api_key", "api_key_status", "workspace", "usage_type"),
    }
)
_KNOWN: Final = _FIELDS | _FIGURES


def fits(export: Export) -> bool:
    """Whether a file is one of these."""
    if export.columns:
        return "usage_date_utc" in export.columns
    return all(_is_page(record.fields) for record in export.records)


def _is_page(fields: Any) -> bool:  # noqa: ANN401 - whatever JSON says
    buckets = fields.get("data")
    return isinstance(buckets, list) and all(isinstance(bucket, dict) and "starting_at" in bucket for bucket in buckets)


def read(export: Export, remark: Remark) -> Iterator[Item]:
    """The items of a file. Raises ExportError."""
    if export.columns:
        remark_unknown(export.columns, _KNOWN, export.name, remark)
        for record in export.records:
            start = start_of(record.day("usage_date_utc"))
            yield _of_console(record, start)
        return
    for page in export.records:
        for bucket in page.each("data"):
            start, end = bucket.moment("starting_at"), bucket.moment("ending_at")
            yield Item(bucket.place, start, end, more=more_behind(page, bucket, export.name))
            for result in bucket.each("results"):
                remark_unknown(result.fields, _KNOWN, export.name, remark)
                yield _of_api(result, start, end)


def _of_api(result: Record, start: int, end: int) -> Item:
    model = result.text("model")
    if "amount" in result.fields:
        if (currency := result.text("currency")).upper() != "USD":
            result.refuse(f"is in {currency or 'no currency'}, not in USD; export it in USD")
        figures = {Measure.COST: result.usd("amount", cents=True)}
        kind = result.text("cost_type")
        beyond = "" if kind in {"", "tokens"} else kind
        return Item(
            result.place, start, end, model, figures, beyond, ("cost", start, end, *result.identity(_FIGURES)), NOISE
        )
    written = result.inner("cache_creation")
    figures = {
        Measure.INPUT: result.count("uncached_input_tokens"),
        Measure.CACHE_READ: result.count("cache_read_input_tokens"),
        Measure.CACHE_WRITE: sum(written.count(f"ephemeral_{time}_input_tokens") for time in ("5m", "1h")),
        Measure.OUTPUT: result.count("output_tokens"),
    }
    return Item(result.place, start, end, model, figures, key=("usage", start, end, *result.identity(_FIGURES)))


def _of_console(row: Record, start: int) -> Item:
    end = start + DAY
    if "cost_usd" in row.fields:
        figures = {Measure.COST: row.usd("cost_usd")}
        # Rows of a Console that does not have the column yet are all of tokens.
        kind = row.text("cost_type")
        beyond = "" if kind in {"", "token", "tokens"} else kind
        model = model_id(row.text("model"))
        return Item(
            row.place, start, end, model, figures, beyond, ("cost", start, end, *row.identity(_FIGURES)), _HALF_CENT
        )
    writes = (f"usage_input_tokens_cache_write{time}" for time in ("", "_5m", "_1h"))
    figures = {
        Measure.INPUT: row.count("usage_input_tokens_no_cache"),
        Measure.CACHE_READ: row.count("usage_input_tokens_cache_read"),
        Measure.CACHE_WRITE: sum(row.count(name) for name in writes),
        Measure.OUTPUT: row.count("usage_output_tokens"),
    }
    return Item(
        row.place, start, end, row.text("model_version"), figures, key=("usage", start, end, *row.identity(_FIGURES))
    )


def model_id(name: str) -> str:
    """The id of a model that the Console names for people: `Claude Haiku 4.5` → `claude-haiku-4-5`."""
    return re.sub(r"[ .]+", "-", name.lower())
