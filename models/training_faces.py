"""The faces that the training scripts of this folder share: photographs, the teacher's embeddings, watched pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from toolkit.faces.alignment import read_landmarks, similarity_transform
from toolkit.faces.crops import CropSet, crop_pairs
from toolkit.faces.pairs import load_pairs, read_people

# Five-point template of a 150 x 150 crop, dlib's; every model here is trained on it, scaled to its own side.
TEMPLATE_150 = np.array([[47.7, 47.1], [100.3, 47.1], [72.1, 76.8], [50.5, 104.3], [97.0, 104.5]])
TEACHER_SIDE = 150
# Median landmarks of the chips, measured in a 150 x 150 frame.
_CHIPS_150 = np.array([[45.0, 42.8], [102.8, 42.8], [73.5, 78.0], [47.2, 102.0], [100.9, 101.2]])


@dataclass
class Photographs:
    """Images (BGR uint8, any size), people ("" if unknown), 2 x 3 matrices to the aligned unit square, and names."""

    images: list[np.ndarray]
    people: list[str]
    matrices: list[np.ndarray]
    names: list[str]

    def __len__(self) -> int:
        return len(self.images)

    def extend(self, others: Photographs) -> None:
        """Append all of `others`."""
        self.images += others.images
        self.people += others.people
        self.matrices += others.matrices
        self.names += others.names

    def crop(self, index: int, side: int, placed: np.ndarray | None = None) -> np.ndarray:
        """One aligned crop (side, side, 3), BGR uint8; `placed` (3, 3) moves it within the unit square first."""
        matrix = np.vstack([self.matrices[index], [0, 0, 1]])
        if placed is not None:
            matrix = placed @ matrix
        return cv2.warpAffine(
            self.images[index],
            (np.diag([side, side, 1.0]) @ matrix)[:2],
            (side, side),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT_101,
        )

    def views(self, rows: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
        """Randomly placed crops (N, side, side, 3), RGB uint8; see `jitter`."""
        return np.stack([self.crop(int(i), side, jitter(rng)) for i in rows])[..., ::-1]

    def add(self, path: Path, person: str, points: np.ndarray, frame: float | None = None) -> None:
        """Read one photograph, left out if it cannot be decoded; `points` are in its pixels, or in a square frame."""
        image = cv2.imread(str(path))
        if image is None:
            return
        matrix = similarity_transform(points if frame is None else points * image.shape[0] / frame, TEMPLATE_150)
        if matrix is not None:
            self.images.append(image)
            self.people.append(person)
            self.matrices.append(matrix / 150.0)
            self.names.append(f"{path.parent.name}/{path.name}")


def jitter(rng: np.random.Generator, turn: float = 4, scale: float = 0.04, shift: float = 0.02) -> np.ndarray:
    """A random small turn (degrees), scaling and shift of the unit square, mirrored half of the time: (3, 3)."""
    angle, size = np.radians(rng.normal(0, turn)), np.exp(rng.normal(0, scale))
    cos, sin = size * np.cos(angle), size * np.sin(angle)
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    matrix = np.array([[mirror * cos, -sin, 0.0], [mirror * sin, cos, 0.0], [0, 0, 1.0]])
    matrix[:2, 2] = 0.5 - matrix[:2, :2] @ [0.5, 0.5] + rng.normal(0, shift, 2)
    return matrix


def lfw_names(lfw: Path, sets: range = range(1, 7)) -> dict[str, np.ndarray]:
    """The landmarks of every photograph of the people of these LFW sets in which a face was found."""
    listed = read_people(lfw / "people.txt")
    people = {name for i in sets for name in listed[i - 1]}
    landmarks = read_landmarks(lfw / "landmarks.csv").items()
    return {name: points for name, points in landmarks if points is not None and name.split("/")[0] in people}


def lfw_photographs(lfw: Path, names: dict[str, np.ndarray] | None = None) -> Photographs:
    """These photographs of LFW, with their landmarks; by default all of sets 1-6."""
    found = Photographs([], [], [], [])
    for name, points in (lfw_names(lfw) if names is None else names).items():
        found.add(lfw / "images" / name, name.split("/")[0], points)
    return found


def chip_photographs(faces: Path) -> Photographs:
    """The aligned chips of a folder."""
    found = Photographs([], [], [], [])
    for path in sorted(faces.glob("*.jpg")):
        found.add(path, "", _CHIPS_150, frame=150.0)
    return found


def training_photographs(lfw: Path, faces: Path) -> Photographs:
    """LFW sets 1-6 and the chips, in this order."""
    found = lfw_photographs(lfw)
    found.extend(chip_photographs(faces))
    print(f"{len(found)} training faces", flush=True)
    return found


def watched_pairs(lfw: Path, side: int, limit: int | None = None) -> tuple[CropSet, np.ndarray]:
    """The pairs of LFW set 6, which a training only looks at, and which of them are genuine.

    The people are trained on. The reported pairs are those of sets 7 and 8.
    """
    template = tuple(map(tuple, TEMPLATE_150 * side / 150))
    crops = crop_pairs(load_pairs(lfw, folds=(6,), limit=limit), side, side, template)
    return crops, np.array([pair.genuine for pair in crops.pairs])


def teacher_embeddings(teacher: Path, photographs: Photographs, kept: Path) -> np.ndarray:
    """Unit embeddings (N, 128) of the photographs and their mirror images, together and less their mean.

    Args:
        teacher: dlib's ResNet as an ONNX file.
        photographs: what it embeds.
        kept: the .npy file that keeps the embeddings for the next run.
    """
    import onnxruntime

    if not kept.exists():
        session = onnxruntime.InferenceSession(str(teacher), providers=["CPUExecutionProvider"])
        rows = []
        for at in range(0, len(photographs), 32):
            crops = [photographs.crop(i, TEACHER_SIDE) for i in range(at, min(at + 32, len(photographs)))]
            batch = np.stack(crops)[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32)
            rows.append(sum(session.run(None, {"input": view})[0] for view in (batch, batch[..., ::-1].copy())))
        np.save(kept, np.concatenate(rows))
    found = np.load(kept)
    found -= found.mean(axis=0)
    return found / np.linalg.norm(found, axis=1, keepdims=True)
