"""A tiny made example of each known data set, from its folder to labels of studies and slices."""

import nibabel
import nrrd
import numpy as np
import pytest
import scipy.io
from builders import write_dicom
from chests import chest_picture, write_scan

from clotline.data.archives import unpacked
from clotline.data.cohort import PE_PRESENT, match_labels, read_cohort
from clotline.data.ingest import write_shard
from clotline.data.lone_shard import stored_slices
from clotline.data.series import find_series, list_files
from clotline.data.truth import settle
from clotline.labels import IMAGE_LABEL, STUDY_UID
from clotline.workflow.cohort_description import load_description

COUNT, SIDE, STEP = 16, 64, 3.0
NOTHING_SEEN = np.zeros(0, np.uint64), np.zeros(0, np.uint64)
#: Slices of the positive study that show an embolus, from feet to head.
SHOWN = [3, 4, 9]


def through(folder, name):
    """A folder read as validate reads it.

    Returns:
        PE present by study, the slices of each that show an embolus, and why labels do not count.
    """
    description = load_description(folder, name)
    cohort = read_cohort(folder, description)
    with unpacked(folder, list_files(folder)) as packed:
        rows, series, left_out = find_series(packed.folder, packed.files, refused=packed.refused)
        matched = match_labels(cohort, rows, series, left_out, description, 0.3)
        shard = folder.parent / "shard-new.h5"
        write_shard(matched.rows, packed.folder, shard, 1)
    slices = stored_slices(shard)
    seen = NOTHING_SEEN
    truth = settle(cohort, matched.labels, matched.rows, slices, folder, description, seen)
    assert len(slices) == COUNT * len(truth.studies)
    # The order along the scan is that of the marks that the pictures carry.
    numbers = truth.slices.groupby(STUDY_UID).cumcount()
    shown = truth.slices[IMAGE_LABEL] == 1
    marked = {uid: numbers[shown & (truth.slices[STUDY_UID] == uid)].tolist()
              for uid in truth.studies[STUDY_UID]}  # fmt: skip
    present = truth.studies.set_index(STUDY_UID)[PE_PRESENT].to_dict()
    assert (matched.unlabelled.empty, truth.notes) == (True, [])
    missing = [*matched.missing["reason"], *truth.excluded["reason"]]
    return present, marked, missing


def volume(blood=300):
    """(columns, rows, slices) HU of a chest, from feet to head."""
    picture = chest_picture(SIDE, blood)
    return np.repeat(picture.T[:, :, None], COUNT, axis=2)


def affine(downwards=False):
    """Of NIfTI: columns run to the left, rows to the back."""
    found = np.diag([-360 / SIDE, -360 / SIDE, -STEP if downwards else STEP, 1.0])
    found[:3, 3] = 180, 180, STEP * (COUNT - 1) if downwards else 0
    return found


def mask(shown=SHOWN, value=1):
    marks = np.zeros((SIDE, SIDE, COUNT), np.int16)
    marks[30:33, 20:25, shown] = value
    return marks


def save_nifti(path, values, geometry):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values.astype(np.int16), geometry), path)


