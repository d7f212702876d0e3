"""Greedy and sampled tokens are those of a model without a cache; rows do not know each other."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memarc.evaluation import decode
from tests.evaluation import toy_decoder as toy

CONFIGS = {
    "greedy": toy.make_config("greedy", no_repeat_ngram=2),
    "beam": toy.make_config("beam", beams=3, length_penalty=0.8, no_repeat_ngram=2),
    "nucleus": toy.make_config("nucleus", top_p=0.9, temperature=1.5, no_repeat_ngram=2),
}


@pytest.mark.parametrize("ngram", [0, 1, 2, 3])
def test_greedy_is_the_best_token_at_each_step_computed_from_scratch(ngram):
    config = toy.make_config("greedy", max_tokens=8, no_repeat_ngram=ngram)
    finished, repeated = set(), False
    for seed in range(6):
        given = toy.weights(seed, vocabulary=5, end_bias=-1.0)
        prompts = toy.prompts(seed, 5)
        decoded = toy.run(config, given, prompts)
        for row, prompt in enumerate(toy.prompts_of(prompts)):
            new, log_probability = toy.greedy(given, prompt, config)
            toy.assert_row(decoded, row, new, log_probability)
            finished.add(toy.END in new)
            repeated |= toy.repeats(new, 2)
    assert finished == ({True} if ngram == 1 else {True, False})  # Of 5 tokens, 4 come before.
    assert repeated == (ngram in (0, 3))


@pytest.mark.parametrize("method", CONFIGS)
def test_a_row_does_not_depend_on_others_or_on_what_fills_up_prompts(method):
    given = toy.weights(3, vocabulary=6)
    prompts, others = toy.prompts(0, 6), toy.prompts(1, 6, [9] * 5)
    expected = toy.run(CONFIGS[method], given, prompts)
    for row, length in enumerate(toy.LENGTHS):
        # One row stays, with its key, among other ones of other lengths; P is 9 rather than 5.
        mixed, lengths = others.copy(), np.asarray([9, 8, 2, 1, 6], np.int32)
        mixed[row, :length], lengths[row] = prompts[row, :length], length
        found = toy.run(CONFIGS[method], given, mixed, lengths)
        new = expected.tokens[row, : expected.lengths[row] + expected.is_finished[row]]
        toy.assert_row(found, row, new.tolist(), expected.log_probability[row])


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("method", ["beam", "nucleus"])  # Greedy: above.
def test_no_ngram_occurs_twice(method, size):
    changes = dict(max_tokens=9, no_repeat_ngram=size)
    changes |= dict(beams=3) if method == "beam" else {}
    config = toy.make_config(method, **changes)
    off = toy.make_config(method, **(changes | dict(no_repeat_ngram=0)))
    repeated = False
    for seed in range(3):
        given = toy.weights(seed, vocabulary=4, end_bias=-4.0)
        decoded, free = (toy.run(c, given, toy.prompts(seed, 4)) for c in (config, off))
        for new, length in zip(decoded.tokens.tolist(), decoded.lengths, strict=True):
            assert not toy.repeats(tuple(new[:length]), size)
        for new, length in zip(free.tokens.tolist(), free.lengths, strict=True):
            repeated |= toy.repeats(tuple(new[:length]), size)
    assert repeated


def nucleus(log_probabilities, top_p, temperature):
    """Token -> probability, one token after the other until their mass reaches top_p."""
    scaled = np.exp(log_probabilities / temperature)
    scaled /= scaled.sum()
    kept = {}
    for token in np.argsort(-scaled):
        kept[int(token)] = scaled[token]
        if sum(kept.values()) >= top_p:
            break
    return {token: mass / sum(kept.values()) for token, mass in kept.items()}


def assert_drawn_from(expected, drawn):
    """Pearson's statistic within 5 standard deviations of its mean; nothing but the support."""
    assert set(drawn) == set(expected)
    counts = {token: drawn.count(token) for token in expected}
    statistic = sum(
        (counts[token] - len(drawn) * mass) ** 2 / (len(drawn) * mass)
        for token, mass in expected.items()
    )
    freedom = len(expected) - 1
    assert statistic <= freedom + 5 * math.sqrt(2 * freedom)


