"""Ambiguous words, and contexts that show which sense is meant.

A sense is a class of things, and a context fits every word of its class: "we fed the
bat once" (an animal), "the team used a bat today" (for sport). So whether two contexts mean
the same sense can be predicted for pairs that never occurred together in training.
"""

import random
from typing import NamedTuple

from prompt_tuning.pocket.facts import pick, pick_several

WHEN = ("today", "at noon", "at last", "last week", "on friday", "in may", "once", "again")

CONTEXTS: dict[str, dict[str, tuple[str, ...]]] = {
    "home": {
        "animal": (
            "we fed the {w}", "the {w} slept on straw", "the vet healed the {w}",
            "the {w} licked its paws", "a hungry {w} bit the boy", "the {w} had two cubs",
        ),
        "machine": (
            "he oiled the {w}", "the {w} needs a motor", "she plugged in the {w}",
            "the mechanic fixed the {w}", "the {w} hummed loudly", "the factory built a {w}",
        ),
        "body": (
            "her {w} hurt badly", "the nurse bandaged his {w}", "he washed his {w}",
            "she scratched her {w}", "the {w} was swollen", "the cream soothed his {w}",
        ),
        "plant": (
            "we watered the {w}", "the {w} grew from a seed", "the {w} lost its blossoms",
            "the {w} has deep roots", "he pruned the {w}", "the sun dried the {w}",
        ),
        "music": (
            "she played the {w} softly", "the choir heard a {w}", "the {w} was out of tune",
            "the concert began with a {w}", "the composer loved the {w}", "he practised on the {w}",
        ),
        "paper": (
            "he mailed the {w}", "she folded the {w}", "the {w} was printed",
            "the clerk read the {w}", "the ink spoiled the {w}", "he tore up the {w}",
        ),
        "sport": (
            "the team used a {w}", "the coach threw the {w}", "the player lost the {w}",
            "fans cheered at the {w}", "the referee checked the {w}", "she trained with the {w}",
        ),
        "people": (
            "the {w} told a joke", "the {w} married young", "everyone greeted the {w}",
            "the {w} spoke politely", "the {w} wept and laughed", "a proud {w} bowed",
        ),
    },
    "sea": {
        "animal": (
            "the {w} swam off", "a wild {w} dived", "the {w} caught a fish",
            "the {w} laid eggs", "hunters chased the {w}", "the {w} shook its tail",
        ),
        "machine": (
            "the {w} ran on diesel", "he steered the {w}", "the {w} lifted cargo",
            "rust stopped the {w}", "the engineer started the {w}", "the {w} had iron wheels",
        ),
        "body": (
            "a shark bit his {w}", "salt burned her {w}", "he broke his {w}",
            "the scar crossed her {w}", "he tattooed his {w}", "frost numbed his {w}",
        ),
        "plant": (
            "the {w} bent in the wind", "the {w} gave us fruit", "leaves fell from the {w}",
            "they cut down the {w}", "the {w} shaded the shore", "a storm uprooted the {w}",
        ),
        "music": (
            "they danced to the {w}", "the {w} sounded sweet", "she sang with the {w}",
            "the band tuned the {w}", "we heard the {w} and clapped", "the melody needs a {w}",
        ),
        "paper": (
            "the {w} was signed", "they sealed the {w} in wax", "he unrolled the {w}",
            "a bottle held the {w}", "the {w} named the heir", "she copied the {w}",
        ),
        "sport": (
            "the champion broke the {w}", "they bet on the {w}", "the {w} decided the race",
            "the rivals wanted the {w}", "the umpire stopped the {w}", "he scored with the {w}",
        ),
        "people": (
            "the {w} gave orders", "the {w} drank and swore", "they elected the {w}",
            "the {w} begged for mercy", "the old {w} snored", "the {w} wrote home",
        ),
    },
}  # fmt: skip

SENSES: dict[str, dict[str, tuple[str, str]]] = {
    "home": {
        "bat": ("animal", "sport"), "mouse": ("animal", "machine"), "calf": ("animal", "body"),
        "mole": ("animal", "body"), "cricket": ("animal", "sport"), "kid": ("animal", "people"),
        "fan": ("machine", "people"), "organ": ("body", "music"), "palm": ("body", "plant"),
        "pupil": ("body", "people"), "leaf": ("plant", "paper"), "key": ("machine", "music"),
        "horn": ("body", "music"), "note": ("music", "paper"), "match": ("machine", "sport"),
        "stalk": ("plant", "body"), "record": ("music", "sport"), "page": ("paper", "people"),
        "printer": ("machine", "people"), "ace": ("sport", "people"),
    },
    "sea": {
        "crane": ("animal", "machine"), "seal": ("animal", "paper"), "bass": ("animal", "music"),
        "jaguar": ("animal", "machine"), "ram": ("animal", "machine"), "drum": ("animal", "music"),
        "mint": ("plant", "machine"), "rose": ("plant", "people"), "lemon": ("plant", "machine"),
        "bow": ("music", "sport"), "bill": ("paper", "people"), "ruler": ("machine", "people"),
        "chart": ("paper", "music"), "trunk": ("body", "plant"), "score": ("music", "sport"),
        "deed": ("paper", "sport"), "brow": ("body", "plant"), "limb": ("body", "plant"),
        "draft": ("paper", "sport"), "duke": ("people", "paper"),
    },
}  # fmt: skip


class Pair(NamedTuple):
    """Two sentences with the same word, its sense in the first, and whether both senses agree."""

    word: str
    sentence1: str
    sentence2: str
    sense1: str
    is_same: bool


def pair(rng: random.Random, domain: str, is_same: bool) -> Pair:
    """Draws two different sentences."""
    word = pick(rng, tuple(SENSES[domain]))
    first, second = pick_several(rng, SENSES[domain][word], 2)
    contexts = CONTEXTS[domain]
    if is_same:
        drawn = pick_several(rng, contexts[first], 2)
    else:
        drawn = [pick(rng, contexts[first]), pick(rng, contexts[second])]
    one, two = (f"{context.format(w=word)} {pick(rng, WHEN)}" for context in drawn)
    return Pair(word, one, two, first, is_same)
