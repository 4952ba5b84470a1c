"""The words of the demo corpus, each with its inflection in English, German and Korean.

An entry holds principal parts, as a dictionary does, and its methods derive the other forms. The tables at
the end are data: to teach the grammar a word, add a line. ``kinds`` are selectional classes; verbs and
adjectives name the kinds they go with, so that books are read and soup is eaten.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

Case = Literal["nom", "acc", "dat", "gen"]
Agreement = Literal["1sg", "3sg", "1pl", "3pl"]
Gender = Literal["m", "f", "n"]
Clausal = Literal["", "that", "whether", "to"]


class Aspect(Enum):
    """Aspectual class of a verb: the tenses in which it sounds natural."""

    STATE = "state"  # never progressive: "knows"
    HABIT = "habit"  # any tense, also with "every day": "reads"
    TASK = "task"  # any tense but the habitual present: "repairs the car"
    EVENT = "event"  # over in a moment, so neither progressive nor present: "lost"


_HANGUL, _FINALS = 0xAC00, 28  # a syllable's code is 0xAC00 + (onset * 21 + vowel) * 28 + final
_NO_FINAL, _N, _D, _L, _B, _SS = 0, 4, 7, 8, 17, 20


def final_consonant(word: str) -> int:
    """Return the index of the last syllable's final consonant in Unicode's order; 0 if the syllable has none."""
    return (ord(word[-1]) - _HANGUL) % _FINALS


def _with_final(word: str, final: int) -> str:
    return word[:-1] + chr(ord(word[-1]) - final_consonant(word) + final)


def attach(word: str, particle: str) -> str:
    """Attach a particle to ``word``; ``"이/가"`` gives the form after a consonant, then the one after a vowel."""
    after_consonant, slash, after_vowel = particle.partition("/")
    return word + (after_vowel if slash and not final_consonant(word) else after_consonant)


@dataclass(frozen=True, kw_only=True)
class KoreanStem:
    """A verb or adjective (Korean conjugates both), or a chain of them, without its ending.

    Attributes:
        stem: the dictionary form less 다: 읽, 듣.
        infinitive: the form in 아/어 that polite, past and auxiliary forms build on: 읽어, 들어.
        descriptive: an adjective, whose plain and attributive present differ from a verb's.
        copula: ends in 이다, which is quoted with 라고.
    """

    stem: str
    infinitive: str
    descriptive: bool = False
    copula: bool = False

    @property
    def linking(self) -> str:
        """The stem that endings in (으) follow: ㅂ turns to 우 and ㄷ to ㄹ in irregular stems."""
        final = final_consonant(self.stem)
        irregular = not self.infinitive.startswith(self.stem)
        if final in (_NO_FINAL, _L):
            return self.stem
        if irregular and final == _B:
            return _with_final(self.stem, _NO_FINAL) + "우"
        if irregular and final == _D:
            return _with_final(self.stem, _L) + "으"
        return self.stem + "으"

    @property
    def existential(self) -> bool:
        """있다, 없다 and their compounds (also a past stem) inflect half as verbs, half as adjectives."""
        return self.stem[-1] in "있없"

    def before_n(self) -> str:
        """Return the stem before an ending in ㄴ: a final ㄹ is dropped (살다, 사는)."""
        return _with_final(self.stem, _NO_FINAL) if final_consonant(self.stem) == _L else self.stem

    def past(self) -> "KoreanStem":
        """Return the past stem, in 았/었."""
        stem = _with_final(self.infinitive, _SS)
        return KoreanStem(stem=stem, infinitive=stem + "어")

    def prospective(self) -> str:
        """Return the attributive form in (으)ㄹ."""
        return _with_final(self.linking, _L)

    def attributive(self) -> str:
        """Return the present form before a noun: -(으)ㄴ for adjectives, -는 for verbs."""
        if self.descriptive and not self.existential:
            return _with_final(self.linking, _N)
        return self.before_n() + "는"

    def attributive_past(self) -> str:
        """Return the past form before a noun: -(으)ㄴ for verbs, -았/었던 for adjectives and existentials."""
        if self.descriptive or self.existential:
            return _with_final(self.infinitive, _SS) + "던"
        return _with_final(self.linking, _N)

    def plain(self) -> str:
        """Return the plain declarative for quotation: -ㄴ/는다 for present verbs, -라 for 이다, -다 otherwise."""
        if self.copula:
            return self.stem + "라"
        if self.descriptive or self.existential or final_consonant(self.stem) == _SS:
            return self.stem + "다"
        if final_consonant(self.stem) in (_NO_FINAL, _L):
            return _with_final(self.stem, _N) + "다"
        return self.stem + "는다"


def _syllables(word: str) -> int:
    return len(re.findall("[aeiouyäöü]+", word.lower()))


def _plural(noun: str) -> str:
    if re.search("[^aeiou]y$", noun):
        return noun[:-1] + "ies"
    return noun + ("es" if re.search("(s|x|ch|sh)$", noun) else "s")


def _doubled(verb: str) -> str:
    """Double the final consonant of a one-syllable stem that ends in vowel and consonant: swim, swimming."""
    one = _syllables(verb) == 1 and re.search("[^aeiou][aeiou][^aeiouwxy]$", verb)
    return verb + verb[-1] if one else verb


@dataclass(frozen=True, kw_only=True)
class EnglishVerb:
    """An English verb by its principal parts.

    Attributes:
        particle: of a phrasal verb; stands before a noun but after a pronoun ("pick up Anna", "pick her up").
        preposition: what introduces the object ("wait for").
        auxiliary: inverts and negates by itself, without "do".
    """

    base: str
    past: str
    participle: str
    particle: str = ""
    preposition: str = ""
    auxiliary: bool = False

    @property
    def gerund(self) -> str:
        stem = self.base[:-1] if re.search("[^eo]e$", self.base) else _doubled(self.base)
        return stem + "ing"

    @property
    def third(self) -> str:
        """The third person singular of the present."""
        irregular = {"have": "has", "be": "is", "can": "can", "go": "goes", "do": "does"}
        return irregular.get(self.base) or _plural(self.base)

    def present(self, agreement: Agreement) -> str:
        if self.base == "be":
            return {"1sg": "am", "3sg": "is"}.get(agreement, "are")
        return self.third if agreement == "3sg" else self.base

    def preterite(self, agreement: Agreement) -> str:
        if self.base == "be":
            return "was" if agreement.endswith("sg") else "were"
        return self.past

    def blurs_tense(self, agreement: Agreement) -> bool:
        """Return whether past and present look the same ("they read"), so that the tense would be ambiguous."""
        return self.past == self.base and agreement != "3sg"


@dataclass(frozen=True, kw_only=True)
class GermanVerb:
    """A German verb by its principal parts, without its separable prefix.

    Attributes:
        third: the third person singular of the present, where strong verbs change their vowel.
        prefix: the separable prefix or "".
        sein: forms its perfect with "sein" (motion and change of state).
        preterite: for the few verbs whose past is not told in the perfect in everyday German.
    """

    infinitive: str
    third: str
    participle: str
    prefix: str = ""
    sein: bool = False
    preterite: str = ""

    def present(self, agreement: Agreement) -> str:
        if self.infinitive == "sein":
            return {"1sg": "bin", "3sg": "ist"}.get(agreement, "sind")
        if agreement == "3sg":
            return self.third
        if agreement == "1sg":
            # Preterite-presents (kann, weiß) have no ending in either person of the singular.
            regular = self.third.endswith(("t", "d"))
            return self.infinitive.removesuffix("n").removesuffix("e") + "e" if regular else self.third
        return self.infinitive

    def past(self, agreement: Agreement) -> str:
        plural = self.preterite + ("n" if self.preterite.endswith("e") else "en")
        return self.preterite if agreement.endswith("sg") else plural

    def zu_infinitive(self) -> str:
        """Return the infinitive with "zu", which follows a separable prefix: zu lesen, aufzumachen."""
        return f"{self.prefix}zu{self.infinitive}" if self.prefix else f"zu {self.infinitive}"


@dataclass(frozen=True, kw_only=True)
class GermanNoun:
    """A German noun; a weak masculine ends like its plural outside the nominative (der Junge, den Jungen)."""

    singular: str
    gender: Gender
    plural: str
    weak: bool = False

    def form(self, case: Case, plural: bool) -> str:
        """Return the noun in a case: -n in the dative plural, -(e)s in the genitive of masculines and neuters."""
        if plural:
            return self.plural + ("n" if case == "dat" and not self.plural.endswith(("n", "s")) else "")
        if self.weak and case != "nom":
            return self.plural
        if case == "gen" and self.gender != "f":
            return self.singular + ("es" if _syllables(self.singular) == 1 else "s")
        return self.singular


Kinds = frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Preposition:
    """A preposition; ``case`` is None where motion decides (accusative) against rest (dative).

    Attributes:
        korean: the noun of position that follows the place (위), or a whole postposition ("와/과 함께").
    """

    english: str
    german: str
    case: Case | None = None
    korean: str = ""


@dataclass(frozen=True, kw_only=True)
class Noun:
    """A common noun.

    Attributes:
        counter: the Korean counter that numbers it.
        at: the preposition of being there; ``to``: of going there. Places only.
    """

    singular: str
    plural: str
    german: GermanNoun
    korean: str
    counter: str
    kinds: Kinds
    at: Preposition | None = None
    to: Preposition | None = None

    @property
    def mass(self) -> bool:
        """Whether it has no plural and takes no indefinite article: milk."""
        return not self.plural

    @property
    def animate(self) -> bool:
        return bool(self.kinds & {"person", "infant", "animal"})


@dataclass(frozen=True, kw_only=True)
class Name:
    """A person's name."""

    english: str
    korean: str
    feminine: bool


