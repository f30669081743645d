import re
from pathlib import Path

import pytest
import yaml
from builders import DATA, labels_of, lstm_section

from clotline.data.plan import describe_shards, make_plan
from clotline.job.disk import SLICE_BYTES
from clotline.models.lstm import build_lstm
from clotline.workflow.config import load_config
from clotline.workflow.estimate import (
    COSTS,
    DECODED,
    GPU_RATES,
    LSTM_WORK,
    RESNEXT50_RATES,
    SMALL_JOB,
    Data,
    PlannedJob,
    estimate,
    multiply_adds,
)

PROJECT = Path(__file__).parents[3]

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


def test_larger_slices_and_inputs_take_more_room_and_time():
    crops = {"crop": 448, "input_size": 448}
    config = {"data": {"size": 512}, "cnn": {"resnext50": crops, "efficientnet_b0": crops}}
    data = many(10**6)
    larger = Data(load_config(config), {})
    larger.shards, larger.slices, larger.positives = data.shards, data.slices, data.positives
    shard = job("shard", threads=8, shard="000")
    training = job("train_cnn", gpus=1, threads=4, backbone="efficientnet_b0")
    for planned, column in ((shard, -1), (training, -3)):
        usual, more = (
            float(lines(estimate([planned], d))[planned.rule][column].replace(",", ""))
            for d in (data, larger)
        )
        assert more == pytest.approx(4 * usual, rel=0.02)


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


@pytest.mark.parametrize(
    ("keys", "trained", "validated"),
    [
        ({"epoch_slices": 30_000, "positive_share": 0.25}, 30_000, 80_000),
        ({"positive_share": 0.25}, 400_000, 80_000),
        ({"study_slices": 30}, 5000 * 30, 200_000),
        ({"study_slices": 500}, 10**6, 200_000),
    ],
)
def test_training_takes_the_slices_that_its_epochs_have(keys, trained, validated):
    config = load_config({"cnn": {"efficientnet_b0": {"epochs": 3} | keys}})
    counts = {"train": 10**6, "valid": 200_000, "test": 0}
    positives = {"train": 100_000, "valid": 20_000, "test": 0}
    shard = {"slices": 1_200_000, "studies": 6000}
    shard |= {"split_slices": counts, "split_positives": positives}
    planned = job("train_cnn", gpus=1, backbone="efficientnet_b0")
    seconds, _ = COSTS["train_cnn"](planned, Data(config, {"000": shard}))
    training, inference = GPU_RATES["efficientnet-b0"]
    assert seconds == pytest.approx(3 * (trained / training + validated / inference))


def test_finetuning_takes_some_slices_of_train_studies_and_all_of_valid_ones():
    config = load_config({"finetune": {"efficientnet_b0-study": {"slices": 32, "epochs": 3}}})
    counts = {"train": 10**6, "valid": 200_000, "test": 0}
    shard = {"slices": 1_200_000, "studies": 6000, "split_slices": counts, "split_positives": {}}
    finetuned = {"lstm": "efficientnet_b0-finetuned-study"}
    seconds, _ = COSTS["finetune"](job("finetune", **finetuned), Data(config, {"000": shard}))
    training, inference = GPU_RATES["efficientnet-b0"]
    assert seconds == pytest.approx(3 * (5000 * 32 / training + 200_000 / inference))
    few = Data(config, {"000": shard | {"studies": 10**6}})
    seconds, _ = COSTS["finetune"](job("finetune", **finetuned), few)
    assert seconds == pytest.approx(3 * (10**6 / training + 200_000 / inference))
    # What follows takes as long as for the network that it was.
    of_origin = COSTS["predict_lstm"](job("predict_lstm", lstm="efficientnet_b0-study"), few)
    assert COSTS["predict_finetuned"](job("predict_finetuned", **finetuned), few) == of_origin


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


