"""The report in a browser, as its reader has it: one file, no network."""

import shutil
import zipfile

import pytest


@pytest.fixture
def page(browser, demo, tmp_path):
    """The report alone in a folder; at the end it has asked the network nothing."""
    path = shutil.copy(demo.folder / "results/report.html", tmp_path)
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    troubles, requests = [], []
    page.on("console", lambda message: troubles.append(message.text))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(f"file://{path}", wait_until="load")
    yield page
    page.close()
    assert troubles == []
    assert {url.partition(":")[0] for url in requests} <= {"file", "data"}


def test_all_its_pictures_are_in_it(page):
    widths = page.evaluate("Array.from(document.images).map((image) => image.naturalWidth)")
    assert len(widths) == 1 + 5 * 6 + 8
    assert all(widths)


def test_every_picture_says_what_it_shows(page):
    texts = page.evaluate("Array.from(document.images).map((image) => image.alt)")
    assert all(texts)
    assert len(set(texts)) == len(texts)


def test_what_is_folded_opens_by_keyboard(page):
    page.locator("summary").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("details").first.get_attribute("open") is not None


def test_it_prints_on_pages_no_wider_than_the_paper(page, tmp_path):
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 794, "height": 1123})  # A4 at 96 dots per inch
    assert page.evaluate("document.documentElement.scrollWidth") <= 794
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")


def test_snakemakes_own_report_has_the_pages_first_and_names_what_it_shows(copy, browser, tmp_path):
    copy.snakemake("all", "--report", str(tmp_path / "report.html"))
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    shown = page.evaluate("Object.entries(categories).map(([name, parts]) => [name, parts])")
    order = [name for name, _ in shown]
    # Its menu sorts them.
    assert sorted(order) == ["1 Report and viewer", "2 All models", "3 Each model", "4 Training"]
    parts = dict(shown)
    assert set(parts["3 Each model"]) == {
        f"{features}-{level}"
        for features in ("resnext50", "efficientnet_b0", "combined")
        for level in ("image", "study")
    }
    results = page.evaluate(
        "Object.values(results).map((result) => [result.name, result.labels, result.mime_type])"
    )
    page.close()
    assert all(labels for _, labels, _ in results)
    pages = {labels["page"] for _, labels, _ in results if "page" in labels}
    assert pages == {"Report", "Viewer"}
    plots = [labels["plot"] for _, labels, _ in results if "plot" in labels]
    assert len(plots) == 5 * 6 and len(set(plots)) == 5


def test_snakemakes_own_report_in_a_zip_file_has_the_viewer_with_its_slices(
    copy, browser, tmp_path
):
    copy.snakemake("all", "--report", str(tmp_path / "report.zip"))
    with zipfile.ZipFile(tmp_path / "report.zip") as archive:
        archive.extractall(tmp_path)
    (script,) = (tmp_path / "report").rglob("0.js")
    page = browser.new_page()
    page.goto((script.parent / "index.html").as_uri())
    page.wait_for_selector("#image[data-drawn]")
    page.goto((tmp_path / "report/report.html").as_uri())
    results = page.evaluate("Object.values(results).map((result) => result.labels.page)")
    page.close()
    assert results.count("Viewer") == results.count("Report") == 1
