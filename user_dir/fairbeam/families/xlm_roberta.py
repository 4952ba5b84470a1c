"""XLM-R (Conneau et al., 2020): RoBERTa under another name."""

from dataclasses import replace

from fairbeam.families import roberta

FAMILY = replace(
    roberta.FAMILY,
    model_type="xlm-roberta",
    defaults={**roberta.FAMILY.defaults, "vocab_size": 30522},
)
