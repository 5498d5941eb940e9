"""A GPU that is told everything by one word: passes that are recorded as CUDA graphs and replayed.

A small encoder keeps a GPU busy for a millisecond or two, but Python takes several times as long to tell it what to do,
kernel by kernel. So what a model does to inputs of one shape is recorded when that shape comes for the second time,
forward and backward, and replayed from then on: the same kernels on the same numbers, dropout's among them. What cannot
be recorded, or would be spoilt by it, runs as it always did.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from .contracts import Batch, Loss, OrderingOutput
from .errors import first_line

logger = logging.getLogger(__name__)

Tensors = Mapping[str, torch.Tensor]
MOST_NUMBERS = 2**22
"""Of an input of a function that is recorded: the more there are, the less it matters how a GPU is told, and the more
memory a recording keeps to itself."""
MOST_RECORDINGS = 100
"""So many shapes at most."""
MOST_SEEN = 10_000
"""Shapes that are remembered as having come once."""
ALIGNED = 8
"""Numbers of which a weight has a multiple: then the gradient of the next one begins where kernels like it."""


class Recordings:
    """What was recorded of one function. A copy of it, or one that was pickled, is empty.

    Args:
        most_numbers: that an input may have.
        enabled: whether anything is recorded or replayed; may be changed.
    """

    def __init__(self, most_numbers: int = MOST_NUMBERS, enabled: bool = True) -> None:
        self.most_numbers = most_numbers
        self.enabled = enabled
        self._recordings: dict[Any, _Recording | None] = {}  # None: it could not be recorded
        self._seen: set[Any] = set()
        self._weights: Any = None
        self._learned: list[nn.Parameter] = []
        self._shared: _Shared | None = None

    def __len__(self) -> int:
        """Shapes that were recorded."""
        return sum(recording is not None for recording in self._recordings.values())

    def __reduce__(self) -> tuple[Any, ...]:
        return Recordings, (self.most_numbers, self.enabled)

    def __call__(
        self, function: Callable[[Tensors], Tensors], inputs: Tensors, module: nn.Module | None = None
    ) -> Tensors:
        """``function(inputs)``, replayed where it was recorded.

        Args:
            function: does the same to all inputs of one shape, without asking the device for anything.
            inputs: by name; those that need a gradient get one.
            module: whose weights the function uses; none if it has none.

        Returns:
            What the function returned, by name.
        """
        if not self.enabled or not _may_record(inputs, self.most_numbers):
            return function(inputs)
        found = _state(module)
        if found is None:
            return function(inputs)
        weights, modes = found
        known = tuple((id(weight), weight.data_ptr(), weight.requires_grad) for weight in weights)
        if known != self._weights:  # moved, replaced or frozen since
            self._weights, self._shared = known, None
            self._learned = [weight for weight in weights if weight.requires_grad]
            self._learned.sort(key=lambda weight: weight.numel() % ALIGNED != 0)
            self._recordings.clear()
            self._seen.clear()
        if self._shared is not None and self._shared.is_waiting():
            return function(inputs)  # a replay would overwrite what a backward pass is still to read
        learns = torch.is_grad_enabled()
        learned = self._learned if learns else []
        shapes = tuple((name, one.shape, one.dtype, one.requires_grad and learns) for name, one in inputs.items())
        key = (shapes, modes, _numerics(), bool(learned))
        if key not in self._recordings:
            alike = len({(weight.device, weight.dtype) for weight in weights}) < 2
            if key not in self._seen or len(self._recordings) >= MOST_RECORDINGS or not alike:
                if len(self._seen) < MOST_SEEN:
                    self._seen.add(key)
                return function(inputs)
            self._recordings[key] = self._record(function, inputs, module, learned)
        recording = self._recordings[key]
        return function(inputs) if recording is None else recording.replay(inputs)

    def _record(
        self,
        function: Callable[[Tensors], Tensors],
        inputs: Tensors,
        module: nn.Module | None,
        learned: list[nn.Parameter],
    ) -> _Recording | None:
        """None if it cannot be."""
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        random = generator.clone_state()
        learns = torch.is_grad_enabled()
        try:
            with torch.inference_mode(False), torch.set_grad_enabled(learns):
                self._shared = self._shared or _Shared()
                return _Recording(self._shared, function, inputs, module, learned)
        except RuntimeError as error:  # of the device, which says in many ways that it does not record something
            generator.graphsafe_set_state(random)  # the one in use would wait for the end of the recording for ever
            if None not in self._recordings.values():
                logger.warning("CUDA graphs: not for all that this model does (%s).", first_line(error))
            return None


def recorded_loss(loss: Loss, *, enabled: bool = True) -> Loss:
    """A loss that is replayed on a GPU.

    Args:
        loss: that looks at the output and the batch, and nothing else.
        enabled: as of :class:`Recordings`.
    """
    recordings = Recordings(enabled=enabled)

    def replayed(output: OrderingOutput, batch: Batch, /) -> torch.Tensor:
        if not batch["slot_mask"].is_cuda:
            return loss(output, batch)
        names = [f"output {name}" for name in output] + [f"batch {name}" for name in batch]
        given = dict(zip(names, [*output.values(), *batch.values()], strict=True))

        def of(kind: str, tensors: Tensors) -> dict[str, Any]:
            return {name.removeprefix(kind): one for name, one in tensors.items() if name.startswith(kind)}

        def values(tensors: Tensors) -> Tensors:
            return {"loss": loss(OrderingOutput(**of("output ", tensors)), Batch(**of("batch ", tensors)))}  # type: ignore[typeddict-item]

        return recordings(values, given)["loss"]

    return replayed


def _may_record(inputs: Tensors, most_numbers: int) -> bool:
    """Whether all is on the GPU in use, not big, and nobody else decides what is run: a compiler, another recording,
    other processes."""
    return (
        all(one.is_cuda and one.numel() <= most_numbers for one in inputs.values())
        and not torch.compiler.is_compiling()
        and not torch.cuda.is_current_stream_capturing()
        and next(iter(inputs.values())).device.index == torch.cuda.current_device()
        and not (torch.distributed.is_available() and torch.distributed.is_initialized())
    )


def _numerics() -> tuple[Any, ...]:
    """What somebody may set between two passes, and kernels are chosen by."""
    return (
        torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None,
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
    )


def _state(module: nn.Module | None) -> tuple[list[nn.Parameter], tuple[Any, ...]] | None:
    """The weights of a module and of all in it, and what else a pass depends on; None if it cannot be recorded.

    Hooks run in Python, which a replay does not, and checkpointing asks the device for its random state.
    """
    weights: list[nn.Parameter] = []
    modes: list[Any] = []
    left = [] if module is None else [module]
    while left:  # in each pass, so by the shortest way to what a module has
        has = left.pop().__dict__
        if has["_forward_hooks"] or has["_forward_pre_hooks"] or has["_backward_hooks"] or has["_backward_pre_hooks"]:
            return None
        if has.get("gradient_checkpointing") or has.get("_compiled_call_impl") is not None:
            return None
        modes.append((has["training"], has.get("p"), has.get("dropout")))  # p: of nn.Dropout
        weights.extend(weight for weight in has["_parameters"].values() if weight is not None)
        left.extend(child for child in has["_modules"].values() if child is not None)
    return list(dict.fromkeys(weights)), tuple(modes)


@contextmanager
def _in_place_of(weights: Sequence[nn.Parameter], others: Sequence[nn.Parameter], module: nn.Module) -> Iterator[None]:
    """Let a module use other weights meanwhile."""
    instead = {id(weight): other for weight, other in zip(weights, others, strict=True)}
    places = [
        (one, name, weight, instead[id(weight)])
        for one in module.modules()
        for name, weight in one._parameters.items()
        if weight is not None and id(weight) in instead
    ]

    def put(one: nn.Module, name: str, weight: nn.Parameter) -> None:
        setattr(one, name, weight)
        if isinstance(one, nn.RNNBase):  # at the next pass it would move weights that it does not know
            one._flat_weight_refs = [weakref.ref(known) for known in one._flat_weights if known is not None]

    try:
        for one, name, _, other in places:
            put(one, name, other)
        yield
    finally:
        for one, name, weight, _ in places:
            put(one, name, weight)


def _reaches(output: torch.Tensor, leaves: Sequence[torch.Tensor]) -> list[bool]:
    """Whether each of them gets a gradient from the output."""
    found: set[int] = set()
    seen, left = set(), [output.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        found.add(id(getattr(node, "variable", None)))  # that of a leaf
        left.extend(following for following, _ in node.next_functions)
    return [id(leaf) in found for leaf in leaves]


class _Ticket:
    """Held by a forward pass whose backward pass is still to come."""

    used = False


class _Shared:
    """What all recordings of a function share, since only one of them is ever between its forward and backward pass."""

    def __init__(self) -> None:
        self.pool = torch.cuda.graph_pool_handle()
        self.stream = torch.cuda.Stream()
        self.gradients: torch.Tensor | None = None
        """Of all weights, one after the other."""
        self._waiting: weakref.ref[_Ticket] | None = None

    def is_waiting(self) -> bool:
        """Whether a forward pass was replayed whose backward pass can still come."""
        ticket = self._waiting() if self._waiting is not None else None
        return ticket is not None and not ticket.used

    def wait_for(self, ticket: _Ticket) -> None:
        """From here on."""
        self._waiting = weakref.ref(ticket)


def _parts(numbers: torch.Tensor, like: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Tensors of these shapes, one after the other."""
    parts: tuple[torch.Tensor, ...] = torch._utils._unflatten_dense_tensors(numbers, like)
    return parts


