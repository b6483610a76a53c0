"""The web server behind TLS, a client's certificate and a password, as Prometheus and OpenSSL see it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.harness.exporter import RunningExporter
from tests.harness.prometheus import RunningPrometheus
from tests.harness.tools import tools
from tests.harness.web import PASSWORD, TLS, USER, client, guarded

NOBODY = {"nobody": "http://127.0.0.1:9"}
"""An AgentOS that is not there: /metrics is served all the same."""


NAMES = ("one", "two")


COPIES = 10


def copies(port: int) -> dict[str, object]:
    """Name one address so many times: scrapes then come often, and each has time, however slow the machine is."""
    return {
        "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": {"copy": str(copy)}} for copy in range(COPIES)]
    }


def openssl(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    program = shutil.which("openssl") or pytest.skip("openssl is not installed")
    return subprocess.run([program, *arguments], input=text, capture_output=True, text=True, check=False, timeout=60)


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Make a certificate that nobody signed but itself, with its key."""
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    made = openssl(
        *("req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "2", "-subj", f"/CN={name}"),
        *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)),
    )
    assert made.returncode == 0, made.stderr
    return cert, key


@pytest.mark.prometheus
@pytest.mark.parametrize("binary", tools("prometheus"))
def test_no_scrape_fails_while_certificates_are_swapped(binary: str, tmp_path: Path) -> None:
    pairs = [certificate(tmp_path, name) for name in NAMES]
    (believed := tmp_path / "believed.crt").write_text("".join(cert.read_text() for cert, _ in pairs))
    cert, key = tmp_path / "tls.crt", tmp_path / "tls.key"

    def swap(number: int) -> None:
        # In the order of cert-manager's users, and in the other; between the two, the files do not fit.
        for file, new in sorted(zip((cert, key), pairs[number % 2], strict=True), reverse=number % 4 > 1):
            file.write_text(new.read_text())

    swap(0)
    file = guarded(tmp_path / "web.yml", cert=str(cert), key=str(key))
    scrape = {
        "scheme": "https",
        "tls_config": {
            "ca_file": str(believed),
            "cert_file": str(TLS / "client.crt"),
            "key_file": str(TLS / "client.key"),
        },
        "basic_auth": {"username": USER, "password": PASSWORD},
    }
    with (
        RunningExporter(tmp_path, NOBODY, web=(file, client(believed))) as exporter,
        RunningPrometheus(binary, tmp_path, scrape_interval="5s", scrape=scrape | copies(exporter.port)) as prometheus,
    ):
        number = 0
        while number < 50 or (prometheus.value("min(count_over_time(up[5m]))") or 0) < 2:
            number += 1
            swap(number)
            with (
                client(believed) as one,  # a new connection, as Prometheus makes it where the old one ended
                one.stream("GET", f"{exporter.base_url}/metrics") as page,
            ):
                assert page.status_code == 200
                shown = page.extensions["network_stream"].get_extra_info("ssl_object")
                assert ("commonName", NAMES[number % 2]) in [field for (field,) in shown.getpeercert()["subject"]]
        assert prometheus.value("count(up)") == COPIES
        assert prometheus.value("min(min_over_time(up[5m]))") == 1
        assert exporter.total("agentos_exporter_web_config_last_reload_successful") == 1
        logs = exporter.logs
    assert logs.count('reason="read anew"') >= 25
    assert PASSWORD not in logs


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_old_protocols_are_refused(version: str, tmp_path: Path) -> None:
    """OpenSSL itself is told to allow them, so it is the server that refuses."""
    file = guarded(tmp_path / "web.yml")
    shown = ("-cert", f"{TLS}/client.crt", "-key", f"{TLS}/client.key", "-CAfile", f"{TLS}/ca.crt")
    with RunningExporter(tmp_path, NOBODY, web=(file, client())) as exporter:
        place = ("-connect", f"127.0.0.1:{exporter.port}", *shown)
        old = openssl("s_client", *place, version, "-cipher", "ALL:@SECLEVEL=0")
        assert old.returncode != 0
        assert "New, (NONE), Cipher is (NONE)" in old.stdout
        new = openssl("s_client", *place, "-tls1_2", "-verify_return_error", text="Q\n")
        assert new.returncode == 0, new.stderr
        assert "Verification: OK" in new.stdout