@dataclass(frozen=True, kw_only=True)
class Pronoun:
    """A personal pronoun."""

    subject: str
    object: str
    agreement: Agreement
    german: Mapping[Case, str] = field(hash=False)
    korean: str
    korean_nominative: str


@dataclass(frozen=True, kw_only=True)
class Determiner:
    """An article, demonstrative or possessive.

    Attributes:
        german: the stem that endings follow; "d" is the definite article.
        like_ein: has no ending in the nominative masculine and the nominative and accusative neuter.
    """

    singular: str
    plural: str
    german: str
    korean: str
    definite: bool = True
    like_ein: bool = False


@dataclass(frozen=True, kw_only=True)
class Adjective:
    """An adjective.

    Attributes:
        german: the predicative form; ``german_stem`` the one that endings follow (teuer, teur-).
        korean_attributive: given where the noun takes something else than the stem's own form (새).
        unlike: kinds that it does not suit although another of their kinds is listed ("old boy").
        predicative: whether it may follow "be".
        passing: true for a while only, so that it goes with a time ("was tired yesterday").
    """

    english: str
    german: str
    german_stem: str
    korean: KoreanStem
    korean_attributive: str
    kinds: Kinds
    unlike: Kinds = frozenset()
    predicative: bool = True
    passing: bool = False


@dataclass(frozen=True, kw_only=True)
class Verb:
    """A verb with what it governs.

    Attributes:
        case: the case of its object; ``preposition`` what introduces the object in German.
        particle: the Korean particle of its object.
        negative: the Korean stem that means its negation, where there is one (알다, 모르다).
        recipient: takes a second, dative object.
        goal: the kinds of place it moves (something) to; ``onto`` the preposition, else each place's own.
        needs_place: says little without a place ("lives in Berlin").
        korean_place: the Korean particle of the place where it happens.
        clause: what its complement clause is: "that", "whether" or "to"; ``korean_clause`` its Korean ending.
        adjuncts: which optional phrases suit it, of "place", "with" and "for".
        indefinite: only takes an indefinite object ("has a dog").
        willed: somebody may try, promise or be allowed to do it (nobody plans to lose a key).
    """

    key: str
    english: EnglishVerb
    german: GermanVerb
    korean: KoreanStem
    subjects: Kinds
    objects: Kinds = frozenset()
    case: Case = "acc"
    preposition: str = ""
    particle: str = "을/를"
    negative: KoreanStem | None = None
    recipient: bool = False
    goal: Kinds = frozenset()
    onto: Preposition | None = None
    needs_place: bool = False
    korean_place: str = "에서"
    clause: Clausal = ""
    korean_clause: str = ""
    aspect: Aspect = Aspect.TASK
    adjuncts: Kinds = frozenset({"place"})
    indefinite: bool = False
    willed: bool = True


@dataclass(frozen=True, kw_only=True)
class Modal:
    """A modal verb: ``english`` is inflected and followed by ``link`` and the base form."""

    english: EnglishVerb
    link: str
    german: GermanVerb
    key: str


@dataclass(frozen=True, kw_only=True)
class Adverb:
    """An adverbial said as one fixed phrase.

    Attributes:
        middle: stands before the English main verb ("often"), never at an edge of the clause.
        frequency: says how often; not combined with negation, whose scope would be in doubt.
    """

    english: str
    german: str
    korean: str
    middle: bool = False
    frequency: bool = False


@dataclass(frozen=True, kw_only=True)
class Conjunction:
    """A conjunction between two clauses.

    Attributes:
        korean: the name of the ending that joins the clauses.
        comma: whether English separates the clauses when this one comes second.
        coordinating: German keeps verb-second after it.
    """

    english: str
    german: str
    korean: str
    comma: bool = False
    coordinating: bool = False


@dataclass(frozen=True, kw_only=True)
class Numeral:
    """A number from two on; ``korean`` is the form before a counter."""

    english: str
    german: str
    korean: str


def _kinds(text: str) -> Kinds:
    return frozenset(text.split())


def _korean(parts: str, *, descriptive: bool = False) -> KoreanStem:
    """Parse ``"읽다/읽어"``; the infinitive of 하다 and its compounds may be omitted."""
    dictionary, _, infinitive = parts.partition("/")
    stem = dictionary.removesuffix("다")
    if not infinitive:
        infinitive = stem.removesuffix("하") + "해"
    return KoreanStem(stem=stem, infinitive=infinitive, descriptive=descriptive)


def _english(parts: str) -> EnglishVerb:
    """Parse ``"write/wrote/written"``; ``"pick +up"`` is phrasal, ``"wait ~for"`` takes a preposition.

    Regular verbs need the base form only.
    """
    words, particle, preposition = parts, "", ""
    if " +" in parts:
        words, particle = parts.split(" +")
    elif " ~" in parts:
        words, preposition = parts.split(" ~")
    base, *rest = words.split("/")
    if not rest:
        regular = base[:-1] + "ied" if re.search("[^aeiou]y$", base) else _doubled(base) + "ed"
        regular = base + "d" if base.endswith("e") else regular
        rest = [regular, regular]
    past, participle = rest
    return EnglishVerb(base=base, past=past, participle=participle, particle=particle, preposition=preposition)


def _german(parts: str) -> GermanVerb:
    """Parse ``"auf|machen/macht/gemacht"``; a leading ``+`` marks the perfect with sein."""
    infinitive, third, participle, *preterite = parts.removeprefix("+").split("/")
    prefix, _, infinitive = infinitive.rpartition("|")
    return GermanVerb(
        infinitive=infinitive,
        third=third,
        participle=participle,
        prefix=prefix,
        sein=parts.startswith("+"),
        preterite=preterite[0] if preterite else "",
    )


def _noun(
    english: str, german: str, korean: str, kinds: str, *, at: Preposition | None = None, to: Preposition | None = None
) -> Noun:
    """Parse ``"child/children"``, ``"Kind/n/Kinder"``, ``"아이/명"`` (noun and counter, 개 by default).

    The gender ``w`` is a weak masculine; a German noun without a plural is a mass noun.
    """
    singular, _, plural = english.partition("/")
    de_singular, gender, *de_plural = german.split("/")
    word, _, counter = korean.partition("/")
    genders: dict[str, Gender] = {"m": "m", "w": "m", "f": "f", "n": "n"}
    declension = GermanNoun(
        singular=de_singular, gender=genders[gender], weak=gender == "w", plural=de_plural[0] if de_plural else ""
    )
    plural = (plural or _plural(singular)) if de_plural else ""
    return Noun(
        singular=singular,
        plural=plural,
        german=declension,
        korean=word,
        counter=counter or "개",
        kinds=_kinds(kinds),
        at=at,
        to=to,
    )


def _verb(
    english: str,
    german: str,
    korean: str,
    subjects: str,
    objects: str = "",
    *,
    negative: str = "",
    goal: str = "",
    clause: Clausal = "",
    adjuncts: str = "place",
    descriptive: bool = False,
    **options: Any,
) -> Verb:
    """Make a verb from each language's notation; ``options`` are fields of ``Verb``."""
    words = _english(english)
    key = " ".join(filter(None, (words.base, words.particle, words.preposition, clause)))
    return Verb(
        key=key,
        english=words,
        german=_german(german),
        korean=_korean(korean, descriptive=descriptive),
        negative=_korean(negative) if negative else None,
        subjects=_kinds(subjects),
        objects=_kinds(objects),
        goal=_kinds(goal),
        clause=clause,
        adjuncts=_kinds(adjuncts),
        **options,
    )


