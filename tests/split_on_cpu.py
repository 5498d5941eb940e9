"""Training that is split by FSDP2 or DeepSpeed among CPU processes: what ``python -m sentorder.train`` is, as a file.

Accelerate splits among GPUs and the like only; what it sets for those is set here for CPU processes. Says how many
weights each group of the optimizer was given, and which modules FSDP2 gathers one at a time.
"""

import json
import sys
from collections import Counter
from typing import Any

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from torch.distributed.fsdp import FSDPModule

import sentorder.run
from sentorder.command_line import run_command
from sentorder.train import main

_plain = AcceleratorState.__init__


def _split(self: AcceleratorState, mixed_precision: Any = None, *args: Any, **kwargs: Any) -> None:
    _plain(self, mixed_precision, *args, **kwargs)
    fsdp, deepspeed = kwargs.get("fsdp_plugin"), kwargs.get("deepspeed_plugin")
    if fsdp is not None:
        if self._mixed_precision != "no":
            fsdp.set_mixed_precision(self._mixed_precision)
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp
    if deepspeed is not None:
        deepspeed.set_mixed_precision(self._mixed_precision)
        deepspeed.select(_from_accelerator_state=True)
        self.distributed_type, self.deepspeed_plugins, self._mixed_precision = (
            DistributedType.DEEPSPEED,
            deepspeed,
            "no",
        )
    PartialState._shared_state["distributed_type"] = self.distributed_type


_prepare = sentorder.run.prepare_split


def _told(accelerator: Any, model: Any, optimizer: Any, **named: Any) -> Any:
    groups = {group["name"]: sum(weights.numel() for weights in group["params"]) for group in optimizer.param_groups}
    prepared, optimizer = _prepare(accelerator, model, optimizer, **named)
    units = Counter(type(module).__name__ for module in prepared.modules() if isinstance(module, FSDPModule))
    sys.stderr.write(json.dumps({"groups": groups, "units": units}) + "\n")  # at once: both processes write there
    return prepared, optimizer


def split_main() -> None:
    """The command, split."""
    AcceleratorState.__init__ = _split  # type: ignore[method-assign]
    sentorder.run.prepare_split = _told
    run_command(main)


if __name__ == "__main__":
    split_main()
