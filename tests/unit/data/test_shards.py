import os
import random
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from builders import DATA, dicom_path, labels_of, write_cohort, write_study
from hostile import TORTURE, Cases, flip_bit

from clotline.data.accounting import collect_slices
from clotline.data.hdf5 import NewHDF5
from clotline.data.ingest import write_shard
from clotline.data.plan import make_plan, planned_rows
from clotline.data.positives import copy_positives
from clotline.data.shards import POSITION, StoredPixels, open_shard, read_rows
from clotline.data.slice_table import positive_slices
from clotline.errors import ClotlineError
from clotline.labels import IMAGE_LABEL, SERIES_UID, SOP_UID, STUDY_LABELS, STUDY_UID, UIDS

STUDIES = {"aa": [0, 1, 1, 0], "bb": [0] * 5, "cc": [1, 0, 1], "dd": [0, 1]}
SPLITS = {"aa": "train", "bb": "train", "cc": "test", "dd": "valid"}


class Cohort:
    """A small data set in two shards of two studies, decoded."""

    def __init__(self, folder):
        labels = labels_of(STUDIES)
        self.folder = folder
        self.dicom = folder / "dicom"
        self.made = write_cohort(labels, self.dicom).set_index(SOP_UID)
        labels["part"] = labels[STUDY_UID].map(SPLITS)
        split = DATA["split"] | {"column": "part"}
        plan = make_plan(labels, {"slices_per_shard": 9, "split": split})
        self.planned = planned_rows(labels, plan)
        self.shards, self.rejects = {}, {}
        for number in (0, 1):
            name = f"{number:03}"
            self.shards[name] = folder / f"shard-{name}.h5"
            self.rejects[name] = folder / f"shard-{name}.rejects.csv"
            listed, _ = write_shard(self.rows(number), self.dicom, self.shards[name], 1)
            listed.to_csv(self.rejects[name], index=False)

    def rows(self, number):
        return self.planned[self.planned["shard"] == number]

    def slices(self):
        return collect_slices(self.shards, self.rejects, self.planned)[0]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return Cohort(tmp_path_factory.mktemp("cohort"))


def content_of(path):
    """Everything in a shard: attributes, columns as bytes and the slices' chunks as stored."""
    with open_shard(path) as file:
        found = {"attributes": dict(file.attrs)}
        file.visititems(
            lambda name, item: (
                found.update({name: item[:].tobytes()})
                if isinstance(item, h5py.Dataset) and name != "pixels"
                else None
            )
        )
        chunks, count = file["pixels"].id, len(file["pixels"])
        found["pixels"] = [chunks.read_direct_chunk((row, 0, 0)) for row in range(count)]
    return found


def test_a_shard_gives_back_what_was_decoded(cohort):
    for path in cohort.shards.values():
        rows = read_rows(path)
        made = cohort.made.loc[rows[SOP_UID]]
        with open_shard(path) as file:
            pixels = file["pixels"][:]
        assert pixels.shape == (len(rows), 256, 256)
        assert pixels.dtype == np.int16
        assert (pixels == made["hu"].to_numpy()[:, None, None]).all()
        assert rows[IMAGE_LABEL].tolist() == made[IMAGE_LABEL].tolist()
        assert rows[STUDY_UID].tolist() == made[STUDY_UID].tolist()
        assert rows[SERIES_UID].tolist() == made[SERIES_UID].tolist()
        assert rows[POSITION].tolist() == made["z"].tolist()


def test_slices_stand_in_order_along_the_scan_axis(cohort):
    assert not cohort.made["z"].is_monotonic_increasing
    for path in cohort.shards.values():
        for _, study in read_rows(path).groupby(STUDY_UID):
            assert study[POSITION].is_monotonic_increasing
            assert study[POSITION].is_unique


def test_the_study_table_says_where_each_study_lies_and_its_labels(cohort):
    with open_shard(cohort.shards["001"]) as file:
        studies = {name: file[f"studies/{name}"][:] for name in file["studies"]}
    assert studies[STUDY_UID].astype(str).tolist() == ["cc", "dd"]
    assert studies["first_row"].tolist() == [0, 3]
    assert studies["count"].tolist() == [3, 2]
    for name in STUDY_LABELS:
        assert studies[name].tolist() == [cohort.made.loc[s, name] for s in ("cc.1.0", "dd.1.0")]


def test_each_slice_is_one_chunk_of_blosc(cohort):
    with open_shard(cohort.shards["000"]) as file:
        assert file["pixels"].chunks == (1, 256, 256)
        assert file["pixels"].attrs["unit"] == b"HU"
        assert "32001" in file["pixels"]._filters


def test_the_same_slices_give_the_same_bytes_at_another_time(tmp_path):
    labels = write_study(tmp_path)
    rows = planned_rows(labels, make_plan(labels, DATA))
    paths = [tmp_path / "first.h5", tmp_path / "second.h5"]
    for path in paths:
        write_shard(rows, tmp_path, path, 1)
        # HDF5 counts seconds.
        time.sleep(1.1)
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("workers", [2, 3])
def test_the_number_of_workers_changes_nothing_that_is_stored(cohort, tmp_path, workers):
    write_shard(cohort.rows(0), cohort.dicom, tmp_path / "again.h5", workers)
    assert content_of(tmp_path / "again.h5") == content_of(cohort.shards["000"])