ROWS = 3000


@pytest.mark.parametrize("top_p, temperature", [(1.0, 1.0), (0.8, 1.0), (0.6, 2.0), (1.0, 0.5)])
def test_samples_come_from_the_nucleus_and_all_of_it(top_p, temperature):
    given, prompt = toy.weights(5, vocabulary=7, sharpness=1.0), (2, 4, 0)
    expected = nucleus(toy.next_log_probabilities(given, prompt), top_p, temperature)
    assert (len(expected) == 7) == (top_p == 1.0)
    config = toy.make_config("nucleus", top_p=top_p, temperature=temperature, max_tokens=1)
    decoded = toy.run(
        config, given, np.tile(np.int32(prompt), (ROWS, 1)), np.full(ROWS, 3, np.int32)
    )
    assert_drawn_from(expected, decoded.tokens[:, 0].tolist())


def test_wrong_probabilities_are_found_out():
    given, prompt = toy.weights(5, vocabulary=7, sharpness=1.0), (2, 4, 0)
    expected = nucleus(toy.next_log_probabilities(given, prompt), 1.0, 1.3)  # Not 1.
    decoded = toy.run(
        toy.make_config("nucleus", max_tokens=1),
        given,
        np.tile(np.int32(prompt), (ROWS, 1)),
        np.full(ROWS, 3, np.int32),
    )
    with pytest.raises(AssertionError):
        assert_drawn_from(expected, decoded.tokens[:, 0].tolist())


def test_steps_of_a_sample_are_drawn_apart():
    given = toy.weights(0, vocabulary=4, sharpness=0.0, end_bias=-60.0)  # The others: a third each.
    config = toy.make_config("nucleus", max_tokens=2)
    decoded = toy.run(config, given, toy.prompts(0, 4, [1] * ROWS), np.ones(ROWS, np.int32))
    pairs = {pair: 1 / 9 for pair in itertools.product((0, 2, 3), repeat=2)}
    assert_drawn_from(pairs, [tuple(pair) for pair in decoded.tokens.tolist()])


def assert_same_texts(found, expected):
    """Two programs may round log probabilities otherwise, and tokens they may not change."""
    *texts, log_probability = zip(found, expected, strict=True)
    for pair in texts:
        np.testing.assert_array_equal(*pair)
    np.testing.assert_allclose(*log_probability, rtol=1e-5, atol=1e-6)


def test_a_tiny_nucleus_is_greedy():
    given, prompts = toy.weights(1, vocabulary=5), toy.prompts(1, 5)
    found = toy.run(toy.make_config("nucleus", top_p=1e-6, temperature=3.0), given, prompts)
    assert_same_texts(found, toy.run(toy.make_config("greedy"), given, prompts))


def test_at_a_temperature_next_to_zero_samples_are_greedy():
    given, prompts = toy.weights(1, vocabulary=5), toy.prompts(1, 5)
    found = toy.run(toy.make_config("nucleus", temperature=1e-38), given, prompts)
    assert_same_texts(found, toy.run(toy.make_config("greedy"), given, prompts))


def test_samples_carry_the_log_probability_of_the_model():
    given, prompts = toy.weights(2, vocabulary=5), toy.prompts(2, 5)
    decoded = toy.run(CONFIGS["nucleus"], given, prompts)
    for row, prompt in enumerate(toy.prompts_of(prompts)):
        new = tuple(decoded.tokens[row, : decoded.lengths[row] + decoded.is_finished[row]].tolist())
        scores = [
            toy.next_log_probabilities(given, prompt + new[:place])[token]
            for place, token in enumerate(new)
        ]
        toy.assert_row(decoded, row, new, sum(scores))


