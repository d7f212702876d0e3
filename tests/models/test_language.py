"""Claims about language models: every tuning method on both decoders."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memarc.batches import COINS
from memarc.evaluation import beam
from memarc.evaluation.decode import decode
from memarc.evaluation.decoding import Decoder, DecodingConfig
from memarc.models import backbone, language
from memarc.models.build import build
from memarc.models.families.known import make_config
from memarc.models.head import HeadConfig
from memarc.models.language import LanguageConfig
from memarc.models.methods import METHODS
from memarc.ops.uses import NeedsTaps
from memarc.privacy.clipping import Clipping
from memarc.privacy.engines import clipped_grad_sum

GPT2 = make_config(
    "gpt2",
    vocab_size=23,
    width=24,
    layers=3,
    heads=3,
    feed_forward=40,
    max_positions=13,
    norm_epsilon=1e-5,
    activation="gelu_new",
    dtype="float32",
)
LLAMA = make_config(
    "llama",
    vocab_size=23,
    width=48,
    layers=3,
    heads=6,
    kv_heads=3,
    feed_forward=40,
    max_positions=13,
    norm_epsilon=1e-5,
    activation="silu",
    dtype="float32",
    has_table=True,
)
DECODERS = {"gpt2": GPT2, "llama": LLAMA}
LANGUAGE = LanguageConfig(chunk=3, smoothing=0.1)
FLOAT = {"arithmetic": "float"}
VARIANTS = {name: (name, {}) for name in METHODS} | {
    "lora": ("lora", {"rank": 2, "targets": ("query", "value", "output")}),
    "head": ("head", {}),
    "bitfit": ("bitfit", {}),
    "full": ("full", {}),
    "adapter": ("adapter", {"bottleneck": 5}),
    "side": ("side", {"reduction": 2, "layers": (0, 2)}),
    "side frozen": ("side", {"reduction": 4, "downsample": "frozen"}),
    "reversible": ("reversible", {"bottleneck": 5}),
    "reversible float": ("reversible", FLOAT | {"bottleneck": 5, "layers": 2}),
    "meft1": ("reversible", {"coupling": "meft1", "bottleneck": 5, "end": "mean"}),
    "meft2": ("reversible", FLOAT | {"coupling": "meft2", "bottleneck": 5}),
    "meft3": ("reversible", {"coupling": "meft3", "bottleneck": 5}),
    "bdia": ("reversible", {"coupling": "bdia", "scale": 0.5, "bottleneck": 5}),
}
CASES = [
    (kind, case)
    for kind, case in itertools.product(DECODERS, VARIANTS)
    if (kind, case) not in {("llama", "bitfit"), ("llama", "side frozen")}
]
# One of each kind of path runs always, the others when asked for.
QUICK = {
    ("gpt2", "lora"),
    ("gpt2", "side"),
    ("gpt2", "reversible"),
    ("gpt2", "meft3"),
    ("gpt2", "bdia"),
    ("llama", "full"),
    ("llama", "side"),
    ("llama", "reversible float"),
}


KNOWN = ("full", "head", "bitfit", "lora", "adapter", "side", "reversible")
QUICK |= {("gpt2", name) for name in METHODS if name not in KNOWN}


def marked(cases):
    return [pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow) for case in cases]


every_case = pytest.mark.parametrize(("kind", "case"), marked(CASES))


def wide(kind):
    """The decoder in float64, once the fixture allows that."""
    return dataclasses.replace(DECODERS[kind], dtype="float64")


B, T = 4, 7
LENGTHS = np.array([7, 5, 2, 6])
PROMPTS = np.array([3, 2, 1, 6])  # The last row has no target.


@functools.lru_cache
def built(kind, case, jit):
    """(model, its compiled start), once for all tests."""
    method, options = VARIANTS[case]
    model = build(method, options, wide(kind), LANGUAGE)
    return model, jit(model.init)


@pytest.fixture
def make(float64, fast_jit, randomise):
    """(model, trainable drawn away from its start, frozen) of a case."""

    def made(kind, case):
        model, init = built(kind, case, fast_jit)
        shapes = jax.eval_shape(lambda: backbone.init(wide(kind), jax.random.key(0)))
        params = randomise(shapes, seed=1)
        trainable, frozen = init(jax.random.key(3), params)
        return model, randomise(trainable, scale=0.1), frozen

    return made


def rows(tokens=T):
    rng = np.random.default_rng(2)
    places = np.arange(tokens)[None]
    ids = rng.integers(0, 23, (B, tokens), np.int32)
    mask = places < np.minimum(LENGTHS, tokens)[:, None]
    is_target = mask & (places >= PROMPTS[:, None])
    return {
        "input_ids": jnp.asarray(ids),
        "attention_mask": jnp.asarray(mask.astype(np.int32)),
        "is_target": jnp.asarray(is_target.astype(np.int32)),
    }


def with_coins(model, batch):
    if not model.needs_coins:
        return batch
    return {**batch, COINS: jnp.arange(2 * B, dtype=jnp.uint32).reshape(B, 2)}


# The loss.


@every_case
def test_the_loss_is_the_mean_over_targets_of_the_definition(make, fast_jit, kind, case):
    """Against next-token logits of every prefix, each from the cached path's own head."""
    model, trainable, frozen = make(kind, case)
    batch = rows()

    @fast_jit
    def run(trainable, frozen, batch):
        states, _ = model.extend(
            trainable, frozen, batch["input_ids"], jnp.zeros(B, jnp.int32), model.empty_cache(B, T)
        )
        flat = states.reshape(B * T, -1)
        logits = model.logits(trainable, frozen, flat).reshape(B, T, -1)
        prepared = model.precompute(frozen, batch)
        return (
            logits,
            model.loss(trainable, frozen, prepared),
            model.surprise(trainable, frozen, batch),
        )

    logits, losses, (nats, counts) = run(trainable, frozen, batch)
    log_p = np.asarray(jax.nn.log_softmax(logits[:, :-1]))
    targets, marks = np.asarray(batch["input_ids"][:, 1:]), np.asarray(batch["is_target"][:, 1:])
    picked = np.take_along_axis(log_p, targets[..., None], -1)[..., 0]
    smoothed = 0.9 * picked + 0.1 * log_p.mean(-1)
    wanted = -(smoothed * marks).sum(1) / np.maximum(marks.sum(1), 1)
    assert wanted[3] == 0.0 and (wanted[:3] > 0.5).all()
    # Exact streams of one token and of a whole row may round an adapter otherwise.
    tolerance = 1e-9 if "arithmetic" in VARIANTS[case][1] or case == "bdia" else 1e-3
    tolerance = tolerance if VARIANTS[case][0] == "reversible" else 1e-9
    np.testing.assert_allclose(losses, wanted, rtol=tolerance)
    np.testing.assert_allclose(nats, -(picked * marks).sum(1), rtol=tolerance)
    np.testing.assert_array_equal(counts, marks.sum(1))


