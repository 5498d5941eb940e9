"""The loop on a task that has nothing to do with sentences."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sentorder.data.sampling import GlobalPlan, PlannedDocument
from sentorder.finite_guard import NonFiniteError
from sentorder.loop import Cursor, Step, evaluation_records, train_steps, windows
from sentorder.optimization import adamw, parameter_groups, schedule


class Examples(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor, float]]):
    """21 examples of 1 to 5 targets each, in float64."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(21, 6, generator=generator, dtype=torch.float64)
        self.targets = torch.randn(21, 5, generator=generator, dtype=torch.float64)
        self.counts = [index % 5 + 1 for index in range(21)]

    def __len__(self) -> int:
        return 21

    def __getitem__(self, planned: PlannedDocument) -> dict[str, torch.Tensor]:
        i = planned.row
        mask = torch.arange(5) < self.counts[i]
        return {
            "inputs": self.inputs[i],
            "targets": self.targets[i],
            "mask": mask,
            "weights": torch.tensor(planned.weight, dtype=torch.float64),
            "index": torch.tensor(i),
        }


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Linear(6, 16).double()
        self.head = nn.Linear(16, 5).double()

    def forward(self, inputs: torch.Tensor, **_: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.body(inputs)))


def squared(output: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return ((output - batch["targets"]) ** 2 * batch["mask"]).sum(1)


def train(per_device: int, accumulation: int, steps: int = 9) -> tuple[list[Step], Net]:
    accelerator = Accelerator(cpu=True)
    plan = GlobalPlan(Examples().counts, per_device * accumulation, micro_batches=accumulation, seed=4)
    net = Net()
    optimizer = adamw(parameter_groups(net, learning_rate=0.01, weight_decay=0.1, head_learning_rate=0.03))
    scheduler = schedule("linear", optimizer, warmup_steps=0.2, total_steps=steps)
    loader = DataLoader(Examples(), batch_sampler=plan, generator=torch.Generator())  # type: ignore[arg-type]
    model, optimizer, loader = accelerator.prepare(net, optimizer, loader)
    done = list(
        train_steps(
            accelerator,
            model,
            optimizer,
            scheduler,
            loader,
            squared,
            max_steps=steps,
            gradient_accumulation_steps=accumulation,
        )
    )
    return done, net


@pytest.mark.parametrize(("per_device", "accumulation"), [(4, 2), (1, 8), (2, 4)])
def test_accumulation_changes_nothing_in_float64(per_device: int, accumulation: int) -> None:
    whole, net = train(8, 1)
    cut, other = train(per_device, accumulation)
    assert [step.count.item() for step in whole[:3]].count(8.0) == 2  # the third step of the epoch is short
    for a, b in zip(whole, cut, strict=True):
        assert (a.number, a.epoch, a.ends_epoch, a.learning_rate) == (b.number, b.epoch, b.ends_epoch, b.learning_rate)
        assert math.isclose(a.loss.item(), b.loss.item(), rel_tol=1e-12)
        assert math.isclose(a.gradient_norm.item(), b.gradient_norm.item(), rel_tol=1e-12)
        assert a.count.item() == b.count.item()
    for x, y in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.allclose(x, y, rtol=1e-12, atol=1e-13)


def test_the_loop_is_what_one_would_write_by_hand() -> None:
    steps, net = train(8, 1)
    hand = Net()
    optimizer = torch.optim.AdamW(
        [
            {"params": [hand.body.weight], "lr": 0.01, "weight_decay": 0.1},
            {"params": [hand.body.bias], "lr": 0.01, "weight_decay": 0.0},
            {"params": [hand.head.weight], "lr": 0.03, "weight_decay": 0.1},
            {"params": [hand.head.bias], "lr": 0.03, "weight_decay": 0.0},
        ]
    )
    base = [group["lr"] for group in optimizer.param_groups]
    examples = Examples()
    plan = GlobalPlan(examples.counts, 8, seed=4)
    for step in steps:
        rows = plan.steps(step.epoch)[(step.number - 1) % 3]
        batch = {
            name: torch.stack([examples[PlannedDocument(0, row, 1.0)][name] for row in rows])
            for name in ("inputs", "targets", "mask")
        }
        factor = step.number - 1 if step.number <= 1 else (9 - (step.number - 1)) / 8
        for group, rate in zip(optimizer.param_groups, base, strict=True):
            group["lr"] = rate * factor
        loss = squared(hand(batch["inputs"]), batch).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(hand.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        assert math.isclose(step.loss.item(), loss.item(), rel_tol=1e-9)
        assert math.isclose(step.learning_rate, 0.01 * factor, rel_tol=1e-9, abs_tol=1e-12)
    for x, y in zip(net.parameters(), hand.parameters(), strict=True):
        assert torch.allclose(x, y, rtol=1e-9)


def plain_parts(size: int = 6, **model: float) -> tuple[Accelerator, nn.Module, torch.optim.Optimizer, DataLoader]:
    """A loader as people have it: a shuffling DataLoader over tensors, without weights."""
    accelerator = Accelerator(cpu=True)
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, model.get("weight", 0.0))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    loader = DataLoader(TensorDataset(torch.ones(size, 1), -torch.ones(size, 1)), batch_size=1, shuffle=True)
    return accelerator, *accelerator.prepare(net, optimizer, loader)


def forward_first(model: nn.Module, batch: list[torch.Tensor]) -> torch.Tensor:
    return model(batch[0])


def half_squared(output: torch.Tensor, batch: list[torch.Tensor]) -> torch.Tensor:
    return 0.5 * (output - batch[1]).squeeze(-1) ** 2


def test_a_short_last_window_weighs_what_it_holds() -> None:
    """Accelerate's own accumulation gives gradients 1.0 and 0.5 here."""
    accelerator, model, optimizer, loader = plain_parts(6)
    steps = train_steps(
        accelerator,
        model,
        optimizer,
        None,
        loader,
        half_squared,
        max_steps=4,
        gradient_accumulation_steps=4,
        forward=forward_first,
    )
    found = [(step.gradient_norm.item(), step.count.item(), step.ends_epoch, step.epoch) for step in steps]
    assert found == [(1.0, 4, False, 0), (1.0, 2, True, 0), (1.0, 4, False, 1), (1.0, 2, True, 1)]


def test_an_evaluation_that_is_broken_off_disturbs_nothing() -> None:
    accelerator, model, optimizer, loader = plain_parts(6)
    other = accelerator.prepare(DataLoader(TensorDataset(torch.ones(4, 1)), batch_size=1))
    counts = []
    for step in train_steps(
        accelerator,
        model,
        optimizer,
        None,
        loader,
        half_squared,
        max_steps=4,
        gradient_accumulation_steps=4,
        forward=forward_first,
    ):
        counts.append(step.count.item())
        for place, _ in enumerate(other):
            if place == 1:
                break
    assert counts == [4, 2, 4, 2]


def test_leaving_the_loop_closes_the_loader() -> None:
    accelerator, model, optimizer, loader = plain_parts(6)
    steps = train_steps(accelerator, model, optimizer, None, loader, half_squared, max_steps=100, forward=forward_first)
    for step in steps:
        if step.number == 8:
            break
    steps.close()  # what garbage collection does as soon as the generator is out of reach
    assert accelerator.gradient_state.active_dataloader is None
    assert sum(1 for _ in loader) == 6


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_non_finite_step_stops_before_it_reaches_the_weights(bad: float) -> None:
    accelerator, model, optimizer, loader = plain_parts(6, weight=0.5)
    optimizer.param_groups[0]["lr"] = 0.1
    before, number = [], 0

    def loss(output: torch.Tensor, batch: list[torch.Tensor]) -> torch.Tensor:
        return half_squared(output, batch) * (bad if number == 2 else 1.0)

    with pytest.raises(NonFiniteError, match="Step 3: the loss is"):
        for step in train_steps(accelerator, model, optimizer, None, loader, loss, max_steps=6, forward=forward_first):
            number = step.number
            before.append(copy.deepcopy(model.weight.item()))
    assert number == 2 and model.weight.item() == before[-1] and len(set(before)) == 2


@pytest.mark.parametrize(("fused", "noticed"), [(True, 4), (False, 3)])
def test_a_step_that_is_not_finite_is_skipped_until_the_host_looks(fused: bool, noticed: int) -> None:
    """A fused optimizer leaves the weights alone on the device; with another one the host looks at each step."""
    accelerator, model, _, loader = plain_parts(6)
    optimizer = accelerator.prepare(torch.optim.AdamW(model.parameters(), lr=0.1, fused=fused))
    before = [model.weight.item()]
    calls = 0

    def loss(output: torch.Tensor, batch: list[torch.Tensor]) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return half_squared(output, batch) * (float("nan") if calls == 3 else 1.0)

    steps = train_steps(
        accelerator, model, optimizer, None, loader, loss, max_steps=6, forward=forward_first, check_finite_every=4
    )
    with pytest.raises(NonFiniteError, match="Step 3: the loss is nan"):
        for _ in steps:
            before.append(model.weight.item())
    assert calls == noticed and len(set(before[:3])) == 3
    assert set(before[3:]) <= {before[2]} and model.weight.item() == before[2]
    # The same optimizer works again afterwards, outside of the loop too.
    model.weight.grad = torch.ones_like(model.weight)
    optimizer.step()
    assert model.weight.item() != before[2]


@pytest.mark.parametrize("fused", [True, False])
def test_steps_that_are_not_finite_may_be_skipped(fused: bool) -> None:
    """The others go on as if the bad ones had been without a gradient; the schedule keeps counting steps."""
    weights, rates = [], []
    for bad in (set(), {3, 4, 7}):
        accelerator, model, _, loader = plain_parts(20)
        optimizer = accelerator.prepare(torch.optim.AdamW(model.parameters(), lr=0.1, fused=fused))
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer.optimizer, lambda step: 1 - step / 10)
        calls = 0

        def loss(output: torch.Tensor, batch: list[torch.Tensor], bad: set[int] = bad) -> torch.Tensor:
            nonlocal calls
            calls += 1
            return half_squared(output, batch) * (math.inf if calls in bad else 1)

        steps = train_steps(
            accelerator, model, optimizer, scheduler, loader, loss, max_steps=9, forward=forward_first,
            max_skipped_steps=2, check_finite_every=4,
        )  # fmt: skip
        seen = [(model.weight.item(), step.learning_rate, bool(step.finite)) for step in steps]
        weights.append([weight for weight, *_ in seen])
        rates.append([rate for _, rate, _ in seen])
        assert [number for number, (*_, finite) in enumerate(seen, 1) if not finite] == sorted(bad)
    whole, skipped = weights
    assert rates[0] == rates[1] == pytest.approx([0.1 * (1 - step / 10) for step in range(9)])
    assert skipped[:2] == whole[:2] and skipped[2] == skipped[3] == whole[1] and skipped[6] == skipped[5]
    assert len(set(skipped)) == 6 and all(math.isfinite(weight) for weight in skipped)


