"""The command line: what it prints, what it refuses, and how it ends; as a process: tests/real/test_cli.py."""

import dataclasses
import re

import pytest

from exporter import __version__, demo
from exporter.cli import main as cli
from exporter.cli.flags import DaemonFlags
from exporter.config import FLAGS, Address
from exporter.metrics import reference
from tests.harness.commands import VERSION, without_settings


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    without_settings(monkeypatch)


@pytest.mark.parametrize("spelling", ["version", "--version"])
def test_version_reads_as_prometheus_prints_it(spelling, capsys, monkeypatch):
    monkeypatch.setenv("AGENTOS_EXPORTER_REVISION", "abc123")
    assert cli.main([spelling]) == 0
    found = VERSION.fullmatch(capsys.readouterr().out)
    assert found
    assert found.groups() == (__version__, "", "abc123", "", "")


def test_alone_it_prints_help(capsys):
    assert cli.main([]) == 0
    out = capsys.readouterr().out
    assert all(command in out for command in ("run", "check-config", "demo", "traces", "metrics", "version"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frobnicate"], 'Unknown command "frobnicate"'),
        (["run", "--frob"], "Unknown option: --frob"),
        (["run", "--log.lev", "debug"], "Unknown option: --log.lev. Did you mean --log.level?"),
        (["run", "--state"], "--state requires an argument"),
        (["--config.file=x.yml"], "did you mean: agentos-exporter run --config.file"),
        (["metrics", "--format", "xml"], 'Invalid value "xml" for --format'),
        (["traces", "frob"], 'Unknown command "frob"'),
        (["backfill", "--from", "yesterday", "--output", "x"], "'yesterday' is not a date such as 2026-11-01"),
        (
            ["backfill", "--from", "2026-11-01", "--output", "x", "--rate", "0"],
            "'0' is not a number of traces a second",
        ),
        (["backfill", "--from", "2026-11-01", "--output", "x", "--step", "2m"], 'Invalid value "2m" for --step'),
        (["prices", "frob"], 'Unknown command "frob"'),
        (["run", "\x1b[31m"], r"\x1b[31m"),
    ],
)
def test_what_is_not_understood_ends_with_2_and_says_why(arguments, message, capsys):
    assert cli.main(arguments) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert "Traceback" not in said.err
    assert "\x1b" not in said.err
    assert said.out == ""


# Configuration


def test_check_config_says_what_it_understood_and_no_secret(tmp_path, capsys, monkeypatch):
    (tmp_path / "token").write_text("t0psecret-of-prod")
    monkeypatch.setenv("STAGING_TOKEN", "t0psecret-of-staging")
    file = tmp_path / "exporter.yml"
    file.write_text(
        """
poll_interval: 20s
state: memory
labels: {drop: {agentos_llm_tokens_total: [root, agent]}}
agentos:
  - {name: prod, url: "https://agentos.example.com/", token_file: token, db_ids: [main, other]}
  - {name: staging, url: "http://staging:7777", token_env: STAGING_TOKEN}
"""
    )
    assert cli.main(["check-config", "--config.file", str(file), "--web.listen-address", "127.0.0.1:9999"]) == 0
    said = capsys.readouterr()
    lines = [" ".join(line.split()) for line in said.out.splitlines()]
    for expected in (
        f"file {file}",
        "state memory: counters restart at 0 with the process",
        "listen_address 127.0.0.1:9999",
        "poll_interval 20s",
        "overlap 1m",
        "labels.drop agentos_llm_tokens_total: agent, root",
        "agentos prod",
        "url https://agentos.example.com",
        f"token from the file {tmp_path / 'token'}",
        "databases main, other",
        "agentos staging",
        "token from the environment variable STAGING_TOKEN",
        "databases all that AgentOS lists",
    ):
        assert expected in lines
    assert "t0psecret" not in said.out + said.err


def test_check_config_gives_each_problem_a_line(tmp_path, capsys):
    file = tmp_path / "exporter.yml"
    file.write_text("poll_interval: 15\noverlapp: 1m\nagentos:\n  - {name: a b, url: 'ftp://x'}\n")
    assert cli.main(["check-config", "--config.file", str(file)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("error: ") for line in lines)
    assert any("poll_interval" in line and "write 15s" in line for line in lines)


def test_check_config_warns(capsys, monkeypatch):
    monkeypatch.setenv("AGENTOS_EXPORTER_STAET", "memory")
    monkeypatch.setenv("AGENTOS_EXPORTER_REVISION", "abc")  # set by the image's build: nothing to warn of
    assert cli.main(["check-config", "--agentos.url", "http://x"]) == 0
    assert capsys.readouterr().err == (
        "warning: AGENTOS_EXPORTER_STAET: not a setting of agentos-exporter; did you mean AGENTOS_EXPORTER_STATE?\n"
    )


def test_environment_counts_and_flags_win(capsys, monkeypatch):
    monkeypatch.setenv("AGENTOS_EXPORTER_AGENTOS_URL", "http://env:1")
    monkeypatch.setenv("AGENTOS_EXPORTER_LOG_LEVEL", "debug")
    assert cli.main(["check-config", "--agentos.url", "http://flag:2"]) == 0
    out = capsys.readouterr().out
    assert "http://flag:2" in out
    assert "http://env:1" not in out
    assert re.search(r"^log +debug, ", out, re.MULTILINE)


# The rest


@pytest.mark.parametrize("form", ["markdown", "json"])
def test_metrics_print_the_catalog(form, capsys):
    assert cli.main(["metrics", "--format", form]) == 0
    assert capsys.readouterr().out == (reference.markdown() if form == "markdown" else reference.as_json())


@pytest.mark.parametrize("columns", ["80", "200", None])
def test_metrics_as_a_table(columns, capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    assert cli.main(["metrics"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, *_ in reference.table_rows():
        assert sum(line.split()[0] == name for line in lines if line) == 1
    if columns == "80":
        assert max(map(len, lines)) <= 80


def test_the_flags_of_the_daemon_are_those_of_the_configuration():
    assert [field.name for field in dataclasses.fields(DaemonFlags)] == [flag.key for flag in FLAGS]


def test_demo_is_handed_its_arguments(monkeypatch):
    given: list[demo.Options] = []
    monkeypatch.setattr(demo, "run", lambda options: given.append(options) or 7)
    assert cli.main(["demo", "--rate", "2.5", "--web.listen-address", "127.0.0.1:0"]) == 7
    assert given == [demo.Options(rate=2.5, listen_address=Address("127.0.0.1", 0))]


def test_an_interrupt_ends_with_130(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(reference, "markdown", interrupted)
    assert cli.main(["metrics", "--format", "markdown"]) == 130


def test_the_revision_is_that_of_the_daemon(monkeypatch):
    from exporter.service import daemon

    monkeypatch.setenv("AGENTOS_EXPORTER_REVISION", "abc123")
    assert f"revision: {daemon.revision()})" in cli.version()
