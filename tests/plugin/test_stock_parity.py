"""Same text, same scores: our generator against stock's ``SequenceGenerator``, through ``fairseq-generate``.

The model is a real one where there is one (``../shared/models``), else a small one of stock's ``transformer``
architecture, trained in the fixture on the demo corpus. Of other architectures the weights are random.
"""

import contextlib
import io
import math
import re
import shutil
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
import stock_models
import torch
from fairseq import options
from fairseq.search import BeamSearch, PrefixConstrainedBeamSearch
from fairseq.sequence_generator import SequenceGenerator
from fairseq.tasks.translation import TranslationTask
from fairseq_cli import generate

import fairbeam
from fairbeam.data.lexical_shortlist import SHORTLIST
from fairbeam.demo.grammar import split_corpus
from fairbeam.errors import ConfigError
from fairbeam.families.fairseq.registry import task_symbols
from fairbeam.formats import bundle
from fairbeam.formats.convert import convert
from fairbeam.formats.fairseq import ModelFiles
from fairbeam.formats.fairseq_checkpoint import read
from fairbeam.formats.registry import Format, Location, read_model
from fairbeam.generation import DecoderPool
from fairbeam.text import Dictionary
from fairbeam_plugin.generator import FairbeamGenerator, PendingBatch
from fairbeam_plugin.tasks.translation import FairbeamTranslationTask

ROOT = Path(__file__).resolve().parents[2]
USER_DIR = ("--user-dir", str(ROOT / "user_dir"))
SENTENCES = 200
MBART = ("--task", "translation_from_pretrained_bart", "--langs", "de,en")


@dataclass(frozen=True)
class Model:
    """A stock checkpoint and test data for it."""

    data_bin: Path
    checkpoint: Path


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture(scope="module")
def real_model(run, real_models, real_data, tmp_path_factory) -> Model:
    """The shared Multi30k model with 200 real sentences, binarised with its own subwords and dictionary."""
    folder = tmp_path_factory.mktemp("real")
    model = real_models / "multi30k-en-de"
    for language in ("en", "de"):
        lines = (real_data / "multi30k" / f"test.{language}").read_text().splitlines()[:SENTENCES]
        write_lines(folder / f"test.{language}", lines)
        write_lines(folder / f"train.{language}", lines[:2])
    run("fairbeam", "prepare", folder, "en", "de", folder / "bin",
        "--spm-model", model / "spm.model", "--dict", model / "dict.en.txt")  # fmt: skip
    return Model(folder / "bin", model / "checkpoint.pt")


@pytest.fixture(scope="module")
def own_data(run, tmp_path_factory) -> Path:
    """A data-bin folder of the demo corpus, with a joined dictionary."""
    folder = tmp_path_factory.mktemp("own")
    split = split_corpus(600, 20, 40, seed=3)
    for name in ("train", "valid", "test"):
        pairs = getattr(split, name)
        write_lines(folder / f"{name}.en", [source for source, _ in pairs])
        write_lines(folder / f"{name}.de", [target for _, target in pairs])
    run("fairbeam", "prepare", folder, "en", "de", folder / "bin", "--vocab-size", "500")
    return folder / "bin"


def trained(run, data_bin: Path, name: str, *extra: object) -> Model:
    """A small stock model, trained for a moment."""
    run("fairseq-train", data_bin, *USER_DIR, "-s", "en", "-t", "de",
        "--encoder-layers", 1, "--decoder-layers", 2, "--encoder-embed-dim", 32, "--decoder-embed-dim", 32,
        "--encoder-ffn-embed-dim", 64, "--decoder-ffn-embed-dim", 64, "--encoder-attention-heads", 2,
        "--decoder-attention-heads", 2, "--optimizer", "adam", "--lr", 0.01, "--max-tokens", 1000,
        "--max-epoch", 4, "--save-dir", data_bin.parent / name, "--no-epoch-checkpoints",
        "--encoder-normalize-before", "--decoder-normalize-before", *extra)  # fmt: skip
    return Model(data_bin, data_bin.parent / name / "checkpoint_last.pt")


