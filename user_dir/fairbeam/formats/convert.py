"""From one form of a model to another, and the proof that nothing changed on the way.

A form is a bundle, a Hugging Face folder, or a fairseq checkpoint with its dictionaries beside it. ``convert`` reads
what it has written from the disk again and compares the two models. Folders of CTranslate2's are written too, and
compared by what that library computes with them.
"""

import random
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairbeam.data.lexical_shortlist import SHORTLIST
from fairbeam.errors import CheckpointError, ConfigError
from fairbeam.families.fairseq import registry as fairseq
from fairbeam.families.fairseq import transformer as fairseq_transformer
from fairbeam.families.fairseq.registry import FairseqFamily
from fairbeam.families.registry import FAMILIES
from fairbeam.formats import bundle
from fairbeam.formats import ctranslate2 as ctranslate
from fairbeam.formats import fairseq_checkpoint as checkpoint
from fairbeam.formats import hugging_face as pretrained
from fairbeam.formats.fairseq import ONE_DICTIONARY, ModelFiles, read_fairseq, with_languages
from fairbeam.generation import GenerationOptions, ModelSet, build_search
from fairbeam.model import Bundle, Provenance, generator, special_ids
from fairbeam.network import (
    AnyConfig,
    AnyNetwork,
    EncoderDecoder,
    EncoderDecoderConfig,
    EncoderOnly,
    HeadConfig,
    Seq2Seq,
    StackConfig,
    pad_batch,
)
from fairbeam.text import Dictionary, TextSide, Tokenizer

_ROWS, _LONGEST, _STEPS, _SEED = 8, 24, 32, 1
_SENTENCES = (
    "The train to the coast leaves at nine.",
    "Our neighbour has painted her door blue, and now the whole street wants to follow.",
    "How many apples did you buy?",
    "He read the letter twice before he answered.",
    "In winter the lake freezes from the edges inwards, and children skate where ships passed in July.",
    "Please close the window; it is raining.",
    "She counted 17 swallows, 3 herons and one very patient cat.",
    "No.",
)
"""Text of the comparison, of several lengths."""
_TOLERANCE = 1e-4
"""Of logits, where a dtype was not kept; equal weights give equal logits."""
_OTHER_KERNELS = 1e-3
"""Of log probabilities that another library computes."""
_OTHER_SEARCH = 0.02
"""Nats a token, on average, that outputs of another library's beam search may score below ours: it ends and compares
hypotheses in its own ways, and what it finds instead must be about as good."""
_STACK_VERSION = 3.0
"""Of fairseq 0.12's layout of a stack; a count below 2 takes the final norm away."""


class Form(StrEnum):
    """What a path holds; its prefix on the command line."""

    BUNDLE = "bundle"
    HUGGING_FACE = "hf"
    FAIRSEQ = "fairseq"
    CTRANSLATE2 = "ct2"
    """A result only."""


@dataclass(frozen=True)
class Place:
    """A model's path and its form there."""

    form: Form
    path: Path

    def __str__(self) -> str:
        return f"{self.form}:{self.path}"


@dataclass(frozen=True, kw_only=True)
class Parity:
    """What a model and its conversion have in common."""

    source: Place
    result: Place
    parameters: int
    """Numbers in the weights, all of them mapped; an error says otherwise."""
    tensors: int
    differing: tuple[str, ...] | None
    """Names of tensors that are not the same to the bit; None where they cannot be read again."""
    random_difference: float
    """The largest of logits, on random ids; or of log probabilities, where no logits are to be had."""
    text_difference: float | None
    """The same on sentences; None without a tokenizer."""
    greedy_agrees: bool | None
    """Whether both write the same; None, as for the next one, where the model writes nothing."""
    beam_agrees: bool | None
    """Whether outputs of five beams are equal; of another library's search, whether they are as good."""
    beam_equal: float = 1.0
    """Share of those outputs that are equal."""
    beam_loss: float = 0.0
    """By how many nats a token our model scores the result's outputs lower than its own, on average."""
    tolerance: float = _TOLERANCE

    @property
    def passed(self) -> bool:
        """Whether the two are one model."""
        differences = (self.random_difference, self.text_difference or 0.0)
        close = all(value <= self.tolerance for value in differences)
        return close and False not in (self.greedy_agrees, self.beam_agrees)


