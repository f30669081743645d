import logging
import re
import time

from clotline.job.phases import Phases


def test_where_a_jobs_time_goes_adds_up_to_all_of_it(caplog):
    phases = Phases()
    for name in ("features", "maps", "features"):
        with phases(name):
            time.sleep(0.2)
    with caplog.at_level(logging.INFO, "clotline"):
        phases.tell()
    whole, parts = re.fullmatch(r"took ([\d.]+) s: (.*)", caplog.messages[-1]).groups()
    seconds = {name: float(value) for name, value in re.findall(r"([a-z]+) ([\d.]+)", parts)}
    assert list(seconds) == ["start", "features", "maps", "else"]
    assert seconds["features"] >= 0.4
    assert seconds["maps"] >= 0.2
    assert abs(sum(seconds.values()) - float(whole)) < 0.3
    # The process began before this test.
    assert seconds["start"] > 0
