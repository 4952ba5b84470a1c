"""How far a hypothesis has come with the phrases that it must contain.

Each sentence has an automaton over tokens, made of its phrases; each hypothesis has a state of it, a value. The number
of required tokens that a hypothesis holds is its *bank* (Post and Vilar, 2018, section 3). Phrases stand in a trie (Hu
et al., 2019, section 3.2).
"""

import math
from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest
from typing import NamedTuple, Protocol

from fairbeam.generation.options import Constraints

Phrase = tuple[int, ...]
"""Token ids."""
Required = tuple[tuple[Phrase, ...], ...]
"""What a sentence's outputs must contain: of each group of alternatives one."""


class Node:
    """A place in a trie of phrases: the tokens on the way from its root."""

    def __init__(self, parent: "Node | None" = None, token: int = -1) -> None:
        self.parent = parent
        self.first: int = token if parent is None or parent.parent is None else parent.first
        """The first token on the way."""
        self.children: dict[int, Node] = {}
        self.ending: list[int] = []
        """Groups one of whose phrases ends here, a number for each such phrase, those that want most tokens first."""
        self.gains: dict[int, int] = {}
        """For each group with a phrase through here, how many tokens fewer it wants than at the root."""

    def add(self, phrase: Phrase, group: int, shortest: int) -> None:
        """Add a phrase below this root; ``shortest`` is the length of its group's shortest."""
        node = self
        for depth, token in enumerate(phrase, start=1):
            node = node.children.setdefault(token, Node(node, token))
            gain = max(0, shortest - (len(phrase) - depth))
            node.gains[group] = max(node.gains.get(group, 0), gain)
        node.ending.append(group)
        node.ending.sort(key=lambda other: -node.gains[other])


class Progress(NamedTuple):
    """The state of a hypothesis."""

    node: Node
    """Where in a trie the latest tokens are; its root where they belong to no phrase."""
    done: int
    """Unordered: a bit for each group that is complete. Ordered: how many groups are."""


class Automaton(Protocol):
    """What a sentence requires, as a machine that reads tokens."""

    start: Progress

    def advance(self, state: Progress, token: int) -> Progress:
        """The state after one more token."""

    def bank(self, state: Progress) -> int:
        """How many of the required tokens are there; of alternatives, the fewest tokens count."""

    def finished(self, state: Progress) -> bool:
        """Whether all that is required is there."""

    def next_tokens(self, state: Progress) -> Iterable[int]:
        """Tokens that begin a phrase or go on with the current one."""


class Unordered:
    """Groups in any order, each as often as it is given; phrases do not overlap.

    The rules are fairseq's: a phrase counts when the token after it is read; where one phrase begins another, the
    longer is tried; a phrase that breaks off counts for nothing, unless it begins with a whole shorter one, and the
    token that breaks it off begins a phrase only if others than the broken one begin so.
    """

    def __init__(self, required: Required) -> None:
        self.lengths = [min(map(len, group)) for group in required]
        self.root = Node()
        for number, (group, shortest) in enumerate(zip(required, self.lengths, strict=True)):
            for phrase in group:
                self.root.add(phrase, number, shortest)
        self.start = Progress(self.root, 0)
        self._all = (1 << len(required)) - 1

    def advance(self, state: Progress, token: int) -> Progress:
        child = state.node.children.get(token)
        if child and self._wanted(child, state.done) > 0:
            return Progress(child, state.done)
        done = self._settled(state)
        child = self.root.children.get(token)
        if child and self._wanted(child, state.done) > (state.node.first == token):
            return Progress(child, done)
        return Progress(self.root, done)

    def bank(self, state: Progress) -> int:
        complete = sum(length for group, length in enumerate(self.lengths) if state.done >> group & 1)
        begun, node = 0, state.node
        while node.parent is not None:  # on the way to a long form, a shorter one may be complete
            begun = max([begun, *(gain for group, gain in node.gains.items() if not state.done >> group & 1)])
            node = node.parent
        return complete + begun

    def finished(self, state: Progress) -> bool:
        return state.done | _first_open(state.node, state.done) == self._all

    def next_tokens(self, state: Progress) -> Iterable[int]:
        return self.root.children.keys() | state.node.children.keys()

    def _wanted(self, node: Node, done: int) -> int:
        """How many incomplete groups lead through ``node``."""
        return sum(not done >> group & 1 for group in node.gains)

    def _settled(self, state: Progress) -> int:
        """What is complete once the current phrase is left."""
        node: Node | None = state.node
        while node is not None:
            if ending := _first_open(node, state.done):
                return state.done | ending
            node = node.parent
        return state.done


