"""What is exported says the same in transformers and PEFT, or is refused by name."""

import json

import jax
import numpy as np
import pytest

import memarc
from memarc.data import tokenize
from memarc.data.rows import Rows
from memarc.models import backbone, hub_config, pretrained
from memarc.models.families import known
from memarc.models.head import ValueHeadConfig
from memarc.report import card
from memarc.runs import exporting
from memarc.runs.assemble import parts_of
from memarc.runs.sections import HeadChoice, ModelSource
from memarc.runs.settings import Settings
from memarc.runs.tuned import Tuned
from tests.report.conftest import made

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

WORDS = [f"w{i}" for i in range(11)]
TEXTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9", "w10 w0"]
LABELS = ("surgery", "cardiology", "neurology")
PRIVACY = memarc.PrivacyConfig(epsilon=8.0, delta=1e-3)


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Makes a model of a family with parameters that are anywhere but at their start."""

    def make(family, method, *, task="classification", head=None, start=True, **options):
        folder = tmp_path_factory.mktemp(family)
        example = {**known.get(family).example, "vocab_size": 61}
        if "pad_token_id" in example:
            example["pad_token_id"] = 0  # As the tokenizer here.
        content = {"model_type": family, **example}
        config = hub_config.of_content(content, "float32", family)
        decodes = config.parts.is_decoder
        params = jax.jit(backbone.init, static_argnums=0)(config, jax.random.key(1))
        pretrained.save(folder, config, jax.device_get(params))
        words = tokenize.word_level_tokenizer(WORDS, end_token="[END]" if decodes else None)
        tokenize.save_tokenizer(words, str(folder))
        fields = {
            "classification": {"labels": LABELS},
            "regression": {"range": (-2.0, 6.0)},
            "generation": {"max_prompt": 4},
        }[task]
        data = memarc.DataConfig(source="memory", max_length=9, **fields)
        given = {} if head is None else {"head": head}
        if task == "generation":
            given["decoding"] = memarc.DecodingConfig(max_tokens=5)
        source = ModelSource(str(folder))
        settings = Settings(task, data, source, PRIVACY, method, options, **given)
        parts = parts_of(settings, None, None)
        if not start:
            return Tuned(parts, {}, {}, made(method=method))
        trainable, frozen = parts.model.init(jax.random.key(2), parts.params)
        leaves, tree = jax.tree.flatten(trainable)
        keys = jax.random.split(jax.random.key(3), len(leaves))
        moved = [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
        return Tuned(parts, jax.tree.unflatten(tree, moved), frozen, made(method=method))

    return make


def batch_of(tuned, *columns):
    """Rows of several lengths, padded."""
    labels = None if len(columns) == 2 else np.zeros(len(columns[0]), np.int32)
    dataset = tuned.parts.codec.dataset(Rows(columns, labels))
    return dataset.take(np.arange(len(dataset)), 9)


def theirs(model, tuned, batch):
    """What torch computes of the same tokens."""
    names = ["input_ids", "attention_mask"]
    names += ["token_type_ids"] if tuned.parts.backbone.type_vocab else []
    with torch.no_grad():
        given = {name: torch.tensor(batch[name]).long() for name in names}
        return model.eval()(**given).logits.numpy()


def ours(tuned, batch):
    model = tuned.parts.model

    def logits(trainable, frozen, batch):
        return model.logits(trainable, frozen, model.precompute(frozen, batch))

    with jax.default_matmul_precision("highest"):
        return np.asarray(jax.jit(logits)(tuned.trainable, tuned.frozen, batch))


def opened(folder, cls, **more):
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    model, told = cls.from_pretrained(
        str(folder), dtype=torch.float32, output_loading_info=True, **more
    )
    return model, told


slow = pytest.mark.slow
of_peft = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
TANH = HeadChoice(form="dense_tanh")
CLASSIFIERS = [
    ("bert", "lora", HeadChoice()),
    ("roberta", "bitfit", HeadChoice()),
    ("roberta", "lora", TANH),
    ("gpt2", "lora", HeadChoice("last")),
    ("llama", "full", HeadChoice("last", bias=False)),
    pytest.param("bert", "full", HeadChoice(), marks=slow),
    pytest.param("bert", "head", HeadChoice(), marks=slow),
    pytest.param("electra", "lora", HeadChoice(), marks=slow),
    ("electra", "head", HeadChoice(form="dense_gelu")),
    ("distilbert", "head", HeadChoice(form="dense_relu")),
    pytest.param("bert", "lora", TANH, marks=slow),
    pytest.param("xlm-roberta", "lora", TANH, marks=slow),
    pytest.param("camembert", "head", TANH, marks=slow),
    pytest.param("camembert", "lora", HeadChoice(), marks=slow),
    pytest.param("xlm-roberta", "lora", HeadChoice(), marks=slow),
    pytest.param("gpt_neox", "lora", HeadChoice("last"), marks=slow),
    pytest.param("qwen3", "lora", HeadChoice("last", bias=False), marks=slow),
    pytest.param("phi3", "lora", HeadChoice("last", bias=False), marks=slow),
    pytest.param("gemma3_text", "lora", HeadChoice("last", bias=False), marks=slow),
]


@pytest.mark.parametrize(("family", "method", "head"), CLASSIFIERS)
def test_a_classifier_of_transformers_says_the_same(make, tmp_path, family, method, head):
    tuned = make(family, method, head=head)
    exporting.export(tuned, "transformers", tmp_path / "out")
    model, told = opened(tmp_path / "out", transformers.AutoModelForSequenceClassification)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    batch = batch_of(tuned, TEXTS)
    np.testing.assert_allclose(theirs(model, tuned, batch), ours(tuned, batch), atol=1e-5)
    assert model.config.id2label == dict(enumerate(LABELS))
    again = transformers.AutoTokenizer.from_pretrained(str(tmp_path / "out"))
    assert (
        again(TEXTS[2])["input_ids"]
        == batch["input_ids"][2][batch["attention_mask"][2] == 1].tolist()
    )


ADAPTED = [
    ("bert", HeadChoice(), ("query", "value")),
    ("gpt2", HeadChoice("last"), ("query", "value", "intermediate")),
    pytest.param("llama", HeadChoice("last", bias=False), ("key", "output"), marks=slow),
    pytest.param("phi3", HeadChoice("last", bias=False), ("query", "gated"), marks=slow),
    pytest.param("roberta", HeadChoice(), ("attention_output",), marks=slow),
    pytest.param("roberta", TANH, ("value",), marks=slow),
    pytest.param("distilbert", HeadChoice(form="dense_relu"), ("query",), marks=slow),
]


@of_peft
@pytest.mark.parametrize(("family", "head", "targets"), ADAPTED)
def test_a_classifier_of_peft_says_the_same(make, tmp_path, family, head, targets):
    peft = pytest.importorskip("peft")
    tuned = make(family, "lora", head=head, targets=targets, rank=3, alpha=5.0)
    exporting.export(tuned, "peft", tmp_path / "out")
    stated = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    base, _ = opened(
        stated["base_model_name_or_path"],
        transformers.AutoModelForSequenceClassification,
        num_labels=3,
        pad_token_id=0,
    )
    model = peft.PeftModel.from_pretrained(base, str(tmp_path / "out"))
    batch = batch_of(tuned, TEXTS)
    np.testing.assert_allclose(theirs(model, tuned, batch), ours(tuned, batch), atol=1e-5)


@of_peft
@pytest.mark.parametrize(
    ("family", "to"),
    [("gpt2", "peft"), ("llama", "transformers"), pytest.param("gpt2", "transformers", marks=slow)],
)
def test_a_model_that_writes_says_the_same(make, tmp_path, family, to):
    tuned = make(family, "lora", task="generation")
    exporting.export(tuned, to, tmp_path / "out")
    if to == "peft":
        peft = pytest.importorskip("peft")
        stated = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
        base, _ = opened(stated["base_model_name_or_path"], transformers.AutoModelForCausalLM)
        model = peft.PeftModel.from_pretrained(base, str(tmp_path / "out"))
    else:
        model, told = opened(tmp_path / "out", transformers.AutoModelForCausalLM)
        assert not told["missing_keys"] and not told["unexpected_keys"]
    batch = batch_of(tuned, TEXTS, TEXTS[::-1])
    part = tuned.parts.model

    def logits(trainable, frozen, batch):
        params = part.method.parameters(trainable["tuning"], frozen)
        states = part.method.states(trainable["tuning"], frozen, batch)
        states = backbone.norm_last(part.method.config, params, states)
        return backbone.output_logits(part.method.config, params, states)

    with jax.default_matmul_precision("highest"):
        wanted = np.asarray(jax.jit(logits)(tuned.trainable, tuned.frozen, batch))
    real = batch["attention_mask"] == 1
    np.testing.assert_allclose(theirs(model, tuned, batch)[real], wanted[real], atol=1e-5)


@pytest.mark.parametrize("form", ["linear", "dense_tanh"])
def test_regression_gives_numbers_in_their_unit(make, tmp_path, form):
    tuned = make("bert", "head", task="regression", head=ValueHeadConfig(form=form))
    exporting.export(tuned, "transformers", tmp_path / "out")
    model, _ = opened(tmp_path / "out", transformers.AutoModelForSequenceClassification)
    found = theirs(model, tuned, batch_of(tuned, TEXTS))[:, 0]
    np.testing.assert_allclose(np.clip(found, -2, 6), tuned.numbers(TEXTS), atol=1e-5)


REFUSED = [
    ("bert", "side", "transformers", HeadChoice(), "'side' has no form in transformers.*by memarc"),
    ("bert", "reversible", "peft", HeadChoice(), "'reversible' has no form in PEFT; use it by mem"),
    ("bert", "adapter", "peft", HeadChoice(), "Method 'adapter' has no form in PEFT"),
    ("bert", "full", "peft", HeadChoice(), "no form in PEFT; use it as a whole model"),
    ("bert", "lora", "onnx", HeadChoice(), "Unknown form 'onnx'; choose one of peft, trans"),
    ("bert", "head", "transformers", HeadChoice("mean"), "reads the 'first' one.*pooling='first'"),
    ("distilbert", "head", "transformers", HeadChoice(), "is not linear, and cannot be made so"),
    ("distilbert", "head", "transformers", TANH, "'dense_tanh'; the form of Distil.* 'dense_relu'"),
    ("modernbert", "head", "transformers", TANH, "the form of Mod.* is 'another'"),
    ("bert", "head", "transformers", HeadChoice(form="dense_gelu"), "BertFor.* is 'dense_tanh'"),
    ("gpt2", "head", "transformers", HeadChoice("last", form="dense_tanh"), "GPT2.* is 'linear'"),
    ("llama", "head", "transformers", HeadChoice("last"), r"again with head\.bias=False"),
]


@pytest.mark.parametrize(("family", "method", "to", "head", "message"), REFUSED)
def test_what_has_no_form_is_refused_and_nothing_is_written(
    make, tmp_path, family, method, to, head, message
):
    options = {"reduction": 2} if method == "side" else {}
    tuned = make(family, method, head=head, start=method == "head", **options)
    with pytest.raises(ValueError, match=message):
        exporting.export(tuned, to, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_card_says_what_was_promised_and_what_was_not():
    record = made(epsilon=7.98, epsilon_pld=7.5)
    text = card.text(record, library="peft", base="b", opens="x = 1\n")
    for fact in (f"{record.epsilon:.6g}", f"{record.delta:g}", record.unit, record.neighbouring):
        assert fact in text
    assert "not private" not in text and "```python\nx = 1\n```" in text
    fixed = made(reproducible_noise="fixed seed")
    text = card.text(fixed, library="peft", base="b", opens="")
    assert "**This model is not private: it was trained without noise, and its noise" in text
