"""Strategies on a small bigram language, where every score can be computed by hand.

Ids: 0 padding and start, 1 EOS, 2 'a', 3 'b'. A row holds the probabilities after that id.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_tuning.model.beam_search import BeamSearch
from prompt_tuning.model.sampling import Greedy, Sample, keep_top_k, keep_top_p

#                   pad  eos   a    b
AFTER_START = [0.00, 0.10, 0.60, 0.30]
AFTER_A = [0.00, 0.34, 0.33, 0.33]
AFTER_B = [0.00, 0.90, 0.05, 0.05]


class Bigrams:
    """A fake of `CachedDecoder`; its cache is the last token, so that a wrong row shows."""

    def __init__(self, *rows, batch_size=1, eos_id=1):
        self.batch_size = batch_size
        self.eos_id = eos_id
        ids = len(rows[0])
        table = list(rows)
        table.insert(eos_id, [1 / ids] * ids)
        self.logits = jnp.log(jnp.maximum(jnp.array(table), 1e-30))
        self.steps = []

    def start(self, rows_per_input, length):
        return jnp.zeros((self.batch_size * rows_per_input,), jnp.int32)

    def step(self, tokens, cache, index):
        jax.debug.callback(lambda: self.steps.append(1))
        mixed_up = (cache != 0) & (index == 0)
        return jnp.where(mixed_up[:, None], jnp.nan, self.logits[tokens]), tokens

    def take(self, cache, rows):
        return cache[rows]

    def decode(self, strategy, max_decode_length, num_decodes=1, rng=None):
        run = jax.jit(
            lambda: strategy(
                self,
                max_decode_length=max_decode_length,
                num_decodes=num_decodes,
                eos_id=self.eos_id,
                rng=rng,
            )
        )
        decoded = run()
        jax.effects_barrier()
        return decoded


@pytest.fixture
def bigrams():
    return Bigrams(AFTER_START, AFTER_A, AFTER_B)


def test_greedy_walks_into_the_garden_path(bigrams):
    decoded = bigrams.decode(Greedy(), 5)
    assert decoded.tokens.tolist() == [[[2, 1, 0, 0, 0]]]
    np.testing.assert_allclose(decoded.scores, [[np.log(0.6 * 0.34)]], rtol=1e-6)


def test_beam_search_finds_the_likelier_sequence(bigrams):
    decoded = bigrams.decode(BeamSearch(num_beams=2), 5, num_decodes=2)
    penalty = (7 / 6) ** 0.6
    assert decoded.tokens.tolist() == [[[3, 1, 0, 0, 0], [2, 1, 0, 0, 0]]]
    np.testing.assert_allclose(
        decoded.scores, [[np.log(0.27) / penalty, np.log(0.204) / penalty]], rtol=1e-6
    )


def test_alpha_decides_between_short_and_long():
    # immediate eos has probability 0.2; 'a' and then eos 0.72 * 0.25 = 0.18.
    bigrams = Bigrams([0, 0.2, 0.72, 0.08], [0, 0.25, 0.375, 0.375], [0, 0.2, 0.4, 0.4])
    short = bigrams.decode(BeamSearch(num_beams=2, alpha=0.0), 2)
    assert short.tokens.tolist() == [[[1, 0]]]
    np.testing.assert_allclose(short.scores, [[np.log(0.2)]], rtol=1e-6)
    long = bigrams.decode(BeamSearch(num_beams=2, alpha=2.0), 2)
    assert long.tokens.tolist() == [[[2, 1]]]
    np.testing.assert_allclose(long.scores, [[np.log(0.18) / (7 / 6) ** 2]], rtol=1e-6)


def test_no_sequence_ended_returns_live_ones_with_plain_log_probabilities():
    bigrams = Bigrams([0, 0, 0.6, 0.4], [0, 0, 0.7, 0.3], [0, 0, 0.2, 0.8])
    decoded = bigrams.decode(BeamSearch(num_beams=1), 3)
    assert decoded.tokens.tolist() == [[[2, 2, 2]]]
    np.testing.assert_allclose(decoded.scores, [[np.log(0.6 * 0.7 * 0.7)]], rtol=1e-6)


def test_fewer_decodes_than_beams_are_the_best_ones(bigrams):
    decoded = bigrams.decode(BeamSearch(num_beams=2), 5)
    assert decoded.tokens.tolist() == [[[3, 1, 0, 0, 0]]]
    assert decoded.scores.shape == (1, 1)


def test_a_finished_sequence_hides_live_ones_and_empty_places_score_minus_1e7():
    bigrams = Bigrams([0, 0.01, 0.6, 0.39], [0, 0, 0.7, 0.3], [0, 0, 0.2, 0.8])
    decoded = bigrams.decode(BeamSearch(num_beams=2), 1, num_decodes=2)
    assert decoded.tokens.tolist() == [[[1], [0]]]
    np.testing.assert_allclose(decoded.scores, [[np.log(0.01), -1e7]], rtol=1e-6)


def test_decoding_stops_when_every_row_has_ended(bigrams):
    bigrams.decode(Greedy(), 50)
    assert len(bigrams.steps) == 2


def test_beam_search_stops_when_nothing_can_get_better():
    # Finished after two steps: 'a eos' 0.81 and 'b eos' 0.081; live ones lose nine tenths a step
    # and the brevity penalty of at most (56 / 6) ** 0.6 = 3.8 does not make up for that for long.
    bigrams = Bigrams([0, 0, 0.9, 0.1], [0, 0.9, 0.05, 0.05], [0, 0.81, 0.095, 0.095])
    decoded = bigrams.decode(BeamSearch(num_beams=2), 50, num_decodes=2)
    assert decoded.tokens[0, 0, :2].tolist() == [2, 1]
    assert 2 <= len(bigrams.steps) <= 6


def test_the_bound_of_the_search_has_the_penalty_of_the_longest_sequence():
    """Counted by hand, for alpha 1 and 7 tokens: penalty(n) is (5 + n) / 6, and n is 8 at most.

    Immediate EOS scores log 0.6 = -0.511. The live sequence a, aa, aaa, ... has 0.35 * 0.98 ** n,
    and divided by 13 / 6 at best -0.485, -0.494, -0.503 and -0.513: it is given up after 4 steps.
    A penalty of 7 tokens (2) would end the search after 1, one of 9 (7 / 3) after 7.
    """
    bigrams = Bigrams([0, 0.6, 0.35, 0.05], [0, 0.01, 0.98, 0.01], [0, 0.98, 0.01, 0.01])
    decoded = bigrams.decode(BeamSearch(num_beams=1, alpha=1.0), 7)
    assert decoded.tokens.tolist() == [[[1, 0, 0, 0, 0, 0, 0]]]
    assert len(bigrams.steps) == 4


def test_the_bound_of_the_search_is_the_best_live_against_the_worst_finished():
    """Two beams without a penalty; both places are taken after two steps.

    step 1   finished eos 0.5             live b 0.4, a 0.1      one place is empty
    step 2   finished eos 0.5, b eos 0.2  live bb 0.2, aa 0.03   0.2 is not less than 0.2
    step 3   finished as before           live bbb 0.1           settled
    """
    bigrams = Bigrams([0, 0.5, 0.1, 0.4], [0, 0.4, 0.3, 0.3], [0, 0.5, 0.0, 0.5])
    decoded = bigrams.decode(BeamSearch(num_beams=2, alpha=0.0), 9, num_decodes=2)
    assert [row[:2] for row in decoded.tokens[0].tolist()] == [[1, 0], [3, 1]]
    np.testing.assert_allclose(decoded.scores, np.log([[0.5, 0.2]]), rtol=1e-5)
    assert len(bigrams.steps) == 3


def test_beam_search_continues_while_a_live_sequence_can_win():
    # The only place is taken in the first step, by eos with 0.1; 'a eos' with 0.81 comes a step
    # later.
    bigrams = Bigrams([0, 0.1, 0.9, 0], [0, 0.9, 0.1, 0], [0, 1, 0, 0])
    decoded = bigrams.decode(BeamSearch(num_beams=1), 5)
    assert decoded.tokens.tolist() == [[[2, 1, 0, 0, 0]]]


def test_one_ended_row_waits_for_the_others():
    bigrams = Bigrams([0, 0.5, 0.5, 0], [0, 0, 0, 1], [0, 1, 0, 0], batch_size=8)
    decoded = bigrams.decode(Sample(), 10, rng=jax.random.key(0))
    short, long = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0], [2, 3, 1, 0, 0, 0, 0, 0, 0, 0]
    rows = decoded.tokens[:, 0].tolist()
    assert short in rows and long in rows and all(row in (short, long) for row in rows)
    np.testing.assert_allclose(decoded.scores, np.full((8, 1), np.log(0.5)), rtol=1e-5)
    assert len(bigrams.steps) == 3


#                 pad  1    a    b    -    eos
EOS_IS_5 = {
    "start": [0.00, 0.45, 0.30, 0.15, 0.0, 0.10],
    "after 1": [0.0, 0.05, 0.05, 0.1, 0.0, 0.80],
    "after a": [0.0, 0.20, 0.10, 0.1, 0.0, 0.60],
    "after b": [0.0, 0.10, 0.10, 0.1, 0.0, 0.70],
    "after -": [0.0, 0.0, 0.0, 0.0, 0.0, 1.0],
}


@pytest.mark.parametrize("strategy", [Greedy(), Sample(), BeamSearch(num_beams=2)])
def test_another_eos_ends_a_sequence_and_id_1_does_not(strategy):
    """In a vocabulary whose EOS is 5, id 1 is a token like any other."""
    bigrams = Bigrams(*EOS_IS_5.values(), batch_size=32, eos_id=5)
    decoded = bigrams.decode(strategy, 20, rng=jax.random.key(0))
    rows = decoded.tokens[:, 0].tolist()
    for row in rows:
        assert row.count(5) == 1 and not any(row[row.index(5) + 1 :])
    assert any(row[:2] == [1, 5] for row in rows)
    if not isinstance(strategy, Sample):
        assert rows == [[1, 5] + 18 * [0]] * 32
        penalty = (7 / 6) ** 0.6 if isinstance(strategy, BeamSearch) else 1
        np.testing.assert_allclose(decoded.scores, np.log(0.36) / penalty, rtol=1e-5)


def test_sampling_frequencies_follow_the_probabilities():
    logits = jnp.tile(jnp.log(jnp.array([[0.1, 0.2, 0.3, 0.4]])), (20_000, 1))
    drawn = Sample().draw(logits, jax.random.key(0))
    np.testing.assert_allclose(np.bincount(drawn) / 20_000, [0.1, 0.2, 0.3, 0.4], atol=0.015)


def test_temperature_sharpens():
    logits = jnp.tile(jnp.log(jnp.array([[0.2, 0.8]])), (20_000, 1))  # squared: 1 / 17, 16 / 17
    drawn = Sample(temperature=0.5).draw(logits, jax.random.key(0))
    np.testing.assert_allclose(np.bincount(drawn) / 20_000, [1 / 17, 16 / 17], atol=0.015)


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (Sample(top_p=0.65), [0, 0, 3 / 7, 4 / 7]),
        (Sample(top_k=3), [0, 2 / 9, 3 / 9, 4 / 9]),
        (Sample(top_k=3, top_p=0.5), [0, 0, 3 / 7, 4 / 7]),  # the nucleus of what top_k left
    ],
)
def test_nothing_is_drawn_outside_the_cut(strategy, expected):
    logits = jnp.tile(jnp.log(jnp.array([[0.1, 0.2, 0.3, 0.4]])), (20_000, 1))
    counts = np.bincount(strategy.draw(logits, jax.random.key(1)), minlength=4)
    assert ((counts == 0) == (np.array(expected) == 0)).all()
    np.testing.assert_allclose(counts / 20_000, expected, atol=0.015)


@pytest.mark.parametrize(
    "settings", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 0.0}, {"temperature": 1e-3}]
)
def test_without_choice_the_likeliest_is_drawn(settings):
    logits = jax.random.normal(jax.random.key(0), (50, 30))
    drawn = Sample(**settings).draw(logits, jax.random.key(1))
    np.testing.assert_array_equal(drawn, jnp.argmax(logits, axis=-1))


def test_the_nucleus_holds_at_least_p_with_the_fewest_tokens():
    logits = jax.random.normal(jax.random.key(0), (50, 30)) * 3
    probabilities = jax.nn.softmax(logits)
    inside = jnp.isfinite(keep_top_p(logits, 0.8))
    mass = jnp.where(inside, probabilities, 0).sum(axis=1)
    smallest = jnp.where(inside, probabilities, 1).min(axis=1)
    assert (mass >= 0.8 - 1e-6).all()
    assert (mass - smallest < 0.8).all()
    assert (jnp.where(inside, 0, probabilities).max(axis=1) <= smallest).all()


def test_cuts_wider_than_the_vocabulary_keep_everything():
    logits = jnp.array([[1.0, 2.0]])
    assert keep_top_k(logits, 5).tolist() == [[1.0, 2.0]]
    assert keep_top_p(logits, 1.0).tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sample(temperature=-1.0), "Sample.temperature must be 0 or more, got -1.0"),
        (lambda: Sample(top_k=0), "Sample.top_k must be 1 or more, got 0. None draws from all"),
        (lambda: Sample(top_p=1.5), r"Sample.top_p must be in \(0, 1\], got 1.5"),
        (lambda: BeamSearch(num_beams=0), "BeamSearch.num_beams must be 1 or more, got 0"),
        (lambda: BeamSearch(alpha=-0.1), "BeamSearch.alpha must be 0 or more, got -0.1"),
    ],
)
def test_settings_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()
