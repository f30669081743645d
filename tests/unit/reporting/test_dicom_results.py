"""DICOM results, made of whole scans and opened again by other software."""

import json
import shutil
import subprocess
from types import SimpleNamespace

import dicom_results
import h5py
import hdf5plugin  # noqa: F401
import highdicom
import nibabel
import numpy as np
import pandas as pd
import pydicom
import pytest
import SimpleITK
from builders import write_enhanced
from chests import chest_picture, write_scan
from pydicom.uid import EnhancedCTImageStorage

from clotline.data.activation_file import Activation, write_activation
from clotline.data.folder import DataFolder
from clotline.data.ingest import write_shard
from clotline.data.series import find_series, list_files
from clotline.data.shards import read_rows
from clotline.data.tables import uid_triples, write_table
from clotline.grid import LUNGS, PUBLISHED, Grid
from clotline.labels import STUDY_LABELS, STUDY_UID
from clotline.reporting.dicom_results import MAP, REPORT, write_results

SIDE, COUNT, EMBOLUS, PLACE = 128, 20, 13, (44, 80)  # the slice, and row and column in it
CROP, CELLS = {256: 224, 384: 352, 512: 448}, 32  # crop of each size of slices
PATIENT = {
    "PatientName": "Müller^Änne", "PatientID": "MRN-4711", "PatientBirthDate": "19500317",
    "PatientSex": "F", "AccessionNumber": "ACC1", "StudyID": "S1", "StudyDate": "20260102",
    "StudyTime": "101112", "ReferringPhysicianName": "Doc^Tor",
    "SpecificCharacterSet": "ISO_IR 100", "PatientComments": "SECRET", "PatientAddress": "SECRET",
}  # fmt: skip
TILT = [1, 0, 0, 0, float(np.cos(0.26)), float(-np.sin(0.26))]


def pixels_of(number):
    """A chest; on one slice with a very bright embolus, which everything else lies far below."""
    pixels = chest_picture(SIDE)
    if number == EMBOLUS:
        row, column = PLACE
        pixels[row - 2 : row + 3, column - 2 : column + 3] = 20000
    return pixels


def corner(height):
    return [-170.5, -190.25, height]


#: Elements of each scan; functions of a slice's number.
SCANS = {
    "numbers from the feet": {},
    "numbers from the head": {"InstanceNumber": lambda n: COUNT - n},
    "positions from the head": {"ImagePositionPatient": lambda n: corner(200 - 2.5 * n)},
    "prone": {"ImageOrientationPatient": [-1, 0, 0, 0, -1, 0]},
    "tilted": {"ImageOrientationPatient": TILT},
    "with gaps": {"ImagePositionPatient": lambda n: corner(2.5 * (n + 3 * (n > 5) + (n > 15)))},
    "not square": {"PixelSpacing": [2.0, 2.9]},
    "each file in a series of its own": {"SeriesInstanceUID": lambda n: f"1.2.3.4.{n + 1}"},
}


def write(folder, **tags):
    tags = {"ImagePositionPatient": lambda n: corner(2.5 * n)} | PATIENT | tags
    write_scan(
        folder, series="1.2.3.4", study="1.2.3", count=COUNT, side=SIDE,
        PixelData=lambda n: pixels_of(n).astype("<i2").tobytes(), **tags,
    )  # fmt: skip


def activation_of(slices, shard_pixels):
    """What a network would make of it that sees nothing but brightness: means of cells."""
    size = shard_pixels.shape[-1]
    crop = CROP[size]
    margin, cell = (size - crop) // 2, crop // CELLS
    square = np.maximum(shard_pixels[:, margin:-margin, margin:-margin].astype(float) - 2000, 0)
    maps = square.reshape(-1, CELLS, cell, CELLS, cell).mean((2, 4)).astype(np.float32)
    return Activation(maps, np.zeros(len(maps)), uid_triples(slices), crop)


def results_of(folder, files, grid=PUBLISHED, model="combined-study", backbone="resnext50"):
    """Finds, decodes and writes the results of a folder; gives their folder and list."""
    rows, _, _ = find_series(files, list_files(files))
    shard = folder / "shard-new.h5"
    write_shard(rows, files, shard, 1, grid=grid)
    slices = read_rows(shard)
    with h5py.File(shard) as file:
        activation = activation_of(slices, file["pixels"][:])
    uids = slices[STUDY_UID].unique()
    probabilities = {name: 0.05 + 0.1 * k for k, name in enumerate(("pe_present", *STUDY_LABELS))}
    predictions = pd.DataFrame({STUDY_UID: uids, "model": model})
    table = write_results(
        folder / "dicom", slices, rows, DataFolder(str(files)),
        predictions.assign(**probabilities), {backbone: activation}, ["models of SHA-256 0123"],
        size=grid.size,
    )  # fmt: skip
    return folder / "dicom", table, probabilities, activation


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    write(folder / "files")
    return results_of(folder, folder / "files")


