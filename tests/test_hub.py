"""Uploading a model, to a Hub that is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.errors import LocalTokenNotFoundError

import sentorder.hub
from sentorder import TrainArguments, UserError
from sentorder.hub import check_can_push
from sentorder.train import train
from tests.conftest import Run

USER = {"name": "ada", "orgs": [{"name": "engines"}]}


class Hub:
    """Remembers what it is asked for."""

    uploads: list[tuple[str, set[str]]]
    fails = False

    def whoami(self) -> dict[str, Any]:
        return USER

    def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> str:
        assert private and exist_ok
        return f"https://hub/{name}"

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
        if self.fails:
            raise OSError("no space on the Hub")
        self.uploads.append((repo_id, {path.name for path in folder_path.iterdir()}))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[Hub]:
    monkeypatch.setattr(Hub, "uploads", [], raising=False)
    monkeypatch.setattr(sentorder.hub, "HfApi", Hub)
    return Hub


def arguments(encoder: str, data: str, folder: Path) -> TrainArguments:
    return TrainArguments(
        model_name_or_path=encoder,
        dataset=data,
        max_steps=1,
        output_dir=str(folder),
        push_to_hub=True,
        hub_model_id="engines/orderer",
    )


def test_the_model_is_uploaded_with_its_card(
    hub: type[Hub], tiny_encoder: str, small_data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = train(arguments(tiny_encoder, small_data, tmp_path / "run"))
    ((repository, files),) = hub.uploads
    assert repository == "engines/orderer"
    assert {"README.md", "model.safetensors", "config.json", "tokenizer.json", "overview.png"} <= files
    assert "uploaded: https://hub/engines/orderer" in capsys.readouterr().out
    # The Hub's own reader understands the card.
    card = ModelCard.load(result.model_dir / "README.md")
    assert card.data.library_name == "sentorder" and "(overview.png)" in card.text
    assert result.test is not None
    found = {item.metric_type: item.metric_value for item in card.data.eval_results}
    assert found == {name: round(result.test[name], 4) for name in ("kendall_tau", "accuracy", "perfect_match_ratio")}
    assert "license" not in card.data.to_dict()  # whose, nobody said


def test_a_failed_upload_costs_nothing(
    hub: type[Hub], monkeypatch: pytest.MonkeyPatch, tiny_encoder: str, small_data: str, tmp_path: Path
) -> None:
    monkeypatch.setattr(hub, "fails", True)
    with pytest.raises(UserError, match="the upload failed .no space on the Hub.. The model is in .*hf upload"):
        train(arguments(tiny_encoder, small_data, tmp_path / "run"))
    assert (tmp_path / "run/result.json").exists() and (tmp_path / "run/model/model.safetensors").exists()


@pytest.mark.parametrize(
    ("repository", "message"),
    [
        ("orderer", "give owner/name"),
        ("grace/orderer", "you are ada, who is not in grace"),
        ("a/b/c", "Repo id must be"),
        ("ada/bad name", "Repo id must"),
    ],
)
def test_names_that_cannot_be(hub: type[Hub], repository: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_can_push(repository)
    check_can_push("ada/orderer")


def test_without_a_login_nothing_is_trained(
    hub: type[Hub], monkeypatch: pytest.MonkeyPatch, tiny_encoder: str, small_data: str, tmp_path: Path
) -> None:
    def nobody(self: Hub) -> None:
        raise LocalTokenNotFoundError("no token")

    monkeypatch.setattr(hub, "whoami", nobody)
    with pytest.raises(UserError, match="does not know who you are .no token.; hf auth login"):
        train(arguments(tiny_encoder, small_data, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_offline(run: Run, tiny_encoder: str, small_data: str) -> None:
    done = run(
        *("python", "-m", "sentorder.train", "--model_name_or_path", tiny_encoder, "--dataset", small_data),
        *("--push_to_hub", "--hub_model_id", "ada/orderer"),
        HF_HUB_OFFLINE="1",
    )
    assert done.returncode == 2 and "--hub_model_id ada/orderer: the Hub does not know who you are" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_where_to_goes_with_whether(run: Run) -> None:
    for flags in (["--push_to_hub"], ["--hub_model_id", "ada/orderer"]):
        done = run("python", "-m", "sentorder.train", *flags)
        assert done.returncode == 2 and "--push_to_hub --hub_model_id OWNER/NAME: give both" in done.stderr
