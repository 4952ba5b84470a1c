"""Upper bounds of a bundle's network, whose author may be hostile, where the size of its weights gives none."""

import dataclasses

from fairbeam.errors import ConfigError
from fairbeam.network import AnyConfig, HeadConfig, LSTMConfig, StackConfig

_MAX_SIZE = 1 << 24
"""Upper bound of any one dimension; a size that the weights do not confirm is refused before memory is allocated."""
_MAX_POSITIONS = 1 << 17
"""Upper bound of a position table. Sinusoids are computed, not stored: the file's size does not bound them."""
_MAX_LAYERS = 1 << 12
"""Upper bound of a number of layers. Layers may share weights: the file's size does not bound them."""


def check_limits(config: AnyConfig, tensors: int) -> None:
    """Check that a network of these sizes can be one that a file of ``tensors`` weights is for.

    Raises:
        ConfigError: a size is out of range; names its JSON pointer in a bundle's ``config.json``, value and range.
    """
    for part in dataclasses.fields(config):
        value = getattr(config, part.name)
        if part.name.endswith("vocabulary"):
            _check_range(f"/network/{part.name}", value, 1, _MAX_SIZE)
        elif isinstance(value, HeadConfig):
            for name in ("outputs", "hidden"):
                size = getattr(value, name)
                _check_range(f"/network/{part.name}/{name}", 1 if size is None else size, 1, _MAX_SIZE)
        elif isinstance(value, StackConfig):
            _check_stack(f"/network/{part.name}", value, tensors)
    if isinstance(config, LSTMConfig):
        _check_lstm(config, tensors)
    _check_special_ids(config)


def _check_special_ids(config: AnyConfig) -> None:
    """Check that special tokens are in the vocabulary, but for ``unk``, whose default may be beyond it."""
    for name in ("bos", "pad", "eos", "decoder_start", "separator"):
        value = getattr(config, name, None)
        if value is not None:
            _check_range(f"/network/{name}", value, -1 if name == "pad" else 0, config.target_vocabulary - 1)
    _check_range("/network/source_pad", config.padding_of_sources, -1, config.source_vocabulary - 1)


def _check_stack(pointer: str, stack: StackConfig, tensors: int) -> None:
    """Check every size, those included that no weight confirms."""
    for field_name, value, most in (
        ("distinct_layers" if stack.distinct_layers else "layers", stack.distinct_layers or stack.layers, tensors),
        ("layers", stack.layers, _MAX_LAYERS),
        ("dim", stack.dim, _MAX_SIZE),
        ("embedding_dim", stack.embedding_width, _MAX_SIZE),
        ("heads", stack.heads, stack.dim),
        ("head_dim", stack.head_dim_resolved, _MAX_SIZE),
        ("key_value_heads", stack.num_kv_heads, stack.heads),
        ("ffn_dim", stack.ffn_dim, _MAX_SIZE),
        ("positions/buckets", stack.positions.buckets, _MAX_SIZE),
        ("positions/max_distance", stack.positions.max_distance, _MAX_POSITIONS),
        ("positions/max_positions", stack.positions.max_positions, _MAX_POSITIONS),
    ):
        _check_range(f"{pointer}/{field_name}", value, 1, most)
    for field_name in ("offset", "memory_length"):
        _check_range(f"{pointer}/positions/{field_name}", getattr(stack.positions, field_name), 0, _MAX_POSITIONS)
    _check_range(f"{pointer}/token_types", stack.token_types, 0, _MAX_SIZE)


def _check_lstm(config: LSTMConfig, tensors: int) -> None:
    _check_range("/network/layers", config.layers, 1, tensors)
    for name in ("encoder_embedding", "encoder_hidden", "decoder_embedding", "decoder_hidden", "output_dim"):
        _check_range(f"/network/{name}", getattr(config, name), 1, _MAX_SIZE)
    for name in ("max_source_positions", "max_target_positions"):  # no table is computed or stored for them
        _check_range(f"/network/{name}", getattr(config, name), 1, _MAX_SIZE)
    for name, value in dataclasses.asdict(config.dropout).items():
        _check_range(f"/network/dropout/{name}", value, 0, 1)


def _check_range(pointer: str, value: float, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ConfigError(f"{pointer} is {value}; expected {least} to {most}")