# Decoding with a cache.


@every_case
def test_states_of_a_growing_cache_are_those_of_the_whole_row(make, fast_jit, kind, case):
    """Prompts of different lengths, padded, then one token at a time in each row's own slots."""
    model, trainable, frozen = make(kind, case)
    ids = rows(10)["input_ids"]
    prompts = jnp.array([4, 1, 3, 2], jnp.int32)
    extend = fast_jit(model.extend)
    whole, _ = extend(trainable, frozen, ids, jnp.zeros(B, jnp.int32), model.empty_cache(B, 10))
    cache = jax.tree.map(lambda x: x + 7.0, model.empty_cache(B, 12))  # Garbage in free slots.
    padded = jnp.where(jnp.arange(4, dtype=jnp.int32)[None] < prompts[:, None], ids[:, :4], 5)
    _, cache = extend(trainable, frozen, padded, jnp.zeros(B, jnp.int32), cache)
    for step in range(6):
        tokens = jnp.take_along_axis(ids, prompts[:, None] + step, axis=1)
        states, cache = extend(trainable, frozen, tokens, prompts + step, cache)
        wanted = jnp.take_along_axis(whole, (prompts + step)[:, None, None], axis=1)
        np.testing.assert_allclose(states, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "case"), [("gpt2", "lora"), ("llama", "side"), ("gpt2", "meft3")])
