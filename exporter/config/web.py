"""The file of `--web.config.file`, in the format of Prometheus's exporter-toolkit: TLS, passwords, headers, rate limit.

Its documentation (docs/web-configuration.md there) is the contract. What Python's ssl module and this server cannot
honour is refused by its name.
"""

from __future__ import annotations

import contextlib
import os
import re
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml

from exporter.config.files import content, head, parse_path, path_shown, reason
from exporter.config.secrets import Secret
from exporter.config.values import integer, parse_duration, parse_switch
from exporter.core.document import Problems, RefusedError, Table, attempt, compose, is_null, kind, quoted, scalar
from exporter.core.errors import ConfigError

_DEPTH: Final = 8
_TLS_KEYS: Final = (
    *("cert", "key", "client_ca", "cert_file", "key_file", "client_auth_type", "client_ca_file"),
    *("client_allowed_sans", "min_version", "max_version", "cipher_suites", "prefer_server_cipher_suites"),
    "curve_preferences",
)
_ENABLING: Final = ("cert", "key", "client_ca", "cert_file", "key_file", "client_auth_type", "client_ca_file")
"""Keys of which any one asks for TLS, as exporter-toolkit has it."""
_VERSIONS: Final = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_OLD_VERSIONS: Final = ("TLS10", "TLS11")
_CLIENT_AUTH: Final = {
    "NoClientCert": ssl.CERT_NONE,
    # Any certificate and none is accepted, which is the same as not asking.
    "RequestClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_UNVERIFIED: Final = ("RequireAnyClientCert", "RequireClientCert")
_TLS13_CIPHERS: Final = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
"""Suites of TLS 1.3, which are always on, in Go as here."""
_CIPHERS: Final = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
}
"""Go's names of the suites that `tls.CipherSuites()` lists for TLS 1.2, and OpenSSL's."""
_HTTP2_CIPHERS: Final = ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")
_CURVES: Final = {"CurveP256": "prime256v1", "CurveP384": "secp384r1", "CurveP521": "secp521r1", "X25519": "X25519"}
_HEADERS: Final[Mapping[str, tuple[str, ...]]] = {
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
    "Content-Security-Policy": (),
}
"""Headers that may be set, and the values that each may have; none named: any."""
_BCRYPT: Final = re.compile(r"\$2[abxy]?\$(?:0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}")
_USER: Final = 256


@dataclass(frozen=True, slots=True)
class ServerTls:
    """The certificate of the server, and the certificates that it asks clients for. Texts are PEM.

    Attributes:
        client_auth: Whether a client's certificate is asked for, and whether it must be there.
        allowed_sans: Names of which a client's certificate must have one; empty: any certificate will do.
        ciphers: OpenSSL's names of the suites of TLS 1.2, in order; empty for the default.
        curve: OpenSSL's name of the only curve; None for the default.

    """

    cert: str = ""
    key: Secret | None = None
    client_ca: str = ""
    cert_file: Path | None = None
    key_file: Path | None = None
    client_ca_file: Path | None = None
    client_auth: ssl.VerifyMode = ssl.CERT_NONE
    allowed_sans: tuple[str, ...] = ()
    min_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    max_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    ciphers: tuple[str, ...] = ()
    prefer_server: bool = True
    curve: str | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it is read from."""
        return tuple(path for path in (self.cert_file, self.key_file, self.client_ca_file) if path is not None)

    def context(self) -> ssl.SSLContext:
        """A server's context with the present content of the files.

        Raises:
            OSError: A file cannot be read or is not what it should be (ssl.SSLError is an OSError).
            ValueError: The texts are no PEM.

        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version, context.maximum_version = self.min_version, self.max_version
        if self.ciphers:
            context.set_ciphers(":".join(self.ciphers))
        if not self.prefer_server:
            context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
        if self.curve is not None:
            context.set_ecdh_curve(self.curve)
        key = "" if self.key is None else self.key.reveal()
        with _as_file(self.cert, self.cert_file) as cert_file, _as_file(key, self.key_file) as key_file:
            # Without a password callback an encrypted key would ask on the terminal.
            context.load_cert_chain(cert_file, key_file, password=lambda: "")
        context.verify_mode = self.client_auth
        if self.client_ca_file is not None:
            context.load_verify_locations(cafile=self.client_ca_file)
        elif self.client_ca:
            context.load_verify_locations(cadata=self.client_ca)
        elif self.client_auth is not ssl.CERT_NONE:
            context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
        return context


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A token bucket: one request every `interval` seconds, and `burst` at once."""

    interval: float
    burst: int


@dataclass(frozen=True, slots=True)
class WebConfig:
    """The content of the file. `users` maps names to bcrypt hashes of their passwords."""

    tls: ServerTls | None = None
    headers: tuple[tuple[str, str], ...] = ()
    users: Mapping[str, Secret] = field(default_factory=dict)
    rate_limit: RateLimit | None = None


@contextlib.contextmanager
def _as_file(text: str, path: Path | None) -> Iterator[Path]:
    """A file with the text, if there is no file: OpenSSL's loader takes only files."""
    if path is not None:
        yield path
        return
    in_memory = getattr(os, "memfd_create", None)  # Linux alone has it; there may be no disk that can be written to
    with os.fdopen(in_memory("pem"), "wb") if in_memory else tempfile.NamedTemporaryFile() as file:
        file.write(text.encode())
        file.flush()
        yield Path(f"/proc/self/fd/{file.fileno()}" if in_memory else file.name)


