import ast
import os
import re
import shutil
from pathlib import Path

import pytest

from clotline.workflow import code_digest

PACKAGE = code_digest.PACKAGE


def forget():
    """What was read before: a run of Snakemake reads each module once, these tests change them."""
    code_digest.code_digest.cache_clear()
    code_digest._read.cache_clear()
    code_digest._find.cache_clear()


@pytest.fixture(scope="module")
def all_read():
    """What is kept of each module is there to be copied: else each copy would be read anew."""
    digests()


@pytest.fixture
def scripts(all_read, tmp_path, monkeypatch):
    """A copy of the scripts; ``digest`` looks anew whether what was read of them is still true."""
    copy = tmp_path / "scripts"
    shutil.copytree(code_digest.SCRIPTS, copy, ignore=shutil.ignore_patterns("*.pyc"))
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


@pytest.mark.parametrize("damage", [b"", b"[1]", b"\xff", b'{"made_of": 1}'])
def test_what_was_kept_of_a_module_is_taken_only_while_it_is_right(scripts, monkeypatch, damage):
    package_of(scripts, a="x = 1\n", b="y = 1\n")
    before = digest("main.py")
    read, parse = [], ast.parse
    monkeypatch.setattr(ast, "parse", lambda *a, **k: read.append(a) or parse(*a, **k))
    assert digest("main.py") == before
    assert not read
    kept = sorted((scripts / PACKAGE / "__pycache__").glob("a.*.digest"))
    kept[0].write_bytes(damage)
    assert digest("main.py") == before
    assert len(read) == len(kept) == 1
    stat = (scripts / PACKAGE / "a.py").stat()
    (scripts / PACKAGE / "a.py").write_text("x = 2\n")
    os.utime(scripts / PACKAGE / "a.py", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert digest("main.py") != before


def test_a_package_that_may_not_be_written_to_has_a_digest(scripts, monkeypatch):
    package_of(scripts, a="x = 1\n")
    before = digest("main.py")
    shutil.rmtree(scripts / PACKAGE / "__pycache__")
    # Not by its mode: root may write everywhere.
    (scripts / PACKAGE / "__pycache__").write_text("no folder")
    assert digest("main.py") == before


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


RULES = Path(__file__).parents[3] / "workflow/rules"


def digests():
    """Rule to the digest that its params hold."""
    forget()
    text = "".join(path.read_text() for path in sorted(RULES.glob("*.smk")))
    calls = re.findall(r'code_digest\("(\w+)\.py"(?:, without=\(([^)]*)\))?\)', text)
    assert len(calls) > 20
    return {
        rule: code_digest.code_digest(f"{rule}.py", tuple(re.findall(r'"([\w.]+)"', left_out)))
        for rule, left_out in calls
    }


#: Rules that make a table of metrics, or use what it is made of.
WITH_TABLE = {"metrics_table", "compare", "validate_models"}

#: Rules that write or read a bundle, whose card names what the networks are.
WITH_BUNDLE = {"bundle", "apply_models", "settle_truth", "validate_models"}


@pytest.mark.parametrize(
    ("module", "old", "new", "rules"),
    [
        # What is said to a user.
        ("data/accounting.py", "slices were rejected", "slices were not taken", set()),
        ("models/checkpoint.py", "holds no dictionary", "has no dictionary", set()),
        ("models/checkpoint.py", "is no {FORMAT} of version", "is no {FORMAT} with version", set()),
        ("data/ingest.py", "nothing is left of", "nothing remains of", set()),
        # What changes speed alone.
        ("job/speed.py", "PREFETCHED = 2", "PREFETCHED = 3", set()),
        ("job/speed.py", "return 256 if", "return 512 if", set()),
        ("job/speed.py", "FILES_AHEAD = 4", "FILES_AHEAD = 8", set()),
        # What a training says of itself once it is over.
        ("evaluation/learning.py", "JUMP = 10", "JUMP = 20", WITH_TABLE),
        # What one rule and its namesake for new studies compute with.
        (
            "models/extractor.py",
            "output.shape[-1] * 8 > side",
            "output.shape[-1] * 4 > side",
            {"extract_features", "apply_models"},
        ),
        ("data/accounting.py", "<= max_rejects", "< max_rejects", {"slices"}),
        ("data/accounting.py", "slices[STUDY_UID].map(splits)", "None", {"slices"}),
        # The reason of a reject is a result.
        (
            "data/dicom/ct_slice.py",
            "a localizer, not a slice",
            "a localizer",
            {"shard", "decode_series", "find_series", "settle_truth", "dicom_results"},
        ),
        # What is of stage 2 alone trains no CNN.
        (
            "models/sequence.py",
            "align_corners=True",
            "align_corners=False",
            {"train_lstm", "finetune", "predict_lstm", "apply_models"},
        ),
        ("models/supervision.py", "< 0.5).tolist()", "< 0.4).tolist()", {"train_lstm", "finetune"}),
        # A network of timm, and what its input is made of.
        (
            "models/timm_networks.py",
            "if weights is None",
            "if not weights",
            {"train_cnn", "finetune", "extract_features", "activation", "apply_models"},
        ),
        (
            "loading/planes.py",
            "GAP = 2",
            "GAP = 3",
            {"train_cnn", "finetune", "extract_features", "activation", "apply_models"},
        ),
        # What is of joint training alone trains nothing else.
        ("models/finetuning.py", "slices.split(most)", "slices.split(1)", {"finetune"}),
        (
            "loading/suspicious_slices.py",
            "np.argsort(-logits",
            "np.argsort(logits",
            {"finetune"},
        ),
        ("models/odds.py", "_MOST = 30.0", "_MOST = 40.0", {"train_lstm", "finetune"}),
        # The weights of the metric, and how it is computed from predictions.
        (
            "evaluation/competition_weights.py",
            "IMAGE_WEIGHT = 0.07361963",
            "IMAGE_WEIGHT = 0.07361964",
            WITH_TABLE | {"train_lstm", "finetune", "competition", "evaluate", "submission"},
        ),
        (
            "evaluation/competition.py",
            "RAISED = 0.500001",
            "RAISED = 0.500002",
            WITH_TABLE | {"competition", "evaluate", "submission"},
        ),
        (
            "models/averaging.py",
            "STATISTICS_BATCHES = 200",
            "STATISTICS_BATCHES = 100",
            {"train_cnn", "train_lstm", "finetune"},
        ),
        (
            "models/lstm.py",
            "states[self.last_slices(studies)]",
            "states[:1]",
            {"train_lstm", "finetune", "predict_lstm", "apply_models"},
        ),
        # A key of one stage's networks, which fetches no weights again.
        (
            "sections/cnn.py",
            "    crop: int\n",
            "    crop: int\n    rotation: float\n",
            # The bundle, in which the distributions of the training lie, names the networks; the
            # report says what a network sees.
            {
                *("train_cnn", "extract_features", "activation", "shift", *WITH_BUNDLE),
                *("finetune", "report", "validation_report"),
            },
        ),
        (
            "sections/lstm.py",
            "    hidden_size: int\n",
            "    hidden_size: int\n    units: int\n",
            # The report says what form a network has.
            {
                *("train_lstm", "finetune", "predict_lstm", "apply_models"),
                *("report", "validation_report"),
            },
        ),
    ],
)
def test_an_edit_reruns_the_rules_whose_result_it_can_change(scripts, module, old, new, rules):
    before = digests()
    path = scripts / PACKAGE / module
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    assert {rule for rule, found in digests().items() if found != before[rule]} == rules


@pytest.mark.parametrize(
    ("statement", "counts"),
    [
        ("raise ClotlineError(f'{x} of {y}')", False),
        ("raise unusable(path, 'damaged')", False),
        ("log.info('%s slices', x)", False),
        ("log.warning('other', extra={'a': 1})", False),
        ("raise SliceError('other')", True),
        ("raise ValueError('other')", True),
        ("print('other')", True),
        ("logs.info('other')", True),
        ("log.info((x := 2))", True),
    ],
)
def test_what_is_said_to_a_user_does_not_count(scripts, statement, counts):
    said = "raise ClotlineError('')", "raise unusable()", "log.info()", "log.warning()"
    bare = next((s for s in said if s.split("(")[0] == statement.split("(")[0]), "pass")
    package_of(scripts, a=f"def f(x, y):\n    {bare}\n")
    before = digest("main.py")
    (scripts / PACKAGE / "a.py").write_text(f"def f(x, y):\n    {statement}\n")
    assert (digest("main.py") != before) == counts