def test_the_cap_is_reported_and_the_loop_stops_with_the_last_row():
    config, calls = toy.make_config("greedy", max_tokens=9), []
    on_extend = lambda: calls.append(None)
    for bias in (-60.0, 0.0, 60.0):
        calls.clear()
        given = toy.weights(4, vocabulary=4, end_bias=bias)
        decoded = toy.run(config, given, toy.prompts(4, 4), on_extend=on_extend)
        written = decoded.lengths + decoded.is_finished
        assert len(calls) == written.max()  # The prompt's call gives the first token.
        if bias:
            assert (decoded.is_finished == (bias > 0)).all()
            assert (decoded.lengths == (0 if bias > 0 else 9)).all()


def quickly_compiled(config):
    """What ``make_decode`` gives, for the toy."""
    return lambda trainable, frozen, *arrays: toy.compiled(config)({**frozen, **trainable}, *arrays)


def test_any_number_of_rows_is_decoded_by_one_program_with_parameters_as_arguments():
    traces = []

    def make_decoder(trainable, frozen):
        traces.append(None)
        return toy.decoder({**frozen, **trainable})

    config = CONFIGS["nucleus"]
    given = toy.weights(6, vocabulary=6)
    prompts, lengths = toy.prompts(6, 6, [4] * 7), np.asarray([4, 1, 2, 3, 4, 2, 1])
    trainable, frozen = {"out": given.pop("out")}, given

    def run(decode_fn, trainable, rows, seed=0):
        return decode.decode_all(
            decode_fn, trainable, frozen, prompts, lengths, seed=seed, rows=rows
        )

    decode_fn = decode.make_decode(make_decoder, config, toy.END, jax.jit)
    found = run(decode_fn, trainable, rows=3)
    other = run(decode_fn, {"out": -trainable["out"]}, rows=3)
    reseeded = run(decode_fn, trainable, rows=3, seed=1)
    assert len(traces) == 1
    assert found.tokens.shape == (7, config.max_tokens) and found.lengths.shape == (7,)
    assert all(isinstance(leaf, np.ndarray) for leaf in found)
    for changed in (other, reseeded):
        assert (changed.tokens != found.tokens).any()
    # The batch size changes nothing, samples included.
    whole = run(quickly_compiled(config), trainable, rows=8)
    for name, first, second in zip(found._fields, found, whole, strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-5, err_msg=name)


def test_rows_of_the_same_prompt_are_sampled_apart_in_all_batches():
    given = toy.weights(0, vocabulary=6, sharpness=0.0, end_bias=-60.0)
    config = toy.make_config("nucleus", max_tokens=8)
    prompts = np.zeros((6, 1), np.int64)
    decoded = decode.decode_all(
        quickly_compiled(config), {}, given, prompts, np.ones(6, int), seed=0, rows=2
    )
    assert len(set(map(tuple, decoded.tokens.tolist()))) == 6