def embolus_of(files):
    """SOPInstanceUID of the slice that shows the embolus, and where it lies in the patient."""
    path = next(path for path in files.iterdir() if path.name.endswith(f"{EMBOLUS:03d}"))
    return place_in(pydicom.dcmread(path))


def place_in(header):
    axes = np.array(header.ImageOrientationPatient, float)
    row_mm, column_mm = map(float, header.PixelSpacing)
    place = np.array(header.ImagePositionPatient, float)
    place = place + axes[:3] * column_mm * PLACE[1] + axes[3:] * row_mm * PLACE[0]
    return header.SOPInstanceUID, place, np.cross(axes[:3], axes[3:])


def hottest(dataset):
    """The hottest cell: its frame and where it lies, by the map's own elements alone."""
    frames = dataset.pixel_array
    frame, row, column = np.unravel_index(int(frames.argmax()), frames.shape)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    axes = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    row_mm, column_mm = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    own = dataset.PerFrameFunctionalGroupsSequence[frame]
    place = np.array(own.PlanePositionSequence[0].ImagePositionPatient, float)
    return own, place + axes[:3] * column_mm * column + axes[3:] * row_mm * row, row_mm, frame


def check_by_dicom3tools(path):
    if shutil.which("dciodvfy") is None:
        pytest.skip("no dciodvfy on this machine: see tests/system-packages.sh")
    said = subprocess.run(["dciodvfy", path], capture_output=True, text=True).stderr
    assert "Error" not in said, said


@pytest.mark.parametrize("name", SCANS)
def test_the_hottest_cell_lies_on_the_embolus_and_refers_to_its_slice(tmp_path, name):
    write(tmp_path / "files", **SCANS[name])
    folder, table, _, _ = results_of(tmp_path, tmp_path / "files")
    assert table["reason"].tolist() == ["", ""]
    dataset = pydicom.dcmread(folder / "1.2.3/resnext50.dcm")
    sop, place, normal = embolus_of(tmp_path / "files")
    frame, found, cell, _ = hottest(dataset)
    assert int(dataset.NumberOfFrames) == COUNT
    assert abs((found - place) @ normal) < 0.01
    # Not farther than from a cell's centre to its corner.
    assert np.linalg.norm(found - place) < 0.75 * cell
    source = frame.DerivationImageSequence[0].SourceImageSequence[0]
    assert source.ReferencedSOPInstanceUID == sop
    check_by_dicom3tools(folder / "1.2.3/resnext50.dcm")
    check_by_dicom3tools(folder / "1.2.3/report.dcm")


@pytest.mark.parametrize("name", ["numbers from the feet", "prone", "tilted", "not square"])
@pytest.mark.parametrize("grid", [Grid(512), Grid(384, LUNGS)], ids=str)
def test_the_hottest_cell_lies_on_the_embolus_in_another_grid(tmp_path, name, grid):
    write(tmp_path / "files", **SCANS[name])
    folder, table, _, _ = results_of(tmp_path, tmp_path / "files", grid)
    assert (table["reason"] == "").all()
    rows = read_rows(tmp_path / "shard-new.h5")
    if grid.crop == LUNGS:
        assert (rows["box_side"] < 0.9).all()
    sop, place, _ = embolus_of(tmp_path / "files")
    frame, found, cell, _ = hottest(pydicom.dcmread(folder / "1.2.3/resnext50.dcm"))
    assert np.linalg.norm(found - place) < 0.75 * cell
    source = frame.DerivationImageSequence[0].SourceImageSequence[0]
    assert source.ReferencedSOPInstanceUID == sop


