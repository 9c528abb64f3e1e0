"""Tests of prompt_tuning/prompts/explain.py: numbers worked out by hand, and the command."""

import json

import numpy as np
import pytest

import prompt_tuning as pt
from prompt_tuning import cli
from prompt_tuning.checkpoints import checkpoint
from prompt_tuning.data import vocabularies
from prompt_tuning.pocket import register
from prompt_tuning.prompts.explain import Spread, explain_prompt
from prompt_tuning.prompts.show import check_table

ROOT_HALF = 0.7071
# Directions at 0, 90, 45 and 180 degrees; lengths do not matter.
TABLE = np.array([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0], [-1.0, 0.0]])
PIECES = ["east", "north", "northeast", "west"]


def explain(*prompt, **options):
    return explain_prompt(np.array(prompt), TABLE, PIECES, **{"count": 2, **options})


def test_neighbours_and_their_cluster_by_hand():
    (east, north) = explain([5.0, 0.0], [0.0, 0.1]).positions
    assert [tuple(one) for one in east.neighbours] == [
        (0, "east", 1.0),
        (2, "northeast", ROOT_HALF),
    ]
    assert [one.piece for one in north.neighbours] == ["north", "northeast"]
    assert (east.cluster_cosine, north.cluster_cosine) == (ROOT_HALF, ROOT_HALF)


def test_three_neighbours_make_three_pairs():
    """East with northeast and northeast with north are at 45 degrees, east with north at 90."""
    (one,) = explain([1.0, 1.0], count=3).positions
    assert [near.piece for near in one.neighbours] == ["northeast", "east", "north"]
    assert one.cluster_cosine == round((ROOT_HALF + ROOT_HALF + 0.0) / 3, 4)


def test_positions_compared_with_each_other():
    """East twice and southwest: |cosine| 1 and twice 0.7071. Two of three share their piece."""
    found = explain([1.0, 0.0], [7.0, 0.0], [-1.0, -1.0]).prompt
    assert found["position_cosine"] == 0.8047
    assert found["shared_percent"] == 66.6667
    opposite = explain([1.0, 0.0], [-1.0, 0.0]).prompt
    assert (opposite["position_cosine"], opposite["shared_percent"]) == (1.0, 0.0)


def test_labels_that_are_still_there_and_that_moved():
    """Position 0 started at east and is there; 1 started at west and is at north."""
    found = explain([1.0, 0.0], [0.0, 1.0], labels=["E", "W"], label_ids=[[0], [3]], count=1)
    assert found.labels == {"E": {"own": 1, "any": 1}, "W": {"own": 3, "any": 3}}
    assert found.prompt["labels_at_own_position"] == 1
    assert found.prompt["labels_at_any_position"] == 1
    swapped = explain([0.0, 1.0], [1.0, 0.0], labels=["E", "N"], label_ids=[[0], [1]], count=1)
    assert swapped.prompt["labels_at_own_position"] == 0
    assert swapped.prompt["labels_at_any_position"] == 2


def test_a_label_is_as_near_as_the_nearest_of_its_pieces():
    found = explain([1.0, 0.0], labels=["EW"], label_ids=[[3, 0]], count=1)
    assert found.labels == {"EW": {"own": 1, "any": 1}}


def test_more_labels_than_positions():
    found = explain([1.0, 0.0], labels=["E", "N"], label_ids=[[0], [1]], count=1)
    assert found.labels["N"] == {"own": None, "any": 3}
    assert found.as_text().endswith("label 'N': rank 3 at its nearest")


def test_one_vector_and_one_neighbour_have_no_pairs():
    found = explain([1.0, 0.0], count=1)
    assert found.prompt.keys() == {"nearest_cosine"}
    assert found.positions[0].cluster_cosine is None


def test_pieces_are_their_own_neighbours_and_random_directions_are_not():
    rng = np.random.default_rng(1)
    table = rng.standard_normal((200, 64))
    prompt = table[:8] + 0.2 * rng.standard_normal((8, 64))
    found = explain_prompt(prompt, table, [*map(str, range(200))])
    assert found.pieces["nearest_cosine"] == Spread(1.0, 0.0)
    assert found.random["nearest_cosine"].mean < 0.5 < 0.95 < found.prompt["nearest_cosine"] < 1


def test_clusters_of_the_vocabulary_are_found():
    """Forty groups of five pieces: the neighbours of a piece are alike, those of noise less so."""
    rng = np.random.default_rng(2)
    table = np.repeat(rng.standard_normal((40, 64)), 5, axis=0)
    table += 0.1 * rng.standard_normal(table.shape)
    found = explain_prompt(table[::20], table, [*map(str, range(200))])
    assert found.prompt["cluster_cosine"] > 0.95
    assert found.random["cluster_cosine"].mean < 0.9


def test_the_same_seed_gives_the_same_numbers():
    first, again, other = (explain([1.0, 0.5], [0.2, 1.0], seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first.random != other.random
    assert first.prompt == other.prompt


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="width 3, the embedding table 2"):
        check_table(np.ones((1, 3)), TABLE, 1)
    with pytest.raises(ValueError, match="between 1 and 4; got 5"):
        explain([1.0, 0.0], count=5)
    with pytest.raises(ValueError, match="got 1 labels and"):
        explain([1.0, 0.0], labels=["E"])


@pytest.fixture
def prompt_file(tmp_path):
    """The embeddings of 'False', 'True' and piece 200, a little off."""
    register.register_models()
    vocabulary = vocabularies.get("pocket")
    table = checkpoint.read_variable("pocket_xs", "token_embedder/embedding")
    ids = [vocabulary.encode(word)[0] for word in ("False", "True")] + [200]
    rng = np.random.default_rng(0)
    prompt = table[ids] + 0.1 * np.abs(table).mean() * rng.standard_normal((3, table.shape[1]))
    np.save(tmp_path / "prompt.npy", prompt.astype(np.float32))
    return str(tmp_path / "prompt.npy")


def command(prompt_file, *more):
    return ["prompt", "explain", prompt_file, "--checkpoint=pocket_xs", *more]


def test_the_command_prints_text(prompt_file, capsys):
    assert cli.main(command(prompt_file, "--labels", "False", "True")) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert lines[0].startswith("   0  ▁False 0.9")
    assert lines[2].startswith(f"   2  {vocabularies.get('pocket').pieces()[200]} 0.9")
    assert lines[4].split() == ["prompt", "random", "pieces"]
    assert "labels near the position they started at     2.0" in printed
    assert lines[-1] == "label 'True': rank 1 at position 1, rank 1 at its nearest"
    assert cli.main(command(prompt_file, "--labels", "False", "True")) == 0
    assert capsys.readouterr().out == printed


def test_the_command_prints_json(prompt_file, capsys):
    assert cli.main(command(prompt_file, "--format=json", "--count=3", "--labels", "True")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {"positions", "labels", "prompt", "random", "pieces", "seed"}
    assert [len(one["neighbours"]) for one in found["positions"]] == [3, 3, 3]
    assert found["positions"][0]["neighbours"][0]["piece"] == "▁False"
    assert found["labels"]["True"]["any"] == 1
    assert found["random"]["nearest_cosine"].keys() == {"mean", "std"}
    assert found["labels"]["True"]["own"] > 1  # position 0 is at 'False'


def test_a_label_that_the_vocabulary_lacks_is_one_sentence(prompt_file, capsys):
    assert cli.main(command(prompt_file, "--labels", "中")) == 2
    assert "cannot start at" in capsys.readouterr().err


def test_it_is_a_public_name():
    assert pt.explain_prompt is explain_prompt
