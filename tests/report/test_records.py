"""Records survive the file; tables hold what records hold."""

import dataclasses
import json

import pytest

from memarc.report import records, spreads, tables


@pytest.mark.parametrize("epsilon", [8.0, float("inf")])
def test_a_record_comes_back_as_it_was_and_is_strict_json(tmp_path, epsilon, example):
    record = example(epsilon=epsilon)
    path = records.write(record, tmp_path)
    assert records.read(path) == record
    json.loads(path.read_text(), parse_constant=pytest.fail)  # No Infinity or NaN.
    assert [item.name for item in tmp_path.iterdir()] == ["record.json"]


def test_both_epsilons_stand_beside_each_other_and_older_records_hold_them_too(tmp_path, example):
    by_pld = example(epsilon=8.0, epsilon_pld=8.0, epsilon_rdp=9.5, accountant="pld")
    older = {**dataclasses.asdict(example(epsilon=8.0, epsilon_pld=6.5))}
    del older["epsilon_rdp"], older["accountant"]
    (tmp_path / "older.json").write_text(json.dumps(older))
    cut = {**older, "accountant": "pld"}  # Of truncated draws.
    (tmp_path / "cut.json").write_text(json.dumps(cut))
    found = [by_pld, *(records.read(tmp_path / f"{name}.json") for name in ("older", "cut"))]
    columns = ("epsilon", "accountant", "epsilon by RDP", "epsilon by PLD")
    rows = tables.table(found, columns, "markdown").splitlines()[2:]
    assert [[cell.strip() for cell in row.strip("|").split("|")] for row in rows] == [
        ["8.000", "pld", "9.500", "8.000"],
        ["8.000", "rdp", "8.000", "6.500"],
        ["8.000", "pld", "not covered", "6.500"],
    ]


def test_a_file_that_is_no_record_is_refused(tmp_path, example):
    path = records.write(example(), tmp_path)
    content = json.loads(path.read_text())
    del content["epsilon"]
    path.write_text(json.dumps({**content, "extra": 1}))
    with pytest.raises(ValueError, match=r"lacks \['epsilon'\] and has unknown \['extra'\]"):
        records.read(path)
    path.write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        records.read(path)
    with pytest.raises(ValueError, match="cannot be read"):
        records.read(tmp_path / "absent")


def test_a_table_holds_one_row_a_record(example):
    text = tables.table([example(), example(method="side", epsilon=3.0)], tables.QUICK, "markdown")
    header, _, first, second = text.splitlines()
    assert "method" in header and "kept for backward" in header
    assert all(part in first for part in ("lora", "81.2", "inf", "1e-05", "1,234", "3.0 MiB", "61"))
    assert "3.000" in second and "side" in second


def test_scores_are_in_percent_but_for_those_that_pass_1(example):
    scores = {"test_bleu_e2e": 0.6593, "test_nist": 8.6094, "test_cider": 2.2338}
    record = example(scores=scores)
    text = tables.table([record], tuple(scores), "terminal", tables.columns_of([record]))
    assert text.splitlines()[-1].split() == ["65.9", "8.61", "2.23"]


def test_the_column_of_scores_holds_the_first_of_each_evaluation_set(example):
    scores = {"dev_bleu_e2e": 0.5, "dev_nist": 3.0, "test_bleu_e2e": 0.6, "test_perplexity": 9.0}
    text = tables.table([example(scores=scores)], ("score",), "terminal")
    assert text.splitlines()[-1] == "50.0 (dev bleu e2e), 60.0 (test bleu e2e)"


def test_rows_without_a_prediction_stand_beside_the_score_of_their_set(example):
    scores = {"dev_bleu": 0.5, "dev_undefined": 0.02, "test_bleu": 0.6, "test_undefined": 0.0}
    text = tables.table([example(scores=scores)], ("score",), "terminal")
    wanted = "50.0 (dev bleu; 2 % of rows undefined), 60.0 (test bleu)"
    assert text.splitlines()[-1] == wanted


def test_a_score_that_one_record_lacks_is_said(example):
    made = [example(scores={"dev_bleu": 0.5}), example(scores={"dev_f1": 0.25})]
    text = tables.table(made, ("dev_f1",), "terminal", tables.columns_of(made))
    assert text.splitlines()[-2:] == ["not scored", "25.0"]


