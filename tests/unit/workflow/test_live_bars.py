import fcntl
import os
import struct
import termios
import time

import pytest

from clotline.workflow.live_bars import Footer, RunningJob, last_message

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


@pytest.fixture
def terminal():
    """A function that gives a terminal's stream, of so many rows and columns, and its other end."""
    ends = []

    def open_terminal(rows, columns):
        reader, writer = os.openpty()
        fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        ends.append(reader)
        stream = os.fdopen(writer, "w")
        ends.append(stream)
        return stream, reader

    yield open_terminal
    for end in ends:
        os.close(end) if isinstance(end, int) else end.close()


def test_the_footer_takes_the_last_rows_and_gives_them_back(terminal):
    stream, reader = terminal(rows=24, columns=80)
    footer = Footer(stream)
    footer.show(["first", "second"])
    text = os.read(reader, 10_000).decode()
    assert "\x1b[1;22r" in text
    assert "\x1b[23;1Hfirst" in text.replace("\x1b[J", "")
    assert "\x1b[24;1Hsecond" in text
    footer.remove()
    assert "\x1b[r" in os.read(reader, 10_000).decode()


def test_a_low_and_narrow_terminal_keeps_room_for_everything_else(terminal):
    stream, reader = terminal(rows=8, columns=10)
    Footer(stream).show(["0123456789abc", "second", "third"])
    text = os.read(reader, 10_000).decode()
    assert "\x1b[1;6r" in text
    assert "012345678" in text
    assert "9" not in text.split("012345678")[1][:1]
    assert "third" not in text


def test_a_footer_without_room_or_never_shown_changes_nothing(terminal):
    stream, reader = terminal(rows=5, columns=80)
    footer = Footer(stream)
    footer.show(["first"])
    footer.remove()
    os.set_blocking(reader, False)
    with pytest.raises(BlockingIOError):
        os.read(reader, 100)