def random_model(data_bin: Path, name: str, task: dict, **options) -> Model:
    """A small stock model with random weights, sharp enough that sentences get different translations."""
    task = {**task, "data": str(data_bin), "source_lang": "en", "target_lang": "de"}
    dictionary = Dictionary.load(data_bin / "dict.en.txt").extended(task_symbols(task))
    options["task"] = task["_name"]
    model = stock_models.build(options, len(dictionary))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return Model(data_bin, stock_models.write_checkpoint(data_bin.parent / name, model, options, task))


@pytest.fixture(scope="module")
def own_model(run, own_data) -> Model:
    """What a clone without the shared model tests with."""
    return trained(run, own_data, "transformer", "--task", "translation", "--arch", "transformer")


@pytest.fixture(scope="module")
def mbart(own_data) -> Model:
    """An mBART for one direction, with the dictionary that its task makes."""
    sizes = {"embed_dim": 32, "ffn_embed_dim": 64, "attention_heads": 2, "normalize_before": True, "layers": 1}
    stacks = {f"{stack}_{name}": size for stack in ("encoder", "decoder") for name, size in sizes.items()}
    return random_model(own_data, "mbart", {"_name": MBART[1], "langs": MBART[3]}, arch="mbart_base", **stacks)


@pytest.fixture(scope="module")
def language_model(own_data) -> Path:
    """A language model over the dictionary of ``own_data``, which fairseq reads from the data's folder."""
    shutil.copy(own_data / "dict.de.txt", own_data / "dict.txt")
    sizes = {"decoder_layers": 2, "decoder_embed_dim": 32, "decoder_attention_heads": 2, "decoder_ffn_embed_dim": 48}
    task = {"_name": "language_modeling", "tokens_per_sample": 60}
    options = {"arch": "transformer_lm_gpt", "tokens_per_sample": 60, **sizes}
    return random_model(own_data, "language_model", task, **options).checkpoint


def fairseq_generate(model: Model, task: str, *extra: object, checkpoints: str | None = None) -> dict[int, list]:
    """``fairseq-generate`` in this process: for each sentence its hypotheses as (text, score, token scores)."""
    return parsed(printed(arguments(model, task, *extra, checkpoints=checkpoints)))


def arguments(model: Model, task: str, *extra: object, checkpoints: str | None = None):
    command = [
        str(model.data_bin), *USER_DIR, "--task", task, "-s", "en", "-t", "de", "--cpu", "--no-progress-bar",
        "--num-workers", "0",  # a process of torch's can take five seconds to end
        "--path", checkpoints or str(model.checkpoint), *map(str, extra),
    ]  # fmt: skip
    if "--batch-size" not in command:
        command += ["--batch-size", "64"]
    return options.parse_args_and_arch(options.get_generation_parser(), command)


def printed(args) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        generate.main(args)
    return out.getvalue()


def parsed(output: str) -> dict[int, list]:
    found: dict[int, list] = defaultdict(list)
    for line in output.splitlines():
        if match := re.match(r"H-(\d+)\t(\S+)\t(.*)", line):
            found[int(match[1])].append([match[3], float(match[2])])
        elif match := re.match(r"P-(\d+)\t(.*)", line):
            found[int(match[1])][-1].append([float(score) for score in match[2].split()])
    return found


def assert_same(ours: dict[int, list], theirs: dict[int, list], count: int) -> None:
    assert sorted(ours) == sorted(theirs) == list(range(count))
    for sentence, expected in theirs.items():
        assert [text for text, *_ in ours[sentence]] == [text for text, *_ in expected], sentence
        for (_, score, each), (_, expected_score, expected_each) in zip(ours[sentence], expected, strict=True):
            assert score == pytest.approx(expected_score, abs=1e-4)
            assert each == pytest.approx(expected_each, abs=2e-4)  # printed with four decimals


