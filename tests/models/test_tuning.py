"""Claims about every tuning method of `memarc.models.methods`; a new one is covered by itself."""

import dataclasses
import functools
import inspect
import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from memarc.batches import COINS
from memarc.models import lora
from memarc.models.build import build
from memarc.models.head import HeadConfig
from memarc.models.methods import METHODS, all_options
from memarc.models.model import Model
from memarc.privacy import tap_engines
from memarc.privacy.clipping import ROUNDING_SLACK, Clipping
from memarc.privacy.engines import clipped_grad_sum
from memarc.typing import Batch, Params

HEAD = HeadConfig("mean", 3, form="dense_tanh")  # The map of form "linear" is its second.
NO_CLIP = Clipping(1e6, "abadi")  # Larger than any norm here: sums are of plain gradients.
OF_HEAD = {f"head/{name}" for name in ("dense/kernel", "dense/bias", "kernel", "bias")}
BIAS_OF_KEY = "attention/key/bias"  # Softmax cancels it: its gradient is zero up to rounding.

FLOAT = {"arithmetic": "float", "anchor_every": 2}
VARIANTS = {
    "lora all": ("lora", {"rank": 3, "targets": tuple(x for x in lora.TARGETS if x != "gated")}),
    "lora b": ("lora", {"rank": 2, "train": "b"}),
    "side replace": (
        "side",
        {"reduction": 4, "merge": "replace", "start": "random", "layers": (0, 3)},
    ),
    "side frozen": ("side", {"reduction": 2, "downsample": "frozen"}),
    "meft1 mean": ("reversible", FLOAT | {"coupling": "meft1", "end": "mean", "scale": 0.3}),
    "meft2": ("reversible", FLOAT | {"coupling": "meft2"}),
    "meft1 exact": ("reversible", {"coupling": "meft1", "scale": 0.125, "anchor_every": 2}),
    "meft3": (
        "reversible",
        FLOAT | {"coupling": "meft3", "anchor_every": 1, "layers": 3, "bottleneck": 5},
    ),
}
CASES = {name: (name, {}) for name in METHODS} | VARIANTS
DRAWING = {
    "lora b all": ("lora", {"train": "b", "targets": ("key", "output")}),
    "side random": ("side", {"start": "random"}),
    "side frozen random": ("side", {"downsample": "frozen", "start": "random"}),
    "side frozen replace": ("side", {"downsample": "frozen", "merge": "replace", "layers": (1,)}),
}
every_case = pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] * (case not in METHODS)) for case in CASES]
)

DENSE_AND_NORMS = {
    **{f"attention/{name}": ("kernel", "bias") for name in ("query", "key", "value", "output")},
    **{f"feed_forward/{name}": ("kernel", "bias") for name in ("intermediate", "output")},
    **{f"{block}/norm": ("scale", "bias") for block in ("attention", "feed_forward")},
}
LAYER = {f"layers/{path}/{leaf}" for path, leaves in DENSE_AND_NORMS.items() for leaf in leaves}
TABLES = {f"embeddings/{name}" for name in ("word", "position", "token_type")}
ENCODER = LAYER | TABLES | {"embeddings/norm/scale", "embeddings/norm/bias"}
ADAPTER = ("down/kernel", "down/bias", "up_kernel", "up_bias")


def declared(method, options):
    """The trainable set of a method, written out apart from the code; None of a new method."""
    if method == "side":
        ladder = LAYER | {"gate", "norm/scale", "norm/bias", "up/kernel", "up/bias"}
        down = {f"{name}/{leaf}" for name in ("first", "down") for leaf in ("kernel", "bias")}
        return ladder if options.get("downsample") == "frozen" else ladder | down
    targets = options.get("targets", ("query", "value"))
    factors = "b" if options.get("train") == "b" else "ab"
    return {
        "full": ENCODER,
        "head": set(),
        "bitfit": {path for path in ENCODER if path.endswith("/bias")},
        "lora": {f"{target}/{x}" for target in targets for x in factors},
        "adapter": {f"{site}/{leaf}" for site in ("attention", "feed_forward") for leaf in ADAPTER},
        "reversible": {f"{branch}/{leaf}" for branch in ("first", "second") for leaf in ADAPTER},
    }.get(method)


