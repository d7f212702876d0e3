"""Prepared array_record folders give back the rows they were made from."""

import json
import pathlib

import numpy as np
import pytest

from memarc.data import own_files, tfds_source
from memarc.data.config import DataConfig
from memarc.data.load import load
from memarc.data.tasks import get_task

tfds = pytest.importorskip("tensorflow_datasets")

TRAIN = [("a good one ", "positive"), ("", "negative"), ('é "x"', "negative")]
DEV = [("fine", "positive")]


class LocalSst2(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """SST-2 in the form of tensorflow-datasets, from rows at hand, with class names swapped."""

    __module__ = "local_sst2"  # Of one part: for others the library looks for a package on disk.
    VERSION = tfds.core.Version("1.0.0")
    names = ("positive", "negative")
    splits = (("train", TRAIN), ("validation", DEV))

    def _info(self):
        features = {
            "sentence": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=list(self.names)),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples(rows) for name, rows in self.splits}

    def _generate_examples(self, rows):
        for i, (sentence, label) in enumerate(rows):
            yield i, {"sentence": sentence, "label": label}


def listed(rows):
    return list(zip(*rows.columns, rows.labels, strict=True))


def prepare(tmp_path, **changes):
    """Prepares the rows as array_record and returns the folder."""
    members = {"__module__": "local_sst2", **changes}
    kind = type("LocalSst2", (LocalSst2,), members, skip_registration=True)
    builder = kind(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    return str(builder.data_path)


def test_a_prepared_folder_gives_its_rows_back_with_labels_told_apart_by_name(tmp_path):
    read = tfds_source.open_prepared(get_task("sst2"), prepare(tmp_path))
    rows = read("train")
    assert sorted(listed(rows)) == [("", 0), ("a good one", 1), ('é "x"', 0)]
    assert rows.labels.dtype == np.int32
    assert listed(read("dev")) == [("fine", 1)]


def test_columns_of_any_prepared_folder_are_read_by_their_names(tmp_path):
    folder = prepare(tmp_path)
    columns = own_files.read(f"{folder}:train", ("label", "sentence"), "utf-8").columns
    assert sorted(zip(columns["sentence"], columns["label"], strict=True)) == sorted(TRAIN)
    for place, wanted in ((f"{folder}:test", "label"), (f"{folder}:train", "note")):
        with pytest.raises(ValueError, match=r"the splits \['train', 'validation'\] and the feat"):
            own_files.read(place, (wanted,), "utf-8")


def test_the_prepared_order_is_the_same_each_time(tmp_path):
    folder = prepare(tmp_path, splits=[("train", [(str(i), "negative") for i in range(40)])])
    first, again = (tfds_source.open_prepared(get_task("sst2"), folder)("train") for _ in range(2))
    assert first.columns == again.columns


def test_the_whole_way_from_a_prepared_folder_to_arrays(tmp_path, words):
    words.save_pretrained(tmp_path / "words")
    config = DataConfig(
        source="tfds",
        tokenizer=str(tmp_path / "words"),
        max_length=8,
        root=prepare(tmp_path),
    )
    loaded = load("sst2", config)
    assert sorted(loaded.train.labels.tolist()) == [0, 0, 1]
    assert len(loaded.evals["dev"].dataset) == 1


def test_an_unprepared_folder_is_refused_with_a_way_out(tmp_path):
    with pytest.raises(ValueError, match=r"Looked for dataset_info\.json .*tfds_download"):
        tfds_source.open_prepared(get_task("sst2"), str(tmp_path / "none"))


def test_other_labels_or_fields_are_refused(tmp_path):
    folder = prepare(tmp_path, names=("good", "bad"), splits=[("train", [("x", "good")])])
    with pytest.raises(ValueError, match="has the labels good, bad; glue/sst2 has negative"):
        tfds_source.open_prepared(get_task("sst2"), folder)
    with pytest.raises(ValueError, match="has no feature question among"):
        tfds_source.open_prepared(get_task("qnli"), folder)


def test_a_missing_split_is_refused(tmp_path):
    read = tfds_source.open_prepared(get_task("sst2"), prepare(tmp_path, splits=[("train", TRAIN)]))
    with pytest.raises(ValueError, match="no split 'validation' among train"):
        read("dev")


def test_a_row_without_a_label_is_refused_by_split_and_number(tmp_path):
    folder = prepare(tmp_path, splits=[("train", [("x", -1)])])
    read = tfds_source.open_prepared(get_task("sst2"), folder)
    with pytest.raises(ValueError, match="split train, row 0: label -1 is none of 0, 1"):
        read("train")


def test_another_file_format_is_refused(tmp_path):
    folder = prepare(tmp_path)
    info = pathlib.Path(folder) / "dataset_info.json"
    info.write_text(json.dumps({**json.loads(info.read_text()), "fileFormat": "tfrecord"}))
    with pytest.raises(ValueError, match="was prepared as tfrecord; prepare it again"):
        tfds_source.open_prepared(get_task("sst2"), folder)


def test_a_download_runs_the_published_builder_and_is_read_like_a_prepared_folder(
    tmp_path, monkeypatch
):
    pytest.importorskip("importlib_resources")
    archive = tmp_path / "archive"
    (archive / "SST-2").mkdir(parents=True)
    (archive / "SST-2" / "train.tsv").write_text("sentence\tlabel\ngood \t1\nbad \t0\n")
    (archive / "SST-2" / "dev.tsv").write_text("sentence\tlabel\nfine .\t1\n")
    (archive / "SST-2" / "test.tsv").write_text("index\tsentence\n0\tunknown\n")
    manager = tfds.download.DownloadManager
    monkeypatch.setattr(manager, "download_and_extract", lambda self, url: archive)
    read = tfds_source.download(get_task("sst2"), str(tmp_path / "data"))
    assert sorted(listed(read("train"))) == [("bad", 0), ("good", 1)]
    assert listed(read("dev")) == [("fine .", 1)]
    folder = tmp_path / "data" / "glue" / "sst2" / "2.0.0"
    again = tfds_source.open_prepared(get_task("sst2"), str(folder))("train")
    assert again.columns == read("train").columns


def test_a_failing_download_says_so_and_what_to_do(tmp_path, monkeypatch):
    pytest.importorskip("importlib_resources")

    def fail(name, **_):
        raise ConnectionError("no route")

    monkeypatch.setattr(tfds, "builder", fail)
    with pytest.raises(ValueError, match=r"Could not download glue/qqp .*no route.*source='tfds'"):
        tfds_source.download(get_task("qqp"), str(tmp_path))


def test_a_download_without_a_package_that_it_needs_names_it(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds_source.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="run: pip install importlib_resources"):
        tfds_source.download(get_task("qqp"), str(tmp_path))


@pytest.mark.parametrize("open_source", [tfds_source.open_prepared, tfds_source.download])
def test_the_embedded_task_is_refused(tmp_path, open_source):
    with pytest.raises(
        ValueError, match="reviews is not in tensorflow-datasets; set source to 'embe"
    ):
        open_source(get_task("reviews"), str(tmp_path))
