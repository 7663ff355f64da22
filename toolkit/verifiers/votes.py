"""The vote inside a hardened file: noisy copies of each crop decide by majority, with a certificate.

Beside the verifier's own input, the file takes three more. None is optional: not every binding of ONNX Runtime can set
an input that has a default value, and noise that an attacker can predict certifies nothing.

| input | shape | meaning |
| --- | --- | --- |
| `sixpixels_entropy` | (N,) or (1,) int64 | unpredictable numbers from 0 to 2**62, new for each call |
| `sixpixels_reference` | (N, D) or (1, D) float | the embeddings of the references; NaN to enroll |
| `sixpixels_threshold` | (1,) float | a copy accepts below this distance; NaN to enroll |

It gives four more outputs, which host code can check against each other:

| output | shape | meaning |
| --- | --- | --- |
| `smoothed_draws` | (N, draws, D) | the embeddings of all noisy copies |
| `smoothed_votes` | (N,) int64 | how many copies are nearer than the threshold; -1 without a reference |
| `smoothed_same` | (N,) int64 | 1 accepts, 0 refuses, -1 abstains |
| `smoothed_radius` | (N,) float | no change of the crop within this L2 distance changes the decision |
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from toolkit.statistics.certification import vote_radii
from toolkit.verifiers.entropy import ENTROPY
from toolkit.verifiers.hardened import VoteOutput
from toolkit.verifiers.manifest import Manifest, Metric
from toolkit.verifiers.scores import distances
from toolkit.verifiers.variants import onnx_unit, onnx_votes, voted_distances

REFERENCE, THRESHOLD = "sixpixels_reference", "sixpixels_threshold"
DRAWS, VOTES, SAME, RADIUS = "smoothed_draws", "smoothed_votes", "smoothed_same", "smoothed_radius"
_FLOAT, _INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64


def add_vote(
    graph: onnx.GraphProto,
    builder: Any,
    embeddings: str,
    vote: VoteOutput,
    metric: Metric,
    size: int,
    *,
    unit: bool,
) -> None:
    """Add the inputs, the nodes and the outputs of a vote to a hardened graph.

    Args:
        graph: gets the outputs.
        builder: the `GraphBuilder` that gets inputs and nodes.
        embeddings: the name of the embeddings (draws * N, D), draw 1 of all images first.
        vote: the settings.
        metric: the verifier's.
        size: the length D of an embedding.
        unit: whether the host L2-normalizes the file's embeddings.
    """
    batch = onnx.TensorShapeProto.Dimension()
    batch.CopyFrom(graph.input[0].type.tensor_type.shape.dim[0])
    builder.initializers = [tensor for tensor in builder.initializers if tensor.name != ENTROPY]
    for name, shape in ((REFERENCE, ["references", size]), (THRESHOLD, [1])):
        builder.inputs.append(onnx.helper.make_tensor_value_info(name, _FLOAT, shape))
    each = builder.add("Reshape", [embeddings, builder.constant(np.array([vote.draws, -1, size]))])
    each = builder.add("Transpose", [each], perm=[1, 0, 2])
    draws = onnx_unit(builder, each) if unit else each
    builder.add("Identity", [draws], DRAWS)
    counted = onnx_votes(builder, draws, REFERENCE, THRESHOLD, metric, unit=unit)
    # NaN is nearer than no threshold, which must not look like a unanimous refusal.
    last = builder.constant(np.array([-1]))
    given = builder.add("Add", [builder.add("ReduceSum", [REFERENCE, last], keepdims=0), THRESHOLD])
    unknown = builder.add("IsNaN", [given])
    builder.add("Where", [unknown, builder.integer(-1), counted], VOTES)
    radii = vote_radii(vote.draws, vote.sigma, vote.confidence).astype(np.float32)
    # Rounding to float32 must not enlarge a certificate.
    radii = np.where(radii > 0, np.nextafter(radii, np.float32(0)), 0).astype(np.float32)
    accepts = np.where(radii > 0, np.arange(vote.draws + 1) * 2 > vote.draws, -1).astype(np.int64)
    radius, same = (builder.add("Gather", [builder.constant(table), counted], axis=0) for table in (radii, accepts))
    builder.add("Where", [unknown, builder.constant(np.array(0, np.float32)), radius], RADIUS)
    builder.add("Where", [unknown, builder.integer(-1), same], SAME)
    for name, kind, rest in (
        (DRAWS, _FLOAT, [vote.draws, size]), (VOTES, _INT64, []), (SAME, _INT64, []), (RADIUS, _FLOAT, []),
    ):  # fmt: skip
        value = onnx.helper.make_tensor_value_info(name, kind, [None, *rest])
        value.type.tensor_type.shape.dim[0].CopyFrom(batch)
        graph.output.append(value)


def compared(
    manifest: Manifest, embeddings: NDArray[np.float32], references: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return the distances (N,) of embeddings to references, as a verifier decides.

    Without a vote they are those of the metric. With a vote they are those of `variants.voted_distances`, scaled so
    that the verifier's own threshold decides as the vote's does: an audit has one threshold for all profiles.
    """
    decision, size, vote = manifest.decision, manifest.output.size, manifest.vote
    if vote is None:
        return distances(decision.metric, embeddings, references)
    d = voted_distances(decision.metric, size, embeddings, references)
    return np.minimum(d * voted_scale(manifest), decision.maximum)


def voted_scale(manifest: Manifest) -> float:
    """What the distances of draws are multiplied by. See `compared`."""
    own = manifest.vote and manifest.vote.threshold
    return manifest.decision.threshold / own if own else 1.0


def enrolling(size: int) -> dict[str, NDArray[np.float32]]:
    """The inputs of a call that only embeds: no reference, and no threshold."""
    return {REFERENCE: np.full((1, size), np.nan, np.float32), THRESHOLD: np.full(1, np.nan, np.float32)}
