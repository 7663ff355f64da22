"""What a bare file says: types of the input and shapes of the embedding that exporters write."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kinds import KINDS, SIZE
from toolkit.manifests.outline import Probe
from toolkit.manifests.readings import SCALINGS, fitting


@pytest.mark.parametrize(
    ("name", "batch", "of_bytes"),
    [
        ("as it is", None, False),
        ("float16 input", None, False),
        ("uint8 input", None, True),
        ("uint8 input, batch of 1", 1, True),
        ("embedding (N, D, 1, 1)", None, False),
        ("embedding (1, D, 1, 1)", 1, False),
        ("embedding (D,) by Squeeze", 1, False),
        ("batch of 2", 2, False),
    ],
)
def test_an_outline_has_the_embedding_and_the_batch(
    tmp_path: Path, name: str, batch: int | None, *, of_bytes: bool
) -> None:
    outline = Probe(KINDS[name].write(tmp_path).model).outline
    assert outline.outputs == {"embedding": SIZE}
    assert (outline.fixed_batch, outline.takes_bytes) == (batch, of_bytes)
    assert fitting(outline) == (("0 to 255",) if of_bytes else tuple(SCALINGS))
