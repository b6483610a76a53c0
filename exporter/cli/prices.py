"""`agentos-exporter prices explain|check`: which rule prices a model, and whether a price file is in order.

Whatever comes from outside goes to a terminal, so every text passes `escaped`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Final

from exporter.core import times
from exporter.core.errors import ConfigError
from exporter.core.logs import complain
from exporter.core.model import MICROSECONDS, TokenUsage
from exporter.core.text import escaped

if TYPE_CHECKING:
    from exporter.pricing.prices import Priced, Quote

COMMANDS: Final = ("explain", "check")
OK: Final = 0
FAILED: Final = 1

_MOST: Final = 10**15
_COUNTS: Final = (
    ("prompt", "llm.token_count.prompt"),
    ("completion", "llm.token_count.completion"),
    ("cache-read", "llm.token_count.prompt_details.cache_read"),
    ("cache-write", "llm.token_count.prompt_details.cache_write"),
    ("reasoning", "llm.token_count.completion_details.reasoning"),
    ("total", "llm.token_count.total"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The subcommands of `prices`, with their flags."""
    commands = parser.add_subparsers(dest="prices_command", metavar="COMMAND", required=True)
    explain = commands.add_parser(
        "explain",
        help="show which rule prices a model, and why",
        description=(
            "Show which rule prices a model, and why. Token counts are taken as a span reports them; cache counts that "
            "are given at all (0 too) say that the source knows cache detail, as AgentOS's database does and its plain "
            "API does not."
        ),
    )
    explain.add_argument("--provider", required=True, metavar="P", help="as agno spells it; '' where it is unknown")
    explain.add_argument("--model", required=True, metavar="M", help="model id, as the span has it")
    explain.add_argument("--model-class", default="", metavar="NAME", help="name of agno's model class, where known")
    explain.add_argument("--at", type=_moment, metavar="T", help="start of the call, such as 2026-11-20T12:00Z (now)")
    explain.add_argument("--prices", type=Path, metavar="FILE", help="the user's price file")
    for name, attribute in _COUNTS:
        explain.add_argument(f"--{name}", type=_count, metavar="N", help=attribute)
    explain.add_argument("--reported-cost", type=_cost, metavar="X", help="llm.cost.total, in USD")
    explain.add_argument("--output", choices=("table", "json"), default="table", help="for people or for programs")
    check = commands.add_parser("check", help="say whether a price file is in order, or all that is wrong with it")
    check.add_argument("file", type=Path, metavar="FILE", help="price file (YAML)")


def run(arguments: argparse.Namespace) -> int:
    """Carry out a command; returns the exit code. Raises nothing on purpose."""
    try:
        return _check(arguments) if arguments.prices_command == "check" else _explain(arguments)
    except ConfigError as error:
        for problem in error.problems:
            complain(problem, kind="")
        return FAILED


def _check(arguments: argparse.Namespace) -> int:
    from exporter.pricing.pricefile import load  # noqa: PLC0415 - see `_explain`
    from exporter.pricing.prices import Pricer  # noqa: PLC0415

    file = load(arguments.file)
    for note in file.notes:
        complain(note, kind="warning")
    for entry in Pricer(file).dangling():
        complain(f"{entry}: no price is known for {entry.use}", kind="warning")
    count = len(file.entries)
    sys.stdout.write(escaped(f"{arguments.file}: {count} {'entry' if count == 1 else 'entries'}, in order") + "\n")
    return OK


