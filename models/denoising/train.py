"""Train a denoiser (unet, red30 or dncnn) on aligned crops of LFW sets 1-6.

Blind noise of a random deviation, Gaussian and uniform, and probes of gradient attacks on a verifier: a denoiser that
was trained on Gaussian noise alone leaves many of those alive (paper, table 2).

    python models/denoising/train.py unet --lfw LFW --work build/unet --minutes 30
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "models")]

from denoiser_networks import NETWORKS
from training import Training
from training_faces import Photographs, jitter, lfw_names, lfw_photographs

if TYPE_CHECKING:
    import keras

# The largest deviation; half of the noise attacks on facenet-mini succeed below 30 / 255.
LARGEST_SIGMA = 60 / 255
PROBES = 600
SIDE = 160


def attack_deltas(photographs: Photographs, verifier: str, rng: np.random.Generator) -> np.ndarray:
    """Perturbations (PROBES, SIDE, SIDE, 3) of FGSM (unit sign) and DeepFool (float), and whose faces they are for."""
    from toolkit.attacks.base import Task
    from toolkit.attacks.deepfool import DeepFool
    from toolkit.pixels import to_unit
    from toolkit.verifiers.manifest import find_manifest
    from toolkit.verifiers.tensorflow import TensorFlowVerifier

    manifest = find_manifest(verifier)
    model = TensorFlowVerifier(manifest)
    faces = rng.choice(len(photographs), (PROBES, 2))
    probes, others = (np.stack([photographs.crop(i, SIDE)[..., ::-1] for i in column]) for column in faces.T)
    # Half dodge from a turned view of themselves, half impersonate somebody else.
    dodging = np.arange(PROBES) % 2 == 0
    others[dodging] = np.stack([photographs.crop(i, SIDE, jitter(rng))[..., ::-1] for i in faces[dodging, 0]])
    task = Task(
        to_unit(probes),
        model.embed(to_unit(others)),
        dodging,
        manifest.decision,
        tuple(np.random.default_rng(i) for i in range(PROBES)),
    )
    deltas = DeepFool().craft(model, task).probes - task.probes
    _, gradients = model.distances_and_gradients(task.probes, task.references)
    signs = rng.random(PROBES) < 0.5
    deltas[signs] = np.sign(gradients[signs]) * np.where(dodging[signs], 1, -1)[:, None, None, None]
    return task.probes, deltas, signs


class Batches:
    """Endless batches (noisy, clean), float32 in [0, 1], RGB."""

    def __init__(self, photographs: Photographs, attacks: tuple, side: int, size: int, seed: int) -> None:
        self.photographs, self.side, self.size = photographs, side, size
        self.probes, self.deltas, self.signs = attacks
        self.rng = np.random.default_rng(seed)

    def window(self) -> np.ndarray:
        """A random window of an aligned crop at its own scale, in the unit square."""
        share = self.side / SIDE
        shift = np.eye(3)
        shift[:2, 2] = -self.rng.uniform(0, 1 - share, 2)
        return np.diag([1 / share, 1 / share, 1.0]) @ shift @ jitter(self.rng)

    def attacked(self) -> tuple[np.ndarray, np.ndarray]:
        rng = self.rng
        i = rng.integers(len(self.probes))
        top, left = rng.integers(SIDE - self.side + 1, size=2)
        cut = np.s_[i, top : top + self.side, left : left + self.side]
        scale = rng.uniform(0.5, 8) / 255 if self.signs[i] else rng.uniform(0.7, 5)
        clean = self.probes[cut]
        return clean + scale * self.deltas[cut], clean

    def noised(self) -> tuple[np.ndarray, np.ndarray]:
        rng = self.rng
        index = int(rng.integers(len(self.photographs)))
        clean = self.photographs.crop(index, self.side, self.window())[..., ::-1].astype(np.float32) / 255
        sigma = rng.uniform(0, LARGEST_SIGMA)
        if rng.random() < 0.5:
            noise = rng.standard_normal(clean.shape, np.float32) * sigma
        else:
            noise = (rng.random(clean.shape, np.float32) * 2 - 1) * np.sqrt(3) * sigma
        return clean + noise, clean

    def __next__(self) -> tuple[np.ndarray, np.ndarray]:
        made = [self.attacked() if self.rng.random() < 0.2 else self.noised() for _ in range(self.size)]
        noisy, clean = (np.stack(part).astype(np.float32) for part in zip(*made, strict=True))
        return np.clip(noisy, 0, 1), clean


def pass_through(model: keras.Model) -> None:
    """Make a plain chain of convolutions begin as a network that lets the crop pass, and finds no noise in it.

    From random kernels it does not leave the identity: after many layers the noise can no longer be told from the rest.
    """
    convolutions = [layer for layer in model.layers if hasattr(layer, "kernel")]
    for layer in convolutions[1:-1]:
        kernel, *bias = layer.get_weights()
        kernel *= 0.3
        kernel[1, 1] += np.eye(kernel.shape[-1])
        layer.set_weights([kernel, *bias])
    convolutions[-1].set_weights([np.zeros_like(part) for part in convolutions[-1].get_weights()])


def psnr(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio (N,) in dB of images (N, H, W, 3) in [0, 1]."""
    return -10 * np.log10(np.mean(np.square(a.astype(np.float64) - b), axis=(1, 2, 3)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=("dncnn", "red30", "unet"))
    parser.add_argument("--lfw", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--verifier", default="facenet-mini", help="whose attacks to learn to undo")
    parser.add_argument("--consistency", type=float, default=0.0, help="weight of 1 - cosine of the embeddings")
    parser.add_argument("--side", type=int, default=96, help="of the training crops; 160 with --consistency")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--floor", type=float, default=1e-5, help="of the squared error; 1e-3 for red30 and dncnn")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    side = SIDE if args.consistency else args.side

    import keras
    import tensorflow as tf

    from toolkit.networks import build
    from toolkit.verifiers.checkpoints import load_network
    from toolkit.verifiers.manifest import find_manifest
    from toolkit.verifiers.tensorflow import tensorflow_model_input

    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    keras.utils.set_random_seed(args.seed)
    photographs = lfw_photographs(args.lfw)
    test = lfw_photographs(args.lfw, lfw_names(args.lfw, range(7, 8)))
    rng = np.random.default_rng(args.seed)
    chosen = rng.choice(len(test), 48, replace=False)
    clean = np.stack([test.crop(i, SIDE)[..., ::-1] for i in chosen]) / np.float32(255)
    noisy = np.clip(clean + rng.standard_normal(clean.shape, np.float32) * np.float32(25 / 255), 0, 1)
    attacks = attack_deltas(photographs, args.verifier, rng)
    print(f"{len(photographs)} photographs; test PSNR before denoising {psnr(noisy, clean).mean():.2f} dB", flush=True)

    model, average = (build(**NETWORKS[args.network]) for _ in range(2))
    if args.network == "dncnn":
        pass_through(model)
    optimizer = keras.optimizers.Adam(args.rate, beta_2=0.99, clipnorm=1.0)
    training = Training(args.work, args.minutes, model, average, optimizer, args.rate, warming=100, every=2)
    manifest = find_manifest(args.verifier)
    verifier = load_network(manifest.checkpoint, True) if args.consistency else None

    @tf.function(reduce_retracing=True)
    def train_step(x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor]:
        with tf.GradientTape() as tape:
            denoised = model(x, training=True)
            # The logarithm is the PSNR's: without it the noisiest crops would drown the others. Below the floor a crop
            # counts as clean: a plain deep network that may not touch those at all does not begin to learn.
            loss = tf.reduce_mean(tf.math.log(tf.reduce_mean(tf.square(denoised - y), axis=(1, 2, 3)) + args.floor))
            if verifier is not None:
                seen, wanted = (verifier(tensorflow_model_input(v, manifest.input)) for v in (denoised, y))
                loss += args.consistency * tf.reduce_mean(1 - tf.reduce_sum(seen * wanted, axis=-1))
        training.apply(tape.gradient(loss, model.trainable_variables))
        return (loss,)

    denoise = tf.function(lambda x: average(x, training=False))
    batches = Batches(photographs, attacks, side, args.batch, args.seed + training.step)

    def report(means: np.ndarray) -> str:
        denoised = np.concatenate([denoise(noisy[i : i + 8]).numpy() for i in range(0, len(noisy), 8)])
        return f"loss {means[0]:.4f} PSNR {psnr(denoised, clean).mean():.2f} dB"

    training.run(lambda: train_step(*next(batches)), report)


if __name__ == "__main__":
    main()
