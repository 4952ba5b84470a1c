"""Every family against Hugging Face's own model of it: logits, gradients, decoding, and the folder written back.

A family's test is its entry in ``MODELS``; the checks are the same for all.
"""

import copy
import json
import re
import warnings

import pytest
import their_searches
import torch
from safetensors.torch import load_file, save_file
from searching import search_with

from fairbeam.errors import CheckpointError, InputError
from fairbeam.families.registry import FAMILIES
from fairbeam.formats.hugging_face_weights import HuggingFaceNetwork, read, to_state_dict, write
from fairbeam.generation import GenerationOptions, SpecialTokenIds

transformers = pytest.importorskip("transformers")


VOCABULARY, OTHER_VOCABULARY = 41, 37
SIZES = {
    "vocab_size": VOCABULARY, "d_model": 24, "max_position_embeddings": 32, "init_std": 0.1,
    "encoder_layers": 2, "encoder_attention_heads": 3, "encoder_ffn_dim": 40,
    "decoder_layers": 3, "decoder_attention_heads": 2, "decoder_ffn_dim": 28,
}  # fmt: skip
MARIAN = {"pad_token_id": VOCABULARY - 1, "decoder_start_token_id": VOCABULARY - 1}
PEGASUS = {"unk_token_id": 5}
T5_SIZES = {
    "vocab_size": VOCABULARY, "d_model": 24, "d_kv": 10, "d_ff": 40, "num_layers": 2, "num_decoder_layers": 3,
    "num_heads": 3, "relative_attention_num_buckets": 8, "relative_attention_max_distance": 7,
}  # fmt: skip
GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
BERT = {
    "vocab_size": VOCABULARY, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
    "intermediate_size": 40, "max_position_embeddings": 32, "initializer_range": 0.1, "pad_token_id": 0,
}  # fmt: skip
ROBERTA = {**BERT, "bos_token_id": 3, "pad_token_id": 1, "eos_token_id": 2}
PARTS = {
    "bert": BERT,
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "electra": {**BERT, "embedding_size": 16},
    "distilbert": {"vocab_size": VOCABULARY, "dim": 24, "n_layers": 2, "n_heads": 2, "hidden_dim": 28,
                   "pad_token_id": 0, "max_position_embeddings": 32},
    "albert": {**BERT, "embedding_size": 16, "num_hidden_layers": 4, "num_hidden_groups": 2},
    "gpt2": {"vocab_size": OTHER_VOCABULARY, "n_embd": 24, "n_layer": 3, "n_head": 2, "n_positions": 32,
             "bos_token_id": 2, "eos_token_id": 2},
}  # fmt: skip


def pair(encoder: str, decoder: str, more: dict | None = None, **options):
    """An encoder-decoder of two families; ``more`` are options of the decoder."""
    return "EncoderDecoderConfig", "EncoderDecoderModel", {
        "encoder": {"model_type": encoder, **PARTS[encoder]},
        "decoder": {"model_type": decoder, **PARTS[decoder], "is_decoder": True, "add_cross_attention": True,
                    **(more or {})},
        "pad_token_id": PARTS[decoder].get("pad_token_id", 1), "decoder_start_token_id": 3, "eos_token_id": 2,
        **options,
    }  # fmt: skip


