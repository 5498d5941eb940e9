"""The commands as a user types them, each in a process of its own."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import ClusterConfig
from safetensors.torch import load_file

from sentorder import SentenceOrderer
from sentorder.predict import main as predict_main
from tests.conftest import REPOSITORY, Run, read_metrics

CONFIGS = REPOSITORY / "accelerate_configs"


def train_command(encoder: str, data: str, folder: Path, *more: str, config: str = "cpu.yaml") -> list[str]:
    return [
        *("accelerate", "launch", "--config_file", str(CONFIGS / config), "-m", "sentorder.train"),
        *("--model_name_or_path", encoder, "--dataset", data, "--output_dir", str(folder)),
        *("--learning_rate", "1e-3", "--max_steps", "7", "--logging_steps", "1", *more),
    ]


def one_process(command: list[str]) -> list[str]:
    """The same command without a launcher, which takes seconds to start."""
    return ["python", *command[command.index("-m") :]]


CUTS = {"accumulated": ("4", "2", 1), "processes": ("4", "1", 2), "both": ("2", "2", 2)}
"""Documents per micro-batch, micro-batches, processes; together always 8."""


@pytest.mark.parametrize(
    ("method", "backbone", "cuts"),
    [
        pytest.param("regression", "restarted", ("both",), marks=pytest.mark.slow),
        pytest.param("pairwise", "joint", ("processes", "both"), marks=pytest.mark.slow),
        ("joint", "hierarchical", ("accumulated", "both")),
    ],
)
def test_the_same_numbers_however_a_step_is_cut_up(
    run: Run, tiny_encoder: str, small_data: str, tmp_path: Path, method: str, backbone: str, cuts: tuple[str, ...]
) -> None:
    """Ragged documents, and a short last step (21 = 8 + 8 + 5): the same losses, rates, weights and predictions."""
    for name, (per_device, accumulation, processes) in {"whole": ("8", "1", 1), **CUTS}.items():
        if name not in ("whole", *cuts):
            continue
        more = ["--per_device_train_batch_size", per_device, "--gradient_accumulation_steps", accumulation]
        more += ["--method", method, "--backbone", backbone]
        command = train_command(tiny_encoder, small_data, tmp_path / name, *more, config="cpu_gloo.yaml")
        result = run(*(command if processes > 1 else one_process(command)))
        assert result.returncode == 0, result.stderr
        assert f"{processes} process{'es' * (processes > 1)} on cpu" in result.stderr
    whole, predictions = read_metrics(tmp_path / "whole"), (tmp_path / "whole" / "predictions.jsonl").read_text()
    weights = load_file(tmp_path / "whole" / "checkpoint-7" / "model.safetensors")
    for name in cuts:
        rows = read_metrics(tmp_path / name)
        assert len(rows) == len(whole)
        for ours, theirs in zip(rows, whole, strict=True):
            assert ours["step"] == theirs["step"] and ours.keys() == theirs.keys()
            if "loss" in theirs:
                assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-6)
                assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-4)
                assert ours["learning_rate"] == theirs["learning_rate"]
            elif "eval_loss" in theirs:
                assert ours["eval_documents"] == 9
                assert ours["eval_loss"] == pytest.approx(theirs["eval_loss"], rel=1e-4)
        for key, tensor in load_file(tmp_path / name / "checkpoint-7" / "model.safetensors").items():
            # The true gradient of a key's bias is zero, and Adam makes steps of what rounding leaves of it.
            # Of many small terms, as in four losses together, more is left (float64 is exact: test_train.py).
            tolerance = 1e-2 if key.endswith(("key.bias", "in_proj_bias")) else 1e-5 if method != "joint" else 1e-4
            assert torch.allclose(tensor, weights[key], rtol=0, atol=tolerance), (name, key)
        ids = [json.loads(line)["id"] for line in (tmp_path / name / "predictions.jsonl").read_text().splitlines()]
        assert ids == [json.loads(line)["id"] for line in predictions.splitlines()]


@pytest.mark.slow
def test_two_processes_go_on_where_they_were(run: Run, tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    """With dropout, bit by bit; another number of processes is refused then, and exact without dropout."""
    for dropout in ("0.2", "0.0"):
        whole, folder, alone = (tmp_path / f"{name}{dropout}" for name in ("whole", "run", "alone"))
        more = ["--per_device_train_batch_size", "4", "--dropout", dropout, "--save_total_limit", "9"]
        more += ["--save_strategy", "steps", "--save_steps", "1", "--eval_strategy", "no"]
        result = run(*train_command(tiny_encoder, small_data, whole, *more, config="cpu_gloo.yaml"))
        assert result.returncode == 0, result.stderr
        for copy in (folder, alone):
            shutil.copytree(whole, copy)
            (copy / "result.json").unlink()
            for step in (5, 6, 7):
                shutil.rmtree(copy / f"checkpoint-{step}")
        auto = ["--resume_from_checkpoint", "auto"]
        if dropout != "0.0":
            result = run(*train_command(tiny_encoder, small_data, folder, *more, *auto, config="cpu_gloo.yaml"))
            assert result.returncode == 0, result.stderr
            losses = [[row.get("loss") for row in read_metrics(place)] for place in (folder, whole)]
            assert losses[0] == losses[1]
            ours, theirs = (load_file(place / "model" / "model.safetensors") for place in (folder, whole))
            assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
        more[1] = "8"
        result = run(*one_process(train_command(tiny_encoder, small_data, alone, *more, *auto)))
        if dropout != "0.0":
            assert result.returncode == 2 and "processes: was 2, is 1" in result.stderr
        else:
            assert result.returncode == 0, result.stderr
            a, b = ([row["loss"] for row in read_metrics(place) if "loss" in row] for place in (alone, whole))
            assert len(a) == 7 and a == pytest.approx(b, rel=1e-6)


def test_a_loss_that_is_not_finite_on_one_process_stops_both(
    run: Run, tiny_encoder: str, small_data: str, tmp_path: Path
) -> None:
    script = tmp_path / "poisoned.py"
    script.write_text(
        "import math, os\n"
        "import sentorder.train as t\n"
        "from sentorder.methods import METHODS\n"
        "import dataclasses\n"
        "row, calls = METHODS['pairwise'], 0\n"
        "def loss(output, batch):\n"
        "    global calls\n"
        "    values = row.loss(output, batch)\n"
        "    calls += output.pair_logits.requires_grad\n"
        "    return values * math.nan if calls == 5 and os.environ['RANK'] == '1' else values\n"
        "METHODS['pairwise'] = dataclasses.replace(row, loss=loss)\n"
        "t.run_command(t.main)\n"
    )
    command = train_command(tiny_encoder, small_data, tmp_path / "run", config="cpu_gloo.yaml")
    place = command.index("-m")
    command[place : place + 2] = [str(script)]
    more = ["--per_device_train_batch_size", "4", "--save_strategy", "steps", "--save_steps", "2"]
    more += ["--method", "pairwise"]
    result = run(*command, *more, PYTHONPATH=str(REPOSITORY))
    assert result.returncode == 1  # the launcher's; that of each process was 3
    assert "exitcode  : 3" in result.stderr
    assert "Step 5: the loss is nan" in result.stderr and "Its documents: procedure-b-0176, " in result.stderr
    assert f"The last checkpoint is {tmp_path / 'run' / 'checkpoint-4'}." in result.stderr
    assert [row["step"] for row in read_metrics(tmp_path / "run") if "loss" in row] == [1, 2, 3, 4]


@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.slow), 7])
def test_evaluation_counts_every_document_once_for_any_number_of_processes(
    run: Run, model_path: str, small_data: str, tmp_path: Path, count: int
) -> None:
    """Also with fewer documents than processes, and with a short last batch."""
    results = []
    for name in ("one", "two"):
        command = [
            *("accelerate", "launch", "--config_file", str(CONFIGS / "cpu_gloo.yaml"), "-m", "sentorder.evaluation"),
            *("--model_path", model_path, "--dataset", small_data, "--output_dir", str(tmp_path / name)),
            *("--max_eval_documents", str(count), "--per_device_eval_batch_size", "2"),
        ]
        result = run(*(one_process(command) if name == "one" else command))
        assert result.returncode == 0, result.stderr
        assert result.stdout.count(f"over {count} documents") == 1
        scores = json.loads((tmp_path / name / "results.json").read_text())
        assert scores.pop("documents_per_second") > 0 and scores.pop("passes") == 1 and scores.pop("notes") == []
        results.append((scores, (tmp_path / name / "predictions.jsonl").read_text()))
    (one, one_predictions), (two, two_predictions) = results
    assert one_predictions == two_predictions and len(one_predictions.splitlines()) == count
    assert one == {name: pytest.approx(value, rel=1e-6 if name == "loss" else 1e-12) for name, value in two.items()}


@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.slow), 6])
def test_two_processes_predict_every_document_once_and_in_order(
    run: Run, model_path: str, small_data: str, tmp_path: Path, count: int
) -> None:
    lines = Path(small_data.split("test=")[1]).read_text().splitlines()[:count]
    command = ["-m", "sentorder.predict", "--model_path", model_path]
    launch = ["accelerate", "launch", "--config_file", str(CONFIGS / "cpu_gloo.yaml")]
    one, two = (run(*start, *command, stdin="\n".join(lines) + "\n") for start in (["python"], launch))
    assert one.returncode == two.returncode == 0, two.stderr
    a, b = ([json.loads(line) for line in result.stdout.splitlines()] for result in (one, two))
    assert [row["id"] for row in b] == [json.loads(line)["id"] for line in lines]
    assert [(row["id"], row["order"]) for row in a] == [(row["id"], row["order"]) for row in b]


def test_two_processes_that_know_nothing_of_each_other_are_stopped(
    run: Run, tiny_encoder: str, small_data: str
) -> None:
    """What a launcher does that starts copies of a program instead of a group."""
    code = (
        "import accelerate.state as s; s.PartialState(); "  # as if somebody had made one process the whole world
        "import os; os.environ['WORLD_SIZE'] = '2'; "
        "import sys; sys.argv = ['train', '--model_name_or_path', %r, '--dataset', %r]; "
        "from sentorder.command_line import run_command; from sentorder.train import main; run_command(main)"
    )
    result = run("python", "-c", code % (tiny_encoder, small_data))
    assert result.returncode == 2 and "would train its own model" in result.stderr


@pytest.mark.slow
def test_what_accelerate_config_default_writes(run: Run, tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    written = tmp_path / "default.yaml"
    assert run("accelerate", "config", "default", "--config_file", str(written)).returncode == 0
    command = train_command(tiny_encoder, small_data, tmp_path / "run", "--max_steps", "2")
    command[command.index("--config_file") + 1] = str(written)
    result = run(*command, ACCELERATE_USE_CPU="true")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()


@pytest.mark.slow
def test_both_cores_are_used_whatever_the_launcher_sets(
    run: Run, tiny_encoder: str, small_data: str, tmp_path: Path
) -> None:
    import psutil

    result = run(*train_command(tiny_encoder, small_data, tmp_path / "run", "--max_steps", "1"), OMP_NUM_THREADS="1")
    assert f"({psutil.cpu_count(logical=False)} threads)" in result.stderr
    alone = train_command(tiny_encoder, small_data, tmp_path / "one", "--max_steps", "1", "--cpu_threads", "1")
    result = run(*one_process(alone))
    assert "(1 threads)" in result.stderr


@pytest.mark.slow
def test_notebook_launcher(run: Run, tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    """In a clean process, as in a fresh notebook, and twice, as in any other."""
    code = f"""
