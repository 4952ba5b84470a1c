"""Makes ``relative_key.safetensors``: what encoders with vectors of distances compute in transformers 4.40.2.

Later releases have dropped ``position_embedding_type``. Run once, with the torch of this repository:

    pip install --no-deps --target OLD transformers==4.40.2 tokenizers==0.19.1 huggingface_hub==0.36.0 \\
        requests urllib3 idna certifi charset_normalizer
    PYTHONPATH=OLD python tests/families/golden/relative_key.py

For each model the file has its weights (float16, to be small: the model computed with what they hold), the states of
real tokens and the gradient of the first layer's distances with padding on either side, and its ``config.json`` in the
metadata. ALBERT is not among them: the distances' share of its scores was not scaled with the rest.
"""

import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

VOCABULARY = 23
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 14, "max_position_embeddings": 11, "embedding_size": 8, "pad_token_id": 1,
}  # fmt: skip
MODELS = [
    ("Bert", "relative_key"), ("Bert", "relative_key_query"), ("Roberta", "relative_key_query"),
    ("Electra", "relative_key"),
]  # fmt: skip


def batch(left_pad: bool) -> torch.Tensor:
    """Sequences of several lengths, padded on a side; the longest has as many tokens as there are positions."""
    tokens = torch.randint(4, VOCABULARY, (3, 11), generator=torch.Generator().manual_seed(2))
    for row, missing in enumerate((0, 3, 9)):
        tokens[row, :missing] = 1
        if not left_pad:
            tokens[row] = tokens[row].roll(-missing)
    return tokens


def main() -> None:
    tensors, configs = {}, {}
    for begin, kind in MODELS:
        config = getattr(transformers, f"{begin}Config")(**SIZES, position_embedding_type=kind)
        model = getattr(transformers, f"{begin}Model")(config).eval()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_((parameter + torch.randn(parameter.shape, generator=generator) * 0.3).half())
        name = f"{begin}/{kind}"
        configs[name] = json.dumps({**config.to_diff_dict(), "model_type": config.model_type})
        tensors |= {f"{name}/weights/{weight}": tensor.half() for weight, tensor in model.state_dict().items()
                    if tensor.is_floating_point()}  # fmt: skip
        (distances, *_) = (weight for place, weight in model.named_parameters() if "distance_embedding" in place)
        for side in ("left", "right"):
            tokens = batch(side == "left")
            real = tokens.ne(1)
            states = model(input_ids=tokens, attention_mask=real.long()).last_hidden_state[real]
            (gradient,) = torch.autograd.grad(states.square().mean(), distances)
            tensors |= {f"{side}/tokens": tokens, f"{name}/{side}/states": states.detach(),
                        f"{name}/{side}/gradient": gradient}  # fmt: skip
    save_file(tensors, Path(__file__).with_suffix(".safetensors"), metadata=configs)


if __name__ == "__main__":
    main()
