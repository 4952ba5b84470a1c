"""Encoder-decoder families that Hugging Face keeps, and the networks that their ``config.json`` describe."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fairbeam.families.config_reader import ConfigReader
from fairbeam.families.spec import MAX_POSITIONS, MAX_SIZE, LoadPlan
from fairbeam.families.weight_map import Row, same
from fairbeam.network import (
    Activation,
    AnyConfig,
    DropoutConfig,
    EncoderDecoderConfig,
    NormPlacement,
    PositionKind,
    StackConfig,
)

# config.json may leave out what equals the default of its class; most classes share these defaults.
_DEFAULTS: dict[str, Any] = {
    "vocab_size": 50265,
    "decoder_vocab_size": None,
    "share_encoder_decoder_embeddings": True,
    "tie_word_embeddings": True,
    "d_model": 1024,
    "max_position_embeddings": 1024,
    **{f"{stack}_layers": 12 for stack in ("encoder", "decoder")},
    **{f"{stack}_attention_heads": 16 for stack in ("encoder", "decoder")},
    **{f"{stack}_ffn_dim": 4096 for stack in ("encoder", "decoder")},
    **{f"{stack}_layerdrop": 0.0 for stack in ("encoder", "decoder")},
    "activation_function": "gelu",
    "scale_embedding": False,
    "dropout": 0.1,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
    "unk_token_id": 3,
    "decoder_start_token_id": None,
    "scale_decoder_outputs": False,
    "head_dim": None,
    "norm_epsilon": 1e-5,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
}

# Options of computations that EncoderDecoderConfig cannot express, with the value that turns them off.
_MUST_BE: dict[str, Any] = {
    "is_encoder_decoder": True,
    "is_decoder": False,
    "quantization_config": None,
    "pruned_heads": {},
    "do_blenderbot_90_layernorm": False,
}


@dataclass(frozen=True, kw_only=True)
class Seq2SeqFamily:
    """An encoder-decoder family (a `FamilySpec`): what its models have in common, for ``config.json`` says the rest."""

    model_type: str
    """Hugging Face's name of the family."""
    stack: StackConfig
    """Encoder and decoder layers; options of ``config.json`` replace the sizes."""
    decoder: StackConfig | None = None
    """Decoder layers, where they differ from the encoder's in more than sizes."""
    rows: tuple[Row, ...]
    """Weight map."""
    computed_tables: tuple[Row, ...] = ()
    """Rows of tables that we compute and some of their files store; a stored one must equal the computed one."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Values of options that ``config.json`` may leave out, by the family's own names, where the usual ones differ."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Our option name → the family's ``config.json`` key. Several of our options may share one key."""
    gated_activations: Mapping[str, Activation] = field(default_factory=dict)
    """Values of ``activation_function`` that mean a gated feed-forward block, and its activation."""
    features_dropout: bool = False
    """Apply dropout to a stack's output too, with the probability of the residual blocks."""
    prefix: str = "model."
    """Prefix of the base model's tensor names within a model with a head."""
    unprefixed: frozenset[str] = frozenset({"lm_head.weight", "final_logits_bias"})
    """Names without the prefix that may occur in a file of the base model's bare names."""
    not_weights: str = r"model\.(encoder|decoder)\.version"
    """Regular expression of names of tensors that hold no weights."""
    unused: frozenset[str] = frozenset()
    """Names of tensors that some of their files hold and no computation reads."""
    always_shared: bool = False
    """Source and target share one embedding even where the output projection is not tied to it."""
    tied_by_weights: bool = False
    """Tie the output projection to the embedding unless the weights hold another one, whatever ``config.json`` says."""
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Options of each published size, by its name."""

    def rows_for(self, config: AnyConfig, options: Mapping[str, Any]) -> tuple[Row, ...]:
        """Return the weight map of a network; see `FamilySpec`."""
        shared = isinstance(config, EncoderDecoderConfig) and config.share_embeddings
        return (*self.rows, self._shared()) if shared else self.rows

    def plan(self, config: Mapping[str, Any], theirs: Mapping[str, Tensor]) -> LoadPlan:
        """Return the network of a model's files; see `FamilySpec`."""
        names = [name for row in self.rows if row.ours == "head.bias" for name in row.theirs]
        biases = [theirs[name] for name in names if name in theirs]
        # Most models carry a bias of zeros that is never trained: a network without one computes the same, faster.
        used_bias = any(bool(bias.any()) or tuple(bias.shape[:-1]) != (1,) for bias in biases)
        network = self.network_config(config, output_bias=used_bias, own_output=self._has_own_output(theirs))
        unread = set(self.unused) if used_bias else {*self.unused, *names}
        if not network.share_embeddings:
            unread |= set(self._shared().theirs)  # in the file, but no side embeds with it
        return LoadPlan(network, self.rows_for(network, config), frozenset(unread))

    def config_for_training(self, config: Mapping[str, Any]) -> EncoderDecoderConfig:
        """Return the network to train from scratch; see `FamilySpec`."""
        return self.network_config(config, output_bias=False)

    def _shared(self) -> Row:
        return same("source_embedding.weight", f"{self.prefix}shared.weight")

    def _has_own_output(self, theirs: Mapping[str, Tensor]) -> bool:
        """Return whether the weights hold an output projection that differs from the embedding."""

        def stored(ours: str) -> list[Tensor]:
            rows = (*self.rows, self._shared())
            return [theirs[name] for row in rows if row.ours == ours for name in row.theirs if name in theirs]

        heads, embeddings = stored("head.weight"), stored("source_embedding.weight")
        return any(not torch.equal(head, embedding) for head in heads for embedding in embeddings)

    def network_config(
        self, config: Mapping[str, Any], *, output_bias: bool, own_output: bool = False
    ) -> EncoderDecoderConfig:
        """Return the network that a ``config.json`` describes.

        Args:
            config: its options.
            output_bias: whether the output projection has a bias that is not zero.
            own_output: whether the weights hold an output projection that differs from the embedding.

        Raises:
            ConfigError: an option has the wrong type, is out of range, or asks for what the network cannot do;
                names it, its value and what was expected.
        """
        usual = {self.names.get(name, name): value for name, value in _DEFAULTS.items()}
        options = ConfigReader({**usual, **self.defaults, **config}, self.names)
        for name, neutral in (_MUST_BE | self._implied()).items():
            options.require(name, neutral)
        tied, one_vocabulary = options.flag("tie_word_embeddings"), options.flag("share_encoder_decoder_embeddings")
        source = options.size("vocab_size", MAX_SIZE)
        scaled = tied if options.get("scale_decoder_outputs") is None else options.flag("scale_decoder_outputs")
        if self.tied_by_weights:
            tied = not own_output
        other = not one_vocabulary and options.get("decoder_vocab_size") is not None
        target = options.size("decoder_vocab_size", MAX_SIZE) if other else source
        pad, eos = options.token_id("pad_token_id", target), options.token_id("eos_token_id", target)
        start, bos = options.get("decoder_start_token_id"), options.get("bos_token_id")
        decoder = self._stack(options, "decoder", self.decoder or self.stack, pad)
        return EncoderDecoderConfig(
            source_vocabulary=source,
            target_vocabulary=target,
            encoder=self._stack(options, "encoder", self.stack, pad),
            decoder=replace(decoder, scale_features=scaled),
            share_embeddings=self.always_shared or (tied and one_vocabulary),
            tie_output=tied,
            output_bias=output_bias,
            dropout=DropoutConfig(
                residual=options.probability("dropout"),
                attention=options.probability("attention_dropout"),
                activation=options.probability("activation_dropout"),
                features=options.probability("dropout") if self.features_dropout else 0.0,
            ),
            bos=eos if bos is None else options.token_id("bos_token_id", target),
            pad=pad,
            eos=eos,
            unk=options.token_id("unk_token_id", MAX_SIZE),
            decoder_start=None if start is None else options.token_id("decoder_start_token_id", target),
        )

    def _implied(self) -> dict[str, Any]:
        """Return options of old files that the model class decides today, with the only value that agrees with it."""
        return {
            "normalize_before": self.stack.norm_placement is NormPlacement.PRE,
            "normalize_embedding": self.stack.embedding_norm,
            "add_final_layer_norm": self.stack.final_norm,
            "static_position_embeddings": self.stack.positions.kind is not PositionKind.LEARNED,
        }

    def _stack(self, options: ConfigReader, stack: str, base: StackConfig, pad: int) -> StackConfig:
        positions = base.positions
        # A file with one number of layers means it for both stacks.
        layers = "encoder_layers" if options.get(f"{stack}_layers") is None else f"{stack}_layers"
        gated = self.gated_activations.get(str(options.get("activation_function")))
        return replace(
            base,
            layers=options.size(layers, MAX_SIZE),
            dim=options.size("d_model", MAX_SIZE),
            heads=options.size(f"{stack}_attention_heads", MAX_SIZE),
            ffn_dim=options.size(f"{stack}_ffn_dim", MAX_SIZE),
            activation=options.activation("activation_function") if gated is None else gated,
            gated=gated is not None,
            head_dim=None if options.get("head_dim") is None else options.size("head_dim", MAX_SIZE),
            norm_epsilon=options.probability("norm_epsilon"),
            scale_embedding=options.flag("scale_embedding"),
            layer_drop=options.probability(f"{stack}_layerdrop"),
            positions=replace(
                positions,
                max_positions=options.size("max_position_embeddings", MAX_POSITIONS),
                # As in fairseq, positions that count real tokens start behind the padding's id.
                offset=positions.offset if positions.count_padding else pad + 1,
                buckets=options.size("relative_attention_num_buckets", MAX_SIZE),
                max_distance=options.size("relative_attention_max_distance", MAX_POSITIONS),
            ),
        )
