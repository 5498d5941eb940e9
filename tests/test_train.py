"""Whole runs in this process, on a tiny encoder."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sentorder import SentenceOrderer, TrainArguments, UserError
from sentorder.command_line import parse_arguments
from sentorder.data.collation import ordering_loader
from sentorder.data.sampling import GlobalPlan
from sentorder.data.sources import load_splits
from sentorder.finite_guard import NonFiniteError
from sentorder.loop import train_steps
from sentorder.model_files import save_model
from sentorder.optimization import adamw, parameter_groups
from sentorder.train import train
from tests.conftest import read_metrics


def arguments(encoder: str, data: str, folder: Path, **changes: object) -> TrainArguments:
    values = {
        "model_name_or_path": encoder,
        "dataset": data,
        "output_dir": str(folder),
        "per_device_train_batch_size": 8,
        "max_steps": 7,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        **changes,
    }
    return TrainArguments(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["regression", "pairwise"])
def test_a_run_leaves_all_that_it_promises(
    tiny_encoder: str, small_data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    asked = arguments(tiny_encoder, small_data, tmp_path / "run", method=method, log_with=["tensorboard"])
    result = train(asked)
    folder = tmp_path / "run"
    assert result.output_dir == folder and result.model_dir == folder / "model" and result.steps == 7

    rows = read_metrics(folder)
    losses = [row for row in rows if "loss" in row]
    assert [row["step"] for row in losses] == list(range(1, 8))
    assert {"learning_rate", "gradient_norm", "epoch", "documents_per_second"} <= losses[0].keys()
    assert losses[0]["learning_rate"] == pytest.approx(1e-3)  # warm-up of 0.1 x 7 steps: none
    assert losses[6]["learning_rate"] == pytest.approx(1e-3 / 7)
    evaluations = {row["step"]: row for row in rows if "eval_kendall_tau" in row}
    assert sorted(evaluations) == [3, 6, 7]  # 21 documents, 8 a step: each epoch's end, and the last step
    best = max(evaluations, key=lambda step: (evaluations[step]["eval_kendall_tau"], -step))
    assert result.best_step == best and result.validation is not None
    assert result.validation["kendall_tau"] == evaluations[best]["eval_kendall_tau"]
    assert ("eval_score_spread" in evaluations[best]) == (method == "regression")

    test = json.loads((folder / "test_results.json").read_text())
    assert result.test == test and test["documents"] == 7
    sources = [json.loads(line) for line in Path(small_data.split("test=")[1]).read_text().splitlines()]
    predictions = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert [row["id"] for row in predictions] == [row["id"] for row in sources]
    orders = [row["order"] for row in predictions]
    assert [sorted(order) for order in orders] == [list(range(len(row["sentences"]))) for row in sources]

    # The model in the folder is the best one, and gives these very predictions.
    orderer = SentenceOrderer.from_pretrained(result.model_dir)
    assert [ordered.order for ordered in orderer.order([row["sentences"] for row in sources])] == orders

    card = (folder / "model" / "README.md").read_text()
    for part in (f"`{method}`", f"{test['kendall_tau']:.4f}", "--max_steps 7", "torch 2.", "21 train"):
        assert part in card
    printed, logged = capsys.readouterr()
    interval = f"(95 %: {test['kendall_tau_low']:.4f} to {test['kendall_tau_high']:.4f})"
    assert f"test: Kendall's tau {test['kendall_tau']:.4f} {interval}, " in printed
    assert printed.count("as shuffled") == 3
    # A line has room for some figures; metrics.jsonl has all.
    assert "eval_kendall_tau " in logged and "eval_spearman" not in logged and "kendall_tau_low" not in logged
    assert {"eval_spearman", "eval_accuracy_micro", "eval_kendall_tau_low"} <= evaluations[7].keys()
    given_back, _ = parse_arguments(
        TrainArguments, ["--config", str(folder / "arguments.yaml")], program="x", description="d"
    )
    assert given_back == dataclasses.replace(asked, backbone="hierarchical", pooling="both", mixed_precision="no")

    events = EventAccumulator(str(folder / "sentorder"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == list(range(1, 8))
    assert events.Scalars("loss")[3].value == pytest.approx(losses[3]["loss"], rel=1e-6)
    assert not list(folder.rglob("*.new")) and not list(folder.rglob("*.old"))


def test_the_same_seed_twice_in_one_process_is_bit_equal(tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(arguments(tiny_encoder, small_data, tmp_path / name, seed=seed, dropout=None))
        torch.rand(3)  # a notebook does other things in between
        weights.append(load_file(tmp_path / name / "model" / "model.safetensors"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    name = "head.pairs.first.weight"
    assert not torch.equal(weights[0][name], weights[2][name])


def test_two_runs_of_different_precision_in_one_process(tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    train(arguments(tiny_encoder, small_data, tmp_path / "a", max_steps=2))
    result = train(arguments(tiny_encoder, small_data, tmp_path / "b", max_steps=2, mixed_precision="bf16"))
    first, second = (read_metrics(tmp_path / name)[0] for name in ("a", "b"))
    assert first["loss"] == pytest.approx(second["loss"], rel=0.02)  # a fresh head says little, so it may be equal
    assert first["gradient_norm"] != second["gradient_norm"] == pytest.approx(first["gradient_norm"], rel=0.05)
    weights = load_file(result.model_dir / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


def test_workers_change_nothing(tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    for workers in (0, 2):
        train(arguments(tiny_encoder, small_data, tmp_path / str(workers), dataloader_num_workers=workers, dropout=0.1))
    losses = [[row.get("loss") for row in read_metrics(tmp_path / name)] for name in ("0", "2")]
    assert losses[0] == losses[1]


def test_a_model_learns(tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    """Sentences that begin with a numeral can be ordered, by a random encoder that spells the numerals in letters."""
    names = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"]
    rows = [
        {"sentences": [f"{name} {word}" for name in names[: 4 + number % 3]]}
        for number, word in enumerate(["cat", "dog", "sun", "sea", "tree", "wind", "road", "hill"] * 12)
    ]
    rows = [{"sentences": [f"{s} {number}" for s in row["sentences"]]} for number, row in enumerate(rows)]
    path = tmp_path / "numbers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for method in ("regression", "pairwise"):
        result = train(
            arguments(
                tiny_encoder,
                str(path),
                tmp_path / method,
                method=method,
                max_steps=150,
                learning_rate=3e-3,
                per_device_train_batch_size=16,
                logging_steps=50,
            )
        )
        assert result.test is not None and result.validation is not None
        assert result.validation["kendall_tau"] > 0.7 and result.test["kendall_tau"] > 0.5


def test_metric_for_best_model(tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    result = train(
        arguments(
            tiny_encoder,
            small_data,
            tmp_path / "run",
            metric_for_best_model="loss",
            eval_strategy="steps",
            eval_steps=2,
        )
    )
    losses = {row["step"]: row["eval_loss"] for row in read_metrics(tmp_path / "run") if "eval_loss" in row}
    assert sorted(losses) == [2, 4, 6, 7] and result.best_step == min(losses, key=losses.__getitem__)


def test_without_evaluation_the_last_model_is_kept(tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    train_only = small_data.split(",")[0]
    result = train(
        arguments(tiny_encoder, train_only, tmp_path / "run", eval_strategy="no", num_train_epochs=1.5, max_steps=-1)
    )
    assert (result.steps, result.best_step, result.validation, result.test) == (5, 5, None, None)
    assert "It was not evaluated." in (result.model_dir / "README.md").read_text()
    with pytest.raises(UserError, match="has no validation split"):
        train(arguments(tiny_encoder, train_only, tmp_path / "other"))
    with pytest.raises(UserError, match="has no train split"):
        train(arguments(tiny_encoder, small_data.split(",")[1], tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_training_goes_on_from_a_model_folder(tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    first = train(arguments(tiny_encoder, small_data, tmp_path / "a", method="regression", eval_strategy="no"))
    second = train(
        arguments(
            str(first.model_dir),
            small_data,
            tmp_path / "b",
            learning_rate=0.0,
            head_learning_rate=0.0,
            weight_decay=0.0,
            max_steps=1,
        )
    )
    a, b = (load_file(result.model_dir / "model.safetensors") for result in (first, second))
    assert all(torch.equal(a[name], b[name]) for name in a) and a.keys() == b.keys()


def test_output_folders(tiny_encoder: str, small_data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    short = arguments(tiny_encoder, small_data, tmp_path, output_dir=None, max_steps=1, max_eval_documents=2)
    assert [str(train(short).output_dir) for _ in range(2)] == ["runs/1", "runs/2"]
    taken = arguments(tiny_encoder, small_data, Path("runs/1"), max_steps=1, max_eval_documents=2)
    with pytest.raises(UserError, match="holds a run already.*--overwrite_output_dir"):
        train(taken)
    taken.overwrite_output_dir = True
    assert len(read_metrics(train(taken).output_dir)) == 3  # the old run's lines are gone
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--output_dir file/run: cannot be written"):
        train(arguments(tiny_encoder, small_data, Path("file/run")))


def test_a_failed_save_keeps_the_model_before(
    tiny_encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = SentenceOrderer.from_encoder(tiny_encoder)
    accelerator = Accelerator(cpu=True)
    save_model(accelerator, model, tmp_path / "model")
    before = load_file(tmp_path / "model" / "model.safetensors")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SentenceOrderer, "save_pretrained", full)
    with pytest.raises(UserError, match="could not be saved .No space left on device"):
        save_model(accelerator, model, tmp_path / "model")
    after = load_file(tmp_path / "model" / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "magic"}, "no method 'magic'; choose one of: regression, regression-share, l1"),
        ({"mixed_precision": "fp16"}, "--mixed_precision fp16: not on a CPU"),
        ({"log_with": ["clearml"]}, "--log_with clearml: that tracker is not installed"),
        ({"log_with": ["foo"]}, "--log_with foo: there is no such tracker"),
        ({"model_name_or_path": "./nowhere"}, "./nowhere: there is no such folder"),
        ({"tokenizer_name": "./nowhere"}, "./nowhere: there is no such folder"),
        ({"max_length": 4000}, "--max_length 4000"),
    ],
)
def test_mistakes_are_found_before_anything_is_written(
    tiny_encoder: str, small_data: str, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError) as error:
        train(arguments(tiny_encoder, small_data, tmp_path / "run", **changes))
    assert message in str(error.value)
    assert not (tmp_path / "run").exists()


def test_validation_is_the_same_test_every_time(tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    """Weights that do not move must score the same in each evaluation, and in one of their own."""
    train(
        arguments(tiny_encoder, small_data, tmp_path / "run", learning_rate=0.0, head_learning_rate=0.0,
                  weight_decay=0.0, eval_strategy="steps", eval_steps=1)
    )  # fmt: skip
    rows = [row for row in read_metrics(tmp_path / "run") if "eval_loss" in row]
    assert len(rows) == 7
    assert len({(row["eval_loss"], row["eval_kendall_tau"], row["eval_accuracy"]) for row in rows}) == 1


def test_a_numbered_run_can_be_repeated_from_its_arguments(
    tiny_encoder: str, small_data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = train(arguments(tiny_encoder, small_data, tmp_path, output_dir=None, log_with=["tensorboard"]))
    again, _ = parse_arguments(
        TrainArguments, ["--config", str(first.output_dir / "arguments.yaml")], program="x", description="d"
    )
    second = train(again)
    assert (str(first.output_dir), str(second.output_dir)) == ("runs/1", "runs/2")
    assert (first.validation, first.test) == (second.validation, second.test)
    assert list((second.output_dir / "sentorder").glob("events*"))


@pytest.mark.parametrize("name", ["model", "predictions.jsonl", "metrics.jsonl"])
def test_files_of_others_are_not_replaced(tiny_encoder: str, small_data: str, tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=rf"holds a run already \({name}\)"):
        train(arguments(tiny_encoder, small_data, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_overwriting_leaves_nothing_of_the_old_run_but_never_removes_the_model_it_starts_from(
    tiny_encoder: str, small_data: str, tmp_path: Path
) -> None:
    first = train(arguments(tiny_encoder, small_data, tmp_path / "run", max_steps=1, log_with=["tensorboard"]))
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="would replace the model that training starts from"):
        train(arguments(str(first.model_dir), small_data, tmp_path / "run", overwrite_output_dir=True))
    assert (first.model_dir / "model.safetensors").exists()
    train(arguments(tiny_encoder, small_data, tmp_path / "run", max_steps=1, overwrite_output_dir=True))
    assert not (tmp_path / "run" / "sentorder").exists() and (tmp_path / "run" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("method", "backbone"),
    [("regression", "joint"), ("pairwise", "restarted"), ("pointer", "joint"), ("joint", "hierarchical")],
)
def test_the_real_model_is_cut_up_exactly_in_float64(
    tiny_encoder: str, small_data: str, method: str, backbone: str
) -> None:
    losses = []
    for per_device, accumulation in ((8, 1), (4, 2), (1, 8)):
        set_seed(0)
        accelerator = Accelerator(cpu=True)
        model = SentenceOrderer.from_encoder(tiny_encoder, method=method, backbone=backbone, dropout=0.0).double()
        table = model.tokenize(load_splits(small_data).splits["train"])
        plan = GlobalPlan(table["length"][:], 8, micro_batches=accumulation, seed=1)
        loader = ordering_loader(table, plan, model.collator(seed=1))
        optimizer = adamw(parameter_groups(model, learning_rate=1e-3, weight_decay=0.01))
        prepared, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        steps = train_steps(
            accelerator, prepared, optimizer, None, loader, model.method.training_loss, max_steps=7,
            gradient_accumulation_steps=accumulation,
        )  # fmt: skip
        losses.append([step.loss.item() for step in steps])
        assert per_device * accumulation == 8
    assert losses[1] == pytest.approx(losses[0], rel=1e-12) and losses[2] == pytest.approx(losses[0], rel=1e-12)


def test_a_run_that_diverges_says_so(tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match="Try a lower learning rate"):
        train(
            arguments(
                tiny_encoder,
                small_data,
                tmp_path / "run",
                learning_rate=1e30,
                lr_scheduler_type="constant",
                method="regression",
                max_grad_norm=0.0,
            )
        )


def test_fixed_shapes_reach_the_model(tiny_encoder: str, small_data: str, tmp_path: Path, monkeypatch: Any) -> None:
    seen: set[tuple[bool, int, int, int]] = set()
    original = SentenceOrderer.forward

    def forward(self: SentenceOrderer, **batch: Any) -> Any:
        seen.add((self.training, *batch["input_ids"].shape, batch["slot_mask"].shape[1]))
        return original(self, **batch)

    monkeypatch.setattr(SentenceOrderer, "forward", forward)
    more = {"pad_to_max_length": True, "backbone": "joint", "max_length": 256, "per_device_eval_batch_size": 4}
    train(arguments(tiny_encoder, small_data, tmp_path / "run", **more))
    (most,) = {sentences for *_, sentences in seen}
    assert seen == {(True, 8, 256, most), (False, 4, 256, most)}
