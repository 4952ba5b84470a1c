"""Write slow_tokenizers.json: ids of the slow tokenizers of transformers 4, which release 5 no longer has.

Run with transformers 4.57 and tokenizers installed: python slow_tokenizers.py
"""

import json
import random
import tempfile
from pathlib import Path

import tokenizers
import transformers

SCRIPTS = {
    "Arabic": [(0x621, 0x64A), (0x64B, 0x652)], "Thai": [(0xE01, 0xE3A), (0xE40, 0xE4E)], "Cyrillic": [(0x400, 0x45F)],
    "Devanagari": [(0x905, 0x939), (0x93E, 0x94D)], "Japanese": [(0x3041, 0x3096), (0x30A1, 0x30FA)],
    "Han": [(0x4E00, 0x4E40)], "Hangul": [(0xAC00, 0xACFF)], "jamo": [(0x1100, 0x1112), (0x1161, 0x1175)],
    "half and full width": [(0xFF01, 0xFF5E), (0xFF66, 0xFF9F)], "emoji": [(0x1F300, 0x1F64F)],
    "Latin": [(0x61, 0x7A), (0xC0, 0x17F)],
}  # fmt: skip
WRITTEN = [
    "", " ", "  two  spaces   inside and around  ", "Don't, we'll; it's 3.14 , ok? No!", "ﬁne ½ ﷺ ™ ℌ ①",
    "tab\there, bell\x07, null\x00, delete\x7f, zwsp\u200b, bom\ufeff", "no\u00a0break, ideographic\u3000space",
    "👩‍👩‍👧‍👦 family, 🏳️‍🌈 flag, 👍🏽 thumb", "lone \u0301 mark, e\u0301 composed", "İstanbul STRASSE straße ΣΊΣΥΦΟΣ",
    "line\nbreak", "##ing [UNK] x", "before {0} after", "{0}joined{0}", "  {0}  ",
]  # fmt: skip
MASKS = {"roberta": "<mask>", "bart": "<mask>", "longformer": "<mask>", "mpnet": "<mask>", "gpt2": "<|endoftext|>"}
FAIRSEQ = ["<s>", "<pad>", "</s>", "<unk>"]


def lines() -> list[str]:
    """Return written lines and generated ones of every script."""
    chosen = random.Random(5)
    found = list(WRITTEN)
    for ranges in SCRIPTS.values():
        for _ in range(3):
            words = ["".join(chr(chosen.randint(*chosen.choice(ranges))) for _ in range(4)) for _ in range(4)]
            found.append(" ".join(words) + chosen.choice([".", "?", " , 7", "…"]))
    return found


def word_piece(texts: list[str]) -> list[str]:
    """Return a vocabulary of most characters of the texts and a few longer pieces."""
    characters = sorted({character for text in texts for character in text + text.lower() if character.isalnum()})
    words = ["the", "and", "it", "sp", "##ac", "##es", "str", "##asse", "##ing", "##in"]
    kept = [character for number, character in enumerate(characters) if number % 9]
    return [*words, *".,;?!'#$%-_…", *kept, *(f"##{character}" for character in kept)]


def byte_level(texts: list[str]) -> tuple[list[str], str]:
    """Return the tokens and the merges of a small byte-level BPE."""
    trained = tokenizers.ByteLevelBPETokenizer()
    trained.train_from_iterator(texts * 3, vocab_size=420, show_progress=False)
    with tempfile.TemporaryDirectory() as place:
        trained.save_model(place)
        merges = Path(place, "merges.txt").read_text(encoding="utf-8")
    vocabulary = trained.get_vocab()
    return sorted(vocabulary, key=vocabulary.__getitem__), merges


def folders(texts: list[str]) -> dict[str, dict[str, str]]:
    """Return the files of each folder."""
    words = word_piece(texts)
    bert = "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])
    mpnet = "\n".join([*FAIRSEQ, "[UNK]", *words, "<mask>"])
    tokens, merges = byte_level(texts)
    numbered = {token: index for index, token in enumerate([*FAIRSEQ, *tokens, "<mask>"])}
    roberta = {"vocab.json": json.dumps(numbered), "merges.txt": merges}
    gpt2 = {"vocab.json": json.dumps({t: i for i, t in enumerate([*tokens, "<|endoftext|>"])}), "merges.txt": merges}
    cased = json.dumps({"do_lower_case": False})
    accents = json.dumps({"strip_accents": False, "tokenize_chinese_chars": False})
    return {
        "bert": {"vocab.txt": bert},
        "bert cased": {"vocab.txt": bert, "tokenizer_config.json": cased},
        "electra accents": {"vocab.txt": bert, "tokenizer_config.json": accents},
        "mpnet": {"vocab.txt": mpnet},
        "roberta": roberta,
        "bart": roberta,
        "longformer": roberta,
        "gpt2": gpt2,
    }


def main() -> None:
    """Write the file."""
    texts = lines()
    kept = {}
    for name, files in folders(texts).items():
        family = name.split()[0]
        files = {**files, "config.json": json.dumps({"model_type": family})}
        with tempfile.TemporaryDirectory() as place:
            for file, text in files.items():
                Path(place, file).write_text(text, encoding="utf-8")
            slow = transformers.AutoTokenizer.from_pretrained(place, use_fast=False)
        assert not slow.is_fast
        special = MASKS.get(family, "[MASK]")
        kept[name] = {"files": files, "special": special, "ids": [slow(t.format(special))["input_ids"] for t in texts]}
    path = Path(__file__).with_name("slow_tokenizers.json")
    values = {"transformers": transformers.__version__, "lines": texts, "folders": kept}
    path.write_text(json.dumps(values, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
