"""A run's weights may be a GGUF file, which brings its tokenizer."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from memarc.data import tokenize
from memarc.models import backbone
from memarc.runs import assemble, exporting
from memarc.runs.parse import parse
from memarc.runs.tuned import Tuned
from tests import gguf_files
from tests.data.test_gguf_tokenizer import PRE_TOKENIZERS, described, trained
from tests.report.conftest import made

SIZES = {
    "llama.embedding_length": 16,
    "llama.block_count": 2,
    "llama.feed_forward_length": 24,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.context_length": 300,
}


@pytest.fixture
def config(tmp_path):
    """A config of generation whose weights are a small random decoder."""
    backend, rng = trained(PRE_TOKENIZERS["smollm"]), np.random.default_rng(0)
    layer = {
        "input_layernorm": (16,),
        "self_attn.q_proj": (16, 16),
        "self_attn.k_proj": (8, 16),
        "self_attn.v_proj": (8, 16),
        "self_attn.o_proj": (16, 16),
        "post_attention_layernorm": (16,),
        "mlp.gate_proj": (24, 16),
        "mlp.up_proj": (24, 16),
        "mlp.down_proj": (16, 24),
    }
    shapes = {f"layers.{i}.{name}": shape for i in range(2) for name, shape in layer.items()}
    shapes |= {"embed_tokens": (backend.get_vocab_size(), 16), "norm": (16,)}
    tensors = {f"model.{n}.weight": rng.normal(size=shape) for n, shape in shapes.items()}
    metadata = SIZES | described(backend, "smollm")
    gguf_files.write(tmp_path / "model.gguf", "llama", metadata, tensors)
    config = common.generation("restaurants")
    common.restaurants(config)
    config.model.weights = str(tmp_path / "model.gguf")
    config.data.update(tokenizer=None, train_rows=60, dev_rows=30, max_length=300, buckets=(300,))
    config.data.update(max_prompt=150, separator=None, end=None)
    batch = dict(expected_batch_size=20, physical_batch_size=8, microbatch_size=8)
    config.privacy.update(delta=1e-3, **batch)
    return config


def test_rows_are_cut_by_the_tokenizer_of_the_file(config):
    made = assemble.assemble(parse(config.to_dict())[0])
    assert made.backbone.vocab_size == made.codec.info.vocab_size < 500
    backend = trained(PRE_TOKENIZERS["smollm"])
    (prompt,) = made.codec.prompts(["name[The Punter], near[a  2]"]).tokens
    wanted = backend.encode("name[The Punter], near[a  2]").ids
    assert prompt[: len(wanted)].tolist() == wanted


def test_the_tokenizer_of_another_model_is_named_before_any_training(config, tmp_path):
    tokenize.load_tokenizer(config.model.weights).save_pretrained(tmp_path / "other")
    path = tmp_path / "other" / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary |= {"!": vocabulary["?"], "?": vocabulary["!"]}
    path.write_text(json.dumps(content))
    config.data.tokenizer = str(tmp_path / "other")
    with pytest.raises(ValueError, match=r"is not that of .*gguf: in the latter, '!' is .*, not "):
        assemble.assemble(parse(config.to_dict())[0])


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_peft_opens_on_the_file_what_was_tuned_around_it(config, tmp_path):
    """transformers widens the file itself; the card says how."""
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    config.method = "lora"
    parts = assemble.assemble(parse(config.to_dict())[0])
    model = parts.model
    trainable, frozen = model.init(jax.random.key(2), parts.params)
    trainable = jax.tree.map(
        lambda x: x + 0.01 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), trainable
    )
    tuned = Tuned(parts, trainable, frozen, made(method="lora"))
    exporting.export(tuned, "peft", tmp_path / "out")
    stated = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    place = stated["base_model_name_or_path"]
    assert (
        f'from_pretrained("{place}", gguf_file="model.gguf")'
        in (tmp_path / "out" / "README.md").read_text()
    )
    transformers.utils.logging.disable_progress_bar()
    base = transformers.AutoModelForCausalLM.from_pretrained(
        place, gguf_file="model.gguf", dtype=torch.float32
    )
    ids = np.arange(5, 16, dtype=np.int32)[None]
    with torch.no_grad():
        plain = base(torch.tensor(ids).long()).logits.numpy()
        on_file = peft.PeftModel.from_pretrained(base, str(tmp_path / "out")).eval()
        theirs = on_file(torch.tensor(ids).long()).logits.numpy()

    def logits(trainable, frozen, ids):
        batch = {"input_ids": ids, "attention_mask": jnp.ones_like(ids)}
        params = model.method.parameters(trainable["tuning"], frozen)
        states = model.method.states(trainable["tuning"], frozen, batch)
        states = backbone.norm_last(model.method.config, params, states)
        return backbone.output_logits(model.method.config, params, states)

    with jax.default_matmul_precision("highest"):
        ours = jax.jit(logits)(trainable, frozen, ids)
    assert np.abs(theirs - ours).max() <= 1e-5 * np.abs(ours).max()
    assert np.abs(theirs - plain).max() > 1e-3


def test_a_file_that_transformers_does_not_read_is_no_base_of_peft(tmp_path):
    gguf_files.write_stored(
        tmp_path / "x.gguf", "olmo2", {}, {"token_embd.weight": np.zeros((3, 4))}
    )
    with pytest.raises(
        ValueError, match=r"a GGUF file of 'olmo2', which transformers does not read"
    ):
        exporting._check_gguf(str(tmp_path / "x.gguf"))
