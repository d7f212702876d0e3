"""Claims about isolated calls: they round alike in every program, because nothing joins them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memarc.ops.isolated import isolated
from memarc.ops.linear import add_trailing
from memarc.ops.uses import NeedsTaps, find_places
from tests import fast_compile

fully = partial(jax.jit, compiler_options=fast_compile.FULLY)

X = jnp.asarray(np.random.default_rng(0).standard_normal((64, 31)), jnp.float32)
WEIGHT = jnp.float32([1.0, 2.0])


def plain(function, witness, state):
    del witness
    return function(state)


def rounded(x):
    """To bfloat16, which a compiler leaves out if what follows widens it again."""
    return (jnp.sin(x.astype(jnp.float32)) * 1.1).astype(jnp.bfloat16)


def multiplied(x):
    """A product, which a compiler joins with an addition that follows."""
    return jnp.sin(x) * 1.1


FUNCTIONS = {"rounded": (rounded, X.astype(jnp.bfloat16)), "multiplied": (multiplied, X)}


def differences(call, name):
    """How many values differ between a program of the function and one that goes on with it."""
    function, x = FUNCTIONS[name]
    alone = fully(lambda weight, x: call(function, weight, x))(WEIGHT, x)

    def amid(weight, x, alone):
        y = call(function, weight, x)
        return y.astype(jnp.float32) - alone.astype(jnp.float32)

    return int((fully(amid)(WEIGHT, x, alone) != 0).sum())


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_isolated_call_gives_the_same_bits_wherever_it_stands(name):
    assert differences(isolated, name) == 0


def test_a_plain_call_does_not():
    """The control; which of the functions tells depends on the compiler."""
    assert max(differences(plain, name) for name in FUNCTIONS) > 0


def test_it_gives_what_the_function_gives():
    def function(state):
        x, count = state
        return {"x": 2.0 * x}["x"], count + 1

    state = (X, jnp.zeros(3, jnp.int32))
    for got in (
        isolated(function, WEIGHT, state),
        jax.jit(lambda *given: isolated(function, *given))(WEIGHT, state),
    ):
        jax.tree.map(np.testing.assert_array_equal, got, function(state))


def compiled_text(call):
    function, x = FUNCTIONS["multiplied"]
    program = jax.jit(lambda weight, x: call(function, weight, x) + 1.0)
    return program.lower(WEIGHT, x).compile().as_text()


def test_the_compiled_program_calls_it_in_a_loop_that_is_not_unrolled():
    def known_length(function, witness, state):
        del witness
        return isolated(function, jnp.ones(1), state)

    assert " while(" in compiled_text(isolated)
    # A constant witness tells the compiler that the loop runs once; it unrolls it.
    assert " while(" not in compiled_text(known_length)
    assert " while(" not in compiled_text(plain)


def test_a_witness_that_is_not_a_number_runs_it_twice_and_an_infinite_one_too():
    """What a caller must know: such weights give no useful result anyway."""
    for witness, times in ((jnp.nan, 2), (jnp.inf, 2), (-jnp.inf, 1), (3.0, 1)):
        assert isolated(lambda x: x + 1, jnp.float32([witness]), jnp.int32(0)) == times


def run_with(call):
    """A loss whose parameter is used within a call, in a hand-written forward pass."""

    @jax.custom_vjp
    def run(parameter, x):
        return call(lambda x: add_trailing(x, parameter), jnp.sum(x), x)

    def forward(parameter, x):
        return run(parameter, x), (parameter, x)

    def backward(kept, g):
        return jax.vjp(lambda *given: add_trailing(given[1], given[0]), *kept)[1](g)

    run.defvjp(forward, backward)
    return lambda trainable, frozen, batch: jnp.sum(run(trainable["b"], batch["x"]), axis=1)


def looped(function, witness, state):
    """A loop of unknown length, which may use the parameter many times."""
    return jax.lax.while_loop(lambda x: jnp.sum(x) < witness, function, state)


def test_a_parameter_in_an_isolated_call_is_used_once_and_in_another_loop_who_knows():
    given = {"b": jnp.ones(31)}, {}, {"x": X}
    (place,) = find_places(run_with(isolated), *given)
    assert str(place) == "b [31]: add, instantiated"
    with pytest.raises(NeedsTaps, match="parameter b in 2 places"):
        find_places(run_with(looped), *given)
