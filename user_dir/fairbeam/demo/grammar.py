"""A synchronous grammar: abstract syntax trees with realizations in English, German and Korean.

``Sampler`` draws trees; ``english``, ``german`` and ``korean`` linearise them. A tree says what is meant; the
linearisers decide everything else (order, agreement, case, particles) by rule, and the sampler draws nothing
that English would leave ambiguous, so the translation is a function of the source. ``corpus`` and
``split_corpus`` are the way in.
"""

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import cache
from typing import NamedTuple, TypeVar

from fairbeam.demo import lexicon as lex
from fairbeam.demo.lexicon import Adverb, Agreement, Aspect, Case, Determiner, KoreanStem, Name, Noun, Pronoun, Verb
from fairbeam.errors import ConfigError

Choice = TypeVar("Choice")


class Tense(Enum):
    """Tense and aspect as English marks them; German and Korean merge some of them."""

    PRESENT = auto()
    PROGRESSIVE = auto()
    PAST = auto()
    PERFECT = auto()
    FUTURE = auto()


@dataclass(frozen=True, kw_only=True)
class NounPhrase:
    """A noun with its determiner and modifiers.

    Attributes:
        possessor: stands for the determiner ("Anna's book", "das Buch des Lehrers").
        number: a numeral; implies ``plural``.
        relative: a clause whose subject or object is a ``Gap`` for this noun.
    """

    noun: Noun
    determiner: Determiner = lex.THE
    plural: bool = False
    adjective: lex.Adjective | None = None
    possessor: "NounPhrase | Name | None" = None
    number: lex.Numeral | None = None
    relative: "Clause | None" = None

    @property
    def definite(self) -> bool:
        return self.possessor is not None or self.determiner.definite


@dataclass(frozen=True, kw_only=True)
class Gap:
    """The gap in a relative clause that its head noun fills."""

    noun: Noun
    plural: bool = False


Nominal = NounPhrase | Name | Pronoun | Gap


@dataclass(frozen=True, kw_only=True)
class Phrase:
    """A preposition with its noun phrase; ``motion`` gives a two-way preposition the accusative."""

    preposition: lex.Preposition
    object: NounPhrase | Name
    motion: bool = False


Adverbial = Adverb | Phrase


@dataclass(frozen=True, kw_only=True)
class Clause:
    """One predicate with its arguments and adjuncts.

    Attributes:
        goal: where the subject or object ends up; ``adjunct`` a companion or beneficiary.
        predicate: the adjective after the copula.
        complement: the clause that the verb governs (its ``clause`` says of which kind).
        fronted: the time opens the clause.
    """

    subject: Nominal
    verb: Verb
    tense: Tense = Tense.PRESENT
    modal: lex.Modal | None = None
    negated: bool = False
    object: Nominal | None = None
    recipient: Nominal | None = None
    predicate: lex.Adjective | None = None
    goal: Adverbial | None = None
    adjunct: Phrase | None = None
    place: Adverbial | None = None
    time: Adverbial | None = None
    complement: "Clause | None" = None
    fronted: bool = False


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """A main clause, optionally a question, optionally with a second clause.

    Attributes:
        leading: the joined clause comes first ("If it rains, …").
    """

    main: Clause
    conjunction: lex.Conjunction | None = None
    joined: Clause | None = None
    leading: bool = False
    question: bool = False


def agreement(nominal: Nominal) -> Agreement:
    """Return the person and number that the finite verb agrees with."""
    if isinstance(nominal, Pronoun):
        return nominal.agreement
    return "3pl" if not isinstance(nominal, Name) and nominal.plural else "3sg"


def pronoun_for(nominal: Nominal) -> Pronoun | None:
    """Return the pronoun for a person; None for things and neuter nouns, whose English and German pronouns may
    differ."""
    if isinstance(nominal, Pronoun):
        return nominal
    if isinstance(nominal, Name):
        return lex.SHE if nominal.feminine else lex.HE
    if "person" not in nominal.noun.kinds:
        return None
    if nominal.plural:
        return lex.THEY
    return {"m": lex.HE, "f": lex.SHE}.get(nominal.noun.german.gender)


def _punctuate(tokens: Iterable[str], mark: str) -> str:
    """Join words and commas to text: capitalized, with single commas between clauses, and ``mark`` at the end."""
    text = ""
    for token in filter(None, tokens):
        if token != ",":
            text += f" {token}" if text else token
        elif text and not text.endswith(","):
            text += ","
    text = text.removesuffix(",") + mark
    return text[0].upper() + text[1:]


def _mark(sentence: Sentence) -> str:
    return "?" if sentence.question else "."


def english(sentence: Sentence) -> str:
    """Realize a sentence in English."""
    main = _english_clause(sentence.main, question=sentence.question)
    link, joined = sentence.conjunction, sentence.joined
    if link is None or joined is None:
        return _punctuate(main, _mark(sentence))
    other = [link.english, *_english_clause(joined)]
    if sentence.leading:
        return _punctuate([*other, ",", *main], _mark(sentence))
    return _punctuate([*main, "," if link.comma else "", *other], _mark(sentence))


def _english_clause(clause: Clause, *, question: bool = False) -> list[str]:
    """Order a clause: subject, verb, object, place, time; in questions the auxiliary precedes the subject."""
    subject = _english_nominal(clause.subject)
    finite, rest, auxiliary = _english_verbs(clause, inverted=question)
    middle = clause.time.english if isinstance(clause.time, Adverb) and clause.time.middle else ""
    negation = "not" if clause.negated else ""
    if question:
        words = [finite, *subject, negation, middle, *rest]
    elif auxiliary:
        words = [*subject, *_negated(finite, negation), middle, *rest]
    else:
        words = [*subject, middle, finite, *rest]
    words += _english_object(clause)
    words += [clause.predicate.english] if clause.predicate else []
    words += _english_complement(clause)
    for adverbial in (clause.goal, clause.adjunct, clause.place):
        words += _english_adverbial(adverbial)
    if isinstance(clause.subject, Gap) or isinstance(clause.object, Gap):
        gap = clause.subject if isinstance(clause.subject, Gap) else clause.object
        words = [_english_relative_pronoun(gap, subject=gap is clause.subject), *words]
    time = [] if middle else _english_adverbial(clause.time)
    return [*time, *words] if clause.fronted else [*words, *time]


def _negated(finite: str, negation: str) -> list[str]:
    return ["cannot"] if negation and finite == "can" else [finite, negation]