class _Recording:
    """A function on inputs of one shape, forward and, if anything learns from it, backward.

    Args:
        shared: with the other recordings.
        function: to be recorded; it has run on inputs of the shape before, so that all it needs is there.
        inputs: such as it will be given.
        module: as given to :class:`Recordings`.
        learned: its weights that need a gradient.
    """

    def __init__(
        self,
        shared: _Shared,
        function: Callable[[Tensors], Tensors],
        inputs: Tensors,
        module: nn.Module | None,
        learned: list[nn.Parameter],
    ) -> None:
        self.shared, self.learned = shared, learned
        learns = torch.is_grad_enabled()
        self.inputs = {
            name: one.detach().clone().requires_grad_(one.requires_grad and learns) for name, one in inputs.items()
        }
        self.taught_inputs = [name for name, one in self.inputs.items() if one.requires_grad]
        if learned and shared.gradients is None:
            size = sum(weight.numel() for weight in learned)
            shared.gradients = torch.zeros(size, dtype=learned[0].dtype, device=learned[0].device)
        # The weights themselves may be known to a backward pass on another stream, which recording must not touch.
        others = [nn.Parameter(weight.detach()) for weight in learned]
        self.forward, self.backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        shared.stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(shared.stream):
                with _recording(self.forward, shared), _without_cache():
                    if module is None:
                        outputs = dict(function(self.inputs))
                    else:
                        with _in_place_of(learned, others, module):
                            outputs = dict(function(self.inputs))
                self.outputs = {name: one.detach() for name, one in outputs.items()}
                self.teaching = [name for name, one in outputs.items() if one.requires_grad]
                self.output_gradients = {name: torch.zeros_like(self.outputs[name]) for name in self.teaching}
                leaves = [*others, *(self.inputs[name] for name in self.taught_inputs)]
                self.teaches = {name: _reaches(outputs[name], leaves) for name in self.teaching}
                self.input_gradients: list[torch.Tensor | None] = []
                if self.teaching:
                    with _recording(self.backward, shared):
                        self._record_backward([outputs[name] for name in self.teaching], leaves)
        finally:
            torch.cuda.current_stream().wait_stream(shared.stream)

    def _record_backward(self, outputs: list[torch.Tensor], leaves: list[torch.Tensor]) -> None:
        with torch.autocast("cuda", enabled=False):  # as in a backward pass, which nobody calls within it
            found = torch.autograd.grad(outputs, leaves, list(self.output_gradients.values()), allow_unused=True)
        of_weights, self.input_gradients = found[: len(self.learned)], list(found[len(self.learned) :])
        if any(one is not None for one in of_weights):
            assert self.shared.gradients is not None
            places = _parts(self.shared.gradients, self.learned)
            pairs = [(place, one) for place, one in zip(places, of_weights, strict=True) if one is not None]
            torch._foreach_copy_([place for place, _ in pairs], [one for _, one in pairs])

    def replay(self, inputs: Tensors) -> Tensors:
        """What the function would give."""
        with torch.no_grad():
            torch._foreach_copy_(list(self.inputs.values()), list(inputs.values()), non_blocking=True)
        if not self.teaching:
            self.forward.replay()
            return {name: one.clone() for name, one in self.outputs.items()}
        found = _Replay.apply(self, *self.learned, *(inputs[name] for name in self.taught_inputs))
        return dict(zip(self.outputs, found, strict=True))


