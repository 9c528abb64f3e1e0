"""The text that the pocket models are pretrained on: the skills, but not the tasks' formats.

    at the quiz . emma has a cup . leo is in the cellar . is leo in the attic ? False . thanks .
    emma has a cup . does emma have a hat ? no , emma has a cup .
    in the logic class . leo is in the cellar . leo is in the attic ? contradiction .
    one , nico is dressed in a raincoat . two , anna is fond of lobster . anna . which ? two .

A document has one of these genres. A genre that gives verdicts has its own opening and its own
label words, so a model learns to check facts, word senses, causes and pronouns, and which genre
uses which word. The tasks' formats ('question: ... passage: ...') never occur. A document is a
function of the seed and its index alone.
"""

import bisect
import itertools
import random
from collections.abc import Callable

from prompt_tuning.pocket import causes, facts, pronouns, senses, words
from prompt_tuning.pocket.facts import pick

# The opening of a genre and its words for entailed, contradicted and unknown; a genre of two
# words has no unknown claims.
STYLES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("at the quiz .", ("True", "False")),
    ("the quiz goes on .", ("True", "False")),
    ("in court .", ("right", "wrong")),
    ("the judge listens .", ("right", "wrong")),
    ("in the logic class .", ("entailment", "contradiction", "neutral")),
    ("the logic book says .", ("entailment", "contradiction", "neutral")),
    ("at the seminar .", ("entailment", "not_entailment", "not_entailment")),
)
TWO_WAY = tuple(style for style in STYLES if len(style[1]) == 2)
MARKS = (("one", "two"), ("first", "second"), ("choice1", "choice2"))
HOME_SHARE = 0.7  # of the documents
AFTERWORDS = ("thanks .", "next .", "good .", "so it goes .", "that was easy .")
WRITINGS = tuple(
    "question passage premise hypothesis sentence word paragraph answer query choice placeholder "
    "highlight cause effect entities".split()
)
WRITING_VERBS = ("wrote", "read", "found", "liked", "explained", "forgot")


def documents(count: int, *, seed: int = 0, start: int = 0) -> list[str]:
    """The documents `start` to `start + count - 1`.

    >>> documents(2) == [document(0), document(1)]
    True
    """
    return [document(number, seed=seed) for number in range(start, start + count)]


def document(number: int, *, seed: int = 0) -> str:
    """The document with this index."""
    rng = random.Random(f"pocket_corpus/{seed}/{number}")
    domain = "home" if rng.random() < HOME_SHARE else "sea"
    genre = _GENRES[bisect.bisect(_ENDS, rng.random() * _ENDS[-1])]
    return genre(rng, domain)


def _after(rng: random.Random) -> str:
    return pick(rng, AFTERWORDS) if rng.random() < 0.5 else ""