def test_a_video_network_computes_on_each_of_its_planes():
    video = {"library": "torchvision-video", "architecture": "r3d_18", "planes": 9}
    config = load_config({"cnn": {"video": video}})
    shard = {"slices": 1000, "studies": 4, "split_slices": {}, "split_positives": {}}
    found = Data(config, {"000": shard})
    seconds = [
        COSTS["extract_features"](job("extract_features", backbone=name, shard="000"), found)[0]
        for name in ("video", "resnext50")
    ]
    assert seconds[0] == pytest.approx(9 * seconds[1])


def test_the_estimate_says_what_it_rests_on(data):
    text = estimate([job("report")], data)
    assert "V100" in text and "measured on real" in text
    assert f"{DECODED} slices/s" in text
    assert "factor of two" in text


@pytest.mark.parametrize(
    ("key", "files", "decode", "apply"),
    [
        ("predict", "new_files", "decode_series", "apply_models"),
        ("validate", "cohort_files", "decode_cohort", "apply_models_to_cohort"),
    ],
)
def test_new_studies_take_their_files_time_and_place(tmp_path, key, files, decode, apply):
    for name in range(36):
        (tmp_path / f"{name}").touch()
    new = Data(load_config({key: str(tmp_path)}), {})
    setattr(new, files, getattr(new, files) * 10_000)
    found = lines(estimate([job(decode), job(apply, gpus=1)], new))
    cpu, disk = (360_000 / DECODED + SMALL_JOB) / 3600, 360_000 * SLICE_BYTES / 1e9
    assert found[decode][-2:] == [f"{cpu:.1f}", f"{disk:.1f}"]
    rates = GPU_RATES["efficientnet-b0"][1], RESNEXT50_RATES[1]
    gpu = (sum(360_000 / rate for rate in rates) + SMALL_JOB) / 3600
    assert found[apply][-3] == f"{gpu:.1f}"


def test_a_larger_network_of_stage_2_takes_as_much_longer_as_it_computes_more():
    section = lstm_section()
    assert multiply_adds(section, 3328) == LSTM_WORK
    # Weights but the heads', for each of which a slice has a multiply-add.
    form = {"cell": "gru", "bidirectional": True, "layers": 2, "neighbour_differences": True}
    section = lstm_section(hidden_size=16, projection=8, **form)
    network = build_lstm(100, section, "image")
    weights = [
        p for name, p in network.named_parameters() if "weight" in name and "linear" not in name
    ]
    assert multiply_adds(section, 100) == sum(p.numel() for p in weights)


def test_the_winners_recipe_takes_what_its_file_says():
    text = Path(PROJECT / "config/recipes/winner.yaml").read_text(encoding="utf-8")
    # About as many slices as RSNA's: a tenth of the training split's positive.
    splits = {"train": 1_298_000, "valid": 260_000, "test": 233_000}
    positives = {"train": 70_000, "valid": 14_000, "test": 12_500}
    whole = {
        "slices": sum(splits.values()), "split_slices": splits, "split_positives": positives,
    }  # fmt: skip
    data = Data(load_config(yaml.safe_load(text)), {"000": whole})
    winner = {"backbone": "winner"}

    def hours(rule, **wildcards):
        return COSTS[rule](job(rule, **wildcards), data)[0] / 3600

    parts = [
        hours("train_cnn", **winner),
        hours("extract_features", shard="000", **winner),
        hours("activation", **winner),
        hours("train_cnn", backbone="resnext50"),
    ]
    said = re.search(
        r"about ([\d.]+) GPU hour.*?training ([\d.]+), features ([\d.]+), maps ([\d.]+)\).*?"
        r"takes ([\d.]+);.*?about ([\d.]+) CPU hours each",
        text.replace("\n# ", " "),
    )
    total, *of_parts, networks = map(float, said.groups())
    assert of_parts == pytest.approx(parts, abs=0.06)
    assert total == pytest.approx(sum(parts[:3]), abs=0.2)
    for name in ("winner-image", "winner-study"):
        assert networks == pytest.approx(hours("train_lstm", lstm=name), rel=0.15)
