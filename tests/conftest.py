"""Fixtures: a tiny encoder with a tokenizer of its own, and small documents of many lengths."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from hypothesis import settings
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel, BertTokenizerFast

from sentorder.data.formats import Document
from sentorder.data.sources import load_split

settings.register_profile("sentorder", deadline=None)  # the machine may be busy with something else
settings.load_profile("sentorder")

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def documents() -> list[Document]:
    """Real passages of 4 to 12 sentences, of all genres."""
    return load_split("stories", "test")[0]


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


def _words(sentence: str) -> list[str]:
    return "".join(letter if letter.isalnum() else " " for letter in sentence.lower()).split()


@pytest.fixture(autouse=True)
def fresh_accelerate() -> Iterator[None]:
    """Accelerate keeps its state for the whole process; no test may see that of another."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command in a folder that is not the repository, as a user would; standard input is empty unless given."""

    def run_command(*command: str, stdin: str | bytes = "", **environment: str) -> subprocess.CompletedProcess[str]:
        if command[0] == "accelerate":
            command = (sys.executable, "-m", "accelerate.commands.accelerate_cli", *command[1:])
        elif command[0] == "python":
            command = (sys.executable, *command[1:])
        result = subprocess.run(
            command,
            input=stdin if isinstance(stdin, bytes) else stdin.encode(),
            capture_output=True,
            cwd=tmp_path,
            timeout=600,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), **environment},
        )
        return subprocess.CompletedProcess(
            result.args,
            result.returncode,
            result.stdout.decode(errors="replace"),
            result.stderr.decode(errors="replace"),
        )

    return run_command


def read_metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