def _english_verbs(clause: Clause, *, inverted: bool) -> tuple[str, list[str], bool]:
    """Return the finite verb, the rest of the verb group, and whether the finite verb is an auxiliary.

    Negation and inversion need an auxiliary; where the tense has none, "do" supplies it.
    """
    verb = clause.modal.english if clause.modal else clause.verb.english
    tail = [clause.modal.link, clause.verb.english.base] if clause.modal else []
    who = agreement(clause.subject)
    match clause.tense:
        case Tense.PROGRESSIVE:
            return lex.BE.english.present(who), [verb.gerund, *tail], True
        case Tense.PERFECT:
            return "has" if who == "3sg" else "have", [verb.participle, *tail], True
        case Tense.FUTURE:
            return "will", [verb.base, *tail], True
    past = clause.tense is Tense.PAST
    if verb.auxiliary or not (inverted or clause.negated):
        return verb.preterite(who) if past else verb.present(who), tail, verb.auxiliary
    do = "did" if past else "does" if who == "3sg" else "do"
    return do, [verb.base, *tail], True


def _english_object(clause: Clause) -> list[str]:
    """Realize recipient and object; the particle of a phrasal verb follows a pronoun but precedes a noun."""
    verb = clause.verb.english
    recipient = _english_nominal(clause.recipient, objective=True) if clause.recipient else []
    thing = _english_nominal(clause.object, objective=True) if clause.object else []
    if isinstance(clause.object, Pronoun):
        return [*recipient, verb.preposition, *thing, verb.particle]
    return [*recipient, verb.particle, verb.preposition, *thing]


def _english_complement(clause: Clause) -> list[str]:
    if clause.complement is None:
        return []
    if clause.verb.clause == "to":
        infinitive = replace(clause.complement, subject=lex.THEY, tense=Tense.PRESENT)
        return ["to", *_english_clause(infinitive)[1:]]
    return [clause.verb.clause, *_english_clause(clause.complement)]


def _english_relative_pronoun(gap: Nominal | None, *, subject: bool) -> str:
    if not isinstance(gap, Gap) or not gap.noun.kinds & {"person", "infant"}:
        return "that"
    return "who" if subject else "whom"


def _english_nominal(nominal: Nominal, *, objective: bool = False) -> list[str]:
    match nominal:
        case Pronoun():
            return [nominal.object if objective else nominal.subject]
        case Name():
            return [nominal.english]
        case Gap():
            return []
    noun = nominal.noun.plural if nominal.plural else nominal.noun.singular
    words = [*(part.english for part in (nominal.number, nominal.adjective) if part), noun]
    words = [*_english_determiner(nominal, words[0]), *words]
    return words + (_english_clause(nominal.relative) if nominal.relative else [])


def _english_determiner(phrase: NounPhrase, following: str) -> list[str]:
    """Realize the possessor with 's, or the determiner; "an" before a vowel sound, which "university" lacks."""
    if phrase.possessor:
        *words, last = _english_nominal(phrase.possessor)
        return [*words, f"{last}'s"]
    if phrase.determiner is lex.A and (phrase.noun.mass or phrase.number):
        return []
    if phrase.plural:
        return [phrase.determiner.plural]
    vowel = following[0] in "aeiou" and not following.startswith("uni")
    return ["an" if phrase.determiner is lex.A and vowel else phrase.determiner.singular]


def _english_adverbial(adverbial: Adverbial | None) -> list[str]:
    if adverbial is None or isinstance(adverbial, Adverb):
        return [adverbial.english] if adverbial else []
    return [adverbial.preposition.english, *_english_nominal(adverbial.object, objective=True)]


Gendered = dict[str, str]
_ENDINGS: dict[Case, Gendered] = {  # of dieser and its like, and of adjectives that nothing precedes
    "nom": {"m": "er", "f": "e", "n": "es", "pl": "e"},
    "acc": {"m": "en", "f": "e", "n": "es", "pl": "e"},
    "dat": {"m": "em", "f": "er", "n": "em", "pl": "en"},
    "gen": {"m": "es", "f": "er", "n": "es", "pl": "er"},
}
_DEFINITE: dict[Case, Gendered] = {
    "nom": {"m": "der", "f": "die", "n": "das", "pl": "die"},
    "acc": {"m": "den", "f": "die", "n": "das", "pl": "die"},
    "dat": {"m": "dem", "f": "der", "n": "dem", "pl": "den"},
    "gen": {"m": "des", "f": "der", "n": "des", "pl": "der"},
}
_CONTRACTED = {
    "in dem": "im",
    "in das": "ins",
    "an dem": "am",
    "an das": "ans",
    "zu dem": "zum",
    "zu der": "zur",
    "von dem": "vom",
}


class Order(Enum):
    """Position of the finite verb in German."""

    SECOND = auto()  # main clauses
    FIRST = auto()  # questions, and main clauses after a leading subordinate clause
    FINAL = auto()  # subordinate and relative clauses


def german(sentence: Sentence) -> str:
    """Realize a sentence in German."""
    link, joined = sentence.conjunction, sentence.joined
    first = sentence.question or sentence.leading
    main = _german_clause(sentence.main, Order.FIRST if first else Order.SECOND)
    if link is None or joined is None:
        return _punctuate(main, _mark(sentence))
    other = [link.german, *_german_clause(joined, Order.SECOND if link.coordinating else Order.FINAL)]
    if sentence.leading:
        # The clause that leads fills the first position, so the finite verb of the main clause follows it.
        return _punctuate([*other, ",", *main], _mark(sentence))
    return _punctuate([*main, "" if link.german == "und" else ",", *other], _mark(sentence))


def _german_clause(clause: Clause, order: Order) -> list[str]:
    """Order a clause around the sentence bracket: verb second with the non-finite part last, or finite verb last.

    A relative or complement clause follows the right end of the bracket (extraposition).
    """
    finite, right = _german_verbs(clause)
    front = _german_nominal(clause.subject, "nom")
    after = []
    if isinstance(clause.object, Gap):
        front = [*_german_object(clause), *front]
    elif clause.fronted and order is Order.SECOND:
        front, after = _german_adverbial(clause.time), front
    field = [*after, *_german_middle(clause)]
    tail = [*_german_relative(clause.object), *_german_complement(clause)]
    if order is Order.FINAL:
        return [*front, *field, *_verb_final(clause.verb, finite, right), *tail]
    if order is Order.FIRST:
        return [finite, *front, *field, *right, *tail]
    return [*front, finite, *field, *right, *tail]


def _verb_final(verb: Verb, finite: str, right: list[str]) -> list[str]:
    """Join a separable prefix to the finite verb at the end of a clause: "weil er das Fenster aufmacht"."""
    if right == [verb.german.prefix]:
        return [verb.german.prefix + finite]
    return [*right, finite]


