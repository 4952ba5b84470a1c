"""Our beam search behind the interface of fairseq's ``SequenceGenerator``."""

import dataclasses
import logging
from enum import Enum
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple, Union

import numpy as np
import torch
from fairseq.models.bart import BARTModel
from fairseq.models.lstm import LSTMModel
from fairseq.models.transformer import TransformerModel, TransformerModelBase
from fairseq.models.transformer_lm import TransformerLanguageModel
from fairseq.token_generation_constraints import unpack_constraints
from torch import Tensor

from fairbeam.data.lexical_shortlist import Shortlist
from fairbeam.errors import ConfigError, InputError
from fairbeam.families.fairseq import bart as fairseq_bart
from fairbeam.families.fairseq import language_model as fairseq_lm
from fairbeam.families.fairseq import lstm as fairseq_lstm
from fairbeam.families.fairseq import transformer as fairseq_transformer
from fairbeam.families.fairseq.registry import Page
from fairbeam.families.fairseq.transformer import UnsupportedArchitecture
from fairbeam.generation import Batch, DecoderPool, GenerationOptions, Hypothesis, ModelSet, Required, SpecialTokenIds
from fairbeam.generation.alignment import hard_alignment
from fairbeam.generation.ensemble import check_fusion
from fairbeam.generation.options import parse_weights
from fairbeam.generation.ranking import best_first
from fairbeam.generation.search.shortlist import check_search
from fairbeam.generation.search.speculative import check_drafting
from fairbeam.network import DecoderOnly, Generator, Precision
from fairbeam.reranking import Reranker
from fairbeam.scoring.minimum_bayes_risk import expected_utilities
from fairbeam_plugin.models.families import FamilyDecoder
from fairbeam_plugin.models.transformer import FairbeamTransformerModel

logger = logging.getLogger(__name__)

# fairseq's generation options that our search does not have, with the values that ask for nothing.
_STOCK_ONLY: Dict[str, tuple] = {
    "print_step": (False, None),
    "iter_decode_with_beam": (1, None),
    "iter_decode_with_external_reranker": (False, None),
    "iter_decode_force_max_iter": (False, None),
    "retain_iter_history": (False, None),
    "retain_dropout": (False, None),
    "decoding_format": (None,),
}


# By the class itself: subclasses (NAT, …) compute something else with the same weights.
_PAGES: Dict[type, Page] = {
    TransformerModel: fairseq_transformer,
    TransformerModelBase: fairseq_transformer,
    BARTModel: fairseq_bart,
    LSTMModel: fairseq_lstm,
}


def stock_only_options(args: Any) -> List[str]:
    """The options of ``args`` that only stock's generator knows, as they are written on a command line."""
    return [
        f"--{name.replace('_', '-')}"
        for name, neutral in _STOCK_ONLY.items()
        if getattr(args, name, neutral[0]) not in neutral
    ]


def generation_options(args: Any, own: Any = None, reranker: Optional[Reranker] = None) -> GenerationOptions:
    """Ours from fairseq's, which have the same names and defaults, and from the task's ``SearchOptions``.

    ``reranker`` has the models that rank finished hypotheses, which count 1 unless said.

    Raises:
        ConfigError: options that are impossible, or that exclude each other.
    """
    given = {}
    for option in dataclasses.fields(GenerationOptions):
        for place in (own, args):
            value = getattr(place, option.name, None)
            if value is not None and value is not False:  # a number of 0 is given
                given[option.name] = value
    if isinstance(given.get("ensemble_weights"), str):
        given["ensemble_weights"] = parse_weights(given["ensemble_weights"])
    if getattr(args, "print_alignment", None) or getattr(args, "replace_unk", None) is not None:
        given["attention"] = True
    given = (reranker or Reranker()).with_weights(given)
    return GenerationOptions(**given, seed=torch.initial_seed() % (1 << 63))  # fairseq seeds torch with its --seed


def special_ids(dictionary: Any) -> SpecialTokenIds:
    """The ids of a fairseq dictionary that the search must know."""
    return SpecialTokenIds(bos=dictionary.bos(), pad=dictionary.pad(), eos=dictionary.eos(), unk=dictionary.unk())


