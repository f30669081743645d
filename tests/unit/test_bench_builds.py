"""Speed beside an earlier build, in small; this build stands in for the earlier one."""

import json
import zipfile

import numpy as np
import pytest

from bench import builds, data, realct
from bench.race import ratio
from clotline.data.dicom.ct_slice import read_slice
from clotline.data.phantom.files import write_cohort
from clotline.data.shards import open_shard


@pytest.fixture
def cohort(tmp_path):
    """Two studies of a few slices in the competition's layout."""
    folder = tmp_path / "realct"
    settings = {"studies": 2, "seed": 3, "slices_min": 16, "slices_max": 16}
    write_cohort(settings, folder / "train", folder / "train.csv")
    return folder


def studies_of(folder):
    return sorted(path.name for path in (folder / "train").iterdir())


def test_both_builds_store_the_same_pixels_of_each_encoding(cohort, tmp_path):
    study = studies_of(cohort)[1]
    encoded = realct.encode(cohort, tmp_path / "encoded", [study], copies=2)
    for original in (cohort / "train" / study).rglob("*.dcm"):
        expected = read_slice(original).pixels
        for folder in encoded.values():
            copy = read_slice(folder / original.relative_to(cohort))
            assert np.array_equal(copy.pixels, expected)
    found = list(builds.ingest(encoded, tmp_path, builds.PRESENT, rounds=1))
    refused = [row for row in found if row.theirs is None]
    assert [row.beside for row in found] == [builds.EARLIER, builds.PUBLISHED] * len(encoded)
    # pydicom decodes HTJ2K by none of the installed libraries.
    assert [(row.what.split(", ")[2], row.beside) for row in refused] == [
        ("HTJ2K", builds.PUBLISHED)
    ]
    assert "the same pixels in 32 slices" in found[0].note


def test_tall_studies_are_real_slices_at_positions_of_their_own(cohort, tmp_path):
    real = data.real_cohort(cohort, tmp_path)
    realct.write_tall(real, tmp_path / "tall", studies=3, slices=40)
    for study in sorted((tmp_path / "tall").iterdir()):
        slices = [read_slice(path) for path in sorted(study.iterdir())]
        assert len({found.sop_uid for found in slices}) == 40
        assert np.diff([found.position for found in slices]) == pytest.approx(1)
    with open_shard(real.shard) as file:
        # Up, down and up again.
        assert np.array_equal(slices[0].pixels, file["pixels"][5])
        assert np.array_equal(slices[26].pixels, slices[27].pixels)


def test_a_bundle_of_version_1_has_the_same_networks(tmp_path):
    members = {"cnn/a.pt": "1", "lstm/a-image.pt": "2", "seen/studies.npy": "3"}
    with zipfile.ZipFile(tmp_path / "new.zip", "w") as archive:
        archive.writestr("manifest.json", json.dumps({"version": 2, "members": members}))
        for name in members:
            archive.writestr(name, name)
    with zipfile.ZipFile(builds.first_version(tmp_path / "new.zip", tmp_path / "old.zip")) as old:
        manifest = json.loads(old.read("manifest.json"))
        assert manifest["version"] == 1
        assert {*manifest["members"], "manifest.json"} == {*old.namelist()}
        assert old.read("cnn/a.pt") == b"cnn/a.pt"
        assert not any(name.startswith("seen/") for name in old.namelist())


def test_a_ratio_below_1_is_to_be_kept_and_one_above_to_be_reached():
    assert ratio("rate", "1/s", [30, 33], "it", [10, 10], 3).reached
    assert not ratio("rate", "1/s", [29, 29], "it", [10, 10], 3).reached
    assert ratio("time", "s", [5], "it", [10], 0.5).reached
    assert not ratio("time", "s", [6], "it", [10], 0.5).reached
    assert ratio("refused", "s", [6], "it", None, 0.5).ratio is None
