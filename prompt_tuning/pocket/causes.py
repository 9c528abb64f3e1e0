"""Causes and effects: situations in which any cause explains any effect.

    the rain     it rained all night , a storm came ...  ->  the road was wet , the roof leaked ...

Two events belong together when they are of one situation. Of two events offered, the
other one comes from elsewhere.
"""

import random
from typing import NamedTuple

from prompt_tuning.pocket.facts import pick, pick_several

Situation = tuple[tuple[str, ...], tuple[str, ...]]  # causes, effects

SITUATIONS: dict[str, tuple[Situation, ...]] = {
    "home": (
        (
            ("it rained all night", "a storm came", "the clouds burst", "heavy rain fell"),
            ("the road was wet", "the lawn was muddy", "the roof dripped", "umbrellas went up"),
        ),
        (
            ("the wood caught fire", "sparks flew about", "the oven burned", "a torch tipped over"),
            ("smoke rose", "firemen came", "the wall turned to ash", "the alarm rang"),
        ),
        (
            ("lunch was skipped", "the fridge was empty", "no meal came", "cooks went on strike"),
            ("stomachs growled", "the guests starved", "everyone wanted food", "pizza was ordered"),
        ),
        (
            ("the flu spread", "a virus went round", "germs were about", "the child had a fever"),
            ("the pills were sold out", "many stayed in bed", "the clinic was full", "noses ran"),
        ),
        (
            ("our side won", "the goal counted", "the striker shot", "the keeper slipped"),
            ("the crowd roared", "a trophy was lifted", "the stadium sang", "supporters cried"),
        ),
        (
            ("the power failed", "the fuse blew", "a cable snapped", "the plug melted"),
            ("all lights went out", "the screen was dark", "the lift stuck", "the freezer thawed"),
        ),
        (
            ("snow fell", "the temperature sank", "an icy wind blew", "winter arrived"),
            ("the pond froze", "snowmen were built", "the pipes cracked", "heaters were on"),
        ),
        (
            ("the bus broke down", "traffic was heavy", "the train was cancelled", "a tyre burst"),
            ("workers were late", "the meeting was moved", "commuters walked", "taxis were booked"),
        ),
        (
            ("a clown performed", "the comedian came", "a funny show ran", "a prank worked"),
            ("the audience laughed", "people giggled", "faces smiled", "tears of joy flowed"),
        ),
        (
            ("a burglar broke in", "the safe was open", "thieves had a plan", "the guard dozed"),
            ("the jewels vanished", "police searched", "the money was gone", "locks were changed"),
        ),
        (
            ("the exam was hard", "students were lazy", "lessons were missed", "no homework came"),
            ("grades were bad", "the class failed", "parents complained", "tutors were hired"),
        ),
        (
            ("the heat lasted", "no cloud was seen", "summer was long", "the drought went on"),
            ("the crops withered", "the lake shrank", "ice cream sold well", "the fans sweated"),
        ),
    ),
    "sea": (
        (
            ("the gale blew", "gusts hit the sails", "a hurricane came", "the breeze grew"),
            ("the mast broke", "the canvas ripped", "the boat sped up", "foam flew"),
        ),
        (
            ("the hull leaked", "a rock tore the keel", "planks rotted", "a hole opened below"),
            ("the pumps worked", "the vessel sank", "the hold flooded", "the lifeboats left"),
        ),
        (
            ("fog rolled in", "mist hid the coast", "the beacon died", "the haze thickened"),
            ("the horns blared", "nothing was seen", "two ferries crashed", "crews got lost"),
        ),
        (
            ("treasure was found", "chests held gold", "divers got coins", "a wreck was raised"),
            ("the crew got rich", "shares were split", "the king got taxes", "people envied us"),
        ),
        (
            ("the tide went out", "the ebb began", "the water dropped", "the moon pulled"),
            ("mud appeared", "boats lay dry", "clams were dug", "the sandbar showed"),
        ),
        (
            ("sharks came near", "a fin was seen", "blood attracted jaws", "predators circled"),
            ("swimmers fled", "bathing was banned", "surfers screamed", "cages were built"),
        ),
        (
            ("rations ran low", "wages were unpaid", "officers whipped men", "the voyage lasted"),
            ("a mutiny began", "sailors rebelled", "the admiral was deposed", "rebels took over"),
        ),
        (
            ("the cannons fired", "the enemy attacked", "a broadside hit", "the fleet fought"),
            ("the deck splintered", "the town surrendered", "many were wounded", "the fort fell"),
        ),
        (
            ("the swell rocked us", "waves tossed us", "the deck rolled", "the sea was rough"),
            ("passengers felt sick", "plates slid", "the cradle swung", "buckets were needed"),
        ),
        (
            ("a shoal passed", "the nets were lowered", "bait was good", "anglers were patient"),
            ("the catch was big", "gulls gathered", "the grill was hot", "fishmongers smiled"),
        ),
        (
            ("the anchor slipped", "the chain parted", "the moorings slipped", "the knot gave way"),
            ("the yacht drifted", "the schooner went ashore", "tugs were sent", "it hit the quay"),
        ),
        (
            ("the volcano erupted", "lava flowed", "the earth shook", "the crater glowed"),
            ("the islanders left", "a tsunami came", "cinders rained", "villages were buried"),
        ),
    ),
}  # fmt: skip


class Choice(NamedTuple):
    """An event, two candidates for its cause or effect, and which one it is (0 or 1)."""

    premise: str
    choice1: str
    choice2: str
    asks: str  # 'cause' or 'effect'
    label: int

    @property
    def right(self) -> str:
        return (self.choice1, self.choice2)[self.label]


def choice(rng: random.Random, domain: str, label: int) -> Choice:
    """Draws an event and two candidates."""
    here, elsewhere = pick_several(rng, SITUATIONS[domain], 2)
    asked = pick(rng, (0, 1))  # 0: a cause is asked for, 1: an effect
    premise, right = pick(rng, here[1 - asked]), pick(rng, here[asked])
    wrong = pick(rng, elsewhere[asked])
    one, two = (right, wrong) if label == 0 else (wrong, right)
    return Choice(premise, one, two, ("cause", "effect")[asked], label)
