"""What README names must be there."""

import re
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("named", sorted(set(re.findall(r"`(test_\w+\.py::test_\w+)`", README))))
def test_tests_that_are_named_exist(named: str) -> None:
    file, _, function = named.partition("::")
    assert f"\ndef {function}(" in (REPOSITORY / "tests" / file).read_text(encoding="utf-8")


def test_files_that_are_linked_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert len(links) > 10
    assert [link for link in links if not (REPOSITORY / link).exists()] == []


def test_flags_that_are_named_exist() -> None:
    from sentorder import arguments

    kinds = (
        arguments.TrainArguments,
        arguments.EvaluationArguments,
        arguments.PredictArguments,
        arguments.CompareArguments,
        arguments.InspectionArguments,
    )
    known = {name for kind in kinds for name in kind.__dataclass_fields__} | {"config", "help", "as", "kills"}
    known |= {
        "only",
        "finalists",
        "seeds",
        "logdir",
        "config_file",
        "max_restarts",
        "quiet",
        "standalone",
        "machine_rank",
        "local",
        "nproc_per_node",
        "sentences",
        "workers",
        "rounds",
        "tokens",
        "picture",
        "training",
        "documents",
    }  # of other commands
    named = {flag.removeprefix("no_") for flag in re.findall(r"(?<![\w-])--(\w+)", README)}
    assert named - known == set()


def test_the_method_that_is_shown_trains(
    tiny_encoder: str, small_data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentorder import SentenceOrderer
    from sentorder.methods import METHODS

    (code,) = (block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "METHODS[" in block)
    monkeypatch.setattr("sentorder.methods.METHODS", dict(METHODS))
    small = {"model_name_or_path": tiny_encoder, "dataset": small_data, "output_dir": str(tmp_path), "max_steps": 2}
    assert code.count("TrainArguments(method=") == 1
    names = {"small": small, "__name__": "__main__"}
    exec(code.replace("TrainArguments(method=", "TrainArguments(**small, method="), names)
    model = SentenceOrderer.from_pretrained(tmp_path / "model")
    assert model.config.method == "pairwise-margin" and model.precedence(["One.", "Two."]).shape == (2, 2)


def test_every_row_of_the_tables_is_explained() -> None:
    from sentorder.data.formats import FORMATS
    from sentorder.methods import BACKBONES, METHODS

    assert [name for name in METHODS if f"`{name}`" not in README and f" {name}`" not in README] == []
    assert [name for name in FORMATS if f"`{name}`" not in README] == []
    assert [name for name in BACKBONES if name != "sentence" and f"`{name}`" not in README] == []
