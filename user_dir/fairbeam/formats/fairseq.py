"""Models where they are: bundles, Hugging Face folders, and fairseq checkpoints with their dictionaries."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairbeam.data.lexical_shortlist import SHORTLIST, Shortlist
from fairbeam.errors import CheckpointError, InputError
from fairbeam.families.fairseq import registry as fairseq
from fairbeam.families.fairseq import transformer as fairseq_transformer
from fairbeam.families.weight_map import read_weights, same
from fairbeam.formats import bundle
from fairbeam.formats import fairseq_checkpoint as checkpoint
from fairbeam.formats import hugging_face as pretrained
from fairbeam.model import Bundle, Provenance
from fairbeam.network import (
    AnyNetwork,
    EncoderDecoder,
    EncoderOnly,
    Seq2Seq,
    build,
)
from fairbeam.network.finetuning import FinetuningOptions, add_lora_, merge_lora_
from fairbeam.text import TextSide, Tokenizer, find_model

ONE_DICTIONARY = "dict.txt"
"""Where source and target are one language."""
_TUNED = "fairbeam_from_bundle"
"""The architecture of checkpoints that hold another model's weights, trained further."""


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """Where the text side of a fairseq checkpoint is, where it is not beside the checkpoint or said in it.

    The languages also choose among those of a multilingual model.
    """

    data: Path | None = None
    """Folder of the dictionaries and the subword model."""
    source_lang: str | None = None
    target_lang: str | None = None
    direction_matters: bool = False
    """Refuse to guess which language is the source even where dictionaries and subwords are the same."""


def read_model(path: str | Path, files: ModelFiles | None = None) -> Bundle:
    """A bundle, a Hugging Face folder, or a fairseq checkpoint with its dictionaries; errors as for ``load``."""
    path, files = Path(path), files or ModelFiles()
    if pretrained.is_folder(path):
        return pretrained.read(path, source_lang=files.source_lang, target_lang=files.target_lang)
    if path.is_dir():
        if not bundle.is_bundle(path):
            raise CheckpointError(f"{path}: no {bundle.CONFIG} and {bundle.WEIGHTS} in it; expected a bundle")
        return with_languages(bundle.load(path), files)
    return read_fairseq(path, files)


def with_languages(model: Bundle, files: ModelFiles) -> Bundle:
    """The same model for the languages that are named, where it has several."""

    def chosen(side: TextSide | None, language: str | None) -> TextSide | None:
        return side if side is None or language is None else side.with_language(language)

    source, target = chosen(model.source, files.source_lang), chosen(model.target, files.target_lang)
    return dataclasses.replace(model, source=source, target=target)


def read_fairseq(path: Path, files: ModelFiles) -> Bundle:
    """A fairseq checkpoint with its dictionaries and subwords; errors as for ``load``."""
    read = checkpoint.read(path)
    if read.architecture == _TUNED:
        return _read_tuned(read, path, files)
    network, family = _network_of(read)
    source, target = _sides(read, path, files, network)
    if isinstance(network, EncoderDecoder):
        # Where a language's symbol stands behind </s> it is what ends a target, and so what one begins with.
        network.config = dataclasses.replace(network.config, eos=target.last)
    origin = _origin_of(read, network)
    return Bundle(
        network=network.eval(),
        source=source,
        target=None if isinstance(network, EncoderOnly) else target,
        family=family,
        origin=origin,
        shortlist=_shortlist_of(read, path, files, source, target),
    )


def _shortlist_of(
    read: checkpoint.Checkpoint, path: Path, files: ModelFiles, source: Tokenizer, target: Tokenizer
) -> Shortlist | None:
    """The shortlist beside the dictionaries, if there is one; languages' symbols are in no list."""
    file = _data_folder(read, path, files) / SHORTLIST
    if not file.is_file():
        return None
    found = Shortlist.load(file)
    return found.extended(len(source), len(target)) if fairseq.task_symbols(read.task) else found


def _sides(
    read: checkpoint.Checkpoint, path: Path, files: ModelFiles, network: AnyNetwork
) -> tuple[Tokenizer, Tokenizer]:
    """Source and target, their dictionaries as the checkpoint's task makes them of the files."""
    folder = _data_folder(read, path, files)
    if not isinstance(network, Seq2Seq):
        side = Tokenizer.load(folder, None, marks=fairseq.marks_of(network.config))
        side = dataclasses.replace(side, dictionary=side.dictionary.extended(fairseq.task_symbols(read.task)))
        return side, side
    one = ONE_DICTIONARY if not any(folder.glob("dict.*.txt")) else None
    names = (files.source_lang or "source", files.target_lang or "target") if one else _languages(read, folder, files)
    symbols = fairseq.task_symbols(read.task)
    source, target = (Tokenizer.load(folder, name, file=one) for name in names)
    return (
        dataclasses.replace(source, dictionary=source.dictionary.extended(symbols)),
        dataclasses.replace(target, dictionary=target.dictionary.extended(symbols)),
    )


