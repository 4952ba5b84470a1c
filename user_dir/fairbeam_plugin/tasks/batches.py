"""Batches of a dataset in fairseq's iterators."""

import logging
from dataclasses import dataclass
from typing import Any, Callable, List, Optional

import numpy as np
from fairseq.data import FairseqDataset, LanguagePairDataset, iterators

from fairbeam.data.batching import BatchLimits, make_batches, padding_fraction, sorted_batches
from fairbeam.errors import InputError
from fairbeam_plugin.tasks.datasets import Collater
from fairbeam_plugin.tasks.read_ahead import ReadAheadIterator
from fairbeam_plugin.tasks.text_dataset import TextPairDataset

logger = logging.getLogger(__name__)

Filter = Callable[[np.ndarray, FairseqDataset, Any, bool], np.ndarray]
"""Returns the indices of sentences that fit into positions, as ``filter_indices_by_size`` does."""


@dataclass(frozen=True)
class BatchOptions:
    """Arguments of fairseq's ``get_batch_iterator`` behind the dataset, in its order."""

    max_tokens: Optional[int] = None
    max_sentences: Optional[int] = None
    max_positions: Any = None
    ignore_invalid_inputs: bool = False
    required_batch_size_multiple: int = 1
    """Accepted and ignored: no kernel here gains from it."""
    seed: int = 1
    num_shards: int = 1
    shard_id: int = 0
    num_workers: int = 0
    epoch: int = 1
    data_buffer_size: int = 0
    disable_iterator_cache: bool = False
    skip_remainder_batch: bool = False
    grouped_shuffling: bool = False
    update_epoch_batch_itr: bool = False


def batch_iterator(
    dataset: FairseqDataset,
    collater: Collater,
    options: BatchOptions,
    fitting: Filter,
    *,
    training: bool,
    reports: bool,
) -> iterators.EpochBatchIterator:
    """Return batches of like lengths: shuffled for training; sorted, and read ahead, for anything else.

    Args:
        dataset: sentence pairs. collater: makes a batch of them. options: fairseq's. fitting: leaves out or refuses
            what is too long.
        training: whether the model is trained on them.
        reports: log how long an epoch took that was decoded.
    """
    resampled = isinstance(dataset, TextPairDataset) and dataset.alpha > 0
    limits = BatchLimits(max_tokens=options.max_tokens, max_sentences=options.max_sentences)

    def batches_of_epoch(dataset: LanguagePairDataset, epoch: int) -> List[np.ndarray]:
        """Return batches made anew every epoch from ``seed + epoch``; every sentence is in one."""
        seed = options.seed + epoch
        if resampled:
            dataset.resample(seed)
        order = np.random.RandomState(seed).permutation(len(dataset)) if training else np.arange(len(dataset))
        order = fitting(order, dataset, options.max_positions, options.ignore_invalid_inputs)
        if training:
            return _training_batches(dataset, epoch, order, limits)
        return sorted_batches(order, dataset.src_sizes, limits)

    kind = iterators.EpochBatchIterator if training else ReadAheadIterator
    made = kind(
        dataset=dataset,
        collate_fn=collater,
        batch_sampler=batches_of_epoch,
        seed=options.seed,
        num_shards=options.num_shards,
        shard_id=options.shard_id,
        # Worker processes keep the dataset they were started with, so they must not outlive an epoch's subwords.
        # Where little is computed between batches, starting and stopping them costs seconds and saves nothing.
        num_workers=options.num_workers if training and not resampled else 0,
        epoch=options.epoch,
        buffer_size=options.data_buffer_size,
        skip_remainder_batch=options.skip_remainder_batch,
        grouped_shuffling=options.grouped_shuffling,
        reuse_dataloader=not resampled,
    )
    if isinstance(made, ReadAheadIterator):
        made.reports = reports
    return made


def _training_batches(
    dataset: LanguagePairDataset, epoch: int, order: np.ndarray, limits: BatchLimits
) -> List[np.ndarray]:
    """Return batches of pairs of like lengths on both sides; log the share of padding."""
    batches = make_batches(order, dataset.src_sizes, dataset.tgt_sizes, limits)
    sides = [side for side in (dataset.src_sizes, dataset.tgt_sizes) if side is not None]
    share = padding_fraction(batches, *sides)
    logger.info(f"epoch {epoch}: {len(batches)} batches, {100 * share:.2f} % of positions are padding")
    return batches


def fitting_indices(
    indices: np.ndarray, dataset: FairseqDataset, max_positions: Any, ignore_invalid_inputs: bool
) -> np.ndarray:
    """Return the indices of sentences that fit into the positions; warn of the others if they are ignored.

    Raises:
        InputError: a sentence is too long, and not ignored; names it by number.
    """
    kept, ignored = dataset.filter_indices_by_size(np.asarray(indices), max_positions)
    if len(ignored) and not ignore_invalid_inputs:
        first = min(ignored)
        source, target = dataset.size(first)
        raise InputError(
            f"sentence {first + 1} has {source} source and {target} target tokens, but the model reads at most "
            f"{max_positions}; shorten it (--truncate-source shortens sources), or give "
            "--skip-invalid-size-inputs-valid-test to leave such sentences out"
        )
    if len(ignored):
        numbers = ", ".join(str(index + 1) for index in sorted(ignored)[:10])
        logger.warning(f"{len(ignored)} sentences are longer than {max_positions} tokens and left out: {numbers} …")
    return kept
