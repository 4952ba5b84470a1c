"""One engine decodes the bench's sentences and says how long it took: ours, Hugging Face's ``generate``, CTranslate2.

``bench.py`` runs it, a process a measurement, as it runs ``fairseq-generate``. Reading and loading are not timed, nor
are the first 160 sentences, which come again. Sentences are sorted by length, and the texts of all engines are scored
alike. Ours is timed from text to text, the others from subwords to subwords.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import sacrebleu
import torch
from sentencepiece import SentencePieceProcessor

LONGEST = 200  # fairseq's --max-len-b

Translate = Callable[[Sequence[list[str]]], list[list[str]]]
"""Pieces of each sentence in, pieces of its translation out."""


def hugging_face(args: argparse.Namespace) -> Translate:
    """The checkpoint, a post-norm Transformer with shared embeddings, as Hugging Face's class of that network."""
    from transformers import MarianConfig, MarianMTModel

    from fairbeam.formats import fairseq_checkpoint as checkpoints
    from fairbeam.network.positions import sinusoids
    from fairbeam.text import Dictionary

    torch.set_num_threads(args.threads)
    read = checkpoints.read(args.checkpoint)
    dictionary = Dictionary.load(args.checkpoint.parent / "dict.de.txt")
    options, symbols = read.config, len(dictionary)
    width = options["encoder_embed_dim"]
    sizes = {
        f"{side}_{theirs}": options[f"{side}_{ours}"]
        for side in ("encoder", "decoder")
        for ours, theirs in (("layers", "layers"), ("attention_heads", "attention_heads"), ("ffn_embed_dim", "ffn_dim"))
    }
    config = MarianConfig(
        vocab_size=symbols, decoder_vocab_size=symbols, d_model=width, scale_embedding=True, activation_function="relu",
        max_position_embeddings=LONGEST + 2, pad_token_id=dictionary.pad, eos_token_id=dictionary.eos,
        decoder_start_token_id=dictionary.eos, forced_eos_token_id=None, **sizes,
    )  # fmt: skip
    model = MarianMTModel(config).eval()
    state = {
        f"model.{name}": value.float()
        for name, value in read.model.items()
        if not name.endswith(("version", "_float_tensor", "output_projection.weight"))
    }
    places = sinusoids(dictionary.pad + LONGEST + 3, width)[dictionary.pad + 1 :]
    for side in ("encoder", "decoder"):
        state[f"model.{side}.embed_positions.weight"] = places
    lacking = model.load_state_dict(state, strict=False)
    assert not lacking.unexpected_keys, lacking.unexpected_keys
    assert set(lacking.missing_keys) <= {"model.shared.weight", "lm_head.weight", "final_logits_bias"}, lacking
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(read.model["encoder.embed_tokens.weight"])
        model.tie_weights()

    @torch.no_grad()
    def translate(batch: Sequence[list[str]]) -> list[list[str]]:
        rows = [torch.tensor([*map(dictionary.index, pieces), dictionary.eos]) for pieces in batch]
        source = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=dictionary.pad)
        found = model.generate(
            input_ids=source, attention_mask=source.ne(dictionary.pad), num_beams=args.beam, max_new_tokens=LONGEST,
            bad_words_ids=[[dictionary.pad]], do_sample=False,
        )  # fmt: skip
        special = {dictionary.pad, dictionary.eos}
        return [[dictionary[token] for token in row.tolist() if token not in special] for row in found]

    return translate


def ctranslate2(args: argparse.Namespace) -> Translate:
    """The folder that ``fairbeam convert ... ct2:FOLDER`` made."""
    import ctranslate2 as library

    translator = library.Translator(
        str(args.folder), compute_type=args.compute_type, inter_threads=args.workers, intra_threads=args.threads
    )

    def translate(batch: Sequence[list[str]]) -> list[list[str]]:
        found = translator.translate_batch(
            batch, beam_size=args.beam, max_batch_size=args.batch_size, max_decoding_length=LONGEST,
            length_penalty=1.0, max_input_length=0,
        )  # fmt: skip
        return [result.hypotheses[0] for result in found]

    return translate


def fairbeam(args: argparse.Namespace) -> Callable[[Sequence[str]], list[str]]:
    """``fairbeam.load``, which makes subwords, batches and workers itself."""
    import fairbeam as library
    from fairbeam.formats.fairseq import ModelFiles
    from fairbeam.translator import DecodingLimits

    translator = library.load(
        args.checkpoint, precision=args.precision, files=ModelFiles(source_lang="en", target_lang="de")
    )
    limits = DecodingLimits(batch_size=args.batch_size)
    return lambda lines: translator.translate(lines, beam=args.beam, limits=limits)


def measure(translate: Callable[[Sequence], list], sentences: Sequence, batch_size: int) -> tuple[list, float]:
    """Translations in the order of the sentences, and the seconds they took."""
    order = sorted(range(len(sentences)), key=lambda number: len(sentences[number]))
    # Workers start, and what is compiled or laid out at first is, before the clock does.
    for first in range(0, min(len(order), 160), batch_size):
        translate([sentences[number] for number in order[first : min(first + batch_size, 160)]])
    started = time.perf_counter()
    found: dict[int, object] = {}
    for first in range(0, len(order), batch_size):
        numbers = order[first : first + batch_size]
        found |= zip(numbers, translate([sentences[number] for number in numbers]), strict=True)
    return [found[number] for number in range(len(sentences))], time.perf_counter() - started


def main() -> None:
    """Decode, and print what ``fairseq-generate`` prints at its end: sentences, seconds, BLEU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=["fairbeam", "hugging-face", "ctranslate2"])
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--spm-model", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, help="for ours and Hugging Face's")
    parser.add_argument("--precision", default="auto", help="ours")
    parser.add_argument("--folder", type=Path, help="CTranslate2's")
    parser.add_argument("--compute-type", default="float32", help="CTranslate2's")
    parser.add_argument("--workers", type=int, default=1, help="CTranslate2's inter_threads")
    parser.add_argument("--threads", type=int, default=2, help="of each worker; Hugging Face has one")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--beam", type=int, default=5)
    args = parser.parse_args()
    subwords = SentencePieceProcessor(model_file=str(args.spm_model))
    lines = args.source.read_text(encoding="utf-8").splitlines()
    # Engines with workers make batches of what they are given themselves.
    at_a_time = args.batch_size if args.batch_size == 1 or args.engine == "hugging-face" else len(lines)
    if args.engine == "fairbeam":
        texts, seconds = measure(fairbeam(args), lines, at_a_time)
    else:
        translate = {"hugging-face": hugging_face, "ctranslate2": ctranslate2}[args.engine](args)
        found, seconds = measure(translate, [subwords.encode(line, out_type=str) for line in lines], at_a_time)
        texts = [subwords.decode(pieces) for pieces in found]
    score = sacrebleu.corpus_bleu(texts, [args.reference.read_text(encoding="utf-8").splitlines()])
    sys.stdout.write(f"Translated {len(texts)} sentences in {seconds:.2f}s\n{score}\n")


if __name__ == "__main__":
    main()