@pytest.mark.parametrize("sop", ["1.2.9", f"1.2.{'9' * 60}"], ids=["short", "of 64 characters"])
@pytest.mark.parametrize("kind", ["report.dcm", "resnext50.dcm"])
def test_an_enhanced_file_is_referred_to_by_its_frames(tmp_path, kind, sop):
    path = tmp_path / "files/enhanced.dcm"
    positions = [{"PlanePositionSequence": {"ImagePositionPatient": corner(3.0 * k)}}
                 for k in range(COUNT)]  # fmt: skip
    spacing = {"PixelMeasuresSequence": {"PixelSpacing": [2.8, 2.8], "SliceThickness": 3}}
    uids = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "SOPInstanceUID": sop}
    pixels = np.stack([pixels_of(number) for number in range(COUNT)])
    write_enhanced(path, pixels, shared=spacing, frames=positions, FrameOfReferenceUID="1.2.8",
                   **uids, **PATIENT)  # fmt: skip
    folder, table, _, _ = results_of(tmp_path, tmp_path / "files")
    assert table["reason"].tolist() == ["", ""]
    dataset = pydicom.dcmread(folder / "1.2.3" / kind)
    check_by_dicom3tools(folder / "1.2.3" / kind)
    if kind == "report.dcm":
        assert image_references(dataset) == {(sop, tuple(range(1, COUNT + 1)))}
        return
    frame, found, cell, _ = hottest(dataset)
    place = np.add(corner(3.0 * EMBOLUS), [2.8 * PLACE[1], 2.8 * PLACE[0], 0])
    assert found[2] == pytest.approx(place[2])
    assert np.linalg.norm(found - place) < 0.75 * cell
    source = frame.DerivationImageSequence[0].SourceImageSequence[0]
    assert source.ReferencedSOPInstanceUID == sop
    assert source.ReferencedSOPClassUID == EnhancedCTImageStorage
    assert source.ReferencedFrameNumber == EMBOLUS + 1


def image_references(item):
    """SOPInstanceUID and frames of every image in a content tree."""
    found = set()
    for child in item.get("ContentSequence", []):
        for reference in child.get("ReferencedSOPSequence", []):
            frames = reference.get("ReferencedFrameNumber", [])
            frames = (frames,) if isinstance(frames, int) else tuple(map(int, frames))
            found.add((str(reference.ReferencedSOPInstanceUID), frames))
        found |= image_references(child)
    return found


def test_the_report_tells_nine_probabilities_the_model_and_what_it_is_not_for(plain):
    folder, table, probabilities, _ = plain
    report = highdicom.sr.srread(folder / "1.2.3/report.dcm")
    (group,) = report.content.get_image_measurement_groups()
    told = {m.name.value: float(m.value) for m in group.get_measurements()}
    assert told == pytest.approx(probabilities)
    assert all(m.unit.value == "1" for m in group.get_measurements())
    assert {m.name.scheme_designator for m in group.get_measurements()} == {"99CLOTLINE"}
    (use,) = group.get_qualitative_evaluations()
    assert use.value.meaning == "Research use, not for diagnosis"
    texts = [item.TextValue for item in group[0].ContentSequence if "TextValue" in item]
    assert "Clotline combined-study" in texts and "models of SHA-256 0123" in texts
    assert "Research use, not for diagnosis" in report.SeriesDescription
    assert report.VerificationFlag == "UNVERIFIED"
    assert {uid for uid, _ in image_references(report)} == {
        f"1.2.3.4.7.{number}" for number in range(COUNT)
    }
    assert table["kind"].tolist() == [REPORT, MAP]
    assert table["file"].tolist() == ["1.2.3/report.dcm", "1.2.3/resnext50.dcm"]


@pytest.mark.parametrize("name", ["report.dcm", "resnext50.dcm"])
def test_an_archive_finds_patient_and_study_and_nothing_more_of_them(plain, name):
    folder, table, _, _ = plain
    dataset = pydicom.dcmread(folder / "1.2.3" / name)
    for keyword in PATIENT:
        if keyword not in ("SpecificCharacterSet", "PatientComments", "PatientAddress"):
            assert str(dataset[keyword].value) == PATIENT[keyword]
    assert dataset.StudyInstanceUID == "1.2.3"
    assert dataset.SeriesInstanceUID != "1.2.3.4"
    assert b"SECRET" not in (folder / "1.2.3" / name).read_bytes()
    # The list beside the files is no place for it.
    assert "4711" not in table.to_csv() and "ller" not in table.to_csv()


def test_highdicom_opens_the_map_where_and_as_it_was(plain):
    folder, _, _, activation = plain
    image = highdicom.imread(folder / "1.2.3/resnext50.dcm")
    values = image.get_frames(apply_real_world_transform=True)
    # From the head down, as highdicom orders frames.
    step = activation.maps.max() / 65535
    assert np.abs(values - activation.maps[::-1]).max() <= step
    volume = image.get_volume()
    index = np.unravel_index(int(volume.array.argmax()), volume.shape)
    place = volume.map_indices_to_reference(np.array([index]))[0]
    pixel = 360 / SIDE
    expected = np.add(corner(2.5 * EMBOLUS), [pixel * PLACE[1], pixel * PLACE[0], 0])
    assert np.linalg.norm(place - expected) < 0.75 * volume.spacing[1]


