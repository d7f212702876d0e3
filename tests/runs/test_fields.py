"""--help lists every field of a config with type, default and a line of its docstring."""

import dataclasses

import pytest

from configs import audit, own
from memarc.runs import fields
from tests import commands


@dataclasses.dataclass(frozen=True)
class Low:
    """A base.

    Attributes:
      first: Words
        over two lines. A second sentence.
    """

    first: int | None = None


@dataclasses.dataclass(frozen=True)
class High(Low):
    """Another.

    Attributes:
      second: Of ``first``: so much.

    Raises:
      third: No attribute.
    """

    second: str = "a"
    third: float = 0.5


def test_lines_are_first_sentences_of_the_docstrings_of_a_class_and_its_bases():
    assert fields.of(High) == [
        fields.Field("first", "int | None", "None", "Words over two lines."),
        fields.Field("second", "str", "'a'", "Of 'first': so much."),
        fields.Field("third", "float", "0.5", ""),
    ]


@pytest.mark.parametrize(
    ("place", "cls"),
    [(f"{place} {kinds}", cls) for place, kinds, cls in fields.sections()],
)
def test_every_field_has_a_line(place, cls):
    assert [field.name for field in fields.of(cls) if not field.line] == [], place


def test_all_fields_of_a_config_are_listed_with_its_values():
    config = own.get_config("generation").to_dict()
    told = fields.text(config)
    for name, value in config.items():
        if not isinstance(value, dict) or name in ("runs", "more", "options"):
            continue
        for field in value:
            assert f"--config.{name}.{field} (" in told
    assert "--config.options.lora.rank (int = 8)" in told
    assert "--config.data.max_length (int = 256)" in told and "pooling" not in told
    assert "head (of classification)" in fields.text(None)
    assert "config.audit" not in told and "audit (of configs of audits)" in fields.text(None)


def test_fields_of_an_audit_are_listed_for_its_config():
    told = fields.text(audit.get_config().to_dict())
    assert "--config.audit.gradient_canaries (int = 10000)" in told


def test_help_of_a_command_that_trains_lists_flags_and_fields():
    done = commands.run(
        "experiments.run", "--help", "--config=configs/own.py", "--config.privacy.epsilon=3"
    )
    assert done.returncode == 0, done.stderr
    assert "--workdir" in done.stdout and "--coordinator_address" in done.stdout  # Shared flags.
    assert "--only" in done.stdout and "--config.privacy.epsilon (float = 3.0)" in done.stdout
    done = commands.run("experiments.predict", "--help")
    assert done.returncode == 0 and "--input" in done.stdout and "config.data" not in done.stdout
