"""Amazon Rekognition's CompareFaces (the paper's table 3), through boto3, which is an optional extra."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError, UnavailableError
from toolkit.verifiers.remote.calls import Caller, TransientError
from toolkit.verifiers.remote.config import Rekognition

# What boto3 calls the answers that mean "again, later"; the rest is known by its HTTP status.
_AGAIN = {"ThrottlingException", "ProvisionedThroughputExceededException", "InternalServerError"}
_SHOWN = 100


class RekognitionVerifier:
    """Similarities from the service.

    Attributes:
        remote: what it was described as.
        caller: counts the calls; boto3's own repetitions are off, so that none is missed. (Redirects and the sizes of
            answers are boto3's matter.)
    """

    def __init__(self, remote: Rekognition, caller: Caller) -> None:
        """Make the client; nothing is called yet.

        Raises:
            UnavailableError: boto3 is not installed.
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
            raise InputError(f"{remote.path}: boto3 cannot use it ({error})") from error

    def similarities(self, probes: NDArray[np.uint8], references: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Similarities (N,) from 0 to 100 of crops (N, H, W, 3), RGB; NaN where the service finds no face.

        The threshold that is sent is 0, so that similarities below the one that decides are known too.

        Raises:
            UnavailableError: the service does not answer or refuses, or no calls are left.
            InputError: it cannot use the request, or answers nonsense.
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
                    raise TransientError(f"Rekognition says {error}") from error
                raise
            except (self._errors.HTTPClientError, self._errors.ConnectionError) as error:
                raise TransientError(f"no answer from Rekognition ({error})") from error

        try:
            return self._similarity(self.caller(call), where)
        except self._errors.ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code == "InvalidParameterException":  # how the service says that there is no face
                return math.nan
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in (401, 403) or "Access" in code:
                raise UnavailableError(f"{where} refuses ({error})") from error
            raise InputError(f"{where} cannot use the request ({error})") from error
        except self._errors.NoCredentialsError as error:
            raise UnavailableError(f"{where} needs credentials, and boto3 finds none; set AWS_PROFILE") from error
        except self._errors.BotoCoreError as error:  # an answer that is no JSON, for one
            raise InputError(f"{where}: {error}") from error

    def _similarity(self, answer: dict[str, Any], where: str) -> float:
        """The largest similarity of the faces that were found; 0 where none resembles the reference at all."""
        if not {"FaceMatches", "UnmatchedFaces"} & set(answer):  # boto3 takes anything for an answer
            raise InputError(f"{where} answers without faces: {str(answer)[:_SHOWN]!r}")
        values = [match.get("Similarity", math.nan) for match in answer.get("FaceMatches", [])]
        if not all(isinstance(value, (int, float)) and 0 <= value <= 100 for value in values):
            raise InputError(f"{where} answers similarities {values[:3]}; they lie between 0 and 100")
        return float(max(values, default=0.0))


def _png(crop: NDArray[np.uint8]) -> bytes:
    """The crop without loss: JPEG would wash small perturbations out before the service sees them."""
    _, content = cv2.imencode(".png", crop[..., ::-1])
    return content.tobytes()
