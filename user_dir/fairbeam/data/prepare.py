"""Preparation of raw parallel text: subword training and binarisation, as ``fairbeam prepare`` does it."""

import itertools
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from fairbeam.data.databin import MANIFEST, DataBin, Manifest, References, SubwordFiles
from fairbeam.data.indexed import IndexedWriter
from fairbeam.data.lexical_shortlist import SHORTLIST, ShortlistOptions, build_shortlist
from fairbeam.errors import ConfigError, InputError
from fairbeam.files import atomic_folder, atomic_write, stream_lines
from fairbeam.text import Dictionary, SentencePiece, SentencePieceOptions, train_sentencepiece

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Callback for progress: called with the step's name, the number of lines done and their total number."""

_SPLIT_KINDS = ("train", "valid", "test")
_SPLIT = re.compile(r"train|(valid|test)[0-9]*")
# Limits of a chunk of lines that is encoded at a time.
_CHUNK_LINES = 8192
_CHUNK_CHARACTERS = 4_000_000
# Names of the files in a data folder; --overwrite deletes no other.
_OWN_FILE = re.compile(r"raw|fairbeam\.json|preprocess\.log|dict\..*txt|.*\.(bin|idx|model)|shortlist\.safetensors")


def available_workers() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """Options of ``prepare``.

    Attributes:
        data: folder with ``train.SOURCE``, ``train.TARGET`` and optionally ``valid*`` and ``test*``.
        source: source language, the extension of its files.
        target: target language, the extension of its files.
        out: folder to write.
        subwords: options for training the SentencePiece model.
        separate: train one model and dictionary per language instead of joint ones.
        spm_model: existing SentencePiece model to use; None trains one.
        dictionary: existing dictionary to use with ``spm_model``; None counts the training text.
        references: format of references in target lines; the first of several is binarised, all are kept raw.
        max_length: most pieces on a side of a training pair, longer pairs are left out; None keeps all.
        workers: number of encoding threads.
        overwrite: replace ``out`` if it exists.
        shortlist: options of the lexical shortlist made from the training text; None makes none.
    """

    data: Path
    source: str
    target: str
    out: Path
    subwords: SentencePieceOptions = field(default_factory=SentencePieceOptions)
    separate: bool = False
    spm_model: Path | None = None
    dictionary: Path | None = None
    references: References = References.NONE
    max_length: int | None = None
    workers: int = field(default_factory=available_workers)
    overwrite: bool = False
    shortlist: ShortlistOptions | None = None

    def __post_init__(self) -> None:
        for name in (self.source, self.target):
            if not re.fullmatch(r"\w+", name):
                raise ConfigError(f"language {name!r}: expected letters, digits and underscores only")
        if self.source == self.target:
            raise ConfigError(f"source and target are both {self.source!r}; expected two names")
        if self.dictionary and not self.spm_model:
            raise ConfigError("a dictionary fits one SentencePiece model only: name that too (spm_model)")
        if self.separate and self.spm_model:
            raise ConfigError("separate learns two models; it cannot be combined with spm_model")
        if self.max_length is not None and self.max_length < 1:
            raise ConfigError(f"max_length is {self.max_length}; expected at least 1")
        if self.workers < 1:
            raise ConfigError(f"workers is {self.workers}; expected at least 1")


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """A sentence pair; ``target`` is binarised, ``raw_target`` is the whole line with all its references."""

    source: str
    target: str
    raw_target: str


@dataclass(frozen=True, kw_only=True)
class _Side:
    """Subword model and dictionary of one language, and the model's file name in the folder."""

    language: str
    model: SentencePiece
    model_name: str
    dictionary: Dictionary

    def save(self, folder: Path) -> None:
        self.model.save(folder / self.model_name)
        self.dictionary.save(folder / f"dict.{self.language}.txt")


def prepare(options: PrepareOptions, progress: Progress = lambda step, done, total: None) -> DataBin:
    """Train a subword model on raw parallel text and binarise the text as a fairseq ``data-bin`` folder.

    The folder is written under a temporary name and renamed when complete, so an error or a kill leaves ``out`` absent
    or as it was. Every pair is kept unless ``max_length`` is given, blank lines too (each becomes ``</s>`` alone, and
    their number is logged).

    Args:
        options: files, subwords and limits.
        progress: called as each step proceeds.

    Returns:
        The new folder.

    Raises:
        InputError: a file is missing, empty, not UTF-8, or has another number of lines than its counterpart; the
            vocabulary size does not suit the text; ``out`` exists.
    """
    out = options.out.resolve()
    _refuse_existing(out, options.overwrite)
    sizes = _survey(options)
    with atomic_folder(out, replace=options.overwrite) as folder:
        sides = _sides(options, sizes, progress)
        for side in sides:
            side.save(folder)
        counts = {split: _binarise(options, split, size, sides, folder, progress) for split, size in sizes.items()}
        _manifest(options, sides, counts).save(folder / MANIFEST)
        if options.shortlist and "train" in counts:
            progress("making the shortlist", 0, 1)
            build_shortlist(folder, options.shortlist).save(folder / SHORTLIST)
            progress("making the shortlist", 1, 1)
    return DataBin.open(options.out)


