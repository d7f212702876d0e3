"""Trains a config's run once with canaries among its rows, and bounds its epsilon from below.

    python -m experiments.audit --config=configs/audit.py --workdir=DIR

Each canary is in or out by a coin (`memarc.runs.canaries`; docs/audits.md tells of the bounds). The
command writes DIR/audit.json, and DIR/audit.png (true over false positives) where matplotlib is
installed.

Any config will do; --only names one of several runs, and the section "audit" of configs/audit.py
says how many canaries there are. A lower bound above the proven epsilon, or above
--config.audit.claimed_epsilon, contradicts the claim: the command says so and exits with 3.
"""

import json

from absl import flags

from experiments import cli
from memarc.runs import audit, fields
from memarc.runs.train import Stopped
from memarc.training.interrupt import stop_requests

_ONLY = flags.DEFINE_string("only", None, "Name of the run, where the config has several.")

CONTRADICTED = 3
"""The exit status where the bound lies above the claim."""

_SHOWN = (
    "proven_epsilon",
    "claimed_epsilon",
    "empirical_epsilon",
    "trajectory_epsilon",
    "released_epsilon",
    "family_epsilon",
    "confidence",
    "delta",
    "is_contradicted",
    "canaries",
)


def main() -> int:
    """Trains, scores and writes the verdict."""
    with stop_requests() as should_stop:
        try:
            verdict = audit.run(cli.config(), cli.workdir(), should_stop, _ONLY.value)
        except Stopped as stopped:
            print(f"{stopped} The same command goes on from there.")
            return cli.STOPPED
    print(json.dumps({key: verdict[key] for key in _SHOWN}, indent=2))
    if not verdict["is_contradicted"]:
        return 0
    print(
        f"The claim of epsilon {verdict['claimed_epsilon']} is contradicted: at confidence "
        f"{verdict['confidence']} it is at least {verdict['empirical_epsilon']:.3g}."
    )
    return CONTRADICTED


if __name__ == "__main__":
    cli.run(main, fields.text)
