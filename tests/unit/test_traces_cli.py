"""`agentos-exporter traces`: its flags, and what needs no AgentOS."""

from collections.abc import Iterator

import pytest

from exporter.cli import main as cli
from exporter.cli.traces import app, texts
from exporter.cli.traces.rewrite import rewrite
from tests.harness.commands import surroundings


@pytest.fixture(autouse=True)
def own_surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with surroundings(monkeypatch):
        yield


def test_plain():
    assert texts.plain("a\tb\nc\x9b\ud800 ü 東") == "a    b\\nc\\x9b\\ud800 ü 東"
    assert texts.plain("a\r\nb\rc", lines=True) == "a\nb\\rc"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ([], ["list"]),
        (["--limit", "3"], ["list", "--limit", "3"]),
        (["--user", "list"], ["list", "--user", "list"]),
        (["--url", "u", "show", "id"], ["show", "--url", "u", "id"]),
        (["--url=u", "sessions"], ["sessions", "--url=u"]),
        (["--stats", "--limit", "3"], ["sessions", "--limit", "3"]),
        (["--trace-id", "id", "--url", "u"], ["show", "--url", "u", "--", "id"]),
        (["--help"], ["--help"]),
        (["show", "id"], ["show", "id"]),
        (["--content", "show", "id"], ["show", "--content", "id"]),
    ],
)
def test_rewrite(given, meant):
    assert rewrite(given) == meant


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "--url", "ftp://x"], "--url: a URL starts with http:// or https://"),
        (["list"], "give --url"),
        (["list", "--url", "http://x", "--tls.ca-file", "x.pem"], "makes no sense with an http:// url"),
        (["list", "--url", "https://x", "--tls.ca-file", "nowhere.pem"], "tls: No such file"),
        (["list", "--url", "http://x", "--token-file", "nowhere"], "cannot read nowhere"),
        (["list", "--url", "http://x", "--token-env", "NOT_SET_ANYWHERE"], "names no environment variable that is set"),
        (["list", "--limit", "0"], "--limit: '0' is not a whole number"),
        (["list", "--since", "yesterday"], "neither a duration"),
        (["list", "--timeout", "0s"], "longer than 0s"),
        (["list", "--status", "FINE"], "none of OK, ERROR, UNSET"),
        (["list", "--token-file", "a", "--token-env", "b"], "not allowed with"),
        (["show"], "TRACE_ID"),
    ],
)
def test_usage(arguments, message, capsys):
    assert cli.main(["traces", *arguments]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.out == ""
    assert "Traceback" not in said.err


def test_an_interrupt_ends_with_130(monkeypatch):
    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "run", interrupted)
    assert cli.main(["traces", "list"]) == 130
