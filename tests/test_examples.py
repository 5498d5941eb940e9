import difflib
import json
import re
import runpy
import sys
from pathlib import Path

import mlflow
import nbformat
import pytest
import torch
from nbclient import NotebookClient
from safetensors.torch import load_file
from transformers import AutoModelForTokenClassification, AutoTokenizer, BertForTokenClassification

from sentorder import SentenceOrderer
from sentorder.data.collation import shuffle_slots
from sentorder.data.tokenization import encode_documents
from sentorder.methods import UNTRAINED
from sentorder.metrics import kendall_tau, positions_of
from tests.conftest import REPOSITORY, Run, read_metrics

SCRIPT = str(REPOSITORY / "examples" / "benchmarks" / "compare_methods.py")


@pytest.mark.slow
def test_compare_methods_goes_on_where_it_stopped(run: Run, tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    command = [
        *("python", SCRIPT, "--output_dir", "compare"),
        *("--model_name_or_path", tiny_encoder, "--dataset", small_data, "--max_steps", "2", "--screen_steps", "1"),
    ]
    names = ["regression-mean", "joint"]
    first = run(*command, "--only", *names, "--finalists", "1", "--seeds", "1", "2")
    assert first.returncode == 0, first.stderr
    folder = tmp_path / "compare"
    screen, final = (json.loads((folder / f"{table}.json").read_text()) for table in ("screen", "test"))
    assert {row["name"] for row in screen["rows"]} == {*names, *UNTRAINED}
    taus = {row["name"]: row["kendall_tau"] for row in screen["rows"]}
    finalists = list(dict.fromkeys([max(names, key=lambda name: taus[name]), "regression-mean"]))
    assert {row["name"] for row in final["rows"]} == {*finalists, *UNTRAINED}
    for row in final["rows"]:
        assert row["documents"] == 7 and row["low"] <= row["kendall_tau"] <= row["high"]
        if row["name"] in finalists:
            runs = [json.loads((folder / f"{row['name']}-{seed}/test_results.json").read_text()) for seed in (1, 2)]
            assert row["kendall_tau"] == pytest.approx(sum(scores["kendall_tau"] for scores in runs) / 2)
            assert row["seeds"] == 2 and row["memory"] > 0.1 and row["ordering_speed"] > 0
            assert (
                f"| {row['name']} | 2 | {row['kendall_tau']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
                in first.stdout
            )
    assert not (folder / "screen" / "joint" / "test_results.json").exists()  # test was not looked at
    assert (folder / "test.png").stat().st_size > 10_000 and (folder / "screen.md").read_text().startswith("| method")
    best = finalists[0]
    kept = (folder / f"{best}-1/metrics.jsonl").stat().st_mtime_ns
    (folder / f"{best}-2/run.json").unlink()
    other = run(*command, "--only", best, "--seeds", "1", "--learning_rate", "1e-3")
    assert other.returncode == 2 and f"compare/{best}-1: holds a run with other arguments" in other.stderr
    own = run(*command, "--only", best, "--pooling", "mean")
    assert own.returncode == 2 and "--pooling: is what the contestants differ in" in own.stderr
    again = run(*command, "--only", best, "--seeds", "1", "2")
    assert again.returncode == 0, again.stderr
    assert (folder / f"{best}-1/metrics.jsonl").stat().st_mtime_ns == kept
    (row,) = [row for row in json.loads((folder / "test.json").read_text())["rows"] if row["name"] == best]
    (before,) = [row for row in final["rows"] if row["name"] == best]
    assert row["by_seed"] == before["by_seed"]


@pytest.mark.slow
def test_the_default_run_learns_to_order(run: Run, tmp_path: Path) -> None:
    """A third of the default run, from the real encoder: far above chance, which is 0 with a standard error of 0.02."""
    result = run("accelerate", "launch", "-m", "sentorder.train", "--max_steps", "200", "--max_eval_documents", "200")
    assert result.returncode == 0, result.stderr
    scores = json.loads((tmp_path / "runs" / "1" / "test_results.json").read_text())
    assert scores["kendall_tau"] > 0.35 and scores["accuracy"] > 0.25
    losses = [row["loss"] for row in read_metrics(tmp_path / "runs" / "1") if "loss" in row]
    assert losses[0] == pytest.approx(5.4, abs=0.4) and sum(losses[-5:]) / 5 < 0.88 * losses[0]
    given = "It set behind the hills.\nThe sun rose.\nAt noon it stood above the roof.\n"
    ordered = run("python", "-m", "sentorder.predict", "--model_path", "runs/1/model", stdin=given)
    assert sorted(ordered.stdout.strip().splitlines()) == sorted(given.strip().splitlines())


EXAMPLES = REPOSITORY / "examples"
GLOO = REPOSITORY / "accelerate_configs" / "cpu_gloo.yaml"


def test_sentence_ordering_by_hand_is_the_run_of_the_command(
    run: Run, tiny_encoder: str, small_data: str, tmp_path: Path
) -> None:
    """The parts composed by hand end with the weights of `python -m sentorder.train`, and score as it does."""
    model, data = ["--model_name_or_path", tiny_encoder], ["--dataset", small_data]
    hand = run("python", str(EXAMPLES / "sentence_ordering.py"), *model, *data, "--output_dir", "hand")
    assert hand.returncode == 0, hand.stderr
    command = run(
        *("python", "-m", "sentorder.train", *model, *data, "--method", "pairwise", "--output_dir", "run"),
        "--no_load_best_model_at_end",
    )
    assert command.returncode == 0, command.stderr
    a, b = (load_file(tmp_path / folder / "model.safetensors") for folder in ("hand", "run/model"))
    assert a.keys() == b.keys()
    for name in a:
        assert torch.allclose(a[name], b[name], rtol=0, atol=1e-6), name
    line = next(line for line in hand.stdout.splitlines() if line.startswith("test:"))
    assert line in command.stdout.splitlines()


def changed_lines(name: str) -> int:
    """Lines of an example that sentence_ordering.py does not have, without those that say what it is about."""
    mine, theirs = (
        (EXAMPLES / file).read_text(encoding="utf-8").partition("\nimport")[2].splitlines()
        for file in (name, "sentence_ordering.py")
    )
    return sum(line.startswith("+ ") for line in difflib.ndiff(theirs, mine))


TAU = r"test: Kendall's tau (-?\d\.\d{4}) .* over 7 documents"


def example(run: Run, name: str, encoder: str, data: str, *more: str) -> str:
    """What an example printed."""
    script = str(EXAMPLES / name)
    done = run(sys.executable, script, "--model_name_or_path", encoder, "--dataset", data, *more)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_tutorials_system_is_a_plain_token_classifier(
    run: Run, tiny_encoder: str, small_data: str, tmp_path: Path
) -> None:
    printed = example(run, "token_classification_regression.py", tiny_encoder, small_data, "--output_dir", "t")
    assert re.search(TAU, printed)
    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "t")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "t")
    assert type(model) is BertForTokenClassification and model.num_labels == 1
    # By hand: read each sentence's position at its marker, and sort.
    taus = []
    for line in Path(dict(part.split("=") for part in small_data.split(","))["test"]).read_text().splitlines():
        sentences = json.loads(line)["sentences"]
        ids = encode_documents([sentences], tokenizer, 512)["sentence_ids"][0]  # cut, as some of these are too long
        slots = shuffle_slots(ids, 42, 0)
        text = torch.tensor([[token for slot in slots for token in (tokenizer.cls_token_id, *ids[slot])]])
        with torch.no_grad():
            logits = model(input_ids=text).logits[0, :, 0]
        order = [slots[slot] for slot in logits[text[0] == tokenizer.cls_token_id].argsort()]
        taus.append(kendall_tau(positions_of(order), range(len(order))))
    (found,) = re.findall(TAU, printed)
    assert float(found) == pytest.approx(sum(taus) / len(taus), abs=1e-4)


