"""PocketGLUE's rows: the official schema, true labels, balance, disjoint splits, frozen bytes.

`python tests/pocket/test_glue_rows.py` writes hashes.json again after an intended change of the
generator; raise `pocket_glue.VERSION` then, once rows of this version have been released.
"""

import collections
import functools
import hashlib
import itertools
import json
import pathlib
import re

import pytest

from prompt_tuning.data import super_glue
from prompt_tuning.pocket import causes, corpus, facts, glue_rows, pronouns, senses, words
from prompt_tuning.pocket import glue_tasks as pocket_glue

TASKS = (*glue_rows.TASKS, *glue_rows.PAIRS)
HASHES = pathlib.Path(__file__).parent / "hashes.json"
COUNTS = {"train": 300, "validation": 100, "test": 100}
KINDS = [("home", 2), ("sea", 2), ("home", 1), ("sea", 3)]  # domain and difficulty


@functools.cache
def rows(task, split="train", domain="home", difficulty=2):
    count = COUNTS[split] // (4 if task == "multirc" else 1)
    return glue_rows.rows(task, split, count, domain=domain, difficulty=difficulty)


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def hashes():
    """The digests of a few rows of every task, domain and split."""
    found = {
        f"{task} {domain} {split}": digest(
            pocket_glue.jsonl(glue_rows.rows(task, split, 12, domain=domain))
        )
        for task in TASKS
        for domain in glue_rows.DOMAINS
        for split in glue_rows.SPLITS
    }
    for task, difficulty in itertools.product(TASKS, (1, 3)):
        text = pocket_glue.jsonl(glue_rows.rows(task, "train", 12, difficulty=difficulty))
        found[f"{task} home train at difficulty {difficulty}"] = digest(text)
    return {**found, "corpus": digest("\n".join(corpus.documents(200)))}


def test_same_seed_same_bytes():
    assert hashes() == json.loads(HASHES.read_text())


def test_a_longer_list_begins_with_the_shorter_and_seeds_differ():
    assert glue_rows.rows("wic", "test", 30)[:10] == glue_rows.rows("wic", "test", 10)
    assert glue_rows.rows("wic", "test", 10, seed=1) != glue_rows.rows("wic", "test", 10)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("axb", "train"), r"no task 'axb'; known: boolq, cb, .*, mrpc\."),
        (("cb", "dev"), r"no split 'dev'; known: train, validation, test\."),
        (("cb", "train", 1, "moon"), r"no domain 'moon'; known: home, sea\."),
        (("cb", "train", 1, "sea", 4), r"no difficulty 4; known: 1, 2, 3\."),
    ],
)
def test_unknown_names_list_the_known(arguments, message):
    task, split, *more = arguments
    with pytest.raises(ValueError, match=message):
        names = ("count", "domain", "difficulty")
        glue_rows.rows(task, split, **dict(zip(names, more, strict=False)))


FIELDS = {
    "boolq": {"question": str, "passage": str, "label": bool},
    "cb": {"premise": str, "hypothesis": str, "label": str},
    "copa": {
        **{key: str for key in ("premise", "choice1", "choice2", "question")},
        "label": int,
    },
    "multirc": {"version": float, "passage": dict},
    "record": {"source": str, "passage": dict, "qas": list},
    "rte": {"premise": str, "hypothesis": str, "label": str},
    "wic": {
        **{key: str for key in ("word", "sentence1", "sentence2")},
        **{key: int for key in ("start1", "end1", "start2", "end2")},
        "version": float,
        "label": bool,
    },
    "wsc": {"text": str, "target": dict, "label": bool},
    "qqp": {"question1": str, "question2": str, "label": int},
    "mrpc": {"sentence1": str, "sentence2": str, "label": int},
}


@pytest.mark.parametrize(("domain", "difficulty"), KINDS)
@pytest.mark.parametrize("task", TASKS)
def test_rows_have_the_official_fields(task, domain, difficulty):
    for place, row in enumerate(rows(task, "validation", domain, difficulty)[:20]):
        assert {key: type(value) for key, value in row.items()} == {**FIELDS[task], "idx": int}
        assert row["idx"] == place


