"""Composed models: parts as they were, cross-attention as asked for, and a decoder alone that reads a source first."""

import dataclasses
import os
import warnings
from pathlib import Path

import hub_folders
import pytest
import torch
from searching import search_with

import fairbeam
from fairbeam.demo.grammar import corpus
from fairbeam.errors import ConfigError, FairbeamError
from fairbeam.formats import bundle
from fairbeam.formats import hugging_face as pretrained
from fairbeam.formats import hugging_face_weights as hugging_face
from fairbeam.formats.compose import (
    CompositionOptions,
    CrossAttentionStart,
    SequenceOptions,
    compose,
    sequence_to_sequence,
)
from fairbeam.generation import GenerationOptions
from fairbeam.model import Bundle, special_ids
from fairbeam.network import (
    LSTM,
    AdaptiveConfig,
    DecoderOnly,
    DecoderOnlyConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    EncoderOnly,
    EncoderOnlyConfig,
    LSTMConfig,
    PositionConfig,
    PositionKind,
    StackConfig,
    pad_batch,
)
from fairbeam.text import Dictionary, Marks, Tokenizer, Whitespace
from fairbeam.translator import Translator

transformers = pytest.importorskip("transformers")

TEXT = [source for source, _ in corpus(5, seed=3)]
SEPARATOR = 0
COPIED = CrossAttentionStart.COPIED


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """Models of one vocabulary, and ``other``: a GPT-2 of another one."""
    root = tmp_path_factory.mktemp("models")
    for name in hub_folders.ALONE:
        hub_folders.make(name, root / name)
    hub_folders.make("gpt2", root / "other")
    hub_folders.write_tokenizer(root / "other", "GPT2Tokenizer", "$A", ("[a]", "[b]", "[c]"))
    return root


@pytest.fixture
def read(folders):
    return lambda name: pretrained.read(folders / name)


def plain_bundle(dim: int = 24) -> Bundle:
    """An encoder-decoder with dictionaries."""
    torch.manual_seed(0)
    sides = [
        Tokenizer(language=side, subwords=Whitespace(), dictionary=Dictionary((f"{side}{i}", 1) for i in range(20)))
        for side in ("x", "y")
    ]
    stack = StackConfig(layers=2, dim=dim, heads=2, ffn_dim=20)
    config = EncoderDecoderConfig(source_vocabulary=24, target_vocabulary=24, encoder=stack, decoder=stack)
    return Bundle(network=EncoderDecoder(config).eval(), source=sides[0], target=sides[1])


def apart_from_cross_attention(network) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in network.state_dict().items() if ".cross_attention" not in name}


