"""A prompt in words: an instruction and a few solved examples, written in front of a question.

    Does the hypothesis follow from the premise? | hypothesis: It was wet. premise: It rained.
    answer: yes | hypothesis: It was cold. premise: It rained. answer:

    instruction   separator   example (input + target)   separator   question (input)

"Prompt design", the baseline of Lester et al. 2021, section 3.1: nothing is trained. The words for
the tasks of SuperGLUE follow those of GPT-3 (Brown et al. 2020, appendix G), in T5's form of the
inputs. This file is about texts alone; `prompt_design.py` puts them into the examples of a task.
"""

import dataclasses
from collections.abc import Mapping, Sequence

INPUTS, TARGETS = "{inputs}", "{targets}"
ANSWER = "{inputs} answer: {targets}"
NO_YES = {"False": "no", "True": "yes"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextPrompt:
    """A prompt in words; None is what `DEFAULTS` has for the task.

    Attributes:
      instruction: the text at the start; '' for none.
      template: an example, such as '{inputs} answer: {targets}'; of the question it is all before
        {targets}.
      label_words: the word for a class label, {'True': 'yes'}; a label without one is its own. Both
        in the examples and for rank classification.
      separator: the text between two examples. T5's vocabulary has no line break and reads it as a
        space.
      shots: K, solved examples of the train split, drawn anew for each question, by RANDOM_SEED.

    Raises:
      ValueError: the template lacks {inputs} or {targets}, or shots is negative.
    """

    instruction: str | None = None
    template: str | None = None
    label_words: Mapping[str, str] | None = None
    separator: str = " | "
    shots: int = 4

    def __post_init__(self):
        template = ANSWER if self.template is None else self.template
        found = template.find(INPUTS), template.find(TARGETS)
        is_once = template.count(INPUTS) == template.count(TARGETS) == 1
        if not is_once or found[1] < found[0]:
            raise ValueError(
                "TextPrompt.template must hold {inputs} and, after it, {targets}, once each, such "
                f"as {ANSWER!r}; got {self.template!r}."
            )
        if self.shots < 0:
            raise ValueError(f"TextPrompt.shots must be 0 or more; got {self.shots}.")

    def words(self, labels: Sequence[str]) -> list[str]:
        """The word for each of a task's labels.

        Raises:
          ValueError: `label_words` has a label that the task does not have.

        >>> TextPrompt(label_words=NO_YES).words(['False', 'True'])
        ['no', 'yes']
        """
        words = self.label_words or {}
        if unknown := sorted(words.keys() - set(labels)):
            raise ValueError(
                f"TextPrompt.label_words has a word for {unknown[0]!r}, which is not a label of "
                f"the task; its labels are {', '.join(labels)}."
            )
        return [words.get(label, label) for label in labels]


# What each task of SuperGLUE is asked, by the task's short name.
DEFAULTS: dict[str, TextPrompt] = {
    "boolq": TextPrompt(
        instruction="Read the passage and answer the question with yes or no.", label_words=NO_YES
    ),
    "cb": TextPrompt(
        instruction="Given the premise, is the hypothesis true, false or neither?",
        label_words={"entailment": "true", "contradiction": "false", "neutral": "neither"},
    ),
    "copa": TextPrompt(
        instruction="Which choice, choice1 or choice2, is the cause or effect of the premise?"
    ),
    "multirc": TextPrompt(
        instruction="Read the paragraph. Is the answer to the question correct, yes or no?",
        template="{inputs} correct: {targets}",
        label_words=NO_YES,
    ),
    "record": TextPrompt(
        instruction="Read the passage. Which of the entities is the @placeholder of the query?"
    ),
    "rte": TextPrompt(
        instruction="Does the hypothesis follow from the premise, yes or no?",
        label_words={"entailment": "yes", "not_entailment": "no"},
    ),
    "wic": TextPrompt(
        instruction="Does the word have the same meaning in both sentences, yes or no?",
        label_words=NO_YES,
    ),
    "wsc": TextPrompt(instruction="Whom or what does the pronoun between the stars refer to?"),
}


def for_task(prompt: TextPrompt, member: str) -> TextPrompt:
    """Fills in what a prompt leaves open.

    Args:
      prompt: as configured.
      member: the task's short name; one without a default has no instruction.

    >>> for_task(TextPrompt(instruction=''), 'rte').label_words
    {'entailment': 'yes', 'not_entailment': 'no'}
    """
    default = DEFAULTS.get(member, TextPrompt())
    last = {"instruction": "", "template": ANSWER, "label_words": {}}
    open_ = {name: getattr(default, name) for name in last if getattr(prompt, name) is None}
    filled = {name: last[name] if value is None else value for name, value in open_.items()}
    return dataclasses.replace(prompt, **filled)


def write(prompt: TextPrompt, shots: Sequence[tuple[str, str]], question: str) -> str:
    """Writes what the model reads.

    Args:
      prompt: with nothing left open, see `for_task`.
      shots: input and target of each example.
      question: the input to be answered.

    >>> prompt = for_task(TextPrompt(separator=' ; '), 'custom')
    >>> write(prompt, [('1 + 1', '2')], '2 + 3')
    '1 + 1 answer: 2 ; 2 + 3 answer:'
    """
    before, _, rest = prompt.template.partition(INPUTS)
    between, _, after = rest.partition(TARGETS)
    instruction = [prompt.instruction] if prompt.instruction else []
    solved = [f"{before}{text}{between}{target}{after}" for text, target in shots]
    asked = f"{before}{question}{between}".rstrip()
    return prompt.separator.join([*instruction, *solved, asked])
