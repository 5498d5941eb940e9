"""The tutorial's system: a token classifier with one label reads each sentence's position at the marker before it.

    accelerate launch examples/token_classification_regression.py

``[CLS] s_a [CLS] s_b ...`` goes in, the model is ``AutoModelForTokenClassification(num_labels=1)`` as transformers has
it, and what is saved is that model: ``AutoModelForTokenClassification.from_pretrained("runs/token_classification")``.
Beside ``sentence_ordering.py``: another model, what makes scores of its output, another loss and decoder.
"""

import argparse
import math

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from tqdm import tqdm
from transformers import AutoModelForTokenClassification, AutoTokenizer, get_linear_schedule_with_warmup

from sentorder.backbones import pooling_weights
from sentorder.contracts import OrderingOutput
from sentorder.data.collation import JointCollator, ordering_loader
from sentorder.data.sampling import GlobalPlan
from sentorder.data.sources import load_splits
from sentorder.data.tokenization import tokenize
from sentorder.decoding import decode_scores
from sentorder.encoders import resolve_encoder
from sentorder.evaluation import describe_scores, scores_of
from sentorder.loop import evaluation_records, train_steps
from sentorder.metrics import in_source_order
from sentorder.score_losses import squared_error


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset", default="stories")
    parser.add_argument("--model_name_or_path", help="an encoder (default: all-MiniLM-L6-v2)")
    parser.add_argument("--num_train_epochs", type=float, default=1.5)
    parser.add_argument("--batch_size", type=int, default=8, help="documents per optimizer step")
    parser.add_argument("--learning_rate", type=float, default=1e-4)
    parser.add_argument("--output_dir", default="runs/token_classification")
    args = parser.parse_args()

    accelerator = Accelerator(step_scheduler_with_optimizer=False)
    set_seed(42)

    encoder = resolve_encoder(args.model_name_or_path).path
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    model = AutoModelForTokenClassification.from_pretrained(
        encoder, num_labels=1, dtype=torch.float32, use_safetensors=True
    )
    window = min(512, model.config.max_position_embeddings)

    with accelerator.main_process_first():
        splits = load_splits(args.dataset).splits
        tables = {split: tokenize(documents, tokenizer, window) for split, documents in splits.items()}
    processes = accelerator.num_processes
    plan = GlobalPlan(tables["train"]["length"][:], args.batch_size, micro_batches=processes, seed=42)
    collator = JointCollator(tokenizer.cls_token_id, tokenizer.pad_token_id, seed=42)
    train_loader = ordering_loader(tables["train"], plan, collator)
    eval_loaders = {}
    for split in ("validation", "test"):
        eval_plan = GlobalPlan(tables[split]["length"][:], 32 * processes, micro_batches=processes)
        eval_loaders[split] = accelerator.prepare(ordering_loader(tables[split], eval_plan, collator))

    total_steps = math.ceil(args.num_train_epochs * plan.steps_per_epoch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=0.01, fused=True)
    scheduler = get_linear_schedule_with_warmup(optimizer, total_steps // 10, total_steps)
    model, optimizer, train_loader = accelerator.prepare(model, optimizer, train_loader)

    def forward(model, batch):
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits  # (B, L, 1)
        # The logit at the marker of each slot. (One of AutoModelForTokenClassification's labels is -100 elsewhere, and
        # its loss a mean over tokens; here the loss is per document, and the loop makes the mean.)
        markers = pooling_weights(batch["token_slots"], batch["slot_mask"].shape[1], "marker", logits.dtype)
        return OrderingOutput(scores=(markers @ logits).squeeze(-1).float())  # (B, N)

    def records(output, batch):
        sources, documents = batch["sources"].tolist(), batch["document_ids"].tolist()
        decoded = decode_scores(output, batch["slot_mask"])
        return [(documents[row], [sources[row][slot] for slot in best.order]) for row, (best, *_) in enumerate(decoded)]

    def evaluate(split):
        found = sorted(evaluation_records(accelerator, model, eval_loaders[split], records, forward=forward))
        pairs = zip(found, tables[split]["sentences"], strict=True)
        return scores_of([in_source_order(order, sentences) for (_, order), sentences in pairs])

    bar = tqdm(total=total_steps, disable=not accelerator.is_main_process)
    for step in train_steps(
        accelerator, model, optimizer, scheduler, train_loader, squared_error, max_steps=total_steps, forward=forward
    ):
        bar.update()
        if step.number % 10 == 0:
            bar.set_postfix(loss=f"{step.loss.item():.4f}", lr=f"{step.learning_rate:.2e}")
        if step.ends_epoch or step.number == total_steps:
            accelerator.print(f"step {step.number}, validation: {describe_scores(evaluate('validation'))}")
    bar.close()

    accelerator.print(f"test: {describe_scores(evaluate('test'))}")
    if accelerator.is_main_process:
        accelerator.unwrap_model(model).save_pretrained(args.output_dir)
        tokenizer.save_pretrained(args.output_dir)
    accelerator.wait_for_everyone()  # one that leaves while another is at work can leave it hanging
    accelerator.end_training()


if __name__ == "__main__":
    main()
