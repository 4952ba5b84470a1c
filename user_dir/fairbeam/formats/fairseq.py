"""fairseq checkpoints with their dictionaries and subwords as whole models, read and written."""

import dataclasses
import json
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairbeam.data.lexical_shortlist import SHORTLIST, Shortlist
from fairbeam.errors import CheckpointError, ConfigError, InputError
from fairbeam.families.fairseq import registry as fairseq
from fairbeam.families.fairseq import transformer as fairseq_transformer
from fairbeam.families.fairseq.registry import FairseqFamily
from fairbeam.families.registry import FAMILIES
from fairbeam.families.weight_map import read_weights, same
from fairbeam.formats import fairseq_checkpoint as checkpoint
from fairbeam.model import Bundle, Provenance
from fairbeam.network import (
    AnyConfig,
    AnyNetwork,
    EncoderDecoder,
    EncoderDecoderConfig,
    EncoderOnly,
    HeadConfig,
    Seq2Seq,
    StackConfig,
    build,
)
from fairbeam.network.finetuning import FinetuningOptions, add_lora_, merge_lora_
from fairbeam.text import Dictionary, TextSide, Tokenizer, find_model

ONE_DICTIONARY = "dict.txt"
"""Dictionary of tasks whose source and target are one language."""
_TUNED = "fairbeam_from_bundle"
"""Architecture of checkpoints of a bundle's model that was trained further."""
_STACK_VERSION = 3.0
"""Version of a stack's layout in fairseq 0.12; with a version below 2, fairseq removes the final norm."""


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """Dictionaries and languages of a fairseq checkpoint that does not say them itself.

    The languages also choose among those of a multilingual model.
    """

    data: Path | None = None
    """Folder of the dictionaries and the subword model."""
    source_lang: str | None = None
    """Source language."""
    target_lang: str | None = None
    """Target language."""
    direction_matters: bool = False
    """Refuse to guess which language is the source even if dictionaries and subwords are the same."""


def read_fairseq(path: Path, files: ModelFiles, read_base: Callable[[Path, ModelFiles], Bundle]) -> Bundle:
    """Return the model of a fairseq checkpoint with its dictionaries and subwords.

    Args:
        path: the checkpoint.
        files: dictionaries and languages that it does not say itself.
        read_base: reader of the bundle or Hugging Face folder that a checkpoint was trained from.

    Raises:
        CheckpointError: the checkpoint cannot be read or has no conversion; names what is wrong.
        InputError: dictionaries or subwords are missing or malformed, or the languages are not known.
    """
    read = checkpoint.read(path)
    if read.architecture == _TUNED:
        return _read_tuned(read, path, files, read_base)
    network, family = _network_of(read)
    source, target = _sides(read, path, files, network)
    if isinstance(network, EncoderDecoder):
        # A language token behind </s> ends a target, and so is its decoder start token.
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
    """Return the shortlist beside the dictionaries, if there is one; language tokens are in no list."""
    file = _data_folder(read, path, files) / SHORTLIST
    if not file.is_file():
        return None
    found = Shortlist.load(file)
    return found.extended(len(source), len(target)) if fairseq.task_symbols(read.task) else found


def _sides(
    read: checkpoint.Checkpoint, path: Path, files: ModelFiles, network: AnyNetwork
) -> tuple[Tokenizer, Tokenizer]:
    """Return both tokenizers, with the symbols that the checkpoint's task adds to the dictionaries."""
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