@pytest.mark.parametrize("task", TASKS)
def test_tfds_takes_the_rows(task, tmp_path):
    """TFDS's own parser reads them, and its features encode what it reads."""
    config = pocket_glue.PocketGlueConfig(task, sizes={"test": 8})
    builder = pocket_glue.PocketGlue(config=config, data_dir=tmp_path)
    features = builder._official().info.features
    examples = dict(builder._generate_examples("test"))
    assert len(examples) == (64 if task == "multirc" else 8)
    for example in examples.values():
        assert set(features.encode_example(example)) == set(features)
        assert example.get("label") != -1


def test_questions_are_numbered_through():
    """The metrics group answers by the question's number alone."""
    questions = [
        question["idx"] for row in rows("multirc") for question in row["passage"]["questions"]
    ]
    assert len(set(questions)) == len(questions)
    queries = [query["idx"] for row in rows("record") for query in row["qas"]]
    assert len(set(queries)) == len(queries)


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("task", [task for task in TASKS if task != "record"])
def test_labels_are_balanced(task, split):
    labels = [row.get("label") for row in rows(task, split)]
    if task == "multirc":
        labels = [
            answer["label"]
            for row in rows(task, split)
            for question in row["passage"]["questions"]
            for answer in question["answers"]
        ]
    counts = collections.Counter(labels)
    assert len(counts) == (3 if task == "cb" else 2)
    for count in counts.values():
        assert abs(count / len(labels) - 1 / len(counts)) < 0.03


def inputs(task, row):
    """What a model reads of a row, a text for each example."""
    if task == "multirc":
        return [
            f"{question['question']} | {answer['text']} | {row['passage']['text']}"
            for question in row["passage"]["questions"]
            for answer in question["answers"]
        ]
    if task == "record":
        return [f"{query['query']} | {row['passage']['text']}" for query in row["qas"]]
    keys = [key for key, kind in FIELDS[task].items() if kind is str and key != "label"]
    return [" | ".join(row[key] for key in keys)]


def renamed(text):
    """The text with every name replaced by its number in the order of appearance."""
    numbers = {}
    return re.sub(
        r"[a-z]+",
        lambda word: (
            str(numbers.setdefault(word[0], len(numbers))) if word[0] in words.NAMES else word[0]
        ),
        text,
    )


def test_renamed():
    assert renamed("anna | rosanna saw bella . anna") == "0 | rosanna saw 1 . 0"


@pytest.mark.parametrize(("domain", "difficulty"), KINDS)
@pytest.mark.parametrize("task", TASKS)
def test_splits_share_nothing_up_to_names(task, domain, difficulty):
    """At home all rows of the usual sizes; at sea the first ones."""
    read = {}
    for split in glue_rows.SPLITS:
        count = None if domain == "home" else COUNTS[split]
        made = glue_rows.rows(task, split, count, domain=domain, difficulty=difficulty)
        read[split] = {renamed(text) for row in made for text in inputs(task, row)}
    assert not read["validation"] & read["train"]
    assert not read["test"] & (read["train"] | read["validation"])


@pytest.mark.parametrize("task", TASKS)
def test_no_row_comes_twice(task):
    read = [" ".join(inputs(task, row)) for row in rows(task)]
    assert max(collections.Counter(read).values()) == 1


def test_record_spans_are_the_names_in_the_text():
    for row in glue_rows.rows("record", "train", 600):
        text, entities = row["passage"]["text"], row["passage"]["entities"]
        words_at = {found.span(): found[0] for found in re.finditer(r"[a-z]+", text)}
        named = [words_at[entity["start"], entity["end"] + 1] for entity in entities]
        assert set(named) == set(re.findall(r"[a-z]+", text)) & set(words.NAMES)
        assert len(named) == len(set(named))
        (query,) = row["qas"]
        assert query["query"].count("@placeholder") == 1
        for answer in query["answers"]:
            assert answer["text"] == words_at[answer["start"], answer["end"] + 1]
            assert {key: answer[key] for key in ("start", "end")} in entities


