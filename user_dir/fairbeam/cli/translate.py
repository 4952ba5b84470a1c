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
from fairbeam.cli._derived import Form, derive_options, flag_option, path_option, text_option
from fairbeam.cli._help import PanelCommand
from fairbeam.errors import ConfigError, FairbeamError, InputError, OptionName
from fairbeam.files import atomic_write, partial_path, read_lines, stream_lines
from fairbeam.formats.fairseq import ModelFiles
from fairbeam.generation import Constraints, GenerationOptions
from fairbeam.generation.build import STREAMED_TEXT
from fairbeam.generation.options import parse_weights
from fairbeam.text.phrases import split_phrases
from fairbeam.translator import DecodingLimits, TooLong, Translation, Translator, load


class Alignment(StrEnum):
    """How ``--alignments`` shows where words come from."""

    HARD = "hard"
    SOFT = "soft"


_MODEL, _OUTPUT = "Model and files", "Output"
FORMS = {
    "banned_phrases": Form(
        type=Path, metavar="FILE", help="File with a phrase a line.",
        convert=lambda model, name, path: model.phrase_ids(read_lines(path)),
    ),
    "allowed_outputs": Form(
        type=Path, metavar="FILE", help="File with an output a line.",
        convert=lambda model, name, path: model.output_ids(read_lines(path)),
    ),
    "first_token": Form(
        type=str, metavar="TOKEN", convert=lambda model, name, token: model.token_id(token, name)
    ),
    "last_token": Form(
        type=str, metavar="TOKEN", convert=lambda model, name, token: model.token_id(token, name)
    ),
    "ensemble_weights": Form(
        type=str, metavar="W,W,…", convert=lambda model, name, weights: parse_weights(weights)
    ),
}  # fmt: skip
"""Options that are files, tokens or lists on the command line."""
SETTINGS = {"cls": PanelCommand}


