"""Writes small GGUF files as llama.cpp's converter does, from what a Hugging Face folder holds."""

import gguf
import numpy as np

INTERLEAVED = ("llama", "smollm3")
OFFSET = ("gemma", "gemma2", "gemma3")
MAPS = ("attn_qkv", "attn_output", "ffn_up", "ffn_down")  # Of GPT-2, held the other way round.
BLOCK_TYPES = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")  # The package does not write these.


def interleave(rows, heads):
    """First, K/2-th, second, (K/2 + 1)-th, .. row of each head."""
    halves = rows.reshape(heads, 2, -1, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def blocks(values, kind):
    """Values as a file holds them; types that the package does not write get random blocks."""
    number = gguf.GGMLQuantizationType[kind]
    if kind not in BLOCK_TYPES:
        return gguf.quantize(np.ascontiguousarray(values), number)
    size, width = gguf.GGML_QUANT_SIZES[number]
    rng = np.random.default_rng(0)
    found = rng.integers(0, 256, (values.shape[0], values.shape[1] // size, width), np.uint8)
    # The scales are float16 at one end of a block; their upper bytes keep them finite.
    for at in {"Q2_K": (81, 83), "Q3_K": (109,), "Q6_K": (209,)}.get(kind, (1, 3)):
        found[..., at] = 0x2C
    return found.reshape(values.shape[0], -1)


def as_stored(architecture, metadata, part, suffix, values):
    """A folder's tensor as a file holds it."""
    heads = {"attn_q": "attention.head_count", "attn_k": "attention.head_count_kv"}.get(part)
    if architecture in INTERLEAVED and heads:
        return interleave(values, metadata[f"{architecture}.{heads}"])
    if architecture in OFFSET and part.endswith("norm"):
        return values + 1
    if architecture == "gpt2" and part in MAPS and suffix == "weight":
        return values.T
    return values


def write(path, architecture, metadata, tensors, kind="F32", kinds=None):
    """Writes the file of a model.

    Args:
      path: The file.
      architecture: In the words of GGUF.
      metadata: Key -> value.
      tensors: Name in a Hugging Face folder -> values.
      kind: Type of the matrices; vectors are F32.
      kinds: Name in the file -> type, where it is another.
    """
    number = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}[architecture]
    names = gguf.get_tensor_name_map(number, metadata[f"{architecture}.block_count"])
    stored = {}
    for name, values in tensors.items():
        base, _, suffix = name.rpartition(".")
        written = names.get_name(base)
        part, values = written.split(".")[-1], np.asarray(values, np.float32)
        stored[f"{written}.{suffix}"] = as_stored(architecture, metadata, part, suffix, values)
    write_stored(path, architecture, metadata, stored, kind, kinds)


def write_stored(path, architecture, metadata, tensors, kind="F32", kinds=None):
    """Writes tensors as they are, under their names in a GGUF file; arguments as of `write`."""
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in metadata.items():
        add(writer, key, value)
    for name, values in tensors.items():
        if values.ndim == 1:
            writer.add_tensor(name, np.ascontiguousarray(values))
        else:
            own = (kinds or {}).get(name, kind)
            number = gguf.GGMLQuantizationType[own]
            writer.add_tensor(name, blocks(values, own), raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add(writer, key, value):
    """Adds a key and its value, with the types that converters choose."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