VARIANTS = [
    (),
    ("--beam", 1),
    ("--beam", 4, "--lenpen", 0.6),
    ("--beam", 10, "--lenpen", 1.6),
    ("--nbest", 5),
    ("--prefix-size", 2),
    ("--min-len", 12),
    ("--unkpen", -2),
    ("--no-repeat-ngram-size", 3),
    ("--max-len-b", 9, "--unnormalized"),
    ("--temperature", 1.7),
    ("--diversity-rate", 0.4, "--nbest", 2),
    ("--match-source-len",),
]


@pytest.mark.parametrize("extra", VARIANTS, ids=lambda extra: " ".join(map(str, extra)) or "beam 5")
def test_real_model(real_model, extra):
    assert_same(
        fairseq_generate(real_model, "fairbeam_translation", *extra),
        fairseq_generate(real_model, "translation", *extra),
        SENTENCES,
    )


@pytest.mark.parametrize(
    "extra",
    [("--nbest", 6), ("--diverse-beam-strength", 1.5, "--batch-size", 7)],
    ids=lambda extra: " ".join(map(str, extra)),
)
def test_diverse_groups(real_model, extra, monkeypatch):
    """Stock numbers the groups' memory by the sentence's place in the corpus, and fails behind the first batch."""
    generate_stock = SequenceGenerator._generate

    def without_places(self, sample, *args, **kwargs):
        return generate_stock(self, {name: value for name, value in sample.items() if name != "id"}, *args, **kwargs)

    monkeypatch.setattr(SequenceGenerator, "_generate", without_places)
    options = ("--beam", 6, "--diverse-beam-groups", 3, *extra)
    assert_same(
        fairseq_generate(real_model, "fairbeam_translation", *options),
        fairseq_generate(real_model, "translation", *options),
        SENTENCES,
    )


@pytest.mark.parametrize(
    "extra", [(), ("--nbest", 3, "--beam", 3, "--prefix-size", 1), ("--beam", 1), ("--lenpen", 0, "--min-len", 0)]
)
def test_own_model(own_model, extra):
    assert_same(
        fairseq_generate(own_model, "fairbeam_translation", "--max-len-b", 30, *extra),
        fairseq_generate(own_model, "translation", "--max-len-b", 30, *extra),
        40,
    )


@pytest.mark.parametrize(
    "extra",
    [
        ("--lm-weight", 0.3),
        ("--lm-weight", 0.1, "--nbest", 3, "--beam", 3, "--temperature", 1.5, "--prefix-size", 1),
    ],
    ids=lambda extra: " ".join(map(str, extra)),
)
def test_shallow_fusion(own_model, language_model, extra, caplog):
    options = ("--max-len-b", 30, "--lm-path", language_model, *extra)
    ours = fairseq_generate(own_model, "fairbeam_translation", *options)
    assert "fairseq's own generator" not in caplog.text
    assert_same(ours, fairseq_generate(own_model, "translation", *options), 40)
    usual = fairseq_generate(own_model, "fairbeam_translation", "--max-len-b", 30)
    assert any(ours[n][0][0] != usual[n][0][0] for n in usual)


def test_shallow_fusion_needs_the_target_dictionary(own_model, language_model, tmp_path):
    """Stock adds scores of other symbols, or fails where sizes differ; and ignores a weight without a model."""
    folder = tmp_path / "bin"
    shutil.copytree(own_model.data_bin, folder)
    lines = (folder / "dict.txt").read_text().splitlines()
    (folder / "dict.txt").write_text("".join(f"{line}\n" for line in (lines[1], lines[0], *lines[2:])))
    other = Model(folder, own_model.checkpoint)
    with pytest.raises(ConfigError, match=r"lm_path: the language model's dictionary .* differs from the target"):
        fairseq_generate(other, "fairbeam_translation", "--lm-path", language_model, "--lm-weight", 0.5)
    with pytest.raises(ConfigError, match=r"lm_weight 0\.5: there is no language model; lm_path names one"):
        fairseq_generate(own_model, "fairbeam_translation", "--lm-weight", 0.5)


