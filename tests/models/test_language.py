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
from memarc.models import language
from memarc.models.build import build
from memarc.models.families.known import make_config
from memarc.models.head import HeadConfig
from memarc.models.language import LanguageConfig
from memarc.models.methods import METHODS
from memarc.ops.uses import NeedsTaps
from memarc.privacy.clipping import Clipping
from memarc.privacy.engines import clipped_grad_sum
from tests.backbone_shapes import shapes_of

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
    "meft3 float": ("reversible", FLOAT | {"coupling": "meft3", "bottleneck": 5, "layers": 2}),
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
    ("gpt2", "reversible"),
    ("gpt2", "bdia"),
    ("llama", "full"),
    ("llama", "side"),
}


KNOWN = ("full", "head", "bitfit", "lora", "adapter", "side", "reversible")
QUICK |= {("gpt2", name) for name in METHODS if name not in KNOWN}


def marked(cases):
    return [pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow) for case in cases]


every_case = pytest.mark.parametrize(("kind", "case"), marked(CASES))


def wide(kind):
    """The decoder in float64, once the fixture allows that."""
    return dataclasses.replace(DECODERS[kind], dtype="float64")


B, T = 4, 9
LENGTHS = np.array([7, 5, 2, 6])
PROMPTS = np.array([3, 2, 1, 6])  # The last row has no target.
BEGUN = np.array([4, 1, 3, 2], np.int32)  # Tokens of each row that a cache begins with,
GROWN = 5  # and how many follow one by one.
SURPRISED = ("lora", "full")  # Cases whose summed nats are asked for as well.


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
        shapes = shapes_of(wide(kind))
        params = randomise(shapes, seed=1)
        trainable, frozen = init(jax.random.key(3), params)
        return model, randomise(trainable, scale=0.1), frozen

    return made


def rows():
    rng = np.random.default_rng(2)
    places = np.arange(T)[None]
    ids = rng.integers(0, 23, (B, T), np.int32)
    mask = places < LENGTHS[:, None]
    is_target = mask & (places >= PROMPTS[:, None])
    return {
        "input_ids": ids,
        "attention_mask": mask.astype(np.int32),
        "is_target": is_target.astype(np.int32),
    }


def with_coins(model, batch):
    if not model.needs_coins:
        return batch
    count = len(batch["input_ids"])
    return {**batch, COINS: np.arange(2 * count, dtype=np.uint32).reshape(count, 2)}


@functools.lru_cache
def compiled(kind, case, jit):
    """All that the tests of losses and states ask of a case, as one program."""
    model, _ = built(kind, case, jit)

    def run(trainable, frozen, batch):
        ids, start = batch["input_ids"], jnp.zeros(B, jnp.int32)
        whole, _ = model.extend(trainable, frozen, ids, start, model.empty_cache(B, T))
        logits = model.logits(trainable, frozen, whole.reshape(B * T, -1)).reshape(B, T, -1)

        # Garbage in free slots and where a prompt is padded.
        cache = jax.tree.map(lambda x: x + 7.0, model.empty_cache(B, T + 2))
        padded = jnp.where(jnp.arange(4, dtype=jnp.int32)[None] < BEGUN[:, None], ids[:, :4], 5)
        _, cache = model.extend(trainable, frozen, padded, start, cache)

        def step(cache, number):
            tokens = jnp.take_along_axis(ids, BEGUN[:, None] + number, axis=1)
            states, cache = model.extend(trainable, frozen, tokens, BEGUN + number, cache)
            return cache, states[:, 0]

        _, grown = jax.lax.scan(step, cache, jnp.arange(GROWN, dtype=jnp.int32))
        return {
            "log_p": jax.nn.log_softmax(logits[:, :-1]),
            "losses": model.loss(trainable, frozen, model.precompute(frozen, batch)),
            # Of losses it is the sum: states are made alike.
            "surprise": model.surprise(trainable, frozen, batch) if case in SURPRISED else None,
            "whole": whole,
            "grown": grown,  # [steps, B, D]
        }

    return jit(run)