WITH_BACKBONE = {"full": True, "bitfit": True} | dict.fromkeys(
    ("head", "lora", "adapter", "side", "reversible"), False
)
"""Whether a method trains parameters of the encoder itself."""


def flat(tree):
    return {"/".join(path): x for path, x in traverse_util.flatten_dict(tree).items()}


def summed(model, engine, microbatch_size, precompute):
    """The sum of per-example gradients of rows that are not left out, as a function."""

    def run(trainable, frozen, batch, is_left_out):
        return clipped_grad_sum(
            model.loss,
            trainable,
            frozen,
            batch,
            is_left_out,
            clipping=NO_CLIP,
            engine=engine,
            microbatch_size=microbatch_size,
            precompute=precompute,
        )

    return run


def written_out(model, trainable, frozen, batch):
    """Losses [B] of the whole batch and each row's gradient by itself; nothing is precomputed."""

    def losses(trainable):
        return model.loss(trainable, frozen, model.precompute(frozen, batch))

    values, pullback = jax.vjp(losses, trainable)
    return values, jax.lax.map(lambda row: pullback(row)[0], jnp.eye(len(values)))


@functools.lru_cache
def built(case, cfg, jit):
    """(model, its start, the sum by vmap, the batch written out)."""
    method, options = (CASES | DRAWING)[case]
    model = build(method, options, cfg, HEAD)
    run = jit(summed(model, "vmap", 5, model.precompute))
    return model, jit(model.init), run, jit(functools.partial(written_out, model))


@dataclasses.dataclass(frozen=True)
class Setting:
    """A case in float64, with trainables drawn away from their start."""

    model: Model
    run: Callable
    whole: Callable
    start: Params
    trainable: Params
    frozen: Params
    batch: Batch


@pytest.fixture
def setting(float64, fast_jit, sizes, weights, randomise, rows):
    """Makes the `Setting` of a case; programs are compiled once for all tests."""

    def make(case):
        cfg = sizes(dtype="float64")
        model, init, run, whole = built(case, cfg, fast_jit)
        start, frozen = init(jax.random.key(3), weights(cfg))
        start = jax.tree.map(lambda x: x.astype(jnp.float64), start)
        trainable = randomise(start, scale=0.1)
        return Setting(model, run, whole, start, trainable, frozen, rows())

    return make


ALL = np.zeros(5, bool)  # No row is left out.


# What is trained is what is in the norm.


@pytest.mark.checklist(26)
@every_case
def test_the_leaves_that_move_from_the_start_are_the_declared_ones(setting, case):
    s = setting(case)
    wanted = declared(*CASES[case])
    if wanted is not None:
        wanted = {f"tuning/{path}" for path in wanted}
        assert set(flat(s.start)) == wanted | OF_HEAD
    kept, now = jax.tree.map(np.array, s.frozen), s.start
    for _ in range(3):  # From a zero factor, only its partner moves in the first step.
        step, _ = s.run(now, s.frozen, s.batch, ALL)
        now = jax.tree.map(lambda x, g: x - 0.3 * g, now, step)
    still = {path for path, x in flat(now).items() if np.array_equal(x, flat(s.start)[path])}
    assert not {path for path in still if not path.endswith(BIAS_OF_KEY)}
    jax.tree.map(np.testing.assert_array_equal, s.frozen, kept)


