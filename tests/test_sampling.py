import itertools

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given
from hypothesis import strategies as st

from sentorder.data.sampling import GlobalPlan, PlannedDocument
from sentorder.data.sources import load_splits

SIZES = st.lists(st.integers(5, 90), min_size=1, max_size=60)


@given(SIZES, st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 5))
def test_every_document_once_and_the_same_steps_however_cut_up(
    lengths: list[int], per_device: int, accumulation: int, processes: int, epoch: int
) -> None:
    step_size = per_device * accumulation * processes
    plan = GlobalPlan(lengths, step_size, micro_batches=accumulation * processes, seed=3)
    plan.set_epoch(epoch)
    whole = GlobalPlan(lengths, step_size, micro_batches=1, seed=3)
    whole.set_epoch(epoch)
    batches = list(plan)
    assert len(batches) == len(plan) and len(plan) % (accumulation * processes) == 0
    size = plan.micro_batches
    steps = [list(itertools.chain(*batches[start : start + size])) for start in range(0, len(batches), size)]
    real = [[document.row for document in step if document.weight] for step in steps]
    assert [sorted(step) for step in real] == [sorted(d.row for d in step) for step in whole]
    assert sorted(index for step in real for index in step) == list(range(len(lengths)))
    assert all(document.epoch == epoch for step in steps for document in step)
    assert all(batch for batch in batches)


@given(SIZES, st.integers(1, 3), st.integers(1, 3))
def test_accelerate_deals_every_batch_to_one_process(lengths: list[int], accumulation: int, processes: int) -> None:
    plan = GlobalPlan(lengths, 2 * accumulation * processes, micro_batches=accumulation * processes, seed=0)
    assert not hasattr(plan, "batch_size")
    shards = [list(BatchSamplerShard(plan, processes, rank)) for rank in range(processes)]
    assert len({len(shard) for shard in shards}) == 1
    dealt = [batch for turn in zip(*shards, strict=True) for batch in turn]
    assert dealt == list(plan)


def test_epochs_differ_and_repeat_exactly() -> None:
    lengths = np.random.default_rng(0).integers(20, 100, 200)
    plan = GlobalPlan(lengths, 16, seed=1)
    assert plan.steps(0) != plan.steps(1)
    assert plan.steps(1) == GlobalPlan(lengths, 16, seed=1).steps(1)
    assert plan.steps(0) != GlobalPlan(lengths, 16, seed=2).steps(0)


def test_length_grouping_leaves_little_padding() -> None:
    # Words stand for tokens: the default batches of the bundled five-sentence stories.
    stories = [document for document in load_splits("stories").splits["train"] if document["genre"] == "story"]
    lengths = np.asarray([sum(len(s.split()) + 1 for s in story["sentences"]) for story in stories])

    def padding(steps: list[list[int]]) -> float:
        used = sum(int(lengths[step].sum()) for step in steps)
        return 1 - used / sum(int(lengths[step].max()) * len(step) for step in steps)

    plan = GlobalPlan(lengths, 16, seed=0)
    assert padding(plan.steps(0)) < 0.03
    mixed = np.random.default_rng(0).permutation(len(lengths))
    assert padding([mixed[start : start + 16].tolist() for start in range(0, len(mixed), 16)]) > 0.15


def test_without_a_seed_the_longest_come_first() -> None:
    plan = GlobalPlan([3, 9, 5, 9], 2)
    assert plan.steps(0) == plan.steps(7) == [[1, 3], [2, 0]]


def test_evaluation_is_the_same_in_every_pass() -> None:
    """Accelerate counts the passes over a loader as epochs."""
    plan = GlobalPlan([3, 9, 5], 2)
    first = list(plan)
    plan.set_epoch(5)
    assert list(plan) == first


def test_a_short_step_gets_fillers_of_no_weight() -> None:
    plan = GlobalPlan([4, 6, 5], 4, micro_batches=4)
    assert list(plan) == [
        [PlannedDocument(0, 0, 1.0)],
        [PlannedDocument(0, 2, 1.0)],
        [PlannedDocument(0, 1, 1.0)],
        [PlannedDocument(0, 0, 0.0)],
    ]


@given(SIZES, st.integers(1, 4), st.integers(1, 4))
def test_micro_batches_of_the_same_size(lengths: list[int], per_device: int, micro_batches: int) -> None:
    sizes = {"step_size": per_device * micro_batches, "micro_batches": micro_batches, "seed": 0}
    plain, filled = GlobalPlan(lengths, **sizes), GlobalPlan(lengths, **sizes, same_size=True)
    assert {len(batch) for batch in filled} == {per_device}
    real = [[document for document in batch if document.weight] for batch in filled]
    assert real == [[document for document in batch if document.weight] for batch in plain]


@pytest.mark.parametrize(("lengths", "step_size", "micro_batches"), [([], 1, 1), ([1], 0, 1), ([1], 1, 0)])
def test_empty_plans_are_refused(lengths: list[int], step_size: int, micro_batches: int) -> None:
    with pytest.raises(ValueError, match="at least one"):
        GlobalPlan(lengths, step_size, micro_batches=micro_batches)
