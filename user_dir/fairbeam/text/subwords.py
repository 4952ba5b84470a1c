"""Subword segmentation: SentencePiece models, text that is already split, and subword-nmt's notation."""

import io
import random
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol, Self

import sentencepiece

from fairbeam.errors import ConfigError, InputError
from fairbeam.files import atomic_write

MAX_MODEL_BYTES = 256 * 2**20
_MODEL_NAMES = ("spm.model", "sentencepiece.bpe.model", "sentencepiece.model", "spiece.model")


class Subwords(Protocol):
    """Segmentation of a line of text into pieces, and its inverse."""

    def encode(self, line: str) -> list[str]:
        """Split a line into pieces; a blank line has none."""
        ...

    def encode_batch(self, lines: Sequence[str], threads: int = 1) -> list[list[str]]:
        """Encode every line, in order, on several threads where the implementation can."""
        ...

    def sample(self, line: str, *, alpha: float, rng: random.Random) -> list[str]:
        """Draw a random segmentation of a line (subword regularization).

        Raises:
            ConfigError: these subwords have one segmentation only.
        """
        ...

    def decode(self, pieces: Sequence[str]) -> str:
        """Join pieces to text."""
        ...


class ModelType(StrEnum):
    """Algorithm that learns a SentencePiece model: merges of pairs, or a unigram language model over pieces."""

    BPE = "bpe"
    UNIGRAM = "unigram"


@dataclass(frozen=True, kw_only=True)
class SentencePieceOptions:
    """Options of ``train_sentencepiece``.

    Attributes:
        vocab_size: number of pieces in the model, its three control pieces included.
        model_type: algorithm, BPE or unigram.
        character_coverage: share of the text's characters that get a piece; the rarest of the others become
            ``<unk>``. Languages with thousands of characters are usually trained with 0.9995.
        max_lines: number of lines that a larger corpus is sampled down to; memory grows with it.
        max_line_bytes: length in bytes above which a line is not learned from.
    """

    vocab_size: int = 8000
    model_type: ModelType = ModelType.BPE
    character_coverage: float = 1.0
    max_lines: int = 10_000_000
    max_line_bytes: int = 65_536

    def __post_init__(self) -> None:
        if self.vocab_size < 4:
            raise ConfigError(f"vocab_size is {self.vocab_size}; expected at least 4")
        if not 0.9 <= self.character_coverage <= 1:
            raise ConfigError(f"character_coverage is {self.character_coverage}; expected 0.9 to 1")
        if self.max_lines <= 100:
            raise ConfigError(f"max_lines is {self.max_lines}; expected more than 100")


class SentencePiece:
    """A SentencePiece model.

    Args:
        model: serialized model, as in an ``spm.model`` file.
        source: name of its file, for error messages.
    """

    def __init__(self, model: bytes, source: str = "SentencePiece model") -> None:
        self.model = model
        self._source = source
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.load_from_serialized_proto(model)
        except RuntimeError as error:
            raise InputError(f"{source}: not a SentencePiece model ({error})") from None

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a model file.

        Raises:
            InputError: the file is missing, larger than 256 MiB, or not a SentencePiece model.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path}: no such SentencePiece model")
        with path.open("rb") as stream:
            model = stream.read(MAX_MODEL_BYTES + 1)
        if len(model) > MAX_MODEL_BYTES:
            raise InputError(f"{path}: larger than {MAX_MODEL_BYTES} bytes; not a SentencePiece model")
        return cls(model, str(path))

    def save(self, path: str | Path) -> None:
        """Write the model file."""
        with atomic_write(path, "wb") as stream:
            stream.write(self.model)

    def encode(self, line: str) -> list[str]:
        """Split a line into pieces; characters that the model does not know stay as they are written."""
        return self._processor.encode(line, out_type=str)

    def encode_batch(self, lines: Sequence[str], threads: int = 1) -> list[list[str]]:
        """Encode every line, in order, on the library's own threads (outside Python's lock)."""
        return self._processor.encode(list(lines), out_type=str, num_threads=threads)

    def sample(self, line: str, *, alpha: float, rng: random.Random) -> list[str]:
        """Draw a random segmentation of a line, in one process the same for the same state of ``rng``.

        The library's generator is seeded anew from ``rng`` for every line, so nothing of earlier lines is
        carried over. Another process draws differently all the same: the library mixes in something of its own.

        Args:
            line: text.
            alpha: for BPE the probability that a merge is dropped (BPE-dropout, Provilkov et al., 2020; 0 is
                ``encode``); for unigram the exponent of a segmentation's probability (Kudo, 2018; 0 is uniform).
            rng: random state, advanced by one draw.

        Raises:
            ConfigError: the model is neither BPE nor unigram.
        """
        # 31 bits: the library takes 2**32 - 1 to mean "a seed from the system".
        sentencepiece.set_random_generator_seed(rng.getrandbits(31))
        try:
            return self._processor.encode(line, out_type=str, enable_sampling=True, nbest_size=-1, alpha=alpha)
        except RuntimeError:
            raise ConfigError(f"{self._source}: only BPE and unigram models can sample") from None

    def decode(self, pieces: Sequence[str]) -> str:
        """Join pieces, with U+2581 turned to spaces and unknown pieces shown as `` ⁇ ``.

        Text without U+2581 that is not made of the model's pieces comes back unchanged.
        """
        text = self._processor.decode_pieces(list(pieces))
        # The library leaves U+2581 in pieces that are another model's.
        return text.replace("▁", " ").lstrip(" ") if "▁" in text else text

    @property
    def pieces(self) -> list[str]:
        """Pieces that ``encode`` can return: all but the model's control and unknown pieces."""
        model = self._processor
        ids = range(model.get_piece_size())
        return [model.id_to_piece(i) for i in ids if not (model.is_control(i) or model.is_unknown(i))]

    @property
    def all_pieces(self) -> list[str]:
        """Every piece of the model, in the order of its own ids."""
        return [self._processor.id_to_piece(i) for i in range(self._processor.get_piece_size())]

    def __reduce__(self) -> tuple[type[Self], tuple[bytes, str]]:
        return type(self), (self.model, self._source)