def test_the_order_of_a_studys_rows_changes_nothing_that_is_stored(cohort, tmp_path):
    turned = pd.concat(
        [rows.iloc[::-1] for _, rows in cohort.rows(0).groupby(STUDY_UID, sort=False)]
    )
    write_shard(turned, cohort.dicom, tmp_path / "again.h5", 1)
    assert content_of(tmp_path / "again.h5") == content_of(cohort.shards["000"])


def test_every_stored_slice_is_collected_with_its_place_and_split(cohort):
    slices, rejected = collect_slices(cohort.shards, cohort.rejects, cohort.planned)
    assert len(slices) == len(cohort.planned) == 14
    assert rejected.empty
    assert slices["shard"].tolist() == ["000"] * 9 + ["001"] * 5
    assert slices["row"].tolist() == [*range(9), *range(5)]
    assert (slices["split"] == slices[STUDY_UID].map(SPLITS)).all()
    rows = pd.concat([read_rows(path) for path in cohort.shards.values()], ignore_index=True)
    assert slices[list(rows.columns)].equals(rows)


def test_a_rejected_slice_is_accounted_for(tmp_path):
    labels = write_study(tmp_path, 3).assign(shard=0, split="train")
    dicom_path(tmp_path, labels.iloc[1]).unlink()
    listed, _ = write_shard(labels, tmp_path, tmp_path / "shard.h5", 1)
    listed.to_csv(tmp_path / "rejects.csv", index=False)
    slices, rejected = collect_slices(
        {"000": tmp_path / "shard.h5"}, {"000": tmp_path / "rejects.csv"}, labels
    )
    assert slices[SOP_UID].tolist() == ["s.1.0", "s.1.2"]
    assert rejected[[SOP_UID, "reason"]].values.tolist() == [["s.1.1", "no such file"]]


def refuse(cohort, planned=None, rejects=None):
    planned = cohort.planned if planned is None else planned
    with pytest.raises(ClotlineError) as caught:
        collect_slices(cohort.shards, cohort.rejects | (rejects or {}), planned)
    assert "Delete results/data/shards" in str(caught.value)
    return str(caught.value)


def test_a_planned_row_that_is_nowhere_is_an_error(cohort):
    more = cohort.planned.iloc[[0]].assign(**{SOP_UID: "aa.1.99"})
    message = refuse(cohort, pd.concat([cohort.planned, more]))
    assert "of 15 rows of the labels file, 1 are neither stored nor rejected and 0" in message


def test_a_stored_row_that_was_not_planned_is_an_error(cohort):
    refuse(cohort, cohort.planned.iloc[1:])


def test_a_stored_row_of_another_name_than_the_planned_one_is_an_error(cohort):
    other = cohort.planned.copy()
    other.loc[0, SOP_UID] = "aa.1.99"
    assert "1 are neither" in refuse(cohort, other)


def test_a_row_both_stored_and_rejected_is_an_error(cohort, tmp_path):
    path = tmp_path / "rejects.csv"
    row = cohort.rows(0)[list(UIDS)].iloc[[2]].assign(path="x", reason="y")
    row.to_csv(path, index=False)
    assert "1 are both" in refuse(cohort, rejects={"000": path})


def test_a_row_both_stored_and_rejected_does_not_stand_for_one_that_is_nowhere(cohort, tmp_path):
    path = tmp_path / "rejects.csv"
    row = cohort.rows(0)[list(UIDS)].iloc[[2]].assign(path="x", reason="y")
    row.to_csv(path, index=False)
    more = cohort.planned.iloc[[0]].assign(**{SOP_UID: "aa.1.99"})
    planned = pd.concat([cohort.planned, more])
    assert "1 are both" in refuse(cohort, planned, {"000": path})


def test_positives_are_the_slices_with_a_clot_in_train_and_valid(cohort, tmp_path):
    slices = cohort.slices()
    path = tmp_path / "positives.h5"
    assert copy_positives(cohort.shards, slices, path) == 3
    wanted = positive_slices(slices)
    assert (wanted[IMAGE_LABEL] == 1).all()
    assert set(wanted[STUDY_UID]) == {"aa", "dd"}
    copied = read_rows(path)
    assert copied.equals(wanted[list(copied.columns)])
    with open_shard(path) as file:
        assert file["split"].asstr()[:].tolist() == ["train", "train", "valid"]
        values = file["pixels"][:, 0, 0].tolist()
        assert file["studies/first_row"][:].tolist() == [0, 2]
        assert file["studies/count"][:].tolist() == [2, 1]
        assert file["studies/central_pe"][:].tolist() == [1, 1]
    assert values == cohort.made.loc[copied[SOP_UID], "hu"].tolist()


