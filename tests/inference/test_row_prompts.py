"""Tests of prompt_tuning/inference/row_prompts.py, and of texts that use different prompts."""

import dataclasses

import numpy as np
import pytest
import tiny_runs

from prompt_tuning.data import vocabularies
from prompt_tuning.inference import frozen, row_prompts
from prompt_tuning.inference.frozen import FrozenT5, load_parameters
from prompt_tuning.model import decoding
from prompt_tuning.prompts import files
from prompt_tuning.prompts.metadata import PromptMetadata

pytestmark = pytest.mark.usefixtures("quick")

H = 16
ROWS = 32
BYTES = vocabularies.family("byt5").vocabulary
LABELS = ["yes", "no"]
OPTIONS = {"max_decode_length": 5, "max_input_length": 24}
PREFIX = "prefix"


@pytest.fixture(scope="module")
def t5(quick):
    return FrozenT5(tiny_runs.MODEL, load_parameters(tiny_runs.MODEL, "random"), BYTES)


@pytest.fixture(scope="module")
def texts():
    random = np.random.default_rng(1)
    return ["".join(random.choice(list("abcde "), random.integers(1, 8))) for _ in range(ROWS)]


@pytest.fixture(scope="module")
def prompts():
    """32 prompts of 1 to 8 vectors, the first 8 of different lengths."""
    random = np.random.default_rng(2)
    return [random.normal(scale=3.0, size=(1 + n % 8, H)).astype(np.float32) for n in range(ROWS)]


def assert_same(found, expected):
    """Equal texts; scores, sums of about 25 nats, to 1e-5 of them."""
    assert [[one.text for one in row] for row in found] == [
        [one.text for one in row] for row in expected
    ]
    scores = [[[one.score for one in row] for row in rows] for rows in (found, expected)]
    np.testing.assert_allclose(*scores, rtol=1e-5)


def test_32_texts_with_32_prompts_are_as_32_calls(t5, texts, prompts):
    found = t5.generate(texts, prompt=prompts, **OPTIONS)
    single = [
        t5.generate([text], prompt=prompt, **OPTIONS)[0]
        for text, prompt in zip(texts, prompts, strict=True)
    ]
    assert_same(found, single)
    assert len({row[0].text for row in found}) > 8, "prompts change what is generated"
    scores = t5.score(texts, LABELS, prompt=prompts, max_input_length=24)
    single = [
        t5.score([text], LABELS, prompt=prompt, max_input_length=24)[0]
        for text, prompt in zip(texts, prompts, strict=True)
    ]
    np.testing.assert_allclose(scores, single, rtol=1e-5)


@pytest.mark.parametrize(
    ("strategy", "num_decodes", "position"),
    [
        (decoding.Greedy(), 1, "suffix"),
        (decoding.BeamSearch(num_beams=3), 2, "prefix"),
        (decoding.BeamSearch(num_beams=3), 2, "suffix"),
        (decoding.Sample(), 2, "prefix"),
        (decoding.Sample(top_k=20), 1, "suffix"),
    ],
)
def test_every_strategy_and_position(t5, texts, prompts, strategy, num_decodes, position):
    """As the same texts with one prompt for all, so that `Sample` draws the same numbers."""
    options = OPTIONS | {"strategy": strategy, "num_decodes": num_decodes, "position": position}
    texts, ids = texts[:5], [2, 0, 1, 0, 2]
    found = t5.generate(texts, prompt=prompts[3:6], prompt_ids=ids, **options)
    for number in range(3):
        alone = t5.generate(texts, prompt=prompts[3 + number], **options)
        rows = [row for row in range(5) if ids[row] == number]
        assert_same([found[row] for row in rows], [alone[row] for row in rows])


def test_batches_of_sorted_texts_keep_their_prompts(t5, texts, prompts, monkeypatch):
    """Batches of 4 rows, sorted by length, of two widths; the last one is filled up."""
    texts = [text * (1 + row) for row, text in enumerate(texts[:6])]
    monkeypatch.setattr(frozen, "BATCH_ROWS", 4)
    ids = [0, 1, 0, 2, 1, 0]
    options = {"prompt": prompts[:3], "max_input_length": 48}
    found = t5.score(texts, LABELS, prompt_ids=np.array(ids), **options)
    for number in range(3):
        alone = t5.score(texts, LABELS, prompt=prompts[number], max_input_length=48)
        rows = np.array(ids) == number
        np.testing.assert_allclose(found[rows], alone[rows], rtol=1e-5)


