"""Infilling: labels by their words' logits at a mask, against transformers' masked models."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest
import safetensors.numpy

from memarc.models import backbone, hub_config, pretrained
from memarc.models.build import build
from memarc.models.config import Transform
from memarc.models.families.known import FAMILIES
from memarc.models.head import HeadConfig
from memarc.models.methods import METHODS
from memarc.privacy.clipping import Clipping
from memarc.privacy.engines import clipped_grad_sum
from tests.models import by_row

MASKED = [name for name, family in FAMILIES.items() if family.mask_head]
MASK_ID, LABELS = 5, ((21,), (4,), (9,))
HEAD = HeadConfig("mask", 3, LABELS, mask_id=MASK_ID)
PLACES = (3, 0, 1, 5)
LENGTHS = (7, 5, 2, 6)


def load(folder):
    return pretrained.load(folder, dtype="float32", storage_dtype="float32", fills_mask=True)


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """Makes (torch model, folder) of a family's masked-language model, once; large weights."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")

    @functools.lru_cache
    def make(name):
        special = {"bos_token_id": None, "eos_token_id": None}
        content = special | FAMILIES[name].example
        if name in ("bert", "roberta", "xlm-roberta", "camembert"):
            content["hidden_act"] = "relu"  # RoBERTa's head has GELU all the same.
        if name == "modernbert":
            content["hidden_activation"] = "relu"
        config = transformers.AutoConfig.for_model(name, **content)
        config._attn_implementation = "eager"
        model_class = FAMILIES[name].model_class.removesuffix("Model") + "ForMaskedLM"
        model = getattr(transformers, model_class)(config).eval()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for key, weight in model.named_parameters():
                weight.normal_(0.0, 0.3, generator=generator)
                if weight.ndim == 1 and key.endswith("weight"):
                    weight.add_(1.0)
        folder = tmp_path_factory.mktemp(name)
        model.save_pretrained(folder)
        return model, folder

    return make


def masked_rows(config):
    """Rows of several lengths with one mask each; what stands under the padding has masks too."""
    rng, shape = np.random.default_rng(0), (len(LENGTHS), max(LENGTHS))
    mask = (np.arange(shape[1])[None] < np.asarray(LENGTHS)[:, None]).astype(np.int32)
    ids = rng.integers(MASK_ID + 1, 23, shape, np.int32)
    ids[np.arange(len(ids)), list(PLACES)] = MASK_ID
    batch = {"input_ids": np.where(mask == 1, ids, config.pad_id), "attention_mask": mask}
    types = rng.integers(0, max(config.type_vocab, 1), shape, np.int32)
    return {**batch, "token_type_ids": types, "labels": np.array([0, 2, 1, 2], np.int32)}


@pytest.mark.parametrize("name", MASKED)
def test_the_start_is_what_transformers_says_of_the_labels_words_at_the_mask(saved, fast_jit, name):
    torch = pytest.importorskip("torch")
    model, folder = saved(name)
    config, params = load(folder)
    batch = masked_rows(config)
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if config.type_vocab else [])]
    with torch.no_grad():
        given = {key: torch.tensor(batch[key]).long() for key in names}
        logits = model(**given).logits.numpy()[np.arange(len(LENGTHS)), list(PLACES)]
    wanted = logits[:, [ids[0] for ids in LABELS]]
    classifier = build("lora", {}, config, HEAD)

    def start(params, batch):
        trainable, frozen = classifier.init(jax.random.key(0), params)
        return classifier.logits(trainable, frozen, classifier.precompute(frozen, batch))

    with jax.default_matmul_precision("highest"):
        got = fast_jit(start)(params, batch)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
    assert np.abs(wanted).max() > 0.5


@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_what_is_saved_with_the_head_is_read_again_by_both(saved, tmp_path, name):
    transformers = pytest.importorskip("transformers")
    model, folder = saved(name)
    config, params = load(folder)
    pretrained.save(tmp_path, config, params)
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path)[1], params)
    transformers.utils.logging.set_verbosity_error()
    again, told = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    theirs = model.state_dict()
    for key, value in again.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), theirs[key].numpy(), err_msg=key)
    # Without the head the same files are a backbone, as ever.
    plain, rest = pretrained.load(tmp_path, dtype="float32", storage_dtype="float32")
    assert plain == dataclasses.replace(config, transform=None)
    assert "transform" not in rest.get("final", {})


@pytest.fixture
def given(float64, sizes, randomise):
    """Makes (model, trainable, frozen) of a method on a small BERT, in float64."""

    def make(method):
        config = sizes(dtype="float64", transform=Transform("gelu"))
        options = {"reduction": 2} if method == "side" else {}
        model = build(method, options, config, HEAD)
        key = jax.random.key(3)
        shapes = jax.eval_shape(lambda: model.init(key, backbone.init(config, key)))
        frozen = randomise(shapes[1], seed=1)
        if "unit" in frozen["drawn"]:
            frozen["drawn"]["unit"] = np.full(config.width, 2.0**-16, np.float32)
        return model, randomise(shapes[0], scale=0.1), frozen

    return make