def _read_tuned(
    read: checkpoint.Checkpoint, path: Path, files: ModelFiles, read_base: Callable[[Path, ModelFiles], Bundle]
) -> Bundle:
    """Return a fine-tuned model: the files of its base, and the checkpoint's weights with LoRA merged in."""
    trained_from = read.task.get("bundle")
    if files.data is None and (not isinstance(trained_from, str) or not trained_from):
        raise CheckpointError(f"{path}: does not say which bundle it was trained from; name its folder with --data")
    folder = Path(str(trained_from)) if files.data is None else files.data
    if not folder.is_dir():
        raise InputError(f"{path}: was trained from {folder}, which is not there; name the bundle's folder with --data")
    languages = [files.source_lang or read.task.get("source_lang"), files.target_lang or read.task.get("target_lang")]
    source, target = (language if isinstance(language, str) else None for language in languages)
    base = read_base(folder, ModelFiles(source_lang=source, target_lang=target))
    network = build(base.network.config)
    add_lora_(network, _lora_options(read.config, path))
    own = {name.removeprefix(fairseq_transformer.OWN_PREFIX): tensor for name, tensor in read.model.items()}
    rows = [same(name, name) for name in network.state_dict()]
    network.load_state_dict(read_weights(rows, own, network.state_dict(), frozenset()))
    merge_lora_(network)
    return dataclasses.replace(base, network=network.eval())


def _lora_options(options: Mapping[str, Any], path: Path) -> FinetuningOptions:
    rank, alpha, targets = (options.get(f"lora_{name}") for name in ("rank", "alpha", "targets"))
    if type(rank) is not int or not isinstance(alpha, int | float) or not isinstance(targets, str):
        raise CheckpointError(f"{path}: lora_rank, lora_alpha and lora_targets are {(rank, alpha, targets)!r:.200}")
    names = tuple(name.strip() for name in targets.split(",") if name.strip())
    return FinetuningOptions(lora_rank=rank, lora_alpha=alpha, lora_targets=names)


def _origin_of(read: checkpoint.Checkpoint, network: AnyNetwork) -> Provenance | None:
    """Return the provenance for writing the checkpoint again; None for weights under our names, or of old releases."""
    if any(name.startswith(fairseq_transformer.OWN_PREFIX) for name in read.model):
        return None
    family = fairseq.family_of(read.architecture)
    written = family.save_weights(network)
    kept = {name: tensor for name, tensor in read.model.items() if family.NOT_WEIGHTS.fullmatch(name)}
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
    """Return the network and the name of its family."""
    if any(name.startswith(fairseq_transformer.OWN_PREFIX) for name in read.model):
        return fairseq_transformer.load_trained_network(read.config, read.model), fairseq_transformer.FAMILY
    family = fairseq.family_of(read.architecture)
    return family.load_network(fairseq.completed(read.architecture, read.config), read.model), family.FAMILY


def _data_folder(read: checkpoint.Checkpoint, path: Path, files: ModelFiles) -> Path:
    """Return the folder of the dictionaries: the named one, the checkpoint's, or where it was trained."""
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
    """Return source and target: as asked for, as the checkpoint says, as the data are binarised, or in any order."""
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
        if first.dictionary == second.dictionary and same_subwords:  # the direction makes no difference
            return found[0], found[1]
    raise InputError(
        f"{folder}: which language is the source? The checkpoint does not say, and there are dictionaries "
        f"for {', '.join(found)}; give --source-lang and --target-lang"
    )


def write_fairseq(path: Path, model: Bundle, *, overwrite: bool = False) -> None:
    """Write a checkpoint as fairseq 0.12 does, and the dictionaries and subwords beside it.

    Raises:
        ConfigError: the file exists and is not to be replaced, or a checkpoint cannot hold the model.
        CheckpointError: the model's provenance describes other weights.
        InputError: the file cannot be written.
    """
    sides = [side for side in (model.source, model.target) if isinstance(side, Tokenizer)]
    family = _family_of(model)
    if family is None or len(sides) != (1 if isinstance(model.network, EncoderOnly) else 2):
        raise ConfigError(
            f"{path}: a model of family {model.family!r} does not fit into a fairseq checkpoint; "
            "expected one of fairseq's with its dictionaries"
        )
    if path.exists() and not (overwrite and path.is_file()):
        raise ConfigError(f"{path}: exists already; --overwrite replaces a file")
    state = _checkpoint_state(model, family)
    task = state["cfg"]["task"]
    symbols = fairseq.task_symbols(task)
    sides = [dataclasses.replace(side, dictionary=side.dictionary.without(symbols)) for side in sides]
    files = {f"dict.{side.language}.txt": side for side in sides}
    if _has_one_dictionary(model, task):
        files = {ONE_DICTIONARY: sides[0]}
    for name, side in files.items():
        taken = path.parent / name
        if taken.exists() and not overwrite and Dictionary.load(taken) != side.dictionary:
            raise ConfigError(f"{taken}: exists already and is another model's; --overwrite replaces it")
    checkpoint.write(path, state)
    for name, side in files.items():
        side.save(path.parent, file=name)
    if model.shortlist is not None:
        model.shortlist.save(path.parent / SHORTLIST)


