"""Why two sides differ, as far as the ledger or the other side itself tells."""

from __future__ import annotations

import enum
from typing import NamedTuple


class Reason(enum.StrEnum):
    """The names of the reasons, as `--output json` has them."""

    LEDGER_BEGINS_LATER = "ledger_begins_later"
    LEDGER_ENDS_EARLIER = "ledger_ends_earlier"
    CALLS_WAIT = "calls_wait"
    DAY_NOT_OVER = "day_not_over"
    DAY_NOT_STATED = "day_not_stated"
    TIME_ZONE = "time_zone"
    CALLS_WITHOUT_USAGE = "calls_without_usage"
    UNPRICED_TOKENS = "unpriced_tokens"
    ESTIMATED_COST = "estimated_cost"
    HIDDEN_SPANS = "hidden_spans"
    CALLS_NOT_SEEN = "calls_not_seen"
    FAILED_CALLS = "failed_calls"
    PRICE_DIFFERS = "price_differs"
    CACHE_UNKNOWN = "cache_unknown"
    MODEL_ONLY_OURS = "model_only_ours"
    MODEL_ONLY_THEIRS = "model_only_theirs"
    BEYOND_TOKENS = "beyond_tokens"
    TOKENS_DIFFER = "tokens_differ"
    USAGE_NOT_STATED = "usage_not_stated"
    INNER_RUNS = "inner_runs"
    DATED_BY_SESSION = "dated_by_session"
    SESSIONS_MISSING = "sessions_missing"
    DUPLICATE_ROWS = "duplicate_rows"
    PAGES_MISSING = "pages_missing"
    PASSED_OVER = "passed_over"
    CREDITS = "credits"
    UNEXPLAINED = "unexplained"


class Finding(NamedTuple):
    """One reason, with its evidence in words."""

    reason: Reason
    text: str
