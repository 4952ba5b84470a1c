"""Tensor names and shapes of ``transformer`` checkpoints of earlier fairseq releases → those of 0.12."""

import re
from collections.abc import Mapping

from torch import Tensor

_LAYER_NORMS = {
    "encoder": ("self_attn_layer_norm", "final_layer_norm"),
    "decoder": ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"),
}
_NUMBERED_NORM = re.compile(r"(encoder|decoder)(\.layers\.\d+\.)layer_norms\.(\d)\.(weight|bias)")
_JOINED = re.compile(r"(.+\.)in_proj_(weight|bias)")
_FIRST_WITH_FINAL_NORM = {"encoder": 2, "decoder": 3}


def modern_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dictionary under the names of fairseq 0.12.

    Releases before 0.6 number the layer norms, those before 0.9 join the projections of queries, keys and values in
    one matrix, leave a tied output projection out, and call an untied one ``embed_out``.
    """
    modern: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if norm := _NUMBERED_NORM.fullmatch(name):
            stack, layer, number, kind = norm.groups()
            names = _LAYER_NORMS[stack]
            new = names[int(number)] if int(number) < len(names) else f"layer_norms.{number}"
            modern[f"{stack}{layer}{new}.{kind}"] = tensor
        elif (joined := _JOINED.fullmatch(name)) and len(tensor) % 3 == 0:
            before, kind = joined.groups()
            thirds = zip("qkv", tensor.chunk(3), strict=True)
            modern.update({f"{before}{part}_proj.{kind}": third for part, third in thirds})
        else:
            modern[name] = tensor
    output = "decoder.output_projection.weight"
    if output not in modern:
        untied = modern.pop("decoder.embed_out", None)
        tied = modern.get("decoder.embed_tokens.weight")
        if untied is not None or tied is not None:
            modern[output] = tied if untied is None else untied  # type: ignore[assignment]
    return modern


def has_final_norm(weights: Mapping[str, Tensor], stack: str) -> bool:
    """Return whether a pre-norm stack of this checkpoint has a norm behind its last layer.

    ``encoder.version`` and ``decoder.version`` count the changes of the layout, and the norm came with one of them.
    Where there is no count, the weights tell.
    """
    version = weights.get(f"{stack}.version")
    if version is None:
        return f"{stack}.layer_norm.weight" in weights
    return float(version.flatten()[0]) >= _FIRST_WITH_FINAL_NORM[stack]