def test_beams_through_a_cache_have_the_probability_of_whole_rows(
    make, fast_jit, kind, case, monkeypatch
):
    """Of the best beam of each row; without each beam's own cache it is found out."""
    model, trainable, frozen = make(kind, case)
    lengths, most = jnp.array([4, 1, 3, 2], jnp.int32), 6
    ids = rows(4)["input_ids"]
    config = DecodingConfig("beam", most, 4, 0.0, 0, 1.0, 1.0, 0)

    def search(trainable, frozen):
        reader = Decoder(
            functools.partial(model.extend, trainable, frozen),
            functools.partial(model.logits, trainable, frozen),
            model.empty_cache,
        )
        keys = jax.random.split(jax.random.key(0), B)
        return decode(reader, config, ids, lengths, 0, keys)

    @fast_jit
    def whole_rows(trainable, frozen, ids):
        start, cache = jnp.zeros(B, jnp.int32), model.empty_cache(B, 10)
        states, _ = model.extend(trainable, frozen, ids, start, cache)
        logits = model.logits(trainable, frozen, states.reshape(B * 10, -1))
        return jax.nn.log_softmax(logits).reshape(B, 10, -1)

    def error():
        found = jax.device_get(fast_jit(lambda *args: search(*args))(trainable, frozen))
        row, place = np.arange(B)[:, None], np.asarray(lengths)[:, None] + np.arange(most)
        filled = np.zeros((B, 10), np.int32)
        filled[:, :4] = ids
        filled[row, place] = found.tokens
        log_p = np.asarray(whole_rows(trainable, frozen, jnp.asarray(filled)))
        gained = log_p[row, place - 1, found.tokens]
        counted = np.arange(most) < (found.lengths + found.is_finished)[:, None]
        return np.abs(found.log_probability - (gained * counted).sum(1)).max()

    assert error() < (1e-3 if case == "meft3" else 1e-9)  # Exact streams round.
    monkeypatch.setattr(beam, "reorder", lambda cache, parents: cache)
    assert error() > 1e-2


# The start.


@pytest.mark.parametrize("kind", DECODERS)
@pytest.mark.parametrize("case", ["lora", "adapter", "side"])
def test_training_starts_from_the_pre_trained_model_exactly(
    float64, fast_jit, randomise, kind, case
):
    config, (method, options) = wide(kind), VARIANTS[case]
    params = randomise(jax.eval_shape(lambda: backbone.init(config, jax.random.key(0))), seed=1)
    batch = rows()

    @fast_jit
    def surprise(params, batch):
        found = []
        for name, chosen in (("head", {}), (method, options)):
            model = build(name, chosen, config, LANGUAGE)
            trainable, frozen = model.init(jax.random.key(3), params)
            found.append(model.surprise(trainable, frozen, batch)[0])
        return found

    plain, tuned = surprise(params, batch)
    np.testing.assert_allclose(tuned, plain, rtol=1e-12)


# Engines.


def clipped_sum(model, trainable, frozen, batch, engine, jit, microbatch=B):
    run = functools.partial(
        clipped_grad_sum,
        model.loss,
        clipping=Clipping(0.05, "abadi"),
        engine=engine,
        microbatch_size=microbatch,
        precompute=model.precompute,
    )
    return jit(run)(trainable, frozen, batch, jnp.array([False, False, False, False]))


def assert_same_sum(got, wanted):
    (got, aux), (wanted, other) = got, wanted
    largest = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(wanted))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * largest), got, wanted
    )
    np.testing.assert_allclose(aux["norms"], other["norms"], rtol=1e-9)
    np.testing.assert_allclose(aux["losses"], other["losses"], rtol=1e-9)


