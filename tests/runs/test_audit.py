"""The audit command: canaries are in or out by coins, trained once, and a verdict written."""

import dataclasses
import json

import jax
import numpy as np
import optax
import pytest

from configs import audit as audit_config
from configs import quickstart
from memarc.privacy import sampling
from memarc.privacy.mechanism import Mechanism
from memarc.privacy.sampling import PoissonSampler
from memarc.runs import audit, train
from memarc.runs.assemble import assemble
from memarc.runs.canaries import Slots
from memarc.runs.parse import parse


@pytest.fixture
def config():
    config = audit_config.get_config("smoke")
    config.seed = 3
    return config


def verdict(config, folder):
    return audit.run(config.to_dict(), folder, lambda: False)


def by_kind(found):
    return {(x["kind"], x["seen"]): x for x in found["canaries"]}


def test_a_private_run_is_not_contradicted_and_the_file_says_what_stands_behind_it(
    config, tmp_path
):
    found = verdict(config, tmp_path)
    assert json.loads((tmp_path / audit.FILE_NAME).read_text()) == found
    assert not found["is_contradicted"] and found["claimed_epsilon"] == found["proven_epsilon"]
    assert 0.0 <= found["empirical_epsilon"] <= found["proven_epsilon"] <= 4.0
    assert found["family_epsilon"] <= found["proven_epsilon"]
    assert found["rows"] == 200 + 60 + 60 and found["confidence"] == 0.95
    wanted = {("gradient", "trajectory"), ("gradient", "released"), ("random", "released")}
    assert set(by_kind(found)) == wanted
    for counts in by_kind(found).values():
        assert counts["included"] + counts["left_out"] == 60 and counts["included"] > 15
        assert 0 <= counts["right"] <= counts["guesses"]
    parts = {path.name for path in tmp_path.iterdir()} - {"audit.png"}
    assert parts == {"audit.json", "ledger.jsonl", "log.jsonl"}  # No checkpoint, no key.
    with pytest.raises(ValueError, match="is there already; use another --workdir"):
        verdict(config, tmp_path)


@pytest.mark.checklist(37)
def test_the_run_that_is_audited_is_the_one_that_the_config_says(config):
    """Canaries are more rows; the rate, the noise, the steps and the divisor are not theirs."""
    (settings,) = parse({key: x for key, x in config.to_dict().items() if key != "audit"})
    base = assemble(settings)
    audited = audit.audited_run(base, Slots(200, {"random": 60, "gradient": 60})).mechanism
    same = {x.name for x in dataclasses.fields(Mechanism)} - {"sampler"}
    assert {x: getattr(audited, x) for x in same} == {x: getattr(base.mechanism, x) for x in same}
    assert audited.sampling_rate == base.mechanism.sampling_rate == 0.5
    assert (audited.sampler.num_examples, base.mechanism.sampler.num_examples) == (320, 200)
    assert audited.epsilon(2, "pld") == base.mechanism.epsilon(2, "pld")
    cut = dataclasses.replace(
        base, mechanism=dataclasses.replace(base.mechanism, sampler=PoissonSampler(200, 0.5, 150))
    )
    with pytest.raises(ValueError, match="max_batch_size is 150"):
        audit.audited_run(cut, Slots(200, {"gradient": 60}))


@pytest.mark.checklist(37)
def test_a_claim_is_contradicted_without_noise_and_not_where_no_canary_is_in(
    config, tmp_path, monkeypatch
):
    config.privacy.update(epsilon=float("inf"), expected_batch_size=200)
    config.audit.update(gradient_canaries=400, random_canaries=0, claimed_epsilon=2.0)
    found = verdict(config, tmp_path / "no_noise")
    assert found["is_contradicted"] and found["empirical_epsilon"] > 2.0
    assert by_kind(found)["gradient", "trajectory"]["auc"] == 1.0
    assert by_kind(found)["gradient", "released"]["auc"] > 0.9
    # The audit takes them to be in by their coins; the training never sees one.
    real = audit.make_problem
    monkeypatch.setattr(audit, "make_problem", lambda slots: real(NoCanaries(**vars(slots))))
    found = verdict(config, tmp_path / "null")
    assert not found["is_contradicted"] and found["empirical_epsilon"] < 0.5


