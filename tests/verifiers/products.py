"""Local servers that speak the documented protocols of DeepFace, CompreFace and InsightFace-REST.

Similarity falls with the difference of the images' means; a black image has no face.
"""

from __future__ import annotations

import base64
import email
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from tests.servers import Answer, Seen, answered

KEY = "00000000-0000-0000-0000-000000000002"


def decoded(content: bytes) -> Any:
    assert content[:4] == b"\x89PNG", "another format would lose perturbations"
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def difference(a: Any, b: Any) -> float:
    return abs(float(a.mean()) - float(b.mean())) / 255


def deepface(seen: Seen) -> Answer:
    assert (seen.method, seen.path) == ("POST", "/verify")
    metric = {"model_name": "Facenet512", "detector_backend": "opencv", "distance_metric": "cosine"}
    assert {key: seen.document[key] for key in metric} == metric
    before = "data:image/png;base64,"
    images = []
    for key in ("img1", "img2"):
        assert seen.document[key].startswith(before)
        images.append(decoded(base64.b64decode(seen.document[key].removeprefix(before), validate=True)))
        if not images[-1].any():
            return answered({"error": "Exception while verifying: Face could not be detected in numpy array."}, 400)
    distance = 2 * difference(*images)
    return answered({
        "verified": distance <= 0.30, "distance": distance, "threshold": 0.30, "model": "Facenet512",
        "detector_backend": "opencv", "similarity_metric": "cosine", "facial_areas": {}, "time": 0.5,
    })  # fmt: skip


def parts(seen: Seen) -> dict[str, bytes]:
    """The parts of a multipart body, as another parser finds them."""
    head = f"Content-Type: {seen.headers['Content-Type']}\r\n\r\n".encode()
    found = {}
    for part in email.message_from_bytes(head + seen.document).get_payload():
        name = part.get_param("name", header="content-disposition")
        assert name not in found
        found[name] = part.get_payload(decode=True)
    return found


def compreface(seen: Seen) -> Answer:
    assert seen.path == "/api/v1/verification/verify?limit=1"
    if seen.headers.get("x-api-key") != KEY:
        return answered({"message": f"API key {seen.headers.get('x-api-key')} not found", "code": 5}, 401)
    found = parts(seen)
    assert set(found) == {"source_image", "target_image"}
    source, target = (decoded(found[key]) for key in ("source_image", "target_image"))
    if not source.any() or not target.any():
        return answered({"message": "No face is found in the given image", "code": 28}, 400)
    match = {"box": {"probability": 1.0}, "similarity": 1 - difference(source, target)}
    return answered({"result": [{"source_image_face": {"box": {}}, "face_matches": [match]}]})


def insightface(seen: Seen) -> Answer:
    assert seen.path == "/extract"
    assert seen.document["embed_only"] is True
    (content,) = seen.document["images"]["data"]
    image = decoded(base64.b64decode(content, validate=True))
    faces = [{"vec": embedded(image), "norm": 20.0, "prob": 1.0, "status": "ok"}] if image.any() else []
    return answered({"took_ms": 1.0, "data": [{"status": "ok", "took_ms": 0, "faces": faces}], "status": "ok"})


def embedded(image: Any) -> list[float]:
    return np.resize([float(image.mean()) / 255, 0.5, float(image.std()) / 255], 512).tolist()


PRODUCTS: dict[str, Callable[[Seen], Answer]] = {
    "deepface": deepface,
    "compreface": compreface,
    "insightface-rest": insightface,
}
