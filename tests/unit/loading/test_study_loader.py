import pickle

import numpy as np
import pytest
import torch
from builders import DATA, labels_of, lstm_section

from clotline.data.features_file import StoredFeatures, create_features, write_features
from clotline.data.plan import make_plan
from clotline.data.slice_table import locate_studies
from clotline.errors import ClotlineError
from clotline.job.speed import ROWS_TOGETHER
from clotline.labels import IMAGE_LABEL, STUDY_LABELS, STUDY_UID, UIDS
from clotline.loading.study_loader import FeatureSequences, converted
from clotline.models.devices import make_fabric
from clotline.models.lstm import build_lstm
from clotline.models.prediction import image_level_table, predict_studies, study_level_table

STUDIES = {"aa": [0, 1, 1, 0], "bb": [0] * 6, "cc": [1], "dd": [0, 1, 0]}
SPLITS = ("train", "valid", "test", "train")
ROWS = 14
WIDTHS = {"efficientnet": 3, "resnext": 2}


@pytest.fixture(scope="module")
def slices():
    table = labels_of(STUDIES)[[*UIDS, IMAGE_LABEL]]
    table["position_mm"] = np.arange(ROWS) * 2.5
    table["split"] = table[STUDY_UID].map(dict(zip(STUDIES, SPLITS, strict=True)))
    return table


@pytest.fixture(scope="module")
def plan():
    return make_plan(labels_of(STUDIES), DATA).assign(split=SPLITS)


@pytest.fixture(scope="module")
def studies(slices, plan):
    return locate_studies(slices, plan)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Features that say in which file, row and column they stand."""
    folder, paths = tmp_path_factory.mktemp("features"), []
    for number, (name, width) in enumerate(WIDTHS.items()):
        paths.append(str(folder / f"{name}.h5"))
        with create_features(paths[-1], ROWS, width, name, "abc") as file:
            rows, columns = np.indices((ROWS, width))
            values = rows + columns / 8 + number * 100
            write_features(file, 0, values.astype(np.float16))
    return paths


def sequences(slices, studies, files, level):
    return FeatureSequences(studies, files, level, slices[IMAGE_LABEL].to_numpy())


def test_studies_are_found_with_their_rows_split_and_labels(studies):
    assert studies[STUDY_UID].tolist() == ["aa", "bb", "cc", "dd"]
    assert studies["first"].tolist() == [0, 4, 10, 11]
    assert studies["count"].tolist() == [4, 6, 1, 3]
    assert tuple(studies["split"]) == SPLITS
    assert studies["negative_exam_for_pe"].tolist() == [0, 1, 0, 0]


def test_the_order_is_that_of_the_slices_and_studies_without_one_are_left_out(slices, plan):
    part = slices[slices[STUDY_UID] != "cc"]
    found = locate_studies(part, plan.iloc[::-1])
    assert found[STUDY_UID].tolist() == ["aa", "bb", "dd"]
    assert found["first"].tolist() == [0, 4, 10]
    assert found["split"].tolist() == ["train", "valid", "train"]


def test_a_study_in_two_places_is_an_error(slices, plan):
    with pytest.raises(ClotlineError, match="not grouped by study: rebuild results/data"):
        locate_studies(slices.iloc[[0, 4, 1]], plan)


def test_a_study_is_its_slices_features_in_the_order_of_files_and_its_targets(
    slices, studies, files
):
    joined = sequences(slices, studies, files, "image")
    assert joined.width == 5
    (features, counts), targets = joined.read([3])
    assert (features.dtype, targets.dtype) == (torch.float16, torch.float32)
    assert counts == [3]
    rows = torch.arange(11.0, 14.0)[:, None]
    expected = torch.cat([rows + torch.arange(3) / 8, rows + torch.arange(2) / 8 + 100], 1)
    assert torch.equal(features.float(), expected)
    assert targets.tolist() == STUDIES["dd"]
    (turned, _), _ = sequences(slices, studies, files[::-1], "image").read([3])
    assert torch.equal(turned.float(), expected[:, [3, 4, 0, 1, 2]])
    _, targets = sequences(slices, studies, files, "study").read([3])
    assert targets.tolist() == [studies.loc[3, list(STUDY_LABELS)].tolist()]


def test_a_part_of_the_studies_reads_the_same_rows(slices, studies, files):
    whole = sequences(slices, studies, files, "study")
    part = sequences(slices, studies[studies["split"] == "train"], files, "study")
    assert len(part) == 2
    (mine, counts), targets = part.read([0, 1])
    (theirs, their_counts), their_targets = whole.read([0, 3])
    assert torch.equal(mine, theirs)
    assert counts == their_counts == [4, 3]
    assert torch.equal(targets, their_targets)


def test_a_features_file_of_another_number_of_rows_is_refused(slices, studies, files):
    labels = slices[IMAGE_LABEL].to_numpy()[:-1]
    with pytest.raises(ClotlineError) as caught:
        FeatureSequences(studies, files, "image", labels)
    assert f"{files[0]} cannot be used: it has 14 rows and slices.parquet 13" in str(caught.value)


def test_open_files_are_left_behind_when_a_data_set_is_sent_to_another_process(
    slices, studies, files
):
    whole = sequences(slices, studies, files, "image")
    (expected, _), _ = whole.read([1])
    assert torch.equal(pickle.loads(pickle.dumps(whole)).read([1])[0].features, expected)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [2, 0, 3, 1]])
def test_image_level_targets_stand_in_the_order_of_the_slices(
    slices, studies, files, fabric, order
):
    """The first feature is the slice's row: it says which slice it is."""
    whole = sequences(slices, studies, files, "image")
    labels = slices[IMAGE_LABEL].to_numpy()
    ((batch, targets),) = whole.batches(4, fabric, np.array(order))
    rows = batch.features[:, 0].int().numpy()
    assert sorted(rows) == list(range(ROWS))
    assert batch.counts == [[4, 6, 1, 3][place] for place in order]
    assert rows[0] == [0, 4, 10, 11][order[0]]
    assert targets.tolist() == labels[rows].tolist()


