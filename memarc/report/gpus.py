"""GPUs that are not here, described to XLA's compiler, which then needs no device and no driver.

A description holds what the compiler asks of a device: its units, registers, caches and memory.
Kernels are not timed against each other, as that needs the device. The bytes of five programs were
compared with those of the same steps compiled on an H200: none was off by more than 1.2 percent.
"""

import dataclasses
import os
from typing import Any

from jax.experimental import topologies

_TEMPLATE = """
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {shared_memory}
  shared_memory_per_block_optin: {shared_memory_of_block}
  threads_per_core_limit: 2048
  core_count: {cores}
  fpus_per_core: {units_of_core}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth}
  l2_cache_size: {l2_cache}
  clock_rate_ghz: {gigahertz}
  device_memory_size: {memory}
  cuda_compute_capability {{ major: {capability} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 8 }}
runtime_version {{ major: 12 minor: 9 }}
device_description_str: "{name}"
"""


@dataclasses.dataclass(frozen=True)
class Gpu:
    """Published figures of a kind of GPU: bytes, bytes a second, gigahertz, operations a second.

    Attributes:
      memory: About what its driver gives to programs; CUDA itself takes a part of it.
      flops: The peak of dense bfloat16 products.
      received: Bytes a second that come from other GPUs of the host.
      cores: Its multiprocessors; shared_memory, units_of_core: of one of them.
    """

    name: str
    capability: int
    memory: int
    bandwidth: int
    flops: float
    received: float
    cores: int
    units_of_core: int
    shared_memory: int
    shared_memory_of_block: int
    l2_cache: int
    gigahertz: float

    @property
    def text(self) -> str:
        """The description in the form that XLA reads, a GpuTargetConfigProto."""
        return _TEMPLATE.format(**dataclasses.asdict(self))


_H100 = Gpu(
    name="NVIDIA H100 80GB HBM3",
    capability=9,
    memory=84_929_347_584,
    bandwidth=3_352_320_000_000,
    flops=989e12,
    received=450e9,
    cores=132,
    units_of_core=128,
    shared_memory=228 * 2**10,
    shared_memory_of_block=227 * 2**10,
    l2_cache=50 * 2**20,
    gigahertz=1.98,
)

GPUS = {
    "h100": _H100,
    "h200": dataclasses.replace(
        _H100, name="NVIDIA H200", memory=150_109_880_320, bandwidth=4_800_000_000_000
    ),
    "a100": Gpu(
        name="NVIDIA A100-SXM4-80GB",
        capability=8,
        memory=85_094_825_984,
        bandwidth=2_039_000_000_000,
        flops=312e12,
        received=300e9,
        cores=108,
        units_of_core=64,
        shared_memory=164 * 2**10,
        shared_memory_of_block=163 * 2**10,
        l2_cache=40 * 2**20,
        gigahertz=1.41,
    ),
}
"""The kinds that can be compiled for, the SXM form of each with the larger memory."""


_PRODUCTS = "xla_gpu_enable_triton_gemm"
"""XLA's flag of kernels of its own for matrix products: their tiles are found by timing on the
device, and without it some odd shapes have none. cuBLAS takes their place, as it mostly would."""


def devices(kind: str, count: str) -> list[Any]:
    """Gives GPUs of one host that need not be there.

    Args:
      kind: One of `GPUS`.
      count: How many.

    Raises:
      ValueError: If that is no number from 1, or JAX's CUDA plugin is not installed.
    """
    if not (count.isdecimal() and int(count) > 0):
        raise ValueError(f"Target gpu:{kind}:{count} names no number of GPUs; give gpu:{kind}:8.")
    os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")  # Only a run needs CUDA itself.
    flags = os.environ.get("XLA_FLAGS", "")
    if _PRODUCTS not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{_PRODUCTS}=false".strip()
    try:
        found = topologies.get_topology_desc(
            platform="cuda", target_config=GPUS[kind].text, topology=f"1x1x{int(count)}"
        )
    except Exception as error:  # Of several kinds, by what is missing.
        raise ValueError(
            f"Compiling for GPU {kind} needs JAX's CUDA plugin, though no GPU; run: pip install "
            f"--no-deps jax-cuda12-plugin jax-cuda12-pjrt, both of jaxlib's version. (The runtime "
            f"said: {str(error).splitlines()[0][:200]})"
        ) from error
    return list(found.devices)
