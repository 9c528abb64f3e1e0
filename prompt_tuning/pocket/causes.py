"""Causes and effects: what happens to a thing, and what follows.

    the cup was dropped  ->  the cup broke
    the pencil lay near the fire  ->  the pencil burned

Any cause of a situation explains any of its effects on the same thing. The wrong choice is about
another thing, or belongs to another situation.
"""

import random
from typing import NamedTuple

from prompt_tuning.pocket import words
from prompt_tuning.pocket.facts import pick, pick_several

Situation = tuple[tuple[str, ...], tuple[str, ...]]  # causes, effects of a thing {x}

SITUATIONS: dict[str, tuple[Situation, ...]] = {
    "home": (
        (
            ("the {x} was dropped", "the {x} fell downstairs", "a ball hit the {x}",
             "somebody sat on the {x}"),
            ("the {x} broke", "the {x} was in pieces", "the {x} cracked", "glue held the {x}"),
        ),
        (
            ("rain fell on the {x}", "a pipe leaked over the {x}", "the {x} fell into the pond",
             "the {x} was left on the lawn"),
            ("the {x} was wet", "the {x} dripped", "a towel dried the {x}", "the {x} was soaked"),
        ),
        (
            ("mud covered the {x}", "soot fell on the {x}", "the {x} was dug up",
             "greasy hands held the {x}"),
            ("the {x} was dirty", "the {x} was washed", "the {x} left stains",
             "soap cleaned the {x}"),
        ),
        (
            ("the {x} was mislaid", "the {x} slid behind the sofa", "a bus carried the {x} off",
             "nobody minded the {x}"),
            ("the {x} was lost", "everyone searched for the {x}", "the {x} was missed",
             "posters described the {x}"),
        ),
        (
            ("the {x} was on sale", "the {x} was a bargain", "an advert showed the {x}",
             "the {x} came into fashion"),
            ("shoppers wanted the {x}", "people queued for the {x}", "the {x} sold well",
             "a customer paid for the {x}"),
        ),
        (
            ("a thief saw the {x}", "a burglar came near the {x}", "the {x} was unguarded",
             "bandits liked the {x}"),
            ("the {x} was stolen", "police asked about the {x}", "the {x} vanished",
             "detectives looked into the {x}"),
        ),
        (
            ("the {x} lay near the fire", "lightning struck the {x}", "a spark flew at the {x}",
             "the oven touched the {x}"),
            ("the {x} burned", "the {x} was scorched", "smoke came from the {x}",
             "the {x} turned to ash"),
        ),
        (
            ("the {x} was wrapped up", "a ribbon was tied to the {x}", "santa brought the {x}",
             "the {x} was a present"),
            ("a child unpacked the {x}", "the {x} was a surprise", "everyone admired the {x}",
             "thanks came for the {x}"),
        ),
        (
            ("the {x} was mended", "a craftsman treated the {x}", "the {x} got spare parts",
             "screws fixed the {x}"),
            ("the {x} worked again", "the {x} was like new", "the {x} ran smoothly",
             "the {x} was useful once more"),
        ),
        (
            ("the {x} was of lead", "the {x} weighed a ton", "stones filled the {x}",
             "the {x} was huge"),
            ("two men carried the {x}", "nobody could lift the {x}", "the {x} bent the shelf",
             "a cart moved the {x}"),
        ),
        (
            ("the {x} was antique", "a queen once had the {x}", "the {x} was rare",
             "a famous man signed the {x}"),
            ("a museum showed the {x}", "collectors sought the {x}", "an expert valued the {x}",
             "the {x} was insured"),
        ),
        (
            ("frost gripped the {x}", "snow buried the {x}", "the {x} stood in a freezer",
             "an icy wind blew on the {x}"),
            ("the {x} was frozen", "the {x} felt cold", "the {x} had to thaw",
             "a heater warmed the {x}"),
        ),
    ),
    "sea": (
        (
            ("a wave took the {x}", "the {x} rolled over the rail", "the gale hit the {x}",
             "the {x} slipped off the deck"),
            ("the {x} drifted away", "the {x} sank", "divers sought the {x}",
             "the {x} rests on the seabed"),
        ),
        (
            ("salt ate at the {x}", "spray soaked the {x}", "the {x} hung in the damp",
             "nobody greased the {x}"),
            ("the {x} rusted", "the {x} was stiff", "the {x} creaked", "the {x} crumbled"),
        ),
        (
            ("a cannon hit the {x}", "a bullet struck the {x}", "a sword cut the {x}",
             "the enemy shot at the {x}"),
            ("the {x} splintered", "the {x} was in shreds", "a hole gaped in the {x}",
             "the {x} was ruined"),
        ),
        (
            ("the {x} held jewels", "a king had the {x}", "the {x} was set with pearls",
             "an emperor gave the {x}"),
            ("the crew fought for the {x}", "the {x} made us rich", "a chest guards the {x}",
             "a map led to the {x}"),
        ),
        (
            ("the {x} was scarce", "merchants needed the {x}", "traders praised the {x}",
             "the {x} was brought to the fair"),
            ("the {x} was auctioned", "the {x} fetched much", "the {x} went for coins",
             "bids rose for the {x}"),
        ),
        (
            ("gulls nested in the {x}", "barnacles grew on the {x}", "rats lived by the {x}",
             "weeds clung to the {x}"),
            ("the {x} stank", "the {x} was scraped", "brushes scoured the {x}",
             "vermin left the {x}"),
        ),
        (
            ("the tide bore the {x}", "the ebb uncovered the {x}", "a trawl got the {x}",
             "the surf threw up the {x}"),
            ("the {x} lay on the beach", "strollers met the {x}", "the {x} was picked up",
             "a finder kept the {x}"),
        ),
        (
            ("a torch fell on the {x}", "powder blew up by the {x}", "pitch boiled over the {x}",
             "flames reached the {x}"),
            ("the {x} was charred", "the {x} glowed", "cinders were left of the {x}",
             "buckets saved the {x}"),
        ),
        (
            ("mutineers seized the {x}", "a stowaway grabbed the {x}", "rebels had the {x}",
             "deserters hid the {x}"),
            ("the {x} was gone at dawn", "officers demanded the {x}", "chains secure the {x}",
             "a judge returned the {x}"),
        ),
        (
            ("a carpenter saw to the {x}", "tar was put on the {x}", "the smith forged the {x}",
             "the {x} got new nails"),
            ("the {x} was fit again", "the {x} lasted for years", "the {x} served well",
             "the {x} was sturdy"),
        ),
        (
            ("an iceberg grazed the {x}", "hail fell on the {x}", "sleet coated the {x}",
             "the {x} went to the pole"),
            ("the {x} froze", "icicles hung from the {x}", "the {x} was numb",
             "hot water thawed the {x}"),
        ),
        (
            ("a whale bumped the {x}", "a shark bit the {x}", "an octopus hugged the {x}",
             "a swordfish pierced the {x}"),
            ("tooth marks cover the {x}", "the {x} had dents", "the {x} was chewed",
             "slime stuck to the {x}"),
        ),
    ),
}  # fmt: skip