def _german_verbs(clause: Clause) -> tuple[str, list[str]]:
    """Return the finite verb and the right end of the bracket: a prefix, a participle or an infinitive.

    The past is told in the perfect (with sein for motion and change) except of modals, haben and sein.
    """
    verb, who = clause.verb.german, agreement(clause.subject)
    infinitive = verb.prefix + verb.infinitive
    past = clause.tense in (Tense.PAST, Tense.PERFECT)
    if clause.modal:
        modal = clause.modal.german
        return modal.past(who) if past else modal.present(who), [infinitive]
    if clause.tense is Tense.FUTURE:
        return {"1sg": "werde", "3sg": "wird"}.get(who, "werden"), [infinitive]
    if past and verb.preterite:
        return verb.past(who), []
    if past:
        auxiliary = lex.BE if verb.sein else _HAVE
        return auxiliary.german.present(who), [verb.prefix + verb.participle]
    return verb.present(who), [verb.prefix] if verb.prefix else []


_HAVE = next(verb for verb in lex.VERBS if verb.key == "have")


def _is_indefinite(nominal: Nominal | None) -> bool:
    return isinstance(nominal, NounPhrase) and not nominal.definite


def _german_middle(clause: Clause) -> list[str]:
    """Order the middle field, from given information on the left to new information on the right.

    Pronoun, name or recipient; time; definite object; "nicht"; companion; place; indefinite or prepositional
    object; goal; predicative adjective. An indefinite object takes "kein", and "nicht" is then not said.
    """
    thing = [] if isinstance(clause.object, Gap) else _german_object(clause)
    recipient = _german_nominal(clause.recipient, "dat") if clause.recipient else []
    late = bool(clause.verb.preposition) or _is_indefinite(clause.object)
    early = not late and isinstance(clause.object, Pronoun | Name)
    absorbed = clause.negated and not clause.verb.preposition and _is_indefinite(clause.object)
    return [
        *recipient,
        *(thing if early else []),
        *([] if clause.fronted else _german_adverbial(clause.time)),
        *([] if early or late else thing),
        "nicht" if clause.negated and not absorbed else "",
        *_german_adverbial(clause.adjunct),
        *_german_adverbial(clause.place),
        *(thing if late else []),
        *_german_adverbial(clause.goal),
        clause.predicate.german if clause.predicate else "",
    ]


def _german_object(clause: Clause) -> list[str]:
    """Realize the object in the case that its verb or preposition governs, without its relative clause."""
    verb, thing = clause.verb, clause.object
    if thing is None:
        return []
    if isinstance(thing, NounPhrase):
        negated = clause.negated and not verb.preposition and not thing.definite
        thing = replace(thing, relative=None, determiner=lex.NO if negated else thing.determiner)
    return _contract(verb.preposition, _german_nominal(thing, verb.case))


def _german_complement(clause: Clause) -> list[str]:
    """Realize a dass- or ob-clause with its verb last, or an infinitive with "zu"."""
    complement = clause.complement
    if complement is None:
        return []
    if clause.verb.clause == "to":
        return [",", *_german_middle(complement), complement.verb.german.zu_infinitive()]
    subordinator = "ob" if clause.verb.clause == "whether" else "dass"
    return [",", subordinator, *_german_clause(complement, Order.FINAL)]


def _german_relative(nominal: Nominal | None) -> list[str]:
    if not isinstance(nominal, NounPhrase) or nominal.relative is None:
        return []
    return [",", *_german_clause(nominal.relative, Order.FINAL), ","]


def _german_nominal(nominal: Nominal, case: Case) -> list[str]:
    """Realize a pronoun, name, relative pronoun, or noun phrase whose words agree in gender, number and case."""
    match nominal:
        case Pronoun():
            return [nominal.german[case]]
        case Name():
            return [nominal.english]
        case Gap():
            gender = "pl" if nominal.plural else nominal.noun.german.gender
            return ["denen" if (case, gender) == ("dat", "pl") else _DEFINITE[case][gender]]
    gender = "pl" if nominal.plural else nominal.noun.german.gender
    determiner, strong = _german_determiner(nominal, case, gender)
    words = [determiner, nominal.number.german if nominal.number else ""]
    if nominal.adjective:
        words.append(nominal.adjective.german_stem + _adjective_ending(case, gender, strong=strong))
    words.append(nominal.noun.german.form(case, nominal.plural))
    if isinstance(nominal.possessor, NounPhrase):
        words += _german_nominal(nominal.possessor, "gen")
    return words + _german_relative(nominal)


def _german_determiner(phrase: NounPhrase, case: Case, gender: str) -> tuple[str, bool]:
    """Return the inflected determiner, and whether the adjective after it takes strong endings."""
    determiner = phrase.determiner
    if isinstance(phrase.possessor, Name):
        name = phrase.possessor.english
        return name + ("'" if name[-1] in "sxz" else "s"), True
    if determiner is lex.THE or phrase.possessor:
        return _DEFINITE[case][gender], False
    if determiner is lex.A and (phrase.plural or phrase.noun.mass):
        return "", True
    bare = determiner.like_ein and (case, gender) in {("nom", "m"), ("nom", "n"), ("acc", "n")}
    return determiner.german + ("" if bare else _ENDINGS[case][gender]), bare


def _adjective_ending(case: Case, gender: str, *, strong: bool) -> str:
    """Return the adjective ending: strong if no ending precedes it, else weak; after ein (mixed) one or the other."""
    if strong:
        return "en" if case == "gen" and gender in "mn" else _ENDINGS[case][gender]
    light = (case == "nom" and gender != "pl") or (case == "acc" and gender in ("f", "n"))
    return "e" if light else "en"


def _german_adverbial(adverbial: Adverbial | None) -> list[str]:
    """Realize an adverb or a prepositional phrase; two-way prepositions take accusative for motion, dative for rest."""
    if adverbial is None or isinstance(adverbial, Adverb):
        return [adverbial.german] if adverbial else []
    preposition = adverbial.preposition
    case = preposition.case or ("acc" if adverbial.motion else "dat")
    return _contract(preposition.german, _german_nominal(adverbial.object, case))


def _contract(preposition: str, words: list[str]) -> list[str]:
    """Contract preposition and article where possible: im, ins, am, ans, zum, zur, vom."""
    if not preposition:
        return words
    first, *rest = filter(None, words)
    pair = f"{preposition} {first}"
    # A relative pronoun stands alone and keeps its preposition apart: "der Zug, von dem …".
    return [_CONTRACTED.get(pair, pair) if rest else pair, *rest]


Ending = Callable[[KoreanStem, Tense], str]


def _tensed(stem: KoreanStem, tense: Tense) -> KoreanStem:
    """Return the stem with its tense; the future is -(으)ㄹ 거다, "it is a thing to …"."""
    if tense in (Tense.PAST, Tense.PERFECT):
        return stem.past()
    if tense is Tense.FUTURE:
        prospective = stem.prospective()
        return KoreanStem(stem=f"{prospective} 거", infinitive=f"{prospective} 거예", copula=True)
    return stem


def _attributive(stem: KoreanStem, tense: Tense) -> str:
    """Return the form before a noun: -는 or -(으)ㄴ, -(으)ㄴ or -던 in the past, -(으)ㄹ in the future."""
    if tense is Tense.FUTURE:
        return stem.prospective()
    return stem.attributive_past() if tense in (Tense.PAST, Tense.PERFECT) else stem.attributive()


