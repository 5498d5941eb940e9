"""The parts of a training run, built from its arguments, and what is done with them between two steps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, set_seed
from datasets import Dataset
from torch.optim.lr_scheduler import LRScheduler

from .arguments import TrainArguments
from .checkpoint import checkpoint_folder, prune_checkpoints, restore_checkpoint, save_checkpoint
from .data.collation import Shape, ordering_loader
from .data.sampling import GlobalPlan
from .data.splitting import numbers
from .errors import UserError
from .evaluation import Evaluation, check_fixed_shapes, evaluate, evaluation_loader, one_shape
from .execution import set_execution
from .loop import Cursor
from .memory import fitting_accumulation, most_demanding
from .model_files import save_model
from .modeling import SentenceOrderer, load_for_training
from .optimization import adamw, parameter_groups, schedule
from .resume import Start, best_checkpoint, check_same_facts, facts_of
from .run_folder import METRICS, make_run_folder
from .runtime import main_process_first
from .selection import Selection
from .sharding import is_split, mixed_precision_of, prepare_split
from .tracking import Meter


@dataclass
class Run:
    """A training run: what it is made of, and how far it is."""

    arguments: TrainArguments
    """With everything filled in that was left open."""
    accelerator: Accelerator
    folder: Path
    tables: dict[str, Dataset]
    """Split -> tokenised documents."""
    plan: GlobalPlan
    train_loader: Any
    eval_loaders: dict[str, Any]
    model: torch.nn.Module
    """Prepared."""
    optimizer: torch.optim.Optimizer
    """Prepared."""
    scheduler: LRScheduler
    """Not prepared, so it does not depend on the number of processes."""
    accumulation: int
    """Micro-batches per process and step."""
    total_steps: int
    facts: dict[str, Any]
    """See :func:`~sentorder.resume.facts_of`."""
    cursor: Cursor
    selection: Selection
    meter: Meter

    @property
    def bare(self) -> SentenceOrderer:
        """The model without what Accelerate puts around it."""
        bare: SentenceOrderer = self.accelerator.unwrap_model(self.model)
        return bare

    @property
    def keeps_best(self) -> bool:
        """Whether ``model/`` is to hold the best model and not the last one."""
        return self.arguments.load_best_model_at_end and self.arguments.eval_strategy != "no"

    @property
    def is_given_up(self) -> bool:
        """Whether early stopping has ended it."""
        return self.selection.is_exhausted(self.arguments.early_stopping_patience)

    def evaluate(self, split: str, description: str = "evaluating") -> Evaluation:
        """Score the model as it is."""
        return evaluate(
            self.accelerator, self.model, self.eval_loaders[split], self.tables[split], description=description
        )

    def save_model(self) -> None:
        """Put the model as it is into ``model/``."""
        save_model(self.accelerator, self.model, self.folder / "model")

    def save_checkpoint(self) -> Path:
        """Save all that going on from here needs, and remove older checkpoints that need not be kept."""
        checkpoint = checkpoint_folder(self.folder, self.cursor.number)
        save_checkpoint(
            self.accelerator,
            checkpoint,
            model=self.model,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            progress={
                "cursor": dataclasses.asdict(self.cursor),
                "selection": dataclasses.asdict(self.selection),
                "meter": self.meter.state(),
                "arguments": dataclasses.asdict(self.arguments),
                "facts": self.facts,
            },
            copies=[self.folder / METRICS],
        )
        if self.accelerator.is_main_process:
            best = checkpoint_folder(self.folder, self.selection.best_step)
            prune_checkpoints(checkpoint, newest=self.arguments.save_total_limit, keep=best)
        return checkpoint


def build_run(
    accelerator: Accelerator, arguments: TrainArguments, documents: Mapping[str, Dataset], start: Start
) -> Run:
    """Build everything, try an evaluation, and make the folder.

    Raises:
        UserError: for whatever does not fit together.
    """
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        if arguments.save_strategy != "no":
            raise UserError(
                f"--save_strategy {arguments.save_strategy}: DeepSpeed keeps its optimizer in a form that no run could "
                "go on from; give --save_strategy no (the model is kept all the same), or use "
                "accelerate_configs/fsdp2.yaml."
            )
        if start.checkpoint is not None:
            raise UserError("--resume_from_checkpoint: not with DeepSpeed; use accelerate_configs/fsdp2.yaml.")
    if arguments.auto_find_batch_size and is_split(accelerator):
        raise UserError(
            "--auto_find_batch_size: cannot try what fits where training is split by FSDP2 or DeepSpeed; raise "
            "--gradient_accumulation_steps instead."
        )
    # What is trained. A checkpoint is a model too.
    resumes = start.checkpoint is not None
    set_seed(arguments.seed)
    model = load_for_training(
        str(start.checkpoint) if resumes else arguments.model_name_or_path,
        method=arguments.method,
        backbone=arguments.backbone,
        pooling=arguments.pooling,
        dropout=arguments.dropout,
        max_length=arguments.max_length,
        tokenizer_name=None if resumes else arguments.tokenizer_name,
    )
    set_execution(
        model.backbone.encoder,
        attn_implementation=arguments.attn_implementation,
        gradient_checkpointing=arguments.gradient_checkpointing,
        torch_compile=arguments.torch_compile,
    )
    model.recordings.enabled = arguments.cuda_graphs and not arguments.deterministic
    workers = arguments.preprocessing_num_workers
    tables = main_process_first(
        accelerator,
        lambda: {split: model.tokenize(texts, num_workers=workers) for split, texts in documents.items()},
    )
    # What was left open is now known; written down before the first step, it can be given back as --config.
    arguments = dataclasses.replace(
        arguments,
        method=model.config.method,
        backbone=model.config.backbone,
        pooling=model.config.pooling,
        mixed_precision=mixed_precision_of(accelerator),
    )

    if arguments.pad_to_max_length:
        check_fixed_shapes(model)

    # Which documents make up which step, and the loaders that deal them out.
    shape = one_shape(tables.values(), model.config.max_length) if arguments.pad_to_max_length else None
    step_size, accumulation = _step_size(accelerator, arguments, model, tables["train"], shape)
    plan = GlobalPlan(
        numbers(tables["train"], "length"),
        step_size,
        micro_batches=accumulation * accelerator.num_processes,
        seed=arguments.seed,
        same_size=shape is not None,
    )
    total_steps = arguments.max_steps
    if total_steps < 0:
        total_steps = math.ceil(arguments.num_train_epochs * plan.steps_per_epoch)
    facts = facts_of(
        arguments, tables, processes=accelerator.num_processes, step_size=step_size, total_steps=total_steps
    )
    if resumes:
        check_same_facts(start, facts)
    train_loader = accelerator.prepare(
        ordering_loader(
            tables["train"],
            plan,
            model.collator(seed=arguments.seed, shape=shape),
            num_workers=arguments.dataloader_num_workers,
        )
    )

    def loader_of(table: Dataset, workers: int) -> Any:
        batch_size = arguments.per_device_eval_batch_size
        return evaluation_loader(accelerator, model, table, batch_size, num_workers=workers, shape=shape)

    # Optimizer and schedule.
    optimizer: torch.optim.Optimizer = adamw(
        parameter_groups(
            model,
            learning_rate=arguments.learning_rate,
            head_learning_rate=arguments.head_learning_rate,
            weight_decay=arguments.weight_decay,
        )
    )
    scheduler = schedule(
        arguments.lr_scheduler_type, optimizer, warmup_steps=arguments.warmup_steps, total_steps=total_steps
    )
    prepared, optimizer = prepare_split(accelerator, model, optimizer, max_grad_norm=arguments.max_grad_norm)
    if arguments.eval_strategy != "no":  # an evaluation that cannot work should fail now, not in an hour
        size = 2 * arguments.per_device_eval_batch_size * accelerator.num_processes
        few = tables["validation"].select(most_demanding(tables["validation"], size))
        evaluate(accelerator, prepared, loader_of(few, workers=0), few)

    # Where the run stands: at its beginning, or where the checkpoint was saved.
    selection = start.selection or Selection(arguments.metric_for_best_model)
    best = None
    if start.checkpoint is not None and arguments.load_best_model_at_end:
        try:
            best = best_checkpoint(start.checkpoint, selection)
        except UserError as error:
            start.notes.append(f"the best model so far is lost, the best of the remaining steps is kept: {error}")
            selection = Selection(arguments.metric_for_best_model)
    folder = make_run_folder(accelerator, arguments, checkpoint=start.checkpoint, best=best)
    accelerator.project_configuration.project_dir = accelerator.project_configuration.logging_dir = str(folder)
    set_seed(arguments.seed, device_specific=True)  # from here on only dropout draws: differently on each process
    if start.checkpoint is not None:
        restore_checkpoint(accelerator, start.checkpoint, optimizer=optimizer, scheduler=scheduler)
    return Run(
        arguments=arguments,
        accelerator=accelerator,
        folder=folder,
        tables=tables,
        plan=plan,
        train_loader=train_loader,
        eval_loaders={
            split: loader_of(tables[split], arguments.dataloader_num_workers)
            for split in ("validation", "test")
            if split in tables
        },
        model=prepared,
        optimizer=optimizer,
        scheduler=scheduler,
        accumulation=accumulation,
        total_steps=total_steps,
        facts=facts,
        cursor=start.cursor,
        selection=selection,
        meter=Meter(start.meter),
    )


def _step_size(
    accelerator: Accelerator, arguments: TrainArguments, model: SentenceOrderer, table: Dataset, shape: Shape | None
) -> tuple[int, int]:
    """Documents per optimizer step, and micro-batches per process that they are cut into."""
    accumulation = arguments.gradient_accumulation_steps
    micro_batches = accumulation * accelerator.num_processes
    if micro_batches > len(table):
        raise UserError(
            f"--gradient_accumulation_steps {accumulation}: a step would have {micro_batches} micro-batches, but there "
            f"are only {len(table)} documents to train on."
        )
    step_size = arguments.per_device_train_batch_size * micro_batches
    if arguments.auto_find_batch_size:
        accumulation = fitting_accumulation(
            accelerator, model, table, step_size=step_size, accumulation=accumulation, shape=shape
        )
    return step_size, accumulation