def _first_open(node: Node, done: int) -> int:
    """The bit of an incomplete group with a phrase that ends here, or 0."""
    return next((1 << group for group in node.ending if not done >> group & 1), 0)


class Ordered:
    """Groups one behind the other, with anything between them.

    A phrase that breaks off begins again. fairseq begins again with the first of all phrases, so that its outputs hold
    phrases twice.
    """

    def __init__(self, required: Required) -> None:
        self.lengths = [min(map(len, group)) for group in required]
        self.roots = [Node() for _ in range(len(required) + 1)]
        for number, (group, root) in enumerate(zip(required, self.roots, strict=False)):
            for phrase in group:
                root.add(phrase, number, self.lengths[number])
        self.start = Progress(self.roots[0], 0)

    def advance(self, state: Progress, token: int) -> Progress:
        child = state.node.children.get(token) or self.roots[state.done].children.get(token)
        if child is None:
            return Progress(self.roots[state.done], state.done)
        if child.ending:
            return Progress(self.roots[state.done + 1], state.done + 1)
        return Progress(child, state.done)

    def bank(self, state: Progress) -> int:
        return sum(self.lengths[: state.done]) + state.node.gains.get(state.done, 0)

    def finished(self, state: Progress) -> bool:
        return state.done == len(self.lengths)

    def next_tokens(self, state: Progress) -> Iterable[int]:
        return self.roots[state.done].children.keys() | state.node.children.keys()


def build_automaton(required: Required, order: Constraints) -> Automaton:
    """The automaton of one sentence; ``required`` may be empty."""
    return Ordered(required) if order is Constraints.ORDERED else Unordered(required)


class Steps:
    """An automaton's steps, each computed once: hypotheses are in the same states over and over."""

    def __init__(self, automaton: Automaton) -> None:
        self._automaton = automaton
        self._known: dict[Progress, dict[int | None, tuple[Progress, int]]] = {}
        """By states and the tokens behind them; None for all that no phrase wants next, which lead to one state."""

    def behind(self, state: Progress, tokens: Iterable[int]) -> list[tuple[Progress, int]]:
        """The state after each of the tokens, with its bank."""
        known = self._known.get(state)
        if known is None:
            known = self._known[state] = self._steps(state)
        other = known[None]
        return [known.get(token, other) for token in tokens]

    def _steps(self, state: Progress) -> dict[int | None, tuple[Progress, int]]:
        steps: dict[int | None, tuple[Progress, int]] = {}
        for token in (None, *self._automaton.next_tokens(state)):
            reached = self._automaton.advance(state, -1 if token is None else token)
            steps[token] = reached, self._automaton.bank(reached)
        return steps


def take_turns(banks: Sequence[int], scores: Sequence[float]) -> list[int]:
    """The order in which candidates share a beam: the best of each bank, the fullest bank first, then the second of
    each, and so on (Post and Vilar, 2018, section 3.2). Impossible ones, scored -inf, come last.
    """
    queues: dict[int, list[int]] = {bank: [] for bank in sorted(set(banks), reverse=True)}
    impossible: list[int] = []
    for place in sorted(range(len(scores)), key=scores.__getitem__, reverse=True):
        (queues[banks[place]] if scores[place] > -math.inf else impossible).append(place)
    turns = chain.from_iterable(zip_longest(*queues.values()))
    return [place for place in turns if place is not None] + impossible