@pytest.mark.checklist(39)
def test_a_run_of_a_fixed_seed_is_not_shown_as_private_in_any_table(example):
    told = {"reproducible_noise": "fixed seed: not private against who knows it"}
    seeded = example(epsilon=8.0, epsilon_pld=6.5, epsilon_rdp=8.0, **told)
    for column, value in (
        ("epsilon", "8.000"),
        ("epsilon by RDP", "8.000"),
        ("epsilon by PLD", "6.500"),
    ):
        text = tables.table([seeded], (column,), "terminal")
        assert text.splitlines()[-1] == f"{value} (fixed seed: not private)"
    config = {"privacy": {"epsilon": 8.0}}
    by_epsilon = [dataclasses.replace(seeded, config=config), example(method="side", config=config)]
    last = spreads.by_epsilon(by_epsilon, None, "terminal").splitlines()[-2:]
    assert [row.endswith("81.2 (fixed seed: not private)") for row in last] == [True, False]
    free = example(epsilon=float("inf"), **told)
    assert tables.table([free], ("epsilon",), "terminal").splitlines()[-1] == "inf"


def test_a_table_by_epsilon_has_a_row_a_method_and_a_column_a_budget(example):
    def made(method, epsilon, score):
        config = {"privacy": {"epsilon": epsilon}}
        return example(method=method, config=config, scores={"dev_bleu": score, "dev_nist": 7.0})

    runs = [made("lora", 8.0, 0.5), made("side", "inf", 0.7), made("lora", "inf", 0.6)]
    text = spreads.by_epsilon(runs, None, "markdown")
    cells = [[x.strip() for x in line.strip("|").split("|")] for line in text.splitlines()]
    assert cells[0] == ["dev bleu", "epsilon 8", "epsilon inf"]
    assert cells[2:] == [["side", "", "70.0"], ["lora", "50.0", "60.0"]]
    assert "7.00" in spreads.by_epsilon(runs, "dev_nist", "markdown")
    with pytest.raises(ValueError, match="have no score 'dev_f1'"):
        spreads.by_epsilon(runs, "dev_f1", "markdown")
    with pytest.raises(ValueError, match=r"tasks \['qnli', "):
        spreads.by_epsilon([*runs, example(task="qnli")], None, "markdown")


def test_unknown_columns_and_styles_are_named(example):
    with pytest.raises(ValueError, match=r"Unknown columns \['speed'\]"):
        tables.table([example()], ("speed",), "terminal")
    with pytest.raises(ValueError, match="Unknown style 'html'"):
        tables.table([example()], tables.QUICK, "html")


def test_the_headline_is_the_first_score(example):
    assert example().headline == 0.8123


def test_weights_say_what_they_were_trained_on_if_they_know(tmp_path):
    assert records.provenance("openai/gpt2", "e2e") == "weights openai/gpt2"
    (tmp_path / records.PROVENANCE).write_text(
        '{"steps": 3, "source": "Read were songs.", "not_private": []}'
    )
    assert records.provenance(str(tmp_path), "e2e").endswith("scratch in 3 steps. Read were songs.")
    for missing in ("steps", "source", "not_private"):  # What is not said is not taken for safe.
        stated = {"steps": 3, "source": "Read were songs.", "not_private": []}
        del stated[missing]
        (tmp_path / records.PROVENANCE).write_text(json.dumps(stated))
        with pytest.raises(ValueError, match=f"does not tell how weights were .*'{missing}'"):
            records.provenance(str(tmp_path), "e2e")


@pytest.mark.checklist(31)
def test_weights_trained_on_a_task_refuse_a_private_run_on_it(tmp_path):
    (tmp_path / records.PROVENANCE).write_text(
        '{"steps": 3, "source": "Read was WebNLG.", "not_private": ["webnlg", "dart"]}'
    )
    assert "Read was WebNLG." in records.provenance(str(tmp_path), "e2e")
    with pytest.raises(ValueError, match="trained without privacy on rows of task 'dart'"):
        records.provenance(str(tmp_path), "dart")


def test_outside_a_repository_the_commit_is_unknown(tmp_path):
    assert records.commit(tmp_path) == "unknown"
