"""An exponential moving average of the weights: evaluated and saved in place of the weights themselves.

    accelerate launch examples/ema.py

Beside ``sentence_ordering.py``: the average is made before the loop and updated in its body.
"""

import argparse
import math

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm
from transformers import get_linear_schedule_with_warmup

from sentorder import SentenceOrderer
from sentorder.data.collation import ordering_loader
from sentorder.data.sampling import GlobalPlan
from sentorder.data.sources import load_splits
from sentorder.evaluation import describe_scores, evaluate, evaluation_loader
from sentorder.loop import train_steps
from sentorder.losses import pairwise_logistic
from sentorder.optimization import parameter_groups


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset", default="stories")
    parser.add_argument("--model_name_or_path", help="an encoder (default: all-MiniLM-L6-v2)")
    parser.add_argument("--num_train_epochs", type=float, default=1.5)
    parser.add_argument("--batch_size", type=int, default=8, help="documents per optimizer step")
    parser.add_argument("--gradient_accumulation_steps", type=int, default=1)
    parser.add_argument("--decay", type=float, default=0.99, help="of the average, per step")
    parser.add_argument("--output_dir", default="runs/ema")
    args = parser.parse_args()

    accelerator = Accelerator(step_scheduler_with_optimizer=False)
    set_seed(42)

    # An encoder with a fresh head that gives each pair of sentences a logit, and the decoder that belongs to it.
    model = SentenceOrderer.from_encoder(args.model_name_or_path, method="pairwise", dropout=0.0)

    # Documents are read and become token ids once, by the first process; the next start finds them on the disk. The
    # collator shuffles the sentences anew in each epoch.
    with accelerator.main_process_first():
        splits = load_splits(args.dataset).splits
        tables = {split: model.tokenize(documents) for split, documents in splits.items()}
    micro_batches = args.gradient_accumulation_steps * accelerator.num_processes
    plan = GlobalPlan(tables["train"]["length"][:], args.batch_size, micro_batches=micro_batches, seed=42)
    train_loader = ordering_loader(tables["train"], plan, model.collator(seed=42))
    eval_loaders = {split: evaluation_loader(accelerator, model, tables[split], 32) for split in ("validation", "test")}

    # The schedule counts optimizer steps and stays as it is; everything else Accelerate puts in its place.
    total_steps = math.ceil(args.num_train_epochs * plan.steps_per_epoch)
    groups = parameter_groups(model, learning_rate=1e-4, head_learning_rate=1e-3, weight_decay=0.01)
    optimizer = torch.optim.AdamW(groups, fused=True)
    scheduler = get_linear_schedule_with_warmup(optimizer, total_steps // 10, total_steps)
    model, optimizer, train_loader = accelerator.prepare(model, optimizer, train_loader)

    # A copy of the bare model on its device; every process keeps the same one.
    bare = accelerator.unwrap_model(model)
    average = AveragedModel(bare, multi_avg_fn=get_ema_multi_avg_fn(args.decay))

    bar = tqdm(total=total_steps, disable=not accelerator.is_main_process)
    for step in train_steps(
        accelerator,
        model,
        optimizer,
        scheduler,
        train_loader,
        pairwise_logistic,
        max_steps=total_steps,
        gradient_accumulation_steps=args.gradient_accumulation_steps,
    ):
        bar.update()
        average.update_parameters(bare)
        if step.number % 10 == 0:
            bar.set_postfix(loss=f"{step.loss.item():.4f}", lr=f"{step.learning_rate:.2e}")
        if step.ends_epoch or step.number == total_steps:
            scores = evaluate(accelerator, average.module, eval_loaders["validation"], tables["validation"]).scores
            accelerator.print(f"step {step.number}, validation: {describe_scores(scores)}")
    bar.close()

    scores = evaluate(accelerator, average.module, eval_loaders["test"], tables["test"]).scores
    accelerator.print(f"test: {describe_scores(scores)}")
    if accelerator.is_main_process:
        average.module.save_pretrained(args.output_dir)
    accelerator.wait_for_everyone()  # one that leaves while another is at work can leave it hanging
    accelerator.end_training()


if __name__ == "__main__":
    main()
