from __future__ import annotations

import pytest
import torch

from medusa_decoding.training.batches import Order, batch_of
from medusa_decoding.training.data import Positions
from medusa_decoding.training.loss import IGNORED


def make_positions(count: int, num_heads: int = 2) -> Positions:
    """Answers of five tokens; a row's state and root are its number."""
    rows = torch.arange(count)
    labels = torch.stack([rows + head for head in range(1, num_heads + 1)], 1)
    labels[labels > (rows // 5 * 5 + 4)[:, None]] = IGNORED
    return Positions(rows[:, None].half(), rows, labels)


def test_single_positions_are_seen_once_in_each_epoch_in_another_order() -> None:
    positions = make_positions(50)
    order = Order(positions, 10, 1, seed=3)
    assert (order.positions_per_step, order.steps_per_epoch) == (10, 4)
    epochs = [torch.cat([order.starts(4 * epoch + step) for step in range(4)]) for epoch in range(2)]
    assert epochs[0].tolist() != epochs[1].tolist()
    for starts in epochs:
        assert sorted(starts.tolist()) == [row for row in range(50) if row % 5 != 4]


def test_spans_of_an_epoch_do_not_overlap_and_begin_elsewhere_in_each() -> None:
    positions = make_positions(50)
    order = Order(positions, 10, 4, seed=0)
    assert (order.positions_per_step, order.steps_per_epoch) == (8, 6)
    firsts = set()
    for epoch in range(6):
        starts = torch.cat([order.starts(6 * epoch + step) for step in range(6)])
        rows = (starts[:, None] + torch.arange(4)) % 50
        assert len(rows.unique()) == 48
        firsts.add(int(starts.min()) % 4)
    assert len(firsts) > 1


@pytest.mark.parametrize("span", [1, 4])
def test_steps_depend_on_seed_and_number_alone(span: int) -> None:
    positions = make_positions(50)
    forward, again = Order(positions, 8, span, 7), Order(positions, 8, span, 7)
    steps = [forward.starts(step).tolist() for step in range(12)]
    assert [again.starts(step).tolist() for step in reversed(range(12))] == steps[::-1]
    assert [Order(positions, 8, span, 8).starts(step).tolist() for step in range(12)] != steps


@pytest.mark.parametrize(("span", "seen"), [(1, 8), (4, 8), (16, 10)])
def test_a_step_is_never_larger_than_the_data(span: int, seen: int) -> None:
    order = Order(make_positions(10), 1000, span, 0)
    assert (order.positions_per_step, order.steps_per_epoch) == (seen, 1)


def test_following_states_are_those_that_decided_the_labels() -> None:
    positions = make_positions(10)
    batch = batch_of(positions, torch.tensor([3, 8]), 4)
    assert batch.roots.tolist() == batch.hidden[:, 0].tolist() == [3, 4, 5, 6, 8, 9, 0, 1]
    assert batch.following[:, :, 0].tolist() == [[4, 5, 6, 7, 8], [9, 0, 1, 2, 3]]
    for head in range(2):
        decided = batch.following[:, head : head + 4, 0].flatten()
        labels = batch.labels[:, head]
        assert decided[labels >= 0].tolist() == labels[labels >= 0].tolist()
