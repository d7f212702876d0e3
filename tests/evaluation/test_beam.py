"""Beam search finds what exhaustive search finds, and what a plain one without a cache finds."""

import jax.numpy as jnp
import pytest

from memarc.evaluation import beam
from tests.evaluation import toy_decoder as toy


def cases(vocabulary, seeds, biases=(-2.0, 0.0, 2.0)):
    """Weights and prompts: end tokens from rare to frequent."""
    for seed in range(seeds):
        bias = biases[seed % len(biases)]
        yield (
            toy.weights(seed, vocabulary=vocabulary, end_bias=bias),
            toy.prompts(seed, vocabulary),
        )


def assert_exhaustive(config, vocabulary, seeds):
    """Returns all lengths found."""
    lengths = set()
    for given, prompts in cases(vocabulary, seeds):
        decoded = toy.run(config, given, prompts)
        lengths.update(decoded.lengths.tolist())
        for row, prompt in enumerate(toy.prompts_of(prompts)):
            toy.assert_row(decoded, row, *toy.exhaustive(given, prompt, config))
    return lengths


# Enough beams for all continuations of all that has not ended: V (V - 1)^(M - 1), more than V.
@pytest.mark.parametrize("penalty", [-1.0, 0.0, 0.8, 2.5])
def test_enough_beams_find_the_best_of_all_sequences(penalty):
    config = toy.make_config("beam", max_tokens=4, beams=24, length_penalty=penalty)
    lengths = assert_exhaustive(config, vocabulary=3, seeds=9)
    assert lengths >= {0, 1, 2, 3} if penalty > 0 else lengths >= {0, 1}


def test_a_vocabulary_of_two_fills_few_of_the_beams():
    config = toy.make_config("beam", max_tokens=5, beams=7, length_penalty=1.0)
    assert assert_exhaustive(config, vocabulary=2, seeds=6) >= {0, 4}


@pytest.mark.parametrize(
    "beams, penalty, ngram", [(1, 0.0, 0), (2, 0.8, 0), (3, -0.5, 2), (3, 1.5, 1), (4, 0.0, 2)]
)
def test_few_beams_are_those_of_a_search_without_a_cache(beams, penalty, ngram):
    config = toy.make_config("beam", beams=beams, length_penalty=penalty, no_repeat_ngram=ngram)
    for given, prompts in cases(5, seeds=6):
        decoded = toy.run(config, given, prompts)
        for row, prompt in enumerate(toy.prompts_of(prompts)):
            toy.assert_row(decoded, row, *toy.beam_search(given, prompt, config)[:2])


def test_one_beam_without_penalty_is_greedy():
    one, greedy = toy.make_config("beam"), toy.make_config("greedy")
    finished = []
    for given, prompts in cases(5, seeds=6):
        found, expected = (toy.run(config, given, prompts) for config in (one, greedy))
        for row, length in enumerate(expected.lengths):
            new = expected.tokens[row, : length + expected.is_finished[row]].tolist()
            toy.assert_row(found, row, new, expected.log_probability[row])
        finished += expected.is_finished.tolist()
    assert set(finished) == {True, False}


def test_caches_that_do_not_follow_their_beams_are_found_out(monkeypatch):
    monkeypatch.setattr(beam, "reorder", lambda cache, parents: cache)
    # Not the config of another test: what that one compiled is kept.
    config = toy.make_config("beam", max_tokens=4, beams=24, length_penalty=0.81)
    with pytest.raises(AssertionError):
        assert_exhaustive(config, vocabulary=3, seeds=9)


def test_the_cap_is_reported_only_for_rows_without_an_end():
    config = toy.make_config("beam", beams=3, max_tokens=5)
    given = toy.weights(0, vocabulary=4, end_bias=-60.0)
    prompts = toy.prompts(0, 4)
    decoded = toy.run(config, given, prompts)
    assert not decoded.is_finished.any() and (decoded.lengths == 5).all()
    assert not (decoded.tokens == toy.END).any()
    for row, prompt in enumerate(toy.prompts_of(prompts)):
        toy.assert_row(decoded, row, *toy.beam_search(given, prompt, config)[:2])


@pytest.mark.parametrize("penalty", [-1.0, 0.0, 0.8])
def test_the_search_stops_when_nothing_can_improve(penalty):
    config = toy.make_config("beam", max_tokens=12, beams=3, length_penalty=penalty)
    calls, stopped = [], []
    on_extend = lambda: calls.append(None)
    for given, prompts in cases(4, seeds=3, biases=(0.0, 2.0, 4.0)):
        calls.clear()
        toy.run(config, given, prompts, on_extend=on_extend)
        steps = [toy.beam_search(given, prompt, config)[2] for prompt in toy.prompts_of(prompts)]
        assert len(calls) == max(steps)  # The prompt's call makes the first step.
        stopped.append(max(steps))
    assert min(stopped) < 12


def test_reordering_moves_rows_within_their_own_group():
    cache = {"a": jnp.arange(2 * 6 * 1).reshape(2, 6, 1)}
    moved = beam.reorder(cache, jnp.asarray([[2, 2, 0], [1, 0, 1]], jnp.int32))["a"]
    assert moved[0, :, 0].tolist() == [2, 2, 0, 4, 3, 4]
    assert moved[1, :, 0].tolist() == [8, 8, 6, 10, 9, 10]
