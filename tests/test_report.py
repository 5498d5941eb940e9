from pathlib import Path

import numpy as np
import pytest
from matplotlib import image

from sentorder.report import position_counts
from tests.conftest import Run


def test_position_counts() -> None:
    shares = position_counts([[0, 1, 2], [1, 0, 2]])
    assert shares.tolist() == [[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]
    # Sentence 2 is put first: its row says so in column 0.
    assert position_counts([[2, 0, 1]])[2].tolist() == [1.0, 0.0, 0.0]


@pytest.fixture
def finished_run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.jsonl").write_text(
        '{"step": 1, "loss": 0.7}\n{"step": 2, "loss": 0.6}\n{"step": 2, "eval_kendall_tau": 0.3}\n'
        '{"step": 2, "test_kendall_tau": 0.2}\n'
    )
    (folder / "predictions.jsonl").write_text('{"order": [1, 0, 2]}\n{"order": [0, 1, 2]}\n{"order": [1, 0]}\n')
    return folder


def test_a_picture_is_drawn(run: Run, finished_run: Path) -> None:
    result = run("python", "-m", "sentorder.report", str(finished_run))
    assert result.returncode == 0, result.stderr
    picture = image.imread(finished_run / "report.png")
    assert picture.shape[:2] == (570, 1440) and np.std(picture) > 0.05


def test_a_folder_without_a_run(run: Run, tmp_path: Path) -> None:
    result = run("python", "-m", "sentorder.report", str(tmp_path))
    assert result.returncode == 2 and "give the folder of a finished run" in result.stderr
    assert len(result.stderr.splitlines()) == 1
