"""The demonstration, started as a newcomer starts it: what it shows, and that it leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.harness.agentos import free_port

ROOT = Path(__file__).resolve().parents[2]
STOPS_WITHIN = 5.0

_AUDIT = """
import os, sys

def hook(event, args):
    if event not in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        return
    address = args[0] if event.startswith("socket.get") else args[1]
    host = address[0] if isinstance(address, tuple) else address
    if not str(host).startswith(("127.", "::1", "localhost")):
        with open(os.environ["NETWORK_LOG"], "a") as log:
            log.write(f"{event} {address}\\n")

sys.addaudithook(hook)
"""


class Demo:
    """`python -m exporter demo` in a session of its own; its scratch folder lies in `folder`."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = folder / "tmp"
        self.folder.mkdir()
        self.network = folder / "network.log"
        spy = folder / "spy"
        spy.mkdir()
        (spy / "sitecustomize.py").write_text(_AUDIT)
        environment = os.environ | {
            "TMPDIR": str(self.folder),
            "PYTHONPATH": str(spy),
            "NETWORK_LOG": str(self.network),
            "HTTP_PROXY": "http://192.0.2.1:3128",  # to lead astray who listens to it
        }
        command = [sys.executable, "-m", "exporter", "demo", f"--web.listen-address=127.0.0.1:{self.port}", *flags]
        if "--agentos-port" not in " ".join(flags):  # its default may be another test's
            command.append(f"--agentos-port={free_port()}")
        self._output = (folder / "output").open("w+b")
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def output(self) -> str:
        return os.pread(self._output.fileno(), 1 << 20, 0).decode()

    def processes(self) -> list[int]:
        """All processes that name the scratch folder on their command line, this demo's children at any depth."""
        needle, found = str(self.folder).encode(), []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if needle in entry.read_bytes():
                    found.append(int(entry.parent.name))
        return found

    def wait(self, condition: Callable[[], object], what: str, *, seconds: float = 60) -> None:
        """Poll until it holds; the demo must live meanwhile."""
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"the demo ended:\n{self.output}"
            assert time.monotonic() < end, f"{what}: not within {seconds} s\n{self.output}"
            time.sleep(0.1)

    def up(self) -> None:
        self.wait(lambda: "Ctrl-C stops" in self.output, "the banner")

    def metrics(self) -> str:
        try:
            return httpx.get(f"{self.url}/metrics", trust_env=False).text
        except httpx.TransportError:
            return ""

    def stop(self, how: signal.Signals) -> float:
        """Signal the whole group, as a terminal does; the seconds until it ended."""
        began = time.monotonic()
        os.killpg(self.process.pid, how)
        self.process.wait(30)
        return time.monotonic() - began

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._output.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("looks for processes left behind in /proc")
    started: list[Demo] = []

    def begin(*flags: str) -> Demo:
        started.append(Demo(tmp_path, *flags))
        return started[-1]

    yield begin
    for demo in started:
        demo.close()


def eventually(condition: Callable[[], object], *, seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def series(text: str, name: str) -> list[tuple[dict[str, str], float]]:
    """Labels and values of the samples of a metric that are not 0."""
    lines = re.findall(rf"^{name}\{{(.*)\}} (\S+)$", text, re.MULTILINE)
    found = [(dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value)) for labels, value in lines]
    return [(labels, value) for labels, value in found if value]


def error_kinds(text: str) -> set[tuple[str, str]]:
    return {(labels["span_kind"], labels["error_type"]) for labels, _ in series(text, "agentos_error_spans_total")}


COST_KINDS = {
    ("gpt-5.4", "input", "listed"),
    ("gpt-5.4", "cache_read", "listed"),
    ("gpt-5.4", "reasoning", "listed"),
    ("claude-sonnet-4-5", "cache_read", "listed"),
    ("acme-router-7b", "output", "custom"),
}


def cost_kinds(text: str) -> set[tuple[str, str, str]]:
    found = series(text, "agentos_llm_cost_usd_total")
    return {(labels["model"], labels["token_class"], labels["cost_source"]) for labels, _ in found}