def same(ours: dict, theirs: dict) -> None:
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(("encoder", "decoder"), [("bert", "gpt2"), ("roberta", "bert"), ("electra", "bert")])
def test_parts_are_where_transformers_has_them(encoder, decoder, folders, read, tmp_path):
    """But for cross-attention, which is random in both, the result is what the page of such folders reads."""
    made = compose(read(encoder), read(decoder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        places = (folders / encoder, folders / decoder)
        theirs = transformers.EncoderDecoderModel.from_encoder_decoder_pretrained(*places)
    theirs.config.update({"decoder_start_token_id": 0, "eos_token_id": 2, "pad_token_id": 1})
    theirs.save_pretrained(tmp_path)
    network = hugging_face.read(tmp_path).network
    same(apart_from_cross_attention(made.network), apart_from_cross_attention(network))
    decoder_stack = dataclasses.replace(network.config.decoder, train_padding=False)
    assert made.network.config == dataclasses.replace(network.config, decoder=decoder_stack, unk=3)


def test_an_encoder_decoder_gives_either_part(read):
    plain = plain_bundle()
    reads, writes = compose(plain, read("bert")), compose(read("bert"), plain)
    weights = plain.network.state_dict()
    for made, part in (
        (reads, ("source_embedding.", "encoder.")),
        (writes, ("target_embedding.", "decoder.", "head.")),
    ):
        state = made.network.state_dict()
        kept = {name: tensor for name, tensor in weights.items() if name.startswith(part)}
        same({name: state[name] for name in kept}, kept)  # cross-attention too: the widths are equal
    assert writes.network.config.decoder_start is None  # </s>, as before
    narrow = compose(read("bert"), plain_bundle(dim=16))
    assert narrow.network.decoder.layers[0].cross_attention.key_value.inputs == 24


def test_an_encoder_decoder_keeps_writing_as_it_did(read, tmp_path):
    hub_folders.make("m2m_100", tmp_path / "nllb")
    whole = pretrained.read(tmp_path / "nllb", target_lang="deu_Latn")
    made = bundle.load(bundle.save(tmp_path / "model", compose(read("bert"), whole)))
    assert made.decoder_prefix() == whole.decoder_prefix()
    assert made.target.encode(TEXT[0]) == whole.target.encode(TEXT[0])
    best = next(Translator([made], precision="float32", workers=1).stream(TEXT[:1]))[0]
    assert best.tokens[0] == "deu_Latn"


@pytest.mark.parametrize("share", [False, True])
@torch.no_grad()
def test_copied_cross_attention_reads_states_as_self_attention_does(share, read):
    network = compose(read("bert"), read("bert"), CompositionOptions(cross_attention=COPIED, share=share)).network
    states = torch.randn(3, 5, 24, generator=torch.Generator().manual_seed(2))
    for layer in network.decoder.layers:
        cross, own = layer.cross_attention, layer.self_attention
        torch.testing.assert_close(cross(states, cross.project(states), None), own(states, None))
        norms = layer.cross_attention_residual.norm, layer.self_attention_residual.norm
        assert norms[0].weight is not norms[1].weight
        assert torch.equal(norms[0](states), norms[1](states))


def test_fresh_weights_are_those_of_the_seed(read):
    once, again, other = (compose(read("bert"), read("gpt2"), CompositionOptions(seed=seed)) for seed in (1, 1, 2))
    same(once.network.state_dict(), again.network.state_dict())
    same(apart_from_cross_attention(once.network), apart_from_cross_attention(other.network))
    name = "decoder.layers.0.cross_attention.query.weight"
    assert not torch.equal(once.network.state_dict()[name], other.network.state_dict()[name])


def test_what_is_shared_is_one_parameter_on_disk_and_in_training(read, tmp_path):
    made = compose(read("bert"), read("bert"), CompositionOptions(share=True))
    found = bundle.load(bundle.save(tmp_path / "model", made))
    same(found.network.state_dict(), made.network.state_dict())
    network = found.network
    owners = {id(parameter) for parameter in network.encoder.parameters()}
    own = {name for name, parameter in network.decoder.named_parameters() if id(parameter) not in owners}
    assert all("cross_attention" in name or name.startswith("transform.") for name in own)
    assert network.target_embedding.weight is network.source_embedding.weight is network.head.weight
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    network(torch.tensor([[5, 6, 7]]), torch.tensor([[5, 6, 7]])).square().mean().backward()
    optimizer.step()
    again = bundle.load(bundle.save(tmp_path / "trained", found)).network.state_dict()
    same(again, network.state_dict())
    assert torch.equal(again["decoder.layers.1.inner.weight"], again["encoder.layers.1.inner.weight"])
    assert not torch.equal(
        again["decoder.layers.1.inner.weight"], made.network.state_dict()["encoder.layers.1.inner.weight"]
    )


@pytest.mark.parametrize("decoder", ["other", "dictionaries"])
def test_two_vocabularies_survive_a_bundle_and_translate(decoder, read, tmp_path):
    made = compose(read("bert"), plain_bundle() if decoder == "dictionaries" else read(decoder))
    saved = bundle.save(tmp_path / "model", made)
    found = bundle.load(saved)
    assert {path.name for path in saved.iterdir() if path.is_dir()} == {"source", "target"}
    assert found.source.encode_batch(TEXT) == made.source.encode_batch(TEXT) == read("bert").source.encode_batch(TEXT)
    assert found.target.symbols(range(24)) == made.target.symbols(range(24)) != made.source.symbols(range(24))
    assert found.network.config == made.network.config
    model = fairbeam.load(saved, precision="float32", workers=1)
    options = {"beam": 3, "max_len_b": 6}
    assert list(model.stream(TEXT, **options)) == list(
        Translator([made], precision="float32", workers=1).stream(TEXT, **options)
    )
    again = bundle.save(tmp_path / "again" / "model", found)
    for path in (path for path in saved.rglob("*") if path.is_file()):
        assert (again / path.relative_to(saved)).read_bytes() == path.read_bytes(), path


def test_dictionaries_with_marks_end_targets_and_a_recurrent_part_is_refused(tmp_path):
    whole = plain_bundle()
    stack, rows = whole.network.config.decoder, len(whole.source)
    side = dataclasses.replace(whole.source, language=None, marks=Marks.ENCLOSED)
    reader = Bundle(network=EncoderOnly(EncoderOnlyConfig(vocabulary=rows, encoder=stack)), source=side, target=None)
    side = dataclasses.replace(side, marks=Marks.CONTINUED)
    config = DecoderOnlyConfig(vocabulary=rows, decoder=stack, bos=2, eos=2)
    writer = Bundle(network=DecoderOnly(config), source=side, target=side)
    for model, opening in ((compose(reader, writer), [0]), (sequence_to_sequence(writer), [])):
        again = bundle.load(bundle.save(tmp_path / "model", model, overwrite=True))
        assert again.source.encode("nothing") == [*opening, 3, 2]
        assert again.target.encode("nothing") == [3, 2]
    recurrent = LSTMConfig(source_vocabulary=rows, target_vocabulary=rows)
    recurrent = dataclasses.replace(whole, network=LSTM(recurrent))
    for parts, place in (((reader, recurrent), "decoder"), ((recurrent, writer), "encoder")):
        with pytest.raises(ConfigError, match=f"--{place}: a model of family 'fairseq_transformer' is recurrent"):
            compose(*parts)


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_side_with_a_malformed_tokenizer_is_refused(side, read, tmp_path):
    path = bundle.save(tmp_path / "model", compose(read("bert"), read("other"))) / side / "tokenizer.json"
    content = path.read_bytes()
    for change, message in (
        (lambda: path.write_bytes(b"[" * 100_000), "not JSON"),
        (lambda: path.write_bytes(content.replace(b'"</s>":2', b'"</s>":9999999')), r"9999999|10000000 entries"),
        (lambda: os.truncate(path, 300 << 20), "larger than"),  # sparse
        (path.unlink, "no such file"),
    ):
        change()
        with pytest.raises(FairbeamError, match=message):
            bundle.load(tmp_path / "model")


def test_a_target_is_its_text_and_the_token_that_ends_it(read):
    made = compose(read("bert"), read("bert"))
    framed = read("bert").source.encode(TEXT[0])
    assert made.source.encode(TEXT[0]) == framed
    assert made.target.encode(TEXT[0]) == framed[1:]
    assert made.network.config.decoder_start == framed[0]
    assert made.target.decode(made.target.encode(TEXT[0])) == TEXT[0]


# --- a decoder alone ---


def alone(read, *, prefix_attention: bool) -> Bundle:
    return sequence_to_sequence(read("gpt2"), SequenceOptions(prefix_attention=prefix_attention))


def rows() -> tuple[list[list[int]], list[list[int]]]:
    """Sources and targets of several lengths; a target begins with the separator."""
    generator = torch.Generator().manual_seed(4)
    sources, targets = (
        [torch.randint(4, 300, (length,), generator=generator).tolist() for length in lengths]
        for lengths in ((5, 1, 7, 3), (4, 6, 1, 3))
    )
    return sources, [[SEPARATOR, *target] for target in targets]


@torch.no_grad()
@pytest.mark.parametrize("left_pad", [False, True])
@pytest.mark.parametrize("prefix_attention", [False, True])
def test_a_decoder_alone_computes_what_theirs_does_of_the_whole_sequence(prefix_attention, left_pad, folders, read):
    """Theirs reads each pair by itself, without padding, and is told by a mask what sees what."""
    network = alone(read, prefix_attention=prefix_attention).network
    sources, targets = rows()
    pad = network.config.pad
    source = pad_batch(sources, pad)
    if left_pad:
        source = torch.stack([row.roll(int(row.eq(pad).sum())) for row in source])
    actual = network(source, pad_batch(targets, pad))
    theirs = transformers.GPT2LMHeadModel.from_pretrained(folders / "gpt2").eval()
    for row, (first, second) in enumerate(zip(sources, targets, strict=True)):
        length = len(first) + len(second)
        seen = torch.ones(length, length, dtype=torch.bool).tril()
        if prefix_attention:
            seen[: len(first), : len(first)] = True
        mask = torch.zeros(length, length).masked_fill(~seen, float("-inf"))
        expected = theirs(input_ids=torch.tensor([first + second]), attention_mask=mask[None, None]).logits
        torch.testing.assert_close(actual[row, : len(second)], expected[0, len(first) :], rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("prefix_attention", [False, True])
def test_what_it_writes_rescores_to_its_score(prefix_attention, packed, read, tmp_path):
    model = bundle.load(bundle.save(tmp_path / "model", alone(read, prefix_attention=prefix_attention)))
    network = model.network
    decoder = network.for_inference(torch.float32) if packed else network
    search = search_with([decoder], GenerationOptions(beam=3, max_len_b=9), special_ids(model))
    sources, _ = rows()
    for source, found in zip(sources, search(pad_batch(sources, network.config.pad)), strict=True):
        for hypothesis in found:
            previous = torch.tensor([[SEPARATOR, *hypothesis.tokens[:-1].tolist()]])
            scores = network(torch.tensor([source]), previous)[0].log_softmax(1)
            scores = scores.gather(1, hypothesis.tokens[:, None])[:, 0]
            torch.testing.assert_close(hypothesis.positional_scores, scores, rtol=1e-5, atol=1e-5)


def test_a_decoder_alone_translates_text_from_its_bundle(read, tmp_path):
    made = alone(read, prefix_attention=True)
    saved = bundle.save(tmp_path / "model", made)
    model = fairbeam.load(saved, precision="float32", workers=1)
    found = list(model.stream(TEXT, beam=2, max_len_b=6))
    assert found == list(Translator([made], precision="float32", workers=1).stream(TEXT, beam=2, max_len_b=6))
    assert all(1 <= len(best.tokens) <= 6 for (best,) in found)
    source = made.source.encode(TEXT[0])
    assert source == read("gpt2").source.encode(TEXT[0])
    assert made.target.encode(TEXT[0]) == [*source, made.network.config.eos]
    named = sequence_to_sequence(read("other"), SequenceOptions(separator="[b]"))
    assert named.network.config.separator == read("other").source.index("[b]") == 5


# --- what is refused ---


def without_tokenizer(model: Bundle) -> Bundle:
    return dataclasses.replace(model, source=None, target=None)


@pytest.mark.parametrize(
    ("encoder", "decoder", "options", "message"),
    [
        ("gpt2", "bert", {}, "--encoder: a model of family 'gpt2' is a decoder; expected one with an encoder"),
        ("bert", "electra", {}, "--decoder: a model of family 'electra' without a masked language model's head"),
        ("-bert", "gpt2", {}, "--encoder: a model of family 'bert' without a tokenizer; expected one with it"),
        ("bert", "-gpt2", {}, "--decoder: a model of family 'gpt2' without a tokenizer; expected one with it"),
        ("bert", "gpt2", {"share": True}, "share_layers needs layers of one kind"),
        ("bert", "plain", {"share": True}, "--share: the encoder has 320 symbols and the decoder 24; expected one"),
        ("bert", "narrow", {"cross_attention": COPIED}, "--cross-attention copied: needs states of the decoder's wi"),
        ("bert", "memory", {}, "--decoder: a model of family 'fairseq_transformer' remembers the segments before"),
        ("bert", "clusters", {}, "target_embedding.weights.0 has no place in an encoder-decoder"),
        (None, "bert", {}, "a model of family 'bert' is no decoder alone; expected one such as gpt2"),
        (None, "bare", {}, "a model of family 'fairseq_transformer' has no output projection; expected one with it"),
        (None, "-gpt2", {}, "--decoder: a model of family 'gpt2' without a tokenizer"),
        (None, "gpt2", {"separator": "[b]"}, r"--separator [b]: no token of the model's vocabulary"),
    ],
)
def test_what_cannot_be_is_one_clear_line(encoder, decoder, options, message, read):
    def model(name: str) -> Bundle:
        if name in ("plain", "narrow"):
            return plain_bundle(dim=24 if name == "plain" else 16)
        if name in ("memory", "clusters", "bare"):
            memory = PositionConfig(kind=PositionKind.RELATIVE_SINUSOIDAL, memory_length=4)
            stack = StackConfig(layers=1, dim=8, heads=2, positions=memory if name == "memory" else PositionConfig())
            clusters = AdaptiveConfig(cutoffs=(8,)) if name == "clusters" else None
            config = DecoderOnlyConfig(vocabulary=24, decoder=stack, adaptive=clusters)
            config = dataclasses.replace(config, output=name != "bare", tie_output=name != "bare")
            return dataclasses.replace(plain_bundle(), network=DecoderOnly(config))
        return without_tokenizer(read(name[1:])) if name.startswith("-") else read(name)

    def made() -> Bundle:
        if encoder is None:
            return sequence_to_sequence(model(decoder), SequenceOptions(**options))
        return compose(model(encoder), model(decoder), CompositionOptions(**options))

    with pytest.raises(ConfigError) as caught:
        made()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_an_end_cannot_write(read):
    model = read("gpt2")
    special = dataclasses.replace(model.target.config.special, eos=None, sep=None)
    endless = dataclasses.replace(model.target, config=dataclasses.replace(model.target.config, special=special))
    with pytest.raises(ConfigError, match="its tokenizer has no token that ends a text"):
        compose(read("bert"), dataclasses.replace(model, target=endless))
