"""The networks are those of their papers, and take what they say they take."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.errors import InputError
from toolkit.networks import build, multiple_of
from toolkit.networks.folding import fold
from toolkit.networks.padding import on_any_side


@pytest.mark.parametrize(("name", "millions"), [("unet", 0.99), ("red30", 1.04), ("dncnn", 0.67)])
def test_full_width_has_the_published_size(name: str, millions: float) -> None:
    assert build(name).count_params() / 1e6 == pytest.approx(millions, abs=0.006)


def test_red30_keeps_an_image_that_its_layers_do_not_see() -> None:
    network = build("red30", width=4)
    network.set_weights([np.zeros_like(w) for w in network.get_weights()])
    image = np.random.default_rng(0).random((1, 9, 11, 3), np.float32)
    np.testing.assert_array_equal(network(image), image)  # the input is added at the end


def test_dncnn_folded_computes_the_same() -> None:
    trained, folded = build("dncnn", width=8, depth=5), build("dncnn", width=8, depth=5, folded=True)
    rng = np.random.default_rng(1)
    trained.set_weights([rng.uniform(0.1, 0.6, w.shape) for w in trained.get_weights()])
    fold(trained, folded)
    image = rng.random((2, 12, 10, 3), np.float32)
    np.testing.assert_allclose(folded(image), trained(image, training=False), rtol=1e-4)


@pytest.mark.parametrize("sides", [(32, 64), (33, 50), (7, 1), (1, 2)])
def test_any_side_is_continued_by_reflection(sides: tuple[int, int]) -> None:
    import tensorflow as tf

    seen = []

    def network(x: tf.Tensor) -> tf.Tensor:
        seen.append(x.numpy())
        return 2 * x

    image = np.random.default_rng(2).random((2, *sides, 3), np.float32)
    result = on_any_side(network, 32)(tf.constant(image)).numpy()
    np.testing.assert_array_equal(result, 2 * image)
    pads = [(0, 0), *((0, -side % 32) for side in sides), (0, 0)]
    np.testing.assert_array_equal(seen[0], np.pad(image, pads, mode="reflect"))


def test_only_the_unet_needs_multiples() -> None:
    assert (multiple_of("unet"), multiple_of("red30"), multiple_of("dncnn")) == (32, 1, 1)


def test_arguments_of_a_hostile_manifest_are_refused() -> None:
    for arguments in ({"width": 1e9}, {"width": True}, {"depth": 5}):
        with pytest.raises(InputError, match="network unet"):
            build("unet", **arguments)
