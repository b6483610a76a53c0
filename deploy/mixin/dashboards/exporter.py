"""Exporter health: can these boards be believed right now?"""

from __future__ import annotations

from deploy.mixin.dashboards import parts
from deploy.mixin.dashboards.board import Board, Row
from deploy.mixin.dashboards.colors import BLUE, GREEN, GREY, ORANGE, RED, steps, words
from deploy.mixin.dashboards.panels import Column, Panel, Query, label, series, sized, stat, table, value
from deploy.mixin.dashboards.parts import rate, total
from deploy.mixin.promql import seconds
from deploy.mixin.settings import Settings

ONE = "agentos"
BUILD = "agentos_exporter_build_info{@}"
RUNNING = f"and on (job, instance) max by (job, instance) ({BUILD})"
"""Restricts metrics that every process has to exporters: with All, `$job` is every job that there is."""
KNOWN = RUNNING.replace(BUILD, f"last_over_time({BUILD}[1d])")
"""The same, also for an exporter that is down."""


def board(settings: Settings) -> Board:
    """The board for whoever runs the exporter."""
    return Board(
        parts.EXPORTER,
        "Exporter health",
        "Whether AgentOS is read completely and in time: polls, lag, hidden spans, limits, prices, the process itself.",
        (parts.JOB, parts.AGENTOS),
        (
            Row("Now", _now(settings)),
            Row("Reading AgentOS", _polls()),
            Row("What is not seen", _gaps()),
            Row("What it costs AgentOS", _requests()),
            Row("Push", _pushes()),
            Row("Series and limits", _series()),
            Row("Prices and version", _versions()),
            Row("Replicas and process", _process()),
        ),
    )


def age(metric: str) -> str:
    """Seconds since a moment that a gauge names, by AgentOS."""
    return f"time() - max by (agentos) ({metric}{{@}})"


def _never(title: str, metric: str, color: str = ORANGE) -> Column:
    """A column of what should never happen, in the shown range."""
    return value(title, total(metric, ONE), "short", colors=steps((None, GREEN), (1, color)), decimals=0)


def _increments(title: str, text: str, metric: str, color: str, *, empty: str) -> Panel:
    """A table of increments by metric and label."""
    expr = f"{total(metric, 'metric, label')} > 0"
    count = value("Increments", expr, "locale", decimals=0, colors=steps((None, color)))
    labels = (label("metric", "Metric"), label("label", "Label"))
    return table(title, text, *labels, count, sort="Increments", empty=empty, width=8, height=9)


def _now(settings: Settings) -> tuple[Panel, ...]:
    late = seconds(settings.stalled_after)
    return (
        stat(
            "Exporter scraped",
            "Whether Prometheus reached every exporter at its last scrape; after a day without, one is left out.",
            f"min(up{{@}} {KNOWN})",
            unit="none",
            empty="unknown: none in a day",
            colors=steps((None, RED), (1, GREEN)),
            mappings=[parts.UP],
        ),
        stat(
            "AgentOS",
            "Whether the last poll of every chosen AgentOS reached it and was believed.",
            "min(agentos_up{@})",
            unit="none",
            colors=steps((None, RED), (1, GREEN)),
            mappings=[parts.UP],
        ),
        stat(
            "Last successful poll",
            "Its age; the oldest of the chosen AgentOS instances.",
            f"max({age('agentos_exporter_last_success_timestamp_seconds')})",
            unit="s",
            empty="none yet",
            colors=steps((None, GREEN), (late / 5, ORANGE), (late, RED)),
            decimals=0,
        ),
        stat(
            "Lag",
            "All that ended before so long ago, less the overlap, was read. Grows also in idle times.",
            f"max({age('agentos_exporter_watermark_timestamp_seconds')})",
            unit="s",
            empty="unknown: no trace seen",
            decimals=0,
        ),
        stat(
            "Catching up",
            "Yes while a backlog is read: rates and costs then belong to the past.",
            "max(agentos_exporter_catching_up{@})",
            unit="none",
            colors=steps((None, GREEN), (1, ORANGE)),
            mappings=[words({0: ("no", GREEN), 1: ("YES", ORANGE)})],
        ),
        stat(
            "Totals survive a restart",
            "No with `state: memory`: counters then start at 0 with the process.",
            "min(agentos_exporter_state_durable{@})",
            unit="none",
            colors=steps((None, ORANGE), (1, GREEN)),
            mappings=[words({1: ("yes", GREEN), 0: ("NO", ORANGE)})],
        ),
    )