# name: (class of the configuration, class of the model, options)
MODELS = {
    "bart": ("BartConfig", "BartForConditionalGeneration", {}),
    "bart, scaled, relu": (
        "BartConfig", "BartForConditionalGeneration", {"scale_embedding": True, "activation_function": "relu"},
    ),
    "bart, untied": ("BartConfig", "BartForConditionalGeneration", {"tie_word_embeddings": False}),
    "mbart": ("MBartConfig", "MBartForConditionalGeneration", {"scale_embedding": True}),
    "marian": ("MarianConfig", "MarianMTModel", {**MARIAN, "scale_embedding": True, "activation_function": "swish"}),
    "marian, two vocabularies": (
        "MarianConfig", "MarianMTModel",
        {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": OTHER_VOCABULARY,
         "pad_token_id": 36, "decoder_start_token_id": 36},
    ),
    "pegasus": ("PegasusConfig", "PegasusForConditionalGeneration", {**PEGASUS, "activation_function": "relu"}),
    "m2m_100": ("M2M100Config", "M2M100ForConditionalGeneration", {}),
    "m2m_100, unscaled, gelu": (
        "M2M100Config", "M2M100ForConditionalGeneration", {"scale_embedding": False, "activation_function": "gelu"},
    ),
    "t5": ("T5Config", "T5ForConditionalGeneration", T5_SIZES),
    "t5, own output, gated": ("T5Config", "T5ForConditionalGeneration", {**T5_SIZES, **GATED}),
    "t5, equal stacks, gated silu": (
        "T5Config", "T5ForConditionalGeneration",
        {**T5_SIZES, "num_decoder_layers": None, "feed_forward_proj": "gated-silu"},
    ),
    "mt5": ("MT5Config", "MT5ForConditionalGeneration", T5_SIZES),
    "mt5, own output": ("MT5Config", "MT5ForConditionalGeneration", {**T5_SIZES, **GATED}),
    "bert + bert": pair("bert", "bert", {"num_hidden_layers": 3, "hidden_act": "relu"}),
    "bert + gpt2": pair("bert", "gpt2"),
    "roberta + roberta, shared": pair("roberta", "roberta", tie_encoder_decoder=True),
    "xlm-roberta + roberta": pair("xlm-roberta", "roberta", {"vocab_size": OTHER_VOCABULARY}),
    "electra + bert": pair("electra", "bert", {"vocab_size": OTHER_VOCABULARY}),
    "albert + electra, untied": pair("albert", "electra", {"tie_word_embeddings": False}),
    "distilbert + gpt2, padding is the end": pair("distilbert", "gpt2", {"n_inner": 20}, pad_token_id=2),
}  # fmt: skip
OWN_OUTPUT = {"t5, own output, gated", "mt5, own output"}
"""Their class always ties; files whose output projection differs come back untied."""
EACH = ["bart", "mbart", "marian", "pegasus", "m2m_100"]
LANGUAGE = 7
"""Where a target begins whose configuration leaves that to the caller."""


@pytest.fixture(autouse=True)
def quiet():
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def their_model(name: str):
    """Hugging Face's model, float32, in evaluation mode, with random numbers in every weight."""
    kind, model_kind, options = MODELS[name]
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = getattr(transformers, kind)(**({} if {"num_heads", "encoder"} & options.keys() else SIZES) | options)
        model = getattr(transformers, model_kind)(config).eval()
    if name in OWN_OUTPUT:
        model.lm_head.weight = torch.nn.Parameter(torch.randn(VOCABULARY, 24) * 0.1)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():  # biases start at 0 and norms at 1, which hide mistakes
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
        if options.get("tie_encoder_decoder"):
            share(model)
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.add_(torch.randn(model.final_logits_bias.shape, generator=generator))
    return model


def share(model) -> None:
    """As ``tie_encoder_decoder`` once did, before their version 5: weights of one name are the encoder's."""
    for name, parameter in model.encoder.named_parameters():
        twin = f"{model.decoder.base_model_prefix}.{name}"
        if "pooler" in name:
            continue
        if ".layer." in name or "word" in name:
            owner, _, last = twin.rpartition(".")
            setattr(model.decoder.get_submodule(owner), last, parameter)
        else:
            model.decoder.get_parameter(twin).copy_(parameter)
    model.decoder.tie_weights()


def save(model, folder) -> None:
    """With one name for each tensor; theirs refuses to save what is shared in a way it does not know."""
    shared = getattr(model.config, "tie_encoder_decoder", False)
    model.save_pretrained(
        folder, state_dict={name: w.detach() for name, w in model.named_parameters()} if shared else None
    )


def both(name: str, folder) -> tuple[object, HuggingFaceNetwork]:
    model = their_model(name)
    save(model, folder)
    return model, read(folder)


