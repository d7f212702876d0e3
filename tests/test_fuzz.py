"""Whatever a config or a file holds: a result, or an error that says what is wrong."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from configs import common
from memarc.data import glue_tsv
from memarc.data.tasks import get_task
from memarc.models import backbone
from memarc.models.build import build
from memarc.models.families.known import make_config
from memarc.models.head import HeadConfig
from memarc.models.language import LanguageConfig
from memarc.models.methods import METHODS
from memarc.privacy.clipping import Clipping
from memarc.privacy.engines import ENGINES, clipped_grad_sum
from memarc.runs.parse import parse

SST2 = get_task("sst2")
FIELDS = sorted(
    f"{section}.{field}"
    for section in ("data", "privacy", "training", "optimizer", "ledger")
    for field in common.classification("sst2")[section]
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10**6),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=6),
    st.tuples(st.integers(-2, 40), st.integers(-2, 40)),
)


@hypothesis.example(changes={"data.buckets": "\n0"}, method="")
@hypothesis.settings(max_examples=150, deadline=None)
@hypothesis.given(
    st.dictionaries(st.sampled_from(FIELDS), VALUES, min_size=1, max_size=3), st.text(max_size=5)
)
def test_any_config_is_parsed_or_refused_with_a_reason(changes, method):
    config = common.classification("sst2")
    for path, value in changes.items():
        section, field = path.split(".")
        with config.ignore_type():
            config[section][field] = value
    if method:
        config.method = method
    try:
        (parsed,) = parse(config.to_dict())
    except ValueError as error:
        assert len(str(error)) > 20
    else:
        assert parsed.method == "lora" and parsed.privacy.epsilon > 0


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(
    st.one_of(
        st.binary(max_size=200),
        st.lists(
            st.tuples(st.text(max_size=9), st.sampled_from(["0", "1", "2", "", " 1 "])), max_size=6
        ).map(
            lambda rows: ("sentence\tlabel\n" + "".join(f"{a}\t{b}\n" for a, b in rows)).encode()
        ),
    ),
    st.sampled_from(["train.tsv", "train.tsv.gz"]),
)
def test_any_file_is_read_or_refused_with_its_name(tmp_path_factory, content, name):
    root = tmp_path_factory.mktemp("fuzz")
    (root / "sst2").mkdir()
    (root / "sst2" / name).write_bytes(content)
    try:
        rows = glue_tsv.read_split(SST2, str(root), name, drop_broken=False)
    except ValueError as error:
        assert name in str(error)
    else:
        assert len(rows.columns[0]) == len(rows) and set(rows.labels.tolist()) <= {0, 1}


@st.composite
def problems(draw):
    """A small model of any kind, method and sizes, a batch with any masks, how to clip it."""
    heads = draw(st.integers(1, 3))
    width = heads * 16
    kind = draw(st.sampled_from(["bert", "roberta", "gpt2", "llama"]))
    config = make_config(
        kind=kind,
        vocab_size=draw(st.integers(5, 30)),
        width=width,
        layers=draw(st.integers(1, 3)),
        heads=heads,
        feed_forward=8 * draw(st.integers(1, 5)),  # A side network's is an eighth.
        max_positions=16,
        type_vocab=0 if kind in ("gpt2", "llama") else 1,
        norm_epsilon=1e-5,
        activation="gelu",
        pad_id=1,
        dtype="float32",
        remat=draw(st.sampled_from(["none", "layer"])),
        attention_block=draw(st.integers(0, 3)),
        kv_heads=draw(st.sampled_from([0, 1])) if kind == "llama" else 0,
        has_table=kind in ("gpt2", "llama"),  # A trained table that is tied is refused.
    )
    rows, tokens = draw(st.integers(1, 5)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    batch = {
        "input_ids": rng.integers(2, config.vocab_size, (rows, tokens)),
        "attention_mask": rng.random((rows, tokens)) < draw(st.sampled_from([0.0, 0.5, 1.0])),
        "token_type_ids": np.zeros((rows, tokens)),
        "labels": rng.integers(0, 2, rows),
        "is_target": rng.random((rows, tokens)) < 0.7,
    }
    batch = {name: jnp.asarray(value, jnp.int32) for name, value in batch.items()}
    methods = sorted(set(METHODS) - ({"bitfit"} if kind == "llama" else set()))
    method = draw(st.sampled_from(methods))
    clipping = Clipping(
        draw(st.sampled_from([1e-3, 1.0, 1e3])),
        draw(st.sampled_from(["abadi", "automatic"])),
        draw(st.sampled_from(["flat", "per_layer"])),
    )
    return config, method, batch, clipping, draw(st.integers(1, rows))


@pytest.mark.slow
@pytest.mark.checklist(7, 8, 23, 24)
@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(problems())
def test_any_model_sums_what_each_row_is_worth_and_no_more(problem):
    """Engines agree, nothing is NaN, and taking the first row out moves the sum by at most C."""
    config, method, batch, clipping, microbatch_size = problem
    head = LanguageConfig(2, 0.1) if config.parts.is_decoder else HeadConfig("mean", 2)
    model = build(method, {}, config, head)
    trainable, frozen = model.init(jax.random.key(0), backbone.init(config, jax.random.key(1)))
    trainable = jax.tree.map(
        lambda x: x + 0.1 * jax.random.normal(jax.random.key(2), x.shape, x.dtype), trainable
    )
    rows = len(batch["labels"])

    def summed(engine, is_padding):
        return jax.jit(
            lambda *args: clipped_grad_sum(
                model.loss,
                *args,
                clipping=clipping,
                engine=engine,
                microbatch_size=microbatch_size,
                precompute=model.precompute,
            )
        )(trainable, frozen, batch, is_padding)[0]

    everyone = jnp.zeros(rows, bool)
    sums = {engine: summed(engine, everyone) for engine in sorted(set(ENGINES) - {"loop"})}
    for total in sums.values():
        assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(total))
        close = lambda a, b: np.testing.assert_allclose(
            a, b, rtol=2e-3, atol=2e-4 * clipping.sensitivity
        )
        jax.tree.map(close, total, sums["vmap"])
    rest = summed("ghost", everyone.at[0].set(True))
    moved = jax.tree.map(jnp.subtract, sums["ghost"], rest)
    size = jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(moved)))
    assert float(size) <= clipping.sensitivity * (1 + 1e-4)