def _polls() -> tuple[Panel, ...]:
    return sized(
        series(
            "Polls per minute, by outcome",
            "silent_empty: an empty answer that was not believed, since traces that the exporter "
            "knows were gone from it too.",
            Query(f"60 * {rate('agentos_exporter_polls_total', 'outcome')}", "{{outcome}}"),
            empty="none seen",
            stack=True,
            overrides=parts.OUTCOMES,
        ),
        series(
            "Duration of polls",
            "A poll that takes longer than `poll_deadline` is given up.",
            *parts.quantiles("agentos_exporter_poll_duration_seconds"),
            unit="s",
            empty="no polls",
            overrides=parts.QUANTILES,
        ),
        series(
            "From the end of a span until it counted",
            "High values: AgentOS writes late, or a backlog is read.",
            *parts.quantiles("agentos_exporter_span_ingest_delay_seconds"),
            unit="s",
            empty="no spans",
            overrides=parts.QUANTILES,
        ),
        series(
            "Age of the last successful poll",
            "By AgentOS. It should stay near `poll_interval`.",
            Query(age("agentos_exporter_last_success_timestamp_seconds"), "{{agentos}}"),
            unit="s",
            empty="none yet",
        ),
        series(
            "Lag over time",
            "Time since the newest end of a trace that was read. Grows also while nobody uses the AgentOS.",
            Query(age("agentos_exporter_watermark_timestamp_seconds"), "{{agentos}}"),
            unit="s",
            empty="unknown: no trace seen",
        ),
        series(
            "AgentOS up, catching up",
            "1: the last poll reached AgentOS and was believed. Catching up: a backlog is read.",
            Query("max by (agentos) (agentos_up{@})", "{{agentos}} up"),
            Query("max by (agentos) (agentos_exporter_catching_up{@})", "{{agentos}} catching up"),
            unit="none",
            limits=(0, 1),
            calcs=("min", "lastNotNull"),
        ),
        width=8,
    )


def _gaps() -> tuple[Panel, ...]:
    return sized(
        series(
            "Traces with spans still hidden",
            "AgentOS hides a span until all its ancestors are written: a few for a few seconds are normal.",
            Query("max by (agentos) (agentos_exporter_open_traces{@})", "{{agentos}}"),
            unit="locale",
            decimals=0,
        ),
        table(
            "Never seen",
            "In the shown range. Hidden spans: reported by AgentOS and never shown. Orphans: counted, though an "
            "ancestor never came; only a database shows them. Values not believed: token counts and costs that are no "
            "plausible numbers. Source resets: traces were deleted, or the database was replaced.",
            label("agentos", "AgentOS"),
            value("Spans", total("agentos_spans_total", ONE), "locale", decimals=0),
            _never("Hidden spans", "agentos_exporter_hidden_spans_total"),
            _never("Orphans", "agentos_exporter_orphan_spans_total"),
            _never("Values not believed", "agentos_exporter_ignored_values_total"),
            _never("Source resets", "agentos_exporter_source_resets_total", RED),
            sort="Hidden spans",
            empty="nothing seen",
            height=8,
        ),
        table(
            "Traces not counted",
            "In the shown range. own: requests of the exporter itself; too_old: older than the ledger remembers; "
            "malformed: not what AgentOS promises; unreadable: AgentOS answers it with an error.",
            label("agentos", "AgentOS"),
            label("reason", "Reason"),
            value("Traces", total("agentos_exporter_ignored_traces_total", "agentos, reason"), "locale", decimals=0),
            sort="Traces",
            empty="none seen",
            height=8,
        ),
        width=8,
    )


def _requests() -> tuple[Panel, ...]:
    return sized(
        series(
            "Requests to AgentOS per minute",
            "By endpoint and status code; without a code: no answer came.",
            Query(f"60 * {rate('agentos_exporter_api_requests_total', 'endpoint, code')}", "{{endpoint}} {{code}}"),
            empty="none seen",
            stack=True,
        ),
        series(
            "Bytes of AgentOS's answers",
            "Bytes a second by endpoint; most of them are prompts, which the exporter does not keep.",
            Query(rate("agentos_exporter_api_response_bytes_total", "endpoint"), "{{endpoint}}"),
            unit="Bps",
            empty="none seen",
            stack=True,
        ),
        height=9,
    )


