"""What each command can be told: dataclasses, whose fields are the flags. ``command_line.py`` reads them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Annotated, ClassVar, Literal, Optional

from .argument_checks import Between, CheckedArguments, option
from .data.reading import SourceOptions

# HfArgumentParser wants Optional[X], not X | None.
# ruff: noqa: UP045


# Names of decoders and formats stand here again, because their tables need torch and pyarrow, for which --help should
# not wait; the tests hold them alike.

# --- groups of arguments --------------------------------------------------------------------------------------------

_PREPROCESSING = (
    "Processes that tokenise a big source together, once: the result is kept on disk (without it: one process)."
)


@dataclass
class ModelArguments:
    """What is trained."""

    _argument_group_name: ClassVar[str] = "model"

    model_name_or_path: Optional[str] = option(
        None,
        "A pretrained encoder (Hub name or folder), or a model/ folder of sentorder to go on with. Without it: "
        "all-MiniLM-L6-v2, from the quickstart extra where that is installed, else from the Hub.",
    )
    tokenizer_name: Optional[str] = option(None, "Where the tokenizer comes from, if not from the encoder.")
    method: Optional[str] = option(
        None, "How sentences are ordered (without it: joint, or the method of the model folder)."
    )
    backbone: Optional[str] = option(
        None, "What reads the documents (without it: hierarchical, or the backbone of the model folder)."
    )
    pooling: Optional[Literal["marker", "mean", "both"]] = option(
        None,
        "How a sentence is read: at its marker token, as the mean of its tokens, or as the sum of both (without it: "
        "both, or what the model folder has).",
    )
    dropout: Annotated[Optional[float], Between(0, 0.99)] = option(
        0.0,
        "Replaces every dropout of the encoder and is that of the head, also when going on with a model folder; 'none' "
        "keeps what is there.",
    )
    max_length: Annotated[Optional[int], Between(8)] = option(
        None,
        "Tokens per document, one marker per sentence included (without it: what the encoder takes); with the backbone "
        "hierarchical per sentence.",
    )


@dataclass
class FileArguments:
    """How files are read."""

    _argument_group_name: ClassVar[str] = "files"

    format: Optional[
        Literal[
            "parquet",
            "sind",
            "json",
            "jsonl",
            "csv",
            "btsort",
            "eos",
            "at-eos",
            "tsv",
            "lines",
            "markdown",
            "text",
            "arrow",
            "lists",
        ]
    ] = option(None, "The layout of files and folders (without it: found by what is in them).")
    columns: Optional[str] = option(
        None,
        "Which columns or JSON keys hold what: sentences=a (lists) or sentences=a+b+c (one sentence each), id=a, "
        "genre=a, group=a (what a document is a piece of), or shuffled_sentences=a,gold_order=b with the position of "
        "each of the shuffled sentences.",
    )
    language: Optional[str] = option(None, "Of running text, as a code such as de (without it: en).")
    unit: Optional[Literal["sentence", "paragraph"]] = option(
        None, "What of running text is put into order (without it: sentences)."
    )
    window: Annotated[Optional[int], Between(2)] = option(
        None, "Cut documents into pieces of so many sentences (without it: running text into 6, others not at all)."
    )
    stride: Annotated[Optional[int], Between(1)] = option(
        None, "From the beginning of one piece to that of the next (without it: they do not overlap)."
    )

    @property
    def source_options(self) -> SourceOptions:
        """What the library takes."""
        names = [item.name for item in fields(FileArguments)]
        return SourceOptions(**{name: getattr(self, name) for name in names})


@dataclass
class SourceArguments(FileArguments):
    """Where documents come from."""

    _argument_group_name: ClassVar[str] = "source"

    dataset: str = option(
        "stories",
        "'stories' (bundled), a file or glob that is split 80/10/10, a folder, a data set on the Hub, or "
        "train=SOURCE,validation=SOURCE,test=SOURCE (of a folder or Hub name also SOURCE:split). README lists the "
        "layouts of files and folders.",
    )
    dataset_config_name: Optional[str] = option(None, "Which configuration of a data set on the Hub.")
    dataset_revision: Optional[str] = option(None, "Which commit, branch or tag of a data set on the Hub.")

    @property
    def source_options(self) -> SourceOptions:
        """What the library takes."""
        return replace(super().source_options, config=self.dataset_config_name, revision=self.dataset_revision)


@dataclass
class DataArguments:
    """What of it is used, and how it is put into batches."""

    _argument_group_name: ClassVar[str] = "data"

    max_train_documents: Annotated[Optional[int], Between(1)] = option(None, "Use only the first so many for training.")
    max_eval_documents: Annotated[Optional[int], Between(1)] = option(
        None, "Use only the first so many for validation, and as many for the test."
    )
    preprocessing_num_workers: Annotated[Optional[int], Between(1, 256)] = option(None, _PREPROCESSING)
    dataloader_num_workers: Annotated[int, Between(0, 256)] = option(0, "Worker processes that prepare batches.")


@dataclass
class OptimizationArguments:
    """How it is trained."""

    _argument_group_name: ClassVar[str] = "training"

    per_device_train_batch_size: Annotated[int, Between(1, 65536)] = option(
        8, "Documents per micro-batch. A step has this x gradient_accumulation_steps x processes."
    )
    gradient_accumulation_steps: Annotated[int, Between(1, 65536)] = option(1, "Micro-batches per optimizer step.")
    num_train_epochs: Annotated[float, Between(0, 1e6)] = option(
        1.5, "Passes over the training documents; may be a fraction."
    )
    max_steps: Annotated[int, Between(-1, 10**9)] = option(
        -1, "Optimizer steps; if above 0 it overrides num_train_epochs."
    )
    learning_rate: Annotated[float, Between(0)] = option(1e-4, "Of the encoder.")
    head_learning_rate: Annotated[Optional[float], Between(0)] = option(
        1e-3, "Of the head, which is new ('none': the encoder's, which suits going on with a trained head)."
    )
    lr_scheduler_type: Literal[
        "linear",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
        "constant",
        "constant_with_warmup",
        "inverse_sqrt",
    ] = option("linear", "How the learning rates change over the run.")
    warmup_steps: Annotated[float, Between(0)] = option(0.1, "Steps of linear warm-up; below 1 a share of the run.")
    weight_decay: Annotated[float, Between(0)] = option(0.01, "Of matrices; biases and norms do not decay.")
    max_grad_norm: Annotated[float, Between(0)] = option(1.0, "Clips the norm of the gradient; 0 switches that off.")
    max_skipped_steps: Annotated[int, Between(0)] = option(
        0,
        "Steps in a row that may be left out because loss or gradient is not finite; each is counted in the log. With "
        "0 the first one ends the run, before it reaches the weights.",
    )
    early_stopping_patience: Annotated[Optional[int], Between(1)] = option(
        None, "End the run after so many evaluations in a row that were no better than the best."
    )
    seed: Annotated[int, Between(0, 2**32 - 1)] = option(
        42, "Of everything that is random: head, order of documents, shuffles, dropout."
    )


@dataclass
class RuntimeArguments:
    """Where and how fast it runs."""

    _argument_group_name: ClassVar[str] = "machine"

    per_device_eval_batch_size: Annotated[int, Between(1, 65536)] = option(
        32, "Documents per batch where nothing is trained."
    )
    pad_to_max_length: bool = option(
        False,
        "Every batch in one shape: max_length tokens, the most sentences of any document, the full batch size "
        "(fillers count nothing). Slow on a CPU; TPUs and graph capture like it.",
    )
    mixed_precision: Optional[Literal["no", "fp16", "bf16"]] = option(
        None, "Without it: what `accelerate config` or `accelerate launch` says."
    )
    cpu_threads: Annotated[Optional[int], Between(1, 4096)] = option(
        None, "Threads of each process on a CPU (without it: all cores, shared among the processes)."
    )


@dataclass
class TrainRuntimeArguments(RuntimeArguments):
    """Where and how fast it trains."""

    auto_find_batch_size: bool = option(
        False,
        "Before training, try the longest documents; while they do not fit into memory, cut a step into twice as many "
        "micro-batches. The documents of a step stay the same, so the numbers do.",
    )
    gradient_checkpointing: bool = option(
        False, "Save memory: compute each layer once more in the backward pass, instead of keeping what it gave."
    )
    torch_compile: bool = option(
        False, "Compile the encoder with torch.compile: slow to start, for long runs on a GPU."
    )
    cuda_graphs: bool = option(
        True,
        "On a single GPU, record what the model does to batches of one shape and replay it: the same, told to the GPU "
        "by one word instead of a thousand.",
    )
    attn_implementation: Optional[Literal["eager", "sdpa"]] = option(
        None,
        "How the encoder computes attention (without it: like sdpa, but sentences of one row do without padding, and "
        "dropout costs a CPU little).",
    )
    deterministic: bool = option(
        False,
        "Only operations that give the same bits each time, on a GPU too; slower there, and nothing is recorded.",
    )


@dataclass
class OutputArguments:
    """What is written, and when."""

    _argument_group_name: ClassVar[str] = "output"

    output_dir: Optional[str] = option(None, "Without it: a fresh numbered folder under runs/.")
    overwrite_output_dir: bool = option(False, "Replace the run that output_dir holds.")
    resume_from_checkpoint: Optional[str] = option(
        None,
        "Go on with a run: a checkpoint folder, a run's folder for its newest one, or 'auto': the newest one in "
        "output_dir, or a fresh start if there is none.",
    )
    save_strategy: Literal["no", "steps", "epoch"] = option(
        "epoch",
        "When to save a checkpoint to go on from; with steps and epoch also with each best model, at a signal and at "
        "the end.",
    )
    save_steps: Annotated[int, Between(1)] = option(
        100, "Optimizer steps between two checkpoints, with save_strategy steps."
    )
    save_total_limit: Annotated[int, Between(1)] = option(
        2, "Keep so many of the newest checkpoints, and that of the best model."
    )
    logging_steps: Annotated[int, Between(1)] = option(10, "Log every so many optimizer steps.")
    eval_strategy: Literal["no", "steps", "epoch"] = option(
        "epoch", "When to evaluate on validation: the best model by that is kept. With 'no' the last one is."
    )
    eval_on_start: bool = option(False, "Evaluate before the first step too (two batches are always tried).")
    eval_steps: Annotated[int, Between(1)] = option(
        100, "Optimizer steps between two evaluations, with eval_strategy steps."
    )
    metric_for_best_model: Literal["kendall_tau", "accuracy", "perfect_match_ratio", "loss"] = option(
        "kendall_tau", "Of the validation split; the highest is best, of the loss the lowest."
    )
    load_best_model_at_end: bool = option(True, "Keep the best model by that, and score it on test; else the last one.")
    push_to_hub: bool = option(False, "Upload the model to the Hub at the end, into hub_model_id.")
    hub_model_id: Optional[str] = option(
        None, "The repository for that, owner/name; one that is not there is made, and is private."
    )
    log_with: list[str] = field(
        default_factory=list, metadata={"help": "Trackers of Accelerate to log to as well, such as tensorboard."}
    )


# --- the arguments of each command ----------------------------------------------------------------------------------


@dataclass
class TrainArguments(
    OutputArguments,
    TrainRuntimeArguments,
    OptimizationArguments,
    DataArguments,
    SourceArguments,
    ModelArguments,
    CheckedArguments,
):
    """Everything that a training run can be told; ``TrainArguments()`` is the default run."""

    GROUPS: ClassVar[tuple[type, ...]] = (
        ModelArguments,
        SourceArguments,
        DataArguments,
        OptimizationArguments,
        TrainRuntimeArguments,
        OutputArguments,
    )

    def problems(self) -> list[str]:
        found = super().problems()
        if self.max_steps == 0 or (self.max_steps == -1 and self.num_train_epochs == 0):
            found.append("Nothing would be trained: give --max_steps or --num_train_epochs above 0.")
        if self.eval_strategy == "no" and self.early_stopping_patience is not None:
            found.append("--early_stopping_patience: has no meaning with --eval_strategy no.")
        if self.resume_from_checkpoint is not None and self.overwrite_output_dir:
            found.append("--resume_from_checkpoint: goes on with the run that --overwrite_output_dir would remove.")
        if self.push_to_hub != (self.hub_model_id is not None):
            found.append("--push_to_hub --hub_model_id OWNER/NAME: give both, or neither.")
        if self.resume_from_checkpoint == "auto" and self.output_dir is None:
            found.append("--resume_from_checkpoint auto: give --output_dir as well, the same each time.")
        return found


@dataclass
class DecodingArguments:
    """How the output of a model becomes an order."""

    _argument_group_name: ClassVar[str] = "decoding"

    decoder: Optional[
        Literal["pairs", "pairs-and-neighbours", "borda", "copeland", "topological", "positions", "choices", "together"]
    ] = option(None, "How orders are found (without it: as the model's method does).")
    num_permutations: Annotated[int, Between(1, 64)] = option(
        1, "Average over so many orders of the input, each of which costs a pass of the encoder."
    )
    num_refeeds: Annotated[int, Between(0, 16)] = option(
        0, "Give the best order so far as the input so often once more, each of which costs a pass."
    )
    piece_length: Annotated[Optional[int], Between(2)] = option(
        None,
        "Put longer documents into order piece by piece, so many sentences in each at the most (best an even number), "
        "and merge what the pieces say about every two sentences; without it all sentences at once.",
    )


@dataclass
class _EvaluationGroup:
    _argument_group_name: ClassVar[str] = "evaluation"

    model_path: Optional[str] = option(
        None,
        "The model/ folder of a training run (required); with --untrained an encoder (without it: all-MiniLM-L6-v2).",
    )
    untrained: Optional[Literal["as-shuffled", "random", "similarity"]] = option(
        None, "Score a way to order that learns nothing, the floor for those that do."
    )
    split: Optional[Literal["train", "validation", "test"]] = option(
        None, "Which split (without it: test; of a source without splits all of it)."
    )
    max_eval_documents: Annotated[Optional[int], Between(1)] = option(None, "Use only the first so many.")
    preprocessing_num_workers: Annotated[Optional[int], Between(1, 256)] = option(None, _PREPROCESSING)
    output_dir: Optional[str] = option(None, "Also write results.json and predictions.jsonl into this folder.")


@dataclass
class EvaluationArguments(RuntimeArguments, DecodingArguments, SourceArguments, _EvaluationGroup, CheckedArguments):
    """Everything that ``python -m sentorder.evaluation`` can be told."""

    GROUPS: ClassVar[tuple[type, ...]] = (_EvaluationGroup, SourceArguments, DecodingArguments, RuntimeArguments)

    def problems(self) -> list[str]:
        found = super().problems()
        return found if self.untrained is not None else _required(self.model_path, "--model_path") + found


@dataclass
class _PredictionGroup:
    _argument_group_name: ClassVar[str] = "prediction"

    model_path: Optional[str] = option(None, "The model/ folder of a training run (required).")
    batch_size: Annotated[int, Between(1, 65536)] = option(32, "Documents per pass of the encoder.")
    cpu_threads: Annotated[Optional[int], Between(1, 4096)] = option(None, "Threads on a CPU (without it: all cores).")
    num_best: Annotated[int, Between(1, 100)] = option(
        1, "How many orders of each document, best first; above 1 the answer is JSON lines."
    )
    explain: Optional[str] = option(
        None,
        "Also draw what the model says about each two sentences of a document, of which there must be one, into this "
        "file (.png).",
    )
    score: bool = option(
        False, "Rate the order in which the sentences stand instead: Kendall's tau against the predicted one, and more."
    )


@dataclass
class PredictArguments(DecodingArguments, FileArguments, _PredictionGroup, CheckedArguments):
    """Everything that ``python -m sentorder.predict`` can be told."""

    GROUPS: ClassVar[tuple[type, ...]] = (_PredictionGroup, FileArguments, DecodingArguments)

    def problems(self) -> list[str]:
        found = _required(self.model_path, "--model_path") + super().problems()
        if self.explain is not None and not self.explain.endswith(".png"):
            found.append(f"--explain {self.explain}: the name of the picture must end in .png.")
        if self.explain is not None and self.score:
            found.append("--explain: has no meaning with --score.")
        if self.score and self.num_best > 1:
            found.append("--num_best: has no meaning with --score, which rates one order.")
        return found


@dataclass
class _InspectionGroup:
    _argument_group_name: ClassVar[str] = "output"

    output: Optional[str] = option(None, "Write train.jsonl, validation.jsonl and test.jsonl into this folder.")
    arrow: bool = option(False, "Write them as save_to_disk of the datasets library does instead.")


@dataclass
class InspectionArguments(_InspectionGroup, SourceArguments, CheckedArguments):
    """Everything that ``python -m sentorder.data`` can be told."""

    GROUPS: ClassVar[tuple[type, ...]] = (SourceArguments, _InspectionGroup)

    def problems(self) -> list[str]:
        found = super().problems()
        if self.arrow and self.output is None:
            found.append("--arrow: says how --output is written; give that too.")
        return found


@dataclass
class CompareArguments(CheckedArguments):
    """What ``python -m sentorder.compare`` can be told, beside its files and ``--as``, which Python has for itself."""

    _argument_group_name: ClassVar[str] = "comparison"

    json: Optional[str] = option(None, "Also write everything into this file (.json).")

    def problems(self) -> list[str]:
        found = super().problems()
        if self.json is not None and not self.json.endswith(".json"):
            found.append(f"--json {self.json}: the name of the file to write must end in .json.")
        return found


def _required(value: object, flag: str) -> list[str]:
    return [] if value else [f"{flag} is missing: give the model/ folder of a training run."]
