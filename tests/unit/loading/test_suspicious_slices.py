"""Which slices of a study are the most suspicious, and how they come beside its features."""

import numpy as np
import pandas as pd
import pytest
import torch
from builders import cnn_section, write_noise

from clotline.data.features_file import create_features, write_features
from clotline.data.lone_shard import stored_slices
from clotline.labels import IMAGE_LABEL, STUDY_LABELS, STUDY_UID
from clotline.loading.preprocessing import View
from clotline.loading.study_loader import FeatureSequences
from clotline.loading.suspicious_slices import (
    SuspiciousSlices,
    all_slices,
    most_suspicious,
    stored_slices_of,
)
from clotline.models.devices import make_fabric

COUNTS = [5, 3, 4]
FIRST = [0, 5, 8]


@pytest.fixture
def studies():
    table = pd.DataFrame({STUDY_UID: list("abc"), "first": FIRST, "count": COUNTS})
    return table.assign(**dict.fromkeys(STUDY_LABELS, 0))


@pytest.fixture
def features(tmp_path):
    """A file whose first column is a slice's logit under the head (1, 0)."""
    logits = [3, 9, 1, 9, 9, 5, 7, 6, 0, 0, 0, 0]
    path = tmp_path / "features.h5"
    with create_features(path, 12, 2, "resnet", "0" * 64) as file:
        write_features(file, 0, np.column_stack([logits, np.arange(12)]).astype(np.float16))
    return path


def chosen(studies, features, most):
    found = most_suspicious(studies, features, np.array([1.0, 0.0]), most)
    return [numbers.tolist() for numbers in found]


def test_the_highest_logits_are_chosen_and_of_equal_ones_those_nearer_to_the_feet(
    studies, features
):
    assert chosen(studies, features, 2) == [[1, 3], [1, 2], [0, 1]]
    assert chosen(studies, features, 1) == [[1], [1], [0]]


def test_of_a_shorter_study_all_slices_are_taken(studies, features):
    assert chosen(studies, features, 4) == [[0, 1, 3, 4], [0, 1, 2], [0, 1, 2, 3]]
    everything = [list(range(count)) for count in COUNTS]
    assert chosen(studies, features, 99) == everything
    assert [numbers.tolist() for numbers in all_slices(studies)] == everything


@pytest.fixture
def data_set(tmp_path, studies, features):
    """Makes the studies with the chosen slices of each, and the pixels of all slices."""
    pixels = write_noise(tmp_path / "shard-000.h5", 12)
    slices = stored_slices(tmp_path / "shard-000.h5").assign(shard="000", row=range(12))
    labels = np.arange(12) % 2
    slices[IMAGE_LABEL] = labels

    def make(numbers, **keys):
        section = cnn_section(**{"crop": 256, "input_size": 64} | keys)
        view = View.of(section)
        table = stored_slices_of(slices, studies, numbers, tmp_path, view)
        sequences = FeatureSequences(studies, [features], "image", labels)
        return SuspiciousSlices(sequences, table, view, numbers)

    return make, pixels


def test_a_batch_has_all_features_and_the_pixels_of_the_chosen_rows(data_set):
    make, pixels = data_set
    numbers = [np.array([1, 3]), np.array([2]), np.array([0, 1])]
    studies, targets = make(numbers).read([2, 0])
    assert studies.counts == [4, 5]
    assert studies.features[:, 1].tolist() == [8, 9, 10, 11, 0, 1, 2, 3, 4]
    assert targets.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert studies.rows.tolist() == [0, 1, 5, 7]
    # Row by row, what the second column of the features says of the slice's place.
    places = studies.features[studies.rows, 1].int().tolist()
    assert torch.equal(studies.slices[:, 0], torch.from_numpy(pixels[places]))


def test_neighbours_come_with_a_chosen_slice(data_set):
    make, pixels = data_set
    studies, _ = make([np.array([1]), np.array([1]), np.array([2])], planes=3).read([1])
    # All 12 slices of this shard are of one scan.
    assert torch.equal(studies.slices[0], torch.from_numpy(pixels[5:8]))


def test_augmentation_changes_pixels_by_its_seed_and_nothing_else(data_set):
    make, _ = data_set
    plain = make([np.array([1, 3]), np.array([2]), np.array([0, 1])], crop=128, vertical_flip=True)
    first, again, other = (
        plain.augmented(seed).read([0, 1])[0] for seed in [(1, 0), (1, 0), (2, 0)]
    )
    assert torch.equal(first.slices, again.slices)
    assert not torch.equal(first.slices, other.slices)
    assert torch.equal(first.rows, other.rows)
    assert torch.equal(first.features, plain.read([0, 1])[0].features)


def test_batches_come_in_the_order_that_is_asked_for(data_set):
    make, _ = data_set
    loader = make(all_slices(pd.DataFrame({"count": COUNTS}))).batches(
        2, make_fabric("32-true", 0, 1), np.array([2, 0, 1])
    )
    batches = list(loader)
    assert [studies.counts for studies, _ in batches] == [[4, 5], [3]]
    assert batches[0][0].features[:, 1].tolist() == [8, 9, 10, 11, 0, 1, 2, 3, 4]
    assert batches[0][0].slices.dtype == torch.int16