def _whether(stem: KoreanStem, tense: Tense) -> str:
    if tense in (Tense.PAST, Tense.PERFECT):
        return stem.past().stem + "는지"
    return _attributive(stem, tense) + "지"


_KOREAN_ENDINGS: dict[str, Ending] = {
    "polite": lambda stem, tense: _tensed(stem, tense).infinitive + "요",
    "attributive": _attributive,
    "and": lambda stem, tense: _tensed(stem, tense).stem + "고",
    "concession": lambda stem, tense: _tensed(stem, tense).stem + "지만",
    "reason": lambda stem, tense: _tensed(stem, tense).stem + "기 때문에",
    "condition": lambda stem, tense: stem.linking + "면",
    "before": lambda stem, tense: stem.stem + "기 전에",
    "while": lambda stem, tense: stem.before_n() + "는 동안",
    "once": lambda stem, tense: stem.stem + "자마자",
    "quote": lambda stem, tense: _tensed(stem, tense).plain() + "고",
    "fact": lambda stem, tense: _tensed(stem, tense).plain() + "는 것을",
    "hope": lambda stem, tense: stem.stem + "기를",
    "whether": _whether,
    "attempt": lambda stem, tense: stem.linking + "려고",
    "resolve": lambda stem, tense: stem.stem + "기로",
    "onset": lambda stem, tense: stem.stem + "기",
    "event": lambda stem, tense: stem.before_n() + "는 것을",
}
_TENSELESS = frozenset({"condition", "before", "while", "once", "hope", "attempt", "resolve", "onset", "event"})


def korean(sentence: Sentence) -> str:
    """Realize a sentence in Korean; a subordinate clause comes first, its conjunction in its verb's ending.

    A subject that both clauses share is said once, as the topic.
    """
    link, joined = sentence.conjunction, sentence.joined
    if link is None or joined is None:
        return _punctuate(_korean_clause(sentence.main, "polite"), _mark(sentence))
    if link.coordinating:
        clauses = [*_korean_clause(sentence.main, link.korean), *_korean_clause(joined, "polite")]
        return _punctuate(clauses, _mark(sentence))
    first, second = (joined, sentence.main) if sentence.leading else (sentence.main, joined)
    if pronoun_for(first.subject) == second.subject:
        topic = _korean_subject(first.subject, topic=True)
        subordinate = _korean_clause(joined, link.korean, silent=True)
        main = _korean_clause(sentence.main, "polite", silent=True)
        return _punctuate([*topic, *subordinate, *main], _mark(sentence))
    subordinate = _korean_clause(joined, link.korean, topic=False)
    return _punctuate([*subordinate, *_korean_clause(sentence.main, "polite")], _mark(sentence))


def _korean_clause(clause: Clause, ending: str, *, topic: bool = True, silent: bool = False) -> list[str]:
    """Order a clause: subject, time, place, recipient, object, verb; ``silent`` leaves the subject out."""
    subject = [] if silent else _korean_subject(clause.subject, topic=topic)
    time = _korean_adverbial(clause.time, "")
    words = [*time, *subject] if clause.fronted else [*subject, *time]
    words += _korean_adverbial(clause.adjunct, "")
    words += _korean_adverbial(clause.place, clause.verb.korean_place)
    if clause.recipient:
        words += _korean_nominal(clause.recipient, "에게")
    if clause.object:
        words += _korean_nominal(clause.object, clause.verb.particle)
    words += _korean_adverbial(clause.goal, "에")
    if clause.complement:
        infinitive = clause.verb.clause == "to"
        words += _korean_clause(clause.complement, clause.verb.korean_clause, topic=False, silent=infinitive)
    return [*words, _korean_predicate(clause, ending)]


def _korean_predicate(clause: Clause, ending: str) -> str:
    """Realize the verb or adjective with modality, aspect and negation, and its connective or final ending."""
    stem = clause.predicate.korean if clause.predicate else clause.verb.korean
    first_person = clause.subject in (lex.I, lex.WE)
    if clause.modal:
        stem = _korean_modal(stem, clause.modal, negated=clause.negated, first_person=first_person)
    elif clause.tense is Tense.PROGRESSIVE and ending not in _TENSELESS:
        stem = KoreanStem(stem=stem.stem + "고 있", infinitive=stem.stem + "고 있어")
    if clause.negated and not clause.modal:
        suppletive = None if clause.predicate else clause.verb.negative
        stem = suppletive or _korean_negation(stem)
    return _KOREAN_ENDINGS[ending](stem, clause.tense)


def _korean_negation(stem: KoreanStem) -> KoreanStem:
    negated = stem.stem + "지 않"
    # 않다 conjugates as what it negates; 있다 counts as an adjective here (읽고 있지 않다고).
    descriptive = stem.descriptive or stem.existential
    return KoreanStem(stem=negated, infinitive=negated + "아", descriptive=descriptive)


def _korean_modal(stem: KoreanStem, modal: lex.Modal, *, negated: bool, first_person: bool) -> KoreanStem:
    """Realize modality as a chain of verbs; "want" is -고 싶다 in the first person, otherwise -고 싶어 하다."""
    able = stem.prospective()
    want = KoreanStem(stem=stem.stem + "고 싶", infinitive=stem.stem + "고 싶어", descriptive=True)
    if not first_person:
        want = KoreanStem(stem=want.infinitive + " 하", infinitive=want.infinitive + " 해")
    return {
        ("can", False): KoreanStem(stem=f"{able} 수 있", infinitive=f"{able} 수 있어"),
        ("can", True): KoreanStem(stem=f"{able} 수 없", infinitive=f"{able} 수 없어"),
        ("must", False): KoreanStem(stem=f"{stem.infinitive}야 하", infinitive=f"{stem.infinitive}야 해"),
        ("must", True): KoreanStem(stem=f"{stem.stem}지 않아도 되", infinitive=f"{stem.stem}지 않아도 돼"),
        ("want", False): want,
        ("want", True): _korean_negation(want),
        ("may", False): KoreanStem(stem=f"{stem.infinitive}도 되", infinitive=f"{stem.infinitive}도 돼"),
        ("may", True): KoreanStem(stem=f"{stem.linking}면 안 되", infinitive=f"{stem.linking}면 안 돼"),
    }[modal.key, negated]


def _korean_subject(subject: Nominal, *, topic: bool) -> list[str]:
    """Mark the subject: 은/는 for the topic of a main clause, 이/가 for indefinite and for embedded subjects."""
    if isinstance(subject, Pronoun) and not topic:
        return [subject.korean_nominative]
    indefinite = _is_indefinite(subject)
    return _korean_nominal(subject, "은/는" if topic and not indefinite else "이/가", subject=True)


