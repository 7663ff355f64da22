"""A two-dimensional morphable model of faces (Vetter and Poggio 1997; Cootes et al. 2001), learned from LFW sets 1-6.

A face is a texture in a common shape, and a flow that moves it into its own shape. Both are linear: principal
components of the faces' own flows to the mean face (dense optical flow), and of their textures warped by them. Because
features lie on features, mixtures are sharp where a mixture of photographs would show every nose twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

SIDE = 160
# Flows are smooth: they are kept at a quarter of the side.
FLOW_SIDE = 40


@dataclass(frozen=True)
class MorphableModel:
    """Faces are ``mean + code @ basis`` in texture (SIDE, SIDE, 3) and flow (FLOW_SIDE, FLOW_SIDE, 2, in pixels).

    A code (D,) is one of texture and one of flow, each component of unit variance over the photographs. `identity` and
    `style` are square roots (D, D) of the covariances between people and between photographs of one person.
    """

    texture_mean: np.ndarray
    texture_basis: np.ndarray
    flow_mean: np.ndarray
    flow_basis: np.ndarray
    identity: np.ndarray
    style: np.ndarray

    @property
    def texture_size(self) -> int:
        return len(self.texture_basis)

    @property
    def size(self) -> int:
        return len(self.texture_basis) + len(self.flow_basis)


def frontal(points: np.ndarray) -> bool:
    """Whether five points are of a face that looks into the camera: its nose lies midway between the eyes."""
    (left, right, nose, mouth_left, mouth_right) = points
    along = (nose - (left + right) / 2) @ (right - left) / np.sum((right - left) ** 2)
    level = abs(mouth_left[1] - mouth_right[1]) / np.linalg.norm(right - left)
    return bool(abs(along) < 0.12 and level < 0.25)


def soft_mask() -> np.ndarray:
    """1 on the face, 0 in the corners (SIDE, SIDE, 1)."""
    y, x = np.mgrid[:SIDE, :SIDE] / (SIDE - 1.0) - 0.5
    r = np.sqrt((x / 0.50) ** 2 + ((y - 0.02) / 0.60) ** 2)
    return (1 / (1 + np.exp((r - 0.93) / 0.05)))[..., None].astype(np.float32)


def flow_to(mean: np.ndarray, face: np.ndarray, engine: cv2.DISOpticalFlow) -> np.ndarray:
    """Where in `face` each pixel of `mean` lies: (SIDE, SIDE, 2) in pixels. Both are (SIDE, SIDE, 3) in [0, 1]."""

    def prepared(image: np.ndarray) -> np.ndarray:
        gray = cv2.cvtColor(image.astype(np.float32), cv2.COLOR_RGB2GRAY)
        # Light differs between photographs; what is left after dividing by the local level is structure.
        level = cv2.GaussianBlur(gray, (0, 0), 12)
        contrast = np.sqrt(cv2.GaussianBlur((gray - level) ** 2, (0, 0), 12)) + 0.02
        return np.clip(128 + 45 * (gray - level) / contrast, 0, 255).astype(np.uint8)

    flow = engine.calc(prepared(mean), prepared(face), None)
    return cv2.GaussianBlur(flow, (0, 0), 4)


def warped(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """`image` read at every pixel's place plus `flow`."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    return cv2.remap(image, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def principal(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean (K,), scaled components (count, K) of unit variance, and the codes (N, count) of rows (N, K)."""
    mean = rows.mean(axis=0)
    centered = rows - mean
    rng = np.random.default_rng(0)
    # Randomized range finder with two power iterations (Halko et al. 2011, algorithm 4.4).
    q = np.linalg.qr(centered @ rng.standard_normal((rows.shape[1], count + 16)).astype(np.float32))[0]
    for _ in range(2):
        q = np.linalg.qr(centered @ (centered.T @ q))[0]
    u, s, v = np.linalg.svd(q.T @ centered, full_matrices=False)
    codes = (q @ u)[:, :count] * np.sqrt(len(rows))
    return mean, (v[:count] * (s[:count, None] / np.sqrt(len(rows)))).astype(np.float32), codes.astype(np.float32)


