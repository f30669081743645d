import base64
import json
import re
import zlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from builders import write_slices

from clotline.data.activation_file import Activation
from clotline.data.shards import ORIENTATION, read_rows
from clotline.data.tables import uid_triples
from clotline.labels import STUDY_LABELS, STUDY_UID
from clotline.reporting.viewer import (
    TARGETS,
    ShownStudy,
    notes_summary,
    pack_maps,
    pack_slice,
    render_page,
    shown_studies,
    study_data,
    write_viewer,
)


def about(uid="1.2.3", truth=True):
    target = {"probability": 0.7, "threshold": 0.5, "called": True, "truth": truth}
    return {
        "uid": uid,
        "targets": dict.fromkeys(TARGETS, target),
        "groups": ["positive"],
        "notes": [],
        "shift": [],
        "facts": [],
    }


def study(uid="1.2.3", slices=3, truth=(0, 1, 0)):
    pixels = np.arange(slices * 256 * 256).reshape(slices, 256, 256) % 4000 - 1000
    maps = Activation(np.ones((slices, 2, 2)), np.zeros(slices), [("a", "s", "1")] * slices, 224)
    return ShownStudy(
        about(uid, None if truth is None else True),
        pixels.astype(np.int16),
        np.arange(slices) * 1.25,
        ["LP"] * slices,
        {"combined-image": np.linspace(0, 1, slices)},
        {"resnext50": maps},
        np.full(slices, 1.375),
        None if truth is None else np.array(truth, bool),
    )


def write(folder, studies, **arguments):
    write_viewer(
        folder / "index.html",
        folder / "studies",
        studies,
        "combined-study",
        ["resnext50"],
        **arguments,
    )
    return (folder / "index.html").read_text()


def data_of(page):
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(match.group(1))


def unpack(text):
    planes = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    low, high = planes.reshape(2, -1).astype(np.int32)
    return (low | high << 8).astype(np.uint16).view(np.int16).reshape(256, 256)


def test_packed_slices_are_lossless():
    pixels = np.random.default_rng(0).integers(-32768, 32767, (256, 256), endpoint=True)
    pixels = pixels.astype(np.int16)
    assert (unpack(pack_slice(pixels)) == pixels).all()
    # As they come from a file: a view, and of the other byte order
    assert (unpack(pack_slice(pixels[::-1].astype(">i2"))) == pixels[::-1]).all()


def test_maps_are_scaled_by_the_studys_highest_value():
    maps = np.array([[[0, 1.0], [2, 4]], [[0, 0], [0, 0.5]]])
    packed = pack_maps(Activation(maps, np.zeros(2), [("a", "s", "1"), ("a", "s", "2")], 224))
    values = np.frombuffer(base64.b64decode(packed["values"]), np.uint8)
    assert values.tolist() == [0, 64, 128, 255, 0, 0, 0, 32]
    assert (packed["rows"], packed["columns"], packed["crop"]) == (2, 2, 224)
    faint = pack_maps(Activation(maps / 40, np.zeros(2), [("a", "s", "1"), ("a", "s", "2")], 224))
    assert faint["values"] == packed["values"]
    nothing = pack_maps(Activation(0 * maps, np.zeros(2), [("a", "s", "1"), ("a", "s", "2")], 224))
    assert not any(base64.b64decode(nothing["values"]))


def test_a_studys_script_calls_the_page_back(tmp_path):
    write(tmp_path, [study(), study("4.5.6", slices=2, truth=None)])
    text = (tmp_path / "studies/1.js").read_text()
    match = re.fullmatch(r"clotlineStudy\(1, (.*)\);\n", text)
    data = json.loads(match.group(1))
    assert data["uid"] == "4.5.6"
    assert data["truth"] is None
    assert len(data["pixels"]) == 2
    assert data["positions"] == [0, 1.25]
    assert data["pixelMm"] == [1.375, 1.375]
    assert data["orientations"] == ["LP", "LP"]
    assert data["curves"] == {"combined-image": [0, 1]}
    assert (unpack(data["pixels"][1]) == study().pixels[1]).all()


def test_a_study_without_positions_and_sides_is_written_without_them(tmp_path):
    nan = np.full(3, np.nan)
    unknown = {"positions": nan, "orientations": [""] * 3, "pixel_mm": nan}
    data = study_data(replace(study(), **unknown))
    assert data["positions"] == [None] * 3
    assert data["orientations"] == [""] * 3
    assert data["pixelMm"] == [None] * 3
    write(tmp_path, [replace(study(), **unknown)])


