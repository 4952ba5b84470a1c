"""Datasets of a task's splits: binarised, of plain text, or for a pretrained model."""

from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from fairseq.data import AppendTokenDataset, LanguagePairDataset, PrependTokenDataset

from fairbeam.data.databin import DataBin, References
from fairbeam.errors import InputError
from fairbeam.files import read_lines, read_parallel
from fairbeam.generation import Required
from fairbeam.model import generator
from fairbeam.text.phrases import required_ids, split_phrases
from fairbeam_plugin.tasks.bundle_data import BundlePairDataset, TargetLines
from fairbeam_plugin.tasks.text_dataset import EncodedLines, TextPairDataset
from fairbeam_plugin.tasks.texts import TaskTextSides


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


class TaskData:
    """The data folder of a task."""

    def __init__(self, text: TaskTextSides) -> None:
        self.text, self.cfg, self.folder = text, text.cfg, text.folder
        self._references: Dict[str, Optional[List[Tuple[str, ...]]]] = {}
        self._required: Dict[str, Optional[List[Required]]] = {}

    def dataset(self, split: str) -> Optional[LanguagePairDataset]:
        """Return the dataset of a split that is read from plain text: for a pretrained model, where subwords are
        sampled, or where nothing is binarised; None where binarised data is read."""
        source, target = self.cfg.source_lang, self.cfg.target_lang
        if self.text.bundle is not None:
            return self._bundle_dataset(split)
        binarised = any(
            (self.folder / f"{split}.{pair}.{source}.idx").is_file()
            for pair in (f"{source}-{target}", f"{target}-{source}")
        )
        sampled = self.cfg.subword_sampling > 0 and split == self.cfg.train_subset
        if sampled or (not binarised and self._path(split, source).is_file()):
            return self._text_dataset(split, sampled)
        return None

    def read_annotations(self, split: str, sentences: int) -> None:
        """Read the raw references of a split and its required phrases, where there are some.

        Raises:
            InputError: a file has another number of lines than the split has sentences.
        """
        self._references[split] = self._read_references(split, sentences)
        self._required[split] = self._read_required(split, sentences)

    def collater(self, dataset: LanguagePairDataset, split: Optional[str]) -> Collater:
        """Return what makes batches of a split's samples."""
        return Collater(dataset, self._references.get(split or ""), self._required.get(split or ""))

    def marked(self, dataset: LanguagePairDataset) -> LanguagePairDataset:
        """Return the same sentences with the tokens around them that ``--prepend-bos`` and ``--langs`` ask for."""
        text = self.text
        if not (self.cfg.prepend_bos or text.symbols):
            return dataset
        sides = []
        for rows, dictionary, language in (
            (dataset.src, text.source, self.cfg.source_lang), (dataset.tgt, text.target, self.cfg.target_lang),
        ):  # fmt: skip
            if rows is not None and self.cfg.prepend_bos:
                rows = PrependTokenDataset(rows, dictionary.bos())
            if rows is not None and text.symbols:
                rows = AppendTokenDataset(rows, dictionary.index(f"[{language}]"))
            sides += [rows, None if rows is None else rows.sizes, dictionary]
        names = ("left_pad_source", "left_pad_target", "shuffle", "align_dataset", "pad_to_multiple", "constraints")
        return LanguagePairDataset(*sides, eos=text.eos, **{name: getattr(dataset, name) for name in names})

    def bundle_pairs(self, source: Any, sizes: Any, target: Any, target_sizes: Any, split: str) -> BundlePairDataset:
        """Return sentence pairs, as ids, for the pretrained model."""
        network = generator(self.text.bundle)  # type: ignore[arg-type]
        prefix_start = self.text.prefix.start
        start = network.first_token if prefix_start is None else prefix_start
        return BundlePairDataset(
            source,
            sizes,
            target,
            target_sizes,
            self.text.target,
            source_pad=network.config.padding_of_sources,
            start=self.text.target.eos() if start is None else start,
            left_pad_source=self.cfg.left_pad_source,
            left_pad_target=False,
            shuffle=split != "test",
        )

    def _path(self, split: str, language: str) -> Path:
        kept = self.folder / "raw" / f"{split}.{language}"
        return kept if kept.is_file() else self.folder / f"{split}.{language}"

    def _paths(self, split: str) -> List[Path]:
        return [self._path(split, language) for language in (self.cfg.source_lang, self.cfg.target_lang)]

    def _text_dataset(self, split: str, sampled: bool) -> TextPairDataset:
        paths, text = self._paths(split), self.text
        if paths[1].is_file():
            source_lines, target_lines = read_parallel(*paths)
            lines = [self._reference_format.separate(line)[0] for line in target_lines]
            target = EncodedLines(lines, text.tokenizer(self.cfg.target_lang))
        else:
            source_lines, target = read_lines(paths[0]), None
        return TextPairDataset(
            EncodedLines(source_lines, text.tokenizer(self.cfg.source_lang)),
            target,
            text.source,
            text.target,
            alpha=self.cfg.subword_sampling if sampled else 0.0,
            left_pad_source=self.cfg.left_pad_source,
            left_pad_target=False,
            shuffle=split != "test",
            eos=text.eos,
        )

    def _bundle_dataset(self, split: str) -> BundlePairDataset:
        paths, text = self._paths(split), self.text
        if not paths[0].is_file():
            raise FileNotFoundError(f"{paths[0]}: no such file; a pretrained model reads plain text")
        source, target = EncodedLines(read_lines(paths[0]), text.side(self.cfg.source_lang)), None
        if paths[1].is_file():
            read_parallel(*paths)  # refuses sides of different lengths
            lines = [self._reference_format.separate(line)[0] for line in read_lines(paths[1])]
            target = EncodedLines(lines, TargetLines(text.side(self.cfg.target_lang), text.target.eos()))
        return self.bundle_pairs(source, source.sizes, target, None if target is None else target.sizes, split)

    @property
    def _reference_format(self) -> References:
        return DataBin.open(self.folder).references if any(self.folder.glob("*.idx")) else References.NONE

    def _read_required(self, split: str, sentences: int) -> Optional[List[Required]]:
        """Return the phrases of ``--constraints-file`` as ids."""
        if self.cfg.constraints_file is None:
            return None
        lines = read_lines(self.cfg.constraints_file)
        if len(lines) != sentences:
            raise InputError(
                f"{self.cfg.constraints_file} has {len(lines)} lines, but {split} has {sentences} sentences"
            )
        side = self.text.side(self.cfg.target_lang)
        return [required_ids(side, split_phrases(line)) for line in lines]

    def _read_references(self, split: str, sentences: int) -> Optional[List[Tuple[str, ...]]]:
        path = self._path(split, self.cfg.target_lang)
        if not path.is_file() or self.text.decoder is None:
            return None
        references = [self._reference_format.separate(line) for line in read_lines(path)]
        if len(references) != sentences:
            raise InputError(f"{path} has {len(references)} lines, but {split} has {sentences} sentences")
        return references
