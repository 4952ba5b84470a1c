"""Registry of formats of a model on disk: which one a path has, how it is read and how it is written."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from fairbeam.errors import CheckpointError, ConfigError
from fairbeam.formats import bundle, ctranslate2, hugging_face
from fairbeam.formats.fairseq import ModelFiles, read_fairseq, write_fairseq
from fairbeam.model import Bundle


class Format(StrEnum):
    """Format of a model on disk; its value is the prefix of a path on the command line."""

    BUNDLE = "bundle"
    HUGGING_FACE = "hf"
    FAIRSEQ = "fairseq"
    CTRANSLATE2 = "ct2"
    """Folder for CTranslate2, which is written only."""


@dataclass(frozen=True)
class Location:
    """Path of a model, and its format there."""

    format: Format
    path: Path

    def __str__(self) -> str:
        return f"{self.format}:{self.path}"


def detect(path: Path) -> Format | None:
    """Return the format of what is at ``path``; None if there is no model."""
    if hugging_face.is_folder(path):
        return Format.HUGGING_FACE
    if bundle.is_bundle(path):
        return Format.BUNDLE
    return Format.FAIRSEQ if path.is_file() else None


def locate(text: str, *, new: bool) -> Location:
    """Return the location that ``hf:PATH``, ``bundle:PATH``, ``fairseq:PATH`` or a bare path names.

    A bare path has the format of what is there; a ``new`` one is a checkpoint if it ends in ``.pt``, else a bundle.

    Raises:
        ConfigError: the path is empty, no model is there, or the format can only be written.
    """
    prefix, colon, rest = text.partition(":")
    if colon and prefix in list(Format):
        if not rest:
            raise ConfigError(f"{text!r}: no path behind the prefix")
        if prefix not in list(_READERS) and not new:
            raise ConfigError(f"{text!r}: {prefix}: can be a result, not a source; expected one of {_prefixes()}")
        return Location(Format(prefix), Path(rest))
    path = Path(text)
    if not text:
        raise ConfigError("'' is no path; expected a model's")
    found = detect(path)
    if found is None and new:
        found = Format.FAIRSEQ if path.suffix == ".pt" else Format.BUNDLE
    if found is None:
        raise ConfigError(
            f"{path}: neither a bundle, a Hugging Face folder nor a checkpoint; "
            f"expected one, or {_prefixes()} before PATH"
        )
    return Location(found, path)


def read(location: Location, files: ModelFiles | None = None) -> Bundle:
    """Return the model at a location.

    Raises:
        CheckpointError: it cannot be read or has no conversion; names what is wrong.
        ConfigError: a language is unknown, or a library is missing.
        InputError: a tokenizer or a dictionary is malformed or missing.
    """
    return _READERS[location.format](location.path, files or ModelFiles())


def read_model(path: str | Path, files: ModelFiles | None = None) -> Bundle:
    """Return the model at a path, in whatever format; errors as for ``read``."""
    path = Path(path)
    found = detect(path)
    if found is None and path.is_dir():
        raise CheckpointError(f"{path}: no {bundle.CONFIG} and {bundle.WEIGHTS} in it; expected a bundle")
    return read(Location(found or Format.FAIRSEQ, path), files)


def write(location: Location, model: Bundle, *, overwrite: bool = False) -> None:
    """Write a model in a location's format.

    Raises:
        ConfigError: the path exists and is not to be replaced, or the format cannot hold the model.
        InputError: the path cannot be written.
    """
    _WRITERS[location.format](location.path, model, overwrite)


def _prefixes() -> str:
    return ", ".join(f"{name}:" for name in _READERS)


def _read_bundle(path: Path, files: ModelFiles) -> Bundle:
    return bundle.load(path).with_languages(files.source_lang, files.target_lang)


def _read_hugging_face(path: Path, files: ModelFiles) -> Bundle:
    return hugging_face.read(path, source_lang=files.source_lang, target_lang=files.target_lang)


def _read_fairseq(path: Path, files: ModelFiles) -> Bundle:
    return read_fairseq(path, files, read_model)


def _write_bundle(path: Path, model: Bundle, overwrite: bool) -> None:
    bundle.save(path, model, overwrite=overwrite)


def _write_hugging_face(path: Path, model: Bundle, overwrite: bool) -> None:
    hugging_face.write(path, model, overwrite=overwrite)


def _write_fairseq(path: Path, model: Bundle, overwrite: bool) -> None:
    write_fairseq(path, model, overwrite=overwrite)


def _write_ctranslate2(path: Path, model: Bundle, overwrite: bool) -> None:
    ctranslate2.write(path, model, overwrite=overwrite)


_READERS: dict[Format, Callable[[Path, ModelFiles], Bundle]] = {
    Format.BUNDLE: _read_bundle,
    Format.HUGGING_FACE: _read_hugging_face,
    Format.FAIRSEQ: _read_fairseq,
}
_WRITERS: dict[Format, Callable[[Path, Bundle, bool], None]] = {
    Format.BUNDLE: _write_bundle,
    Format.HUGGING_FACE: _write_hugging_face,
    Format.FAIRSEQ: _write_fairseq,
    Format.CTRANSLATE2: _write_ctranslate2,
}