@pytest.mark.checklist(26)
@every_case
def test_every_leaf_is_inside_the_norm_of_an_example(setting, case):
    s = setting(case)
    for row in (0, 2):  # The longest, and the one of a single token.
        gradient, aux = s.run(s.trainable, s.frozen, s.batch, np.arange(5) != row)
        squares = sum(np.sum(np.square(x)) for x in jax.tree.leaves(gradient))
        np.testing.assert_allclose(aux["norms"][row], np.sqrt(squares), rtol=1e-12)
        if row == 0:
            zero = {path for path, x in flat(gradient).items() if np.abs(x).max() < 1e-9}
            assert not {path for path in zero if not path.endswith(BIAS_OF_KEY)}


@pytest.mark.checklist(26)
@pytest.mark.parametrize("case", CASES)
def test_each_backbone_parameter_is_frozen_or_trained_and_never_both(weights, sizes, case):
    model = build(*CASES[case], sizes(), HEAD)
    program, shapes = jax.make_jaxpr(model.init, return_shape=True)(
        jax.random.key(0), weights(sizes())
    )
    given, out = program.jaxpr.invars[1:], program.jaxpr.outvars
    for leaf in given:  # Each is handed on, untouched, to exactly one place.
        assert sum(leaf is x for x in out) == 1
    trainable, frozen = jax.tree.unflatten(jax.tree.structure(shapes), out)
    assert set(frozen) == {"backbone", "drawn"}
    is_given = jax.tree.map(lambda x: any(x is leaf for leaf in given), (trainable, frozen))
    trained, kept = (set(jax.tree.leaves(x)) for x in (is_given[0], is_given[1]["backbone"]))
    assert kept <= {True} and not any(jax.tree.leaves(is_given[1]["drawn"]))
    assert (True in trained) == (len(jax.tree.leaves(frozen["backbone"])) < len(given))
    if (method := CASES[case][0]) in WITH_BACKBONE:
        assert (True in trained) == WITH_BACKBONE[method]


@pytest.mark.checklist(26)
@pytest.mark.parametrize("case", [*every_case.args[1], *DRAWING])
def test_what_depends_on_the_key_is_trainable_or_among_the_drawn(
    float64, fast_jit, weights, sizes, case
):
    """So a folder of the trainable and the drawn parameters is all that a run has made."""
    cfg = sizes(dtype="float64")
    init, params = built(case, cfg, fast_jit)[1], weights(cfg)
    (first, one), (second, two) = (init(jax.random.key(seed), params) for seed in (3, 4))
    jax.tree.map(np.testing.assert_array_equal, one["backbone"], two["backbone"])
    assert not np.array_equal(first["head"]["kernel"], second["head"]["kernel"])
    if case in ("lora b", "lora b all", "side frozen random"):  # The control: these do depend.
        differ = jax.tree.map(lambda a, b: not np.array_equal(a, b), one["drawn"], two["drawn"])
        assert any(jax.tree.leaves(differ))


@pytest.mark.checklist(30)
@pytest.mark.parametrize("case", CASES)
def test_no_start_is_given_data(sizes, case):
    model = build(*CASES[case], sizes(), HEAD)
    for made in (model.method, model):
        assert list(inspect.signature(made.init).parameters) == ["key", "params"]
    options = all_options(*CASES[case])
    assert vars(model.method) == {"config": sizes(), **options}  # It holds nothing else.
    assert all(type(value) in (int, float, str, tuple) for value in options.values())


# Every engine gives the same sum.

OFTEN = {
    *((method, 7, "ghost") for method in ("full", "side", "reversible")),
    ("full", 7, "book_keeping"),
    ("full", 1, "ghost"),
}
"""(method, tokens, engine) that are always tried; what `bitfit` and `head` train, these do, too.

`lora` is tried on decoders (`test_label_words.py`), `adapter` on one (`test_families.py`).

Both engines find norms alike. Between them these use parameters in every way: dense, in rows of a
table, in norms, twice in a map, in rows of one token.
"""


def clipped_cases():
    """Every (case, tokens, engine)."""
    for given in itertools.product(CASES, (7, 1), ("ghost", "book_keeping")):
        yield pytest.param(*given, marks=[pytest.mark.slow] * (given not in OFTEN))


LEFT_OUT = np.arange(5) == 3