def test_positives_are_copied_chunk_by_chunk_without_a_change_of_a_byte(cohort, tmp_path):
    slices = cohort.slices()
    path = tmp_path / "positives.h5"
    copy_positives(cohort.shards, slices, path)
    with open_shard(path) as target:
        for number, row in positive_slices(slices).iterrows():
            with open_shard(cohort.shards[row["shard"]]) as source:
                expected = source["pixels"].id.read_direct_chunk((row["row"], 0, 0))
            assert target["pixels"].id.read_direct_chunk((number, 0, 0)) == expected


def test_more_than_a_thousand_shards_keep_their_order(cohort, tmp_path):
    slices = cohort.slices()
    shards = {"101": cohort.shards["000"], "1000": cohort.shards["001"]}
    slices["shard"] = slices["shard"].map({"000": "101", "001": "1000"})
    path = tmp_path / "positives.h5"
    copy_positives(shards, slices, path)
    assert read_rows(path)[SOP_UID].tolist() == positive_slices(slices)[SOP_UID].tolist()


def test_progress_is_told_of_every_shard_with_positives(cohort, tmp_path):
    seen = []

    def step(shards):
        for item in shards:
            seen.append(item[0])
            yield item

    copy_positives(cohort.shards, cohort.slices(), tmp_path / "positives.h5", step)
    assert seen == ["000", "001"]


def test_a_missing_or_damaged_shard_is_an_error_that_says_what_to_do(cohort, tmp_path):
    path = tmp_path / "shard.h5"
    whole = cohort.shards["000"].read_bytes()
    with pytest.raises(ClotlineError, match=f"there is no file {path}"):
        open_shard(path)
    for content in (b"", b"no HDF5", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(ClotlineError, match=f"{path} cannot be used"):
            open_shard(path)


def test_a_shard_of_the_workflow_is_made_anew_by_the_command_in_the_message(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = Path("results/data/shards/shard-000.h5")
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(ClotlineError) as caught:
        open_shard(path)
    assert str(caught.value).endswith(
        f"To make it anew, rm {path} and run the same snakemake command again"
    )


def test_a_flipped_bit_in_a_shard_is_found_when_it_is_read_or_copied(cohort, tmp_path):
    source, slices = cohort.shards["000"], cohort.slices()
    slices = slices[slices["shard"] == "000"]
    content = source.read_bytes()
    rng, cases = random.Random(1), Cases()
    for number in range(150 * TORTURE):
        path = tmp_path / f"{number}.h5"
        path.write_bytes(flip_bit(content, rng))
        with cases.one(path):
            pd.testing.assert_frame_equal(read_rows(path), read_rows(source))
            pixels = StoredPixels(path)
            for row in slices.itertuples():
                expected = cohort.made["hu"][row.SOPInstanceUID]
                assert (pixels.read(row.row, row.checksum) == expected).all()
            copy_positives({"000": path}, slices, tmp_path / "positives.h5")
        path.unlink()
    assert cases.refused > 50 * TORTURE


def test_a_shard_that_is_made_anew_is_read_anew(cohort, tmp_path):
    path = tmp_path / "shard.h5"
    for name in ("000", "001"):
        path.write_bytes(cohort.shards[name].read_bytes())
        slices = cohort.slices()
        first = slices[slices["shard"] == name].iloc[0]
        expected = cohort.made["hu"][first["SOPInstanceUID"]]
        assert (StoredPixels(path).read(first["row"], first["checksum"]) == expected).all()


@pytest.mark.parametrize(("form", "version"), [("other", 1), ("clotline-shard", 2), (None, None)])
def test_a_shard_of_another_format_or_version_is_refused(tmp_path, form, version):
    path = tmp_path / "shard.h5"
    with h5py.File(path, "w") as file:
        if form:
            file.attrs.update(format=form, version=version)
    with pytest.raises(ClotlineError) as caught:
        open_shard(path)
    assert f"has format {form} version {version}, not clotline-shard 6" in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "kind", "chunks"),
    [
        ((3, 128, 128), "i2", (1, 128, 128)),
        ((3, 256, 256), "f4", (1, 256, 256)),
        ((3, 256, 256), "i2", (3, 256, 256)),
    ],
)
def test_a_shard_whose_pixels_are_something_else_is_refused(tmp_path, shape, kind, chunks):
    path = tmp_path / "shard.h5"
    with NewHDF5(path, "clotline-shard", 6) as file:
        file.create_dataset("pixels", shape=shape, dtype=kind, chunks=chunks)
    with pytest.raises(ClotlineError, match="cannot be used: its pixels are"):
        StoredPixels(path)


def test_the_disk_is_asked_for_the_bytes_of_the_slice(cohort, monkeypatch):
    slices, asked = read_rows(cohort.shards["000"]), []

    def note(file, start, size, advice):
        assert advice == os.POSIX_FADV_WILLNEED
        asked.append(os.pread(file, size, start))

    pixels = StoredPixels(cohort.shards["000"])
    monkeypatch.setattr(os, "posix_fadvise", note)
    pixels.fetch(4)
    assert asked == [pixels.chunk(4, slices["checksum"][4]).content]
