"""Tiny Hugging Face folders: random models of many families, and tokenizers learned from the demo corpus."""

import json
import warnings
from pathlib import Path

import torch

from fairbeam.demo.grammar import corpus

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
ROWS = 320
"""Of the embeddings; the vocabularies are smaller, as padded ones are."""
SIZES = {
    "vocab_size": ROWS, "d_model": 24, "max_position_embeddings": 40, "init_std": 0.1,
    "encoder_layers": 2, "encoder_attention_heads": 3, "encoder_ffn_dim": 40,
    "decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 28,
    "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "unk_token_id": 3,
}  # fmt: skip
ENCODER = {
    "vocab_size": ROWS, "num_hidden_layers": 2, "hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 40,
    "max_position_embeddings": 40, "pad_token_id": 1,
}  # fmt: skip
# name: (configuration, model, tokenizer's class, options, what stands around a text, languages' tokens)
MODELS = {
    "bart": (
        "BartConfig", "BartForConditionalGeneration", "BartTokenizer", {"forced_bos_token_id": 0},
        "<s> $A </s>", (),
    ),
    "mbart": (
        "MBartConfig", "MBartForConditionalGeneration", "MBartTokenizer", {"scale_embedding": True},
        "$A </s> en_XX", ("en_XX", "de_DE"),
    ),
    "marian": ("MarianConfig", "MarianMTModel", "MarianTokenizer", {"decoder_start_token_id": 1}, "$A </s>", ()),
    "pegasus": (
        "PegasusConfig", "PegasusForConditionalGeneration", "PegasusTokenizer", {"decoder_start_token_id": 1},
        "$A </s>", (),
    ),
    "m2m_100": (
        "M2M100Config", "M2M100ForConditionalGeneration", "NllbTokenizer", {"decoder_start_token_id": 2},
        "eng_Latn $A </s>", ("eng_Latn", "deu_Latn"),
    ),
    "t5": (
        "T5Config", "T5ForConditionalGeneration", "T5Tokenizer",
        {"num_layers": 2, "num_heads": 3, "d_kv": 6, "d_ff": 40, "n_positions": 40, "decoder_start_token_id": 1,
         "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        "$A </s>", (),
    ),
    "encoder-decoder": (
        "EncoderDecoderConfig", "EncoderDecoderModel", "BertTokenizer",
        {"encoder": {"model_type": "roberta", **ENCODER},
         "decoder": {"model_type": "bert", **ENCODER, "is_decoder": True, "add_cross_attention": True},
         "decoder_start_token_id": 0},
        "<s> $A </s>", (),
    ),
}  # fmt: skip
ALONE = {
    "bert": ("BertConfig", "BertForMaskedLM", "BertTokenizer", ENCODER, "<s> $A </s>", ()),
    "roberta": ("RobertaConfig", "RobertaForSequenceClassification", "RobertaTokenizer", ENCODER, "<s> $A </s>", ()),
    "electra": ("ElectraConfig", "ElectraForPreTraining", "ElectraTokenizer", {**ENCODER, "embedding_size": 16},
                "<s> $A </s>", ()),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", "GPT2Tokenizer",
             {"n_layer": 2, "n_embd": 24, "n_head": 3, "n_positions": 40}, "$A", ()),
}  # fmt: skip
"""Encoders and decoders that stand alone."""


def make(name: str, folder: Path, dtype: torch.dtype = torch.float32, **generation):
    """Write a folder and return Hugging Face's model, float32, with random numbers in every weight."""
    import transformers

    kind, model_kind, tokenizer, options, around, languages = {**MODELS, **ALONE}[name]
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        options = dict(options)
        forced = options.pop("forced_bos_token_id", None)
        model = getattr(transformers, model_kind)(getattr(transformers, kind)(**{**SIZES, **options})).eval()
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.add_(torch.randn(model.final_logits_bias.shape, generator=generator))
        settings = {"num_beams": 4, "max_length": 14, "early_stopping": True, "forced_eos_token_id": None,
                    "forced_bos_token_id": forced, **generation}  # fmt: skip
        for option, value in settings.items() if model.can_generate() else ():
            setattr(model.generation_config, option, value)
        model.to(dtype).save_pretrained(folder)
    write_tokenizer(folder, tokenizer, around, languages)
    return model.float()


def write_tokenizer(folder: Path, kind: str, around: str, languages: tuple[str, ...]) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    specials = [*SPECIALS, *languages]
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=specials, show_progress=False)
    backend.train_from_iterator([text for pair in corpus(200, seed=1) for text in pair], trainer)
    used = [token for token in around.split() if token != "$A"]
    backend.post_processor = processors.TemplateProcessing(
        single=around, pair=around.replace("$A", "$A $B"), special_tokens=[(t, specials.index(t)) for t in used]
    )
    backend.save(str(folder / "tokenizer.json"))
    roles = {f"{role}_token": token for role, token in zip(("bos", "pad", "eos", "unk"), SPECIALS, strict=True)}
    options = {"tokenizer_class": kind, **roles, "mask_token": None, "cls_token": None, "sep_token": None}
    (folder / "tokenizer_config.json").write_text(json.dumps(options))
