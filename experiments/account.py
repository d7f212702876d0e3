"""Prints what a config's runs will spend, without training.

    python -m experiments.account --config=configs/quickstart.py

With --num_examples the data are not even read.
"""

import dataclasses

import tabulate
from absl import flags

from experiments import assemble, cli, settings
from memarc.data import load

_NUM_EXAMPLES = flags.DEFINE_integer("num_examples", None, "Rows of the train set; else counted.")


@dataclasses.dataclass(frozen=True)
class Account:
    """One run's plan and what it spends."""

    run: str
    sigma: float
    epsilon_rdp: float | None
    epsilon_pld: float
    delta: float
    steps: int
    sampling_rate: float
    batch: int
    clip_norm: float
    rows: int


def main() -> int:
    """Prints one line a run."""
    accounts = [account(run, _NUM_EXAMPLES.value) for run in settings.parse(cli.config())]
    names = [field.name.replace("_", " ") for field in dataclasses.fields(Account)]
    rows = [dataclasses.astuple(item) for item in accounts]
    print(tabulate.tabulate(rows, names, floatfmt=".6g", missingval="not covered"))
    print(
        "\nsigma: noise standard deviation over clip norm. Neighbours differ by adding or removing "
        "one row;\nbatches are Poisson draws."
    )
    return 0


def account(run: settings.Settings, num_examples: int | None) -> Account:
    """The plan of one run; reads the data only to count rows if their number is not given."""
    if num_examples is None:
        num_examples = load.load(run.task, run.data).num_examples
    mechanism = assemble.plan(run, num_examples)
    spent = mechanism.spent(mechanism.steps)
    return Account(
        run=run.name,
        sigma=mechanism.noise_multiplier,
        epsilon_rdp=spent.epsilon_rdp,
        epsilon_pld=spent.epsilon_pld,
        delta=mechanism.delta,
        steps=mechanism.steps,
        sampling_rate=mechanism.sampling_rate,
        batch=mechanism.divisor,
        clip_norm=mechanism.clipping.clip_norm,
        rows=num_examples,
    )


if __name__ == "__main__":
    cli.run(main)