def _explain(arguments: argparse.Namespace) -> int:
    # The price data is megabytes: only who asks for prices waits for it.
    from exporter.pricing.pricefile import NO_PRICES, load  # noqa: PLC0415
    from exporter.pricing.prices import Pricer  # noqa: PLC0415

    pricer = Pricer(NO_PRICES if arguments.prices is None else load(arguments.prices))
    at = int(time.time() * MICROSECONDS) if arguments.at is None else arguments.at
    names = ("prompt", "completion", "cache_read", "cache_write", "reasoning", "total")
    usage = TokenUsage(**{name: getattr(arguments, name) for name in names})
    quote = pricer.quote(arguments.provider, arguments.model, at=at, model_class=arguments.model_class)
    priced = None
    if arguments.reported_cost is not None or any(getattr(usage, name) is not None for name in names):
        priced = pricer.price(
            arguments.provider,
            arguments.model,
            usage,
            at=at,
            reported=arguments.reported_cost,
            exact_classes=usage.cache_read is not None or usage.cache_write is not None,
            model_class=arguments.model_class,
        )
    show = _json if arguments.output == "json" else _table
    show(arguments, at, quote, priced)
    return OK


def _json(arguments: argparse.Namespace, at: int, quote: Quote, priced: Priced | None) -> None:
    from exporter.pricing import money  # noqa: PLC0415
    from exporter.pricing.prices import per_million  # noqa: PLC0415

    classes = {} if priced is None else priced.classes._asdict()
    usd = None if priced is None else priced.usd
    answer = {
        "provider": arguments.provider,
        "model": arguments.model,
        "at": _iso(at),
        "usd": None if usd is None else money.text(sum(usd.values())),
        "cost_source": quote.cost_source if priced is None else priced.cost_source,
        "rule": quote.rule if priced is None else priced.rule,
        "token_classes": {name: count for name, count in classes.items() if count is not None},
        "usd_by_token_class": None if usd is None else {name: money.text(amount) for name, amount in usd.items()},
        "prices": None if quote.rates is None else per_million(quote.rates),
    }
    sys.stdout.write(json.dumps(answer, indent=2) + "\n")


def _table(arguments: argparse.Namespace, at: int, quote: Quote, priced: Priced | None) -> None:
    from exporter.pricing import money  # noqa: PLC0415
    from exporter.pricing.prices import per_million  # noqa: PLC0415

    lines = [
        f"{'model':<12} {arguments.provider or '(provider unknown)'} {arguments.model}, at {_iso(at)}",
        f"{'rule':<12} {quote.rule if priced is None else priced.rule}",
        f"{'cost source':<12} {(quote.cost_source if priced is None else priced.cost_source) or '(unpriced)'}",
    ]
    reported = priced is not None and priced.cost_source == "reported"
    if quote.rates is not None and not reported:
        lines += ["", "USD per million tokens (requests_kcount: per 1000 requests)"]
        lines += [f"  {key:<22} {price}" for key, price in per_million(quote.rates).items()]
    if priced is not None:
        lines += ["", f"  {'token class':<14} {'tokens':>14}  USD"]
        for name, count in priced.classes._asdict().items():
            known = "unknown" if count is None else count
            cost = "" if priced.usd is None or name not in priced.usd else money.text(priced.usd[name])
            lines.append(f"  {name:<14} {known:>14}  {cost}")
        if priced.usd is not None and "" in priced.usd:
            lines.append(f"  {'(call)':<14} {'':>14}  {money.text(priced.usd[''])}")
        lines.append(f"  {'total':<14} {priced.classes.total:>14}  {_total(priced)}")
    sys.stdout.write("".join(f"{escaped(line).rstrip()}\n" for line in lines))


def _total(priced: Priced) -> str:
    from exporter.pricing import money  # noqa: PLC0415

    return "unpriced" if priced.total is None else money.text(priced.total)


def _iso(at: int) -> str:
    return times.utc(at).isoformat().replace("+00:00", "Z")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(_MOST)) or int(text) > _MOST:
        raise argparse.ArgumentTypeError(f"{escaped(text[:40])!r} is not a number of tokens")
    return int(text)


def _cost(text: str) -> Decimal:
    try:
        return Decimal(text)  # NaN too, as a span might report it: it is passed over
    except InvalidOperation:
        raise argparse.ArgumentTypeError(f"{escaped(text[:40])!r} is not a cost in USD") from None


def _moment(text: str) -> int:
    try:
        return times.parse(text)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{escaped(text[:40])!r} is not a time such as 2026-11-20T12:00Z") from None