def _adjective(
    english: str, german: str, korean: str, kinds: str, *, attributive: str = "", unlike: str = "", **options: bool
) -> Adjective:
    form, _, stem = german.partition("/")
    korean_stem = _korean(korean, descriptive=True)
    return Adjective(
        english=english,
        german=form,
        german_stem=stem or form,
        korean=korean_stem,
        korean_attributive=attributive or korean_stem.attributive(),
        kinds=_kinds(kinds),
        unlike=_kinds(unlike),
        **options,
    )


def _adverbs(
    rows: Iterable[tuple[str, str, str]], *, middle: bool = False, frequency: bool = False
) -> tuple[Adverb, ...]:
    return tuple(Adverb(english=en, german=de, korean=ko, middle=middle, frequency=frequency) for en, de, ko in rows)


THE = Determiner(singular="the", plural="the", german="d", korean="")
A = Determiner(singular="a", plural="", german="ein", korean="", definite=False, like_ein=True)
NO = Determiner(singular="", plural="", german="kein", korean="", definite=False, like_ein=True)
THIS = Determiner(singular="this", plural="these", german="dies", korean="이")
EVERY = Determiner(singular="every", plural="", german="jed", korean="모든")
MY = Determiner(singular="my", plural="my", german="mein", korean="제", like_ein=True)
HIS = Determiner(singular="his", plural="his", german="sein", korean="그의", like_ein=True)
HER = Determiner(singular="her", plural="her", german="ihr", korean="그녀의", like_ein=True)
OUR = Determiner(singular="our", plural="our", german="unser", korean="우리", like_ein=True)
THEIR = Determiner(singular="their", plural="their", german="ihr", korean="그들의", like_ein=True)
POSSESSIVES = (MY, HIS, HER, OUR, THEIR)

I = Pronoun(  # noqa: E741
    subject="I",
    object="me",
    agreement="1sg",
    korean="저",
    korean_nominative="제가",
    german={"nom": "ich", "acc": "mich", "dat": "mir"},
)
HE = Pronoun(
    subject="he",
    object="him",
    agreement="3sg",
    korean="그",
    korean_nominative="그가",
    german={"nom": "er", "acc": "ihn", "dat": "ihm"},
)
SHE = Pronoun(
    subject="she",
    object="her",
    agreement="3sg",
    korean="그녀",
    korean_nominative="그녀가",
    german={"nom": "sie", "acc": "sie", "dat": "ihr"},
)
WE = Pronoun(
    subject="we",
    object="us",
    agreement="1pl",
    korean="우리",
    korean_nominative="우리가",
    german={"nom": "wir", "acc": "uns", "dat": "uns"},
)
THEY = Pronoun(
    subject="they",
    object="them",
    agreement="3pl",
    korean="그들",
    korean_nominative="그들이",
    german={"nom": "sie", "acc": "sie", "dat": "ihnen"},
)
PRONOUNS = (I, HE, SHE, WE, THEY)

NAMES = tuple(
    Name(english=english, korean=korean, feminine=feminine)
    for english, korean, feminine in (
        ("Anna", "안나", True),
        ("Maria", "마리아", True),
        ("Julia", "율리아", True),
        ("Laura", "라우라", True),
        ("Sophie", "조피", True),
        ("Karin", "카린", True),
        ("Paul", "파울", False),
        ("Peter", "페터", False),
        ("Thomas", "토마스", False),
        ("Simon", "지몬", False),
        ("Felix", "펠릭스", False),
        ("Daniel", "다니엘", False),
    )
)

NUMERALS = tuple(
    Numeral(english=english, german=german, korean=korean)
    for english, german, korean in (
        ("two", "zwei", "두"),
        ("three", "drei", "세"),
        ("four", "vier", "네"),
        ("five", "fünf", "다섯"),
        ("six", "sechs", "여섯"),
        ("seven", "sieben", "일곱"),
        ("eight", "acht", "여덟"),
        ("ten", "zehn", "열"),
        ("twelve", "zwölf", "열두"),
    )
)

IN = Preposition(english="in", german="in")
INTO = Preposition(english="to", german="in")
AT = Preposition(english="at", german="an")
ON_SHORE = Preposition(english="on", german="an")
TO_SHORE = Preposition(english="to", german="an")
AT_MARKET = Preposition(english="at", german="auf")
TO_MARKET = Preposition(english="to", german="auf")
TO = Preposition(english="to", german="zu", case="dat")
ON = Preposition(english="on", german="auf", korean="위")
ONTO = Preposition(english="onto", german="auf", korean="위")
UNDER = Preposition(english="under", german="unter", korean="아래")
BEHIND = Preposition(english="behind", german="hinter", korean="뒤")
BESIDE = Preposition(english="next to", german="neben", korean="옆")
IN_FRONT_OF = Preposition(english="in front of", german="vor", korean="앞")
WITH = Preposition(english="with", german="mit", case="dat", korean="과 함께/와 함께")
WITHOUT = Preposition(english="without", german="ohne", case="acc", korean=" 없이")
FOR = Preposition(english="for", german="für", case="acc", korean="을 위해/를 위해")
AFTER = Preposition(english="after", german="nach", case="dat", korean=" 후에")
BEFORE = Preposition(english="before", german="vor", case="dat", korean=" 전에")
DURING = Preposition(english="during", german="während", case="gen", korean=" 동안")

_PERSONS = (
    _noun("man/men", "Mann/m/Männer", "남자/명", "person"),
    _noun("woman/women", "Frau/f/Frauen", "여자/명", "person"),
    _noun("child/children", "Kind/n/Kinder", "아이/명", "person related small"),
    _noun("boy", "Junge/w/Jungen", "소년/명", "person small"),
    _noun("girl", "Mädchen/n/Mädchen", "소녀/명", "person small"),
    _noun("baby", "Baby/n/Babys", "아기/명", "infant small"),
    _noun("teacher", "Lehrer/m/Lehrer", "교사/명", "person related"),
    _noun("doctor", "Arzt/m/Ärzte", "의사/명", "person related"),
    _noun("student", "Student/w/Studenten", "대학생/명", "person"),
    _noun("friend", "Freund/m/Freunde", "친구/명", "person related"),
    _noun("neighbor", "Nachbar/w/Nachbarn", "이웃/명", "person related"),
    _noun("colleague", "Kollege/w/Kollegen", "동료/명", "person related"),
    _noun("waiter", "Kellner/m/Kellner", "종업원/명", "person"),
    _noun("chef", "Koch/m/Köche", "요리사/명", "person"),
    _noun("baker", "Bäcker/m/Bäcker", "제빵사/명", "person"),
    _noun("artist", "Künstler/m/Künstler", "예술가/명", "person"),
    _noun("musician", "Musiker/m/Musiker", "음악가/명", "person"),
    _noun("singer", "Sängerin/f/Sängerinnen", "여가수/명", "person"),
    _noun("nurse", "Krankenschwester/f/Krankenschwestern", "간호사/명", "person"),
    _noun("actress/actresses", "Schauspielerin/f/Schauspielerinnen", "여배우/명", "person"),
    _noun("farmer", "Bauer/w/Bauern", "농부/명", "person"),
    _noun("journalist", "Journalistin/f/Journalistinnen", "기자/명", "person"),
    _noun("tourist", "Tourist/w/Touristen", "관광객/명", "person"),
    _noun("pilot", "Pilot/w/Piloten", "조종사/명", "person"),
    _noun("lawyer", "Anwältin/f/Anwältinnen", "변호사/명", "person"),
    _noun("guest", "Gast/m/Gäste", "손님/명", "person related"),
    _noun("mechanic", "Mechaniker/m/Mechaniker", "정비사/명", "person"),
    _noun("policeman/policemen", "Polizist/w/Polizisten", "경찰관/명", "person"),
    _noun("brother", "Bruder/m/Brüder", "남동생/명", "person kin related"),
    _noun("sister", "Schwester/f/Schwestern", "여동생/명", "person kin related"),
    _noun("father", "Vater/m/Väter", "아버지/명", "person kin related parent"),
    _noun("mother", "Mutter/f/Mütter", "어머니/명", "person kin related parent"),
    _noun("grandmother", "Großmutter/f/Großmütter", "할머니/명", "person kin related parent"),
    _noun("uncle", "Onkel/m/Onkel", "삼촌/명", "person kin related"),
    _noun("aunt", "Tante/f/Tanten", "이모/명", "person kin related"),
    _noun("son", "Sohn/m/Söhne", "아들/명", "person kin related small"),
    _noun("daughter", "Tochter/f/Töchter", "딸/명", "person kin related small"),
)

