"""Options of our search that fairseq's commands do not have; they become options of the task."""

from dataclasses import dataclass, field
from typing import Any, Optional

from fairseq.dataclass import FairseqDataclass


def _option(text: str) -> Any:
    return field(default=None, metadata={"help": text})


@dataclass
class SearchOptions(FairseqDataclass):
    """Names are those of ``GenerationOptions``; None is its default."""

    min_p: Optional[float] = _option("draw from tokens of at least this share of the highest probability")
    typical_p: Optional[float] = _option("draw from the most typical tokens of this probability together")
    epsilon_cutoff: Optional[float] = _option("draw from tokens of at least this probability")
    repetition_penalty: Optional[float] = _option("above 1 shuns tokens that the hypothesis holds")
    length_normalization: Optional[str] = _option("power (length ** lenpen) or gnmt (((5 + length) / 6) ** lenpen)")
    coverage_penalty: Optional[float] = _option("weight of GNMT's coverage penalty")
    beam_patience: Optional[float] = _option("stop a sentence at beam * patience finished hypotheses")
    mbr: Optional[str] = _option("rank by minimum Bayes risk: bleu or chrf, of the beam's hypotheses or samples")
    channel_model: Optional[str] = _option(
        "a model that translates back, with any tokenizer: ranks the --beam hypotheses anew (noisy channel)"
    )
    ch_wt: Optional[float] = _option(
        "times the log probability of the source by --channel-model, divided by the source's length; 1 by default"
    )
    lm_model: Optional[str] = _option(
        "a language model with any tokenizer: ranks the --beam hypotheses anew (--lm-path counts in the search)"
    )
    lm_wt: Optional[float] = _option(
        "times the log probability of a hypothesis by --lm-model, divided by the source's length; 1 by default"
    )
    prefix_bias_beta: Optional[float] = _option(
        "favour the prefix of --prefix-size by this probability, below 1, instead of forcing it"
    )
    return_alternatives: Optional[bool] = _option(
        "the --nbest most probable tokens behind the prefix, each with the best hypothesis that goes on from it"
    )
    min_alternative_expansion_prob: Optional[float] = _option("leave out alternatives that are less probable")
    min_len_a: Optional[float] = _option("at least A times the source's tokens, plus --min-len")
    encoder_repetition_penalty: Optional[float] = _option("above 1 favours tokens of the source")
    encoder_no_repeat_ngram_size: Optional[int] = _option("no n-gram of this size of the source occurs in the output")
    first_token: Optional[int] = _option("id that every output begins with")
    last_token: Optional[int] = _option("id that every output ends with, before </s>")
    ensemble_weights: Optional[str] = _option("how much each model counts, numbers between commas")
    stochastic_beam: Optional[bool] = _option("draw --beam samples without replacement")
    penalty_alpha: Optional[float] = _option("contrastive search among the --beam best tokens; 0.6 is usual")
    prompt_lookup_num_tokens: Optional[int] = _option(
        "with --beam 1, the same text: verify so many tokens at once that the source or the hypothesis had behind the "
        "same n-gram"
    )
    prompt_lookup_max_ngram: Optional[int] = _option("longest n-gram that is looked up; 3 by default")
    draft_model: Optional[str] = _option(
        "with --beam 1, the same text: a smaller model of the same dictionaries drafts what the model verifies"
    )
    draft_tokens: Optional[int] = _option("tokens that --draft-model writes ahead; 4 by default")
    allowed_outputs_file: Optional[str] = _option("outputs are lines of this file")
    constraints_file: Optional[str] = _option(
        "phrases that outputs must contain, a line for each sentence of --gen-subset, phrases separated by tabs, "
        "alternatives by |||; in any order unless --constraints ordered is given"
    )
