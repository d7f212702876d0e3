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
    of_gpu = {**FITS, "measured_peak_bytes": 6 * 2**20, "utilisation": 0.2088}
    assert tables.LINE_COLUMNS["measured peak"](of_gpu) == "6.0 MiB"
    assert tables.LINE_COLUMNS["share of peak"](of_gpu) == "21 %"


def test_a_table_of_slices_shows_what_chips_receive_and_the_least_time_it_takes():
    slice_of_four = {
        **FITS,
        "target": "tpu:v5e:2x2",
        "data": 2,
        "model": 2,
        "flops": 394 * 10**12,
        "gathered_bytes": 40 * 10**9,
        "reduced_bytes": 10 * 10**9,
    }
    table = tables.table([slice_of_four, FITS], tables.SLICES, "markdown", tables.LINE_COLUMNS)
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()]
    assert rows[0] == list(tables.SLICES)
    assert rows[2][1:3] == ["4", "2 x 2"] and rows[2][-3:] == ["2.00 s", "46.6 GiB", "0.25 s"]
    assert rows[3][1:3] == ["1", "1 x 1"] and rows[3][-3:] == ["0.01 s", "0.0 GiB", "0.00 s"]
    cut = {**slice_of_four, "state": "cut"}
    assert tables.LINE_COLUMNS["mesh"](cut) == "2 x 2, state cut"
    assert tables.LINE_COLUMNS["mesh"]({**cut, "state": "whole"}) == "2 x 2"
    unknown = {**slice_of_four, "target": "cpu"}
    assert tables.LINE_COLUMNS["work at peak"](unknown) == "unknown"


def test_a_table_of_the_largest_steps_says_what_was_looked_for_and_what_it_was_to_fit():
    line = {**FITS, "largest": "seq_len", "bytes_limit": 5 * 2**29}
    assert tables.usual_columns([line]) == tables.LARGEST
    table = tables.table([line], tables.LARGEST, "markdown", tables.LINE_COLUMNS)
    row = [cell.strip() for cell in table.splitlines()[2].split("|")[1:-1]]
    assert row == ["lora+remat", "tokens", "32", "128", "24", "2.5 GiB", "5.0 MiB", "2.35 TFLOP"]


def test_a_line_of_precision_names_the_leaves_that_are_worst():
    line = {
        "method": "lora",
        "cosine": 0.99827,
        "relative_error": 0.0588,
        "adapter_size": 0.0025,
        "errors_by_leaf": {"a": 0.03, "b": 0.06},
        "allowance": 1.3e-06,
        "allowances_by_leaf": {"a": 6e-06, "b": 5e-06},
    }
    columns = tables.usual_columns([line])
    *_, row = tables.table([line], columns, "markdown", tables.LINE_COLUMNS).splitlines()
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["lora", "0.0588", "0.9983", "b 0.06", "0.0025", "1.3e-06", "a 6e-06"]


def test_a_picture_of_memory_leaves_out_what_does_not_fit_and_needs_two_sizes(tmp_path):
    pytest.importorskip("matplotlib")
    lines = [FITS, {**FITS, "layers": 48}, DOES_NOT]
    plots.memory_over(lines, "layers", tmp_path / "depth.png")
    assert (tmp_path / "depth.png").read_bytes().startswith(b"\x89PNG")
    chips = [{**FITS, "chips": count} for count in (1, 4)]
    plots.memory_over(chips, "chips", tmp_path / "chips.png")
    assert (tmp_path / "chips.png").stat().st_size > 1000
    with pytest.raises(ValueError, match=r"have batch_size \[32\]; give a sweep"):
        plots.memory_over(lines, "batch_size", tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


def test_lines_choose_their_columns_and_texts_cannot_break_a_table():
    text = {"input": "name[A|B]", "output": "A\n or  B.", "references": ["Both.", "None."]}
    assert tables.usual_columns([FITS, DOES_NOT]) == tables.MEMORY
    assert tables.usual_columns([FITS, {**FITS, "data": 2}]) == tables.SLICES
    assert tables.usual_columns([{**FITS, "median_seconds": 0.1}]) == tables.BENCH
    assert tables.usual_columns([text]) == tables.TEXTS
    table = tables.table([text], tables.TEXTS, "markdown", tables.LINE_COLUMNS)
    cells = [cell.strip() for cell in table.splitlines()[2].strip("|").split(" | ")]
    assert cells == [r"name[A\|B]", "A or B.", "Both."]
