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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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
    assert sorted(name for name in taken if name.startswith("requirements/")) == [
        "requirements/build.txt",
        "requirements/runtime.txt",
        "requirements/sbom.txt",
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

    @property
    def user(self) -> tuple[int, int]:
        """The image's user and group."""
        user, group = map(int, self.stage.last("USER").split(":"))
        return user, group

    def options(self, *, as_user: bool = True, **variables: str) -> dict[str, object]:
        """As the image's user where that is possible: root alone may change it."""
        user, group = self.user
        drop: dict[str, object] = {}
        if as_user and os.geteuid() == 0 and _readable(self.replay.root, user):
            drop = {"user": user, "group": group, "extra_groups": []}
        folder = self.replay.path(self.stage.folder)
        return {"env": self.environment | variables, "cwd": folder, "stdin": subprocess.DEVNULL, **drop}

    def sealed(self, scratch: Path) -> list[str]:
        """What stands before a program, to run it as `docker run --read-only --cap-drop ALL --tmpfs /tmp` would.

        Every file system that is there is read-only, but for the volume, and for `scratch` in the place of /tmp.
        """
        if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], check=False).returncode != 0:
            pytest.skip("needs root that may mount")
        user, group = self.user
        volume = self.replay.path(self.stage.last("VOLUME"))
        # An interpreter in root's own home takes one privilege, which lets it read everything and write nothing.
        caps = "-all" if _readable(self.replay.root, user) else "-all,+dac_read_search"
        flags = f"--inh-caps={caps} --ambient-caps={caps} --bounding-set={caps} --clear-groups --no-new-privs"
        mounts = f"""
            while read -r _ _ _ _ point _; do
                mount -o remount,bind,ro "$(printf %b "$point")"
            done </proc/self/mountinfo
            for pair in {volume}:{volume} {scratch}:/tmp; do
                mount --bind "${{pair%:*}}" "${{pair#*:}}"
                mount -o remount,bind,rw "${{pair#*:}}"
            done
            cd {volume}
            exec setpriv --reuid={user} --regid={group} {flags} -- "$@"
        """
        return ["unshare", "--mount", "--propagation", "private", "sh", "-euc", mounts, "sh"]

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
    # Nor /tmp, in whose place a test puts another.
    folder = Path(tempfile.mkdtemp(prefix="agentos-exporter-image-", dir=memory() or "/var/tmp"))
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


def pinned(name: str) -> dict[str, str]:
    """The distributions of a lock that this Python takes, by their normal names, with their versions."""
    lines = (ROOT / "requirements" / name).read_text().replace("\\\n", "").splitlines()
    found = [Requirement(line.partition("--hash")[0]) for line in lines if line and line[0] not in "# "]
    taken = [one for one in found if one.marker is None or one.marker.evaluate()]
    return {canonicalize_name(one.name): str(one.specifier).removeprefix("==") for one in taken}


@pytest.mark.slow
def test_its_bill_of_materials_names_all_that_is_installed(image: Image) -> None:
    bill = json.loads(image.replay.path("/opt/agentos-exporter/sbom.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    named = {canonicalize_name(one["name"]): one["version"] for one in bill["components"]}
    named.pop("setuptools", None)  # Python's own environments have it, before 3.12
    assert named == pinned("runtime.txt") | {"agentos-exporter": __version__}
    # The next build from the same sources writes the same file.
    assert "serialNumber" not in bill
    assert "timestamp" not in bill["metadata"]


@pytest.mark.slow
def test_it_writes_to_its_volume_alone(image: Image) -> None:
    """As user 65532 on a read-only root; the first line shows that this would refuse anything else."""
    scratch = image.replay.root.parent / "tmp"
    scratch.mkdir()
    scratch.chmod(0o1777)
    volume = image.replay.path(image.stage.last("VOLUME"))
    places = [volume, Path("/tmp"), volume.parent, Path("/var/tmp"), Path("/dev/shm"), image.replay.path("/opt")]
    tried = "; ".join(f"touch {place}/tried 2>/dev/null && echo {place} || true" for place in places)
    done = subprocess.run([*image.sealed(scratch), "sh", "-c", tried], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(volume), "/tmp"]
    # Another test may have left a state that is root's.
    for path in (*volume.iterdir(), *scratch.iterdir()):
        path.unlink()

    port = free_port()
    variables = {"AGENTOS_EXPORTER_AGENTOS_URL": "http://127.0.0.1:9"}
    argv = image.stage.argv("CMD")
    with served(image, port, *argv, before=image.sealed(scratch), **variables) as process:
        state = Path(f"/proc/{process.pid}/status").read_text()
        uids, caps = (re.findall(rf"^{key}:\t(.*)$", state, re.MULTILINE) for key in ("Uid", "CapEff"))
        assert uids == ["\t".join(["65532"] * 4)]
        assert int(caps[0], 16) in {0, 4}  # none, or to read
        assert httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).status_code == 200
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
        assert process.returncode == 0, output
        assert "Read-only file system" not in output
    assert list(scratch.iterdir()) == []
    assert {path.name for path in volume.iterdir()} <= {
        f"{DEFAULT_STATE.name}{end}" for end in ("", ".lock", "-wal", "-shm")
    }


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
def served(
    image: Image, port: int, *arguments: str, before: Sequence[str] = (), **variables: str
) -> Iterator[subprocess.Popen[str]]:
    """ENTRYPOINT with these arguments, ready on another port than the image's own; what stands before it is root's."""
    assert f":{DEFAULT_PORT}" in arguments
    argv = [f":{port}" if word == f":{DEFAULT_PORT}" else word for word in arguments]
    with subprocess.Popen(
        [*before, *image.program([*image.stage.argv("ENTRYPOINT"), *argv])],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **image.options(as_user=not before, AGENTOS_EXPORTER_STATE=image.replay.here(str(DEFAULT_STATE)), **variables),
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
