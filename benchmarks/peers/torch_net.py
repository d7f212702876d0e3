"""The benchmarked network in PyTorch: a model of transformers, low-rank updates, a head, losses.

Axes: B rows, T tokens, I inputs, O outputs, R rank, C classes, V vocabulary.
"""

import contextlib
import os
import platform
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import safetensors.torch
import torch
import transformers
from torch import nn

from benchmarks.peers.job import Job
from benchmarks.peers.meter import HostMeter, Meter

Batch = dict[str, torch.Tensor]

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class LowRank(nn.Module):
    """A frozen map beside which a low-rank update is trained (arXiv:2106.09685)."""

    def __init__(self, base: nn.Module, a: torch.Tensor, b: torch.Tensor, scale: float) -> None:
        """Keeps the map, and takes factors a [R, I] and b [O, R]."""
        super().__init__()
        self.base, self.scale = base, scale
        self.lora_A = nn.Linear(a.shape[1], a.shape[0], bias=False)
        self.lora_B = nn.Linear(b.shape[1], b.shape[0], bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [.., I] to [.., O]."""
        return self.base(x) + self.scale * self.lora_B(self.lora_A(x))


class Net(nn.Module):
    """A classifier (backbone and head on the first token's state), or a language model."""

    def __init__(self, backbone: Any, head: nn.Module | None) -> None:
        """Keeps both; a language model has its head within."""
        super().__init__()
        self.backbone, self.head = backbone, head
        self.model_type = backbone.config.model_type

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        """Logits [B, C] or [B, T, V]."""
        out = self.backbone(**inputs, **({} if self.head else {"use_cache": False}))
        return self.head(out[0][:, 0]) if self.head else out.logits


def load(job: Job, attention: str = "sdpa") -> Net:
    """The network of a job, on the device.

    Its trained parameters are float32 and the only ones that take a gradient.

    Args:
      job: The job.
      attention: How transformers computes attention, "sdpa" (PyTorch's kernels) or "eager".
    """
    if job.remat != "none":
        raise NotImplementedError("the peers in PyTorch are run without rematerialisation")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    folder, is_full = job.folder / "backbone", job.method == "full"
    dtype = torch.float32 if is_full else getattr(torch, job.dtype)
    if job.kind == "generation":
        backbone = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, attn_implementation=attention
        )
    else:
        backbone = transformers.AutoModel.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation=attention,
            add_pooling_layer=False,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    backbone.requires_grad_(is_full)
    for module in backbone.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.Embedding):
            module.padding_idx = None  # A row like any other, as in memarc.
    tensors = safetensors.torch.load_file(job.folder / "trained.safetensors")
    head = None
    if "head.weight" in tensors:
        classes, width = tensors["head.weight"].shape
        head = nn.Linear(width, classes)
    net = Net(backbone, head)
    _attach(net, tensors, job)
    missing = net.load_state_dict(tensors, strict=False).unexpected_keys
    if missing:
        raise ValueError(f"The network has no {missing}.")
    return net.to(DEVICE).train()  # Hooks of some peers see nothing outside of training.


def _attach(net: Net, tensors: Mapping[str, torch.Tensor], job: Job) -> None:
    """Puts a low-rank update beside every map that has one."""
    suffix = ".lora_A.weight"
    for name in tensors:
        if name.endswith(suffix):
            path = name.removesuffix(suffix)
            parent, _, last = path.rpartition(".")
            a, b = tensors[name], tensors[f"{path}.lora_B.weight"]
            assert job.scale is not None
            layer = LowRank(net.get_submodule(path), a, b, job.scale)
            setattr(net.get_submodule(parent), last, layer)


def load_batch(job: Job) -> Batch:
    """The batch of a job, int64 on the device, with the positions of encoders' tables."""
    tensors = safetensors.torch.load_file(job.folder / "batch.safetensors")
    return {key: x.long().to(DEVICE) for key, x in tensors.items()}


def inputs(net: Net, batch: Batch) -> Batch:
    """What the network reads of a batch, each with an axis B.

    That holds for what transformers would share between rows, too.
    """
    found = {key: batch[key] for key in ("input_ids", "attention_mask")}
    if net.head is not None:
        found["token_type_ids"] = batch["token_type_ids"]
    if net.model_type == "bert":
        ids = batch["input_ids"]
        found["position_ids"] = torch.arange(ids.shape[1], device=ids.device).repeat(len(ids), 1)
    return found


def whole_mask(net: Net, batch: Batch) -> torch.Tensor:
    """What is added to the scores of attention, [B, 1, T, T]: zero where a token reads another.

    Transformers makes it of a row's mask by looking at its values, which a transformation of
    functions does not allow.
    """
    real = batch["attention_mask"].bool()
    tokens = real.shape[1]
    reads = torch.ones(tokens, tokens, dtype=torch.bool, device=real.device)
    if net.head is None:
        reads = reads.tril()
    reads = real[:, None, None, :] & reads
    lowest = torch.finfo(torch.float32).min
    return torch.zeros(reads.shape, device=real.device).masked_fill(~reads, lowest)


def row_losses(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """The loss of each row in nats, [B]; of a text the mean over its targets."""
    logits = logits.float()
    if "labels" in batch:
        return nn.functional.cross_entropy(logits, batch["labels"], reduction="none")
    ids, marks = batch["input_ids"][:, 1:], batch["is_target"][:, 1:].float()
    losses = nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), ids, reduction="none")
    return (losses * marks).sum(1) / marks.sum(1).clamp(min=1.0)


def precision(job: Job) -> contextlib.AbstractContextManager[Any]:
    """The context of a forward pass: bfloat16 is PyTorch's autocast."""
    if job.dtype == "float32":
        return contextlib.nullcontext()
    return torch.autocast(DEVICE, dtype=getattr(torch, job.dtype))


def optimizer(net: nn.Module, job: Job) -> torch.optim.Optimizer:
    """AdamW of what is trained."""
    trained = [x for x in net.parameters() if x.requires_grad]
    return torch.optim.AdamW(trained, lr=job.learning_rate, weight_decay=0.0)


def wait() -> None:
    """Waits for the device."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def plain(job: Job) -> Callable[[], None]:
    """The step without privacy."""
    net, batch = load(job), load_batch(job)
    given, update = inputs(net, batch), optimizer(net, job)

    def step() -> None:
        update.zero_grad(set_to_none=True)
        with precision(job):
            logits = net(**given)
        row_losses(logits, batch).mean().backward()
        update.step()
        wait()

    return step


def as_arrays(tensors: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Tensors in host memory, float32."""
    return {key: x.detach().float().cpu().numpy() for key, x in tensors.items()}


def trained(net: nn.Module, field: str) -> dict[str, np.ndarray]:
    """What stands in a field of every trained parameter, by the parameter's name."""
    found = {name: getattr(x, field) for name, x in net.named_parameters() if x.requires_grad}
    return as_arrays(found)


class CudaMeter:
    """The peak of PyTorch's allocator on a GPU."""

    def start(self) -> None:
        """Forgets earlier peaks."""
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    def peak_bytes(self) -> int | None:
        """The most bytes of tensors since then."""
        return torch.cuda.max_memory_allocated()


def meter() -> Meter:
    """The meter of the device."""
    return CudaMeter() if DEVICE == "cuda" else HostMeter()


def device() -> str:
    """The device in words, as memarc's lines have it."""
    if DEVICE == "cuda":
        return f"1 x {torch.cuda.get_device_name()}"
    return f"cpu ({platform.machine()}, {os.cpu_count()} cores)"
