"""What README names must be there."""

import re

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
        "nproc_per_node",
        "sentences",
        "workers",
    }  # of other commands
    named = {flag.removeprefix("no_") for flag in re.findall(r"(?<![\w-])--(\w+)", README)}
    assert named - known == set()


def test_every_row_of_the_tables_is_explained() -> None:
    from sentorder.data.formats import FORMATS
    from sentorder.methods import BACKBONES, METHODS

    assert [name for name in METHODS if f"`{name}`" not in README and f" {name}`" not in README] == []
    assert [name for name in FORMATS if f"`{name}`" not in README] == []
    assert [name for name in BACKBONES if name != "sentence" and f"`{name}`" not in README] == []
