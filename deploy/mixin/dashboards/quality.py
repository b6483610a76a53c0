"""Quality: how evaluations end, each against its past."""

from __future__ import annotations

from deploy.mixin.dashboards import parts
from deploy.mixin.dashboards.board import Board, Row, Variable
from deploy.mixin.dashboards.panels import Panel, Query, label, series, sized, stat, table, value
from deploy.mixin.dashboards.parts import total
from deploy.mixin.settings import Settings

RUNS = "agentos_eval_runs_total"
SCORE = "agentos_eval_score"
SCALES = "Scales differ: accuracy goes from 0 to 10, agent_as_judge and reliability from 0 to 1."
EMPTY = "no evaluations"


def board(_: Settings) -> Board:
    """The board for whoever changes a prompt or a model."""
    return Board(
        parts.QUALITY,
        "Quality",
        f"Runs and scores of evaluations, by component and evaluation, against their past. {SCALES}",
        (
            parts.JOB,
            parts.AGENTOS,
            Variable("eval_type", "Kind", f"{RUNS}{{@}}"),
            Variable("component", "Component", f"{RUNS}{{@}}"),
            Variable("name", "Evaluation", f"{RUNS}{{@}}"),
        ),
        (Row("In the shown range", _now()), Row("Over time", _over_time()), Row("Each evaluation", (_each(),))),
        period="now-7d",
    )


def _mean(by: str, window: str, *, offset: str = "") -> str:
    """The mean score over a window, that may have ended some time ago."""
    part, whole = (
        f"sum by ({by}) (increase({SCORE}_{part_name}{{@}}[{window}]{offset}))" for part_name in ("sum", "count")
    )
    return f"{part} / ({whole} > 0)"


def _now() -> tuple[Panel, ...]:
    def score(title: str, kind: str, top: int) -> Panel:
        mean = f"{total(f'{SCORE}_sum', only=_kind(kind))} / ({total(f'{SCORE}_count', only=_kind(kind))} > 0)"
        return stat(
            title, f"Mean of {kind}, from 0 to {top}.", mean, unit="none", empty=EMPTY, decimals=2, width=6, height=4
        )

    return (
        stat("Runs", "Runs of evaluations.", total(RUNS), unit="locale", empty=EMPTY, decimals=0, width=6),
        score("Accuracy", "accuracy", 10),
        score("Judged", "agent_as_judge", 1),
        score("Reliability", "reliability", 1),
    )


def _kind(kind: str) -> str:
    return f'eval_type="{kind}"'


def _over_time() -> tuple[Panel, ...]:
    by = "eval_type, component, name"
    return sized(
        series(
            "Mean score of a day, and of the week before it",
            f"At each moment. Dashed: the week that ended a day before. {SCALES}",
            Query(_mean(by, "1d"), "{{component}}: {{name}} ({{eval_type}})"),
            Query(_mean(by, "7d", offset=" offset 1d"), "{{component}}: {{name}} ({{eval_type}}), usual"),
            unit="none",
            empty=EMPTY,
            overrides=(parts.DASHED,),
            decimals=2,
            width=16,
        ),
        series(
            "Runs of evaluations per hour",
            "By kind.",
            Query(f"3600 * {parts.rate(RUNS, 'eval_type')}", "{{eval_type}}"),
            empty=EMPTY,
            width=8,
        ),
        height=9,
    )


def _each() -> Panel:
    by = "agentos, component, name, eval_type"
    day, week = _mean(by, "1d"), _mean(by, "7d", offset=" offset 1d")
    return table(
        "Evaluations",
        f"The last day, the week before it, and the difference. Performance has no score. {SCALES}",
        label("agentos", "AgentOS"),
        label("component", "Component"),
        label("name", "Evaluation"),
        label("eval_type", "Kind"),
        value("Runs in the shown range", total(RUNS, by), "locale", decimals=0),
        value("Score of the day", day, "none", decimals=2),
        value("Of the week before", week, "none", decimals=2),
        value("Change", f"{day} - ({week})", "none", decimals=2),
        sort="Change",
        descending=False,
        empty=EMPTY,
        width=24,
        height=10,
    )