def clipped_sum(model, engine, left_out):
    def total(trainable, frozen, batch):
        return clipped_grad_sum(
            model.loss,
            trainable,
            frozen,
            batch,
            left_out,
            clipping=Clipping(0.2, "abadi"),
            engine=engine,
            microbatch_size=4,
            precompute=model.precompute,
        )

    return total


@pytest.mark.checklist(16, 24)
@pytest.mark.parametrize(
    ("method", "engines"),
    [
        ("full", ("ghost",)),
        pytest.param("full", ("vmap", "book_keeping"), marks=pytest.mark.slow),
        ("bitfit", ("ghost",)),
        ("lora", ("ghost",)),
        pytest.param("head", ("ghost", "book_keeping"), marks=pytest.mark.slow),
        pytest.param("adapter", ("ghost",), marks=pytest.mark.slow),
        pytest.param("side", ("ghost",), marks=pytest.mark.slow),
        pytest.param("reversible", ("ghost",), marks=pytest.mark.slow),
    ],
)
def test_engines_give_one_sum_with_every_method(given, fast_jit, method, engines):
    model, trainable, frozen = given(method)
    arguments = trainable, frozen, masked_rows(model.method.config)
    left_out = np.arange(4) == 2
    found = fast_jit(functools.partial(by_row.gradients, model))(*arguments)
    wanted, aux = by_row.clipped(found, 0.2, left_out)
    assert (np.asarray(aux["norms"]) > 0.2).any()
    for engine in engines:
        got, other = fast_jit(clipped_sum(model, engine, left_out))(*arguments)
        np.testing.assert_allclose(other["norms"], aux["norms"], rtol=1e-9)
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_the_transform_trains_with_full_its_biases_with_bitfit_and_else_never(given, method):
    _, trainable, frozen = given(method)
    assert set(trainable["head"]) == {"kernel", "bias"}
    trained = trainable["tuning"].get("final", {}).get("transform", {})
    kept = frozen["backbone"].get("final", {}).get("transform", {})
    every = {"dense/kernel", "dense/bias", "norm/scale", "norm/bias"}
    wanted = {"full": every, "bitfit": {"dense/bias", "norm/bias"}}.get(method, set())
    leaves = [{f"{part}/{leaf}" for part in x for leaf in x[part]} for x in (trained, kept)]
    assert leaves == [wanted, every - wanted]
    # The bias of words starts the head's, and is nowhere else.
    assert "word_bias" not in {**trainable["tuning"].get("final", {})}
    assert "word_bias" not in frozen["backbone"].get("final", {})


@pytest.fixture
def folder(tmp_path, sizes):
    """A small BERT with a masked-language head, its tensors, and a function that changes them."""
    config = sizes(transform=Transform("gelu"))
    draw = jax.jit(backbone.init, static_argnums=0)
    pretrained.save(tmp_path, config, jax.device_get(draw(config, jax.random.key(0))))
    tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")

    def write(changes, **content):
        kept = {key: x for key, x in {**tensors, **changes}.items() if x is not None}
        safetensors.numpy.save_file(kept, tmp_path / "model.safetensors")
        path = tmp_path / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **content}))
        return tmp_path

    return write


def test_a_file_that_lacks_the_head_is_told_which_tensors(folder):
    missing = {f"cls.predictions.transform.LayerNorm.{x}": None for x in ("weight", "bias")}
    place = folder({**missing, "cls.predictions.bias": None})
    with pytest.raises(
        ValueError, match=r"lacks \['cls.predictions.bias', '.*LayerNorm.bias', '.*'"
    ):
        load(place)
    assert pretrained.load(place, dtype="float32", storage_dtype="float32")[0].transform is None


def test_an_output_table_of_its_own_is_refused(folder):
    table = np.ones((23, 24), np.float32)
    place = folder({"cls.predictions.decoder.weight": table})
    with pytest.raises(ValueError, match=r"decoder.weight' is another one"):
        load(place)
    with pytest.raises(ValueError, match=r"must be {'tie_word_embeddings': True}"):
        load(folder({}, tie_word_embeddings=False))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "llama",
            {},
            "a llama decoder has no masked-language head.* these families.*bert, roberta",
        ),
        ("electra", {}, "a electra encoder has no masked-language head"),
        (
            "modernbert",
            {"classifier_activation": "silu"},
            "must be {'classifier_activation': 'gelu'",
        ),
    ],
)
def test_a_family_without_the_head_is_refused_by_name(tmp_path, name, changes, message):
    content = {**FAMILIES[name].example, "model_type": name, **changes}
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert hub_config.read(tmp_path, "float32").transform is None
    with pytest.raises(ValueError, match=message):
        hub_config.read(tmp_path, "float32", fills_mask=True)


def test_a_head_and_a_backbone_that_do_not_go_together_are_refused(sizes):
    with pytest.raises(ValueError, match=r"head.pooling is 'mask', and .* of this bert .* is not"):
        build("lora", {}, sizes(), HEAD)
    with pytest.raises(
        ValueError, match=r"head.pooling is 'first', and .* of this bert .* is read"
    ):
        build("lora", {}, sizes(transform=Transform("gelu")), HeadConfig("first", 3))