def test_too_many_skipped_steps_in_a_row_end_it() -> None:
    accelerator, model, optimizer, loader = plain_parts(20)
    calls = 0

    def loss(output: torch.Tensor, batch: list[torch.Tensor]) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return half_squared(output, batch) * (math.nan if calls in (2, 3, 5, 6, 7) else 1)

    steps = train_steps(
        accelerator, model, optimizer, None, loader, loss, max_steps=9, forward=forward_first, max_skipped_steps=2
    )
    with pytest.raises(NonFiniteError, match=r"Step 7: the loss is nan.*That is step 3 of this kind in a row") as error:
        for step in steps:
            last = step.number
    assert last == 6 and error.value.step == 7


def test_a_body_that_saves_can_make_sure_first() -> None:
    """Between two looks at the device a failure is not known yet; confirm() looks."""
    accelerator, model, _, loader = plain_parts(6)
    optimizer = accelerator.prepare(torch.optim.AdamW(model.parameters(), fused=True))
    loss = lambda output, batch: half_squared(output, batch) * math.nan  # noqa: E731
    steps = train_steps(
        accelerator, model, optimizer, None, loader, loss, max_steps=6, forward=forward_first, check_finite_every=4
    )
    step = next(steps)
    with pytest.raises(NonFiniteError, match="Step 1"):
        step.confirm()