_ANIMALS = (
    _noun("dog", "Hund/m/Hunde", "개/마리", "animal pet"),
    _noun("cat", "Katze/f/Katzen", "고양이/마리", "animal pet"),
    _noun("rabbit", "Kaninchen/n/Kaninchen", "토끼/마리", "animal pet"),
    _noun("bird", "Vogel/m/Vögel", "새/마리", "animal"),
    _noun("horse", "Pferd/n/Pferde", "말/마리", "animal"),
    _noun("cow", "Kuh/f/Kühe", "소/마리", "animal"),
    _noun("duck", "Ente/f/Enten", "오리/마리", "animal"),
)

_FOOD = (
    _noun("apple", "Apfel/m/Äpfel", "사과", "food fruit"),
    _noun("banana", "Banane/f/Bananen", "바나나", "food fruit"),
    _noun("pear", "Birne/f/Birnen", "배", "food fruit"),
    _noun("tomato/tomatoes", "Tomate/f/Tomaten", "토마토", "food fruit"),
    _noun("potato/potatoes", "Kartoffel/f/Kartoffeln", "감자", "food dish"),
    _noun("egg", "Ei/n/Eier", "달걀", "food dish"),
    _noun("cookie", "Keks/m/Kekse", "쿠키", "food baked"),
    _noun("cake", "Kuchen/m/Kuchen", "케이크", "food baked"),
    _noun("pizza", "Pizza/f/Pizzen", "피자/판", "food baked"),
    _noun("sausage", "Wurst/f/Würste", "소시지", "food"),
    _noun("salad", "Salat/m/Salate", "샐러드/접시", "food"),
    _noun("soup", "Suppe/f/Suppen", "수프/그릇", "food dish served"),
    _noun("bread", "Brot/n", "빵", "food baked"),
    _noun("cheese", "Käse/m", "치즈", "food"),
    _noun("meat", "Fleisch/n", "고기", "food dish"),
    _noun("rice", "Reis/m", "밥", "food dish served"),
    _noun("chocolate", "Schokolade/f", "초콜릿", "food"),
    _noun("honey", "Honig/m", "꿀", "food"),
    _noun("milk", "Milch/f", "우유", "drink"),
    _noun("coffee", "Kaffee/m", "커피", "drink served"),
    _noun("tea", "Tee/m", "차", "drink served"),
    _noun("water", "Wasser/n", "물", "drink"),
    _noun("juice", "Saft/m", "주스", "drink"),
    _noun("lemonade", "Limonade/f", "레모네이드", "drink"),
)

_THINGS = (
    _noun("book", "Buch/n/Bücher", "책/권", "thing text written lendable gift"),
    _noun("novel", "Roman/m/Romane", "소설/권", "thing text written lendable"),
    _noun("magazine", "Zeitschrift/f/Zeitschriften", "잡지/권", "thing text lendable"),
    _noun("newspaper", "Zeitung/f/Zeitungen", "신문/부", "thing text"),
    _noun("letter", "Brief/m/Briefe", "편지/통", "text written mail"),
    _noun("email", "E-Mail/f/E-Mails", "이메일/통", "text written mail"),
    _noun("message", "Nachricht/f/Nachrichten", "메시지", "text written mail"),
    _noun("postcard", "Postkarte/f/Postkarten", "엽서/장", "text written mail"),
    _noun("report", "Bericht/m/Berichte", "보고서", "text written"),
    _noun("article", "Artikel/m/Artikel", "기사", "text written"),
    _noun("poem", "Gedicht/n/Gedichte", "시/편", "text written"),
    _noun("story", "Geschichte/f/Geschichten", "이야기", "text written tale"),
    _noun("fairy tale", "Märchen/n/Märchen", "동화/편", "text tale"),
    _noun("joke", "Witz/m/Witze", "농담", "tale"),
    _noun("shirt", "Hemd/n/Hemden", "셔츠/장", "clothing"),
    _noun("jacket", "Jacke/f/Jacken", "재킷/벌", "clothing"),
    _noun("coat", "Mantel/m/Mäntel", "코트/벌", "clothing"),
    _noun("dress", "Kleid/n/Kleider", "드레스/벌", "clothing"),
    _noun("sweater", "Pullover/m/Pullover", "스웨터/벌", "clothing"),
    _noun("skirt", "Rock/m/Röcke", "치마/벌", "clothing"),
    _noun("blouse", "Bluse/f/Blusen", "블라우스/벌", "clothing"),
    _noun("cup", "Tasse/f/Tassen", "컵", "thing vessel"),
    _noun("bottle", "Flasche/f/Flaschen", "병", "thing vessel"),
    _noun("plate", "Teller/m/Teller", "접시", "thing vessel"),
    _noun("vase", "Vase/f/Vasen", "꽃병", "thing vessel gift"),
    _noun("pot", "Topf/m/Töpfe", "냄비", "thing vessel"),
    _noun("bowl", "Schüssel/f/Schüsseln", "그릇", "thing vessel"),
    _noun("basket", "Korb/m/Körbe", "바구니", "thing vessel"),
    _noun("key", "Schlüssel/m/Schlüssel", "열쇠", "thing flat"),
    _noun("ring", "Ring/m/Ringe", "반지", "thing gift flat"),
    _noun("umbrella", "Regenschirm/m/Regenschirme", "우산", "thing lendable"),
    _noun("map", "Landkarte/f/Landkarten", "지도/장", "thing visual flat lendable"),
    _noun("picture", "Bild/n/Bilder", "그림/장", "thing visual gift drawing"),
    _noun("photo", "Foto/n/Fotos", "사진/장", "thing visual flat"),
    _noun("ticket", "Fahrkarte/f/Fahrkarten", "승차권/장", "thing flat"),
    _noun("gift", "Geschenk/n/Geschenke", "선물", "thing gift"),
    _noun("toy", "Spielzeug/n/Spielzeuge", "장난감", "thing gift playable"),
    _noun("ball", "Ball/m/Bälle", "공", "thing playable"),
    _noun("knife/knives", "Messer/n/Messer", "칼", "thing flat"),
    _noun("flower", "Blume/f/Blumen", "꽃/송이", "thing gift plant"),
    _noun("guitar", "Gitarre/f/Gitarren", "기타", "thing lendable"),
    _noun("hat", "Hut/m/Hüte", "모자", "thing gift"),
    _noun("pencil", "Bleistift/m/Bleistifte", "연필/자루", "thing flat lendable"),
    _noun("backpack", "Rucksack/m/Rucksäcke", "배낭", "thing luggage"),
    _noun("suitcase", "Koffer/m/Koffer", "여행 가방", "thing luggage opening"),
    _noun("bag", "Tasche/f/Taschen", "가방", "thing luggage"),
    _noun("box/boxes", "Kiste/f/Kisten", "상자", "thing opening"),
    _noun("window", "Fenster/n/Fenster", "창문", "opening"),
    _noun("door", "Tür/f/Türen", "문", "opening"),
    _noun("cupboard", "Schrank/m/Schränke", "찬장", "opening tidy"),
    _noun("drawer", "Schublade/f/Schubladen", "서랍", "opening tidy"),
    _noun("car", "Auto/n/Autos", "자동차/대", "vehicle owned"),
    _noun("bicycle", "Fahrrad/n/Fahrräder", "자전거/대", "vehicle owned lendable"),
    _noun("motorcycle", "Motorrad/n/Motorräder", "오토바이/대", "vehicle owned"),
    _noun("truck", "Lastwagen/m/Lastwagen", "트럭/대", "vehicle owned"),
    _noun("boat", "Boot/n/Boote", "보트/척", "vehicle owned"),
    _noun("bus", "Bus/m/Busse", "버스/대", "vehicle transit"),
    _noun("train", "Zug/m/Züge", "기차/대", "vehicle transit"),
    _noun("taxi", "Taxi/n/Taxis", "택시/대", "vehicle transit"),
    _noun("lamp", "Lampe/f/Lampen", "램프", "device switch vessel"),
    _noun("computer", "Computer/m/Computer", "컴퓨터/대", "device switch"),
    _noun("radio", "Radio/n/Radios", "라디오/대", "device switch"),
    _noun("television", "Fernseher/m/Fernseher", "텔레비전/대", "device switch"),
    _noun("heater", "Heizung/f/Heizungen", "난방기/대", "device switch"),
    _noun("washing machine", "Waschmaschine/f/Waschmaschinen", "세탁기/대", "device switch"),
    _noun("camera", "Kamera/f/Kameras", "카메라/대", "device lendable"),
)

