"""Poolings and cross entropy against values worked out by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memarc.models import head
from memarc.models.head import HeadConfig, ValueHeadConfig

# B = 3 rows, T = 2 tokens, D = 2, C = 3; row 1 has one real token, row 2 none.
STATES = jnp.array([[[1.0, 2.0], [3.0, 6.0]], [[5.0, 7.0], [9.0, 9.0]], [[4.0, 4.0], [8.0, 8.0]]])
BATCH = {"attention_mask": jnp.array([[1, 1], [1, 0], [0, 0]], jnp.int32)}
PARAMS = {
    "kernel": jnp.array([[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]]),
    "bias": jnp.array([0.5, 0.0, -0.5]),
}


def logits(config, params, states, batch):
    return head.logits(config, params, head.pool(config, states, batch))


@pytest.mark.parametrize(
    ("pooling", "wanted"),
    [
        ("first", [[1.5, 2.0, -0.5], [5.5, 7.0, 2.5], [4.5, 4.0, 3.5]]),
        # Means of the real tokens: (2, 4), (5, 7), and zero for a row without any.
        ("mean", [[2.5, 4.0, -0.5], [5.5, 7.0, 2.5], [0.5, 0.0, -0.5]]),
        # The last real token; any one of a row without any.
        ("last", [[3.5, 6.0, -0.5], [5.5, 7.0, 2.5], [8.5, 8.0, 7.5]]),
    ],
)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_logits_are_a_linear_map_of_the_pooled_states_in_float32(pooling, wanted, dtype):
    got = logits(HeadConfig(pooling, 3), PARAMS, STATES.astype(dtype), BATCH)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, wanted)


def test_mean_pooling_does_not_see_what_stands_under_padding():
    config = HeadConfig("mean", 3)
    changed = STATES.at[1, 1].set(-1e6).at[2].set(1e6)
    np.testing.assert_array_equal(
        logits(config, PARAMS, changed, BATCH),
        logits(config, PARAMS, STATES, BATCH),
    )


@pytest.mark.parametrize(
    ("form", "between"),
    [
        ("dense_tanh", math.tanh),
        ("dense_gelu", lambda x: x * (1.0 + math.erf(x / math.sqrt(2.0))) / 2.0),
        ("dense_relu", lambda x: max(x, 0.0)),
    ],
)
def test_a_head_of_two_maps_has_its_function_between(form, between):
    dense = {"kernel": jnp.array([[0.5, -0.25], [0.1, 0.2]]), "bias": jnp.array([-0.1, -0.5])}
    config = HeadConfig("first", 3, form=form)
    got = logits(config, {**PARAMS, "dense": dense}, STATES[:1], BATCH)
    # The first state is (1, 2): 0.5 + 0.2 - 0.1 and -0.25 + 0.4 - 0.5.
    a, b = between(0.6), between(-0.35)
    np.testing.assert_allclose(got[0], [a + 0.5, b, 2 * a - b - 0.5], rtol=1e-6)
    numbers = logits(ValueHeadConfig("first", form), {**PARAMS, "dense": dense}, STATES, BATCH)
    np.testing.assert_array_equal(numbers[:1], got)


def test_the_last_real_token_is_found_whatever_side_is_filled_up():
    batch = {"attention_mask": jnp.array([[0, 1], [0, 1], [1, 0]], jnp.int32)}
    got = logits(HeadConfig("last", 3), PARAMS, STATES, batch)
    np.testing.assert_array_equal(got, [[3.5, 6.0, -0.5], [9.5, 9.0, 8.5], [4.5, 4.0, 3.5]])


def test_the_first_mask_token_that_is_real_is_read_and_the_first_token_where_there_is_none():
    config = HeadConfig("mask", 3, words=((3,), (0,), (2,)), mask_id=7)
    ids = jnp.array([[4, 7], [1, 7], [7, 7]], jnp.int32)
    got = head.pool(config, STATES, {**BATCH, "input_ids": ids})
    np.testing.assert_array_equal(got, [[3, 6], [5, 7], [4, 4]])


def test_a_head_of_words_starts_as_their_rows_of_the_output_table():
    table = jnp.arange(8.0).reshape(4, 2).astype(jnp.bfloat16)
    config = HeadConfig("last", 3, words=((3,), (0,), (2,)))
    params = head.of_words(config, table)
    np.testing.assert_array_equal(params["kernel"], [[6, 0, 4], [7, 1, 5]])
    assert params["kernel"].dtype == jnp.float32 and not params["bias"].any()
    with_bias = head.of_words(config, table, jnp.array([0.5, 1.0, -2.0, 4.0], jnp.bfloat16))
    np.testing.assert_array_equal(with_bias["bias"], [4.0, 0.5, -2.0])
    np.testing.assert_array_equal(with_bias["kernel"], params["kernel"])
    with pytest.raises(ValueError, match="2 words stand for 3 labels"):
        HeadConfig("last", 3, words=((3,), (0,)))
    with pytest.raises(ValueError, match="words follow the 'last' token"):
        HeadConfig("mean", 3, words=((3,), (0,), (1,)))
    with pytest.raises(ValueError, match=r"head.form is 'dense_tanh', and head.words are given"):
        HeadConfig("last", 3, words=((3,), (0,), (1,)), form="dense_tanh")
    with pytest.raises(ValueError, match=r"with head.pooling 'last' one alone"):
        HeadConfig("last", 2, words=((3, 1), (0,)))
    with pytest.raises(ValueError, match=r"give each label's"):
        HeadConfig("words", 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask_id": None}, "head.pooling is 'mask' and mask_id None"),
        ({"pooling": "last"}, "head.pooling is 'last' and mask_id 3"),
        ({"words": ()}, r"head.pooling is 'mask', and head.words is \(\)"),
        ({"words": ((1,), (2, 4))}, r"have \[1, 2\] tokens; .*with head.pooling 'mask' one alone"),
        ({"bias": False}, "head.bias is False, and head.pooling 'mask' starts from the bias"),
        ({"form": "dense_tanh"}, "head.form is 'dense_tanh', and head.words are given"),
    ],
)
def test_what_a_mask_cannot_do_is_refused(changes, message):
    given = {"pooling": "mask", "words": ((1,), (2,)), "mask_id": 3}
    assert HeadConfig(**given).mask_id == 3
    with pytest.raises(ValueError, match=message):
        HeadConfig(**given | changes)


@pytest.mark.checklist(27)
def test_cross_entropy_is_minus_the_log_probability_of_each_label():
    odds = np.array([[1.0, 3.0, 4.0], [1.0, 1.0, 2.0]])
    got = head.cross_entropy(
        HeadConfig("first", 3), jnp.log(jnp.asarray(odds, jnp.float32)), jnp.array([1, 2])
    )
    np.testing.assert_allclose(got, [np.log(8 / 3), np.log(2.0)], rtol=1e-6)


def test_class_weights_and_smoothing_change_the_loss_as_computed_by_hand():
    given = jnp.log(jnp.asarray([[1.0, 3.0, 4.0], [1.0, 1.0, 2.0]], jnp.float32))
    config = HeadConfig("first", 3, class_weights=(1.0, 0.5, 4.0), smoothing=0.3)
    got = head.cross_entropy(config, given, jnp.array([1, 2]))
    even = [np.log(8) - np.log(12) / 3, np.log(4) - np.log(2) / 3]  # Mean over all labels.
    plain = [np.log(8 / 3), np.log(2.0)]
    wanted = [w * (0.7 * x + 0.3 * y) for w, x, y in zip((0.5, 4.0), plain, even, strict=True)]
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_weights": (1.0,)}, "head.class_weights has 1 numbers; give one for each of 2"),
        ({"class_weights": (1.0, 0.0)}, "give finite numbers above 0"),
        ({"smoothing": 1.0}, r"head.smoothing is 1.0; give a number in \[0, 1\)"),
    ],
)
def test_weights_and_smoothing_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        HeadConfig(**changes)


def test_a_head_without_bias_has_none():
    config = HeadConfig(bias=False)
    params = head.init(config, 3, jax.random.key(0))
    assert list(params) == ["kernel"]
    states, batch = jnp.ones((1, 1, 3)), {"attention_mask": jnp.ones((1, 1), jnp.int32)}
    given = logits(config, params, states, batch)
    np.testing.assert_allclose(given[0], params["kernel"].sum(0), rtol=1e-6)


def test_cross_entropy_of_large_logits_neither_overflows_nor_vanishes():
    got = head.cross_entropy(HeadConfig(), jnp.array([[1e4, 0.0], [1e4, 0.0]]), jnp.array([0, 1]))
    np.testing.assert_array_equal(got, [0.0, 1e4])


def test_a_drawn_head_is_small_has_no_bias_and_takes_float32():
    params = head.init(HeadConfig("first", 7), 300, jax.random.key(0))
    assert params["kernel"].shape == (300, 7) and params["kernel"].dtype == jnp.float32
    assert 0.018 < params["kernel"].std() < 0.022
    np.testing.assert_array_equal(params["bias"], np.zeros(7))


def test_both_maps_of_a_drawn_head_are_small_and_drawn_apart():
    config = HeadConfig("first", 300, form="dense_tanh")
    params = head.init(config, 300, jax.random.key(0))
    dense = params["dense"]
    assert dense["kernel"].shape == (300, 300) and 0.0195 < dense["kernel"].std() < 0.0205
    assert not dense["bias"].any() and dense["kernel"].dtype == jnp.float32
    together = np.corrcoef(dense["kernel"].ravel(), params["kernel"].ravel())[0, 1]
    assert abs(together) < 0.02
    number = head.init_value(ValueHeadConfig(form="dense_tanh"), 300, jax.random.key(0))
    assert number["bias"] == 0.5 and number["dense"]["kernel"].shape == (300, 300)


@pytest.mark.parametrize("cls", [HeadConfig, ValueHeadConfig])
def test_an_unknown_form_is_refused_with_the_choices(cls):
    with pytest.raises(ValueError, match=r"head.form is 'tanh'; .*\('linear', 'dense_tanh'"):
        cls(form="tanh")


def test_an_unknown_pooling_is_refused_with_the_choices():
    with pytest.raises(
        ValueError, match=r"head.pooling is 'max'; .*\('first', .*'words', 'mask'\)"
    ):
        HeadConfig("max", 2)


@pytest.mark.parametrize("classes", [1, 0, -3])
def test_fewer_than_two_classes_are_refused(classes):
    with pytest.raises(ValueError, match=rf"2 classes or more, not {classes}\."):
        HeadConfig("first", classes)
