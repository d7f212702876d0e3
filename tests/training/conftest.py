"""A tiny private problem: logistic regression on rows of three numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from memarc.privacy import sampling, zeroth_order
from memarc.privacy.ledger import Ledger
from memarc.privacy.ledger_entries import Budget
from memarc.privacy.mechanism import Mechanism, PrivacyConfig
from memarc.training import loop, optimizer, step
from memarc.training.checkpoint import Checkpoints, Identity
from memarc.training.log import Log
from tests.models.conftest import fast_jit, randomise, rows, sizes, weights  # noqa: F401

ROWS, WIDTH, PHYSICAL = 37, 3, 5


@dataclasses.dataclass
class Toy:
    """Everything that a run of the loop takes, and a method that makes one."""

    mechanism: Mechanism
    features: np.ndarray
    labels: np.ndarray
    entropy: int = 11
    keep_metrics: bool = True
    engine: str = "vmap"

    def loss(self, trainable, frozen, batch):
        logits = (batch["features"] * frozen["scale"]) @ trainable["w"] + trainable["b"]
        return jnp.logaddexp(0.0, -batch["signs"] * logits)

    def chunks(self, indices):
        for start in range(0, len(indices), PHYSICAL):
            part = indices[start : start + PHYSICAL]
            filled = np.resize(part, PHYSICAL)  # Padding repeats rows; the mask must silence it.
            batch = {"features": self.features[filled], "signs": self.labels[filled]}
            yield WIDTH, batch, np.arange(PHYSICAL) >= len(part)

    def transforms(self):
        config = optimizer.OptimizerConfig(learning_rate=0.1, warmup_fraction=0.25)
        return (
            self.mechanism.gradient_transform(sampling.streams(self.entropy).noise),
            optimizer.build(config, self.mechanism.steps),
            optimizer.learning_rate(config, self.mechanism.steps),
        )

    def start(self):
        privatize, optimize, _ = self.transforms()
        trainable = {"w": jnp.zeros(WIDTH), "b": jnp.zeros(())}
        key = sampling.streams(self.entropy).directions
        is_asked = self.engine == zeroth_order.NAME
        directions = zeroth_order.Directions(key, 1e-2) if is_asked else None
        return step.init_state(trainable, privatize, optimize, directions)

    def problem(self):
        batch = {
            "features": jax.ShapeDtypeStruct((PHYSICAL, WIDTH), "float32"),
            "signs": jax.ShapeDtypeStruct((PHYSICAL,), "float32"),
        }
        return loop.Problem(
            loss_fn=self.loss,
            precompute=lambda frozen, batch: batch,
            frozen={"scale": jnp.ones((1, 1))},
            chunks=self.chunks,
            shapes={WIDTH: batch},
        )

    def programs(self, problem, state):
        privatize, optimize, _ = self.transforms()
        settings = step.GradientSettings(self.mechanism.clipping, self.engine, 2)
        return loop.compile_programs(problem, state, settings, privatize, optimize)

    def identity(self, **config):
        return Identity({"rows": ROWS, **config}, "hash")

    def train(self, folder, *, stop_after=None, **config):
        """Runs the loop in a folder, going on from what is there; returns the last state."""
        checkpoints = Checkpoints(
            folder / "checkpoints",
            identity=self.identity(**config),
            entropy=self.entropy,
            every=2,
            keep=2,
        )
        self.entropy = checkpoints.entropy()
        problem, state = self.problem(), checkpoints.restore(self.start())
        ledger = Ledger(folder, data="hash", budget=Budget(float("inf"), 1e-5))
        ledger.begin(
            self.mechanism,
            entropy=self.entropy,
            config=config,
            done=int(state.step),
            inputs={"machine": "toy"},
        )
        first = int(state.step)
        asked = []
        log = Log(
            folder / "log.jsonl",
            title="toy",
            first=first,
            steps=self.mechanism.steps,
            every=1,
            tensorboard=False,
        )
        try:
            return loop.train(
                problem,
                self.programs(problem, state),
                state,
                self.mechanism,
                sampling.streams(self.entropy),
                checkpoints=checkpoints,
                log=log,
                schedule=self.transforms()[2],
                charge=ledger.charge,
                watch=lambda number, state: None,
                should_stop=lambda: asked.append(1) or len(asked) + first == stop_after,
            )
        finally:
            log.close()
            checkpoints.close()
            ledger.close()


@pytest.fixture
def toy():
    """Seven noised steps over 37 rows, expected batch 8."""
    return make_toy(7)


def make_toy(steps):
    """The problem of the fixture, with any number of steps."""
    config = PrivacyConfig(
        epsilon=1e6,
        delta=1e-3,
        clip_norm=0.5,
        expected_batch_size=8,
        engine="vmap",
        microbatch_size=2,
        physical_batch_size=PHYSICAL,
        noise_multiplier=0.7,
    )
    rng = np.random.default_rng(0)
    features = rng.normal(size=(ROWS, WIDTH)).astype(np.float32)
    signs = np.where(features[:, 0] > 0, 1.0, -1.0).astype(np.float32)
    return Toy(
        Mechanism.create(config, num_examples=ROWS, steps=steps, unit="one row"), features, signs
    )
