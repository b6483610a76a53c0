"""How many examples Hypothesis draws for a property."""

from typing import Any

from hypothesis import settings


def examples(most: int, **more: Any) -> settings:
    """Draw so many with `--hypothesis-profile=random`, and half as many where they are the same each time."""
    random = settings.get_current_profile_name() == "random"
    return settings(max_examples=most if random else max(10, most // 2), **more)