def test_study_level_targets_stand_in_the_order_of_the_studies(slices, studies, files, fabric):
    whole = sequences(slices, studies, files, "study")
    ((batch, targets),) = whole.batches(4, fabric)
    assert batch.counts == [4, 6, 1, 3]
    assert batch.features[:, 0].tolist() == list(range(ROWS))
    assert targets.tolist() == studies[list(STUDY_LABELS)].to_numpy().tolist()


def test_batches_follow_the_order_asked_for(slices, studies, files, fabric):
    whole = sequences(slices, studies, files, "study")
    batches = list(whole.batches(3, fabric, order=np.array([2, 0, 3, 1])))
    assert [batch.counts for batch, _ in batches] == [[1, 4, 3], [6]]
    assert [batch.features[0, 0] for batch, _ in batches] == [10, 4]


@pytest.mark.parametrize("order", [[], [2], [2, 0, 3, 1]])
def test_the_disk_is_asked_once_for_each_study_a_batch_before_it_is_read(
    slices, studies, files, fabric, monkeypatch, order
):
    done, read = [], StoredFeatures.read

    def note(what, rows):
        done.append((what, rows.start))

    monkeypatch.setattr(StoredFeatures, "fetch", lambda _, rows: note("fetch", rows))
    monkeypatch.setattr(
        StoredFeatures, "read", lambda file, rows: note("read", rows) or read(file, rows)
    )
    whole = sequences(slices, studies, files[:1], "study")
    assert len(list(whole.batches(1, fabric, order=np.array(order, int)))) == len(order)
    firsts = studies["first"].to_numpy()[order].tolist()
    assert sorted(done) == sorted((what, row) for what in ("fetch", "read") for row in firsts)
    for place, row in enumerate(firsts):
        before = done[: done.index(("read", row))]
        assert [("fetch", soon) in before for soon in firsts] == [
            other <= place + 1 for other in range(len(firsts))
        ]


@pytest.mark.parametrize(
    ("precision", "kind"), [("bf16-mixed", torch.bfloat16), ("32-true", torch.float16)]
)
def test_batches_have_the_type_that_lightning_gives_the_network(
    slices, studies, files, precision, kind
):
    fabric, seen = make_fabric(precision, gpus=0, threads=1), []
    network = fabric.setup_module(Looks(seen))
    for batch, _ in sequences(slices, studies, files, "study").batches(4, fabric):
        seen.append(batch.features)
        network(batch)
    given, arrived = seen
    assert given.dtype == arrived.dtype == kind
    assert given.data_ptr() == arrived.data_ptr(), "Lightning converted it again"


