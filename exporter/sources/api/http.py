"""Requests to one AgentOS: authorised, unsampled, counted, bounded; failures are SourceErrors that say the cure."""

from __future__ import annotations

import asyncio
import email.utils
import functools
import json
import re
import secrets
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import httpx

from exporter import __version__
from exporter.core.document import quoted, shown
from exporter.core.errors import BadAnswer, ServerFailed, SourceError, SourceTimeout, Unauthorized, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

OWN_TRACE_PREFIX: Final = "a9e0705e7b04e52d"
"""First half of the trace ids of all requests of all exporters.

An AgentOS that samples against the parent's wish stores them as traces; by this prefix they are left out of reading.
The rest of the id is random: a fixed id would grow one giant trace.
"""
ANSWER_LIMIT: Final = 256 * 1024 * 1024
"""Longest answer, in bytes, that is taken."""
_DETAIL_LENGTH: Final = 200
_KEEP_ALIVE: Final = 3.0
"""Seconds that an idle connection is kept: less than the 5 s of AgentOS's server, which would close it in our hands."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A 200: `body`, the server's `date` (seconds since the epoch, None if it sent none), and when, on our clock.

    `elapsed` is the time until the headers came, in seconds: about as long as AgentOS was busy with it.
    """

    body: bytes
    date: float | None
    elapsed: float


class TooLarge(BadAnswer):
    """An answer that is longer than it may be."""


class UnknownRoute(BadAnswer):
    """404 or 405: the route, or the object asked for, does not exist. `status` tells which."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class NoFilter(SourceError):
    """The database behind AgentOS cannot filter: its search answers 500 and names filter_expr."""


def not_counted(endpoint: str, code: str, size: int) -> None:
    """Do nothing: the default of `on_answer`."""


@functools.cache
def system_authorities() -> ssl.SSLContext:
    """One context for all clients: a context of their own would take half a megabyte and 20 ms each."""
    return httpx.create_ssl_context()


class Api:
    """One AgentOS's HTTP API. That each job has one request at a time is the caller's rule, not enforced here."""

    def __init__(
        self,
        base_url: str,
        *,
        read_token: Callable[[], str | None],
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
        proxy: str | None = None,
        monotonic: Callable[[], float],
        on_answer: Callable[[str, str, int], None] = not_counted,
    ) -> None:
        """Send requests to one AgentOS.

        Args:
            base_url: Its address.
            read_token: Returns the bearer token; None for none.
            tls: Certificates that are trusted and shown.
            server_name: The name in its certificate, if it is not the host of the address.
            proxy: URL of a proxy; None connects directly, whatever the environment says.
            monotonic: A monotonic clock, in seconds.
            on_answer: Called once for each request with the endpoint, the status code or '', and the bytes of the body.

        """
        self.base_url = base_url.rstrip("/")
        self._read_token = read_token
        self._server_name = server_name
        self._monotonic = monotonic
        self._on_answer = on_answer
        self._client = httpx.AsyncClient(
            verify=tls if tls is not None else system_authorities(),
            proxy=proxy,
            trust_env=False,  # the proxy is chosen already
            timeout=httpx.Timeout(None, connect=10.0),
            limits=httpx.Limits(max_connections=3, max_keepalive_connections=3, keepalive_expiry=_KEEP_ALIVE),
            follow_redirects=False,  # the token must not follow
            headers={
                "User-Agent": f"agentos-exporter/{__version__}",
                "Accept": "application/json",
                "Accept-Encoding": "identity",  # compressing would double AgentOS's work
            },
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def get(
        self, path: str, params: Mapping[str, Any], *, endpoint: str, timeout: float, most: int = ANSWER_LIMIT
    ) -> Answer:
        """Send a GET.

        Args:
            path: The path of the route, which begins with a slash.
            params: Parameters of the query.
            endpoint: The value of the label by which the request is counted.
            timeout: Seconds that the whole answer may take.
            most: The longest answer, in bytes.

        Raises:
            SourceError: There is no answer, or one with an error.

        """
        url = self.base_url + path
        if params:
            url += "?" + urlencode(params, doseq=True)
        return await self._send("GET", url, None, endpoint, timeout, most)

    async def post(
        self, path: str, params: Mapping[str, Any], body: object, *, endpoint: str, timeout: float
    ) -> Answer:
        """Send a POST with JSON.

        Args:
            path: The path below the address.
            params: The query parameters.
            body: What is sent as JSON.
            endpoint: The value of the label `endpoint`.
            timeout: Seconds.

        Raises:
            SourceError: See `get`.

        """
        url = self.base_url + path
        if params:
            url += "?" + urlencode(params)
        return await self._send("POST", url, json.dumps(body, separators=(",", ":")).encode(), endpoint, timeout)

    async def _send(
        self, method: str, url: str, content: bytes | None, endpoint: str, timeout: float, most: int = ANSWER_LIMIT
    ) -> Answer:
        headers = self._headers()
        if content is not None:
            headers["Content-Type"] = "application/json"
        extensions = {"sni_hostname": self._server_name} if self._server_name else {}
        code, size, started = "", 0, self._monotonic()
        try:
            async with asyncio.timeout(max(timeout, 0.001)):
                request = self._client.build_request(
                    method, url, headers=headers, content=content, extensions=extensions
                )
                response = await self._client.send(request, stream=True)
                elapsed = self._monotonic() - started
                code = str(response.status_code)
                try:
                    body = await _read(response, most)
                    if response.is_server_error:
                        await _hang_up(response)
                finally:
                    await response.aclose()
                size = len(body)
        except TimeoutError as error:
            raise SourceTimeout(f"{endpoint}: no answer within {timeout:.1f} s; AgentOS is slow or stuck") from error
        except httpx.HTTPError as error:
            raise self._unreachable(endpoint, error, answered=bool(code)) from error
        except httpx.InvalidURL as error:
            raise Unreachable(f"the URL cannot be used: {error}") from error
        finally:
            self._on_answer(endpoint, code, size)
        if code != "200":
            refusal = _refusal(endpoint, response, body)
            refusal.status = response.status_code
            raise refusal
        encoding = response.headers.get("content-encoding", "identity")
        if encoding.lower() not in _ENCODINGS:
            raise BadAnswer(
                f"{endpoint}: the answer is encoded as {quoted(encoding)}, which nobody asked for; "
                "let what stands before AgentOS pass its answers as they are"
            )
        return Answer(body, _date(response.headers.get("date")), elapsed)

    def _headers(self) -> dict[str, str]:
        headers = {"traceparent": f"00-{OWN_TRACE_PREFIX}{secrets.token_hex(8)}-{secrets.token_hex(8)}-00"}
        if (token := self._read_token()) is not None:
            headers["Authorization"] = f"Bearer {token}"
        return headers

    def _unreachable(self, endpoint: str, error: httpx.HTTPError, *, answered: bool) -> SourceError:
        text = str(error) or type(error).__name__
        if isinstance(error, httpx.TimeoutException):
            return SourceTimeout(f"{endpoint}: could not connect in time")
        if isinstance(error, (httpx.RemoteProtocolError, httpx.DecodingError)) and answered:
            return BadAnswer(f"{endpoint}: the answer was cut off or garbled ({text})")
        if isinstance(error, httpx.UnsupportedProtocol):
            return Unreachable(f"the URL cannot be used: {text}")
        if isinstance(error.__cause__, ssl.SSLError) or "CERTIFICATE_VERIFY_FAILED" in text:
            return Unreachable(f"TLS: {text}; if the certificate is from your own authority, name it in tls.ca_file")
        return Unreachable(f"{endpoint}: cannot reach {self.base_url} ({text})")


async def _hang_up(response: httpx.Response) -> None:
    """Close the connection: AgentOS's server closes it after an error, and the next request would fail."""
    stream = response.extensions.get("network_stream")
    if stream is not None:  # there is none without a network
        await stream.aclose()


