"""The log: one line an event, no secret in it, no line that AgentOS could forge."""

import io
import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from exporter.core import logs
from tests.harness.commands import fields, own_logging
from tests.harness.examples import examples

SECRET = "s3cr3t-of-the-tests"
QUOTED = "s3cr3t\"with\\quotes'"
FORMATS = ("logfmt", "json", "console")
ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
ANSI = re.compile(r"\x1b\[[0-9;]*m")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restore(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave logging as it was, and no secret behind."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    with own_logging(monkeypatch):
        yield


def start(form: str = "logfmt", level: str = "info") -> io.StringIO:
    logging.getLogger().handlers.clear()  # those of pytest would format bad records too
    stream = Terminal() if form == "console" else io.StringIO()
    logs.configure(level, None if form == "console" else form, stream)
    return stream


def one_line(stream: io.StringIO) -> str:
    assert stream.getvalue().endswith("\n")
    assert stream.getvalue().count("\n") == 1
    return stream.getvalue()[:-1]


class TestForms:
    def test_logfmt(self) -> None:
        stream = start()
        structlog.get_logger("exporter.service.poller").info(
            "poll ended", agentos="prod", traces=3, ok=True, seconds=0.5
        )
        found = fields(one_line(stream))
        assert ISO.fullmatch(found.pop("ts"))
        assert list(found.items()) == [
            ("level", "info"),
            ("logger", "exporter.service.poller"),
            ("msg", "poll ended"),
            ("agentos", "prod"),
            ("traces", "3"),
            ("ok", "true"),
            ("seconds", "0.5"),
        ]

    def test_json(self) -> None:
        stream = start("json")
        structlog.get_logger("exporter.service.poller").warning("poll ended", traces=3, ok=True, nothing=None)
        found = json.loads(one_line(stream))
        assert ISO.fullmatch(found.pop("ts"))
        assert found == {
            "level": "warning",
            "logger": "exporter.service.poller",
            "msg": "poll ended",
            "traces": 3,
            "ok": True,
            "nothing": None,
        }

    def test_a_terminal_gets_colours(self, monkeypatch: pytest.MonkeyPatch) -> None:
        stream = start("console")
        structlog.get_logger("x").info("hello", agentos="prod")
        line = one_line(stream)
        assert ANSI.search(line)
        assert re.search(r"Z \[info +\] hello +\[x\] agentos=prod$", ANSI.sub("", line))
        monkeypatch.setenv("NO_COLOR", "1")
        stream = start("console")
        structlog.get_logger("x").info("hello")
        assert not ANSI.search(one_line(stream))

    @pytest.mark.parametrize("form", ["logfmt", "json"])
    def test_a_format_that_was_asked_for_holds_on_a_terminal(self, form: str) -> None:
        stream = Terminal()
        logs.configure("info", form, stream)
        structlog.get_logger("x").info("hello")
        assert one_line(stream).startswith("{" if form == "json" else "ts=")

    def test_no_terminal_gets_logfmt(self) -> None:
        stream = io.StringIO()
        logs.configure(stream=stream)
        structlog.get_logger("x").info("hello")
        assert fields(one_line(stream))["msg"] == "hello"

    def test_standard_error_is_the_default(self, capsys: pytest.CaptureFixture[str]) -> None:
        logs.configure()
        structlog.get_logger("x").info("hello")
        assert fields(capsys.readouterr().err.strip())["msg"] == "hello"

    def test_bound_context_shows(self) -> None:
        stream = start()
        with structlog.contextvars.bound_contextvars(agentos="prod"):
            structlog.get_logger("x").info("hello")
        assert fields(one_line(stream))["agentos"] == "prod"

    def test_the_last_call_holds(self) -> None:
        first, log = start(), structlog.get_logger("x")
        log.info("one")
        second = start("json")
        log.info("two")
        logging.getLogger("y").info("three")
        assert "one" in one_line(first)
        assert [json.loads(line)["msg"] for line in second.getvalue().splitlines()] == ["two", "three"]

    @pytest.mark.parametrize(("level", "form"), [("loud", None), ("info", "xml"), ("", None)])
    def test_unknown_settings(self, level: str, form: str | None) -> None:
        with pytest.raises(ValueError, match="no such log level or format"):
            logs.configure(level, form, io.StringIO())


class TestLevels:
    @pytest.mark.parametrize(
        ("level", "expected"),
        [
            ("debug", ["debug", "info", "warning", "error"]),
            ("info", ["info", "warning", "error"]),
            ("warn", ["warning", "error"]),
            ("warning", ["warning", "error"]),
            ("error", ["error"]),
        ],
    )
    @pytest.mark.parametrize("make", [structlog.get_logger, logging.getLogger])
    def test_levels(self, level: str, expected: list[str], make: Callable[[str], Any]) -> None:
        stream = start(level=level)
        log = make("exporter.x")
        for name in ("debug", "info", "warning", "error"):
            getattr(log, name)(name)
        assert [fields(line)["level"] for line in stream.getvalue().splitlines()] == expected

    @pytest.mark.parametrize("name", ["httpx", "httpcore.connection", "uvicorn.access"])
    def test_noisy_libraries_speak_from_warnings_on(self, name: str) -> None:
        stream = start(level="debug")
        logging.getLogger(name).info("chatter")
        logging.getLogger(name).warning("trouble with %s", "x")
        assert fields(one_line(stream))["msg"] == "trouble with x"

    def test_turns_that_a_long_poll_skips_are_no_news(self) -> None:
        stream = start(level="debug")
        logging.getLogger("apscheduler.scheduler").warning("maximum number of running instances reached")
        logging.getLogger("apscheduler.scheduler").error("trouble")
        assert fields(one_line(stream))["msg"] == "trouble"

    def test_noisy_libraries_obey_a_higher_level(self) -> None:
        stream = start(level="error")
        logging.getLogger("httpx").warning("trouble")
        assert stream.getvalue() == ""

    def test_handlers_of_uvicorn_are_taken_over(self) -> None:
        logging.getLogger("uvicorn").addHandler(logging.StreamHandler(io.StringIO()))
        logging.getLogger("uvicorn").propagate = False
        stream = start()
        logging.getLogger("uvicorn.error").info("started")
        assert fields(one_line(stream))["logger"] == "uvicorn.error"

    def test_warnings_of_python_are_logged(self) -> None:
        stream = start()
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(capture=True)
            warnings.warn("old\nlevel=error", UserWarning, stacklevel=1)
        assert "UserWarning: old\\\\nlevel=error" in fields(one_line(stream))["msg"]


class TestAgno:
    def test_only_agno_itself_is_quiet(self) -> None:
        stream = start()
        logging.getLogger("agno.client").setLevel(logging.DEBUG)
        logging.getLogger("agno.client").info("chatter")
        logging.getLogger("agnostic").info("hello")
        assert fields(one_line(stream))["logger"] == "agnostic"


class Shown:
    def __str__(self) -> str:
        return f"<shown {SECRET}>"


class Unshowable:
    def __str__(self) -> str:
        raise RuntimeError(SECRET)


@pytest.mark.parametrize("form", FORMATS)
class TestRedaction:
    def log(self, form: str, **values: object) -> str:
        logs.register_secret(SECRET)
        logs.register_secret(QUOTED)
        stream = start(form)
        structlog.get_logger("x").info("event", **values)
        text = ANSI.sub("", stream.getvalue())
        assert SECRET not in text
        return text

    @pytest.mark.parametrize(
        "value",
        [
            SECRET,
            f"before{SECRET}after",
            {"token": [SECRET]},
            SECRET.encode(),
            Shown(),
            f"Authorization: Bearer {SECRET}",
            "x" * 490 + SECRET,
            QUOTED,
            [QUOTED],
            json.dumps({"a": QUOTED}),
        ],
        ids=lambda value: repr(value).split(" object at")[0],
    )
    def test_values(self, form: str, value: object) -> None:
        text = self.log(form, value=value)
        assert "[redacted]" in text
        assert "s3cr3t" not in text

    def test_the_event_and_formatted_arguments(self, form: str) -> None:
        logs.register_secret(SECRET)
        stream = start(form)
        structlog.get_logger("x").info(f"token {SECRET}")
        logging.getLogger("y").warning("token %s in %r", SECRET, {"k": SECRET})
        assert SECRET not in stream.getvalue()
        assert stream.getvalue().count("[redacted]") == 3

    @pytest.mark.parametrize(
        "text", ["Bearer abc.def-123", "authorization: bearer abc.def-123", "{'authorization': 'Bearer abc.def-123'}"]
    )
    def test_any_bearer_token(self, form: str, text: str) -> None:
        assert "abc.def-123" not in self.log(form, header=text)

    def test_passwords_in_urls(self, form: str) -> None:
        text = self.log(form, proxy="http://me:abcdef@proxy:3128/x")
        assert "://[redacted]@proxy:3128/x" in text
        assert "abcdef" not in text

    def test_exceptions(self, form: str) -> None:
        logs.register_secret(SECRET)
        stream = start(form)
        local = "a local variable"

        def fail() -> None:
            inner = f"{local} inside"
            raise ValueError(f"boom {SECRET} {len(inner)}")

        def wrap() -> None:
            try:
                fail()
            except ValueError as error:
                raise RuntimeError(f"Bearer {SECRET}\nlevel=error msg=forged") from error

        for log in (structlog.get_logger("x"), logging.getLogger("y")):
            try:
                wrap()
            except RuntimeError:
                log.exception("it failed")
        text = ANSI.sub("", stream.getvalue())
        assert SECRET not in text
        assert "local variable" not in text
        assert "raise ValueError" not in text
        parts = ["RuntimeError: Bearer [redacted]", "caused by ValueError: boom [redacted] 23", "in fail"]
        assert [text.count(part) for part in parts] == [2, 2, 2]
        assert text.count("in wrap") == 4  # each error passed it
        if form != "console":
            assert text.count("\n") == 2
        else:
            assert not re.search(r"^level=error", text, re.MULTILINE)
            assert all(re.match(r"\d{4}-|    |RuntimeError", line) for line in text.splitlines())

    def test_a_value_without_text(self, form: str) -> None:
        assert "<Unshowable without text>" in self.log(form, value=Unshowable())

    def test_a_record_that_cannot_be_formatted(self, form: str, capsys: pytest.CaptureFixture[str]) -> None:
        stream = start(form)
        logging.getLogger("x").info("%d", SECRET)
        assert "a log record could not be written" in one_line(stream)
        assert SECRET not in stream.getvalue()
        assert capsys.readouterr().err == ""


class TestSecrets:
    def test_short_texts_are_no_secrets(self) -> None:
        logs.register_secret("")
        logs.register_secret("abc")
        logs.register_secret("abcd")
        assert logs.redact("abc abcd") == "abc [redacted]"

    def test_a_secret_that_begins_like_another(self) -> None:
        logs.register_secret("abcd")
        logs.register_secret("abcdefgh")
        assert logs.redact("abcdefgh abcd") == "[redacted] [redacted]"

    def test_rotated_secrets_are_forgotten_at_last(self) -> None:
        logs.register_secret("standing")
        for i in range(1500):
            logs.register_secret(f"rotated-{i:04}-")
            logs.register_secret("standing")
        assert len(logs._secrets) == 1000
        assert logs.redact("standing rotated-1499- rotated-0001-") == "[redacted] [redacted] rotated-0001-"


class TestInjection:
    @pytest.mark.parametrize("form", FORMATS)
    @pytest.mark.parametrize("breaker", ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
    def test_no_line_can_be_forged(self, form: str, breaker: str) -> None:
        forged = f"x{breaker}ts=2030-01-01T00:00:00Z level=error msg=forged"
        stream = start(form)
        structlog.get_logger("x").info(forged, name=forged)
        logging.getLogger("y").info(forged)
        structlog.get_logger("x").error("failed", exc_info=ValueError(forged))
        lines = stream.getvalue().splitlines()
        assert len(lines) == (3 if form != "console" else len(lines))
        assert not any(line.startswith("ts=2030") for line in lines)

    def test_no_escape_sequence_reaches_a_terminal(self) -> None:
        stream = start("console")
        structlog.get_logger("x").info("a\x1b[2Jb\x9b2Jc\u202ed\x00")
        assert "a\\x1b[2Jb\\x9b2Jc\\u202ed\\x00" in stream.getvalue()

    def test_no_field_can_be_forged(self) -> None:
        stream = start()
        structlog.get_logger("x").info("m", name='x" level=error agentos="y')
        assert fields(one_line(stream))["level"] == "info"

    def test_odd_keys(self) -> None:
        stream = start()
        structlog.get_logger("x").info("m", **{"a b=c\n": 1})
        assert fields(one_line(stream))["a_b_c_"] == "1"

    def test_long_values_are_cut(self) -> None:
        stream = start("json")
        structlog.get_logger("x").info("y" * 10_000, value="z" * 501, fits="w" * 500)
        found = json.loads(one_line(stream))
        assert found["msg"] == "y" * 500 + "… (10000 characters)"
        assert found["value"] == "z" * 500 + "… (501 characters)"
        assert found["fits"] == "w" * 500

    def test_deep_and_long_exceptions_are_cut(self) -> None:
        stream = start()

        def dive(depth: int) -> None:
            if depth == 0:
                raise ValueError("x" * 100_000)
            try:
                dive(depth - 1)
            except ValueError as error:
                raise ValueError("y" * 100_000) from error

        try:
            dive(50)
        except ValueError:
            structlog.get_logger("x").exception("failed")
        assert len(one_line(stream)) < 10_000

    def test_groups_show_what_is_in_them(self) -> None:
        stream = start()
        group = ExceptionGroup("many", [ValueError(f"n{i}") for i in range(9)])
        structlog.get_logger("x").error("failed", exc_info=group)
        text = fields(one_line(stream))["exception"]
        assert "ExceptionGroup: many (9 sub-exceptions)" in text
        assert "with ValueError: n2" in text
        assert "n3" not in text

    def test_an_exception_without_one_under_way(self) -> None:
        stream = start()
        structlog.get_logger("x").error("failed", exc_info=True)
        structlog.get_logger("x").error("failed", exc_info=ValueError("given"))
        logging.getLogger("y").error("failed", exc_info=(None, None, None))
        first, second, third = (fields(line) for line in stream.getvalue().splitlines())
        assert "exception" not in first
        assert second["exception"] == "ValueError: given"
        assert "exception" not in third

    @examples(100, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(values=st.lists(st.text(max_size=30) | st.binary(max_size=9) | st.integers() | st.none(), max_size=3))
    def test_any_value_makes_one_line_that_reads_back(self, values: list[object]) -> None:
        for form in ("logfmt", "json"):
            stream = start(form)
            structlog.get_logger("x").info("m", **{f"k{i}": value for i, value in enumerate(values)})
            line = one_line(stream)
            found = fields(line) if form == "logfmt" else json.loads(line)
            assert list(found) == ["ts", "level", "logger", "msg", *(f"k{i}" for i in range(len(values)))]
            line.encode()


class TestRepeats:
    def filtered(self, limit: logs._RepeatLimit, *events: object, level: int = logging.WARNING) -> list[object]:
        records = [logging.LogRecord("exporter", level, "", 0, event, (), None) for event in events]
        return [record.msg for record in records if limit(record)]

    def test_what_repeats_passes_20_times_and_then_once_in_3_seconds(self) -> None:
        now = [0.0]
        limit = logs._RepeatLimit(lambda: now[0])
        assert len(self.filtered(limit, *["no descriptors"] * 1000)) == 20
        now[0] += 2.9
        assert self.filtered(limit, "no descriptors") == []
        now[0] += 0.1
        assert self.filtered(limit, "no descriptors") == ["no descriptors (repeated 981 times)"]
        assert self.filtered(limit, "no descriptors") == []
        now[0] += 3600
        assert self.filtered(limit, *["no descriptors"] * 1000)[:2] == [
            "no descriptors (repeated 1 times)",
            "no descriptors",
        ]

    def test_an_agentos_that_is_down_hides_no_other(self) -> None:
        limit = logs._RepeatLimit(lambda: 0.0)
        down, other = ({"event": "poll_failed", "agentos": name} for name in ("down", "other"))
        assert self.filtered(limit, *[down] * 30, other) == [*[down] * 20, other]
        assert self.filtered(limit, {"event": "something_else", "agentos": "down"}) != []

    def test_what_is_no_warning_passes(self) -> None:
        limit = logs._RepeatLimit(lambda: 0.0)
        assert len(self.filtered(limit, *["polled"] * 1000, level=logging.INFO)) == 1000

    def test_any_number_of_kinds_is_bounded(self) -> None:
        limit = logs._RepeatLimit(lambda: 0.0)
        assert len(self.filtered(limit, *map(str, range(5000)))) == 5000
        assert len(limit._kinds) == logs._KINDS

    @pytest.mark.parametrize("form", FORMATS)
    def test_the_handler_has_the_limit(self, form: str) -> None:
        stream = start(form)
        for _ in range(100):
            structlog.get_logger("exporter").warning("odd")
            logging.getLogger("library").error("odd %s", "thing")
        assert stream.getvalue().count("\n") == 40