def test_trainer_and_the_loop_have_the_same_losses(run: Run, tiny_encoder: str, small_data: str) -> None:
    # Across the end of an epoch, whose last step has five documents.
    printed = example(run, "trainer_side_by_side.py", tiny_encoder, small_data, "--max_steps", "7").splitlines()
    rows = [line.split() for line in printed[printed.index("step    Trainer  train_steps") + 1 : -1]]
    assert len(rows) == 7
    for _, theirs, ours in rows:
        assert float(theirs) == pytest.approx(float(ours), abs=2e-6)
    assert len({ours for _, _, ours in rows}) == 7
    assert float(printed[-1].rpartition(" ")[2]) < 1e-6


def test_another_optimizer_without_a_schedule(run: Run, tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    assert changed_lines("adam_without_scheduler.py") <= 6
    printed = example(run, "adam_without_scheduler.py", tiny_encoder, small_data, "--output_dir", "adam")
    assert re.search(TAU, printed)
    assert SentenceOrderer.from_pretrained(tmp_path / "adam").order([["a", "b"]])


@pytest.mark.slow
def test_a_moving_average(run: Run, tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    assert changed_lines("ema.py") <= 12
    by_hand = example(run, "sentence_ordering.py", tiny_encoder, small_data, "--output_dir", "hand")
    nothing_kept = example(run, "ema.py", tiny_encoder, small_data, "--output_dir", "now", "--decay", "0")
    assert nothing_kept == by_hand
    example(run, "ema.py", tiny_encoder, small_data, "--output_dir", "ema", "--decay", "0.5")
    hand, now, ema = (load_file(tmp_path / folder / "model.safetensors") for folder in ("hand", "now", "ema"))
    assert all(torch.equal(hand[name], now[name]) for name in hand)
    assert not any(torch.equal(hand[name], ema[name]) for name in hand if name.endswith("query.weight"))


@pytest.mark.slow
def test_adapters(run: Run, tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    assert changed_lines("lora.py") <= 12
    printed = example(run, "lora.py", tiny_encoder, small_data, "--output_dir", "lora", "--rank", "4")
    assert re.search(TAU, printed) and re.search(r"^[\d,]+ of [\d,]+ parameters learn$", printed, re.MULTILINE)
    before, after = load_file(Path(tiny_encoder) / "model.safetensors"), load_file(tmp_path / "lora/model.safetensors")
    after = {name.removeprefix("backbone.encoder."): values for name, values in after.items()}
    changed = {name for name in before if name in after and not torch.equal(before[name], after[name])}
    assert changed and all(name.endswith(".dense.weight") or "attention.self" in name for name in changed)
    assert SentenceOrderer.from_pretrained(tmp_path / "lora").order([["a", "b"]])


@pytest.mark.slow
def test_two_tasks_on_one_process_and_on_two(run: Run, tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    arguments = ("--model_name_or_path", tiny_encoder, "--dataset", small_data)
    start = ("accelerate", "launch", "--config_file", str(GLOO), "--main_process_port", "29542")
    script = str(EXAMPLES / "multitask.py")
    one = run(sys.executable, script, *arguments, "--output_dir", "one")
    two = run(*start, script, *arguments, "--output_dir", "two", ACCELERATE_USE_CPU="true")
    assert one.returncode == 0 and two.returncode == 0, one.stderr + two.stderr
    assert "pairs told apart" in one.stdout and one.stdout == two.stdout
    a, b = (load_file(tmp_path / folder / "model.safetensors") for folder in ("one", "two"))
    assert all(torch.allclose(a[name], b[name], rtol=0, atol=1e-5) for name in a)


@pytest.mark.slow
def test_a_search_goes_on_where_it_was_stopped(run: Run, tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    data = small_data.rpartition(",")[0]  # without test
    arguments = ("--max_steps", "1", "--output_dir", "search")
    first = example(run, "hyperparameter_search.py", tiny_encoder, data, *arguments, "--trials", "1")
    assert first.splitlines()[-1].startswith("best of 1 trials: validation tau ")
    again = example(run, "hyperparameter_search.py", tiny_encoder, data, *arguments, "--trials", "2")
    assert again.splitlines()[-1].startswith("best of 2 trials: validation tau ")
    results = [json.loads((tmp_path / f"search/trial-{number}/result.json").read_text()) for number in (0, 1)]
    best = max(result["validation"]["kendall_tau"] for result in results)
    assert f"validation tau {best:.4f} with" in again


@pytest.mark.slow
def test_a_run_of_mlflow_holds_everything(run: Run, tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    script = str(EXAMPLES / "mlflow_run.py")
    arguments = ("--model_name_or_path", tiny_encoder, "--dataset", small_data, "--max_steps", "3")
    done = run(sys.executable, script, *arguments, "--output_dir", "out", MLFLOW_TRACKING_URI=store)
    assert done.returncode == 0, done.stderr
    client = mlflow.MlflowClient(store)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    (logged,) = client.search_runs(experiments)
    assert logged.info.status == "FINISHED" and logged.data.tags["purpose"] == "an example"
    assert logged.data.params["max_steps"] == "3" and "kept_step" in logged.data.params
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert logged.data.metrics["test_kendall_tau"] == pytest.approx(result["test"]["kendall_tau"])
    assert {"test_kendall_tau_short", "test_kendall_tau_long", "loss"} <= logged.data.metrics.keys()


@pytest.mark.slow
def test_prediction_from_python(run: Run, model_path: str) -> None:
    done = run(sys.executable, str(EXAMPLES / "predict_api.py"), "--model_path", model_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("confidence") == 5 and "in pieces of three: [" in done.stdout


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_mrpc(run: Run, tiny_encoder: str, tmp_path: Path, processes: int) -> None:
    for split, size in (("train", 40), ("validation", 13)):  # 13 do not divide evenly
        rows = [
            {"sentence1": "the old dog slept " * (1 + i % 5), "sentence2": "a dog slept", "label": i % 2, "idx": i}
            for i in range(size)
        ]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    # Started from nothing: Arrow's threads for reading JSON lines do not survive a fork.
    start = [sys.executable] if processes == 1 else ["accelerate", "launch", "--config_file", str(GLOO)]
    port = [] if processes == 1 else ["--main_process_port", "29541"]
    result = run(
        *start,
        *port,
        str(EXAMPLES / "mrpc_classification.py"),
        *("--data_dir", str(tmp_path), "--metric", str(EXAMPLES / "accuracy_and_f1.py")),
        *("--model_name_or_path", tiny_encoder, "--per_device_batch_size", "4", "--num_train_epochs", "2"),
        ACCELERATE_USE_CPU="true",
    )
    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if line.startswith("epoch")]
    assert len(lines) == 2
    for number, line in enumerate(lines):
        found = re.fullmatch(r"epoch (\d): accuracy (\S+), f1 (\S+) over 13 pairs", line)
        assert found and int(found[1]) == number
        assert (float(found[2]) * 13) == pytest.approx(round(float(found[2]) * 13), abs=1e-3)
        assert 0 <= float(found[3]) <= 1


def test_the_local_metric() -> None:
    # The examples load it by evaluate.load, which fails for a second local metric within the same second.
    metric = runpy.run_path(str(EXAMPLES / "accuracy_and_f1.py"))["AccuracyAndF1"](keep_in_memory=True)
    assert metric.compute(predictions=[1, 1, 0, 0, 1], references=[1, 0, 1, 0, 1]) == {
        "accuracy": pytest.approx(0.6),
        "f1": pytest.approx(2 / 3),
    }
    assert metric.compute(predictions=[0, 0], references=[1, 0]) == {"accuracy": 0.5, "f1": 0.0}


def test_a_model_and_a_loss_of_ones_own(run: Run) -> None:
    result = run("python", str(EXAMPLES / "custom_model_and_loss.py"))
    assert result.returncode == 0, result.stderr
    found = re.fullmatch(r"F1 (\S+), accuracy (\S+) over (\d+) sentences\n", result.stdout)
    assert found and int(found[3]) > 2000
    assert float(found[1]) > 0.4  # to call everything an opening gives 0.29


@pytest.mark.parametrize("kills", [1, pytest.param(50, marks=pytest.mark.slow)])
def test_kills_cost_nothing(run: Run, kills: int) -> None:
    script = str(EXAMPLES / "benchmarks" / "kill_and_resume.py")
    result = run(sys.executable, script, "--kills", str(kills), "--max_steps", "40")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("is safe") == kills
    assert "every run ended bit-equal to the untouched one" in result.stdout


@pytest.mark.slow
def test_the_benchmark_of_many_documents(run: Run) -> None:
    result = run(sys.executable, str(EXAMPLES / "benchmarks" / "data_scale.py"), "40", "60")
    assert result.returncode == 0, result.stderr
    rows = [line.split(" | ") for line in result.stdout.splitlines()[2:]]
    assert [row[0] for row in rows] == ["| 40"] * 6 + ["| 60"] * 6
    assert all(float(row[5].replace(",", "")) > 50 for row in rows)


@pytest.mark.slow
def test_the_benchmark_of_long_documents(run: Run, tmp_path: Path) -> None:
    script = str(EXAMPLES / "benchmarks" / "length_scale.py")
    pieces = ("--method", "regression", "--backbone", "joint", "--piece_length", "8")
    for more in (pieces, ("--tokens", "16", "--training", "--picture", "curve.png")):
        result = run(sys.executable, script, "6", "40", *more)
        assert result.returncode == 0, result.stderr
        rows = [line.strip("| ").split(" | ") for line in result.stdout.splitlines()[2:]]
        assert [row[0] for row in rows] == ["6", "40"]
        assert all(float(row[2]) >= float(row[3]) >= 0 and float(row[-2]) >= float(row[-1]) > 50 for row in rows)
    assert [row[1] for row in rows] == ["96", "640"]
    assert 0 < float(rows[0][4]) < float(rows[1][4])
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_notebook_runs_from_its_first_cell_to_its_last(tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    notebook = nbformat.read(EXAMPLES / "colab.ipynb", as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:  # the same cells, on less
        small = f"TrainArguments(max_steps=3, model_name_or_path={tiny_encoder!r}, dataset={small_data!r}, "
        cell.source = cell.source.replace("TrainArguments(o", small + "o")
        cell.source = cell.source.replace('-q "./sentorder', f'--dry-run --no-deps "{REPOSITORY}')
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output.output_type == "error"]
    assert sum("image/png" in output.get("data", ()) for output in outputs) == 1
    printed = "".join(output.get("text", "") for output in outputs)
    assert "She struck a match." in printed and "confidence 0." in printed
    assert "'kendall_tau':" in outputs[-1].data["text/plain"]
