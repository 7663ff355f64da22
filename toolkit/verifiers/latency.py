"""Latency: compare several graphs in one run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.verifiers.runtime import open_session


def latencies(
    graphs: Sequence[bytes], feeds: Sequence[NDArray[Any]], provider: str, threads: int, repeats: int
) -> NDArray[np.float64]:
    """Measure the latency of each graph on each input.

    The graphs take turns, so that a short period of high load on the machine affects all of them.

    Args:
        graphs: serialized ONNX models with one required input.
        feeds: input tensors.
        provider: the full name of the execution provider.
        threads: the number of threads of ONNX Runtime; 0 lets it choose.
        repeats: how often each call is measured.

    Returns:
        (graphs, feeds, repeats) milliseconds.
    """
    sessions = [open_session(graph, "the measured graph", provider, threads) for graph in graphs]
    milliseconds = np.zeros((len(graphs), len(feeds), repeats))
    for repeat in range(-1, repeats):  # the first round is a warm-up
        for b, feed in enumerate(feeds):
            for g, session in enumerate(sessions):
                start = time.perf_counter()
                session.run(None, {session.get_inputs()[0].name: feed})
                if repeat >= 0:
                    milliseconds[g, b, repeat] = 1000 * (time.perf_counter() - start)
    return milliseconds
