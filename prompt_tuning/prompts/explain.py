"""What a trained prompt looks like in the vocabulary: its neighbours, and how alike positions are.

After Lester et al. 2021, section 7. They found that the five nearest pieces of a position form
tight clusters, that those of random vectors do not, that class labels which a prompt started from
are still there after training, and that many positions of a long prompt share their neighbours.
Each is a number here, beside the same number for prompts that were not trained:

    nearest_cosine          cosine with the nearest piece, mean over positions
    cluster_cosine          cosine between two neighbours of a position, mean over pairs
    position_cosine         |cosine| between two positions, mean over pairs
    shared_percent          positions whose nearest piece is that of another position, too
    labels_at_own_position  labels with a piece among the neighbours of the position they started at
    labels_at_any_position  ... of any position

    random     directions drawn uniformly; all numbers are of cosines, so norms do not matter
    pieces     embeddings of common pieces, where most positions of a prompt start: a piece has
               neighbours, and they form a cluster, before any training
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from prompt_tuning.prompts.show import check_table
from prompt_tuning.prompts.show import unit as unit_rows
from prompt_tuning.shapes import Float

DRAWN_PROMPTS = 20
COMMON_PIECES = 5000  # as many as `from_sampled_vocabulary` samples from
DIGITS = 4
WORDS = {
    "nearest_cosine": "cosine with the nearest piece",
    "cluster_cosine": "cosine among the neighbours",
    "position_cosine": "|cosine| between positions",
    "shared_percent": "% that share their nearest piece",
    "labels_at_own_position": "labels near the position they started at",
    "labels_at_any_position": "labels near any position",
}


class Spread(NamedTuple):
    """A number of several prompts."""

    mean: float
    std: float


class Neighbour(NamedTuple):
    """A piece of the vocabulary near a position."""

    id: int
    piece: str
    cosine: float


@dataclasses.dataclass(frozen=True)
class Position:
    """One vector of the prompt."""

    position: int
    cluster_cosine: float | None  # None with one neighbour
    neighbours: list[Neighbour]


@dataclasses.dataclass(frozen=True)
class Explained:
    """What was found.

    Attributes:
      positions: each vector and its neighbours, the nearest first.
      labels: for each label its rank among the neighbours of the position it started at, 1 being
        the nearest piece of all, and its best rank at any position.
      prompt: the numbers of this prompt, by name, see the module.
      random, pieces: mean and standard deviation of those of drawn prompts, see the module.
      seed: of the drawn prompts.
    """

    positions: list[Position]
    labels: dict[str, dict[str, int | None]]
    prompt: dict[str, float]
    random: dict[str, Spread]
    pieces: dict[str, Spread]
    seed: int

    def as_json(self) -> dict:
        """The same as dicts, lists, numbers and texts."""
        found = dataclasses.asdict(self)
        for position in found["positions"]:
            position["neighbours"] = [one._asdict() for one in position["neighbours"]]
        for drawn in ("random", "pieces"):
            found[drawn] = {name: spread._asdict() for name, spread in found[drawn].items()}
        return found

    def as_text(self) -> str:
        """The same as lines to be read."""
        lines = []
        for one in self.positions:
            listed = "  ".join(f"{near.piece} {near.cosine:.3f}" for near in one.neighbours)
            cluster = "" if one.cluster_cosine is None else f"  [{one.cluster_cosine:.3f}]"
            lines.append(f"{one.position:4}  {listed}{cluster}")
        lines += ["", f"{'':40} {'prompt':>7}{'random':>17}{'pieces':>17}"]
        for name, value in self.prompt.items():
            digits = 3 if name.endswith("cosine") else 1
            line = f"{WORDS[name]:40} {value:7.{digits}f}"
            for mean, std in (self.random[name], self.pieces[name]):
                spread = f"{mean:.{digits}f} ± {std:.{digits}f}"
                line += f"{spread:>17}"
            lines.append(line)
        for place, (label, ranks) in enumerate(self.labels.items()):
            own = "" if ranks["own"] is None else f"rank {ranks['own']:,} at position {place}, "
            lines.append(f"label {label!r}: {own}rank {ranks['any']:,} at its nearest")
        return "\n".join(lines)


def explain_prompt(
    prompt: Float[np.ndarray, "P H"],
    embeddings: Float[np.ndarray, "V H"],
    pieces: Sequence[str],
    *,
    labels: Sequence[str] = (),
    label_ids: Sequence[Sequence[int]] = (),
    count: int = 5,
    seed: int = 0,
) -> Explained:
    """Compares a prompt with the vocabulary and with random prompts; the same for the same seed.

    Args:
      prompt: P vectors.
      embeddings: the frozen table, a row for each piece.
      pieces: the texts of the V pieces.
      labels: class labels; number i started position i, as in class-label initialisation. Positions
        that the prompt does not have count as not near.
      label_ids: the pieces of each label; a label is as near as the nearest of them.
      count: neighbours of a position.
      seed: of the random prompts.

    Raises:
      ValueError: the widths differ, the count is out of range, or a label has no pieces.

    >>> table = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    >>> found = explain_prompt(np.array([[2.0, 0.1]]), table, ['a', 'b', 'c'], count=2)
    >>> [one.piece for one in found.positions[0].neighbours], found.prompt['cluster_cosine']
    (['a', 'c'], 0.7071)
    """
    check_table(prompt, embeddings, count)
    if len(label_ids) != len(labels) or not all(len(ids) for ids in label_ids):
        raise ValueError(
            f"Expected the ids of the pieces of each label, one or more; got {len(labels)} labels "
            f"and {[*map(list, label_ids)]}."
        )
    table = unit_rows(embeddings)
    unit = unit_rows(prompt)
    cosines = unit @ table.T
    near = _largest(cosines, count)
    rng = np.random.default_rng(seed)
    drawn = {"random": [], "pieces": []}
    for _ in range(DRAWN_PROMPTS):
        common = rng.choice(min(COMMON_PIECES, len(table)), len(prompt))
        for name, other in (
            ("random", unit_rows(rng.standard_normal(prompt.shape))),
            ("pieces", table[common]),
        ):
            other_cosines = other @ table.T
            near_other = _largest(other_cosines, count)
            drawn[name].append(_numbers(other, other_cosines, near_other, table, label_ids))
    return Explained(
        positions=_positions(cosines, near, table, pieces),
        labels={
            label: _ranks(cosines, ids, own)
            for own, (label, ids) in enumerate(zip(labels, label_ids, strict=True))
        },
        prompt=_rounded(_numbers(unit, cosines, near, table, label_ids)),
        random=_spread(drawn["random"]),
        pieces=_spread(drawn["pieces"]),
        seed=seed,
    )


def _numbers(unit, cosines, near, table, label_ids) -> dict[str, float]:
    """The numbers of one prompt; some need two positions, two neighbours or a label."""
    found = {"nearest_cosine": float(np.mean(cosines.max(axis=1)))}
    if near.shape[1] > 1:
        found["cluster_cosine"] = float(np.mean([_pairwise(table[ids]) for ids in near]))
    if len(unit) > 1:
        found["position_cosine"] = float(_pairwise(unit, np.abs))
        _, where, counts = np.unique(near[:, 0], return_inverse=True, return_counts=True)
        found["shared_percent"] = 100 * float(np.mean(counts[where] > 1))
    if label_ids:
        holds = [np.isin(near, ids).any(axis=1) for ids in label_ids]
        own = [held[i] for i, held in enumerate(holds) if i < len(held)]
        found["labels_at_own_position"] = float(np.sum(own))
        found["labels_at_any_position"] = float(np.sum([held.any() for held in holds]))
    return found


def _positions(cosines, near, table, pieces) -> list[Position]:
    found = []
    for position, ids in enumerate(near.tolist()):
        listed = [Neighbour(i, pieces[i], round(float(cosines[position, i]), DIGITS)) for i in ids]
        cluster = round(float(_pairwise(table[ids])), DIGITS) if len(ids) > 1 else None
        found.append(Position(position, cluster, listed))
    return found


def _ranks(cosines: np.ndarray, ids: Sequence[int], own: int) -> dict[str, int | None]:
    """How many pieces are at least as near as the label: at its own position, and at the best."""
    best = cosines[:, list(ids)].max(axis=1, keepdims=True)
    ranks = (cosines > best).sum(axis=1) + 1
    return {"own": int(ranks[own]) if own < len(ranks) else None, "any": int(ranks.min())}


def _pairwise(unit: np.ndarray, of=lambda cosines: cosines) -> float:
    """The mean cosine of two different rows."""
    return np.mean(of((unit @ unit.T)[np.triu_indices(len(unit), k=1)]))


def _largest(cosines: np.ndarray, count: int) -> np.ndarray:
    """The columns of the largest values of each row, the largest first."""
    some = np.sort(np.argpartition(-cosines, count - 1, axis=1)[:, :count], axis=1)
    order = np.argsort(-np.take_along_axis(cosines, some, axis=1), axis=1, kind="stable")
    return np.take_along_axis(some, order, axis=1)


def _spread(numbers: Sequence[dict[str, float]]) -> dict[str, Spread]:
    found = {name: [one[name] for one in numbers] for name in numbers[0]}
    return {
        name: Spread(round(float(np.mean(x)), DIGITS), round(float(np.std(x)), DIGITS))
        for name, x in found.items()
    }


def _rounded(numbers: dict[str, float]) -> dict[str, float]:
    return {name: round(float(value), DIGITS) for name, value in numbers.items()}
