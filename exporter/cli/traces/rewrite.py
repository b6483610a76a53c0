"""`traces` without a command: which of its commands the flags ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

COMMANDS: Final = ("list", "show", "sessions")


def rewrite(arguments: Sequence[str]) -> list[str]:
    """Arguments after `traces`, with the command in front.

    Without a command `--trace-id ID` stands for `show ID`, `--stats` for `sessions`, and anything else for `list`.
    """
    rest = list(arguments)
    if not rest or not rest[0].startswith("-"):
        return rest or ["list"]
    flags = ("--all", "--content", "--reverse", "--stats")
    for place, word in enumerate(rest):
        takes_this = place > 0 and rest[place - 1].startswith("--") and "=" not in rest[place - 1]
        if word in COMMANDS and not (takes_this and rest[place - 1] not in flags):
            return [word, *rest[:place], *rest[place + 1 :]]
    if rest[0] in {"-h", "--help"}:
        return rest
    for place, word in enumerate(rest):
        name, equals, value = word.partition("=")
        if name == "--trace-id" and (equals or place + 1 < len(rest)):
            ours = place + (1 if equals else 2)
            return ["show", *rest[:place], *rest[ours:], "--", value if equals else rest[place + 1]]
    if "--stats" in rest:
        return ["sessions", *(word for word in rest if word != "--stats")]
    return ["list", *rest]
