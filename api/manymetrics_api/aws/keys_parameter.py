"""Read write keys, in the format of the keys file, from a parameter of AWS Systems Manager (SSM).

A SecureString is decrypted; a parameter named /aws/reference/secretsmanager/<name> refers to that secret.
"""

from __future__ import annotations

import asyncio
import random
import time

import msgspec

from manymetrics_api.aws.signed_calls import CallError, Place, SignedClient
from manymetrics_api.keys import KeysUnavailableError, WriteKey, parse_keys

CALL_TIMEOUT_S = 1.5
CALLS = 2  # one retry, for calls lost in transit or in a freeze of Lambda
READ_TIMEOUT_S = CALLS * CALL_TIMEOUT_S
# SSM allows 40 reads per second and account, and hundreds of functions may start at once: each retries after a random
# pause, while there is time.
THROTTLED = frozenset({"ThrottlingException", "TooManyUpdates", "RequestLimitExceeded"})
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0
_REFERENCES = "/aws/reference/"  # values of other services: they have no version, and are always decrypted
_FINAL = frozenset({"AccessDeniedException", "ParameterNotFound"})  # not worth a retry


class _Parameter(msgspec.Struct, frozen=True):
    value: str = msgspec.field(name="Value")
    version: int = msgspec.field(default=0, name="Version")
    # A recreated parameter starts at version 1 again.
    modified_at: float = msgspec.field(default=0.0, name="LastModifiedDate")


class _Answer(msgspec.Struct):
    parameter: _Parameter = msgspec.field(name="Parameter")


class KeysParameter:
    """``read`` blocks for at most READ_TIMEOUT_S; twice that if the keys have changed.

    KMS charges for each decryption. So the decrypted value is cached, and the parameter is then read encrypted until
    its version changes.
    """

    def __init__(self, name: str, place: Place) -> None:
        self._name, self._place = name, place
        self._held: _Parameter | None = None

    def read(self) -> list[WriteKey]:
        """Read the keys. Raises KeysUnavailableError, whose message contains no key."""
        try:
            held = self._held = asyncio.run(self._newest())
        except CallError as error:
            raise KeysUnavailableError(f"SSM parameter {self._name}: {error.code}") from error
        except msgspec.MsgspecError:
            raise KeysUnavailableError(f"SSM parameter {self._name}: unreadable response") from None
        return parse_keys(held.value, f"SSM parameter {self._name}")

    async def _newest(self) -> _Parameter:
        """Read the newest version, over a new connection: reads are rare, so a kept one would mostly be closed."""
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
