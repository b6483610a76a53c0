"""The image: hadolint is content; its steps, replayed in an empty folder, make a program that runs as they say."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from exporter import REVISION_VARIABLE, __version__
from exporter.config import DEFAULT_PORT, DEFAULT_STATE
from tests.harness.agentos import free_port
from tests.harness.dockerfile import Replay, Stage, context, stages
from tests.harness.process import answers, eventually

# One image for all of them, on whichever worker.
pytestmark = pytest.mark.xdist_group("deploy_image")

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "Dockerfile").read_text()
COMPOSE = ROOT / "deploy/compose/exporter"
REVISION = "0123456789abcdef0123456789abcdef01234567"


def test_hadolint_is_content() -> None:
    hadolint = shutil.which("hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()]))
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_nothing_but_the_program_is_in_the_context(tmp_path: Path) -> None:
    taken = context(ROOT, tmp_path)
    assert {name.split("/")[0] for name in taken} == {
        "LICENSE",
        "README.md",
        "exporter",
        "pyproject.toml",
        "requirements",
    }
    assert [name for name in taken if name.startswith("requirements/")] == [
        "requirements/build.txt",
        "requirements/runtime.txt",
    ]
    assert not [name for name in taken if name.endswith(".pyc")]


# --- Replayed -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Image:
    """What the steps made, and how a container of it starts a program."""

    replay: Replay
    stage: Stage

    @property
    def environment(self) -> dict[str, str]:
        """Of a container: nothing of this process's own."""
        path = self.replay.here(self.stage.environment["PATH"])
        return self.stage.environment | {"PATH": path, "HOME": "/nonexistent"}

    def program(self, argv: list[str]) -> list[str]:
        found = shutil.which(argv[0], path=self.environment["PATH"])
        assert found is not None
        assert Path(found).is_relative_to(self.replay.root), f"{found} is not the image's own"
        return [found, *argv[1:]]

    def options(self, **variables: str) -> dict[str, object]:
        """As the image's user where that is possible: root alone may change it."""
        user, _, group = self.stage.last("USER").partition(":")
        drop: dict[str, object] = {}
        if os.geteuid() == 0 and _readable(self.replay.root, int(user)):
            drop = {"user": int(user), "group": int(group), "extra_groups": []}
        folder = self.replay.path(self.stage.folder)
        return {"env": self.environment | variables, "cwd": folder, "stdin": subprocess.DEVNULL, **drop}

    def call(self, *argv: str) -> str:
        done = subprocess.run(
            self.program(list(argv)), capture_output=True, text=True, check=False, timeout=120, **self.options()
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def _readable(root: Path, user: int) -> bool:
    """Whether another user may start the interpreter that the environment was made with."""
    python = root / "opt/agentos-exporter/bin/python"
    if not all(folder.stat().st_mode & 0o001 for folder in python.resolve().parents):
        return False
    done = subprocess.run((python, "-c", ""), user=user, group=user, extra_groups=[], capture_output=True, check=False)
    return done.returncode == 0


def memory() -> str | None:
    """A folder in memory, where it is large enough and may hold programs: thousands of small files are made here."""
    place = "/dev/shm"
    try:
        there = os.statvfs(place)
    except OSError:
        return None
    fits = there.f_bavail * there.f_frsize > 1 << 30 and there.f_favail > 50_000
    return place if fits and not there.f_flag & os.ST_NOEXEC and os.access(place, os.W_OK) else None


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    # Not pytest's folder: that is closed to other users.
    folder = Path(tempfile.mkdtemp(prefix="agentos-exporter-image-", dir=memory()))
    folder.chmod(0o755)
    try:
        replay = Replay(folder / "root", folder / "context")
        replay.root.mkdir()
        replay.source.mkdir()
        context(ROOT, replay.source)
        for stage in stages(TEXT):
            replay.run(stage, {"REVISION": REVISION, "VERSION": __version__})
        if os.geteuid() == 0:
            user, _, group = stage.last("USER").partition(":")
            os.chown(replay.path(stage.folder), int(user), int(group))
        yield Image(replay, stage)
    finally:
        shutil.rmtree(folder)


@pytest.mark.slow
def test_the_program_says_what_it_was_built_from(image: Image) -> None:
    said = image.call(*image.stage.argv("ENTRYPOINT"), "version")
    assert f"agentos_exporter, version {__version__} (branch: , revision: {REVISION})" in said
    assert image.stage.environment[REVISION_VARIABLE] == REVISION
    assert image.stage.labels["org.opencontainers.image.version"] == __version__
    assert image.stage.labels["org.opencontainers.image.revision"] == REVISION


@pytest.mark.slow
def test_it_has_the_program_and_no_installer(image: Image) -> None:
    code = "import importlib.util as u, exporter; print(exporter.__file__, u.find_spec('pip'), u.find_spec('pytest'))"
    file, *absent = image.call("python", "-c", code).split()
    assert Path(file).is_relative_to(image.replay.path("/opt/agentos-exporter"))
    assert absent == ["None", "None"]
    assert len(image.call(*image.stage.argv("ENTRYPOINT"), "metrics").splitlines()) > 50


@pytest.mark.slow
def test_a_container_serves_is_well_and_stops(image: Image) -> None:
    """ENTRYPOINT with CMD on an AgentOS that is not there, and the HEALTHCHECK beside it."""
    port = free_port()
    check = image.program([word.replace(f":{DEFAULT_PORT}/", f":{port}/") for word in image.stage.health()])
    assert subprocess.run(check, check=False, capture_output=True, timeout=30, **image.options()).returncode != 0

    with served(image, port, *image.stage.argv("CMD"), AGENTOS_EXPORTER_AGENTOS_URL="http://127.0.0.1:9") as process:
        assert subprocess.run(check, check=False, timeout=30, **image.options()).returncode == 0
        assert Path(image.replay.here(str(DEFAULT_STATE))).is_file()
        # A port without a host is every interface: other containers have to reach it.
        with socket.create_connection((socket.gethostbyname(socket.gethostname()), port), timeout=5):
            pass
        process.send_signal(signal.Signals[image.stage.last("STOPSIGNAL")])
        output, _ = process.communicate(timeout=30)
        assert process.returncode == 0, output


@pytest.mark.slow
def test_the_documented_command_reloads(image: Image) -> None:
    """As an editor saves: another file of the same name, which a folder that is mounted shows."""
    text = (ROOT / "docs/deployment.md").read_text()
    (documented,) = re.findall(r"exec agentos-exporter (python -c .*)$", text, re.MULTILINE)
    assert f"docker compose exec agentos-exporter {documented}\n" in (COMPOSE / "agentos-exporter.yml").read_text()
    folder = image.replay.path(DEFAULT_STATE.parent.parent.as_posix()) / "config"
    shutil.copytree(COMPOSE, folder)
    file = folder / "agentos-exporter.yml"
    config = yaml.safe_load(file.read_text().replace("http://agentos:7777", "http://127.0.0.1:9"))
    file.write_text(json.dumps(config))  # JSON is YAML
    port = free_port()

    def limit() -> str | None:
        page = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
        found = re.search(r"^agentos_budget_limit_usd\{.*\} (.*)$", page, re.MULTILINE)
        return found and found[1]

    with served(image, port, "run", "--config.file", str(file), "--web.listen-address", f":{DEFAULT_PORT}") as process:
        eventually(lambda: limit() == str(float(config["budgets"][0]["limit_usd"])), "the budget is there")
        config["budgets"][0]["limit_usd"] = 4321.5
        saved = folder / "saved"
        saved.write_text(json.dumps(config))
        saved.rename(file)
        # In a container the exporter is the first process.
        command = shlex.split(documented.replace("kill(1,", f"kill({process.pid},"))
        image.call(*command)
        eventually(lambda: limit() == "4321.5", "the new limit is in force")


@contextmanager
def served(image: Image, port: int, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """ENTRYPOINT with these arguments, ready on another port than the image's own."""
    assert f":{DEFAULT_PORT}" in arguments
    argv = [f":{port}" if word == f":{DEFAULT_PORT}" else word for word in arguments]
    with subprocess.Popen(
        image.program([*image.stage.argv("ENTRYPOINT"), *argv]),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **image.options(AGENTOS_EXPORTER_STATE=image.replay.here(str(DEFAULT_STATE)), **variables),
    ) as process:
        try:
            eventually(lambda: process.poll() is not None or answers(f"http://127.0.0.1:{port}/-/ready"), "it is ready")
            assert process.poll() is None, process.stdout.read()
            yield process
        finally:
            process.kill()


@pytest.mark.slow
def test_the_stack_can_start_its_agentos_from_it(image: Image) -> None:
    said = image.call("python", "-m", "exporter.demo.system", "--help")
    for flag in ("--host", "--port", "--folder", "--rate"):
        assert flag in said
