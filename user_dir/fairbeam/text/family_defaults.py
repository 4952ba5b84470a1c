"""What the files of a family's tokenizer leave unsaid: a table, read by `from_hf`."""

import dataclasses
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from fairbeam.text.tokenizer_config import SpecialTokens, Template


class Appended(StrEnum):
    """Tokens behind a SentencePiece model's pieces: the folder's languages, T5's sentinels, or the mask."""

    LANGUAGES = "languages"
    SENTINELS = "sentinels"
    MASK = "mask"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Order of ids around a SentencePiece model that comes without a vocabulary.

    Attributes:
        first: tokens with the first ids.
        skipped: number of the model's first pieces that ``first`` replaces.
        last: tokens behind the model's pieces.
    """

    first: tuple[str, ...] = ()
    skipped: int = 0
    last: tuple[Appended, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FamilyDefaults:
    """Defaults of a family.

    Attributes:
        special: tokens with a role, unless a file names others.
        template: tokens around a text, where no ``tokenizer.json`` states them or where they name a language.
        legacy_template: template used instead if the options ask for ``legacy_behaviour``.
        languages: pattern of languages' tokens; its group is the code.
        opening: pattern of tokens that count at the beginning of a text only.
        layout: order of ids around a SentencePiece model alone.
        mask_lstrip: whether white space in front of the mask belongs to it.
    """

    special: SpecialTokens = field(default_factory=SpecialTokens)
    template: Template = field(default_factory=Template)
    legacy_template: Template | None = None
    languages: str = ""
    opening: str = ""
    layout: Layout = field(default_factory=Layout)
    mask_lstrip: bool = False

    def languages_among(self, tokens: Iterable[str]) -> dict[str, str]:
        """Return the code and the token of each language among ``tokens``."""
        matches = (re.fullmatch(self.languages, token) for token in tokens) if self.languages else ()
        return {match[1]: match[0] for match in matches if match}


_FAIRSEQ = SpecialTokens(bos="<s>", eos="</s>", unk="<unk>", pad="<pad>", cls="<s>", sep="</s>", mask="<mask>")
_FAIRSEQ_FIRST = ("<s>", "<pad>", "</s>", "<unk>")
_PEGASUS_FIRST = ("<pad>", "</s>", "<mask_1>", "<mask_2>", *(f"<unk_{i}>" for i in range(2, 103)))
_ENDED = Template(single=("$A", "</s>"), pair=("$A", "$B", "</s>"))
_PREFIXED = Template(single=("$LANG", "$A", "</s>"), pair=("$LANG", "$A", "$B", "</s>"))
_SUFFIXED = Template(single=("$A", "</s>", "$LANG"), pair=("$A", "$B", "</s>", "$LANG"))

_BERT = FamilyDefaults(
    special=SpecialTokens(unk="[UNK]", pad="[PAD]", cls="[CLS]", sep="[SEP]", mask="[MASK]"),
    template=Template(
        single=("[CLS]", "$A", "[SEP]"), pair=("[CLS]", "$A", "[SEP]", "$B", "[SEP]"), pair_types=(0, 0, 0, 1, 1)
    ),
)
_ROBERTA = FamilyDefaults(
    special=_FAIRSEQ,
    template=Template(single=("<s>", "$A", "</s>"), pair=("<s>", "$A", "</s>", "</s>", "$B", "</s>")),
    mask_lstrip=True,
)
_GPT2 = FamilyDefaults(special=SpecialTokens(bos="<|endoftext|>", eos="<|endoftext|>", unk="<|endoftext|>"))
_MBART = FamilyDefaults(
    special=_FAIRSEQ,
    template=_SUFFIXED,
    languages=r"([a-z]{2,3}_[A-Z]{2})",
    layout=Layout(first=_FAIRSEQ_FIRST, skipped=3, last=(Appended.LANGUAGES, Appended.MASK)),
    mask_lstrip=True,
)

_T5 = FamilyDefaults(
    special=SpecialTokens(eos="</s>", unk="<unk>", pad="<pad>"),
    template=Template(single=("$A", "</s>"), pair=("$A", "</s>", "$B", "</s>")),
    layout=Layout(last=(Appended.SENTINELS,)),
)
_LLAMA = FamilyDefaults(
    special=SpecialTokens(bos="<s>", eos="</s>", unk="<unk>"),
    template=Template(single=("<s>", "$A"), pair=("<s>", "$A", "<s>", "$B")),
)

SENTENCEPIECE_FAMILIES = {
    "pegasus": FamilyDefaults(
        special=SpecialTokens(eos="</s>", unk="<unk>", pad="<pad>", mask="<mask_2>"),
        template=_ENDED,
        layout=Layout(first=_PEGASUS_FIRST, skipped=2),
    ),
    "t5": _T5,
    "mt5": _T5,
    "xlm-roberta": dataclasses.replace(_ROBERTA, layout=Layout(first=_FAIRSEQ_FIRST, skipped=3, last=(Appended.MASK,))),
    "mbart": _MBART,
    "mbart50": dataclasses.replace(_MBART, template=_PREFIXED),
    "nllb": dataclasses.replace(
        _MBART, template=_PREFIXED, legacy_template=_SUFFIXED, languages=r"([a-z]{3}_[A-Z][a-z]{3})"
    ),
    "m2m_100": FamilyDefaults(
        special=dataclasses.replace(_FAIRSEQ, cls=None, mask=None),
        template=_PREFIXED,
        languages=r"__([a-z]{2,3})__",
        layout=Layout(last=(Appended.LANGUAGES,)),
    ),
    "marian": FamilyDefaults(
        special=SpecialTokens(eos="</s>", unk="<unk>", pad="<pad>"), template=_ENDED, opening=r">>.+<<"
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA,
}
"""Families whose SentencePiece models run in SentencePiece itself; siblings share a value."""

FAMILY_DEFAULTS = {
    **SENTENCEPIECE_FAMILIES,
    "bert": _BERT, "distilbert": _BERT, "electra": _BERT, "roberta": _ROBERTA, "bart": _ROBERTA, "led": _ROBERTA,
    "longformer": _ROBERTA, "gpt2": _GPT2,
}  # fmt: skip
"""Defaults by the family's name. Others have none: their ``tokenizer.json``, or its conversion, says all."""

TOKENIZER_CLASSES = {
    "BertTokenizer": "bert",
    "DistilBertTokenizer": "distilbert",
    "ElectraTokenizer": "electra",
    "RobertaTokenizer": "roberta",
    "BartTokenizer": "bart",
    "GPT2Tokenizer": "gpt2",
    "T5Tokenizer": "t5",
    "XLMRobertaTokenizer": "xlm-roberta",
    "MBartTokenizer": "mbart",
    "MBart50Tokenizer": "mbart50",
    "NllbTokenizer": "nllb",
    "M2M100Tokenizer": "m2m_100",
    "MarianTokenizer": "marian",
    "MT5Tokenizer": "mt5",
    "PegasusTokenizer": "pegasus",
    "LlamaTokenizer": "llama",
}
"""Family of a class that ``tokenizer_config.json`` names, without the suffix ``Fast``."""
