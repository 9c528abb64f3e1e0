"""Tests of prompt_tuning/data/text_prompts.py and prompt_design.py, with texts written by hand."""

import dataclasses
import types

import numpy as np
import pytest
import seqio

from prompt_tuning.data import batches, prompt_design, super_glue, tasks, text_prompts
from prompt_tuning.data.ragged import Ragged
from prompt_tuning.data.registry import TaskInfo
from prompt_tuning.data.text_prompts import TextPrompt

LENGTHS = {"inputs": 64, "targets": 8}
SOLVED = [("a b", "yes"), ("c d", "no")]
PROMPT = TextPrompt(
    instruction="Say yes or no.", template="Q {inputs} A {targets}.", label_words={}, separator="; "
)


def test_a_text_is_instruction_examples_and_the_question_without_its_answer():
    expected = "Say yes or no.; Q a b A yes.; Q c d A no.; Q e f A"
    assert text_prompts.write(PROMPT, SOLVED, "e f") == expected


def test_braces_of_the_data_stay_as_they_are():
    assert text_prompts.write(PROMPT, [("{targets}", "{x}")], "{}") == (
        "Say yes or no.; Q {targets} A {x}.; Q {} A"
    )


def test_every_task_of_superglue_has_words_of_its_own():
    assert text_prompts.DEFAULTS.keys() == set(super_glue.SCORED)
    for member, prompt in text_prompts.DEFAULTS.items():
        known = super_glue.LABELS[member]
        words = prompt.words(known) if known else []
        assert len({*words}) == len(words)
        assert prompt.instruction


def test_rte_as_it_is_asked():
    prompt = text_prompts.for_task(TextPrompt(shots=1), "rte")
    shot = ("hypothesis: It is wet. premise: It rains.", "yes")
    assert text_prompts.write(prompt, [shot], "hypothesis: It is dry. premise: It rains.") == (
        "Does the hypothesis follow from the premise, yes or no? | hypothesis: It is wet. premise: "
        "It rains. answer: yes | hypothesis: It is dry. premise: It rains. answer:"
    )
    assert prompt.words(["entailment", "not_entailment"]) == ["yes", "no"]


def test_what_is_set_replaces_the_words_of_the_task():
    prompt = text_prompts.for_task(TextPrompt(instruction="", label_words={}), "boolq")
    assert text_prompts.write(prompt, [], "q") == "q answer:"
    assert prompt.words(["False", "True"]) == ["False", "True"]


@pytest.mark.parametrize(
    "template", ["{inputs}", "{targets} {inputs}", "{inputs}{inputs}{targets}"]
)
def test_a_template_without_its_places_is_refused(template):
    with pytest.raises(ValueError, match=r"must hold \{inputs\} and, after it, \{targets\}"):
        TextPrompt(template=template)


def test_fewer_than_no_examples_are_refused():
    with pytest.raises(ValueError, match="shots must be 0 or more; got -1"):
        TextPrompt(shots=-1)


def test_a_word_for_an_unknown_label_is_refused():
    with pytest.raises(ValueError, match="'maybe', which is not a label .* are False, True"):
        TextPrompt(label_words={"maybe": "perhaps"}).words(["False", "True"])


def test_the_draw_is_without_replacement_and_depends_on_seed_and_row():
    drawn = [prompt_design.draw(0, row, 4, 5) for row in range(200)]
    assert all(len({*one}) == 4 and {*one} <= set(range(5)) for one in drawn)
    assert prompt_design.draw(0, 1, 4, 100) == prompt_design.draw(0, 1, 4, 100)
    assert prompt_design.draw(0, 1, 4, 100) != prompt_design.draw(1, 1, 4, 100)
    firsts = np.bincount([one[0] for one in drawn], minlength=5)
    assert firsts.min() > 20  # of 40


class Words:
    """A vocabulary of whole words: every word has an id, one is unknown."""

    eos_id, unk_id = 1, 2

    def encode(self, text):
        return [2 if word == "zzz" else 3 + len(word) for word in text.split()]

    def decode(self, ids):
        return " ".join("?" if i == 2 else "w" for i in ids)


def examples_of(*questions, limit, labels=("no", "yes")):
    """Examples with these inputs, of a task that reads words."""
    feature = types.SimpleNamespace(vocabulary=Words(), add_eos=True)
    seqio_task = types.SimpleNamespace(
        output_features={"inputs": feature, "targets": feature},
        preprocessors=[seqio.preprocessors.append_eos_after_trim],
    )
    task = types.SimpleNamespace(
        name="spoken",
        labels=labels,
        vocabulary=feature.vocabulary,
        info=TaskInfo("custom", "spoken", labels, "validation", ()),
        seqio_task=seqio_task,
    )
    none = Ragged.from_rows([np.zeros(0, np.int32)] * len(questions))
    raw = tuple(
        {"inputs_pretokenized": q.encode(), "targets_pretokenized": b"yes"} for q in questions
    )
    return batches.Examples(
        task, "validation", {"inputs": limit, "targets": 8}, none, none, raw,
        {"inputs": 0, "targets": 0}, {"inputs": 0, "targets": 0},
    )  # fmt: skip


