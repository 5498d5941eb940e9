"""The same training by a Trainer subclass and by the loop: the same loss at every step, printed side by side.

    python examples/trainer_side_by_side.py

What Trainer does out of sight, and where each of it is here, stands in README ("Coming from Trainer").
"""

import argparse
import copy
import math
import tempfile

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from transformers import Trainer, TrainingArguments, get_linear_schedule_with_warmup

from sentorder import SentenceOrderer
from sentorder.data.collation import ordering_loader
from sentorder.data.sampling import GlobalPlan
from sentorder.data.sources import load_splits
from sentorder.loop import train_steps
from sentorder.losses import pairwise_logistic
from sentorder.optimization import parameter_groups


class OrderingTrainer(Trainer):
    """A subclass, because the loss, the batches and the loader are not the ones Trainer knows."""

    def __init__(self, *given, loader, **named):
        super().__init__(*given, **named)
        self.loader = loader
        self.losses = []

    def get_train_dataloader(self):
        return self.accelerator.prepare(self.loader)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss = pairwise_logistic(model(**inputs), inputs).mean()
        self.losses.append(loss.item())
        return loss


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset", default="stories")
    parser.add_argument("--model_name_or_path", help="an encoder (default: all-MiniLM-L6-v2)")
    parser.add_argument("--max_steps", type=int, default=20)
    parser.add_argument("--batch_size", type=int, default=8, help="documents per optimizer step")
    args = parser.parse_args()

    set_seed(42)
    # Without dropout, so that no random number is drawn while training.
    model = SentenceOrderer.from_encoder(args.model_name_or_path, method="pairwise", dropout=0.0)
    table = model.tokenize(load_splits(args.dataset).splits["train"])

    def parts(model):
        plan = GlobalPlan(table["length"][:], args.batch_size, seed=42)
        loader = ordering_loader(table, plan, model.collator(seed=42))
        groups = parameter_groups(model, learning_rate=1e-4, head_learning_rate=1e-3, weight_decay=0.01)
        optimizer = torch.optim.AdamW(groups, fused=True)
        schedule = get_linear_schedule_with_warmup(optimizer, args.max_steps // 10, args.max_steps)
        return loader, optimizer, schedule, math.ceil(args.max_steps / plan.steps_per_epoch)

    # Trainer.
    trained = copy.deepcopy(model)
    loader, optimizer, schedule, epochs = parts(trained)
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=args.batch_size,
            num_train_epochs=epochs,
            max_steps=args.max_steps,
            max_grad_norm=1.0,
            remove_unused_columns=False,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = OrderingTrainer(trained, settings, loader=loader, optimizers=(optimizer, schedule))
        trainer.train()

    # The loop.
    accelerator = Accelerator(step_scheduler_with_optimizer=False)
    loader, optimizer, schedule, _ = parts(model)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    losses = [
        step.loss.item()
        for step in train_steps(
            accelerator, model, optimizer, schedule, loader, pairwise_logistic, max_steps=args.max_steps
        )
    ]

    print("step    Trainer  train_steps")
    for number, (theirs, ours) in enumerate(zip(trainer.losses, losses, strict=True), start=1):
        print(f"{number:4d}  {theirs:9.6f}    {ours:9.6f}")
    largest = max(
        float((theirs - ours).abs().max())
        for theirs, ours in zip(trained.state_dict().values(), model.state_dict().values(), strict=True)
    )
    print(f"largest difference of a weight: {largest:.1e}")


if __name__ == "__main__":
    main()
