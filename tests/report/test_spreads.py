"""Repeats are one cell with mean and deviation; what is no repeat is told apart or refused."""

import dataclasses

import pytest

from memarc.report import groups, spreads, tables


@pytest.fixture
def run(example):
    """A record of a method with options, at epsilon 8."""

    def made(name, score, method="side", seed=None, epsilon=8.0, **options):
        config = {
            "seed": seed,
            "privacy": {"epsilon": epsilon},
            "options": options,
            "ledger": {"folder": name},
        }
        return example(name=name, method=method, config=config, scores={"dev_accuracy": score})

    return made


def cells(text):
    lines = [[x.strip() for x in line.strip("|").split("|")] for line in text.splitlines()]
    return lines[0], lines[2:]


def test_three_runs_of_a_method_and_budget_are_a_mean_a_deviation_and_a_number(run):
    runs = [
        run("a", 0.7),
        run("b", 0.8),
        run("c", 0.6),
        run("d", 0.5, "lora"),
        run("e", 0.9, "head"),
    ]
    header, rows = cells(spreads.by_epsilon(runs, None, "markdown"))
    assert header == ["dev accuracy", "epsilon 8"]
    assert rows == [["head", "90.0"], ["side", "70.0 ± 10.0 (3)"], ["lora", "50.0"]]
    header, rows = cells(spreads.by_fields(runs, ["method", "privacy.epsilon"], (), "markdown"))
    assert header == ["method", "privacy.epsilon", "dev accuracy", "n"]
    assert rows[0] == ["side", "8", "70.0 ± 10.0 (3)", "3"] and rows[1] == [
        "lora",
        "8",
        "50.0",
        "1",
    ]


def test_a_table_by_task_has_its_scores_memory_and_share_and_leaves_out_what_is_not_there(example):
    def made(name, task, method, score, reserved, trained, **scores):
        return example(
            name=name,
            task=task,
            method=method,
            config={"model": {"weights": "w"}, "privacy": {"epsilon": "inf"}},
            scores={"dev_accuracy": score, **scores},
            memory={"reserved_bytes": reserved * 2**20},
            trainable_parameters=trained,
            total_parameters=1000,
        )

    runs = [
        made("a", "sst2", "lora", 0.5, 3, 10),
        made("b", "sst2", "lora", 0.7, 3, 10),
        made("c", "qqp", "lora", 0.8, 5, 20, dev_f1=0.9),
        made("d", "qqp", "side", 0.6, 2, 30, dev_f1=0.4),
    ]
    header, rows = cells(spreads.by_task(runs, ("dev_accuracy", "dev_f1"), "markdown"))
    scores = ["sst2 dev accuracy", "qqp dev accuracy", "qqp dev f1"]
    assert header == ["method", "privacy.epsilon", *scores, "training memory", "trainable"]
    assert rows == [
        ["lora", "inf", "60.0 ± 14.1 (2)", "80.0", "90.0", "5.0 MiB", "2.000 %"],
        ["side", "inf", "", "60.0", "40.0", "2.0 MiB", "3.000 %"],
    ]
    other = dataclasses.replace(runs[3], config={**runs[3].config, "model": {"weights": "v"}})
    header, rows = cells(spreads.by_task([*runs, other], (), "markdown"))
    assert header[0] == "model.weights" and [row[0] for row in rows] == ["w", "w", "v"]
    with pytest.raises(ValueError, match=r"No run has the scores \['dev_auc'\]"):
        spreads.by_task(runs, ("dev_accuracy", "dev_auc"), "markdown")


def test_runs_of_a_cell_that_differ_in_more_than_randomness_are_refused_until_grouped(run):
    runs = [run("a", 0.7, reduction=8), run("b", 0.8, reduction=8), run("c", 0.6, reduction=2)]
    with pytest.raises(ValueError, match=r"\['a', 'b', 'c'\].* differ in \['options.reduction'\]"):
        spreads.by_epsilon(runs, None, "markdown")
    rows = ("method", "options.reduction")
    header, lines = cells(spreads.by_epsilon(runs, None, "markdown", rows))
    assert header == ["method", "options.reduction: dev accuracy", "epsilon 8"]
    assert lines == [["side", "8", "75.0 ± 7.1 (2)"], ["side", "2", "60.0"]]