def test_other_models_rank_hypotheses_as_in_our_command(own_model, language_model):
    """The model itself for a channel: one dictionary is of both languages here."""
    paths = {"channel_model": own_model.checkpoint, "lm_model": language_model}
    options = ("--channel-model", own_model.checkpoint, "--lm-model", language_model, "--ch-wt", 0.7, "--nbest", 4,
               "--max-len-b", 30, "--remove-bpe", "sentencepiece")  # fmt: skip
    found = fairseq_generate(own_model, "fairbeam_translation", *options)
    files = ModelFiles(data=own_model.data_bin)
    translator = fairbeam.load(own_model.checkpoint, precision="float32", workers=1, files=files, **paths)
    lines = (own_model.data_bin / "raw" / "test.en").read_text().splitlines()
    expected = list(translator.stream(lines, nbest=4, max_len_b=30, ch_wt=0.7))
    for sentence, hypotheses in enumerate(expected):
        assert [each.text for each in hypotheses] == [text for text, *_ in found[sentence]]
        scores = [each.score / math.log(2) for each in hypotheses]
        assert [score for _, score, _ in found[sentence]] == pytest.approx(scores, abs=1e-3)
    usual = fairseq_generate(own_model, "fairbeam_translation", "--max-len-b", 30, "--remove-bpe", "sentencepiece")
    assert any(usual[n][0][0] != found[n][0][0] for n in usual)


def test_prefixes_of_the_reference_are_favoured_or_have_alternatives(own_model):
    ours = ("fairbeam_translation", "--max-len-b", 30, "--beam", 3)
    forced, favoured = (
        fairseq_generate(own_model, *ours, "--prefix-size", 2, "--lenpen", 0, *extra)
        for extra in ((), ("--prefix-bias-beta", 1 - 1e-12))
    )
    assert {n: hypotheses[0][0] for n, hypotheses in forced.items()} == {
        n: hypotheses[0][0] for n, hypotheses in favoured.items()
    }
    found = fairseq_generate(own_model, *ours, "--prefix-size", 1, "--return-alternatives", "--nbest", 5)
    for n, hypotheses in found.items():
        words = [text.split() for text, *_ in hypotheses]
        assert {mine[0] for mine in words} == {forced[n][0][0].split()[0]}
        assert len({mine[1] if len(mine) > 1 else "" for mine in words}) == 5
    with pytest.raises(ConfigError, match=r"prefix_bias_beta 0\.5: needs a prefix .*--prefix-size"):
        fairseq_generate(own_model, *ours, "--prefix-bias-beta", 0.5)


def test_lstm(own_data):
    widths = {"encoder_embed_dim": 32, "encoder_hidden_size": 16, "decoder_embed_dim": 32, "decoder_hidden_size": 24}
    others = {"encoder_bidirectional": True, "share_all_embeddings": True, "decoder_out_embed_dim": 32}
    options = {"arch": "lstm", "criterion": "cross_entropy", **widths, **others}
    model = random_model(own_data, "lstm", {"_name": "translation"}, **options)
    ours = fairseq_generate(model, "fairbeam_translation", "--max-len-b", 30, "--nbest", 2)
    assert_same(ours, fairseq_generate(model, "translation", "--max-len-b", 30, "--nbest", 2), 40)
    assert len({each[0][0] for each in ours.values()}) > 20


@pytest.mark.parametrize("extra", [(), ("--nbest", 3, "--lenpen", 0.5)])
def test_mbart(mbart, extra):
    assert_same(
        fairseq_generate(mbart, "fairbeam_translation", "--langs", "de,en", "--max-len-b", 30, *extra),
        fairseq_generate(mbart, MBART[1], *MBART[2:], "--max-len-b", 30, *extra),
        40,
    )