def clipped(model, bound, scope, engine):
    """The clipped sum of rows that are not left out, as a function."""
    return functools.partial(
        clipped_grad_sum,
        model.loss,
        clipping=Clipping(bound, "abadi", scope),
        engine=engine,
        microbatch_size=3,
        precompute=model.precompute,
    )


def assert_sums_agree(got, wanted):
    """Leaf by leaf, to 1e-9 of the leaf or of the largest entry of all."""
    got, wanted = flat(got), flat(wanted)
    atol = 1e-9 * max(np.abs(x).max() for x in wanted.values())
    for path, x in wanted.items():
        np.testing.assert_allclose(got[path], x, rtol=1e-9, atol=atol, err_msg=path)


def padded_to(length, batch):
    """The batch with columns of nothing behind it."""
    return {
        name: np.pad(x, ((0, 0), (0, length - x.shape[1]))) if x.ndim == 2 else x
        for name, x in batch.items()
    }


@pytest.mark.checklist(16, 19, 24)
@pytest.mark.parametrize(("case", "tokens", "engine"), list(clipped_cases()))
def test_taps_give_the_clipped_sum_of_rows_written_out(
    setting, rows, fast_jit, case, tokens, engine
):
    s, batch = setting(case), rows(tokens=tokens)
    losses, gradients = jax.device_get(s.whole(s.trainable, s.frozen, padded_to(11, batch)))
    norms = np.sqrt(sum(np.square(x.reshape(5, -1)).sum(1) for x in jax.tree.leaves(gradients)))
    bound = float(np.median(norms))  # Some rows are clipped and some are not.
    got, aux = fast_jit(clipped(s.model, bound, "flat", engine))(
        s.trainable, s.frozen, batch, LEFT_OUT
    )
    for name, wanted in (("norms", norms), ("losses", losses)):
        np.testing.assert_allclose(aux[name], np.where(LEFT_OUT, 0, wanted), rtol=1e-9)
    factors = np.where(LEFT_OUT, 0, np.minimum(1, bound * (1 - ROUNDING_SLACK) / norms))
    assert_sums_agree(got, jax.tree.map(lambda x: np.einsum("b,b...->...", factors, x), gradients))


@pytest.mark.checklist(16, 19, 24)
@pytest.mark.parametrize(
    ("case", "engine"),
    [
        pytest.param(*given, marks=[pytest.mark.slow] * (given != ("full", "book_keeping")))
        for given in itertools.product(CASES, ("ghost", "book_keeping"))
    ],
)
def test_taps_clip_by_layer_as_instantiated_gradients_are(setting, fast_jit, once, case, engine):
    s = setting(case)
    arguments = (s.trainable, s.frozen, s.batch, LEFT_OUT)
    bound = float(np.median(s.run(*arguments)[1]["norms"]))
    by_vmap = fast_jit(clipped(s.model, bound, "per_layer", "vmap"))
    wanted, wanted_aux = once(("by layer", case), lambda: by_vmap(*arguments))
    got, aux = fast_jit(clipped(s.model, bound, "per_layer", engine))(*arguments)
    for name in ("norms", "losses"):
        np.testing.assert_allclose(aux[name], wanted_aux[name], rtol=1e-9)
    assert_sums_agree(got, wanted)


@pytest.mark.checklist(16, 19, 24)
@pytest.mark.parametrize("arithmetic", ["exact", pytest.param("float", marks=pytest.mark.slow)])
def test_signs_from_the_coins_of_a_batch_are_the_same_in_every_engine(
    float64, fast_jit, sizes, weights, randomise, rows, arithmetic
):
    options = {"coupling": "bdia", "scale": 0.5, "arithmetic": arithmetic}
    model = build("reversible", options, sizes(dtype="float64"), HEAD)
    start, frozen = fast_jit(model.init)(jax.random.key(3), weights(sizes()))
    assert model.needs_coins and set(start["tuning"]) == {"first"}
    coins = jax.random.bits(jax.random.key(1), (5, 2), jnp.uint32)
    batch, left_out = {**rows(), COINS: coins}, np.arange(5) == 3

    def of(engine):
        return functools.partial(summed(model, engine, 3, model.precompute), randomise(start))

    total = {engine: fast_jit(of(engine)) for engine in ("loop", "vmap", "ghost", "book_keeping")}
    wanted, other = (total["loop"](frozen, x, left_out) for x in (batch, {**batch, COINS: ~coins}))
    assert np.abs(wanted[1]["losses"] - other[1]["losses"])[:3].min() > 1e-6
    for engine in ("vmap", "ghost", "book_keeping"):
        assert_close(total[engine](frozen, batch, left_out), wanted)


