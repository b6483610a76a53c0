"""OpenAI: pages of its Usage and Costs API, and the CSV exports of its usage page.

Sources: https://platform.openai.com/docs/api-reference/usage/completions_object and .../usage/costs_object (JSON). The
CSV exports flatten the same fields, as `completions_usage_*.csv` and `cost_*.csv` of
https://platform.openai.com/usage show; a bucket without usage has a row without figures.

`input_tokens` includes tokens read from the cache and written to it, `output_tokens` includes reasoning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from exporter.core.document import shown
from exporter.reconcile.exports.items import NOISE, Item, Remark, more_behind, remark_unknown
from exporter.reconcile.exports.records import Export, Record
from exporter.reconcile.figures import Measure
from exporter.reconcile.reasons import Reason

NAME: Final = "OpenAI"
_COMPLETIONS: Final = "organization.usage.completions.result"
_COSTS: Final = "organization.costs.result"
_LINE_ITEM: Final = re.compile(
    r"(?:\w+ \| )?(?P<model>[\w.:/-]+)(?: (?:text|audio|image))?, "
    r"(?:input|output|cached input|cache writes?)(?:, long context)?"
)
"""such as `gpt-5.4-2026-03-05, cached input`; items that are not tokens have other forms"""
_FIGURES: Final = frozenset(
    {
        *("input_tokens", "output_tokens", "input_cached_tokens", "input_cache_write_tokens", "num_model_requests"),
        *("input_uncached_tokens", "input_text_tokens", "output_text_tokens", "input_cached_text_tokens"),
        *("input_audio_tokens", "input_cached_audio_tokens", "output_audio_tokens"),
        *("input_image_tokens", "input_cached_image_tokens", "output_image_tokens"),
        *("amount", "amount_value", "amount_currency", "quantity"),
    }
)
_FIELDS: Final = frozenset(
    {
        *("object", "project_id", "project_name", "user_id", "user_email", "api_key_id", "api_key_name"),
        *("model", "batch", "service_tier", "line_item", "organization_id", "organization_name", "api_source"),
    }
)
_TIMES: Final = {"start_time", "end_time", "start_time_iso", "end_time_iso"}
_KNOWN: Final = _FIELDS | _FIGURES | _TIMES


def fits(export: Export) -> bool:
    """Whether a file is one of these."""
    if export.columns:
        # An export without any usage has the times alone.
        columns = _FIGURES & set(export.columns) or set(export.columns) == _TIMES
        return {"start_time", "end_time"} <= set(export.columns) and bool(columns)
    return all(_is_page(record.fields) for record in export.records)


def _is_page(fields: Any) -> bool:  # noqa: ANN401 - whatever JSON says
    buckets = fields.get("data")
    return isinstance(buckets, list) and all(isinstance(bucket, dict) and "start_time" in bucket for bucket in buckets)


def read(export: Export, remark: Remark) -> Iterator[Item]:
    """The items of a file. Raises ExportError."""
    if export.columns:
        remark_unknown(export.columns, _KNOWN, export.name, remark)
        for record in export.records:
            yield _of_row(record, record, export.name, remark)
        return
    for page in export.records:
        for bucket in page.each("data"):
            yield _Bucket(bucket).item(more=more_behind(page, bucket, export.name))
            for result in bucket.each("results"):
                remark_unknown(result.fields, _KNOWN, export.name, remark)
                yield _of_row(bucket, result, export.name, remark)


class _Bucket:
    """The time of a row."""

    def __init__(self, record: Record) -> None:
        self._place = record.place
        self.start, self.end = record.moment("start_time"), record.moment("end_time")

    def item(self, **more: Any) -> Item:  # noqa: ANN401 - fields of Item
        """An item of this time; one without figures says that there may have been nothing."""
        return Item(**{"place": self._place, "start": self.start, "end": self.end, **more})


def _of_row(bucket: Record, result: Record, file: str, remark: Remark) -> Item:
    time = _Bucket(bucket)
    kind = result.text("object")
    if kind == _COSTS or "amount" in result.fields or "amount_value" in result.fields:
        return _costs(time, result)
    if kind == _COMPLETIONS or not kind:
        return _usage(time, result, remark)
    remark(Reason.PASSED_OVER, f"{file}: rows of {shown(kind)}, which no LLM span tells of")
    return time.item()


def _usage(time: _Bucket, result: Record, remark: Remark) -> Item:
    if not (result.has("input_tokens") or result.has("output_tokens") or result.has("num_model_requests")):
        return time.item()
    figures = {Measure.CALLS: result.count("num_model_requests"), Measure.OUTPUT: result.count("output_tokens")}
    if result.has("input_cached_tokens"):
        read, written = result.count("input_cached_tokens"), result.count("input_cache_write_tokens")
        fresh = result.count("input_tokens") - read - written
        if fresh < 0:
            result.refuse("has more cached tokens than input tokens; export it once more")
        figures |= {Measure.INPUT: fresh, Measure.CACHE_READ: read, Measure.CACHE_WRITE: written}
    else:
        remark(Reason.PASSED_OVER, "input tokens are not compared where the export does not tell cached ones apart")
    model = result.text("model")
    return time.item(
        place=result.place,
        model=model,
        figures=figures,
        key=("usage", time.start, time.end, *result.identity(_FIGURES)),
    )


def _costs(time: _Bucket, result: Record) -> Item:
    amount = result.inner("amount") if "amount" in result.fields else result
    value, currency = ("value", "currency") if "amount" in result.fields else ("amount_value", "amount_currency")
    if not amount.has(value):
        return time.item()
    if (unit := amount.text(currency).lower()) != "usd":
        result.refuse(f"is in {unit or 'no currency'}, not in USD; export it in USD")
    figures = {Measure.COST: amount.usd(value)}
    line_item = result.text("line_item")
    match = _LINE_ITEM.fullmatch(line_item)
    more = {"model": match["model"]} if match else {"beyond": line_item}
    key = ("costs", time.start, time.end, *result.identity(_FIGURES))
    return time.item(place=result.place, figures=figures, key=key, rounding=NOISE, **more)