def place(text: str, *, new: bool) -> Place:
    """The place that ``hf:PATH``, ``bundle:PATH``, ``fairseq:PATH`` or a bare path names.

    A bare path's form is what is there; of a ``new`` one, a checkpoint if it ends in ``.pt``, else a bundle.

    Raises:
        ConfigError: the path is empty, what is there is none of those, or the form is a result only.
    """
    prefix, colon, rest = text.partition(":")
    if colon and prefix in list(Form):
        if not rest:
            raise ConfigError(f"{text!r}: no path behind the prefix")
        if prefix not in list(_READERS) and not new:
            raise ConfigError(f"{text!r}: {prefix}: can be a result, not a source; expected one of {_prefixes()}")
        return Place(Form(prefix), Path(rest))
    path = Path(text)
    if not text:
        raise ConfigError("'' is no path; expected a model's")
    if pretrained.is_folder(path):
        return Place(Form.HUGGING_FACE, path)
    if bundle.is_bundle(path):
        return Place(Form.BUNDLE, path)
    if path.is_file() or (new and path.suffix == ".pt"):
        return Place(Form.FAIRSEQ, path)
    if new:
        return Place(Form.BUNDLE, path)
    raise ConfigError(
        f"{path}: neither a bundle, a Hugging Face folder nor a checkpoint; expected one, or {_prefixes()} before PATH"
    )


def _prefixes() -> str:
    return ", ".join(f"{form}:" for form in _READERS)


def pairs(places: Sequence[str]) -> list[tuple[Place, Place]]:
    """Sources and results, which take turns.

    Raises:
        ConfigError: their number is odd, or a result is named twice or is a source too.
    """
    if not places or len(places) % 2:
        raise ConfigError(f"{len(places)} paths; expected pairs: SRC DST [SRC DST ...]")
    # A later source may be an earlier result, so what a bare one holds is seen when its turn comes.
    results = [place(text, new=True) for text in places[1::2]]
    resolved = [result.path.resolve() for result in results]
    for number, path in enumerate(resolved):
        if path in resolved[:number]:
            raise ConfigError(f"{results[number].path}: named as a result twice")
    sources = []
    for number, text in enumerate(places[::2]):
        earlier = {path: result.form for path, result in zip(resolved[:number], results, strict=False)}
        known = earlier.get(Path(text).resolve())
        source = Place(known, Path(text)) if known else place(text, new=False)
        if source.path.resolve() == resolved[number]:
            raise ConfigError(f"{source.path}: is the source and the result")
        sources.append(source)
    return list(zip(sources, results, strict=True))


def convert(source: Place, result: Place, *, files: ModelFiles | None = None, overwrite: bool = False) -> Parity:
    """Write the model at ``source`` to ``result``, read it again and compare.

    Raises:
        CheckpointError: the source cannot be read, or its weights do not fit (all names are listed).
        ConfigError: the result exists, or its form cannot hold the model.
        InputError: a tokenizer or a dictionary is malformed or missing.
    """
    files = files or ModelFiles()
    model = _READERS[source.form](source.path, files)
    _WRITERS[result.form](result.path, model, overwrite)
    if result.form is Form.CTRANSLATE2:
        return compare_decoded(source, model, result)
    again = _READERS[result.form](result.path, _files_beside(result, model))
    return compare(source, model, result, again)