_PLACES = (
    _noun("table", "Tisch/m/Tische", "식탁", "furniture surface"),
    _noun("chair", "Stuhl/m/Stühle", "의자", "furniture surface seat"),
    _noun("bed", "Bett/n/Betten", "침대", "furniture surface seat"),
    _noun("sofa", "Sofa/n/Sofas", "소파", "furniture surface seat"),
    _noun("bench/benches", "Bank/f/Bänke", "벤치", "furniture surface seat"),
    _noun("desk", "Schreibtisch/m/Schreibtische", "책상", "furniture surface tidy"),
    _noun("shelf/shelves", "Regal/n/Regale", "책장", "surface tidy"),
    _noun("tree", "Baum/m/Bäume", "나무/그루", "shade plant"),
    _noun("wall", "Wand/f/Wände", "벽", "wall", to=ON_SHORE),
    _noun("kitchen", "Küche/f/Küchen", "부엌", "place room", at=IN, to=INTO),
    _noun("bedroom", "Schlafzimmer/n/Schlafzimmer", "침실", "place room", at=IN, to=INTO),
    _noun("living room", "Wohnzimmer/n/Wohnzimmer", "거실", "place room", at=IN, to=INTO),
    _noun("garage", "Garage/f/Garagen", "차고", "place room", at=IN, to=INTO),
    _noun("office", "Büro/n/Büros", "사무실", "place room", at=IN, to=INTO),
    _noun("apartment", "Wohnung/f/Wohnungen", "아파트", "room home", at=IN, to=INTO),
    _noun("house", "Haus/n/Häuser", "집/채", "building home", at=IN, to=INTO),
    _noun("garden", "Garten/m/Gärten", "정원", "place outdoors", at=IN, to=INTO),
    _noun("park", "Park/m/Parks", "공원", "place outdoors", at=IN, to=INTO),
    _noun("forest", "Wald/m/Wälder", "숲", "place outdoors", at=IN, to=INTO),
    _noun("city", "Stadt/f/Städte", "도시", "place town", at=IN, to=INTO),
    _noun("village", "Dorf/n/Dörfer", "마을", "place town", at=IN, to=INTO),
    _noun("school", "Schule/f/Schulen", "학교", "place building", at=Preposition(english="at", german="in"), to=INTO),
    _noun("library", "Bibliothek/f/Bibliotheken", "도서관", "place building", at=IN, to=INTO),
    _noun("museum", "Museum/n/Museen", "박물관", "place building sight", at=IN, to=INTO),
    _noun("theater", "Theater/n/Theater", "극장", "place building", at=IN, to=INTO),
    _noun("restaurant", "Restaurant/n/Restaurants", "식당", "place building", at=IN, to=INTO),
    _noun("hotel", "Hotel/n/Hotels", "호텔", "place building", at=IN, to=INTO),
    _noun("hospital", "Krankenhaus/n/Krankenhäuser", "병원", "place building", at=IN, to=INTO),
    _noun("supermarket", "Supermarkt/m/Supermärkte", "슈퍼마켓", "place building", at=IN, to=INTO),
    _noun("church/churches", "Kirche/f/Kirchen", "교회", "place building sight", at=IN, to=INTO),
    _noun("station", "Bahnhof/m/Bahnhöfe", "기차역", "place building stop", at=AT, to=TO),
    _noun("airport", "Flughafen/m/Flughäfen", "공항", "place stop", at=AT, to=TO),
    _noun("bus stop", "Bushaltestelle/f/Bushaltestellen", "버스 정류장", "place stop", at=AT, to=TO),
    _noun("university", "Universität/f/Universitäten", "대학교", "place building", at=AT, to=TO),
    _noun("market", "Markt/m/Märkte", "시장", "place outdoors", at=AT_MARKET, to=TO_MARKET),
    _noun("beach/beaches", "Strand/m/Strände", "해변", "place outdoors", at=ON_SHORE, to=TO_SHORE),
    _noun("lake", "See/m/Seen", "호수", "place outdoors", at=AT, to=TO_SHORE),
)

_EVENTS = (
    _noun("concert", "Konzert/n/Konzerte", "콘서트", "event joinable social"),
    _noun("meeting", "Besprechung/f/Besprechungen", "회의", "event joinable planned"),
    _noun("course", "Kurs/m/Kurse", "강좌", "event joinable"),
    _noun("competition", "Wettbewerb/m/Wettbewerbe", "대회", "event joinable"),
    _noun("exam", "Prüfung/f/Prüfungen", "시험", "event joinable planned"),
    _noun("party", "Party/f/Partys", "파티", "event social planned"),
    _noun("wedding", "Hochzeit/f/Hochzeiten", "결혼식", "event social planned"),
    _noun("trip", "Reise/f/Reisen", "여행", "event planned social"),
    _noun("breakfast", "Frühstück/n", "아침 식사", "meal"),
    _noun("lunch", "Mittagessen/n", "점심 식사", "meal"),
    _noun("dinner", "Abendessen/n", "저녁 식사", "meal"),
)

NOUNS = (*_PERSONS, *_ANIMALS, *_FOOD, *_THINGS, *_PLACES, *_EVENTS)

ADJECTIVES = (
    _adjective("young", "jung", "젊다/젊어", "person", unlike="parent"),
    _adjective("old", "alt", "나이가 많다/나이가 많아", "person animal", unlike="small", attributive="나이 많은"),
    _adjective("tall", "groß", "키가 크다/키가 커", "person", attributive="키 큰"),
    _adjective("friendly", "freundlich", "친절하다", "person"),
    _adjective("famous", "berühmt", "유명하다", "person sight"),
    _adjective("smart", "klug", "똑똑하다", "person"),
    _adjective("nice", "nett", "착하다", "person"),
    _adjective("strong", "stark", "힘세다/힘세", "person"),
    _adjective("polite", "höflich", "공손하다", "person"),
    _adjective("brave", "mutig", "용감하다", "person"),
    _adjective("rich", "reich", "부유하다", "person"),
    _adjective("tired", "müde/müd", "피곤하다", "person animal", passing=True),
    _adjective("sick", "krank", "아프다/아파", "person animal", passing=True),
    _adjective("happy", "glücklich", "행복하다", "person", passing=True),
    _adjective("sad", "traurig", "슬프다/슬퍼", "person tale", passing=True),
    _adjective("hungry", "hungrig", "배고프다/배고파", "person animal", passing=True),
    _adjective("busy", "beschäftigt", "바쁘다/바빠", "person", passing=True),
    _adjective("lazy", "faul", "게으르다/게을러", "person animal"),
    _adjective("cute", "niedlich", "귀엽다/귀여워", "animal small"),
    _adjective("dangerous", "gefährlich", "위험하다", "vehicle"),
    _adjective(
        "new", "neu", "새롭다/새로워", "thing clothing vehicle device furniture", attributive="새", predicative=False
    ),
    _adjective(
        "old",
        "alt",
        "오래되다/오래돼",
        "thing vehicle device furniture building room town opening",
        attributive="오래된",
        predicative=False,
    ),
    _adjective("small", "klein", "작다/작아", "animal thing furniture building room town device"),
    _adjective("big", "groß", "크다/커", "animal thing furniture building room outdoors town"),
    _adjective("beautiful", "schön", "아름답다/아름다워", "clothing gift plant building outdoors town"),
    _adjective("expensive", "teuer/teur", "비싸다/비싸", "thing clothing vehicle device furniture"),
    _adjective("cheap", "billig", "싸다/싸", "thing clothing vehicle device"),
    _adjective("heavy", "schwer", "무겁다/무거워", "luggage furniture vessel opening"),
    _adjective("light", "leicht", "가볍다/가벼워", "luggage vessel"),
    _adjective("red", "rot", "빨갛다/빨개", "clothing owned vessel luggage", attributive="빨간", predicative=False),
    _adjective("blue", "blau", "파랗다/파래", "clothing owned vessel luggage", attributive="파란", predicative=False),
    _adjective("white", "weiß", "하얗다/하얘", "clothing owned vessel pet", attributive="하얀", predicative=False),
    _adjective("black", "schwarz", "까맣다/까매", "clothing owned pet luggage", attributive="까만", predicative=False),
    _adjective("yellow", "gelb", "노랗다/노래", "clothing owned vessel", attributive="노란", predicative=False),
    _adjective("dirty", "schmutzig", "더럽다/더러워", "clothing vessel room"),
    _adjective("clean", "sauber", "깨끗하다", "clothing vessel room"),
    _adjective("warm", "warm", "따뜻하다", "clothing served room"),
    _adjective("hot", "heiß", "뜨겁다/뜨거워", "served"),
    _adjective("cold", "kalt", "차갑다/차가워", "drink"),
    _adjective("fresh", "frisch", "신선하다", "fruit drink baked"),
    _adjective("sweet", "süß", "달콤하다", "fruit baked"),
    _adjective("tasty", "lecker", "맛있다/맛있어", "food"),
    _adjective("elegant", "elegant", "우아하다", "clothing"),
    _adjective("comfortable", "bequem", "편하다", "seat"),
    _adjective("fast", "schnell", "빠르다/빨라", "vehicle"),
    _adjective("slow", "langsam", "느리다/느려", "vehicle"),
    _adjective("long", "lang", "길다/길어", "text event"),
    _adjective("short", "kurz", "짧다/짧아", "text tale"),
    _adjective("interesting", "interessant", "흥미롭다/흥미로워", "text event"),
    _adjective("funny", "lustig", "재미있다/재미있어", "tale"),
    _adjective("boring", "langweilig", "지루하다", "text event"),
    _adjective("important", "wichtig", "중요하다", "mail event"),
    _adjective("difficult", "schwierig", "어렵다/어려워", "text"),
    _adjective("quiet", "ruhig", "조용하다", "room outdoors town"),
    _adjective("dark", "dunkel/dunkl", "어둡다/어두워", "room"),
    _adjective("bright", "hell", "밝다/밝아", "room"),
)