@pytest.mark.parametrize(("accumulation", "workers", "most"), [(1, 0, 24), (4, 0, 8), (4, 2, 8)])
def test_the_loop_goes_on_from_any_cursor(accumulation: int, workers: int, most: int) -> None:
    """Also at the seams of an epoch, with a shuffling loader of somebody else whose epochs are seeded."""

    class Order(torch.utils.data.Sampler[int]):
        epoch = 0

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

        def __len__(self) -> int:
            return 21

        def __iter__(self) -> Iterator[int]:
            return iter(torch.randperm(21, generator=torch.Generator().manual_seed(self.epoch)).tolist())

    def run(start: Cursor, net: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[Step]:
        accelerator = Accelerator(cpu=True)
        data = TensorDataset(torch.randn(21, 3, generator=torch.Generator().manual_seed(0)), torch.ones(21, 1))
        loader = DataLoader(data, batch_size=2, sampler=Order(), num_workers=workers, generator=torch.Generator())
        model, prepared, loader = accelerator.prepare(net, optimizer, loader)
        return train_steps(
            accelerator, model, prepared, None, loader, half_squared, max_steps=most, start=start,
            gradient_accumulation_steps=accumulation, forward=forward_first,
        )  # fmt: skip

    def parts() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        net = nn.Linear(3, 1)
        return net, torch.optim.AdamW(net.parameters(), lr=0.01)

    net, optimizer = parts()
    states, losses, cursors = [], [], []
    for step in run(Cursor(), net, optimizer):
        states.append(copy.deepcopy((net.state_dict(), optimizer.state_dict())))
        losses.append(step.loss.item())
        cursors.append(step.cursor)
    assert Cursor(math.ceil(11 / accumulation), 1, 0) in cursors
    for done in range(1, most):
        net, optimizer = parts()
        net.load_state_dict(states[done - 1][0])
        optimizer.load_state_dict(states[done - 1][1])
        rest = list(run(cursors[done - 1], net, optimizer))
        assert [step.loss.item() for step in rest] == losses[done:]
        assert [step.cursor for step in rest] == cursors[done:]


def test_a_mean_loss_is_refused_with_a_reason() -> None:
    accelerator, model, optimizer, loader = plain_parts(6)
    steps = train_steps(
        accelerator,
        model,
        optimizer,
        None,
        loader,
        lambda output, batch: output.mean(),
        max_steps=1,
        forward=forward_first,
    )
    with pytest.raises(ValueError, match=r"one value per example, of shape \(1,\).*reduction='none'"):
        next(steps)


def test_an_empty_loader_is_refused() -> None:
    accelerator, model, optimizer, _ = plain_parts(6)
    with pytest.raises(ValueError, match="gave no batch"):
        next(train_steps(accelerator, model, optimizer, None, [], half_squared, max_steps=1))


def test_windows() -> None:
    assert list(windows(iter(range(5)), 2)) == [([0, 1], False), ([2, 3], False), ([4], True)]
    assert list(windows(iter(range(4)), 2)) == [([0, 1], False), ([2, 3], True)]
    assert list(windows(iter([]), 2)) == []


def test_evaluation_drops_fillers_and_restores_training_mode() -> None:
    accelerator = Accelerator(cpu=True)
    plan = GlobalPlan(Examples().counts, 12, micro_batches=12)  # the last step has 9 documents for 12 places
    loader = accelerator.prepare(DataLoader(Examples(), batch_sampler=plan))  # type: ignore[arg-type]
    net = Net().train()
    modes = []

    def records(output: torch.Tensor, batch: dict[str, torch.Tensor]) -> list[int]:
        modes.append(net.training)
        assert not output.requires_grad
        return batch["index"].tolist()

    assert sorted(evaluation_records(accelerator, net, loader, records)) == list(range(21))
    assert len(modes) == 24 and not any(modes) and net.training
    with pytest.raises(ValueError):
        evaluation_records(accelerator, net, loader, lambda output, batch: [1, 2, 3])


def test_decay_groups() -> None:
    groups = {
        group["name"]: group
        for group in parameter_groups(Net(), learning_rate=0.1, weight_decay=0.2, head_learning_rate=0.5)
    }
    assert {name: (len(g["params"]), g["lr"], g["weight_decay"]) for name, g in groups.items()} == {
        "encoder, decay": (1, 0.1, 0.2),
        "encoder, no decay": (1, 0.1, 0.0),
        "head, decay": (1, 0.5, 0.2),
        "head, no decay": (1, 0.5, 0.0),
    }
    frozen = Net()
    frozen.body.requires_grad_(False)
    assert len(parameter_groups(frozen, learning_rate=0.1, weight_decay=0.0)) == 2
