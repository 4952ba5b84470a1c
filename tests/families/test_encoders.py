"""Every encoder family against Hugging Face's own models of it: states, scores, losses, gradients, folders.

A model's test is its entry in ``MODELS``; the checks are the same for all.
"""

import copy
import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fairbeam.errors import CheckpointError
from fairbeam.families.registry import FAMILIES
from fairbeam.formats.hugging_face_weights import read, to_state_dict, write
from fairbeam.network import EncoderOnlyConfig

transformers = pytest.importorskip("transformers")

VOCABULARY, LABELS = 41, 3
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
    "intermediate_size": 40, "max_position_embeddings": 32, "num_labels": LABELS,
}  # fmt: skip
SHORT = {
    "vocab_size": VOCABULARY, "dim": 24, "n_layers": 2, "n_heads": 3, "hidden_dim": 40,
    "max_position_embeddings": 32, "num_labels": LABELS,
}  # fmt: skip
NARROW = {**SIZES, "embedding_size": 16}
TASKS = ("Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
FACTORED = (*TASKS, "ForPreTraining")
# name of the family: (beginning of its classes' names, options, ends of their names)
CLASSES = {
    "bert": ("Bert", SIZES, (*TASKS, "ForPreTraining", "ForNextSentencePrediction")),
    "roberta": ("Roberta", SIZES, TASKS),
    "xlm-roberta": ("XLMRoberta", {**SIZES, "type_vocab_size": 1}, TASKS),
    "distilbert": ("DistilBert", SHORT, TASKS),
    "electra": ("Electra", NARROW, FACTORED),
    "albert": ("Albert", NARROW, FACTORED),
}
VARIANTS = {
    "bert, tanh, other epsilon": ("Bert", "ForMaskedLM", {**SIZES, "hidden_act": "gelu_new", "layer_norm_eps": 1e-3}),
    "bert, regression": ("Bert", "ForSequenceClassification", {**SIZES, "num_labels": 1}),
    "electra, one width": ("Electra", "ForMaskedLM", {**SIZES, "embedding_size": 24}),
    "electra, relu": ("Electra", "ForPreTraining", {**NARROW, "hidden_act": "relu"}),
    "albert, four layers of two kinds": ("Albert", "Model", {**NARROW, "num_hidden_layers": 4, "num_hidden_groups": 2}),
    "roberta, other padding": ("Roberta", "ForMaskedLM", {**SIZES, "pad_token_id": 3}),
    "distilbert, relu": ("DistilBert", "ForMaskedLM", {**SHORT, "activation": "relu"}),
}  # fmt: skip
MODELS = {
    **{f"{name}, {end}": (begin, end, options) for name, (begin, options, ends) in CLASSES.items() for end in ends},
    **VARIANTS,
}


@pytest.fixture(autouse=True)
def quiet():
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def their_model(name: str):
    """Hugging Face's model, float32, in evaluation mode, with random numbers in every weight."""
    begin, end, options = MODELS[name]
    if end == "ForQuestionAnswering":
        options = {**options, "num_labels": 2}
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = getattr(transformers, begin + end)(getattr(transformers, f"{begin}Config")(**options)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():  # biases start at 0 and norms at 1, which hide mistakes
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def batch(config: EncoderOnlyConfig, left_pad: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Sequences of several lengths, padded on a side, and the kinds of their tokens."""
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(4, VOCABULARY, (5, 9), generator=generator)
    for row, missing in enumerate((0, 2, 4, 1, 7)):
        tokens[row, :missing] = config.pad
        if not left_pad:
            tokens[row] = tokens[row].roll(-missing)
    if not config.encoder.token_types:
        return tokens, None
    return tokens, torch.randint(0, config.encoder.token_types, tokens.shape, generator=generator)


def in_our_words(out, real: torch.Tensor) -> dict[str, torch.Tensor]:
    """Their output, by the fields of ``Encoded``: states and scores of real tokens, scores of sequences."""
    if "last_hidden_state" in out:
        found = {"states": out.last_hidden_state[real], "pooled": out.get("pooler_output")}
    elif "start_logits" in out:
        found = {"tokens": torch.stack([out.start_logits, out.end_logits], dim=2)[real]}
    elif "prediction_logits" in out:
        scores = out.seq_relationship_logits if "seq_relationship_logits" in out else out.sop_logits
        found = {"symbols": out.prediction_logits[real], "sequence": scores}
    elif out.logits.dim() == 2 and out.logits.shape == real.shape:
        found = {"tokens": out.logits[real][:, None]}
    elif out.logits.dim() == 2:
        found = {"sequence": out.logits}
    else:
        found = {"symbols" if out.logits.size(2) == VOCABULARY else "tokens": out.logits[real]}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


@pytest.mark.parametrize("left_pad", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_states_scores_and_gradients_equal_theirs(name, left_pad, tmp_path):
    theirs = their_model(name)
    theirs.save_pretrained(tmp_path / "model")
    ours, family, origin = read(tmp_path / "model")
    tokens, types = batch(ours.config, left_pad)
    real = tokens.ne(ours.config.pad)
    given = {} if types is None else {"token_type_ids": types}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = theirs(input_ids=tokens, attention_mask=real.long(), output_hidden_states=True, **given)
    expected = {"states": out.hidden_states[-1][real], **in_our_words(out, real)}
    encoded = ours(tokens, types)._asdict()
    actual = {
        key: value if key in ("pooled", "sequence") else value[real]
        for key, value in encoded.items() if value is not None
    }  # fmt: skip
    assert actual.keys() - {"pooled"} == expected.keys() - {"pooled"}
    for key, value in expected.items():
        torch.testing.assert_close(actual[key], value, rtol=1e-5, atol=1e-5, msg=lambda text, key=key: f"{key}: {text}")

    # Where padding comes first, it is what a sequence is read from, and its position is never trained at theirs.
    slopes = [key for key in expected if not (left_pad and key in ("pooled", "sequence"))]
    sum(expected[key].square().mean() for key in slopes).backward()
    sum(actual[key].square().mean() for key in slopes).backward()
    same_gradients(theirs, gradients(ours, family, origin))


GOLDEN = Path(__file__).parent / "golden/relative_key.safetensors"
with safe_open(GOLDEN, "pt") as file:
    CONFIGS = dict(sorted(file.metadata().items()))  # in the same order in every worker


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", CONFIGS)
def test_vectors_of_distances_give_what_an_older_release_computed(name, side, tmp_path):
    """Theirs has dropped them: ``golden/relative_key.py`` says what made the tensors."""
    golden, beginning = load_file(GOLDEN), f"{name}/weights/"
    weights = {key.removeprefix(beginning): golden[key] for key in golden if key.startswith(beginning)}
    (tmp_path / "theirs").mkdir()
    save_file(weights, tmp_path / "theirs/model.safetensors")
    (tmp_path / "theirs/config.json").write_text(CONFIGS[name])
    checkpoint = read(tmp_path / "theirs")
    ours, family, origin = checkpoint
    tokens = golden[f"{side}/tokens"]
    states = ours(tokens).states[tokens.ne(1)]
    torch.testing.assert_close(states, golden[f"{name}/{side}/states"], rtol=1e-5, atol=1e-5)
    states.square().mean().backward()
    origin = replace(origin, dtypes=dict.fromkeys(origin.dtypes, torch.float32))
    (first, *_) = (slope for key, slope in gradients(ours, family, origin).items() if "distance_embedding" in key)
    torch.testing.assert_close(first, golden[f"{name}/{side}/gradient"], rtol=1e-4, atol=1e-6)
    write(tmp_path / "ours", *checkpoint)
    same_tensors(tmp_path / "theirs", tmp_path / "ours")


@torch.no_grad()
@pytest.mark.parametrize("name", CLASSES)
def test_choices_are_scored_as_sequences(name, tmp_path):
    begin, options, _ = CLASSES[name]
    torch.manual_seed(0)
    theirs = getattr(transformers, f"{begin}ForMultipleChoice")(getattr(transformers, f"{begin}Config")(**options))
    theirs.eval().save_pretrained(tmp_path / "theirs")
    checkpoint = read(tmp_path / "theirs")
    tokens, _ = batch(checkpoint.network.config, left_pad=False)
    expected = theirs(input_ids=tokens[None], attention_mask=tokens[None].ne(theirs.config.pad_token_id).long()).logits
    torch.testing.assert_close(checkpoint.network(tokens).sequence.T, expected, rtol=1e-5, atol=1e-6)
    write(tmp_path / "ours", *checkpoint)
    same_tensors(tmp_path / "theirs", tmp_path / "ours")


def gradients(network, family, origin) -> dict[str, torch.Tensor]:
    """Gradients under their names; zero where there is none."""
    slopes = copy.deepcopy(network)
    with torch.no_grad():
        for slope, parameter in zip(slopes.parameters(), network.parameters(), strict=True):
            slope.copy_(torch.zeros_like(slope) if parameter.grad is None else parameter.grad)
    return to_state_dict(slopes, family, origin)


def same_gradients(theirs, by_their_names):
    compared = set()
    for weight, parameter in theirs.named_parameters(remove_duplicate=False):
        if parameter.grad is not None and weight in by_their_names:
            scale = parameter.grad.abs().max().item()
            torch.testing.assert_close(
                by_their_names[weight], parameter.grad, rtol=1e-4, atol=2e-5 * max(1.0, scale),
                msg=lambda text, weight=weight: f"{weight}: {text}",
            )  # fmt: skip
            compared.add(parameter)
    assert compared == {parameter for parameter in theirs.parameters() if parameter.grad is not None}


def loss_of(end: str, encoded, real: torch.Tensor, labels: dict[str, torch.Tensor]) -> torch.Tensor:
    """The loss that a class of theirs computes, from our scores."""
    match end:
        case "ForMaskedLM" | "ForTokenClassification":
            scores = encoded.symbols if end == "ForMaskedLM" else encoded.tokens
            return F.cross_entropy(scores.flatten(0, 1), labels["labels"].flatten())
        case "ForQuestionAnswering":
            first, last = (encoded.tokens[:, :, place] for place in (0, 1))
            sides = (first, labels["start_positions"]), (last, labels["end_positions"])
            return sum(F.cross_entropy(scores, places) for scores, places in sides) / 2
        case "ForPreTraining":  # ELECTRA's: replaced or not
            return F.binary_cross_entropy_with_logits(encoded.tokens[real][:, 0], labels["labels"][real].float())
        case "ForSequenceClassification" if encoded.sequence.size(1) == 1:
            return F.mse_loss(encoded.sequence[:, 0], labels["labels"])
    return F.cross_entropy(encoded.sequence, labels["labels"])


@pytest.mark.parametrize(
    "name",
    [
        "bert, ForMaskedLM", "bert, ForSequenceClassification", "bert, ForTokenClassification",
        "bert, ForQuestionAnswering", "bert, ForNextSentencePrediction", "bert, regression", "electra, ForPreTraining",
        "electra, ForSequenceClassification", "roberta, ForSequenceClassification", "distilbert, ForMaskedLM",
    ],
)  # fmt: skip
def test_losses_equal_theirs(name, tmp_path):
    theirs, (_, end, options) = their_model(name), MODELS[name]
    theirs.save_pretrained(tmp_path / "model")
    ours, family, origin = read(tmp_path / "model")
    tokens, types = batch(ours.config, left_pad=False)
    real = tokens.ne(ours.config.pad)
    generator = torch.Generator().manual_seed(3)
    count = {"ForMaskedLM": VOCABULARY, "ForTokenClassification": LABELS}.get(end, 2)
    each = torch.randint(0, count, tokens.shape, generator=generator)
    if end == "ForQuestionAnswering":
        labels = {"start_positions": each[:, 0], "end_positions": each[:, 1]}
    elif options["num_labels"] == 1:
        labels = {"labels": torch.rand(len(tokens), generator=generator)}
    elif end in ("ForSequenceClassification", "ForNextSentencePrediction"):
        labels = {"labels": each[:, 0]}
    else:
        labels = {"labels": each if end == "ForPreTraining" else each.masked_fill(~real, -100)}
    given = {} if types is None else {"token_type_ids": types}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = theirs(input_ids=tokens, attention_mask=real.long(), **given, **labels).loss
    actual = loss_of(end, ours(tokens, types), real, labels)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
    expected.backward()
    actual.backward()
    same_gradients(theirs, gradients(ours, family, origin))


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["bert, ForMaskedLM", "albert, ForMaskedLM", "electra, ForPreTraining"])
def test_a_copy_for_inference_stays_close(name, dtype, tmp_path):
    their_model(name).save_pretrained(tmp_path / "model")
    network = read(tmp_path / "model").network
    tokens, types = batch(network.config, left_pad=False)
    exact, packed = (model(tokens, types) for model in (network, network.for_inference(dtype)))
    tolerance = 1e-5 if dtype == torch.float32 else 0.06
    for one, other in zip(exact, packed, strict=True):
        if one is not None:
            assert other.dtype == torch.float32
            assert (other - one).abs().max() < tolerance * one.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", MODELS)
def test_a_folder_comes_back_as_it_was(name, dtype, tmp_path):
    their_model(name).to(dtype).save_pretrained(tmp_path / "theirs")
    checkpoint = read(tmp_path / "theirs")
    write(tmp_path / "ours", *checkpoint)
    same_tensors(tmp_path / "theirs", tmp_path / "ours")
    assert (tmp_path / "ours/config.json").read_text() == (tmp_path / "theirs/config.json").read_text()
    config = checkpoint.network.config
    assert EncoderOnlyConfig.from_dict(config.to_dict()) == config


def same_tensors(theirs, ours):
    before, after = (load_file(folder / "model.safetensors") for folder in (theirs, ours))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        assert torch.equal(after[name], tensor), name


@pytest.mark.parametrize("name", CLASSES)
def test_a_configuration_may_leave_out_what_its_class_implies(name):
    whole = getattr(transformers, f"{CLASSES[name][0]}Config")().to_dict()
    plan = FAMILIES[name].plan
    assert plan({}, {}) == plan(whole, {})


def test_names_and_tensors_of_old_files_come_back(tmp_path):
    model = their_model("bert, ForPreTraining")
    folder = tmp_path / "theirs"
    model.save_pretrained(folder)
    tensors = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in load_file(folder / "model.safetensors").items()
    }
    tensors["bert.embeddings.position_ids"] = torch.arange(32)[None]
    tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"].clone()
    tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write(tmp_path / "ours", *read(folder))
    same_tensors(folder, tmp_path / "ours")


def test_a_tensor_under_two_names_is_refused(tmp_path):
    their_model("bert, Model").save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["embeddings.LayerNorm.gamma"] = tensors["embeddings.LayerNorm.weight"].clone()
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="there twice"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"is_decoder": True}, "is_decoder is True"),
        ({"position_embedding_type": "rotary"}, "position_embedding_type is 'rotary'"),
        ({"num_attention_heads": 5}, "encoder.dim is 24, which encoder.heads (5) does not divide"),
        ({"num_hidden_layers": 4097}, "num_hidden_layers is 4097; expected an integer from 1 to 4096"),
        ({"num_hidden_layers": 1}, "unexpected bert.encoder.layer.1"),
        ({"vocab_size": 40}, "tie_output needs equal shapes"),
        ({"hidden_act": "mish"}, "hidden_act is 'mish'"),
        ({"type_vocab_size": 3}, "token_type_embeddings.weight has shape (2, 24), expected (3, 24)"),
    ],
)
def test_what_does_not_fit_is_named(change, problem, tmp_path):
    their_model("bert, ForMaskedLM").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(CheckpointError) as caught:
        read(tmp_path)
    assert problem in str(caught.value)
