"""`agentos-exporter prices explain|check`: the rule that prices a model, and checking a price file.

Every text passes `escaped`, since texts from outside go to a terminal.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar

from cyclopts import App, Parameter

from exporter.config import read_by
from exporter.core import times
from exporter.core.errors import ConfigError
from exporter.core.logs import complain
from exporter.core.model import MICROSECONDS, TokenUsage
from exporter.core.text import escaped

if TYPE_CHECKING:
    from exporter.pricing.prices import Priced, Quote

OK: Final = 0
FAILED: Final = 1

_MOST: Final = 10**15
T = TypeVar("T")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(_MOST)) or int(text) > _MOST:
        raise ValueError(f"{escaped(text[:40])!r} is not a number of tokens")
    return int(text)


def _cost(text: str) -> Decimal:
    try:
        return Decimal(text)  # NaN too, as a span might report it: it is passed over
    except InvalidOperation:
        raise ValueError(f"{escaped(text[:40])!r} is not a cost in USD") from None


def _moment(text: str) -> int:
    try:
        return times.parse(text)
    except (ValueError, OverflowError):
        raise ValueError(f"{escaped(text[:40])!r} is not a time such as 2026-11-20T12:00Z") from None


def _tokens(attribute: str) -> Parameter:
    return Parameter(metavar="N", help=f"llm.token_count.{attribute}", converter=read_by(_count))


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ExplainOptions:
    """A call of a model, as a span reports it. `at` is in microseconds since the epoch."""

    provider: Annotated[str, Parameter(metavar="P", help="as agno spells it; '' where it is unknown")]
    model: Annotated[str, Parameter(metavar="M", help="model id, as the span has it")]
    model_class: Annotated[
        str, Parameter(metavar="NAME", help="name of agno's model class, where known", show_default=False)
    ] = ""
    at: Annotated[
        int | None,
        Parameter(metavar="T", help="start of the call, such as 2026-11-20T12:00Z (now)", converter=read_by(_moment)),
    ] = None
    prices: Annotated[Path | None, Parameter(metavar="FILE", help="the user's price file")] = None
    prompt: Annotated[int | None, _tokens("prompt")] = None
    completion: Annotated[int | None, _tokens("completion")] = None
    cache_read: Annotated[int | None, _tokens("prompt_details.cache_read")] = None
    cache_write: Annotated[int | None, _tokens("prompt_details.cache_write")] = None
    reasoning: Annotated[int | None, _tokens("completion_details.reasoning")] = None
    total: Annotated[int | None, _tokens("total")] = None
    reported_cost: Annotated[
        Any,  # a Decimal, NaN too, as a span might report it
        Parameter(metavar="X", help="llm.cost.total, in USD", converter=read_by(_cost), allow_leading_hyphen=True),
    ] = None
    output: Annotated[Literal["table", "json"], Parameter(help="for people or for programs")] = "table"


app = App(name="prices", help="Say what a model costs and why; check a price file.")


@app.command
def explain(options: ExplainOptions) -> int:
    """Show which rule prices a model, and why.

    Token counts are taken as a span reports them; cache counts that are given at all (0 too) say that the source knows
    cache detail, as AgentOS's database does and its plain API does not.
    """
    return _without_traceback(_explain, options)


@app.command
def check(file: Annotated[Path, Parameter(name="FILE", help="price file (YAML)")], /) -> int:
    """Say whether a price file is in order, or all that is wrong with it."""
    return _without_traceback(_check, file)


def _without_traceback(command: Callable[[T], int], argument: T) -> int:
    try:
        return command(argument)
    except ConfigError as error:
        for problem in error.problems:
            complain(problem, kind="")
        return FAILED


def _check(path: Path) -> int:
    from exporter.pricing.pricefile import load  # noqa: PLC0415 - see `_explain`
    from exporter.pricing.prices import Pricer  # noqa: PLC0415

    file = load(path)
    for note in file.notes:
        complain(note, kind="warning")
    for entry in Pricer(file).dangling():
        complain(f"{entry}: no price is known for {entry.use}", kind="warning")
    count = len(file.entries)
    sys.stdout.write(escaped(f"{path}: {count} {'entry' if count == 1 else 'entries'}, in order") + "\n")
    return OK


def _explain(arguments: ExplainOptions) -> int:
    # The price data has megabytes: only these commands load it.
    from exporter.pricing.entries import NO_PRICES  # noqa: PLC0415
    from exporter.pricing.pricefile import load  # noqa: PLC0415
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


def _json(arguments: ExplainOptions, at: int, quote: Quote, priced: Priced | None) -> None:
    from exporter.pricing import money  # noqa: PLC0415
    from exporter.pricing.rates import per_million  # noqa: PLC0415

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


def _table(arguments: ExplainOptions, at: int, quote: Quote, priced: Priced | None) -> None:
    from exporter.pricing import money  # noqa: PLC0415
    from exporter.pricing.rates import per_million  # noqa: PLC0415

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
            shown_count = "unknown" if count is None else count
            cost = "" if priced.usd is None or name not in priced.usd else money.text(priced.usd[name])
            lines.append(f"  {name:<14} {shown_count:>14}  {cost}")
        if priced.usd is not None and "" in priced.usd:
            lines.append(f"  {'(call)':<14} {'':>14}  {money.text(priced.usd[''])}")
        lines.append(f"  {'total':<14} {priced.classes.total:>14}  {_total(priced)}")
    sys.stdout.write("".join(f"{escaped(line).rstrip()}\n" for line in lines))


def _total(priced: Priced) -> str:
    from exporter.pricing import money  # noqa: PLC0415

    return "unpriced" if priced.total is None else money.text(priced.total)


def _iso(at: int) -> str:
    return times.utc(at).isoformat().replace("+00:00", "Z")
