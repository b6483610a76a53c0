"""What becomes of texts that users chose."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.core.text import printable, shorten, storable

ANY = st.text(st.characters(codec=None), max_size=60)  # half surrogates, too


@pytest.mark.parametrize(
    ("text", "stored", "shown"),
    [
        ("Größe 🦊", "Größe 🦊", "Größe 🦊"),
        ("a\0b", "a\ufffdb", "a\ufffdb"),
        ("report\udcff.pdf", "report\ufffd.pdf", "report\ufffd.pdf"),
        ("a\ud83d", "a\ufffd", "a\ufffd"),
        ("a\nb\x1b[31m\x7f\x85", "a\nb\x1b[31m\x7f\x85", "a\ufffdb\ufffd[31m\ufffd\ufffd"),
        ("a\u2028b\u202ec\u2067d", "a\u2028b\u202ec\u2067d", "a\ufffdb\ufffdc\ufffdd"),
        ("\u200d\xa0", "\u200d\xa0", "\u200d\xa0"),
    ],
)
def test_what_cannot_be_stored_or_shown_is_replaced(text, stored, shown):
    assert storable(text) == stored
    assert printable(text) == shown


@given(ANY)
def test_any_text_becomes_one_line_of_utf_8(text):
    assert len(printable(text)) == len(storable(text)) == len(text)
    storable(text).encode()
    assert printable(text).splitlines() in ([], [printable(text)])
    assert printable(printable(text)) == printable(text)


@given(ANY, ANY, st.integers(16, 40))
def test_texts_that_differ_stay_two(one, other, length):
    assert len(shorten(one, length)) <= length
    assert (shorten(one, length) == shorten(other, length)) == (one == other)


def test_the_end_of_a_long_text_becomes_a_digest():
    assert shorten("x" * 32, 32) == "x" * 32
    assert shorten("x" * 33, 32) == "x" * 23 + "…" + shorten("x" * 33, 20)[-8:]