def test_a_text_may_have_no_prompt(t5, texts, prompts):
    mixed, bare = (
        t5.score(texts[:3], LABELS, prompt=prompt, max_input_length=24)
        for prompt in ([None, prompts[4], None], None)
    )
    np.testing.assert_allclose(mixed[[0, 2]], bare[[0, 2]], rtol=1e-5)
    assert np.abs(mixed[1] - bare[1]).min() > 1e-3
    none = t5.score(texts[:2], LABELS, prompt=[None, None], max_input_length=24)
    np.testing.assert_allclose(none, bare[:2], rtol=1e-5)


def test_a_program_serves_other_prompts_of_the_same_length(t5, prompts):
    """Prompts are arguments: three and four of at most 8 vectors share a model."""
    three = t5.with_prompts([prompts[7], prompts[0], prompts[1]])
    four = t5.with_prompts([prompts[2], prompts[15], prompts[3], prompts[4]])
    assert three[0] is four[0]
    assert three[2].tolist() == [8, 1, 2, 0] and four[2].tolist() == [3, 8, 4, 5]


def prompt_file(position="", fingerprint="", path="p.safetensors"):
    about = PromptMetadata("t5_1_1_small", fingerprint, length=3, width=H, position=position)
    return files.PromptFile(path, np.ones((3, H), np.float32), about)


ARRAY = np.ones((3, H), np.float32)
WIDE = np.ones((3, 8), np.float32)


@pytest.mark.parametrize(
    ("prompt", "prompt_ids", "message"),
    [
        ([], None, "a list of one or more prompts, got an empty one"),
        ([ARRAY, ARRAY], None, "one prompt for each of 3 texts, got 2. Pass prompt_ids, which say"),
        ([ARRAY, ARRAY], [0, 1], "Expected one prompt id for each of 3 texts, got 2"),
        ([ARRAY, ARRAY], [0, 2, 1], "place in the list of 2 prompts, 0 to 1; got 2"),
        ([ARRAY, ARRAY], [0, -1, 1], "place in the list of 2 prompts, 0 to 1; got -1"),
        ([ARRAY], [0.0, 0.0, 0.0], r"a list of whole numbers; got \[0.0, 0.0, 0.0\]"),
        ([ARRAY], [True, False, False], "a list of whole numbers; got"),
        ([ARRAY], 0, "a list of whole numbers; got 0"),
        (ARRAY, [0, 0, 0], r"choose from a list .* and one prompt. Pass prompt=\[...\]"),
        (None, [0, 0, 0], r"choose from a list of prompts; got .*\[0, 0, 0\] and no prompt"),
        ([ARRAY, WIDE], [0, 1, 1], r"Prompt 1 of 2: .*needs a prompt of shape \(P, 16\); got \(3,"),
        ([ARRAY, "best"], [0, 1, 1], "Prompt 1 of 2: .*file that load_prompt has read; got 'best'"),
        (
            [ARRAY, prompt_file(fingerprint="0123456789abcdef")],
            [0, 1, 1],
            "Prompt 1 of 2: .*'p.safetensors' was made for t5_1_1_small with fingerprint 01234567",
        ),
        (
            [prompt_file("prefix"), prompt_file("suffix")],
            [0, 1, 1],
            "at one position, but prompt 0 is a prefix and prompt 1 a suffix. Use those of each",
        ),
        ([None, prompt_file("suffix"), ARRAY], None, "prompt 1 is a suffix and prompt 2 a prefix"),
    ],
)
def test_prompts_that_cannot_be_used_are_refused(t5, prompt, prompt_ids, message):
    for call in (t5.generate, lambda texts, **options: t5.score(texts, ["yes"], **options)):
        with pytest.raises(ValueError, match=message):
            call(["a", "b", "c"], prompt=prompt, prompt_ids=prompt_ids)


def test_the_position_of_a_call_is_that_of_every_prompt(t5, texts):
    """Given, or in the files; a file of another position is refused."""
    suffixes = [dataclasses.replace(prompt_file("suffix"), prompt=x * ARRAY) for x in (1.0, -1.0)]
    found, given = (
        t5.score(texts[:2], LABELS, prompt=prompt, position=position, max_input_length=24)
        for prompt, position in ((suffixes, None), ([one.prompt for one in suffixes], "suffix"))
    )
    np.testing.assert_array_equal(found, given)
    with pytest.raises(ValueError, match="Prompt 0 of 2: .*trained as a suffix .* as a prefix"):
        t5.score(texts[:2], LABELS, prompt=suffixes, position="prefix")


def test_a_stack_is_padded_with_zeros_in_length_and_number():
    one, two = (row_prompts.Checked(np.full((n, 2), n, np.float32), PREFIX) for n in (1, 2))
    stack, lengths = row_prompts.stacked([one, None, two], 2)
    assert stack.tolist() == [[[1, 1], [0, 0]], [[0, 0]] * 2, [[2, 2]] * 2, [[0, 0]] * 2]
    assert lengths.tolist() == [1, 0, 2, 0]
