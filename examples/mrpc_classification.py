"""Are two sentences paraphrases? GLUE MRPC through the same loop, which knows nothing about either task.

    accelerate launch examples/mrpc_classification.py

Without the Hub: ``--data_dir FOLDER`` with train.jsonl and validation.jsonl (columns sentence1, sentence2, label, idx),
``--metric examples/accuracy_and_f1.py`` and a local ``--model_name_or_path``.
"""

import argparse
import math

import evaluate
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from datasets import load_dataset
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    get_linear_schedule_with_warmup,
)

from sentorder.loop import evaluation_records, train_steps


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_dir", help="instead of glue/mrpc on the Hub")
    parser.add_argument("--metric", default="glue", help="an evaluate metric (default: that of GLUE, on the Hub)")
    parser.add_argument("--model_name_or_path", default="bert-base-cased")
    parser.add_argument("--num_train_epochs", type=int, default=3)
    parser.add_argument("--per_device_batch_size", type=int, default=16)
    parser.add_argument("--learning_rate", type=float, default=2e-5)
    args = parser.parse_args()

    accelerator = Accelerator(step_scheduler_with_optimizer=False)
    set_seed(42)

    # The metric looks for its file, so load it before anything takes long.
    metric = evaluate.load(args.metric, *(["mrpc"] if args.metric == "glue" else []), keep_in_memory=True)
    if args.data_dir is None:
        raw = load_dataset("glue", "mrpc")
    else:
        files = {split: f"{args.data_dir}/{split}.jsonl" for split in ("train", "validation")}
        raw = load_dataset("json", data_files=files)

    tokenizer = AutoTokenizer.from_pretrained(args.model_name_or_path)
    with accelerator.main_process_first():
        data = raw.map(
            lambda rows: tokenizer(rows["sentence1"], rows["sentence2"], truncation=True),
            batched=True,
            remove_columns=["sentence1", "sentence2"],
        ).rename_column("label", "labels")
    collate = DataCollatorWithPadding(tokenizer)  # each batch only as long as its longest pair
    batches = {"batch_size": args.per_device_batch_size, "collate_fn": collate}
    train_loader = DataLoader(data["train"], shuffle=True, generator=torch.Generator().manual_seed(42), **batches)
    eval_loader = DataLoader(data["validation"], **batches)

    model = AutoModelForSequenceClassification.from_pretrained(
        args.model_name_or_path, num_labels=2, dtype=torch.float32, use_safetensors=True
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, fused=True)
    steps_per_epoch = math.ceil(len(train_loader) / accelerator.num_processes)
    total_steps = args.num_train_epochs * steps_per_epoch
    scheduler = get_linear_schedule_with_warmup(optimizer, total_steps // 10, total_steps)
    model, optimizer, train_loader, eval_loader = accelerator.prepare(model, optimizer, train_loader, eval_loader)

    def forward(model, batch):
        return model(**{name: values for name, values in batch.items() if name not in ("labels", "idx")})

    def loss(output, batch):
        return cross_entropy(output.logits, batch["labels"], reduction="none")  # one value per example

    def records(output, batch):
        pairs = zip(output.logits.argmax(-1).tolist(), batch["labels"].tolist(), strict=True)
        return list(zip(batch["idx"].tolist(), pairs, strict=True))

    bar = tqdm(total=total_steps, disable=not accelerator.is_main_process)
    for step in train_steps(
        accelerator, model, optimizer, scheduler, train_loader, loss, max_steps=total_steps, forward=forward
    ):
        bar.update()
        if step.number % 10 == 0:
            bar.set_postfix(loss=f"{step.loss.item():.4f}", lr=f"{step.learning_rate:.2e}")
        if step.ends_epoch:
            # Several processes see an example twice where they do not divide evenly; its number tells.
            found = dict(evaluation_records(accelerator, model, eval_loader, records, forward=forward))
            predictions, references = zip(*found.values(), strict=True)
            if accelerator.is_main_process:
                scores = metric.compute(predictions=predictions, references=references)
                described = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
                accelerator.print(f"epoch {step.epoch}: {described} over {len(references)} pairs")
    bar.close()
    accelerator.wait_for_everyone()  # one that leaves while another still computes metrics can leave it hanging
    accelerator.end_training()


if __name__ == "__main__":
    main()
