"""The commands that measure memory and time: lines of the real step, and mistakes told at once."""

import dataclasses
import importlib.util
import json
from functools import partial

import jax
import pytest

from memarc.measure import case as cases
from memarc.measure import step as measure
from memarc.models.methods import METHODS
from memarc.ops.uses import NeedsTaps
from tests import commands
from tests.measure import small_shapes

CONFIG = "--config=tests/measure/small_shapes.py"
SIZES = ("--batch_size=3", "--seq_len=5")


def command(name, *arguments, path=()):
    return commands.run(f"experiments.{name}", CONFIG, *arguments, path=path)


def case(label, **more):
    given = {"batch_size": 3, "seq_len": 5, "layers": None} | more
    return cases.parse(small_shapes.get_config().to_dict(), label, **given)


@pytest.mark.parametrize(
    "method",
    [pytest.param(x, marks=[pytest.mark.slow] * (x != "lora")) for x in METHODS],
)
def test_the_abstract_step_is_the_one_that_runs(method):
    """Every method's arguments have the shapes that are compiled for, and its step moves them."""
    given = case(method)
    state, frozen, batch, is_padding = jax.jit(partial(cases.draw, given, "vmap"))(
        jax.random.key(0)
    )
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), (state, frozen, batch, is_padding))
    wanted = jax.tree.map(lambda x: (x.shape, x.dtype), cases.abstract(given, "vmap"))
    assert shapes == wanted
    after, metrics = jax.jit(cases.private_step(given, "vmap", 3))(state, frozen, batch, is_padding)
    assert int(after.step) == 1 and metrics["update_norm"] > 0


@pytest.mark.parametrize("method", METHODS)
def test_the_step_of_every_method_keeps_the_shapes_of_its_state(method):
    given = case(method)
    state, frozen, batch, is_padding = cases.abstract(given, "vmap")
    step = cases.private_step(given, "vmap", 3)
    after, _ = jax.eval_shape(step, state, frozen, batch, is_padding)
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (state, after)]
    assert shapes[0] == shapes[1]


def test_a_measured_step_may_clip_by_layer_and_its_line_says_so():
    config = small_shapes.get_config()
    config.privacy.clipping_scope = "per_layer"
    sizes = {"batch_size": 3, "seq_len": 5, "layers": None}
    given = cases.parse(config.to_dict(), "lora", **sizes)
    assert given.clipping.scope == given.described["clipping_scope"] == "per_layer"
    assert case("lora").described["clipping_scope"] == "flat"
    arguments = cases.abstract(given, "vmap")
    _, metrics = jax.eval_shape(cases.private_step(given, "vmap", 3), *arguments)
    assert "update_norm" in metrics


def test_a_compiled_line_adds_up():
    line = measure.compile_step(case("lora"), "vmap", 3, measure.here())
    parts = line["arguments_bytes"] + line["temp_bytes"] + line["output_bytes"]
    assert 0 < line["beyond_arguments_bytes"] == line["peak_bytes"] - line["arguments_bytes"]
    assert (
        line["peak_bytes"] <= line["reserved_bytes"] <= parts
        and line["flops"] > 0
        and not line["out_of_memory"]
    )


def test_a_step_that_takes_more_than_the_device_has_is_a_line_of_one_that_does_not_fit():
    one = measure.here()
    peak = measure.compile_step(case("lora"), "vmap", 3, one)["peak_bytes"]
    fits, less = [
        measure.compile_step(case("lora"), "vmap", 3, dataclasses.replace(one, memory=memory))
        for memory in (peak, peak - 1)
    ]
    assert fits["peak_bytes"] == peak and not fits["out_of_memory"]
    assert less["out_of_memory"] and less["needed_bytes"] == peak and less["peak_bytes"] is None


def test_the_engine_of_a_line_is_the_cheapest(monkeypatch):
    lines = {
        "vmap": {"beyond_arguments_bytes": 30, "flops": 100},
        "ghost": {"beyond_arguments_bytes": 20, "flops": 140},
        "book_keeping": {"beyond_arguments_bytes": 18, "flops": 160},  # Too much work.
    }
    monkeypatch.setattr(measure, "compile_step", lambda case, name, size, device: lines[name])
    best = measure.compile_cheapest(case("lora"), tuple(lines), 3, measure.here())
    assert best == {"engine": "ghost", **lines["ghost"]}

    def without_taps(case, name, size, device):
        if name != "vmap":
            raise NeedsTaps("a loss of stock layers")
        return lines[name]

    monkeypatch.setattr(measure, "compile_step", without_taps)
    assert measure.compile_cheapest(case("lora"), tuple(lines), 3, measure.here())["flops"] == 100