def _korean_nominal(nominal: Nominal, particle: str, *, subject: bool = False) -> list[str]:
    """Order a noun phrase: relative clause, determiner, adjective, noun, counter; the particle follows the last."""
    match nominal:
        case Pronoun() | Name():
            return [lex.attach(nominal.korean, particle)]
        case Gap():
            return []
    words = _korean_clause(nominal.relative, "attributive", topic=False) if nominal.relative else []
    words += _korean_nominal(nominal.possessor, "의") if nominal.possessor else [nominal.determiner.korean]
    # A new subject is counted: 한 남자, 개 한 마리. Elsewhere Korean leaves the indefinite article unsaid.
    one = subject and _is_indefinite(nominal) and not (nominal.plural or nominal.noun.mass)
    person = "person" in nominal.noun.kinds
    words.append("한" if one and person else "")
    words.append(nominal.adjective.korean_attributive if nominal.adjective else "")
    many = nominal.plural and not nominal.number and nominal.noun.animate
    words.append(nominal.noun.korean + ("들" if many else ""))
    if nominal.number or (one and not person):
        words += [nominal.number.korean if nominal.number else "한", nominal.noun.counter]
    return [*words[:-1], lex.attach(words[-1], particle)]


def _korean_adverbial(adverbial: Adverbial | None, particle: str) -> list[str]:
    """Realize an adverbial with the particle that its verb governs, after a noun of position (위, 아래) if any."""
    if adverbial is None:
        return []
    if isinstance(adverbial, Adverb):
        return [adverbial.korean + particle]
    between = adverbial.preposition.korean
    if particle and between:
        return [*_korean_nominal(adverbial.object, ""), between + particle]
    return _korean_nominal(adverbial.object, between or particle)


_TENSES: dict[Aspect, frozenset[Tense]] = {
    Aspect.STATE: frozenset({Tense.PRESENT, Tense.PAST}),
    Aspect.HABIT: frozenset(Tense),
    Aspect.TASK: frozenset(Tense) - {Tense.PRESENT},
    Aspect.EVENT: frozenset({Tense.PAST, Tense.PERFECT, Tense.FUTURE}),
}
_SIMPLE = tuple(verb for verb in lex.VERBS if not verb.clause)
_CLAUSAL = tuple(verb for verb in lex.VERBS if verb.clause in ("that", "whether"))
_CONTROL = tuple(verb for verb in lex.VERBS if verb.clause == "to")
_PERSON = frozenset({"person"})


@cache
def _nouns(kinds: frozenset[str]) -> tuple[Noun, ...]:
    return tuple(noun for noun in lex.NOUNS if noun.kinds & kinds)