from accelerate import notebook_launcher
from sentorder import TrainArguments
from sentorder.train import train
for number in (1, 2):
    arguments = TrainArguments(model_name_or_path={tiny_encoder!r}, dataset={small_data!r}, max_steps=2,
                               mixed_precision="bf16", output_dir=f"run-{{number}}")
    notebook_launcher(train, (arguments,), num_processes=1)
"""
    result = run("python", "-c", code)
    assert result.returncode == 0, result.stderr
    losses = [[row.get("loss") for row in read_metrics(tmp_path / f"run-{number}")] for number in (1, 2)]
    assert losses[0] == losses[1] and losses[0]
    assert yaml.safe_load((tmp_path / "run-1" / "arguments.yaml").read_text())["mixed_precision"] == "bf16"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_configurations_parse_and_say_how_to_start_them(path: Path) -> None:
    ClusterConfig.from_yaml_file(str(path))
    head = path.read_text().partition("compute_environment")[0]
    assert f"accelerate launch --config_file accelerate_configs/{path.name}" in head
    assert ("Run in the tests of this project." in head) != ("Never run by this project" in head)


# --- prediction -----------------------------------------------------------------------------------------------------


BLOCKS = "The sun rose.\nIt set.\nNoon came.\n\n\nOne.\n  Two.  \n"


def test_predict_text_from_standard_input(run: Run, model_path: str) -> None:
    result = run("python", "-m", "sentorder.predict", "--model_path", model_path, stdin=BLOCKS)
    assert result.returncode == 0, result.stderr
    first, second = (block.splitlines() for block in result.stdout.strip().split("\n\n"))
    assert sorted(first) == sorted(["The sun rose.", "It set.", "Noon came."]) and sorted(second) == ["One.", "Two."]
    windows = run(
        "python", "-m", "sentorder.predict", "--model_path", model_path, "-",
        stdin=b"\xef\xbb\xbf" + BLOCKS.replace("\n", "\r\n").encode(),
    )  # fmt: skip
    assert windows.stdout == result.stdout
    assert result.stderr == ""


def test_predict_json_lines_from_a_file(run: Run, model_path: str, tmp_path: Path) -> None:
    rows = [{"id": "x", "sentences": ["c d", "ä", "مرحبا 🙂"]}, {"sentences": ["only one"]}]
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    result = run("python", "-m", "sentorder.predict", "--model_path", model_path, str(path))
    assert result.returncode == 0, result.stderr
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["id"] for row in found] == ["x", "in-2"]
    for given, row in zip(rows, found, strict=True):
        assert sorted(row["order"]) == list(range(len(given["sentences"])))
        assert [given["sentences"][i] for i in row["order"]] == row["sentences"]
        assert 0.0 <= row["confidence"] <= 1.0


@pytest.mark.parametrize("separator", [" <eos> ", "\t"])
def test_predict_answers_in_the_layout_of_its_input(run: Run, model_path: str, separator: str) -> None:
    given = [["c d", "a", "b"], ["one", "two"]]
    stdin = "".join(separator.join(sentences) + "\n" for sentences in given)
    result = run("python", "-m", "sentorder.predict", "--model_path", model_path, stdin=stdin)
    assert result.returncode == 0, result.stderr
    assert [sorted(line.split(separator)) for line in result.stdout.splitlines()] == [sorted(row) for row in given]


def test_predict_rates_the_given_order(run: Run, tiny_encoder: str, tmp_path: Path) -> None:
    model = SentenceOrderer.from_encoder(tiny_encoder, method="pointer")
    model.save_pretrained(tmp_path / "model")
    best = model.order([["The sun rose.", "It set.", "Noon came."]])[0]
    texts = [best.sentences, best.sentences[::-1], ["Alone."]]
    command = ("python", "-m", "sentorder.predict", "--model_path", str(tmp_path / "model"), "--score")
    result = run(*command, stdin="".join(json.dumps({"sentences": text}) + "\n" for text in texts))
    assert result.returncode == 0, result.stderr
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["tau"] for row in rows] == [1.0, -1.0, None]
    assert rows[0]["log_likelihood"] == pytest.approx(best.score, abs=1e-4) and rows[2]["log_likelihood"] == 0.0
    assert rows[1]["log_likelihood"] < rows[0]["log_likelihood"] and rows[1]["order"] == [2, 1, 0]
    result = run(*command, stdin="\n\n".join("\n".join(text) for text in texts))
    table = [line.split("\t") for line in result.stdout.splitlines()]
    assert table[0] == ["tau", "log_likelihood", "confidence", "document"]
    assert [row[0] for row in table[1:]] == ["1.0000", "-1.0000", "-"] and table[3][3] == "Alone."


def test_predict_takes_the_cpu_where_torch_knows_of_gpus_but_there_is_none(
    model_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a CUDA build of torch answers on a machine without a GPU."""
    monkeypatch.setattr(
        torch.accelerator, "current_accelerator", lambda check_available=False: None if check_available else "cuda:0"
    )
    (tmp_path / "two.txt").write_text("One.\nTwo.\n")
    monkeypatch.setattr(sys, "argv", ["predict", "--model_path", model_path, str(tmp_path / "two.txt")])
    predict_main()
    assert sorted(capsys.readouterr().out.splitlines()) == ["One.", "Two."]


