"""AWS Signature Version 4, for signed_calls."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple


class Credentials(NamedTuple):
    """The caller's credentials. Never logged."""

    key_id: str
    secret: str
    token: str | None = None


def authorization(headers: Mapping[str, str], body: bytes, credentials: Credentials, region: str, service: str) -> str:
    """Return the Authorization header that signs ``POST /`` with all of these headers and the body.

    Header names are in lower case, and include x-amz-date.
    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    """
    names = sorted(headers)
    signed, moment = ";".join(names), headers["x-amz-date"]
    told = "".join(f"{name}:{headers[name]}\n" for name in names)
    canonical = f"POST\n/\n\n{told}\n{signed}\n{hashlib.sha256(body).hexdigest()}"
    scope = f"{moment[:8]}/{region}/{service}/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signature = _hmac(_signing_key(credentials.secret, scope), text).hex()
    return f"AWS4-HMAC-SHA256 Credential={credentials.key_id}/{scope}, SignedHeaders={signed}, Signature={signature}"


@lru_cache(4)  # per day and service
def _signing_key(secret: str, scope: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = _hmac(key, part)
    return key


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
