"""The word lists of PocketGLUE and its corpus, in two domains without a common word.

Every value is in one list, and a list belongs to one relation (`facts.py`), so a fact with
another value is a contradiction. Both domains use the same names of people.
"""

from typing import NamedTuple

MEN = tuple("adam boris david emil felix hugo ivan karl leo nico omar peter".split())
WOMEN = tuple("anna bella clara diana emma fiona grace helga julia maria nina rosa".split())
NAMES = MEN + WOMEN


class Domain(NamedTuple):
    """The word lists of one domain; `facts.Relation.bank` names a field."""

    places: tuple[str, ...]
    things: tuple[str, ...]
    foods: tuple[str, ...]
    jobs: tuple[str, ...]
    animals: tuple[str, ...]
    clothes: tuple[str, ...]
    towns: tuple[str, ...]
    colours: tuple[str, ...]


def _domain(**banks: str) -> Domain:
    return Domain(**{name: tuple(words.split()) for name, words in banks.items()})


DOMAINS = {
    "home": _domain(
        places="cellar kitchen garden barn attic garage library bakery school market tower stable",
        things="cup lamp book knife basket pencil mirror clock hammer bottle candle violin",
        foods="tea bread cheese honey soup rice jam cake butter pasta",
        jobs="baker teacher doctor farmer painter lawyer tailor nurse driver barber",
        animals="cat dog horse goat rabbit parrot hamster cow hen pig",
        clothes="hat scarf coat dress shirt jacket sweater belt",
        towns="rome paris berlin madrid vienna prague dublin athens",
        colours="red blue green white black yellow",
    ),
    "sea": _domain(
        places="harbour cabin lagoon galley lighthouse dock shipyard cove pier reef wharf marina",
        things="rope compass paddle lantern barrel telescope hook sextant buoy net whistle trumpet",
        foods="rum tuna squid lobster salmon shrimp kelp biscuit coconut lime",
        jobs="sailor pirate captain diver fisher pilot gunner surgeon steward smuggler",
        animals="seagull dolphin pelican monkey penguin walrus heron puffin tortoise lemur",
        clothes="raincoat helmet sash turban bandana wetsuit cloak glove",
        towns="lisbon havana malta genoa bergen cadiz naples tunis",
        colours="silver golden grey purple orange crimson",
    ),
}