def batch(config, left_pad: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Sources of several lengths, padded on a side; previous target tokens, padded on the right."""
    generator = torch.Generator().manual_seed(2)
    source = torch.randint(4, OTHER_VOCABULARY - 1, (5, 9), generator=generator)
    target = torch.randint(4, OTHER_VOCABULARY - 1, (5, 7), generator=generator)
    source[:, -1] = config.eos
    target[:, 0] = LANGUAGE if config.decoder_start is None else config.decoder_start
    for row, missing in enumerate((0, 2, 4, 1, 7)):
        if missing:
            source[row, :missing] = config.padding_of_sources
            if not left_pad:
                source[row] = source[row].roll(-missing)
            target[row, 7 - min(missing, 5) :] = config.pad
    return source, target


@pytest.mark.parametrize("left_pad", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_logits_and_gradients_equal_theirs(name, left_pad, tmp_path):
    theirs, (ours, family, origin) = both(name, tmp_path / "model")
    source, target = batch(ours.config, left_pad)
    real = target.ne(ours.config.pad)
    real[:, 0] = True  # some begin with padding's own symbol
    expected = theirs(
        input_ids=source,
        attention_mask=source.ne(ours.config.padding_of_sources),
        decoder_input_ids=target.clamp_min(0),
    ).logits
    actual = ours(source, target)
    torch.testing.assert_close(actual[real], expected[real], rtol=1e-5, atol=1e-5)

    expected[real].square().mean().backward()
    actual[real].square().mean().backward()
    slopes = copy.deepcopy(ours)
    with torch.no_grad():
        for slope, parameter in zip(slopes.parameters(), ours.parameters(), strict=True):
            slope.copy_(parameter.grad)
    by_their_names = to_state_dict(slopes, family, origin)
    compared = 0
    for weight, parameter in theirs.named_parameters(remove_duplicate=False):
        if parameter.grad is not None and weight in by_their_names:
            scale = parameter.grad.abs().max().item()
            torch.testing.assert_close(
                by_their_names[weight], parameter.grad, rtol=1e-4, atol=2e-5 * max(1.0, scale),
                msg=lambda text, weight=weight: f"{weight}: {text}",
            )  # fmt: skip
            compared += 1
    assert compared == sum(parameter.grad is not None for parameter in theirs.parameters())


@torch.no_grad()
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_steps_equal_teacher_forcing(name, packed, tmp_path):
    _, (network, *_) = both(name, tmp_path / "model")
    source, target = batch(network.config)
    forced = network(source, target)
    decoder = network.for_inference(torch.float32) if packed else network
    state = decoder.prefill(source, 1)
    for step in range(target.size(1)):
        logits = decoder.step(state, target[:, step : step + 1])[:, 0]
        torch.testing.assert_close(logits, forced[:, step], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_output_bias_survives_a_bfloat16_copy(tmp_path):
    _, (network, *_) = both("marian", tmp_path / "model")
    source, target = batch(network.config)
    models = network, network.for_inference(torch.bfloat16)
    exact, rough = (model.step(model.prefill(source, 1), target[:, :1]) for model in models)
    assert network.head.bias.abs().max() > 1
    assert (rough - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize("beam", [1, 4])
@pytest.mark.parametrize("name", MODELS)
def test_decoding_equals_theirs(name, beam, tmp_path):
    """``early_stopping=True`` is fairseq's rule: a sentence is finished with as many hypotheses as there are beams."""
    theirs, (network, *_) = both(name, tmp_path / "model")
    config = network.config
    source, _ = batch(config)
    start = LANGUAGE if config.decoder_start is None else config.decoder_start
    special = SpecialTokenIds(config.bos, config.pad, config.eos, config.unk, config.padding_of_sources)
    options = GenerationOptions(beam=beam, max_len_b=12, min_len=0)
    search = search_with([network], options, special)
    found = search(source) if config.decoder_start == start else search(source, start=start)
    theirs.generation_config.forced_eos_token_id = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = theirs.generate(
            input_ids=source, attention_mask=source.ne(config.padding_of_sources), decoder_start_token_id=start,
            do_sample=False, use_cache=False, num_beams=beam, max_new_tokens=13,
            bad_words_ids=[[config.pad]] if config.pad >= 0 else None,
            logits_processor=transformers.LogitsProcessorList([their_searches.EndAtLimit(config.eos, 13)]),
            **({"early_stopping": True, "length_penalty": 1.0} if beam > 1 else {}),
        )  # fmt: skip
    for row, hypotheses in zip(expected[:, 1:].tolist(), found, strict=True):
        assert hypotheses[0].tokens.tolist() == row[: row.index(config.eos) + 1]


@pytest.mark.parametrize("name", ["bart", "t5", "marian"])
def test_searches_equal_theirs(name, tmp_path):
    theirs, (network, *_) = both(name, tmp_path / "model")
    config = network.config
    source, _ = batch(config)
    special = SpecialTokenIds(config.bos, config.pad, config.eos, config.unk, config.padding_of_sources)
    inputs = {"input_ids": source, "attention_mask": source.ne(config.padding_of_sources).long(),
              "decoder_start_token_id": config.decoder_start}  # fmt: skip
    their_searches.assert_same_searches(theirs, inputs, network, source, special, config.decoder_start)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", MODELS)
def test_a_folder_comes_back_as_it_was(name, dtype, tmp_path):
    save(their_model(name).to(dtype), tmp_path / "theirs")
    write(tmp_path / "ours", *read(tmp_path / "theirs"))
    same_tensors(tmp_path / "theirs", tmp_path / "ours", dtype)
    assert (tmp_path / "ours/config.json").read_text() == (tmp_path / "theirs/config.json").read_text()


def same_tensors(theirs, ours, dtype):
    before, after = (load_file(folder / "model.safetensors") for folder in (theirs, ours))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype == dtype
        assert torch.equal(after[name], tensor), name


@pytest.mark.parametrize("name", [*EACH, "t5", "mt5"])
def test_a_configuration_may_leave_out_what_its_class_implies(name):
    whole = getattr(transformers, MODELS[name][0])().to_dict()
    build = FAMILIES[name].network_config
    assert build({}, output_bias=False) == build(whole, output_bias=False)


@pytest.mark.parametrize("name", EACH)
def test_every_name_of_a_tied_tensor_comes_back_from_a_pickle(name, tmp_path):
    model = their_model(name)
    folder = tmp_path / "theirs"
    model.config.save_pretrained(folder)
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    state["model.encoder.version"] = torch.tensor([3.0])
    torch.save(state, folder / "pytorch_model.bin")
    write(tmp_path / "ours", *read(folder))
    back = load_file(tmp_path / "ours/model.safetensors")
    assert back.keys() == state.keys()
    assert {"model.encoder.embed_tokens.weight", "lm_head.weight"} < back.keys()
    assert all(torch.equal(back[key], state[key]) for key in state)


def test_a_bias_of_zeros_is_no_part_of_the_network_and_comes_back(tmp_path):
    model = their_model("bart")
    model.final_logits_bias.zero_()
    model.save_pretrained(tmp_path / "theirs")
    checkpoint = read(tmp_path / "theirs")
    assert not checkpoint.network.config.output_bias
    write(tmp_path / "ours", *checkpoint)
    same_tensors(tmp_path / "theirs", tmp_path / "ours", torch.float32)


def test_a_bare_model_has_names_without_prefix(tmp_path):
    their_model("bart").model.save_pretrained(tmp_path / "theirs")
    write(tmp_path / "ours", *read(tmp_path / "theirs"))
    assert "shared.weight" in load_file(tmp_path / "ours/model.safetensors")
    same_tensors(tmp_path / "theirs", tmp_path / "ours", torch.float32)


def test_they_read_what_we_write_after_training(tmp_path):
    theirs, checkpoint = both("mbart", tmp_path / "theirs")
    network = checkpoint.network
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01)
    write(tmp_path / "ours", *checkpoint)
    source, target = batch(network.config)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = type(theirs).from_pretrained(tmp_path / "ours").eval()
        logits = again(input_ids=source, attention_mask=source.ne(network.config.pad), decoder_input_ids=target).logits
        real = target.ne(network.config.pad)
        torch.testing.assert_close(network(source, target)[real], logits[real], rtol=1e-5, atol=1e-5)


