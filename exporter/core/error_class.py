"""Why an LLM call failed: one of a few classes, told from its error text. Pure: no I/O, no clock.

Vendors word their errors as they like, and agno passes most of them on as `ModelProviderError: <the vendor's words>`.
The rows of `_ROWS` are tried in order, and the first that matches decides. A row matches by the type of the exception,
by a phrase anywhere in the text, or by the HTTP status that the text names. The text itself is never kept.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

RATE_LIMIT: Final = "rate_limit"
OTHER: Final = "other"
_TEXT: Final = 4096
"""Characters of a text that are looked at."""


class _Row(NamedTuple):
    """One class. `types` are names of exceptions without their module, `phrases` are in lower case."""

    error_class: str
    types: frozenset[str]
    phrases: tuple[str, ...]
    statuses: frozenset[int] = frozenset()


def _row(error_class: str, types: str, phrases: tuple[str, ...], statuses: tuple[int, ...] = ()) -> _Row:
    return _Row(error_class, frozenset(types.split()), phrases, frozenset(statuses))


# Phrases are as long as they have to be: prompts and tool results, which an error may quote, speak of limits as well.
_ROWS: Final = (
    # A defect of the code, whatever its text quotes.
    _row(
        OTHER,
        "AssertionError AttributeError ImportError IndexError JSONDecodeError KeyError ModuleNotFoundError NameError "
        "NotImplementedError TypeError UnicodeDecodeError UnicodeEncodeError ValidationError",
        (),
    ),
    _row(
        "guardrail",
        "GuardrailRaisedException InputCheckError OutputCheckError",
        ("guardrail_intervened", "guardrail intervened", "violated guardrail policy", "blocked by guardrail"),
    ),
    _row(
        "content_filter",
        "ContentFilterFinishReasonError ContentPolicyViolationError",
        (
            "blocked by content filter",
            "content filtering policy",
            "content management policy",
            "content violates usage guidelines",
            "content_filter",
            "content_policy_violation",
            "contentpolicyviolation",
            "flagged as potentially violating",
            "input was flagged",
            "prohibited_content",
            "rejected as a result of our safety system",
            "responsibleaipolicyviolation",
            "safety settings",
            "violates our usage policies",
        ),
        (498,),  # Cohere
    ),
    # Also a quota that is used up, and credit: OpenAI and Google word both as they word a limit by the minute.
    _row(
        RATE_LIMIT,
        "ModelRateLimitError QuotaExceededError RateLimitError ThrottlingException TooManyRequestsError "
        "TooManyRequestsException",
        (
            "can only afford",
            "credit balance is too low",
            "credits are required",
            "exceeded call rate limit",
            "exceeded the call rate limit",
            "exceeded the token rate limit",
            "exceeded token rate limit",
            "exceeded your current quota",
            "exceeded your daily rate limit",
            "exceeded your monthly included credits",
            "insufficient balance",
            "insufficient credits",
            "insufficient_credits",
            "insufficient_quota",
            "limiting requests",
            "overloaded_error",  # Anthropic: agno makes it a ModelRateLimitError, too
            "prompt tokens limit exceeded",
            "quota exceeded for",
            "rate increased too quickly",
            "rate limit exceeded",
            "rate limit is exceeded",
            "rate limit reached",
            "rate limit specific to this model",
            "rate-limited upstream",
            "rate_limit_error",
            "rate_limit_exceeded",
            "rate_limited",
            "ratelimiterror",
            "ratelimitreached",
            "requests per day",
            "requests per min",
            "requests rate limit",
            "resource exhausted",
            "resource has been exhausted",
            "resource_exhausted",
            "throttlingexception",
            "tokens per day",
            "tokens per min",
            "too many requests",
            "toomanyrequests",
            "used all available credits",
            "wait before trying again",
            "would exceed the rate limit",
            "would exceed your account's rate limit",
            "would exceed your organization",
        ),
        (402, 429, 529),
    ),
    _row(
        "context_window",
        "ContextWindowExceededError",
        (
            "available context size",
            "content_too_large",
            "context length",
            "context limit",
            "context window",
            "context_length_exceeded",
            "contextwindowexceeded",
            "exceeds the maximum number of tokens",
            "exceeds the model",
            "input is too long",
            "input too long",
            "maximum allowed token size",
            "payload too large",
            "prompt is too long",
            "prompt too long",
            "reduce the length of the messages",
            "request exceeds the maximum size",
            "request too large",
            "request_too_large",
            "token count exceeds",
            "too large for model",
            "too many input tokens",
            "too many tokens",
        ),
        (413,),
    ),
    _row(
        "auth",
        "AccessDeniedException AuthenticationError DefaultCredentialsError ExpiredTokenException ForbiddenError "
        "ModelAuthenticationError NoCredentialsError PermissionDeniedError RefreshError UnauthorizedError "
        "UnrecognizedClientException",
        (
            "_api_key not set",
            "access denied due to",
            "accessdenied",
            "access is denied",
            "api key not found",
            "api key not valid",
            "api_key_invalid",
            "authentication fails",
            "authentication_error",
            "expiredtoken",
            "incorrect api key",
            "invalid api key",
            "invalid api token",
            "invalid authentication",
            "invalid bearer token",
            "invalid subscription key",
            "invalid x-api-key",
            "invalid_api_key",
            "invalidsubscriptionkey",
            "is not authorized to perform",
            "no auth credentials found",
            "not authorized to invoke",
            "permission_denied",
            "permission_error",
            "permissiondenied",
            "security token included in the request",
            "unable to locate credentials",
            "unauthorized",
            "unrecognizedclient",
        ),
        (401, 403),
    ),
    _row(
        "timeout",
        "APITimeoutError ConnectTimeout ConnectTimeoutError DeadlineExceeded InferenceTimeoutError "
        "ModelTimeoutException PoolTimeout ReadTimeout ReadTimeoutError Timeout TimeoutError TimeoutException "
        "WriteTimeout",
        (
            "deadline exceeded",
            "deadline expired",
            "deadline_exceeded",
            "gateway time-out",
            "gateway timeout",
            "idle timeout",
            "modeltimeoutexception",
            "read timeout",
            "time out",
            "timed out",
            "timeouterror",
        ),
        (408, 504, 522, 524),
    ),
    _row(
        "connection",
        "APIConnectionError ClientConnectorError ConnectError ConnectionError ConnectionRefusedError "
        "ConnectionResetError EndpointConnectionError ProxyError ReadError RemoteProtocolError SSLError "
        "ServerDisconnectedError",
        (
            "all connection attempts failed",
            "cannot connect to host",
            "certificate verify failed",
            "certificate_verify_failed",
            "connect call failed",
            "connection aborted",
            "connection closed",
            "connection error",
            "connection refused",
            "connection reset",
            "could not connect to the endpoint",
            "failed to connect to ollama",
            "failed to establish a new connection",
            "getaddrinfo failed",
            "incomplete chunked read",
            "name or service not known",
            "network is unreachable",
            "no route to host",
            "nodename nor servname",
            "peer closed connection",
            "server disconnected",
            "temporary failure in name resolution",
        ),
        (521, 523, 525, 526),
    ),
    _row(
        "server",
        "APIInternalServerError InternalServerError InternalServerException ModelErrorException "
        "ModelNotReadyException ServerError ServiceUnavailableError ServiceUnavailableException",
        (
            "at capacity",
            "bad gateway",
            "capacity exceeded",
            "internal error",
            "internalserver",
            "overloaded",
            "over capacity",
            "provider returned error",
            "requires more system memory",
            "server error",
            "server had an error",
            "server_error",
            "service is too busy",
            "service unavailable",
            "serviceunavailable",
            "temporarily unavailable",
        ),
        tuple(range(500, 600)),
    ),
    _row(
        "bad_request",
        "BadRequestError ConflictError InvalidRequestError NotFoundError ResourceNotFoundException "
        "UnprocessableEntityError ValidationException",
        (
            "bad request",
            "decommissioned",
            "deploymentnotfound",
            "does not exist or you do not have access",
            "does not support tools",
            "extra inputs are not permitted",
            "invalid_argument",
            "invalid_request_error",
            "is not found for api version",
            "model not found",
            "model_not_found",
            "no endpoints found",
            "not supported with this model",
            "not_found_error",
            "resourcenotfound",
            "try pulling it first",
            "unprocessable entity",
            "unsupported parameter",
            "validationexception",
        ),
        tuple(range(400, 500)),
    ),
)

ERROR_CLASSES: Final = (*(row.error_class for row in _ROWS[1:]), OTHER)
"""All classes there are."""

_TYPE: Final = re.compile(r"(\w{1,64}\.){0,8}(?P<name>\w{1,64}):")
# Where a status stands: after the type or at the very start, or after a word that says that one follows. Digits
# elsewhere are parts of ids, limits and counts.
_STATUS: Final = re.compile(
    r"""(?:^\s?|\b(?:error.code|http.?status.?code|status.?code|status|http|code)\W{0,4})([45]\d\d)(?![\w-])"""
)


def error_class(text: str | None) -> str:
    """The class of the error of an LLM call; `other` if the text does not tell, or is None.

    `text` begins with the type of the exception, as in `ModelProviderError: Rate limit reached for gpt-5`.
    """
    if not text:
        return OTHER
    text = text[:_TEXT]
    match = _TYPE.match(text)
    kind = match["name"] if match else ""
    message = (text[match.end() :] if match else text).lower()
    named = _STATUS.search(message)
    status = int(named[1]) if named else 0
    for row in _ROWS:
        if kind in row.types or status in row.statuses or any(phrase in message for phrase in row.phrases):
            return row.error_class
    return OTHER
