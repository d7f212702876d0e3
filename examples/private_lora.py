"""Private LoRA on lists: a classifier and a writer of texts, trained, saved, loaded and used.

    python examples/private_lora.py

The rows are made by two small grammars, so nothing is downloaded; yours are lists of your own.
"""

import pathlib
import subprocess
import sys
import tempfile

import memarc
from memarc.data import restaurants, reviews

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"


def train_classifier(folder: pathlib.Path) -> None:
    """Tunes a small BERT on 2,000 reviews, each of which is private at epsilon 8."""
    rows = reviews.train_rows(2000, seed=1)
    (texts,), labels = rows.columns, ["good" if label else "bad" for label in rows.labels]

    model = memarc.fit_classifier(
        texts[:1800],
        labels[:1800],
        names=("bad", "good"),
        dev=(texts[1800:], labels[1800:]),
        weights=str(CONFIGS / "quickstart_backbone"),
        folder=folder,
        method="lora",
        privacy=memarc.PrivacyConfig(
            epsilon=8.0, delta=1e-5, expected_batch_size=200, engine="vmap"
        ),
        data=memarc.DataConfig(max_length=24),
        optimizer=memarc.OptimizerConfig(learning_rate=1e-2),
        training=memarc.TrainingConfig(epochs=2.0),
    )
    print(model.record.epsilon, model.record.scores, model.predict(texts[1800:1803]))


def train_writer(folder: pathlib.Path) -> None:
    """Tunes a small GPT-2 to write about restaurants, each row private at epsilon 8."""
    inputs, targets = restaurants.train_rows(600, 1).columns
    model = memarc.fit_writer(
        inputs,
        targets,
        weights=str(CONFIGS / "quickstart_decoder"),
        folder=folder,
        method="lora",
        privacy=memarc.PrivacyConfig(
            epsilon=8.0, delta=1e-4, expected_batch_size=100, engine="vmap"
        ),
        data=memarc.DataConfig(separator="[SEP]", max_length=80, max_prompt=38),
        optimizer=memarc.OptimizerConfig(learning_rate=5e-3),
        decoding=memarc.DecodingConfig(max_tokens=42),
    )
    print(model.write(inputs[:1]))


def use(folder: pathlib.Path) -> None:
    """Loads both models, in another process than the one that trained them, and uses them."""
    classifier, writer = memarc.load(folder / "classifier"), memarc.load(folder / "writer")
    (texts,) = reviews.dev_rows(3, seed=1).columns
    print(texts, classifier.predict(texts), classifier.probabilities(texts))
    inputs, _ = restaurants.dev_rows(3, 1).columns
    print(inputs[0], "->", writer.write(inputs[:1]))


def main() -> None:
    """Trains both in a new folder, then uses them in a new process."""
    if len(sys.argv) == 2:
        use(pathlib.Path(sys.argv[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        train_classifier(pathlib.Path(folder) / "classifier")
        train_writer(pathlib.Path(folder) / "writer")
        subprocess.run([sys.executable, __file__, folder], check=True)


if __name__ == "__main__":
    main()
