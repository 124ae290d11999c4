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
_REFERENCES = "/aws/reference/"  # to what other services hold: they have no version, and come decrypted or not at all
_FINAL = frozenset({"AccessDeniedException", "ParameterNotFound", "ThrottlingException"})  # the next says the same


class _Parameter(msgspec.Struct, frozen=True):
    value: str = msgspec.field(name="Value")
    version: int = msgspec.field(default=0, name="Version")
    modified_at: float = msgspec.field(default=0.0, name="LastModifiedDate")  # one made anew begins at version 1 again


class _Answer(msgspec.Struct):
    parameter: _Parameter = msgspec.field(name="Parameter")


class KeysParameter:
    """``read`` blocks for READ_TIMEOUT_S at most; where the keys have changed, for twice that.

    KMS takes money for each decryption. So what was decrypted is kept, and from then on the parameter is asked for as
    it is stored, until its version is another.
    """

    def __init__(self, name: str, place: Place) -> None:
        self._name, self._place = name, place
        self._held: _Parameter | None = None

    def read(self) -> list[WriteKey]:
        """Raises KeysUnavailableError, which says why without a key."""
        try:
            held = self._held = asyncio.run(self._newest())
        except CallError as error:
            raise KeysUnavailableError(f"SSM parameter {self._name}: {error.code}") from error
        except msgspec.MsgspecError:
            raise KeysUnavailableError(f"SSM parameter {self._name}: an answer that can't be read") from None
        return parse_keys(held.value, f"SSM parameter {self._name}")

    async def _newest(self) -> _Parameter:
        """Over a connection a read: it comes seldom, and one that is kept would mostly be closed by then."""
        client = SignedClient("ssm", "AmazonSSM.", self._place)
        try:
            held = self._held
            if held is not None and not self._name.startswith(_REFERENCES):
                stored = await self._get(client, decrypt=False)
                if (stored.version, stored.modified_at) == (held.version, held.modified_at):
                    return held
            return await self._get(client, decrypt=True)
        finally:
            client.close()

    async def _get(self, client: SignedClient, *, decrypt: bool) -> _Parameter:
        asked = {"Name": self._name, "WithDecryption": decrypt}
        for _ in range(CALLS - 1):
            try:
                return _parameter(await client.call("GetParameter", asked, CALL_TIMEOUT_S))
            except CallError as error:
                if error.code in _FINAL:
                    raise
        return _parameter(await client.call("GetParameter", asked, CALL_TIMEOUT_S))


def _parameter(answer: bytes) -> _Parameter:
    return msgspec.json.decode(answer, type=_Answer).parameter
