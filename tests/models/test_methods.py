"""Claims about the list of methods: what each one is, its options, and how it is made."""

import dataclasses
import inspect

import pytest

from memarc.models.method import Method
from memarc.models.methods import METHODS, all_options, default_options, make_method

every_method = pytest.mark.parametrize("name", METHODS)
MEMBERS = [name for name in vars(Method) if not name.startswith("_")]


@every_method
def test_a_method_is_a_frozen_value_of_a_config_and_options_that_have_defaults(sizes, name):
    made = make_method(name, {}, sizes())
    first, *options = dataclasses.fields(made)
    assert first.name == "config" and made.config == sizes()
    assert {field.name: field.default for field in options} == default_options(name)
    assert dataclasses.MISSING not in default_options(name).values()
    assert make_method(name, {}, sizes()) == made and hash(made) is not None
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.config = sizes(layers=1)


@every_method
def test_a_method_has_the_members_that_the_protocol_states(sizes, name):
    made = make_method(name, {}, sizes())
    assert made.needs_coins in (True, False)
    for member in MEMBERS:
        wanted = inspect.getattr_static(Method, member)
        if not isinstance(wanted, property):
            given = inspect.signature(getattr(made, member))
            assert list(given.parameters) == list(inspect.signature(wanted).parameters)[1:]


def test_the_protocol_is_not_empty():
    assert {"init", "states", "extend", "check", "needs_coins"} < set(MEMBERS)


def test_options_update_the_defaults():
    defaults = {"rank": 8, "alpha": 16.0, "targets": ("query", "value"), "train": "both"}
    assert default_options("lora") == defaults
    assert all_options("lora", {"rank": 3}) == defaults | {"rank": 3}
    assert default_options("full") == {}


def test_an_option_reaches_the_method(sizes):
    assert make_method("lora", {"rank": 3}, sizes()).rank == 3


@pytest.mark.parametrize("ask", [default_options, lambda name: all_options(name, {})])
def test_an_unknown_method_is_refused_by_whoever_asks_for_its_options(ask):
    with pytest.raises(ValueError, match=r"Unknown method 'magic'; choose one of \['full', "):
        ask("magic")


def test_the_config_is_no_option(sizes):
    with pytest.raises(ValueError, match=r"'lora' has no option \['config'\]"):
        make_method("lora", {"config": sizes(layers=1)}, sizes())
