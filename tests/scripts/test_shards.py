"""Parts of the slow tests: each test in one of them, parts about as long as each other."""

import random
from types import SimpleNamespace

import pytest
import shards


@pytest.mark.parametrize("parts", [1, 2, 3, 5])
def test_parts_differ_by_no_more_than_their_longest_test(parts):
    minutes = [random.Random(seed).choice([1.0, 2.0, 3.5, 8.0]) for seed in range(14)]
    found = shards.divide(minutes, parts)
    totals = [sum(m for m, its in zip(minutes, found, strict=True) if its == part) for part in range(1, parts + 1)]
    assert set(found) == set(range(1, parts + 1))
    assert sum(totals) == sum(minutes)
    assert max(totals) - min(totals) <= max(minutes)


@pytest.mark.parametrize("text", ["0/3", "4/3", "2", "a/b", "1/0", "-1/3"])
def test_a_part_that_does_not_exist_is_an_error(text):
    with pytest.raises(pytest.UsageError, match=rf"--shard {text}: expected PART/PARTS"):
        shards.parse(text)


class Item:
    """A collected test, as much of one as is asked for its mark."""

    def __init__(self, name: str, mark=None) -> None:
        self.name, self.mark = name, mark

    def get_closest_marker(self, name: str):
        return self.mark.mark if self.mark is not None and self.mark.name == name else None


def test_quick_tests_stay_and_every_slow_test_runs_in_one_part():
    slow = pytest.mark.slow
    collected = [Item("quick"), *(Item(f"short{n}", slow) for n in range(4)), Item("long", slow(minutes=9))]
    kept, left_out = {}, []
    for part in ("1/2", "2/2"):
        hook = SimpleNamespace(pytest_deselected=lambda items: left_out.append([item.name for item in items]))
        items = list(collected)
        shards.deselect_other_parts(SimpleNamespace(getoption={"--shard": part}.get, hook=hook), items)
        kept[part] = [item.name for item in items]
    short = [f"short{n}" for n in range(4)]
    assert kept == {"1/2": ["quick", "long"], "2/2": ["quick", *short]}
    assert left_out == [short, ["long"]]