# The loss.


@every_case
def test_the_loss_is_the_mean_over_targets_of_the_definition(make, fast_jit, kind, case):
    """Against next-token logits of every prefix, each from the cached path's own head."""
    _, trainable, frozen = make(kind, case)
    batch = rows()
    found = compiled(kind, case, fast_jit)(trainable, frozen, batch)
    log_p, losses = np.asarray(found["log_p"]), found["losses"]
    targets, marks = np.asarray(batch["input_ids"][:, 1:]), np.asarray(batch["is_target"][:, 1:])
    picked = np.take_along_axis(log_p, targets[..., None], -1)[..., 0]
    smoothed = 0.9 * picked + 0.1 * log_p.mean(-1)
    wanted = -(smoothed * marks).sum(1) / np.maximum(marks.sum(1), 1)
    assert wanted[3] == 0.0 and (wanted[:3] > 0.5).all()
    # Exact streams of one token and of a whole row may round an adapter otherwise.
    tolerance = 1e-9 if "arithmetic" in VARIANTS[case][1] or case == "bdia" else 1e-3
    tolerance = tolerance if VARIANTS[case][0] == "reversible" else 1e-9
    np.testing.assert_allclose(losses, wanted, rtol=tolerance)
    if case in SURPRISED:
        nats, counts = found["surprise"]
        np.testing.assert_allclose(nats, -(picked * marks).sum(1), rtol=tolerance)
        np.testing.assert_array_equal(counts, marks.sum(1))


# Decoding with a cache.


@every_case
def test_states_of_a_growing_cache_are_those_of_the_whole_row(make, fast_jit, kind, case):
    """Prompts of different lengths, padded, then one token at a time in each row's own slots."""
    _, trainable, frozen = make(kind, case)
    found = compiled(kind, case, fast_jit)(trainable, frozen, rows())
    places = np.asarray(BEGUN) + np.arange(GROWN)[:, None]
    wanted = np.asarray(found["whole"])[np.arange(B), places]
    np.testing.assert_allclose(found["grown"], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "case"), [("llama", "side"), ("gpt2", "meft3")])
def test_beams_through_a_cache_have_the_probability_of_whole_rows(
    make, fast_jit, kind, case, monkeypatch
):
    """Of the best beam of each row; without each beam's own cache it is found out."""
    model, trainable, frozen = make(kind, case)
    ids, most = rows()["input_ids"][:, :4], 6
    config = DecodingConfig("beam", most, 4, 0.0, 0, 1.0, 1.0, 0)
    own = beam.reorder

    @fast_jit
    def search(trainable, frozen, is_own):
        """What the best beams say of their tokens, and what whole rows say."""

        def reorder(cache, parents):
            kept = own(cache, parents)
            return jax.tree.map(lambda new, old: jnp.where(is_own, new, old), kept, cache)

        monkeypatch.setattr(beam, "reorder", reorder)
        reader = Decoder(
            functools.partial(model.extend, trainable, frozen),
            functools.partial(model.logits, trainable, frozen),
            model.empty_cache,
        )
        found = decode(reader, config, ids, BEGUN, 0, jax.random.split(jax.random.key(0), B))
        row = jnp.arange(B)[:, None]
        place = BEGUN[:, None] + jnp.arange(most, dtype=jnp.int32)[None]
        filled = jnp.zeros((B, 10), jnp.int32).at[:, :4].set(ids).at[row, place].set(found.tokens)
        start = jnp.zeros(B, jnp.int32)
        states, _ = model.extend(trainable, frozen, filled, start, model.empty_cache(B, 10))
        logits = model.logits(trainable, frozen, states.reshape(B * 10, -1)).reshape(B, 10, -1)
        gained = jax.nn.log_softmax(logits)[row, place - 1, found.tokens]
        return found, gained

    def error(is_own):
        found, gained = jax.device_get(search(trainable, frozen, is_own))
        counted = np.arange(most) < (found.lengths + found.is_finished)[:, None]
        return np.abs(found.log_probability - (gained * counted).sum(1)).max()

    assert error(True) < (1e-3 if case == "meft3" else 1e-9)  # Exact streams round.
    assert error(False) > 1e-2