# How often the wrong choice is about the same thing, by difficulty. If it is about another thing,
# the thing alone tells the choices apart.
SAME_THING = {1: 0.0, 2: 0.1, 3: 1.0}


class Choice(NamedTuple):
    """An event, two candidates for its cause or effect, and the index of the right one."""

    premise: str
    choice1: str
    choice2: str
    asks: str  # 'cause' or 'effect'
    label: int

    @property
    def right(self) -> str:
        return (self.choice1, self.choice2)[self.label]


def choice(rng: random.Random, domain: str, label: int, same_thing: float) -> Choice:
    """Draws an event and two candidates.

    Args:
      rng: what to draw from.
      domain: a key of SITUATIONS.
      label: index of the right choice, 0 or 1.
      same_thing: how often the wrong choice is about the same thing, 0 to 1; see SAME_THING.
    """
    here, elsewhere = pick_several(rng, SITUATIONS[domain], 2)
    thing, other = pick_several(rng, words.DOMAINS[domain].things, 2)
    asked = pick(rng, (0, 1))  # 0: a cause is asked for, 1: an effect
    premise, right = pick(rng, here[1 - asked]), pick(rng, here[asked])
    wrong = pick(rng, elsewhere[asked])
    if rng.random() < same_thing:
        other = thing
    events = [right.format(x=thing), wrong.format(x=other)]
    one, two = events if label == 0 else reversed(events)
    return Choice(premise.format(x=thing), one, two, ("cause", "effect")[asked], label)
