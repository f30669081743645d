import shutil

import pytest

from clotline.workflow import code_digest

PACKAGE = code_digest.PACKAGE


def forget():
    """What was read before: a run of Snakemake reads each module once, these tests change them."""
    code_digest.code_digest.cache_clear()
    code_digest._read.cache_clear()


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    """A copy of the scripts; their digests are made anew at each call of ``digest``."""
    copy = tmp_path / "scripts"
    shutil.copytree(code_digest.SCRIPTS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code_digest, "SCRIPTS", copy)
    forget()
    yield copy
    forget()


def digest(script):
    forget()
    return code_digest.code_digest(script)


def package_of(scripts, **modules):
    """Replaces the scripts by ``main.py``, which imports a.py, and a package of ``modules``."""
    shutil.rmtree(scripts)
    (scripts / PACKAGE / "inner").mkdir(parents=True)
    (scripts / "main.py").write_text("import numpy\nfrom clotline.a import x\n")
    for name, code in modules.items():
        (scripts / PACKAGE / f"{name.replace('inner_', 'inner/')}.py").write_text(code)


def edit(path, code="\nADDED_CONSTANT = 1\n"):
    path.write_text(path.read_text() + code)


@pytest.mark.parametrize(
    "code",
    [
        "# a comment\ndef f(a, b):\n    return a + b\n",
        'def f(a, b):\n    """Says something."""\n    return a + b\n',
        '"""Of the module."""\n\n\ndef f(\n    a,\n    b,\n):\n\n    return (a + b)  # here\n',
    ],
    ids=["comment", "docstring", "layout"],
)
def test_comments_docstrings_and_layout_change_nothing(scripts, code):
    package_of(scripts, a="def f(a, b):\n    return a + b\n")
    before = digest("main.py")
    (scripts / PACKAGE / "a.py").write_text(code)
    assert digest("main.py") == before


def test_docstrings_of_classes_and_of_the_script_itself_change_nothing(scripts):
    package_of(scripts, a="class A:\n    def f(self):\n        return 1\n")
    before = digest("main.py")
    (scripts / PACKAGE / "a.py").write_text(
        'class A:\n    """One."""\n\n    def f(self):\n        """Two."""\n        return 1\n'
    )
    (scripts / "main.py").write_text(
        '"""Three."""\n' + (scripts / "main.py").read_text() + "# four\n"
    )
    assert digest("main.py") == before


@pytest.mark.parametrize(
    "code",
    ["x = 2\n", "y = 1\n", "x = '1'\n", "x = 1\nx\n", "import os\nx = 1\n"],
)
def test_a_change_of_code_changes_the_digest(scripts, code):
    package_of(scripts, a="x = 1\n")
    before = digest("main.py")
    (scripts / PACKAGE / "a.py").write_text(code)
    assert digest("main.py") != before


def test_text_that_is_no_docstring_counts_as_code(scripts):
    package_of(scripts, a="x = 1\ny = '''text'''\n")
    before = digest("main.py")
    (scripts / PACKAGE / "a.py").write_text("x = 1\ny = '''other text'''\n")
    assert digest("main.py") != before


def test_a_change_of_the_script_itself_changes_the_digest(scripts):
    package_of(scripts, a="x = 1\n")
    before = digest("main.py")
    edit(scripts / "main.py")
    assert digest("main.py") != before


@pytest.mark.parametrize(
    "statement",
    [
        "import clotline.b",
        "from clotline.b import y",
        "from clotline import b",
        "from .b import y",
        "from . import b",
        "def f():\n    from .b import y",
    ],
)
def test_modules_are_followed_however_they_are_imported(scripts, statement):
    package_of(scripts, a=statement + "\n", b="from clotline.c import z\n", c="z = 1\n")
    before = digest("main.py")
    edit(scripts / PACKAGE / "c.py")
    assert digest("main.py") != before


def test_relative_imports_within_a_subpackage_are_followed(scripts):
    package_of(
        scripts,
        a="from clotline.inner import x\n",
        b="y = 1\n",
        inner___init__="from .deep import x\n",
        inner_deep="from ..b import y as x\n",
    )
    before = digest("main.py")
    edit(scripts / PACKAGE / "b.py")
    after = digest("main.py")
    assert after != before
    edit(scripts / PACKAGE / "inner" / "deep.py")
    assert digest("main.py") != after


