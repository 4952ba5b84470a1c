"""``fairbeam report``: an HTML page with the training curve, scores and samples of a run."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from fairbeam.cli._options import Metric, MultiValueCommand, read_scored
from fairbeam.doctor.environment import environment
from fairbeam.errors import ConfigError, InputError
from fairbeam.files import read_parallel
from fairbeam.report import Attention, Report, Sample, read_attention, read_training_log, write_report
from fairbeam.scoring import Score, evaluate

SETTINGS = {"cls": MultiValueCommand}


def command(
    output: Annotated[Path, typer.Argument(metavar="OUT", help="HTML file to write.")],
    log: Annotated[Path | None, typer.Option("--log", help="Log of fairseq-train.")] = None,
    hypotheses: Annotated[
        str | None, typer.Option("--hypotheses", help="Output of the model, one sentence per line.")
    ] = None,
    references: Annotated[
        list[str] | None, typer.Option("--reference", help="Raw references, one file or several.")
    ] = None,
    references_tab: Annotated[
        bool,
        typer.Option("--references-tab", help="Each reference line holds one or more references, separated by tabs."),
    ] = False,
    source: Annotated[str | None, typer.Option("--source", help="Source text, one sentence per line.")] = None,
    attention: Annotated[
        Path | None,
        typer.Option("--attention", help="Attention as JSON: [{source, target, weights}, ...], entry n for line n."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", help="Bundle that produced the output; its attention is shown.")
    ] = None,
    metrics: Annotated[
        list[Metric] | None, typer.Option("--metrics", "-m", help="Metrics, one or several.  [default: bleu chrf]")
    ] = None,
    samples: Annotated[int, typer.Option("--samples", min=0, help="Number of sentences to show.")] = 10,
    title: Annotated[str, typer.Option("--title", help="Heading of the page.")] = "Training report",
) -> None:
    """Write a self-contained HTML page: training curve, scores with signatures, samples with attention."""
    if log is None and hypotheses is None:
        raise ConfigError("nothing to report; expected --log, or --hypotheses with --reference, or all three")
    scores: list[Score] = []
    shown: list[Sample] = []
    if hypotheses is not None:
        if not references:
            raise ConfigError("--hypotheses without --reference; expected the references to score against")
        entries, outputs = read_scored(references, [hypotheses], tabs=references_tab)
        lines = outputs[hypotheses]
        scores = evaluate(lines, entries, [metric.value for metric in metrics or (Metric.bleu, Metric.chrf)])
        shown = _samples(samples, lines, entries, source=source, hypotheses=hypotheses, attention=attention)
        if model is not None:
            shown = _with_attention(shown, model)
    points = read_training_log(log) if log else []
    write_report(output, Report(title=title, points=points, scores=scores, samples=shown, facts=environment()))
    typer.echo(output)


def _samples(
    count: int,
    lines: list[str],
    references: list[tuple[str, ...]],
    *,
    source: str | None,
    hypotheses: str,
    attention: Path | None,
) -> list[Sample]:
    """Return the first ``count`` sentences of the files."""
    sources = read_parallel(hypotheses, source)[1] if source else [""] * len(lines)
    maps = read_attention(attention) if attention else []
    if len(maps) > len(lines):
        raise InputError(f"{attention} has {len(maps)} entries but {hypotheses} has {len(lines)} lines")
    return [
        Sample(
            source=sources[n],
            references=references[n],
            hypothesis=lines[n],
            attention=maps[n] if n < len(maps) else None,
        )
        for n in range(min(count, len(lines)))
    ]


def _with_attention(samples: list[Sample], model: Path) -> list[Sample]:
    """Return the samples with the model's attention, computed by forced decoding of their hypotheses."""
    from fairbeam.translator import load  # imports torch, which a report without a model does not need

    translator = load(model, precision="float32", workers=1)
    drawn = []
    for sample in samples:
        source, target, weights = translator.attention(sample.source, sample.hypothesis)
        drawn.append(replace(sample, attention=Attention(source=source, target=target, weights=weights)))
    return drawn