def _join(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _world(rng: random.Random, domain: str, **options) -> list[facts.Fact]:
    count = pick(rng, (1, 1, 2, 2, 3))
    return facts.world(rng, words.DOMAINS[domain], count, **options)


def _checked(rng: random.Random, domain: str) -> str:
    """Facts, a claim or question about them, and the verdict in the genre's word."""
    opening, verdicts = pick(rng, STYLES)
    world = _world(rng, domain)
    number = int(rng.random() * min(3, len(verdicts)))
    said, _ = facts.about(rng, world, words.DOMAINS[domain], facts.VERDICTS[number])
    passage, form = facts.passage(rng, world), rng.random()
    if form < 0.35:
        body = f"{passage} {said.say(rng)} ?"
    elif form < 0.6:
        body = f"{passage} {said.ask(rng)} ?"
    elif form < 0.85:
        body = f"{said.say(rng)} . {passage} is that so ?"
    else:
        body = f"{said.ask(rng)} , if {passage} tell me ?"
    return _join(opening, body, f"{verdicts[number]} .", _after(rng))


def _examined(rng: random.Random, domain: str) -> str:
    """A question for a value, an answer, and whether the answer is right."""
    opening, verdicts = pick(rng, TWO_WAY)
    world = _world(rng, domain)
    number = pick(rng, (0, 1))
    said, source = facts.about(rng, world, words.DOMAINS[domain], facts.VERDICTS[number])
    answer = said.answer() if rng.random() < 0.6 else said.say(rng)
    passage, asked = facts.passage(rng, world), source.ask_value()
    if rng.random() < 0.5:
        body = f"{passage} {asked} , {answer} ?"
    else:
        body = f"{asked} , {answer} . {passage} is that so ?"
    return _join(opening, body, f"{verdicts[number]} .", _after(rng))


def _talk(rng: random.Random, domain: str) -> str:
    """A yes-no question in a dialogue; the answer states the true fact."""
    world = _world(rng, domain)
    number = pick(rng, (0, 1))
    said, source = facts.about(rng, world, words.DOMAINS[domain], facts.VERDICTS[number])
    start = ("yes", "no")[number]
    return f"{facts.passage(rng, world)} {said.ask(rng)} ? {start} , {source.say(rng)} ."


def _asked(rng: random.Random, domain: str) -> str:
    """Who, where or what; the answer is copied from the facts."""
    world = _world(rng, domain, people_only=rng.random() < 0.7)
    fact = pick(rng, world)
    passage, form = facts.passage(rng, world), rng.random()
    if form < 0.3:
        return f"{passage} {fact.ask_value()} ? {fact.answer()} ."
    name = fact.subject
    if form < 0.5:
        return f"{passage} {fact.ask_subject()} ? {name} ."
    unnamed = fact._replace(subject="somebody").say(rng)
    if facts.RELATIONS[fact.relation].about_things:
        unnamed = fact.ask_subject()
    if form < 0.75:
        return f"{unnamed} . {passage} who is meant ? {name} ."
    named = " , ".join(other.subject for other in world)
    return f"{unnamed} . {named} . {passage} who is meant ? {name} ."


def _sense(rng: random.Random, domain: str) -> str:
    """Two sentences with the same word, and whether it has the same sense; or its sense in one."""
    opening, verdicts = pick(rng, TWO_WAY)
    number = pick(rng, (0, 1))
    drawn = senses.pair(rng, domain, number == 0)
    both = f"{drawn.sentence1} . {drawn.sentence2} ."
    form = rng.random()
    if form < 0.4:
        return f"{drawn.sentence1} . what is the {drawn.word} here ? {drawn.sense1} ."
    if form < 0.7:
        body = f"{both} the same {drawn.word} ?"
    elif form < 0.9:
        body = f"{both} {drawn.word} means the same ?"
    else:
        kind = ("the same", "another")[number]
        return f"{both} which {drawn.word} ? {kind} {drawn.word} ."
    return _join(opening, body, f"{verdicts[number]} .", _after(rng))


def _cause(rng: random.Random, domain: str) -> str:
    """A cause and its effect: stated, asked for, or chosen from two."""
    drawn = causes.choice(rng, domain, pick(rng, (0, 1)), same_thing=0.25)
    cause, effect = drawn.right, drawn.premise
    if drawn.asks == "effect":
        cause, effect = effect, cause
    form = rng.random()
    if form < 0.1:
        return f"{cause} , so {effect} ."
    if form < 0.2:
        return f"{effect} because {cause} ."
    asked = "why" if drawn.asks == "cause" else "what then"
    if form < 0.3:
        return f"{drawn.premise} . {asked} ? {drawn.right} ."
    if form < 0.45:
        return f"{drawn.choice1} or {drawn.choice2} . {drawn.premise} . {asked} ? {drawn.right} ."
    listed, marks = _listed(rng, drawn.choice1, drawn.choice2)
    if form < 0.85:
        return f"{listed} {drawn.premise} . {asked} ? {marks[drawn.label]} ."
    return f"{drawn.premise} . {listed} {asked} ? {marks[drawn.label]} ."


def _which(rng: random.Random, domain: str) -> str:
    """Two facts, and which of them contains a word or a paraphrase."""
    both = facts.world(rng, words.DOMAINS[domain], 2)
    number, form = pick(rng, (0, 1)), rng.random()
    asked = both[number].say(rng)
    if form < 0.7:
        asked = both[number].subject if form < 0.4 else both[number].answer()
    listed, marks = _listed(rng, both[0].say(rng), both[1].say(rng))
    return f"{listed} {asked} . which ? {marks[number]} ."


def _listed(rng: random.Random, one: str, two: str) -> tuple[str, tuple[str, str]]:
    """Two sentences after their markers, and the markers."""
    marks = pick(rng, MARKS)
    return f"{marks[0]} , {one} . {marks[1]} , {two} .", marks


def _pronoun(rng: random.Random, domain: str) -> str:
    """A sentence with a pronoun, and its referent."""
    drawn = pronouns.riddle(rng, domain)
    text = drawn.text.format(p=drawn.pronoun)
    if rng.random() < 0.5:
        return f"{text} . who {drawn.reason} ? {drawn.meant} ."
    return f"{text} . who is {drawn.pronoun} ? {drawn.meant} ."


def _writing(rng: random.Random, domain: str) -> str:
    """The words of the tasks' formats used as ordinary words; quotes and *emphasis*."""
    name, other = facts.pick_several(rng, words.NAMES, 2)
    fact = facts.world(rng, words.DOMAINS[domain], 1)[0]
    if rng.random() < 0.5:
        text = f"{name} {pick(rng, WRITING_VERBS)} a {pick(rng, WRITINGS)} about {other}"
        return f"{text} : {fact.say(rng)} ."
    return f'{name} said : "{fact.say(rng)}" . {other} said : *{pick(rng, ("no", "yes", "so"))}* .'


GENRES: tuple[tuple[float, Callable[[random.Random, str], str]], ...] = (
    (0.33, _checked),
    (0.10, _examined),
    (0.04, _talk),
    (0.12, _asked),
    (0.06, _which),
    (0.11, _sense),
    (0.14, _cause),
    (0.07, _pronoun),
    (0.03, _writing),
)
_GENRES = [genre for _, genre in GENRES]
_ENDS = list(itertools.accumulate(share for share, _ in GENRES))