def network_of(model: Any) -> Generator:
    """The network of a fairseq model: its own, or converted from a stock one.

    Raises:
        UnsupportedArchitecture: there is no conversion; names the class or the option.
    """
    if isinstance(model, FairbeamTransformerModel):
        return model.network
    page = _PAGES.get(type(model))
    if page is None:
        raise UnsupportedArchitecture(f"{type(model).__name__} has no conversion")
    options = _lstm_options(model) if page is fairseq_lstm else _flat_options(model.cfg)
    return page.load_network(options, {name: t.float() for name, t in model.state_dict().items()})


def language_model_of(model: Any, dictionary: Any) -> DecoderOnly:
    """The network of a fairseq language model that knows the symbols of ``dictionary``.

    Raises:
        ConfigError: it has another dictionary.
        UnsupportedArchitecture: there is no conversion.
    """
    known = getattr(model.decoder, "dictionary", dictionary)
    if [known[i] for i in range(len(known))] != [dictionary[i] for i in range(len(dictionary))]:
        raise ConfigError(
            f"--lm-path: the language model's dictionary ({len(known)} entries) differs from the target dictionary "
            f"({len(dictionary)} entries)"
        )
    if isinstance(model, FamilyDecoder):
        return model.network
    if type(model) is not TransformerLanguageModel:
        raise UnsupportedArchitecture(f"--lm-path: {type(model).__name__} has no conversion")
    options = {**_flat_options(model.decoder.cfg)}
    options["character_embeddings"] = getattr(model.decoder.args, "character_embeddings", False)
    return fairseq_lm.load_network(options, {name: t.float() for name, t in model.state_dict().items()})


def _lstm_options(model: LSTMModel) -> Dict[str, Any]:
    """The options that stock's LSTM was built with, which it does not keep."""
    encoder, decoder = model.encoder, model.decoder
    return {
        "encoder_layers": encoder.num_layers,
        "encoder_embed_dim": encoder.embed_tokens.embedding_dim,
        "encoder_hidden_size": encoder.hidden_size,
        "encoder_bidirectional": encoder.bidirectional,
        "decoder_layers": decoder.num_layers,
        "decoder_embed_dim": decoder.embed_tokens.embedding_dim,
        "decoder_hidden_size": decoder.hidden_size,
        "decoder_out_embed_dim": getattr(getattr(decoder, "additional_fc", None), "out_features", decoder.hidden_size),
        "decoder_attention": decoder.attention is not None,
        "share_decoder_input_output_embed": decoder.share_input_output_embed,
        "share_all_embeddings": encoder.embed_tokens is decoder.embed_tokens,
        "max_source_positions": encoder.max_source_positions,
        "max_target_positions": decoder.max_target_positions,
    }


def _flat_options(cfg: Any) -> Dict[str, Any]:
    """``cfg.encoder.embed_dim`` as ``encoder_embed_dim``, as conversions expect."""
    flat: Dict[str, Any] = {}
    for name, value in vars(cfg).items():
        if dataclasses.is_dataclass(value):
            flat.update({f"{name}_{inner}": content for inner, content in vars(value).items()})
        else:
            flat[name] = value.value if isinstance(value, Enum) else value
    return flat


class AlignedPair(NamedTuple):
    """A source token and a target token that belong together; as an index, the source token's place.

    fairseq's ``--print-alignment`` takes alignments for pairs and its ``--replace-unk`` for places.
    """

    source: int
    target: int

    def __index__(self) -> int:
        return self.source


class GenerateRequest(NamedTuple):
    """What beside the sentences is given to ``FairbeamGenerator.generate``."""

    prefix_tokens: Optional[Tensor] = None
    constraints: Union[Tensor, List[Required], None] = None
    bos_token: Optional[int] = None

    def same(self, other: "GenerateRequest") -> bool:
        """Whether the same is asked."""
        return all(
            torch.equal(mine, theirs)
            if isinstance(mine, Tensor) and isinstance(theirs, Tensor)
            else type(mine) is type(theirs) and mine == theirs
            for mine, theirs in zip(self, other, strict=True)
        )


class PendingBatch(NamedTuple):
    """A batch that workers decode."""

    source: Tensor
    """Is kept, so that no other tensor gets its identity."""
    asked: GenerateRequest
    parts: List[Tuple[slice, Callable[[], List[List[Hypothesis]]]]]
    """Sentences, and what waits for their hypotheses."""