@contextmanager
def _recording(graph: torch.cuda.CUDAGraph, shared: _Shared) -> Iterator[None]:
    """What is done meanwhile is recorded and not run.

    torch.cuda.graph does the same, but gives all free memory back to the system before each recording.
    """
    # thread_local: a loader's thread may pin memory meanwhile.
    graph.capture_begin(pool=shared.pool, capture_error_mode="thread_local")
    try:
        yield
    except BaseException:
        with suppress(RuntimeError):  # it would only say that something went wrong before
            graph.capture_end()
        raise
    graph.capture_end()


@contextmanager
def _without_cache() -> Iterator[None]:
    """With autocast as it is, but for its cache: what that has kept would not be computed in a replay."""
    kept = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(kept)


class _Replay(torch.autograd.Function):
    """A recording as a function of what learns from it: weights, then inputs."""

    @staticmethod
    def forward(ctx: Any, recording: _Recording, *taught: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.recording, ctx.ticket = recording, _Ticket()
        ctx.set_materialize_grads(False)
        recording.shared.wait_for(ctx.ticket)
        recording.forward.replay()
        outputs = {name: one.clone() for name, one in recording.outputs.items()}  # the next replay writes its own there
        ctx.mark_non_differentiable(*(one for name, one in outputs.items() if name not in recording.teaching))
        return tuple(outputs.values())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        recording, ticket = ctx.recording, ctx.ticket
        if ticket.used:
            raise RuntimeError(
                "A CUDA graph has one backward pass for each forward pass; for more set recordings.enabled to False."
            )
        ticket.used = True
        given = dict(zip(recording.outputs, gradients, strict=True))
        for name, place in recording.output_gradients.items():
            place.zero_() if given[name] is None else place.copy_(given[name])
        recording.backward.replay()
        # Copies, since the next replay writes its own there.
        parts: list[torch.Tensor | None] = []
        if recording.learned:
            parts.extend(_parts(recording.shared.gradients.clone(), recording.learned))
        parts.extend(None if one is None else one.clone() for one in recording.input_gradients)
        # What got a gradient from none of the outputs that were used has none, not one of zeros.
        taught = [recording.teaches[name] for name, one in given.items() if one is not None]
        return None, *(part if any(ways) else None for part, *ways in zip(parts, *taught, strict=True))