def load_web(path: Path) -> WebConfig:
    """Read the file, and the files that it names. Raises ConfigError with every problem, each with its place."""
    try:
        raw = content(path)
    except RefusedError as error:
        raise ConfigError([str(error)]) from None
    try:
        return _read(raw, path.parent)
    except ConfigError as error:
        raise ConfigError([f"{path_shown(path)}: {problem}" for problem in error.problems]) from None


def _read(raw: bytes, base: Path) -> WebConfig:
    node = compose(raw, deepest=_DEPTH, hide=True)
    if node is None or is_null(node):
        return WebConfig()
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError([f"the top level must be a mapping (key: value), not {kind(node)}"])
    problems = Problems()
    top = _Table(node, "", ("tls_server_config", "http_server_config", "basic_auth_users", "rate_limit"), problems)
    http = top.mapping("http_server_config", ("http2", "headers")) if _given(top, "http_server_config") else None
    config = WebConfig(_tls(top, base, http2=_http2(http)), _headers(http), _users(top), _rate_limit(top))
    problems.check()
    return config


class _Table(Table):
    """A mapping of the file. Its values may be secrets: names alone are repeated."""

    def given(self, key: str) -> str:
        """The text of a key, '' if it is absent or empty: exporter-toolkit treats both the same."""
        node = self.entries.get(key)
        if node is None or is_null(node) or (isinstance(node, yaml.ScalarNode) and not node.value):
            return ""
        return self.text(key) or ""

    def names(self, key: str) -> list[tuple[str, yaml.Node]]:
        """The texts of a list."""
        if not _given(self, key):
            return []
        nodes = self.items(key, "[name]") or []
        texts = [(scalar(node, self.where(key), self.problems), node) for node in nodes]
        return [(text, node) for text, node in texts if text is not None]


def _given(table: Table, key: str) -> bool:
    node = table.entries.get(key)
    return node is not None and not is_null(node)


# --- TLS ------------------------------------------------------------------------------------------------------------


def _tls(top: _Table, base: Path, *, http2: bool) -> ServerTls | None:
    table = top.mapping("tls_server_config", _TLS_KEYS) if _given(top, "tls_server_config") else None
    if table is None:
        return None
    client_auth = _client_auth(table)
    ciphers = _ciphers(table, http2=http2)
    curve = _curve(table)
    versions = {key: attempt(_version, text, table.where(key), table.problems, table.entries[key])
                for key in ("min_version", "max_version") if (text := table.given(key))}  # fmt: skip
    lowest, highest = versions.get("min_version"), versions.get("max_version")
    if lowest is ssl.TLSVersion.TLSv1_3 and highest is ssl.TLSVersion.TLSv1_2:
        table.add("max_version", "is lower than min_version")
    prefer = attempt(parse_switch, table.given("prefer_server_cipher_suites") or "true",
                     table.where("prefer_server_cipher_suites"), table.problems)  # fmt: skip
    sans = tuple(name for name, _ in table.names("client_allowed_sans"))
    if not any(table.given(key) for key in _ENABLING):
        return None
    for text, of_file in (("cert", "cert_file"), ("key", "key_file")):
        if not table.given(text) and not table.given(of_file):
            table.add(of_file, f"is missing: give {text} or {of_file}")
    if (table.given("client_ca_file") or table.given("client_ca")) and client_auth is ssl.CERT_NONE:
        table.add("client_auth_type", "is needed with client_ca_file or client_ca: RequireAndVerifyClientCert")
    if sans and client_auth is ssl.CERT_NONE:
        table.add("client_allowed_sans", "needs client_auth_type RequireAndVerifyClientCert")
    files = {key: parse_path(base)(text) if (text := table.given(key)) else None
             for key in ("cert_file", "key_file", "client_ca_file")}  # fmt: skip
    key = table.given("key")
    tls = ServerTls(
        cert="" if files["cert_file"] else table.given("cert"),
        key=Secret(key) if key and not files["key_file"] else None,
        client_ca="" if files["client_ca_file"] else table.given("client_ca"),
        **files,
        client_auth=client_auth,
        allowed_sans=sans,
        min_version=lowest or ssl.TLSVersion.TLSv1_2,
        max_version=highest or ssl.TLSVersion.TLSv1_3,
        ciphers=ciphers,
        prefer_server=prefer is not False,
        curve=curve,
    )
    _check_files(table, tls)
    return tls


