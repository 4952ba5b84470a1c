"""``fairbeam translate``: plain text in, plain text out, a line for a line."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from itertools import tee
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fairbeam.cli._console import STDERR
from fairbeam.errors import ConfigError, FairbeamError, InputError
from fairbeam.files import atomic_write, partial_path, read_lines, stream_lines
from fairbeam.formats.fairseq import ModelFiles
from fairbeam.generation import Constraints, LengthNormalization
from fairbeam.generation.options import parse_weights
from fairbeam.scoring.minimum_bayes_risk import Utility
from fairbeam.text.phrases import split_phrases
from fairbeam.translator import DecodingLimits, TooLong, Translation, Translator, load


class Alignment(StrEnum):
    """How ``--alignments`` shows where words come from."""

    HARD = "hard"
    SOFT = "soft"


def command(
    models: Annotated[list[Path], typer.Argument(help="A bundle or a fairseq checkpoint; several are an ensemble.")],
    input_file: Annotated[Path | None, typer.Option("--input", "-i", help="Text to translate; default stdin.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to write; default stdout.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the dictionaries and the subword model.")] = None,
    source_lang: Annotated[str | None, typer.Option("--source-lang", "-s", help="Source language.")] = None,
    target_lang: Annotated[str | None, typer.Option("--target-lang", "-t", help="Target language.")] = None,
    beam: Annotated[
        int | None, typer.Option(help="Beam size. [default: the model's, or 5]", show_default=False)
    ] = None,
    nbest: Annotated[int, typer.Option(help="Translations of each line, on lines of their own.")] = 1,
    lenpen: Annotated[float | None, typer.Option(help="Length penalty.", show_default=False)] = None,
    length_normalization: Annotated[
        LengthNormalization | None,
        typer.Option(
            help="What --lenpen is the exponent of: power (the length) or gnmt ((5 + length) / 6).", show_default=False
        ),
    ] = None,
    coverage_penalty: Annotated[
        float | None, typer.Option(help="Weight of GNMT's coverage penalty.", show_default=False)
    ] = None,
    beam_patience: Annotated[
        float | None, typer.Option(help="Done with --beam times this many hypotheses.", show_default=False)
    ] = None,
    mbr: Annotated[
        Utility | None,
        typer.Option(help="Rank by minimum Bayes risk, of the --beam hypotheses or samples.", show_default=False),
    ] = None,
    lm_path: Annotated[
        Path | None,
        typer.Option(help="Language model with the target dictionary, for --lm-weight.", show_default=False),
    ] = None,
    lm_weight: Annotated[
        float | None,
        typer.Option(
            help="Times the log probability of each next token by --lm-path, in the search (shallow fusion).",
            show_default=False,
        ),
    ] = None,
    channel_model: Annotated[
        Path | None,
        typer.Option(
            help="Model that translates back, with any tokenizer: ranks the --beam hypotheses anew (noisy channel).",
            show_default=False,
        ),
    ] = None,
    ch_wt: Annotated[
        float | None,
        typer.Option(
            help="Times the log probability of the source by --channel-model, divided by the source's length. "
            "[default: 1]",
            show_default=False,
        ),
    ] = None,
    lm_model: Annotated[
        Path | None,
        typer.Option(
            help="Language model with any tokenizer: ranks the --beam hypotheses anew, unlike --lm-path.",
            show_default=False,
        ),
    ] = None,
    lm_wt: Annotated[
        float | None,
        typer.Option(
            help="Times the log probability of a hypothesis by --lm-model, divided by the source's length. "
            "[default: 1]",
            show_default=False,
        ),
    ] = None,
    target_prefix: Annotated[
        Path | None,
        typer.Option(help="File of what translations begin with, a line for a sentence.", show_default=False),
    ] = None,
    prefix_bias_beta: Annotated[
        float | None,
        typer.Option(help="Favour --target-prefix by this probability, below 1, not force it.", show_default=False),
    ] = None,
    return_alternatives: Annotated[
        bool,
        typer.Option(
            "--return-alternatives",
            help="The --nbest most probable tokens behind --target-prefix, each with the best that goes on from it.",
        ),
    ] = False,
    min_alternative_expansion_prob: Annotated[
        float | None, typer.Option(help="Alternatives less probable stay empty lines.", show_default=False)
    ] = None,
    min_len: Annotated[int | None, typer.Option(help="Fewest tokens.", show_default=False)] = None,
    min_len_a: Annotated[
        float | None, typer.Option(help="Fewest tokens: A x source, plus --min-len.", show_default=False)
    ] = None,
    match_source_len: Annotated[
        bool, typer.Option("--match-source-len", help="As many tokens as the source with its </s>.")
    ] = False,
    max_len_a: Annotated[float | None, typer.Option(help="Most tokens: A x source + B.", show_default=False)] = None,
    max_len_b: Annotated[int | None, typer.Option(help="Most tokens: A x source + B.", show_default=False)] = None,
    unkpen: Annotated[float | None, typer.Option(help="Penalty of <unk>.", show_default=False)] = None,
    no_repeat_ngram_size: Annotated[int | None, typer.Option(help="No n-gram twice.", show_default=False)] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option(help="Above 1 shuns what was said.", show_default=False)
    ] = None,
    banned_phrases: Annotated[
        Path | None, typer.Option(help="File of words and phrases never to say, one a line.", show_default=False)
    ] = None,
    encoder_repetition_penalty: Annotated[
        float | None, typer.Option(help="Above 1 favours what the source says.", show_default=False)
    ] = None,
    encoder_no_repeat_ngram_size: Annotated[
        int | None, typer.Option(help="No n-gram of the source.", show_default=False)
    ] = None,
    first_token: Annotated[
        str | None, typer.Option(help="Token that every translation begins with.", show_default=False)
    ] = None,
    last_token: Annotated[
        str | None, typer.Option(help="Token that every translation ends with.", show_default=False)
    ] = None,
    allowed_outputs: Annotated[
        Path | None, typer.Option(help="File of all that may be said, a line each.", show_default=False)
    ] = None,
    ensemble_weights: Annotated[
        str | None, typer.Option(help="How much each model counts: 0.7,0.3", show_default=False)
    ] = None,
    constraints: Annotated[
        Constraints | None,
        typer.Option(
            help="Input lines are a sentence, a tab, and between tabs phrases that its translation must contain; "
            "a|||b is one of the two. In the order given, or in any.",
            show_default=False,
        ),
    ] = None,
    constraints_file: Annotated[
        Path | None,
        typer.Option(help="These phrases from a file instead, a line for a sentence.", show_default=False),
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Divides the logits.", show_default=False)] = None,
    sampling: Annotated[bool, typer.Option("--sampling", help="Draw tokens, --beam samples a line.")] = False,
    sampling_topk: Annotated[int | None, typer.Option(help="From so many best tokens.", show_default=False)] = None,
    sampling_topp: Annotated[
        float | None, typer.Option(help="From the fewest of this probability.", show_default=False)
    ] = None,
    min_p: Annotated[float | None, typer.Option(help="From this share of the best.", show_default=False)] = None,
    typical_p: Annotated[
        float | None, typer.Option(help="From the most typical of this probability.", show_default=False)
    ] = None,
    epsilon_cutoff: Annotated[
        float | None, typer.Option(help="From tokens of this probability.", show_default=False)
    ] = None,
    stochastic_beam: Annotated[
        bool, typer.Option("--stochastic-beam", help="Draw --beam samples without replacement.")
    ] = False,
    penalty_alpha: Annotated[
        float | None,
        typer.Option(help="Contrastive search among the --beam best tokens; 0.6 is usual.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of sampling.")] = 1,
    diverse_beam_groups: Annotated[
        int | None, typer.Option(help="Groups of beams that differ.", show_default=False)
    ] = None,
    diverse_beam_strength: Annotated[float | None, typer.Option(help="How much so.", show_default=False)] = None,
    diversity_rate: Annotated[float | None, typer.Option(help="Price of a sibling.", show_default=False)] = None,
    shortlist: Annotated[
        bool | None,
        typer.Option(
            "--shortlist/--no-shortlist", help="Choose among likely symbols alone: faster.", show_default=False
        ),
    ] = None,
    prompt_lookup_num_tokens: Annotated[
        int | None,
        typer.Option(
            help="With --beam 1, the same text: verify so many tokens at once that the source or the hypothesis had "
            "behind the same words. Faster where outputs copy.",
            show_default=False,
        ),
    ] = None,
    prompt_lookup_max_ngram: Annotated[
        int | None, typer.Option(help="As many words the same, at most. [default: 3]", show_default=False)
    ] = None,
    draft_model: Annotated[
        Path | None,
        typer.Option(
            help="With --beam 1, the same text: a smaller model of the same vocabulary drafts what MODEL verifies.",
            show_default=False,
        ),
    ] = None,
    draft_tokens: Annotated[
        int | None, typer.Option(help="So many tokens at a time. [default: 4]", show_default=False)
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Sentences in a batch at most.")] = 64,
    max_tokens: Annotated[int, typer.Option(help="Source tokens in a batch at most.")] = 8192,
    continuous: Annotated[
        bool, typer.Option("--continuous/--no-continuous", help="Sentences join a batch as others leave it.")
    ] = False,
    buffer_size: Annotated[int, typer.Option(help="Lines read ahead and sorted; a terminal gets one.")] = 2048,
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16, int16 or int8.")] = "auto",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")] = "cpu",
    workers: Annotated[
        int | None, typer.Option(help="Decoding processes. [default: cores]", show_default=False)
    ] = None,
    alignments: Annotated[
        Alignment | None,
        typer.Option(
            help="A tab and the alignment behind each translation: hard is pairs of words, source-target; soft is, for "
            "each target token, weights of the source tokens.",
            show_default=False,
        ),
    ] = None,
    replace_unk: Annotated[bool, typer.Option("--replace-unk", help="Source words in the place of <unk>.")] = False,
    replace_unk_dict: Annotated[
        Path | None, typer.Option(help="Pairs of words, what to put in the place of which.", show_default=False)
    ] = None,
    scores: Annotated[bool, typer.Option(help="Put the score and a tab before each translation.")] = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="Write each translation piece by piece, as soon as it is certain.")
    ] = False,
    too_long: Annotated[TooLong, typer.Option(help="Sentences longer than the model reads.")] = TooLong.ERROR,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Translate lines of text with MODEL; several models are an ensemble.

    One line out for each line in, in the same order; an empty line stays empty. With --nbest N there are N
    lines out for each line in. Input is streamed: memory does not grow with it.
    """
    options = {
        "beam": beam,
        "nbest": nbest,
        "lenpen": lenpen,
        "min_len": min_len,
        "max_len_a": max_len_a,
        "max_len_b": max_len_b,
        "unkpen": unkpen,
        "no_repeat_ngram_size": no_repeat_ngram_size,
        "repetition_penalty": repetition_penalty,
        "constraints": constraints,
        "length_normalization": length_normalization,
        "coverage_penalty": coverage_penalty,
        "beam_patience": beam_patience,
        "mbr": mbr,
        "lm_weight": lm_weight,
        "ch_wt": ch_wt,
        "lm_wt": lm_wt,
        "prefix_bias_beta": prefix_bias_beta,
        "return_alternatives": return_alternatives or None,
        "min_alternative_expansion_prob": min_alternative_expansion_prob,
        "min_len_a": min_len_a,
        "encoder_repetition_penalty": encoder_repetition_penalty,
        "encoder_no_repeat_ngram_size": encoder_no_repeat_ngram_size,
        "match_source_len": match_source_len or None,
        "ensemble_weights": None if ensemble_weights is None else parse_weights(ensemble_weights),
        "attention": True if alignments else None,
        "temperature": temperature,
        "sampling": sampling or None,
        "sampling_topk": sampling_topk,
        "sampling_topp": sampling_topp,
        "min_p": min_p,
        "typical_p": typical_p,
        "epsilon_cutoff": epsilon_cutoff,
        "stochastic_beam": stochastic_beam or None,
        "penalty_alpha": penalty_alpha,
        "seed": seed if sampling or stochastic_beam else None,
        "diverse_beam_groups": diverse_beam_groups,
        "diverse_beam_strength": diverse_beam_strength,
        "diversity_rate": diversity_rate,
        "shortlist": shortlist,
        "prompt_lookup_num_tokens": prompt_lookup_num_tokens,
        "prompt_lookup_max_ngram": prompt_lookup_max_ngram,
        "draft_tokens": draft_tokens,
    }
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if lm_path is not None and not lm_weight:
        raise ConfigError(f"--lm-path {lm_path}: means nothing without --lm-weight")
    unstreamed = {
        "--scores": scores, "--alignments": alignments, "--replace-unk": replace_unk,
        "--replace-unk-dict": replace_unk_dict, "--constraints-file": constraints_file,
    }  # fmt: skip
    if stream and any(unstreamed.values()):
        name = next(name for name, value in unstreamed.items() if value)
        raise ConfigError(f"--stream and {name} exclude each other: a text is written before it is known to its end")
    interactive = input_file is None and sys.stdin.isatty()
    limits = DecodingLimits(
        batch_size=batch_size,
        max_tokens=max_tokens,
        too_long=too_long,
        continuous=continuous,
        buffer_size=1 if interactive else buffer_size,
    )
    files = ModelFiles(data=data, source_lang=source_lang, target_lang=target_lang)
    helpers = {"lm_path": lm_path, "channel_model": channel_model, "lm_model": lm_model, "draft": draft_model}
    model = load(*models, precision=precision, device=device, workers=workers, files=files, **helpers)
    if banned_phrases is not None:
        given["banned_phrases"] = model.phrase_ids(read_lines(banned_phrases))
    for name, token in (("first_token", first_token), ("last_token", last_token)):
        if token is not None:
            given[name] = model.token_id(token, f"--{name.replace('_', '-')}")
    if allowed_outputs is not None:
        given["allowed_outputs"] = model.output_ids(read_lines(allowed_outputs))
    unknown = _pairs(replace_unk_dict) if replace_unk_dict is not None else {} if replace_unk else None
    with (
        _reader(input_file) as lines,
        _required(constraints, constraints_file) as take,
        contextlib.nullcontext() if target_prefix is None else _reader(target_prefix) as prefixes,
    ):
        if stream:
            _stream(model, lines, prefixes, output, too_long, given)
            return
        lines, required = take(lines)
        results = model.stream(
            lines, limits=limits, target_prefix=prefixes, required_phrases=required, replace_unk=unknown, **given
        )
        with _writer(output) as write, _progress(quiet or output is None) as advance:
            for translations in results:
                write("".join(_line(translation, scores, alignments) for translation in translations))
                advance()