class FairbeamGenerator:
    """Decodes fairseq's batches with the engine's beam search."""

    def __init__(
        self,
        models: List[Any],
        options: GenerationOptions,
        special: SpecialTokenIds,
        precision: Precision,
        beginning: Tuple[Optional[int], Optional[int]] = (None, None),
        alignment: Optional[str] = None,
        text: Optional[Callable[[Tensor], str]] = None,
        shortlist: Optional[Shortlist] = None,
        language_model: Optional[DecoderOnly] = None,
        reranker: Optional[Reranker] = None,
        source_text: Optional[Callable[[Tensor], str]] = None,
        draft: Optional[Generator] = None,
        one_vocabulary: bool = False,
    ) -> None:
        """Takes a copy of the models' weights as they are now.

        Args:
            beginning: the symbol decoding begins with, if not the network's own, and the first token of every output.
            alignment: ``hard`` or ``soft``, as fairseq prints them, where the options ask for attention.
            text: makes text of ids, for ``--mbr`` and for other models.
            shortlist: for options that ask for one.
            language_model: for ``--lm-weight``.
            reranker: the models of ``--ch-wt`` and ``--lm-wt``, which read texts.
            source_text: makes text of a source's ids for them.
            draft: a network that writes ahead, for options that ask for it.
            one_vocabulary: whether ids of sources mean what ids of targets do.

        Raises:
            UnsupportedArchitecture: a model has no conversion.
            ConfigError: the options ask for a shortlist or for drafts, and there is none or it does not fit.
        """
        device = next(models[0].parameters()).device
        dtype = precision.resolve(device)
        networks = [network_of(model).to(device).for_inference(dtype) for model in models]
        self.eos = special.eos  # read by fairseq, to strip it from what it prints
        self.pad, self.source_pad = special.pad, special.padding_of_sources
        self.options = options
        self._start, self._first = beginning
        if options.prefix_bias_beta and self._first is not None:  # the prefix is not forced then, and this is
            self.options = dataclasses.replace(options, first_token=self._first)
        self._reranker, self._source_text = reranker, source_text
        if language_model is not None:
            fused = check_fusion(language_model, networks[0].config.target_vocabulary)
            language_model = fused.to(device).for_inference(dtype)
        if options.shortlist:
            check_search(shortlist, networks, options)
        ahead = None if draft is None else draft.to(device).for_inference(dtype)
        if options.speculates:
            check_drafting(networks, options, special, ahead, one_vocabulary=one_vocabulary)
        self.alignment = alignment
        self.text = text
        self._begun: Dict[int, PendingBatch] = {}
        """By the identity of their source tensors, in the order of their beginning."""
        self.decoder = DecoderPool(ModelSet(networks, special, shortlist, language_model, ahead), device)

    def generate(
        self,
        models: List[Any],
        sample: Dict[str, Any],
        prefix_tokens: Optional[Tensor] = None,
        constraints: Union[Tensor, List[Required], None] = None,
        bos_token: Optional[int] = None,
    ) -> List[List[Dict[str, Tensor]]]:
        """Hypotheses of each sentence of a batch, best first, as ``SequenceGenerator.generate`` returns them.

        ``constraints`` are fairseq's packed tensor, or ours, which may have alternatives.
        """
        asked = GenerateRequest(prefix_tokens, constraints, bos_token)
        begun = self._begun.pop(id(sample["net_input"]["src_tokens"]), None)
        source = sample["net_input"]["src_tokens"].numpy(force=True)
        results: List[List[Hypothesis]] = [[] for _ in range(len(source))]
        if begun is not None and begun.asked.same(asked):
            for part, wait in begun.parts:
                results[part] = wait()
        else:
            # Every worker gets long and short sentences alike; one thread decodes a few sentences faster than two do.
            parts, batches = zip(*self._parts(sample, asked, self.decoder.workers), strict=True)
            here = self.options.prefix_allowed_tokens_fn is not None
            for part, found in zip(parts, self.decoder.decode(batches, here=here), strict=True):
                results[part] = found
        results = [self._ranked(hypotheses) for hypotheses in results]
        if self.options.ch_wt or self.options.lm_wt:
            results = self._reranked(results, torch.from_numpy(source))
        scores = iter(torch.tensor([one.score for hypotheses in results for one in hypotheses]).unbind())
        rows = zip(source, results, strict=True)
        return [[self._as_fairseq(hypothesis, next(scores), row) for hypothesis in mine] for row, mine in rows]

    @property
    def ahead(self) -> int:
        """How many batches it pays to ``begin`` before the first of them is asked for; none where nothing works on
        them meanwhile."""
        waits = self.decoder.workers == 1 or self.options.prefix_allowed_tokens_fn is not None
        return 0 if waits else 2 * self.decoder.workers

    def begin(self, sample: Dict[str, Any], asked: GenerateRequest, *, apart: bool) -> None:
        """Begin with a batch that will be given to ``generate``, which waits for it if it is asked the same.

        ``apart`` lets all workers share it.
        """
        source = sample["net_input"]["src_tokens"]
        parts = self._parts(sample, asked, self.decoder.workers if apart else 1)
        while len(self._begun) > self.ahead:  # nobody asked for it
            del self._begun[next(iter(self._begun))]
        self._begun[id(source)] = PendingBatch(
            source, asked, [(part, self.decoder.begin(batch)) for part, batch in parts]
        )

    def _parts(self, sample: Dict[str, Any], asked: GenerateRequest, workers: int) -> List[Tuple[slice, Batch]]:
        """A batch in as many parts as there are workers, if it has so many sentences."""
        prefix_tokens, constraints, bos_token = asked
        here = self.options.prefix_allowed_tokens_fn is not None
        numbers = sample["id"].tolist() if here and "id" in sample else None
        required = _unpacked(constraints) if isinstance(constraints, Tensor) else constraints
        if self.options.constraints is not None and required is None:
            raise InputError(
                f"--constraints {self.options.constraints}: there are no phrases; --constraints-file names their file"
            )
        source = sample["net_input"]["src_tokens"].numpy(force=True)
        prefix = self._prefix(len(source), None if prefix_tokens is None else prefix_tokens.numpy(force=True))
        count = min(workers, max(1, len(source) // 2))
        return [
            (
                part,
                Batch(
                    source[part],
                    self.options,
                    prefix=None if prefix is None else prefix[part],
                    start=self._start if bos_token is None else bos_token,
                    required=None if required is None else required[part],
                    numbers=None if numbers is None else numbers[part],
                ),
            )
            for part in (slice(first, None, count) for first in range(count))
        ]

    def _prefix(self, sentences: int, given: Optional[np.ndarray]) -> Optional[np.ndarray]:
        if given is not None or self._first is None:
            return given
        return np.full((sentences, 1), self._first)

    def _ranked(self, hypotheses: List[Hypothesis]) -> List[Hypothesis]:
        if self.options.mbr is None or self.text is None:
            return hypotheses
        risk = -expected_utilities([self.text(hypothesis.tokens) for hypothesis in hypotheses], self.options.mbr)
        return [hypotheses[place] for place in risk.argsort(kind="stable")]

    def _reranked(self, found: List[List[Hypothesis]], source: Tensor) -> List[List[Hypothesis]]:
        """The hypotheses of each sentence by their scores with those of other models."""
        assert self._reranker is not None
        assert self.text is not None
        assert self._source_text is not None
        rows = [row[row.ne(self.source_pad)] for row in source]
        texts = [[self.text(hypothesis.tokens) for hypothesis in hypotheses] for hypotheses in found]
        sources = [self._source_text(row) for row in rows]
        added = self._reranker(sources, texts, [len(row) for row in rows], self.options)
        scored = [
            [dataclasses.replace(one, score=one.score + more) for one, more in zip(mine, mores, strict=True)]
            for mine, mores in zip(found, added, strict=True)
        ]
        return [best_first(mine) for mine in scored]

    def _as_fairseq(self, hypothesis: Hypothesis, score: Tensor, source: Any) -> Dict[str, Any]:
        attention = torch.empty(0) if hypothesis.attention is None else hypothesis.attention
        return {
            "tokens": hypothesis.tokens,
            "score": score,
            "attention": attention.mT if attention.dim() == 2 else attention,
            "alignment": self._aligned(attention, torch.from_numpy(source)) if len(attention) else torch.empty(0),
            "positional_scores": hypothesis.positional_scores,
        }

    def _aligned(self, attention: Tensor, source: Tensor) -> List[Any]:
        """As fairseq's commands print it, and as ``--replace-unk`` reads it."""
        if self.alignment == "soft":
            return [[f"{weight:.6f}" for weight in row] for row in attention[:, source.ne(self.pad)].tolist()]
        return [AlignedPair(*pair) for pair in hard_alignment(attention, source, (self.eos, self.pad))]


def _unpacked(constraints: Tensor) -> List[Required]:
    """Phrases from fairseq's packed tensor: of each row their number, then each with 0 behind it."""
    return [tuple((tuple(phrase.tolist()),) for phrase in unpack_constraints(row)) for row in constraints.cpu()]
