"""The command line as a process of its own: what it imports, what it refuses, and how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta

import pytest

from tests.harness.commands import VERSION, without_settings
from tests.harness.seed import seed


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    without_settings(monkeypatch)


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


def test_what_need_not_know_agno_does_not_import_it():
    script = """
import sys
from exporter.cli.main import main
for arguments in (["--version"], ["metrics"], ["run", "--help"], ["traces", "--help"]):
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
from exporter.service.daemon import running

async def read(config):
    async with running(config) as daemon:
        (poller,) = daemon.pollers
        while not daemon.site.ready():
            await asyncio.sleep(0.01)
        assert (poller.health.outcome, poller.source.stats.traces) == ("ok", 3), (poller.health, poller.source.stats)
        await poller.survey()

flags = {"config_file": sys.argv[1], "listen_address": "127.0.0.1:0"}
asyncio.run(read(config.load(flags, {})))
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


def test_python_m_exporter():
    done = exporter("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert VERSION.fullmatch(done.stdout)


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
    assert "stopped" not in done.stderr  # it never started


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
from exporter.service import daemon
from exporter.cli.main import main
async def run(*_):
    raise RuntimeError("boom")
daemon.run = run
sys.exit(main(["run", "--agentos.url", "http://x", "--state", "memory"]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "level=error" in done.stderr
    assert "boom" in done.stderr


@pytest.mark.parametrize("command", ["run", "check-config", "traces"])
def test_a_client_that_cannot_be_made_is_one_line_without_secrets(command):
    script = """
import sys
from exporter.cli.main import main
from exporter.sources.api import source as agentos
def refuse(*_, **__):
    raise RuntimeError("no client for http://user:pass/word@proxy:3128 with Bearer s3cr3t-of-the-tests")
agentos.AgentOSSource.__init__ = refuse
where = ["list", "--url", "http://x"] if sys.argv[1] == "traces" else ["--agentos.url", "http://x"]
where += ["--state", "memory"] if sys.argv[1] == "run" else []
sys.exit(main([sys.argv[1], *where]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, command], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == (2 if command == "traces" else 1)
    assert done.stdout == ""
    said = done.stderr.splitlines()[-1]
    assert said.startswith("error: agentos x: cannot be read as it is configured: no client for http://")
    assert "pass" not in done.stderr
    assert "s3cr3t" not in done.stderr
    assert "Traceback" not in done.stderr


def test_what_nobody_foresaw_is_one_line_without_secrets():
    script = """
import sys
from exporter.metrics import reference
from exporter.cli.main import main
def refuse():
    raise RuntimeError("Bearer s3cr3t-of-the-tests")
reference.markdown = refuse
sys.exit(main(["metrics", "--format", "markdown"]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: this should not happen")
    assert "s3cr3t" not in done.stderr


# The rest


def test_a_closed_pipe_is_no_error():
    command = f"{sys.executable} -m exporter metrics --format json | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, timeout=60, check=False)
    assert done.stderr == b""
    assert done.stdout == b"[\n"


def test_output_that_cannot_be_encoded_is_escaped():
    done = exporter("run", "--frobnic\u00e4te", PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
