"""Train the decoder of faces of people who do not exist.

An encoder sees a photograph and gives a short code for pose, light and expression; the decoder must draw the photograph
from that code and from the mean embedding of *all* photographs of that person, so that who it is can only come from the
embedding. Photographs are of LFW sets 1-6. Losses: absolute difference of pixels (the face counts more than its
surroundings), of the features of two verifiers, and of their embeddings.

    python models/nobody/train.py --lfw LFW --verifier dlib_resnet.onnx --work build/nobody --minutes 60
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "models")]

from training_faces import Photographs, lfw_photographs

SIDE = 160
STYLE = 32
# Side at which facenet-mini looks: it was trained at this one as well, and it is cheaper.
SEEN_SIDE = 112
AVERAGING = 0.01
# Layers of facenet-mini whose features are compared, from fine to coarse.
FEATURES = ("Conv2d_2b_3x3_Activation", "Conv2d_4a_3x3_Activation", "Block35_2_Activation")


def person_codes(photographs: Photographs, crops: np.ndarray, verifier) -> np.ndarray:
    """For each photograph the mean embedding of its person (N, 128)."""
    from toolkit.attacks.base import to_unit

    scaled = np.stack([cv2.resize(c, (150, 150), interpolation=cv2.INTER_AREA) for c in crops])
    embeddings = np.concatenate([verifier.embed(to_unit(scaled[i : i + 64])) for i in range(0, len(scaled), 64)])
    _, person = np.unique(photographs.people, return_inverse=True)
    sums = np.zeros((person.max() + 1, embeddings.shape[1]))
    np.add.at(sums, person, embeddings)
    return (sums / np.bincount(person)[:, None])[person].astype(np.float32)


def encoder(style_size: int):
    """Photograph (N, 160, 160, 3) in [0, 1] to mean and logarithm of the variance of its style code."""
    import keras
    from keras import layers

    inputs = keras.Input((SIDE, SIDE, 3))
    x = layers.AveragePooling2D(4)(inputs)
    for i, filters in enumerate((32, 48, 64)):
        x = layers.Conv2D(filters, 3, strides=2, padding="same", activation="leaky_relu", name=f"conv{i}")(x)
    x = layers.Dense(128, activation="leaky_relu", name="mix")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(2 * style_size, name="code")(x))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lfw", type=Path, required=True)
    parser.add_argument("--verifier", type=Path, required=True, help="dlib_resnet.onnx")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    import keras
    import tensorflow as tf

    from toolkit.networks import build
    from toolkit.networks.face_decoder import face_decoder
    from toolkit.networks.weights import load_weights
    from toolkit.verifiers.manifest import find_manifest
    from toolkit.verifiers.onnx_graph import load_onnx
    from toolkit.verifiers.runtime import RuntimeVerifier
    from toolkit.verifiers.tensorflow import tensorflow_model_input

    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    keras.utils.set_random_seed(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    photographs = lfw_photographs(args.lfw)
    crops = np.stack([photographs.crop(i, SIDE)[..., ::-1] for i in range(len(photographs))])
    dlib = find_manifest(str(args.verifier))
    codes = person_codes(photographs, crops, RuntimeVerifier(dlib))
    np.save(args.work / "codes.npy", codes)
    print(f"{len(crops)} photographs of {len(set(photographs.people))} people", flush=True)

    mini = find_manifest("facenet-mini")
    network = build(**mini.checkpoint.network)
    load_weights(network, mini.checkpoint.path)
    features = keras.Model(network.input, [*(network.get_layer(n).output for n in FEATURES), network.output])
    embed = load_onnx(args.verifier)

    decoder, average, encode = face_decoder(128, STYLE), face_decoder(128, STYLE), encoder(STYLE)
    average.set_weights(decoder.get_weights())
    variables = decoder.trainable_variables + encode.trainable_variables
    optimizer = keras.optimizers.Adam(args.rate, beta_1=0.5, beta_2=0.99, clipnorm=5.0)
    optimizer.build(variables)
    checkpoint = tf.train.Checkpoint(decoder=decoder, average=average, encode=encode, optimizer=optimizer)
    state_path = args.work / "state.json"
    spent, step = 0.0, 0
    if state_path.exists():
        state = json.loads(state_path.read_text())
        spent, step = state["minutes"], state["step"]
        checkpoint.restore(state["checkpoint"]).expect_partial()

    # The face counts fully, the corners a fifth.
    y, x = np.mgrid[:SIDE, :SIDE] / (SIDE - 1.0) - 0.5
    weight = (0.2 + 0.8 * np.exp(-(((x / 0.33) ** 2 + (y / 0.42) ** 2) ** 2)))[None, ..., None].astype(np.float32)

    def as_mini(images: tf.Tensor) -> list[tf.Tensor]:
        small = tf.image.resize(images, (SEEN_SIDE, SEEN_SIDE))
        return features(tensorflow_model_input(small, mini.input))

    def appearance(drawn: tf.Tensor, image: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        """What facenet-mini sees: features of three depths, and the embedding."""
        *seen, seen_as = as_mini(drawn)
        *wanted, wanted_as = as_mini(image)
        perceived = tf.add_n(
            [tf.reduce_mean(tf.abs(a - b)) / tf.reduce_mean(tf.abs(b)) for a, b in zip(seen, wanted, strict=True)]
        )
        cosine = tf.reduce_sum(tf.math.l2_normalize(seen_as, -1) * tf.math.l2_normalize(wanted_as, -1), -1)
        return perceived + 0.5 * (1 - tf.reduce_mean(cosine))

    def identity_kept(drawn: tf.Tensor, _: tf.Tensor, identity: tf.Tensor) -> tf.Tensor:
        """What dlib sees: the person whose code was given."""
        as_dlib = embed(tensorflow_model_input(tf.image.resize(drawn, (150, 150)), dlib.input))
        return 4 * tf.reduce_mean(tf.reduce_sum(tf.square(as_dlib - identity), -1))

    def make_step(judge):
        @tf.function
        def train_step(image: tf.Tensor, identity: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                mean, log_variance = tf.split(encode(image, training=True), 2, axis=-1)
                log_variance = tf.clip_by_value(log_variance, -8.0, 4.0)
                style = mean + tf.exp(0.5 * log_variance) * tf.random.normal(tf.shape(mean))
                drawn = decoder([identity, style], training=True)
                pixels = tf.reduce_mean(weight * tf.abs(drawn - image))
                judged = judge(drawn, image, identity)
                divergence = tf.reduce_mean(
                    0.5 * tf.reduce_sum(tf.square(mean) + tf.exp(log_variance) - log_variance - 1, -1)
                )
                loss = 8 * pixels + judged + 0.003 * divergence
            gradients = tape.gradient(loss, variables)
            optimizer.apply_gradients(zip(gradients, variables, strict=True))
            for slow, fast in zip(average.variables, decoder.variables, strict=True):
                slow.assign(slow + AVERAGING * (fast - slow))
            return tf.stack([pixels, judged, divergence])

        return train_step

    # The two verifiers take turns: one of them costs as much as the decoder itself.
    steps = (make_step(appearance), make_step(identity_kept))
    rng = np.random.default_rng(args.seed + step)
    started, reported, sums, count = time.monotonic() - spent * 60, spent, np.zeros((2, 3)), 0
    shown = rng.choice(len(crops), 12, replace=False)
    while spent < args.minutes:
        progress = spent / args.minutes
        rate = args.rate * min(1.0, (step + 1) / 200) * max(0.01, 0.5 * (1 + np.cos(np.pi * progress)))
        optimizer.learning_rate.assign(rate)
        chosen = rng.choice(len(crops), args.batch, replace=False)
        batch = crops[chosen].astype(np.float32) / 255
        mirrored = rng.random(args.batch) < 0.5
        batch[mirrored] = batch[mirrored, :, ::-1]
        sums[step % 2] += steps[step % 2](tf.constant(batch), tf.constant(codes[chosen])).numpy()
        step, count = step + 1, count + 1
        spent = (time.monotonic() - started) / 60
        if spent - reported > 3 or spent >= args.minutes:
            (pixels, seen, divergence), (_, kept, _) = 2 * sums / count
            print(
                f"minute {spent:5.1f} step {step} pixels {pixels:.4f} appearance {seen:.4f} identity {kept:.4f} "
                f"divergence {divergence:.2f}",
                flush=True,
            )
            real = crops[shown].astype(np.float32) / 255
            identity, style = tf.constant(codes[shown]), encode(tf.constant(real))[:, :STYLE]
            drawn = average([identity, style]).numpy()
            swapped = average([identity, tf.roll(style, 1, 0)]).numpy()
            sheet = np.concatenate([np.concatenate(list(row), 1) for row in (real, drawn, swapped)], 0)
            cv2.imwrite(str(args.work / "sheet.png"), (sheet[..., ::-1] * 255).astype(np.uint8))
            path = checkpoint.write(str(args.work / "checkpoint"))
            average.save_weights(args.work / "average.weights.h5")
            encode.save_weights(args.work / "encoder.weights.h5")
            state_path.write_text(json.dumps({"minutes": spent, "step": step, "checkpoint": path}))
            reported, sums, count = spent, np.zeros((2, 3)), 0


if __name__ == "__main__":
    main()