def compare(source: Place, model: Bundle, result: Place, again: Bundle) -> Parity:
    """How far two models are one: weights, logits and outputs, in float32 on the CPU."""
    ours, theirs = dict(model.network.named_parameters()), dict(again.network.named_parameters())
    differing = [
        name
        for name in {**ours, **theirs}
        if name not in ours or name not in theirs or not torch.equal(ours[name], theirs[name])
    ]
    ids, text = _random_ids(model.network, seed=_SEED), _text_ids(model)
    sources = ids if text is None else text
    writes = getattr(model.network.config, "eos", None) is not None
    return Parity(
        source=source,
        result=result,
        parameters=sum(parameter.numel() for parameter in ours.values()),
        tensors=len(ours),
        differing=tuple(differing),
        random_difference=_difference(model, again, ids, ids),
        text_difference=None if text is None else _difference(model, again, text, _text_ids(again)),
        greedy_agrees=_outputs(model, sources, 1) == _outputs(again, sources, 1) if writes else None,
        beam_agrees=_outputs(model, sources, 5) == _outputs(again, sources, 5) if writes else None,
    )


def compare_decoded(source: Place, model: Bundle, result: Place) -> Parity:
    """How far a model and CTranslate2 with its folder compute and write the same, in float32 on the CPU."""
    network, eos = ctranslate.encoder_decoder(model), ctranslate.encoder_decoder(model).config.eos
    decoded = ctranslate.Decoded(result.path, model)
    targets, ids, text = _random_ids(network, seed=2), _random_ids(network, seed=_SEED), _text_ids(model)
    sources = ids if text is None else text

    def difference(rows: list[list[int]]) -> float:
        pairs = zip(_log_probabilities(model, rows, targets), decoded.log_probabilities(rows, targets), strict=True)
        return max(abs(a - b) for ours, theirs in pairs for a, b in zip(ours, theirs, strict=True))

    limit, first = min(_STEPS, network.max_target_positions - 1), model.decoder_prefix()[1]
    ours = [_outputs(model, sources, beam) for beam in (1, 5)]
    theirs = [[[*row, eos] for row in decoded.search(sources, beam, limit, first)] for beam in (1, 5)]

    def score(rows: list[list[int]]) -> float:
        """Nats a token, without the </s> that is forced where the limit cuts."""
        each = [row[:limit] for row in _log_probabilities(model, sources, rows)]
        return sum(sum(row) / len(row) for row in each) / len(each)

    loss = score(ours[1]) - score(theirs[1])
    return Parity(
        source=source,
        result=result,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        tensors=len(list(network.parameters())),
        differing=None,
        random_difference=difference(ids),
        text_difference=None if text is None else difference(text),
        greedy_agrees=ours[0] == theirs[0],
        beam_agrees=loss <= _OTHER_SEARCH,
        beam_equal=sum(a == b for a, b in zip(ours[1], theirs[1], strict=True)) / len(sources),
        beam_loss=loss,
        tolerance=_OTHER_KERNELS,
    )


# --- comparing ---


@torch.no_grad()
def _log_probabilities(model: Bundle, sources: list[list[int]], targets: list[list[int]]) -> list[list[float]]:
    """Of every token of the targets, in nats, where padding is never written."""
    network, (start, _) = ctranslate.encoder_decoder(model), model.decoder_prefix()
    start, pad = network.decoder_start if start is None else start, network.config.pad
    previous = pad_batch([[start, *row[:-1]] for row in targets], pad)
    logits = network(pad_batch(sources, network.config.padding_of_sources), previous)
    if pad >= 0:
        logits[:, :, pad] = float("-inf")
    scores = torch.log_softmax(logits, dim=-1)
    return [[scores[number, place, token].item() for place, token in enumerate(row)]
            for number, row in enumerate(targets)]  # fmt: skip