BE = Verb(
    key="be",
    english=EnglishVerb(base="be", past="was", participle="been", auxiliary=True),
    german=_german("+sein/ist/gewesen/war"),
    korean=_korean("이다/이에"),
    subjects=frozenset(),
    aspect=Aspect.STATE,
)
"""The copula; with an adjective Korean conjugates the adjective itself."""

BE_AT = Verb(
    key="be at",
    english=BE.english,
    german=BE.german,
    korean=_korean("있다/있어"),
    negative=_korean("없다/없어"),
    subjects=_kinds("person pet thing"),
    needs_place=True,
    korean_place="에",
    aspect=Aspect.STATE,
)

_STATE, _HABIT, _TASK, _EVENT = Aspect

VERBS = (
    _verb("sleep/slept/slept", "schlafen/schläft/geschlafen", "자다/자", "person animal infant", aspect=_HABIT),
    _verb("work", "arbeiten/arbeitet/gearbeitet", "일하다", "person", aspect=_HABIT, adjuncts="place with"),
    _verb("sing/sang/sung", "singen/singt/gesungen", "노래하다", "person", aspect=_HABIT),
    _verb("dance", "tanzen/tanzt/getanzt", "춤추다/춤춰", "person", aspect=_HABIT),
    _verb("laugh", "lachen/lacht/gelacht", "웃다/웃어", "person", aspect=_HABIT),
    _verb("cry/cried/cried", "weinen/weint/geweint", "울다/울어", "person infant", aspect=_HABIT, willed=False),
    _verb("study", "lernen/lernt/gelernt", "공부하다", "person", aspect=_HABIT, adjuncts="place with"),
    _verb("swim/swam/swum", "+schwimmen/schwimmt/geschwommen", "수영하다", "person", aspect=_HABIT, adjuncts="with"),
    _verb("get/got/gotten +up", "+auf|stehen/steht/gestanden", "일어나다/일어나", "person", aspect=_HABIT, adjuncts=""),
    _verb(
        "wake/woke/woken +up",
        "+auf|wachen/wacht/gewacht",
        "깨다/깨",
        "person animal infant",
        willed=False,
        aspect=_EVENT,
        adjuncts="",
    ),
    _verb(
        "fall/fell/fallen +asleep",
        "+ein|schlafen/schläft/geschlafen",
        "잠들다/잠들어",
        "person animal infant",
        willed=False,
        aspect=_EVENT,
    ),
    _verb(
        "arrive",
        "+an|kommen/kommt/gekommen",
        "도착하다",
        "person transit",
        willed=False,
        aspect=_EVENT,
        korean_place="에",
    ),
    _verb("depart", "+ab|fahren/fährt/gefahren", "출발하다", "transit", adjuncts=""),
    _verb("live", "wohnen/wohnt/gewohnt", "살다/살아", "person", needs_place=True, aspect=_STATE),
    _verb("stay", "+bleiben/bleibt/geblieben", "머무르다/머물러", "person", needs_place=True, korean_place="에"),
    _verb("read/read/read", "lesen/liest/gelesen", "읽다/읽어", "person", "text", aspect=_HABIT),
    _verb(
        "write/wrote/written", "schreiben/schreibt/geschrieben", "쓰다/써", "person", "written", adjuncts="place for"
    ),
    _verb("translate", "übersetzen/übersetzt/übersetzt", "번역하다", "person", "text", adjuncts="place for"),
    _verb(
        "understand/understood/understood", "verstehen/versteht/verstanden", "이해하다", "person", "text", aspect=_STATE
    ),
    _verb("eat/ate/eaten", "essen/isst/gegessen", "먹다/먹어", "person", "food", aspect=_HABIT, adjuncts="place with"),
    _verb(
        "drink/drank/drunk",
        "trinken/trinkt/getrunken",
        "마시다/마셔",
        "person",
        "drink",
        aspect=_HABIT,
        adjuncts="place with",
    ),
    _verb("cook", "kochen/kocht/gekocht", "요리하다", "person", "dish", aspect=_HABIT, adjuncts="with for"),
    _verb("bake", "backen/backt/gebacken", "굽다/구워", "person", "baked", adjuncts="with for"),
    _verb("order", "bestellen/bestellt/bestellt", "주문하다", "person", "food drink", adjuncts="for"),
    _verb("taste", "probieren/probiert/probiert", "맛보다/맛봐", "person", "food drink", adjuncts=""),
    _verb(
        "buy/bought/bought",
        "kaufen/kauft/gekauft",
        "사다/사",
        "person",
        "thing food clothing owned device",
        adjuncts="for",
    ),
    _verb(
        "sell/sold/sold",
        "verkaufen/verkauft/verkauft",
        "팔다/팔아",
        "person",
        "thing clothing owned device",
        adjuncts="",
    ),
    _verb("look ~for", "suchen/sucht/gesucht", "찾다/찾아", "person", "thing pet owned", adjuncts="place with"),
    _verb("find/found/found", "finden/findet/gefunden", "발견하다", "person", "thing pet", willed=False, aspect=_EVENT),
    _verb(
        "lose/lost/lost",
        "verlieren/verliert/verloren",
        "잃어버리다/잃어버려",
        "person",
        "thing clothing",
        willed=False,
        aspect=_EVENT,
    ),
    _verb("hide/hid/hidden", "verstecken/versteckt/versteckt", "숨기다/숨겨", "person", "gift flat", korean_place="에"),
    _verb("repair", "reparieren/repariert/repariert", "고치다/고쳐", "person", "owned device", adjuncts="with for"),
    _verb("use", "benutzen/benutzt/benutzt", "사용하다", "person", "device vessel", aspect=_HABIT),
    _verb(
        "need",
        "brauchen/braucht/gebraucht",
        "필요하다",
        "person",
        "thing clothing owned device",
        particle="이/가",
        descriptive=True,
        aspect=_STATE,
    ),
    _verb(
        "have/had/had",
        "haben/hat/gehabt/hatte",
        "있다/있어",
        "person",
        "pet owned device luggage",
        particle="이/가",
        negative="없다/없어",
        aspect=_STATE,
        indefinite=True,
    ),
    _verb("pack", "packen/packt/gepackt", "싸다/싸", "person", "luggage", adjuncts="for"),
    _verb("carry", "tragen/trägt/getragen", "나르다/날라", "person", "luggage vessel", adjuncts="for"),
    _verb("borrow", "aus|leihen/leiht/geliehen", "빌리다/빌려", "person", "lendable", adjuncts=""),
    _verb(
        "choose/chose/chosen", "aus|suchen/sucht/gesucht", "고르다/골라", "person", "clothing gift", adjuncts="with for"
    ),
    _verb(
        "bring/brought/brought +along",
        "mit|bringen/bringt/gebracht",
        "가져오다/가져와",
        "person",
        "food gift visual",
        adjuncts="for",
    ),
    _verb(
        "throw/threw/thrown +away", "weg|werfen/wirft/geworfen", "버리다/버려", "person", "thing clothing", adjuncts=""
    ),
    _verb("wash", "waschen/wäscht/gewaschen", "빨다/빨아", "person", "clothing", aspect=_HABIT, adjuncts="for"),
    _verb("wear/wore/worn", "tragen/trägt/getragen", "입다/입어", "person", "clothing", aspect=_HABIT),
    _verb("put/put/put +on", "an|ziehen/zieht/gezogen", "입다/입어", "person", "clothing", adjuncts=""),
    _verb("take/took/taken +off", "aus|ziehen/zieht/gezogen", "벗다/벗어", "person", "clothing", adjuncts=""),
    _verb(
        "try/tried/tried +on", "an|probieren/probiert/probiert", "입어 보다/입어 봐", "person", "clothing", adjuncts=""
    ),
    _verb("open", "auf|machen/macht/gemacht", "열다/열어", "person", "opening", aspect=_HABIT, adjuncts=""),
    _verb("close", "zu|machen/macht/gemacht", "닫다/닫아", "person", "opening", aspect=_HABIT, adjuncts=""),
    _verb("turn +on", "ein|schalten/schaltet/geschaltet", "켜다/켜", "person", "switch", aspect=_HABIT, adjuncts=""),
    _verb("turn +off", "aus|schalten/schaltet/geschaltet", "끄다/꺼", "person", "switch", aspect=_HABIT, adjuncts=""),
    _verb("clean", "putzen/putzt/geputzt", "청소하다", "person", "room", aspect=_HABIT, adjuncts="with"),
    _verb("tidy +up", "auf|räumen/räumt/geräumt", "정리하다", "person", "room tidy", aspect=_HABIT, adjuncts="with"),
    _verb("prepare", "vor|bereiten/bereitet/bereitet", "준비하다", "person", "planned meal", adjuncts="with for"),
    _verb(
        "forget/forgot/forgotten",
        "vergessen/vergisst/vergessen",
        "잊어버리다/잊어버려",
        "person",
        "planned",
        willed=False,
        aspect=_EVENT,
        adjuncts="",
    ),
    _verb(
        "attend",
        "teil|nehmen/nimmt/genommen",
        "참가하다",
        "person",
        "joinable",
        preposition="an",
        case="dat",
        particle="에",
        adjuncts="with",
    ),
    _verb("paint", "malen/malt/gemalt", "그리다/그려", "person", "animal plant building drawing", adjuncts="for"),
    _verb("look ~at", "an|sehen/sieht/gesehen", "바라보다/바라봐", "person", "visual animal", adjuncts="with"),
    _verb(
        "feed/fed/fed",
        "füttern/füttert/gefüttert",
        "먹이를 주다/먹이를 줘",
        "person",
        "animal",
        particle="에게",
        aspect=_HABIT,
    ),
    _verb(
        "see/saw/seen", "sehen/sieht/gesehen", "보다/봐", "person", "person animal transit", willed=False, aspect=_EVENT
    ),
    _verb("visit", "besuchen/besucht/besucht", "방문하다", "person", "person sight", adjuncts="with"),
    _verb("meet/met/met", "treffen/trifft/getroffen", "만나다/만나", "person", "person", aspect=_HABIT),
    _verb(
        "know/knew/known",
        "kennen/kennt/gekannt",
        "알다/알아",
        "person",
        "person",
        negative="모르다/몰라",
        aspect=_STATE,
    ),
    _verb("love", "lieben/liebt/geliebt", "사랑하다", "person", "person pet", aspect=_STATE),
    _verb("trust", "vertrauen/vertraut/vertraut", "믿다/믿어", "person", "person", case="dat", aspect=_STATE),
    _verb("help", "helfen/hilft/geholfen", "돕다/도와", "person", "person", case="dat", aspect=_HABIT),
    _verb(
        "follow", "+folgen/folgt/gefolgt", "따라가다/따라가", "person animal", "person animal", case="dat", adjuncts=""
    ),
    _verb(
        "thank",
        "danken/dankt/gedankt",
        "감사하다",
        "person",
        "person",
        case="dat",
        particle="에게",
        aspect=_EVENT,
        adjuncts="",
    ),
    _verb(
        "congratulate",
        "gratulieren/gratuliert/gratuliert",
        "축하하다",
        "person",
        "person",
        case="dat",
        aspect=_EVENT,
        adjuncts="",
    ),
    _verb(
        "listen ~to",
        "zu|hören/hört/gehört",
        "귀를 기울이다/귀를 기울여",
        "person",
        "person",
        case="dat",
        particle="에게",
    ),
    _verb("warn", "warnen/warnt/gewarnt", "경고하다", "person", "person", particle="에게"),
    _verb("answer", "beantworten/beantwortet/beantwortet", "답장하다", "person", "mail", particle="에", adjuncts=""),
    _verb("call", "an|rufen/ruft/gerufen", "전화하다", "person", "person", particle="에게", aspect=_HABIT, adjuncts=""),
    _verb("invite", "ein|laden/lädt/geladen", "초대하다", "person", "person", adjuncts=""),
    _verb(
        "pick +up", "ab|holen/holt/geholt", "데려오다/데려와", "person", "person", aspect=_HABIT, adjuncts="place with"
    ),
    _verb("greet", "begrüßen/begrüßt/begrüßt", "맞이하다", "person", "person", aspect=_HABIT),
    _verb("wait ~for", "warten/wartet/gewartet", "기다리다/기다려", "person", "person transit", preposition="auf"),
    _verb(
        "talk ~about",
        "sprechen/spricht/gesprochen",
        "이야기하다",
        "person",
        "person event text",
        preposition="über",
        particle="에 대해",
        aspect=_HABIT,
        adjuncts="with",
    ),
    _verb(
        "think/thought/thought ~of",
        "denken/denkt/gedacht",
        "생각하다",
        "person",
        "person planned",
        preposition="an",
        aspect=_HABIT,
        adjuncts="",
    ),
    _verb(
        "dream ~of",
        "träumen/träumt/geträumt",
        "꿈꾸다/꿈꿔",
        "person",
        "planned owned",
        preposition="von",
        case="dat",
        adjuncts="",
        willed=False,
    ),
    _verb(
        "look ~after",
        "auf|passen/passt/gepasst",
        "돌보다/돌봐",
        "person",
        "animal small",
        preposition="auf",
        aspect=_HABIT,
        adjuncts="with",
    ),
    _verb(
        "dance ~with",
        "tanzen/tanzt/getanzt",
        "춤추다/춤춰",
        "person",
        "person",
        preposition="mit",
        case="dat",
        particle="과/와",
        aspect=_HABIT,
    ),
    _verb(
        "play ~with",
        "spielen/spielt/gespielt",
        "놀다/놀아",
        "person",
        "pet small",
        preposition="mit",
        case="dat",
        particle="과/와",
        aspect=_HABIT,
    ),
    _verb(
        "give/gave/given",
        "geben/gibt/gegeben",
        "주다/줘",
        "person",
        "gift fruit flat vessel",
        recipient=True,
        adjuncts="",
    ),
    _verb(
        "show/showed/shown",
        "zeigen/zeigt/gezeigt",
        "보여 주다/보여 줘",
        "person",
        "visual text clothing",
        recipient=True,
        adjuncts="",
    ),
    _verb(
        "send/sent/sent",
        "schicken/schickt/geschickt",
        "보내다/보내",
        "person",
        "mail visual gift",
        recipient=True,
        adjuncts="",
    ),
    _verb(
        "bring/brought/brought",
        "bringen/bringt/gebracht",
        "가져다주다/가져다줘",
        "person",
        "food drink vessel",
        recipient=True,
        adjuncts="",
    ),
    _verb(
        "lend/lent/lent", "leihen/leiht/geliehen", "빌려주다/빌려줘", "person", "lendable", recipient=True, adjuncts=""
    ),
    _verb("offer", "an|bieten/bietet/geboten", "권하다", "person", "food drink", recipient=True, adjuncts=""),
    _verb(
        "tell/told/told",
        "erzählen/erzählt/erzählt",
        "들려주다/들려줘",
        "person",
        "tale",
        recipient=True,
        aspect=_HABIT,
        adjuncts="",
    ),
    _verb("go/went/gone", "+gehen/geht/gegangen", "가다/가", "person", goal="place", aspect=_HABIT, adjuncts="with"),
    _verb("come/came/come", "+kommen/kommt/gekommen", "오다/와", "person", goal="place", adjuncts="with"),
    _verb(
        "drive/drove/driven",
        "+fahren/fährt/gefahren",
        "차로 가다/차로 가",
        "person",
        goal="place stop city",
        aspect=_HABIT,
        adjuncts="with",
    ),
    _verb("travel", "+reisen/reist/gereist", "여행 가다/여행 가", "person", goal="city", adjuncts="with"),
    _verb(
        "fly/flew/flown",
        "+fliegen/fliegt/geflogen",
        "비행기로 가다/비행기로 가",
        "person",
        goal="city",
        adjuncts="with",
    ),
    _verb(
        "run/ran/run",
        "+rennen/rennt/gerannt",
        "뛰어가다/뛰어가",
        "person animal",
        goal="stop outdoors room",
        adjuncts="",
    ),
    _verb("return", "+zurück|kehren/kehrt/gekehrt", "돌아가다/돌아가", "person", goal="place city", adjuncts="with"),
    _verb(
        "jump",
        "+springen/springt/gesprungen",
        "뛰어오르다/뛰어올라",
        "pet",
        goal="furniture",
        onto=ONTO,
        aspect=_HABIT,
        adjuncts="",
    ),
    _verb("place", "stellen/stellt/gestellt", "놓다/놓아", "person", "vessel", goal="surface", onto=ON, adjuncts=""),
    _verb("lay/laid/laid", "legen/legt/gelegt", "두다/둬", "person", "flat text", goal="surface", onto=ON, adjuncts=""),
    _verb("hang/hung/hung", "hängen/hängt/gehängt", "걸다/걸어", "person", "visual", goal="wall", adjuncts=""),
    _verb(
        "know/knew/known",
        "wissen/weiß/gewusst",
        "알다/알아",
        "person",
        clause="that",
        korean_clause="fact",
        negative="모르다/몰라",
        aspect=_STATE,
    ),
    _verb(
        "think/thought/thought",
        "denken/denkt/gedacht",
        "생각하다",
        "person",
        clause="that",
        korean_clause="quote",
        aspect=_STATE,
    ),
    _verb(
        "believe", "glauben/glaubt/geglaubt", "믿다/믿어", "person", clause="that", korean_clause="quote", aspect=_STATE
    ),
    _verb(
        "say/said/said", "sagen/sagt/gesagt", "말하다", "person", clause="that", korean_clause="quote", aspect=_STATE
    ),
    _verb("hope", "hoffen/hofft/gehofft", "바라다/바라", "person", clause="that", korean_clause="hope", aspect=_STATE),
    _verb(
        "ask", "fragen/fragt/gefragt", "묻다/물어", "person", clause="whether", korean_clause="whether", aspect=_STATE
    ),
    _verb(
        "know/knew/known",
        "wissen/weiß/gewusst",
        "알다/알아",
        "person",
        clause="whether",
        korean_clause="whether",
        negative="모르다/몰라",
        aspect=_STATE,
    ),
    _verb("try/tried/tried", "versuchen/versucht/versucht", "노력하다", "person", clause="to", korean_clause="attempt"),
    _verb(
        "promise",
        "versprechen/verspricht/versprochen",
        "약속하다",
        "person",
        clause="to",
        korean_clause="resolve",
        aspect=_EVENT,
    ),
    _verb(
        "decide",
        "beschließen/beschließt/beschlossen",
        "결정하다",
        "person",
        clause="to",
        korean_clause="resolve",
        aspect=_EVENT,
    ),
    _verb(
        "forget/forgot/forgotten",
        "vergessen/vergisst/vergessen",
        "잊어버리다/잊어버려",
        "person",
        clause="to",
        korean_clause="event",
        aspect=_EVENT,
    ),
    _verb(
        "begin/began/begun",
        "an|fangen/fängt/gefangen",
        "시작하다",
        "person",
        clause="to",
        korean_clause="onset",
        aspect=_EVENT,
    ),
)

