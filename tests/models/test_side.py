"""The ladder against its equations in NumPy, its start by hand, and what it keeps in memory."""

import dataclasses

import jax
import numpy as np
import pytest
from scipy.special import erf

from memarc.models import backbone, side, side_start
from memarc.models.build import build
from memarc.models.families.known import make_config
from memarc.models.head import HeadConfig
from memarc.models.side import Side
from tests.models.states import every_state

# The ladder's equations, for one layer and one row at a time.


def norm(x, params):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * params["scale"] + params["bias"]


def dense(x, params):
    return x @ params["kernel"] + params["bias"]


def side_layer(u, params, heads, is_real):
    """One post-LN layer on u [T, S] of one row."""
    attention, feed = params["attention"], params["feed_forward"]
    query, key, value = (
        np.split(dense(u, attention[name]), heads, -1) for name in ("query", "key", "value")
    )
    mixed = []
    for q, k, v in zip(query, key, value, strict=True):
        odds = np.exp(q @ k.T / np.sqrt(q.shape[-1])) * is_real[None]
        mixed.append(odds / odds.sum(-1, keepdims=True) @ v)
    u = norm(u + dense(np.concatenate(mixed, -1), attention["output"]), attention["norm"])
    inner = dense(u, feed["intermediate"])
    inner = 0.5 * inner * (1.0 + erf(inner / np.sqrt(2.0)))
    return norm(u + dense(inner, feed["output"]), feed["norm"])


def written_out(ladder, states, kept, heads, is_real):
    """LN(s_N) @ U for one row; states [L + 1, T, D] are the backbone's."""
    s = dense(states[0], ladder["first"])
    for rung, layer in enumerate(kept):
        pick = lambda tree, rung=rung: jax.tree.map(lambda x: x[rung], tree)
        mu = 1.0 / (1.0 + np.exp(-ladder["gate"][rung] / 0.1))
        u = mu * s + (1.0 - mu) * dense(states[layer + 1], pick(ladder["down"]))
        s = side_layer(u, pick(ladder["layers"]), heads, is_real)
    return dense(norm(s, ladder["norm"]), ladder["up"])


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"reduction": 4, "start": "random"}, (0, 1, 2, 3)),
        (
            {"reduction": 2, "layers": (0, 2), "merge": "replace", "downsample": "frozen"},
            (0, 2),
        ),
    ],
)
def test_the_states_are_those_of_the_ladder_written_out(
    float64, sizes, weights, randomise, rows, fast_jit, options, kept
):
    cfg, batch = sizes(dtype="float64"), rows()
    params, method = weights(cfg), Side(cfg, **options)
    shapes, frozen_shapes = jax.eval_shape(method.init, jax.random.key(0), params)
    trainable = randomise(shapes)
    trainable["gate"] = 0.1 * trainable["gate"]  # So that no gate is shut: mu in 0.2 .. 0.8.
    frozen = {"backbone": params, "drawn": randomise(frozen_shapes["drawn"], seed=5)}
    assert bool(frozen["drawn"]) == (method.downsample == "frozen")

    def run(trainable, frozen, batch):
        states = every_state(cfg, params, batch)
        return states, method.states(trainable, frozen, method.precompute(frozen, batch))

    states, got = (np.asarray(x) for x in fast_jit(run)(trainable, frozen, batch))
    ladder = jax.tree.map(np.asarray, {**trainable, **frozen["drawn"]})
    for row, mask in enumerate(np.asarray(batch["attention_mask"])):
        wanted = written_out(ladder, states[:, row], kept, cfg.heads, mask)
        if method.merge == "add":
            wanted = wanted + states[-1, row]
        np.testing.assert_allclose(got[row], wanted, rtol=1e-10, atol=1e-10)


def test_side_layers_have_divided_widths_and_as_many_heads(sizes):
    narrow = side.side_config(sizes(), 4, (0, 1, 3))
    assert narrow == dataclasses.replace(sizes(), layers=3, width=6, feed_forward=10)
    assert narrow.heads == sizes().heads and narrow.head_width == 2


# The start.

HAND = make_config(
    "bert",
    vocab_size=5,
    width=4,
    layers=2,
    heads=2,
    feed_forward=4,
    max_positions=3,
    norm_epsilon=1e-5,
    activation="gelu",
    dtype="float32",
    type_vocab=1,
    pad_id=0,
)


