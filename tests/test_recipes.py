"""Each recipe as it stands, but for the encoder, the data and the number of steps."""

from pathlib import Path

import pytest
import yaml

from sentorder.arguments import TrainArguments
from sentorder.command_line import parse_arguments
from sentorder.methods import METHODS
from sentorder.train import train
from tests.conftest import REPOSITORY

RECIPES = sorted((REPOSITORY / "examples" / "recipes").glob("*.yaml"))


@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_shape_of_a_recipe_runs(path: Path, tiny_encoder: str, small_data: str, tmp_path: Path) -> None:
    argv = ["--config", str(path), "--model_name_or_path", tiny_encoder, "--dataset", small_data]
    argv += ["--max_steps", "2", "--output_dir", str(tmp_path / "run")]
    arguments, _ = parse_arguments(TrainArguments, argv, program="train", description="", choices={"method": METHODS})
    recipe = yaml.safe_load(path.read_text())
    assert arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps == 32
    assert (arguments.method, arguments.dropout) == (recipe["method"], None)
    assert arguments.head_learning_rate == recipe["head_learning_rate"]
    result = train(arguments)
    assert result.steps == 2 and result.test is not None and result.test["documents"] == 7


def test_there_is_a_recipe_for_each_encoder_of_the_tutorial_and_for_the_large_split() -> None:
    models = {path.stem: yaml.safe_load(path.read_text())["model_name_or_path"] for path in RECIPES}
    assert models == {
        "rocstories_98k": "roberta-base",
        "rocstories_bert": "bert-base-cased",
        "rocstories_distilbert": "distilbert-base-cased",
        "rocstories_roberta": "roberta-base",
    }
    for path in RECIPES:
        assert f"--config examples/recipes/{path.name}" in path.read_text()
