"""Report and viewer in a browser, made of little: on a wide screen, on a phone, and by axe-core."""

import hashlib
import re
import shutil
import subprocess
import tarfile

import numpy as np
import pandas as pd
import pytest
from builders import NO_PATIENTS, facts_of

from clotline.data.activation_file import Activation
from clotline.evaluation.comparison import compare
from clotline.evaluation.metrics import evaluate
from clotline.labels import STUDY_LABELS, STUDY_UID
from clotline.reporting.pages import PHANTOM
from clotline.reporting.plots import plot_roc, save_figure
from clotline.reporting.report import read_run_times, render_report
from clotline.reporting.selection import describe_studies
from clotline.reporting.viewer import ShownStudy, write_viewer
from clotline.workflow.config import load_config

WARNING = ["model", "from", "warning"]
WIDE, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}

AXE = "axe-core@4.10.3"
AXE_SHA256 = "880970c081707360e64f34cea25ff91892f5bc95675b0776925b9709dd8a68bb"


@pytest.fixture(scope="module")
def axe(tmp_path_factory):
    """axe-core's script, from npm."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm on this machine to fetch axe-core with: apt-get install npm")
    folder = tmp_path_factory.mktemp("axe")
    done = subprocess.run(
        [npm, "pack", "--silent", AXE], cwd=folder, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"npm could not fetch {AXE}: {done.stderr.strip()[-200:]}")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        script = archive.extractfile("package/axe.min.js").read()
    assert hashlib.sha256(script).hexdigest() == AXE_SHA256
    return script.decode()


def predictions(noise, seed=0):
    """Probabilities of 16 valid and 24 test studies, every second of which has PE."""
    rng = np.random.default_rng(seed)
    present = np.arange(40) % 2
    table = pd.DataFrame({STUDY_UID: [f"1.2.{i}" for i in range(40)]})
    table["split"] = ["valid"] * 16 + ["test"] * 24
    for name in STUDY_LABELS:
        truth = 1 - present if name == "negative_exam_for_pe" else 0 * present
        table[f"{name}_true"] = truth
        table[name] = np.clip(0.3 + 0.3 * truth + rng.normal(0, noise, 40), 0.01, 0.99)
    return table


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    tables = {
        f"{name}-study": predictions(noise, seed)
        for seed, (name, noise) in enumerate(
            [("combined", 0.1), ("efficientnet_b0", 0.2), ("resnext50", 0.6)]
        )
    }
    metrics = {name: evaluate(table, "study", 20, 0, [0.5]) for name, table in tables.items()}
    figures = {}
    for name, measured in metrics.items():
        figures[f"ROC: {name}"] = folder / f"{name}.svg"
        save_figure(plot_roc(measured, name), figures[f"ROC: {name}"])
    plan = predictions(0)[[STUDY_UID, "split"]]
    plan = plan.assign(slices=2, positive_slices=1, negative_exam_for_pe=0, indeterminate=0)
    slices = plan.loc[plan.index.repeat(2), [STUDY_UID, "split"]].iloc[1:]
    path = "/".join(["1.2.840.113619.2.55.3.2831164355.781.1389270021.467"] * 3) + ".dcm"
    page = render_report(
        metrics,
        plan,
        slices,
        pd.DataFrame({"path": [path], "reason": ["no PixelData"]}),
        pd.DataFrame({STUDY_UID: ["1.2.3"], "note": ["several series: one after the other"]}),
        compare(tables, "combined", 20, 0),
        {},
        pd.DataFrame([("resnext50-study", "test", "no better than chance")], columns=WARNING),
        {"roc": figures},
        load_config({"phantom": {}}),
        {"results/lstm/combined-study.pt": "0123abcd" * 8},
        read_run_times("nowhere"),
        "2026-11-29",
        facts_of(plan[STUDY_UID]),
        NO_PATIENTS,
    )
    (folder / "report.html").write_text(page, encoding="utf-8")
    return folder / "report.html"


def study_of(about, slices, size=256):
    rows, columns = np.mgrid[:size, :size] * 256 // size
    pixels = np.where((rows - 128) ** 2 + (columns - 128) ** 2 < 90**2, 40, -1000)
    pixels = np.repeat(pixels[None], slices, 0) + np.arange(slices)[:, None, None]
    maps = np.zeros((slices, 3, 3))
    maps[:, 1, 1], maps[:, 0, 0] = 1, 0.2
    names = [("a", "s", str(number)) for number in range(slices)]
    return ShownStudy(
        {"notes": [], "facts": [("Slices", str(slices))], "shift": []} | about,
        pixels.astype(np.int16),
        np.arange(slices) * 2.5,
        ["LP"] * slices,
        {"combined-image": np.linspace(0.1, 0.9, slices)},
        {"resnext50": Activation(maps, np.zeros(slices), names, size)},
        np.full(slices, 1.5 * 256 / size),
        np.arange(slices) % 2 == 1,
    )


THRESHOLDS = {"pe_present": 0.13, "indeterminate": 0.045}


def studies_of(*probabilities, truth=True):
    """Studies of these probabilities of PE; the truth says that every second one has it."""
    table = pd.DataFrame({STUDY_UID: [f"1.2.{i}" for i in range(len(probabilities))]})
    for name in STUDY_LABELS:
        table[name] = 0.058 if name == "indeterminate" else 0.5
        if truth:
            table[f"{name}_true"] = 0
    table["negative_exam_for_pe"] = (1 - np.array(probabilities) / (1 - 0.058)).clip(0, 1)
    table["pe_present"] = probabilities
    if truth:
        table["negative_exam_for_pe_true"] = [1 - i % 2 for i in range(len(probabilities))]
    return describe_studies(table, THRESHOLDS)


@pytest.fixture(scope="module")
def viewer(tmp_path_factory):
    """A page of four studies, the second with one slice alone."""
    folder = tmp_path_factory.mktemp("viewer")
    studies = studies_of(0.9, 0.1304, 0.1296, 0.05)
    shown = [study_of(about, 1 if number == 1 else 6) for number, about in enumerate(studies)]
    source = {"phantom": True, "title": PHANTOM}
    write_viewer(
        *(folder / "index.html", folder / "studies", shown, "combined-study", ["resnext50"]),
        *("of 4 test studies", 0.5, source, "the best study-level model of the report"),
    )
    return folder / "index.html"


@pytest.fixture
def open_page(browser):
    """Opens a page of a size; at the end nothing has failed."""
    pages, troubles = [], []

    def open_page(path, size):
        # The viewer's security policy would keep axe-core out.
        page = browser.new_page(viewport=size, bypass_csp=True)
        page.set_default_timeout(120_000)
        pages.append(page)
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.goto(path.as_uri())
        if page.query_selector("#image"):
            page.wait_for_selector("#image[data-drawn]")
        return page

    yield open_page
    for page in pages:
        page.close()
    assert troubles == []


def settled(page):
    """Waits until the last slice that was asked for is drawn."""
    page.wait_for_timeout(100)
    page.wait_for_function(
        "view.number < 0 || Number(document.getElementById('image').dataset.drawn) === drawing"
    )


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("name", ["report", "viewer"])
def test_axe_has_no_serious_fault_to_find(request, open_page, axe, name, size):
    page = open_page(request.getfixturevalue(name), size)
    page.evaluate(axe)
    outcome = page.evaluate("axe.run()")
    assert len(outcome["passes"]) > 10
    faults = [
        (fault["id"], [node["html"][:200] for node in fault["nodes"]])
        for fault in outcome["violations"]
        if fault["impact"] in ("serious", "critical")
    ]
    assert faults == []


@pytest.mark.parametrize("name", ["report", "viewer"])
def test_nothing_is_wider_than_a_phone(request, open_page, name):
    page = open_page(request.getfixturevalue(name), PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


@pytest.mark.parametrize("name", ["report", "viewer"])
def test_what_is_below_zero_has_one_minus_sign(request, open_page, name):
    text = open_page(request.getfixturevalue(name), WIDE).inner_text("body")
    assert "−" in text
    assert re.findall(r"(?<![\w.-])-\d.{20}", text) == []


def test_intervals_do_not_wrap_and_the_table_of_models_sorts(open_page, report):
    page = open_page(report, PHONE)
    heights = page.evaluate(
        "[...document.querySelectorAll('td .i')].map((e) => e.getClientRects().length)"
    )
    assert len(heights) > 30
    assert set(heights) == {1}

    def column(number):
        cells = page.locator(f"#models tbody tr > :nth-child({number})")
        return [text.strip() for text in cells.all_text_contents()]

    page.get_by_role("button", name="AUROC").click()
    rising = [float(text.split()[0]) for text in column(5)]
    assert rising == sorted(rising)
    page.get_by_role("button", name="AUROC").click()
    assert [float(text.split()[0]) for text in column(5)] == rising[::-1]
    assert page.get_attribute("#models th:nth-child(5)", "aria-sort") == "descending"
    page.get_by_role("button", name="Model").click()
    assert column(1) == ["combined-study", "efficientnet_b0-study", "resnext50-study"]


def test_texts_on_a_phone_do_not_lie_on_one_another(open_page, viewer):
    page = open_page(viewer, PHONE)
    page.select_option("#map", "resnext50")
    settled(page)
    boxes = page.evaluate(
        """[...document.querySelectorAll(".corner, #picture, #timeline, nav, aside, header")]
        .filter((e) => e.textContent || e.id).map((e) => {
            const { left, top, right, bottom } = e.getBoundingClientRect();
            return [e.id || e.className || e.tagName, left, top, right, bottom];
        })"""
    )
    for number, (name, left, top, right, bottom) in enumerate(boxes):
        for other, left2, top2, right2, bottom2 in boxes[number + 1 :]:
            apart = left2 >= right or left >= right2 or top2 >= bottom - 1 or top >= bottom2 - 1
            assert apart, (name, other)


def tags(page):
    return page.locator("#studies .tags").all_text_contents()


def test_the_list_has_the_call_of_pe_and_digits_where_they_are_needed(open_page, viewer):
    page = open_page(viewer, WIDE)
    # 5.8% exceeds the threshold of "indeterminate", and says nothing of these studies.
    assert tags(page) == [
        "false positive · 6\u00a0slices",
        "true positive · 1\u00a0slice",
        "true negative · 6\u00a0slices",
        "false negative · 6\u00a0slices",
    ]
    shown = page.locator("#studies .p").all_text_contents()
    # A space as wide as a digit keeps the points below one another.
    assert shown == ["90.0%\u2007", "13.04%", "12.96%", "5.0%\u2007"]
    assert PHANTOM in page.text_content("header")
    assert "the best study-level model of the report" in page.text_content("header")


def test_notes_and_how_the_series_was_made_stand_with_each_study(open_page, tmp_path):
    told = [
        {
            "notes": [
                "missing slices: about 2 in 1 gap; the largest is of 7.5 mm above -31.5 mm",
                "missing slices: about 1 in 1 gap; the largest is of 5 mm above 8.0 mm",
                "a tilted gantry: by 20 degrees",
            ],
            "facts": [("Kernel", "B70f"), ("Chosen", "the only axial CT scan")],
        },
        {"notes": [], "facts": [("Kernel", "B30f")]},
    ]
    studies = [
        about | own | {"groups": about["groups"] + ["noted"] * bool(own["notes"])}
        for about, own in zip(studies_of(0.9, 0.05, truth=False), told, strict=True)
    ]
    account = "2 predicted, 1 not: 1 too few slices (listed in unpredicted.csv)"
    shown = [study_of(about, 2) for about in studies]
    write_viewer(
        *(tmp_path / "i.html", tmp_path / "s", shown, "combined-study", ["resnext50"]),
        account=account,
    )
    page = open_page(tmp_path / "i.html", WIDE)
    assert page.text_content("#account") == account
    assert [tag.split(" · ")[2:] for tag in tags(page)] == [["3\u00a0notes"], []]
    shown_notes = page.locator("#notes li").all_text_contents()
    assert shown_notes == [note.replace("-", "−") for note in told[0]["notes"]]
    assert page.locator("#notes").is_visible()
    # On the picture, once each, what they are of.
    assert page.text_content("#corner-notes") == "missing slices\na tilted gantry"
    assert page.locator("#facts dd").all_text_contents() == ["B70f", "the only axial CT scan"]
    page.locator("#studies button").nth(1).click()
    page.wait_for_function("view.study && view.study.uid === '1.2.1'")
    settled(page)
    assert page.locator("#notes").is_hidden()
    assert page.text_content("#corner-notes") == ""
    assert page.locator("#facts dd").all_text_contents() == ["B30f"]
    page.get_by_role("button", name="With notes").click()
    page.wait_for_function("view.study && view.study.uid === '1.2.0'")
    settled(page)
    assert page.locator("#studies button").count() == 1


def test_what_lies_outside_of_the_training_data_is_marked(open_page, tmp_path):
    told = "contrast in heart and great vessels 95 HU; 98% of the training studies had more"
    outside = {
        "fact": "contrast in heart and great vessels", "value": "95 HU", "training": "210–480",
        "told": told, "outside": True,
    }  # fmt: skip
    within = outside | {"fact": "noise", "value": "12 HU", "told": "noise 12 HU", "outside": False}
    first, second = studies_of(0.9, 0.05, truth=False)
    shown = [study_of(about, 2) for about in (first | {"shift": [outside, within]}, second)]
    write_viewer(tmp_path / "i.html", tmp_path / "s", shown, "combined-study", ["resnext50"])
    page = open_page(tmp_path / "i.html", WIDE)
    rows = page.locator("#shift tr")
    assert rows.count() == 3
    assert rows.nth(1).text_content() == f"⚠ {told}"
    assert rows.nth(0).locator("td").all_text_contents() == ["95 HU", "210–480"]
    colours = [
        row.evaluate("e => getComputedStyle(e).color") for row in page.locator("#shift th").all()
    ]
    assert colours[0] != colours[1]
    page.locator("#studies button").nth(1).click()
    page.wait_for_function("view.study && view.study.uid === '1.2.1'")
    settled(page)
    assert page.locator("#shifted").is_hidden()


def test_the_folder_of_the_studies_has_a_page_that_needs_nothing_beside_it(
    open_page, viewer, tmp_path
):
    alone = shutil.copytree(viewer.parent / "studies", tmp_path / "alone")
    page = open_page(alone / "index.html", WIDE)
    settled(page)
    assert page.text_content("#corner-study") == "1.2.0"
    assert page.locator("#trouble").is_hidden()


def test_without_truth_there_are_no_filters_that_need_it(open_page, tmp_path):
    studies = studies_of(0.9, 0.05, truth=False)
    shown = [study_of(about, 2) for about in studies]
    write_viewer(tmp_path / "i.html", tmp_path / "s", shown, "combined-study", ["resnext50"])
    page = open_page(tmp_path / "i.html", WIDE)
    assert page.locator("[data-filter]").all_text_contents() == [
        "All",
        "Called positive",
        "Called negative",
    ]
    assert [tag.partition(" · ")[0] for tag in tags(page)] == ["PE called", "no PE called"]


def test_a_study_that_the_filter_hides_leaves_the_screen(open_page, viewer):
    page = open_page(viewer, WIDE)
    assert page.text_content("#corner-study") == "1.2.0"
    page.get_by_role("button", name="False negatives").click()
    page.wait_for_function("view.study && view.study.uid === '1.2.3'")
    settled(page)
    assert page.text_content("#corner-study") == "1.2.3"
    page.get_by_role("button", name="Indeterminate").click()
    settled(page)
    assert page.text_content("#corner-study") == ""
    assert page.locator("#labels tr").count() == 0
    assert page.get_attribute("#image", "aria-label") == "No study is open"
    page.get_by_role("button", name="All", exact=True).click()
    page.wait_for_function("view.study && view.study.uid === '1.2.0'")
    settled(page)


def test_the_value_under_the_cursor_is_that_of_the_slice_at_any_zoom(open_page, viewer):
    page = open_page(viewer, WIDE)
    page.keyboard.press("Home")
    settled(page)
    box = page.locator("#image").bounding_box()
    side = min(box["width"], box["height"])
    left, top = box["x"] + (box["width"] - side) / 2, box["y"] + (box["height"] - side) / 2
    page.mouse.move(left + side * 128.5 / 256, top + side * 100.5 / 256)
    assert page.text_content("#cursor") == "40 HU at 128, 100"
    page.mouse.move(left + side * 2.5 / 256, top + side * 2.5 / 256)
    assert page.text_content("#cursor") == "−1000 HU at 2, 2"
    page.get_by_role("button", name="Zoom in").click()
    settled(page)
    assert page.text_content("#zoom") == "125%"
    page.mouse.move(left + side * 0.25, top + side * 0.5)
    # A quarter of the side from the middle is a fifth of the slice.
    assert page.text_content("#cursor").endswith(" HU at 76, 128")
    page.get_by_role("button", name="move", exact=True).click()
    page.mouse.move(left + side * 0.5, top + side * 0.5)
    page.mouse.down()
    page.mouse.move(left + side * 0.6, top + side * 0.5)
    page.mouse.up()
    settled(page)
    page.mouse.move(left + side * 0.5, top + side * 0.5)
    assert page.text_content("#cursor").endswith(" HU at 107, 128")
    page.keyboard.press("0")
    settled(page)
    assert page.text_content("#zoom") == "100%"


def test_a_ruler_measures_in_mm_where_the_pixels_size_is_known(open_page, viewer):
    page = open_page(viewer, WIDE)
    settled(page)
    page.keyboard.press("r")
    box = page.locator("#image").bounding_box()
    side = min(box["width"], box["height"])
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    for spacing, said in ((1.5, "mm"), (None, "pixels")):
        if spacing is None:
            page.evaluate("view.study.pixelMm.fill(null); draw()")
        settled(page)
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + side * 64 / 256, y)
        page.mouse.up()
        settled(page)
        length, unit = page.evaluate("rulerText()").split()
        assert unit == said
        assert float(length) == pytest.approx(64 * (spacing or 1), abs=1)


def test_the_coronal_view_has_the_head_above_and_its_row_of_every_slice(open_page, viewer):
    page = open_page(viewer, WIDE)
    page.evaluate("view.study.pixelMm.fill(1.25)")
    page.get_by_role("button", name="Coronal").click()
    settled(page)
    assert page.text_content("#corner-slice").startswith("Coronal, row 129 of 256")
    height, first, last = page.evaluate(
        "[plane.height, plane.values[128], plane.values[(plane.height - 1) * 256 + 128]]"
    )
    # Six slices 2.5 mm apart, at 1.25 mm a pixel; each is brighter by 1 HU than the one below.
    assert (height, first, last) == (11, 45, 40)
    assert [page.text_content(f"#edge-{edge}") for edge in ("left", "right", "top", "bottom")] == [
        *("R", "L", "H", "F"),
    ]
    page.keyboard.press("ArrowUp")
    settled(page)
    assert page.text_content("#corner-slice").startswith("Coronal, row 130 of 256")
    page.keyboard.press("c")
    settled(page)
    assert page.text_content("#corner-slice").startswith("Slice ")


@pytest.mark.parametrize("side", [1.25, 2.5, 4.0])
def test_the_coronal_view_marks_where_the_slice_lies(open_page, viewer, side):
    page = open_page(viewer, WIDE)
    page.evaluate(f"view.study.pixelMm.fill({side})")
    page.get_by_role("button", name="Coronal").click()
    settled(page)
    for number in range(6):
        marked = page.evaluate(f"markedAt(plane.nearest, {number})")
        # Pixels below the last of six slices that lie 2.5 mm apart.
        assert marked == pytest.approx((5 - number) * 2.5 / side, abs=0.51)


def test_larger_slices_are_shown_in_their_own_pixels(open_page, tmp_path):
    (about,) = studies_of(0.9)
    shown = [study_of(about, 6, 384)]
    written = tmp_path / "index.html", tmp_path / "studies", shown, "combined-study", ["resnext50"]
    write_viewer(*written)
    page = open_page(tmp_path / "index.html", WIDE)
    page.select_option("#map", "resnext50")
    page.keyboard.press("Home")
    settled(page)
    assert page.evaluate("[plane.width, plane.height, plane.map.length]") == [384, 384, 384 * 384]
    box = page.locator("#image").bounding_box()
    side = min(box["width"], box["height"])
    left, top = box["x"] + (box["width"] - side) / 2, box["y"] + (box["height"] - side) / 2
    page.mouse.move(left + side * 192.5 / 384, top + side * 150.5 / 384)
    assert page.text_content("#cursor") == "40 HU at 192, 150"
    page.keyboard.press("r")
    page.mouse.down()
    page.mouse.move(left + side * 288.5 / 384, top + side * 150.5 / 384)
    page.mouse.up()
    settled(page)
    length, unit = page.evaluate("rulerText()").split()
    assert (float(length), unit) == (pytest.approx(96, abs=1), "mm")
    page.get_by_role("button", name="Coronal").click()
    settled(page)
    assert page.text_content("#corner-slice").startswith("Coronal, row 193 of 384")
    assert page.evaluate("[plane.width, plane.values[192]]") == [384, 45]


def test_a_map_covers_only_what_reaches_its_threshold(open_page, viewer):
    page = open_page(viewer, WIDE)
    page.select_option("#map", "resnext50")

    def coloured():
        settled(page)
        return page.evaluate(
            """(() => {
                const copy = document.createElement("canvas");
                copy.width = copy.height = 768;
                const context = copy.getContext("2d", { willReadFrequently: true });
                context.drawImage(document.getElementById("image"), 0, 0);
                const drawn = context.getImageData(0, 0, 768, 700).data;
                let count = 0;
                for (let i = 0; i < drawn.length; i += 4) count += drawn[i] !== drawn[i + 1];
                return count;
            })()"""
        )

    counts = []
    for share in (0, 40, 90):
        page.locator("#cut").fill(str(share))
        counts.append(coloured())
        assert page.text_content("#cut-shown") == f"{share}%"
    assert counts[0] > counts[1] > counts[2] > 0
    assert page.locator("#bar").is_visible()
