"""A user's mistake is one message that names the value and the choices, before any training."""

import dataclasses
import pathlib
import subprocess
import sys

import pytest

from configs import e2e
from experiments import mistakes
from memarc.runs import assemble, run
from memarc.runs.parse import parse
from tests import commands

ROOT = pathlib.Path(__file__).resolve().parents[2]

MISTAKES = [
    ({"task": "imdb"}, r"Unknown task 'imdb'; choose one of sst2, .*, e2e, "),
    ({"method": "prefix"}, r"Unknown method 'prefix'; choose one of \['full', 'head', "),
    (
        {"privacy.engine": "fast"},
        r"Unknown engine 'fast'; choose one of \('auto', 'zeroth_order', 'loop', 'vmap', ",
    ),
    ({"privacy.fit": "quick"}, r"fit is 'quick'; give 'balanced', .* bytes .* '12GiB'"),
    ({"privacy.fit": "fastest"}, r"leave the engine 'auto', or the fit 'balanced'"),
    ({"privacy.epsilon": 0.0}, r"epsilon is 0\.0; give a number above 0"),
    ({"privacy.epsilon": -1.0}, r"epsilon is -1\.0"),
    ({"privacy.delta": 0.0}, r"delta is 0\.0; give a number above 0 and below .*0\.0167"),
    ({"privacy.delta": 1 / 60}, r"delta is 0\.0166"),
    ({"privacy.clip_norm": 0.0}, r"clip_norm is 0\.0"),
    ({"privacy.clipping": "flat"}, r"Unknown clipping rule 'flat'"),
    ({"privacy.expected_batch_size": 61}, r"expected_batch_size is 61; give 1 to .* 60"),
    ({"privacy.engine": "zeroth_order", "privacy.probe": 0.0}, r"probe is 0\.0; give a finite"),
    (
        {"privacy.engine": "zeroth_order", "privacy.clipping_scope": "per_layer"},
        r"clipping_scope is 'per_layer'; a slope is one number for all layers",
    ),
    ({"privacy.microbatch_size": 9}, r"microbatch_size is 9; give 1 to physical_batch_size, 8"),
    ({"data.max_length": 40, "data.buckets": (40,)}, r"max_length is 40; .* positions for 32"),
    ({"data.buckets": (32, 12)}, r"buckets is \(32, 12\)"),
    ({"data.source": "csv"}, r"Unknown source 'csv'"),
    ({"data.split": "random"}, r"Unknown split 'random'"),
    (
        {"head.pooling": "max"},
        r"head\.pooling is 'max'; choose one of \('first', 'mean', 'last', 'words', 'mask'\)",
    ),
    ({"optimizer.learning_rate": -1.0}, r"optimizer\.learning_rate is -1\.0"),
    ({"training.epochs": 0.0}, r"training\.epochs is 0\.0"),
    ({"training.checkpoint_every": 0}, r"checkpoint_every is 0"),
    ({"training.log_every": 0}, r"log_every is 0"),
    ({"training.eval_batch_size": 0}, r"eval_batch_size is 0"),
    ({"options.lora.rank": 0}, r"LoRA rank is 0"),
    ({"options.lora.targets": ("qkv",)}, r"LoRA targets \['qkv'\]; choose from \['query'"),
    ({"seed": -1}, r"seed is -1"),
    ({"model.dtype": "float16"}, r"dtype is 'float16'; choose one of"),
    ({"model.storage_dtype": "int2"}, r"storage_dtype is 'int2'; choose one of"),
    ({"model.storage_dtype": "int8"}, r"storage_block is 32, which does not divide .* 16 inputs"),
    ({"model.storage_block": 8}, r"storage_block is 8, .* 'float32' has no blocks .* 'int4'\)"),
    ({"model.weights": "/nowhere/bert"}, r"No weights at '/nowhere/bert'.*hub name"),
]


@pytest.mark.parametrize(("changes", "message"), MISTAKES, ids=lambda x: str(x)[:40])
def test_a_bad_value_is_named_and_nothing_is_written(config, tmp_path, changes, message):
    config.method = "lora"  # Whose options are among the mistakes.
    config.update_from_flattened_dict(changes)
    with pytest.raises(ValueError, match=message):
        run.run_all(config.to_dict(), tmp_path / "out")
    out = tmp_path / "out"
    assert not out.exists() or not list(out.rglob("*.json*"))


def test_missing_data_tell_where_they_were_sought_and_how_to_get_them(config, tmp_path):
    config.task = "sst2"
    config.data.source, config.data.root = "files", str(tmp_path / "data")
    config.data.tokenizer = config.model.weights
    config.data.update(tokenizer="word_level", train_rows=6000, dev_rows=None)
    with pytest.raises(ValueError, match="'word_level' knows an embedded grammar's words only"):
        run.run_all(config.to_dict(), tmp_path)


def test_fields_and_runs_that_do_not_exist_are_named(config):
    with config.unlocked():
        config.colour = "red"
    with pytest.raises(ValueError, match=r"unknown fields \['colour'\]"):
        parse(config.to_dict())
    with config.unlocked():
        del config["colour"], config["seed"]
    with pytest.raises(ValueError, match=r"lacks \['seed'\]"):
        parse(config.to_dict())


