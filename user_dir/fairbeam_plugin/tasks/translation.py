"""``--task fairbeam_translation``: fairseq's translation task with our batches, decoding and scores."""

import json
import logging
from argparse import Namespace
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
import torch
from fairseq import checkpoint_utils, utils
from fairseq.data import (
    AppendTokenDataset,
    Dictionary,
    FairseqDataset,
    LanguagePairDataset,
    ListDataset,
    PrependTokenDataset,
    data_utils,
    encoders,
    iterators,
)
from fairseq.dataclass import ChoiceEnum
from fairseq.logging import metrics
from fairseq.tasks import FairseqTask, register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask

from fairbeam.data.batching import BatchLimits, make_batches, padding_fraction, sorted_batches
from fairbeam.data.databin import DataBin, References
from fairbeam.data.lexical_shortlist import SHORTLIST, Shortlist
from fairbeam.errors import ConfigError, InputError, OptionName
from fairbeam.families.fairseq.registry import task_symbols
from fairbeam.families.fairseq.transformer import UnsupportedArchitecture
from fairbeam.files import read_lines, read_parallel
from fairbeam.formats.bundle import Bundle
from fairbeam.formats.fairseq import ModelFiles, generator, read_model, special_ids
from fairbeam.generation import Constraints, GenerationOptions, Required
from fairbeam.generation.search.speculative import DRAFT_TOKENS
from fairbeam.network import Generator, Precision
from fairbeam.reranking import CHANNEL_MODEL, LANGUAGE_MODEL, Reranker, Rescorer
from fairbeam.scoring import BleuStatistics
from fairbeam.text import Subwords, TextSide, Tokenizer, find_model
from fairbeam.text.phrases import phrase_ids, required_ids, split_phrases
from fairbeam_plugin.generator import (
    FairbeamGenerator,
    GenerateRequest,
    generation_options,
    language_model_of,
)
from fairbeam_plugin.generator import special_ids as special_of
from fairbeam_plugin.scoring import Transcript
from fairbeam_plugin.tasks.bundle_data import BundleCodec, BundleDictionary, BundlePairDataset, TargetLines
from fairbeam_plugin.tasks.read_ahead import ReadAheadIterator
from fairbeam_plugin.tasks.search_options import SearchOptions, own_options, stock_only_options
from fairbeam_plugin.tasks.text_dataset import EncodedLines, TextPairDataset

logger = logging.getLogger(__name__)

_BLEU = "_bleu_{}"


@dataclass
class FairbeamTranslationConfig(SearchOptions, TranslationConfig):
    """What the task adds to fairseq's translation options."""

    precision: ChoiceEnum([str(name) for name in Precision]) = field(  # type: ignore[valid-type]
        default="float32",
        metadata={"help": "precision to decode in; auto takes integers or bfloat16 where the hardware is fast at them"},
    )
    left_pad_source: bool = field(default=False, metadata={"help": "pad the source on the left"})
    bundle: Optional[str] = field(
        default=None,
        metadata={
            "help": "a pretrained model, a bundle or a Hugging Face folder, for --arch fairbeam_from_bundle; its "
            "tokenizers read the plain text of the data folder, and no dictionaries are needed"
        },
    )
    subword_sampling: float = field(
        default=0.0,
        metadata={
            "help": "segment training text anew every epoch: BPE-dropout with this probability, or unigram "
            "sampling with this smoothing; 0 uses the binarised data. A resumed run draws other segmentations "
            "than one that was not killed"
        },
    )
    langs: Optional[str] = field(
        default=None,
        metadata={
            "help": "languages of an mBART, with commas between, in the order of its dictionary; texts end with their "
            "language's symbol, as in fairseq's translation_from_pretrained_bart"
        },
    )
    prepend_bos: bool = field(default=False, metadata={"help": "begin binarised texts with <s>"})


