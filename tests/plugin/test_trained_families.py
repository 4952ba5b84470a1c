"""Composed and pretrained-type models trained on real pairs until they are far above what needs no learning (minutes).

The floor: the better of the BLEU of a model that copies its source and of one that says the same sentence always,
the best of the most frequent sentences of the training data. Neither knows a word of the other language; a model must
reach five times as much.
"""

import collections
import json
from pathlib import Path

import pytest

from fairbeam.scoring import bleu

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

ROOT = Path(__file__).resolve().parents[2]
VOCABULARY, DIM = 4000, 192
BERT = {"hidden_size": DIM, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 4 * DIM}
TRAINING = {"bert2gpt2": (700, 0.002), "t5": (900, 0.0005)}
"""Updates and learning rate. T5 does not scale attention scores, so that its queries must move slowly."""


def write_tokenizer(folder: Path, kind: str, lines: list[str]) -> None:
    """A tokenizer of the family's kind, learned from ``lines``."""
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

    learn = {"vocab_size": VOCABULARY, "show_progress": False}
    if kind == "bert":
        roles = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
        backend = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
        backend.normalizer = normalizers.BertNormalizer(lowercase=False)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(special_tokens=list(roles.values()), **learn)
    elif kind == "gpt2":
        roles = dict.fromkeys(("bos", "eos", "unk"), "<|endoftext|>")
        backend = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, **learn)
    else:
        roles = {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"}
        backend = tokenizers.Tokenizer(models.Unigram())
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        backend.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(special_tokens=list(roles.values()), unk_token="<unk>", **learn)
    backend.train_from_iterator(lines, trainer)
    around = {"bert": "[CLS] $A [SEP]", "t5": "$A </s>"}.get(kind)
    if around:
        used = [(token, backend.token_to_id(token)) for token in around.split() if token != "$A"]
        pair = around.replace("$A", "$A $B")
        backend.post_processor = processors.TemplateProcessing(single=around, pair=pair, special_tokens=used)
    backend.save(str(folder / "tokenizer.json"))
    names = {"bert": "BertTokenizer", "gpt2": "GPT2Tokenizer", "t5": "T5Tokenizer"}
    options = {"tokenizer_class": names[kind], **{f"{role}_token": token for role, token in roles.items()}}
    (folder / "tokenizer_config.json").write_text(json.dumps(options))


def write_model(folder: Path, kind: str, lines: list[str]) -> Path:
    """A folder as Hugging Face's library writes it, with fresh weights."""
    sizes = {"vocab_size": VOCABULARY}
    transformers.set_seed(1)
    if kind == "bert":
        config = transformers.BertConfig(**sizes, **BERT, max_position_embeddings=128)
        model = transformers.BertModel(config)
    elif kind == "gpt2":
        config = transformers.GPT2Config(
            **sizes, n_embd=DIM, n_layer=3, n_head=4, n_positions=128, bos_token_id=0, eos_token_id=0
        )
        model = transformers.GPT2LMHeadModel(config)
    else:
        config = transformers.T5Config(
            **sizes, d_model=DIM, d_kv=48, d_ff=4 * DIM, num_layers=3, num_heads=4, n_positions=128,
            pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
            feed_forward_proj="gated-gelu", tie_word_embeddings=False,
        )  # fmt: skip
        model = transformers.T5ForConditionalGeneration(config)
        # The library begins with vectors of numbers near 1, which Adam moves too slowly for a training of minutes.
        for embedding in (model.shared, model.lm_head):
            embedding.weight.data *= DIM**-0.5
    model.save_pretrained(folder)
    write_tokenizer(folder, kind, lines)
    return folder


def floor(sources: list[str], references: list[str], targets: list[str]) -> float:
    """BLEU that copying or a constant reaches."""
    constants = [line for line, _ in collections.Counter(targets).most_common(20)]
    guesses = [sources, *([line] * len(references) for line in constants)]
    return max(bleu(guess, references).value for guess in guesses)


@pytest.mark.slow(minutes=9)
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", TRAINING)
def test_training_beats_copying_and_constants(name, real_data, run, tmp_path):
    data = real_data / "tatoeba"
    english, german = ((data / f"train.{language}").read_text().splitlines() for language in ("en", "de"))
    if name == "t5":
        bundle = write_model(tmp_path / "t5", "t5", [*english[::4], *german[::4]])
    else:
        bert, gpt2 = (
            write_model(tmp_path / kind, kind, lines[::4]) for kind, lines in (("bert", english), ("gpt2", german))
        )
        run("fairbeam", "compose", "--encoder", bert, "--decoder", gpt2, tmp_path / "composed")
        bundle = tmp_path / "composed"
    updates, rate = TRAINING[name]
    run(
        "fairseq-train", data, "-s", "en", "-t", "de", "--user-dir", ROOT / "user_dir",
        "--task", "fairbeam_translation",
        "--bundle", bundle, "--arch", "fairbeam_from_bundle", "--criterion", "fairbeam_label_smoothed_cross_entropy",
        "--label-smoothing", "0.1", "--optimizer", "adam", "--adam-betas", "(0.9,0.98)", "--lr", rate,
        "--lr-scheduler", "inverse_sqrt", "--warmup-updates", 300, "--clip-norm", 1, "--dropout", 0.0,
        "--max-tokens", 2400, "--max-update", updates, "--compute-dtype", "bfloat16", "--cpu",
        "--save-dir", tmp_path / "checkpoints", "--no-epoch-checkpoints", "--disable-validation", "--num-workers", 0,
        "--skip-invalid-size-inputs-valid-test", env={"OMP_NUM_THREADS": "2"}, timeout=3000,
    )  # fmt: skip
    run("fairbeam", "export", tmp_path / "checkpoints/checkpoint_last.pt", tmp_path / "trained")
    run("fairbeam", "translate", tmp_path / "trained", "--input", data / "test.en", "--output", tmp_path / "out.de")
    sources, references = ((data / f"test.{language}").read_text().splitlines() for language in ("en", "de"))
    found = bleu((tmp_path / "out.de").read_text().splitlines(), references)
    print(f"{name}: {found.text}; floor {floor(sources, references, german):.2f}")
    assert found.value > 5 * floor(sources, references, german)
