"""``--scoring chrf`` gives a number."""

from typing import Callable

from fairseq.scoring.chrf import ChrFScorer

from fairbeam_plugin.patches.patching import mend


def apply() -> None:
    """Put this page's mend in place."""
    mend(ChrFScorer, "score", score)


def score(stock: Callable, scorer: ChrFScorer, order: int = 4) -> float:
    """chrF of what was added, 0 to 100; stock asks the formatted line, a string, for its score."""
    if order != 4:
        raise NotImplementedError(f"chrF has no order {order}; expected 4")
    return scorer.sacrebleu.corpus_chrf(scorer.pred, [scorer.ref]).score
