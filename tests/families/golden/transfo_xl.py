"""Makes transfo_xl.safetensors: what the last releases of transformers that had Transformer-XL compute with it.

Release 5 dropped the model, so its answers were written down once, with transformers 4.30.2 and torch 2.13.0:

    python3.11 -m venv old && old/bin/pip install torch==2.13.0 "numpy<2" transformers==4.30.2
    old/bin/python tests/families/golden/transfo_xl.py

Two models with random weights each read three segments, the last with a loss, and continue prompts.
"""

import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LogitsProcessor, LogitsProcessorList, TransfoXLConfig, TransfoXLLMHeadModel

SIZES = {"vocab_size": 48, "d_model": 16, "n_head": 2, "d_head": 6, "d_inner": 18, "n_layer": 2, "mem_len": 6}
MODELS = {
    "widths": {
        "cutoffs": [16, 32], "div_val": 2, "d_embed": 16, "clamp_len": 7, "same_length": False, "untie_r": False,
    },
    "one width": {
        "cutoffs": [20], "div_val": 1, "d_embed": 12, "clamp_len": -1, "same_length": True, "untie_r": True,
        "pre_lnorm": True, "proj_share_all_but_first": True,
    },
}  # fmt: skip
GRADIENTS = (
    "transformer.word_emb.emb_layers.0.weight",
    "transformer.word_emb.emb_layers.1.weight",
    "transformer.word_emb.emb_projs.0",
    "transformer.word_emb.emb_projs.1",
    "crit.out_layers.0.bias",
    "crit.out_projs.0",
    "crit.cluster_weight",
    "transformer.r_w_bias",
    "transformer.r_r_bias",
    "transformer.layers.1.dec_attn.r_w_bias",
    "transformer.layers.1.dec_attn.r_r_bias",
    "transformer.layers.0.dec_attn.r_net.weight",
    "transformer.layers.1.dec_attn.qkv_net.weight",
    "transformer.layers.0.dec_attn.layer_norm.weight",
)
NEW_TOKENS = 12


class EndAtLimit(LogitsProcessor):
    """Only the end at the limit, with its score as it is."""

    def __init__(self, eos: int, length: int) -> None:
        self.eos, self.length = eos, length

    def __call__(self, input_ids, scores):
        if input_ids.size(1) < self.length:
            return scores
        closed = torch.full_like(scores, float("-inf"))
        closed[:, self.eos] = scores[:, self.eos]
        return closed


def random_model(options: dict) -> TransfoXLLMHeadModel:
    torch.manual_seed(0)
    config = TransfoXLConfig(**SIZES, **options, architectures=["TransfoXLLMHeadModel"])
    model = TransfoXLLMHeadModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.2)
    return model


def continuations(model: TransfoXLLMHeadModel, prompts: torch.Tensor, eos: int, beams: int) -> torch.Tensor:
    # Without a length penalty: this release counts the prompt as part of a hypothesis.
    many = {"early_stopping": True, "length_penalty": 0.0} if beams > 1 else {}
    limit = LogitsProcessorList([EndAtLimit(eos, prompts.size(1) + NEW_TOKENS)])
    return model.generate(
        input_ids=prompts, do_sample=False, num_beams=beams, max_new_tokens=NEW_TOKENS + 1, eos_token_id=eos,
        pad_token_id=eos, logits_processor=limit, **many,
    )[:, prompts.size(1) :].contiguous()  # fmt: skip


def answers(options: dict) -> tuple[str, dict[str, torch.Tensor]]:
    model = random_model(options)
    found = {f"weights/{name}": tensor.clone() for name, tensor in model.state_dict().items()}
    memories = None
    for number, length in enumerate((5, 3, 8)):
        tokens = torch.randint(0, SIZES["vocab_size"], (2, length))
        if number == 2:
            result = model(tokens, mems=memories, labels=tokens.clone())
            result.loss.backward()
            found["loss"] = result.loss.detach()
        with torch.no_grad():
            result = model(tokens, mems=memories, output_hidden_states=True)
        memories = result.mems  # (length, batch, dim) each
        found |= {
            f"tokens/{number}": tokens,
            f"states/{number}": result.hidden_states[-1],
            f"log_probabilities/{number}": result.prediction_scores,
            f"memories/{number}": torch.stack([memory.transpose(0, 1) for memory in memories]).contiguous(),
        }
    parameters = dict(model.named_parameters())
    found |= {f"gradients/{name}": parameters[name].grad for name in GRADIENTS if name in parameters}
    prompts = torch.randint(0, SIZES["vocab_size"], (4, 7))
    found["prompts"] = prompts
    common = int(continuations(model, prompts, 1, 1)[:, 2:-1].flatten().mode().values)
    for eos in (1, common):  # late and early
        for beams in (1, 4):
            found[f"continuations/{eos}/{beams}"] = continuations(model, prompts, eos, beams)
    return model.config.to_json_string(use_diff=True), found


def main() -> None:
    warnings.simplefilter("ignore")
    tensors, configs = {}, {}
    for name, options in MODELS.items():
        configs[name], found = answers(options)
        tensors |= {f"{name}/{key}": tensor.clone() for key, tensor in found.items()}
    save_file(tensors, Path(__file__).with_suffix(".safetensors"), metadata=configs)


if __name__ == "__main__":
    main()
