"""Tests of threads that can be stopped, and of what several threads may use at once."""

from __future__ import annotations

import contextlib
import threading
import time
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_info, threadpool_limits

from toolkit.errors import UnavailableError
from toolkit.profiles.profile import find_profile
from toolkit.quiet import import_tensorflow
from toolkit.threads import Threads, go_on
from toolkit.verifiers.differentiable import model_for_gradients, network_of
from toolkit.verifiers.manifest import find_manifest
from toolkit.verifiers.tensorflow import TensorFlowVerifier


@pytest.mark.parametrize("count", [1, 3])
def test_results_and_errors_belong_to_their_work(count: int) -> None:
    def divide(number: int) -> float:
        return 1 / number

    with Threads(count) as threads:
        results = [threads.submit(lambda number=number: divide(number)) for number in (1, 0, 4)]
        assert (results[0](), results[2]()) == (1, 0.25)
        with pytest.raises(ZeroDivisionError):
            results[1]()


def test_several_threads_work_at_once_and_one_only_when_it_is_asked() -> None:
    together = threading.Barrier(2)
    with Threads(2) as threads:
        both = [threads.submit(lambda: together.wait(timeout=30)) for _ in range(2)]
        assert sorted(ticket() for ticket in both) == [0, 1]
    done: list[threading.Thread] = []
    with Threads(1) as alone:
        ticket = alone.submit(lambda: done.append(threading.current_thread()))
        assert not done
        ticket()
    assert done == [threading.main_thread()]


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.mark.parametrize("count", [1, 2])
def test_products_of_matrices_take_one_thread_while_threads_work(count: int) -> None:
    """Otherwise a product of two threads would wait for four, and its last digits depend on the machine's cores."""
    with threadpool_limits(2, "blas"):
        with Threads(count) as threads:
            assert threads.submit(blas_threads)() == {1}
        assert blas_threads() == {2}


def test_an_interrupt_stops_what_is_under_way_and_what_waits() -> None:
    begun, stopped, more = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        try:
            while True:
                go_on()
                time.sleep(0.001)
        except UnavailableError:
            stopped.set()
            raise

    with contextlib.suppress(KeyboardInterrupt), Threads(2) as threads:
        first, *_ = threads.submit(work), threads.submit(work), threads.submit(more.set)
        assert begun.wait(timeout=30)
        raise KeyboardInterrupt
    assert stopped.is_set()
    assert not more.is_set()
    with pytest.raises(UnavailableError, match="stopped"):
        first()
    go_on()  # nobody stopped this thread


def test_several_threads_may_trace_verifiers_that_share_a_network() -> None:
    manifest = find_manifest("facenet-lipschitz")
    model, _ = model_for_gradients(manifest)
    profiles = [find_profile(name) for name in ("none", "mean3")]
    crops = np.random.default_rng(0).random((2, 160, 160, 3), np.float32)
    references = np.eye(2, manifest.output.size, dtype=np.float32)

    def verifiers() -> list[TensorFlowVerifier]:
        network = import_tensorflow().function(network_of(manifest, model), autograph=False)
        return [TensorFlowVerifier(manifest, profile.tensorflow, network) for profile in profiles]

    expected = [verifier.distances_and_gradients(crops, references) for verifier in verifiers()]
    for _ in range(2):
        together = threading.Barrier(len(profiles))

        def first_call(
            verifier: TensorFlowVerifier, together: threading.Barrier = together
        ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
            together.wait(timeout=30)
            return verifier.distances_and_gradients(crops, references)

        with Threads(len(profiles)) as threads:
            tickets = [threads.submit(partial(first_call, verifier)) for verifier in verifiers()]
            for alone, ticket in zip(expected, tickets, strict=True):
                for one, other in zip(alone, ticket(), strict=True):
                    np.testing.assert_array_equal(one, other)