def test_mbart_goes_into_a_bundle_and_back(mbart, tmp_path):
    """Same text in the bundle as stock's, and a checkpoint that stock decodes alike, equal in every tensor."""
    files = ModelFiles(data=mbart.data_bin)
    there, back = Location(Format.BUNDLE, tmp_path / "bundle"), Location(Format.FAIRSEQ, tmp_path / "back/model.pt")
    for pair in ((Location(Format.FAIRSEQ, mbart.checkpoint), there), (there, back)):
        parity = convert(*pair, files=files)
        assert parity.passed
        assert not parity.differing
    before, after = (read(path) for path in (mbart.checkpoint, back.path))
    assert list(before.model) == list(after.model)
    assert all(torch.equal(after.model[k], v) and after.model[k].dtype == v.dtype for k, v in before.model.items())
    assert after.config == before.config
    for language in ("en", "de"):
        assert Dictionary.load(back.path.with_name(f"dict.{language}.txt")) == Dictionary.load(
            mbart.data_bin / f"dict.{language}.txt"
        )
    short = (MBART[1], *MBART[2:], "--max-len-b", 16, "--beam", 3, "--remove-bpe", "sentencepiece")
    stock = fairseq_generate(mbart, *short)
    assert_same(fairseq_generate(mbart, *short, checkpoints=str(back.path)), stock, 40)
    lines = (mbart.data_bin / "raw" / "test.en").read_text().splitlines()
    translator = fairbeam.load(there.path, precision="float32", workers=1)
    found = list(translator.stream(lines, max_len_b=16, beam=3))
    for sentence, [best, *_] in enumerate(found):
        assert best.text == stock[sentence][0][0]
        assert best.score / math.log(2) == pytest.approx(stock[sentence][0][1], abs=1e-4)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_alignments(own_model, kind):
    """Teacher forcing gives the attention that stock keeps through the search."""
    ours, theirs = (
        re.findall(
            r"^A-(\d+)\t(.*)$", printed(arguments(own_model, task, "--print-alignment", kind, "--nbest", 2)), re.M
        )
        for task in ("fairbeam_translation", "translation")
    )
    assert len(ours) == len(theirs) == 80
    if kind == "hard":
        assert sorted(ours) == sorted(theirs)
    else:
        for (sentence, mine), (number, expected) in zip(sorted(ours), sorted(theirs), strict=True):
            assert sentence == number
            rows = [
                [[float(weight) for weight in row.split(",")] for row in text.split(" ")] for text in (mine, expected)
            ]
            torch.testing.assert_close(torch.tensor(rows[0]), torch.tensor(rows[1]), rtol=0, atol=2e-5)


def test_unknown_words_are_replaced(run, own_model, tmp_path):
    """Stock's fails on the first unknown word: it indexes with pairs, or has no alignment at all."""
    words = (own_model.data_bin / "dict.de.txt").read_text().splitlines()
    (tmp_path / "test.en-de.en").write_text("Xylophon sees the dog .\n")
    (tmp_path / "test.en-de.de").write_text("x\n")
    for side in ("en", "de"):
        (tmp_path / f"dict.{side}.txt").write_text((own_model.data_bin / f"dict.{side}.txt").read_text())
    (tmp_path / "words").write_text("Xylophon Xylofon\nsees Xylofon\nthe Xylofon\ndog Xylofon\n. Xylofon\n")
    args = options.parse_args_and_arch(options.get_generation_parser(), [
        str(tmp_path), *USER_DIR, "--task", "fairbeam_translation", "-s", "en", "-t", "de", "--cpu",
        "--no-progress-bar", "--path", str(own_model.checkpoint), "--dataset-impl", "raw", "--batch-size", "1",
        "--unkpen", "-20", "--max-len-b", "5", "--replace-unk", str(tmp_path / "words"),
    ])  # fmt: skip
    text = next(iter(parsed(printed(args)).values()))[0][0].split()
    assert set(text) == {"Xylofon"}
    assert len(words) > 10