# The start.


@pytest.mark.parametrize("kind", DECODERS)
def test_training_starts_from_the_pre_trained_model_exactly(float64, fast_jit, randomise, kind):
    config = wide(kind)
    params = randomise(shapes_of(config), seed=1)

    @fast_jit
    def surprise(params, batch):
        found = {}
        for case in ("head", "lora", "adapter", "side"):
            model = build(*VARIANTS[case], config, LANGUAGE)
            trainable, frozen = model.init(jax.random.key(3), params)
            found[case] = model.surprise(trainable, frozen, batch)[0]
        return found

    found = surprise(params, rows())
    plain = found.pop("head")
    for case, tuned in found.items():
        np.testing.assert_allclose(tuned, plain, rtol=1e-12, err_msg=case)


# Engines.


@functools.lru_cache
def summing(kind, case, engine, jit):
    """``(trainable, frozen, batch, is_padding) -> (clipped sum, aux)`` of a case, compiled."""
    model, _ = built(kind, case, jit)
    return jit(
        functools.partial(
            clipped_grad_sum,
            model.loss,
            clipping=Clipping(0.05, "abadi"),
            engine=engine,
            microbatch_size=3,
            precompute=model.precompute,
        )
    )


def assert_same_sum(got, wanted):
    (got, aux), (wanted, other) = got, wanted
    largest = max(np.abs(x).max() for x in jax.tree.leaves(wanted))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9 * largest), got, wanted
    )
    np.testing.assert_allclose(aux["norms"], other["norms"], rtol=1e-9)
    np.testing.assert_allclose(aux["losses"], other["losses"], rtol=1e-9)


ENGINE_CASES = [
    (*case, engine)
    for case in (
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
    )
    for engine in ("vmap", "ghost", "book_keeping")
]
# All parameters of a decoder; other methods by default with several sequences an example, below.
OFTEN = {("llama", "full", "ghost"), ("llama", "full", "book_keeping")}


@pytest.mark.parametrize(
    ("kind", "case", "engine"),
    [pytest.param(*x, marks=() if x in OFTEN else pytest.mark.slow) for x in ENGINE_CASES],
)
def test_every_engine_gives_the_same_sum(make, fast_jit, kind, case, engine):
    model, trainable, frozen = make(kind, case)
    given = (trainable, frozen, with_coins(model, rows()), np.zeros(B, bool))
    wanted = summing(kind, case, "loop", fast_jit)(*given)
    assert (wanted[1]["norms"][:3] > 0.05).all() and wanted[1]["norms"][3] == 0.0
    assert_same_sum(summing(kind, case, engine, fast_jit)(*given), wanted)


def test_a_trained_table_that_is_tied_is_refused_by_taps_and_summed_by_vmap(make, fast_jit):
    _, trainable, frozen = make("gpt2", "full")
    given = (trainable, frozen, rows(), np.zeros(B, bool))
    loop, vmap, *taps = (
        summing("gpt2", "full", engine, fast_jit)
        for engine in ("loop", "vmap", "ghost", "book_keeping")
    )
    assert_same_sum(vmap(*given), loop(*given))
    for summed in taps:
        with pytest.raises(NeedsTaps, match=r"embeddings/word in 2 places.*cross term.*'vmap'"):
            summed(*given)


