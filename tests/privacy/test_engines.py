"""Claims about the engines: equal to each other, blind to padding, safe with bad rows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memarc.ops.linear import elementwise, linear, multiply_trailing
from memarc.ops.taps import use
from memarc.privacy.clipping import Clipping
from memarc.privacy.engines import ENGINES, clipped_grad_sum
from tests import fast_compile

ROWS, FEATURES, HIDDEN = 7, 5, 3
ABADI = Clipping(1.0, "abadi")
GATE = elementwise("gate", lambda gate, x: gate * x)


def model(dtype=jnp.float32):
    """A two-layer network with a nested parameter tree, one batch, and the loss of both."""
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.standard_normal(shape).astype(dtype)
    trainable = {
        "first": {"kernel": normal(FEATURES, HIDDEN)},
        "second": {"kernel": normal(HIDDEN, 2), "bias": {}},
        "gate": np.asarray(normal(1)[0]),
    }
    frozen = {"shift": normal(FEATURES)}
    batch = {
        "x": normal(ROWS, FEATURES),
        "label": np.arange(ROWS) % 2,
        "scale": np.ones(ROWS, dtype),
        "added": np.zeros(ROWS, dtype),
    }
    return trainable, frozen, batch


def loss_fn(trainable, frozen, batch):
    """Cross-entropy of a row times its scale, and what is added to it."""
    x = batch["x"] + jnp.broadcast_to(frozen["shift"], batch["x"].shape)
    hidden = use(GATE, trainable["gate"], jnp.tanh(linear(x, trainable["first"]["kernel"])))
    logits = jax.nn.log_softmax(linear(hidden, trainable["second"]["kernel"]))
    picked = jnp.take_along_axis(logits, batch["label"][:, None], axis=1)[:, 0]
    return batch["added"] - batch["scale"] * picked


@functools.lru_cache
def compiled(loss, **options):
    """One jitted engine per choice of options, shared by all tests."""
    fast = fast_compile.options()
    return jax.jit(lambda *args: clipped_grad_sum(loss, *args, **options), compiler_options=fast)


def run(
    batch,
    is_padding=None,
    *,
    loss=loss_fn,
    engine="vmap",
    microbatch_size=None,
    wrap=compiled,
    **more,
):
    trainable, frozen, _ = model(batch["x"].dtype)
    rows = batch["x"].shape[0]
    summed = wrap(
        loss,
        **({"clipping": ABADI} | more),
        engine=engine,
        microbatch_size=rows if microbatch_size is None else microbatch_size,
    )
    mask = np.zeros(rows, bool) if is_padding is None else is_padding
    return summed(trainable, frozen, batch, mask)


def eager(loss, **options):
    return lambda *args: clipped_grad_sum(loss, *jax.tree.map(jnp.asarray, args), **options)


def changed(array, where, value):
    """A copy with other values at an index."""
    array = np.array(array)
    array[where] = value
    return array


def assert_close(left, right, rtol):
    def close(a, b):
        scale = np.max(np.abs(b), initial=0.0)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * scale)

    jax.tree.map(close, left, right)


@pytest.mark.parametrize("rule", ["abadi", "automatic"])
def test_the_loop_engine_equals_clipping_written_out_by_hand(rule):
    with jax.enable_x64(True):
        trainable, frozen, batch = model(jnp.float64)
        expected = jax.tree.map(np.zeros_like, trainable)
        norms = []
        gradient_of_one = jax.jit(jax.grad(lambda p, one: loss_fn(p, frozen, one)[0]))
        for row in range(ROWS):
            one = {name: leaf[row : row + 1] for name, leaf in batch.items()}
            gradient = jax.tree.map(np.asarray, gradient_of_one(trainable, one))
            norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(gradient)))
            factor = min(1, 1.0 / norm) if rule == "abadi" else 1.0 / (norm + 0.01)
            expected = jax.tree.map(lambda t, g, f=factor: t + f * g, expected, gradient)
            norms.append(norm)
        got, aux = run(batch, engine="loop", clipping=Clipping(1.0, rule))
        assert_close(got, expected, 2e-5)  # The factor's slack is 1e-5.
        np.testing.assert_allclose(aux["norms"], norms, rtol=1e-12)
        np.testing.assert_allclose(aux["losses"], loss_fn(trainable, frozen, batch), rtol=1e-12)
        assert min(norms) < 1.0 < max(norms), "both branches of the rule must be met"


@pytest.mark.checklist(8, 16, 19)
@pytest.mark.parametrize(
    ("microbatch_size", "rule", "scope"),
    [
        (3, "abadi", "flat"),
        (3, "abadi", "per_layer"),
        (ROWS, "automatic", "flat"),
        *(
            pytest.param(*given, marks=pytest.mark.slow)
            for given in (
                (1, "abadi", "flat"),  # Sizes are compared below.
                (ROWS, "abadi", "flat"),
                (3, "automatic", "flat"),
                (ROWS, "automatic", "per_layer"),
            )
        ),
    ],
)
@pytest.mark.parametrize("engine", sorted(set(ENGINES) - {"loop"}))
def test_engines_equal_the_loop_in_float64_with_bad_and_padding_rows(
    engine, microbatch_size, rule, scope
):
    with jax.enable_x64(True):
        _, _, batch = model(jnp.float64)
        batch["x"][1, 2] = np.nan
        batch["x"][4] = 1e3
        is_padding = np.arange(ROWS) == 5
        clipping = Clipping(1.0, rule, scope)
        expected = run(batch, is_padding, engine="loop", clipping=clipping)
        got = run(
            batch, is_padding, engine=engine, microbatch_size=microbatch_size, clipping=clipping
        )
        assert_close(got, expected, 1e-9)
        assert jax.tree.leaves(got[0])[0].dtype == jnp.float64
        assert got[1]["norms"][1] == got[1]["losses"][1] == 0.0
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(got))


@pytest.mark.checklist(8)
@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_per_layer_bounds_every_group_and_together_the_clip_norm(engine):
    """One row whose three gradients are all far above their bounds: each comes out at its bound."""
    microbatch_size = ROWS if engine == "loop" else 3
    with jax.enable_x64(True):
        _, _, batch = model(jnp.float64)
        batch["scale"][:] = 1e4
        found = {
            scope: run(
                batch,
                np.arange(ROWS) != 0,
                engine=engine,
                microbatch_size=microbatch_size,
                clipping=Clipping(1.0, "abadi", scope),
            )[0]
            for scope in ("per_layer", "flat")
        }
    norms = {
        scope: [np.linalg.norm(leaf) for leaf in jax.tree.leaves(got)]
        for scope, got in found.items()
    }
    np.testing.assert_allclose(norms["per_layer"], [3**-0.5] * 3, rtol=3e-5)
    assert np.ptp(norms["flat"]) > 0.1


def of_normed(trainable, frozen, batch):
    mean_square = jnp.mean(jnp.square(batch["x"]), axis=-1, keepdims=True)
    normed = batch["x"] * jax.lax.rsqrt(mean_square + frozen["epsilon"])
    return jnp.sin(multiply_trailing(normed, trainable["scale"])).sum((1, 2))


@pytest.mark.parametrize("engine", sorted(set(ENGINES) - {"loop"}))
def test_engines_follow_the_scale_of_a_root_mean_square_norm(engine):
    with jax.enable_x64(True):
        rng = np.random.default_rng(3)
        args = (
            {"scale": rng.standard_normal(FEATURES)},
            {"epsilon": np.full((1, 1, 1), 1e-6)},
            {"x": rng.standard_normal((ROWS, 3, FEATURES))},
            np.zeros(ROWS, bool),
        )
        got, expected = (
            compiled(of_normed, clipping=ABADI, engine=name, microbatch_size=ROWS)(*args)
            for name in (engine, "loop")
        )
        assert_close(got, expected, 1e-9)
        assert max(expected[1]["norms"]) > 1.0


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_a_batch_of_one_row_works(engine):
    with jax.enable_x64(True):
        _, _, batch = model(jnp.float64)
        one = {name: leaf[:1] for name, leaf in batch.items()}
        assert_close(run(one, engine=engine), run(one, engine="loop"), 1e-9)


@pytest.mark.checklist(19)
@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_the_result_does_not_depend_on_the_microbatch_size(engine):
    _, _, batch = model()
    whole = run(batch, engine=engine)
    for microbatch_size in (1, 3):
        assert_close(run(batch, engine=engine, microbatch_size=microbatch_size), whole, 1e-5)


@pytest.mark.checklist(16)
@pytest.mark.parametrize("fill", [np.nan, np.inf, 3e38, -1e20])
@pytest.mark.parametrize("microbatch_size", [1, 3, ROWS])
@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_what_padding_rows_hold_changes_no_bit(engine, microbatch_size, fill):
    _, _, batch = model()
    is_padding, padding = np.arange(ROWS) >= 5, slice(5, None)
    clean = dict(batch, x=changed(batch["x"], padding, 0.0))
    dirty = {name: changed(x, padding, fill) for name, x in batch.items() if name != "label"}
    dirty["label"] = changed(batch["label"], padding, 10**6)
    expected = run(clean, is_padding, engine=engine, microbatch_size=microbatch_size)
    got = run(dirty, is_padding, engine=engine, microbatch_size=microbatch_size)
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    assert not np.any(got[1]["norms"][5:]) and not np.any(got[1]["losses"][5:])


@pytest.mark.checklist(14, 16)
@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_a_batch_of_padding_alone_sums_to_exactly_zero(engine):
    _, _, batch = model()
    batch["x"] = np.full_like(batch["x"], np.nan)
    got = run(batch, np.ones(ROWS, bool), engine=engine, microbatch_size=3)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(got))


@pytest.mark.checklist(8)
@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_a_row_with_a_bad_loss_but_a_finite_gradient_adds_nothing(engine):
    _, _, batch = model()
    batch["added"][3] = np.inf
    got, aux = run(batch, engine=engine)
    expected, _ = run(batch, np.arange(ROWS) == 3, engine=engine)
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    assert aux["losses"][3] == 0.0


def masked_roots(trainable, frozen, batch):
    """Roots of masked squares: finite everywhere, with a derivative that is not where masked."""
    del frozen
    y = linear(batch["x"], trainable)
    return jnp.sqrt(jnp.square(y) * batch["mask"]).sum(tuple(range(1, y.ndim)))


@pytest.mark.checklist(8)
@pytest.mark.parametrize("engine", sorted(ENGINES))
@pytest.mark.parametrize("tokens", [1, 9])  # Norms by Gram matrices, and by gradients.
def test_a_row_of_a_finite_loss_adds_nothing_where_a_part_of_its_gradient_is_bad(engine, tokens):
    rng = np.random.default_rng(1)
    kernel = rng.standard_normal((5, 3)).astype(np.float32)
    batch = {
        "x": rng.standard_normal((4, tokens, 5)).astype(np.float32),
        "mask": np.ones((4, tokens, 3), np.float32),
    }
    batch["mask"][2, 0, 1] = 0.0
    assert np.isfinite(masked_roots(kernel, {}, batch)).all()
    summed = compiled(masked_roots, clipping=ABADI, engine=engine, microbatch_size=4)
    got, aux = summed(kernel, {}, batch, np.zeros(4, bool))
    expected, others = summed(kernel, {}, batch, np.arange(4) == 2)
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(aux["norms"], others["norms"])
    assert aux["norms"][2] == aux["losses"][2] == 0.0 and np.sum(aux["norms"] > 0) == 3


@pytest.mark.checklist(18)
@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_no_row_however_strange_raises_or_spoils_the_sum(engine):
    _, _, batch = model()
    values = [0.0, -0.0, np.nan, np.inf, 3e38, 1e-45, -1e30]
    for shift in range(3):
        x = np.resize(np.roll(values, shift), (ROWS, FEATURES)).astype(np.float32)
        got = run(dict(batch, x=x), engine=engine, microbatch_size=3)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(got))


@pytest.mark.checklist(9)
@pytest.mark.parametrize("engine", sorted(ENGINES))
@pytest.mark.parametrize("scale", [0.0, 1e-20, 1.0, 1e20])
def test_removing_any_row_moves_the_sum_by_at_most_the_sensitivity(engine, scale):
    _, _, batch = model()
    batch["scale"][:] = scale
    whole, _ = run(batch, engine=engine)
    for row in range(ROWS):
        without, _ = run(batch, np.arange(ROWS) == row, engine=engine)
        squares = jax.tree.map(lambda a, b: np.sum(np.square(np.subtract(a, b))), whole, without)
        assert np.sqrt(sum(jax.tree.leaves(squares))) <= ABADI.sensitivity * (1 + 1e-5)


@pytest.mark.checklist(6)
def test_bfloat16_gradients_are_summed_over_microbatches_in_float32():
    rows = 4096
    trainable = {"w": jnp.zeros((3,), jnp.bfloat16)}
    x = jnp.tile(jnp.array([[1.0, 0.0, 0.0]], jnp.bfloat16), (rows, 1))
    got, _ = clipped_grad_sum(
        lambda p, f, b: (b["x"] @ p["w"]).astype(jnp.float32),
        trainable,
        {},
        {"x": x},
        jnp.zeros(rows, bool),
        clipping=Clipping(2.0, "abadi"),
        engine="vmap",
        microbatch_size=64,
    )
    assert got["w"].dtype == jnp.float32
    # A bfloat16 accumulator stops at 256.
    np.testing.assert_allclose(got["w"], [4096.0, 0.0, 0.0], rtol=1e-5)


@pytest.mark.checklist(23)
@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_another_row_changes_neither_loss_nor_norm_of_this_one(engine):
    _, _, batch = model()
    _, before = run(batch, engine=engine)
    _, after = run(dict(batch, x=changed(batch["x"], 2, 3.0)), engine=engine)
    others = np.arange(ROWS) != 2
    for name in ("norms", "losses"):
        np.testing.assert_array_equal(before[name][others], after[name][others])
        assert before[name][2] != after[name][2]


@pytest.mark.parametrize(
    "engine",
    ["vmap", "ghost", *(pytest.param(x, marks=pytest.mark.slow) for x in ("loop", "book_keeping"))],
)
def test_precompute_runs_batched_once_a_microbatch_and_gets_no_gradient(engine):
    """Before any engine is called: one that sees rows one by one, and one that does not."""
    seen, microbatch_size = [], 3

    def precompute(frozen, batch):
        seen.append(batch["x"].shape)
        shift = jnp.broadcast_to(frozen["shift"], batch["x"].shape)
        return dict(batch, x=batch["x"] + shift)

    def later_loss(trainable, frozen, batch):
        return loss_fn(trainable, {"shift": jnp.zeros_like(frozen["shift"])}, batch)

    _, _, batch = model()
    expected = run(batch, engine=engine)
    got = run(
        batch,
        engine=engine,
        microbatch_size=microbatch_size,
        loss=later_loss,
        precompute=precompute,
    )
    assert_close(got, expected, 1e-5)
    assert set(seen) == {(microbatch_size, FEATURES)}


@pytest.mark.parametrize("engine", ["vmap"])
def test_jit_and_eager_agree(engine):
    _, _, batch = model()
    expected = run(batch, engine=engine, microbatch_size=3, wrap=eager)
    assert_close(run(batch, engine=engine, microbatch_size=3), expected, 1e-5)


def test_an_unknown_engine_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"Unknown engine 'magic'; choose one of .*'vmap'"):
        run(model()[2], engine="magic")


@pytest.mark.parametrize("microbatch_size", [-1, ROWS + 1])
def test_a_microbatch_larger_than_the_batch_or_below_one_is_refused(microbatch_size):
    with pytest.raises(ValueError, match=r"microbatch_size is .*give 1 to 7"):
        run(model()[2], microbatch_size=microbatch_size)


def test_a_mask_of_another_length_is_refused():
    with pytest.raises(ValueError, match="all lead with the same B"):
        run(model()[2], jnp.zeros(ROWS + 1, bool), microbatch_size=2)


@pytest.mark.checklist(27)
def test_a_loss_that_is_a_mean_over_the_batch_is_refused():
    with pytest.raises(ValueError, match="one loss per example"):
        run(model()[2], loss=lambda *args: loss_fn(*args).mean())
