"""Signals, kills, full disks and a lost launcher, on the real command line."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from accelerate import Accelerator

from sentorder.checkpoint import checkpoints_of
from sentorder.stopping import StopRequests
from tests.conftest import REPOSITORY, Run, hear_signals, read_metrics

LAUNCH = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--quiet"]
TWO = [
    *LAUNCH,
    "--config_file",
    str(REPOSITORY / "accelerate_configs" / "cpu_gloo.yaml"),
    "--main_process_port",
    "29533",
]
PYTHON = [sys.executable]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Any]:
    """Start a command in a process group of its own; whatever is left of it is killed in the end."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(*command: str, **more: Any) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), **more.pop("env", {})}
        with open(tmp_path / "log", "ab") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=REPOSITORY,
                env=environment,
                start_new_session=True,
                preexec_fn=hear_signals,
                **more,
            )
        processes.append(process)
        return process

    yield start
    for process in processes:
        with_children = [process, *_children(process.pid)]
        for one in with_children:
            if psutil.pid_exists(one.pid):
                os.kill(one.pid, signal.SIGKILL)
        process.wait()


def _children(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True) if psutil.pid_exists(pid) else []


def command(encoder: str, data: str, run: Path, **changes: Any) -> list[str]:
    """A run that takes minutes, with a log line and a checkpoint each step."""
    values = {
        "model_name_or_path": encoder,
        "dataset": data,
        "output_dir": run,
        "resume_from_checkpoint": "auto",
        "max_steps": 2000,
        "logging_steps": 1,
        "eval_strategy": "no",
        "save_strategy": "steps",
        "save_steps": 50,
    }
    flags = [str(item) for name, value in {**values, **changes}.items() for item in (f"--{name}", value)]
    return ["-m", "sentorder.train", *flags]


def wait_for_step(run: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(1200):
        if (run / "metrics.jsonl").exists() and len((run / "metrics.jsonl").read_bytes().splitlines()) >= step:
            return
        assert process.poll() is None, "the command has ended by itself"
        time.sleep(0.05)
    raise TimeoutError


@pytest.mark.parametrize(
    "name", ["SIGTERM", *(pytest.param(name, marks=pytest.mark.slow) for name in ("SIGINT", "SIGUSR1"))]
)
def test_a_signal_saves_and_ends_with_its_code(
    tiny_encoder: str, small_data: str, tmp_path: Path, started: Any, name: str
) -> None:
    run = tmp_path / "run"
    process = started(*PYTHON, *command(tiny_encoder, small_data, run))
    wait_for_step(run, 3, process)
    process.send_signal(getattr(signal, name))
    assert process.wait(60) == (130 if name == "SIGINT" else 75)
    log = (tmp_path / "log").read_text()
    done = max(row["step"] for row in read_metrics(run))
    assert next(path.name for path in checkpoints_of(run)) == f"checkpoint-{done}"
    assert "stopping after this step" in log and "Traceback" not in log
    assert f"stopped after step {done}; go on with --resume_from_checkpoint {run}/checkpoint-{done}" in log


@pytest.mark.slow
def test_without_checkpoints_a_signal_saves_nothing_and_says_so(
    tiny_encoder: str, small_data: str, tmp_path: Path, started: Any
) -> None:
    process = started(*PYTHON, *command(tiny_encoder, small_data, tmp_path / "run", save_strategy="no"))
    wait_for_step(tmp_path / "run", 3, process)
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    assert "no model was saved yet" in (tmp_path / "log").read_text()
    assert not checkpoints_of(tmp_path / "run")


@pytest.mark.slow
def test_a_second_signal_ends_at_once(tiny_encoder: str, small_data: str, tmp_path: Path, started: Any) -> None:
    """In the middle of a step that takes long."""
    script = tmp_path / "slow.py"
    script.write_text(
        "import time, sentorder.train as t\n"
        "original = t.train_steps\n"
        "def slow(*a, **k):\n"
        "    for step in original(*a, **k):\n"
        "        yield step\n"
        "        time.sleep(60 if step.number == 2 else 0)\n"
        "t.train_steps = slow\n"
        "t.run_command(t.main)\n"
    )
    run = tmp_path / "run"
    process = started(
        *PYTHON, str(script), *command(tiny_encoder, small_data, run)[2:], env={"PYTHONPATH": str(REPOSITORY)}
    )
    wait_for_step(run, 2, process)
    for wait in (0.2, 1.3):
        time.sleep(wait)
        assert process.poll() is None
        process.terminate()
    assert process.wait(10) == 128 + signal.SIGTERM
    assert not checkpoints_of(run)


@pytest.mark.slow
def test_processes_whose_launcher_is_killed_save_and_end(
    tiny_encoder: str, small_data: str, tmp_path: Path, started: Any
) -> None:
    run = tmp_path / "run"
    process = started(*LAUNCH, *command(tiny_encoder, small_data, run))
    wait_for_step(run, 3, process)
    children = _children(process.pid)
    assert children
    process.kill()
    assert psutil.wait_procs(children, timeout=60)[1] == []
    assert "the launcher is gone" in (tmp_path / "log").read_text()
    assert next(path.name for path in checkpoints_of(run)) == f"checkpoint-{read_metrics(run)[-1]['step']}"


@pytest.mark.parametrize("to", ["launcher", pytest.param("one worker", marks=pytest.mark.slow)])
def test_two_processes_stop_together(tiny_encoder: str, small_data: str, tmp_path: Path, started: Any, to: str) -> None:
    """The launcher passes SIGTERM on; a signal that reaches one process stops both after the same step."""
    run = tmp_path / "run"
    data = {"per_device_train_batch_size": 4}
    process = started(*TWO, *command(tiny_encoder, small_data, run, **data), env={"ACCELERATE_USE_CPU": "true"})
    wait_for_step(run, 3, process)
    workers = _children(process.pid)
    os.kill(process.pid if to == "launcher" else workers[-1].pid, signal.SIGTERM)
    assert process.wait(60) == 1  # the launcher's own code
    assert psutil.wait_procs(workers, timeout=10)[1] == []
    log = (tmp_path / "log").read_text()
    assert log.count("stopped after step") == 1 and "Error" not in log.replace("ChildFailedError", "")
    if to == "one worker":  # of its own signal the launcher says nothing
        assert "exitcode  : 75" in log  # the launcher ends the other one as soon as it has seen this
    (newest, *_) = checkpoints_of(run)
    assert newest.name == f"checkpoint-{read_metrics(run)[-1]['step']}"
    state = json.loads((newest / "training" / "progress.json").read_text())
    assert state["cursor"]["number"] == read_metrics(run)[-1]["step"]


def test_a_signal_after_the_launcher_is_gone_does_not_break_the_save(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler ends the launcher first and its processes at once after it."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    with StopRequests(Accelerator(cpu=True)) as requests:
        assert requests.reason(1) == 0
        monkeypatch.setattr(os, "getppid", lambda: 1)
        assert requests.reason(2) == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGTERM)  # would end this process if it counted as the second one
        assert requests.reason(3) == signal.SIGTERM


def test_handlers_come_back_and_are_not_installed_off_the_main_thread() -> None:
    accelerator = Accelerator(cpu=True)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    with StopRequests(accelerator) as requests:
        assert requests.reason(1) == 0
        os.kill(os.getpid(), signal.SIGUSR1)
        assert requests.reason(2) == signal.SIGUSR1
    assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]

    def elsewhere() -> None:
        with StopRequests(accelerator):
            assert before == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
        seen.append(True)

    seen: list[bool] = []
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [True]


