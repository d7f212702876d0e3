"""Lines of measurements as tables and pictures."""

import pytest

from memarc.report import plots, tables

FITS = {
    "method": "lora+remat",
    "engine": "ghost",
    "target": "tpu:v5e",
    "layers": 24,
    "batch_size": 32,
    "seq_len": 128,
    "microbatch_size": 32,
    "beyond_arguments_bytes": 3 * 2**20,
    "peak_bytes": 5 * 2**20,
    "reserved_bytes": 7 * 2**20,
    "flops": 2_345 * 10**9,
    "out_of_memory": False,
}
DOES_NOT = {
    **{key: FITS[key] for key in FITS if key != "beyond_arguments_bytes"},
    "layers": 96,
    "peak_bytes": None,
    "needed_bytes": 26 * 2**30,
    "out_of_memory": True,
}


def test_a_table_of_memory_shows_what_fits_and_what_does_not():
    table = tables.table([FITS, DOES_NOT], tables.MEMORY, "markdown", tables.LINE_COLUMNS)
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()]
    assert rows[0] == list(tables.MEMORY)
    assert rows[2] == ["lora+remat", "ghost", "24", "3.0 MiB", "5.0 MiB", "7.0 MiB", "2.35 TFLOP"]
    assert rows[3][3] == rows[3][4] == rows[3][5] == "does not fit (26.0 GiB)"


def test_a_picture_of_memory_leaves_out_what_does_not_fit_and_needs_two_sizes(tmp_path):
    pytest.importorskip("matplotlib")
    lines = [FITS, {**FITS, "layers": 48}, DOES_NOT]
    plots.memory_over(lines, "layers", tmp_path / "depth.png")
    assert (tmp_path / "depth.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"have batch_size \[32\]; give a sweep"):
        plots.memory_over(lines, "batch_size", tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()