@pytest.mark.checklist(6)
@pytest.mark.parametrize(("kind", "case"), [("gpt2", "head"), ("llama", "full")])
def test_ghost_in_bfloat16_keeps_every_row_within_its_bound(fast_jit, randomise, kind, case):
    """Also where every norm that is taken is of float32 outputs: last norm and output table."""
    config, (method, options) = DECODERS[kind], VARIANTS[case]
    config = dataclasses.replace(config, dtype="bfloat16")
    model = build(method, options, config, LANGUAGE)
    params = randomise(shapes_of(config), seed=1)
    trainable, frozen = fast_jit(model.init)(jax.random.key(3), params)
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
        is_padding = np.arange(B) != row
        total, aux = run(trainable, frozen, rows(), is_padding)
        assert aux["norms"][row] > 2 * bound
        size = np.sqrt(sum(np.sum(np.square(np.float64(x))) for x in jax.tree.leaves(total)))
        assert size <= bound


# Several sequences an example.


def grouped_rows(places, present):
    """Examples made of the rows at ``places`` [B, R]; absent sequences have no token at all."""
    there = np.asarray(present, np.int32)[..., None]
    batch = {name: x[np.asarray(places)] for name, x in rows().items()}
    return batch | {name: batch[name] * there for name in ("attention_mask", "is_target")}


GROUPED_CASES = [
    (case, engine)
    for case in ("lora", "reversible", "bdia", "side", "meft3", "reversible float")
    for engine in ("vmap", "ghost", "book_keeping")
]
OFTEN_GROUPED = {("lora", "ghost")}


@pytest.mark.parametrize(
    ("case", "engine"),
    [pytest.param(*x, marks=() if x in OFTEN_GROUPED else pytest.mark.slow) for x in GROUPED_CASES],
)
def test_an_example_of_several_sequences_has_their_mean_loss(make, fast_jit, case, engine):
    model, trainable, frozen = make("gpt2", case)
    grouped = grouped_rows(
        [[0, 1, 3], [2, 2, 0], [3, 0, 1]], [[1, 1, 0], [1, 0, 0], [1, 1, 0]]
    )  # B 3, R 3.
    loop, none = summing("gpt2", case, "loop", fast_jit), np.zeros(3, bool)
    each = compiled("gpt2", case, fast_jit)(trainable, frozen, rows())["losses"]
    # Row 3 has no target, so the last example is worth its other sequence.
    means = [(each[0] + each[1]) / 2, each[2], each[0]]
    _, aux = loop(trainable, frozen, grouped, none)
    np.testing.assert_allclose(aux["losses"], means, rtol=1e-4)
    given = (trainable, frozen, with_coins(model, grouped), none)
    wanted = loop(*given)
    assert_same_sum(summing("gpt2", case, engine, fast_jit)(*given), wanted)


@pytest.mark.checklist(8)
@pytest.mark.parametrize(
    "engine",
    ["loop", "ghost", *(pytest.param(x, marks=pytest.mark.slow) for x in ("vmap", "book_keeping"))],
)
def test_an_example_whose_streams_leave_the_range_silences_itself_alone(make, fast_jit, engine):
    """As many sequences as examples, so that a mask on the wrong axis would not be noticed."""
    _, trainable, frozen = make("gpt2", "reversible")
    grouped = grouped_rows([[0, 1, 2], [1, 2, 0], [2, 0, 1]], np.ones((3, 3)))
    grouped["input_ids"] %= 22
    grouped["input_ids"][0, 1, 0] = 22
    frozen = jax.tree.map(np.array, frozen)
    frozen["backbone"]["embeddings"]["word"][22] = 1e9
    is_padding = np.array([False, False, True])
    total, aux = summing("gpt2", "reversible", engine, fast_jit)(
        trainable, frozen, grouped, is_padding
    )
    assert aux["norms"][0] == 0.0 and aux["norms"][1] > 0.05
    size = np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(total)))
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
    marks = np.array([[[0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]], [[0] * 4] * 3], np.int32)
    wanted = np.zeros((2, 3, 4))
    wanted[0, 0, 1] = wanted[0, 0, 2] = 0.25
    wanted[0, 2, 0] = 0.5
    np.testing.assert_array_equal(language.mean_weights(marks), wanted)