class Looks(torch.nn.Linear):
    def __init__(self, seen):
        super().__init__(1, 1)
        self.seen = seen

    def forward(self, batch):
        self.seen.append(batch.features)
        return batch.features


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32])
def test_converted_features_have_the_bits_of_torchs_own_conversion(kind):
    """All numbers of float16 in more rows than are taken at once; a NaN stays one."""
    every = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.float16)
    features = every[:-64].reshape(-1, 64)
    assert len(features) > 3 * ROWS_TOGETHER
    assert len(features) % ROWS_TOGETHER
    mine, expected = converted(features, kind), features.to(kind)
    assert mine.dtype == kind
    assert torch.equal(mine.isnan(), expected.isnan())
    numbers = ~expected.isnan()
    assert torch.equal(mine[numbers].view(torch.uint8), expected[numbers].view(torch.uint8))


@pytest.mark.parametrize("level", ["image", "study", "joint"])
def test_predictions_are_probabilities_in_the_order_of_studies_whatever_lies_beside(
    slices, studies, files, fabric, level
):
    torch.manual_seed(0)
    model = build_lstm(5, lstm_section(hidden_size=4), level)
    whole = predict_studies(model, sequences(slices, studies, files, level), fabric)
    shapes = [{"image": (n,), "study": (9,), "joint": (n, 10)}[level] for n in studies["count"]]
    assert [p.shape for p in whole] == shapes
    assert all(((p > 0) & (p < 1)).all() for p in whole)
    for place in (2, 1):
        part = studies.iloc[[place]]
        alone = predict_studies(model, sequences(slices, part, files, level), fabric)
        assert np.array_equal(alone[0], whole[place])


def test_study_level_predictions_stand_beside_their_truth(studies):
    part = studies.iloc[[1, 3]]
    probabilities = [np.arange(9) / 10, np.arange(9) / 10 + 0.05]
    table = study_level_table(part, probabilities)
    assert table[STUDY_UID].tolist() == ["bb", "dd"]
    assert table["split"].tolist() == ["valid", "train"]
    assert table["leftsided_pe"].tolist() == pytest.approx([0.3, 0.35])
    assert table["indeterminate"].tolist() == pytest.approx([0.8, 0.85])
    assert table["negative_exam_for_pe_true"].tolist() == [1, 0]
    assert table["central_pe_true"].tolist() == [0, 1]
    assert len(table.columns) == 2 + 2 * 9


def test_image_level_predictions_stand_beside_their_slices(slices, studies):
    part = studies.iloc[[1, 3]]
    table = image_level_table(slices, part, [np.arange(6) / 10, np.array([0.7, 0.8, 0.9])])
    expected = slices[slices[STUDY_UID].isin(["bb", "dd"])].reset_index(drop=True)
    assert table[[*UIDS, "split", "position_mm"]].equals(expected[[*UIDS, "split", "position_mm"]])
    assert table[IMAGE_LABEL].tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.8, 0.9])
    assert table[f"{IMAGE_LABEL}_true"].tolist() == [*STUDIES["bb"], *STUDIES["dd"]]


def test_moments_are_those_of_all_slices_of_the_studies(slices, studies, files):
    chosen = sequences(slices, studies.iloc[[0, 3]], files, "study")
    rows = np.r_[0:4, 11:14]
    columns = np.r_[np.arange(3) / 8, 100 + np.arange(2) / 8]
    values = rows[:, None] + columns
    mean, std = chosen.moments()
    assert mean.numpy() == pytest.approx(values.mean(0))
    assert std.numpy() == pytest.approx(values.std(0), rel=1e-5)


def test_all_targets_stand_in_the_order_of_the_studies(slices, studies, files):
    of_slices = sequences(slices, studies.iloc[[3, 0]], files, "image").targets()
    assert of_slices.tolist() == [0, 1, 0, 0, 1, 1, 0]
    of_studies = sequences(slices, studies.iloc[[3, 0]], files, "study").targets()
    assert np.array_equal(of_studies, studies.iloc[[3, 0]][list(STUDY_LABELS)])


def test_a_joint_networks_targets_are_its_studys_labels_beside_each_slices_own(
    slices, studies, files, fabric
):
    data = sequences(slices, studies.iloc[[0, 3]], files, "joint")
    both = data.targets()
    assert both.shape == (7, 10)
    assert both[:, -1].tolist() == [0, 1, 1, 0, 0, 1, 0]
    labels = studies[list(STUDY_LABELS)].to_numpy()
    assert (both[:4, :-1] == labels[0]).all() and (both[4:, :-1] == labels[3]).all()
    ((_, batch),) = data.batches(2, fabric, np.array([1, 0]))
    assert np.array_equal(batch.numpy(), both[[4, 5, 6, 0, 1, 2, 3]])
