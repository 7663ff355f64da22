"""The median network is right on every input, and the filter does what it is for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from toolkit.defenses.median import Median, median_network


def run_network(values: list[np.ndarray]) -> np.ndarray:
    wires = list(values)
    for low, high, _, _ in median_network(len(wires)):
        wires[low], wires[high] = np.minimum(wires[low], wires[high]), np.maximum(wires[low], wires[high])
    return wires[len(wires) // 2]


def test_the_network_of_9_is_right_on_every_binary_input() -> None:
    # By the zero-one principle, a network that is right on these is right on all numbers.
    inputs = np.array(list(itertools.product((0, 1), repeat=9)))
    np.testing.assert_array_equal(run_network(list(inputs.T)), inputs.sum(axis=1) > 4)


def test_the_network_of_25_is_right_on_every_sorted_count_and_on_random_numbers() -> None:
    rng = np.random.default_rng(0)
    inputs = np.concatenate([rng.random((2000, 25)), rng.random((2000, 25)) < rng.random((2000, 1))])
    np.testing.assert_array_equal(run_network(list(inputs.T)), np.median(inputs, axis=1))


def test_the_networks_are_pruned() -> None:
    # Sorting all of them would take 28 and 140 exchanges of two operators each.
    operators = [sum(a + b for _, _, a, b in median_network(n)) for n in (9, 25)]
    assert operators == [40, 202]


@pytest.mark.parametrize("size", [3, 5])
def test_an_isolated_salt_pixel_is_removed(size: int) -> None:
    crops = np.full((1, 11, 13, 3), 0.25, np.float32)
    crops[0, 5, 6] = 1
    crops[0, 0, 0] = 1  # at the corner it is repeated by the border: four of nine, nine of twenty-five
    np.testing.assert_array_equal(Median(size).numpy(crops), 0.25)


@pytest.mark.parametrize("size", [3, 5])
def test_a_straight_edge_stays(size: int) -> None:
    crops = np.zeros((1, 10, 12, 3), np.float32)
    crops[:, :, 6:] = 1
    np.testing.assert_array_equal(Median(size).numpy(crops), crops)


def test_the_gradient_goes_to_one_pixel() -> None:
    import tensorflow as tf

    crops = tf.constant(np.random.default_rng(1).random((1, 9, 9, 3), np.float32))
    with tf.GradientTape() as tape:
        tape.watch(crops)
        value = Median(3).tensorflow(crops)[0, 4, 4, 0]
    gradient = tape.gradient(value, crops).numpy()
    assert np.count_nonzero(gradient) == 1
    assert crops.numpy()[gradient == 1] == value.numpy()


def test_bad_sizes_are_refused() -> None:
    for size in (0, 1, 2, 4, 7):
        with pytest.raises(ValueError, match="size"):
            Median(size)
