"""The tables of the state."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

SCHEMA_VERSION: Final = 8
APPLICATION_ID: Final = 0x41474F58
""""AGOX", the SQLite application_id by which a state file is known."""

FORMAT: Final = "agentos-exporter state"
"""The format of the state in `meta`, on every engine."""

MARK: Final = "mark"
"""The key of `meta` for the form of tables and series with which a state was last opened."""
DAILY_SINCE: Final = "daily_since"
"""The key of `meta` with the moment from which on the sums of days are whole, in microseconds; '' is the next start.

Without it they are whole from the first trace that is counted.
"""
OWN_META: Final = ("format", "version", MARK)
"""Keys of `meta` that are about the tables themselves."""

schema = sa.MetaData()
meta = sa.Table(
    "meta", schema, sa.Column("key", sa.Text, primary_key=True), sa.Column("value", sa.Text, nullable=False)
)
cursors = sa.Table(
    "cursors",
    schema,
    sa.Column("agentos", sa.Text, primary_key=True),
    sa.Column("db", sa.Text, primary_key=True),
    sa.Column("data", sa.Text, nullable=False),
)
traces = sa.Table(
    "traces",
    schema,
    sa.Column("agentos", sa.Text, primary_key=True),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("db", sa.Text, primary_key=True),
    sa.Column("state", sa.BigInteger, nullable=False),
    sa.Column("total_spans", sa.BigInteger, nullable=False),
    sa.Column("nodes", sa.BigInteger, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("end", sa.BigInteger, nullable=False),
    sa.Column("changed", sa.BigInteger, nullable=False),
    sa.Column("next_ask", sa.BigInteger, nullable=False),
    sa.Column("asks", sa.BigInteger, nullable=False),
    sa.Column("misses", sa.BigInteger, nullable=False),
    sa.Column("hidden", sa.BigInteger, nullable=False),
    sa.Column("root_kind", sa.Text, nullable=False),
    sa.Column("reported", sa.Boolean, nullable=False),
    sa.Column("runs", sa.Text, nullable=False),
    sa.Column("spans", sa.LargeBinary, nullable=False),
    sa.Index("traces_waiting", "agentos", "db", "state", "next_ask"),
    sa.Index("traces_ended", "agentos", "db", "state", "end"),
    sa.Index("traces_created", "agentos", "db", "created"),
)
series = sa.Table(
    "series",
    schema,
    sa.Column("metric", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, primary_key=True),  # of the labels
    sa.Column("agentos", sa.Text, nullable=False),  # whose leader writes it
    sa.Column("labels", sa.Text, nullable=False),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("shown", sa.Boolean, nullable=False),
)
layouts = sa.Table(
    "layouts",
    schema,
    sa.Column("metric", sa.Text, primary_key=True),
    sa.Column("layout", sa.Text, nullable=False),
)
"""The meaning of labels and values in `series`: names of the labels, buckets and unit, as JSON"""
admissions = sa.Table(
    "admissions",
    schema,
    sa.Column("label", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, primary_key=True),  # of the value
    sa.Column("value", sa.Text, nullable=False),
)
activity = sa.Table(
    "activity",
    schema,
    sa.Column("agentos", sa.Text, primary_key=True),
    sa.Column("what", sa.Text, primary_key=True),
    sa.Column("digest", sa.BigInteger, primary_key=True),
    sa.Column("seen", sa.BigInteger, nullable=False),
    sa.Index("activity_seen", "agentos", "what", "seen"),
)
sessions = sa.Table(
    "sessions",
    schema,
    sa.Column("agentos", sa.Text, primary_key=True),
    sa.Column("digest", sa.BigInteger, primary_key=True),
    sa.Column("first", sa.BigInteger, nullable=False),
    sa.Column("last", sa.BigInteger, nullable=False),
    sa.Column("runs", sa.BigInteger, nullable=False),
    sa.Column("cost", sa.Text, nullable=False),  # 10**-18 USD: beyond 9 USD no integer of SQLite holds it
    sa.Index("sessions_last", "agentos", "last"),
)
budgets = sa.Table(
    "budgets",
    schema,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("definition", sa.Text, nullable=False),
    sa.Column("since", sa.BigInteger, nullable=False),
)
spending = sa.Table(
    "spending",
    schema,
    sa.Column("budget", sa.Text, primary_key=True),
    sa.Column("start", sa.BigInteger, primary_key=True),
    sa.Column("spent", sa.Text, nullable=False),  # 10**-18 USD
)
allowances = sa.Table(
    "allowances",
    schema,
    sa.Column("budget", sa.Text, primary_key=True),
    sa.Column("start", sa.BigInteger, primary_key=True),
    sa.Column("value", sa.Text, primary_key=True),
    sa.Column("spent", sa.Text, nullable=False),  # 10**-18 USD in `AMOUNT_DIGITS` digits, so that text sorts as numbers
    sa.Index("allowances_spent", "budget", "start", "spent"),
)
"""Spending of each value of a dimension, for budgets that each value has"""
AMOUNT_DIGITS: Final = 40
ADDED: Final = {
    "budgets": 2,
    "spending": 2,
    "waiting": 2,
    "layouts": 4,
    "surfaces": 6,
    "ended": 6,
    "allowances": 7,
    "daily": 8,
}
"""Tables that came with a later schema than the first."""
daily = sa.Table(
    "daily",
    schema,
    sa.Column("agentos", sa.Text, primary_key=True),
    sa.Column("digest", sa.Text, primary_key=True),  # of day, metric and labels
    sa.Column("day", sa.BigInteger, nullable=False),
    sa.Column("metric", sa.Text, nullable=False),
    sa.Column("labels", sa.Text, nullable=False),
    sa.Column("value", sa.Text, nullable=False),
    sa.Index("daily_day", "agentos", "day"),
)
"""Sums of counters on each day in UTC, counted from the epoch: the day on which a call or run began"""
waiting = sa.Table(
    "waiting",
    schema,
    sa.Column("agentos", sa.Text, primary_key=True),
    sa.Column("trace", sa.Text, primary_key=True),
    sa.Column("span", sa.Text, primary_key=True),  # 64 bits without a sign
    sa.Column("session", sa.BigInteger),
    sa.Column("since", sa.BigInteger, nullable=False),
    sa.Column("data", sa.Text, nullable=False),
    sa.Index("waiting_since", "agentos", "since"),
)
"""LLM calls that are counted, but for tokens and cost: they wait for the detail of their run"""
surfaces = sa.Table(
    "surfaces",
    schema,
    sa.Column("agentos", sa.Text, primary_key=True),
    sa.Column("surface", sa.Text, primary_key=True),
    sa.Column("position", sa.Text, nullable=False),
)
"""How far each list of an AgentOS was read, beside its traces"""
ended = sa.Table(
    "ended",
    schema,
    sa.Column("agentos", sa.Text, primary_key=True),
    sa.Column("surface", sa.Text, primary_key=True),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Index("ended_at", "agentos", "surface", "at"),
)
"""Rows of those lists that are counted"""
