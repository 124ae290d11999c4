"""Write keys from a parameter of AWS Systems Manager (SSM), as a keys file has them.

A SecureString is decrypted; a parameter named /aws/reference/secretsmanager/<name> is that secret.
"""

from __future__ import annotations

import asyncio

import msgspec

from manymetrics.keys import KeysUnavailableError, WriteKey, parse_keys
from manymetrics.signed_calls import CallError, Place, SignedClient

CALL_TIMEOUT_S = 1.5
CALLS = 2  # what is lost on the way, or to a freeze of Lambda's, is asked once more
READ_TIMEOUT_S = CALLS * CALL_TIMEOUT_S
_FINAL = frozenset({"AccessDeniedException", "ParameterNotFound", "ThrottlingException"})  # the next says the same


class _Parameter(msgspec.Struct):
    value: str = msgspec.field(name="Value")


class _Answer(msgspec.Struct):
    parameter: _Parameter = msgspec.field(name="Parameter")


class KeysParameter:
    """``read`` blocks for READ_TIMEOUT_S at most."""

    def __init__(self, name: str, place: Place) -> None:
        self._name, self._place = name, place

    def read(self) -> list[WriteKey]:
        """Raises KeysUnavailableError, which says why without a key."""
        try:
            answer = msgspec.json.decode(asyncio.run(self._get()), type=_Answer)
        except CallError as error:
            raise KeysUnavailableError(f"SSM parameter {self._name}: {error.code}") from error
        except msgspec.MsgspecError:
            raise KeysUnavailableError(f"SSM parameter {self._name}: an answer that can't be read") from None
        return parse_keys(answer.parameter.value, f"SSM parameter {self._name}")

    async def _get(self) -> bytes:
        """A connection a read: it comes seldom, and one that is kept would mostly be closed by then."""
        asked = {"Name": self._name, "WithDecryption": True}
        client = SignedClient("ssm", "AmazonSSM.", self._place)
        try:
            for _ in range(CALLS - 1):
                try:
                    return await client.call("GetParameter", asked, CALL_TIMEOUT_S)
                except CallError as error:
                    if error.code in _FINAL:
                        raise
            return await client.call("GetParameter", asked, CALL_TIMEOUT_S)
        finally:
            client.close()