ENGINE_CASES = [
    ("gpt2", "lora"),
    ("gpt2", "head"),
    ("gpt2", "bitfit"),
    ("gpt2", "side"),
    ("gpt2", "reversible"),
    ("llama", "full"),
    ("llama", "head"),
    ("llama", "adapter"),
    ("llama", "reversible float"),
    ("gpt2", "meft3"),
]


OFTEN = (("gpt2", "lora"), ("llama", "full"), ("gpt2", "reversible"))


@pytest.mark.parametrize(
    ("kind", "case"),
    [
        pytest.param(*given, marks=() if given in OFTEN else pytest.mark.slow)
        for given in ENGINE_CASES
    ],
)
def test_every_engine_gives_the_same_sum(make, fast_jit, kind, case):
    model, trainable, frozen = make(kind, case)
    batch = with_coins(model, rows())
    wanted = clipped_sum(model, trainable, frozen, batch, "loop", fast_jit)
    assert (wanted[1]["norms"][:3] > 0.05).all() and wanted[1]["norms"][3] == 0.0
    for engine in ("vmap", "ghost", "book_keeping"):
        got = clipped_sum(model, trainable, frozen, batch, engine, fast_jit, 3)
        assert_same_sum(got, wanted)


def test_a_trained_table_that_is_tied_is_refused_by_taps_and_summed_by_vmap(make, fast_jit):
    model, trainable, frozen = make("gpt2", "full")
    batch = rows()
    wanted = clipped_sum(model, trainable, frozen, batch, "loop", fast_jit)
    assert_same_sum(clipped_sum(model, trainable, frozen, batch, "vmap", fast_jit), wanted)
    for engine in ("ghost", "book_keeping"):
        with pytest.raises(NeedsTaps, match=r"embeddings/word in 2 places.*cross term.*'vmap'"):
            clipped_sum(model, trainable, frozen, batch, engine, fast_jit)


@pytest.mark.checklist(6)
@pytest.mark.parametrize(("kind", "case"), [("gpt2", "head"), ("llama", "full"), ("gpt2", "lora")])
def test_ghost_in_bfloat16_keeps_every_row_within_its_bound(fast_jit, randomise, kind, case):
    """Also where every norm that is taken is of float32 outputs: last norm and output table."""
    config, (method, options) = DECODERS[kind], VARIANTS[case]
    config = dataclasses.replace(config, dtype="bfloat16")
    model = build(method, options, config, LANGUAGE)
    params = randomise(jax.eval_shape(lambda: backbone.init(config, jax.random.key(0))), seed=1)
    trainable, frozen = model.init(jax.random.key(3), params)
    trainable, bound = randomise(trainable, scale=0.1), 0.01
    run = fast_jit(
        functools.partial(
            clipped_grad_sum,
            model.loss,
            clipping=Clipping(bound, "abadi"),
            engine="ghost",
            microbatch_size=B,
            precompute=model.precompute,
        )
    )
    for row in range(3):
        is_padding = jnp.arange(B, dtype=jnp.int32) != row
        total, aux = run(trainable, frozen, rows(), is_padding)
        assert aux["norms"][row] > 2 * bound
        size = jnp.sqrt(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(total)))
        assert float(size) <= bound


# Several sequences an example.


def grouped_rows(places, present):
    """Examples made of the rows at ``places`` [B, R]; absent sequences have no token at all."""
    there = jnp.asarray(present, jnp.int32)[..., None]
    batch = {name: x[np.asarray(places)] for name, x in rows().items()}
    return batch | {name: batch[name] * there for name in ("attention_mask", "is_target")}


def sums_by_engine(model, trainable, frozen, batch, jit):
    """Clipped sums of examples by every engine."""
    count = len(batch["input_ids"])
    if model.needs_coins:
        batch = {**batch, COINS: jnp.arange(2 * count, dtype=jnp.uint32).reshape(count, 2)}

    def summed(engine):
        run = functools.partial(
            clipped_grad_sum,
            model.loss,
            clipping=Clipping(0.05, "abadi"),
            engine=engine,
            microbatch_size=count,
            precompute=model.precompute,
        )
        return jit(run)(trainable, frozen, batch, jnp.zeros(count, bool))

    return {engine: summed(engine) for engine in ("loop", "vmap", "ghost", "book_keeping")}


