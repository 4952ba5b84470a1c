"""Continuous admission: what joins a batch that is being decoded gets what it would get in any other batch."""

import itertools
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fairbeam.data.batching import BatchLimits
from fairbeam.errors import ConfigError
from fairbeam.formats import bundle
from fairbeam.generation import Batch, DecoderPool, GenerationOptions, Hypothesis, ModelSet, RequestWindow
from fairbeam.generation.scheduler import Scheduler
from fairbeam.generation.workers import Tickets
from fairbeam.model import Bundle
from fairbeam.network import EncoderDecoder, EncoderDecoderConfig, PositionConfig, PositionKind, StackConfig, pad_batch
from fairbeam.text import Dictionary, Tokenizer, Whitespace
from fairbeam.translator import DecodingLimits, load

PAD, EOS, VOCABULARY = 1, 2, 30
CPU = torch.device("cpu")


def network(positions: PositionConfig | None = None, seed: int = 0) -> EncoderDecoder:
    """Random weights, sharpened so that hypotheses differ clearly, and biased so that their lengths do."""
    torch.manual_seed(seed)
    stack = StackConfig(layers=2, dim=32, heads=4, ffn_dim=64, positions=positions or PositionConfig())
    config = EncoderDecoderConfig(
        source_vocabulary=VOCABULARY, target_vocabulary=VOCABULARY, encoder=stack, decoder=stack, output_bias=True
    )
    made = EncoderDecoder(config).eval()
    with torch.no_grad():
        made.head.weight *= 6
        made.head.bias[EOS] += 2.0
    return made


def sources(count: int, longest: int = 12) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, longest, (count,), generator=generator).tolist()
    return [[*torch.randint(4, VOCABULARY, (n,), generator=generator).tolist(), EOS] for n in lengths]


def batch_at_a_time(decoder: DecoderPool, rows: list[list[int]], options: GenerationOptions, **asked):
    """Everything in one batch that only shrinks."""
    parts = {name: value if name == "start" else value[: len(rows)] for name, value in asked.items()}
    return next(iter(decoder.decode([Batch(pad_batch(rows, PAD).numpy(), options, **parts)], here=True)))


def admitted(decoder: DecoderPool, rows: list[list[int]], options: GenerationOptions, sentences: int, **asked):
    limits = BatchLimits(max_tokens=400, max_sentences=sentences)
    return decoder.decode_window(RequestWindow(rows, options, limits, **asked), here=True)


def assert_same(found: list[list[Hypothesis]], expected: list[list[Hypothesis]]) -> None:
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert [h.tokens.tolist() for h in mine] == [h.tokens.tolist() for h in theirs]
        # Gumbel noise conditioned on a maximum multiplies rounding.
        assert [h.score for h in mine] == pytest.approx([h.score for h in theirs], abs=2e-4, rel=1e-4)
        for a, b in zip(mine, theirs, strict=True):
            torch.testing.assert_close(a.positional_scores, b.positional_scores, rtol=0, atol=1e-4)
            if b.attention is not None:
                torch.testing.assert_close(a.attention[:, : b.attention.size(1)], b.attention[:, : a.attention.size(1)])


SEARCHES = [
    {},
    {"beam": 1},
    {"nbest": 3, "beam": 3, "lenpen": 0.6, "min_len": 4},
    {"max_len_a": 0.8, "max_len_b": 1, "min_len": 0},
    {"sampling": True, "seed": 3, "beam": 2},
    {"sampling": True, "sampling_topp": 0.9, "temperature": 1.3},
    {"stochastic_beam": True, "beam": 3},
    {"diverse_beam_groups": 2, "beam": 4},
    {"diversity_rate": 0.5},
    {"no_repeat_ngram_size": 2, "min_len_a": 0.5},
    {"no_repeat_ngram_size": 3, "repetition_penalty": 1.3, "unkpen": 1.0, "min_len": 6},
    {"banned_phrases": ((7,), (EOS, 9), (11, 12), (13, 5, 6)), "first_token": 8, "last_token": 10, "max_len_b": 9},
    {"encoder_repetition_penalty": 1.5, "encoder_no_repeat_ngram_size": 2},
    {"match_source_len": True},
    {"allowed_outputs": ((5, 6, 7), (5, 6), (8,), (9, 10, 11, 12), (5, 9))},
    {"attention": True, "coverage_penalty": 0.2, "length_normalization": "gnmt"},
    {"beam_patience": 2.0, "nbest": 5},
]


@pytest.fixture(scope="module")
def decoder() -> DecoderPool:
    return DecoderPool(ModelSet([network().for_inference(torch.float32)]), CPU, workers=1)