def test_options_that_fairseq_lacks(own_model, tmp_path):
    (tmp_path / "outputs").write_text("Hund\nKatze Hund\n")
    ours = ("fairbeam_translation", "--max-len-b", 30)
    allowed = parsed(printed(arguments(own_model, *ours, "--allowed-outputs-file", tmp_path / "outputs", "--nbest", 2)))
    assert len({text for hypotheses in allowed.values() for text, *_ in hypotheses}) == 2
    usual, ranked = (
        parsed(printed(arguments(own_model, *ours, "--nbest", 5, *extra))) for extra in ((), ("--mbr", "chrf"))
    )
    assert {n: sorted(text for text, *_ in found) for n, found in usual.items()} == {
        n: sorted(text for text, *_ in found) for n, found in ranked.items()
    }
    assert any(usual[n][0] != ranked[n][0] for n in usual)
    drawn = parsed(printed(arguments(own_model, *ours, "--stochastic-beam", "--nbest", 5)))
    assert all(len({text for text, *_ in found}) == 5 for found in drawn.values())
    both = f"{own_model.checkpoint}:{own_model.checkpoint}"
    weighed = parsed(printed(arguments(own_model, *ours, "--ensemble-weights", "0.9,0.1", checkpoints=both)))
    assert {n: found[0][0] for n, found in weighed.items()} == {n: found[0][0] for n, found in usual.items()}


def test_drafts_leave_the_output_as_it_is(own_model):
    greedy = ("fairbeam_translation", "--beam", 1, "--max-len-b", 30, "--precision", "float32")
    usual = fairseq_generate(own_model, *greedy)
    draft = ("--draft-model", own_model.checkpoint, "--draft-tokens", 3)
    for extra in draft, ("--prompt-lookup-num-tokens", 3):
        assert_same(fairseq_generate(own_model, *greedy, *extra), usual, len(usual))
    with pytest.raises(ConfigError, match="draft_tokens: our search alone has it, which lacks --print-step"):
        fairseq_generate(own_model, *greedy, *draft, "--print-step")


def test_a_function_says_which_tokens_may_follow(own_model, monkeypatch):
    """It is told of a sentence by its place in the corpus, and the hypothesis with its start symbol.

    Stock looks at as many candidates as there are beams, so that every hypothesis that ends takes a beam away.
    """

    def with_spare_candidates(self, step, scores, totals, tokens, numbers):
        rows = scores.flatten(0, 1).unsqueeze(1)
        return BeamSearch.step(self, step, scores + self.apply_mask(rows, tokens, numbers).view_as(scores), totals)

    monkeypatch.setattr(PrefixConstrainedBeamSearch, "step", with_spare_candidates)
    found = {}
    for task in ("fairbeam_translation", "translation"):
        args = arguments(own_model, task, "--nbest", 3, "--max-len-b", 30, "--batch-size", 16)
        with monkeypatched_build(args, lambda number, tokens: [2, *range(3 + (number + len(tokens)) % 3, 300, 2)]):
            found[task] = parsed(printed(args))
    assert_same(found["fairbeam_translation"], found["translation"], 40)


def monkeypatched_build(args, allowed):
    """fairseq's commands have no option for the function: it is an argument of ``build_generator``."""

    def with_function(self, models, cfg, seq_gen_cls=None, extra_gen_cls_kwargs=None, prefix_allowed_tokens_fn=None):
        return build(self, models, cfg, seq_gen_cls, extra_gen_cls_kwargs, allowed)

    kind = FairbeamTranslationTask if args.task == "fairbeam_translation" else TranslationTask
    build = kind.build_generator
    return mock.patch.object(kind, "build_generator", with_function)


def test_ensemble_of_two(real_model, tmp_path):
    """The second model is the first with noise on its weights."""
    state = torch.load(real_model.checkpoint, weights_only=False)
    torch.manual_seed(0)
    for name, tensor in state["model"].items():
        if tensor.dim() > 0 and tensor.numel() > 1:
            noise = 0.03 * tensor.float().std() * torch.randn(tensor.shape)
            state["model"][name] = tensor + noise.to(tensor.dtype)
    shutil.copy(real_model.checkpoint, tmp_path / "one.pt")
    torch.save(state, tmp_path / "two.pt")
    both = f"{tmp_path / 'one.pt'}:{tmp_path / 'two.pt'}"
    single = fairseq_generate(real_model, "fairbeam_translation")
    ours = fairseq_generate(real_model, "fairbeam_translation", checkpoints=both)
    assert_same(ours, fairseq_generate(real_model, "translation", checkpoints=both), SENTENCES)
    assert any(ours[n][0][0] != single[n][0][0] for n in single)