def _family_of(model: Bundle) -> FairseqFamily | None:
    """Return fairseq's family of a model: its own, or ``transformer`` for encoder-decoders of no other family."""
    family = fairseq.family_of_name(model.family)
    if family is None and isinstance(model.network, EncoderDecoder) and model.family not in FAMILIES:
        return fairseq_transformer
    return family


def _has_one_dictionary(model: Bundle, task: Mapping[str, Any]) -> bool:
    return not isinstance(model.network, Seq2Seq) or task["_name"] in fairseq.ONE_DICTIONARY


def _checkpoint_state(model: Bundle, family: FairseqFamily) -> dict[str, Any]:
    """Return the dictionary to pickle: options as fairseq 0.12 reads them, weights in their original dtypes."""
    origin, config = model.origin, model.network.config
    weights: Mapping[str, Tensor] = family.save_weights(model.network)
    task: dict[str, Any] = {}
    if origin is None:
        if not isinstance(config, EncoderDecoderConfig):
            raise ConfigError(
                f"a model of family {model.family!r} without the options it was read with (origin.json) cannot be "
                "written as a fairseq checkpoint"
            )
        options = fairseq_transformer.options_from_config(config)
        version = torch.tensor([_STACK_VERSION])
        weights = {**weights, **{f"{stack}.version": version for stack in ("encoder", "decoder")}}
    else:
        options, task = _original_options(family, origin, weights, config)
        weights = {name: origin.kept.get(name, weights.get(name)) for name in origin.dtypes}  # type: ignore[misc]
        weights = {name: tensor.to(origin.dtypes[name]) for name, tensor in weights.items()}
    task.setdefault("data", ".")  # fairseq overrides options, and adds none
    name = str(task.get("_name") or "")
    task |= {"_name": name if name and not name.startswith("fairbeam_") else "translation"}
    if not _has_one_dictionary(model, task):
        task |= {"source_lang": _language(model.source), "target_lang": _language(model.target)}
    return {
        "args": None,
        "cfg": {"model": Namespace(**options), "task": task},
        "model": weights,
        "optimizer_history": [{"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {}, "num_updates": 0}],
        "extra_state": {"train_iterator": {"epoch": 1, "iterations_in_epoch": 0}},
        "last_optimizer_state": None,
    }


def _original_options(
    family: FairseqFamily, origin: Provenance, weights: Mapping[str, Tensor], config: AnyConfig
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the model's and the task's original options, checked to describe the weights."""
    options, task = origin.config.get("model"), origin.config.get("task")
    if not isinstance(options, dict) or not isinstance(task, dict):
        raise CheckpointError("origin.json: expected the objects model and task in its config")
    may_lack = {fairseq_transformer.TIED_OUTPUT} if config.tie_output else set()
    if differing := sorted((weights.keys() ^ (origin.dtypes.keys() - origin.kept.keys())) - may_lack):
        raise CheckpointError(f"origin.json: describes other tensors than the bundle's: {', '.join(differing)[:500]}")
    try:
        complete = fairseq.completed(str(options.get("_name") or options.get("arch")), options)
        described = family.config_of(complete, weights)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"origin.json: its options make no network ({error})") from None
    parts = {name: getattr(config, name) for name in (field.name for field in dataclasses.fields(config))}
    kinds = StackConfig | HeadConfig if any(isinstance(part, StackConfig) for part in parts.values()) else object
    for name, part in parts.items():
        if isinstance(part, kinds) and getattr(described, name, None) != part:
            raise CheckpointError(f"origin.json: its options describe another {name} than the bundle's")
    return dict(options), dict(task)


def _language(side: TextSide | None) -> str | None:
    return None if side is None else side.language
