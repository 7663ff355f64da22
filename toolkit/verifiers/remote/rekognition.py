"""Amazon Rekognition's CompareFaces (the paper's table 3). It needs boto3, which is an optional extra."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError, UnavailableError
from toolkit.verifiers.remote.calls import Caller, TransientError
from toolkit.verifiers.remote.config import Rekognition

# The error codes that mean "try again later". Other temporary errors are recognized by their HTTP status.
_AGAIN = {"ThrottlingException", "ProvisionedThroughputExceededException", "InternalServerError"}
_SHOWN = 100


class RekognitionVerifier:
    """A verifier whose similarities come from Amazon Rekognition.

    boto3 handles redirects and the size of answers.

    Attributes:
        remote: the description of the remote verifier.
        caller: makes and counts the calls. boto3's own retries are off, so that no call is missed.
    """

    def __init__(self, remote: Rekognition, caller: Caller) -> None:
        """Create the client. This does not call the service.

        Raises:
            UnavailableError: boto3 is not installed.
            InputError: boto3 does not accept the region or the address.
        """
        try:
            import boto3
            import botocore.exceptions
            from botocore.config import Config
        except ImportError as error:
            raise UnavailableError(
                f'{remote.path}: this needs boto3, which is not installed: pip install "sixpixels[rekognition]"'
            ) from error
        self.remote, self.caller = remote, caller
        self._errors = botocore.exceptions
        seconds = remote.limits.timeout
        config = Config(connect_timeout=seconds, read_timeout=seconds, retries={"total_max_attempts": 1})
        try:
            self._client: Any = boto3.session.Session().client(
                "rekognition", region_name=remote.region, endpoint_url=remote.url, config=config
            )
        except (ValueError, botocore.exceptions.BotoCoreError) as error:
            raise InputError(f"{remote.path}: boto3 does not accept the region or the url ({error})") from error

    def similarities(self, probes: NDArray[np.uint8], references: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the similarities of pairs of crops.

        The request has a similarity threshold of 0, so that the service also returns similarities below `threshold`.

        Args:
            probes: (N, H, W, 3) uint8, RGB.
            references: (N, H, W, 3) uint8, RGB.

        Returns:
            (N,) from 0 to 100; NaN if the service finds no face.

        Raises:
            UnavailableError: the service does not answer or denies access, or no calls are left.
            InputError: the service rejects the request, or the answer is not valid.
        """
        pairs = zip(probes, references, strict=True)
        return np.array([self._compare(_png(probe), _png(reference)) for probe, reference in pairs], np.float64)

    def _compare(self, probe: bytes, reference: bytes) -> float:
        where = f"{self.remote.path}: Rekognition"

        def call() -> dict[str, Any]:
            try:
                return self._client.compare_faces(
                    SourceImage={"Bytes": reference}, TargetImage={"Bytes": probe}, SimilarityThreshold=0.0
                )
            except self._errors.ClientError as error:
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
                if error.response.get("Error", {}).get("Code") in _AGAIN or status == 429 or status >= 500:
                    raise TransientError(f"Rekognition answers: {error}") from error
                raise
            except (self._errors.HTTPClientError, self._errors.ConnectionError) as error:
                raise TransientError(f"no answer from Rekognition ({error})") from error

        try:
            return self._similarity(self.caller(call), where)
        except self._errors.ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code == "InvalidParameterException":  # the service finds no face
                return math.nan
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in (401, 403) or "Access" in code:
                raise UnavailableError(f"{where} denies access ({error}); check the credentials") from error
            raise InputError(f"{where} rejects the request ({error})") from error
        except self._errors.NoCredentialsError as error:
            raise UnavailableError(f"{where} needs credentials, but boto3 finds none; set AWS_PROFILE") from error
        except self._errors.BotoCoreError as error:  # for example, the answer is not JSON
            raise InputError(f"{where}: {error}") from error

    def _similarity(self, answer: dict[str, Any], where: str) -> float:
        """Return the largest similarity of the faces in the answer; 0 if no face matches the reference.

        Raises:
            InputError: the answer is not valid.
        """
        if not {"FaceMatches", "UnmatchedFaces"} & set(answer):  # boto3 does not validate answers
            raise InputError(f"{where} sends an answer without faces: {str(answer)[:_SHOWN]!r}")
        values = [match.get("Similarity", math.nan) for match in answer.get("FaceMatches", [])]
        if not all(isinstance(value, (int, float)) and 0 <= value <= 100 for value in values):
            raise InputError(f"{where} sends similarities {values[:3]}; they must be between 0 and 100")
        return float(max(values, default=0.0))


def _png(crop: NDArray[np.uint8]) -> bytes:
    """Encode a crop as PNG. JPEG would remove small perturbations before the service sees them."""
    _, content = cv2.imencode(".png", crop[..., ::-1])
    return content.tobytes()
