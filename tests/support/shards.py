"""Parts of the slow tests that take about as long as each other."""

from collections.abc import Sequence

import pytest

MINUTES = 1.0
"""Time of a test whose mark, ``slow(minutes=...)``, does not say."""


def parse(text: str) -> tuple[int, int]:
    """Return the part and the number of parts that ``2/3`` means.

    Raises:
        pytest.UsageError: there is no such part.
    """
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise pytest.UsageError(f"--shard {text}: expected PART/PARTS, for instance 1/3 for the first of three")
    return int(part), int(parts)


def divide(minutes: Sequence[float], parts: int) -> list[int]:
    """Return the part, from 1 on, of each test: the longest first, each into the part that is the shortest so far."""
    totals = [0.0] * parts
    found = [0] * len(minutes)
    for test in sorted(range(len(minutes)), key=lambda test: -minutes[test]):
        shortest = totals.index(min(totals))
        totals[shortest] += minutes[test]
        found[test] = shortest + 1
    return found


def deselect_other_parts(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the slow tests of all parts but the one that ``--shard`` names."""
    part, parts = parse(config.getoption("--shard"))
    slow = [item for item in items if item.get_closest_marker("slow")]
    minutes = [item.get_closest_marker("slow").kwargs.get("minutes", MINUTES) for item in slow]
    others = {id(item) for item, its in zip(slow, divide(minutes, parts), strict=True) if its != part}
    config.hook.pytest_deselected(items=[item for item in items if id(item) in others])
    items[:] = [item for item in items if id(item) not in others]