@derive_options(generation=GenerationOptions, limits=DecodingLimits, forms=FORMS)
def command(
    models: Annotated[
        list[Path],
        typer.Argument(
            help="Bundle, Hugging Face folder or fairseq checkpoint; several are an ensemble.",
            rich_help_panel=_MODEL,
            metavar="MODELS",
        ),
    ],
    input_file: Annotated[
        Path | None, path_option("Text to translate; standard input by default.", "--input", "-i", group=_MODEL)
    ] = None,
    output: Annotated[
        Path | None, path_option("File to write; standard output by default.", "--output", "-o", group=_MODEL)
    ] = None,
    data: Annotated[
        Path | None, path_option("Folder of a checkpoint's dictionaries and subword model.", group=_MODEL)
    ] = None,
    source_lang: Annotated[
        str | None, text_option("Source language.", "--source-lang", "-s", group=_MODEL, metavar="LANG")
    ] = None,
    target_lang: Annotated[
        str | None, text_option("Target language.", "--target-lang", "-t", group=_MODEL, metavar="LANG")
    ] = None,
    lm_path: Annotated[
        Path | None,
        path_option("Language model with the target dictionary, for shallow fusion (--lm-weight).", group="Search"),
    ] = None,
    constraints_file: Annotated[
        Path | None,
        path_option(
            "File of the phrases that outputs must contain, a line for each sentence, phrases separated by tabs, "
            "alternatives by |||; without it they stand behind each input sentence and a tab.",
            group="Constraints",
        ),
    ] = None,
    target_prefix: Annotated[
        Path | None,
        path_option(
            "File of target prefixes, a line for each sentence: each output begins with its own.", group="Prefix"
        ),
    ] = None,
    channel_model: Annotated[
        Path | None,
        path_option(
            "Model that translates back, with any tokenizer, for noisy-channel reranking of the --beam hypotheses.",
            group="Reranking",
        ),
    ] = None,
    lm_model: Annotated[
        Path | None,
        path_option(
            "Language model with any tokenizer, for reranking of the --beam hypotheses; --lm-path is another one.",
            group="Reranking",
        ),
    ] = None,
    draft_model: Annotated[
        Path | None,
        path_option("Smaller model with the same dictionaries, for speculative decoding with --beam 1.", group="Speed"),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            help="Precision of weights: auto, float32, bfloat16, int16 or int8; auto takes integers or bfloat16 where "
            "the hardware is fast at them. [default: auto]",
            rich_help_panel="Speed",
            metavar="PRECISION",
        ),
    ] = "auto",
    device: Annotated[
        str,
        typer.Option(
            help="Device as torch names it: cpu, cuda, cuda:1, … [default: cpu]",
            rich_help_panel="Speed",
            metavar="DEVICE",
        ),
    ] = "cpu",
    workers: Annotated[
        int | None,
        typer.Option(
            help="Decoding processes. [default: one for each core; at least 1]",
            rich_help_panel="Speed",
            metavar="PROCESSES",
        ),
    ] = None,
    alignments: Annotated[
        Alignment | None,
        typer.Option(
            help="Word alignment behind each output and a tab: hard is pairs of word indices, source-target; soft is "
            "attention weights over the source tokens for each target token.",
            rich_help_panel=_OUTPUT,
            metavar="hard|soft",
        ),
    ] = None,
    replace_unk: Annotated[
        bool, flag_option("Replace <unk> by the source word it aligns with.", "replace-unk")
    ] = False,
    replace_unk_dict: Annotated[
        Path | None,
        path_option(
            "File of word pairs: replace <unk> by the second word where it aligns with the first.", group=_OUTPUT
        ),
    ] = None,
    scores: Annotated[bool, flag_option("Write the score, in nats, and a tab before each output.", "scores")] = False,
    stream: Annotated[
        bool, flag_option("Stream: write each output piece by piece, as soon as it is certain.", "stream")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Show no progress bar.", rich_help_panel=_OUTPUT)
    ] = False,
    *,
    generation: dict[str, Any],
    limits: dict[str, Any],
) -> None:
    """Translate lines of text with a model; several models are an ensemble.

    One line out for each line in, in the same order; an empty line stays empty. With --nbest N there are N lines out
    for each line in. Input is streamed: memory does not grow with it.

    Where a model's files have defaults of their own, these take the place of the defaults shown.
    """
    if lm_path is not None and not generation.get("lm_weight"):
        raise ConfigError("{} {}: means nothing without {}", OptionName("lm_path"), lm_path, OptionName("lm_weight"))
    unstreamed = {
        "scores": scores, "alignments": alignments, "replace_unk": replace_unk, "replace_unk_dict": replace_unk_dict,
        "constraints_file": constraints_file,
    }  # fmt: skip
    if stream and any(unstreamed.values()):
        name = next(name for name, value in unstreamed.items() if value)
        names = STREAMED_TEXT.label, OptionName(name)
        raise ConfigError("{} and {} exclude each other: a text is written before it is known to its end", *names)
    files = ModelFiles(data=data, source_lang=source_lang, target_lang=target_lang)
    helpers = {"lm_path": lm_path, "channel_model": channel_model, "lm_model": lm_model, "draft": draft_model}
    model = load(*models, precision=precision, device=device, workers=workers, files=files, **helpers)
    given = {
        name: FORMS[name].convert(model, name, value) if name in FORMS else value
        for name, value in generation.items()
    }
    if alignments is not None:
        given["attention"] = True
    unknown = _pairs(replace_unk_dict) if replace_unk_dict is not None else {} if replace_unk else None
    with (
        _reader(input_file) as lines,
        _required(given.get("constraints"), constraints_file) as take,
        contextlib.nullcontext() if target_prefix is None else _reader(target_prefix) as prefixes,
    ):
        if stream:
            _stream(model, lines, prefixes, output, limits.get("too_long", TooLong.ERROR), given)
            return
        lines, required = take(lines)
        results = model.stream(
            lines, limits=_limits(limits, input_file), target_prefix=prefixes, required_phrases=required,
            replace_unk=unknown, **given,
        )  # fmt: skip
        with _writer(output) as write, _progress(quiet or output is None) as advance:
            for translations in results:
                write("".join(_line(translation, scores, alignments) for translation in translations))
                advance()


def _limits(given: dict[str, Any], input_file: Path | None) -> DecodingLimits:
    """Return the limits of decoding; who types a line on a terminal waits for its translation."""
    interactive = input_file is None and sys.stdin.isatty()
    return DecodingLimits(**{**given, **({"buffer_size": 1} if interactive else {})})


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


ConstrainedLines = tuple[Iterator[str], Iterator[list[list[str]]] | None]


@contextlib.contextmanager
def _required(order: Constraints | None, path: Path | None) -> Iterator[Callable[[Iterator[str]], ConstrainedLines]]:
    """A function that gives the sentences of input lines, and what their translations must contain."""
    if path is not None:
        with _reader(path) as lines:
            yield lambda sentences: (sentences, map(split_phrases, lines))
    elif order is not None:
        yield _behind_tabs
    else:
        yield lambda sentences: (sentences, None)


def _behind_tabs(lines: Iterator[str]) -> ConstrainedLines:
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
        raise error.followed_by(_left(partial_path(path))) from None


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