def _survey(options: PrepareOptions) -> dict[str, int]:
    """Return the number of lines of each split, training text first, after checking every line."""
    if not options.data.is_dir():
        raise InputError(f"{options.data}: no such folder")
    names = {
        path.stem
        for language in (options.source, options.target)
        for path in options.data.glob(f"*.{language}")
        if _SPLIT.fullmatch(path.stem)
    }
    if not options.dictionary:
        names.add("train")
    if not names:
        raise InputError(f"{options.data}: no train, valid or test files ending in .{options.source}")
    in_order = sorted(names, key=lambda name: (_SPLIT_KINDS.index(name.rstrip("0123456789")), name))
    return {split: _check_lines(options, split) for split in in_order}


def _check_lines(options: PrepareOptions, split: str) -> int:
    """Check both files of a split and return their number of lines."""
    paths = _paths(options, split)
    counts = []
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        with path.open("rb") as stream:
            lines = blank = 0
            for line in stream_lines(stream, str(path)):
                lines += 1
                blank += not line.strip()
        if not lines:
            raise InputError(f"{path}: the file is empty; expected one sentence a line")
        if blank:
            logger.warning("%s: %d of %d lines are blank; they are kept, as </s> alone", path, blank, lines)
        counts.append(lines)
    if counts[0] != counts[1]:
        raise InputError(
            f"{paths[0]} has {counts[0]} lines but {paths[1]} has {counts[1]}; "
            "line n of one must belong to line n of the other"
        )
    return counts[0]


def _paths(options: PrepareOptions, split: str) -> tuple[Path, Path]:
    """Return the raw files of a split, source and target."""
    return options.data / f"{split}.{options.source}", options.data / f"{split}.{options.target}"


def _pairs(options: PrepareOptions, split: str) -> Iterator[_Pair]:
    """Read the sentence pairs of a split."""
    with ExitStack() as files:
        sources, targets = (
            stream_lines(files.enter_context(path.open("rb")), str(path)) for path in _paths(options, split)
        )
        for source, target in zip(sources, targets, strict=True):
            yield _Pair(source=source, target=options.references.separate(target)[0], raw_target=target)


def _sides(options: PrepareOptions, sizes: dict[str, int], progress: Progress) -> tuple[_Side, _Side]:
    """Train or load the subword models and dictionaries of source and target."""
    models = _models(options, sizes, progress)
    if options.dictionary:
        joint = Dictionary.load(options.dictionary)
        dictionaries = (joint, joint)
    else:
        dictionaries = _count(options, sizes["train"], models, progress)

    def side(language: str, model: SentencePiece, dictionary: Dictionary) -> _Side:
        name = f"spm.{language}.model" if options.separate else "spm.model"
        return _Side(language=language, model=model, model_name=name, dictionary=dictionary)

    return side(options.source, models[0], dictionaries[0]), side(options.target, models[1], dictionaries[1])


def _models(options: PrepareOptions, sizes: dict[str, int], progress: Progress) -> tuple[SentencePiece, SentencePiece]:
    """Train or load the subword models of source and target."""
    if options.spm_model:
        model = SentencePiece.load(options.spm_model)
        return model, model

    def learn(name: str, lines: Iterable[str], total: int) -> SentencePiece:
        step = f"learning {name} subwords"
        return train_sentencepiece(_watched(lines, step, total, progress), options.subwords)

    total = sizes["train"]
    sources = (pair.source for pair in _pairs(options, "train"))
    targets = (pair.target for pair in _pairs(options, "train"))
    if options.separate:
        return learn(options.source, sources, total), learn(options.target, targets, total)
    joint = learn("joint", itertools.chain(sources, targets), 2 * total)
    return joint, joint


def _watched(lines: Iterable[str], step: str, total: int, progress: Progress) -> Iterator[str]:
    """Yield the lines and report progress as they are consumed."""
    for done, line in enumerate(lines):
        if done % _CHUNK_LINES == 0:
            progress(step, done, total)
        yield line
    progress(step, total, total)