def test_shards_are_read_together(tmp_path):
    model = their_model("marian")
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "parts", max_shard_size="10KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 2
    write(tmp_path / "ours", *read(tmp_path / "parts"))
    same_tensors(tmp_path / "whole", tmp_path / "ours", torch.float32)


@pytest.fixture
def folder(tmp_path):
    their_model("pegasus").save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def change(folder, **options):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **options}))


def test_one_error_names_every_tensor_that_does_not_fit(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.encoder.layers.1.fc1.bias"]
    tensors["model.decoder.layers.0.encoder_attn.k_proj.weight"] = torch.ones(24, 23)
    tensors["model.decoder.layers.3.fc1.bias"] = torch.ones(28)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        read(folder)
    for problem in (
        "missing model.encoder.layers.1.fc1.bias",
        "model.decoder.layers.0.encoder_attn.k_proj.weight has shape (24, 23), expected (24, 24)",
        "unexpected model.decoder.layers.3.fc1.bias",
    ):
        assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("name", "tensor", "problem"),
    [
        ("lm_head.weight", torch.zeros(VOCABULARY, 24), "lm_head.weight differs from model.encoder.embed_tokens"),
        ("final_logits_bias", torch.zeros(VOCABULARY), "final_logits_bias has shape"),
        ("model.encoder.embed_positions.weight", torch.zeros(32, 24), "is not the table of sinusoids"),
        ("model.encoder.embed_positions.weight", torch.zeros(32, 23), "has shape (32, 23), expected (32, 24)"),
        ("model.shared.weight", torch.zeros(VOCABULARY, 24, dtype=torch.int8), "model.shared.weight has dtype int8"),
    ],
)
def test_tensors_that_contradict_the_configuration_are_refused(folder, name, tensor, problem):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.encoder.embed_tokens.weight"] = tensors["model.shared.weight"].clone()
    save_file({**tensors, name: tensor}, folder / "model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        read(folder)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"model_type": "bort"}, "model_type is 'bort'; expected one of bart, mbart, marian, pegasus, m2m_100"),
        ({"model_type": []}, "model_type is []"),
        ({"normalize_before": False}, "normalize_before is False, which has no conversion; expected True"),
        ({"is_decoder": True}, "is_decoder is True"),
        ({"quantization_config": {"bits": 4}}, "quantization_config is {'bits': 4}"),
        ({"activation_function": "mish"}, "activation_function is 'mish'; expected one of relu"),
        ({"d_model": "24"}, 'd_model is "24"; expected an integer'),
        ({"encoder_layers": 0}, "encoder_layers is 0; expected an integer from 1"),
        ({"encoder_layers": 9999}, "encoder_layers is 9999, but there are only"),
        ({"encoder_attention_heads": 7}, "encoder.dim is 24, which encoder.heads (7) does not divide"),
        ({"max_position_embeddings": 10**9}, "max_position_embeddings is 1000000000; expected an integer from 1"),
        ({"eos_token_id": [1, 2]}, "eos_token_id is [1, 2]; expected an integer"),
        ({"pad_token_id": VOCABULARY}, f"pad_token_id is {VOCABULARY}; expected an integer from 0 to"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings is 1; expected true or false"),
        ({"dropout": 2}, "dropout is 2; expected a number from 0 to 1"),
    ],
)
def test_options_without_conversion_are_named(folder, options, problem):
    change(folder, **options)
    with pytest.raises(CheckpointError) as caught:
        read(folder)
    assert problem in str(caught.value)