@pytest.mark.slow
def test_a_worker_that_dies_is_restarted_and_goes_on(
    tiny_encoder: str, small_data: str, tmp_path: Path, started: Any
) -> None:
    """torchrun starts the group anew; with `auto` it takes up the newest checkpoint by itself."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    few = {"per_device_train_batch_size": 4, "max_steps": 30, "save_steps": 2}
    # Else torch hands the addresses of the dead processes to the new ones, and gloo cannot connect.
    environment = {"ACCELERATE_USE_CPU": "true", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    assert started(*torchrun, *command(tiny_encoder, small_data, whole, **few), env=environment).wait(120) == 0
    process = started(*torchrun, "--max_restarts", "1", *command(tiny_encoder, small_data, run, **few), env=environment)
    wait_for_step(run, 5, process)
    os.kill(_children(process.pid)[-1].pid, signal.SIGKILL)
    assert process.wait(120) == 0
    ours, theirs = ([row.get("loss") for row in read_metrics(folder)] for folder in (run, whole))
    assert ours == theirs and len(ours) == 31  # 30 losses and the test


# --- the disk -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_full_disk_leaves_the_checkpoint_before(tiny_encoder: str, small_data: str, tmp_path: Path, run: Run) -> None:
    """A limit on the size of files stands in for the disk: the weights still fit, the optimizer's state does not."""
    folder = tmp_path / "run"
    flags = command(tiny_encoder, small_data, folder, max_steps=6, save_steps=2)
    script = tmp_path / "limited.py"
    script.write_text(
        "import resource, sys\n"
        "import sentorder.run, sentorder.train as t\n"
        "original = sentorder.run.save_checkpoint\n"
        "def save(accelerator, folder, **parts):\n"
        "    if folder.name == 'checkpoint-4':\n"
        f"        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), {resource.RLIM_INFINITY}))\n"
        "    original(accelerator, folder, **parts)\n"
        "sentorder.run.save_checkpoint = save\n"
        "t.run_command(lambda: t.train(t.parse_arguments(t.TrainArguments, sys.argv[2:], program='x',\n"
        "    description='d')[0]))\n"
    )
    # Bytes: the first stops the weights, the second the optimizer's state, the others what is written in between.
    for limit in ("1000", "400000"):
        shutil.rmtree(folder, ignore_errors=True)
        # A process of its own, with pipes: the limit would hold for the files that a fork writes its output to.
        done = run(sys.executable, str(script), limit, *flags[2:], PYTHONPATH=str(REPOSITORY))
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert "checkpoint-4: the checkpoint could not be saved" in done.stderr
        assert [path.name for path in checkpoints_of(folder)] == ["checkpoint-2"]
        assert not list(folder.glob("*.new"))
        assert run("python", *flags).returncode == 0
        assert [path.name for path in checkpoints_of(folder)] == ["checkpoint-6", "checkpoint-4"]