def _count(
    options: PrepareOptions, size: int, models: tuple[SentencePiece, SentencePiece], progress: Progress
) -> tuple[Dictionary, Dictionary]:
    """Make the dictionaries of source and target: every piece of the models with its count in the training text."""
    counts: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    for _, source, target in _encode(options, "train", size, models, "counting pieces", progress):
        counts[0].update(source)
        counts[1].update(target)
    # Pieces that do not occur here, but may in new words or in subword sampling, get count 0. Characters that the
    # model does not cover are not added: they are <unk>.
    if options.separate:
        source_side, target_side = (
            Dictionary.from_counts({piece: side[piece] for piece in model.pieces})
            for side, model in zip(counts, models, strict=True)
        )
        return source_side, target_side
    joint = Dictionary.from_counts({piece: counts[0][piece] + counts[1][piece] for piece in models[0].pieces})
    return joint, joint


def _encode(
    options: PrepareOptions,
    split: str,
    size: int,
    models: tuple[SentencePiece, SentencePiece],
    step: str,
    progress: Progress,
) -> Iterator[tuple[_Pair, list[str], list[str]]]:
    """Yield each pair of a split with its source and target pieces, in order; memory holds one chunk at a time."""
    limit = options.max_length if split == "train" else None
    done = 0
    progress(step, done, size)
    for chunk in _chunks(_pairs(options, split)):
        sources = models[0].encode_batch([pair.source for pair in chunk], options.workers)
        targets = models[1].encode_batch([pair.target for pair in chunk], options.workers)
        for pair, source, target in zip(chunk, sources, targets, strict=True):
            if limit is None or max(len(source), len(target)) <= limit:
                yield pair, source, target
        done += len(chunk)
        progress(step, done, size)


def _chunks(pairs: Iterable[_Pair]) -> Iterator[list[_Pair]]:
    """Group pairs into chunks, limited by lines and by characters."""
    chunk: list[_Pair] = []
    characters = 0
    for pair in pairs:
        chunk.append(pair)
        characters += len(pair.source) + len(pair.raw_target)
        if len(chunk) == _CHUNK_LINES or characters >= _CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _binarise(
    options: PrepareOptions,
    split: str,
    size: int,
    sides: tuple[_Side, _Side],
    folder: Path,
    progress: Progress,
) -> int:
    """Write one split, binarised and raw, and return its number of pairs."""
    prefix = f"{split}.{options.source}-{options.target}"
    pairs = tokens = unknown = 0
    models = (sides[0].model, sides[1].model)
    with ExitStack() as files:
        raw = [files.enter_context(atomic_write(folder / "raw" / path.name)) for path in _paths(options, split)]
        writers = [
            files.enter_context(IndexedWriter(folder / f"{prefix}.{side.language}", len(side.dictionary)))
            for side in sides
        ]
        for pair, *pieces in _encode(options, split, size, models, f"binarising {split}", progress):
            for line, stream in zip((pair.source, pair.raw_target), raw, strict=True):
                stream.write(f"{line}\n")
            for side, writer, side_pieces in zip(sides, writers, pieces, strict=True):
                ids = side.dictionary.encode(side_pieces)
                writer.add(ids)
                tokens += len(ids)
                unknown += ids.count(side.dictionary.unk)
            pairs += 1
    if not pairs:
        raise InputError(f"{options.data}: no pair of {split} has at most {options.max_length} pieces a side")
    if pairs < size:
        logger.warning(
            "%s: left out %d of %d pairs longer than %d pieces", split, size - pairs, size, options.max_length
        )
    logger.info("%s: %d pairs, %d tokens, %.2f%% unknown", split, pairs, tokens, 100 * unknown / tokens)
    return pairs


def _manifest(options: PrepareOptions, sides: tuple[_Side, _Side], counts: dict[str, int]) -> Manifest:
    source, target = sides
    return Manifest(
        source=source.language,
        target=target.language,
        splits=counts,
        subwords=SubwordFiles(kind="sentencepiece", source=source.model_name, target=target.model_name),
        joined_dictionary=not options.separate,
        references=options.references,
    )


def _refuse_existing(out: Path, overwrite: bool) -> None:
    """Raise InputError if ``out`` exists and may not be replaced."""
    if not os.path.lexists(out):
        return
    if not overwrite:
        raise InputError(f"{out} exists; choose another folder, or overwrite it (--overwrite)")
    if not out.is_dir():
        raise InputError(f"{out} is not a folder; it is not overwritten")
    foreign = sorted(path.name for path in out.iterdir() if not _OWN_FILE.fullmatch(path.name))
    if foreign:
        raise InputError(f"{out} holds {foreign[0]!r}, not part of a data folder; it is not overwritten")