def _check_files(table: _Table, tls: ServerTls) -> None:
    """A file that cannot be read is a problem of its key; what OpenSSL refuses is one of the whole."""
    for key, path in (("cert_file", tls.cert_file), ("key_file", tls.key_file), ("client_ca_file", tls.client_ca_file)):
        try:
            if path is not None:
                head(path, 1)
        except (OSError, ValueError) as error:
            table.add(key, f"cannot read {path_shown(path)}: {reason(error)}" if path else "cannot be read")
            return
    if not (tls.cert or tls.cert_file) or not (tls.key or tls.key_file):
        return
    try:
        tls.context()
    except (OSError, ValueError) as error:
        why = getattr(error, "reason", None) or "no PEM"
        table.problems.add(
            table.path, f"OpenSSL refuses the certificate, its key or the client's authority: {why}", table.line
        )


def _client_auth(table: _Table) -> ssl.VerifyMode:
    name = table.given("client_auth_type") or "NoClientCert"
    if name in _UNVERIFIED:
        message = "is not supported, as it verifies nothing: use RequireAndVerifyClientCert with client_ca_file"
        table.add("client_auth_type", f"{name} {message}")
    elif name not in _CLIENT_AUTH:
        table.add("client_auth_type", f"{quoted(name)} is none of {', '.join(_CLIENT_AUTH)}")
    return _CLIENT_AUTH.get(name, ssl.CERT_REQUIRED)


def _version(text: str) -> ssl.TLSVersion:
    if text in _OLD_VERSIONS:
        raise RefusedError(f"{text} is broken and not supported: use TLS12 or TLS13")
    if text not in _VERSIONS:
        raise RefusedError(f"{quoted(text)} is no version of TLS: use TLS12 or TLS13")
    return _VERSIONS[text]


def _ciphers(table: _Table, *, http2: bool) -> tuple[str, ...]:
    names = table.names("cipher_suites")
    for name, node in names:
        if name not in _CIPHERS and name not in _TLS13_CIPHERS:
            table.problems.add(table.where("cipher_suites"), f"{quoted(name)} is no cipher suite that Go knows", node)
    if names and http2 and not any(name in _HTTP2_CIPHERS for name, _ in names):
        table.add("cipher_suites", f"HTTP/2 needs {' or '.join(_HTTP2_CIPHERS)}; add one, or set http2 to false")
    return tuple(_CIPHERS[name] for name, _ in names if name in _CIPHERS)


def _curve(table: _Table) -> str | None:
    names = table.names("curve_preferences")
    for name, node in names:
        if name not in _CURVES:
            message = f"{quoted(name)} is none of {', '.join(_CURVES)}"
            table.problems.add(table.where("curve_preferences"), message, node)
    if len(names) > 1:
        table.add("curve_preferences", "Python's ssl module can set one curve only: name one, or none")
    return _CURVES.get(names[0][0]) if names else None


# --- HTTP -----------------------------------------------------------------------------------------------------------


def _http2(http: _Table | None) -> bool:
    """Whether exporter-toolkit would serve HTTP/2."""
    text = http.given("http2") if http is not None else ""
    if http is None or not text:
        return True
    value = attempt(parse_switch, text, http.where("http2"), http.problems, http.entries["http2"])
    if value:
        http.add("http2", "HTTP/2 is not served here: remove the key, or set it to false")
    return value is not False


def _headers(http: _Table | None) -> tuple[tuple[str, str], ...]:
    table = http.mapping("headers", tuple(_HEADERS)) if http is not None and _given(http, "headers") else None
    if table is None:
        return ()
    for name in table.entries:
        value, allowed = table.given(name), _HEADERS[name]
        if allowed and value not in allowed:
            table.add(name, f"must be {' or '.join(allowed)}, not {quoted(value)}")
        elif not (value.isascii() and (not value or value.isprintable())):
            table.add(name, "must be printable ASCII, in one line")
    return tuple((name, value) for name in table.entries if (value := table.given(name)))


class _Users(_Table):
    """Names of users are keys of the file's own."""

    def takes(self, key: str) -> bool:
        """Any name that HTTP's basic authentication can carry."""
        return bool(key) and ":" not in key and len(key) <= _USER


def _users(top: _Table) -> dict[str, Secret]:
    node = top.entries.get("basic_auth_users")
    if node is None or is_null(node):
        return {}
    if not isinstance(node, yaml.MappingNode):
        top.add("basic_auth_users", f"must be a mapping of names to hashes of passwords, not {kind(node)}")
        return {}
    table = _Users(node, "basic_auth_users", (), top.problems)
    users: dict[str, Secret] = {}
    for place, name in enumerate(table.entries, 1):
        text = table.text(name) or ""
        if not _BCRYPT.fullmatch(text):
            # A name may be a password that lost its key: neither is repeated.
            where = f"{table.path}: the password of user {place}"
            message = "is no bcrypt hash: make one with htpasswd -nBC 10 '' | tr -d ':\\n'"
            table.problems.add(where, message, table.entries[name])
        users[name] = Secret(text)
    return users


def _rate_limit(top: _Table) -> RateLimit | None:
    table = top.mapping("rate_limit", ("interval", "burst")) if _given(top, "rate_limit") else None
    if table is None:
        return None

    def interval(text: str) -> float:
        return 0.0 if text == "0" else parse_duration(text)

    seconds = table.parsed("interval", interval) or 0.0
    burst = table.parsed("burst", integer(0, 1_000_000)) or 0
    return RateLimit(seconds, burst) if seconds else None
