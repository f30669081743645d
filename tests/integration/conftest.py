"""The demo, made once, and copies of it for dry runs."""

import pytest
from further_models import run_further
from once import make_once
from tiny_cohort import tiny_config, write_marked_cohort
from workflow_run import ON_TWO_CORES, PROJECT, Run, copy_project, link_folder, write_config


@pytest.fixture(scope="session")
def demo(common) -> Run:
    """The demo, made if it is not there yet."""
    run = Run(PROJECT, PROJECT / "demo")
    make_once(common, "demo", lambda: run.build("all"))
    return run


@pytest.fixture
def copy(demo, tmp_path) -> Run:
    """The finished demo and the workflow, both free to be changed."""
    project = copy_project(tmp_path / "project")
    return Run(project, link_folder(demo.folder, tmp_path / "work"))


@pytest.fixture(scope="session")
def tiny(common) -> Run:
    """An uninterrupted run of the whole workflow on the tiny cohort; not to be changed."""
    run = Run(PROJECT, common / "tiny")

    def make():
        cohort = common / "cohort"
        write_marked_cohort(cohort)
        write_config(run, tiny_config(cohort))
        run.build(*ON_TWO_CORES, "all")

    make_once(common, "tiny", make)
    return run


@pytest.fixture
def tiny_copy(tiny, tmp_path) -> Run:
    """A copy of it that shares its files: replace them, never write into them."""
    return Run(PROJECT, link_folder(tiny.folder, tmp_path / "work"))


@pytest.fixture(scope="session")
def further(tiny, common) -> Run:
    """The tiny run with every further kind of model, applied to new studies; not to be changed."""
    run = Run(PROJECT, common / "further/work")

    def make():
        link_folder(tiny.folder, run.folder)
        run_further(run, tiny, common / "further")

    make_once(common, "further", make)
    return run


@pytest.fixture
def empty(tmp_path) -> Run:
    """A working directory without anything."""
    folder = tmp_path / "work"
    (folder / "config").mkdir(parents=True)
    return Run(PROJECT, folder)