@pytest.mark.parametrize("shard", ["../model.safetensors", "/etc/passwd", "..", "sub\\x.safetensors", 3, "x.bin"])
def test_no_shard_leads_out_of_the_folder(folder, shard):
    names = list(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    index = {"weight_map": dict.fromkeys(names, shard)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"is not a plain file name|is not of the index's own kind"):
        read(folder)


def test_an_index_and_its_files_must_agree(folder):
    names = list(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys([*names, "more"], "a.safetensors")}))
    with pytest.raises(CheckpointError, match="the files lack more"):
        read(folder)
    index.write_text(json.dumps({"weight_map": dict.fromkeys(names[1:], "a.safetensors")}))
    with pytest.raises(CheckpointError, match=f"holds {re.escape(names[0])}, which is expected in None"):
        read(folder)
    index.write_text(json.dumps({"weight_map": dict.fromkeys(names, "b.safetensors")}))
    with pytest.raises(CheckpointError, match=r"b\.safetensors: no such file"):
        read(folder)


class Payload:
    def __reduce__(self):
        return (print, ("unpickled",))


@pytest.mark.parametrize("content", [b"", b"junk", Payload(), [torch.ones(1)]])
def test_a_pickle_holds_tensors_and_nothing_else(folder, content, capsys):
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        read(folder)
    assert "unpickled" not in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "[", "[]", "[" * 100_000, " " * (1 << 20) + "{}"])
