"""Two tasks, two heads, one loop: order passages, and tell whether two sentences come from the same one.

    accelerate launch examples/multitask.py

Each batch holds both: the passages, and one pair of sentences for each of them. Both heads take part in every step,
which is what several processes ask for (``accelerate launch --config_file accelerate_configs/cpu_gloo.yaml ...``): DDP
refuses a backward pass that leaves parameters out. Beside ``sentence_ordering.py``: a model around the
model, a collator around the collator, and a loss that is the sum of two.
"""

import argparse
import math
import random

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm import tqdm
from transformers import get_linear_schedule_with_warmup

from sentorder import SentenceOrderer
from sentorder.data.collation import ordering_loader
from sentorder.data.sampling import GlobalPlan
from sentorder.data.sources import load_splits
from sentorder.evaluation import describe_scores, evaluate, evaluation_loader
from sentorder.loop import evaluation_records, train_steps
from sentorder.losses import pairwise_logistic
from sentorder.optimization import parameter_groups


class TwoTasks(nn.Module):
    """One encoder, read by the orderer's own head and by one for pairs."""

    def __init__(self, orderer):
        super().__init__()
        self.orderer = orderer
        self.pair_head = nn.Linear(orderer.backbone.hidden_size, 1)

    def forward(self, pair_input_ids, pair_attention_mask, pair_labels, **documents):
        ordering = self.orderer(**documents)
        states = self.orderer.backbone.encoder(pair_input_ids, attention_mask=pair_attention_mask).last_hidden_state
        mask = pair_attention_mask[:, :, None].to(states.dtype)
        return ordering, self.pair_head((states * mask).sum(dim=1) / mask.sum(dim=1)).squeeze(-1)


class WithPairs:
    """What a collator makes of documents, and for each of them a pair: two of its sentences, or one and a stranger."""

    def __init__(self, collator, tokenizer, table):
        self.collator = collator
        self.tokenizer = tokenizer
        self.texts = table.select_columns(["sentence_ids"])

    def __call__(self, documents):
        batch = self.collator(documents)
        pairs, labels = [], []
        for document in documents:
            # A function of document and epoch alone, so that the numbers do not depend on workers and processes.
            chance = random.Random(f"{document.planned.row} {document.planned.epoch}")
            first, second = chance.sample(document.sentence_ids, 2)
            same = chance.random() < 0.5
            if not same:
                other = (document.planned.row + chance.randrange(1, len(self.texts))) % len(self.texts)
                second = chance.choice(self.texts[other]["sentence_ids"])
            pairs.append([self.tokenizer.cls_token_id, *first, self.tokenizer.sep_token_id, *second][:512])
            labels.append(float(same))
        padded = self.tokenizer.pad({"input_ids": pairs}, return_tensors="pt")
        batch["pair_input_ids"], batch["pair_attention_mask"] = padded["input_ids"], padded["attention_mask"]
        batch["pair_labels"] = torch.tensor(labels)
        return batch


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset", default="stories")
    parser.add_argument("--model_name_or_path", help="an encoder (default: all-MiniLM-L6-v2)")
    parser.add_argument("--num_train_epochs", type=float, default=1.5)
    parser.add_argument("--batch_size", type=int, default=8, help="documents per optimizer step")
    parser.add_argument("--pair_weight", type=float, default=0.5, help="of the second task's loss")
    parser.add_argument("--output_dir", default="runs/multitask")
    args = parser.parse_args()

    accelerator = Accelerator(step_scheduler_with_optimizer=False)
    set_seed(42)

    orderer = SentenceOrderer.from_encoder(args.model_name_or_path, method="pairwise", dropout=0.0)
    model = TwoTasks(orderer)

    with accelerator.main_process_first():
        splits = load_splits(args.dataset).splits
        tables = {split: orderer.tokenize(documents) for split, documents in splits.items()}
    processes = accelerator.num_processes
    plan = GlobalPlan(tables["train"]["length"][:], args.batch_size, micro_batches=processes, seed=42)
    collators = {
        split: WithPairs(orderer.collator(seed=42), orderer.tokenizer, tables[split])
        for split in ("train", "validation")
    }
    train_loader = ordering_loader(tables["train"], plan, collators["train"])
    eval_loaders = {
        split: evaluation_loader(accelerator, orderer, tables[split], 32) for split in ("validation", "test")
    }
    pair_plan = GlobalPlan(tables["validation"]["length"][:], 32 * processes, micro_batches=processes)
    pair_loader = accelerator.prepare(ordering_loader(tables["validation"], pair_plan, collators["validation"]))

    total_steps = math.ceil(args.num_train_epochs * plan.steps_per_epoch)
    groups = parameter_groups(orderer, learning_rate=1e-4, head_learning_rate=1e-3, weight_decay=0.01)
    groups.append({"params": list(model.pair_head.parameters()), "lr": 1e-3, "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(groups, fused=True)
    scheduler = get_linear_schedule_with_warmup(optimizer, total_steps // 10, total_steps)
    model, optimizer, train_loader = accelerator.prepare(model, optimizer, train_loader)

    def loss(output, batch):
        ordering, pair_logits = output
        of_pairs = binary_cross_entropy_with_logits(pair_logits, batch["pair_labels"], reduction="none")
        return pairwise_logistic(ordering, batch) + args.pair_weight * of_pairs  # (B,): one value per document

    def records(output, batch):
        right = (output[1] > 0) == (batch["pair_labels"] > 0)
        return list(zip(batch["document_ids"].tolist(), right.tolist(), strict=True))

    bar = tqdm(total=total_steps, disable=not accelerator.is_main_process)
    for step in train_steps(accelerator, model, optimizer, scheduler, train_loader, loss, max_steps=total_steps):
        bar.update()
        if step.number % 10 == 0:
            bar.set_postfix(loss=f"{step.loss.item():.4f}", lr=f"{step.learning_rate:.2e}")
        if step.ends_epoch or step.number == total_steps:
            scores = evaluate(accelerator, orderer, eval_loaders["validation"], tables["validation"]).scores
            right = dict(evaluation_records(accelerator, model, pair_loader, records))
            accelerator.print(
                f"step {step.number}, validation: {describe_scores(scores)}; pairs told apart: "
                f"{sum(right.values()) / len(right):.4f} of {len(right)}"
            )
    bar.close()

    scores = evaluate(accelerator, orderer, eval_loaders["test"], tables["test"]).scores
    accelerator.print(f"test: {describe_scores(scores)}")
    if accelerator.is_main_process:
        orderer.save_pretrained(args.output_dir)  # the second head has done its work
    accelerator.wait_for_everyone()  # one that leaves while another is at work can leave it hanging
    accelerator.end_training()


if __name__ == "__main__":
    main()