@cache
def _adjectives(kinds: frozenset[str], *, predicative: bool) -> tuple[lex.Adjective, ...]:
    suitable = (entry for entry in lex.ADJECTIVES if entry.kinds & kinds and not entry.unlike & kinds)
    return tuple(entry for entry in suitable if entry.predicative or not predicative)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Constraints on a clause, by its role in the sentence.

    Attributes:
        light: no relative clauses or adjuncts and fewer times, to keep the sentence short.
        timed: may say when.
        bounded: the present stands for one coming event ("as soon as Anna arrives").
        willed: no accidents ("she tries to …").
        copular: may be of the form "the soup is hot".
    """

    tenses: frozenset[Tense] = frozenset(Tense)
    light: bool = False
    timed: bool = True
    bounded: bool = False
    willed: bool = False
    copular: bool = True
    negatable: bool = True
    frontable: bool = False


def _plan(*tenses: Tense, **options: bool) -> _Plan:
    return _Plan(tenses=frozenset(tenses), **options)


def _joined(*tenses: Tense, **options: bool) -> _Plan:
    """Return the plan of a subordinate clause: short, with its time given by the main clause."""
    return _plan(*tenses, light=True, timed=False, **options)


_EVENT = {"copular": False, "negatable": False}
# For each kind of subordination, the plans that the main and the subordinate clause may follow.
_SUBORDINATION: dict[str, tuple[tuple[_Plan, _Plan], ...]] = {
    "reason": (
        (_plan(Tense.PAST, copular=False), _joined(Tense.PAST)),
        (_plan(Tense.PROGRESSIVE, copular=False), _joined(Tense.PRESENT, Tense.PROGRESSIVE)),
        (_plan(Tense.FUTURE, copular=False), _joined(Tense.PRESENT, Tense.PAST)),
    ),
    "condition": ((_plan(Tense.FUTURE, copular=False), _joined(Tense.PRESENT, bounded=True)),),
    "before": (
        (_plan(Tense.PAST, timed=False, **_EVENT), _joined(Tense.PAST, **_EVENT)),
        (_plan(Tense.FUTURE, timed=False, **_EVENT), _joined(Tense.PRESENT, bounded=True, **_EVENT)),
    ),
    "while": ((_plan(Tense.PROGRESSIVE, timed=False, **_EVENT), _joined(Tense.PROGRESSIVE, **_EVENT)),),
    "once": ((_plan(Tense.FUTURE, timed=False, **_EVENT), _joined(Tense.PRESENT, bounded=True, **_EVENT)),),
}
_SUBORDINATION["concession"] = _SUBORDINATION["reason"]


def _kinds_of(nominal: Nominal | None) -> frozenset[str] | None:
    if nominal is None:
        return None
    return nominal.noun.kinds if isinstance(nominal, NounPhrase | Gap) else _PERSON


def _allowed_tenses(verb: Verb, plan: _Plan) -> frozenset[Tense]:
    if plan.bounded:
        return frozenset() if verb.aspect is Aspect.STATE else plan.tenses & {Tense.PRESENT}
    return plan.tenses & _TENSES[verb.aspect]


@cache
def _verbs(subject: frozenset[str] | None, gap: frozenset[str] | None, plan: _Plan) -> tuple[Verb, ...]:
    """Return the verbs that suit the plan and, if given, subjects of kinds ``subject`` and objects of kinds ``gap``."""

    def suits(verb: Verb) -> bool:
        if gap is not None and (not verb.objects & gap or verb.recipient or verb.indefinite or verb.goal):
            return False
        if plan.willed and not verb.willed:
            return False
        return (subject is None or bool(verb.subjects & subject)) and bool(_allowed_tenses(verb, plan))

    return tuple(verb for verb in _SIMPLE if suits(verb))


class Sampler:
    """Sampler of syntax trees; all choices come from ``rng``, so a seed determines the text."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._used: set[Noun | Name] = set()

    def sentence(self) -> Sentence:
        """Sample a sentence of any kind; no noun or name occurs twice in it."""
        self._used.clear()
        kinds = {
            self._simple: 52,
            self._question: 7,
            self._subordinate: 17,
            self._coordinate: 6,
            self._clausal: 10,
            self._control: 8,
        }
        return self._rng.choices(tuple(kinds), tuple(kinds.values()))[0]()

    def _chance(self, probability: float) -> bool:
        return self._rng.random() < probability

    def _pick(self, options: Sequence[Choice]) -> Choice:
        return options[self._rng.randrange(len(options))]

    def _simple(self) -> Sentence:
        return Sentence(main=self._clause(_Plan(frontable=True)))

    def _question(self) -> Sentence:
        clause = self._clause(_Plan(negatable=False))
        # Nobody asks in earnest what they are doing themselves.
        return self._question() if clause.subject is lex.I else Sentence(main=clause, question=True)

    def _subordinate(self) -> Sentence:
        link = self._pick(lex.SUBORDINATORS)
        main_plan, joined_plan = self._pick(_SUBORDINATION[link.korean])
        leading = self._chance(0.4)
        first = self._clause(joined_plan if leading else replace(main_plan, light=self._chance(0.5)))
        pronoun = pronoun_for(first.subject)
        # One person seldom does two things at once, so "while" has two subjects.
        subject = pronoun if pronoun and link.korean != "while" and self._chance(0.6) else None
        second = self._clause(main_plan if leading else joined_plan, subject=subject)
        main, joined = (second, first) if leading else (first, second)
        return Sentence(main=main, joined=joined, conjunction=link, leading=leading)

    def _coordinate(self) -> Sentence:
        link = self._pick(lex.COORDINATORS)
        plan = _plan(self._pick((Tense.PROGRESSIVE, Tense.PAST, Tense.FUTURE)), light=True, copular=False)
        first = self._clause(plan, subject=self._somebody())
        return Sentence(main=first, joined=self._clause(plan, subject=self._somebody()), conjunction=link)

    def _somebody(self) -> Name | NounPhrase:
        return self._name() if self._chance(0.4) else self._noun_phrase(_PERSON, light=True, definite=True)

    def _clausal(self) -> Sentence:
        """Sample a verb of saying or knowing with a dass- or ob-clause."""
        verb = self._pick(_CLAUSAL)
        subject = self._nominal(_PERSON, light=True, definite=True, plain=True)
        deniable = verb.korean_clause in ("quote", "fact")
        negated = verb.key == "know whether" or (deniable and self._chance(0.2))
        hope = verb.korean_clause == "hope"
        tenses = frozenset({Tense.FUTURE}) if hope else frozenset(Tense) - {Tense.PERFECT}
        complement = self._clause(_Plan(tenses=tenses, light=True))
        return Sentence(main=Clause(subject=subject, verb=verb, negated=negated, complement=complement))

    def _control(self) -> Sentence:
        """Sample a verb with an infinitive that shares its subject: "she tries to open the window"."""
        verb = self._pick(_CONTROL)
        subject = self._nominal(_PERSON, light=True, definite=True)
        tense = self._pick((Tense.PROGRESSIVE, Tense.PAST) if verb.aspect is Aspect.TASK else (Tense.PAST,))
        times = lex.PAST_TIMES if tense is Tense.PAST else lex.PRESENT_TIMES
        time = self._pick(times) if self._chance(0.3) else None
        plan = _plan(Tense.PRESENT, light=True, timed=False, bounded=True, willed=True, copular=False, negatable=False)
        complement = self._clause(plan, subject=subject)
        # At its end the sentence would give the time of the infinitive, so the time comes first.
        main = Clause(
            subject=subject, verb=verb, tense=tense, time=time, fronted=time is not None, complement=complement
        )
        return Sentence(main=main)

    def _clause(self, plan: _Plan, *, subject: Nominal | None = None, gap: Gap | None = None) -> Clause:
        """Sample a clause that fits ``plan``; ``gap`` is the object gap of a relative clause."""
        person = subject is None or isinstance(subject, Pronoun | Name) or "person" in subject.noun.kinds
        if plan.copular and gap is None and person and self._chance(0.2):
            tenses = plan.tenses & {Tense.PRESENT, Tense.PAST, Tense.FUTURE}
            if tenses:
                return self._copular(subject, self._tense(tenses), plan)
        verbs = _verbs(_kinds_of(subject), gap.noun.kinds if gap else None, plan)
        while True:
            verb = self._pick(verbs)
            chosen = subject or self._nominal(verb.subjects, light=plan.light, subject=True)
            tenses = _allowed_tenses(verb, plan)
            if verb.english.blurs_tense(agreement(chosen)):
                tenses -= {Tense.PRESENT, Tense.PAST}
            if tenses:
                return self._verbal(verb, chosen, self._tense(tenses), plan, gap)

    def _tense(self, tenses: frozenset[Tense]) -> Tense:
        ordered = [tense for tense in Tense if tense in tenses]  # a set has no order to draw from
        return self._rng.choices(ordered, [1 if tense is Tense.FUTURE else 2 for tense in ordered])[0]

    def _copular(self, subject: Nominal | None, tense: Tense, plan: _Plan) -> Clause:
        """Sample a copular clause: being somewhere, or having a property."""
        if subject is None and self._chance(0.25):
            subject = self._nominal(lex.BE_AT.subjects, light=True, subject=True, definite=True)
            return Clause(
                subject=subject,
                verb=lex.BE_AT,
                tense=tense,
                place=self._whereabouts(subject),
                negated=plan.negatable and self._negatable(subject),
            )
        subject = subject or self._describable(light=plan.light)
        predicate = self._pick(_adjectives(_kinds_of(subject) or _PERSON, predicative=True))
        if isinstance(subject, NounPhrase):
            subject = replace(subject, adjective=None)
        timed = plan.timed and predicate.passing and tense is Tense.PAST
        time = self._time(lex.BE, tense, plan) if timed and self._chance(0.5) else None
        return Clause(
            subject=subject,
            verb=lex.BE,
            tense=tense,
            predicate=predicate,
            time=time,
            fronted=self._fronted(time, plan),
            negated=plan.negatable and self._negatable(subject),
        )

    def _describable(self, *, light: bool) -> Nominal:
        if self._chance(0.3):
            return self._pick(lex.PRONOUNS) if self._chance(0.5) else self._name()
        kind = self._pick(sorted({kind for a in lex.ADJECTIVES if a.predicative for kind in a.kinds}))
        return self._noun_phrase(frozenset({kind}), light=light, definite=True, subject=True, number=False)

    def _negatable(self, subject: Nominal) -> bool:
        """Decide at random whether to negate; never after "every" or an indefinite subject: the scope would be
        unclear."""
        every = isinstance(subject, NounPhrase) and subject.determiner is lex.EVERY
        return not (every or _is_indefinite(subject)) and self._chance(0.18)

    def _verbal(self, verb: Verb, subject: Nominal, tense: Tense, plan: _Plan, gap: Gap | None) -> Clause:
        """Sample a verb with its arguments, and optionally a modal, a negation and adjuncts."""
        modal = self._modal(verb, subject, tense, plan)
        if modal:
            tense = Tense.PAST if tense is Tense.PAST else Tense.PRESENT
        negated = plan.negatable and tense is not Tense.PERFECT and self._negatable(subject)
        recipient = None
        if verb.recipient:
            recipient = self._nominal(_PERSON, light=True, definite=True, besides=subject)
        thing = gap or self._object(verb, subject, light=plan.light or verb.recipient, negated=negated)
        clause = Clause(
            subject=subject,
            verb=verb,
            tense=tense,
            modal=modal,
            negated=negated,
            object=thing,
            recipient=recipient,
            goal=self._goal(verb),
        )
        return self._with_adjuncts(clause, plan)

    def _modal(self, verb: Verb, subject: Nominal, tense: Tense, plan: _Plan) -> lex.Modal | None:
        """Sample a modal for something that people do deliberately, or None."""
        person = "person" in (_kinds_of(subject) or ())
        simple = tense in (Tense.PRESENT, Tense.PROGRESSIVE, Tense.PAST) and not plan.bounded
        willed = verb.willed and verb.aspect is not Aspect.STATE
        if not (person and simple and willed and self._chance(0.22)):
            return None
        return self._pick(lex.PAST_MODALS if tense is Tense.PAST else lex.PRESENT_MODALS)

    def _with_adjuncts(self, clause: Clause, plan: _Plan) -> Clause:
        """Add time and one adjunct, except after a relative clause, which they would seem to belong to."""
        trailing = isinstance(clause.object, NounPhrase) and clause.object.relative is not None
        place = self._place(clause.verb) if clause.verb.needs_place else None
        adjunct = None
        settled = plan.light or trailing or place or clause.verb.aspect is Aspect.STATE
        if not settled and clause.verb.adjuncts and self._chance(0.4):
            kind = self._pick(sorted(clause.verb.adjuncts))
            if kind == "place":
                place = self._place(clause.verb)
            else:
                adjunct = self._adjunct(kind)
        chance = 0.0 if not plan.timed else 0.25 if plan.light else 0.75
        time = self._time(clause.verb, clause.tense, plan, clause) if self._chance(chance) else None
        fronted = self._fronted(time, plan)
        if trailing and not fronted and not (isinstance(time, Adverb) and time.middle):
            time = None
        return replace(clause, place=place, adjunct=adjunct, time=time, fronted=fronted)

    def _fronted(self, time: Adverbial | None, plan: _Plan) -> bool:
        middle = isinstance(time, Adverb) and time.middle
        return plan.frontable and time is not None and not middle and self._chance(0.4)

    def _time(self, verb: Verb, tense: Tense, plan: _Plan, clause: Clause | None = None) -> Adverbial | None:
        """Sample a time that fits the tense; None where the scope of negation or a state's aspect would become
        unclear."""
        modal, negated = (clause.modal, clause.negated) if clause else (None, False)
        match tense:
            case Tense.PERFECT:
                return self._pick(lex.PERFECT_TIMES)
            case Tense.PROGRESSIVE:
                return self._pick(lex.PRESENT_TIMES)
            case Tense.PRESENT:
                if modal:
                    return self._pick((*lex.PRESENT_TIMES[:2], *lex.FUTURE_TIMES))
                habitual = verb.aspect is Aspect.HABIT and not negated and not plan.bounded
                return self._pick(lex.HABITUAL_TIMES) if habitual else None
        if verb.aspect is Aspect.STATE and verb is not lex.BE:
            return None
        if not plan.light and self._chance(0.2):
            event = self._noun_phrase(frozenset({"event"}), light=True, determiner=lex.THE)
            return Phrase(preposition=self._pick((lex.AFTER, lex.BEFORE, lex.DURING)), object=event)
        return self._pick(lex.PAST_TIMES if tense is Tense.PAST else lex.FUTURE_TIMES)

    def _goal(self, verb: Verb) -> Adverbial | None:
        if not verb.goal:
            return None
        if "city" in verb.goal and (verb.goal == {"city"} or self._chance(0.3)):
            return self._pick(lex.TO_CITIES)
        if "place" in verb.goal and self._chance(0.12):
            return lex.HOME
        phrase = self._noun_phrase(verb.goal, light=True, determiner=lex.THE)
        preposition = verb.onto or phrase.noun.to or lex.TO
        return Phrase(preposition=preposition, object=phrase, motion=True)

    def _place(self, verb: Verb) -> Adverbial:
        """Sample where something happens: a place, a city, at home, or a spot in space."""
        roll = self._rng.random()
        if roll < 0.15:
            return self._pick(lex.IN_CITIES)
        if roll < 0.25:
            return lex.AT_HOME
        if roll < 0.4 and not verb.needs_place:
            return self._spot()
        return self._at(frozenset({"home", "town"} if verb.key == "live" else {"place"}))

    def _whereabouts(self, subject: Nominal) -> Adverbial:
        """Sample where something is: people are in places, other things on, under, behind or beside furniture."""
        if "person" in (_kinds_of(subject) or ()):
            return self._place(lex.BE_AT)
        furniture = self._noun_phrase(frozenset({"furniture"}), light=True, determiner=lex.THE)
        return Phrase(preposition=self._pick((lex.ON, lex.UNDER, lex.BEHIND, lex.BESIDE)), object=furniture)

    def _at(self, kinds: frozenset[str]) -> Phrase:
        phrase = self._noun_phrase(kinds, light=True, determiner=lex.THE)
        return Phrase(preposition=phrase.noun.at or lex.IN, object=phrase)

    def _spot(self) -> Phrase:
        preposition, kind = self._pick(
            (
                (lex.ON, "seat"),
                (lex.UNDER, "shade"),
                (lex.BEHIND, "building"),
                (lex.BESIDE, "building"),
                (lex.IN_FRONT_OF, "building"),
            )
        )
        phrase = self._noun_phrase(frozenset({kind}), light=True, determiner=lex.THE)
        return Phrase(preposition=preposition, object=phrase)

    def _adjunct(self, kind: str) -> Phrase:
        """Sample a companion or a beneficiary."""
        preposition = lex.FOR if kind == "for" else lex.WITH if self._chance(0.7) else lex.WITHOUT
        return Phrase(preposition=preposition, object=self._somebody())

    def _object(self, verb: Verb, subject: Nominal, *, light: bool, negated: bool) -> Nominal | None:
        if not verb.objects:
            return None
        if verb.indefinite:
            return self._noun_phrase(verb.objects, light=True, determiner=lex.A, number=not negated)
        # "every" and numerals under negation leave its scope in doubt.
        return self._nominal(verb.objects, light=light or negated, besides=subject, plain=negated)

    def _nominal(
        self,
        kinds: frozenset[str],
        *,
        light: bool,
        definite: bool = False,
        subject: bool = False,
        besides: Nominal | None = None,
        plain: bool = False,
    ) -> Nominal:
        """Sample a pronoun, a name or a noun phrase; ``besides`` is a subject that the pronoun must not repeat."""
        if "person" in kinds and self._chance(0.4):
            if self._chance(0.4):
                return self._name()
            first = (lex.I, lex.WE)
            clash = first if besides in first else (besides,)
            return self._pick([pronoun for pronoun in lex.PRONOUNS if pronoun not in clash])
        return self._noun_phrase(kinds, light=light, definite=definite, subject=subject, number=not plain)

    def _name(self) -> Name:
        name = self._pick([name for name in lex.NAMES if name not in self._used] or lex.NAMES)
        self._used.add(name)
        return name

    def _noun(self, kinds: frozenset[str], *, without: str = "") -> Noun:
        """Sample a noun that the sentence does not contain yet, if there is one."""
        nouns = [noun for noun in _nouns(kinds) if without not in noun.kinds]
        noun = self._pick([noun for noun in nouns if noun not in self._used] or nouns)
        self._used.add(noun)
        return noun

    def _noun_phrase(
        self,
        kinds: frozenset[str],
        *,
        light: bool,
        definite: bool = False,
        subject: bool = False,
        determiner: Determiner | None = None,
        number: bool = True,
    ) -> NounPhrase:
        """Sample a noun of one of ``kinds`` with determiner, number, adjective and optionally a relative clause."""
        noun = self._noun(kinds)
        if determiner:
            phrase = NounPhrase(noun=noun, determiner=determiner)
        else:
            phrase = self._determined(noun, definite=definite, subject=subject, quantified=number)
        fixed = determiner is lex.THE
        single = noun.mass or noun.kinds & {"parent", "place"} or phrase.determiner is lex.EVERY
        if not single and not fixed and self._chance(0.3):
            numbered = number and phrase.determiner is not lex.THIS and not phrase.possessor
            numeral = self._pick(lex.NUMERALS) if numbered and self._chance(0.4) else None
            phrase = replace(phrase, plural=True, number=numeral)
        adjectives = _adjectives(noun.kinds, predicative=False)
        if adjectives and self._chance(0.2 if light else 0.35):
            phrase = replace(phrase, adjective=self._pick(adjectives))
        plain = phrase.determiner in (lex.THE, lex.A) and not (phrase.possessor or phrase.number or fixed)
        if plain and not light and self._chance(0.18):
            return replace(phrase, relative=self._relative(noun, plural=phrase.plural))
        return phrase

    def _determined(self, noun: Noun, *, definite: bool, subject: bool, quantified: bool) -> NounPhrase:
        """Return a noun with a sampled determiner or possessor; kinship terms always have a possessor."""
        roll = self._rng.random()
        ownable = noun.kinds & {"related", "room", "town"} or not noun.kinds & {"person", "infant", "place"}
        if ownable and roll < (0.65 if "kin" in noun.kinds else 0.16):
            return NounPhrase(noun=noun, determiner=self._pick(lex.POSSESSIVES))
        if ownable and "place" not in noun.kinds and ("kin" in noun.kinds or roll < 0.26):
            return NounPhrase(noun=noun, possessor=self._possessor())
        new = 0 if definite or "room" in noun.kinds else 15 if subject else 40
        every = quantified and not noun.mass and noun.animate
        determiners = (lex.THE, lex.A, lex.THIS, lex.EVERY)
        determiner = self._rng.choices(determiners, (40, new, 8, 4 if every else 0))[0]
        return NounPhrase(noun=noun, determiner=determiner)

    def _possessor(self) -> NounPhrase | Name:
        if self._chance(0.5):
            return self._name()
        return NounPhrase(noun=self._noun(_PERSON, without="kin"))

    def _relative(self, noun: Noun, *, plural: bool) -> Clause | None:
        """Sample a relative clause with ``noun`` as its subject or object; None if no verb suits it."""
        gap = Gap(noun=noun, plural=plural)
        plan = _Plan(light=True, copular=False)
        by_subject = bool(_verbs(noun.kinds, None, plan))
        by_object = bool(_verbs(_PERSON, noun.kinds, plan))
        if by_object and not (by_subject and self._chance(0.5)):
            return self._clause(plan, subject=self._nominal(_PERSON, light=True, definite=True), gap=gap)
        return self._clause(plan, subject=gap) if by_subject else None


