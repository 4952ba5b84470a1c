"""BLEU of validation text during training (``--eval-bleu``)."""

import json
import logging
from argparse import Namespace
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
from fairseq.logging import metrics
from fairseq.tasks import FairseqTask
from fairseq.tasks.translation import TranslationTask

from fairbeam.scoring import BleuStatistics
from fairbeam_plugin.tasks.texts import TaskTextSides

logger = logging.getLogger(__name__)

_BLEU = "_bleu_{}"


class ValidationBleu(TranslationTask):
    """fairseq's hooks of validation, which score text."""

    text: TaskTextSides
    _validation_generator: Optional[Any] = None

    def begin_valid_epoch(self, epoch: int, model: Any) -> None:
        """Forget the generator of the last validation: it decodes with a copy of weights that have moved on."""
        super().begin_valid_epoch(epoch, model)
        self._validation_generator = None

    def valid_step(self, sample: Dict[str, Any], model: Any, criterion: Any) -> Tuple[Any, int, Dict[str, Any]]:
        """Return the loss of a batch, and with ``--eval-bleu`` the statistics of its BLEU."""
        loss, sample_size, logging_output = FairseqTask.valid_step(self, sample, model, criterion)
        if self.cfg.eval_bleu:
            if self._validation_generator is None:
                options = Namespace(**json.loads(self.cfg.eval_bleu_args or "{}"))
                self._validation_generator = self.build_generator([model], options)
            statistics = self._bleu_statistics(self._validation_generator, sample, model)
            logging_output.update({_BLEU.format(i): count for i, count in enumerate(statistics.numbers)})
        return loss, sample_size, logging_output

    def _bleu_statistics(self, generator: Any, sample: Dict[str, Any], model: Any) -> BleuStatistics:
        found = FairseqTask.inference_step(self, generator, [model], sample)
        hypotheses = [self.text.target_text(hypotheses[0]["tokens"]) for hypotheses in found]
        references = sample.get("references") or [(self.text.target_text(row),) for row in sample["target"]]
        if self.cfg.eval_bleu_print_samples:
            logger.info(f"example hypothesis: {hypotheses[0]}")
            logger.info(f"example reference: {references[0][0]}")
        return BleuStatistics.of(hypotheses, references)

    def reduce_metrics(self, logging_outputs: List[Dict[str, Any]], criterion: Any) -> None:
        """Log the criterion's figures and corpus BLEU: counts add over batches and machines, scores do not."""
        FairseqTask.reduce_metrics(self, logging_outputs, criterion)
        if not self.cfg.eval_bleu or _BLEU.format(0) not in logging_outputs[0]:
            return
        width = len(BleuStatistics().numbers)
        sums = [sum(float(log.get(_BLEU.format(i), 0)) for log in logging_outputs) for i in range(width)]
        metrics.log_scalar("_bleu", np.array(sums))
        metrics.log_derived("bleu", _corpus_bleu)


def _corpus_bleu(meters: Any) -> float:
    return round(BleuStatistics.from_numbers(np.asarray(meters["_bleu"].sum).tolist()).score().value, 2)