def learn(faces: np.ndarray, people: np.ndarray, textures: int = 160, flows: int = 40) -> MorphableModel:
    """Learn the model.

    Args:
        faces: (N, SIDE, SIDE, 3) uint8, RGB, aligned, frontal.
        people: (N,), who each is of.
        textures: number of texture components.
        flows: number of flow components.
    """
    engine = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    mean = faces.mean(axis=0, dtype=np.float64).astype(np.float32) / 255
    mask = soft_mask()
    for _ in range(3):  # the mean sharpens as the faces are brought onto it
        flow = np.stack([flow_to(mean, face.astype(np.float32) / 255, engine) for face in faces])
        flow -= flow.mean(axis=0)
        small = np.stack([cv2.resize(f, (FLOW_SIDE, FLOW_SIDE), interpolation=cv2.INTER_AREA) for f in flow])
        # What the components keep of a flow is what faces have in common; the rest is mistakes.
        flow_mean, flow_basis, flow_codes = principal(small.reshape(len(small), -1), flows)
        kept = (flow_mean + np.clip(flow_codes, -3, 3) @ flow_basis).reshape(small.shape)
        shape_free = np.stack([warped(face, cv2.resize(f, (SIDE, SIDE))) for face, f in zip(faces, kept, strict=True)])
        mean = shape_free.mean(axis=0, dtype=np.float64).astype(np.float32) / 255
    backdrop = cv2.GaussianBlur(mean, (0, 0), 20)
    rows = (shape_free.astype(np.float32) / 255 * mask + backdrop * (1 - mask)).reshape(len(faces), -1)
    texture_mean, texture_basis, texture_codes = principal(rows, textures)
    codes = np.concatenate([texture_codes, flow_codes], axis=1).astype(np.float64)
    identity, style = covariances(codes, people)
    return MorphableModel(
        texture_mean.reshape(SIDE, SIDE, 3),
        texture_basis.reshape(-1, SIDE, SIDE, 3),
        flow_mean.reshape(FLOW_SIDE, FLOW_SIDE, 2),
        flow_basis.reshape(-1, FLOW_SIDE, FLOW_SIDE, 2),
        identity,
        style,
    )


def covariances(codes: np.ndarray, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Square roots of the covariance between people, and of that between photographs of one person."""
    _, person, counts = np.unique(people, return_inverse=True, return_counts=True)
    several = counts[person] > 1
    means = np.zeros((len(counts), codes.shape[1]))
    np.add.at(means, person, codes)
    means /= counts[:, None]
    within = (codes - means[person])[several]
    style = within.T @ within / (several.sum() - (counts > 1).sum())
    total = np.cov(codes.T)
    return root(total - style), root(style)


def root(matrix: np.ndarray) -> np.ndarray:
    """Symmetric square root; what is negative by chance becomes zero."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def draw(model: MorphableModel, codes):
    """Faces (N, SIDE, SIDE, 3) of codes (N, D), float32 in [0, 1], in TensorFlow, differentiable."""
    import tensorflow as tf

    count = model.texture_size
    texture = model.texture_mean + tf.tensordot(codes[:, :count], tf.constant(model.texture_basis), 1)
    flow = model.flow_mean + tf.tensordot(codes[:, count:], tf.constant(model.flow_basis), 1)
    # The flow says where in the face a texture pixel lies; for small flows its negative is the way back.
    flow = -tf.image.resize(flow, (SIDE, SIDE))
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    at = tf.clip_by_value(tf.stack([y + flow[..., 1], x + flow[..., 0]], -1), 0.0, SIDE - 1.001)
    low = tf.floor(at)
    part = at - low
    low = tf.cast(low, tf.int32)
    flat = tf.reshape(texture, (tf.shape(codes)[0], SIDE * SIDE, 3))

    def read(dy: int, dx: int):
        index = tf.reshape((low[..., 0] + dy) * SIDE + low[..., 1] + dx, (tf.shape(codes)[0], -1))
        return tf.reshape(tf.gather(flat, index, batch_dims=1), tf.shape(texture))

    py, px = part[..., :1], part[..., 1:]
    top = (1 - px) * read(0, 0) + px * read(0, 1)
    bottom = (1 - px) * read(1, 0) + px * read(1, 1)
    return tf.clip_by_value((1 - py) * top + py * bottom, 0.0, 1.0)
