"""Whether a model that genai-prices found is exactly the model asked for.

The library's own matching takes `gemini-3.7-flash-lite` for `gemini-3.7-flash`, and an Azure deployment `my-o4-mini`
for `o4-mini`. Here only dates, versions, regions and the like may surround a name.
"""

from __future__ import annotations

import re
from typing import Final

from genai_prices import types

_DATE: Final = r"20\d{6}|20\d\d-\d\d-\d\d|\d\d-20\d\d|\d\d-\d\d|\d{4}"
_WORD: Final = (
    "latest|preview|exp|experimental|beta|nightly|default|instruct|it|thinking|maas"
    rf"|v\d+(?:\.\d+)*|0\d\d|\d+k|{_DATE}"
)
_SUFFIX: Final = re.compile(rf"(?:[-@:](?:{_WORD})|:\d+)*")
_FAMILY: Final = re.compile(rf"(?:{_WORD}|e?\d+(?:\.\d+)?b)(?:[-@:](?:{_WORD}|e?\d+(?:\.\d+)?b))*")
"""Text that may follow a name which genai-prices ends with a hyphen (`gemma-3-` + `27b-it`)"""
_PREFIX: Final = re.compile(
    r"(?:.*/)?(?:(?:global|apac|[a-z]{2}(?:-[a-z]{2,4})?)\.)?"
    r"(?:(?:ai21|amazon|anthropic|cohere|deepseek|google|meta|minimax|mistral|moonshot(?:ai)?|nvidia|openai|qwen|writer|zai)\.)?"
)
"""Text that may precede a name: a path or ARN, Bedrock's region, Bedrock's vendor"""
_CUT_DATE: Final = re.compile(r"[-@](20\d\d|0\d?)$")


def _is_suffix(before: str, rest: str) -> bool:
    """Whether `rest`, behind the matched text `before`, leaves the model the same."""
    if not rest:
        return True
    if before.startswith("ft:"):
        rest = rest.partition(":")[0]  # the rest of `ft:<model>:<organisation>:<name>:<id>` is the user's own
        if not rest:
            return True
    elif before.endswith(".ft-"):
        return True
    if before.endswith("@"):
        return _SUFFIX.fullmatch(f"@{rest}") is not None
    if before.endswith("-"):
        return _FAMILY.fullmatch(rest) is not None
    cut = _CUT_DATE.search(before)
    return _SUFFIX.fullmatch(rest) is not None or (
        cut is not None and _SUFFIX.fullmatch(before[cut.start() :] + rest) is not None
    )


def is_strict(clause: object, ref: str) -> bool:
    """Whether a clause that matches `ref` (in lower case) means this very model."""
    if isinstance(clause, types.ClauseOr):
        return any(alternative.is_match(ref) and is_strict(alternative, ref) for alternative in clause.or_)
    if isinstance(clause, types.ClauseAnd):
        return clause.is_match(ref) and any(is_strict(condition, ref) for condition in clause.and_)
    start = 0
    if isinstance(clause, types.ClauseEquals):
        text = clause.equals.lower()
        return text == ref
    if isinstance(clause, types.ClauseStartsWith):
        text = clause.starts_with.lower()
    elif isinstance(clause, types.ClauseEndsWith):
        text = clause.ends_with.lower()
        start = len(ref) - len(text)
    elif isinstance(clause, types.ClauseContains):
        text = clause.contains.lower()
        start = ref.find(text)
    elif isinstance(clause, types.ClauseRegex):
        match = re.search(clause.regex, ref)
        if match is None or not match.group():
            return False
        text, start = match.group(), match.start()
    else:
        return False
    before, after = ref[:start], ref[start + len(text) :]
    # A path or a region may precede the name, but no other word: `my-o4-mini` is not `o4-mini`.
    return _PREFIX.fullmatch(before) is not None and _is_suffix(text, after)
