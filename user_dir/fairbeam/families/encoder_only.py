"""Families of encoders without a decoder: BERT and its descendants, with the heads that stand on them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from fairbeam.errors import ConfigError
from fairbeam.families.config_reader import ConfigReader
from fairbeam.families.single_stack import SingleStackFamily, architecture_name
from fairbeam.families.spec import MAX_SIZE, LoadPlan
from fairbeam.network import Activation, EncoderOnlyConfig, HeadConfig


@dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """A head, recognised by its weights."""

    place: str
    """Field of ``EncoderOnlyConfig`` that describes the head."""
    mark: str
    """Name of their tensor with a row for each output; its presence means the head's."""
    hidden: str | None = None
    """Name of their tensor with a row for each output of the first of two linear layers; None for a single one."""
    activation: Activation | None = None
    """Activation behind the first layer; the stack's if None."""
    norm: bool = False
    """Normalize behind the activation."""
    drops: bool = True
    """Apply dropout before the last layer."""
    drops_input: bool = False
    """Apply dropout before the first of two layers."""
    classes: tuple[str, ...] = ()
    """Endings of the model class's name, for tensors that serve two heads; any class if empty."""

    def there(self, theirs: Mapping[str, Tensor], architecture: str) -> bool:
        """Return whether the weights have the head."""
        wanted = self.hidden is None or self.hidden in theirs
        return self.mark in theirs and wanted and (not self.classes or architecture.endswith(self.classes))

    def config(self, theirs: Mapping[str, Tensor], activation: Activation, dropout: float) -> HeadConfig:
        """Return the head's configuration, with sizes taken from the weights.

        Raises:
            ConfigError: a size is out of range.
        """
        return HeadConfig(
            outputs=_first_axis(self.mark, theirs),
            hidden=None if self.hidden is None else _first_axis(self.hidden, theirs),
            activation=activation if self.activation is None else self.activation,
            norm=self.norm,
            input_dropout=dropout if self.drops_input else 0.0,
            dropout=dropout if self.drops else 0.0,
        )


@dataclass(frozen=True, kw_only=True)
class EncoderOnlyFamily(SingleStackFamily):
    """A family of encoders without a decoder (a `FamilySpec`)."""

    heads: tuple[HeadSpec, ...]
    """Heads that models of the family may have."""
    pooler: str | None = None
    """Name of their tensor whose presence means a pooler."""
    projection: str | None = None
    """Name of their tensor whose presence means that embeddings are projected to the layers' width; if None, all
    embeddings of another width are."""

    def plan(self, config: Mapping[str, Any], theirs: Mapping[str, Tensor]) -> LoadPlan:
        """Return the network of a model's files; see `FamilySpec`."""
        options = self.options(config)
        network = self._bare(options)
        stack, dropout = network.encoder, network.dropout
        if self.projection is not None and self.projection not in theirs:
            stack = replace(stack, embedding_dim=None)
        special = self.names["head_dropout"]
        head_dropout = dropout.residual if options.values[special] is None else options.probability(special)
        architecture = architecture_name(config)
        heads = {
            head.place: head.config(theirs, stack.activation, head_dropout)
            for head in self.heads
            if head.there(theirs, architecture)
        }
        network = replace(
            network,
            encoder=stack,
            pooler=self.pooler is not None and self.pooler in theirs,
            tie_output="symbol_head" in heads and options.flag("tie_word_embeddings"),
            symbol_head=heads.get("symbol_head"),
            token_head=heads.get("token_head"),
            sequence_head=heads.get("sequence_head"),
        )
        # With relative positions, their files still store a table of absolute ones, which no computation reads.
        table = {name for row in self.rows if row.ours == "embedding.positions.weight" for name in row.theirs}
        return LoadPlan(network, self.rows, frozenset(table if stack.positions.kind.has_distance_vectors else ()))

    def config_for_training(self, config: Mapping[str, Any]) -> EncoderOnlyConfig:
        """Return the masked language model to train from scratch; see `FamilySpec`."""
        options = self.options(config)
        network = self._bare(options)
        stack = network.encoder
        if stack.embedding_dim == stack.dim:
            stack = replace(stack, embedding_dim=None)
        spec = next(head for head in self.heads if head.place == "symbol_head")
        head = HeadConfig(
            outputs=network.vocabulary,
            hidden=stack.embedding_width,
            activation=stack.activation if spec.activation is None else spec.activation,
            norm=spec.norm,
        )
        return replace(network, encoder=stack, symbol_head=head, tie_output=True)

    def _bare(self, options: ConfigReader) -> EncoderOnlyConfig:
        """Return the network without any head."""
        vocabulary = options.size(self.names["vocabulary"], MAX_SIZE)
        pad = options.token_id(self.names["pad"], vocabulary)
        stack, dropout = self.stack_config(options, pad), self.dropout_config(options)
        return EncoderOnlyConfig(vocabulary=vocabulary, encoder=stack, dropout=dropout, pad=pad)


def _first_axis(name: str, theirs: Mapping[str, Tensor]) -> int:
    shape = tuple(theirs[name].shape)
    if not shape or not 1 <= shape[0] <= MAX_SIZE:
        raise ConfigError(f"{name} has shape {shape}, which no head can have")
    return int(shape[0])
