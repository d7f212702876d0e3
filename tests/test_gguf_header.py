"""The header of a GGUF file is what the package `gguf` reads, and damage has a name."""

import struct

import gguf
import numpy as np
import pytest

from memarc import gguf_header
from tests import gguf_files

METADATA = {
    "llama.block_count": 3,
    "llama.rope.freq_base": 0.1,
    "llama.name": "naïve 🦙",
    "llama.is_fast": True,
    "tokenizer.ggml.tokens": ["a", "", "漢字"],
    "tokenizer.ggml.scores": [0.5, -1.25],
    "tokenizer.ggml.token_type": [1, 3, 6],
}
TENSORS = {
    "token_embd.weight": np.arange(64, dtype=np.float32).reshape(2, 32),
    "output_norm.weight": np.arange(3, dtype=np.float32),
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.gguf"
    gguf_files.write_stored(path, "llama", METADATA, TENSORS, "Q8_0")
    return path


def test_values_and_places_are_those_of_the_package(file):
    header, reader = gguf_header.read(file), gguf.GGUFReader(file)
    assert header.architecture == "llama"
    assert header.metadata == METADATA | {"general.architecture": "llama"}  # 0.1, not float32's.
    assert header.tensors == {
        tensor.name: gguf_header.Stored(
            tuple(tensor.shape[::-1].tolist()), tensor.tensor_type, tensor.data_offset
        )
        for tensor in reader.tensors
    }


def test_the_alignment_of_a_file_counts(file):
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_custom_alignment(128)
    writer.add_tensor("a", np.ones(3, np.float32))
    writer.add_tensor("b", np.full(2, 7.0, np.float32))
    for step in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{step}_to_file")()
    writer.close()
    offset = gguf_header.read(file).tensors["b"].offset
    assert offset % 128 == 0
    assert struct.unpack_from("<2f", file.read_bytes(), offset) == (7.0, 7.0)


def test_a_header_that_ends_anywhere_is_damaged(file):
    content = file.read_bytes()
    end = min(stored.offset for stored in gguf_header.read(file).tensors.values())
    for length in range(1, end - 32, 3):
        file.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"model.gguf (is damaged|is no GGUF file)"):
            gguf_header.read(file)


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, b"GGML", "is no GGUF file: it does not begin with b'GGUF'"),
        (4, struct.pack("<I", 9), "is of GGUF version 9"),
        (8, struct.pack("<Q", 2**60), "is damaged"),
        (16, struct.pack("<Q", 2**60), "is damaged"),
        (24, struct.pack("<Q", 2**60), "is damaged"),
    ],
)
def test_what_cannot_be_is_named(file, at, value, message):
    content = bytearray(file.read_bytes())
    content[at : at + len(value)] = value
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        gguf_header.read(file)


def test_a_key_that_is_missing_is_named(file):
    with pytest.raises(ValueError, match="lacks the key 'llama"):
        gguf_header.read(file).value("llama.head_count")
    with pytest.raises(ValueError, match="cannot be read"):
        gguf_header.read(file.with_name("absent.gguf"))
