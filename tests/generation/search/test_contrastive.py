"""Contrastive search against a plain loop that runs the whole model for every candidate."""

import pytest
import torch
import torch.nn.functional as F
from searching import checked, search_with

from fairbeam.errors import ConfigError
from fairbeam.generation import GenerationOptions
from fairbeam.network import (
    DecoderOnly,
    DecoderOnlyConfig,
    EncoderDecoder,
    EncoderDecoderConfig,
    StackConfig,
    pad_batch,
)

PAD, EOS, WORDS, K, ALPHA, LIMIT = 1, 2, 12, 4, 0.6, 7
STACK = StackConfig(layers=2, dim=32, heads=4, ffn_dim=64)


def model_of(kind: str):
    torch.manual_seed(3)
    if kind == "decoder":
        made = DecoderOnly(DecoderOnlyConfig(vocabulary=WORDS, decoder=STACK, pad=PAD))
    else:
        made = EncoderDecoder(
            EncoderDecoderConfig(source_vocabulary=WORDS, target_vocabulary=WORDS, encoder=STACK, decoder=STACK)
        )
    with torch.no_grad():
        made.head.weight *= 3
    return made.eval()


@torch.no_grad()
def plain_loop(model, source: list[int]) -> tuple[list[int], float]:
    def features(tokens):
        rows = torch.tensor([tokens])
        if isinstance(model, DecoderOnly):
            return model(rows, features_only=True)[0]
        return model(torch.tensor([source]), rows, features_only=True)[0]

    read, text, total = list(source) if isinstance(model, DecoderOnly) else [EOS], [], 0.0
    while True:
        context = features(read)
        scores = model.head(context[-1]).log_softmax(-1)
        scores[PAD] = float("-inf")
        if not text:
            scores[EOS] = float("-inf")
        if len(text) == LIMIT:
            scores[torch.arange(WORDS) != EOS] = float("-inf")
        balanced = {}
        for token in scores.topk(K).indices.tolist():
            new = features([*read, token])[-1]
            most_similar = max(float(F.cosine_similarity(new, old, dim=0)) for old in context)
            balanced[token] = (1 - ALPHA) * float(scores[token].exp()) - ALPHA * most_similar
        token = max((token for token in balanced if scores[token].isfinite()), key=balanced.__getitem__)
        total, text, read = total + float(scores[token]), [*text, token], [*read, token]
        if token == EOS:
            return text, total / len(text)


@pytest.mark.parametrize("kind", ["both", "decoder"])
def test_as_a_plain_loop_has_it(kind):
    model = model_of(kind)
    generator = torch.Generator().manual_seed(5)
    lengths = torch.randint(1, 8, (9,), generator=generator).tolist()
    rows = [[*torch.randint(3, WORDS, (n,), generator=generator).tolist(), EOS] for n in lengths]
    search = search_with([model], GenerationOptions(beam=K, penalty_alpha=ALPHA, max_len_b=LIMIT))
    found = search(pad_batch(rows, PAD))
    for row, hypotheses in zip(rows, found, strict=True):
        text, score = plain_loop(model, row)
        assert [hypothesis.tokens.tolist() for hypothesis in hypotheses] == [text]
        assert hypotheses[0].score == pytest.approx(score, abs=1e-4)
    greedy = search_with([model], GenerationOptions(beam=1, max_len_b=LIMIT))(pad_batch(rows, PAD))
    assert any(a[0].tokens.tolist() != b[0].tokens.tolist() for a, b in zip(found, greedy, strict=True))


def test_what_it_cannot_do_is_refused():
    with pytest.raises(ConfigError, match=r"penalty_alpha 0\.6: needs beam of at least 2, not 1"):
        GenerationOptions(penalty_alpha=ALPHA, beam=1)
    for options in ({"nbest": 2}, {"mbr": "bleu"}, {"stochastic_beam": True}):
        with pytest.raises(ConfigError, match="exclude each other"):
            checked(penalty_alpha=ALPHA, **options)
    with pytest.raises(ConfigError, match="penalty_alpha and an ensemble exclude each other"):
        search_with([model_of("both")] * 2, GenerationOptions(penalty_alpha=ALPHA))
