"""fairseq's label-smoothed cross-entropy without its (tokens x vocabulary) matrix."""

from typing import Any, Dict, Tuple

from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterion,
    LabelSmoothedCrossEntropyCriterionConfig,
)
from torch import Tensor

from fairbeam.network.losses import label_smoothed_cross_entropy


@register_criterion("fairbeam_label_smoothed_cross_entropy", dataclass=LabelSmoothedCrossEntropyCriterionConfig)
class FairbeamLabelSmoothedCrossEntropy(LabelSmoothedCrossEntropyCriterion):
    """Same options, same numbers. Serves every model whose decoder ends in a plain ``output_projection``."""

    def forward(self, model: Any, sample: Dict[str, Any], reduce: bool = True) -> Tuple[Tensor, int, Dict[str, Any]]:
        """The summed loss of a batch, its sample size, and what to log (sums, in nats)."""
        if not reduce:
            raise NotImplementedError("losses of single tokens are never built here; use stock's criterion for them")
        features = model(**sample["net_input"], features_only=True)[0]
        target = sample["target"]
        if self.ignore_prefix_size > 0:
            features, target = features[:, self.ignore_prefix_size :], target[:, self.ignore_prefix_size :]
        sums = label_smoothed_cross_entropy(
            features.flatten(0, 1),
            model.decoder.output_projection.weight,
            target.flatten(),
            smoothing=self.eps,
            pad=self.padding_idx,
            bias=getattr(model.decoder.output_projection, "bias", None),
            dtype=getattr(model, "compute_dtype", features.dtype),
        )
        sample_size = target.size(0) if self.sentence_avg else sample["ntokens"]
        logging_output = {
            "loss": sums.loss.data,
            "nll_loss": sums.nll.data,
            "ntokens": sample["ntokens"],
            "nsentences": target.size(0),
            "sample_size": sample_size,
        }
        if self.report_accuracy:
            logging_output["n_correct"] = int(sums.correct)
            logging_output["total"] = int(target.ne(self.padding_idx).sum())
        return sums.loss, sample_size, logging_output