class SubwordCodec:
    """Subwords behind the interface of fairseq's ``--bpe``."""

    def __init__(self, source: Subwords, target: Subwords) -> None:
        self.source = source
        self.target = target

    def encode(self, text: str) -> str:
        """Source text to pieces with spaces between."""
        return " ".join(self.source.encode(text))

    def decode(self, pieces: str) -> str:
        """Target pieces to text; text that ``--remove-bpe`` has joined already comes back as it is."""
        return self.target.decode(pieces.split(" ")) if "\u2581" in pieces else pieces


class Collater:
    """fairseq's batch of a split, with the raw references of its sentences and the phrases that outputs must contain
    where there are some."""

    def __init__(
        self,
        dataset: LanguagePairDataset,
        references: Optional[List[Tuple[str, ...]]],
        required: Optional[List[Required]],
    ) -> None:
        self.dataset = dataset
        self.references = references
        self.required = required

    def __call__(self, samples: List[Dict[str, Any]]) -> Dict[str, Any]:
        batch = self.dataset.collater(samples)
        if batch and self.references is not None:
            batch["references"] = [self.references[sentence] for sentence in batch["id"].tolist()]
        if batch and self.required is not None:
            batch["constraints"] = [self.required[sentence] for sentence in batch["id"].tolist()]
        return batch