def _random_ids(network: AnyNetwork, *, seed: int) -> list[list[int]]:
    """Rows of several lengths that either side can read, each ended by ``</s>``, without padding's id."""
    draw = random.Random(seed)
    config = network.config
    eos = getattr(config, "eos", None)
    padding = (config.pad, config.padding_of_sources, eos)
    words = min(config.source_vocabulary, config.target_vocabulary)
    choices = [i for i in range(words) if i not in padding] or [0]
    longest = min(_LONGEST, network.max_source_positions, getattr(network, "max_target_positions", _LONGEST))
    lengths = [min(2 + 3 * row, longest) for row in range(_ROWS)]
    last = [] if eos is None or eos >= words else [eos]
    return [[*draw.choices(choices, k=length - len(last)), *last] for length in lengths]


def _text_ids(model: Bundle) -> list[list[int]] | None:
    if model.source is None:
        return None
    rows = model.source.encode_batch(_SENTENCES)
    longest = model.network.max_source_positions
    return [row if len(row) <= longest else [*row[: longest - 1], row[-1]] for row in rows]


@torch.no_grad()
def _difference(model: Bundle, again: Bundle, ours: list[list[int]], theirs: list[list[int]] | None) -> float:
    """The largest of what is computed; infinity where ids or shapes differ, or a number is not finite."""
    if ours != theirs:
        return float("inf")
    largest = 0.0
    for expected, found in zip(_computed(model.network, ours), _computed(again.network, ours), strict=True):
        if expected.shape != found.shape or not (expected.isfinite().all() and found.isfinite().all()):
            return float("inf")
        largest = max(largest, (expected - found).abs().max().item())
    return largest


def _computed(network: AnyNetwork, rows: list[list[int]]) -> list[Tensor]:
    """Logits, or states and the scores of every head."""
    source = pad_batch(rows, network.config.padding_of_sources)
    if isinstance(network, Seq2Seq):
        return [network(source, pad_batch(_random_ids(network, seed=2), network.config.pad))]
    computed = network(source)
    return [computed] if isinstance(computed, Tensor) else [part for part in computed if part is not None]


def _outputs(model: Bundle, sources: list[list[int]], beam: int) -> Any:
    """Tokens of the best hypotheses, as the model itself begins; a language left open is no difference."""
    try:
        start, first = model.decoder_prefix()
    except ConfigError:
        start, first = model.start, model.forced_bos
    options = GenerationOptions(beam=beam, min_len=0, max_len_b=_STEPS)
    search = build_search(ModelSet([generator(model)], special_ids(model)), options)
    prefix = None if first is None else torch.full((len(sources), 1), first)
    found = search(pad_batch(sources, model.network.config.padding_of_sources), prefix=prefix, start=start)
    return [hypotheses[0].tokens.tolist() if hypotheses else None for hypotheses in found]


# --- reading and writing ---


def _read_bundle(path: Path, files: ModelFiles) -> Bundle:
    return with_languages(bundle.load(path), files)


def _read_hugging_face(path: Path, files: ModelFiles) -> Bundle:
    return pretrained.read(path, source_lang=files.source_lang, target_lang=files.target_lang)


def _write_bundle(path: Path, model: Bundle, overwrite: bool) -> None:
    bundle.save(path, model, overwrite=overwrite)


def _write_hugging_face(path: Path, model: Bundle, overwrite: bool) -> None:
    pretrained.write(path, model, overwrite=overwrite)


def _write_ctranslate(path: Path, model: Bundle, overwrite: bool) -> None:
    ctranslate.write(path, model, overwrite=overwrite)


def _write_fairseq(path: Path, model: Bundle, overwrite: bool) -> None:
    """A checkpoint as fairseq 0.12 writes it, and the dictionaries and subwords beside it."""
    sides = [side for side in (model.source, model.target) if isinstance(side, Tokenizer)]  # a format of its own
    page = _page_of(model)
    if page is None or len(sides) != (1 if isinstance(model.network, EncoderOnly) else 2):
        raise ConfigError(
            f"{path}: a model of family {model.family!r} does not fit into a fairseq checkpoint; "
            "expected one of fairseq's with its dictionaries"
        )
    if path.exists() and not (overwrite and path.is_file()):
        raise ConfigError(f"{path}: exists already; --overwrite replaces a file")
    state = _fairseq_state(model, page)
    task = state["cfg"]["task"]
    symbols = fairseq.task_symbols(task)
    sides = [replace(side, dictionary=side.dictionary.without(symbols)) for side in sides]
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


