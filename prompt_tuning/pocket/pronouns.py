"""Sentences with a pronoun that only the reason in the sentence resolves.

    today leo thanked omar in the barn because he had helped .         he is omar
    today leo thanked omar in the barn because he was grateful .       he is leo

If the two people are a man and a woman, the pronoun's gender resolves it as well.
"""

import random
from typing import NamedTuple

from prompt_tuning.pocket import senses, words
from prompt_tuning.pocket.facts import pick, pick_several


class Motive(NamedTuple):
    """Verbs, and reasons that refer to the object or to the subject of the verb."""

    verbs: tuple[str, ...]
    of_object: tuple[str, ...]
    of_subject: tuple[str, ...]


MOTIVES: dict[str, tuple[Motive, ...]] = {
    "home": (
        Motive(
            ("thanked", "praised", "rewarded"),
            ("had helped", "had done well", "found the purse"),
            ("was grateful", "wanted to be nice", "felt obliged"),
        ),
        Motive(
            ("scolded", "blamed", "punished"),
            ("had lied", "broke the vase", "came too late"),
            ("was angry", "lost patience", "hated noise"),
        ),
        Motive(
            ("visited", "phoned", "hugged"),
            ("was ill", "felt lonely", "had a birthday"),
            ("had time off", "needed company", "was bored"),
        ),
        Motive(
            ("hired", "paid", "employed"),
            ("worked hard", "knew the trade", "looked for work"),
            ("needed staff", "owned the shop", "had a vacancy"),
        ),
        Motive(
            ("beat", "outran", "overtook"),
            ("was slow", "had no practice", "stumbled"),
            ("trained daily", "was faster", "had better shoes"),
        ),
        Motive(
            ("carried", "supported", "lifted"),
            ("was tired", "had hurt a leg", "could not walk"),
            ("was strong", "had big muscles", "never got weary"),
        ),
    ),
    "sea": (
        Motive(
            ("rescued", "saved", "pulled out"),
            ("was drowning", "could not swim", "fell overboard"),
            ("swam well", "was brave", "heard the cry"),
        ),
        Motive(
            ("obeyed", "followed", "served"),
            ("commanded the crew", "had authority", "ruled the ship"),
            ("was loyal", "had sworn an oath", "was a recruit"),
        ),
        Motive(
            ("robbed", "tricked", "cheated"),
            ("was rich", "trusted strangers", "slept deeply"),
            ("was greedy", "needed cash", "had no honour"),
        ),
        Motive(
            ("taught", "instructed", "drilled"),
            ("was new aboard", "wanted to learn", "made mistakes"),
            ("knew the stars", "had experience", "understood tides"),
        ),
        Motive(
            ("feared", "avoided", "escaped"),
            ("was cruel", "had a sword", "threatened everyone"),
            ("was timid", "had no weapon", "trembled"),
        ),
        Motive(
            ("asked", "consulted", "questioned"),
            ("had the answer", "knew the route", "was wise"),
            ("was lost", "had doubts", "was curious"),
        ),
    ),
}


class Riddle(NamedTuple):
    """A sentence with {p} in place of the pronoun, the pronoun, and its referent."""

    text: str
    pronoun: str
    meant: str
    other: str
    reason: str


def riddle(rng: random.Random, domain: str) -> Riddle:
    """Draws a sentence; in two thirds of them both people have the same gender."""
    gender = pick(rng, (0, 1))
    group, other_group = (words.MEN, words.WOMEN) if gender == 0 else (words.WOMEN, words.MEN)
    if rng.random() < 2 / 3:
        meant, other = pick_several(rng, group, 2)
    else:
        meant, other = pick(rng, group), pick(rng, other_group)
    motive = pick(rng, MOTIVES[domain])
    is_object = pick(rng, (False, True))
    reason = pick(rng, motive.of_object if is_object else motive.of_subject)
    actor, patient = (other, meant) if is_object else (meant, other)
    place = pick(rng, words.DOMAINS[domain].places)
    act = f"{pick(rng, senses.WHEN)} {actor} {pick(rng, motive.verbs)} {patient} in the {place}"
    text = f"{act} because {{p}} {reason}"
    return Riddle(text, ("he", "she")[gender], meant, other, reason)
