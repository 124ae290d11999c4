"""Turn errors of boto3 into messages that name the fix."""

from __future__ import annotations

from typing import Final

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)

_NOT_LET_IN: Final = frozenset({"AccessDenied", "AccessDeniedException", "403"})
_UNKNOWN: Final = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)


def error_code(error: ClientError) -> str:
    """Return AWS's code of the error, such as ``AccessDenied``."""
    return str(error.response["Error"]["Code"])


def describe_refusal(error: ClientError, what: str, permission: str) -> str:
    """Describe an answer of AWS. ``what`` follows "can't" and "permission to"; ``permission``: what it needs."""
    code = error_code(error)
    if code in _UNKNOWN:
        return f"AWS rejected the credentials ({code}): log in again, or use others (AWS_PROFILE, or variables)."
    if code in _NOT_LET_IN:
        return f"No permission to {what}: it needs {permission} and, if encrypted with a key, kms:Decrypt. {error}"
    return f"AWS can't {what}: {error}"


def describe_failure(error: BotoCoreError) -> str:
    """Describe an error without an answer of AWS."""
    if isinstance(error, NoCredentialsError | UnauthorizedSSOTokenError | TokenRetrievalError):
        return f"No AWS credentials ({error}): run `aws configure` or `aws sso login`, or set AWS_PROFILE."
    return f"AWS can't be reached: {error}"