def _page_of(model: Bundle) -> FairseqFamily | None:
    """fairseq's page for a model: its own, or the ``transformer``'s for encoder-decoders that are nobody else's."""
    page = fairseq.family_of_name(model.family)
    if page is None and isinstance(model.network, EncoderDecoder) and model.family not in FAMILIES:
        return fairseq_transformer
    return page


def _has_one_dictionary(model: Bundle, task: Mapping[str, Any]) -> bool:
    return not isinstance(model.network, Seq2Seq) or task["_name"] in fairseq.ONE_DICTIONARY


def _fairseq_state(model: Bundle, page: FairseqFamily) -> dict[str, Any]:
    """What ``torch.save`` gets: options as fairseq 0.12 reads them, weights in the dtypes they had."""
    origin, config = model.origin, model.network.config
    weights: Mapping[str, Tensor] = page.save_weights(model.network)
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
        options, task = _original_options(page, origin, weights, config)
        weights = {name: origin.kept.get(name, weights.get(name)) for name in origin.dtypes}  # type: ignore[misc]
        weights = {name: tensor.to(origin.dtypes[name]) for name, tensor in weights.items()}
    task.setdefault("data", ".")  # fairseq overrides what there is, and adds nothing
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
    page: FairseqFamily, origin: Provenance, weights: Mapping[str, Tensor], config: AnyConfig
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The model's and the task's options; they must describe the weights that there are."""
    options, task = origin.config.get("model"), origin.config.get("task")
    if not isinstance(options, dict) or not isinstance(task, dict):
        raise CheckpointError("origin.json: expected the objects model and task in its config")
    may_lack = {fairseq_transformer.TIED_OUTPUT} if config.tie_output else set()
    if differing := sorted((weights.keys() ^ (origin.dtypes.keys() - origin.kept.keys())) - may_lack):
        raise CheckpointError(f"origin.json: describes other tensors than the bundle's: {', '.join(differing)[:500]}")
    try:
        complete = fairseq.completed(str(options.get("_name") or options.get("arch")), options)
        described = page.config_of(complete, weights)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"origin.json: its options make no network ({error})") from None
    parts = {name: getattr(config, name) for name in (field.name for field in fields(config))}
    kinds = StackConfig | HeadConfig if any(isinstance(part, StackConfig) for part in parts.values()) else object
    for name, part in parts.items():
        if isinstance(part, kinds) and getattr(described, name, None) != part:
            raise CheckpointError(f"origin.json: its options describe another {name} than the bundle's")
    return dict(options), dict(task)


def _language(side: TextSide | None) -> str | None:
    return None if side is None else side.language


def _files_beside(result: Place, model: Bundle) -> ModelFiles:
    """How what was written is read: a bundle says its languages itself, a checkpoint's dictionaries are beside it."""
    if result.form is Form.BUNDLE:
        return ModelFiles()
    return ModelFiles(source_lang=_language(model.source), target_lang=_language(model.target))


_READERS: dict[Form, Callable[[Path, ModelFiles], Bundle]] = {
    Form.BUNDLE: _read_bundle,
    Form.HUGGING_FACE: _read_hugging_face,
    Form.FAIRSEQ: read_fairseq,
}
_WRITERS: dict[Form, Callable[[Path, Bundle, bool], None]] = {
    Form.BUNDLE: _write_bundle,
    Form.HUGGING_FACE: _write_hugging_face,
    Form.FAIRSEQ: _write_fairseq,
    Form.CTRANSLATE2: _write_ctranslate,
}
