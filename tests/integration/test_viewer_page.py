"""The viewer in a browser, and how often the activation maps' peaks fall on a clot."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from localisation import on_slice, pointing_game

from clotline.data import phantom
from clotline.data.activation_file import read_activation
from clotline.data.shards import open_shard
from clotline.data.tables import uid_triples
from clotline.grid import SIZE
from clotline.labels import IMAGE_LABEL, SOP_UID, STUDY_UID
from clotline.workflow.config import load_config


@pytest.fixture(scope="module")
def folder(demo):
    return demo.folder / "results/viewer"


# The page


@pytest.fixture
def page(browser, folder):
    """The page, opened from its folder; at the end nothing has failed or asked the network."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    troubles, requests = [], []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto((folder / "index.html").resolve().as_uri())
    page.wait_for_selector("#image[data-drawn]")
    yield page
    page.close()
    assert troubles == []
    # The page's icon is an empty data URL.
    assert {url.partition(":")[0] for url in requests} <= {"file", "data"}


def settle(page):
    """Waits until the last event has arrived and the slice that it asked for is drawn."""
    # Events of the mouse arrive after the call that sends them has returned.
    page.wait_for_timeout(100)
    wait_until(page, "Number(document.getElementById('image').dataset.drawn) === drawing")


def wait_until(page, condition):
    """As Playwright's own, which the page's security policy does not let evaluate text."""
    for _ in range(200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never: {condition}")


def shown(page):
    """Number of the slice, from 1, and the image's bytes."""
    settle(page)
    text = page.text_content("#corner-slice")
    image = page.evaluate("document.getElementById('image').toDataURL()")
    return int(text.split()[1]), image


def slices_of(page):
    return int(page.text_content("#corner-slice").split("of ")[1].split(",")[0])


def test_it_opens_with_the_first_study_at_its_most_suspicious_slice(page, folder):
    studies = json.loads((folder / "selection.json").read_text())["studies"]
    assert page.text_content("#corner-study") == studies[0]["uid"]
    assert page.locator("#studies button").count() == len(studies)
    number, _ = shown(page)
    curve = page.evaluate("Object.values(view.study.curves)[0]")
    assert number == 1 + int(np.argmax(curve))
    assert page.locator(".warning").text_content() == "Research use, not for diagnosis"
    assert page.locator(".warning").is_visible()


def test_the_pixels_are_those_of_the_shard(page, demo):
    uid = page.text_content("#corner-study")
    slices = pd.read_parquet(demo.folder / "results/data/slices.parquet")
    rows = slices[slices[STUDY_UID] == uid]
    settle(page)
    row = page.evaluate("view.slice")
    with open_shard(demo.folder / f"results/data/shards/shard-{rows['shard'].iloc[0]}.h5") as file:
        expected = file["pixels"][rows["row"].iloc[row]]
    pixels = page.evaluate("pixelsOf(view.slice).then((pixels) => Array.from(pixels))")
    assert (np.array(pixels).reshape(256, 256) == expected).all()


def edges(page):
    return [page.text_content(f"#edge-{edge}") for edge in ("left", "right", "top", "bottom")]


def test_the_sides_of_the_patient_are_marked_where_they_are_known(page):
    settle(page)
    assert edges(page) == ["R", "L", "A", "P"]
    for edge in ("left", "right", "top", "bottom"):
        assert page.locator(f"#edge-{edge}").is_visible()
    assert "patient's left on the right" in page.get_attribute("#image", "aria-label")
    page.evaluate("view.study.orientations[view.slice] = 'LF'; draw()")
    assert edges(page) == ["R", "L", "H", "F"]
    page.evaluate("view.study.orientations[view.slice] = ''; draw()")
    assert edges(page) == ["", "", "", ""]
    assert "left and right unknown" in page.get_attribute("#image", "aria-label")


def test_feet_and_head_are_named_where_they_are_known(page):
    settle(page)
    ends = ("#end-first", "#end-last")
    assert [page.text_content(end) for end in ends] == ["feet", "head"]
    for change in ("study.positions[0] = null", "study.orientations[0] = 'LF'"):
        copy = "const study = structuredClone(view.study)"
        page.evaluate(f"{copy}; {change}; clotlineStudy(view.number, study)")
        assert [page.text_content(end) for end in ends] == ["", ""]


def test_a_position_is_shown_where_it_is_known(page):
    settle(page)
    assert page.text_content("#corner-slice").split("\n")[0].endswith(" mm")
    page.evaluate("view.study.positions[view.slice] = null; draw()")
    assert "mm" not in page.text_content("#corner-slice").split("\n")[0]
    assert "null" not in page.text_content("#corner-slice")


def test_wheel_and_keys_scroll(page):
    page.keyboard.press("Home")
    assert shown(page)[0] == 1
    page.keyboard.press("ArrowUp")
    first = shown(page)
    assert first[0] == 2
    page.locator("#stage").hover()
    page.mouse.wheel(0, -120)
    second = shown(page)
    assert second[0] == 3
    assert second[1] != first[1]
    page.mouse.wheel(0, 120)
    assert shown(page) == first
    page.keyboard.press("PageUp")
    assert shown(page)[0] == 12
    page.keyboard.press("PageDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert shown(page)[0] == 1
    page.keyboard.press("End")
    assert shown(page)[0] == slices_of(page)


def test_the_slider_scrolls(page):
    page.locator("#slice").fill("4")
    assert shown(page)[0] == 5


def test_windows_change_the_pixels(page):
    pe = shown(page)
    images = {pe[1]}
    for name, level, width in (("Mediastinum", 40, 400), ("Lung", -600, 1500)):
        page.get_by_role("button", name=name).click()
        images.add(shown(page)[1])
        assert page.input_value("#level") == str(level)
        assert page.input_value("#width") == str(width)
        assert f"L {level} W {width}".replace("-", "−") in page.text_content("#corner-window")
    assert len(images) == 3
    page.keyboard.press("1")
    assert shown(page) == pe
    page.fill("#level", "60")
    page.keyboard.press("Enter")
    assert shown(page)[1] not in images
    page.locator("#stage").hover()
    page.mouse.down()
    page.mouse.move(500, 500)
    page.mouse.up()
    assert page.input_value("#level") != "60"


def test_the_maps_lie_over_the_slice_and_go_away_again(page):
    plain = shown(page)
    images = {plain[1]}
    for name in ("resnext50", "efficientnet_b0"):
        page.select_option("#map", name)
        images.add(shown(page)[1])
    assert len(images) == 3
    page.locator("#opacity").fill("90")
    images.add(shown(page)[1])
    assert len(images) == 4
    page.select_option("#map", "")
    assert shown(page) == plain
    page.locator("#stage").focus()
    page.keyboard.press("m")
    assert page.input_value("#map") == "resnext50"


def test_a_map_lies_where_the_network_looked(page, folder):
    """The page lays a map as the package does."""
    path = folder.parent / "activation/efficientnet_b0.h5"
    activation = read_activation(path)
    slices = pd.read_parquet(folder.parent / "data/slices.parquet")
    uid = page.text_content("#corner-study")
    activation = activation.of(uid_triples(slices[slices[STUDY_UID] == uid]))
    strongest = int(activation.maps.max((1, 2)).argmax())
    expected = on_slice(activation.maps[strongest], activation.crop) / activation.maps.max()
    laid = page.evaluate(f"Array.from(mapOf('efficientnet_b0', {strongest}))")
    assert np.array(laid).reshape(256, 256) == pytest.approx(expected, abs=0.005)


def test_a_click_on_the_curve_jumps_there(page):
    settle(page)
    count = slices_of(page)
    box = page.locator("#curve").bounding_box()
    for slice_ in (3, count - 2):
        share = (slice_ + 0.5) / count
        page.mouse.click(box["x"] + share * box["width"], box["y"] + 60)
        assert shown(page)[0] == slice_ + 1
    truth = page.evaluate("view.study.truth")
    assert page.locator("#curve .truth").count() == sum(truth)


def test_filters_shorten_the_list(page, folder):
    studies = json.loads((folder / "selection.json").read_text())["studies"]
    for name, group in (
        ("False negatives", "false_negative"),
        ("False positives", "false_positive"),
        ("Indeterminate", "indeterminate"),
        ("Called positive", "positive"),
    ):
        page.get_by_role("button", name=name).click()
        expected = [study["uid"] for study in studies if group in study["groups"]]
        assert page.locator("#studies .uid").all_text_contents() == expected
        assert len(expected) < len(studies)
    page.get_by_role("button", name="All", exact=True).click()
    assert page.locator("#studies button").count() == len(studies)


def test_another_study_is_opened_by_mouse_and_keyboard(page, folder):
    studies = json.loads((folder / "selection.json").read_text())["studies"]
    for number, act in (
        (2, lambda: page.locator("#studies button").nth(2).click()),
        (3, lambda: page.keyboard.press("n")),
        (2, lambda: page.keyboard.press("p")),
    ):
        before = page.evaluate("drawing")
        act()
        wait_until(page, f"view.number === {number} && view.study && drawing > {before}")
        settle(page)
        study = studies[number]
        assert page.text_content("#corner-study") == study["uid"]
        cells = page.locator("#labels tr").first.locator("td").all_text_contents()
        probability = study["targets"]["pe_present"]["probability"]
        assert float(cells[0].strip().rstrip("%")) == pytest.approx(100 * probability, abs=0.51)
        assert page.locator("#labels tr:not(#contradiction)").count() == 10
        contradicts = page.locator("#contradiction").count()
        assert contradicts == bool(study["contradiction"])


def test_everything_has_a_name_for_those_who_do_not_see_it(page):
    nameless = page.evaluate(
        """Array.from(document.querySelectorAll("button, input, select, canvas, svg")).filter(
            (e) => !(e.labels?.length || e.textContent.trim() || e.getAttribute("aria-label"))
        ).map((e) => e.outerHTML)"""
    )
    assert nameless == []
    assert "Slice" in page.get_attribute("#image", "aria-label")


def test_a_missing_study_is_said(browser, folder, tmp_path):
    shutil.copy(folder / "index.html", tmp_path)
    page = browser.new_page()
    page.goto((tmp_path / "index.html").as_uri())
    page.wait_for_selector("#trouble:not([hidden])")
    assert "studies/0.js could not be loaded" in page.text_content("#trouble")
    page.close()


def test_it_works_from_a_web_server(browser, folder):
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    server = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        port = server.stdout.readline().split(" port ")[1].split()[0]
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}/index.html")
        page.wait_for_selector("#image[data-drawn]")
        page.close()
    finally:
        server.terminate()
        server.wait()


# The maps


@pytest.fixture(scope="module")
def positives(demo):
    """Truly positive test slices, and (n, 256, 256) bool: where their clots are."""
    results = demo.folder / "results"
    config = load_config(yaml.safe_load((demo.folder / "config/config.yaml").read_text()))
    cohort = {study.uid: study for study in phantom.draw_cohort(config["phantom"])}
    table = pd.read_parquet(results / "data/slices.parquet")
    table = table[(table["split"] == "test") & (table[IMAGE_LABEL] == 1)]
    clots = []
    for uid, rows in table.groupby(STUDY_UID, sort=False):
        study = cohort[uid]
        masks = phantom.clot_mask(study)
        stride = study.grid.size // SIZE
        masks = masks.reshape(len(masks), SIZE, stride, SIZE, stride).any((2, 4))
        rows_of = {sop: row for row, sop in enumerate(study.sop_uids)}
        clots.append(masks[[rows_of[sop] for sop in rows[SOP_UID]]])
    return table, np.concatenate(clots)


@pytest.mark.parametrize("name", ["resnext50", "efficientnet_b0"])
def test_how_often_the_maps_peak_falls_on_a_clot_is_reported(demo, positives, name, capsys):
    """The share is reported, not claimed: the demo's maps have 2 x 2 cells of 83 mm each."""
    table, clots = positives
    activation = read_activation(demo.folder / f"results/activation/{name}.h5")
    activation = activation.of(uid_triples(table))
    called = activation.logits > 0
    game = pointing_game(
        activation.maps[called],
        clots[called],
        table[STUDY_UID].to_numpy()[called],
        activation.crop,
    )
    with capsys.disabled():
        print(f"\nactivation maps of {name} ({called.sum()} slices called positive): {game}")
    assert game.slices == called.sum() > 100
    # Of four cells in the middle of the chest, one at random covers a clot about every other time.
    assert 0 < game.chance < 0.75
    assert 0 <= game.hits <= 1
    assert 0 <= game.others <= 1
