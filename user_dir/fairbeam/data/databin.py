"""Binarised data folders: their contents and validity.

A folder that ``fairbeam prepare`` wrote is a fairseq ``data-bin`` (``SPLIT.SRC-TGT.LANG.bin`` and ``.idx``,
``dict.LANG.txt``) that also has a manifest (``fairbeam.json``), the subword model, and the raw text
(``raw/SPLIT.LANG``). A folder from ``fairseq-preprocess`` has none of these three; its file names describe it.
"""

import dataclasses
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from annotated_types import Ge

from fairbeam.data.indexed import IndexedReader
from fairbeam.errors import InputError
from fairbeam.files import atomic_write, read_lines, read_object, stream_lines
from fairbeam.schema import parse
from fairbeam.text import Dictionary, SentencePiece, Subwords, find_model

MANIFEST = "fairbeam.json"
FORMAT = 1
_FILE_NAME = re.compile(r"[\w][\w.+-]*")


class References(StrEnum):
    """Format of reference translations in a raw target line."""

    NONE = "none"  # the line is one reference
    TAB = "tab"  # several references, separated by tabs; the first is binarised

    def separate(self, line: str) -> tuple[str, ...]:
        """Split a raw target line into its references, at least one."""
        return tuple(line.split("\t")) if self is References.TAB else (line,)


@dataclass(frozen=True, kw_only=True)
class SubwordFiles:
    """File names of the subword models.

    Attributes:
        kind: library of the models; only ``sentencepiece`` so far.
        source: file name of the source model.
        target: file name of the target model, often the same.
    """

    kind: str
    source: str
    target: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Contents of ``fairbeam.json``.

    Attributes:
        source: source language.
        target: target language.
        splits: number of sentences by split.
        subwords: files of the subword models.
        joined_dictionary: whether both languages share one dictionary.
        references: format of references in raw target lines.
        format: version of this layout.
    """

    source: str
    target: str
    splits: dict[str, Annotated[int, Ge(0)]]
    subwords: SubwordFiles
    joined_dictionary: bool
    references: References = References.NONE
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.subwords.kind != "sentencepiece":
            raise InputError(f"/subwords/kind is {self.subwords.kind!r}; expected 'sentencepiece'")
        for name in (self.source, self.target, self.subwords.source, self.subwords.target, *self.splits):
            # They become parts of paths: none may leave the folder.
            if not _FILE_NAME.fullmatch(name):
                raise InputError(f"{name!r} is not a plain name")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a manifest.

        Raises:
            InputError: the file is missing, too large, not JSON, of another format, or a field is missing, unknown or
                of the wrong type.
        """
        path = Path(path)
        values = read_object(path)
        if values.get("format") != FORMAT:
            raise InputError(f"{path}: format {values.get('format')!r}; this version reads format {FORMAT}")
        return parse(cls, values, file=path, error=InputError)

    def save(self, path: str | Path) -> None:
        """Write the manifest to a file, from which ``load`` reads an equal one."""
        with atomic_write(path) as stream:
            json.dump(dataclasses.asdict(self), stream, indent=2, ensure_ascii=False)
            stream.write("\n")


@dataclass(frozen=True, kw_only=True)
class Stream:
    """One language of one split: the dataset ``prefix.bin`` and ``prefix.idx``."""

    split: str
    language: str | None  # None in a data-bin for language models
    prefix: Path