def test_predict_gives_several_orders(run: Run, model_path: str) -> None:
    command = ("python", "-m", "sentorder.predict", "--model_path", model_path, "--num_best", "3")
    result = run(*command, stdin=BLOCKS)
    assert result.returncode == 0, result.stderr
    three, two = (json.loads(line)["orders"] for line in result.stdout.splitlines())
    assert len(three) == 3 and len(two) == 2  # two sentences have no third order
    assert [row["score"] for row in three] == sorted((row["score"] for row in three), reverse=True)
    assert len({tuple(row["order"]) for row in three}) == 3


def test_several_passes_and_other_decoders(run: Run, tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    """The flags do what the methods of a model do; each pass is counted."""
    data = small_data.split("test=")[1]
    texts = [json.loads(line)["sentences"] for line in Path(data).read_text().splitlines()]
    model_path = str(tmp_path / "joint")
    model = SentenceOrderer.from_encoder(tiny_encoder, backbone="joint", dropout=0.0).eval()
    model.save_pretrained(model_path)
    model.set_decoding(num_permutations=3, num_refeeds=1, decoder="borda")
    expected = [found.order for found in model.order(texts)]
    flags = ("--num_permutations", "3", "--num_refeeds", "1", "--decoder", "borda")
    found = run("python", "-m", "sentorder.predict", "--model_path", model_path, data, *flags)
    assert [json.loads(line)["order"] for line in found.stdout.splitlines()] == expected
    evaluated = run(
        *("python", "-m", "sentorder.evaluation", "--model_path", model_path, "--dataset", data),
        *(*flags, "--output_dir", "out"),
    )
    assert "4 passes of the encoder" in evaluated.stderr, evaluated.stderr
    rows = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert [row["order"] for row in rows] == expected
    assert json.loads((tmp_path / "out" / "results.json").read_text())["passes"] == 4


@pytest.mark.parametrize("floor", ["as-shuffled", "random", "similarity"])
def test_the_floors_can_be_scored_without_training(run: Run, tiny_encoder: str, floor: str) -> None:
    result = run(
        *("python", "-m", "sentorder.evaluation", "--untrained", floor, "--model_path", tiny_encoder),
        *("--split", "validation"),
    )
    assert result.returncode == 0, result.stderr
    tau = float(result.stdout.split("Kendall's tau ")[1].split()[0])
    assert abs(tau) < 0.1 and "over 451 documents" in result.stdout


def test_fixed_shapes_give_the_same_numbers(run: Run, tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    sizes = [
        "--backbone",
        "joint",
        "--max_length",
        "256",
        "--per_device_train_batch_size",
        "8",
        "--per_device_eval_batch_size",
        "4",
    ]
    for name, more in (("plain", []), ("fixed", ["--pad_to_max_length"])):
        result = run("python", *train_command(tiny_encoder, small_data, tmp_path / name, *sizes, *more)[4:])
        assert result.returncode == 0, result.stderr
    plain, fixed = read_metrics(tmp_path / "plain"), read_metrics(tmp_path / "fixed")
    for row, padded in zip(plain, fixed, strict=True):
        assert row.keys() == padded.keys()
        for name in row.keys() & {"loss", "eval_loss", "eval_documents", "test_loss", "test_documents"}:
            assert row[name] == pytest.approx(padded[name], rel=1e-4)


# --- the rest -------------------------------------------------------------------------------------------------------


def test_a_run_that_diverges_ends_with_a_sentence(run: Run, tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    more = ["--learning_rate", "1e30", "--head_learning_rate", "1e30", "--eval_strategy", "steps", "--eval_steps", "1"]
    result = run("python", *train_command(tiny_encoder, small_data, tmp_path / "run", *more)[4:])
    assert result.returncode == 3, result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("sentorder: error:") and "Traceback" not in result.stderr


def test_evaluating_a_whole_file_says_so(run: Run, model_path: str, small_data: str) -> None:
    file = small_data.split("test=")[1]
    result = run("python", "-m", "sentorder.evaluation", "--model_path", model_path, "--dataset", file)
    assert result.returncode == 0 and "over 7 documents" in result.stdout
    assert "note: this is all of it; if the model was trained on it, --split test" in result.stderr


@pytest.mark.parametrize("command", ["train", "evaluation", "predict"])
def test_help_shows_every_argument(run: Run, command: str) -> None:
    result = run("python", "-m", f"sentorder.{command}", "--help")
    assert result.returncode == 0 and "--config" in result.stdout and "==SUPPRESS==" not in result.stdout
    if command == "train":
        for group in ("model:", "data:", "training:", "machine:", "output:"):
            assert f"\n{group}\n" in result.stdout


def test_import_is_light(run: Run) -> None:
    code = (
        "import sentorder, sys; print(sorted({'torch', 'transformers', 'datasets', 'evaluate'} & sys.modules.keys()))"
    )
    assert run("python", "-c", code).stdout.strip() == "[]"
    code = "import sentorder.predict, sys; print(sorted({'torch', 'datasets', 'accelerate'} & sys.modules.keys()))"
    assert run("python", "-c", code).stdout.strip() == "[]"  # so that its --help is there at once
    code = "import sentorder.train, torch, sys; print(torch.cuda.is_initialized(), 'evaluate' in sys.modules)"
    assert run("python", "-c", code).stdout.strip() == "False False", sys.version
