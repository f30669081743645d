"""The demo, made once, and copies of it for dry runs."""

import os
import shutil

import pytest
from workflow_run import PROJECT, Run, copy_project, link_folder


@pytest.fixture(scope="session")
def demo() -> Run:
    """The demo, made if it is not there yet."""
    run = Run(PROJECT, PROJECT / "demo")
    run.build("all")
    return run


@pytest.fixture
def copy(demo, tmp_path) -> Run:
    """The finished demo and the workflow, both free to be changed."""
    project = copy_project(tmp_path / "project")
    return Run(project, link_folder(demo.folder, tmp_path / "work"))


@pytest.fixture
def empty(tmp_path) -> Run:
    """A working directory without anything."""
    folder = tmp_path / "work"
    (folder / "config").mkdir(parents=True)
    return Run(PROJECT, folder)


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium, driven by Playwright."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium's sandbox does not work for root.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield browser
        browser.close()
