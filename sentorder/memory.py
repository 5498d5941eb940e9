"""How much of an optimizer step fits into memory at once."""

from __future__ import annotations

import gc

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from datasets import Dataset

from .data.collation import EncodedDocuments, Shape
from .data.sampling import PlannedDocument
from .data.splitting import numbers
from .errors import UserError
from .modeling import SentenceOrderer

COPIES_BESIDE = 3
"""What else has the size of the weights later on: two moments of AdamW and the buckets of several processes."""


def fitting_accumulation(
    accelerator: Accelerator,
    model: SentenceOrderer,
    table: Dataset,
    *,
    step_size: int,
    accumulation: int,
    shape: Shape | None = None,
) -> int:
    """Into how many micro-batches per process a step must be cut so that each of them fits into memory.

    Tries a forward and backward pass over the longest documents, with room for the optimizer taken up, and doubles
    the number until it works. The documents of a step stay the same.

    Args:
        accelerator: of the run; all processes get the same answer.
        model: not prepared; it is moved to the device.
        table: of tokenised documents.
        step_size: documents per optimizer step, of all processes.
        accumulation: micro-batches per process to begin with.
        shape: what batches are padded to.

    Raises:
        UserError: if not even one document fits.
    """
    model.to(accelerator.device)
    while True:
        size = -(-step_size // (accumulation * accelerator.num_processes))
        fits = torch.tensor([_fits(accelerator, model, table, most_demanding(table, size), shape)])
        if bool(accelerator.gather(fits.to(accelerator.device)).all()):
            return accumulation
        if size == 1:
            raise UserError(
                "--auto_find_batch_size: not even the longest document fits into memory; give a smaller --max_length "
                "or another encoder."
            )
        accumulation *= 2


def most_demanding(table: Dataset, size: int) -> list[int]:
    """The rows of so many documents that take the most memory in one batch: those with the most tokens.

    Args:
        table: of tokenised documents.
        size: of the batch.
    """
    return np.argsort(-numbers(table, "length"), kind="stable")[:size].tolist()  # type: ignore[no-any-return]


def _fits(
    accelerator: Accelerator, model: SentenceOrderer, table: Dataset, rows: list[int], shape: Shape | None
) -> bool:
    documents = EncodedDocuments(table)
    collate = model.collator(seed=0, shape=shape)
    batch = send_to_device(collate([documents[PlannedDocument(0, row, 1.0)] for row in rows]), accelerator.device)
    model.train()
    try:
        room = [torch.empty_like(weight) for weight in model.parameters() for _ in range(COPIES_BESIDE)]
        with accelerator.autocast():
            output = model(**batch)
        model.method.training_loss(output, batch).sum().backward()
        del room, output
        return True
    except Exception as error:
        if not should_reduce_batch_size(error):
            raise
        return False
    finally:
        model.zero_grad(set_to_none=True)
        gc.collect()
        clear_device_cache()
