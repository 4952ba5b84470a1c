"""Words and phrases that outputs must or must not contain (lexical constraints): as text, and as ids."""

from collections.abc import Iterable, Sequence
from itertools import accumulate

from fairbeam.text.interface import TextSide

Phrases = Sequence[str | Sequence[str]]
"""Positive lexical constraints: each a word or phrase, or several alternatives of which one suffices."""

ALTERNATIVES = "|||"


def split_phrases(line: str) -> list[list[str]]:
    """Split ``phrase<TAB>phrase|||other form`` into groups of alternatives; an empty line has none."""
    groups = ([form.strip() for form in group.split(ALTERNATIVES)] for group in line.split("\t"))
    return [kept for group in groups if (kept := [form for form in group if form])]


def phrase_ids(side: TextSide, phrases: Iterable[str]) -> tuple[tuple[int, ...], ...]:
    """Encode words or phrases as they are spelled between spaces; empty ones are left out."""
    marks = {side.bos, side.eos, side.language_id} | side.language_ids
    found = (tuple(id for id in side.encode(phrase) if id not in marks) for phrase in phrases)
    return tuple(ids for ids in found if ids)


def required_ids(side: TextSide, groups: Phrases) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Encode positive lexical constraints, each a tuple of alternatives."""
    found = (phrase_ids(side, [group] if isinstance(group, str) else group) for group in groups)
    return tuple(alternatives for alternatives in found if alternatives)


def word_numbers(symbols: Sequence[str]) -> list[int]:
    """Map each token to the index of its word, from 0.

    A word begins with SentencePiece's U+2581, or goes on behind subword-nmt's ``@@``; without either, every
    token is a word.
    """
    if any(symbol.startswith("\u2581") for symbol in symbols):
        begins = [symbol.startswith("\u2581") for symbol in symbols]
    else:
        begins = [True, *(not symbol.endswith("@@") for symbol in symbols[:-1])][: len(symbols)]
    begins[:1] = [True] * bool(begins)
    return [number - 1 for number in accumulate(begins)]