def _stream(
    model: Translator,
    lines: Iterator[str],
    prefixes: Iterator[str] | None,
    output: Path | None,
    too_long: TooLong,
    options: dict[str, Any],
) -> None:
    """Write a line for each line, a piece at a time."""
    with _writer(output) as write:
        for number, line in enumerate(lines, start=1):
            prefix = None if prefixes is None else next(prefixes, None)
            if prefixes is not None and prefix is None:
                raise InputError(f"sentence {number} has no target prefix, not even an empty line")
            for piece in model.stream_text(line, target_prefix=prefix, too_long=too_long, number=number, **options):
                write(piece.replace("\n", " "))
            write("\n")


Required = tuple[Iterator[str], Iterator[list[list[str]]] | None]


@contextlib.contextmanager
def _required(order: Constraints | None, path: Path | None) -> Iterator[Callable[[Iterator[str]], Required]]:
    """A function that gives the sentences of input lines, and what their translations must contain."""
    if path is not None:
        with _reader(path) as lines:
            yield lambda sentences: (sentences, map(split_phrases, lines))
    elif order is not None:
        yield _behind_tabs
    else:
        yield lambda sentences: (sentences, None)


def _behind_tabs(lines: Iterator[str]) -> Required:
    kept, waiting = tee(lines)
    return (line.partition("\t")[0] for line in kept), (split_phrases(line.partition("\t")[2]) for line in waiting)


