"""Options of generation as a request's body: a pydantic model derived from their declarations, and its JSON Schema."""

from typing import Any

import pydantic

from fairbeam.errors import python
from fairbeam.generation.option_fields import REQUEST, Option, options_from
from fairbeam.generation.options import GenerationOptions


def request_model(kind: type = GenerationOptions) -> type[pydantic.BaseModel]:
    """Return the model of a JSON object with options; ``model_dump(exclude_unset=True)`` gives those that are there.

    Types and ranges are those of the declarations; what goes with what is checked when options are made of it.
    """
    fields: dict[str, Any] = {name: (one.type, _field(one)) for name, one in options_from(kind, REQUEST).items()}
    config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
    return pydantic.create_model(f"{kind.__name__}Request", __config__=config, **fields)


def json_schema(kind: type = GenerationOptions) -> dict[str, Any]:
    """Return the JSON Schema of a request's options."""
    return request_model(kind).model_json_schema()


def _field(one: Option) -> Any:
    said = one.declared
    # Values that turn an option off lie outside the bounds of the others.
    lower: dict[str, Any] = {} if said.off_up_to is not None else {"ge": said.at_least, "gt": said.above}
    return pydantic.Field(
        default=one.default,
        title=said.group,
        description=one.help(python),
        le=said.at_most,
        lt=said.below,
        **lower,
    )
