"""Bad input ends in one clear message: what is wrong, where, and what to do."""

import pandas as pd
import pytest
import yaml
from builders import dicom_path, write_cohort

from clotline.labels import COLUMNS, IMAGE_LABEL


def labels(studies=12, slices=4):
    rows = []
    for study in range(studies):
        for number in range(slices):
            row = dict.fromkeys(COLUMNS, 0)
            row |= dict.fromkeys(COLUMNS[:3], f"{study:04x}{number:08x}")
            row["StudyInstanceUID"] = f"{study:012x}"
            row["negative_exam_for_pe"] = study % 2
            row[IMAGE_LABEL] = int(study % 2 == 0 and number == 1)
            rows.append(row)
    return pd.DataFrame(rows)


def configure(run, table=None, **config):
    (run.folder / "dicom").mkdir(exist_ok=True)
    if table is not None:
        table.to_csv(run.folder / "labels.csv", index=False)
    data = {"labels": "labels.csv", "dicom": "dicom"} | config.pop("data", {})
    text = yaml.safe_dump({"data": data} | config)
    (run.folder / "config/config.yaml").write_text(text)


def refusal(run, *arguments):
    """What snakemake says when it refuses before any job."""
    done = run.snakemake("-n", *arguments, "all", check=False)
    text = done.stdout + done.stderr
    assert done.returncode != 0
    assert "Traceback" not in text
    assert not (run.folder / "results").exists()
    return text


def test_a_missing_labels_file_is_named(empty):
    configure(empty)
    text = refusal(empty)
    assert "data.labels is labels.csv, and no such file exists" in text
    assert "set data.labels in config/config.yaml" in text


def test_a_missing_dicom_folder_is_named(empty):
    configure(empty, labels(), data={"dicom": "elsewhere"})
    assert "data.dicom is elsewhere, and no such folder exists" in refusal(empty)


def test_a_missing_column_is_named(empty):
    configure(empty, labels().drop(columns="central_pe"))
    assert "labels.csv lacks the column central_pe" in refusal(empty)


def test_an_empty_labels_file_is_refused(empty):
    configure(empty, labels().iloc[:0])
    assert "labels.csv has no rows" in refusal(empty)


def test_a_split_without_positives_is_refused(empty):
    table = labels()
    table["part"] = ["train"] * 24 + ["valid"] * 12 + ["test"] * 12
    table.loc[24:35, IMAGE_LABEL] = 0
    configure(empty, table, data={"split": {"column": "part"}})
    text = refusal(empty)
    assert "the valid split has 3 studies with 0 positive and 12 negative slices" in text
    assert "Change data.split" in text


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"cnn": {"resnext50": {"epoch": 3}}}, "did you mean cnn.resnext50.epochs?"),
        ({"cnn": {"resnext50": {"lr": "1e-3"}}}, "YAML reads 1e-3 as text: write 0.001"),
        ({"cnn": {"resnext50": {"batch_size": 0}}}, "cnn.resnext50.batch_size is 0"),
        ({"lstm": {"combined-study": {"init": "no.pt"}}}, "lstm.combined-study.init is no.pt"),
        ({"sed": 1}, "sed is no known key; did you mean seed?"),
    ],
)
def test_a_wrong_key_or_value_is_named(empty, section, message):
    configure(empty, labels(), **section)
    assert message in refusal(empty)


def test_a_folder_without_the_files_says_why_nothing_was_stored(empty):
    table = labels(studies=40)
    configure(empty, table, cnn={"resnext50": {"init": "random"}})
    shard = "results/data/shards/shard-000.h5"
    done = empty.snakemake("--cores", "1", shard, check=False)
    assert done.returncode != 0
    assert f"none of the {len(table)} slices could be stored. no such file" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((empty.folder / "results").rglob("shard-*"))


def test_imagenet_weights_without_internet_say_which_file_to_put_where(empty):
    configure(empty, labels(studies=40))
    done = empty.snakemake("--cores", "1", "resources/weights/resnext50.pth", check=False)
    if done.returncode == 0:
        return  # this machine has internet
    place = empty.folder / "resources/weights/resnext50.pth"
    assert "resnext50_32x4d-7cdf4587.pth" in done.stderr
    assert f"put it at {place}" in done.stderr
    assert "Traceback" not in done.stderr


def test_too_many_rejects_stop_the_run_with_a_summary_and_what_is_allowed_passes(empty):
    table = labels(studies=40)
    write_cohort(table, empty.folder / "dicom")
    paths = [dicom_path(empty.folder / "dicom", row) for _, row in table.iterrows()]
    paths[0].unlink()
    paths[5].write_text("no DICOM")
    paths[9].write_bytes(paths[9].read_bytes()[:-1])
    configure(empty, table, data={"max_rejects": 0.01})
    target = "results/data/slices.parquet"
    done = empty.snakemake("--cores", "1", target, check=False)
    assert done.returncode != 0
    log = (empty.folder / "logs/slices.log").read_text()
    assert "3 of 160 slices were rejected, more than data.max_rejects (0.01) allows" in log
    for reason in ("no such file", "not a DICOM file", "PixelData has another length"):
        assert f"1  {reason}" in log
    assert not (empty.folder / target).exists()
    configure(empty, table, data={"max_rejects": 0.02})
    empty.build(target)
    listed = pd.read_csv(empty.folder / "results/data/shards/shard-000.rejects.csv")
    assert len(listed) == 3
    assert len(pd.read_parquet(empty.folder / target)) == 157