@pytest.mark.parametrize("options", SEARCHES, ids=lambda options: ",".join(options) or "beam")
def test_hypotheses_are_those_of_a_batch_that_nobody_joins(decoder, options):
    asked = GenerationOptions(**{"max_len_b": 25, "beam": 5, **options})
    rows = sources(40)
    expected = batch_at_a_time(decoder, rows, asked)
    assert any(expected)
    for sentences in (3, 16):
        assert_same(admitted(decoder, rows, asked, sentences), expected)


@pytest.mark.parametrize("order", ["ordered", "unordered"])
def test_required_phrases_and_prefixes_and_a_callers_own_rule(decoder, order):
    rows = sources(30)
    required = [[((4 + n % 9, 5 + n % 7),)] if n % 3 else [] for n in range(len(rows))]
    prefixes = torch.tensor([[6 + n % 5, 5] for n in range(len(rows))]).numpy()
    asked = GenerationOptions(max_len_b=20, constraints=order)
    expected = batch_at_a_time(decoder, rows, asked, required=required, prefix=prefixes)
    assert_same(admitted(decoder, rows, asked, 8, required=required, prefix=prefixes), expected)

    def odd_or_even(sentence: int, tokens: torch.Tensor) -> list[int]:
        return [EOS, *range(4 + (sentence + len(tokens)) % 2, VOCABULARY, 2)]

    asked = GenerationOptions(max_len_b=20, prefix_allowed_tokens_fn=odd_or_even)
    numbers = list(range(100, 100 + len(rows)))
    expected = batch_at_a_time(decoder, rows, asked, numbers=numbers, start=3)
    assert_same(admitted(decoder, rows, asked, 8, numbers=numbers, start=3), expected)


@pytest.mark.parametrize("natively", [True, False])
@pytest.mark.parametrize("kind", [k for k in PositionKind if k is not PositionKind.RELATIVE_SINUSOIDAL])
def test_every_kind_of_position_and_attention(kind, natively):
    positions = PositionConfig(kind=kind, max_positions=40)
    networks = [network(positions, seed).for_inference(torch.float32) for seed in (0, 1)]
    for one in networks:
        one.attends_natively = one.attends_natively and natively
    decoder = DecoderPool(ModelSet(networks), CPU, workers=1)
    asked = GenerationOptions(max_len_b=100)  # positions come to an end before
    if kind is PositionKind.ROTARY:
        with pytest.raises(ConfigError, match="continuous: sentences cannot join"):
            admitted(decoder, sources(4), asked, 2)
        return
    rows = sources(30, 25)
    assert_same(admitted(decoder, rows, asked, 6), batch_at_a_time(decoder, rows, asked))


@pytest.mark.parametrize("options", [{"penalty_alpha": 0.6}, {"shortlist": True}])
def test_pairs_without_a_meaning_are_refused(decoder, options):
    with pytest.raises(ConfigError, match=f"continuous and {next(iter(options))} exclude"):
        admitted(decoder, sources(4), GenerationOptions(**options), 2)


def test_the_scheduler_fills_by_tokens_and_sentences_with_the_longest_first():
    lengths = [3, 9, 5, 40, 8, 2, 7, 6, 4, 1]
    tickets = Tickets()
    turn = tickets.open_turn()
    limits = BatchLimits(max_tokens=20, max_sentences=4)
    scheduler = Scheduler(lengths, limits, lambda count: tickets.draw(turn, count))
    running, seen, widest = [], [], 0
    while joining := scheduler.admit(running):
        running += joining
        seen += joining
        widest = max(widest, len(running))
        assert len(running) == 1 or limits.fit(len(running), max(lengths[one] for one in running))
        running = running[1:]
    assert [lengths[one] for one in seen] == sorted(lengths, reverse=True)
    assert widest == 4


def test_several_workers_share_a_window_and_each_sentence_is_decoded_once():
    rows, asked = sources(50), GenerationOptions(max_len_b=20)
    shared = DecoderPool(ModelSet([network().for_inference(torch.float32)]), CPU, workers=2)
    expected = batch_at_a_time(shared, rows, asked)
    window = RequestWindow(rows, asked, BatchLimits(max_sentences=8))
    for _ in range(2):
        assert_same(shared.decode_window(window), expected)
    assert_same(shared.decode_window(replace(window, sources=[])), [])


def test_tickets_of_a_turn_that_is_over_are_worth_nothing():
    tickets = Tickets()
    first = tickets.open_turn()
    assert [tickets.draw(first, 3), tickets.draw(first, 2)] == [0, 3]
    second = tickets.open_turn()
    assert tickets.draw(first, 1) > 1_000_000
    assert tickets.draw(second, 1) == 0


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    dictionary = Dictionary((f"w{i}", 1) for i in range(VOCABULARY - 4))
    side = [Tokenizer(language=name, subwords=Whitespace(), dictionary=dictionary) for name in "ab"]
    made = Bundle(network=network(PositionConfig(max_positions=30)), source=side[0], target=side[1])
    return bundle.save(tmp_path_factory.mktemp("models") / "tiny", made)


