"""fairseq's language models and RoBERTas against fairseq itself; encoder-decoders are in ``tests/network``."""

import dataclasses

import pytest
import stock_models
import torch
from searching import search_with

from fairbeam.errors import CheckpointError, ConfigError
from fairbeam.families.fairseq import language_model as fairseq_lm
from fairbeam.families.fairseq import lstm as fairseq_lstm
from fairbeam.families.fairseq import roberta as fairseq_roberta
from fairbeam.families.fairseq.registry import completed, family_of
from fairbeam.generation import GenerationOptions
from fairbeam.network import LSTM, DecoderOnly, LSTMConfig

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


LSTMS = {
    "luong": {"arch": "lstm_luong_wmt_en_de", "encoder_layers": 2, "decoder_layers": 2, "decoder_out_embed_dim": 20},
    "bidirectional, widths of many kinds": {
        "arch": "lstm_wiseman_iwslt_de_en", "encoder_bidirectional": True, "encoder_hidden_size": 10,
        "decoder_hidden_size": 14, "decoder_out_embed_dim": 18, "encoder_layers": 2, "decoder_layers": 2,
    },
    "tied, without attention": {
        "arch": "lstm", "share_decoder_input_output_embed": True, "decoder_attention": "0", "decoder_out_embed_dim": 20,
    },
    "one embedding": {"arch": "lstm", "share_all_embeddings": True, "decoder_out_embed_dim": 20},
}  # fmt: skip


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
    assert isinstance(ours, DecoderOnly)
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


def lstm(variant: str):
    """Stock's model, and ours of its weights."""
    options = {"encoder_embed_dim": 20, "decoder_embed_dim": 20, "dropout": 0.0, "max_target_positions": 40,
               **LSTMS[variant]}  # fmt: skip
    theirs = stock_models.build({"criterion": "cross_entropy", **options})
    return options, theirs, stock_models.load_network(options, theirs.state_dict()).eval()


@pytest.mark.parametrize("variant", LSTMS)
def test_lstms(variant):
    """Stock pads sources on the left and wants the longest first; ours take either side in any order."""
    options, theirs, ours = lstm(variant)
    right = batch()[[0, 2, 1, 3]]
    left = torch.stack([row.roll(int(row.eq(PAD).sum())) for row in right])
    previous = torch.cat([torch.full((4, 1), EOS), batch()[:, :5]], dim=1)
    expected, attention = theirs(left, left.ne(PAD).sum(1), previous)
    for source in (left, right):
        torch.testing.assert_close(ours(source, previous), expected, rtol=1e-5, atol=2e-5)
    shuffled = torch.tensor([3, 0, 2, 1])
    torch.testing.assert_close(ours(right[shuffled], previous[shuffled]), expected[shuffled], rtol=1e-5, atol=2e-5)
    if attention is None:
        with pytest.raises(ConfigError, match="attention is False"):
            ours.alignments(left, previous)
    else:
        torch.testing.assert_close(ours.alignments(right, previous), attention, rtol=1e-4, atol=1e-5)
        assert not ours.alignments(left, previous)[left.eq(PAD)[:, None].expand(-1, 6, -1)].any()
    expected.square().mean().backward()
    ours(right, previous).square().mean().backward()
    stock_models.assert_same_gradients(ours, options, theirs)
    assert_back(fairseq_lstm, ours, theirs.state_dict())
    assert LSTMConfig.from_dict(ours.config.to_dict()) == ours.config


@torch.no_grad()
@pytest.mark.parametrize("variant", LSTMS)
def test_beams_of_lstms_are_stocks(variant):
    """Tokens and scores of every hypothesis of every sentence, though sentences finish at different steps."""
    from fairseq.sequence_generator import SequenceGenerator

    options, theirs, _ = lstm(variant)
    for parameter in theirs.parameters():
        parameter.mul_(5)  # small weights mind their input little, and write the same for every sentence
    ours = stock_models.load_network(options, theirs.state_dict()).eval()
    source = batch()[[0, 2, 1, 3]]
    left = torch.stack([row.roll(int(row.eq(PAD).sum())) for row in source])
    stock = SequenceGenerator([theirs], theirs.decoder.dictionary, beam_size=4, max_len_b=12, min_len=2)
    sample = {"net_input": {"src_tokens": left, "src_lengths": left.ne(PAD).sum(1)}}
    search = GenerationOptions(beam=4, max_len_b=12, min_len=2)
    for network in (ours, ours.for_inference(torch.float32)):
        found = search_with([network], search)(source)
        assert len({tuple(mine[0].tokens.tolist()) for mine in found}) > 2
        for mine, expected in zip(found, stock.generate([theirs], sample), strict=True):
            assert [each.tokens.tolist() for each in mine] == [each["tokens"].tolist() for each in expected]
            scores = [each["score"].item() for each in expected]
            assert [each.score for each in mine] == pytest.approx(scores, abs=1e-4)
    rough = ours.for_inference(torch.bfloat16)
    assert search_with([rough], search)(source)[0][0].score == pytest.approx(found[0][0].score, abs=0.1)


def test_ten_updates_of_an_lstm_lower_the_loss():
    config = LSTMConfig(source_vocabulary=37, target_vocabulary=37, bidirectional=True, encoder_embedding=16,
                             encoder_hidden=8, decoder_embedding=16, decoder_hidden=12, output_dim=16)  # fmt: skip
    torch.manual_seed(0)
    network = LSTM(config).train()
    adam = torch.optim.Adam(network.parameters(), lr=1e-2)
    tokens, losses = batch(), []
    for _ in range(10):
        logits = network(tokens, tokens[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=PAD)
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]
    for values, message in (
        ({"share_embeddings": True, "decoder_embedding": 20}, "share_embeddings needs equal shapes"),
        ({"tie_output": True, "output_dim": 20}, "tie_output needs equal widths, but output_dim is 20"),
    ):
        with pytest.raises(ConfigError, match=message):
            dataclasses.replace(config, **values)


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
        family_of("transformer_lm_wiki103").load_network(completed("transformer_lm_wiki103", {}), {})
    for options, message in (
        ({"adaptive_softmax_cutoff": "10,20"}, "adaptive_softmax_cutoff='10,20' has no conversion"),
        ({"character_embeddings": True}, "character_embeddings=True has no conversion"),
        ({"decoder_input_dim": 100}, "decoder_input_dim=100 differs from decoder_embed_dim=512"),
        ({}, r"no tensor 'decoder\.embed_tokens\.weight'"),
    ):
        weights = {"decoder.embed_tokens.weight": torch.zeros(9, 512)} if options else {}
        with pytest.raises(CheckpointError, match=message):
            fairseq_lm.load_network(options, weights)
    for options, message in (
        ({"decoder_layers": 2}, "decoder_layers=2 differs from encoder_layers=1"),
        ({}, r"no tensor 'encoder\.embed_tokens\.weight'"),
        ({"share_all_embeddings": True}, "unexpected decoder.fc_out.weight"),
    ):
        side = torch.zeros(9, 512)
        weights = {f"{stack}.embed_tokens.weight": side for stack in ("encoder", "decoder")} if options else {}
        with pytest.raises(CheckpointError, match=message):
            fairseq_lstm.load_network(options, {**weights, "decoder.fc_out.weight": side})
    with pytest.raises(CheckpointError, match=r"an adaptive softmax\) has no conversion"):
        fairseq_lstm.load_network({}, {"decoder.adaptive_softmax.head.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"'lightconv' has no conversion; known are .*roberta.*transformer_lm"):
        family_of("lightconv")
