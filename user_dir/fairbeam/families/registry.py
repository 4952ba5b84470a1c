"""Registry of the model families that Hugging Face keeps, by ``model_type``."""

from fairbeam.families import (
    albert,
    bart,
    bert,
    ctrl,
    distilbert,
    electra,
    gpt2,
    llama,
    m2m_100,
    marian,
    mbart,
    mistral,
    mt5,
    openai_gpt,
    pegasus,
    qwen2,
    roberta,
    t5,
    transfo_xl,
    xlm_roberta,
)
from fairbeam.families import pairs as encoder_decoder
from fairbeam.families.spec import FamilySpec

_FAMILIES: tuple[FamilySpec, ...] = (
    *(module.FAMILY for module in (bart, mbart, marian, pegasus, m2m_100, t5, mt5)),
    *(module.FAMILY for module in (bert, roberta, xlm_roberta, distilbert, electra, albert)),
    *(module.FAMILY for module in (gpt2, openai_gpt, ctrl, transfo_xl, llama, mistral, qwen2)),
    encoder_decoder.FAMILY,
)
FAMILIES = {family.model_type: family for family in _FAMILIES}
"""Family of each ``model_type``."""