@dataclass(frozen=True, kw_only=True)
class DataBin:
    """A folder of binarised splits.

    Attributes:
        folder: path of the folder.
        source: source language; None in a data-bin for language models.
        target: target language; None in a data-bin for language models.
        streams: binarised datasets, one per split and language.
        manifest: written by ``fairbeam prepare``; None in a folder from ``fairseq-preprocess``.
    """

    folder: Path
    source: str | None
    target: str | None
    streams: tuple[Stream, ...] = field(repr=False)
    manifest: Manifest | None = None

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Describe a folder by its manifest and its file names.

        Raises:
            InputError: the folder does not exist, holds no binarised data, has several language pairs, or has a
                malformed manifest.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise InputError(f"{folder}: no such data folder")
        path = folder / MANIFEST
        manifest = Manifest.load(path) if path.is_file() else None
        named = [_parse_name(index.with_suffix("")) for index in sorted(folder.glob("*.idx"))]
        pairs = {pair for pair, _ in named}
        if manifest:
            pair: tuple[str | None, str | None] = (manifest.source, manifest.target)
        elif len(pairs) == 1:
            pair = pairs.pop()
        elif pairs:
            raise InputError(f"{folder}: binarised for several language pairs: {sorted(map(str, pairs))}")
        else:
            raise InputError(f"{folder}: no binarised data (*.idx) in it; is this a data-bin folder?")
        streams = tuple(stream for _, stream in named)
        return cls(folder=folder, source=pair[0], target=pair[1], streams=streams, manifest=manifest)

    def sizes(self) -> dict[str, int]:
        """Return the number of sentences of each split.

        Raises:
            InputError: an index is malformed.
        """
        return {stream.split: len(IndexedReader(stream.prefix)) for stream in self.streams}

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, those of the manifest first."""
        named = self.manifest.splits if self.manifest else {}
        return tuple(dict.fromkeys([*named, *(stream.split for stream in self.streams)]))

    @property
    def references(self) -> References:
        """Format of references in raw target lines."""
        return self.manifest.references if self.manifest else References.NONE

    def dictionary_path(self, language: str | None) -> Path:
        """Return the path of a language's dictionary."""
        return self.folder / (f"dict.{language}.txt" if language else "dict.txt")

    def prefix(self, split: str, language: str) -> Path:
        """Return the path of a split's dataset in one language, without ``.bin`` and ``.idx``."""
        return self.folder / f"{split}.{self.source}-{self.target}.{language}"

    def raw_path(self, split: str, language: str) -> Path:
        """Return the path of a split's raw text in one language, which need not exist."""
        return self.folder / "raw" / f"{split}.{language}"

    def raw_lines(self, split: str, language: str) -> list[str] | None:
        """Return a split's raw text in one language; None if it was not kept."""
        return raw_lines(self.folder, split, language)

    def raw_references(self, split: str) -> list[tuple[str, ...]] | None:
        """Return the references of each sentence of a split; None if the raw text was not kept."""
        lines = self.raw_lines(split, self.target) if self.target else None
        return None if lines is None else [self.references.separate(line) for line in lines]

    def subwords(self, language: str | None = None) -> Subwords | None:
        """Return the subword model of a language (by default the source's); None if there is none.

        Raises:
            InputError: the manifest names a model that is missing, or the file is not a model.
        """
        if self.manifest:
            files = self.manifest.subwords
            name = files.target if language == self.target else files.source
            return SentencePiece.load(self.folder / name)
        model = find_model(self.folder, language)
        return SentencePiece.load(model) if model else None

    def check(self) -> list[str]:
        """Read every file and return the folder's problems, one sentence each; empty if it is valid."""
        return list(_problems(self))


def raw_lines(folder: str | Path, split: str, language: str) -> list[str] | None:
    """Return a split's raw text in one language; None if it was not kept."""
    path = Path(folder) / "raw" / f"{split}.{language}"
    return read_lines(path) if path.is_file() else None


def find_subwords(folder: str | Path, language: str | None = None) -> Subwords | None:
    """Return the subword model of a data folder; None if there is none."""
    return DataBin.open(folder).subwords(language)


def check(folder: str | Path) -> list[str]:
    """Read every file of a data folder and return its problems, one sentence each; empty if it is valid."""
    try:
        return DataBin.open(folder).check()
    except InputError as error:
        return [str(error)]


def _parse_name(prefix: Path) -> tuple[tuple[str | None, str | None], Stream]:
    """Return the language pair and the dataset that a file name states, in fairseq's naming scheme."""
    parts = prefix.name.split(".")
    if len(parts) == 3 and parts[1].count("-") == 1:
        source, target = parts[1].split("-")
        return (source, target), Stream(split=parts[0], language=parts[2], prefix=prefix)
    return (None, None), Stream(split=prefix.name, language=None, prefix=prefix)


def _problems(data: DataBin) -> Iterator[str]:
    sizes: dict[str | None, int] = {}
    counts: dict[str, dict[str | None, int]] = {split: {} for split in data.splits}
    for language in dict.fromkeys(stream.language for stream in data.streams):
        try:
            sizes[language] = len(Dictionary.load(data.dictionary_path(language)))
        except InputError as error:
            yield str(error)
    for stream in data.streams:
        try:
            reader = IndexedReader(stream.prefix)
        except InputError as error:
            yield str(error)
            continue
        counts[stream.split][stream.language] = len(reader)
        largest = reader.max_id()
        if stream.language in sizes and largest >= sizes[stream.language]:
            yield (
                f"{stream.prefix}.bin: id {largest}, but {data.dictionary_path(stream.language)} has "
                f"{sizes[stream.language]} tokens"
            )
    for split, by_language in counts.items():
        yield from _split_problems(data, split, by_language)
    try:
        for language in (data.source, data.target):
            data.subwords(language)
    except InputError as error:
        yield str(error)


def _split_problems(data: DataBin, split: str, counts: dict[str | None, int]) -> Iterator[str]:
    if len(set(counts.values())) > 1:
        named = ", ".join(f"{count} in {language}" for language, count in counts.items())
        yield f"{data.folder}: the sides of {split} have different numbers of sentences: {named}"
    for language, count in counts.items():
        path = data.raw_path(split, str(language))
        if not path.is_file():
            continue
        try:
            with path.open("rb") as stream:
                lines = sum(1 for _ in stream_lines(stream, str(path)))
        except InputError as error:
            yield str(error)
            continue
        if lines != count:
            yield f"{path}: {lines} lines, but {count} sentences are binarised"
    if data.manifest:
        expected = data.manifest.splits.get(split)
        for language in (data.source, data.target):
            if expected is None or counts.get(language) != expected:
                yield (
                    f"{data.folder}: {split} has {counts.get(language, 'no')} sentences in {language}; "
                    f"{MANIFEST} says {expected if expected is not None else 'nothing of it'}"
                )
