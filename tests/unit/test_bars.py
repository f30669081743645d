import os
import time

import pytest

from clotline.bars import RunningJob, last_message

LOG = """\
/usr/lib/python3/warnings.py:3: UserWarning: a library's own words
14:03:05 epoch 2/9: train loss 0.5123, valid loss 0.4811, valid AUROC 0.8000, 0:31
14:03:15 epoch 3: 37 of 103 batches (36%), 3.65/s, 0:18 left
Traceback or whatever else
"""


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "train.log"
    path.write_text(LOG)
    return path


def test_a_job_shows_its_last_message_and_nothing_that_others_print(log):
    assert last_message(log) == "epoch 3: 37 of 103 batches (36%), 3.65/s, 0:18 left"
    assert str(RunningJob("train_cnn resnext50", log)).startswith("train_cnn resnext50: epoch 3")


def test_only_the_end_of_a_long_log_is_read(log):
    log.write_text("13:00:00 long ago\n" + "x" * 10_000 + "\n")
    assert last_message(log) == ""


def test_a_job_without_a_log_or_before_it_has_no_message(tmp_path):
    assert last_message(None) == ""
    assert last_message(tmp_path / "none.log") == ""


def test_a_job_runs_once_its_log_is_newer_than_its_submission(log):
    hour_ago = time.time() - 3600
    os.utime(log, (hour_ago, hour_ago))
    job = RunningJob("train_cnn resnext50", log)
    assert not job.begun()
    log.write_text(LOG)
    assert job.begun()


def test_a_job_whose_log_is_not_there_yet_waits(tmp_path):
    assert not RunningJob("train_cnn resnext50", tmp_path / "none.log").begun()
