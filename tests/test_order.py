"""The order of an epoch: a permutation, another one for each seed and epoch, the same in every version."""

import hashlib
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prl_keras.data.order import IN_MEMORY, Permutation, epoch_order

SEEDS = st.integers(0, 2**32 - 1)


@given(st.integers(1, 3000), SEEDS, st.integers(0, 1000))
@example(1, 0, 0)
@example(2, 0, 0)
def test_it_is_a_permutation_of_which_any_part_can_be_had(count: int, seed: int, epoch: int) -> None:
    order = Permutation(count, seed, epoch)
    whole = order[:]
    assert whole.dtype == np.int64
    assert sorted(whole.tolist()) == list(range(count)) == list(range(len(order)))
    places = np.random.default_rng(seed).integers(0, count, 20)
    np.testing.assert_array_equal(order[places], whole[places])
    np.testing.assert_array_equal(order[count // 3 : count // 2], whole[count // 3 : count // 2])
    for outside in ([count], [-1]):
        with pytest.raises(IndexError):
            order[np.array(outside)]


def test_seed_and_epoch_change_nearly_every_place() -> None:
    count = 5000
    orders = [Permutation(count, seed, epoch)[:] for seed in (0, 1, 2**32 - 1) for epoch in (0, 1, 2)]
    for number, order in enumerate(orders):
        for other in [np.arange(count), *orders[:number]]:
            assert (order == other).sum() < 8  # 1 is expected of two random permutations
    assert (Permutation(count, 12, 3)[:] != Permutation(count, 1, 23)[:]).any()


def test_every_row_may_come_anywhere() -> None:
    """Over epochs each of 10 rows is at each of 10 places equally often: chi-squared with 81 degrees of freedom."""
    counts = np.zeros((10, 10))
    for epoch in range(2000):
        counts[np.arange(10), Permutation(10, 7, epoch)[:]] += 1
    assert 40 < ((counts - 200) ** 2 / 200).sum() < 140  # six standard deviations above
    neighbours = np.diff(Permutation(100_000, 0, 0)[:])
    assert abs(np.corrcoef(neighbours[:-1], neighbours[1:])[0, 1] + 0.5) < 0.02  # as of independent draws


def test_a_hundred_million_rows_cost_nothing() -> None:
    tracemalloc.start()
    began = time.perf_counter()
    order = epoch_order(100_000_000, 0, 5)
    parts = [order[start : start + 256] for start in (0, 12_345_678, 99_999_900)]
    seconds, (_, most) = time.perf_counter() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 0.5
    assert most < 1_000_000
    rows = np.concatenate(parts)
    assert len(np.unique(rows)) == len(rows) == 256 + 256 + 100
    assert 0 <= rows.min() < 1_000_000
    assert 99_000_000 < rows.max() < 100_000_000


def test_orders_of_earlier_versions_and_of_this_one_stay() -> None:
    for count in (1, 7, 5000, IN_MEMORY):
        expected = np.random.default_rng((3, 4)).permutation(count)
        np.testing.assert_array_equal(epoch_order(count, 3, 4), expected)
    large = epoch_order(IN_MEMORY + 1, 3, 4)[:]
    assert len(np.unique(large)) == IN_MEMORY + 1
    assert hashlib.sha256(large.astype("<i8")).hexdigest()[:16] == "79bc98a71cbf0634"
