"""`prices explain` and `prices check`: what they print, and how they end."""

import json
from pathlib import Path

import pytest

from exporter.cli import main as cli

HERE = Path(__file__).parents[1] / "prices"
AT = ("--at", "2026-11-20T12:00Z")


def run(*arguments: str) -> int:
    return cli.main(["prices", *arguments])


def explain(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert run("explain", *AT, *arguments, "--output", "json") == 0
    said = capsys.readouterr()
    assert said.err == ""
    return json.loads(said.out)


CACHED = "--prompt 2000 --cache-read 1024 --completion 500"
CLAUDE = "--prompt 50 --cache-read 100000 --cache-write 2000 --completion 500"
GROK = "--prompt 1000 --cache-read 400 --completion 50 --total 1350"


@pytest.mark.parametrize(
    ("provider", "model", "flags", "usd", "source"),
    [
        ("OpenAI", "gpt-5.4", CACHED, "0.010196", "listed"),
        ("OpenAI", "gpt-5.4", "--prompt 2000 --completion 500", "0.0125", "estimated"),
        ("OpenAI", "gpt-5.4", "--prompt 272000 --completion 1000 --cache-read 0", "0.695", "listed"),
        ("OpenAI", "gpt-5.4", "--prompt 272001 --completion 1000 --cache-read 0", "1.382505", "listed"),
        ("OpenAI", "gpt-5.4-mini", "--prompt 1234 --completion 567", "0.003477", "estimated"),
        ("Anthropic", "claude-sonnet-4-5", CLAUDE, "0.04515", "listed"),
        ("AwsBedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", CLAUDE, "0.049665", "listed"),
        ("xAI", "grok-4", GROK, "0.00735", "listed"),
        ("OpenRouter", "a/b", "--reported-cost 0.00123", "0.00123", "reported"),
        ("OpenRouter", "a/b", "--prompt 5 --reported-cost nan", None, ""),
        ("OpenRouter", "a/b", "--prompt 5 --reported-cost -1", None, ""),
        ("Ollama", "gpt-4o", "--prompt 5 --completion 5", "0", "listed"),
        ("OpenAI", "gpt-99", "--prompt 5 --completion 5", None, ""),
        ("", "acme-1", f"{CACHED} --prices {HERE}/good/example.yml", "0.00872", "custom"),
        ("OpenAI", "gpt-5-mini", "--prompt 1000000 --model-class CometAPI", "0.25", "estimated"),
    ],
)
def test_worked_cases(capsys, provider: str, model: str, flags: str, usd: str | None, source: str) -> None:
    answer = explain(capsys, "--provider", provider, "--model", model, *flags.split())
    assert (answer["usd"], answer["cost_source"]) == (usd, source)
    assert answer["rule"]


def test_the_whole_answer(capsys) -> None:
    answer = explain(capsys, "--provider", "OpenAI", "--model", "gpt-5.4", *CACHED.split(), "--reasoning", "200")
    assert answer == {
        "provider": "OpenAI",
        "model": "gpt-5.4",
        "at": "2026-11-20T12:00:00Z",
        "usd": "0.010196",
        "cost_source": "listed",
        "rule": "genai-prices 0.2.3: openai gpt-5.4",
        "token_classes": {"input": 976, "cache_read": 1024, "cache_write": 0, "output": 300, "reasoning": 200},
        "usd_by_token_class": {"input": "0.00244", "cache_read": "0.000256", "output": "0.0045", "reasoning": "0.003"},
        "prices": {
            "input_mtok": "2.5, above 272000 tokens 5",
            "cache_read_mtok": "0.25, above 272000 tokens 0.5",
            "output_mtok": "15, above 272000 tokens 22.5",
        },
    }


def test_what_is_unknown_is_absent(capsys) -> None:
    answer = explain(capsys, "--provider", "OpenAI", "--model", "gpt-5.4", "--prompt", "10", "--completion", "5")
    assert answer["token_classes"] == {"input": 10, "output": 5}


def test_without_counts_there_is_the_rule(capsys) -> None:
    answer = explain(capsys, "--provider", "OpenAI", "--model", "gpt-5.4")
    assert (answer["usd"], answer["cost_source"], answer["token_classes"]) == (None, "listed", {})
    assert answer["rule"] == "genai-prices 0.2.3: openai gpt-5.4"


def test_for_people(capsys) -> None:
    flags = "--provider Perplexity --model sonar --prompt 1000 --completion 100"
    assert run("explain", *AT, *flags.split()) == 0
    assert capsys.readouterr().out == (
        "model        Perplexity sonar, at 2026-11-20T12:00:00Z\n"
        "rule         genai-prices 0.2.3: perplexity sonar\n"
        "cost source  listed\n"
        "\n"
        "USD per million tokens (requests_kcount: per 1000 requests)\n"
        "  input_mtok             1\n"
        "  output_mtok            1\n"
        "  requests_kcount        12\n"
        "\n"
        "  token class            tokens  USD\n"
        "  input                    1000  0.001\n"
        "  cache_read            unknown\n"
        "  cache_write           unknown\n"
        "  output                    100  0.0001\n"
        "  reasoning             unknown\n"
        "  (call)                         0.012\n"
        "  total                    1100  0.0131\n"
    )


def test_for_people_unpriced_reported_and_hostile(capsys) -> None:
    assert run("explain", "--provider", "", "--model", "a\x1b[31m", "--prompt", "1") == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "a\\x1b[31m" in said
    assert "(unpriced)" in said
    assert "the provider is unknown" in said
    assert run("explain", "--provider", "OpenAI", "--model", "gpt-4o", "--reported-cost", "1") == 0
    said = capsys.readouterr().out
    assert "(call)                         1\n" in said
    assert "USD per million" not in said


def test_now_is_the_default(capsys) -> None:
    assert run("explain", "--provider", "OpenAI", "--model", "gpt-4o") == 0
    assert "OpenAI gpt-4o, at 20" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--prompt -1", "'-1' is not a number of tokens"),
        ("--prompt 1.5", "'1.5' is not a number of tokens"),
        ("--prompt 9999999999999999999", "'9999999999999999999' is not a number of tokens"),
        ("--reported-cost free", "'free' is not a cost in USD"),
        ("--at soon", "'soon' is not a time such as 2026-11-20T12:00Z"),
        ("--at 0001-01-01T00:00+14:00", "'0001-01-01T00:00+14:00' is not a time such as 2026-11-20T12:00Z"),
    ],
)
def test_what_is_not_understood(capsys, flags: str, message: str) -> None:
    assert run("explain", "--provider", "OpenAI", "--model", "gpt-4o", *flags.split()) == 2
    assert message in capsys.readouterr().err


def test_check_a_good_file(capsys, tmp_path: Path) -> None:
    assert run("check", str(HERE / "good/example.yml")) == 0
    assert capsys.readouterr() == (f"{HERE}/good/example.yml: 2 entries, in order\n", "")
    path = tmp_path / "prices.yml"
    path.write_text("prices: [{provider: Azure, model: mine, use: azure/gpt-99}]\n")
    assert run("check", str(path)) == 0
    warning = "warning: prices[0] (line 1: model mine): no price is known for azure/gpt-99\n"
    assert capsys.readouterr() == (f"{path}: 1 entry, in order\n", warning)


@pytest.mark.parametrize("command", [("check",), ("explain", "--provider", "p", "--model", "m", "--prices")])
def test_a_bad_file_is_refused_whole(capsys, command: tuple[str, ...]) -> None:
    assert run(*command, str(HERE / "bad/many_at_once.yml")) == 1
    assert capsys.readouterr() == ("", (HERE / "bad/many_at_once.txt").read_text())
    assert run(*command, "/nowhere/prices.yml") == 1
    assert capsys.readouterr().err == "prices: cannot read /nowhere/prices.yml: No such file or directory\n"