def test_a_wish_chooses_rows_and_remat_of_a_line_too(monkeypatch):
    """Bytes fall with rows and remat; the program that is reported is the one that was chosen."""

    def compile_step(given, engine, rows, target):
        kept = 5 if given.backbone.remat == "layer" else 10
        return {"peak_bytes": 100 + rows * kept, "flops": 7}

    monkeypatch.setattr(measure, "compile_step", compile_step)
    given, engines = case("lora"), ("vmap", "book_keeping")
    one = dataclasses.replace(measure.here(), memory=1000)
    chosen, line = measure.compile_fitted(given, "112B", engines, 3, one)
    assert chosen.label == "lora+remat" and line["peak_bytes"] == 110 and line["fit"] == "112B"
    assert (line["engine"], line["microbatch_size"]) == ("vmap", 2)
    chosen, line = measure.compile_fitted(given, "fastest", engines, 3, one)
    assert chosen == given and line["microbatch_size"] == 3 and line["peak_bytes"] == 130
    monkeypatch.setattr(measure, "compile_cheapest", lambda *given: {"engine": "ghost"})
    assert measure.compile_fitted(given, "balanced", engines, 3, one) == (
        given,
        {"microbatch_size": 3, "engine": "ghost"},
    )


@pytest.mark.parametrize(("target", "gpus"), [("gpu:h100", 1), ("gpu:a100:3", 3)])
def test_a_step_is_compiled_for_gpus_that_are_not_here(target, gpus, tmp_path):
    """The arrays that one of them is given, and its work, are those of a step on this machine."""
    if importlib.util.find_spec("jax_cuda12_plugin") is None:
        pytest.skip("no compiler for GPUs: pip install --no-deps jax-cuda12-plugin jax-cuda12-pjrt")
    found = []
    for name, batch in ((target, 3 * gpus), ("cpu", 3)):
        arguments = (f"--target={name}", f"--batch_size={batch}", f"--output={tmp_path / 'line'}")
        mesh = f"--mesh=data:{gpus}" if name == target else "--mesh=model:1"
        command("memory", "--seq_len=5", "--methods=lora", "--engines=vmap", mesh, *arguments)
        found.append(json.loads((tmp_path / "line").read_text()))
    there, here = found
    assert there["arguments_bytes"] == here["arguments_bytes"] > 0
    assert there["flops"] == here["flops"] and not there["out_of_memory"]
    assert 0 < there["beyond_arguments_bytes"] < 64 * 2**20  # Of it cuBLAS takes 4 to 32 MiB.


@pytest.mark.slow
def test_the_largest_that_fits_was_compiled_and_a_sixteenth_more_does_not_fit(tmp_path):
    def found(*arguments):
        sizes = ("--target=cpu", "--methods=lora", "--engines=none", "--seq_len=5")
        output = tmp_path / "line"
        done = command("largest", *sizes, *arguments, f"--output={output}")
        return json.loads(output.read_text()), done.stderr

    one, _ = found("--bytes=1KiB", "--step=2")
    assert one["out_of_memory"] and one["batch_size"] == 2 and one["needed_bytes"] > 1024
    line, told = found("--bytes=2MiB", "--step=2")
    assert line["peak_bytes"] <= 2**21 == line["bytes_limit"] and line["largest"] == "batch_size"
    assert line["batch_size"] % 2 == 0 and f"batch_size {line['batch_size']}:" in told
    next_one = line["batch_size"] + 2 * max(1, line["batch_size"] // 32)
    more = measure.compile_step(case("lora", batch_size=next_one), "none", next_one, measure.here())
    assert more["peak_bytes"] > 2**21
    whole, _ = found("--bytes=1GiB", "--field=seq_len", "--step=200", "--batch_size=1")
    assert whole["seq_len"] == 400 and not whole["out_of_memory"]  # It has positions for 512.


@pytest.mark.parametrize("name", ["largest", "plan"])
@pytest.mark.parametrize("given", ["plenty", "16", "0GiB"])
def test_bytes_that_are_none_are_told(name, given):
    done = command(name, "--target=cpu", f"--bytes={given}")
    assert done.returncode and f"--bytes is '{given}'; give bytes such as 16GiB" in done.stderr


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("reversibility", "methods"),
        ("precision", "engines"),
        ("inspect", "microbatch_size"),
        ("largest", "microbatch_size"),
    ],
)
def test_a_flag_that_a_command_does_not_read_is_none_of_its_flags(name, flag):
    done = command(name, f"--{flag}=1")
    assert done.returncode and f"Unknown command line flag '{flag}'" in done.stderr


