"""The systemd unit: systemd understands every line of it, finds it well sealed, and it starts what is installed."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from exporter.cli.main import main
from exporter.config import DEFAULT_PORT, DEFAULT_STATE

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "deploy/systemd/agentos-exporter.service"
SOCKET = UNIT.with_suffix(".socket")
EXPOSURE = 12
"""Of 100, as `systemd-analyze security` counts: network and AF_UNIX are what is left."""


def unit(text: str) -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(interpolation=None, strict=False, delimiters=("=",))
    parsed.optionxform = str
    parsed.read_string(text)
    return parsed


def service() -> configparser.SectionProxy:
    return unit(UNIT.read_text())["Service"]


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed (Debian: systemd)")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def verify(text: str, folder: Path, socket: str = "") -> str:
    """What systemd has to say about a unit whose program is there, and about its socket."""
    file = folder / UNIT.name
    (program, *_) = shlex.split(service()["ExecStart"])
    file.write_text(text.replace(program, "/bin/true"))
    if socket:
        (folder / SOCKET.name).write_text(socket)
    done = analyze("verify", "--man=no", str(file), *([str(folder / SOCKET.name)] if socket else []))
    return done.stdout + done.stderr


def test_systemd_understands_every_line(tmp_path: Path) -> None:
    assert verify(UNIT.read_text(), tmp_path) == ""


def test_it_would_say_what_it_does_not_understand(tmp_path: Path) -> None:
    said = verify(UNIT.read_text().replace("ProtectSystem=strict", "ProtectSystem=stricter\nProtectAll=yes"), tmp_path)
    assert "stricter" in said
    assert "ProtectAll" in said


def test_what_is_commented_out_is_right_too(tmp_path: Path) -> None:
    text, count = re.subn(r"^#(?=\w+=)", "", UNIT.read_text(), flags=re.MULTILINE)
    assert count == 4
    assert verify(text, tmp_path) == ""


def drop_in() -> str:
    """What the socket's comments show for the service."""
    return "".join(f"{line}\n" for line in re.findall(r"^#   (.*)$", SOCKET.read_text(), re.MULTILINE))


def test_the_socket_is_the_services_own(tmp_path: Path) -> None:
    text = SOCKET.read_text()
    assert verify(UNIT.read_text(), tmp_path, text) == ""
    assert "Strem" in verify(UNIT.read_text(), tmp_path, text.replace("ListenStream", "ListenStrem"))
    assert unit(text)["Socket"]["ListenStream"] == str(DEFAULT_PORT)
    assert unit(drop_in())["Unit"]["Requires"] == SOCKET.name


def test_the_drop_in_for_the_socket_is_right(tmp_path: Path) -> None:
    folder = tmp_path / f"{UNIT.name}.d"
    folder.mkdir()
    words = shlex.split(service()["ExecStart"])
    (folder / "override.conf").write_text(drop_in().replace(words[0], "/bin/true"))
    # A second ExecStart= would be refused: a service of this type has one.
    assert verify(UNIT.read_text(), tmp_path, SOCKET.read_text()) == ""
    assert shlex.split(unit(drop_in())["Service"]["ExecStart"]) == [*words, "--web.systemd-socket"]


def test_the_web_config_and_what_it_names_lie_in_one_folder() -> None:
    text = UNIT.read_text()
    (path,) = re.findall(r"--web\.config\.file (\S+),", text)
    assert path == f"/run/credentials/{UNIT.name}/web.yml"
    given = re.findall(r"^#LoadCredential=([^:]+):", text, re.MULTILINE)
    assert given == ["prod-token", "web.yml", "server.crt", "server.key"]
    assert all(name in text.partition("--web.config.file")[2] for name in given[1:])


def test_it_is_well_sealed() -> None:
    done = analyze("security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", "--json=short", str(UNIT))
    assert done.returncode == 0, done.stdout + done.stderr
    open_to = {load["name"] for load in json.loads(done.stdout) if load["set"] is False and load["exposure"]}
    assert open_to == {
        "DeviceAllow=",
        "IPAddressDeny=",
        "PrivateNetwork=",
        "ProcSubset=",
        "RestrictAddressFamilies=~AF_(INET|INET6)",
        "RestrictAddressFamilies=~AF_UNIX",
        "RootDirectory=/RootImage=",
    }


def test_its_state_folder_is_the_exporters_default() -> None:
    assert Path("/var/lib", service()["StateDirectory"], DEFAULT_STATE.name) == DEFAULT_STATE


def test_a_credential_is_there_only_while_it_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So check-config comes after the start."""
    (path,) = re.findall(r"token_file: (\S+)$", UNIT.read_text(), re.MULTILINE)
    name, *_ = re.findall(r"^#LoadCredential=([^:]+):", UNIT.read_text(), re.MULTILINE)
    assert path == f"/run/credentials/{UNIT.name}/{name}"
    config = tmp_path / "agentos-exporter.yml"
    config.write_text(f"agentos: [{{name: prod, url: 'https://agentos.example.com', token_file: {path}}}]")
    assert main(["check-config", "--config.file", str(config)]) != 0
    assert path in capsys.readouterr().err
    text = (ROOT / "docs/deployment.md").read_text()
    assert text.index("systemctl enable --now agentos-exporter") < text.index("bin/agentos-exporter check-config")
    assert "a new token needs `systemctl restart agentos-exporter`" in text


def test_its_command_is_one_that_the_exporter_takes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    program, command, *flags = shlex.split(service()["ExecStart"])
    assert (Path(program).name, command) == ("agentos-exporter", "run")
    config = tmp_path / "agentos-exporter.yml"
    config.write_text("agentos: [{name: prod, url: http://agentos.example.com}]")
    given = [str(config) if word.endswith(".yml") else word for word in flags]
    assert given != flags
    assert main(["check-config", *given]) == 0
    assert f"state               {DEFAULT_STATE}" in capsys.readouterr().out
    assert service()["ExecReload"] == "/bin/kill -HUP $MAINPID"
