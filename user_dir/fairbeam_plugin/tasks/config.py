"""Options of ``--task fairbeam_translation``."""

from dataclasses import dataclass, field
from typing import Optional

from fairseq.dataclass import ChoiceEnum
from fairseq.tasks.translation import TranslationConfig

from fairbeam.network import Precision
from fairbeam_plugin.tasks.search_options import SearchOptions


@dataclass
class FairbeamTranslationConfig(SearchOptions, TranslationConfig):
    """fairseq's translation options, and the task's own."""

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