_HAVE = EnglishVerb(base="have", past="had", participle="had")
CAN = Modal(
    key="can",
    english=EnglishVerb(base="can", past="could", participle="", auxiliary=True),
    link="",
    german=_german("können/kann/gekonnt/konnte"),
)
ABLE = Modal(key="can", english=BE.english, link="able to", german=CAN.german)
"""Stands for ``CAN`` in the past, since "could" also means "könnte"."""
MUST = Modal(key="must", english=_HAVE, link="to", german=_german("müssen/muss/gemusst/musste"))
WANT = Modal(
    key="want",
    english=EnglishVerb(base="want", past="wanted", participle="wanted"),
    link="to",
    german=_german("wollen/will/gewollt/wollte"),
)
MAY = Modal(key="may", english=BE.english, link="allowed to", german=_german("dürfen/darf/gedurft/durfte"))
PRESENT_MODALS, PAST_MODALS = (CAN, MUST, WANT, MAY), (ABLE, MUST, WANT, MAY)

HABITUAL_TIMES = (
    *_adverbs(
        (
            ("every day", "jeden Tag", "매일"),
            ("every morning", "jeden Morgen", "매일 아침"),
            ("every evening", "jeden Abend", "매일 저녁"),
            ("on Sundays", "sonntags", "일요일마다"),
            ("on Saturdays", "samstags", "토요일마다"),
        ),
        frequency=True,
    ),
    *_adverbs(
        (
            ("often", "oft", "자주"),
            ("always", "immer", "항상"),
            ("sometimes", "manchmal", "가끔"),
            ("usually", "normalerweise", "보통"),
        ),
        middle=True,
        frequency=True,
    ),
)
PRESENT_TIMES = _adverbs(
    (
        ("now", "jetzt", "지금"),
        ("today", "heute", "오늘"),
        ("at the moment", "im Moment", "현재"),
    )
)
_MEAL_TIMES = (
    ("before breakfast", "vor dem Frühstück", "아침 식사 전에"),
    ("during lunch", "während des Mittagessens", "점심 식사 중에"),
    ("after dinner", "nach dem Abendessen", "저녁 식사 후에"),
)
PAST_TIMES = _adverbs(
    (
        *_MEAL_TIMES,
        ("yesterday", "gestern", "어제"),
        ("yesterday evening", "gestern Abend", "어제저녁에"),
        ("this morning", "heute Morgen", "오늘 아침에"),
        ("last week", "letzte Woche", "지난주에"),
        ("last month", "letzten Monat", "지난달에"),
        ("two days ago", "vor zwei Tagen", "이틀 전에"),
        ("an hour ago", "vor einer Stunde", "한 시간 전에"),
        ("on Monday", "am Montag", "월요일에"),
        ("on Friday", "am Freitag", "금요일에"),
    )
)
FUTURE_TIMES = _adverbs(
    (
        *_MEAL_TIMES,
        ("tomorrow", "morgen", "내일"),
        ("this evening", "heute Abend", "오늘 저녁에"),
        ("soon", "bald", "곧"),
        ("next week", "nächste Woche", "다음 주에"),
        ("next month", "nächsten Monat", "다음 달에"),
        ("later", "später", "나중에"),
        ("in an hour", "in einer Stunde", "한 시간 후에"),
        ("on Tuesday", "am Dienstag", "화요일에"),
        ("on Thursday", "am Donnerstag", "목요일에"),
    )
)
PERFECT_TIMES = _adverbs((("already", "schon", "이미"), ("just", "gerade", "방금")), middle=True)

