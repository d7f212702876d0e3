r"""Tells before a run what it will take: noise, memory and time; trains nothing, prints no row.

    python -m experiments.plan --config=configs/own.py ... --methods=lora,side
    python -m experiments.plan --config=configs/own.py ... --seconds=3600 --epsilon=3

The config and its flags are those of experiments.run. Train rows are counted and nothing else, and
with --num_examples they are not read. Weights stay where they are: their sizes are enough. Bytes
are those of the run's own programs, on this device or, with --target, for one that is not here;
seconds are those of two steps on random tokens here. With --seconds, other epochs and batches that
such a time allows are listed as well, and that of the least noise against its batch is marked.
"""

import dataclasses
from typing import Any

import jax
from absl import flags

from experiments import amounts, cli
from memarc.data import load
from memarc.ops.compiled import needed_bytes
from memarc.report import lines, plan_columns, records, tables, targets
from memarc.runs import assemble, fields, forecast, plan, way
from memarc.runs.settings import Settings

_ONLY = flags.DEFINE_list("only", None, "Names of the config's runs; all by default.")
_METHODS = flags.DEFINE_list("methods", [], "Methods instead of the runs' own, also with +remat.")
_NUM_EXAMPLES = flags.DEFINE_integer("num_examples", None, "Rows of the train set; else counted.")
_TARGET = flags.DEFINE_string("target", None, "tpu:v5e and the like; by default this device.")
_BYTES = flags.DEFINE_string("bytes", None, "Bytes of one device, such as 16GiB; all by default.")
_FIT = flags.DEFINE_bool("fit", True, "Whether to look for the largest microbatch that fits.")
_SECONDS = flags.DEFINE_float("seconds", None, "A budget of time: list what it allows.")
_EPSILON = flags.DEFINE_float("epsilon", None, "Another epsilon than the config's privacy.epsilon.")
_OUTPUT = flags.DEFINE_string("output", None, "File of JSON lines to write.")


def main() -> int:
    """Prints a JSON line a run and method, and tables of all."""
    if _SECONDS.value is not None and _TARGET.value:
        raise ValueError("--seconds needs times of this device; leave --target out.")
    wanted = amounts.bytes_of(_BYTES)
    if (_TARGET.value or "gpu") != "gpu":
        jax.config.update("jax_platforms", "cpu")  # Else a TPU runtime would look for its device.
    devices = targets.devices(_TARGET.value) if _TARGET.value else jax.devices()
    runs = plan.variants(cli.config(), _ONLY.value, _METHODS.value)
    found, affordable = [], []
    with lines.writer(_OUTPUT.value) as write:
        for settings in map(_promised, runs):
            line, more = _line(settings, devices, wanted)
            write(line)
            found.append(line)
            affordable += more
    _print(found)
    if _SECONDS.value is not None:
        _print_affordable(plan.marked(affordable))
    return 0


def _promised(settings: Settings) -> Settings:
    """A run with the epsilon of --epsilon."""
    if _EPSILON.value is None:
        return settings
    privacy = dataclasses.replace(settings.privacy, epsilon=_EPSILON.value)
    return dataclasses.replace(settings, privacy=privacy)


def _line(
    settings: Settings, devices: list[Any], wanted: int | None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What one run will take, and what --seconds allow of it."""
    memory = targets.memory(_TARGET.value or "", devices)
    limit = wanted or memory
    settings = way.chosen(settings, devices, limit)
    rows = _NUM_EXAMPLES.value or load.count(settings.task, settings.data_to_load)
    mechanism, drawn = assemble.plan(settings, rows), forecast.sketch(settings, devices)
    line = {
        "name": settings.name,
        "method": plan.label_of(settings),
        "trained": drawn.trained,
        **plan.noise(settings, mechanism, drawn.released),
        "target": _TARGET.value or records.device(),
    }
    try:
        compiled = forecast.compile_for(drawn, memory)
    except jax.errors.JaxRuntimeError as error:
        if not forecast.does_not_fit(error):
            raise
        return line | {"whole_bytes": None, "needed_bytes": needed_bytes(error)}, []
    line |= compiled.taken
    if _FIT.value:
        line["bytes_limit"] = limit
        line["largest_microbatch"] = forecast.largest_microbatch(
            settings,
            compiled.engine,
            devices,
            limit,
            max(1, mechanism.divisor // len(devices)),
        )
    if _TARGET.value:
        return line, []
    paces = forecast.pace(drawn, compiled)
    steps = [paces[x].step_seconds(mechanism.sampler) for x in (min(paces), max(paces))]
    line |= {"step_seconds": steps, "seconds": [mechanism.steps * x for x in steps]}
    if _SECONDS.value is None:
        return line, []
    longest = paces[max(paces)]
    return line, plan.affordable(settings, rows, longest, drawn.released, seconds=_SECONDS.value)


def _print(found: list[dict[str, Any]]) -> None:
    """Prints tables of noise and cost, one row a run, and of the plans near each."""
    near = [{**plan, "name": line["name"]} for line in found for plan in line["near"]]
    for title, items, columns in (
        ("Noise", found, plan_columns.NOISE),
        ("At the same sigma", near, plan_columns.NEAR),
        ("Memory and time", found, plan_columns.COST),
    ):
        print(f"\n{title}:\n{tables.table(items, list(columns), 'terminal', columns)}")


def _print_affordable(plans: list[dict[str, Any]]) -> None:
    """Prints what the time allows, by epochs and noise."""
    ordered = sorted(plans, key=lambda plan: (plan["epochs"], plan["noise_norm"]))
    columns = plan_columns.AFFORDABLE
    print(f"\nWithin {_SECONDS.value:g} seconds; * has the least noise of so many epochs:")
    print(tables.table(ordered, list(columns), "terminal", columns))


if __name__ == "__main__":
    cli.run(main, fields.text)
