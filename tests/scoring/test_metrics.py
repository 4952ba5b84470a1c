"""Scores against sacreBLEU's own functions, and what must be refused."""

import pytest
import sacrebleu

from fairbeam.errors import ConfigError, InputError
from fairbeam.scoring import MetricOptions, bleu, chrf, evaluate, from_streams, from_tabs, ter

HYPOTHESES = ["The cat sat on the mat.", "A dog barks loudly outside.", "Rain, again!"]
FIRST = ["The cat is on the mat.", "A dog barked loudly outside.", "It rains again!"]
SECOND = ["There is a cat on the mat.", "Outside, a dog barks loudly.", "Rain, again!"]


@pytest.mark.parametrize("streams", [[FIRST], [FIRST, SECOND]])
def test_scores_are_sacrebleus(streams):
    references = from_streams(*streams)
    assert bleu(HYPOTHESES, references).value == sacrebleu.corpus_bleu(HYPOTHESES, streams).score
    assert chrf(HYPOTHESES, references).value == sacrebleu.corpus_chrf(HYPOTHESES, streams).score
    assert ter(HYPOTHESES, references).value == sacrebleu.corpus_ter(HYPOTHESES, streams).score


def test_one_reference_may_be_a_plain_string():
    assert bleu(HYPOTHESES, FIRST) == bleu(HYPOTHESES, from_streams(FIRST))


def test_the_signature_counts_references():
    rest = f"case:mixed|eff:no|tok:13a|smooth:exp|version:{sacrebleu.__version__}"
    assert bleu(HYPOTHESES, from_streams(FIRST)).signature == f"nrefs:1|{rest}"
    assert bleu(HYPOTHESES, from_streams(FIRST, SECOND)).signature == f"nrefs:2|{rest}"
    ragged = [(FIRST[0], SECOND[0]), (FIRST[1],), (FIRST[2],)]
    assert bleu(HYPOTHESES, ragged).signature == f"nrefs:var|{rest}"


def test_ragged_references_equal_sacrebleus_padding():
    ragged = [(FIRST[0],), (FIRST[1], SECOND[1]), (FIRST[2], SECOND[2])]
    padded = [FIRST, [None, *SECOND[1:]]]
    for name, metric in {"bleu": sacrebleu.BLEU(), "chrf": sacrebleu.CHRF(), "ter": sacrebleu.TER()}.items():
        (score,) = evaluate(HYPOTHESES, ragged, [name])
        assert score.value == metric.corpus_score(HYPOTHESES, padded).score
        assert score.text == metric.corpus_score(HYPOTHESES, padded).format(signature=str(metric.get_signature()))


def test_options_reach_the_metric():
    options = MetricOptions(tokenize="char", lowercase=True, chrf_word_order=2)
    one, two = evaluate(HYPOTHESES, FIRST, ["chrf", "bleu"], options)
    assert "case:lc" in one.signature
    assert "tok:char" in one.signature
    assert two.name == "chrF2++"
    assert one == bleu(HYPOTHESES, FIRST, tokenize="char", lowercase=True)
    assert two == chrf(HYPOTHESES, FIRST, word_order=2)


def test_tab_separated_references():
    assert from_tabs(["a\tb", "c", "d\t\te\t", ""]) == [("a", "b"), ("c",), ("d", "e"), ("",)]


@pytest.mark.parametrize(
    ("hypotheses", "references", "message"),
    [
        (["a", "b"], ["a"], "2 hypotheses but references for 1"),
        (["a", "b"], [("a",), ()], "sentence 2 has no reference"),
        ([], [], "no sentence"),
    ],
)
def test_misfits_are_refused(hypotheses, references, message):
    for metric in ("bleu", "chrf", "ter", "rouge"):
        with pytest.raises(InputError, match=message):
            evaluate(hypotheses, references, [metric])


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match=r"'meteor'.*bleu"):
        evaluate(["a"], ["a"], ["meteor"])
    with pytest.raises(ConfigError, match=r"'moses'.*13a"):
        bleu(["a"], ["a"], tokenize="moses")
    with pytest.raises(InputError, match="2, 1 lines"):
        from_streams(["a", "b"], ["a"])
