"""The last steps of a run on a machine whose locale is not UTF-8."""

import pytest
from locales import LOCALES, make_locale

PAGES = ("results/report.html", "results/viewer/index.html", "results/viewer/studies")


@pytest.mark.parametrize("names", LOCALES, ids=lambda names: names[1])
def test_the_pages_are_utf_8_whatever_the_locale(copy, tmp_path, monkeypatch, names):
    before = (copy.folder / "results/viewer/index.html").read_bytes()
    (copy.folder / "results/report.html").unlink()
    (copy.folder / "results/viewer/index.html").unlink()
    for name, value in make_locale(tmp_path, *names).items():
        monkeypatch.setenv(name, value)
    done = copy.start(*copy.local(*PAGES), encoding="utf-8", errors="replace")
    output, errors = done.communicate()
    assert done.returncode == 0, output + errors
    assert (copy.folder / "results/viewer/index.html").read_bytes() == before
    page = (copy.folder / "results/report.html").read_text(encoding="utf-8")
    assert "–" in page
    for log in ("report", "viewer"):
        (copy.folder / f"logs/{log}.log").read_text(encoding="utf-8")
    # A dry run ends with an estimate.
    (copy.folder / "results/lstm/combined-study.pt").unlink()
    done = copy.start("-n", "all", encoding="utf-8", errors="replace")
    output, errors = done.communicate()
    assert done.returncode == 0, output + errors
    assert "GPU hours" in output + errors
    assert "Logging error" not in output + errors