def _read_tuned(read: checkpoint.Checkpoint, path: Path, files: ModelFiles) -> Bundle:
    """A pretrained model that was trained further: its files, and the checkpoint's weights with low-rank changes merged
    in."""
    trained_from = read.task.get("bundle")
    if files.data is None and (not isinstance(trained_from, str) or not trained_from):
        raise CheckpointError(f"{path}: does not say which bundle it was trained from; name its folder with --data")
    folder = Path(str(trained_from)) if files.data is None else files.data
    if not folder.is_dir():
        raise InputError(f"{path}: was trained from {folder}, which is not there; name the bundle's folder with --data")
    languages = [files.source_lang or read.task.get("source_lang"), files.target_lang or read.task.get("target_lang")]
    source, target = (language if isinstance(language, str) else None for language in languages)
    base = read_model(folder, ModelFiles(source_lang=source, target_lang=target))
    network = build(base.network.config)
    add_lora_(network, _low_rank_options(read.config, path))
    own = {name.removeprefix(fairseq_transformer.OWN_PREFIX): tensor for name, tensor in read.model.items()}
    rows = [same(name, name) for name in network.state_dict()]
    network.load_state_dict(read_weights(rows, own, network.state_dict(), frozenset()))
    merge_lora_(network)
    return dataclasses.replace(base, network=network.eval())


def _low_rank_options(options: Mapping[str, Any], path: Path) -> FinetuningOptions:
    rank, alpha, targets = (options.get(f"lora_{name}") for name in ("rank", "alpha", "targets"))
    if type(rank) is not int or not isinstance(alpha, int | float) or not isinstance(targets, str):
        raise CheckpointError(f"{path}: lora_rank, lora_alpha and lora_targets are {(rank, alpha, targets)!r:.200}")
    names = tuple(name.strip() for name in targets.split(",") if name.strip())
    return FinetuningOptions(lora_rank=rank, lora_alpha=alpha, lora_targets=names)


def _origin_of(read: checkpoint.Checkpoint, network: AnyNetwork) -> Provenance | None:
    """What writing the checkpoint again takes; None where its weights have our names, or names of old releases."""
    if any(name.startswith(fairseq_transformer.OWN_PREFIX) for name in read.model):
        return None
    page = fairseq.family_of(read.architecture)
    written = page.save_weights(network)
    kept = {name: tensor for name, tensor in read.model.items() if page.NOT_WEIGHTS.fullmatch(name)}
    may_lack = {fairseq_transformer.TIED_OUTPUT} if network.config.tie_output else set[str]()
    if written.keys() - may_lack != read.model.keys() - kept.keys() - may_lack:
        return None
    try:
        config = {"model": read.config, "task": read.task}
        config = json.loads(json.dumps(config, allow_nan=False))
    except (TypeError, ValueError):
        return None
    return Provenance(config, {name: tensor.dtype for name, tensor in read.model.items()}, kept)


def _network_of(read: checkpoint.Checkpoint) -> tuple[AnyNetwork, str]:
    """The network and its family's name."""
    if any(name.startswith(fairseq_transformer.OWN_PREFIX) for name in read.model):
        return fairseq_transformer.load_trained_network(read.config, read.model), fairseq_transformer.FAMILY
    page = fairseq.family_of(read.architecture)
    return page.load_network(fairseq.completed(read.architecture, read.config), read.model), page.FAMILY


def _data_folder(read: checkpoint.Checkpoint, path: Path, files: ModelFiles) -> Path:
    """Where the dictionaries are: named, beside the checkpoint, or where it was trained."""
    trained = read.task.get("data")
    tried = [files.data or path.parent]
    if files.data is None and isinstance(trained, str) and trained:
        tried.append(Path(trained))
    for folder in tried:
        if any(folder.glob("dict.*.txt")) or (folder / ONE_DICTIONARY).is_file():
            return folder
    raise InputError(
        f"{path}: no dictionaries (dict.LANGUAGE.txt or {ONE_DICTIONARY}) in {' or '.join(map(str, tried))}; "
        "name the folder that holds them with --data"
    )


def _languages(read: checkpoint.Checkpoint, folder: Path, files: ModelFiles) -> tuple[str, str]:
    """Source and target: as asked for, as the checkpoint says, as the data is binarised, or either way."""
    source = files.source_lang or read.task.get("source_lang")
    target = files.target_lang or read.task.get("target_lang")
    if isinstance(source, str) and isinstance(target, str) and source and target:
        for name in (source, target):
            if name != Path(name).name:
                raise CheckpointError(f"the checkpoint's language {name!r} is not a plain name")
        return source, target
    found = sorted(path.name.split(".")[1] for path in folder.glob("dict.*.txt"))
    for pair in ((a, b) for a in found for b in found):
        if any(folder.glob(f"*.{pair[0]}-{pair[1]}.*.idx")):
            return pair
    if len(found) == 2 and not files.direction_matters:
        first, second = (Tokenizer.load(folder, language) for language in found)
        same_subwords = find_model(folder, found[0]) == find_model(folder, found[1])
        if first.dictionary == second.dictionary and same_subwords:  # then it makes no difference which is which
            return found[0], found[1]
    raise InputError(
        f"{folder}: which language is the source? The checkpoint does not say, and there are dictionaries "
        f"for {', '.join(found)}; give --source-lang and --target-lang"
    )