def test_a_configuration_is_a_small_object(folder, content):
    (folder / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read(folder)


def test_folders_without_weights_or_in_the_way_are_named(folder):
    checkpoint = read(folder)
    with pytest.raises(InputError, match="exists already"):
        write(folder, *checkpoint)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no weights"):
        read(folder)


def test_a_tensor_that_nothing_reads_comes_back(tmp_path):
    their_model("t5").save_pretrained(tmp_path / "theirs")
    path = tmp_path / "theirs/model.safetensors"
    name = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    save_file({**load_file(path), name: torch.randn(8, 3)}, path, metadata={"format": "pt"})
    write(tmp_path / "ours", *read(tmp_path / "theirs"))
    same_tensors(tmp_path / "theirs", tmp_path / "ours", torch.float32)


@torch.no_grad()
@pytest.mark.parametrize("names", ["every", "the encoder's"])
def test_shared_weights_are_one_whichever_of_their_names_a_file_has(names, tmp_path):
    model, _ = both("roberta + roberta, shared", tmp_path / "theirs")
    path = tmp_path / "theirs/model.safetensors"
    tensors = {name: weight.clone() for name, weight in model.state_dict().items()}
    twins = [name for name in tensors if name.replace("decoder.roberta.", "encoder.") in tensors.keys() - {name}]
    if names == "the encoder's":
        tensors = {name: tensor for name, tensor in tensors.items() if name not in twins}
    save_file(tensors, path)
    checkpoint = read(tmp_path / "theirs")
    network = checkpoint.network
    config = network.config
    assert config.share_layers
    assert config.share_embeddings
    assert network.decoder.layers[0].inner.weight is network.encoder.layers[0].inner.weight
    source, target = batch(config)
    expected = model(input_ids=source, attention_mask=source.ne(config.pad), decoder_input_ids=target).logits
    real = target.ne(config.pad)
    torch.testing.assert_close(network(source, target)[real], expected[real], rtol=1e-5, atol=1e-5)
    write(tmp_path / "ours", *checkpoint)
    same_tensors(tmp_path / "theirs", tmp_path / "ours", torch.float32)

    change(tmp_path / "theirs", tie_encoder_decoder=False)  # equal by chance, as before training
    if names == "every":
        assert not read(tmp_path / "theirs").network.config.share_layers
    else:
        with pytest.raises(CheckpointError, match=r"missing decoder\.roberta\.embeddings"):
            read(tmp_path / "theirs")


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("bert + gpt2", {"encoder": {"model_type": "gpt2"}}, "encoder.model_type is 'gpt2'; expected one of bert, rob"),
        ("bert + gpt2", {"decoder": {"model_type": "ctrl"}}, "decoder.model_type is 'ctrl'; expected one of bert, rob"),
        ("bert + gpt2", {"decoder": None}, "decoder is None; expected an object"),
        ("bert + gpt2", {"decoder": {"is_decoder": False}}, "decoder.is_decoder is False; expected True"),
        ("bert + gpt2", {"decoder": {"n_head": 0}}, "decoder: n_head is 0; expected an integer from 1"),
        (
            "bert + gpt2",
            {"encoder": {"vocab_size": 40}},
            "word_embeddings.weight has shape (41, 24), expected (40, 24)",
        ),
        ("bert + bert", {"decoder": {"hidden_size": 12}}, "enc_to_dec_proj, a projection of the encoder's states"),
        ("bert + bert", {"decoder": {"position_embedding_type": "relative_key"}}, "decoder: position_embedding_type"),
        ("bert + bert", {"eos_token_id": None}, "eos_token_id is None; expected an integer from 0 to 40"),
        ("bert + bert", {"decoder_start_token_id": None}, "decoder_start_token_id is None; expected an integer"),
        ("xlm-roberta + roberta", {"decoder_start_token_id": 1}, "decoder_start_token_id is 1, which is padding"),
    ],
)
def test_pairs_that_have_no_conversion_are_named(name, options, problem, tmp_path):
    model = their_model(name)
    if "enc_to_dec_proj" in problem:
        model.enc_to_dec_proj = torch.nn.Linear(24, 12)
    model.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    config = json.loads((tmp_path / "config.json").read_text())
    change(tmp_path, **{k: {**config[k], **v} if isinstance(v, dict) else v for k, v in options.items()})
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path)
    assert problem in str(caught.value)


def test_masks_and_numbers_that_old_pairs_store_come_back(tmp_path):
    their_model("bert + gpt2").save_pretrained(tmp_path / "theirs")
    path = tmp_path / "theirs/model.safetensors"
    old = {"encoder.embeddings.position_ids": torch.arange(32)[None]}
    for part in ("attn", "crossattention"):
        old[f"decoder.transformer.h.1.{part}.bias"] = torch.ones(1, 1, 32, 32, dtype=torch.uint8).tril()
        old[f"decoder.transformer.h.1.{part}.masked_bias"] = torch.tensor(-1e4)
    save_file({**load_file(path), **old}, path)
    write(tmp_path / "ours", *read(tmp_path / "theirs"))
    back = load_file(tmp_path / "ours/model.safetensors")
    assert back.keys() == load_file(path).keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in load_file(path).items())


def test_what_generation_defaults_alone_say_is_heard(tmp_path):
    model = their_model("bert + bert")
    model.config.eos_token_id = None
    model.generation_config.eos_token_id = 5
    model.save_pretrained(tmp_path)
    assert read(tmp_path).network.config.eos == 5
