"""Which proxy leads where, by the variables that clusters set."""

import pytest

from exporter.sources.api.proxies import ProxyRefused, chosen, proxy_url

PROXY = "http://proxy:3128"


@pytest.mark.parametrize(
    ("url", "exceptions"),
    [
        ("http://10.1.2.3:7777", "10.0.0.0/8"),
        ("http://10.1.2.3:7777", "192.168.0.0/16 , 10.1.2.3"),
        ("http://[fd00::1]:7777", "fd00::/8"),
        ("http://[::1]:7777", "[::1]"),
        ("http://[::1]:7777", "[::1]:7777"),
        ("http://[fd00::1]", "localhost,[fd00::]/8"),
        ("http://agentos.prod.svc", ".svc,.cluster.local"),
        ("http://agentos.example.com", "example.com"),
        ("http://agentos.example.com", "*.EXAMPLE.com"),
        ("http://example.com.", "example.com"),
        ("http://example.com:81", "example.com:81"),
        ("http://example.com", "http://example.com:80"),
        ("https://example.com", "example.com:443"),
        ("http://anything", "*"),
    ],
)
def test_what_is_reached_without_a_proxy(url, exceptions):
    environ = {"HTTP_PROXY": PROXY, "HTTPS_PROXY": PROXY, "NO_PROXY": exceptions}
    assert chosen(url, environ) is None
    assert chosen("http://elsewhere.org", environ | {"NO_PROXY": exceptions.replace("*", "x")}) == PROXY


@pytest.mark.parametrize(
    ("url", "exceptions"),
    [
        ("http://notexample.com", "example.com"),
        ("http://example.com:82", "example.com:81"),
        ("http://11.1.2.3", "10.0.0.0/8"),
        ("http://[fe80::1]", "fd00::/8"),
        ("http://name-of-10.0.0.1", "10.0.0.0/8"),
        ("http://agentos", ""),
    ],
)
def test_what_is_not(url, exceptions):
    assert chosen(url, {"http_proxy": PROXY, "no_proxy": exceptions}) == PROXY


@pytest.mark.parametrize(
    ("environ", "proxy"),
    [
        ({}, None),
        ({"HTTP_PROXY": ""}, None),
        ({"HTTPS_PROXY": PROXY}, None),
        ({"HTTP_PROXY": " proxy:3128 "}, PROXY),
        ({"HTTP_PROXY": "proxy"}, "http://proxy"),
        ({"ALL_PROXY": "socks5h://proxy:1080"}, "socks5h://proxy:1080"),
        ({"ALL_PROXY": "socks5://proxy:1080", "HTTP_PROXY": PROXY}, PROXY),
        ({"http_proxy": PROXY, "HTTP_PROXY": "http://other"}, PROXY),
        ({"HTTP_PROXY": "http://user:p%2Fw@[fd00::1]:3128"}, "http://user:p%2Fw@[fd00::1]:3128"),
    ],
)
def test_which_variable_holds(environ, proxy):
    assert chosen("http://agentos", environ) == proxy


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"HTTP_PROXY": "ftp://proxy"}, "HTTP_PROXY: has a scheme that no proxy has"),
        ({"HTTP_PROXY": ":3128"}, "HTTP_PROXY: names no host"),
        ({"HTTP_PROXY": "proxy:0"}, "HTTP_PROXY: names no host"),
        ({"http_proxy": "proxy:99999"}, "http_proxy: is no URL of a proxy"),
        ({"ALL_PROXY": "socks5://proxy:port"}, "ALL_PROXY: is no URL of a proxy"),
        ({"HTTP_PROXY": "http://[fd00::1"}, "HTTP_PROXY: is no URL of a proxy"),
        ({"HTTP_PROXY": "http://user:S3CRET/x@proxy:3128"}, "with / and @ in a password as %2F and %40"),
        ({"HTTP_PROXY": PROXY, "NO_PROXY": "10.0.0.0/99"}, "NO_PROXY: '10.0.0.0/99' is neither an address nor a range"),
        ({"HTTP_PROXY": PROXY, "NO_PROXY": "[fd00::1]:http"}, "NO_PROXY: '[fd00::1]:http' is neither"),
        ({"HTTP_PROXY": PROXY, "NO_PROXY": "example.com:http"}, "has a port that is no number"),
    ],
)
def test_what_cannot_be_used_is_refused_by_its_name_and_not_repeated(environ, says):
    with pytest.raises(ProxyRefused) as refused:
        chosen("http://agentos", environ)
    assert says in f"{refused.value.variable}: {refused.value}"
    assert "S3CRET" not in str(refused.value)


def test_no_variable_is_looked_at_without_need():
    assert chosen("http://agentos", {"HTTPS_PROXY": "ftp://x", "NO_PROXY": "10.0.0.0/99"}) is None


def test_a_url_of_a_proxy():
    assert proxy_url(" proxy:8080 ") == "http://proxy:8080"
