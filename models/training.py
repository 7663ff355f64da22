"""What the training scripts of this folder share: a schedule in wall-clock time, checkpoints, and averaged weights.

The same script serves two cores for hours or a GPU for minutes, and a run continues from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    import keras

T = TypeVar("T")

# The learning rate never falls below this share of its largest value.
_LOWEST_RATE = 0.005


def options(
    doc: str | None, minutes: float, rate: float, batch: int, *, teacher: bool = False
) -> argparse.ArgumentParser:
    """The options of a training script, with its defaults; with `teacher`, the ONNX file to learn from is one."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lfw", type=Path, required=True)
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=minutes)
    parser.add_argument("--rate", type=float, default=rate)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--seed", type=int, default=0)
    if teacher:
        parser.add_argument("--teacher", type=Path, required=True)
    return parser


def distillation(embeddings: Any, target: Any) -> tuple[Any, Any, Any]:
    """The loss that trains unit embeddings (N, D) towards those of a teacher, with the two terms that it is made of.

    Returns:
        The loss; the mean cosine of an embedding and its target; and how much the cosines within the batch differ from
        the teacher's. What a verifier uses is distances, not places.
    """
    import tensorflow as tf

    cosine = tf.reduce_mean(tf.reduce_sum(embeddings * target, axis=1))
    ours, theirs = (tf.matmul(x, x, transpose_b=True) for x in (embeddings, target))
    relation = tf.reduce_mean(tf.square(ours - theirs))
    return 1.0 - cosine + 4.0 * relation, cosine, relation


@contextmanager
def ahead(make: Callable[[], T], size: int = 8) -> Iterator[queue.Queue[T]]:
    """A queue that a thread keeps filled with `size` results of `make`."""
    ready: queue.Queue[T] = queue.Queue(maxsize=size)
    over = threading.Event()

    def produce() -> None:
        while not over.is_set():
            made = make()
            while not over.is_set():
                with suppress(queue.Full):
                    ready.put(made, timeout=1)
                    break

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        yield ready
    finally:  # a thread in the middle of its work would abort the process at its end
        over.set()
        thread.join()


@dataclass
class Training:
    """A training that is kept in the folder `work`: the weights, their moving average, and how far it came.

    Args:
        work: the folder. A run that finds a state there continues from it.
        minutes: the wall-clock time of the whole training.
        model: what is trained.
        average: the same network, which holds the moving average of the weights.
        optimizer: of the model.
        rate: the largest learning rate. It rises over the first `warming` steps and falls with the cosine of the time.
        averaging: the share of the newest weights in their moving average.
        every: minutes between two reports and checkpoints.
        kept: what else the state says.
    """

    work: Path
    minutes: float
    model: keras.Model
    average: keras.Model
    optimizer: keras.Optimizer
    rate: float
    warming: int = 200
    averaging: float = 0.005
    every: float = 4.0
    kept: dict[str, Any] = field(default_factory=dict)
    spent: float = 0.0
    step: int = 0

    def __post_init__(self) -> None:
        import tensorflow as tf

        self.work.mkdir(parents=True, exist_ok=True)
        self.average.set_weights(self.model.get_weights())
        self.optimizer.build(self.model.trainable_variables)
        self._checkpoint = tf.train.Checkpoint(model=self.model, average=self.average, optimizer=self.optimizer)
        if self._state.exists():
            state = json.loads(self._state.read_text())
            self.spent, self.step = state["minutes"], state["step"]
            self.kept |= {key: state[key] for key in self.kept}
            self._checkpoint.restore(state["checkpoint"]).expect_partial()
            print(f"continuing from minute {self.spent:.1f}, step {self.step}", flush=True)

    @property
    def _state(self) -> Path:
        return self.work / "state.json"

    @property
    def progress(self) -> float:
        """The share of the time that is over."""
        return self.spent / self.minutes

    def apply(self, gradients: Sequence[Any]) -> None:
        """Take one step of the optimizer, and let the average follow. Called inside a `tf.function`."""
        self.optimizer.apply_gradients(zip(gradients, self.model.trainable_variables, strict=True))
        for slow, fast in zip(self.average.variables, self.model.variables, strict=True):
            slow.assign(slow + self.averaging * (fast - slow))

    def run(self, train_step: Callable[[], Sequence[Any]], report: Callable[[np.ndarray], str]) -> None:
        """Train until the time is over.

        Args:
            train_step: one step; it returns the numbers to report.
            report: words about the means of these numbers since the last report.
        """
        started, reported, rows = time.monotonic() - self.spent * 60, self.spent, []
        while self.spent < self.minutes:
            cosine = 0.5 * (1 + np.cos(np.pi * self.progress))
            self.optimizer.learning_rate.assign(
                self.rate * min(1.0, (self.step + 1) / self.warming) * max(_LOWEST_RATE, cosine)
            )
            rows.append([float(number) for number in train_step()])
            self.step += 1
            self.spent = (time.monotonic() - started) / 60
            if self.spent - reported > self.every or self.spent >= self.minutes:
                print(f"minute {self.spent:5.1f} step {self.step} {report(np.mean(rows, axis=0))}", flush=True)
                self._save()
                reported, rows = self.spent, []

    def _save(self) -> None:
        path = self._checkpoint.write(str(self.work / "checkpoint"))
        self.average.save_weights(self.work / "average.weights.h5")
        state = {"minutes": self.spent, "step": self.step, "checkpoint": path, **self.kept}
        self._state.write_text(json.dumps(state))
