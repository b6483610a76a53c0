"""The generator of the rules: settings, their mistakes, and files that are what it makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from deploy.mixin import alerts, dashboards, recording, write
from deploy.mixin.__main__ import main
from deploy.mixin.promql import duration, number, seconds
from deploy.mixin.settings import Settings, SettingsError, changed, described, load

ROOT = Path(__file__).parents[2]


def test_shipped_files_are_what_is_generated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check", "--out", str(ROOT)]) == 0, capsys.readouterr().err


def test_check_names_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path)]) == 0
    assert main(["--check", "--out", str(tmp_path)]) == 0
    (tmp_path / write.ALERTS).write_text("groups: []\n", encoding="utf-8")
    (tmp_path / write.RECORDING).unlink()
    assert main(["--check", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 2
    assert write.ALERTS in said
    assert write.RECORDING in said


def test_settings_of_your_own(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yml"
    mine.write_text("run_success_target: 0.995\nexporter_job: 'agentos-.*'\ntool_for: 1h30m\n", encoding="utf-8")
    assert load(mine) == changed({"run_success_target": 0.995, "exporter_job": "agentos-.*", "tool_for": "1h30m"})
    assert main(["--settings", str(mine), "--out", str(tmp_path)]) == 0
    rules = {
        (rule["alert"], rule["labels"].get("long", rule["labels"]["severity"])): rule
        for group in yaml.safe_load((tmp_path / write.ALERTS).read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
    }
    assert "ratio_rate1h > 0.072\n" in rules["AgentOSRunErrorBudgetBurn", "1h"]["expr"]
    assert 'absent(up{job=~"agentos-.*"})' in rules["AgentOSExporterDown", "critical"]["expr"]
    assert rules["AgentOSToolFailing", "warning"]["for"] == "1h30m"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"run_sucess_target": 0.9}, "run_sucess_target: there is no such setting; there are exporter_job, "),
        ({"run_success_target": 99}, "run_success_target: must be a share above 0 and below 1, such as 0.05 for 5 %"),
        ({"run_success_target": True}, "run_success_target: must be a number above 0; it is True"),
        ({"burn_fast": 0.5}, "burn_fast: must be a number of at least 1; it is 0.5"),
        ({"cost_spike_floor_usd": "10"}, "cost_spike_floor_usd: must be a number above 0; it is '10'"),
        ({"cost_spike_floor_usd": float("inf")}, "cost_spike_floor_usd: must be a number above 0"),
        ({"tool_for": 5}, "tool_for: must be a duration above 0s, such as 5m; it is 5"),
        ({"tool_for": "5 minutes"}, "tool_for: '5 minutes' is no duration such as 30s, 5m, 1h30m or 7d"),
        ({"tool_for": "0s"}, "tool_for: must be a duration above 0s"),
        ({"slow_interval": "5m"}, "slow_interval: must be below 5m, or the series it makes have gaps"),
        ({"fast_interval": "3m"}, "fast_interval: must not be above slow_interval"),
        (
            {"latency_objective_seconds": 45},
            "latency_objective_seconds: must be a bucket of agentos_run_duration_seconds: 0.1,",
        ),
        ({"runaway_llm_calls": 60}, "runaway_llm_calls: must be a bucket of agentos_run_llm_calls: 1, 2, 3, 5, 8,"),
        ({"grafana_url": "grafana"}, "grafana_url: must be an address such as https://grafana.example.com"),
        ({"exporter_job": 'a"b'}, "exporter_job: must be a job name or a regular expression, without quotes"),
        ({"exporter_job": "("}, "exporter_job: must be a job name or a regular expression"),
        ({"latency_target": 0.9}, "burn_fast: at 14.4 times a budget of 10 %, no share of runs is large enough"),
    ],
)
def test_mistakes_in_settings(values: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        changed(values)
    assert str(caught.value).startswith(message)


def test_all_mistakes_are_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine.yml"
    mine.write_text("tool_for: soon\nburn_fast: 0\n", encoding="utf-8")
    assert main(["--settings", str(mine), "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == (
        f"error: {mine}: tool_for: 'soon' is no duration such as 30s, 5m, 1h30m or 7d; it is 'soon'\n"
        f"error: {mine}: burn_fast: must be a number above 0; it is 0\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [("- a\n", "must be a mapping of settings"), ("a: [\n", "no YAML"), ("a: 1\na: 2\n", "no YAML")],
)
def test_files_that_are_no_settings(tmp_path: Path, text: str, message: str) -> None:
    mine = tmp_path / "mine.yml"
    mine.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=message):
        load(mine)
    mine.write_text("# nothing\n", encoding="utf-8")
    assert load(mine) == Settings()


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--settings", str(tmp_path / "none.yml")]) == 1
    assert "No such file" in capsys.readouterr().err


def test_defaults_pass_their_own_checks_and_each_is_described() -> None:
    defaults = {name: getattr(Settings(), name) for name, _, _ in described()}
    assert changed(defaults) == Settings()
    assert all(text.endswith(".") for _, _, text in described())


def test_every_setting_changes_something() -> None:
    makers: tuple[Callable[[Settings], object], ...] = (alerts.groups, recording.groups, dashboards.files)
    before = {make: make(Settings()) for make in makers}
    for name, _, _ in described():
        other = changed({name: _other(name, getattr(Settings(), name))})
        assert any(make(other) != before[make] for make in makers), name


def _other(name: str, value: object) -> object:
    if name == "slow_interval":
        return "3m"
    if isinstance(value, str):
        return {"exporter_job": "other", "fast_interval": "30s"}.get(name, f"{value}/x" if "://" in value else "47m")
    return {"latency_objective_seconds": 20, "runaway_llm_calls": 21}.get(name, value * 1.01 if value != 0.99 else 0.98)  # type: ignore[operator]


def test_durations_and_numbers() -> None:
    assert [duration(seconds(text)) for text in ("90s", "3600s", "1h5m", "7d", "36h")] == [
        "1m30s",
        "1h",
        "1h5m",
        "1w",
        "1d12h",
    ]
    assert [number(value) for value in (5, 5.0, 0.05, 14.4)] == ["5", "5", "0.05", "14.4"]
    with pytest.raises(ValueError, match="no duration"):
        seconds("")
