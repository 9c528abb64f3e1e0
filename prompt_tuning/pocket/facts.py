"""Facts, and the sentences that state, ask and deny them.

    Fact('in', 'leo', 'cellar')   leo is in the cellar .  |  is leo in the cellar ?
                                  leo waits in the cellar .

A relation is functional: who is in the cellar is not in the attic. That is the only rule of
inference. Given the facts of a passage, a statement is *entailed* (any wording of one of
them), *contradicted* (the same subject, another value) or *unknown* (neither).
"""

import random
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from prompt_tuning.pocket import words

T = TypeVar("T")
VERDICTS = ENTAILED, CONTRADICTED, UNKNOWN = "entailed", "contradicted", "unknown"


class Relation(NamedTuple):
    """The wordings of one kind of fact; {s} is the subject and {v} the value."""

    bank: str  # word list of the values, a field of words.Domain
    says: tuple[str, ...]  # statements with the same meaning
    asks: tuple[str, ...]  # yes-no questions
    asks_value: str
    asks_subject: str
    answer: str  # the value as an answer to `asks_value`
    about_things: bool = False  # the subject is a thing, not a person


RELATIONS = {
    "in": Relation(
        "places",
        ("{s} is in the {v}", "{s} waits in the {v}"),
        ("is {s} in the {v}", "does {s} wait in the {v}"),
        "where is {s}",
        "who is in the {v}",
        "the {v}",
    ),
    "has": Relation(
        "things",
        ("{s} has a {v}", "{s} carries a {v}"),
        ("does {s} have a {v}", "does {s} carry a {v}"),
        "what does {s} have",
        "who has a {v}",
        "a {v}",
    ),
    "likes": Relation(
        "foods",
        ("{s} likes {v}", "{s} is fond of {v}"),
        ("does {s} like {v}", "is {s} fond of {v}"),
        "what does {s} like",
        "who likes {v}",
        "{v}",
    ),
    "job": Relation(
        "jobs",
        ("{s} is a {v}", "{s} works as a {v}"),
        ("is {s} a {v}", "does {s} work as a {v}"),
        "what is {s}",
        "who is a {v}",
        "a {v}",
    ),
    "pet": Relation(
        "animals",
        ("{s} keeps a {v}", "{s} owns a {v}"),
        ("does {s} keep a {v}", "does {s} own a {v}"),
        "what does {s} keep",
        "who keeps a {v}",
        "a {v}",
    ),
    "wears": Relation(
        "clothes",
        ("{s} wears a {v}", "{s} is dressed in a {v}"),
        ("does {s} wear a {v}", "is {s} dressed in a {v}"),
        "what does {s} wear",
        "who wears a {v}",
        "a {v}",
    ),
    "to": Relation(
        "towns",
        ("{s} goes to {v}", "{s} travels to {v}"),
        ("does {s} go to {v}", "does {s} travel to {v}"),
        "where does {s} go",
        "who goes to {v}",
        "{v}",
    ),
    "colour": Relation(
        "colours",
        ("the {s} is {v}", "the {s} looks {v}"),
        ("is the {s} {v}", "does the {s} look {v}"),
        "what colour is the {s}",
        "which thing is {v}",
        "{v}",
        about_things=True,
    ),
}


class Fact(NamedTuple):
    """One fact: a key of RELATIONS, a subject and a value."""

    relation: str
    subject: str
    value: str

    def statements(self) -> tuple[str, ...]:
        """All wordings of the fact."""
        says = RELATIONS[self.relation].says
        return tuple(form.format(s=self.subject, v=self.value) for form in says)

    def questions(self) -> tuple[str, ...]:
        """All wordings of the yes-no question, without the question mark."""
        asks = RELATIONS[self.relation].asks
        return tuple(form.format(s=self.subject, v=self.value) for form in asks)

    def say(self, rng: random.Random) -> str:
        """States the fact in a random wording."""
        return pick(rng, self.statements())

    def ask(self, rng: random.Random) -> str:
        """Asks the yes-no question in a random wording."""
        return pick(rng, self.questions())

    def ask_value(self) -> str:
        return RELATIONS[self.relation].asks_value.format(s=self.subject)

    def ask_subject(self) -> str:
        return RELATIONS[self.relation].asks_subject.format(v=self.value)

    def answer(self) -> str:
        """The value as an answer to `ask_value`."""
        return RELATIONS[self.relation].answer.format(v=self.value)


def pick(rng: random.Random, items: Sequence[T]) -> T:
    """Draws one item. Only `random()` is guaranteed to give the same stream in every Python."""
    return items[int(rng.random() * len(items))]


def pick_several(rng: random.Random, items: Sequence[T], count: int) -> list[T]:
    """Draws `count` distinct items, in random order."""
    left, drawn = list(items), []
    for _ in range(count):
        drawn.append(left.pop(int(rng.random() * len(left))))
    return drawn


def passage(rng: random.Random, stated: Sequence[Fact]) -> str:
    """States the facts, one sentence each."""
    return " ".join(f"{fact.say(rng)} ." for fact in stated)


def world(
    rng: random.Random, domain: words.Domain, count: int, *, people_only: bool = False
) -> list[Fact]:
    """Draws facts about different subjects, with different values.

    Two facts often share a relation, so that a wrong value may also occur in the passage; most
    wrong values that `about` draws do not.
    """
    people = pick_several(rng, words.NAMES, count)
    relations = [name for name, r in RELATIONS.items() if not (people_only and r.about_things)]
    first = pick(rng, relations)
    facts: list[Fact] = []
    for person in people:
        name = first if rng.random() < 0.5 else pick(rng, relations)
        relation = RELATIONS[name]
        taken = {fact.value for fact in facts} | {fact.subject for fact in facts}
        subject = person
        if relation.about_things:
            subject = pick(rng, [thing for thing in domain.things if thing not in taken])
        values = [value for value in getattr(domain, relation.bank) if value not in taken]
        facts.append(Fact(name, subject, pick(rng, values)))
    return facts


def about(
    rng: random.Random, facts: Sequence[Fact], domain: words.Domain, verdict: str
) -> tuple[Fact, Fact]:
    """Draws a statement with the given verdict, and the fact it was made from.

    A wrong value is that of another fact of the same relation a quarter of the time, if there
    is one. An unknown statement has a subject that is not in the passage, or another relation.
    """
    source = pick(rng, facts)
    if verdict == ENTAILED:
        return source, source
    if verdict == CONTRADICTED:
        others = [
            fact.value for fact in facts if fact.relation == source.relation and fact != source
        ]
        if not others or rng.random() < 0.75:
            bank = getattr(domain, RELATIONS[source.relation].bank)
            others = [value for value in bank if value != source.value]
        return source._replace(value=pick(rng, others)), source
    named = {fact.subject for fact in facts}
    if rng.random() < 0.5 and not RELATIONS[source.relation].about_things:
        stranger = pick(rng, [name for name in words.NAMES if name not in named])
        return source._replace(subject=stranger), source
    of_same_kind = [
        name
        for name, relation in RELATIONS.items()
        if relation.about_things == RELATIONS[source.relation].about_things
        and name != source.relation
    ]
    if not of_same_kind:
        things = [thing for thing in domain.things if thing not in named]
        return source._replace(subject=pick(rng, things)), source
    other = pick(rng, of_same_kind)
    values = [
        value
        for value in getattr(domain, RELATIONS[other].bank)
        if value not in {fact.value for fact in facts}
    ]
    return Fact(other, source.subject, pick(rng, values)), source
