"""What `prompt-tuning tasks NAME` shows."""

from prompt_tuning.data import describe, tasks

LENGTHS = {"inputs": 12, "targets": 4}


def test_text_ids_and_what_is_cut():
    shown = describe.describe(tasks.get("generated_sentiment"), LENGTHS, "train", n=2)
    assert (shown.task, shown.split) == ("generated_sentiment", "train")
    assert shown.info.labels == ("awful", "great")
    assert len(shown.examples) == 2
    source = shown.examples[0]["inputs"]
    assert source.text == "the old dance was really dreary ."
    assert source.ids[:3] == (119, 107, 104) and source.ids[-1] == 1
    assert len(source.ids) == 34 and source.cut == 22
    assert source.kept == "the old dan"  # Eleven bytes and EOS.
    target = shown.examples[0]["targets"]
    assert (target.text, target.kept, target.cut) == ("awful", "awf", 2)


def test_nothing_cut_with_room():
    lengths = {"inputs": 48, "targets": 8}
    for example in describe.describe(tasks.get("generated_sentiment"), lengths).examples:
        for feature in example.values():
            assert feature.cut == 0 and feature.kept == feature.text


def test_the_dev_split_is_the_default():
    assert describe.describe(tasks.get("generated_sentiment"), LENGTHS).split == "validation"


def test_as_text():
    lengths = {"inputs": 48, "targets": 4}
    lines = str(
        describe.describe(tasks.get("generated_sentiment"), lengths, "train", n=1)
    ).splitlines()
    assert lines[:6] == [
        "generated_sentiment, split train",
        "labels: awful, great",
        "metrics: accuracy",
        "",
        "example 1",
        "  inputs (34 tokens) the old dance was really dreary .",
    ]
    assert lines[6].startswith("      ids: 119 107 104 35 ")
    assert lines[7:] == [
        "  targets (6 tokens, 2 truncated) awful",
        "      kept: awf",
        "      ids: 100 122 105 120 111 1",
    ]