@pytest.fixture
def hand_made():
    """Two layers of width 4 with 2 heads, small weights, and large ones where told."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: backbone.init_layers(HAND, jax.random.key(0)))
    layers = jax.tree.map(
        lambda x: (0.01 * rng.uniform(-1.0, 1.0, x.shape)).astype(np.float32), shapes
    )
    feed, attention = layers["feed_forward"], layers["attention"]
    feed["intermediate"]["kernel"][:, 1] -= 1.0  # Feature 1, by the rows that read it.
    feed["output"]["kernel"][0, :, 3] += 1.0  # Feature 3, by the columns that write it.
    feed["intermediate"]["kernel"][0, :, 0] -= 9.0  # Hidden units 0 and 2 of layer 0,
    feed["output"]["kernel"][0, 2] += 9.0
    feed["output"]["kernel"][1, (1, 2)] -= 9.0  # 1 and 2 of layer 1.
    attention["query"]["kernel"][0, :, 1] += 9.0  # Of layer 0: score columns 1 and 2,
    attention["key"]["kernel"][0, :, 2] -= 9.0
    attention["value"]["kernel"][0, :, 0] += 9.0  # value columns 0 and 3.
    attention["output"]["kernel"][0, 3] += 9.0
    attention["key"]["kernel"][1, :, 0] += 9.0  # Of layer 1: score columns 0 and 3,
    attention["query"]["kernel"][1, :, 3] += 9.0
    attention["output"]["kernel"][1, (1, 2)] += 9.0  # value columns 1 and 2.
    return {"layers": layers}


def draw(jit, params, *, seed=0, start="pruned", merge="add", kept=(0, 1)):
    narrow = side.side_config(HAND, 2, kept)

    def drawn(key, params):
        return side_start.draw(key, HAND, narrow, params, kept, start, merge)

    return jit(drawn)(jax.random.key(seed), params)


@pytest.mark.checklist(30)
@pytest.mark.parametrize("kept", [(0, 1), (1,)])
def test_a_pruned_start_keeps_the_largest_features_head_columns_and_units(
    hand_made, fast_jit, kept
):
    ladder = draw(fast_jit, hand_made, kept=kept)
    features = [1, 3]
    scores, values, units = {0: [1, 2], 1: [0, 3]}, {0: [0, 3], 1: [1, 2]}, {0: [0, 2], 1: [1, 2]}
    for rung, layer in enumerate(kept):
        inputs_and_outputs = {
            ("attention", "query"): (features, scores[layer]),
            ("attention", "key"): (features, scores[layer]),
            ("attention", "value"): (features, values[layer]),
            ("attention", "output"): (values[layer], features),
            ("feed_forward", "intermediate"): (features, units[layer]),
            ("feed_forward", "output"): (units[layer], features),
        }
        for (block, name), (ins, outs) in inputs_and_outputs.items():
            whole, cut = hand_made["layers"][block][name], ladder["layers"][block][name]
            wanted = whole["kernel"][layer][np.ix_(ins, outs)]
            np.testing.assert_array_equal(cut["kernel"][rung], wanted)
            np.testing.assert_array_equal(cut["bias"][rung], whole["bias"][layer][outs])
        for block in ("attention", "feed_forward"):
            for name, vector in ladder["layers"][block]["norm"].items():
                wanted = hand_made["layers"][block]["norm"][name][layer][features]
                np.testing.assert_array_equal(vector[rung], wanted)
    picks = np.array([[0, 0], [1, 0], [0, 0], [0, 1]])  # D_i hands on features 1 and 3.
    np.testing.assert_array_equal(ladder["first"]["kernel"], picks)
    np.testing.assert_array_equal(ladder["down"]["kernel"], np.stack([picks] * len(kept)))
    assert not np.any(ladder["gate"])  # mu = 1/2.


def test_only_what_is_random_depends_on_the_key(hand_made, fast_jit):
    def changed(**options):
        first, second = (draw(fast_jit, hand_made, seed=seed, **options) for seed in (0, 1))
        return {
            name
            for name in first
            if not jax.tree.all(jax.tree.map(np.array_equal, first[name], second[name]))
        }

    assert changed() == set()
    assert changed(start="random", merge="replace") == {"first", "down", "layers", "up"}


# What is kept for the backward pass: L = 4, D = 24, F = 40, and in the ladder S = 6, S-wide F 10.


def kept_shapes(method, options, sizes, weights, rows):
    """Shapes of all that a loss keeps for its backward pass; the forward pass is whole."""
    model, batch = build(method, options, sizes(), HeadConfig("first", 3)), rows()
    trainable, frozen = jax.eval_shape(model.init, jax.random.key(0), weights(sizes()))

    def pullback(trainable, frozen, batch):
        def loss(trainable):
            return model.loss(trainable, frozen, model.precompute(frozen, batch))

        return jax.vjp(loss, trainable)[1]

    kept = jax.eval_shape(pullback, trainable, frozen, batch)
    return [leaf.shape for leaf in jax.tree.leaves(kept)]


def elements(shapes, width):
    """Number of elements in activations [..., T, width]."""
    return sum(int(np.prod(s)) for s in shapes if len(s) > 2 and s[-2:] == (7, width))


def test_nothing_is_kept_of_the_backbone_itself(sizes, weights, rows):
    ladder = kept_shapes("side", {"reduction": 4}, sizes, weights, rows)
    full = kept_shapes("full", {}, sizes, weights, rows)
    assert elements(full, 40) >= 4 * 5 * 7 * 40  # The feed-forward activations of every layer.
    assert elements(ladder, 40) == 0
    assert elements(ladder, 10) >= 4 * 5 * 7 * 10  # Those of the ladder are.


@pytest.mark.parametrize("merge", ["add", "replace"])
def test_a_frozen_downsampling_keeps_no_state_as_wide_as_the_backbone(sizes, weights, rows, merge):
    options = {"reduction": 4, "merge": merge}
    trained = kept_shapes("side", {**options, "downsample": "trained"}, sizes, weights, rows)
    frozen = kept_shapes("side", {**options, "downsample": "frozen"}, sizes, weights, rows)
    assert elements(trained, 24) >= 5 * 5 * 7 * 24  # All M + 1 states, for the gradient of D_i.
    assert elements(frozen, 24) <= 5 * 7 * 24  # At most one state, whatever the depth.
    assert elements(frozen, 6) > 0
