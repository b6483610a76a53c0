"""The file of `--web.config.file`: exporter-toolkit's own good and bad files, and what is ours."""

import ssl
from pathlib import Path

import pytest

from exporter.config.web import RateLimit, WebConfig, load_web
from exporter.core.errors import ConfigError
from tests.harness.web import TLS

CERT = f"cert_file: {TLS}/server.crt\n  key_file: {TLS}/server.key"
HASHED = "$2y$04$v.bCs6c3PhbKwOCAtTINcOWwgDcMWkAyrWVTlgqzEAtqHCKuAWkVu"


def indented(path: Path) -> str:
    return "".join(f"    {line}\n" for line in path.read_text().splitlines())


INLINE = f"cert: |\n{indented(TLS / 'server.crt')}  key: |\n{indented(TLS / 'server.key')}"


def load(tmp_path: Path, text: str) -> WebConfig:
    path = tmp_path / "web.yml"
    path.write_text(text)
    return load_web(path)


def tls(more: str = "", cert: str = CERT) -> str:
    return f"tls_server_config:\n  {cert}\n" + "".join(f"  {line}\n" for line in more.splitlines())


GOOD = {
    # exporter-toolkit's test table, web/tls_config_test.go
    "empty": "",
    "noAuth": tls("client_auth_type: VerifyClientCertIfGiven"),
    "blocking": tls("client_auth_type: RequireAndVerifyClientCert"),
    "tlsInline": tls(cert=INLINE),
    "allCiphers": tls(
        "cipher_suites:\n- TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256\n- TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384\n"
        "- TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256\n- TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384\n"
        "- TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256\n- TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256\n"
        "- TLS_AES_128_GCM_SHA256\n- TLS_AES_256_GCM_SHA384\n- TLS_CHACHA20_POLY1305_SHA256\n"
        "- TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA\n- TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA\n"
        "- TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA\n- TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA"
    ),
    "someCiphers": tls(
        "cipher_suites:\n- TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256\n- TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384\n"
        "min_version: TLS12\nmax_version: TLS12"
    ),
    "noOrder": tls(
        "cipher_suites:\n- TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384\n- TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256\n"
        "prefer_server_cipher_suites: false\nmin_version: TLS12\nmax_version: TLS12"
    ),
    "someCurves": tls("min_version: TLS13\ncurve_preferences:\n- CurveP521"),
    "noHTTP2": tls("cipher_suites: [TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]\nmax_version: TLS12")
    + "http_server_config:\n  http2: false\n",
    "headers": "http_server_config:\n  headers:\n    X-Frame-Options: deny\n"
    "    Strict-Transport-Security: max-age=31536000; includeSubDomains\n    X-Content-Type-Options: nosniff\n"
    "    X-XSS-Protection: 1\n    Content-Security-Policy: \"default-src 'self' *.test.example.net\"\n",
    "requireAndVerify": tls(f"client_auth_type: RequireAndVerifyClientCert\nclient_ca_file: {TLS}/ca.crt"),
    "clientSans": tls(
        f"client_auth_type: RequireAndVerifyClientCert\nclient_ca_file: {TLS}/ca.crt\nclient_allowed_sans: [one, two]"
    ),
    "rateLimitOff": "rate_limit:\n  interval: 0\n  burst: 0\n",
    "rateLimit": 'rate_limit:\n  interval: "1s"\n  burst: 0\n',
    "users": tls() + f"basic_auth_users:\n  alice: {HASHED}\n",
    "usersNoTLS": f"basic_auth_users:\n  alice: {HASHED}\n  bob: {HASHED}\n",
    # Ours
    "null": "# nothing yet\n",
    "onlyVersions": "tls_server_config:\n  min_version: TLS12\n",
    "emptySections": "tls_server_config:\nhttp_server_config:\nbasic_auth_users:\nrate_limit:\n",
    "request": tls("client_auth_type: RequestClientCert"),
    "inlineAuthority": tls(f"client_auth_type: VerifyClientCertIfGiven\nclient_ca: |\n{indented(TLS / 'ca.crt')}"),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_files(tmp_path: Path, name: str) -> None:
    config = load(tmp_path, GOOD[name])
    if config.tls is not None:
        assert config.tls.context().minimum_version >= ssl.TLSVersion.TLSv1_2


BAD = {
    # exporter-toolkit's test table
    "junk": ("hWkNKCp3fvIx3jKnsaBI\nTuEjdwNS8A2vYdFbiKqr\n", "the top level must be a mapping"),
    "junk_key": ("tls_server_config:\n  cert_filse: x\n", "cert_filse: unknown key; did you mean cert_file?"),
    "certPath_empty": ('tls_server_config:\n  cert_file: ""\n  key_file: server.key\n', "give cert or cert_file"),
    "cert_empty": ('tls_server_config:\n  cert: ""\n  key_file: server.key\n', "give cert or cert_file"),
    "keyPath_empty": ('tls_server_config:\n  cert_file: server.crt\n  key_file: ""\n', "give key or key_file"),
    "key_empty": ('tls_server_config:\n  cert_file: server.crt\n  key: ""\n', "give key or key_file"),
    "both_empty": (
        'tls_server_config:\n  cert_file: ""\n  key_file: ""\n  client_auth_type: "x"\n', "give cert or cert_file"
    ),
    "certPath_invalid": (f"tls_server_config:\n  cert_file: somefile\n  key_file: {TLS}/server.key\n", "No such file"),
    "keyPath_invalid": (f"tls_server_config:\n  cert_file: {TLS}/server.crt\n  key_file: somefile\n", "No such file"),
    "both_invalid": ("tls_server_config:\n  cert_file: somefile\n  key_file: somefile\n", "No such file"),
    "noAuth": (tls("client_ca_file: /dev/null"), "client_auth_type: is needed with client_ca_file"),
    "clientCAs_invalid": (
        tls("client_auth_type: RequireAndVerifyClientCert\nclient_ca_file: somefile"), "client_ca_file: cannot read"
    ),
    "user_list_invalid": ("basic_auth_users:\n  john: doe\n", "the password of user 1: is no bcrypt hash"),
    "inventedCiphers": (tls("cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA2048]"), "no cipher suite that Go"),
    "inventedCurves": (tls("curve_preferences: [CurveP257]"), "'CurveP257' is none of CurveP256"),
    "wrongTLSVersion": (tls("min_version: TLS111"), "'TLS111' is no version of TLS"),
    "noHTTP2Cipher": (
        tls("cipher_suites: [TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384]\nmax_version: TLS12"), "HTTP/2 needs TLS_ECDHE_RSA"
    ),
    "content_type_options": (
        "http_server_config:\n  headers:\n    X-Content-Type-Options: sniff\n", "must be nosniff, not 'sniff'"
    ),
    "frame_options": ("http_server_config:\n  headers:\n    X-Frame-Options: foo\n", "must be deny or sameorigin"),
    "extra_header": ("http_server_config:\n  headers:\n    Content-Type: foo\n", "headers.Content-Type: unknown key"),
    # What exporter-toolkit takes, and we cannot honour
    "requireAny": (tls("client_auth_type: RequireAnyClientCert"), "RequireAnyClientCert is not supported"),
    "allCurves": (tls("curve_preferences: [CurveP256, CurveP384, CurveP521, X25519]"), "can set one curve only"),
    "oldTLS": (tls("min_version: TLS10"), "TLS10 is broken and not supported"),
    "http2": ("http_server_config:\n  http2: true\n", "HTTP/2 is not served here"),
    # Ours
    "upside_down": (tls("min_version: TLS13\nmax_version: TLS12"), "max_version: is lower than min_version"),
    "unknown_auth": (tls("client_auth_type: Maybe"), "'Maybe' is none of NoClientCert"),
    "sans_alone": (tls("client_allowed_sans: [x]"), "client_allowed_sans: needs client_auth_type"),
    "foreign_key": (
        f"tls_server_config:\n  cert_file: {TLS}/server.crt\n  key_file: {TLS}/client.key\n", "KEY_VALUES_MISMATCH"
    ),
    "no_pem": (f"tls_server_config:\n  cert_file: {TLS}/make.sh\n  key_file: {TLS}/server.key\n", "OpenSSL refuses"),
    "inline_no_pem": ("tls_server_config:\n  cert: x\n  key: t0psecret\n", "OpenSSL refuses"),
    "users_list": ("basic_auth_users: [t0psecret]\n", "must be a mapping of names to hashes"),
    "user_with_colon": (f"basic_auth_users:\n  'a:t0psecret': {HASHED}\n", "basic_auth_users: unknown key"),
    "negative_burst": ("rate_limit: {interval: 1s, burst: -1}\n", "rate_limit.burst: must be a whole number"),
    "interval": ("rate_limit: {interval: soon}\n", "rate_limit.interval: 'soon' is not a duration"),
    "header_lines": ('http_server_config: {headers: {X-XSS-Protection: "1\\r\\nset-cookie: x"}}\n', "printable ASCII"),
    "twice": ("rate_limit: {}\nrate_limit: {}\n", "given twice"),
    "alias": ("a: &t0psecret 1\nb: *t0psecret\n", "an alias"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files(tmp_path: Path, name: str) -> None:
    text, message = BAD[name]
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, text)
    said = " | ".join(refused.value.problems)
    assert message in said
    assert all(problem.startswith(f"{tmp_path}/web.yml: ") for problem in refused.value.problems)
    assert "t0psecret" not in said
    assert "doe" not in said


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    text = tls("min_version: TLS9\ncurve_preferences: [X]") + "rate_limit: {interval: x}\nbasic_auth_users: {a: b}\n"
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, text)
    assert len(refused.value.problems) == 4


@pytest.mark.parametrize("path", ["nowhere.yml", "."])
def test_a_file_that_cannot_be_read(tmp_path: Path, path: str) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load_web(tmp_path / path)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    for name in ("server.crt", "server.key"):
        (tmp_path / name).write_bytes((TLS / name).read_bytes())
    config = load(tmp_path, "tls_server_config: {cert_file: server.crt, key_file: server.key}\n")
    assert config.tls is not None
    assert config.tls.files == (tmp_path / "server.crt", tmp_path / "server.key")


def test_what_is_read(tmp_path: Path) -> None:
    config = load(tmp_path, "rate_limit: {interval: 500ms, burst: 3}\n" + GOOD["headers"] + GOOD["usersNoTLS"])
    assert config.rate_limit == RateLimit(0.5, 3)
    assert ("X-XSS-Protection", "1") in config.headers
    assert list(config.users) == ["alice", "bob"]
    assert HASHED not in repr(config)


def test_no_inline_key_shows(tmp_path: Path) -> None:
    assert "PRIVATE KEY" not in repr(load(tmp_path, GOOD["tlsInline"]))
