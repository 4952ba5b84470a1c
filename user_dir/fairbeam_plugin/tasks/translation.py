"""``--task fairbeam_translation``: fairseq's translation task with our batches, decoding and scores."""

import logging
from typing import Any, Dict, List, Optional

import numpy as np
import torch
from fairseq.data import Dictionary, FairseqDataset, ListDataset, iterators
from fairseq.tasks import FairseqTask, register_task

from fairbeam.errors import ConfigError
from fairbeam.families.fairseq.transformer import UnsupportedArchitecture
from fairbeam.model import Bundle
from fairbeam_plugin.generator import FairbeamGenerator, GenerateRequest, PendingBatch
from fairbeam_plugin.scoring import Transcript
from fairbeam_plugin.tasks.batches import BatchOptions, batch_iterator, fitting_indices
from fairbeam_plugin.tasks.build_generator import GeneratorBuilder, with_language_model
from fairbeam_plugin.tasks.config import FairbeamTranslationConfig
from fairbeam_plugin.tasks.datasets import TaskData
from fairbeam_plugin.tasks.search_options import stock_only_options
from fairbeam_plugin.tasks.texts import TaskTextSides, bundle_dictionaries, read_bundle
from fairbeam_plugin.tasks.validation import ValidationBleu

logger = logging.getLogger(__name__)


@register_task("fairbeam_translation", dataclass=FairbeamTranslationConfig)
class FairbeamTranslationTask(ValidationBleu):
    """Translation over a ``data-bin`` folder, or over a folder of plain text with dictionaries and a subword model.

    Everything of fairseq's ``translation`` task keeps its name and meaning.
    """

    cfg: FairbeamTranslationConfig

    @classmethod
    def setup_task(cls, cfg: FairbeamTranslationConfig, **options: Any) -> "FairbeamTranslationTask":
        """Return the task with the data's dictionaries, or with the vocabularies of a pretrained model."""
        if cfg.bundle is None:
            return super().setup_task(cfg, **options)
        model = read_bundle(cfg)
        return cls(cfg, *bundle_dictionaries(model), model)

    def __init__(
        self,
        cfg: FairbeamTranslationConfig,
        src_dict: Dictionary,
        tgt_dict: Dictionary,
        bundle: Optional[Bundle] = None,
    ) -> None:
        super().__init__(cfg, src_dict, tgt_dict)
        self.bundle = bundle
        if cfg.left_pad_target:
            raise ConfigError("--left-pad-target True: the target is padded on the right here")
        self.transcript = tgt_dict.transcript = Transcript()  # where a scorer built for this dictionary looks
        self.text = TaskTextSides(cfg, src_dict, tgt_dict, bundle)
        self.data = TaskData(self.text)
        self._generators = GeneratorBuilder(self.text)

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs: Any) -> None:
        """Load a split: plain text where there is some and it is asked for or nothing is binarised."""
        loaded = self.data.dataset(split)
        if loaded is None:
            super().load_dataset(split, epoch=epoch, combine=combine, **kwargs)
            loaded = self.data.marked(self.datasets[split])
        self.datasets[split] = loaded
        if split != self.cfg.train_subset:  # whose text nothing is scored against
            self.data.read_annotations(split, len(loaded))

    def build_dataset_for_inference(self, src_tokens: Any, src_lengths: Any, constraints: Any = None) -> Any:
        """Return sources of ``fairseq-interactive``, marked like those of a split."""
        if self.bundle is None:
            dataset = super().build_dataset_for_inference(src_tokens, src_lengths, constraints=constraints)
            dataset.src = ListDataset(src_tokens, src_lengths)
            return self.data.marked(dataset)
        return self.data.bundle_pairs(src_tokens, src_lengths, None, None, "test")

    def get_batch_iterator(
        self, dataset: FairseqDataset, *arguments: Any, **options: Any
    ) -> iterators.EpochBatchIterator:
        """Return batches of like lengths, made anew every epoch from ``seed + epoch``; arguments are fairseq's."""
        split = next((name for name, loaded in self.datasets.items() if loaded is dataset), None)
        return batch_iterator(
            dataset,
            self.data.collater(dataset, split),
            BatchOptions(*arguments, **options),
            self.filter_indices_by_size,
            training=split == self.cfg.train_subset,
            reports=split is not None,  # fairseq-interactive has many iterators, a line or a few of its input each
        )

    def filter_indices_by_size(
        self,
        indices: np.ndarray,
        dataset: FairseqDataset,
        max_positions: Any = None,
        ignore_invalid_inputs: bool = False,
    ) -> np.ndarray:
        """Leave out what is longer than the positions, with a warning; or refuse it by number."""
        return fitting_indices(indices, dataset, max_positions, ignore_invalid_inputs)

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """Build a model that refuses a checkpoint made for other dictionaries, naming both sizes."""
        model = FairseqTask.build_model(self, cfg, from_checkpoint)
        model.register_load_state_dict_pre_hook(self._check_rows)
        return model

    def _check_rows(self, module: torch.nn.Module, state: Dict[str, Any], *unused: Any) -> None:
        self.text.check_rows(state)

    def build_generator(
        self,
        models: List[Any],
        args: Any,
        seq_gen_cls: Any = None,
        extra_gen_cls_kwargs: Optional[Dict[str, Any]] = None,
        prefix_allowed_tokens_fn: Any = None,
    ) -> Any:
        """Build our generator, or stock's where an option or a model needs it, saying so."""
        extra = with_language_model(args, extra_gen_cls_kwargs or {}, self.cfg.data)
        reasons = stock_only_options(args)
        if seq_gen_cls is not None:
            reasons.append("a generator of the caller's own")
        if not reasons and not getattr(args, "score_reference", False):
            try:
                return self._generators.build(models, args, prefix_allowed_tokens_fn, extra.get("lm_model"))
            except UnsupportedArchitecture as error:
                reasons.append(str(error))
        self._generators.check_stock(reasons)
        if reasons:
            logger.warning(f"decoding with fairseq's own generator, in float32: {'; '.join(reasons)}")
        if self.text.symbols:
            extra = {"eos": self.text.eos, **extra}
        return super().build_generator(models, args, seq_gen_cls, extra, prefix_allowed_tokens_fn)

    def build_bpe(self, args: Any) -> Any:
        """Return the subwords of ``--bpe``, or else those that came with the data or the model."""
        codec = None if self.bundle is not None else super().build_bpe(args)
        return self.text.codec() if codec is None else codec

    def inference_step(
        self,
        generator: Any,
        models: List[Any],
        sample: Dict[str, Any],
        prefix_tokens: Any = None,
        constraints: Any = None,
    ) -> Any:
        """Decode a batch, let the next ones begin, and keep the best texts for the score."""
        hypotheses = super().inference_step(generator, models, sample, prefix_tokens, constraints)
        pending = PendingBatch.of(sample)
        if pending is not None and isinstance(generator, FairbeamGenerator):
            pending.follow(generator, GenerateRequest(prefix_tokens, constraints))
        for references, found in zip(sample.get("references") or [], hypotheses, strict=False):
            self.transcript.add(references, self.text.target_text(found[0]["tokens"]))
        return hypotheses
