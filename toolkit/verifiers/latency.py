"""Latency of graphs beside each other in one run."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import onnxruntime
from numpy.typing import NDArray


def latencies(
    graphs: Sequence[bytes], feeds: Sequence[NDArray[np.float32]], provider: str, threads: int, repeats: int
) -> NDArray[np.float64]:
    """Milliseconds of each call, (graphs, feeds, repeats); the graphs take turns, so that a busy moment hits all."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    sessions = [onnxruntime.InferenceSession(graph, options, providers=[provider]) for graph in graphs]
    milliseconds = np.zeros((len(graphs), len(feeds), repeats))
    for repeat in range(-1, repeats):  # the first round warms up
        for b, feed in enumerate(feeds):
            for g, session in enumerate(sessions):
                start = time.perf_counter()
                session.run(None, {session.get_inputs()[0].name: feed})
                if repeat >= 0:
                    milliseconds[g, b, repeat] = 1000 * (time.perf_counter() - start)
    return milliseconds