@pytest.mark.checklist(8)
@pytest.mark.parametrize("case", ["full", pytest.param("reversible", marks=pytest.mark.slow)])
def test_ghost_in_bfloat16_keeps_every_row_within_its_bound(sizes, weights, randomise, rows, case):
    """Both of its pull-backs round alike, and what is clipped adds the bound (`test_bound.py`)."""
    model = build(*CASES[case], sizes(dtype="bfloat16"), HEAD)
    start, frozen = model.init(jax.random.key(3), weights(sizes()))
    trainable = jax.tree.map(lambda x: x.astype(jnp.float32), randomise(start, scale=0.1))
    run = jax.jit(
        functools.partial(
            clipped_grad_sum,
            model.loss,
            clipping=Clipping(1e-2, "abadi"),
            engine="ghost",
            microbatch_size=5,
            precompute=model.precompute,
        )
    )
    for row in range(5):
        total, aux = run(trainable, frozen, rows(), np.arange(5) != row)
        norm = np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(total)))
        assert aux["norms"][row] > 0.1
        assert 0.999 <= norm / 1e-2 <= 1.0


@pytest.mark.parametrize("case", METHODS)
def test_ghost_makes_one_forward_pass_of_every_method(sizes, weights, rows, monkeypatch, case):
    """Its second pull-back is the first with other factors in the taps, not one made anew."""
    found, real = [], tap_engines.refilled

    def refilled(*given):
        found.append(real(*given))
        return found[-1]

    monkeypatch.setattr(tap_engines, "refilled", refilled)
    model = build(*CASES[case], sizes(), HEAD)
    start, frozen = jax.eval_shape(model.init, jax.random.key(3), weights(sizes()))
    total = summed(model, "ghost", 5, model.precompute)
    jax.eval_shape(total, start, frozen, rows(), ALL)
    assert len(found) == 1 and found[0] is not None


# One loss per example.


@pytest.mark.checklist(23, 27)
@every_case
def test_another_row_changes_neither_loss_nor_gradient_of_this_one(setting, rows, case):
    s, others = setting(case), np.arange(5) != 1

    def changed(batch):
        return {
            **batch,
            "input_ids": batch["input_ids"].at[1].set(22 - batch["input_ids"][1]),
            "attention_mask": batch["attention_mask"].at[1].set(1),
            "labels": batch["labels"].at[1].set(2),
        }

    longer = rows(tokens=11)
    before, after = (s.whole(s.trainable, s.frozen, x) for x in (longer, changed(longer)))
    assert before[0].shape == (5,)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[others], b[others]), after, before)
    assert after[0][1] != before[0][1]
    one, two = (s.run(s.trainable, s.frozen, x, ALL)[1] for x in (s.batch, changed(s.batch)))
    for name in ("losses", "norms"):
        np.testing.assert_array_equal(two[name][others], one[name][others])
        assert two[name][1] != one[name][1]


@every_case
def test_a_row_without_a_real_token_has_a_finite_loss_and_gradient(setting, case):
    s = setting(case)
    empty = {**s.batch, "attention_mask": s.batch["attention_mask"].at[3].set(0)}
    aux, whole = (s.run(s.trainable, s.frozen, rows, ALL)[1] for rows in (empty, s.batch))
    assert 0.0 < aux["losses"][3] < np.inf and 0.0 < aux["norms"][3] < np.inf
    np.testing.assert_array_equal(aux["norms"][:3], whole["norms"][:3])


