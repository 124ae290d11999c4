"""Look after what no request may ask about: whether the write keys can be read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from manymetrics.keys import Keys, KeysUnavailableError

LOOK_S = 5.0


@asynccontextmanager
async def watching(keys: Keys) -> AsyncIterator[None]:
    """Look every LOOK_S seconds while the context is open; keys log by themselves what changes."""
    task = asyncio.create_task(_watch(keys))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _watch(keys: Keys) -> None:
    while True:
        with suppress(KeysUnavailableError):
            keys.origins()
        await asyncio.sleep(LOOK_S)
