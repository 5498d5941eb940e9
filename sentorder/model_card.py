"""The model card that lies beside the weights."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import yaml

from .data.sources import BUNDLED
from .encoders import DEFAULT_ENCODER

LIBRARIES = ("sentorder", "accelerate", "transformers", "datasets", "torch")
FIGURES = (
    ("kendall_tau", "Kendall's tau"),
    ("accuracy", "positional accuracy"),
    ("perfect_match_ratio", "perfect match ratio"),
)


def library_versions() -> dict[str, str]:
    """The versions that a result depends on."""
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def model_card(
    *,
    encoder: str,
    method: str,
    method_description: str,
    dataset: str,
    documents: Mapping[str, int],
    steps: int,
    best_step: int,
    validation: Mapping[str, float] | None,
    test: Mapping[str, float] | None,
    arguments: Mapping[str, Any],
    picture: str | None = None,
) -> str:
    """A card with data, method, scores, command and versions, as Markdown with the Hub's metadata block.

    Args:
        encoder: what training began with.
        method: its name in ``methods.py``.
        method_description: in a few words.
        dataset: the value of ``--dataset``.
        documents: split -> number of documents.
        steps: optimizer steps of the run.
        best_step: the step whose weights these are.
        validation: scores of these weights on validation, if it was looked at.
        test: likewise on test.
        arguments: those that differ from the defaults.
        picture: a file beside the card that shows the run.
    """
    header = yaml.safe_dump(_metadata(encoder, dataset, method, test), sort_keys=False, allow_unicode=True)
    command = " ".join(["accelerate launch -m sentorder.train", *(_flag(*item) for item in arguments.items())])
    columns = [(name, scores) for name, scores in (("validation", validation), ("test", test)) if scores is not None]
    table = [
        "| | " + " | ".join(f"{name} ({scores['documents']} documents)" for name, scores in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
        *(
            f"| {title} | " + " | ".join(f"{scores[figure]:.4f}" for _, scores in columns) + " |"
            for figure, title in FIGURES
        ),
    ]
    scores = "\n".join(table) if columns else "It was not evaluated."
    shown = f"\n![Training, and where the sentences of the test documents came out]({picture})\n" if picture else ""
    sizes = ", ".join(f"{count} {split}" for split, count in documents.items())
    versions = ", ".join(f"{name} {number}" for name, number in library_versions().items())
    return f"""---
{header}---

# A sentence orderer

Restores the order of shuffled sentences. Method `{method}` ({method_description}) on the encoder `{encoder}`.

```python
from sentorder import SentenceOrderer
orderer = SentenceOrderer.from_pretrained("PATH/TO/THIS/FOLDER")
print(orderer.order([["Then it was dark.", "The sun went down."]])[0].sentences)
```

## Data

`{dataset}`: {sizes} documents.

## Scores

{scores}

Each document was shuffled before it was ordered; every document counts once. The weights are those of step {best_step}
of {steps}, chosen on validation where there was one; test was looked at once, with these weights.
{shown}
## Training

```
{command}
```

{versions}
"""


def _metadata(encoder: str, dataset: str, method: str, test: Mapping[str, float] | None) -> dict[str, Any]:
    """What the Hub reads: among it the scores, so that it can show them."""
    metadata: dict[str, Any] = {"library_name": "sentorder", "base_model": encoder, "tags": ["sentence-ordering"]}
    if dataset in BUNDLED and encoder == DEFAULT_ENCODER:
        metadata["license"] = "apache-2.0"  # that of the encoder; the passages are in the public domain
    if test is not None:
        result = {
            "task": {"type": "sentence-ordering", "name": "Sentence ordering"},
            "dataset": {"type": dataset, "name": dataset, "split": "test"},
            "metrics": [{"type": name, "name": title, "value": round(test[name], 4)} for name, title in FIGURES],
        }
        metadata["model-index"] = [{"name": f"sentorder, {method}", "results": [result]}]
    return metadata


def _flag(name: str, value: Any) -> str:
    values = value if isinstance(value, list) else ["none" if value is None else value]
    return f"--{name} {shlex.join(map(str, values))}"
