"""Write keys from a parameter of AWS Systems Manager (SSM), as a keys file has them.

A SecureString is decrypted; a parameter named /aws/reference/secretsmanager/<name> is that secret.
"""

from __future__ import annotations

import asyncio
import random
import time

import msgspec

from manymetrics_api.aws.signed_calls import CallError, Place, SignedClient
from manymetrics_api.keys import KeysUnavailableError, WriteKey, parse_keys

CALL_TIMEOUT_S = 1.5
CALLS = 2  # what is lost on the way, or to a freeze of Lambda's, is asked once more
READ_TIMEOUT_S = CALLS * CALL_TIMEOUT_S
# SSM takes 40 reads a second of an account, and hundreds of functions may start at once: each asks again after a pause
# of its own, while there is time.
THROTTLED = frozenset({"ThrottlingException", "TooManyUpdates", "RequestLimitExceeded"})
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0
_REFERENCES = "/aws/reference/"  # to what other services hold: they have no version, and come decrypted or not at all
_FINAL = frozenset({"AccessDeniedException", "ParameterNotFound"})  # the next says the same


class _Parameter(msgspec.Struct, frozen=True):
    value: str = msgspec.field(name="Value")
    version: int = msgspec.field(default=0, name="Version")
    # A parameter that is recreated begins at version 1 again.
    modified_at: float = msgspec.field(default=0.0, name="LastModifiedDate")


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
        until = time.monotonic() + CALLS * CALL_TIMEOUT_S
        calls, pause_s = CALLS, FIRST_PAUSE_S
        while True:
            try:
                timeout_s = min(CALL_TIMEOUT_S, until - time.monotonic())
                return _parameter(await client.call("GetParameter", asked, timeout_s))
            except CallError as error:
                wait_s = 0.0
                if error.code in THROTTLED:
                    wait_s, pause_s = random.uniform(0, pause_s), min(2 * pause_s, LONGEST_PAUSE_S)  # noqa: S311  # no secret
                else:
                    calls -= 1
                if error.code in _FINAL or not calls or time.monotonic() + wait_s >= until:
                    raise
                await asyncio.sleep(wait_s)


def _parameter(answer: bytes) -> _Parameter:
    return msgspec.json.decode(answer, type=_Answer).parameter