def test_a_value_of_another_type_is_named(config):
    with config.ignore_type():
        config.training.epochs = "three"
    with pytest.raises(ValueError, match=r"config\.training\.epochs is 'three'; give float"):
        parse(config.to_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epsilon": 8.0}, "give both, or none"),
        ({"epsilon": 8.0, "delta": 1e-3}, r"give ledger\.folder too"),
    ],
)
def test_half_a_ledger_is_refused(config, changes, message):
    config.ledger.update(changes)
    with pytest.raises(ValueError, match=message):
        parse(config.to_dict())


def test_the_command_line_wins_over_what_runs_change():
    """Else an epsilon that a user asks for would be ignored, and more of it spent."""
    code = (
        "from absl import app; from experiments import cli; from memarc.runs.parse import parse\n"
        "app.run(lambda _: print([(run.privacy.epsilon, run.optimizer.learning_rate,"
        " run.decoding.beams if run.decoding else 0) for run in parse(cli.config())]))"
    )
    given = ["--config=configs/e2e.py", "--config.privacy.epsilon=1", "--config.decoding.beams=3"]
    done = subprocess.run(
        [sys.executable, "-c", code, *given], cwd=ROOT, capture_output=True, text=True
    )
    counts = {"lora": 3, "reversible": 2, "side": 2}
    expected = [
        (1.0, e2e.RATES["full"][method], 3) for method, n in counts.items() for _ in range(n)
    ]
    assert done.stdout.strip() == str(expected), done.stderr


def test_a_folder_that_cannot_be_made_is_told_without_traceback():
    arguments = ("--config=configs/quickstart.py:smoke", "--only=lora")
    done = commands.run("experiments.run", "--workdir=/dev/null/out", *arguments)
    assert done.returncode == 2 and "Not a directory: '/dev/null/out" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_section_with_a_wrong_field_is_named(config):
    with config.unlocked():
        config.privacy.sigma = 1.0
    with pytest.raises(ValueError, match=r"config\.privacy has unknown fields \['sigma'\]"):
        parse(config.to_dict())


def test_a_run_that_changes_a_field_that_does_not_exist_is_named(config):
    config.runs = {"a": {"privacy": {"epsilonn": 1.0}}}
    with pytest.raises(ValueError, match=r"config\.runs\.a does not fit.*epsilonn"):
        parse(config.to_dict())
    config.runs = {"a": {}}
    with pytest.raises(ValueError, match=r"no run \['b'\]; its runs are \['a'\]"):
        parse(config.to_dict(), ["b"])


@pytest.mark.parametrize(
    ("ids", "rows", "tokenizer", "told"),
    [
        (100, 50_000, None, "49900 rows are of no token, where 512 fill a table up"),
        (101, 100, None, "tokens were added to it after the weights were saved"),
        (100, 50_000, "other", "Give the tokenizer that the weights were trained with"),
        (101, 100, "other", "Give the tokenizer that the weights were trained with"),
    ],
)
def test_a_table_of_another_size_than_the_tokenizer_blames_what_is_wrong(
    config, ids, rows, tokenizer, told
):
    config.data.tokenizer = "word_level"
    (chosen,) = parse(config.to_dict())
    chosen = dataclasses.replace(chosen, data=dataclasses.replace(chosen.data, tokenizer=tokenizer))
    with pytest.raises(ValueError, match=rf"has {rows} rows, tokenizer '.*' {ids} ids.*{told}"):
        assemble._check_sizes(chosen, ids, rows)
    assemble._check_sizes(chosen, 100, 612)


def test_a_platform_that_is_not_here_is_named(monkeypatch):
    """JAX itself ends in an AssertionError that says nothing where CUDA is asked for in vain."""

    def backends():
        raise AssertionError

    def elsewhere():
        raise AssertionError

    def told(function):
        with pytest.raises(AssertionError) as found:
            function()
        return mistakes.no_device(found.value)

    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    assert "no device of JAX_PLATFORMS='cuda' here" in told(backends)
    assert told(elsewhere) is None
    monkeypatch.delenv("JAX_PLATFORMS")
    assert told(backends) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=configs/quickstart.py", "--config.privacy.epsilom=3"], "mean epsilon?"),
        (
            ["--config=configs/quickstart.py", "--config.optimizer.lr=3"],
            "There is no field config.optimizer.lr (did you mean learning_rate?); there are beta1",
        ),
        (
            ["--config=configs/quickstart.py", "--config.more.restaurants.data.maxlength=3"],
            "no field config.more.restaurants.data.maxlength (did you mean max_length?)",
        ),
        (["--config=configs/quickstart.py:huge"], "Unknown preset 'huge'"),
        (["--config=configs/quickstart.py", "privacy.epsilon=3"], "Unexpected arguments"),
        (["--config=configs/absent.py"], "absent.py"),
        ([], "No --config was given"),
        (["--config=configs/quickstart.py", "--config.task=imdb"], "Unknown task 'imdb'"),
    ],
    ids=lambda x: str(x)[:30],
)
def test_at_the_command_line_there_is_no_traceback(arguments, message, tmp_path):
    done = commands.run("experiments.run", f"--workdir={tmp_path / 'out'}", *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
