"""Record and replay with a person as the unit: all rows of one person go, and nothing else moves.

From rows that name their people to the input of the noise, by the project's own grouping, tokens,
batches and step. Ways to break the unit must be caught by the same checks.
"""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from memarc.data import reviews, tokenize
from memarc.data.config import DataConfig
from memarc.data.load import from_rows, task_of
from memarc.data.rows import Rows
from memarc.models.build import build
from memarc.models.head import HeadConfig
from memarc.privacy.sampling import poisson_indices
from tests.training.test_replay import violations, whole_step, without

KEPT, LENGTH = 3, 12
OWNED = {"ann": 1, "bob": 5, "cem": 2, "dia": 12, "eva": 3}
"""How many rows each person has; of bob's and dia's some are dropped."""


def all_rows():
    """Reviews in a mixed order, with people; each row of cem's is there twice."""
    owners = np.random.default_rng(4).permutation([x for x, n in OWNED.items() for _ in range(n)])
    made = reviews.train_rows(len(owners), 3)
    texts, labels = list(made.columns[0]), made.labels.copy()
    first, second = np.flatnonzero(owners == "cem")
    texts[second], labels[second] = texts[first], labels[first]
    return Rows((texts,), labels, owners.tolist())


def without_person(rows, person):
    return rows.take(np.flatnonzero(np.array(rows.users) != person))


@pytest.fixture(scope="module")
def dataset_of(tmp_path_factory):
    """Makes the train set of rows, of a person's as one example or each as its own."""
    folder = str(tmp_path_factory.mktemp("words"))
    tokenize.save_tokenizer(reviews.tokenizer(), folder)

    def make(rows, **unit):
        config = DataConfig(
            source="memory", tokenizer=folder, labels=("0", "1"), max_length=LENGTH, **unit
        )
        return from_rows(config, task_of("classification", config), rows, {}).train

    return make


@pytest.fixture(scope="module")
def run_of(sizes, weights, randomise, fast_jit):
    """Makes the whole step of an engine, on gradients far beyond the bound."""

    @functools.cache
    def make(engine):
        cfg = sizes(vocab_size=len(reviews.tokenizer()))
        model = build("head", {}, cfg, HeadConfig("mean", 2))
        trainable, frozen = fast_jit(model.init)(jax.random.key(0), weights(cfg))
        trainable = randomise(trainable, scale=2.0)
        return whole_step(model.loss, trainable, frozen, engine, model.precompute)

    return make


def everything(dataset):
    return dataset.take(np.arange(len(dataset)), LENGTH)


BY_PERSON = {"user": "who", "rows_per_user": KEPT}


@pytest.mark.checklist("32b", 31, 32)
@pytest.mark.parametrize("engine", ["vmap", "ghost", "book_keeping"])
def test_a_person_with_all_their_rows_moves_the_sum_by_the_bound_at_most(
    dataset_of, run_of, engine
):
    rows, run = all_rows(), run_of(engine)
    with_all = everything(dataset_of(rows, **BY_PERSON))
    assert with_all["input_ids"].shape == (len(OWNED), KEPT, LENGTH)
    people = list(dict.fromkeys(rows.users))
    for person in people:
        less = everything(dataset_of(without_person(rows, person), **BY_PERSON))
        others = without(with_all, people.index(person))
        jax.tree.map(np.testing.assert_array_equal, less, others)  # Nobody else's rows change.
        assert violations(run, with_all, less) == set()
        assert violations(run, less, with_all) == set()


def test_rows_that_are_clipped_one_by_one_do_not_hold_for_a_person(dataset_of, run_of):
    rows = all_rows()
    bare = lambda rows: everything(dataset_of(dataclasses.replace(rows, users=None)))
    found = violations(run_of("vmap"), bare(rows), bare(without_person(rows, "dia")))
    assert found == {"sensitivity"}


def test_a_choice_of_rows_that_depends_on_other_people_is_caught(dataset_of, run_of, monkeypatch):
    def ranks(rows):
        return np.random.default_rng(0).permutation(len(rows)).tolist()

    monkeypatch.setattr(Rows, "ranks", ranks)
    rows, run, found = all_rows(), run_of("vmap"), set()
    for person in OWNED:
        less = everything(dataset_of(without_person(rows, person), **BY_PERSON))
        found |= violations(run, everything(dataset_of(rows, **BY_PERSON)), less)
    assert found == {"sensitivity"}


@pytest.mark.checklist("32b", 13)
def test_people_join_a_draw_by_one_coin_each(dataset_of):
    """A person with twelve rows is drawn as often as one with a single row."""
    dataset = dataset_of(all_rows(), **BY_PERSON)
    draws = [poisson_indices(7, step, len(dataset), 0.4) for step in range(2000)]
    rates = np.bincount(np.concatenate(draws), minlength=len(OWNED)) / 2000
    np.testing.assert_allclose(rates, 0.4, atol=0.05)  # Four and a half standard errors.
