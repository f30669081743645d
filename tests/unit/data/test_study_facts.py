import numpy as np
import pandas as pd
import pytest
from builders import write_slices
from chests import chest_picture

from clotline.data.fact_names import CATEGORIES, COVERAGE, NOISE, QUANTITIES, SPACING
from clotline.data.shards import BLOOD, KERNEL, ORIENTATION, PIXEL, POSITION, THICKNESS, read_rows
from clotline.data.study_facts import facts_of_shard, study_facts
from clotline.errors import ClotlineError
from clotline.labels import STUDY_UID


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Two studies in shards of their own, of 10 and of 30 HU of noise."""
    folder, tables, shards = tmp_path_factory.mktemp("shards"), [], {}
    for name, noise in (("000", 10), ("001", 30)):
        shards[name] = folder / f"shard-{name}.h5"
        pixels = np.stack([chest_picture(noise=noise)] * 14)
        # Those not looked at: the first, the last and some between are.
        write_slices(shards[name], pixels, [0] * 14)
        table = read_rows(shards[name]).assign(shard=name, row=range(14))
        tables.append(table.assign(**{STUDY_UID: f"1.{name}", PIXEL: 360 / 256}))
    return pd.concat(tables, ignore_index=True), shards


def test_a_study_has_one_row_of_facts(stored):
    slices, shards = stored
    slices = slices.assign(**{POSITION: [2.5 * k for k in range(14)] * 2})
    facts = study_facts(slices, shards, 2)
    assert list(facts) == [STUDY_UID, *QUANTITIES, *CATEGORIES]
    assert facts[STUDY_UID].tolist() == ["1.000", "1.001"]
    assert facts[SPACING].tolist() == [2.5, 2.5]
    assert facts[COVERAGE].tolist() == [35, 35]
    assert facts[NOISE].tolist() == pytest.approx([10, 30], rel=0.15)
    assert facts[[THICKNESS, BLOOD]].to_numpy().tolist() == [[1, 300]] * 2
    assert facts[[ORIENTATION, KERNEL]].to_numpy().tolist() == [["LP", "B30f"]] * 2


def test_a_gap_and_the_order_of_the_rows_change_no_spacing(stored):
    slices, shards = stored
    slices = slices[slices["shard"] == "000"].assign(**{POSITION: [*range(13), 40.0]})
    facts = study_facts(slices.iloc[::-1], shards)
    assert facts[SPACING].tolist() == [1]
    assert facts[COVERAGE].tolist() == [41]


def test_what_is_not_known_is_not_made_up(stored):
    slices, shards = stored
    unknown = dict.fromkeys((POSITION, THICKNESS, BLOOD, PIXEL), np.nan)
    facts = study_facts(slices.assign(**unknown, **{KERNEL: ""}), shards)
    assert facts[[SPACING, COVERAGE, THICKNESS, BLOOD]].isna().all(axis=None)
    assert facts[NOISE].notna().all()
    assert facts[KERNEL].tolist() == ["", ""]


def test_several_kernels_are_told_together(stored):
    slices, shards = stored
    facts = study_facts(slices.assign(**{KERNEL: ["B70f", "B30f"] * 14}), shards)
    assert facts[KERNEL].tolist() == ["B30f, B70f"] * 2


def test_no_studies_have_no_facts(stored):
    slices, shards = stored
    assert study_facts(slices[:0], shards).empty


def test_a_shard_that_stands_alone_gives_the_same(stored):
    slices, shards = stored
    own = slices[slices["shard"] == "001"].assign(**{STUDY_UID: "s", PIXEL: 1.25})
    assert facts_of_shard(shards["001"]).equals(study_facts(own, shards))


def test_a_damaged_slice_is_told(stored):
    slices, shards = stored
    with pytest.raises(ClotlineError, match="does not fit its checksum"):
        study_facts(slices.assign(checksum=np.uint64(1)), shards)
