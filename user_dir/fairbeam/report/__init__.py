"""One self-contained HTML page about a training run: curves, scores, samples and their attention."""

from fairbeam.doctor.environment import environment
from fairbeam.report.content import Attention, CurvePoint, Report, Sample, read_attention
from fairbeam.report.page import render_report, write_report
from fairbeam.report.training_log import read_training_log

__all__ = [
    "Attention",
    "CurvePoint",
    "Report",
    "Sample",
    "environment",
    "read_attention",
    "read_training_log",
    "render_report",
    "write_report",
]
