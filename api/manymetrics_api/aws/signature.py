"""AWS Signature Version 4, of what signed_calls sends."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple


class Credentials(NamedTuple):
    """Who calls. Never logged."""

    key_id: str
    secret: str
    token: str | None = None


def authorization(headers: Mapping[str, str], body: bytes, credentials: Credentials, region: str, service: str) -> str:
    """The header that signs ``POST /`` with these headers, all of them, and the body: AWS Signature Version 4.

    Names are in lower case, and x-amz-date is among them.
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


@lru_cache(4)  # a day's, of each service
def _signing_key(secret: str, scope: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = _hmac(key, part)
    return key


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
