"""What unit tests of several modules share."""

import os
import shutil
import sysconfig
from pathlib import Path

import pytest
from hostile import TALLY, TORTURE
from hypothesis import settings

# As the Snakefile does for jobs: OpenCV's threads do not survive the fork of loading processes.
os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")

# No example is too slow: on a busy machine any can be.
settings.register_profile("clotline", deadline=None)
settings.load_profile("clotline")


@pytest.fixture(scope="session")
def common(tmp_path_factory, worker_id):
    """A folder that all of the tests' processes share."""
    own = tmp_path_factory.getbasetemp()
    return own if worker_id == "master" else own.parent


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """The folder that a site names for what jobs need for as long as they run."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("CLOTLINE_SCRATCH", str(folder))
    return folder


@pytest.fixture(scope="session")
def fabric():
    """One CPU thread, full precision: sums have the same bits in every run."""
    from clotline.models.devices import make_fabric

    return make_fabric("32-true", gpus=0, threads=1)


@pytest.fixture(scope="session")
def cpp_compiler():
    """What torch.compile needs of the system."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ on this machine: see tests/system-packages.sh")
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        pytest.skip("no headers of Python on this machine: see tests/system-packages.sh")


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium, driven by Playwright."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium on this machine: see tests/system-packages.sh")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium's sandbox does not work for root.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield browser
        browser.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """With CLOTLINE_NO_SKIP a skipped test is a failed one, but where real data is not at hand."""
    report = yield
    if report.skipped and os.environ.get("CLOTLINE_NO_SKIP") and not hasattr(report, "wasxfail"):
        reason = str(call.excinfo.value)
        if "CLOTLINE_REAL" not in reason:  # nor CLOTLINE_REALCT
            report.outcome = "failed"
            report.longrepr = f"skipped although CLOTLINE_NO_SKIP is set: {reason}"
    return report


def pytest_sessionfinish(session):
    """A process that tests side by side with others tells the first what it counted."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["tally"] = dict(TALLY)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """Adds what such a process has counted."""
    TALLY.update(getattr(node, "workeroutput", {}).get("tally", {}))


def pytest_terminal_summary(terminalreporter):
    """The table of `make torture`; what was skipped and why, for the last lines of `make test`."""
    if path := os.environ.get("CLOTLINE_SKIPPED"):
        # File, line and reason.
        reports = terminalreporter.stats.get("skipped", [])
        reasons = [report.longrepr[2].removeprefix("Skipped: ") for report in reports]
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("".join(f"{reason}\n" for reason in reasons), encoding="utf-8")
    if TORTURE > 1:
        terminalreporter.section("torture")
        for what, count in TALLY.items():
            terminalreporter.write_line(f"{what:<16}{count:>8,}")
