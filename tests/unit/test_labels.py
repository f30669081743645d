import os
import shutil
import subprocess
import sys
from pathlib import Path

import clotline
from clotline.labels import COLUMNS, STUDY_LABELS, UIDS

SCRIPTS = Path(clotline.__file__).parents[1]

#: What holds of a package with two labels more, one of which says where a PE lies.
FACTS = """
import numpy as np
import pandas as pd

from clotline.data.consistency import consistent
from clotline.data.phantom import draw_cohort, labels_table
from clotline.evaluation.competition import loss_terms
from clotline.evaluation.metrics import SUBGROUPS
from clotline.evaluation.predictions import pe_present
from clotline.labels import COLUMNS, STUDY_LABELS
from clotline.models.lstm import build_lstm
from clotline.sections.lstm import lstm_sections
from clotline.models.monitoring import pe_present_auroc
from clotline.workflow.config import load_config


def study(*positive):
    return np.array([[float(name in positive) for name in STUDY_LABELS]])


assert COLUMNS[17:] == STUDY_LABELS[9:] == ("infarct", "saddle_pe")
config = load_config({"phantom": {"studies": 3}})
assert (labels_table(draw_cohort(config["phantom"]))["infarct"] == 0).all()

# Whether there is a PE does not hang on what is no sign of one.
assert consistent(study("negative_exam_for_pe", "infarct"))
assert not consistent(study("negative_exam_for_pe", "saddle_pe"))
assert consistent(study("rv_lv_ratio_gte_1", "saddle_pe"))
assert not consistent(study("rv_lv_ratio_gte_1", "infarct"))
table = pd.DataFrame(study("infarct"), columns=STUDY_LABELS)
assert pe_present(table).tolist() == [1.0]
assert SUBGROUPS[7:] == ("saddle_pe",)
targets = np.vstack([study("negative_exam_for_pe", "infarct"), study("saddle_pe")])
assert pe_present_auroc(targets, 8 * targets - 4) == 1.0
model = build_lstm(8, lstm_sections(config)["combined-study"], "study")
assert model.linear.out_features == 11

# The competition's score is that of its own labels.
sure, unsure = (loss_terms(study(), 0.1 + x * study("infarct"))[0] for x in (0.1, 0.8))
assert sure == unsure
"""


def test_the_published_labels_are_as_published():
    assert len(COLUMNS) == 17
    assert len(STUDY_LABELS) == 9
    assert set(STUDY_LABELS) < set(COLUMNS) - set(UIDS)


def test_another_label_is_an_entry_here_and_counts_for_what_it_says(tmp_path):
    copy = tmp_path / "workflow/scripts"
    shutil.copytree(SCRIPTS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(SCRIPTS.parent / "schemas", copy.parent / "schemas")
    path = copy / "clotline/labels.py"
    text = path.read_text()
    last = '    "indeterminate": Role.ABSENT,\n'
    assert text.count(last) == 1
    more = '    "infarct": Role.OTHER,\n    "saddle_pe": Role.SIDE,\n'
    path.write_text(text.replace(last, last + more))
    done = subprocess.run(
        [sys.executable, "-c", FACTS],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