@pytest.mark.parametrize("size", [1, 7])
def test_batches_of_any_size_give_the_same_text(real_model, size):
    usual = fairseq_generate(real_model, "fairbeam_translation")
    assert_same(fairseq_generate(real_model, "fairbeam_translation", "--batch-size", size), usual, SENTENCES)


def test_batches_that_are_begun_with_before_are_the_same(own_model, monkeypatch, caplog):
    """But for the first, which says what comes with the others; prefixes are longer than some targets."""
    extra = ("--batch-size", 7, "--prefix-size", 4, "--nbest", 2)
    begun, generate_ = [], FairbeamGenerator.generate

    def counted(self, models, sample, *args, **options):
        begun.append(PendingBatch.of(sample).wait is not None)
        return generate_(self, models, sample, *args, **options)

    monkeypatch.setattr(FairbeamGenerator, "generate", counted)
    monkeypatch.setattr(DecoderPool, "workers", 2)
    with caplog.at_level("INFO"):
        ahead = fairseq_generate(own_model, "fairbeam_translation", *extra)
    assert begun == [False, *[True] * (len(begun) - 1)]
    assert len(begun) > 4
    assert f"{len(ahead)} sentences read, decoded and printed in" in caplog.text
    monkeypatch.setattr(FairbeamGenerator, "ahead", 0)
    begun.clear()
    assert_same(ahead, fairseq_generate(own_model, "fairbeam_translation", *extra), len(ahead))
    assert not any(begun)


def test_a_shortlist_changes_next_to_nothing(run, real_model, real_data, tmp_path):
    """Made of the model's training data, kept in a bundle, and the same for both commands."""
    for split, count in (("train", None), ("test", 60)):
        for language in ("en", "de"):
            lines = (real_data / "multi30k" / f"{split}.{language}").read_text().splitlines()[:count]
            write_lines(tmp_path / f"{split}.{language}", lines)
    model = Model(tmp_path / "bin", real_model.checkpoint)
    run("fairbeam", "prepare", tmp_path, "en", "de", model.data_bin, "--spm-model",
        model.checkpoint.with_name("spm.model"), "--dict", model.checkpoint.with_name("dict.en.txt"))  # fmt: skip
    plain = ("--remove-bpe", "sentencepiece")
    usual = fairseq_generate(model, "fairbeam_translation", *plain)
    short = fairseq_generate(model, "fairbeam_translation", *plain, "--shortlist")
    assert sum(short[n][0][0] == usual[n][0][0] for n in range(60)) >= 59
    files = ModelFiles(data=model.data_bin, source_lang="en", target_lang="de")
    bundle.save(tmp_path / "model", read_model(model.checkpoint, files))
    done = run("fairbeam", "translate", tmp_path / "model", "--shortlist", "--precision", "float32",
               "-i", tmp_path / "test.en", "--batch-size", 7)  # fmt: skip
    assert done.stdout.splitlines() == [short[n][0][0] for n in range(60)]
    with pytest.raises(ConfigError, match="shortlist: our search alone has it, which lacks --print-step"):
        fairseq_generate(model, "fairbeam_translation", "--shortlist", "--print-step")
    (model.data_bin / SHORTLIST).unlink()
    with pytest.raises(ConfigError, match="shortlist: the model has none; fairbeam shortlist DATA-BIN makes one"):
        fairseq_generate(model, "fairbeam_translation", "--shortlist")


def test_as_two_commands(run, real_model):
    """Two processes, with and without our task, as a user would compare them."""
    command = ("fairseq-generate", real_model.data_bin, *USER_DIR, "-s", "en", "-t", "de", "--cpu",
               "--path", real_model.checkpoint, "--batch-size", 64, "--remove-bpe", "sentencepiece")  # fmt: skip
    ours = run(*command, "--task", "fairbeam_translation").stdout
    theirs = run(*command, "--task", "translation").stdout

    def text(output: str) -> dict[str, str]:
        return dict(re.findall(r"^H-(\d+)\t\S+\t(.*)$", output, re.MULTILINE))

    assert text(ours) == text(theirs)
    assert len(text(ours)) == SENTENCES
