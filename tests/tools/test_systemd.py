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
from exporter.config import DEFAULT_STATE

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "deploy/systemd/agentos-exporter.service"
EXPOSURE = 12
"""Of 100, as `systemd-analyze security` counts: network and AF_UNIX are what is left."""


def service() -> configparser.SectionProxy:
    parsed = configparser.ConfigParser(interpolation=None, strict=False, delimiters=("=",))
    parsed.optionxform = str
    parsed.read_string(UNIT.read_text())
    return parsed["Service"]


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed (Debian: systemd)")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def verify(text: str, folder: Path) -> str:
    """What systemd has to say about a unit whose program is there."""
    file = folder / UNIT.name
    (program, *_) = shlex.split(service()["ExecStart"])
    file.write_text(text.replace(program, "/bin/true"))
    done = analyze("verify", "--man=no", str(file))
    return done.stdout + done.stderr


def test_systemd_understands_every_line(tmp_path: Path) -> None:
    assert verify(UNIT.read_text(), tmp_path) == ""


def test_it_would_say_what_it_does_not_understand(tmp_path: Path) -> None:
    said = verify(UNIT.read_text().replace("ProtectSystem=strict", "ProtectSystem=stricter\nProtectAll=yes"), tmp_path)
    assert "stricter" in said
    assert "ProtectAll" in said


def test_what_is_commented_out_is_right_too(tmp_path: Path) -> None:
    text, count = re.subn(r"^#(?=\w+=)", "", UNIT.read_text(), flags=re.MULTILINE)
    assert count == 1
    assert verify(text, tmp_path) == ""


def test_it_is_well_sealed() -> None:
    done = analyze("security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager", "--json=short", str(UNIT))
    assert done.returncode == 0, done.stdout + done.stderr
    open_to = {one["name"] for one in json.loads(done.stdout) if one["set"] is False and one["exposure"]}
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
    (name,) = re.findall(r"^#LoadCredential=([^:]+):", UNIT.read_text(), re.MULTILINE)
    assert path == f"/run/credentials/{UNIT.name}/{name}"
    config = tmp_path / "agentos-exporter.yml"
    config.write_text(f"agentos: [{{name: prod, url: 'https://agentos.example.com', token_file: {path}}}]")
    assert main(["check-config", "--config.file", str(config)]) != 0
    assert path in capsys.readouterr().err
    text = (ROOT / "docs/deployment.md").read_text()
    assert text.index("systemctl enable --now agentos-exporter") < text.index("bin/agentos-exporter check-config")
    assert "a new token takes `systemctl restart agentos-exporter`" in text


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
