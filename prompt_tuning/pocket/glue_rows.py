"""PocketGLUE: the eight SuperGLUE tasks in controlled English, row by row as in the official JSONL.

    rows('boolq', 'train', 2)
    [{'question': 'is the pencil black', 'passage': 'adam goes to berlin . the pencil is black .',
      'label': True, 'idx': 0}, ...]

Rows are a deterministic function of task, domain, seed, difficulty, split and index, the same on
every machine. A hash of a row's text without its names assigns the row to a split, so no row
occurs in two splits, not even with other names. There are no duplicates within a split, and
labels are balanced.

The pretraining text (corpus.py) uses the same word lists and ignores the splits: it can contain a
sentence of a validation row.

Test rows keep their labels, since there is no test server.
"""

import hashlib
import random
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from prompt_tuning.pocket import causes, facts, pronouns, senses, words
from prompt_tuning.pocket.facts import pick, pick_several

TASKS = ("boolq", "cb", "copa", "multirc", "record", "rte", "wic", "wsc")
PAIRS = ("qqp", "mrpc")
DOMAINS = tuple(words.DOMAINS)
SPLITS = ("train", "validation", "test")
DIFFICULTIES = (1, 2, 3)
DIFFICULTY = 2
SIZES: dict[str, dict[str, int]] = {
    task: {"train": 8000, "validation": 300, "test": 300} for task in (*TASKS, *PAIRS)
} | {
    "multirc": {"train": 2000, "validation": 100, "test": 100},
    "wsc": {"train": 2000, "validation": 300, "test": 300},
}
# With a single fact there are fewer distinct rows.
SIZES_AT_1 = {
    task: {"train": 400, "validation": 200, "test": 200} for task in ("boolq", "cb", "rte")
}

CB_LABELS = ("entailment", "contradiction", "neutral")
RTE_LABELS = ("entailment", "not_entailment")
QUESTIONS_PER_PASSAGE = 2

Row = dict[str, Any]


def rows(
    task: str,
    split: str,
    count: int | None = None,
    *,
    seed: int = 0,
    domain: str = "home",
    difficulty: int = DIFFICULTY,
) -> list[Row]:
    """The rows of a split.

    Args:
      task: one of TASKS or PAIRS.
      split: one of SPLITS.
      count: number of rows; a shorter list is a prefix of a longer one. None is the size in
        `sizes`.
      seed: another seed gives another data set of the same kind.
      domain: one of DOMAINS.
      difficulty: number of facts in a passage, 1 to 3 (one more in MultiRC and ReCoRD). The tasks
        on word senses, causes and pronouns get a distractor at 3 only; the paraphrases get none.
        COPA's wrong choice is about the same thing never (1), in a tenth of the rows (2) or
        always (3).

    Raises:
      ValueError: an unknown task, split, domain or difficulty; or more rows than can be made.

    >>> rows('rte', 'validation', 1)[0]['label']
    'entailment'
    """
    for name, value, known in (
        ("task", task, (*TASKS, *PAIRS)),
        ("split", split, SPLITS),
        ("domain", domain, DOMAINS),
        ("difficulty", difficulty, DIFFICULTIES),
    ):
        if value not in known:
            raise ValueError(
                f"PocketGLUE has no {name} {value!r}; known: {', '.join(map(str, known))}."
            )
    count = sizes(task, difficulty)[split] if count is None else count
    arguments = Arguments(task, domain, seed, difficulty)
    made: list[Row] = []
    seen: set[str] = set()
    for place in range(count):
        row, digest = _draw(arguments, split, place, seen)
        seen.add(digest)
        made.append(row | {"idx": place})
    return made


def sizes(task: str, difficulty: int = DIFFICULTY) -> dict[str, int]:
    """The default number of rows of each split."""
    return SIZES_AT_1.get(task, SIZES[task]) if difficulty == 1 else SIZES[task]


class Arguments(NamedTuple):
    """The arguments that all rows of a data set share."""

    task: str
    domain: str
    seed: int
    difficulty: int

    @property
    def banks(self) -> words.Domain:
        return words.DOMAINS[self.domain]