class Whitespace:
    """Text whose tokens are already separated by white space."""

    def encode(self, line: str) -> list[str]:
        """Split a line at white space."""
        return line.split()

    def encode_batch(self, lines: Sequence[str], threads: int = 1) -> list[list[str]]:
        """Encode every line, in order."""
        return [self.encode(line) for line in lines]

    def sample(self, line: str, *, alpha: float, rng: random.Random) -> list[str]:
        """Refuse: there is one segmentation only.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("text that is split at white space has no other segmentations to sample from")

    def decode(self, pieces: Sequence[str]) -> str:
        """Join tokens with a space between them."""
        return " ".join(pieces)


class SubwordNMT(Whitespace):
    """Text that subword-nmt has already segmented: ``@@`` at the end of a token joins it to the next."""

    def decode(self, pieces: Sequence[str]) -> str:
        """Join tokens to words, and words with a space between them."""
        return re.sub(r"@@( |$)", "", " ".join(pieces))


def train_sentencepiece(lines: Iterable[str], options: SentencePieceOptions | None = None) -> SentencePiece:
    """Learn a SentencePiece model; chain the lines of several files for a joint one.

    The result depends on the lines and the options alone: training draws nothing at random and always
    runs the same number of threads.

    Raises:
        InputError: the vocabulary is too small for the characters of the text or too large for its words
            (the size that works is named), or there is no text.
    """
    options = options or SentencePieceOptions()
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            vocab_size=options.vocab_size,
            model_type=options.model_type.value,
            character_coverage=options.character_coverage,
            input_sentence_size=options.max_lines,
            shuffle_input_sentence=True,
            max_sentence_length=options.max_line_bytes,
            num_threads=16,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise InputError(_explain_training_error(str(error), options)) from None
    return SentencePiece(model.getvalue())


def _explain_training_error(message: str, options: SentencePieceOptions) -> str:
    size = options.vocab_size
    explanations: dict[str, Callable[[re.Match[str]], str]] = {
        r"size too high.*<= (\d+)": lambda found: (
            f"a vocabulary of {size} pieces is too large for this text; the largest that works is {found[1]}"
        ),
        r"smaller than required_chars\. \d+ vs (\d+)": lambda found: (
            f"a vocabulary of {size} pieces is too small for the characters of this text; expected at least "
            f"{found[1]}, or a character coverage below {options.character_coverage}"
        ),
        r"sentences_\.empty": lambda _: "there is no text to learn subwords from",
    }
    for pattern, explain in explanations.items():
        if found := re.search(pattern, message):
            return explain(found)
    return f"SentencePiece could not learn a model of {size} pieces: {message}"


def find_model(folder: str | Path, language: str | None = None) -> Path | None:
    """Return the SentencePiece model beside a model's or a corpus's other files, or None.

    A model for the language alone (``spm.LANGUAGE.model``) comes first, then the usual names, then the only
    ``*.model`` there is.
    """
    folder = Path(folder)
    names = (f"spm.{language}.model", *_MODEL_NAMES) if language else _MODEL_NAMES
    for name in names:
        if (folder / name).is_file():
            return folder / name
    others = sorted(folder.glob("*.model"))
    return others[0] if len(others) == 1 else None
