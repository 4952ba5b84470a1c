"""fairseq's language models and RoBERTas against fairseq itself; encoder-decoders are in ``tests/network``."""

import importlib.util
from pathlib import Path

import pytest
import torch

from fairbeam.errors import CheckpointError
from fairbeam.families import fairseq_lm, fairseq_roberta
from fairbeam.families.fairseq import completed, page_of
from fairbeam.network import LanguageModel

spec = importlib.util.spec_from_file_location("stock_models", Path(__file__).parent.with_name("stock_models.py"))
stock_models = importlib.util.module_from_spec(spec)
spec.loader.exec_module(stock_models)

PAD, EOS = 1, 2
SIZES = {"embed_dim": 24, "ffn_embed_dim": 40, "layers": 2, "attention_heads": 3}
LANGUAGE_MODELS = {
    "gpt": {"arch": "transformer_lm_gpt"},
    "gpt3, learned, tied": {"arch": "transformer_lm_gpt3_small"},
    "gbw, no final norm": {"arch": "transformer_lm_gbw"},
    "post-norm, embedding norm": {
        "arch": "transformer_lm_big", "layernorm_embedding": True, "no_scale_embedding": True, "add_bos_token": True,
    },
}  # fmt: skip
ROBERTAS = {name: {"arch": name} for name in ("roberta", "roberta_prenorm", "xlm")} | {
    "untied": {"arch": "roberta_large", "untie_weights_roberta": True, "activation_fn": "relu"}
}


def options_of(side: str, **options) -> dict:
    sizes = {f"{side}_{name}": value for name, value in SIZES.items()}
    longest = {"max_target_positions": 64} if side == "decoder" else {"max_positions": 64}
    return {**sizes, **longest, "dropout": 0.0, "attention_dropout": 0.0, **options}


def batch() -> torch.Tensor:
    tokens = torch.randint(4, 37, (4, 9), generator=torch.Generator().manual_seed(2))
    for row, missing in enumerate((0, 3, 1, 6)):
        tokens[row, 9 - missing :] = PAD
    return tokens


def assert_back(page, network, theirs: dict) -> None:
    """Every tensor of theirs comes back to the bit, but those that the page says it has no use for."""
    back = page.save_weights(network)
    kept = {name for name in theirs if page.NOT_WEIGHTS.fullmatch(name)}
    assert back.keys() == theirs.keys() - kept
    assert all(torch.equal(back[name], theirs[name]) for name in back)


@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask:UserWarning")
@pytest.mark.parametrize("variant", LANGUAGE_MODELS)
def test_language_models(variant):
    options = options_of("decoder", **LANGUAGE_MODELS[variant])
    theirs = stock_models.build({"tokens_per_sample": 64, **options})
    ours = stock_models.load_network(options, theirs.state_dict()).eval()
    assert isinstance(ours, LanguageModel)
    assert ours.config.bos == (0 if options.get("add_bos_token") else EOS)
    tokens = batch()
    real = tokens.ne(PAD)
    expected, actual = theirs(tokens)[0][real], ours(tokens)[real]
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=2e-5)
    expected.square().mean().backward()
    actual.square().mean().backward()
    stock_models.assert_same_gradients(ours, options, theirs)
    assert_back(fairseq_lm, ours, theirs.state_dict())


@pytest.mark.parametrize("variant", ROBERTAS)
def test_robertas(variant):
    options = options_of("encoder", **ROBERTAS[variant])
    theirs = stock_models.build(options)
    theirs.register_classification_head("sentence_classification_head", num_classes=3, inner_dim=10)
    theirs.register_classification_head("mnli", num_classes=2)
    stock_models.randomise(theirs.classification_heads)
    ours = stock_models.load_network(options, theirs.state_dict()).eval()
    tokens = batch()
    real = tokens.ne(PAD)
    found = ours(tokens)
    features, symbols = theirs(tokens, features_only=True)[0], theirs(tokens)[0]
    sequence = theirs(tokens, classification_head_name="sentence_classification_head")[0]
    torch.testing.assert_close(found.states[real], features[real], rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(found.symbols[real], symbols[real], rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(found.sequence, sequence, rtol=1e-5, atol=2e-5)
    (symbols[real].square().mean() + sequence.square().mean()).backward()
    (found.symbols[real].square().mean() + found.sequence.square().mean()).backward()
    stock_models.assert_same_gradients(ours, options, theirs)
    assert_back(fairseq_roberta, ours, theirs.state_dict())
    complete = completed(options["arch"], options)
    other = fairseq_roberta.load_network(complete, theirs.state_dict(), head="mnli").eval()
    expected = theirs(tokens, classification_head_name="mnli")[0]
    torch.testing.assert_close(other(tokens).sequence, expected, rtol=1e-5, atol=2e-5)
    back = fairseq_roberta.save_weights(other, head="mnli")
    assert torch.equal(back["classification_heads.mnli.dense.weight"], theirs.classification_heads.mnli.dense.weight)


def test_a_roberta_under_the_names_of_earlier_releases():
    options = options_of("encoder", arch="roberta")
    theirs = stock_models.build(options).state_dict()
    old = {
        name.replace("encoder.", "decoder.", 1).replace("layernorm_embedding", "emb_layer_norm"): tensor
        for name, tensor in theirs.items()
    }
    ours, again = (stock_models.load_network(options, weights) for weights in (theirs, old))
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), again.parameters(), strict=True))
    assert ours.sequence_head is None


def test_what_has_no_conversion_is_refused_by_name():
    with pytest.raises(CheckpointError, match=r"adaptive_input=True has no conversion"):
        page_of("transformer_lm_wiki103").load_network(completed("transformer_lm_wiki103", {}), {})
    for options, message in (
        ({"adaptive_softmax_cutoff": "10,20"}, "adaptive_softmax_cutoff='10,20' has no conversion"),
        ({"character_embeddings": True}, "character_embeddings=True has no conversion"),
        ({"decoder_input_dim": 100}, "decoder_input_dim=100 differs from decoder_embed_dim=512"),
        ({}, r"no tensor 'decoder\.embed_tokens\.weight'"),
    ):
        weights = {"decoder.embed_tokens.weight": torch.zeros(9, 512)} if options else {}
        with pytest.raises(CheckpointError, match=message):
            fairseq_lm.load_network(options, weights)
    with pytest.raises(CheckpointError, match=r"'lightconv' has no conversion; known are .*roberta.*transformer_lm"):
        page_of("lightconv")