def test_a_sweep_writes_a_line_for_every_size_and_method(tmp_path):
    output = tmp_path / "lines.jsonl"
    done = command(
        "memory",
        *SIZES,
        "--target=cpu",
        "--methods=lora,lora+remat",
        "--engines=vmap",
        "--sweep=layers:1,3",
        f"--output={output}",
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(text) for text in done.stdout.splitlines()]
    assert [json.loads(text) for text in output.read_text().splitlines()] == lines
    assert [(x["layers"], x["method"]) for x in lines] == [
        (1, "lora"),
        (1, "lora+remat"),
        (3, "lora"),
        (3, "lora+remat"),
    ]
    assert all(x["engine"] == "vmap" and not x["out_of_memory"] for x in lines)
    assert lines[3]["flops"] > lines[2]["flops"]  # Remat computes again.
    assert not list(tmp_path.glob("*.partial"))


def test_places_tell_how_every_norm_is_taken():
    found = {place.path: str(place) for place in cases.places(case("lora", seq_len=6))}
    assert found["tuning/query/a"].endswith("dense, instantiated")
    wide = {place.path: str(place) for place in cases.places(case("lora", seq_len=1))}
    assert wide["tuning/query/a"].endswith("dense, ghost norm")


def test_a_benchmark_compares_with_the_step_without_privacy(tmp_path):
    output = tmp_path / "lines.jsonl"
    done = command(
        "bench", *SIZES, "--methods=head", "--engines=vmap", "--steps=2", f"--output={output}"
    )
    assert done.returncode == 0, done.stderr
    plain, private = [json.loads(text) for text in output.read_text().splitlines()]
    assert (plain["engine"], private["engine"]) == ("none", "vmap")
    assert plain["over_plain"] == 1.0 and private["over_plain"] > 0
    assert private["examples_per_second"] * private["seq_len"] == pytest.approx(
        private["tokens_per_second"], rel=1e-3
    )
    assert len(private["seconds"]) == 2
    assert 0 < private["drawing_peak_bytes"] <= private["peak_bytes"]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("memory", ["--target=tpu:v9"], "Unknown target 'tpu:v9'; choose one of"),
        ("memory", ["--target=cpu", "--sweep=depth:1"], "Unknown sweep 'depth:1'; give FIELD"),
        ("memory", ["--target=cpu", "--sweep=layers:1,x"], "Unknown sweep 'layers:1,x'"),
        ("memory", ["--target=cpu", "--engines=magic"], "Unknown engine 'magic'; choose one of"),
        ("memory", ["--target=cpu", "--methods=lora+magic"], "Unknown method 'lora+magic'"),
        ("memory", ["--target=cpu", "--seq_len=900"], "seq_len 900; give at least 1, and at most"),
        ("memory", ["--target=cpu", "--microbatch_size=99"], "microbatch_size is 99; give 1 to 32"),
        (
            "memory",
            ["--target=cpu", "--config.storage_dtype=gguf"],
            "storage_dtype is 'gguf'; choose one of ('float32', 'bfloat16', 'int8', 'int4')",
        ),
        ("bench", ["--engines=magic"], "Unknown engine 'magic'; choose one of ('none', 'auto',"),
        ("bench", ["--microbatch_sizes=4,0"], "microbatch_sizes has 0; give 1 to 32"),
    ],
    ids=str,
)
def test_a_mistake_is_one_message_and_writes_nothing(tmp_path, name, arguments, message):
    done = command(name, *arguments, f"--output={tmp_path / 'lines.jsonl'}")
    assert done.returncode == 2, done.stderr
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not done.stdout and not list(tmp_path.iterdir())


def test_without_libtpu_the_extra_is_named(tmp_path):
    (tmp_path / "libtpu").mkdir()
    (tmp_path / "libtpu" / "__init__.py").write_text("raise ImportError('hidden by a test')")
    done = command("memory", "--target=tpu:v5e", path=[str(tmp_path)])
    assert done.returncode == 2, done.stderr
    assert "pip install 'memarc[tpu]'" in done.stderr and "Traceback" not in done.stderr