def _draw(arguments: Arguments, split: str, place: int, seen: set[str]) -> tuple[Row, str]:
    """Draws rows for one index until one belongs to the split and is new."""
    rng = random.Random("/".join(map(str, ("pocket_glue", *arguments, split, place))))
    for _ in range(2000):
        row = _MAKERS[arguments.task](rng, arguments, place)
        digest = _digest(row)
        if split_of(digest) == split and digest not in seen:
            return row, digest
    raise ValueError(
        f"PocketGLUE's {arguments.task} (domain {arguments.domain}, difficulty "
        f"{arguments.difficulty}) has only about {place:,} different {split} rows; ask for fewer."
    )


def split_of(digest: str) -> str:
    """The split of a row with this hash: 8 of 16 train, 4 validation, 4 test."""
    return (("train",) * 8 + ("validation",) * 4 + ("test",) * 4)[int(digest[0], 16)]


def _digest(row: Row) -> str:
    """Hashes a row's texts with names replaced by numbers, without the label.

    What differs between examples of one text (MultiRC's questions, WSC's candidate) is left
    out as well, so that all examples of a text are in one split.
    """
    return hashlib.sha256(without_names("\n".join(_texts(row))).encode()).hexdigest()


def _texts(row: Row) -> Iterator[str]:
    """Yields the texts of a row that decide its split, sorted by key."""
    for key in sorted(row):
        value = row[key]
        if key in ("source", "label", "questions", "target"):
            continue
        if isinstance(value, str):
            yield value
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, dict):
                yield from _texts(part)


def without_names(text: str) -> str:
    """Replaces names by numbers, in order of first appearance.

    >>> without_names('leo thanked emma because leo was glad')
    '0 thanked 1 because 0 was glad'
    """
    numbers: dict[str, str] = {}
    return _NAME.sub(lambda found: numbers.setdefault(found[0], str(len(numbers))), text)


_NAME = re.compile(r"\b(?:" + "|".join(words.NAMES) + r")\b")


def _distractor(rng: random.Random, arguments: Arguments) -> str:
    """At difficulty 3, a distractor sentence; else nothing."""
    if arguments.difficulty < 3:
        return ""
    return f"{facts.passage(rng, facts.world(rng, arguments.banks, 1))} "


def _boolq(rng: random.Random, arguments: Arguments, place: int) -> Row:
    world = facts.world(rng, arguments.banks, arguments.difficulty)
    label = place % 2 == 0
    said, _ = facts.about(rng, world, arguments.banks, facts.VERDICTS[0 if label else 1])
    return {"question": said.ask(rng), "passage": facts.passage(rng, world), "label": label}


def _nli(rng: random.Random, arguments: Arguments, verdict: str, label: str) -> Row:
    world = facts.world(rng, arguments.banks, arguments.difficulty)
    said, _ = facts.about(rng, world, arguments.banks, verdict)
    return {
        "premise": facts.passage(rng, world),
        "hypothesis": said.say(rng) + " .",
        "label": label,
    }


def _cb(rng: random.Random, arguments: Arguments, place: int) -> Row:
    return _nli(rng, arguments, facts.VERDICTS[place % 3], CB_LABELS[place % 3])


def _rte(rng: random.Random, arguments: Arguments, place: int) -> Row:
    verdict = facts.VERDICTS[0] if place % 2 == 0 else pick(rng, facts.VERDICTS[1:])
    return _nli(rng, arguments, verdict, RTE_LABELS[place % 2])


def _multirc(rng: random.Random, arguments: Arguments, place: int) -> Row:
    world = facts.world(rng, arguments.banks, arguments.difficulty + 1)
    questions: list[Row] = []
    for fact in pick_several(rng, world, QUESTIONS_PER_PASSAGE):
        bank = getattr(arguments.banks, facts.RELATIONS[fact.relation].bank)
        wrong = pick_several(rng, [v for v in bank if v != fact.value], 2)
        values = [fact.value, *wrong]
        # The right answer occurs in two wordings, so that labels are balanced.
        texts = [(fact.answer(), 1), (fact.say(rng), 1)]
        texts += [(fact._replace(value=value).answer(), 0) for value in values[1:2]]
        texts += [(fact._replace(value=value).say(rng), 0) for value in values[2:]]
        shuffled = pick_several(rng, texts, len(texts))
        answers = [
            {"text": text, "idx": index, "label": label}
            for index, (text, label) in enumerate(shuffled)
        ]
        index = place * QUESTIONS_PER_PASSAGE + len(questions)
        questions.append({"question": fact.ask_value(), "answers": answers, "idx": index})
    return {
        "version": 1.1,
        "passage": {"text": facts.passage(rng, world), "questions": questions},
    }