def test_simpleitk_opens_the_map_where_it_was(plain, tmp_path):
    folder, _, _, _ = plain
    dataset = pydicom.dcmread(folder / "1.2.3/resnext50.dcm")
    # GDCM, by which SimpleITK reads, refuses the class of Parametric Maps by its UID alone: see
    # findings/gdcm-parametric-map.sh. All else is left as it is.
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    dataset.save_as(tmp_path / "map.dcm")
    image = SimpleITK.ReadImage(str(tmp_path / "map.dcm"))
    values = SimpleITK.GetArrayFromImage(image)
    assert np.array_equal(values, dataset.pixel_array)
    index = np.unravel_index(int(values.argmax()), values.shape)[::-1]
    place = image.TransformIndexToPhysicalPoint([int(k) for k in index])
    assert place == pytest.approx(hottest(dataset)[1], abs=1e-3)


def test_a_map_of_zeros_can_be_written(tmp_path, plain, monkeypatch):
    write(tmp_path / "files")
    monkeypatch.setattr(
        "test_dicom_results.activation_of",
        lambda slices, pixels: Activation(
            np.zeros((len(slices), 2, 2)), np.zeros(len(slices)), uid_triples(slices), CROP[256]
        ),
    )
    folder, table, _, _ = results_of(tmp_path, tmp_path / "files")
    assert table["reason"].tolist() == ["", ""]
    assert not pydicom.dcmread(folder / "1.2.3/resnext50.dcm").pixel_array.any()


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        (
            {"PixelSpacing": None},
            "no usable ImagePositionPatient, ImageOrientationPatient or",
        ),
        ({"FrameOfReferenceUID": None}, "no usable FrameOfReferenceUID: nothing says where"),
        ({"FrameOfReferenceUID": "NONE"}, "no usable FrameOfReferenceUID: nothing says where"),
        (
            {"FrameOfReferenceUID": lambda n: "1.2.8.1" if n < 10 else "1.2.8.2"},
            "slices of several frames of reference",
        ),
    ],
)
def test_files_that_do_not_say_where_they_lie_have_a_report_alone(tmp_path, tags, reason):
    write(tmp_path / "files", **tags)
    folder, table, _, _ = results_of(tmp_path, tmp_path / "files")
    assert table["reason"][0] == ""
    assert table["reason"][1].startswith(reason)
    assert [path.name for path in folder.rglob("*.dcm")] == ["report.dcm"]
    check_by_dicom3tools(folder / "1.2.3/report.dcm")


def test_without_instances_to_refer_to_there_are_no_results_and_a_reason(tmp_path):
    (tmp_path / "files").mkdir()
    volume = np.stack([chest_picture(64)] * COUNT, axis=-1).swapaxes(0, 1)
    affine = np.diag([-5.6, -5.6, 3, 1])
    nibabel.save(nibabel.Nifti1Image(volume, affine), tmp_path / "files/scan.nii")
    folder, table, _, _ = results_of(tmp_path, tmp_path / "files")
    (row,) = table.to_dict("records")
    assert row["kind"] == f"{REPORT}, {MAP}"
    assert row["reason"] == ("a NIfTI or NRRD volume: there are no DICOM instances to refer to")
    assert not folder.exists()


def test_names_longer_than_an_element_are_cut_and_what_it_is_not_for_stays(tmp_path):
    write(tmp_path / "files")
    backbone, model = "efficientnet_b0_of_three_planes", f"{'a' * 70}-study"
    folder, table, _, _ = results_of(tmp_path, tmp_path / "files", PUBLISHED, model, backbone)
    assert table["reason"].tolist() == ["", ""]
    dataset = pydicom.dcmread(folder / f"1.2.3/{backbone}.dcm")
    assert dataset.ManufacturerModelName == backbone
    for text in (dataset.SeriesDescription, dataset.ContentDescription):
        assert text == "Clotline efficientnet_b0_of_...: Research use, not for diagnosis"
    report = pydicom.dcmread(folder / "1.2.3/report.dcm")
    assert report.ManufacturerModelName == f"{'a' * 61}..."
    for name in (f"{backbone}.dcm", "report.dcm"):
        check_by_dicom3tools(folder / "1.2.3" / name)


