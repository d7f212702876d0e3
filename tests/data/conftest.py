"""Where public data files and vocabularies are, and small files and tokenizers for tests."""

import os
import pathlib

import pytest

from memarc.data import reviews


@pytest.fixture(scope="session")
def shared():
    """The folder of public data and vocabularies: $MEMARC_SHARED, or one beside the checkout."""
    beside = pathlib.Path(__file__).resolve().parents[2].parent / "shared"
    folder = pathlib.Path(os.environ.get("MEMARC_SHARED", beside))
    if not folder.is_dir():
        pytest.skip(f"no public data at {folder}; set MEMARC_SHARED")
    return folder


@pytest.fixture(scope="session")
def words():
    """The word-level tokenizer of the reviews grammar."""
    return reviews.tokenizer()


@pytest.fixture
def write_sst2(tmp_path):
    """Writes ``tmp_path/sst2/{train,dev}.tsv`` from whole texts and returns the root."""

    def write(train, dev="sentence\tlabel\nfine .\t1\n"):
        folder = tmp_path / "sst2"
        folder.mkdir()
        (folder / "train.tsv").write_text(train, encoding="utf-8", newline="")
        (folder / "dev.tsv").write_text(dev, encoding="utf-8", newline="")
        return str(tmp_path)

    return write
