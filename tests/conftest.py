"""Fixtures: a tiny encoder with a tokenizer of its own, and small documents of many lengths."""

from __future__ import annotations

import atexit
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Before datasets is imported: what is read here is no business of the user's cache, nor the other way round.
os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp(prefix="sentorder-tests-")

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from hypothesis import settings
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel, BertTokenizerFast

from sentorder import SentenceOrderer
from sentorder.data.document_tables import documents_of
from sentorder.data.documents import Document
from sentorder.data.sources import load_split

atexit.register(shutil.rmtree, os.environ["HF_DATASETS_CACHE"], ignore_errors=True)
settings.register_profile("sentorder", deadline=None)  # the machine may be busy with something else
settings.load_profile("sentorder")

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def documents() -> list[Document]:
    """Real passages of 4 to 12 sentences, of all genres."""
    return list(documents_of(load_split("stories", "test")[0]))


def write_documents(path: Path, documents: list[Document]) -> Path:
    rows = [{"id": document.id, "sentences": document.sentences} for document in documents]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def small_data(documents: list[Document], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A value for --dataset: 21 ragged documents to train on (so that a step of 8 leaves a short one), 9 and 7."""
    folder = tmp_path_factory.mktemp("data")
    longer = [document for document in documents if len(document.sentences) != 5]
    mixed = [document for pair in zip(documents, longer, strict=False) for document in pair]
    parts = {"train": mixed[:21], "validation": mixed[21:30], "test": mixed[30:37]}
    return ",".join(f"{split}={write_documents(folder / f'{split}.jsonl', part)}" for split, part in parts.items())


@pytest.fixture(scope="session")
def tiny_encoder(documents: list[Document], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a random BERT of 2 layers, and a tokenizer whose file pads and cuts to 16 tokens."""
    folder = tmp_path_factory.mktemp("encoder")
    words = sorted({word for document in documents for sentence in document.sentences for word in _words(sentence)})
    letters = sorted({letter for word in words for letter in word})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{x}" for x in letters), *words[:800]]
    vocabulary = list(dict.fromkeys(vocabulary))
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=True)
    backend: Tokenizer = tokenizer.backend_tokenizer
    backend.enable_truncation(16)
    backend.enable_padding(length=16)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=512,
    )
    BertModel(config).save_pretrained(folder)
    return str(folder)


KINDS = {
    "regression": ("regression", "joint"),
    "listmle": ("listmle", "joint"),
    "pairwise, restarted": ("pairwise", "restarted"),
    "neighbours": ("pairwise-neighbours", "joint"),
    "position, hierarchical": ("position", "hierarchical"),
    "pointer": ("pointer", "joint"),
    "pointer-pairs, hierarchical": ("pointer-pairs", "hierarchical"),
    "joint": ("joint", "joint"),
}
"""Methods and backbones among which each head, decoder and backbone is."""


@pytest.fixture(params=KINDS)
def any_model(request: pytest.FixtureRequest, tiny_encoder: str) -> Any:
    """A model of each kind, untrained."""
    torch.manual_seed(0)
    method, backbone = KINDS[request.param]
    return SentenceOrderer.from_encoder(tiny_encoder, method=method, backbone=backbone).eval()


@pytest.fixture(scope="session")
def model_path(tiny_encoder: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The model/ folder of a run that never was."""
    folder = tmp_path_factory.mktemp("trained") / "model"
    SentenceOrderer.from_encoder(tiny_encoder, method="pairwise").save_pretrained(folder)
    return str(folder)


def _words(sentence: str) -> list[str]:
    return "".join(letter if letter.isalnum() else " " for letter in sentence.lower()).split()


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Iterator[None]:
    """Accelerate keeps its state for the whole process; no test may see that of another."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def hear_signals() -> None:
    """For ``preexec_fn``: whoever runs these tests in the background has SIGINT ignored, and so would a new process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def command_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """See tests/command_server.py."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path_factory.mktemp("hf"))}
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("command_server.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env={**environment, "PYTHONPATH": str(REPOSITORY)},
    ) as server:
        yield server
        assert server.stdin is not None
        server.stdin.close()


@pytest.fixture
def run(tmp_path: Path, command_server: subprocess.Popen[str]) -> Run:
    """Run a command in a folder that is not the repository, as a user would; standard input is empty unless given."""

    def run_command(*command: str, stdin: str | bytes = "", **environment: str) -> subprocess.CompletedProcess[str]:
        given = stdin if isinstance(stdin, bytes) else stdin.encode()
        variables = {**os.environ, "HF_HUB_OFFLINE": "1", **environment}
        ours = command[1] == "-m" and command[2].startswith("sentorder.")
        if command[0] == "python" and (ours or command[1].endswith(".py")):
            return _forked(command_server, command, given, tmp_path, variables)
        if command[0] == "accelerate":
            command = (sys.executable, "-m", "accelerate.commands.accelerate_cli", *command[1:])
        elif command[0] == "python":
            command = (sys.executable, *command[1:])
        variables["HF_HOME"] = str(tmp_path / "hf")
        result = subprocess.run(command, input=given, capture_output=True, cwd=tmp_path, timeout=300, env=variables)
        return _completed(command, result.returncode, result.stdout, result.stderr)

    return run_command


def _forked(
    server: subprocess.Popen[str], command: tuple[str, ...], stdin: bytes, folder: Path, variables: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    assert server.stdin is not None and server.stdout is not None
    with tempfile.TemporaryDirectory() as streams:
        paths = [Path(streams) / name for name in ("stdin", "stdout", "stderr")]
        paths[0].write_bytes(stdin)
        place = 2 if command[1] == "-m" else 1
        request = {
            "program": command[place],
            "arguments": command[place + 1 :],
            "folder": str(folder),
            "environment": variables,
            "streams": [str(path) for path in paths],
        }
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        if not select.select([server.stdout], [], [], 300)[0]:
            server.kill()
            raise TimeoutError(f"{' '.join(command)}: not done after 300 seconds")
        return _completed(command, int(server.stdout.readline()), *(path.read_bytes() for path in paths[1:]))


def _completed(command: tuple[str, ...], code: int, stdout: bytes, stderr: bytes) -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess(command, code, stdout.decode(errors="replace"), stderr.decode(errors="replace"))


def read_metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
