"""Our beam search behind the interface of fairseq's ``SequenceGenerator``."""

import dataclasses
import logging
from enum import Enum
from typing import Any, Dict, List, Optional, Union

import torch
from fairseq.models.transformer import TransformerModel, TransformerModelBase
from fairseq.token_generation_constraints import unpack_constraints
from torch import Tensor

from fairbeam.families.fairseq_transformer import UnsupportedArchitecture, load_network
from fairbeam.generation import Batch, Decoder, GenerationOptions, Hypothesis, Required, Special
from fairbeam.network import Network, Precision
from fairbeam_plugin.models.transformer import FairbeamTransformerModel

logger = logging.getLogger(__name__)

# fairseq's generation options that our search does not have, with the values that ask for nothing.
_STOCK_ONLY: Dict[str, tuple] = {
    "match_source_len": (False, None),
    "print_alignment": (None, False),
    "replace_unk": (None,),
    "lm_path": (None,),
    "print_step": (False, None),
    "iter_decode_with_beam": (1, None),
    "iter_decode_with_external_reranker": (False, None),
    "iter_decode_force_max_iter": (False, None),
    "retain_iter_history": (False, None),
    "retain_dropout": (False, None),
    "decoding_format": (None,),
    "prefix_allowed_tokens_fn": (None,),
}


def stock_only_options(args: Any) -> List[str]:
    """The options of ``args`` that only stock's generator knows, as they are written on a command line."""
    return [
        f"--{name.replace('_', '-')}"
        for name, neutral in _STOCK_ONLY.items()
        if getattr(args, name, neutral[0]) not in neutral
    ]


def generation_options(args: Any) -> GenerationOptions:
    """Ours from fairseq's; both use the same names and defaults."""
    names = [option.name for option in dataclasses.fields(GenerationOptions)]
    given = {name: getattr(args, name) for name in names if getattr(args, name, None) is not None}
    if given.get("constraints") is False:  # fairseq's way to say none, in places
        del given["constraints"]
    return GenerationOptions(**given, seed=torch.initial_seed() % (1 << 63))  # fairseq seeds torch with its --seed


def network_of(model: Any) -> Network:
    """The network of a fairseq model: its own, or converted from a stock ``transformer``.

    Raises:
        UnsupportedArchitecture: there is no conversion; names the class or the option.
    """
    if isinstance(model, FairbeamTransformerModel):
        return model.network
    # Subclasses (BART, NAT, …) compute something else with the same weights.
    if type(model) not in (TransformerModel, TransformerModelBase):
        raise UnsupportedArchitecture(f"{type(model).__name__} has no conversion")
    return load_network(_flat_options(model.cfg), {name: t.float() for name, t in model.state_dict().items()})


def _flat_options(cfg: Any) -> Dict[str, Any]:
    """``cfg.encoder.embed_dim`` as ``encoder_embed_dim``, as conversions expect."""
    flat: Dict[str, Any] = {}
    for name, value in vars(cfg).items():
        if dataclasses.is_dataclass(value):
            flat.update({f"{name}_{inner}": content for inner, content in vars(value).items()})
        else:
            flat[name] = value.value if isinstance(value, Enum) else value
    return flat


class FairbeamGenerator:
    """Decodes fairseq's batches with the engine's beam search."""

    def __init__(self, models: List[Any], options: GenerationOptions, dictionary: Any, precision: Precision) -> None:
        """Takes a copy of the models' weights as they are now.

        Raises:
            UnsupportedArchitecture: a model has no conversion.
        """
        device = next(models[0].parameters()).device
        dtype = precision.resolve(device)
        networks = [network_of(model).to(device).for_inference(dtype) for model in models]
        special = Special(bos=dictionary.bos(), pad=dictionary.pad(), eos=dictionary.eos(), unk=dictionary.unk())
        self.eos = special.eos  # read by fairseq, to strip it from what it prints
        self.options = options
        self.decoder = Decoder(networks, device, special)

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
        required = _unpacked(constraints) if isinstance(constraints, Tensor) else constraints
        source = sample["net_input"]["src_tokens"].numpy(force=True)
        prefix = None if prefix_tokens is None else prefix_tokens.numpy(force=True)
        # Every worker gets long and short sentences alike; one thread decodes a few sentences faster than two do.
        count = min(self.decoder.workers, max(1, len(source) // 2))
        parts = [slice(part, None, count) for part in range(count)]
        batches = [
            Batch(
                source[part],
                self.options,
                prefix=None if prefix is None else prefix[part],
                start=bos_token,
                required=None if required is None else required[part],
            )
            for part in parts
        ]
        results: List[List[Dict[str, Tensor]]] = [[] for _ in range(len(source))]
        for part, found in zip(parts, self.decoder.decode(batches), strict=True):
            results[part] = [[_as_fairseq(hypothesis) for hypothesis in hypotheses] for hypotheses in found]
        return results


def _unpacked(constraints: Tensor) -> List[Required]:
    """Phrases from fairseq's packed tensor: of each row their number, then each with 0 behind it."""
    return [tuple((tuple(phrase.tolist()),) for phrase in unpack_constraints(row)) for row in constraints.cpu()]


def _as_fairseq(hypothesis: Hypothesis) -> Dict[str, Tensor]:
    return {
        "tokens": hypothesis.tokens,
        "score": torch.tensor(hypothesis.score),
        "attention": torch.empty(0),
        "alignment": torch.empty(0),
        "positional_scores": hypothesis.positional_scores,
    }