@pytest.mark.slow
def test_it_shows_a_company_at_work_without_the_network_and_leaves_nothing(start: Callable[..., Demo]) -> None:
    demo = start("--rate", "3", "--no-prometheus")
    demo.wait(lambda: series(demo.metrics(), "agentos_llm_tokens_total"), "tokens that are not 0")
    models = {"gpt-5.4", "gpt-5.4-mini", "claude-sonnet-4-5", "gemini-2.5-flash", "llama3.2:3b"}
    models |= {"acme-router-7b", "acme-guard-1b"}
    demo.wait(
        lambda: {labels["model"] for labels, _ in series(demo.metrics(), "agentos_llm_tokens_total")} == models,
        "every model",
    )
    kinds = {("tool", "other"), ("tool", "PaymentError"), ("llm", "ModelProviderError")}
    demo.wait(lambda: error_kinds(demo.metrics()) >= kinds, "errors of several kinds")
    root_kinds = {"agent", "team", "workflow"}
    demo.wait(
        lambda: {labels["root_kind"] for labels, _ in series(demo.metrics(), "agentos_runs_total")} == root_kinds,
        "agents, a team and a workflow",
    )
    demo.wait(lambda: re.search(r"^\d+:\d\d  [1-9]\d* runs ", demo.output, re.MULTILINE), "a line of live numbers")
    demo.wait(lambda: cost_kinds(demo.metrics()) >= COST_KINDS, "cost of every kind", seconds=90)
    demo.wait(
        lambda: (
            {labels["model"] for labels, _ in series(demo.metrics(), "agentos_llm_unpriced_tokens_total")}
            == {"acme-guard-1b"}
        ),
        "tokens without a price",
    )
    demo.wait(lambda: series(demo.metrics(), "agentos_budget_spent_usd"), "a budget that is spent")
    demo.wait(lambda: series(demo.metrics(), "agentos_user_cost_usd_total"), "cost by user")
    users = {labels["user"] for labels, _ in series(demo.metrics(), "agentos_user_cost_usd_total")}
    assert not any("@" in user for user in users)
    free = 'model="llama3.2:3b",provider="ollama",root="Summarizer",token_class="input"} 0.0'
    demo.wait(lambda: free in demo.metrics(), "a local model that is free")
    demo.wait(lambda: re.search(r"^\d+:\d\d .* \$\d+\.\d\d ", demo.output, re.MULTILINE), "dollars in the live line")
    explain = re.search(r"prices explain (.*)", demo.output)
    assert explain
    command = [sys.executable, "-m", "exporter", "prices", "explain", *shlex.split(explain[1])]
    assert "custom" in subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert "\x1b" not in demo.output, "control characters where no terminal is"
    assert len(demo.processes()) == 2, "the AgentOS and its leash"

    assert demo.stop(signal.SIGINT) < STOPS_WITHIN
    assert demo.process.returncode == 0
    assert "Traceback" not in demo.output
    assert demo.processes() == []
    assert list(demo.folder.iterdir()) == []
    assert not demo.network.exists(), demo.network.read_text()


def test_sigterm_stops_it(start: Callable[..., Demo]) -> None:
    demo = start("--no-prometheus")
    demo.up()
    assert demo.stop(signal.SIGTERM) < STOPS_WITHIN
    assert (demo.process.returncode, demo.processes(), list(demo.folder.iterdir())) == (0, [], [])
    assert "Traceback" not in demo.output


def test_a_signal_while_it_starts_stops_it(start: Callable[..., Demo]) -> None:
    demo = start("--no-prometheus")
    demo.wait(demo.processes, "the first child")
    assert demo.stop(signal.SIGTERM) < STOPS_WITHIN
    assert (demo.process.returncode, demo.processes(), list(demo.folder.iterdir())) == (0, [], [])
    assert "Traceback" not in demo.output


def test_no_child_outlives_a_kill(start: Callable[..., Demo]) -> None:
    demo = start()  # with Prometheus, where there is one
    demo.up()
    assert len(demo.processes()) >= 2
    demo.process.kill()
    demo.process.wait()
    assert eventually(lambda: not demo.processes()), demo.processes()
    assert eventually(lambda: not list(demo.folder.iterdir())), list(demo.folder.iterdir())


def test_the_end_of_its_agentos_ends_it_with_a_word(start: Callable[..., Demo]) -> None:
    demo = start("--no-prometheus")
    demo.up()
    server = next(pid for pid in demo.processes() if b"leash" not in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(server, signal.SIGKILL)
    assert demo.process.wait(15) == 1
    assert "error: AgentOS ended unexpectedly" in demo.output
    assert "Traceback" not in demo.output
    assert (demo.processes(), list(demo.folder.iterdir())) == ([], [])


@pytest.mark.parametrize("flag", ["--web.listen-address", "--agentos-port"])
def test_a_taken_port_is_an_error_that_names_the_flag(start: Callable[..., Demo], flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        demo = start(flag, f"127.0.0.1:{port}" if flag.startswith("--web") else str(port))
        assert demo.process.wait(30) == 1
    assert re.fullmatch(rf".*error: {flag}: cannot listen on 127\.0\.0\.1:{port}: .*\n", demo.output), demo.output
    assert (demo.processes(), list(demo.folder.iterdir())) == ([], [])


@pytest.mark.slow
def test_it_stops_by_itself_and_keeps_its_files_where_asked(start: Callable[..., Demo]) -> None:
    demo = start("--duration", "3", "--keep", "--no-prometheus")
    assert demo.process.wait(90) == 0, demo.output
    (scratch,) = demo.folder.iterdir()
    assert f"Kept: {scratch}\n" in demo.output
    assert {"state.db", "agno.db", "agentos.log"} <= {path.name for path in scratch.iterdir()}
    assert demo.processes() == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--rate", "0"), "argument --rate: '0' is not a number above 0"),
        (("--duration", "nan"), "argument --duration: 'nan' is not a number above 0"),
        (("--agentos-port", "70000"), "argument --agentos-port: '70000' is not a port"),
        (("--web.listen-address", "9777"), "argument --web.listen-address: '9777' is not a listen address"),
    ],
)
def test_flags_that_make_no_sense(start: Callable[..., Demo], flags: tuple[str, ...], message: str) -> None:
    demo = start(*flags)
    assert demo.process.wait(30) == 2
    assert message in demo.output