def _pushes() -> tuple[Panel, ...]:
    return (
        series(
            "Pushes per minute, by outcome",
            "Absent without `push`. A push that fails loses nothing: the next one sends the same counters.",
            Query(f"60 * {rate('agentos_exporter_push_total', 'target, outcome')}", "{{target}} {{outcome}}"),
            empty="nothing is pushed",
            stack=True,
        ),
        series(
            "Age of what a target has",
            "It should stay near the target's `interval`.",
            Query("max by (target) (agentos_exporter_push_lag_seconds{@})", "{{target}}"),
            unit="s",
            empty="nothing was taken",
        ),
    )


def _series() -> tuple[Panel, ...]:
    return (
        table(
            "Series by metric",
            "Series now; histograms count once for each set of labels.",
            label("metric", "Metric"),
            value(
                "Series",
                "max by (metric) (agentos_exporter_series{@})",
                "locale",
                decimals=0,
                bar=True,
                colors=steps((None, BLUE)),
            ),
            sort="Series",
            width=8,
            height=9,
        ),
        _increments(
            "Folded into `other` by the limits",
            "Increments in the shown range whose label value was beyond `limits`; without a label: the limit of the "
            "metric as a whole. Sums stay exact.",
            "agentos_exporter_series_limited_total",
            ORANGE,
            empty="none: all within the limits",
        ),
        _increments(
            "Shortened label values",
            "Increments under a label value that was longer than `limits.label_value_length`: its end is a digest.",
            "agentos_exporter_label_values_shortened_total",
            BLUE,
            empty="none: all short enough",
        ),
    )


def _versions() -> tuple[Panel, ...]:
    return sized(
        stat(
            "Read last",
            "When the configuration was last taken over, and when the price data in use was made.",
            _of_files(
                "1000 * max",
                configuration="agentos_exporter_config_last_reload_success_timestamp_seconds",
                prices="agentos_exporter_price_data_timestamp_seconds",
            ),
            unit="dateTimeFromNow",
            width=6,
        ),
        stat(
            "Files",
            "Whether each was taken over when it was last read; if refused, what was read before holds.",
            _of_files(
                "min",
                configuration="agentos_exporter_config_last_reload_successful",
                prices="agentos_exporter_price_file_last_reload_successful",
                discovery="agentos_exporter_discovery_last_refresh_successful",
                web="agentos_exporter_web_config_last_reload_successful",
            ),
            unit="none",
            colors=steps((None, RED), (1, GREEN)),
            mappings=[words({1: ("taken over", GREEN), 0: ("REFUSED", RED)})],
            width=6,
        ),
        table(
            "Version",
            "What runs.",
            label("version", "Version"),
            label("revision", "Revision"),
            label("python", "Python"),
            value("", "max by (version, revision, python) (agentos_exporter_build_info{@})", "none"),
            sort="Version",
        ),
        height=5,
    )


def _of_files(how: str, **metrics: str) -> Query:
    """One number for each file, of a metric of its own."""
    each = (f'label_replace({metric}{{@}}, "file", "{file}", "", "")' for file, metric in metrics.items())
    return Query(f"{how} by (file) ({' or '.join(each)})", "{{file}}", instant=True)


def _process() -> tuple[Panel, ...]:
    leads = "max by (agentos, instance) (agentos_exporter_leader{@})"
    reads = words({1: ("reads it", GREEN), 0: ("follows", GREY)})
    return sized(
        table(
            "Who reads what",
            "With the state in PostgreSQL, replicas divide the AgentOS instances among them: each is read by one.",
            label("agentos", "AgentOS"),
            label("instance", "Replica"),
            value("Now", leads, "none", mappings=(reads,), colors=steps((None, GREY), (1, GREEN))),
            sort="AgentOS",
            descending=False,
            empty="no replicas",
            height=8,
        ),
        series(
            "Memory",
            "Resident memory of each exporter process.",
            Query(f"max by (instance) (process_resident_memory_bytes{{@}} {RUNNING})", "{{instance}}"),
            unit="bytes",
        ),
        series(
            "Processor",
            "Seconds of processor time a second; 1 is one core.",
            Query(
                f"max by (instance) (rate(process_cpu_seconds_total{{@}}[$__rate_interval]) {RUNNING})", "{{instance}}"
            ),
            unit="percentunit",
        ),
        width=8,
    )