@pytest.mark.parametrize("method", CONFIGS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_scores_are_as_wide_as_logits(method, dtype):
    with jax.enable_x64(dtype == "float64"):
        given = jax.tree.map(lambda array: array.astype(dtype), toy.weights(0, vocabulary=5))
        keys = jax.random.split(jax.random.key(0), 5)
        run = toy.compiled(CONFIGS[method])
        shapes = jax.eval_shape(run, given, toy.prompts(0, 5), toy.LENGTHS, keys)
    assert shapes.tokens.dtype == shapes.lengths.dtype == jnp.int32
    assert shapes.log_probability.dtype == dtype


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(method="best"), "Unknown method 'best'.*greedy"),
        (dict(max_tokens=0), "max_tokens is 0; give at least 1"),
        (dict(method="beam", beams=0), "beams is 0; give at least 1"),
        (dict(no_repeat_ngram=-1), "no_repeat_ngram is -1; give at least 0"),
        (dict(method="beam", length_penalty=math.nan), "length_penalty is nan; .*finite"),
        (dict(method="nucleus", top_p=0.0), "top_p is 0.0; .*at most 1"),
        (dict(method="nucleus", top_p=1.01), "top_p is 1.01; .*at most 1"),
        (dict(method="nucleus", temperature=0.0), "temperature is 0.0; .*above 0"),
        (dict(method="nucleus", temperature=math.inf), "temperature is inf; .*finite"),
        (dict(beams=4), "beams is 4, which only method 'beam' reads; give 1 .*'greedy'"),
        (dict(method="nucleus", beams=2), "beams is 2, .*'beam' reads; give 1 .*'nucleus'"),
        (dict(length_penalty=0.8), "length_penalty is 0.8, which only .*'beam'"),
        (dict(top_p=0.9), "top_p is 0.9, which only method 'nucleus' reads; give 1.0"),
        (dict(method="beam", temperature=0.7), "temperature is 0.7, which only .*'nucleus'"),
    ],
)
def test_wrong_options_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        toy.make_config(**({"method": "greedy"} | changes))


def test_wrong_arrays_are_named():
    config, given = CONFIGS["greedy"], jax.tree.map(jnp.asarray, toy.weights(0, vocabulary=5))
    prompts, keys = jnp.zeros((2, 3), jnp.int32), jax.random.split(jax.random.key(0), 2)
    lengths = jnp.ones(2, jnp.int32)

    def run(prompts=prompts, lengths=lengths, keys=keys, end_id=toy.END, decoder=None):
        decoder = decoder or toy.decoder(given)
        return jax.eval_shape(
            lambda *arrays: decode.decode(decoder, config, *arrays[:2], end_id, arrays[2]),
            *(prompts, lengths, keys),
        )

    with pytest.raises(ValueError, match=r"prompts are \(2,\).*\[B, P\]"):
        run(prompts=prompts[:, 0])
    with pytest.raises(ValueError, match=r"prompt_lengths \(1,\)"):
        run(lengths=lengths[:1])
    with pytest.raises(ValueError, match=r"keys \(\)"):
        run(keys=keys[0])
    with pytest.raises(ValueError, match="end_id is 5 in a vocabulary of 5"):
        run(end_id=5)
    with pytest.raises(ValueError, match="end_id is -1 in a vocabulary of 5"):
        run(end_id=-1)
    narrow = toy.decoder(given)._replace(logits=lambda states: states[:, :1])
    with pytest.raises(ValueError, match="end_id is 0 in a vocabulary of 1"):
        run(end_id=0, decoder=narrow)
    short = toy.decoder(given)._replace(logits=lambda states: states.astype(jnp.bfloat16))
    with pytest.raises(ValueError, match="logits are bfloat16; give float32"):
        run(decoder=short)


@pytest.mark.parametrize(
    "prompts, lengths, rows, message",
    [
        (np.zeros((2, 3)), np.ones(2), 0, "rows is 0; give at least 1"),
        (np.zeros((0, 3)), np.ones(0), 1, r"prompts are \(0, 3\).*at least 1"),
        (np.zeros((2, 3)), np.ones(3), 1, r"prompt_lengths \(3,\); give \[N, P\] and \[N\]"),
        (np.zeros(2), np.ones(2), 1, r"prompts are \(2,\)"),
        (np.zeros((2, 3)), np.asarray([0, 2]), 1, "prompt_lengths are 0 to 2; give 1 to 3"),
        (np.zeros((2, 3)), np.asarray([1, 4]), 1, "prompt_lengths are 1 to 4; give 1 to 3"),
    ],
)
def test_prompts_that_cannot_be_decoded_are_named(prompts, lengths, rows, message):
    with pytest.raises(ValueError, match=message):
        decode.decode_all(None, {}, {}, prompts, lengths, seed=0, rows=rows)