def test_wsc_and_wic_spans_are_the_words():
    for row in rows("wsc"):
        target, text = row["target"], row["text"].split(" ")
        for span in ("span1", "span2"):
            assert text[target[f"{span}_index"]] == target[f"{span}_text"]
        assert target["span1_text"] in words.NAMES and target["span2_text"] in ("he", "she")
    for row in rows("wic"):
        for number in (1, 2):
            sentence, start, end = (row[f"{key}{number}"] for key in ("sentence", "start", "end"))
            assert sentence[start:end] == row["word"]


FORMS = [
    (name, relation.bank, re.compile(form.format(s=r"(\S+)", v=r"(\w+)")))
    for name, relation in facts.RELATIONS.items()
    for form in (*relation.says, *relation.asks)
]


def read_facts(text, banks):
    """The facts that a text states, found by the forms of the relations."""
    found = []
    for sentence in re.split(r" \.\s*(?:@highlight\s*)?| and ", text):
        for name, bank, form in FORMS:
            match = form.fullmatch(sentence.removesuffix(" ?"))
            if match and match[2] in getattr(banks, bank):
                found.append(facts.Fact(name, *match.groups()))
    return found


def verdict(passage, statement, banks):
    """The verdict of the passage on a statement, worked out from the texts."""
    known = read_facts(passage, banks)
    (said,) = read_facts(statement, banks)
    if said in known:
        return "entailment"
    values = {(fact.relation, fact.subject) for fact in known}
    return "contradiction" if (said.relation, said.subject) in values else "neutral"


@pytest.mark.parametrize(("domain", "difficulty"), KINDS)
def test_labels_follow_from_the_passage(domain, difficulty):
    banks = words.DOMAINS[domain]
    for row in rows("boolq", "validation", domain, difficulty):
        found = verdict(row["passage"], row["question"], banks)
        assert found == ("entailment" if row["label"] else "contradiction")
    for row in rows("cb", "validation", domain, difficulty):
        assert verdict(row["premise"], row["hypothesis"], banks) == row["label"]
    for row in rows("rte", "validation", domain, difficulty):
        found = verdict(row["premise"], row["hypothesis"], banks)
        assert (found == "entailment") == (row["label"] == "entailment")
    for row in rows("record", "validation", domain, difficulty):
        (query,) = row["qas"]
        (asked,) = read_facts(query["query"], banks)
        known = read_facts(row["passage"]["text"], banks)
        right = [fact.subject for fact in known if fact[::2] == asked[::2]]
        assert [answer["text"] for answer in query["answers"]] == right


@pytest.mark.parametrize(("domain", "difficulty"), KINDS)
def test_multirc_labels_follow_from_the_passage(domain, difficulty):
    banks = words.DOMAINS[domain]
    for row in rows("multirc", "validation", domain, difficulty):
        passage = row["passage"]
        known = read_facts(passage["text"], banks)
        for question in passage["questions"]:
            (asked,) = [fact for fact in known if fact.ask_value() == question["question"]]
            for answer in question["answers"]:
                said = read_facts(answer["text"], banks)
                right = said == [asked] if said else answer["text"] == asked.answer()
                assert right == bool(answer["label"])


@pytest.mark.parametrize("domain", glue_rows.DOMAINS)
def test_paraphrases_state_the_same_facts(domain):
    banks = words.DOMAINS[domain]
    for task, kind in (("qqp", "question"), ("mrpc", "sentence")):
        for row in rows(task, "validation", domain):
            one, two = (set(read_facts(row[f"{kind}{number}"], banks)) for number in (1, 2))
            assert (one == two) == bool(row["label"])