def test_a_module_that_nothing_imports_changes_nothing(scripts):
    package_of(scripts, a="x = 1\n", b="y = 1\n")
    before = digest("main.py")
    edit(scripts / PACKAGE / "b.py")
    assert digest("main.py") == before


def test_circular_imports_end(scripts):
    package_of(scripts, a="from .b import y\n", b="from .a import x\n")
    before = digest("main.py")
    edit(scripts / PACKAGE / "b.py")
    assert digest("main.py") != before


def test_the_same_code_in_another_place_has_the_same_digest(scripts, tmp_path, monkeypatch):
    here = digest("train_cnn.py")
    shutil.copytree(scripts, tmp_path / "elsewhere" / "scripts")
    monkeypatch.setattr(code_digest, "SCRIPTS", tmp_path / "elsewhere" / "scripts")
    assert digest("train_cnn.py") == here


PLUMBING = [
    path.relative_to(code_digest.SCRIPTS)
    for name in code_digest.PLUMBING
    for base in [code_digest.SCRIPTS.joinpath(PACKAGE, *name.split("."))]
    for path in (sorted(base.glob("*.py")) if base.is_dir() else [base.with_suffix(".py")])
]


@pytest.mark.parametrize("module", PLUMBING, ids=str)
def test_plumbing_exists_and_changes_nothing(scripts, module):
    path = scripts / module
    before = digest("train_cnn.py")
    edit(path)
    assert digest("train_cnn.py") == before


@pytest.mark.parametrize(
    ("module", "scripts_changed"),
    [
        ("models/lstm.py", {"train_lstm.py", "predict_lstm.py"}),
        ("models/backbones.py", {"train_cnn.py", "extract_features.py"}),
        ("models/training.py", {"train_cnn.py", "train_lstm.py"}),
        ("data/dicom/ct_slice.py", {"shard.py"}),
        ("reporting/plots.py", {"plot_history.py"}),
        ("data/phantom/anatomy.py", {"phantom.py"}),
    ],
)
def test_an_edit_reaches_the_scripts_that_compute_with_it(scripts, module, scripts_changed):
    before = {name: digest(name) for name in scripts_changed}
    edit(scripts / PACKAGE / module)
    assert {name for name in scripts_changed if digest(name) != before[name]} == scripts_changed


@pytest.mark.parametrize(
    ("module", "spared"),
    [
        ("data/phantom/anatomy.py", ["train_cnn.py", "train_lstm.py", "shard.py", "slices.py"]),
        (
            "reporting/plots.py",
            ["train_lstm.py", "train_cnn.py", "predict_lstm.py", "extract_features.py"],
        ),
        (
            "models/lstm.py",
            ["train_cnn.py", "extract_features.py", "merge_features.py", "shard.py"],
        ),
        ("models/backbones.py", ["shard.py", "slices.py", "positives.py"]),
        (
            "data/dicom/ct_slice.py",
            ["slices.py", "positives.py", "train_cnn.py", "extract_features.py"],
        ),
        (
            "workflow/config.py",
            ["train_cnn.py", "train_lstm.py", "predict_lstm.py", "evaluate.py", "shard.py"],
        ),
        (
            "workflow/snakefile.py",
            ["train_cnn.py", "train_lstm.py", "shard.py", "plan.py", "plot_history.py"],
        ),
    ],
)
def test_an_edit_spares_the_scripts_that_do_not_use_it(scripts, module, spared):
    before = {name: digest(name) for name in spared}
    edit(scripts / PACKAGE / module)
    assert {name: digest(name) for name in spared} == before


def test_a_module_whose_result_is_among_the_params_can_be_left_out(scripts):
    def digest_without_plan():
        forget()
        return code_digest.code_digest("shard.py", without=("data.labels_file", "data.plan"))

    before = digest_without_plan(), digest("shard.py")
    edit(scripts / PACKAGE / "data/plan.py")
    assert digest_without_plan() == before[0]
    assert digest("shard.py") != before[1]
    edit(scripts / PACKAGE / "data/dicom/ct_slice.py")
    assert digest_without_plan() != before[0]
