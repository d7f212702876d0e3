"""Every family computes what transformers' torch model computes, from its own example config.

A family that is added to `memarc.models.families` is tested here by itself. Weights are drawn large
(standard deviation 0.3; scales of norms away from where they start), so that a swapped, transposed
or dropped weight is far outside the tolerance.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from memarc.models import backbone, hub_config, pretrained
from memarc.models.families import FAMILIES
from tests import fast_compile

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-4  # Relative, per state, float32 against float32.
LENGTHS = (11, 5, 1, 8)  # Real tokens per row: beyond all windows and the original contexts.


def torch_model(name):
    """A torch model of a family's example with random weights, in evaluation mode."""
    family = FAMILIES[name]
    special = {"bos_token_id": None, "eos_token_id": None}  # Their defaults are beyond the table.
    special |= {"pad_token_id": None} if family.parts.is_decoder else {}
    config = transformers.AutoConfig.for_model(name, **special | family.example)
    config._attn_implementation = "eager"
    model = getattr(transformers, family.model_class)(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            weight.normal_(0.0, 0.3, generator=generator)
            if weight.ndim == 1 and key.endswith("weight") and not family.parts.adds_one:
                weight.add_(1.0)
    return model


def rows(config):
    """Token ids, token types and a mask, int32[B, T], padded on the right."""
    rng = np.random.default_rng(0)
    shape = (len(LENGTHS), max(LENGTHS))
    mask = (np.arange(shape[1])[None] < np.asarray(LENGTHS)[:, None]).astype(np.int32)
    ids = rng.integers(2, config.vocab_size, shape, np.int32)
    batch = {"input_ids": np.where(mask == 1, ids, config.pad_id or 0), "attention_mask": mask}
    if config.type_vocab:
        batch["token_type_ids"] = rng.integers(0, config.type_vocab, shape, np.int32)
    return batch


def torch_outputs(model, batch):
    """The hidden states before a last norm [.., B, T, D], the normed one, and logits or None."""
    tensors = {key: torch.tensor(value, dtype=torch.long) for key, value in batch.items()}
    with torch.no_grad():
        out = model(**tensors, output_hidden_states=True)
    states = [x.numpy() for x in out.hidden_states]
    return states, out.logits.numpy() if hasattr(out, "logits") else None


@functools.partial(jax.jit, static_argnums=0, compiler_options=fast_compile.options())
def every_output(config, params, batch):
    """The same of ours, with the last norm in place of the last state where there is one."""
    hidden, mask = backbone.embed(config, params, batch), backbone.token_mask(batch)
    layers = backbone.layers_of(config, params)
    last, states = backbone.read_states(config, layers, hidden, mask, lambda _, x: x, ())
    states = [hidden, *states]
    if config.parts.final_norm:
        last = states[-1] = backbone.norm_last(config, params, last)
    if not config.parts.is_decoder:
        return states, None
    return states, backbone.output_logits(config, params, last)


def outputs(config, params, batch):
    with jax.default_matmul_precision("highest"):
        return every_output(config, params, jax.tree.map(jnp.asarray, batch))


def error(ours, wanted, batch):
    """Norm of the difference over the norm, at real tokens."""
    real = batch["attention_mask"] == 1
    ours, wanted = np.asarray(ours, np.float64)[real], np.asarray(wanted, np.float64)[real]
    return np.linalg.norm(ours - wanted) / np.linalg.norm(wanted)


def load(folder):
    return pretrained.load(folder, dtype="float32", storage_dtype="float32")


@functools.lru_cache
def saved(name, base):
    """(torch model, folder) of a family; made once."""
    folder = base / name
    model = torch_model(name)
    model.save_pretrained(folder)
    return model, folder


@pytest.fixture(params=list(FAMILIES))
def pair(request, tmp_path_factory):
    return saved(request.param, tmp_path_factory.getbasetemp())


def test_states_and_logits_are_those_of_the_torch_model(pair):
    model, folder = pair
    config, params = load(folder)
    batch = rows(config)
    assert config.kind_of_layer or len(config.layer_kinds) == 1
    wanted, wanted_logits = torch_outputs(model, batch)
    states, logits = outputs(config, params, batch)
    assert len(states) == len(wanted) == config.layers + 1
    found = [error(x, y, batch) for x, y in zip(states, wanted, strict=True)]
    assert max(found) <= TOLERANCE, found
    assert (logits is None) == (wanted_logits is None)
    if logits is not None:
        assert error(logits, wanted_logits, batch) <= TOLERANCE


def test_what_is_saved_is_what_transformers_opens(pair, tmp_path):
    model, folder = pair
    config, params = load(folder)
    pretrained.save(tmp_path, config, params)
    again, report = type(model).from_pretrained(
        tmp_path, attn_implementation="eager", output_loading_info=True
    )
    missing = {x for x in report["missing_keys"] if not x.startswith("pooler.")}
    assert not missing and not report["unexpected_keys"] and not report["mismatched_keys"]
    batch = rows(config)
    for ours, theirs in zip(
        torch_outputs(again.eval(), batch)[0], torch_outputs(model, batch)[0], strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    config_again, params_again = load(tmp_path)
    assert config_again == config
    jax.tree.map(np.testing.assert_array_equal, params_again, params)


def test_tensors_that_are_not_read_change_nothing(pair, tmp_path):
    """Every tensor that a file may hold beside the backbone's, of random values."""
    _, folder = pair
    config, params = load(folder)
    family, rng = FAMILIES[config.kind], np.random.default_rng(3)
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    for pattern in family.ignored:
        name = pattern.format(layer=1).replace("*", "some.weight")
        tensors[family.prefix + name] = rng.normal(size=(3, 5)).astype(np.float32)
    pretrained.save(tmp_path, config, params)  # For its config.json.
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path)[1], params)


def test_an_unknown_key_and_a_quantised_model_are_refused_by_name(pair, tmp_path):
    _, folder = pair
    content = json.loads((folder / "config.json").read_text())
    for changes, message in (
        ({"attention_sinks": 4}, "'attention_sinks': 4.*not known to have"),
        ({"quantization_config": {"bits": 4}}, "'quantization_config'.*not known to have"),
        ({"is_encoder_decoder": True}, "must be {'is_encoder_decoder': False}"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**content, **changes}))
        with pytest.raises(ValueError, match=message):
            hub_config.read(tmp_path, "float32")
