import re

import pytest
from builders import DATA, labels_of

from clotline.data.plan import describe_shards, make_plan
from clotline.job.disk import SLICE_BYTES
from clotline.workflow.config import load_config
from clotline.workflow.estimate import (
    DECODED,
    GPU_RATES,
    RESNEXT50_RATES,
    SMALL_JOB,
    Data,
    PlannedJob,
    estimate,
)

STUDIES = {f"s{number}": [0, 1, 1, 0] for number in range(40)}


@pytest.fixture
def data():
    labels = labels_of(STUDIES)
    shards = describe_shards(labels, make_plan(labels, DATA | {"slices_per_shard": 100}))
    return Data(load_config({}), {shard["name"]: shard for shard in shards})


def job(rule, gpus=0, threads=1, **wildcards):
    return PlannedJob(rule, wildcards, threads, gpus, mem_mb=8000, runtime=30)


def lines(text):
    return {line.split()[0]: line.split()[1:] for line in text.splitlines()}


def many(slices, valid_positives=0):
    """Shards of this many slices, for costs that do not round to nothing."""
    counts = {"train": slices, "valid": 0, "test": 0}
    positives = {"train": slices // 10, "valid": valid_positives, "test": 0}
    shard = {"slices": slices, "split_slices": counts, "split_positives": positives}
    return Data(load_config({}), {"000": shard})


def test_slices_and_positives_are_counted_by_split(data):
    assert data.slices.total() == 160
    assert data.positives.total() == 80
    assert set(data.slices) == {"train", "valid", "test"}


def test_a_shard_takes_its_slices_hours_on_all_its_cores():
    found = lines(estimate([job("shard", threads=8, shard="000")], many(10**6)))["shard"]
    cpu = (10**6 / DECODED + 8 * SMALL_JOB) / 3600
    assert found == [
        "1",
        "0",
        "8",
        "8",
        "0.5",
        "0.0",
        f"{cpu:.1f}",
        f"{10**6 * SLICE_BYTES / 1e9:.1f}",
    ]


def test_training_takes_its_epochs_of_balanced_slices_on_the_gpu():
    training = job("train_cnn", gpus=1, threads=4, backbone="efficientnet_b0")
    *_, gpu, cpu, _ = lines(estimate([training], many(10**6)))["train_cnn"]
    hours = (40 * 2 * 10**5 / GPU_RATES["efficientnet-b0"][0] + SMALL_JOB) / 3600
    assert (gpu, cpu) == (f"{hours:.1f}", f"{4 * hours:.1f}")


def test_training_takes_as_many_negatives_as_positives_of_both_splits():
    training = job("train_cnn", gpus=1, backbone="efficientnet_b0")
    *_, gpu, _, _ = lines(estimate([training], many(10**6, valid_positives=50_000)))["train_cnn"]
    # 40 epochs of 2 × 100,000 slices at 655/s and 2 × 50,000 at 2,743/s: 3.8 h.
    assert gpu == "3.8"


def test_merged_features_lie_on_the_disk_twice_for_a_while():
    for backbone, size in (("efficientnet_b0", "5.1"), ("resnext50", "8.2")):
        found = lines(estimate([job("merge_features", backbone=backbone)], many(10**6)))
        # 10⁶ slices of 1,280 or 2,048 numbers of two bytes, twice.
        assert found["merge_features"][-1] == size


def test_the_last_line_is_the_sum_of_all_rules(data):
    jobs = [job("shard", threads=8, shard="000"), job("shard", threads=8, shard="001")]
    jobs += [job("extract_features", 1, 8, backbone="resnext50", shard="000")] * 900
    jobs += [job("train_lstm", lstm="combined-study"), job("report")] * 200
    text = estimate(jobs, data)
    numbers = [
        [float(number) for number in re.findall(r"[\d,.]+", line.replace(",", ""))]
        for line in text.splitlines()
        if re.match(r"(shard|extract_features|train_lstm|report|all of them) ", line)
    ]
    *rules, total = ([n[0], *n[-3:]] for n in numbers)
    assert total[0] == len(jobs) == sum(rule[0] for rule in rules)
    for column in (1, 2, 3):
        assert total[column] == pytest.approx(sum(rule[column] for rule in rules), abs=0.2)
    assert total[1] > 4


def test_what_a_rule_does_not_ask_for_is_a_dash(data):
    planned = PlannedJob("report", {}, 1, 0, mem_mb=0, runtime=0)
    assert lines(estimate([planned], data))["report"][3:5] == ["-", "-"]


def test_the_estimate_says_what_it_rests_on(data):
    text = estimate([job("report")], data)
    assert "V100" in text and "measured on real" in text
    assert f"{DECODED} slices/s" in text
    assert "factor of two" in text


def test_new_studies_take_their_files_time_and_place(tmp_path):
    for name in range(36):
        (tmp_path / f"{name}").touch()
    new = Data(load_config({"predict": str(tmp_path)}), {})
    new.new_files *= 10_000
    found = lines(estimate([job("decode_series"), job("apply_models", gpus=1)], new))
    cpu, disk = (360_000 / DECODED + SMALL_JOB) / 3600, 360_000 * SLICE_BYTES / 1e9
    assert found["decode_series"][-2:] == [f"{cpu:.1f}", f"{disk:.1f}"]
    rates = GPU_RATES["efficientnet-b0"][1], RESNEXT50_RATES[1]
    gpu = (sum(360_000 / rate for rate in rates) + SMALL_JOB) / 3600
    assert found["apply_models"][-3] == f"{gpu:.1f}"