Pair = tuple[str, str]
_TARGETS: dict[str, Callable[[Sentence], str]] = {"de": german, "ko": korean}
SHORTEST, LONGEST = 4, 16
"""Bounds on the English words of a sentence."""


def pairs(*, seed: int, target: str = "de") -> Iterator[Pair]:
    """Generate English sentences with their translations, endlessly; no source and no target occurs twice.

    Args:
        seed: fixes the text, on any machine.
        target: ``"de"`` (German) or ``"ko"`` (Korean).

    Raises:
        ConfigError: there is no grammar of ``target``.
    """
    if target not in _TARGETS:
        raise ConfigError(f"target language {target!r}: expected one of {', '.join(sorted(_TARGETS))}")
    return _pairs(Sampler(random.Random(seed)), _TARGETS[target])


def _pairs(sampler: Sampler, translate: Callable[[Sentence], str]) -> Iterator[Pair]:
    sources: set[str] = set()
    targets: set[str] = set()
    while True:
        tree = sampler.sentence()
        source = english(tree)
        if source in sources or not SHORTEST <= len(source.split()) <= LONGEST:
            continue
        translation = translate(tree)
        if translation in targets:
            continue
        sources.add(source)
        targets.add(translation)
        yield source, translation


def corpus(size: int, *, seed: int, target: str = "de") -> list[Pair]:
    """Return the first ``size`` of ``pairs``.

    Raises:
        ConfigError: ``size`` is negative, or there is no grammar of ``target``.
    """
    if size < 0:
        raise ConfigError(f"corpus size {size}: expected 0 or more")
    return list(itertools.islice(pairs(seed=seed, target=target), size))


class Split(NamedTuple):
    """Training, validation and test pairs, which share no source and no target sentence."""

    train: list[Pair]
    valid: list[Pair]
    test: list[Pair]


def split_corpus(train: int, valid: int, test: int, *, seed: int, target: str = "de") -> Split:
    """Generate training, validation and test pairs.

    Test and validation are drawn first, so they stay the same when only the amount of training text changes.

    Raises:
        ConfigError: a size is negative, or there is no grammar of ``target``.
    """
    for name, size in (("train", train), ("valid", valid), ("test", test)):
        if size < 0:
            raise ConfigError(f"{name} size {size}: expected 0 or more")
    drawn = corpus(train + valid + test, seed=seed, target=target)
    return Split(train=drawn[test + valid :], valid=drawn[test : test + valid], test=drawn[:test])