def test_a_shown_study_joins_what_shards_networks_and_labels_say_of_it(tmp_path):
    rng, shards, tables, pixels = np.random.default_rng(0), [], [], {}
    for uid, labels in (("1.2", [0, 1, 0]), ("3.4", [0, -1])):
        shards.append(str(tmp_path / f"shard-{uid}.h5"))
        pixels[uid] = rng.integers(-1000, 1000, (len(labels), 256, 256)).astype(np.int16)
        write_slices(shards[-1], pixels[uid], labels)
        # Not in the order of the rows: a shown study has that of the table.
        table = read_rows(shards[-1]).assign(shard=uid, row=range(len(labels)))
        tables.append(table.assign(**{STUDY_UID: uid}).iloc[::-1])
    slices = pd.concat(tables, ignore_index=True).assign(probability=[0.5, 0.25, 0.125, 0.75, 1])
    slices.loc[0, ORIENTATION] = ""
    # The networks' maps lie in another order, and there are more of them.
    uids = [("5.6", "s", "1"), *sorted(uid_triples(slices))]
    logits = np.array([9, 0, np.log(3), -np.log(3), np.log(4), -np.log(4)])
    maps = {"resnext50": Activation(np.arange(24.0).reshape(6, 2, 2), logits, uids, 224)}
    chosen = [about("3.4"), about("1.2")]
    notes = pd.DataFrame({STUDY_UID: ["1.2", "9"], "note": ["thick slices: 5 mm", "another's"]})
    second, first = shown_studies(chosen, slices, shards, maps, "combined-study", notes)
    assert [second.about["uid"], first.about["uid"]] == ["3.4", "1.2"]
    assert (second.about["notes"], first.about["notes"]) == ([], ["thick slices: 5 mm"])
    assert (second.about["groups"], first.about["groups"]) == (["positive"], ["positive", "noted"])
    assert dict(first.about["facts"])["Slices"] == "3 slices, 1 mm apart"
    assert first.pixel_mm.tolist() == [1.25] * 3
    for shown, uid in ((first, "1.2"), (second, "3.4")):
        assert (shown.pixels == pixels[uid][::-1]).all()
        assert list(shown.curves) == ["combined-image", "resnext50"]
    assert (first.orientations, second.orientations) == (["", "LP", "LP"], ["LP", "LP"])
    assert (first.positions.tolist(), second.positions.tolist()) == ([2, 1, 0], [1, 0])
    assert first.curves["combined-image"].tolist() == [0.5, 0.25, 0.125]
    assert first.curves["resnext50"].tolist() == pytest.approx([0.25, 0.75, 0.5])
    assert second.curves["combined-image"].tolist() == [0.75, 1]
    assert second.curves["resnext50"].tolist() == pytest.approx([0.2, 0.8])
    assert first.activations["resnext50"].maps[:, 0, 0].tolist() == [12, 8, 4]
    assert first.truth.tolist() == [False, True, False]
    assert second.truth is None


def test_truth_is_optional():
    assert study_data(study())["truth"] == [0, 1, 0]
    assert study_data(study(truth=None))["truth"] is None


def test_the_page_lists_the_studies_in_their_order(tmp_path):
    data = data_of(write(tmp_path, [study(), study("4.5.6", 2, (0, 0))], slice_threshold=0.25))
    assert [listed["uid"] for listed in data["studies"]] == ["1.2.3", "4.5.6"]
    assert [listed["slices"] for listed in data["studies"]] == [3, 2]
    assert [name for name, _ in data["targets"]] == ["pe_present", *STUDY_LABELS]
    assert data["sliceThreshold"] == 0.25
    assert data["folder"] == "studies"


def test_the_same_studies_give_the_same_bytes(tmp_path):
    pages = [write(tmp_path / name, [study()]) for name in "ab"]
    assert pages[0] == pages[1]
    scripts = [(tmp_path / name / "studies/0.js").read_bytes() for name in "ab"]
    assert scripts[0] == scripts[1]


def test_the_page_says_what_it_is_not_for_and_asks_nothing_of_the_network():
    page = render_page([], "studies", "combined-study", ["resnext50"], "of 3 test studies", None)
    assert "Research use, not for diagnosis" in page
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)
    assert "fetch(" not in page
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", page)


@pytest.mark.parametrize("text", ["</script><script>alert(1)</script>", "<b>\u2028'\"&", "é"])
def test_text_from_outside_is_escaped(tmp_path, text):
    page = write(tmp_path, [study(text)])
    assert data_of(page)["studies"][0]["uid"] == text
    script = (tmp_path / "studies/0.js").read_text()
    assert script.isascii()
    assert len(script.splitlines()) == 1
    named = render_page([], "studies", text, [text], text, None)
    if "<" in text:
        assert text not in page
        assert text not in named


def test_a_probability_that_is_no_number_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write(tmp_path, [ShownStudy(**vars(study()) | {"curves": {"a": np.array([np.nan])}})])


def test_the_last_line_of_a_prediction_counts_what_is_doubtful():
    notes = pd.DataFrame(
        {
            STUDY_UID: ["1", "2", "2"],
            "note": [
                "thick slices: 5 mm",
                "thick slices: 7 mm",
                "looks unenhanced: blood of 45 HU",
            ],
        }
    )
    assert notes_summary(notes, 3, "notes.csv") == (
        "notes on 2 of 3 studies, in notes.csv: thick slices (2); "
        "looks unenhanced: blood of 45 HU (1)"
    )
    assert notes_summary(notes[:0], 1, "notes.csv") == "no notes on 1 study"
