"""Why calls failed, told from error texts of vendors: `tests/errors/llm_calls.yml` has them."""

from collections import Counter
from pathlib import Path

import pytest
import yaml
from agno.exceptions import (
    ContextWindowExceededError,
    InputCheckError,
    ModelAuthenticationError,
    ModelProviderError,
    ModelRateLimitError,
    OutputCheckError,
)
from hypothesis import given
from hypothesis import strategies as st

from exporter.core import error_class as module
from exporter.core.error_class import ERROR_CLASSES, error_class
from tests.harness.examples import examples

TEXTS = yaml.safe_load((Path(__file__).parents[1] / "errors" / "llm_calls.yml").read_text(encoding="utf-8"))
NO_VENDORS = {"agno", "trap"}
PHRASES = [(row.error_class, phrase) for row in module._ROWS for phrase in row.phrases]


@pytest.mark.parametrize("row", TEXTS, ids=[f"{row['vendor']}: {row['text'][:60]!r}" for row in TEXTS])
def test_an_error_text_has_its_class(row):
    assert error_class(row["text"]) == row["class"]


def test_the_texts_are_of_many_vendors_and_of_every_class():
    vendors = Counter(row["vendor"] for row in TEXTS if row["vendor"] not in NO_VENDORS)
    assert len([vendor for vendor, texts in vendors.items() if texts >= 3]) >= 8
    assert vendors.total() >= 80
    assert {row["class"] for row in TEXTS} == set(ERROR_CLASSES)
    assert len({row["text"] for row in TEXTS}) == len(TEXTS)


@pytest.mark.parametrize("text", [None, "", " ", ":", "ModelProviderError", "ModelProviderError:"])
def test_nothing_tells_nothing(text):
    assert error_class(text) == "other"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ModelRateLimitError("slow down"), "rate_limit"),
        (ContextWindowExceededError("no"), "context_window"),
        (ModelAuthenticationError("no"), "auth"),
        (InputCheckError("no"), "guardrail"),
        (OutputCheckError("no"), "guardrail"),
        (ModelProviderError("no"), "other"),
    ],
)
def test_the_types_of_agno_tell(error, expected):
    assert error_class(f"{type(error).__name__}: {error}") == expected


BROAD = {
    "max_tokens": "names a parameter that a model does not know",
    "token limit": "stands in messages of rate limits as well",
}


@pytest.mark.parametrize("pattern", [one for one in ModelProviderError.CONTEXT_WINDOW_PATTERNS if one not in BROAD])
def test_what_agno_takes_for_a_full_context_window_is_one(pattern):
    assert error_class(f"ModelProviderError: Sorry: {pattern}.") == "context_window"


@pytest.mark.parametrize(("status", "expected"), [(429, "rate_limit"), (529, "rate_limit"), (401, "auth")])
@pytest.mark.parametrize(
    "text",
    [
        "ModelProviderError: Error code: {} - {{}}",
        "APIStatusError: {} status code (no body)",
        "SDKError: API error occurred: Status {}. Body:",
        'ModelProviderError: {{"error": {{"code": {}}}}}',
        "ModelProviderError: {{'ResponseMetadata': {{'HTTPStatusCode': {}}}}}",
        "ModelProviderError: status_code: {}, body: None",
        "HTTP {}",
    ],
)
def test_a_status_tells_where_it_is_named(text, status, expected):
    assert error_class(text.format(status)) == expected


@pytest.mark.parametrize("text", ["id 429", "code 4290", "code 429-1", "code 429x", "call_429", "x429", "limit: 429"])
def test_other_figures_are_no_status(text):
    assert error_class(f"ModelProviderError: see {text}") == "other"


def test_only_the_beginning_of_a_text_is_looked_at():
    assert error_class("ModelProviderError: " + "x " * 2000 + "rate limit reached") == "rate_limit"
    assert error_class("ModelProviderError: " + "x " * 2100 + "rate limit reached") == "other"


@examples(200)
@given(st.text(max_size=200) | st.sampled_from(TEXTS).map(lambda row: row["text"]), st.text(max_size=5))
def test_any_text_has_a_class_and_no_exception(text, more):
    assert error_class(more + text) in ERROR_CLASSES


@pytest.mark.parametrize(("name", "phrase"), PHRASES)
def test_a_phrase_is_in_lower_case_and_no_other_of_its_class_stands_in_it(name, phrase):
    assert phrase == phrase.lower()
    assert [other for other in PHRASES if other[0] == name and other[1] in phrase] == [(name, phrase)]