def save_nrrd(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {
        "space": "left-posterior-superior",
        "space directions": np.diag([360 / SIDE, 360 / SIDE, STEP]),
        "space origin": [-180, -180, 0],
    }
    nrrd.write(str(path), values.astype(np.int16), header)


def by_class(present, marked):
    """The slices that are marked in positive and in negative studies."""
    return {label: [m for uid, m in marked.items() if present[uid] == label] for label in (1, 0)}


def test_inspect_joins_its_tables_and_masks_what_is_censored(tmp_path):
    root = tmp_path / "inspect"
    for number in range(4):
        save_nifti(root / f"CTPA/im{number}.nii.gz", volume(250 + 10 * number), affine())
    words = ["TRUE", "False", "Censored", "TRUE"]
    tables = {
        "labels_20250611": ["impression_id\tpe_positive_nlp\t1_month_mortality"]
        + [f"i{n}\t{word}\tCensored" for n, word in enumerate(words)],
        "study_mapping_20250611": ["impression_id\tperson_id\timage_id"]
        + [f"i{n}\tp{n // 2}\tim{n}" for n in range(4)],
        "splits_20250611": ["impression_id\tperson_id\tsplit"]
        + [f"i{n}\tp{n // 2}\t{'test' if n < 3 else 'train'}" for n in range(4)],
    }
    for name, lines in tables.items():
        (root / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    description = load_description(root, "inspect")
    cohort = read_cohort(root, description)
    assert cohort.studies[PE_PRESENT].to_dict() == {"im0": 1, "im1": 0, "im3": 1}
    assert cohort.studies["patient"].to_dict() == {"im0": "P0", "im1": "P0", "im3": "P1"}
    assert cohort.missing == [("labels_20250611.tsv, line 4", "no label is known")]
    kept = read_cohort(root, description | {"keep": {"split": ["test"]}})
    assert kept.studies.index.tolist() == ["im0", "im1"]
    (root / "CTPA/im2.nii.gz").unlink()  # without a label
    present, marked, missing = through(root, "inspect")
    assert sorted(present.values()) == [0, 1, 1]
    assert set(map(len, marked.values())) == {0}  # slices are unknown
    assert missing == ["no label is known"]


def test_radfusion_goes_by_number(tmp_path):
    root = tmp_path / "radfusion"
    for number, blood in ((7, 300), (12, 280)):
        save_nifti(root / f"volumes/{number:04}.nii.gz", volume(blood), affine())
    (root / "Labels.csv").write_text("idx,label,split,pe_type\n7,1,test,central\n12,0,test,\n")
    present, _, missing = through(root, "radfusion")
    assert (sorted(present.values()), missing) == ([0, 1], [])


def test_cad_pe_has_masks_of_other_numbers_of_digits_and_a_value_a_clot(tmp_path):
    root = tmp_path / "cad-pe"
    save_nrrd(root / "images/001.nrrd", volume())
    save_nrrd(root / "images/e0032.nrrd", volume(280))
    clots = mask([3], 1) + mask([4, 9], 7)
    save_nrrd(root / "rs/0001RefStd.nrrd", clots)
    save_nrrd(root / "rs/0032RefStd.nrrd", mask([]))
    present, marked, missing = through(root, "cad-pe")
    assert by_class(present, marked) == {1: [SHOWN], 0: [[]]}
    assert missing == []


@pytest.mark.parametrize("downwards", [False, True])
def test_fumpe_masks_follow_the_names_of_the_files(tmp_path, downwards):
    root = tmp_path / "fumpe"

    def place(number):
        return [-180, -180, -STEP * number if downwards else STEP * number]

    for name, blood in (("PAT001", 300), ("PAT024", 280)):
        uid = f"1.{name[3:].lstrip('0')}"
        write_scan(root / f"CT_scans/{name}", f"{uid}.1", uid, COUNT, name="D", blood=blood,
                   ImagePositionPatient=place)  # fmt: skip
    (root / "GroundTruth").mkdir()
    # By file name; where these run from the head down, so does the mask.
    shown = [COUNT - 1 - k for k in SHOWN] if downwards else SHOWN
    marks = np.zeros((SIDE, SIDE, COUNT), np.uint8)
    marks[3, 4, shown] = 1
    scipy.io.savemat(root / "GroundTruth/PAT001.mat", {"Mask": marks})
    scipy.io.savemat(root / "GroundTruth/PAT024.mat", {"Mask": 0 * marks})
    present, marked, missing = through(root, "fumpe")
    assert present == {"1.1": 1, "1.24": 0}
    assert marked == {"1.1": SHOWN, "1.24": []}
    assert missing == []


def test_read_masks_are_laid_by_their_arrays_for_their_headers_are_wrong(tmp_path):
    root = tmp_path / "read"
    for folder, name, uid in (
        ("GE (DICOM files)", "01GE", "1.1"),
        ("TOSHIBA (DICOM files)", "01TS", "1.2"),
    ):
        write_scan(root / f"images/{folder}/{name}", f"{uid}.1", uid, COUNT, name="IM")
    save_nifti(root / "rs/01GE.nii.gz", mask(), affine(downwards=True))
    save_nifti(root / "rs/01TS.nii.gz", mask([]), affine(downwards=True))
    present, marked, _ = through(root, "read")
    assert present == {"1.1": 1, "1.2": 0}
    assert marked == {"1.1": SHOWN, "1.2": []}


@pytest.mark.parametrize("downwards", [False, True])
def test_nnunets_masks_lie_where_their_headers_say(tmp_path, downwards):
    root = tmp_path / "nnunet"
    for case, shown in (("pe_01", SHOWN), ("pe_02", [])):
        blood = 300 if shown else 280
        save_nifti(root / f"imagesTr/{case}_0000.nii.gz", volume(blood), affine())
        marks = mask(shown)[:, :, ::-1] if downwards else mask(shown)
        save_nifti(root / f"labelsTr/{case}.nii.gz", marks, affine(downwards))
    present, marked, missing = through(root, "nnunet")
    assert by_class(present, marked) == {1: [SHOWN], 0: [[]]}
    assert missing == []


def test_turku_has_a_row_and_a_label_a_slice(tmp_path):
    root = tmp_path / "turku"
    lines = ["PatientID,StudyInstanceUID,SeriesInstanceUID,SOPInstanceUID,dcm_filename,label"]
    for uid, shown in (("1.1", SHOWN), ("1.2", [])):
        write_scan(root / uid / f"{uid}.1", f"{uid}.1", uid, COUNT, name="s")
        lines += [f"p,{uid},{uid}.1,{uid}.1.1.{k},{k}.dcm,{int(k in shown)}" for k in range(COUNT)]
    (root / "train.csv").write_text("\n".join(lines) + "\n")
    present, marked, missing = through(root, "turku")
    assert present == {"1.1": 1, "1.2": 0}
    assert marked == {"1.1": SHOWN, "1.2": []}
    assert missing == []


def test_other_units_and_screenshots_are_listed_with_their_reason(tmp_path):
    root = tmp_path / "mixed"
    save_nifti(root / "good.nii.gz", volume(), affine())
    save_nifti(root / "offset.nii.gz", volume() + 1024, affine())
    save_nifti(root / "windowed.nii.gz", (volume().clip(-150, 250) + 150) / 400 * 255, affine())
    for number in range(COUNT):
        colours = np.zeros((SIDE, SIDE, 3), np.uint8)
        write_dicom(root / "screens" / f"{number}.dcm", colours, StudyInstanceUID="1.7",
                    SeriesInstanceUID="1.7.1",
                    SOPInstanceUID=f"1.7.1.{number}", SamplesPerPixel=3, PlanarConfiguration=0,
                    PhotometricInterpretation="RGB", BitsAllocated=8, BitsStored=8, HighBit=7,
                    PixelRepresentation=0)  # fmt: skip
    names = ("good", "offset", "windowed", "1.7", "not there")
    lines = [f"{name},{int(name == 'good')}" for name in names]
    (root / "labels.csv").write_text("\n".join(["study,PE", *lines]))
    description = load_description(root, None)
    cohort = read_cohort(root, description)
    with unpacked(root, list_files(root)) as packed:
        rows, series, left_out = find_series(packed.folder, packed.files, refused=packed.refused)
    matched = match_labels(cohort, rows, series, left_out, description, 0.3)
    assert len(matched.labels) == 1
    reasons = matched.missing.set_index("labels")["reason"]
    assert "no Hounsfield units: values of 24 to " in reasons["labels.csv, line 3"]
    assert "no Hounsfield units: values of 0 to 255" in reasons["labels.csv, line 4"]
    assert reasons["labels.csv, line 5"].startswith("no scan of it was taken: ")
    assert reasons["labels.csv, line 5"].endswith(": RGB")
    assert reasons["labels.csv, line 6"] == "no scan of it is in the folder"