def texts(count: int) -> list[str]:
    return [" ".join(f"w{(n * 7 + place) % 26}" for place in range(1 + n % 11)) for n in range(count)]


def test_lines_come_in_order_with_and_without(model):
    lines = ["", *texts(40), " "]
    translator = load(model, precision="float32", workers=1)
    limits = DecodingLimits(batch_size=4, buffer_size=25)
    expected = translator.translate(lines, limits=limits, max_len_b=20)
    assert translator.translate(lines, limits=replace(limits, continuous=True), max_len_b=20) == expected
    with pytest.raises(ConfigError, match="continuous and penalty_alpha exclude"):
        translator.translate(lines, limits=replace(limits, continuous=True), penalty_alpha=0.5)


PEAK = """
import re, sys
from fairbeam.cli import main
try:
    main()
except SystemExit as done:
    assert not done.code
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1], file=sys.stderr)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_input(model, tmp_path):
    def peak(count: int) -> int:
        (tmp_path / "in").write_text("".join(f"{line}\n" for line in texts(count)))
        command = [sys.executable, "-c", PEAK, "translate", model, "-i", tmp_path / "in", "-o", tmp_path / "out",
                   "--precision", "float32", "--max-tokens", "512", "--buffer-size", "256", "--workers", "1",
                   "--beam", "2", "--max-len-b", "6", "--continuous", "-q"]  # fmt: skip
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
        assert len((tmp_path / "out").read_text().splitlines()) == count
        return int(done.stderr.split()[-1])

    assert peak(6000) < peak(1000) + 16 * 1024  # KiB


def test_output_is_written_while_input_still_comes(model):
    command = [Path(sys.executable).parent / "fairbeam", "translate", model, "--precision", "float32", "--workers", "1",
               "--buffer-size", "20", "--batch-size", "4", "--max-len-b", "8", "--continuous"]  # fmt: skip
    lines = texts(40)
    with subprocess.Popen(command, text=True, bufsize=1, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        kill = threading.Timer(120, process.kill)
        kill.start()
        try:
            for half in (lines[:20], lines[20:]):
                process.stdin.write("".join(f"{line}\n" for line in half))
                process.stdin.flush()
                written = [process.stdout.readline() for _ in half]
                assert all(line.endswith("\n") for line in written)
            process.stdin.close()
            assert process.stdout.read() == ""
        finally:
            kill.cancel()
            process.kill()


def multi30k(real_data: Path, count: int | None) -> list[str]:
    return (real_data / "multi30k" / "test.en").read_text(encoding="utf-8").splitlines()[:count]


def scored(translator, lines: list[str], **limits) -> list[tuple[str, float]]:
    found = translator.stream(lines, limits=DecodingLimits(**limits))
    return [(translations[0].text, translations[0].score) for translations in found]


def test_real_sentences(real_data, real_models):
    lines = multi30k(real_data, 48)
    translator = load(real_models / "multi30k-en-de" / "checkpoint.pt", precision="float32", workers=1)
    expected = scored(translator, lines, batch_size=48)
    found = scored(translator, lines, batch_size=12, continuous=True)
    assert [text for text, _ in found] == [text for text, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-5)


@pytest.mark.slow(minutes=4)
@pytest.mark.timeout(3600)
def test_no_hypothesis_changes_with_batch_size_order_or_admission(real_data, real_models):
    lines = multi30k(real_data, None)
    shuffled = torch.randperm(len(lines), generator=torch.Generator().manual_seed(0)).tolist()
    for precision in ("float32", "bfloat16", "int8"):
        translator = load(real_models / "multi30k-en-de" / "checkpoint.pt", precision=precision, workers=2)
        expected = [text for text, _ in scored(translator, lines, batch_size=64)]
        for size, continuous, order in itertools.product((1, 16, 64), (False, True), ("as it is", "shuffled")):
            if size == 1 and (continuous or order == "shuffled" or precision != "float32"):
                continue
            places = shuffled if order == "shuffled" else range(len(lines))
            found = scored(translator, [lines[place] for place in places], batch_size=size, continuous=continuous)
            changed = sum(expected[place] != text for place, (text, _) in zip(places, found, strict=True))
            print(f"{precision}, batches of {size}, {continuous=}, order {order}: {changed} of {len(lines)} changed")
            assert precision != "float32" or not changed