async def _read(response: httpx.Response, most: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.aiter_bytes():
        size += len(chunk)
        if size > most:
            raise TooLarge(f"the answer is larger than {most // 2**20} MiB")
        chunks.append(chunk)
    return b"".join(chunks)


def _date(header: str | None) -> float | None:
    if header is None:
        return None
    try:
        return email.utils.parsedate_to_datetime(header).timestamp()
    except (ValueError, OverflowError):
        return None


def _detail(body: bytes) -> str:
    """The text of a refusal: FastAPI's `detail`, on one line; '' if the answer has none."""
    try:
        detail = json.loads(body[:65536]).get("detail", "")
    except (ValueError, AttributeError, RecursionError):
        return ""
    text = detail if isinstance(detail, str) else json.dumps(detail)
    return " ".join(text.split())[:_DETAIL_LENGTH]


_ENCODINGS: Final = frozenset({"identity", "gzip", "deflate"})
_LOG_IN: Final = re.compile(r"log-?in|sign-?in|\bsso\b|saml|oauth|\bauth", re.IGNORECASE)
_CURE_401: Final = "give a valid token with token_file or token_env"
_CURE_403: Final = "the token needs the scopes traces:read and config:read, and agent_os:admin to see all runs"


def _refusal(endpoint: str, response: httpx.Response, body: bytes) -> SourceError:
    status, detail = response.status_code, _detail(body)
    message = f"{endpoint}: {status}" + (f" {detail}" if detail else "")
    match status:
        case 401:
            return Unauthorized(f"{message}; {_CURE_401}")
        case 403:
            return Unauthorized(f"{message}; {_CURE_403}")
        case 404 | 405:
            return UnknownRoute(f"{message}; is this the URL of an AgentOS?", status)
    if status == 429 or response.is_server_error:  # noqa: PLR2004
        retry_after = _retry_after(response.headers.get("retry-after"))
        return NoFilter(message) if "filter_expr" in detail else ServerFailed(message, retry_after=retry_after)
    return BadAnswer(message + (_redirected(response) if response.is_redirect else ""))


def _redirected(response: httpx.Response) -> str:
    """Where an answer leads, without what may be secret, and what to do about it."""
    if response.next_request is None:
        return ": redirected to nowhere"
    target = response.next_request.url
    where = shown(f"{target.scheme}://{target.netloc.decode('ascii', 'replace')}{target.path}", 200)
    if _LOG_IN.search(f"{target.host}{target.path}"):
        return f": redirected to {where}, which looks like a page to log in: the exporter needs a way without one"
    return f": redirected to {where}; put the final URL into the configuration"


def _retry_after(header: str | None) -> float | None:
    try:
        return max(0.0, float(header)) if header is not None else None
    except ValueError:
        return None