def _record(rng: random.Random, arguments: Arguments, place: int) -> Row:
    world = facts.world(rng, arguments.banks, arguments.difficulty + 1, people_only=True)
    text = "\n@highlight\n".join(f"{fact.say(rng)} ." for fact in world)
    entities = []
    for fact in world:
        start = re.search(rf"\b{fact.subject}\b", text).start()
        entities.append({"start": start, "end": start + len(fact.subject) - 1})
    asked = pick(rng, world)
    answer = entities[world.index(asked)] | {"text": asked.subject}
    query = asked._replace(subject="@placeholder").say(rng) + " ."
    return {
        "source": "pocket",
        "passage": {"text": text, "entities": entities},
        "qas": [{"query": query, "answers": [answer], "idx": place}],
    }


def _copa(rng: random.Random, arguments: Arguments, place: int) -> Row:
    same_thing = causes.SAME_THING[arguments.difficulty]
    drawn = causes.choice(rng, arguments.domain, place % 2, same_thing)
    return {
        "premise": _distractor(rng, arguments) + drawn.premise + " .",
        "choice1": drawn.choice1 + " .",
        "choice2": drawn.choice2 + " .",
        "question": drawn.asks,
        "label": drawn.label,
    }


def _wic(rng: random.Random, arguments: Arguments, place: int) -> Row:
    drawn = senses.pair(rng, arguments.domain, place % 2 == 0)
    distractor = _distractor(rng, arguments)
    row: Row = {"word": drawn.word, "label": drawn.is_same, "version": 1.1}
    for number, sentence in ((1, distractor + drawn.sentence1), (2, drawn.sentence2)):
        start = sentence.split().index(drawn.word)
        start = len(" ".join([*sentence.split()[:start], ""]))
        row |= {
            f"sentence{number}": sentence + " .",
            f"start{number}": start,
            f"end{number}": start + len(drawn.word),
        }
    return row


def _wsc(rng: random.Random, arguments: Arguments, place: int) -> Row:
    drawn = pronouns.riddle(rng, arguments.domain)
    label = place % 2 == 0
    candidate = drawn.meant if label else drawn.other
    text = _distractor(rng, arguments) + drawn.text.format(p=drawn.pronoun) + " ."
    places = text.split()
    return {
        "text": text,
        "target": {
            "span1_index": places.index(candidate),
            "span1_text": candidate,
            "span2_index": places.index(drawn.pronoun),
            "span2_text": drawn.pronoun,
        },
        "label": label,
    }


def _paraphrases(
    rng: random.Random, arguments: Arguments, is_same: bool, wordings: Callable[[facts.Fact], tuple]
) -> tuple[str, str]:
    """States two facts twice in different wordings; if not `is_same`, changes one of them."""
    first, second = facts.world(rng, arguments.banks, 2)
    changed = first
    if not is_same:
        changed, _ = facts.about(rng, [first], arguments.banks, pick(rng, facts.VERDICTS[1:]))
    one, two = pick_several(rng, range(len(wordings(first))), 2)
    sentences = [f"{wordings(first)[one]} and {pick(rng, wordings(second))}"]
    form = two if changed.relation == first.relation else 0
    sentences.append(f"{wordings(changed)[form]} and {pick(rng, wordings(second))}")
    return (*pick_several(rng, sentences, 2),)


def _qqp(rng: random.Random, arguments: Arguments, place: int) -> Row:
    is_same = place % 2 == 0
    one, two = _paraphrases(rng, arguments, is_same, facts.Fact.questions)
    return {"question1": one + " ?", "question2": two + " ?", "label": int(is_same)}


def _mrpc(rng: random.Random, arguments: Arguments, place: int) -> Row:
    is_same = place % 2 == 0
    one, two = _paraphrases(rng, arguments, is_same, facts.Fact.statements)
    return {"sentence1": one + " .", "sentence2": two + " .", "label": int(is_same)}


_MAKERS: dict[str, Callable[[random.Random, Arguments, int], Row]] = {
    "boolq": _boolq,
    "cb": _cb,
    "copa": _copa,
    "multirc": _multirc,
    "record": _record,
    "rte": _rte,
    "wic": _wic,
    "wsc": _wsc,
    "qqp": _qqp,
    "mrpc": _mrpc,
}
