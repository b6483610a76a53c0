"""An exporter's web server behind TLS and a password, and clients of it."""

from __future__ import annotations

import ssl
from pathlib import Path

import bcrypt
import httpx

TLS = Path(__file__).parents[1] / "tls"
"""An authority, a server's and a client's certificate of it; `make.sh` there made them."""
USER, PASSWORD = "prometheus", "S3CRET-of-the-scrapes"
HASHED = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()


def guarded(file: Path, *, cert: str = f"{TLS}/server.crt", key: str = f"{TLS}/server.key", more: str = "") -> Path:
    """Write a file for `--web.config.file`: a certificate of the client, a password, and `more` keys of TLS."""
    file.write_text(
        f"tls_server_config:\n  cert_file: {cert}\n  key_file: {key}\n  client_auth_type: RequireAndVerifyClientCert\n"
        f"  client_ca_file: {TLS}/ca.crt\n{more}basic_auth_users:\n  {USER}: {HASHED}\n"
    )
    return file


def context(*authorities: Path) -> ssl.SSLContext:
    """What the client shows and believes: `authorities`, by default that of `tests/tls`."""
    made = ssl.create_default_context(cafile=None if authorities else TLS / "ca.crt")
    for authority in authorities:
        made.load_verify_locations(authority)
    made.load_cert_chain(TLS / "client.crt", TLS / "client.key")
    return made


def client(*authorities: Path) -> httpx.Client:
    """Return a client that the server takes."""
    return httpx.Client(verify=context(*authorities), auth=(USER, PASSWORD), timeout=30, trust_env=False)
