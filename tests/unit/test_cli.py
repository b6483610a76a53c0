"""The command line of the daemon: what it prints, what it refuses, and how it ends."""

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta

import pytest

from exporter import __version__, cli, demo, reference
from tests.harness.seed import seed

VERSION = re.compile(
    r"agentos_exporter, version (\S+) \(branch: (\S*), revision: (\S*)\)\n"
    r"  build user:       (.*)\n"
    r"  build date:       (.*)\n"
    r"  python version:   3\.\d+\.\S+\n"
    r"  platform:         \S+\n"
)


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AGENTOS_EXPORTER_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def exporter(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "exporter", *map(str, arguments)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("spelling", ["version", "--version"])
def test_version_reads_as_prometheus_prints_it(spelling, capsys, monkeypatch):
    monkeypatch.setenv("AGENTOS_EXPORTER_REVISION", "abc123")
    assert cli.main([spelling]) == 0
    found = VERSION.fullmatch(capsys.readouterr().out)
    assert found
    assert found.groups() == (__version__, "", "abc123", "", "")


def test_what_need_not_know_agno_does_not_import_it():
    script = """
import sys
from exporter.cli import main
for arguments in (["--version"], ["metrics"], ["check-config", "--agentos.url", "http://x"], ["traces", "--help"]):
    assert main(arguments) == 0, arguments
assert not {"agno", "httpx", "apscheduler", "sqlalchemy"} & set(sys.modules), sorted(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_who_reads_tables_alone_does_without_agno(tmp_path):
    """It takes a second to import, and 40 MB."""
    script = """
import asyncio, sys
from exporter import config
from exporter.daemon import Daemon

async def read(daemon):
    await daemon.start()
    poller, source = daemon.pollers[0], daemon.sources[0]
    while not daemon.ready():
        await asyncio.sleep(0.01)
    assert (poller.health.outcome, source.stats.traces) == ("ok", 3), (poller.health, source.stats)
    await poller.survey()
    await daemon.stop()

flags = {"config_file": sys.argv[1], "listen_address": "127.0.0.1:0"}
asyncio.run(read(Daemon(config.load(flags, {}))))
assert "agno" not in sys.modules, sorted(sys.modules)
"""
    seed(f"sqlite:{tmp_path / 'agno.db'}", 3, spread=timedelta(minutes=5), prompt_bytes=(50, 100))
    file = tmp_path / "exporter.yml"
    database = f"sqlite:///{tmp_path / 'agno.db'}"
    instance = {"name": "it", "database": database}
    file.write_text(json.dumps({"state": str(tmp_path / "state.db"), "agentos": [instance]}))
    command = [sys.executable, "-c", script, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_alone_it_prints_help(capsys):
    assert cli.main([]) == 0
    out = capsys.readouterr().out
    assert all(command in out for command in ("run", "check-config", "demo", "traces", "metrics", "version"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        (["run", "--frob"], "unrecognized arguments: --frob"),
        (["run", "--log.lev", "debug"], "unrecognized arguments: --log.lev"),
        (["run", "--state"], "--state: expected one argument"),
        (["--config.file=x.yml"], "did you mean: agentos-exporter run --config.file"),
        (["metrics", "--format", "xml"], "invalid choice: 'xml'"),
        (["traces", "frob"], "invalid choice: 'frob'"),
        (["backfill", "--since", "1d"], f"backfill: not built in this version ({__version__})"),
        (["prices"], "the following arguments are required: COMMAND"),
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


def test_python_m_exporter():
    done = exporter("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert VERSION.fullmatch(done.stdout)


# Configuration


def test_check_config_says_what_it_understood_and_no_secret(tmp_path, capsys, monkeypatch):
    (tmp_path / "token").write_text("t0psecret-of-prod")
    monkeypatch.setenv("STAGING_TOKEN", "t0psecret-of-staging")
    file = tmp_path / "exporter.yml"
    file.write_text(
        """
poll_interval: 20s
state: memory
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


# The daemon


def test_run_refuses_a_bad_url():
    done = exporter("run", "--agentos.url", "http://user:t0psecret@host", "--state", "memory")
    assert done.returncode == 1
    assert done.stderr.startswith("error: --agentos.url: ")
    assert "t0psecret" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_run_refuses_a_foreign_state_file(tmp_path):
    state = tmp_path / "state.db"
    state.write_bytes(b"not a database at all, and long enough to be looked at" * 100)
    done = exporter(
        "run", "--agentos.url", "http://127.0.0.1:9", "--state", state, "--web.listen-address", "127.0.0.1:0"
    )
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert str(state) in errors[0]
    assert "Traceback" not in done.stderr


def test_run_refuses_a_taken_port(taken):
    done = exporter("run", "--agentos.url", "http://127.0.0.1:9", "--state", "memory", "--web.listen-address", f"127.0.0.1:{taken}")  # fmt: skip  # noqa: E501
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert f"127.0.0.1:{taken}" in errors[0]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_ends_with_0_at_a_signal(number):
    process = subprocess.Popen(
        [sys.executable, "-m", "exporter", "run", "--agentos.url", "http://127.0.0.1:9", "--state", "memory",
         "--web.listen-address", "127.0.0.1:0", "--log.format", "json"],
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if json.loads(line)["msg"] == "started":
                break
        process.send_signal(number)
        rest = process.stderr.read()
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    assert [json.loads(line)["msg"] for line in rest.splitlines()][-1] == "stopped"


def test_a_crash_is_one_line_of_the_log():
    script = """
import sys
from exporter import daemon
from exporter.cli import main
async def run(self):
    raise RuntimeError("boom")
daemon.Daemon.run = run
sys.exit(main(["run", "--agentos.url", "http://x", "--state", "memory"]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "level=error" in done.stderr
    assert "boom" in done.stderr


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


def test_demo_is_handed_its_arguments(monkeypatch):
    given: list[argparse.Namespace] = []
    monkeypatch.setattr(demo, "add_arguments", lambda parser: parser.add_argument("--rate", type=float), raising=False)
    monkeypatch.setattr(demo, "run", lambda options: given.append(options) or 7, raising=False)
    assert cli.main(["demo", "--rate", "2.5"]) == 7
    assert given[0].rate == 2.5


def test_an_interrupt_ends_with_130(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(reference, "markdown", interrupted)
    assert cli.main(["metrics", "--format", "markdown"]) == 130


def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -m exporter metrics --format json | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, timeout=60, check=False)
    assert done.stderr == b""
    assert done.stdout == b"[\n"


def test_output_that_cannot_be_encoded_is_escaped():
    done = exporter("run", "--frobnic\u00e4te", PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_the_revision_is_that_of_the_daemon(monkeypatch):
    from exporter import daemon

    monkeypatch.setenv("AGENTOS_EXPORTER_REVISION", "abc123")
    assert f"revision: {daemon.revision()})" in cli.version()
