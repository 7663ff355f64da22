"""Views of one verifier and its pairs as the classifiers that Foolbox, ART and adversarial-library attack.

The classes are "same" (0) and "different" (1). Their logits are half the decision's margin and its negative. The margin
is the threshold minus the distance; for Euclidean distances, both are squared. Every view counts the images it judges.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import foolbox
import numpy as np
import tensorflow as tf
from art.estimators.classification import TensorFlowV2Classifier
from numpy.typing import NDArray

from toolkit.attacks.base import Task
from toolkit.pixels import Images
from toolkit.verifiers.tensorflow import TensorFlowVerifier


def labels(task: Task) -> NDArray[np.int64]:
    """The right class of each pair."""
    return np.where(task.dodging, 0, 1)


def _limit(task: Task) -> float:
    """The threshold of squared Euclidean distances."""
    if task.decision.metric == "cosine":
        raise SystemExit("only Euclidean distances are compared here")
    return task.decision.threshold ** (2 if task.decision.metric == "euclidean" else 1)


def _logits(verifier: TensorFlowVerifier, limit: float, crops: Any, references: Any) -> Any:
    entropy = tf.zeros((tf.shape(crops)[0],), tf.int64)
    embedded = verifier._embed(crops, entropy)[0]  # noqa: SLF001 - what the libraries must see has no other name
    margin = limit - tf.reduce_sum(tf.square(embedded - references), axis=-1)
    return tf.stack([margin, -margin], axis=-1) / 2


class FoolboxView:
    """Foolbox attacks the whole batch at once."""

    def __init__(self, verifier: TensorFlowVerifier, task: Task) -> None:
        limit, references = _limit(task), tf.constant(task.references)
        compiled = tf.function(lambda crops: _logits(verifier, limit, crops, references))
        self._task, self._model = task, foolbox.TensorFlowModel(self._counted(compiled), bounds=(0, 1), device="/CPU:0")
        self.judged = 0

    def _counted(self, model: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def judge(crops: Any) -> Any:
            self.judged += len(crops)
            return model(crops)

        return judge

    def run(self, attack: Any) -> Images:
        """The results of a minimum-norm attack."""
        return np.asarray(attack.run(self._model, tf.constant(self._task.probes), tf.constant(labels(self._task))))


class ArtView:
    """ART attacks one pair after the other: its attacks reorder batches, in which each pair has its own reference."""

    def __init__(self, verifier: TensorFlowVerifier, task: Task) -> None:
        self._task, self.judged, limit = task, 0, _limit(task)
        self._reference = tf.Variable(task.references[:1])
        compiled = tf.function(lambda crops: _logits(verifier, limit, crops, self._reference), reduce_retracing=True)

        def judge(crops: Any, training: bool = False) -> Any:  # noqa: ARG001, FBT001, FBT002 - ART's signature
            self.judged += len(crops)
            return compiled(tf.cast(crops, tf.float32))

        self._model = TensorFlowV2Classifier(
            judge,
            nb_classes=2,
            input_shape=task.probes.shape[1:],
            loss_object=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            clip_values=(0, 1),
        )

    def run(self, attack: Any, **parameters: Any) -> Images:
        """The results of one of ART's attacks."""
        found = []
        for probe, reference, label in zip(self._task.probes, self._task.references, labels(self._task), strict=True):
            self._reference.assign(reference[None])
            found.append(attack(self._model, **parameters).generate(probe[None], np.array([label])))
        return np.concatenate(found).astype(np.float32)


class AdversarialLibraryView:
    """adversarial-library attacks the whole batch at once, and may leave pairs out of it.

    Which reference an image is compared with is told by the clean probe that is nearest to it. Attacks that divide by
    the difference to the third-best logit are given a third class that nothing ever reaches.
    """

    def __init__(self, verifier: TensorFlowVerifier, task: Task) -> None:
        torch = _torch()
        self._torch, self._task, self.judged = torch, task, 0
        euclidean, limit = task.decision.metric == "euclidean", _limit(task)
        clean = task.probes.reshape(len(task), -1)
        half = np.square(clean).sum(axis=1) / 2

        base: Any = torch.autograd.Function

        class Margin(base):
            @staticmethod
            def forward(context: Any, images: Any) -> Any:
                crops = np.ascontiguousarray(images.detach().numpy().transpose(0, 2, 3, 1), np.float32)
                self.judged += len(crops)
                nearest = np.argmax(crops.reshape(len(crops), -1) @ clean.T - half, axis=1)
                d, gradients = verifier.distances_and_gradients(crops, task.references[nearest])
                if euclidean:
                    d, gradients = d**2, gradients * np.float32(2) * d.astype(np.float32)[:, None, None, None]
                context.save_for_backward(torch.from_numpy(-gradients.transpose(0, 3, 1, 2).copy()))
                return torch.from_numpy((limit - d).astype(np.float32))

            @staticmethod
            def backward(context: Any, upstream: Any) -> Any:
                (gradients,) = context.saved_tensors
                return gradients * upstream[:, None, None, None]

        self._margin = Margin

    def run(self, attack: Callable[..., Any], third_class: bool = False, **parameters: Any) -> Images:  # noqa: FBT001, FBT002
        """The results of one of its attacks."""
        torch = self._torch

        def judge(images: Any) -> Any:
            margin = self._margin.apply(images) / 2
            others = [torch.full_like(margin, -10)] if third_class else []
            return torch.stack([margin, -margin, *others], dim=1)

        probes = torch.from_numpy(self._task.probes.transpose(0, 3, 1, 2).copy())
        found = attack(judge, probes, torch.from_numpy(labels(self._task)), **parameters)
        return np.asarray(found.detach().numpy().transpose(0, 2, 3, 1), np.float32)


def _torch() -> Any:
    # The library imports these for perceptual distances and for live plots, which nothing here uses.
    for name in ("torchvision", "visdom"):
        try:
            __import__(name)
        except ImportError:
            sys.modules[name] = ModuleType(name)
            sys.modules[name].models = None  # type: ignore[attr-defined]
    import torch

    return torch
