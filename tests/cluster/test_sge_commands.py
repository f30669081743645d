"""The commands of profiles/sge against stand-ins for Grid Engine's own: no cluster needed."""

import errno
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import PROFILES, calls

SGE = PROFILES / "sge"


@pytest.fixture(autouse=True)
def profile_modules(monkeypatch):
    monkeypatch.syspath_prepend(str(SGE))


class Cluster:
    """Stand-ins for qsub, qstat, qacct and qdel, and a working directory."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name, script in {
            "qsub": 'read n <last; n=$((n + 1)); echo $n >last; echo "$*" >qsub.line; echo $n',
            "qstat": "cat queue.xml",
            "qacct": "cat accounts.txt",
            "qdel": "true",
        }.items():
            self.script(name, script)
        (folder / "last").write_text("100\n")
        (folder / "accounts.txt").write_text("")
        self.queue({})
        self.site(
            "[qsub]\nevery_job = -V\ngpu_job = -l gpu={gpu}\nparallel_job = -pe smp {threads}"
        )

    def script(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(
            f'#!/bin/bash\necho "$(date +%s.%N) $*" >>{self.bin}/{name}.calls\n{text}\n'
        )
        path.chmod(0o755)

    def site(self, text: str) -> None:
        (self.folder / "site.ini").write_text(text + "\n")

    def queue(self, states: dict[str, str]) -> None:
        jobs = "".join(
            f"<job_list><JB_job_number>{number}</JB_job_number><state>{state}</state></job_list>"
            for number, state in states.items()
        )
        (self.folder / "queue.xml").write_text(f"<job_info><q>{jobs}</q></job_info>")

    def job_script(self, rule="train_cnn", attempt=1, output=None, **properties) -> str:
        properties = {
            "rule": rule,
            "wildcards": {},
            "input": [],
            "output": output or [f"{rule}.out"],
            "params": {},
            "log": [],
            "threads": 4,
            "resources": {"mem_mb": 16000, "runtime": 120, "gpu": 1},
            **properties,
        }
        path = self.folder / f"{rule}.sh"
        path.write_text(
            f"#!/bin/sh\n# properties = {json.dumps(properties)}\nsnakemake --attempt {attempt}\n"
        )
        return str(path)

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess:
        environment = {
            **os.environ,
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "CLOTLINE_SITE": os.environ.get("CLOTLINE_SITE", str(self.folder / "site.ini")),
        }
        return subprocess.run(
            [sys.executable, str(SGE / f"{command}.py"), *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def submit(self, **job) -> str:
        answer = self.run("submit", self.job_script(**job))
        assert answer.returncode == 0, answer.stderr
        return answer.stdout.strip()

    def status(self, number: str) -> tuple[str, str]:
        answer = self.run("status", number)
        return answer.stdout.strip(), answer.stderr

    def ended(self, number: str, status: int | None = None, **record) -> None:
        """Makes a job leave the queue, with an exit status and an accounting record."""
        self.queue({})
        state = self.folder / ".clotline" / "gridengine"
        for old in ("queue", "accounts.json"):
            (state / old).unlink(missing_ok=True)
        path = state / "jobs" / f"{number}.json"
        # As if submitted a while ago: an answer of qstat knows only what is older than itself.
        path.write_text(json.dumps({**json.loads(path.read_text()), "submitted": time.time() - 9}))
        if status is not None:
            (state / "exits").mkdir(exist_ok=True)
            (state / "exits" / number).write_text(f"{status}\n")
        if record:
            record = {"jobnumber": number, "hostname": "node7", "qsub_time": time.ctime(), **record}
            lines = "\n".join(f"{name} {value}" for name, value in record.items())
            (self.folder / "accounts.txt").write_text("=" * 62 + "\n" + lines + "\n")


@pytest.fixture
def cluster(tmp_path):
    return Cluster(tmp_path)


@pytest.mark.parametrize(
    ("site", "gpu", "expected"),
    [
        ("site.ini", 1, "-V -l gpu=1 -pe smp 4 -l h_rt=7200 -w e"),
        ("site.ini", 0, "-V -l h_vmem=4000M -pe smp 4 -l h_rt=7200 -w e"),
        (
            "examples/plain.ini",
            1,
            "-V -q gpu.q -l gpu=1 -pe smp 4 -l mem_free=16000M -l h_rt=7200 -w n",
        ),
        (
            "examples/scc.ini",
            1,
            "-P my_project -l gpus=1 -l gpu_c=7.0 -pe omp 4 -l mem_per_core=4G -l h_rt=2:00:00"
            " -w n",
        ),
        ("examples/scc.ini", 0, "-P my_project -pe omp 4 -l mem_per_core=4G -l h_rt=2:00:00 -w n"),
    ],
)
def test_site_files_give_the_options_of_their_site(cluster, monkeypatch, site, gpu, expected):
    monkeypatch.setenv("CLOTLINE_SITE", str(SGE / site))
    cluster.submit(resources={"mem_mb": 16000, "runtime": 120, "gpu": gpu})
    line = (cluster.folder / "qsub.line").read_text()
    assert f"-N c.train_cnn {expected} " in line
    assert "-terse -S /bin/bash -cwd -j y -o" in line


def test_one_thread_asks_for_no_parallel_environment(cluster):
    cluster.submit(threads=1)
    assert "-pe" not in (cluster.folder / "qsub.line").read_text()


def test_a_job_gets_the_sites_setup_and_scratch_folder(cluster):
    cluster.site("[job]\nsetup =\n    module load cuda\nscratch = $TMPDIR/of mine")
    cluster.submit()
    (script,) = (cluster.folder / ".clotline/gridengine/scripts").iterdir()
    lines = script.read_text().splitlines()
    assert lines[1:3] == ["module load cuda", "export CLOTLINE_SCRATCH='$TMPDIR/of mine'"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ('unknown resource "gpu"', "site.ini, line 3: gpu_job = -l gpu={gpu}"),
        (
            'job rejected: the requested parallel environment "smp" does not exist',
            "site.ini, line 4: parallel_job = -pe smp {threads}",
        ),
    ],
)
def test_a_refusal_shows_the_sites_words_and_the_line_to_change(cluster, words, line):
    cluster.script("qsub", f"echo 'Unable to run job: {words}' >&2; echo Exiting. >&2; exit 1")
    answer = cluster.run("submit", cluster.job_script())
    assert answer.returncode == 1 and answer.stdout == ""
    assert words in answer.stderr
    assert line in answer.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[qsub]\ngpu_jobs = -l gpu=1", "gpu_jobs is unknown"),
        ("[qsub]\nevery_job = -l gpu={gpus}", "line 2: every_job = -l gpu={gpus}"),
        ("[polling]\nseconds = often", "often"),
    ],
)
def test_a_mistake_in_the_site_file_is_named(cluster, text, words):
    cluster.site(text)
    answer = cluster.run("submit", cluster.job_script())
    assert answer.returncode == 1
    assert words in answer.stderr
    assert "Traceback" not in answer.stderr


def test_submission_waits_for_a_master_that_restarts(cluster):
    cluster.script(
        "qsub", "[ -e up ] || { touch up; echo 'unable to contact qmaster' >&2; exit 1; }; echo 7"
    )
    answer = cluster.run("submit", cluster.job_script())
    assert answer.stdout.strip() == "7"
    assert "the master does not answer" in answer.stderr


def test_three_hundred_jobs_cost_one_qstat(cluster):
    cluster.site("[polling]\nseconds = 10")
    jobs = importlib.import_module("gridengine.jobs")
    numbers = [str(number) for number in range(1, 301)]
    (cluster.folder / jobs.RECORDS).mkdir(parents=True)
    record = {"id": "1", "rule": "shard", "wildcards": [], "submitted": time.time() - 60}
    for number in numbers:
        text = json.dumps({**record, "id": number})
        (cluster.folder / jobs.RECORDS / f"{number}.json").write_text(text)
    cluster.queue(dict.fromkeys(numbers, "qw"))
    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        statuses = {status for status, _ in pool.map(cluster.status, numbers)}
    took = time.monotonic() - began
    assert statuses == {"running"}
    # One for each 10 s that 300 processes took, however slow this machine is.
    assert len(calls(cluster.bin, "qstat")) <= 1 + took // 10
    assert calls(cluster.bin, "qacct") == []


def test_accounting_is_read_once_for_all_jobs_that_ended(cluster):
    numbers = [cluster.submit(rule=f"shard{index}") for index in range(8)]
    text = ""
    for number in numbers:
        cluster.ended(number, 0)
        text += "=" * 62 + f"\njobnumber {number}\nfailed 0\nexit_status 0\nru_wallclock 5s\n"
    (cluster.folder / "accounts.txt").write_text(text)
    assert {cluster.status(number)[0] for number in numbers} == {"success"}
    assert len(calls(cluster.bin, "qacct")) == 1


def test_jobs_count_as_running_while_the_master_is_away(cluster):
    number = cluster.submit()
    cluster.ended(number)
    cluster.script("qstat", "echo 'error: unable to contact qmaster' >&2; exit 1")
    for _ in range(5):
        status, _ = cluster.status(number)
        assert status == "running"
    assert len(calls(cluster.bin, "qstat")) == 1


ENDINGS = [
    # exit status left by the job, accounting record, what the user reads
    (0, {"failed": "0", "exit_status": "0", "ru_wallclock": "200s", "maxvmem": "2.5GB"},
     "success", ["finished after 3 min on node7", "2.5 GB"]),
    (3, {"failed": "0", "exit_status": "3", "ru_wallclock": "20s"},
     "failed", ["exit status 3 after 20 s"]),
    (None, {"failed": "37  : qmaster enforced h_rt", "exit_status": "137", "ru_wallclock": "7201s"},
     "failed", ["over its wall time of 2 h 0 min", "Raise runtime of rule train_cnn (now 120 min"]),
    (None, {"failed": "100 : assumedly after job", "exit_status": "137", "ru_wallclock": "50s",
            "maxvmem": "15.9GB"},
     "failed", ["out of its memory of 16.0 GB", "Raise mem_mb of rule train_cnn (now 16000)"]),
    (None, {"failed": "100 : assumedly after job", "exit_status": "137", "ru_wallclock": "50s"},
     "failed", ["killed by SIGKILL after 50 s", "qdel"]),
    (137, {"failed": "0", "exit_status": "137", "ru_wallclock": "50s"},
     "failed", ["most often for memory", "Raise mem_mb"]),
    (None, {"failed": "26  : opening input/output file", "exit_status": "0"},
     "failed", ["never began", "opening input/output file", "working directory"]),
    (None, {"failed": "0", "exit_status": "1", "ru_wallclock": "1s"},
     "failed", ["exit status 1 after 1 s on node7, before Snakemake began", "setup lines failed"]),
    (None, {"failed": "0", "exit_status": "0", "ru_wallclock": "50s"},
     "failed", ["its host was lost"]),
]  # fmt: skip


@pytest.mark.parametrize(("status", "record", "outcome", "words"), ENDINGS)
def test_every_end_is_explained(cluster, status, record, outcome, words):
    log = cluster.folder / "train.log"
    number = cluster.submit(log=["train.log"])
    log.write_text("epoch 3\n")
    cluster.ended(number, status, **record)
    found, screen = cluster.status(number)
    assert found == outcome
    for word in words:
        assert word in screen
        assert word in log.read_text()
    # Asked again it says the same, and nothing more.
    assert cluster.status(number) == (outcome, "")


def test_a_memory_error_in_the_log_names_the_memory(cluster):
    number = cluster.submit(log=["train.log"])
    (cluster.folder / "train.log").write_text("Traceback\nMemoryError\n")
    cluster.ended(number, 1, failed="0", exit_status="1", ru_wallclock="5s")
    _, screen = cluster.status(number)
    assert "Raise mem_mb of rule train_cnn" in screen


@pytest.mark.parametrize(
    ("line", "is_the_hosts"),
    [
        ("RuntimeError: can't start new thread", True),
        ("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory", True),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", False),
    ],
)
def test_a_gpus_memory_is_not_the_hosts(cluster, line, is_the_hosts):
    number = cluster.submit(log=["train.log"])
    (cluster.folder / "train.log").write_text(f"Traceback\n{line}\n")
    cluster.ended(number, 1, failed="0", exit_status="1", ru_wallclock="5s")
    _, screen = cluster.status(number)
    assert ("Raise mem_mb of rule train_cnn" in screen) == is_the_hosts
    assert ("exit status 1" in screen) != is_the_hosts


def test_an_earlier_jobs_log_is_not_taken_for_the_words_of_one_that_never_opened_it(cluster):
    log = cluster.folder / "train.log"
    log.write_text("MemoryError of an earlier run\n")
    os.utime(log, (time.time() - 3600, time.time() - 3600))
    number = cluster.submit(log=["train.log"])
    (cluster.folder / "logs/cluster/train_cnn").mkdir(parents=True, exist_ok=True)
    said = cluster.folder / f"logs/cluster/train_cnn/train_cnn.{number}.log"
    said.write_text("module: command not found\n")
    cluster.ended(number, failed="0", exit_status="1", ru_wallclock="1s")
    _, screen = cluster.status(number)
    assert "before Snakemake began" in screen
    assert "module: command not found" in screen
    assert "mem_mb" not in screen


def test_jobs_are_deleted_though_snakemake_waits_two_seconds_and_the_master_is_slow(cluster):
    cluster.script("qdel", "sleep 4; echo $* >deleted")
    subprocess.run(
        [SGE / "cancel.sh", "101", "102"],
        cwd=cluster.folder,
        env={**os.environ, "PATH": f"{cluster.bin}:{os.environ['PATH']}"},
        timeout=2,
        check=True,
    )
    give_up = time.monotonic() + 30
    while not (cluster.folder / "deleted").exists():
        assert time.monotonic() < give_up
        time.sleep(0.1)
    assert (cluster.folder / "deleted").read_text() == "101 102\n"


def start_sidecar(cluster):
    """A sidecar that Snakemake has just started, with a job of its run and one of another run."""
    process = subprocess.Popen(
        [SGE / "sidecar.py"],
        cwd=cluster.folder,
        env={**os.environ, "PATH": f"{cluster.bin}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        text=True,
    )
    run = process.stdout.readline().strip()
    for number, name in (("101", run), ("102", "another"), ("103", run), ("104", run)):
        ending = "done" if number == "103" else None
        record = {"id": number, "rule": "r", "wildcards": [], "run": name, "ending": ending}
        path = cluster.folder / f".clotline/gridengine/jobs/{number}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record))
    return process


def test_what_snakemake_leaves_in_the_queue_at_its_end_is_deleted(cluster):
    cluster.script("qdel", "echo $* >deleted")
    process = start_sidecar(cluster)
    process.send_signal(signal.SIGINT)
    time.sleep(1.5)
    assert process.poll() is None
    process.terminate()
    assert process.wait(timeout=30) == 0
    deleted = (cluster.folder / "deleted").read_text().split()
    assert sorted(deleted) == ["101", "104"]


def test_jobs_are_deleted_though_the_master_is_away_at_first(cluster):
    cluster.script(
        "qdel", "mkdir tried && echo unable to contact qmaster && exit 1; echo $* >deleted"
    )
    process = start_sidecar(cluster)
    process.terminate()
    assert process.wait(timeout=30) == 0
    assert (cluster.folder / "deleted").exists()


def test_the_jobs_of_a_killed_snakemake_go_on(cluster):
    cluster.script("qdel", "echo $* >deleted")
    start = f"{SGE}/sidecar.py >name & echo $! >number"
    script = f"{start}; until [ -s name ]; do sleep 0.1; done; kill -9 $$"
    subprocess.run(
        ["bash", "-c", script],
        cwd=cluster.folder,
        env={**os.environ, "PATH": f"{cluster.bin}:{os.environ['PATH']}"},
        stdout=subprocess.DEVNULL,
        check=False,
    )
    number = int((cluster.folder / "number").read_text())
    give_up = time.monotonic() + 30
    while Path(f"/proc/{number}").exists():
        assert time.monotonic() < give_up
        time.sleep(0.1)
    assert not (cluster.folder / "deleted").exists()


def test_a_job_without_any_trace_was_lost(cluster):
    cluster.site("[polling]\npatience = 0")
    number = cluster.submit()
    cluster.ended(number)
    found, screen = cluster.status(number)
    assert found == "failed"
    assert "host was lost" in screen


def test_a_job_in_the_error_state_is_deleted_and_explained(cluster):
    number = cluster.submit()
    cluster.ended(number)
    cluster.queue({number: "Eqw"})
    cluster.script(
        "qstat",
        'if [[ $* == *-j* ]]; then echo "error reason  1: can\'t chdir to /data"; '
        "else cat queue.xml; fi",
    )
    found, screen = cluster.status(number)
    assert found == "failed"
    assert "can't chdir to /data" in screen
    assert [arguments for _, arguments in calls(cluster.bin, "qdel")] == [number]


def test_a_job_that_still_runs_is_taken_over(cluster):
    number = cluster.submit()
    cluster.queue({number: "r"})
    cluster.ended(number)
    cluster.queue({number: "r"})
    assert cluster.submit() == number
    assert len(calls(cluster.bin, "qsub")) == 1


def test_a_running_job_with_other_parameters_is_deleted_first(cluster):
    number = cluster.submit()
    cluster.ended(number)
    cluster.queue({number: "r"})
    cluster.script("qdel", "echo '<job_info/>' >queue.xml")
    assert cluster.submit(params={"lr": 1}) != number
    assert [arguments for _, arguments in calls(cluster.bin, "qdel")] == [number]


def test_work_that_an_orphan_finished_is_not_done_again(cluster):
    number = cluster.submit()
    cluster.ended(number, 0)
    (cluster.folder / "train_cnn.out").touch()
    assert cluster.submit() == number
    (cluster.folder / "train_cnn.out").unlink()
    assert cluster.submit() != number


def test_a_job_deleted_by_hand_is_not_tried_again_in_the_same_run(cluster):
    number = cluster.submit()
    cluster.ended(number, failed="100 : assumedly after job", exit_status="137", ru_wallclock="5s")
    assert cluster.status(number)[0] == "failed"
    answer = cluster.run("submit", cluster.job_script(attempt=2))
    assert answer.returncode == 1
    assert "deleted by hand" in answer.stderr
    assert cluster.submit() != number


NOTICE = "echo 'The site checked this job (JSV 2.1)'"
BANNER = "echo '*** 2 days until the maintenance of 2026-11-30, 7:00, see http://site/8080 ***'"
NUMBERED = {
    "before": f"{NOTICE}; echo $n",
    "behind": f"echo $n; {NOTICE}; {BANNER}",
    "around": f"{BANNER}; echo; echo $n; echo; echo Thank you.",
    "as an array": f"{NOTICE}; echo $n.1-1:1",
    "without -terse": "echo 'Your job '$n' (\"c.train_cnn\") has been submitted'",
    "without -terse, and more": f"{BANNER}; echo 2026; "
    "echo 'Your job '$n' (\"c.train_cnn\") has been submitted'; echo 7",
    "to standard error": "echo 'Your job '$n' (\"c.train_cnn\") has been submitted' >&2",
    "a line of another number": "echo 2026; echo $n",
    "in other words": f"{BANNER}; echo Job \\<$n\\> is submitted to queue all.q",
}
QSTAT_J = (
    'if [[ $* == *-j* ]]; then [[ $* == *" 101" || $* == "-j 101" ]] && '
    'echo "job_name: c.train_cnn"; '
    'echo "stdout_path_list: NONE:NONE:$PWD/logs/cluster/train_cnn/train_cnn.\\$JOB_ID.log"; '
    "else cat queue.xml; fi"
)


@pytest.mark.parametrize("printed", NUMBERED.values(), ids=NUMBERED)
def test_the_jobs_number_is_told_from_what_is_printed_beside_it(cluster, printed):
    cluster.script("qsub", f"n=101; {printed}")
    cluster.script("qstat", QSTAT_J)
    assert cluster.submit() == "101"
    (record,) = (cluster.folder / ".clotline/gridengine/jobs").glob("*.json")
    assert json.loads(record.read_text())["id"] == "101"
    assert not (cluster.folder / ".clotline/gridengine/undone").exists()


@pytest.mark.parametrize("printed", ["before", "behind", "around", "without -terse, and more"])
def test_where_qstat_knows_no_single_jobs_qsubs_own_words_count(cluster, printed):
    cluster.script("qsub", f"n=101; {NUMBERED[printed]}")
    cluster.script("qstat", "[[ $* == *-j* ]] && exit 1; cat queue.xml")
    assert cluster.submit() == "101"


def test_a_number_that_nobody_prints_is_found_in_the_queue(cluster):
    cluster.script("qsub", "echo Thank you for 1 job.")
    cluster.script("qstat", QSTAT_J)
    jobs = "".join(
        f"<job_list><JB_job_number>{number}</JB_job_number><JB_name>{name}</JB_name></job_list>"
        for number, name in ((99, "c.train_cnn"), (101, "c.train_cnn"), (102, "other"))
    )
    (cluster.folder / "queue.xml").write_text(f"<job_info>{jobs}</job_info>")
    assert cluster.submit() == "101"


@pytest.mark.parametrize("printed", ["echo Thank you.", "true", "echo 7; echo 8"])
def test_a_submission_without_a_number_is_undone(cluster, printed):
    cluster.site("[job]\nsetup = touch begun")
    cluster.script("qsub", f"cat ${{@: -1}} >submitted.sh; {printed}")
    answer = cluster.run("submit", cluster.job_script())
    assert answer.returncode == 1 and answer.stdout == ""
    assert "its number cannot be told" in answer.stderr
    # Whatever Grid Engine has taken does nothing when its turn comes.
    script = (cluster.folder / "submitted.sh").read_text()
    assert "snakemake --attempt 1" in script
    (cluster.folder / "bin/snakemake").write_text("#!/bin/sh\ntouch worked\n")
    (cluster.folder / "bin/snakemake").chmod(0o755)
    environment = {**os.environ, "PATH": f"{cluster.bin}:{os.environ['PATH']}", "JOB_ID": "7"}

    def run_job() -> int:
        command = ["bash", "submitted.sh"]
        return subprocess.run(command, cwd=cluster.folder, env=environment, check=False).returncode

    assert run_job() == 0
    assert (cluster.folder / "begun").exists() and not (cluster.folder / "worked").exists()
    (mark,) = (cluster.folder / ".clotline/gridengine/undone").iterdir()
    mark.unlink()
    assert run_job() == 0
    assert (cluster.folder / "worked").exists()


def test_a_wrapper_that_fails_behind_qsub_leaves_no_job(cluster):
    cluster.script("qsub", "echo 101; echo the wrapper has no disk left >&2; exit 1")
    answer = cluster.run("submit", cluster.job_script())
    assert answer.returncode == 1 and answer.stdout == ""
    assert "the wrapper has no disk left" in answer.stderr
    assert [arguments for _, arguments in calls(cluster.bin, "qdel")] == ["101"]


def test_what_stands_around_the_queues_xml_does_not_count(cluster):
    cluster.script("qstat", f"{BANNER}; echo \"<?xml version='1.0'?>\"; cat queue.xml; {NOTICE}")
    cluster.site("[polling]\nseconds = 0\npatience = 0\naccounting = no")
    numbers = [cluster.submit(rule="shard"), cluster.submit(rule="other")]
    for number in numbers:
        cluster.ended(number)
    cluster.queue({numbers[0]: "r"})
    assert cluster.status(numbers[0])[0] == "running"
    found, screen = cluster.status(numbers[1])
    assert found == "failed"
    assert "host was lost" in screen


def test_the_queues_xml_has_an_element_of_its_own_name_within(cluster):
    number = cluster.submit()
    cluster.ended(number)
    inner = (cluster.folder / "queue.xml").read_text()
    job = f"<job_list><JB_job_number>{number}</JB_job_number><state>qw</state></job_list>"
    text = f"<job_info xmlns:xsd='x'>\n{inner}<job_info>{job}</job_info>\n</job_info>\n"
    (cluster.folder / "queue.xml").write_text(text)
    cluster.site("[polling]\nseconds = 0\npatience = 0")
    assert cluster.status(number)[0] == "running"


def test_where_qstat_gives_no_list_the_accounting_file_tells_of_an_end(cluster):
    cluster.script("qstat", "echo qstat is closed today")
    cluster.site("[polling]\nseconds = 0")
    number = cluster.submit()
    cluster.ended(number)
    status, screen = cluster.status(number)
    assert status == "running"
    assert "no XML in the answer to -xml, but 'qstat is closed today'" in screen
    cluster.ended(number, failed="37  : qmaster enforced h_rt", exit_status="137",
                  ru_wallclock="7201s")  # fmt: skip
    status, screen = cluster.status(number)
    assert status == "failed"
    assert "over its wall time" in screen


def test_what_stands_around_accounting_records_does_not_count(cluster):
    cluster.script("qacct", f"{BANNER}; cat accounts.txt; echo 'failed 37 : to update this host'")
    number = cluster.submit()
    cluster.ended(number, 0, failed="0", exit_status="0", ru_wallclock="5s")
    assert cluster.status(number)[0] == "success"
    accounts = json.loads((cluster.folder / ".clotline/gridengine/accounts.json").read_text())
    assert accounts[number]["failed"] == "0"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EAGAIN, 524])
def test_a_file_system_without_locks_harms_nothing(cluster, monkeypatch, number):
    jobs = importlib.import_module("gridengine.jobs")
    monkeypatch.chdir(cluster.folder)

    def refuse(*_):
        raise OSError(number, "No locks available")

    monkeypatch.setattr(jobs.fcntl, "lockf", refuse)
    with jobs.locked():
        pass
