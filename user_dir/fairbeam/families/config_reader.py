"""Options of a ``config.json``, read one by one with their types and ranges checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Gt, Le
from pydantic import AllowInfNan

from fairbeam.errors import ConfigError
from fairbeam.network import Activation
from fairbeam.schema import parse

T = TypeVar("T")
_ACTIVATIONS = {
    "relu": Activation.RELU,
    "relu2": Activation.RELU_SQUARED,
    "gelu": Activation.GELU,
    "gelu_new": Activation.GELU_TANH,
    "gelu_fast": Activation.GELU_TANH,
    "gelu_pytorch_tanh": Activation.GELU_TANH,
    "silu": Activation.SILU,
    "swish": Activation.SILU,
    "tanh": Activation.TANH,
    "linear": Activation.LINEAR,
}


@dataclass(frozen=True)
class ConfigReader:
    """The options of a ``config.json``, asked for by our names.

    Every method but ``get`` raises ConfigError for a value of the wrong type or out of range: it names the option as
    the file does, its value and what was expected.
    """

    values: Mapping[str, Any]
    names: Mapping[str, str] = field(default_factory=dict)
    """Our option name → the file's, where they differ."""

    def get(self, name: str) -> Any:
        """Return an option unchecked; None if it is absent."""
        return self.values.get(self._theirs(name))

    def require(self, name: str, expected: Any) -> None:
        """Check that an option is absent or has the one value that our network computes."""
        value = self.get(name)
        if value is not None and value != expected:
            raise ConfigError(f"{self._theirs(name)} is {value!r}, which has no conversion; expected {expected!r}")

    def read(self, name: str, kind: type[T]) -> T:
        """Return an option as ``kind``: any annotation that ``schema.parse`` takes."""
        return parse(kind, self.get(name), pointer=self._theirs(name))

    def size(self, name: str, most: int) -> int:
        """Return an integer from 1 to ``most``."""
        return self.read(name, Annotated[int, Ge(1), Le(most)])  # type: ignore[arg-type]

    def token_id(self, name: str, vocabulary: int) -> int:
        """Return an integer from 0 to ``vocabulary`` - 1."""
        return self.read(name, Annotated[int, Ge(0), Le(vocabulary - 1)])  # type: ignore[arg-type]

    def flag(self, name: str) -> bool:
        """Return a boolean."""
        return self.read(name, bool)

    def probability(self, name: str) -> float:
        """Return a number from 0 to 1."""
        return self.read(name, Annotated[float, Ge(0), Le(1)])  # type: ignore[arg-type]

    def positive(self, name: str) -> float:
        """Return a finite number above 0."""
        return self.read(name, Annotated[float, Gt(0), AllowInfNan(False)])  # type: ignore[arg-type]

    def activation(self, name: str) -> Activation:
        """Return the activation function of Hugging Face's name for it."""
        value = self.get(name)
        if not isinstance(value, str) or value not in _ACTIVATIONS:
            raise ConfigError(f"{self._theirs(name)} is {value!r}; expected one of {', '.join(_ACTIVATIONS)}")
        return _ACTIVATIONS[value]

    def _theirs(self, name: str) -> str:
        return self.names.get(name, name)
