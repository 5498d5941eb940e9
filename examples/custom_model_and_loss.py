"""A model, a loss and data of one's own: does a sentence open a story? A bag of words, nothing pretrained.

    accelerate launch examples/custom_model_and_loss.py

The model is a plain ``nn.Module`` whose ``forward`` takes one argument; the loop is told how by ``forward=``.
"""

import argparse
import zlib
from pathlib import Path

import evaluate
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from sentorder.data.sources import load_split
from sentorder.loop import evaluation_records, train_steps

BUCKETS = 20_000


class Openings(Dataset):
    """Every sentence of a split, each word as a number, with 1 for those that stand first."""

    def __init__(self, dataset: str, split: str) -> None:
        documents, _ = load_split(dataset, split)
        self.examples = [
            ([1 + zlib.crc32(word.encode()) % BUCKETS for word in sentence.lower().split()], float(place == 0))
            for sentences in documents["sentences"]
            for place, sentence in enumerate(sentences)
        ]

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> tuple[int, list[int], float]:
        return (index, *self.examples[index])


def collate(examples: list[tuple[int, list[int], float]]) -> dict[str, torch.Tensor]:
    numbers, words, labels = zip(*examples, strict=True)
    return {
        "inputs": pad_sequence([torch.tensor(ids) for ids in words], batch_first=True),  # 0 is no word
        "labels": torch.tensor(labels),
        "numbers": torch.tensor(numbers),
    }


class BagOfWords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(BUCKETS + 1, 64, padding_idx=0)
        self.classifier = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.words(inputs)).squeeze(-1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset", default="stories")
    parser.add_argument("--max_steps", type=int, default=300)
    args = parser.parse_args()

    accelerator = Accelerator()
    set_seed(42)
    order = torch.Generator().manual_seed(42)
    train_loader = DataLoader(Openings(args.dataset, "train"), 64, shuffle=True, collate_fn=collate, generator=order)
    eval_loader = DataLoader(Openings(args.dataset, "validation"), 64, collate_fn=collate)
    model = BagOfWords()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model, optimizer, train_loader, eval_loader = accelerator.prepare(model, optimizer, train_loader, eval_loader)

    # One value per example: the loop makes the mean. One opening stands against about five other sentences.
    criterion = nn.BCEWithLogitsLoss(reduction="none", pos_weight=torch.tensor(5.0, device=accelerator.device))

    def forward(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return model(batch["inputs"])

    bar = tqdm(total=args.max_steps, disable=not accelerator.is_main_process)
    for step in train_steps(
        accelerator,
        model,
        optimizer,
        None,  # the learning rate stays as it is
        train_loader,
        lambda logits, batch: criterion(logits, batch["labels"]),
        max_steps=args.max_steps,
        forward=forward,
    ):
        bar.update()
        if step.number % 50 == 0:
            bar.set_postfix(loss=f"{step.loss.item():.4f}")
    bar.close()

    def records(logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> list[tuple[int, tuple[int, int]]]:
        pairs = zip((logits > 0).long().tolist(), batch["labels"].long().tolist(), strict=True)
        return list(zip(batch["numbers"].tolist(), pairs, strict=True))

    # By number, because several processes see a sentence twice where they do not divide evenly.
    found = dict(evaluation_records(accelerator, model, eval_loader, records, forward=forward))
    if accelerator.is_main_process:
        metric = evaluate.load(str(Path(__file__).with_name("accuracy_and_f1.py")), keep_in_memory=True)
        predictions, references = zip(*found.values(), strict=True)
        scores = metric.compute(predictions=predictions, references=references)
        print(f"F1 {scores['f1']:.4f}, accuracy {scores['accuracy']:.4f} over {len(references)} sentences")
    accelerator.wait_for_everyone()  # one that leaves while another is at work can leave it hanging
    accelerator.end_training()


if __name__ == "__main__":
    main()
