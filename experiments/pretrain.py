"""Pre-trains a small backbone on public rows, without privacy.

    python -m experiments.pretrain --config=configs/pretrain_reviews.py --workdir=OUT

The command writes OUT/backbone, a Hugging Face folder, with the tokenizer where code cannot build
it, and with pretraining.json, which says what was read: records of runs repeat it. A command that
was stopped goes on from the last cycle of the learning rate.
"""

from experiments import cli
from memarc.pretraining.train import pretrain


def main() -> int:
    """Reads public rows, trains, and writes weights and a record after every cycle."""
    folder = cli.workdir() / "backbone"
    pretrain(cli.config(), folder)
    print(f"Weights: {folder}")
    return 0


if __name__ == "__main__":
    cli.run(main)
