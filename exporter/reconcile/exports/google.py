"""Google: rows of the Cloud Billing export in BigQuery, as JSON or CSV, and the CSV of the billing reports.

Sources: https://cloud.google.com/billing/docs/how-to/export-data-bigquery-tables/standard-usage (BigQuery),
https://cloud.google.com/billing/docs/how-to/reports (the CSV of a report).

A SKU tells model and kind of token: `Generate content cached input token count gemini 2.5 flash short input text` of
the Gemini API, `Gemini 2.5 Pro Thinking Text Output - Predictions` of Vertex AI. Rows do not state calls. In BigQuery
times are those of UTC; the days of a report are those of Pacific time. Money is what is billed before credits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from exporter.pricing import money
from exporter.reconcile.exports.items import NOISE, Item, Remark
from exporter.reconcile.exports.records import Export, Record
from exporter.reconcile.figures import DAY, Measure, start_of
from exporter.reconcile.reasons import Reason

NAME: Final = "Google"
_MODEL: Final = re.compile(r"\bgemini[ -](\d+(?:\.\d+)?)[ -](pro|flash|ultra|nano)(?:[ -](lite))?", re.IGNORECASE)
_TOKENS: Final = frozenset({"count", "token", "tokens"})
_SERVICES: Final = re.compile(
    r"gemini|generative language|vertex ai|agent platform|model garden|ai platform", re.IGNORECASE
)
_PACIFIC: Final = "the days of a billing report are those of Pacific time; export from BigQuery for days in UTC"


def fits(export: Export) -> bool:
    """Whether a file is one of these."""
    if export.columns:
        names = {_plain(column) for column in export.columns}
        return "sku_description" in names and bool({"usage_start_time", "date"} & names)
    return all("sku" in record.fields or "sku_description" in record.fields for record in export.records)


def read(export: Export, remark: Remark) -> Iterator[Item]:
    """The items of a file. Raises ExportError."""
    other, credits_given = 0, 0
    for record in export.records:
        row = Record(record.place, _flat(record))
        if not row.has("date") and not row.has("usage_start_time"):
            continue  # the sums at the end of a report
        start, end, zone = _time(row)
        if row.has("service_description") and not _SERVICES.search(row.text("service_description")):
            other += 1
            yield Item(row.place, start, end, zone=zone)
            continue
        credits_given += row.usd("credits")
        yield _item(row, start, end, zone)
    if other:
        remark(Reason.PASSED_OVER, f"{export.name}: {other} rows of other services")
    if credits_given:
        remark(Reason.CREDITS, f"{export.name}: credits of {money.text(credits_given)} USD are not taken off")


def _time(row: Record) -> tuple[int, int, str]:
    """(start, end, why its day is not that of UTC)."""
    if row.has("date"):
        start = start_of(row.day("date"))
        return start, start + DAY, _PACIFIC
    start = row.moment("usage_start_time")
    return start, row.moment("usage_end_time") if row.has("usage_end_time") else start + 1, ""


def _item(row: Record, start: int, end: int, zone: str) -> Item:
    currency = row.text("currency")
    if currency.upper() != "USD":
        row.refuse(f"is in {currency or 'no currency'}, not in USD; set the currency of the export to USD")
    cost = {Measure.COST: row.usd("cost")}
    sku = row.text("sku_description")
    model, measure = _model(sku), _measure(sku)
    if not model or measure is None or row.text("usage_unit").lower() not in _TOKENS:
        return Item(row.place, start, end, figures=cost, beyond=sku or "without SKU", zone=zone)
    return Item(row.place, start, end, model, cost | {measure: row.count("usage_amount")}, rounding=NOISE, zone=zone)


def _model(sku: str) -> str:
    """The id of the Gemini model in a SKU; '' if it names none."""
    match = _MODEL.search(sku)
    return "" if match is None else "-".join(part.lower() for part in ("gemini", *match.groups()) if part)


def _measure(sku: str) -> Measure | None:
    """The measure of a SKU; None if it is no token."""
    text = sku.strip().lower()
    if "storage" in text or "embed" in text:
        return None
    if "cached" in text or "caching" in text:
        return Measure.CACHE_READ
    # `Generate content output token count gemini 2.5 flash short input text`: the measure comes before the model.
    # SKUs of Vertex AI begin with the model.
    head = text.partition("gemini")[0] or text
    if "output" in head:
        return Measure.OUTPUT
    return Measure.INPUT if "input" in head else None


def _plain(column: str) -> str:
    """`SKU description`, `sku.description` and `sku_description` are one column."""
    return re.sub(r"[ .]+", "_", column.strip().lower())


def _flat(record: Record) -> dict[str, object]:
    """The fields of a row, whatever its form, as BigQuery's names with underscores."""
    fields: dict[str, object] = {}
    for name, value in record.fields.items():
        if isinstance(value, dict):
            fields |= {f"{_plain(name)}_{_plain(inner)}": text for inner, text in value.items()}
        elif name == "credits":
            amounts = (credit.usd("amount") for credit in record.each("credits"))
            fields["credits"] = str(money.decimal(sum(amounts)))
        else:
            fields[_plain(name)] = value
    for shown in ("unrounded_subtotal", "unrounded_cost", "subtotal", "cost"):
        if f"{shown}_($)" in fields:
            fields = {"cost": fields[f"{shown}_($)"], "currency": "USD", **fields}
    return fields
