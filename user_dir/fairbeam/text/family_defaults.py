"""What families' tokenizers are where their folders do not say it: a table, read by ``hub.from_hf``."""

import dataclasses
from dataclasses import dataclass, field
from enum import StrEnum

from fairbeam.text.tokenizer_config import SpecialTokens, Template


class Extra(StrEnum):
    """What stands behind a SentencePiece model's pieces: the languages that the folder lists, T5's sentinels
    counted down, or the mask."""

    LANGUAGES = "languages"
    SENTINELS = "sentinels"
    MASK = "mask"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The ids of a SentencePiece model that comes without a vocabulary.

    Attributes:
        head: tokens with the first ids.
        skip: pieces at the model's front that give way to them.
        tail: what follows the model's pieces.
    """

    head: tuple[str, ...] = ()
    skip: int = 0
    tail: tuple[Extra, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a family's files leave unsaid.

    Attributes:
        special: the tokens with a role, unless a file names others.
        template: used where there is no ``tokenizer.json`` with one, or where it names a language.
        legacy: the template instead of it where the options ask for ``legacy_behaviour``.
        languages: a pattern that matches the tokens of languages; its group is the code.
        opening: a pattern of tokens that count at the beginning of a text only.
        layout: ids of a SentencePiece model alone.
        mask_lstrip: white space in front of the mask belongs to it.
        lowercase: what WordPiece does unless the options say otherwise.
    """

    special: SpecialTokens
    template: Template = field(default_factory=Template)
    legacy: Template | None = None
    languages: str = ""
    opening: str = ""
    layout: Layout = field(default_factory=Layout)
    mask_lstrip: bool = False
    lowercase: bool = True


_FAIRSEQ = SpecialTokens(bos="<s>", eos="</s>", unk="<unk>", pad="<pad>", cls="<s>", sep="</s>", mask="<mask>")
_FAIRSEQ_HEAD = ("<s>", "<pad>", "</s>", "<unk>")
_PEGASUS_HEAD = ("<pad>", "</s>", "<mask_1>", "<mask_2>", *(f"<unk_{i}>" for i in range(2, 103)))
_PREFIXED = Template(single=("$LANG", "$A", "</s>"), pair=("$LANG", "$A", "$B", "</s>"))
_SUFFIXED = Template(single=("$A", "</s>", "$LANG"), pair=("$A", "$B", "</s>", "$LANG"))

_BERT = Recipe(
    special=SpecialTokens(unk="[UNK]", pad="[PAD]", cls="[CLS]", sep="[SEP]", mask="[MASK]"),
    template=Template(
        single=("[CLS]", "$A", "[SEP]"),
        pair=("[CLS]", "$A", "[SEP]", "$B", "[SEP]"),
        pair_types=(0, 0, 0, 1, 1),
    ),
)
_ROBERTA = Recipe(
    special=_FAIRSEQ,
    template=Template(single=("<s>", "$A", "</s>"), pair=("<s>", "$A", "</s>", "</s>", "$B", "</s>")),
)
_MBART = Recipe(
    special=_FAIRSEQ,
    template=_SUFFIXED,
    languages=r"([a-z]{2,3}_[A-Z]{2})",
    layout=Layout(head=_FAIRSEQ_HEAD, skip=3, tail=(Extra.LANGUAGES, Extra.MASK)),
    mask_lstrip=True,
)

RECIPES = {
    "bert": _BERT,
    "distilbert": _BERT,
    "electra": _BERT,
    "roberta": _ROBERTA,
    "bart": _ROBERTA,
    "gpt2": Recipe(
        special=SpecialTokens(bos="<|endoftext|>", eos="<|endoftext|>", unk="<|endoftext|>"),
    ),
    "pegasus": Recipe(
        special=SpecialTokens(eos="</s>", unk="<unk>", pad="<pad>", mask="<mask_2>"),
        template=Template(single=("$A", "</s>"), pair=("$A", "$B", "</s>")),
        layout=Layout(head=_PEGASUS_HEAD, skip=2),
    ),
    "t5": Recipe(
        special=SpecialTokens(eos="</s>", unk="<unk>", pad="<pad>"),
        template=Template(single=("$A", "</s>"), pair=("$A", "</s>", "$B", "</s>")),
        layout=Layout(tail=(Extra.SENTINELS,)),
    ),
    "xlm-roberta": dataclasses.replace(
        _ROBERTA,
        layout=Layout(head=_FAIRSEQ_HEAD, skip=3, tail=(Extra.MASK,)),
        mask_lstrip=True,
    ),
    "mbart": _MBART,
    "mbart50": dataclasses.replace(_MBART, template=_PREFIXED),
    "nllb": dataclasses.replace(_MBART, template=_PREFIXED, legacy=_SUFFIXED, languages=r"([a-z]{3}_[A-Z][a-z]{3})"),
    "m2m_100": Recipe(
        special=dataclasses.replace(_FAIRSEQ, cls=None, mask=None),
        template=_PREFIXED,
        languages=r"__([a-z]{2,3})__",
        layout=Layout(tail=(Extra.LANGUAGES,)),
    ),
    "marian": Recipe(
        special=SpecialTokens(eos="</s>", unk="<unk>", pad="<pad>"),
        template=Template(single=("$A", "</s>"), pair=("$A", "$B", "</s>")),
        opening=r">>.+<<",
    ),
}
"""By the name of the family; siblings share a value."""

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
    "PegasusTokenizer": "pegasus",
}
"""The family of what ``tokenizer_config.json`` names, without its suffix ``Fast``."""