AT_HOME = Adverb(english="at home", german="zu Hause", korean="집")
HOME = Adverb(english="home", german="nach Hause", korean="집")
_CITIES = (
    ("Berlin", "Berlin", "베를린"),
    ("Hamburg", "Hamburg", "함부르크"),
    ("Munich", "München", "뮌헨"),
    ("Vienna", "Wien", "빈"),
    ("Paris", "Paris", "파리"),
    ("Seoul", "Seoul", "서울"),
    ("London", "London", "런던"),
)
IN_CITIES = tuple(Adverb(english=f"in {en}", german=f"in {de}", korean=ko) for en, de, ko in _CITIES)
TO_CITIES = tuple(Adverb(english=f"to {en}", german=f"nach {de}", korean=ko) for en, de, ko in _CITIES)

SUBORDINATORS = (
    Conjunction(english="because", german="weil", korean="reason"),
    Conjunction(english="although", german="obwohl", korean="concession", comma=True),
    Conjunction(english="if", german="wenn", korean="condition"),
    Conjunction(english="before", german="bevor", korean="before"),
    Conjunction(english="while", german="während", korean="while"),
    Conjunction(english="as soon as", german="sobald", korean="once"),
)
COORDINATORS = (
    Conjunction(english="and", german="und", korean="and", comma=True, coordinating=True),
    Conjunction(english="but", german="aber", korean="concession", comma=True, coordinating=True),
)