def read(examples):
    return [row["inputs_pretokenized"].decode() for row in examples.raw]


TWO = dataclasses.replace(PROMPT, shots=2)
FIRST, SECOND = "Q a b A yes.;", "Q c d A no.;"


def test_examples_are_dropped_before_the_instruction_and_that_before_the_question():
    """Words: instruction 4, an example 5, 'e f' 4, 'e f g h i' 7, six more 10; EOS takes one."""
    questions = ["e f", "e f g h i", "e f g h i j k l m", "e f g h i j k l m n o p q"]
    examples = examples_of(*questions, limit=17)
    made, note = prompt_design.write_inputs(examples, SOLVED[:1] * 2, TWO, seed=0)
    assert read(made) == [
        f"Say yes or no.; {FIRST} Q e f A",
        f"Say yes or no.; {FIRST} Q e f g h i A",
        "Say yes or no.; Q e f g h i j k l m A",
        "Q e f g h i j k l m n o p q A",
    ]
    assert made.inputs.lengths.tolist() == [14, 17, 16, 16]
    assert (made.cut["inputs"], made.longest["inputs"]) == (0, 17)
    assert note.splitlines() == [
        f"first input of spoken: Say yes or no.; {FIRST} Q e f A",
        "spoken: 4 of 4 inputs have fewer than the 2 examples, so that the question fits into 17 "
        "tokens (on average 0.5), and 1 of these no instruction",
    ]


def test_the_example_furthest_from_the_question_is_dropped_first():
    first, second = prompt_design.draw(0, 0, 2, 2)
    made, _ = prompt_design.write_inputs(examples_of("e f", limit=14), SOLVED, TWO, seed=0)
    assert {first, second} == {0, 1}
    assert read(made) == [f"Say yes or no.; {(FIRST, SECOND)[second]} Q e f A"]


def test_all_examples_are_there_where_they_fit():
    made, note = prompt_design.write_inputs(examples_of("e f", limit=20), SOLVED, TWO, seed=0)
    assert read(made)[0] in (
        f"Say yes or no.; {FIRST} {SECOND} Q e f A",
        f"Say yes or no.; {SECOND} {FIRST} Q e f A",
    )
    assert made.inputs[0].tolist()[-1] == 1
    assert note.count("\n") == 0


def test_a_question_that_is_too_long_alone_is_truncated_and_counted():
    made, _ = prompt_design.write_inputs(examples_of("e f g h i j", limit=5), SOLVED, TWO, seed=0)
    assert made.inputs[0].tolist() == [4, 4, 4, 4, 1]
    assert made.cut["inputs"] == 1


def test_words_that_the_vocabulary_lacks_are_refused():
    prompt = TextPrompt(instruction="say zzz now", shots=0)
    examples = examples_of("e f", limit=20, labels=None)
    with pytest.raises(ValueError, match=r"'spoken' cannot write 'say zzz now' and reads 'w \? w'"):
        prompt_design.with_text_prompt([examples], examples.task, prompt, seed=0)


def test_a_task_gives_the_examples_of_its_train_split(capsys):
    task = tasks.get("generated_sentiment")
    examples = batches.load_examples(task, "validation", LENGTHS, limit=3)
    prompt = TextPrompt(instruction="Which word is it?", shots=1, label_words={"awful": "bad"})
    lengths = {"inputs": 200, "targets": 8}
    (made,) = prompt_design.with_text_prompt(
        [dataclasses.replace(examples, lengths=lengths)], task, prompt, seed=0
    )
    train = batches.load_examples(task, "train", LENGTHS)
    for text, row in zip(read(made), examples.raw, strict=True):
        instruction, shot, question = text.split(" | ")
        assert instruction == "Which word is it?"
        assert question == row["inputs_pretokenized"].decode() + " answer:"
        shown, answer = shot.split(" answer: ")
        targets = {
            raw["targets_pretokenized"].decode()
            for raw in train.raw
            if raw["inputs_pretokenized"].decode() == shown
        }
        assert {"bad": "awful"}.get(answer, answer) in targets
    assert capsys.readouterr().out.startswith("first input of generated_sentiment: Which word is ")


def test_more_examples_than_there_are_are_refused():
    task = tasks.get("generated_sentiment")
    examples = batches.load_examples(task, "validation", LENGTHS, limit=3)
    with pytest.raises(ValueError, match=r"asks for 9999 different .* has \d+ for 'generated_"):
        prompt_design.with_text_prompt([examples], task, TextPrompt(shots=9999), seed=0)
