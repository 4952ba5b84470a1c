"""What reading and writing Hugging Face models asks of a family, whatever the shape of its network."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from fairbeam.families.weight_map import Row
from fairbeam.network import AnyConfig

MAX_SIZE = 1 << 24
"""Upper bound of any one dimension; a size that the weights do not confirm is refused before memory is allocated."""
MAX_POSITIONS = 1 << 17
"""Upper bound of a position table. Sinusoids are computed, not stored: the file's size does not bound them."""
MAX_LAYERS = 1 << 12
"""Upper bound of a number of layers. Layers may share weights: the file's size does not bound them."""


class LoadPlan(NamedTuple):
    """How one model is loaded: its network, and the weight map between their tensors and ours."""

    network: AnyConfig
    rows: tuple[Row, ...]
    unread: frozenset[str]
    """Names of their tensors that the rows know and this network does not use."""


class FamilySpec(Protocol):
    """A model family: how its ``config.json`` describes a network, and how its weights map to ours."""

    @property
    def model_type(self) -> str:
        """Hugging Face's name of the family (``model_type`` of ``config.json``)."""

    @property
    def computed_tables(self) -> tuple[Row, ...]:
        """Rows of tables that we compute and some of their files store; a stored one must equal the computed one."""

    @property
    def prefix(self) -> str:
        """Prefix of the base model's tensor names within a model with a head: ``"model."``."""

    @property
    def unprefixed(self) -> frozenset[str]:
        """Names without the prefix that may occur in a file of the base model's bare names: those of a head."""

    @property
    def not_weights(self) -> str:
        """Regular expression of names of tensors that hold no weights."""

    @property
    def defaults(self) -> Mapping[str, Any]:
        """Values of options that ``config.json`` may leave out."""

    @property
    def presets(self) -> Mapping[str, Mapping[str, Any]]:
        """Options of each published size, by its name."""

    def rows_for(self, config: AnyConfig, options: Mapping[str, Any]) -> tuple[Row, ...]:
        """Return the weight map of the network that the ``options`` of a ``config.json`` describe."""

    def plan(self, config: Mapping[str, Any], theirs: Mapping[str, Tensor]) -> LoadPlan:
        """Return the network of a ``config.json`` and the weights beside it.

        Raises:
            ConfigError: an option has the wrong type, is out of range, or asks for what the network cannot do;
                names it, its value and what was expected.
        """

    def config_for_training(self, config: Mapping[str, Any]) -> AnyConfig:
        """Return the network of a ``config.json`` that is to be trained from scratch; errors as for ``plan``."""
