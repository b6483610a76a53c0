"""Alerts on what the exporter can see, and on the exporter itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from deploy.mixin.alerts.alert import CRITICAL, INFO, WARNING, Alert, last_value
from deploy.mixin.promql import AGENTOS, TARGET, by, number, seconds
from deploy.mixin.settings import Settings


def _unreachable(settings: Settings) -> Iterator[Alert]:
    yield Alert(
        "AgentOSUnreachable",
        f"{last_value('agentos_up', AGENTOS)} == 0\nunless\n{_disbelieved(settings)}",
        CRITICAL,
        "{{ $labels.agentos }} cannot be read",
        "Polls of {{ $labels.agentos }} fail. What runs there meanwhile is counted once it can be read again; "
        "until then metrics, budgets and alerts know nothing of it.",
        "agentos-exporter",
        lasts=settings.unreachable_for,
        when="polls of an AgentOS fail for {unreachable_for}",
    )


def _disbelieved(settings: Settings) -> str:
    polls = by(AGENTOS, 'increase(agentos_exporter_polls_total{outcome="silent_empty"}[15m])')
    return f"{polls} >= {number(settings.silent_empty_min_polls)}"


def _silent_empty(settings: Settings) -> Iterator[Alert]:
    yield Alert(
        "AgentOSSilentEmpty",
        f"{_disbelieved(settings)}\nand\n{last_value('agentos_up', AGENTOS)} == 0",
        CRITICAL,
        "{{ $labels.agentos }} answers, but shows no traces",
        '{{ $labels.agentos }} answered about {{ $value | printf "%.0f" }} polls in 15m with an empty page, '
        "although traces are known to exist: "
        "its database fails, the token may no longer see them, or all were deleted.",
        "agentos-exporter",
        when="{silent_empty_min_polls} empty answers in 15m are not believed",
    )


def _stalled(settings: Settings) -> Iterator[Alert]:
    last = last_value("agentos_exporter_last_success_timestamp_seconds", AGENTOS)
    # Failing polls are AgentOSUnreachable. A process whose very first poll hangs knows no success yet. The lag says
    # nothing: it grows as well while nobody uses the AgentOS.
    yield Alert(
        "AgentOSPollStalled",
        f"(\n  time() - {last} > {number(seconds(settings.stalled_after))}\n  unless\n"
        f"  {last_value('agentos_up', AGENTOS)} == 0\n)\nor\n"
        f"{last_value('agentos_exporter_polls_total', AGENTOS, how='sum')} == 0",
        CRITICAL,
        "{{ $labels.agentos }} is no longer polled",
        "The exporter runs, and no poll of {{ $labels.agentos }} has ended for a while, neither well nor badly. "
        "Its metrics stand still.",
        "agentos-exporter",
        lasts=settings.stalled_for,
        labels={"what": "polls"},
        when="no poll has ended for {stalled_after}; `warning`: a backlog is read for {behind_for}",
    )
    yield Alert(
        "AgentOSPollStalled",
        f"{last_value('agentos_exporter_catching_up', AGENTOS)} == 1",
        WARNING,
        "Reading {{ $labels.agentos }} does not keep up",
        f"For {settings.behind_for} a backlog of {{{{ $labels.agentos }}}} has been read without an end. Nothing "
        "is lost, but until it is read, and up to 65m longer, no alert on rates or costs of this AgentOS can fire.",
        "agentos-exporter",
        lasts=settings.behind_for,
        labels={"what": "backlog"},
    )


def _hidden(settings: Settings) -> Iterator[Alert]:
    def increase(metric: str) -> str:
        return by(AGENTOS, f"increase({metric}[6h])")

    hidden, spans = increase("agentos_exporter_hidden_spans_total"), increase("agentos_spans_total")
    unknown, traces = increase('agentos_traces_total{root_kind="unknown"}'), increase("agentos_traces_total")
    yield Alert(
        "AgentOSHiddenSpans",
        f"{hidden}\n/\n(\n  {hidden}\n  + {spans}\n  or\n  {hidden}\n)\n> {number(settings.hidden_ratio)}\nand\n"
        f"{hidden} >= {number(settings.hidden_min_spans)}",
        WARNING,
        "{{ $labels.agentos }} hides {{ $value | humanizePercentage }} of its spans",
        "{{ $value | humanizePercentage }} of the spans that {{ $labels.agentos }} announced in the last 6h "
        "never showed: "
        "what they did, cost and failed is missing from all sums.",
        "agentos-exporter",
        labels={"what": "spans"},
        when="{hidden_ratio} of the spans, or {hidden_traces_ratio} of the traces, of 6h never showed",
    )
    yield Alert(
        "AgentOSHiddenSpans",
        f"{unknown}\n/\n{traces}\n> {number(settings.hidden_traces_ratio)}\nand\n"
        f"{unknown} >= {number(settings.hidden_min_traces)}",
        WARNING,
        "{{ $value | humanizePercentage }} of the traces of {{ $labels.agentos }} show no spans",
        "{{ $value | humanizePercentage }} of the traces of {{ $labels.agentos }} in the last 6h never showed "
        "any span: "
        "what they did, cost and failed is missing from all sums.",
        "agentos-exporter",
        labels={"what": "traces"},
    )


def _limited(_: Settings) -> Iterator[Alert]:
    yield Alert(
        "AgentOSSeriesLimited",
        f"{by((*TARGET, 'metric', 'label'), 'increase(agentos_exporter_series_limited_total[1h])')} > 0",
        INFO,
        "{{ $labels.metric }} has reached its limit",
        'About {{ $value | printf "%.0f" }} increments of {{ $labels.metric }} in the last hour went to the value '
        "`other`"
        "{{ with $labels.label }} of its label {{ . }}{{ end }}. Sums stay exact, details are lost.",
        "agentos-exporter",
        (),
        when="names beyond the limits were counted as `other`",
    )


def _leaders(settings: Settings) -> Iterator[Alert]:
    # Two minutes bridge a restart and a handover. After a crash a leader is replaced within three leases.
    leads = "agentos_exporter_leader[2m]"
    yield Alert(
        "AgentOSExporterNoLeader",
        f"{by(AGENTOS, f'max_over_time({leads})', how='max')} == 0",
        CRITICAL,
        "No replica of agentos-exporter reads {{ $labels.agentos }}",
        "Replicas of agentos-exporter run, and none of them reads {{ $labels.agentos }}: its metrics are absent, "
        "and no other alert about it can fire. What happens meanwhile is counted once one reads it.",
        "agentos-exporter",
        lasts=settings.leader_for,
        labels={"what": "none"},
        when="no replica of the exporter reads an AgentOS for {leader_for}; `warning`: several do",
    )
    yield Alert(
        "AgentOSExporterNoLeader",
        f"{by(AGENTOS, f'min_over_time({leads})')} > 1",
        WARNING,
        "{{ $value }} replicas of agentos-exporter say that they read {{ $labels.agentos }}",
        "{{ $value }} replicas of agentos-exporter show the metrics of {{ $labels.agentos }}, though one alone "
        "can hold its lease: in Prometheus they mix, or are added twice.",
        "agentos-exporter",
        lasts=settings.leader_for,
        labels={"what": "several"},
    )


def _push(settings: Settings) -> Iterator[Alert]:
    def pushes(outcome: str) -> str:
        return by((*TARGET, "target"), f"increase(agentos_exporter_push_total{{outcome{outcome}}}[15m])")

    failed, taken = pushes('!="ok"'), pushes('="ok"')
    yield Alert(
        "AgentOSExporterPushFailing",
        f"{failed} > 0\nunless\n{taken} > 0",
        WARNING,
        "{{ $labels.target }} takes no metrics",
        'About {{ $value | printf "%.0f" }} pushes to {{ $labels.target }} failed in the last 15m, and none was '
        "taken whole. Counters catch up with the next one that is; until then it knows nothing new of any AgentOS.",
        "agentos-exporter",
        (),
        settings.push_failing_for,
        when="pushes to a target fail, and none of 15m was taken whole, for {push_failing_for}",
    )


def _down(settings: Settings) -> Iterator[Alert]:
    job = settings.exporter_job
    operator = "=" if re.fullmatch(r"[\w:/-]+", job) else "=~"
    target = f'up{{job{operator}"{job}"}}'
    down = (
        f"(\n  {target} == 0\n  or\n  (\n    avg_over_time({target}[15m]) < {number(settings.exporter_flap_ratio)}\n"
        f"    and\n    changes({target}[15m]) >= {number(settings.exporter_flap_changes)}\n  )\n)"
    )
    # Where a replica leads, another one that is down blinds nobody.
    led = f"on ({', '.join(TARGET)})\n{by(TARGET, 'agentos_exporter_leader', how='max')} == 1"
    who = "agentos-exporter{{ with $labels.instance }} on {{ . }}{{ end }}"
    name, board = "AgentOSExporterDown", "agentos-exporter"
    yield Alert(
        name,
        f"{down}\nunless {led}\nor\nabsent({target})",
        CRITICAL,
        "agentos-exporter{{ with $labels.instance }} {{ . }}{{ end }} is down",
        f"Prometheus cannot scrape {who}, only now and then, or has no such target: "
        "no other alert about AgentOS can fire. What happens meanwhile is counted when it is back.",
        board,
        (),
        settings.exporter_down_for,
        when=(
            "an exporter cannot be scraped, goes up and down (answers less than {exporter_flap_ratio} of the "
            "scrapes of 15m), or there is none; `warning`: it is a replica, and others read"
        ),
    )
    yield Alert(
        name,
        f"{down}\nand {led}",
        WARNING,
        "The replica {{ $labels.instance }} of agentos-exporter is down",
        f"Prometheus cannot scrape {who}, or only now and then. Other replicas read what it read; "
        "if they fail too, nobody does.",
        board,
        (),
        settings.exporter_down_for,
    )


ALERTS: Final = (_unreachable, _silent_empty, _stalled, _hidden, _limited, _push, _leaders, _down)
