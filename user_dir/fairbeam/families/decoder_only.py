"""Families of decoders without an encoder: GPT, Llama and their descendants."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from fairbeam.families.config_reader import ConfigReader
from fairbeam.families.single_stack import SingleStackFamily, architecture_name
from fairbeam.families.spec import MAX_SIZE, LoadPlan
from fairbeam.families.weight_map import Row
from fairbeam.network import AdaptiveConfig, AnyConfig, DecoderOnlyConfig


@dataclass(frozen=True, kw_only=True)
class DecoderOnlyFamily(SingleStackFamily):
    """A family of decoders without an encoder (a `FamilySpec`)."""

    bare_class: str = ""
    """Name of the class without an output projection, where its absence from the weights does not imply one."""

    def rows_for(self, config: AnyConfig, options: Mapping[str, Any]) -> tuple[Row, ...]:
        """Return the weight map, with fewer rows of keys and values than of queries for grouped-query attention."""
        stack = config.decoder if isinstance(config, DecoderOnlyConfig) else self.stack
        shares = (stack.heads, stack.num_kv_heads, stack.num_kv_heads)
        return tuple(
            replace(row, shares=shares) if ".self_attention.qkv." in row.ours and len(row.theirs) == 3 else row
            for row in self.rows
        )

    def plan(self, config: Mapping[str, Any], theirs: Mapping[str, Tensor]) -> LoadPlan:
        """Return the network of a model's files; see `FamilySpec`."""
        options = self.options(config)
        vocabulary = options.size(self.names["vocabulary"], MAX_SIZE)
        bos, pad = (
            None if options.values[self.names[name]] is None else options.token_id(self.names[name], vocabulary)
            for name in ("bos", "pad")
        )
        ends = self._ends(options, vocabulary)
        tied = options.flag("tie_word_embeddings")
        biased = any(row.ours.startswith("head.bias") and row.for_layer(0).theirs[0] in theirs for row in self.rows)
        network = DecoderOnlyConfig(
            vocabulary=vocabulary,
            decoder=self.stack_config(options, -1),
            adaptive=self.adaptive_config(options),
            output=tied or not self.bare_class or architecture_name(config) != self.bare_class,
            tie_output=tied,
            output_bias=biased,
            dropout=self.dropout_config(options),
            bos=bos,
            # A token that prompts may contain cannot mark padding.
            pad=-1 if pad is None or pad in (bos, *ends) else pad,
            # With several end tokens, the caller has to name the one that ends the text.
            eos=ends[0] if len(ends) == 1 else None,
        )
        return LoadPlan(network, self.rows_for(network, config), frozenset())

    def adaptive_config(self, options: ConfigReader) -> AdaptiveConfig | None:
        """Return the clusters of an adaptive softmax that a ``config.json`` describes; None for a family without."""
        return None

    def config_for_training(self, config: Mapping[str, Any]) -> DecoderOnlyConfig:
        """Return the network to train from scratch; see `FamilySpec`."""
        network = self.plan(config, {}).network
        assert isinstance(network, DecoderOnlyConfig)
        return network

    def _ends(self, options: ConfigReader, vocabulary: int) -> list[int]:
        """Return the end-of-text ids of a ``config.json``, which has none, one, or a list of them."""
        name = self.names["eos"]
        value = options.values[name]
        several = value if isinstance(value, list) else [] if value is None else [value]
        return [ConfigReader({name: one}).token_id(name, vocabulary) for one in several]