@pytest.mark.parametrize(("domain", "difficulty"), KINDS)
def test_copa_wic_and_wsc_labels_follow_from_the_banks(domain, difficulty):
    meant = {  # an event's situation and thing
        event.format(x=thing): (number, thing)
        for number, sides in enumerate(causes.SITUATIONS[domain])
        for side in sides
        for event in side
        for thing in words.DOMAINS[domain].things
    }
    shared = 0
    for row in rows("copa", "validation", domain, difficulty):
        premise, *choices = (
            meant[last_sentence(row[key])] for key in ("premise", "choice1", "choice2")
        )
        assert [choice == premise for choice in choices] == [row["label"] == 0, row["label"] == 1]
        shared += choices[0][1] == choices[1][1]
    share = shared / COUNTS["validation"]
    assert 0.03 < share < 0.2 if difficulty == 2 else share == {1: 0, 3: 1}[difficulty]
    for row in rows("wic", "validation", domain, difficulty):
        meant = [
            {
                sense
                for sense in senses.SENSES[domain][row["word"]]
                for context in senses.CONTEXTS[domain][sense]
                if last_sentence(row[f"sentence{number}"]).startswith(
                    context.format(w=row["word"]) + " "
                )
            }
            for number in (1, 2)
        ]
        assert (meant[0] == meant[1]) == row["label"] and all(len(one) == 1 for one in meant)
    of_subject = {reason for one in pronouns.MOTIVES[domain] for reason in one.of_subject}
    for row in rows("wsc", "validation", domain, difficulty):
        text = last_sentence(row["text"])
        reason = re.search(r"because s?he (.+)", text)[1]
        actor, patient = [word for word in text.split() if word in words.NAMES]
        meant = actor if reason in of_subject else patient
        assert (row["target"]["span1_text"] == meant) == row["label"]


def last_sentence(text):
    """At difficulty 3 a distractor comes first."""
    return text.removesuffix(" .").split(" . ")[-1]


def test_a_word_is_in_one_bank_of_one_domain():
    banks = [bank for domain in words.DOMAINS.values() for bank in domain]
    banks += [tuple(known) for known in senses.SENSES.values()]
    counts = collections.Counter(word for bank in banks for word in bank)
    assert [word for word, count in counts.items() if count > 1] == []
    assert not set(counts) & set(words.NAMES)


def test_the_sentences_of_the_domains_differ():
    for texts in (causes.SITUATIONS, senses.CONTEXTS, pronouns.MOTIVES):
        home, sea = (set(sentences(texts[domain])) for domain in glue_rows.DOMAINS)
        assert home and sea and not home & sea


def sentences(bank):
    """All texts in nested tuples and dictionaries."""
    if isinstance(bank, str):
        return [bank]
    parts = bank.values() if isinstance(bank, dict) else bank
    return [text for part in parts for text in sentences(part)]


FORMATS = (
    "question:", "question1:", "question2:", "passage:", "premise:", "hypothesis:", "wsc:",
    "choice1:", "choice2:", "sentence1:", "sentence2:", "word:", "paragraph:", "answer:", "query:",
    "entities:", "@placeholder", "*he*", "*she*", "@highlight",
)  # fmt: skip


def test_the_scores_of_one_word_cues():
    """The scores that experiments/figure1_scale names: of a reader who looks for one word."""
    boolq = glue_rows.rows("boolq", "validation")
    right = [
        (row["question"].split()[-1] in row["passage"].split()) == row["label"] for row in boolq
    ]
    assert round(100 * sum(right) / len(right), 1) == 95.3

    said, targets = [], []
    for row in glue_rows.rows("multirc", "validation"):
        for question in row["passage"]["questions"]:
            for answer in question["answers"]:
                targets.append({"value": answer["label"], "group": question["idx"]})
                found = answer["text"].split()[-1] in row["passage"]["text"].split()
                said.append({**targets[-1], "value": int(found)})
    scores = {}
    for function in super_glue.METRICS["multirc"]:
        scores |= function(targets, said)
    assert round(sum(scores.values()) / len(scores), 1) == 87.6

    points = 0.0
    things = set(words.DOMAINS["home"].things)
    for row in glue_rows.rows("copa", "validation"):
        premise, *choices = (
            things & set(row[key].split()) for key in ("premise", "choice1", "choice2")
        )
        alike = [choice == premise for choice in choices]
        points += alike[row["label"]] / sum(alike)
    assert round(100 * points / 300, 1) == 95.2


def test_the_corpus_holds_no_task_format():
    text = "\n".join(corpus.documents(3000))
    assert [form for form in FORMATS if form in text or form.replace(":", " :") in text] == []


if __name__ == "__main__":
    HASHES.write_text(json.dumps(hashes(), indent=1) + "\n")
