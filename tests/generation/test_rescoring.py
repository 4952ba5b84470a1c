"""Decode, then rescore: one forward pass over what a search returns gives the scores it came with.

Every chooser over networks in the shapes of BART, T5, Marian and GPT-2, alone and as ensembles.
"""

import pytest
import torch
from searching import search_with

from fairbeam.families.registry import FAMILIES
from fairbeam.generation import Constraints, GenerationOptions, SpecialTokenIds
from fairbeam.network import DecoderOnly, build, pad_batch
from fairbeam.network.inference import native

VOCABULARY, LIMIT = 41, 8
BART = {
    "vocab_size": VOCABULARY, "d_model": 24, "max_position_embeddings": 32, "activation_function": "gelu",
    "encoder_layers": 1, "encoder_attention_heads": 3, "encoder_ffn_dim": 40,
    "decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 28,
}  # fmt: skip
SHAPES = {
    "bart": BART,
    "marian": {**BART, "pad_token_id": VOCABULARY - 1, "decoder_start_token_id": VOCABULARY - 1, "eos_token_id": 0},
    "t5": {"vocab_size": VOCABULARY, "d_model": 24, "d_kv": 10, "d_ff": 40, "num_layers": 1, "num_decoder_layers": 2,
           "num_heads": 3, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 7},
    "gpt2": {"vocab_size": VOCABULARY, "n_embd": 24, "n_layer": 2, "n_head": 3, "n_positions": 40, "pad_token_id": 1,
             "bos_token_id": 0, "eos_token_id": 2},
}  # fmt: skip
CHOOSERS = {
    "beam": {},
    "greedy": {"beam": 1},
    "temperature": {"temperature": 1.6, "lenpen": 0.4},
    "diverse groups": {"diverse_beam_groups": 2, "diverse_beam_strength": 0.25},
    "diverse siblings": {"diversity_rate": 0.25},
    "sampling": {"sampling": True, "temperature": 0.7},
    "top k": {"sampling": True, "sampling_topk": 5},
    "top p": {"sampling": True, "sampling_topp": 0.7, "length_normalization": "gnmt"},
    "min p": {"sampling": True, "min_p": 0.2, "unnormalized": True},
    "typical": {"sampling": True, "typical_p": 0.6},
    "epsilon": {"sampling": True, "epsilon_cutoff": 0.05},
    "stochastic beam": {"stochastic_beam": True},
    "contrastive": {"penalty_alpha": 0.5},
    "constrained": {"constraints": Constraints.UNORDERED},
}


def network(shape: str, seed: int):
    """Random numbers in every weight, norms and biases too, sharp enough that hypotheses differ."""
    family, generator = FAMILIES[shape], torch.Generator().manual_seed(seed)
    made = build(family.plan(SHAPES[shape], {"final_logits_bias": torch.ones(1, VOCABULARY)}).network).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.15)
    return made


@torch.no_grad()
def forced_scores(networks, weights, source: torch.Tensor, target: torch.Tensor, start: int, temperature: float):
    """(length, vocabulary): after each token of ``target`` before the last, log probabilities of the next."""
    each = []
    for made in networks:
        if isinstance(made, DecoderOnly):
            logits = made(torch.cat([source, target])[None])[0, len(source) - 1 : -1]
        else:
            logits = made(source[None], torch.cat([target.new_tensor([start]), target[:-1]])[None])[0]
        each.append((logits / temperature).softmax(-1))
    return sum(weight * probabilities for weight, probabilities in zip(weights, each, strict=True)).log()


@pytest.mark.parametrize("kind", ["as it is", "compiled", "not compiled", "ensemble"])
@pytest.mark.parametrize("shape", SHAPES)
def test_scores_are_those_of_one_forward_pass(shape, kind, monkeypatch):
    networks = [network(shape, seed) for seed in range(2 if kind == "ensemble" else 1)]
    weights = (0.7, 0.3) if kind == "ensemble" else (1.0,)
    decoders = networks
    if kind != "as it is":
        if kind == "compiled" and not native.available():
            pytest.skip("fairbeam was installed without a C++ compiler")
        if kind == "not compiled":
            monkeypatch.setattr(native, "library", lambda: None)
        decoders = [made.for_inference(torch.float32) for made in networks]
    config = networks[0].config
    special = (
        SpecialTokenIds(config.bos, config.pad, config.eos, config.unk) if hasattr(config, "unk") else SpecialTokenIds()
    )
    start = special.eos if networks[0].first_token is None else networks[0].first_token
    generator = torch.Generator().manual_seed(3)
    rows = [torch.randint(4, 40, (n,), generator=generator).tolist() for n in (6, 1, 3)]
    rows = rows if shape == "gpt2" else [[*row, special.eos] for row in rows]
    required = [(((7, 9),), ((11,), (12, 13))), (), (((5,),),)]
    for name, given in CHOOSERS.items():
        if name == "contrastive" and kind == "ensemble":
            continue
        options = GenerationOptions(
            **{"beam": 4, "max_len_b": LIMIT, "ensemble_weights": weights if kind == "ensemble" else (), **given}
        )
        found = search_with(decoders, options, special)(
            pad_batch(rows, special.pad), required=required if "constraints" in given else None
        )
        for row, hypotheses in zip(rows, found, strict=True):
            assert hypotheses
            for hypothesis in hypotheses:
                check(name, hypothesis, options, special, forced_scores(
                    networks, weights, torch.tensor(row), hypothesis.tokens, start, options.temperature
                ))  # fmt: skip


def check(name: str, hypothesis, options: GenerationOptions, special: SpecialTokenIds, scores: torch.Tensor) -> None:
    tokens, length = hypothesis.tokens, len(hypothesis.tokens)
    if options.stochastic_beam:  # probabilities are shares of what may be said
        scores[:, special.pad] = scores[: options.min_len, special.eos] = float("-inf")
        scores[LIMIT:, : special.eos] = scores[LIMIT:, special.eos + 1 :] = float("-inf")
        scores = scores.log_softmax(-1)
    costs = scores.gather(1, tokens[:, None])[:, 0] - hypothesis.positional_scores
    if step := max(0.0, options.diversity_rate) or (options.diverse_beam_groups > 0) * options.diverse_beam_strength:
        # fairseq's scores hold what diversity costs: a whole number of times the rate
        assert costs.min() > -1e-5
        assert not options.diversity_rate > 0 or (costs[1:].min() > 0.9 * step and costs[0] < 1e-5)
        costs -= (costs / step).round() * step
    torch.testing.assert_close(costs, torch.zeros(length), rtol=0, atol=1e-5, msg=lambda text: f"{name}: {text}")
    if not options.stochastic_beam:
        gnmt = options.length_normalization == "gnmt"
        penalty = 1.0 if options.unnormalized else ((5 + length) / 6 if gnmt else length) ** options.lenpen
        assert hypothesis.score == pytest.approx(float(hypothesis.positional_scores.double().sum()) / penalty, abs=1e-5)
    assert int(tokens[-1]) == special.eos
    assert length <= LIMIT + 1
