import dataclasses
import io
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from sentorder.arguments import EvaluationArguments, PredictArguments, TrainArguments
from sentorder.command_line import parse_arguments, run_command, write_arguments
from sentorder.data.formats import FORMATS
from sentorder.errors import UserError
from sentorder.methods import DECODERS, UNTRAINED


def parse(*argv: str) -> TrainArguments:
    return parse_arguments(
        TrainArguments, argv, program="x", description="d", choices={"method": ("pairwise", "regression")}
    )[0]


def config(tmp_path: Path, text: str) -> str:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_defaults_are_those_of_the_dataclass() -> None:
    assert parse() == TrainArguments()


def test_precedence_is_defaults_then_file_then_command_line(tmp_path: Path) -> None:
    file = config(tmp_path, "learning_rate: 2e-5\nmax_steps: 7\noverwrite_output_dir: true\nlog_with: tensorboard\n")
    found = parse("--config", file, "--max_steps", "9")
    assert found.learning_rate == 2e-5 and isinstance(found.learning_rate, float)
    assert found.max_steps == 9 and found.overwrite_output_dir is True and found.log_with == ["tensorboard"]
    assert found.seed == TrainArguments().seed


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("learning_rate: 1", "learning_rate", 1.0),
        ("output_dir: 5", "output_dir", "5"),
        ("dropout: null", "dropout", None),
        ("dropout: none", "dropout", None),
        ("head_learning_rate: 3e-4", "head_learning_rate", 3e-4),
        ("log_with: [tensorboard, mlflow]", "log_with", ["tensorboard", "mlflow"]),
        ("overwrite_output_dir: false", "overwrite_output_dir", False),
        ("mixed_precision: 'no'", "mixed_precision", "no"),
        ("mixed_precision: no", "mixed_precision", "no"),  # which YAML reads as false
        ("eval_strategy: no", "eval_strategy", "no"),
        ("", "seed", 42),
    ],
)
def test_values_of_the_file_get_the_type_of_their_field(tmp_path: Path, text: str, name: str, value: object) -> None:
    found = getattr(parse("--config", config(tmp_path, text)), name)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_steps: 1.5", "--max_steps: invalid int value: '1.5'"),
        ("method: foo", "--method foo: choose one of pairwise, regression"),
        ("pooling: foo", "--pooling foo: choose one of marker, mean, both"),
        ("speed: 3", "there is no argument 'speed'"),
        ("seed: null", "seed must have a value"),
        ("seed: [1, 2]", "seed takes one value"),
        ("- a\n- b", "expected lines like"),
        ("a: [", "not valid YAML"),
        ("learning_rate: -1", "--learning_rate -1.0: must be at least 0"),
    ],
)
def test_problems_of_the_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        parse("--config", config(tmp_path, text))
    assert message in str(error.value)


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    file = config(tmp_path, "speed: 3\nmax_steps: x\n")
    with pytest.raises(UserError) as error:
        parse(
            "--config",
            file,
            "--sed",
            "3",
            "--pooling",
            "foo",
            "--seed",
            "x",
            "--learning_rate",
            "nan",
            "--dropout",
            "1",
        )
    lines = str(error.value).splitlines()
    for expected in ("'speed'", "--max_steps", "--sed:", "--pooling foo", "--seed:", "--learning_rate", "--dropout 1"):
        assert sum(expected in line for line in lines) == 1, (expected, lines)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--conf", "x"], "--conf: there is no such argument"),
        (["--config"], "expected one argument"),
        (["--config", "missing.yaml"], "missing.yaml: there is no such file"),
        (["--per_device_train_batch_size", "0"], "must be at least 1"),
        (["--max_steps", "0"], "Nothing would be trained"),
        (["stray"], "stray: unexpected value"),
    ],
)
def test_problems_of_the_command_line(argv: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        parse(*argv)
    assert message in str(error.value)


def test_written_arguments_can_be_given_back(tmp_path: Path) -> None:
    arguments = TrainArguments(
        method="regression",
        dropout=None,
        learning_rate=3e-5,
        log_with=["tensorboard"],
        output_dir="a: b #",
        overwrite_output_dir=True,
        warmup_steps=0.25,
        mixed_precision="no",
    )
    write_arguments(arguments, tmp_path / "arguments.yaml")
    assert parse("--config", str(tmp_path / "arguments.yaml")) == arguments


def test_library_users_get_the_same_checks() -> None:
    with pytest.raises(UserError, match="--seed -1: must be at least 0"):
        TrainArguments(seed=-1).check()
    wrong = {
        "pooling": "max", "eval_strategy": "step", "dropout": "0.1", "max_steps": 1.5, "seed": 2**32, "dataset": None,
        "warmup_steps": float("inf"), "overwrite_output_dir": 1, "log_with": "tensorboard", "logging_steps": True,
    }  # fmt: skip
    lines = TrainArguments(**wrong).problems()  # type: ignore[arg-type]
    assert sorted(line.split()[0] for line in lines) == sorted(f"--{name}" for name in wrong)
    with pytest.raises(UserError, match="--model_path is missing"):
        PredictArguments().check()


def test_names_that_stand_here_again_are_those_of_the_tables() -> None:
    for kind, name, table in (
        (PredictArguments, "format", FORMATS),
        (PredictArguments, "decoder", DECODERS),
        (EvaluationArguments, "untrained", UNTRAINED),
    ):
        optional = get_type_hints(kind)[name]
        assert get_args(get_args(optional)[0]) == tuple(table)


def test_names_are_those_of_transformers() -> None:
    """The flags are frozen: one more or less is a decision, not an accident."""
    from transformers import TrainingArguments

    ours = {item.name for item in dataclasses.fields(TrainArguments)}
    own = {
        "model_name_or_path", "tokenizer_name", "method", "backbone", "pooling", "dropout", "max_length", "dataset",
        "max_train_documents", "max_eval_documents", "head_learning_rate", "mixed_precision", "cpu_threads",
        "overwrite_output_dir", "log_with", "dataset_config_name", "dataset_revision", "format", "columns",
        "language", "unit", "window", "stride",
        "pad_to_max_length", "deterministic", "max_skipped_steps", "early_stopping_patience",
        "preprocessing_num_workers", "attn_implementation", "cuda_graphs",
    }  # fmt: skip
    assert ours - own <= {item.name for item in dataclasses.fields(TrainingArguments)}
    assert len(ours) == 58


def test_output_is_utf8_as_input_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the locale says, or PYTHONIOENCODING."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    run_command(lambda: print("Él llegó. 雨が降った。", flush=True))
    assert raw.getvalue().decode() == "Él llegó. 雨が降った。\n"
