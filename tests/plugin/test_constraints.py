"""Required phrases: fairseq's constrained search and ours say the same, through its own commands."""

import contextlib
import io
import random
import re
from pathlib import Path

import pytest
import torch
from fairseq import options
from fairseq.token_generation_constraints import (
    OrderedConstraintState,
    UnorderedConstraintState,
    pack_constraints,
)
from fairseq_cli import generate, interactive
from hypothesis import given
from hypothesis import strategies as st

from fairbeam.errors import ConfigError
from fairbeam.generation.constraints import Unordered

ROOT = Path(__file__).resolve().parents[2]
SENTENCES = 24


@given(
    required=st.lists(st.lists(st.integers(3, 5), min_size=1, max_size=3), min_size=1, max_size=4),
    text=st.lists(st.integers(3, 6), max_size=12),
)
def test_progress_is_as_fairseq_counts_it(required, text):
    theirs = UnorderedConstraintState.create(pack_constraints([[torch.tensor(phrase) for phrase in required]])[0])
    automaton = Unordered(tuple((tuple(phrase),) for phrase in required))
    ours = automaton.start
    for token in text:
        ours, theirs = automaton.advance(ours, token), theirs.advance(token)
        assert automaton.bank(ours) == theirs.bank
        assert automaton.finished(ours) == theirs.finished
        assert automaton.next_tokens(ours) == theirs.next_tokens()


@pytest.fixture(scope="module")
def folder(run, real_models, real_data, tmp_path_factory) -> Path:
    """Real sentences with phrases of their references, of subwords that stand for whole words."""
    folder = tmp_path_factory.mktemp("constraints")
    model, draw = real_models / "multi30k-en-de", random.Random(5)
    sides = [(real_data / "multi30k" / f"test.{side}").read_text().splitlines()[:SENTENCES] for side in ("en", "de")]
    for side, lines in zip(("en", "de"), sides, strict=True):
        (folder / f"test.{side}").write_text("".join(f"{line}\n" for line in lines))
        (folder / f"train.{side}").write_text("".join(f"{line}\n" for line in lines[:2]))
    phrases = []
    for number, line in enumerate(sides[1]):
        words = line.rstrip(".").split()
        first, second = sorted(draw.sample(range(len(words)), 2))
        phrases.append([" ".join(words[first : first + 2]), words[second]][: number % 3])
    (folder / "phrases").write_text("".join("\t".join(row) + "\n" for row in phrases))
    (folder / "input").write_text(
        "".join("\t".join([line, *row]) + "\n" for line, row in zip(sides[0], phrases, strict=True))
    )
    run("fairbeam", "prepare", folder, "en", "de", folder / "bin",
        "--spm-model", model / "spm.model", "--dict", model / "dict.en.txt")  # fmt: skip
    return folder


def command(parser, main, folder: Path, model: Path, task: str, *extra: object) -> dict[int, list]:
    """The hypotheses of each sentence, text and score."""
    arguments = [
        str(folder / "bin"), "--user-dir", str(ROOT / "user_dir"), "--task", task, "-s", "en", "-t", "de", "--cpu",
        "--path", str(model / "checkpoint.pt"), "--batch-size", "16", *map(str, extra),
    ]  # fmt: skip
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        main(options.parse_args_and_arch(parser, arguments))
    found: dict[int, list] = {}
    for sentence, score, text in re.findall(r"^H-(\d+)\t(\S+)\t(.*)$", out.getvalue(), re.MULTILINE):
        found.setdefault(int(sentence), []).append((text, float(score)))
    return found


def assert_same(ours: dict[int, list], theirs: dict[int, list]) -> None:
    assert sorted(ours) == sorted(theirs) == list(range(SENTENCES))
    for sentence, expected in theirs.items():
        assert [text for text, _ in ours[sentence]] == [text for text, _ in expected], sentence
        assert [score for _, score in ours[sentence]] == pytest.approx([score for _, score in expected], abs=1e-4)


def begins(self) -> int:
    """Where in the sequence the phrase begins that comes next or is being said."""
    done = [place for place in range(self.state + 1) if self.sequence.endpoints[place]]
    return done[-1] + 1 if done else 0


def advance_within_phrase(self, token):
    """fairseq's, but a phrase that breaks off begins again alone, not with all that came before it."""
    if self.finished:
        return self.copy()
    expected = [int(known) for known in self.sequence.sequences]
    for place in (self.state + 1, begins(self)):
        if expected[place] == int(token):
            return OrderedConstraintState(self.sequence, place)
    return OrderedConstraintState(self.sequence, begins(self) - 1)


def next_within_phrase(self):
    """fairseq offers the first of all phrases again."""
    return set() if self.finished else {self.sequence[self.state + 1], self.sequence[begins(self)]}


@pytest.mark.parametrize(
    "extra",
    [("unordered", "--beam", 7, "--nbest", 5), ("ordered",)],
    ids=lambda e: " ".join(map(str, e)),
)
def test_the_same_text_as_fairseqs_search(folder, real_models, extra, monkeypatch):
    if extra[0] == "ordered":
        monkeypatch.setattr(OrderedConstraintState, "advance", advance_within_phrase)
        monkeypatch.setattr(OrderedConstraintState, "next_tokens", next_within_phrase)
    model = real_models / "multi30k-en-de"

    def interact(task):
        return command(
            options.get_interactive_generation_parser(), interactive.main, folder, model, task,
            "--input", folder / "input", "--buffer-size", SENTENCES, "--bpe", "sentencepiece",
            "--sentencepiece-model", model / "spm.model", "--constraints", *extra,
        )  # fmt: skip

    ours = interact("fairbeam_translation")
    assert_same(ours, interact("translation"))
    from_file = command(
        options.get_generation_parser(), generate.main, folder, model, "fairbeam_translation", "--no-progress-bar",
        "--constraints-file", folder / "phrases", "--constraints", *extra,
    )  # fmt: skip
    assert_same(from_file, ours)


def test_constraints_without_phrases_are_refused(folder, real_models):
    with pytest.raises(ConfigError, match="constraints ordered: there are no phrases; they come with required_phrases"):
        command(options.get_generation_parser(), generate.main, folder, real_models / "multi30k-en-de",
                "fairbeam_translation", "--constraints")  # fmt: skip
