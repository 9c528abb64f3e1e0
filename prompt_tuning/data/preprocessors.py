"""Turns a raw dataset row into the text a T5 reads and the text it should write.

    {'premise': 'It rained.', 'hypothesis': 'It was wet.', 'label': 0, 'idx': 3}
 -> {'inputs': 'cb hypothesis: It was wet. premise: It rained.', 'targets': 'entailment', 'idx': 3}

The formats are those of the T5 paper (Raffel et al. 2020, appendix D), since
the frozen models read nothing else. Prompt tuning (Lester et al. 2021, section
3) drops the task's name from the front: `name=''`. Every function takes and
returns a `tf.data.Dataset`, as seqio wants it.
"""

from collections.abc import Sequence

from prompt_tuning.data.labels import UNLABELLED
from prompt_tuning.data.tensorflow_import import tf


def _text(name: str, pieces: Sequence) -> tf.Tensor:
    return tf.strings.join([name, *pieces] if name else list(pieces), separator=" ")


def _columns(row, columns: Sequence[str]) -> list:
    return [piece for column in columns for piece in (f"{column}:", row[column])]


def _label_word(label: tf.Tensor, labels: Sequence[str]) -> tf.Tensor:
    """The word for a class number; -1, an example without a label, is '<unk>'."""
    return tf.gather(tf.constant([UNLABELLED, *labels]), label + 1)


def columns(
    dataset: tf.data.Dataset,
    *,
    name: str,
    labels: Sequence[str],
    only: Sequence[str] | None = None,
) -> tf.data.Dataset:
    """Writes a row's columns as 'column: value column: value'.

    Args:
      dataset: rows with 'label' (a class number or -1), 'idx' and text columns.
      name: the task's name, prepended to the text, or ''.
      labels: the word of each class, in order.
      only: the columns to write, in order; all of them, sorted, if None.
    """

    def convert(row):
        keys = only or sorted(set(row) - {"label", "idx"})
        return {
            "inputs": _text(name, _columns(row, keys)),
            "targets": _label_word(row["label"], labels),
            "idx": row["idx"],
        }

    return dataset.map(convert, num_parallel_calls=tf.data.AUTOTUNE)


def rename(dataset: tf.data.Dataset, *, columns: dict[str, str]) -> tf.data.Dataset:
    """Renames columns, {'sentence1': 'premise'}; the others keep their names."""

    def convert(row):
        return {columns.get(key, key): value for key, value in row.items()}

    return dataset.map(convert, num_parallel_calls=tf.data.AUTOTUNE)


def multirc(dataset: tf.data.Dataset, *, name: str, labels: Sequence[str]) -> tf.data.Dataset:
    """MultiRC: one answer to one question on a paragraph, HTML markup removed.

    The three parts of 'idx' are kept apart, since the metric groups the
    answers of a question.
    """

    def convert(row):
        text = _text(name, _columns(row, ("question", "answer", "paragraph")))
        text = tf.strings.regex_replace(text, "<br>", " ")
        return {
            "inputs": tf.strings.regex_replace(text, "</?b>", ""),
            "targets": _label_word(row["label"], labels),
            "idx/paragraph": row["idx"]["paragraph"],
            "idx/question": row["idx"]["question"],
            "idx/answer": row["idx"]["answer"],
        }

    return dataset.map(convert, num_parallel_calls=tf.data.AUTOTUNE)


def record(dataset: tf.data.Dataset, *, name: str) -> tf.data.Dataset:
    """ReCoRD: fill the @placeholder of a query; one example for each right answer.

    The bullet points of the passage ('@highlight' on a line of its own) become
    sentences: a full stop is added where the line before ends without punctuation.
    """

    def convert(row):
        passage = tf.strings.regex_replace(row["passage"], r"([.?!\"'])\n@highlight\n", r"\1 ")
        passage = tf.strings.regex_replace(passage, r"\n@highlight\n", ". ")
        entities = tf.strings.reduce_join(row["entities"], separator=", ")
        pieces = ["query:", row["query"], "entities:", entities, "passage:", passage]
        answers = row["answers"]
        targets = tf.cond(tf.size(answers) > 0, lambda: answers, lambda: tf.constant([UNLABELLED]))
        example = {
            "inputs": _text(name, pieces),
            "answers": answers,
            "idx/passage": row["idx"]["passage"],
            "idx/query": row["idx"]["query"],
        }
        return tf.data.Dataset.from_tensor_slices(targets).map(
            lambda target: {**example, "targets": target}
        )

    return dataset.flat_map(convert)


def wsc(dataset: tf.data.Dataset, *, name: str, only_true: bool) -> tf.data.Dataset:
    """WSC as reading: the text with the pronoun as '*he*', and whom it means.

    Args:
      dataset: rows of `super_glue/wsc.fixed`.
      name: 'wsc:' or ''.
      only_true: keep the rows whose noun is the right one. A model can learn
        from those alone; a wrong noun does not reveal the right one.
    """

    def convert(row):
        return {
            "inputs": _text(name, [_mark_pronoun(row)]),
            "targets": row["span1_text"],
            "label": row["label"],
            "idx": row["idx"],
        }

    if only_true:
        dataset = dataset.filter(lambda row: row["label"] == 1)
    return dataset.map(convert, num_parallel_calls=tf.data.AUTOTUNE)