@register_task("fairbeam_translation", dataclass=FairbeamTranslationConfig)
class FairbeamTranslationTask(TranslationTask):
    """Translation over a ``data-bin`` folder, or over a folder of plain text with dictionaries and a subword model.

    Everything of fairseq's ``translation`` task keeps its name and meaning.
    """

    cfg: FairbeamTranslationConfig

    @classmethod
    def setup_task(cls, cfg: FairbeamTranslationConfig, **options: Any) -> "FairbeamTranslationTask":
        """The task with the data's dictionaries, or with the vocabularies of a pretrained model."""
        if cfg.bundle is None:
            return super().setup_task(cfg, **options)
        if cfg.subword_sampling > 0:
            raise ConfigError("--subword-sampling: a pretrained model's own tokenizers do not sample")
        folder = utils.split_paths(cfg.data)[0]
        if cfg.source_lang is None or cfg.target_lang is None:
            cfg.source_lang, cfg.target_lang = data_utils.infer_language_pair(folder)
        if cfg.source_lang is None or cfg.target_lang is None:
            raise ConfigError(f"{folder}: which language is the source? Give --source-lang and --target-lang")
        model = read_model(cfg.bundle, ModelFiles(source_lang=cfg.source_lang, target_lang=cfg.target_lang))
        network = generator(model)
        if model.source is None or model.target is None:
            raise ConfigError(f"--bundle {cfg.bundle}: has no tokenizer; add the tokenizer's files to its folder")
        source = BundleDictionary(model, model.source, network.config.source_vocabulary)
        target = BundleDictionary(model, model.target, network.config.target_vocabulary)
        return cls(cfg, source, target, model)

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
        self.folder = Path(utils.split_paths(cfg.data)[0])
        self.transcript = tgt_dict.transcript = Transcript()  # where a scorer built for this dictionary looks
        self._references: Dict[str, Optional[List[Tuple[str, ...]]]] = {}
        self._required: Dict[str, Optional[List[Required]]] = {}
        self._validation_generator: Optional[Any] = None
        self._decoded: Optional[ReadAheadIterator] = None
        """The batches that may be decoded at present."""
        self._symbols = (
            task_symbols({"_name": "translation_from_pretrained_bart", "langs": cfg.langs}) if cfg.langs else ()
        )
        for symbol in self._symbols:
            src_dict.add_symbol(symbol)
            tgt_dict.add_symbol(symbol)
        if bundle is not None:
            self._target = bundle.target
        else:
            has_model = find_model(self.folder, cfg.target_lang) is not None
            self._target = self._tokenizer(cfg.target_lang) if has_model else None
        self._detokenizer = encoders.build_tokenizer(
            Namespace(tokenizer=cfg.eval_bleu_detok, **json.loads(cfg.eval_bleu_detok_args or "{}"))
        )

    def load_dataset(self, split: str, epoch: int = 1, combine: bool = False, **kwargs: Any) -> None:
        """Load a split: plain text where there is some and it is asked for or nothing is binarised."""
        source, target = self.cfg.source_lang, self.cfg.target_lang
        binarised = (self.folder / f"{split}.{source}-{target}.{source}.idx").is_file() or (
            self.folder / f"{split}.{target}-{source}.{source}.idx"
        ).is_file()
        sampled = self.cfg.subword_sampling > 0 and split == self.cfg.train_subset
        if self.bundle is not None:
            self.datasets[split] = self._bundle_dataset(split)
        elif sampled or (not binarised and self._text_path(split, source).is_file()):
            self.datasets[split] = self._text_dataset(split, sampled)
        else:
            super().load_dataset(split, epoch=epoch, combine=combine, **kwargs)
            self.datasets[split] = self._marked(self.datasets[split])
        if split != self.cfg.train_subset:  # whose text nothing is scored against
            self._references[split] = self._raw_references(split)
            self._required[split] = self._read_required(split)

    def _marked(self, dataset: LanguagePairDataset) -> LanguagePairDataset:
        """The same sentences with the symbols around them that ``--prepend-bos`` and ``--langs`` ask for."""
        if not (self.cfg.prepend_bos or self._symbols):
            return dataset
        sides = []
        for rows, dictionary, language in (
            (dataset.src, self.src_dict, self.cfg.source_lang), (dataset.tgt, self.tgt_dict, self.cfg.target_lang),
        ):  # fmt: skip
            if rows is not None and self.cfg.prepend_bos:
                rows = PrependTokenDataset(rows, dictionary.bos())
            if rows is not None and self._symbols:
                rows = AppendTokenDataset(rows, dictionary.index(f"[{language}]"))
            sides += [rows, None if rows is None else rows.sizes, dictionary]
        names = ("left_pad_source", "left_pad_target", "shuffle", "align_dataset", "pad_to_multiple", "constraints")
        return LanguagePairDataset(*sides, eos=self._eos, **{name: getattr(dataset, name) for name in names})

    @property
    def _eos(self) -> int:
        """What ends a target, and stands before it on the decoder's input."""
        return self.tgt_dict.index(f"[{self.cfg.target_lang}]") if self._symbols else self.tgt_dict.eos()

    def _text_path(self, split: str, language: str) -> Path:
        kept = self.folder / "raw" / f"{split}.{language}"
        return kept if kept.is_file() else self.folder / f"{split}.{language}"

    def _text_dataset(self, split: str, sampled: bool) -> TextPairDataset:
        paths = [self._text_path(split, language) for language in (self.cfg.source_lang, self.cfg.target_lang)]
        if paths[1].is_file():
            source_lines, target_lines = read_parallel(*paths)
            target = EncodedLines(
                [self._reference_format.separate(line)[0] for line in target_lines],
                self._tokenizer(self.cfg.target_lang),
            )
        else:
            source_lines, target = read_lines(paths[0]), None
        return TextPairDataset(
            EncodedLines(source_lines, self._tokenizer(self.cfg.source_lang)),
            target,
            self.src_dict,
            self.tgt_dict,
            alpha=self.cfg.subword_sampling if sampled else 0.0,
            left_pad_source=self.cfg.left_pad_source,
            left_pad_target=False,
            shuffle=split != "test",
            eos=self._eos,
        )

    def _bundle_dataset(self, split: str) -> BundlePairDataset:
        paths = [self._text_path(split, language) for language in (self.cfg.source_lang, self.cfg.target_lang)]
        if not paths[0].is_file():
            raise FileNotFoundError(f"{paths[0]}: no such file; a pretrained model reads plain text")
        source, target = EncodedLines(read_lines(paths[0]), self.bundle.source), None
        if paths[1].is_file():
            read_parallel(*paths)  # refuses sides of different lengths
            lines = [self._reference_format.separate(line)[0] for line in read_lines(paths[1])]
            target = EncodedLines(lines, TargetLines(self.bundle.target, self.tgt_dict.eos()))
        return self._bundle_pairs(source, source.sizes, target, None if target is None else target.sizes, split)

    def _bundle_pairs(self, source: Any, sizes: Any, target: Any, target_sizes: Any, split: str) -> BundlePairDataset:
        network = generator(self.bundle)
        start, _ = self.bundle.beginning()
        start = network.first_token if start is None else start
        return BundlePairDataset(
            source,
            sizes,
            target,
            target_sizes,
            self.tgt_dict,
            source_pad=network.config.padding_of_sources,
            start=self.tgt_dict.eos() if start is None else start,
            left_pad_source=self.cfg.left_pad_source,
            left_pad_target=False,
            shuffle=split != "test",
        )

    def build_dataset_for_inference(self, src_tokens: Any, src_lengths: Any, constraints: Any = None) -> Any:
        """Sources of ``fairseq-interactive``, marked like those of a split."""
        if self.bundle is None:
            dataset = super().build_dataset_for_inference(src_tokens, src_lengths, constraints=constraints)
            dataset.src = ListDataset(src_tokens, src_lengths)
            return self._marked(dataset)
        return self._bundle_pairs(src_tokens, src_lengths, None, None, "test")

    def _tokenizer(self, language: str) -> TextSide:
        if self.bundle is not None:
            return self.bundle.target if language == self.cfg.target_lang else self.bundle.source
        if find_model(self.folder, language) is None:
            raise InputError(f"{self.folder}: plain text needs a subword model (spm.model) beside it")
        tokenizer = Tokenizer.load(self.folder, language)
        return replace(tokenizer, dictionary=tokenizer.dictionary.extended(self._symbols))

    @property
    def _reference_format(self) -> References:
        return DataBin.open(self.folder).references if any(self.folder.glob("*.idx")) else References.NONE

    def _read_required(self, split: str) -> Optional[List[Required]]:
        """The phrases of ``--constraints-file`` as ids."""
        if self.cfg.constraints_file is None:
            return None
        lines = read_lines(self.cfg.constraints_file)
        if len(lines) != len(self.datasets[split]):
            raise InputError(
                f"{self.cfg.constraints_file} has {len(lines)} lines, but {split} has {len(self.datasets[split])} "
                "sentences"
            )
        side = Tokenizer.load(self.folder, self.cfg.target_lang)
        return [required_ids(side, split_phrases(line)) for line in lines]

    def _raw_references(self, split: str) -> Optional[List[Tuple[str, ...]]]:
        path = self._text_path(split, self.cfg.target_lang)
        if not path.is_file() or self._target is None:
            return None
        references = [self._reference_format.separate(line) for line in read_lines(path)]
        if len(references) != len(self.datasets[split]):
            raise InputError(
                f"{path} has {len(references)} lines, but {split} has {len(self.datasets[split])} sentences"
            )
        return references

    def get_batch_iterator(
        self,
        dataset: FairseqDataset,
        max_tokens: Optional[int] = None,
        max_sentences: Optional[int] = None,
        max_positions: Any = None,
        ignore_invalid_inputs: bool = False,
        required_batch_size_multiple: int = 1,
        seed: int = 1,
        num_shards: int = 1,
        shard_id: int = 0,
        num_workers: int = 0,
        epoch: int = 1,
        data_buffer_size: int = 0,
        disable_iterator_cache: bool = False,
        skip_remainder_batch: bool = False,
        grouped_shuffling: bool = False,
        update_epoch_batch_itr: bool = False,
    ) -> iterators.EpochBatchIterator:
        """Batches of like lengths, made anew every epoch from ``seed + epoch``; every sentence is in one.

        ``required_batch_size_multiple`` is accepted and ignored: no kernel here gains from it.
        """
        limits = BatchLimits(max_tokens=max_tokens, max_sentences=max_sentences)
        resampled = isinstance(dataset, TextPairDataset) and dataset.alpha > 0
        split = next((name for name, loaded in self.datasets.items() if loaded is dataset), None)
        training = split == self.cfg.train_subset

        def batches_of_epoch(dataset: LanguagePairDataset, epoch: int) -> List[np.ndarray]:
            if resampled:
                dataset.resample(seed + epoch)
            order = (
                np.random.RandomState(seed + epoch).permutation(len(dataset)) if training else np.arange(len(dataset))
            )
            order = self.filter_indices_by_size(order, dataset, max_positions, ignore_invalid_inputs)
            if not training:
                return sorted_batches(order, dataset.src_sizes, limits)
            batches = make_batches(order, dataset.src_sizes, dataset.tgt_sizes, limits)
            sides = [side for side in (dataset.src_sizes, dataset.tgt_sizes) if side is not None]
            share = padding_fraction(batches, *sides)
            logger.info(f"epoch {epoch}: {len(batches)} batches, {100 * share:.2f} % of positions are padding")
            return batches

        kind = iterators.EpochBatchIterator if training else ReadAheadIterator
        made = kind(
            dataset=dataset,
            collate_fn=Collater(dataset, self._references.get(split), self._required.get(split)),
            batch_sampler=batches_of_epoch,
            seed=seed,
            num_shards=num_shards,
            shard_id=shard_id,
            # Worker processes keep the dataset they were started with, so they must not outlive an epoch's subwords.
            # Where little is computed between batches, starting and stopping them costs seconds and saves nothing.
            num_workers=num_workers if training and not resampled else 0,
            epoch=epoch,
            buffer_size=data_buffer_size,
            skip_remainder_batch=skip_remainder_batch,
            grouped_shuffling=grouped_shuffling,
            reuse_dataloader=not resampled,
        )
        if isinstance(made, ReadAheadIterator):
            made.reports = split is not None  # fairseq-interactive has many, a line or a few of its input each
        self._decoded = made if isinstance(made, ReadAheadIterator) else None
        return made

    def filter_indices_by_size(
        self,
        indices: np.ndarray,
        dataset: FairseqDataset,
        max_positions: Any = None,
        ignore_invalid_inputs: bool = False,
    ) -> np.ndarray:
        """Leave out what is longer than the positions, with a warning; or refuse it by number."""
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

    def build_model(self, cfg: Any, from_checkpoint: bool = False) -> Any:
        """Build a model that refuses a checkpoint made for other dictionaries, naming both sizes."""
        model = FairseqTask.build_model(self, cfg, from_checkpoint)
        model.register_load_state_dict_pre_hook(self._check_vocabularies)
        return model

    def _check_vocabularies(self, module: torch.nn.Module, state: Dict[str, Any], *unused: Any) -> None:
        if self.bundle is not None:
            return
        for names, dictionary, language in (
            (("network.source_embedding.weight", "encoder.embed_tokens.weight"), self.src_dict, self.cfg.source_lang),
            (("network.target_embedding.weight", "decoder.embed_tokens.weight"), self.tgt_dict, self.cfg.target_lang),
        ):
            for name in names:
                if name in state and len(state[name]) != len(dictionary):
                    raise InputError(
                        f"the checkpoint's {name} has {len(state[name])} rows, but {self.folder}/dict.{language}.txt "
                        f"has {len(dictionary)} entries; decode with the dictionaries the model was trained with"
                    )

    def build_generator(
        self,
        models: List[Any],
        args: Any,
        seq_gen_cls: Any = None,
        extra_gen_cls_kwargs: Optional[Dict[str, Any]] = None,
        prefix_allowed_tokens_fn: Any = None,
    ) -> Any:
        """Our beam search, or stock's generator where an option or a model needs it, saying so."""
        extra = self._with_language_model(args, extra_gen_cls_kwargs or {})
        reasons = stock_only_options(args)
        if seq_gen_cls is not None:
            reasons.append("a generator of the caller's own")
        if not reasons and not getattr(args, "score_reference", False):
            try:
                chosen = self._generation_options(args, prefix_allowed_tokens_fn)
                alignment = getattr(args, "print_alignment", None) or None
                return self._own_generator(models, chosen, alignment, extra.get("lm_model"))
            except UnsupportedArchitecture as error:
                reasons.append(str(error))
        if reasons and self.bundle is not None:
            raise ConfigError(f"a pretrained model is decoded by our search alone, which lacks {'; '.join(reasons)}")
        if reasons and (own := own_options(self.cfg)):
            raise ConfigError(f"{own[0]}: our search alone has it, which lacks {'; '.join(reasons)}")
        if reasons:
            logger.warning(f"decoding with fairseq's own generator, in float32: {'; '.join(reasons)}")
        if self._symbols:
            extra = {"eos": self._eos, **extra}
        return super().build_generator(models, args, seq_gen_cls, extra, prefix_allowed_tokens_fn)

    def _with_language_model(self, args: Any, extra: Dict[str, Any]) -> Dict[str, Any]:
        """Arguments with the model of ``--lm-path``, which ``fairseq-generate`` alone loads itself."""
        path = getattr(args, "lm_path", None)
        if path is None or extra.get("lm_model") is not None:
            return extra
        (model,), _ = checkpoint_utils.load_model_ensemble([path], arg_overrides={"data": self.cfg.data}, task=None)
        return {**extra, "lm_model": model, "lm_weight": getattr(args, "lm_weight", 0.0)}

    @cached_property
    def _reranker(self) -> Reranker:
        """The models that rank finished hypotheses, with their own texts."""
        device = torch.device("cpu")
        channel, beside = self.cfg.channel_model, self.cfg.lm_model
        back = ModelFiles(source_lang=self.cfg.target_lang, target_lang=self.cfg.source_lang)
        return Reranker(
            channel=None if channel is None else Rescorer(read_model(channel, back), device, CHANNEL_MODEL),
            language_model=None if beside is None else Rescorer(read_model(beside), device, LANGUAGE_MODEL),
        )

    def _own_generator(
        self, models: List[Any], options: GenerationOptions, alignment: Optional[str], language_model: Any
    ) -> FairbeamGenerator:
        special, beginning = replace(special_of(self.tgt_dict), eos=self._eos), (None, None)
        if self.bundle is not None:
            special, beginning = special_ids(self.bundle), self.bundle.beginning()
        precision = Precision.parse(str(self.cfg.precision))
        return FairbeamGenerator(
            models,
            options,
            special,
            precision,
            beginning,
            alignment=alignment,
            text=self._text,
            shortlist=self._shortlist(),
            language_model=language_model_of(language_model, self.tgt_dict) if options.lm_weight else None,
            reranker=self._reranker,
            source_text=self._source_text,
            draft=self._draft() if options.draft_tokens else None,
            one_vocabulary=self.src_dict == self.tgt_dict,
        )

    def _draft(self) -> Optional[Generator]:
        """The network of ``--draft-model``, which has our dictionaries."""
        if self.cfg.draft_model is None:
            return None
        files = ModelFiles(
            data=None if self.bundle is not None else self.folder,
            source_lang=self.cfg.source_lang,
            target_lang=self.cfg.target_lang,
        )
        model = read_model(self.cfg.draft_model, files)
        for side, dictionary in ((model.source, self.src_dict), (model.target, self.tgt_dict)):
            # A pretrained model's embedding may have more rows than there are symbols.
            known = [] if side is None else side.symbols(range(min(len(side), len(dictionary))))
            if side is None or known != list(dictionary.symbols)[: len(side)]:
                raise ConfigError(f"--draft-model {self.cfg.draft_model}: must have the model's dictionaries")
        return generator(model)

    def _shortlist(self) -> Optional[Shortlist]:
        """That of the bundle or of the data folder, if it is asked for and there; languages' symbols are in no list."""
        if self.bundle is not None:
            return self.bundle.shortlist
        if not self.cfg.shortlist or not (self.folder / SHORTLIST).is_file():
            return None
        found = Shortlist.load(self.folder / SHORTLIST)
        return found.extended(len(self.src_dict), len(self.tgt_dict)) if self._symbols else found

    def _generation_options(self, args: Any, prefix_allowed_tokens_fn: Any) -> GenerationOptions:
        options = generation_options(args, self.cfg, self._reranker)
        if options.lm_weight and getattr(args, "lm_path", None) is None:
            names = OptionName("lm_weight"), options.lm_weight, OptionName("lm_path")
            raise ConfigError("{} {}: there is no language model; {} names one", *names)
        if options.prefix_bias_beta and not getattr(args, "prefix_size", 0):
            names = OptionName("prefix_bias_beta"), options.prefix_bias_beta, OptionName("prefix_size")
            raise ConfigError("{} {}: needs {}", *names)
        if getattr(args, "replace_unk", None) is not None and getattr(args, "print_alignment", None) == "soft":
            raise ConfigError(
                "--replace-unk and --print-alignment soft exclude each other; hard alignments can do both"
            )
        extra: Dict[str, Any] = {}
        if options.constraints is None and self.cfg.constraints_file is not None:
            extra["constraints"] = Constraints.UNORDERED
        if prefix_allowed_tokens_fn is not None:
            extra["prefix_allowed_tokens_fn"] = prefix_allowed_tokens_fn
        if self.cfg.allowed_outputs_file is not None:
            extra["allowed_outputs"] = phrase_ids(
                self._tokenizer(self.cfg.target_lang), read_lines(self.cfg.allowed_outputs_file)
            )
        if self.cfg.draft_model is not None and not options.draft_tokens:
            extra["draft_tokens"] = DRAFT_TOKENS
        return replace(options, **extra)

    def build_bpe(self, args: Any) -> Any:
        """The subwords of ``--bpe``, or else those that came with the data or the model."""
        if self.bundle is not None:
            return BundleCodec(self.tgt_dict)
        codec = super().build_bpe(args)
        if codec is None and self._target is not None:
            source = Tokenizer.load(self.folder, self.cfg.source_lang)
            codec = SubwordCodec(source.subwords, self._target.subwords)
        return codec

    def inference_step(
        self,
        generator: Any,
        models: List[Any],
        sample: Dict[str, Any],
        prefix_tokens: Any = None,
        constraints: Any = None,
    ) -> Any:
        """Decode a batch and keep the best texts for the score."""
        hypotheses = super().inference_step(generator, models, sample, prefix_tokens, constraints)
        reading = None if self._decoded is None else self._decoded.latest
        if reading is not None and isinstance(generator, FairbeamGenerator):
            reading.follow(generator, sample, GenerateRequest(prefix_tokens, constraints))
        for references, found in zip(sample.get("references") or [], hypotheses, strict=False):
            self.transcript.add(references, self._text(found[0]["tokens"]))
        return hypotheses

    def _text(self, tokens: torch.Tensor) -> str:
        """Ids to text, through the subwords that came with the data or else as ``--eval-bleu-*`` say."""
        if self._target is not None:
            return self._target.decode(utils.strip_pad(tokens, self.tgt_dict.pad()).tolist())
        text = self.tgt_dict.string(tokens, self.cfg.eval_bleu_remove_bpe)
        return text if self._detokenizer is None else self._detokenizer.decode(text)

    def _source_text(self, tokens: torch.Tensor) -> str:
        """A source's ids to text, through the subwords that came with the data."""
        if self.bundle is not None:
            return self.bundle.source.decode(tokens.tolist())
        side = Tokenizer.load(self.folder, self.cfg.source_lang)
        return replace(side, dictionary=side.dictionary.extended(self._symbols)).decode(tokens.tolist())

    def begin_valid_epoch(self, epoch: int, model: Any) -> None:
        """Forget the generator of the last validation: it decodes with a copy of weights that have moved on."""
        super().begin_valid_epoch(epoch, model)
        self._validation_generator = None

    def valid_step(self, sample: Dict[str, Any], model: Any, criterion: Any) -> Tuple[Any, int, Dict[str, Any]]:
        """Loss of a batch, and with ``--eval-bleu`` the statistics of its BLEU."""
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
        hypotheses = [self._text(hypotheses[0]["tokens"]) for hypotheses in found]
        references = sample.get("references") or [(self._text(row),) for row in sample["target"]]
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
