"""The score that ``fairseq-generate`` prints, of text against the raw references."""

from typing import Any, Callable, List, Tuple

from fairseq import scoring as fairseq_scoring
from omegaconf import DictConfig

from fairbeam.scoring import Score, evaluate
from fairbeam_plugin.patches.patching import mend

_OURS = {"bleu": "bleu", "sacrebleu": "bleu", "chrf": "chrf"}
"""fairseq's ``--scoring`` names and the metric that answers for each."""


class Transcript:
    """The best hypotheses of a run with the raw references of their sentences, as far as it has decoded."""

    def __init__(self) -> None:
        self.references: List[Tuple[str, ...]] = []
        self.hypotheses: List[str] = []

    def add(self, references: Tuple[str, ...], hypothesis: str) -> None:
        """One more sentence."""
        self.references.append(references)
        self.hypotheses.append(hypothesis)


class TranscriptScorer:
    """Scores text with sacreBLEU: the raw references where the data has them, else what the data decodes to."""

    def __init__(self, metric: str, transcript: Transcript) -> None:
        self.metric = metric
        self.transcript = transcript
        self.decoded = Transcript()

    def add_string(self, reference: str, hypothesis: str) -> None:
        """Called by fairseq for every sentence with the text it made of the data."""
        self.decoded.add((reference,), hypothesis)

    def result_string(self) -> str:
        """Score, signature, and what the references were."""
        if not self.decoded.hypotheses:
            return "no sentences to score"
        raw = bool(self.transcript.hypotheses)
        basis = "raw references" if raw else "references as the data decodes; no raw text was kept"
        return f"{self._evaluate().text} ({basis})"

    def score(self) -> float:
        """The figure alone."""
        return self._evaluate().value

    def _evaluate(self) -> Score:
        scored = self.transcript if self.transcript.hypotheses else self.decoded
        return evaluate(scored.hypotheses, scored.references, [self.metric])[0]


def apply() -> None:
    """Let a task that keeps a transcript be scored from it; other tasks are scored as before."""
    mend(fairseq_scoring, "build_scorer", build_scorer)


def build_scorer(stock: Callable, choice: Any, tgt_dict: Any) -> Any:
    """Stock scores strings that it splits at spaces; our task knows the text and its raw references."""
    name = choice._name if isinstance(choice, DictConfig) else choice
    transcript = getattr(tgt_dict, "transcript", None)
    if transcript is None or name not in _OURS:
        return stock(choice, tgt_dict)
    return TranscriptScorer(_OURS[name], transcript)
