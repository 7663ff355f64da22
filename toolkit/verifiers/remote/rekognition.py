"""Amazon Rekognition's CompareFaces (the paper's table 3). It needs boto3, which is an optional extra.

boto3 finds credentials and address and signs the requests. The toolkit's own exchange sends them, so that its limits of
time and size hold here too.

Source: docs.aws.amazon.com/rekognition/latest/APIReference/API_CompareFaces.html.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError, UnavailableError
from toolkit.verifiers.remote.calls import TransientError
from toolkit.verifiers.remote.config import Rekognition
from toolkit.verifiers.remote.exchange import Server, Signed, is_transient, retry_after
from toolkit.verifiers.remote.images import png
from toolkit.verifiers.remote.wire import Answer

# The error codes that mean "try again later". Other temporary errors are recognized by their HTTP status.
_AGAIN = {"ThrottlingException", "ProvisionedThroughputExceededException", "InternalServerError"}
_DENIED = {"UnrecognizedClientException", "InvalidSignatureException", "ExpiredTokenException"}
_HEADERS = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "RekognitionService.CompareFaces"}


class RekognitionService:
    """A service that compares two crops by Amazon Rekognition. See `service.Comparer`.

    Attributes:
        remote: the description of the remote verifier.
        answers: what the service answers.
    """

    answers: Literal["similarity"] = "similarity"

    def __init__(self, remote: Rekognition) -> None:
        """Find the service. This does not call it.

        Raises:
            UnavailableError: boto3 is not installed.
            InputError: boto3 does not accept the region or the address.
        """
        self.remote = remote
        signer = _Signer(remote)
        self._where = f"{remote.path}: Rekognition"
        self._server = Server(signer.address, remote.limits.timeout, signer)

    def compare(self, probe: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
        """Compare two crops (H, W, 3), RGB, by one call. See `service.Comparer`.

        The request has a similarity threshold of 0, so that the service also returns similarities below the threshold.
        """
        document = {"SourceImage": _image(reference), "TargetImage": _image(probe), "SimilarityThreshold": 0.0}
        answer = self._server.send("/", json.dumps(document).encode(), _HEADERS)
        if answer.status == 200:
            return self._distance(self._server.read(answer, self._where))
        code, shown = self._code(answer), self._server.shown(answer.body)
        if is_transient(answer) or code in _AGAIN:
            raise TransientError(f"Rekognition answers: {answer.status} {shown}", retry_after(answer))
        if code == "InvalidParameterException":  # the service finds no face
            return math.nan
        if answer.status in (401, 403) or code in _DENIED or "Access" in code:
            raise UnavailableError(f"{self._where} denies access ({shown}); check the credentials")
        raise InputError(f"{self._where} rejects the request ({answer.status} {shown})")

    def _code(self, answer: Answer) -> str:
        """Return the name of the error in an answer; empty if it has none."""
        try:
            kind = self._server.read(answer, self._where).get("__type")
        except InputError:  # any status may come from a server between here and the service
            return ""
        return kind.rpartition("#")[2] if isinstance(kind, str) else ""

    def _distance(self, answer: dict[str, Any]) -> float:
        """Return the distance of the most similar face in the answer; the largest if no face matches the reference.

        Raises:
            InputError: the answer is not valid.
        """
        matches = answer.get("FaceMatches", [])
        if not {"FaceMatches", "UnmatchedFaces"} & set(answer) or not isinstance(matches, list):
            raise InputError(f"{self._where} sends an answer without faces: {self._server.shown(answer)!r}")
        values: list[Any] = [match.get("Similarity") if isinstance(match, dict) else None for match in matches]
        scale = self.remote.scale
        found = [scale.distance(value) if type(value) in (int, float) else None for value in values]
        known = [distance for distance in found if distance is not None]
        if len(known) != len(found):
            shown = self._server.shown(values[:3])
            raise InputError(f"{self._where} sends similarities {shown}; they must be between 0 and 100")
        return min(known, default=scale.decision.maximum)


class _Signer:
    """Signs requests with boto3's credentials."""

    def __init__(self, remote: Rekognition) -> None:
        try:
            import boto3
            import botocore.exceptions
            from botocore.config import Config
        except ImportError as error:
            raise UnavailableError(
                f'{remote.path}: this needs boto3, which is not installed: pip install "sixpixels[rekognition]"'
            ) from error
        self._remote, self._problem = remote, botocore.exceptions.BotoCoreError
        session = boto3.session.Session()
        # Faces go to the address in remote.toml or to the region's own, whatever the environment says.
        config = Config(ignore_configured_endpoint_urls=True)
        try:
            client = session.client("rekognition", region_name=remote.region, endpoint_url=remote.url, config=config)
            self.address: str = client.meta.endpoint_url.rstrip("/")
            self._credentials: Any = session.get_credentials()
        except (ValueError, self._problem) as error:
            raise InputError(f"{remote.path}: boto3 does not accept the region or the url ({error})") from error

    def __call__(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Signed:
        """Sign a request; see `exchange.Sign`.

        Raises:
            UnavailableError: there are no credentials.
        """
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        if self._credentials is None:
            raise UnavailableError(
                f"{self._remote.path}: Rekognition needs credentials, but boto3 finds none; set AWS_PROFILE"
            )
        request = AWSRequest(method, url, data=body, headers=dict(headers))
        try:
            credentials = self._credentials.get_frozen_credentials()
            SigV4Auth(credentials, "rekognition", self._remote.region).add_auth(request)
        except self._problem as error:  # credentials that must be renewed
            raise UnavailableError(f"{self._remote.path}: the credentials cannot be used ({error})") from error
        signature = request.headers["Authorization"].rpartition("Signature=")[2]
        secrets = (credentials.access_key, credentials.secret_key, credentials.token or "", signature)
        return Signed(dict(request.headers.items()), secrets)


def _image(crop: NDArray[np.uint8]) -> dict[str, str]:
    return {"Bytes": base64.b64encode(png(crop)).decode()}