def test_one_run_given_twice_is_no_repeat(run):
    with pytest.raises(ValueError, match="a and b have equal seeds, 3,"):
        spreads.by_epsilon([run("a", 0.7, seed=3), run("b", 0.8, seed=3)], None, "markdown")
    with pytest.raises(ValueError, match="a and a have equal records"):
        spreads.by_epsilon([run("a", 0.7), run("a", 0.7)], None, "markdown")
    assert "75.0 ± 7.1 (2)" in spreads.by_epsilon(
        [run("a", 0.7, seed=3), run("b", 0.8, seed=4)], None, "markdown"
    )


def test_a_cell_is_marked_if_any_run_of_it_has_a_fixed_seed(run):
    told = {"epsilon": 8.0, "reproducible_noise": "fixed seed"}
    seeded = dataclasses.replace(run("b", 0.8, seed=3), **told)
    for runs in ([run("a", 0.7), seeded], [seeded, run("a", 0.7)]):
        assert spreads.spread(runs, "dev_accuracy").endswith("(2) (fixed seed: not private)")
    assert "seed" not in spreads.spread([run("a", 0.7), run("c", 0.7)], "dev_accuracy")


def test_accountants_stand_where_runs_differ_in_them(run, example):
    by_pld = example(
        name="b",
        config={"privacy": {"epsilon": 8.0}},
        accountant="pld",
        scores={"dev_accuracy": 1.0},
    )
    runs = [run("a", 0.5, "lora"), by_pld]
    _, rows = cells(spreads.by_epsilon(runs, None, "markdown"))
    assert rows == [["lora", "pld", "100.0"], ["lora", "rdp", "50.0"]]
    assert "accountant" in tables.with_telling(runs, tables.QUICK)
    assert "accountant" not in tables.with_telling(runs[:1], tables.QUICK)


def test_rows_that_would_read_alike_get_the_columns_that_tell_them_apart(run):
    runs = [run("a", 0.7, layers=[1, 3]), run("b", 0.8, layers=[]), run("c", 0.6, "lora", rank=4)]
    columns = tables.with_telling(runs, tables.QUICK)
    assert columns[:4] == ("task", "method", "options.layers", "score")
    header, rows = cells(tables.table(runs, columns, "markdown", tables.columns_of(runs)))
    assert [row[header.index("options.layers")] for row in rows] == ["1, 3", "", ""]
    assert tables.with_telling([runs[0], runs[2]], tables.QUICK) == tables.QUICK
    first, second = (
        dataclasses.replace(x, config={**x.config, "data": {"buckets": n}, "model": {"weights": n}})
        for n, x in enumerate((run("a", 0.7), run("b", 0.8)))
    )
    assert groups.differing([first, second]) == ["data.buckets", "model.weights"]
    assert groups.telling([first, second]) == ["model.weights"]  # It parts them already.
    repeats = [run("a", 0.7), run("b", 0.8)]
    assert tables.with_telling(repeats, tables.QUICK) == ("run", *tables.QUICK)


def test_a_field_that_older_records_lack_tells_nothing_apart_and_unknown_ones_are_named(run):
    older, newer = run("a", 0.7), run("b", 0.8, reduction=8)
    assert groups.differing([older, newer]) == []
    with pytest.raises(ValueError, match=r"'options.reductoin' \(did you mean options.reduction"):
        spreads.by_fields([newer], ["options.reductoin"], (), "markdown")
    with pytest.raises(
        ValueError, match=r"No run has the scores \['dev_f1'\]; choose from \['dev_acc"
    ):
        spreads.by_fields([newer], ["method"], ("dev_f1",), "markdown")
