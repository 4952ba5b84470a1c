"""Rendering of reports as single HTML files without scripts or external resources."""

import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fairbeam.errors import ConfigError
from fairbeam.files import atomic_write
from fairbeam.report.chart import LineChart, Points, heat_map, line_chart
from fairbeam.report.content import CurvePoint, Report, Sample


def write_report(path: str | Path, report: Report) -> None:
    """Render a report as one self-contained HTML file.

    Raises:
        ConfigError: jinja2 is not installed.
    """
    page = render_report(report)
    with atomic_write(path) as stream:
        stream.write(page)


def render_report(report: Report) -> str:
    """Render a report as HTML; all text in the report is escaped.

    Raises:
        ConfigError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise ConfigError("a report needs jinja2; install it with: pip install 'fairbeam[report]'") from None

    templates = Environment(
        loader=PackageLoader("fairbeam.report", package_path=""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = templates.get_template("report.html.j2").render(
        report=report, charts=_charts(report.points), samples=[_sample(sample) for sample in report.samples]
    )
    # JSON may contain half of a surrogate pair, which UTF-8 cannot encode.
    return page.encode("utf-8", errors="replace").decode("utf-8")


def _charts(points: Sequence[CurvePoint]) -> list[LineChart]:
    loss = {
        "training": _series(points, lambda point: point.train_loss),
        "validation": _series(points, lambda point: point.valid_loss),
    }
    bleu = {"validation": _series(points, lambda point: point.valid_bleu)}
    panels = {
        title: {name: pairs for name, pairs in series.items() if pairs}
        for title, series in (("Loss per token", loss), ("Validation BLEU", bleu))
    }
    drawn = {title: series for title, series in panels.items() if series}
    width = 480 if len(drawn) > 1 else 960  # a single chart takes the whole row
    return [
        line_chart(title, series, width=width, from_zero=title == "Validation BLEU") for title, series in drawn.items()
    ]


def _series(points: Sequence[CurvePoint], value: Callable[[CurvePoint], float | None]) -> Points:
    pairs = ((point.update, value(point)) for point in points)
    return [(update, number) for update, number in pairs if number is not None]


def _sample(sample: Sample) -> dict[str, Any]:
    return {
        "source": sample.source,
        "references": sample.references,
        "words": marked_words(sample.hypothesis, sample.references),
        "map": heat_map(sample.attention) if sample.attention else None,
    }


def marked_words(hypothesis: str, references: Sequence[str]) -> list[tuple[str, bool]]:
    """Return the hypothesis's words, each with whether a reference contains it, ignoring punctuation."""
    known = {_bare(word) for reference in references for word in reference.split()}
    return [(word, not references or _bare(word) in known) for word in hypothesis.split()]


def _bare(word: str) -> str:
    return word.strip(string.punctuation + "„“”‚‘’«»…–—") or word