def test_a_study_called_na_has_a_reason_and_the_others_their_results(tmp_path):
    write(tmp_path / "files/1")
    write(tmp_path / "files/2", StudyInstanceUID="NA", SeriesInstanceUID="1.2.3.5")
    _, _, probabilities, activation = results_of(tmp_path, tmp_path / "files")
    rows, _, _ = find_series(tmp_path / "files", list_files(tmp_path / "files"))
    write_table(rows, tmp_path / "rows.parquet")
    predictions = pd.DataFrame({STUDY_UID: ["NA", "1.2.3"], "model": "combined-study"})
    predictions.assign(**probabilities).to_csv(tmp_path / "predictions.csv", index=False)
    selection = {"model": "combined-study", "source": {"title": "models"}}
    (tmp_path / "selection.json").write_text(json.dumps(selection))
    write_activation(tmp_path / "resnext50.h5", activation, "resnext50")
    names = {"rows": "rows.parquet", "shard": "shard-new.h5", "selection": "selection.json",
             "predictions": "predictions.csv", "activations": "resnext50.h5"}  # fmt: skip
    dicom_results.main(
        SimpleNamespace(
            input=SimpleNamespace(**{key: str(tmp_path / name) for key, name in names.items()}),
            output=SimpleNamespace(folder=tmp_path / "results", table=tmp_path / "results.csv"),
            params=SimpleNamespace(bundle="0123"),
            config={"predict": str(tmp_path / "files")},
        )
    )
    table = pd.read_csv(tmp_path / "results.csv", keep_default_na=False).set_index(STUDY_UID)
    assert table.loc["NA", "reason"] == "no valid StudyInstanceUID in the files to refer to"
    assert table.loc["1.2.3", "reason"].tolist() == ["", ""]


def test_values_that_no_result_may_have_are_left_empty(tmp_path):
    odd = {"PatientSex": "U", "PatientBirthDate": "17.3.1950", "StudyTime": "25"}
    write(tmp_path / "files", **odd, PatientID=None)
    folder, table, _, _ = results_of(tmp_path, tmp_path / "files")
    assert table["reason"].tolist() == ["", ""]
    dataset = pydicom.dcmread(folder / "1.2.3/report.dcm")
    assert not dataset.PatientSex and not dataset.PatientBirthDate and not dataset.PatientID
    assert not dataset.StudyTime
    check_by_dicom3tools(folder / "1.2.3/report.dcm")


def test_dates_of_old_files_are_written_as_of_today(tmp_path):
    write(tmp_path / "files", PatientBirthDate="1950.03.17", StudyDate="2026.01.02")
    folder, _, _, _ = results_of(tmp_path, tmp_path / "files")
    for name in ("report.dcm", "resnext50.dcm"):
        dataset = pydicom.dcmread(folder / "1.2.3" / name)
        assert (dataset.PatientBirthDate, dataset.StudyDate) == ("19500317", "20260102")
        check_by_dicom3tools(folder / "1.2.3" / name)


def test_uids_that_scanners_write_wrongly_are_referred_to_as_they_are(tmp_path):
    write(tmp_path / "files", SeriesInstanceUID="1.2.03.004")
    folder, table, _, _ = results_of(tmp_path, tmp_path / "files")
    assert table["reason"].tolist() == ["", ""]
    dataset = pydicom.dcmread(folder / "1.2.3/resnext50.dcm")
    assert dataset.ReferencedSeriesSequence[0].SeriesInstanceUID == "1.2.03.004"


def test_a_number_that_is_too_long_stays_what_the_archive_knows_the_study_by(tmp_path):
    write(tmp_path / "files", AccessionNumber="A" * 20)
    folder, _, _, _ = results_of(tmp_path, tmp_path / "files")
    assert pydicom.dcmread(folder / "1.2.3/report.dcm").AccessionNumber == "A" * 20


@pytest.mark.parametrize("name", ["SECRET", "SECRET^A^B^C^D^E", "", "SECRET=a=b=c"])
def test_whatever_the_name_is_nothing_says_it(tmp_path, capfd, caplog, recwarn, name):
    write(tmp_path / "files", PatientName=name)
    _, table, _, _ = results_of(tmp_path, tmp_path / "files")
    assert table["reason"].tolist() == ["", ""]
    said = [*capfd.readouterr(), caplog.text, *(str(warning.message) for warning in recwarn)]
    assert "SECRET" not in "".join(said)


def test_slices_at_one_position_have_one_frame(tmp_path):
    # The sixth lies where the fifth does.
    write(tmp_path / "files", ImagePositionPatient=lambda n: corner(2.5 * (4 if n == 5 else n)))
    folder, table, _, _ = results_of(tmp_path, tmp_path / "files")
    assert table["reason"].tolist() == ["", ""]
    dataset = pydicom.dcmread(folder / "1.2.3/resnext50.dcm")
    assert int(dataset.NumberOfFrames) == len(dataset.pixel_array) == COUNT - 1
