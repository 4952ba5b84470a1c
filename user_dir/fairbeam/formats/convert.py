"""Conversion of models between formats, and the proof that nothing changed on the way.

``convert`` reads what it has written from the disk again and compares the two models. CTranslate2's folders are
compared by what that library computes with them.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairbeam.errors import ConfigError
from fairbeam.formats import ctranslate2 as ctranslate
from fairbeam.formats.fairseq import ModelFiles
from fairbeam.formats.registry import Format, Location, locate, read, write
from fairbeam.generation import GenerationOptions, ModelSet, build_search
from fairbeam.model import Bundle, generator, special_ids
from fairbeam.network import (
    AnyNetwork,
    Seq2Seq,
    pad_batch,
)

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
"""Largest difference of logits that passes, for a dtype that was not kept; equal weights give equal logits."""
_OTHER_KERNELS = 1e-3
"""Largest difference that passes of log-probabilities that another library computes."""
_OTHER_SEARCH = 0.02
"""Nats per token, on average, that outputs of another library's beam search may score below ours: its stopping and
ranking rules differ, but its hypotheses must be about as good."""


@dataclass(frozen=True, kw_only=True)
class Parity:
    """Comparison of a model and its conversion."""

    source: Location
    result: Location
    parameters: int
    """Number of parameters; all are mapped, or conversion is an error."""
    tensors: int
    differing: tuple[str, ...] | None
    """Names of tensors that are not equal bit for bit; None if they cannot be read again."""
    random_difference: float
    """Largest absolute difference of logits on random ids, or of log-probabilities for CTranslate2, which gives no
    logits."""
    text_difference: float | None
    """Largest difference on sentences; None without a tokenizer."""
    greedy_agrees: bool | None
    """Whether greedy outputs are equal; None for a model that generates no text."""
    beam_agrees: bool | None
    """Whether outputs of five beams are equal, or, by another library's search, score as well; None as above."""
    beam_equal: float = 1.0
    """Share of the five-beam outputs that are equal."""
    beam_loss: float = 0.0
    """Nats per token by which our model scores the result's outputs lower than its own, on average."""
    tolerance: float = _TOLERANCE
    """Largest difference that passes."""

    @property
    def passed(self) -> bool:
        """Whether the two compute the same."""
        differences = (self.random_difference, self.text_difference or 0.0)
        close = all(value <= self.tolerance for value in differences)
        return close and False not in (self.greedy_agrees, self.beam_agrees)


def pairs(places: Sequence[str]) -> list[tuple[Location, Location]]:
    """Return (source, result) pairs of alternating paths.

    Raises:
        ConfigError: their number is odd, or a result is named twice or is a source too.
    """
    if not places or len(places) % 2:
        raise ConfigError(f"{len(places)} paths; expected pairs: SRC DST [SRC DST ...]")
    # A source may be an earlier result, which does not exist yet.
    results = [locate(text, new=True) for text in places[1::2]]
    resolved = [result.path.resolve() for result in results]
    for number, path in enumerate(resolved):
        if path in resolved[:number]:
            raise ConfigError(f"{results[number].path}: named as a result twice")
    sources = []
    for number, text in enumerate(places[::2]):
        earlier = {path: result.format for path, result in zip(resolved[:number], results, strict=False)}
        known = earlier.get(Path(text).resolve())
        source = Location(known, Path(text)) if known else locate(text, new=False)
        if source.path.resolve() == resolved[number]:
            raise ConfigError(f"{source.path}: is the source and the result")
        sources.append(source)
    return list(zip(sources, results, strict=True))


def convert(source: Location, result: Location, *, files: ModelFiles | None = None, overwrite: bool = False) -> Parity:
    """Write the model at ``source`` to ``result``, read it again and compare the two.

    Raises:
        CheckpointError: the source cannot be read, or its weights do not fit (all names are listed).
        ConfigError: the result exists, or its form cannot hold the model.
        InputError: a tokenizer or a dictionary is malformed or missing.
    """
    model = read(source, files)
    write(result, model, overwrite=overwrite)
    if result.format is Format.CTRANSLATE2:
        return compare_decoded(source, model, result)
    again = read(result, _files_beside(result, model))
    return compare(source, model, result, again)


def compare(source: Location, model: Bundle, result: Location, again: Bundle) -> Parity:
    """Compare weights, logits and outputs of two models, in float32 on the CPU."""
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


def compare_decoded(source: Location, model: Bundle, result: Location) -> Parity:
    """Compare a model with its folder as CTranslate2 runs it, in float32 on the CPU."""
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
        """Return nats per token, without the ``</s>`` that is forced at the length limit."""
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
    """Return log-probabilities (nats) of all target tokens, where padding has probability 0."""
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
    """Return rows of several lengths that both sides can read, each ended by ``</s>``, without padding."""
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
    """Return the largest difference of computed numbers; infinity if ids or shapes differ, or one is not finite."""
    if ours != theirs:
        return float("inf")
    largest = 0.0
    for expected, found in zip(_computed(model.network, ours), _computed(again.network, ours), strict=True):
        if expected.shape != found.shape or not (expected.isfinite().all() and found.isfinite().all()):
            return float("inf")
        largest = max(largest, (expected - found).abs().max().item())
    return largest


def _computed(network: AnyNetwork, rows: list[list[int]]) -> list[Tensor]:
    """Return logits, or an encoder's states and the scores of its heads."""
    source = pad_batch(rows, network.config.padding_of_sources)
    if isinstance(network, Seq2Seq):
        return [network(source, pad_batch(_random_ids(network, seed=2), network.config.pad))]
    computed = network(source)
    return [computed] if isinstance(computed, Tensor) else [part for part in computed if part is not None]


def _outputs(model: Bundle, sources: list[list[int]], beam: int) -> Any:
    """Return the best hypotheses' tokens, with the model's own prefix where no target language is chosen."""
    try:
        start, first = model.decoder_prefix()
    except ConfigError:
        start, first = model.start, model.forced_bos
    options = GenerationOptions(beam=beam, min_len=0, max_len_b=_STEPS)
    search = build_search(ModelSet([generator(model)], special_ids(model)), options)
    prefix = None if first is None else torch.full((len(sources), 1), first)
    found = search(pad_batch(sources, model.network.config.padding_of_sources), prefix=prefix, start=start)
    return [hypotheses[0].tokens.tolist() if hypotheses else None for hypotheses in found]


def _files_beside(result: Location, model: Bundle) -> ModelFiles:
    """Return the languages to read the result with; a bundle says them itself."""
    if result.format is Format.BUNDLE:
        return ModelFiles()
    source, target = (None if side is None else side.language for side in (model.source, model.target))
    return ModelFiles(source_lang=source, target_lang=target)