def _line(translation: Translation, scores: bool, alignments: Alignment | None = None) -> str:
    text = translation.text.replace("\n", " ")  # models that spell bytes can write a line break
    columns = [f"{translation.score:.4f}", text] if scores else [text]
    if alignments is Alignment.HARD:
        columns.append(" ".join(f"{source}-{target}" for source, target in translation.alignment or ()))
    elif alignments is Alignment.SOFT:
        rows = translation.attention or ()
        columns.append(" ".join(",".join(f"{weight:.6f}" for weight in row) for row in rows))
    return "\t".join(columns) + "\n"


def _pairs(path: Path) -> dict[str, str]:
    """The first two words of each line, as fairseq's ``--replace-unk FILE`` has them."""
    rows = [(number, line.split()) for number, line in enumerate(read_lines(path), start=1) if line.strip()]
    for number, words in rows:
        if len(words) < 2:
            raise InputError(f"{path}, line {number}: expected two words, found {words[0]!r}")
    return {words[0]: words[1] for _, words in rows}


@contextlib.contextmanager
def _reader(path: Path | None) -> Iterator[Iterator[str]]:
    if path is None:
        yield stream_lines(sys.stdin.buffer, "standard input")
        return
    if not path.exists() or path.is_dir():
        raise InputError(f"{path}: no such file")
    try:
        stream = path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    with stream:
        yield stream_lines(stream, str(path))


@contextlib.contextmanager
def _writer(path: Path | None) -> Iterator[Callable[[str], object]]:
    """Yield a function that writes text; a file is ``PATH.partial`` until it is complete."""
    if path is None:
        yield _write_stdout
        return
    try:
        with atomic_write(path, parents=False, keep_partial=True) as stream:
            yield stream.write
    except FairbeamError as error:
        raise type(error)(f"{error}{_left(partial_path(path))}") from None


def _left(partial: Path) -> str:
    return f". What was done is in {partial}" if partial.is_file() else ""


def _write_stdout(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # The interpreter would try again to write what is left, and complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        raise InputError(f"standard output: cannot be written ({error.strerror})") from None


@contextlib.contextmanager
def _progress(hidden: bool) -> Iterator[Callable[[], object]]:
    """A function that counts one more sentence on a progress bar on stderr."""
    columns = (TextColumn("translating"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=STDERR, disable=hidden) as progress:
        task = progress.add_task("translating", total=None)
        yield lambda: progress.advance(task)
