"""``fairbeam score``: sacreBLEU's metrics and ROUGE, with the options and output of the ``sacrebleu`` command."""

import logging
import os
import sys
from argparse import Namespace
from enum import StrEnum
from typing import Annotated

import typer
from sacrebleu.utils import Color, print_results_table, print_single_results

from fairbeam.cli._options import Metric, MultiValueCommand, read_scored
from fairbeam.errors import ConfigError, InputError
from fairbeam.files import stream_lines
from fairbeam.scoring import MetricOptions, Score, evaluate, paired_test

SETTINGS = {"cls": MultiValueCommand}


class OutputFormat(StrEnum):
    """Values of ``--format``."""

    json = "json"
    text = "text"
    latex = "latex"


def command(
    references: Annotated[
        list[str], typer.Argument(metavar="REFERENCE", help="Raw reference files, one sentence per line.")
    ],
    systems: Annotated[
        list[str] | None,
        typer.Option(
            "--input", "-i", metavar="HYPOTHESES...", help="Hypotheses, one file per system; stdin if not given."
        ),
    ] = None,
    metrics: Annotated[
        list[Metric] | None, typer.Option("--metrics", "-m", help="Metrics, one or several.  [default: bleu]")
    ] = None,
    references_tab: Annotated[
        bool,
        typer.Option("--references-tab", help="Each reference line holds one or more references, separated by tabs."),
    ] = False,
    tokenize: Annotated[
        str, typer.Option("--tokenize", "-tok", help="Tokenizer for BLEU, one of sacreBLEU's.")
    ] = "13a",
    lowercase: Annotated[bool, typer.Option("--lowercase", "-lc", help="Case-insensitive BLEU.")] = False,
    chrf_word_order: Annotated[
        int, typer.Option("--chrf-word-order", "-cw", help="Longest word n-grams in chrF; 2 is chrF++.")
    ] = 0,
    rouge_stemmer: Annotated[
        bool, typer.Option("--rouge-stemmer/--no-rouge-stemmer", help="Compare Porter stems in ROUGE.")
    ] = True,
    paired_bs: Annotated[
        bool,
        typer.Option(
            "--paired", "--paired-bs", "-pbs", help="Paired bootstrap resampling test against the first system."
        ),
    ] = False,
    paired_bs_n: Annotated[
        int, typer.Option("--paired-bs-n", "-pbsn", min=1, help="Number of bootstrap resamples.")
    ] = 1000,
    paired_ar: Annotated[
        bool,
        typer.Option("--paired-ar", "-par", help="Paired approximate randomization test against the first system."),
    ] = False,
    paired_ar_n: Annotated[
        int, typer.Option("--paired-ar-n", "-parn", min=1, help="Number of randomization trials.")
    ] = 10000,
    score_only: Annotated[bool, typer.Option("--score-only", "-b", help="Print only the scores.")] = False,
    width: Annotated[int, typer.Option("--width", "-w", min=0, help="Decimal places of scores.")] = 1,
    output_format: Annotated[
        OutputFormat,
        typer.Option("--format", "-f", envvar="SACREBLEU_FORMAT", help="Output format; latex is for several systems."),
    ] = OutputFormat.json,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print results only, no warnings.")] = False,
) -> None:
    """Score hypotheses against raw references: BLEU, chrF, TER, ROUGE, each with its signature.

    Options and output follow the sacrebleu command: fairbeam score REF -i HYP -m bleu chrf
    """
    if quiet:
        logging.getLogger("sacrebleu").setLevel(logging.ERROR)
    Color.ENABLE_COLORS = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    options = MetricOptions(
        tokenize=tokenize, lowercase=lowercase, chrf_word_order=chrf_word_order, use_stemmer=rouge_stemmer
    )
    chosen = [metric.value for metric in metrics or [Metric.bleu]]
    if paired_bs and paired_ar:
        raise ConfigError("--paired-bs and --paired-ar exclude each other; choose one test")
    paired = paired_bs or paired_ar
    named = _unique(systems or [], paired=paired)
    entries, hypotheses = read_scored(references, named, tabs=references_tab)
    if not named:
        hypotheses = {"standard input": _read_stdin(len(entries), references[0])}
    # Attributes that sacreBLEU's printing functions read.
    printing = Namespace(
        format=output_format.value,
        width=width,
        paired_bs=paired_bs,
        paired_ar=paired_ar,
        paired_bs_n=paired_bs_n,
        paired_ar_n=paired_ar_n,
    )
    if paired:
        signatures, table = paired_test(
            _with_baseline_named(hypotheses),
            entries,
            chosen,
            test="bs" if paired_bs else "ar",
            samples=paired_bs_n if paired_bs else paired_ar_n,
            options=options,
        )
        print_results_table(table, signatures, printing)
        return
    results = {name: evaluate(lines, entries, chosen, options) for name, lines in hypotheses.items()}
    if len(results) > 1:
        _print_systems(results, printing)
        return
    (scores,) = results.values()
    json = output_format is OutputFormat.json
    print_single_results([score.format(width=width, score_only=score_only, json=json) for score in scores], printing)


def _unique(systems: list[str], *, paired: bool) -> list[str]:
    """Drop a repeated baseline (``-i best.txt *.txt``); raise ConfigError for any other repetition."""
    if paired and systems:
        systems = systems[:1] + [name for name in systems[1:] if name != systems[0]]
    repeated = {name for name in systems if systems.count(name) > 1}
    if repeated:
        raise ConfigError(f"{', '.join(sorted(repeated))}: given more than once as a system")
    return systems


def _read_stdin(sentences: int, references: str) -> list[str]:
    lines = [line.rstrip() for line in stream_lines(sys.stdin.buffer, "standard input")]
    if len(lines) != sentences:
        raise InputError(
            f"{references} has {sentences} lines but standard input has {len(lines)}; "
            "line n of one must belong to line n of the other"
        )
    return lines


def _with_baseline_named(systems: dict[str, list[str]]) -> dict[str, list[str]]:
    return {f"Baseline: {name}" if n == 0 else name: lines for n, (name, lines) in enumerate(systems.items())}


def _print_systems(results: dict[str, list[Score]], printing: Namespace) -> None:
    signatures: dict[str, str] = {}
    table: dict[str, list[str]] = {"System": list(results)}
    for scores in results.values():
        for score in scores:
            signatures[score.name] = score.signature
            table.setdefault(score.name, []).append(score.format(width=printing.width, score_only=True))
    print_results_table(table, signatures, printing)
