"""The paper's tables: whole grids of runs, published settings, and their path at toy sizes."""

import json

import jax
import pytest

from configs.paper import classification, generation, grid, memory
from memarc.measure import case as cases
from memarc.runs import run
from memarc.runs.parse import parse
from tests import commands, tiny_weights
from tests.backbone_shapes import shapes_of

TABLES = {
    "classification": (classification, "roberta", ("sst2", "qnli", "qqp", "mnli")),
    "generation": (generation, "gpt2", ("e2e", "dart")),
}
TRAIN_ROWS = {  # As published.
    "sst2": 67_349,
    "qnli": 104_743,
    "qqp": 363_846,
    "mnli": 392_702,
    "e2e": 42_061,
    "dart": 62_659,
}


@pytest.mark.parametrize("table", TABLES)
def test_a_table_has_every_method_at_every_budget_on_every_task(table):
    module, _, tasks = TABLES[table]
    for preset in module.PRESETS[:-1]:
        runs = parse(module.get_config(preset).to_dict())
        found = {(x.task, x.method, x.privacy.epsilon) for x in runs}
        wanted = {(t, m, e) for t in tasks for m in grid.METHODS for e in grid.BUDGETS.values()}
        assert found == wanted and len(runs) == len(wanted)
        for one in runs:
            assert one.privacy.delta < 1 / TRAIN_ROWS[one.task] and one.seed is None
            assert one.privacy.accountant == "rdp" and one.data.split == "official"
            assert one.name.startswith(f"{preset}-{one.task}-{one.method}-")


def test_baselines_have_their_published_settings():
    """Two of each source that the configs name: Li et al. (full), Yu et al. (LoRA)."""
    runs = {x.name: x for x in parse(classification.get_config("large").to_dict())}
    full, lora = runs["large-qqp-full-eps8"], runs["large-qqp-lora-eps8"]
    batch, lr = full.privacy.expected_batch_size, full.optimizer.learning_rate
    assert (batch, full.training.epochs, lr, full.privacy.clip_norm) == (6000, 18.0, 5e-4, 0.1)
    batch, lr = lora.privacy.expected_batch_size, lora.optimizer.learning_rate
    assert (batch, lora.training.epochs, lr, lora.privacy.clip_norm) == (2000, 50.0, 1e-3, 2.0)
    assert lora.options["rank"] == 16 and lora.optimizer.warmup_fraction == 0.06
    (base,) = parse(classification.get_config("base").to_dict(), ["base-sst2-lora-inf"])
    assert base.privacy.clip_norm == 10.0
    runs = {x.name: x for x in parse(generation.get_config("medium").to_dict())}
    full, lora = runs["medium-dart-full-eps3"], runs["medium-e2e-lora-eps3"]
    assert (full.privacy.delta, full.training.epochs, full.optimizer.learning_rate) == (
        1e-5,
        15,
        5e-4,
    )
    assert (lora.options["rank"], lora.options["alpha"], lora.head.smoothing) == (4, 32.0, 0.1)
    assert (lora.privacy.expected_batch_size, lora.training.epochs) == (128, 20.0)
    decoding = lora.decoding
    assert (decoding.beams, decoding.length_penalty, decoding.no_repeat_ngram) == (10, 0.8, 4)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    tiny_weights.write(folder)
    return folder


def made(table, method, weights, tmp_path, repeats):
    """Makes a tiny run of a table; gives what tabulate says of the whole grid."""
    module, family, _ = TABLES[table]
    config = module.get_config("tiny")
    config.model.weights = str(weights / family)
    config.repeats = repeats
    (task,) = {x.task for x in parse(config.to_dict())}
    records = run.run_all(config.to_dict(), tmp_path, [f"tiny-{task}-{method}-inf"])
    told = commands.run(
        "experiments.tabulate",
        f"--config=configs/paper/{table}.py:tiny",
        f"--config.model.weights={weights / family}",
        f"--config.repeats={repeats}",
        f"--workdir={tmp_path}",
        "--by_task",
    )
    assert told.returncode == 0, told.stderr
    return records, told


CASES = [("classification", "head"), ("generation", "bitfit")]


@pytest.mark.parametrize(
    ("table", "method"),
    [
        pytest.param(x, y, marks=() if (x, y) in CASES else pytest.mark.slow)
        for x in TABLES
        for y in grid.METHODS
    ],
)
def test_the_path_of_a_table_runs_at_toy_sizes_and_one_command_makes_what_is_there_of_it(
    table, method, weights, tmp_path
):
    repeats = 2 if table == "classification" else 1
    records, told = made(table, method, weights, tmp_path, repeats)
    assert len(records) == repeats and records[0].steps == 3
    said, _, names = told.stderr.strip().splitlines()[-1].partition(": ")
    missing = set(names.split(", "))
    assert said == f"{20 * repeats} of {21 * repeats} runs are missing"
    assert len(missing) == 20 * repeats and not missing & {x.name for x in records}
    header, _, row = told.stdout.splitlines()
    assert "training memory" in header and header.split()[:2] == ["method", "privacy.epsilon"]
    mean = 100 * sum(record.headline for record in records) / repeats
    assert row.split()[:3] == [method, "inf", f"{mean:.1f}"]
    assert ("± " in row and "(2)" in row) == (repeats == 2)
    share = 100 * records[0].trainable_parameters / records[0].total_parameters
    assert row.endswith(f"{share:.3f} %")


PARAMETERS = {  # As published; RoBERTa's without its pooler.
    "roberta-large": 355_359_744 - 1024 * 1025,
    "roberta-base": 124_645_632 - 768 * 769,
    "gpt2-large": 774_030_080,
    "gpt2-medium": 354_823_168,
    "gpt2-small": 124_439_808,
}


@pytest.mark.parametrize("preset", PARAMETERS)
def test_the_sizes_of_the_table_of_memory_are_the_published_ones(preset):
    case = cases.parse(
        memory.get_config(preset).to_dict(), "side", batch_size=2, seq_len=8, layers=None
    )
    params = shapes_of(case.backbone)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == PARAMETERS[preset]


@pytest.mark.slow
def test_the_table_of_memory_is_made_at_toy_sizes():
    done = commands.run(
        "experiments.memory",
        "--config=configs/paper/memory.py:tiny",
        "--methods=side,head",
        "--target=cpu",
        "--batch_size=2",
        "--seq_len=8",
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(x) for x in done.stdout.splitlines() if x.startswith("{")]
    assert [line["method"] for line in lines] == ["side", "head"]
    assert all(line["peak_bytes"] > 0 for line in lines)