# Engines, lengths, dtypes, determinism.


def assert_close(got, wanted):
    """To 1e-9 of each leaf; of a leaf that is zero but for rounding, of 1e-3 of the largest."""
    (got, got_aux), (wanted, aux) = got, wanted
    for name in ("losses", "norms"):
        np.testing.assert_allclose(got_aux[name], aux[name], rtol=1e-9)
    least = 1e-3 * max(np.abs(x).max() for x in jax.tree.leaves(wanted))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=0.0, atol=1e-9 * max(np.abs(b).max(), least))


@pytest.mark.checklist(23, 28)
@every_case
def test_the_batch_written_out_gives_the_same_padded_to_any_length(setting, rows, case):
    s, longer = setting(case), rows(tokens=11)
    assert np.any(longer["input_ids"][:, 7:])  # Whatever ids stand under the padding.
    losses, gradients = s.whole(s.trainable, s.frozen, longer)
    squares = [np.sum(np.square(x.reshape(5, -1)), axis=1) for x in jax.tree.leaves(gradients)]
    sums = jax.tree.map(lambda x: x.sum(0), gradients)
    wanted = sums, {"losses": losses, "norms": np.sqrt(sum(squares))}
    assert_close(s.run(s.trainable, s.frozen, s.batch, ALL), wanted)


@pytest.mark.checklist(19)
@pytest.mark.slow
@pytest.mark.parametrize(("engine", "size"), [("vmap", 1), ("vmap", 3), ("loop", 5)])
@pytest.mark.parametrize("case", CASES)
def test_every_engine_and_microbatch_size_gives_the_same(setting, fast_jit, case, engine, size):
    s = setting(case)
    other = fast_jit(summed(s.model, engine, size, s.model.precompute))
    arguments = (s.trainable, s.frozen, s.batch, ALL)
    assert_close(s.run(*arguments), other(*arguments))


@every_case
def test_bfloat16_compute_gives_float32_gradients(sizes, weights, rows, case):
    model, batch = build(*CASES[case], sizes(dtype="bfloat16"), HEAD), rows()
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), weights(sizes()))
    trainable, frozen = jax.eval_shape(model.init, jax.random.key(0), params)
    trainable = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32), trainable)
    run = summed(model, "vmap", 5, model.precompute)
    program, shapes = jax.make_jaxpr(run, return_shape=True)(trainable, frozen, batch, ALL)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    assert "bf16[" in str(program)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_gradient_in_bfloat16_is_near_the_one_in_float64(setting, fast_jit, sizes, case):
    s = setting(case)
    wanted, _ = s.run(s.trainable, s.frozen, s.batch, ALL)
    run = built(case, sizes(dtype="bfloat16"), fast_jit)[2]
    trainable = jax.tree.map(lambda x: x.astype(jnp.float32), s.trainable)
    frozen = jax.tree.map(lambda x: x.astype(jnp.bfloat16), s.frozen)
    with jax.enable_x64(False):
        got, _ = run(trainable, frozen, s.batch, ALL)
    a, b = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(t)]) for t in (got, wanted))
    cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
    assert 0.99 < cosine < 0.9999999


@pytest.mark.checklist(28)
@every_case
def test_nothing_is_drawn_at_random_after_the_start(setting, weights, sizes, case):
    s, draws = setting(case), ("random", "threefry")
    start = str(jax.make_jaxpr(s.model.init)(jax.random.key(0), weights(sizes())))
    assert any(word in start for word in draws)
    arguments = (s.trainable, s.frozen, s.batch, ALL)
    program = str(jax.make_jaxpr(s.run.__wrapped__)(*arguments))
    assert not any(word in program for word in draws)
    jax.tree.map(np.testing.assert_array_equal, s.run(*arguments), s.run(*arguments))
