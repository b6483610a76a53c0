"""One alerting rule, and the expressions that several of them share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from deploy.mixin.promql import by, number, unless_past
from deploy.mixin.settings import Settings

CRITICAL: Final = "critical"


WARNING: Final = "warning"


INFO: Final = "info"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alerting rule.

    Attributes:
        board: Uid of the board that the alert links to.
        variables: Labels that the link hands to the board.
        lasts: The `for` of the rule.
        when: When it fires, for docs/alerting.md; `{name}` is the value of a setting. Of several rules with one name
            the first one has it.

    """

    name: str
    expr: str
    severity: str
    summary: str
    description: str
    board: str
    variables: tuple[str, ...] = ("agentos",)
    lasts: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    when: str = ""

    def rule(self, settings: Settings) -> dict[str, Any]:
        """The rule as Prometheus reads it."""
        query = "&".join(f"var-{label}={_value(label)}" for label in self.variables)
        return {
            "alert": self.name,
            "expr": self.expr,
            **({"for": self.lasts} if self.lasts else {}),
            "labels": {"severity": self.severity, **self.labels},
            "annotations": {
                "summary": self.summary,
                "description": self.description,
                "runbook_url": f"{settings.runbook_url}/{self.name}.md",
                "dashboard_url": f"{settings.grafana_url}/d/{self.board}" + (f"?{query}" if query else ""),
            },
        }


def _value(label: str) -> str:
    # A budget can be for all instances: then it has no label `agentos`, and the board is to show all.
    return f"{{{{ with $labels.{label} }}}}{{{{ urlquery . }}}}{{{{ else }}}}$__all{{{{ end }}}}"


def above_baseline(series: str, baseline: str, factor: float) -> str:
    """Where a recorded series is above some multiple of its baseline, or has none."""
    return f"(\n  {series} > {number(factor)} * {baseline}\n  or\n  ({series} unless {baseline})\n)"


def failing(labels: tuple[str, ...], errors: str, calls: str, window: str, ratio: float, least: float) -> str:
    """Where the share of calls that fail reaches `ratio`, with `least` errors in the window, outside of a backlog."""
    return (
        f"{by(labels, f'rate({errors}[{window}])')}\n/\n({by(labels, f'rate({calls}[{window}])')} > 0)\n"
        f">= {number(ratio)}\nand\n{by(labels, f'increase({errors}[{window}])')} >= {number(least)}\n"
        f"{unless_past(window)}"
    )


def last_value(metric: str, labels: tuple[str, ...], *, how: str = "max") -> str:
    """A gauge, through a restart of the exporter and a change of its instance."""
    return by(labels, f"last_over_time({metric}[5m])", how=how)
