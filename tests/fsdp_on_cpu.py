"""Training with weights split by FSDP2 among CPU processes: what ``python -m sentorder.train`` is, as a file.

Accelerate splits weights among GPUs and the like only; what it sets for those is set here for CPU processes.
"""

from typing import Any

from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from sentorder.command_line import run_command
from sentorder.train import main

_plain = AcceleratorState.__init__


def _with_fsdp(self: AcceleratorState, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
    _plain(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin


if __name__ == "__main__":
    AcceleratorState.__init__ = _with_fsdp  # type: ignore[method-assign]
    run_command(main)
