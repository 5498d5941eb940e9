"""Kill training with `kill -9` at random moments, half of them inside a save, and see whether it ever loses anything.

    python examples/benchmarks/kill_and_resume.py --kills 50

Each start goes on by itself (``--resume_from_checkpoint auto``). After each kill the newest whole checkpoint must be no
older than the one before, and no more steps may be lost than lie between two checkpoints. When a run gets to its end,
its log, weights and optimizer state must equal those of a run that nobody has touched, bit by bit. Then the next run
begins, until there were enough kills. A small random encoder is used, because the killing is what is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from sentorder import TrainArguments, UserError
from sentorder.checkpoint import check_checkpoint, checkpoints_of
from sentorder.encoders import load_tokenizer, resolve_encoder
from sentorder.train import train

SAVE_STEPS = 3


def small_encoder(folder: Path) -> None:
    """A random BERT with the tokenizer of the default encoder."""
    tokenizer = load_tokenizer(resolve_encoder(None).path)
    tokenizer.save_pretrained(folder)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(tokenizer), **size)).save_pretrained(folder)


def start(task: Callable[[], object], log: Path) -> int:
    """Run a task in a process of its own, which has imported everything already; its number."""
    child = os.fork()
    if child:
        return child
    for number in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    code = 1
    try:
        task()
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


def end_of(child: int) -> int | None:
    """The exit status of a process, None while it runs."""
    done, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def run_to_the_end(task: Callable[[], object], log: Path) -> None:
    status = os.waitstatus_to_exitcode(os.waitpid(start(task, log), 0)[1])
    if status:
        raise SystemExit(f"a run that nobody has touched failed with {status}:\n{log.read_text()[-3000:]}")


def newest_step(run: Path) -> int:
    """The step of the newest whole checkpoint, 0 without one."""
    for folder in checkpoints_of(run):
        try:
            return int(check_checkpoint(folder)["cursor"]["number"])
        except UserError:
            continue
    return 0


def log_of(run: Path) -> list[dict[str, float]]:
    """All that is logged but the speed, without a line that was torn off."""
    path = run / "metrics.jsonl"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    rows = [json.loads(line) for line in lines]
    return [{name: value for name, value in row.items() if name != "documents_per_second"} for row in rows]


def differences(run: Path, whole: Path) -> list[str]:
    """What is not the same in two finished runs."""
    found = ["log"] if log_of(run) != log_of(whole) else []
    last = [checkpoints_of(folder)[0] for folder in (run, whole)]
    if last[0].name != last[1].name:
        return [*found, "last checkpoint"]
    for name, folders in (("model", (run / "model", whole / "model")), ("last model", tuple(last))):
        one, other = (load_file(folder / "model.safetensors") for folder in folders)
        found += [f"{name}: {key}" for key in one if not torch.equal(one[key], other[key])]
    states = [torch.load(folder / "training" / "state.pt", weights_only=True)["optimizer"]["state"] for folder in last]
    for number, moments in states[0].items():
        found += [f"optimizer: {number}" for key in moments if not torch.equal(moments[key], states[1][number][key])]
    return found


def kill_once(task: Callable[[], object], run: Path, log: Path, inside_a_save: bool) -> str | None:
    """Start, and kill at some moment: in training, or while a checkpoint is being written.

    Returns:
        Where that was; None if the run came to its end before.
    """
    for half in run.glob("checkpoint-*.new"):
        shutil.rmtree(half)  # left by the kill before: a run would do the same
    newest, before = newest_step(run), log_identity(run)
    child = start(task, log)
    began = time.monotonic()
    while (status := end_of(child)) is None:
        if time.monotonic() - began > 120:
            os.kill(child, signal.SIGKILL)
            raise SystemExit(f"a run hung:\n{log.read_text()[-3000:]}")
        # Going on sets the log back, so it is another file; training has begun when it then says more.
        trains = log_identity(run) != before and last_step(run) > newest
        if trains and (any(run.glob("checkpoint-*.new")) if inside_a_save else True):
            time.sleep(random.uniform(0, 0.02 if inside_a_save else 0.3))
            if end_of(child) is not None:
                return None
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "inside a save" if any(run.glob("checkpoint-*.new")) else "between saves"
        time.sleep(0.0005)
    if status:
        raise SystemExit(f"a restart failed with {status}:\n{log.read_text()[-3000:]}")
    return None


def log_identity(run: Path) -> int | None:
    path = run / "metrics.jsonl"
    return path.stat().st_ino if path.exists() else None


def last_step(run: Path) -> int:
    return max((int(row["step"]) for row in log_of(run)), default=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="How many (default: 50).")
    parser.add_argument("--max_steps", type=int, default=150, help="Of each run (default: 150).")
    parser.add_argument("--seed", type=int, default=0, help="Of the moments (default: 0).")
    options = parser.parse_args()
    random.seed(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        log = folder / "log"
        run_to_the_end(lambda: small_encoder(folder / "encoder"), log)

        def training(name: str) -> Callable[[], object]:
            arguments = TrainArguments(
                model_name_or_path=str(folder / "encoder"),
                output_dir=str(folder / name),
                resume_from_checkpoint="auto",
                max_steps=options.max_steps,
                max_train_documents=100,
                max_eval_documents=20,
                eval_strategy="steps",
                eval_steps=20,
                save_strategy="steps",
                save_steps=SAVE_STEPS,
                logging_steps=1,
                dropout=0.1,
                cpu_threads=1,
            )
            return lambda: train(arguments)

        run_to_the_end(training("whole"), log)
        kills, in_saves, runs, most_lost, began = 0, 0, 0, 0, time.monotonic()
        while kills < options.kills:
            runs += 1
            name = f"run-{runs}"
            newest = 0
            while True:
                if kills == options.kills:
                    run_to_the_end(training(name), log)
                elif where := kill_once(training(name), folder / name, log, inside_a_save=kills % 2 == 1):
                    kills += 1
                    in_saves += where == "inside a save"
                    before, newest = newest, newest_step(folder / name)
                    reached = last_step(folder / name)
                    if newest < before:
                        raise SystemExit(
                            f"after kill {kills} the newest checkpoint is {newest}, before it was {before}"
                        )
                    if reached - newest > SAVE_STEPS:
                        raise SystemExit(f"kill {kills} lost {reached - newest} steps: {newest} of {reached} are left")
                    most_lost = max(most_lost, reached - newest)
                    print(f"kill {kills}: {where}, at step {reached}; step {newest} is safe", flush=True)
                    continue
                found = differences(folder / name, folder / "whole")
                if found:
                    raise SystemExit(f"run {runs} is not what it would have been: {', '.join(found)}")
                break
        if in_saves < options.kills // 4:
            raise SystemExit(f"only {in_saves} of {kills} kills came inside a save: that shows too little")
        print(
            f"{kills} kills, {in_saves} of them inside a save, in {runs} runs and {time.monotonic() - began:.0f} s: "
            f"at most {most_lost} steps were done again, and every run ended bit-equal to the untouched one."
        )


if __name__ == "__main__":
    main()