def _mark_pronoun(row) -> tf.Tensor:
    """Puts stars round the pronoun, the word number `span2_index`.

    Two rows of the data are off: in one the word carries punctuation ('him,"',
    to be read '*him* ,"'), in the other the index points one word early.
    """
    pronoun, words = row["span2_text"], tf.strings.split(row["text"], sep=" ")
    index, size = row["span2_index"], tf.strings.length(row["span2_text"])
    here = tf.logical_and(
        tf.strings.substr(words[index], 0, size) == pronoun,
        tf.strings.regex_full_match(tf.strings.substr(words[index], size, -1), "[[:punct:]]*"),
    )
    after = words[index + 1 : index + 2]
    is_next = tf.logical_and(tf.logical_not(here), tf.reduce_any(after == pronoun))
    tf.debugging.Assert(
        tf.logical_or(here, is_next),
        ["WSC: the word at span2_index is not the pronoun:", row["text"], pronoun, index],
    )
    index += tf.cast(is_next, index.dtype)
    rest = tf.strings.substr(words[index], size, -1)
    has_rest = tf.strings.length(rest) > 0
    marked = tf.strings.join(["*", pronoun, "*", tf.where(has_rest, " ", ""), rest])
    text = tf.strings.join(
        [
            tf.strings.reduce_join(words[:index], separator=" "),
            marked,
            tf.strings.reduce_join(words[index + 1 :], separator=" "),
        ],
        separator=" ",
    )
    return tf.where(has_rest, tf.strings.strip(text), text)


def squad(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """SQuAD and the sets in its form: find the answer to a question in a text.

    Punctuation stands alone, as in T5. The target is the first of the answers, all of which are
    right.

    Args:
      dataset: rows with 'question', 'context' and 'answers', a list of texts, as in MRQA, or as in
        SQuAD a dictionary with the list 'text'.
    """

    def convert(row):
        answers = row["answers"]
        answers = _apart(answers["text"] if isinstance(answers, dict) else answers)
        pieces = ("question:", _apart(row["question"]), "context:", _apart(row["context"]))
        inputs = tf.strings.regex_replace(_text("", pieces), r"\s+", " ")
        return {"inputs": inputs, "targets": answers[0], "answers": answers}

    return dataset.map(convert, num_parallel_calls=tf.data.AUTOTUNE)


def _apart(text: tf.Tensor) -> tf.Tensor:
    """The text with a space on both sides of each punctuation mark, and single spaces."""
    text = tf.strings.regex_replace(text, "([[:punct:]])", r" \1 ")
    return tf.strings.regex_replace(text, r"\s+", " ")


def summary(dataset: tf.data.Dataset, *, name: str, text: str, summary: str) -> tf.data.Dataset:
    """A text and its summary, each on one line.

    Args:
      dataset: rows with both.
      name: 'summarize:' or ''.
      text, summary: the names of the columns.
    """

    def convert(row):
        lines = (tf.strings.regex_replace(row[key], r"\s+", " ") for key in (text, summary))
        inputs, targets = map(tf.strings.strip, lines)
        return {"inputs": _text(name, [inputs]), "targets": targets}

    return dataset.map(convert, num_parallel_calls=tf.data.AUTOTUNE)


def dpr(dataset: tf.data.Dataset, *, name: str) -> tf.data.Dataset:
    """DPR as WSC: the sentence with the pronoun as '*he*', and whom it means.

    Args:
      dataset: rows of `definite_pronoun_resolution`. The first occurrence of the pronoun counts.
      name: 'wsc:' or ''.
    """

    def convert(row):
        pattern = tf.strings.join([r"\b(", row["pronoun"], r")\b"])
        marked = tf.strings.regex_replace(row["sentence"], pattern, r"*\1*", replace_global=False)
        return {
            "inputs": _text(name, [marked]),
            "targets": row["candidates"][row["label"]],
            "label": tf.ones_like(row["label"]),
        }

    return dataset.map(convert, num_parallel_calls=tf.data.AUTOTUNE)


def stsb(dataset: tf.data.Dataset, *, name: str) -> tf.data.Dataset:
    """STS-B: the similarity of two sentences, 0 to 5, written to the nearest 0.2.

    TFDS writes a missing one as -1.0; it becomes '<unk>', as a missing class does.
    """

    def convert(row):
        written = tf.strings.as_string(tf.round(row["label"] * 5) / 5, precision=1)
        return {
            "inputs": _text(name, _columns(row, ("sentence1", "sentence2"))),
            "targets": tf.where(row["label"] >= 0, written, UNLABELLED),  # NaN is not >= 0
            "idx": row["idx"],
        }

    return dataset.map(convert, num_parallel_calls=tf.data.AUTOTUNE)