class NoCanaries(Slots):
    def is_present(self, entropy):
        return np.arange(self.total) < self.rows


def test_a_canary_that_is_out_leaves_no_trace_and_one_that_is_in_takes_the_clip_norm(
    config, tmp_path, monkeypatch
):
    """Without noise, clip norm C and divisor B, one step moves a canary's gradient to C / B."""
    seen = []
    real = train.train

    def kept(run, *given):
        trained = real(run, *given)
        seen.append((run, trained))
        return trained

    monkeypatch.setattr(train, "train", kept)
    config.privacy.update(epsilon=float("inf"), expected_batch_size=200)
    config.training.epochs = 0.5
    verdict(config, tmp_path)
    ((run, trained),) = seen
    slots = Slots(200, {"random": 60, "gradient": 60})
    present = slots.is_present(sampling.streams(3).canaries)
    drawn = run.mechanism.sample(sampling.streams(3), 0)
    assert run.mechanism.steps == 1
    canaries = np.asarray(trained.state.trainable["canaries"])[:, 0]
    is_moved = np.isin(260 + np.arange(60), drawn) & present[260:]
    np.testing.assert_array_equal(canaries != 0, is_moved)
    assert (canaries[is_moved] < 0).all()
    moments = optax.tree.get(trained.state.opt_state, "mu")
    mean = np.asarray(moments["canaries"])[:, 0] / 0.1  # Adam's 1 - beta1.
    np.testing.assert_allclose(mean, 8.0 * is_moved / 200, rtol=1e-4)


@pytest.mark.checklist(37)
def test_the_optimizer_means_the_same_in_an_audit_as_in_the_run(config, tmp_path, monkeypatch):
    """While the head moves alone, nothing else does: neither what is tuned nor a canary."""
    seen = []
    real = train.train
    monkeypatch.setattr(train, "train", lambda *given: seen.append(real(*given)) or seen[-1])
    config.optimizer.update(head_first=0.9, head_factor=3.0)
    config.training.epochs = 0.5
    verdict(config, tmp_path)
    (trained,) = seen
    after = trained.state.trainable
    assert set(after) == {"tuning", "head", "canaries"}
    (settings,) = parse({key: x for key, x in config.to_dict().items() if key != "audit"})
    run = assemble(settings)
    start, _ = run.model.init(sampling.streams(3).initialisation, run.params)
    jax.tree.map(np.testing.assert_array_equal, after["tuning"], start["tuning"])
    assert not np.any(after["canaries"])
    assert not np.array_equal(after["head"]["kernel"], start["head"]["kernel"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gradient_canaries": 3}, "gradient_canaries is 3"),
        ({"confidence": 1.0}, r"audit\.confidence is 1\.0"),
    ],
)
def test_mistakes_are_found_before_anything_is_written(config, tmp_path, changes, message):
    config.audit.update(changes)
    with pytest.raises(ValueError, match=message):
        verdict(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_any_config_can_be_audited_and_one_of_several_runs_is_to_be_named():
    given = quickstart.get_config("smoke").to_dict()
    with pytest.raises(ValueError, match=r"has 4 runs .* --only, one of \['lora', 'reversible'"):
        audit._parse(given, None)
    chosen, settings = audit._parse(given, "lora")
    assert settings.name == "lora" and chosen.counts == {"random": 500, "gradient": 10_000}
    with pytest.raises(ValueError, match=r"no run \['ladder'\]"):
        audit._parse(given, "ladder")
    given["privacy"]["engine"] = "zeroth_order"
    given["runs"]["lora"] |= {"privacy": {"engine": "zeroth_order"}}
    with pytest.raises(ValueError, match="release one number that all rows share"):
        audit._parse(given, "lora")