@pytest.mark.parametrize(
    "case",
    [
        "lora",
        "reversible",
        *(
            pytest.param(x, marks=pytest.mark.slow)
            for x in ("bdia", "side", "meft3", "reversible float")
        ),
    ],
)
def test_an_example_of_several_sequences_has_their_mean_loss(make, fast_jit, case):
    model, trainable, frozen = make("gpt2", case)
    grouped = grouped_rows([[0, 1], [2, 2], [3, 0]], [[1, 1], [1, 0], [1, 1]])  # B 3, R 2.

    def losses(trainable, frozen, batch):
        return model.loss(trainable, frozen, model.precompute(frozen, batch))

    each = fast_jit(losses)(trainable, frozen, rows())
    got = fast_jit(losses)(trainable, frozen, grouped)
    # Row 3 has no target, so the last example is worth its other sequence.
    np.testing.assert_allclose(got, [(each[0] + each[1]) / 2, each[2], each[0]], rtol=1e-4)
    sums = sums_by_engine(model, trainable, frozen, grouped, fast_jit)
    for engine in ("vmap", "ghost", "book_keeping"):
        assert_same_sum(sums[engine], sums["loop"])


@pytest.mark.checklist(8)
def test_an_example_whose_streams_leave_the_range_silences_itself_alone(make, fast_jit):
    """As many sequences as examples, so that a mask on the wrong axis would not be noticed."""
    model, trainable, frozen = make("gpt2", "reversible")
    grouped = grouped_rows([[0, 1], [1, 2]], [[1, 1], [1, 1]])
    ids = grouped["input_ids"].at[0, 1, 0].set(22).at[1].set(grouped["input_ids"][1] % 22)
    grouped["input_ids"] = ids.at[0, 0].set(ids[0, 0] % 22)
    frozen = jax.tree.map(lambda x: x, frozen)
    table = frozen["backbone"]["embeddings"]["word"]
    frozen["backbone"]["embeddings"]["word"] = table.at[22].set(1e9)
    for total, aux in sums_by_engine(model, trainable, frozen, grouped, fast_jit).values():
        assert aux["norms"][0] == 0.0 and aux["norms"][1] > 0.05
        size = float(jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(total))))
        assert size == pytest.approx(0.05, rel=1e-4)


# Refusals.


def test_an_encoder_is_no_language_model_and_a_decoders_first_token_says_nothing(sizes):
    with pytest.raises(ValueError, match="bert backbone is an encoder; generation needs"):
        build("lora", {}, sizes(), LANGUAGE)
    with pytest.raises(ValueError, match="in a gpt2 decoder the first token reads no other"):
        build("lora", {}, GPT2, HeadConfig("first", 2))


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("bitfit", {}, "a llama backbone has none"),
        ("side", {"reduction": 8}, "must divide the number of rotary pairs of a head 4"),
        ("unknown", {}, "Unknown method 'unknown'; choose one of"),
    ],
)
def test_a_method_that_does_not_fit_says_why(method, options, message):
    with pytest.raises(ValueError, match=message):
        build(method, options, LLAMA, LANGUAGE)


@pytest.mark.parametrize(
    ("given", "message"), [((0, 0.0), "chunk is 0"), ((4, 1.0), "smoothing is 1.0")]
)
def test_bad_choices_of_the_loss_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        LanguageConfig(*given)


def test_mean_weights_by_hand():
    marks = jnp.array([[[0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]], [[0] * 4] * 3], jnp.int32)
    wanted = np.zeros((2, 3, 4))
    wanted[0, 0, 1] = wanted[0, 0, 2] = 0.25
    wanted[0, 2, 0] = 0.5
    np.testing.assert_array_equal(language.mean_weights(marks), wanted)
