"""Evaluation metrics with signatures: BLEU, chrF and TER by sacreBLEU, ROUGE by rouge-score.

Hypotheses are one string per sentence. References are one entry per sentence: a string, or a sequence of several
strings (`from_streams` and `from_tabs` build them from parallel files and from tab-separated lines).
"""

from fairbeam.scoring.bleu_statistics import BleuStatistics
from fairbeam.scoring.metrics import METRICS, MetricOptions, bleu, chrf, evaluate, ter
from fairbeam.scoring.references import References, from_streams, from_tabs
from fairbeam.scoring.rouge import rouge
from fairbeam.scoring.score import Score
from fairbeam.scoring.significance import PairedResults, paired_test

__all__ = [
    "METRICS",
    "BleuStatistics",
    "MetricOptions",
    "PairedResults",
    "References",
    "Score",
    "bleu",
    "chrf",
    "evaluate",
    "from_streams",
    "from_tabs",
    "paired_test",
    "rouge",
    "ter",
]
