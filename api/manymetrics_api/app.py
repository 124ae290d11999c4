"""Assemble the API from keys and a sink to an ASGI app. FastAPI is behind the hot routes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from types import MappingProxyType

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from manymetrics.settings import Settings
from manymetrics_api.collect import Collector, Front
from manymetrics_api.endpoints import BooksReader, add_routes
from manymetrics_api.keys import Keys
from manymetrics_api.sinks import Sink
from manymetrics_api.watch import watching

Lifespan = Callable[[], AbstractAsyncContextManager[None]]


def create_app(
    *,
    settings: Settings,
    keys: Keys,
    sink: Sink,
    read_books: BooksReader | None = None,
    see: Mapping[str, str] = MappingProxyType({}),
    stalled_s: Callable[[], float] | None = None,
    lifespan: Lifespan | None = None,
    more_routes: Callable[[FastAPI], None] | None = None,
    clock: Callable[[], int] = time.time_ns,
) -> Front:
    """``read_books`` gives /metrics the committed books; ``lifespan`` runs while the API serves.

    ``see``: commands that show dead letters, for the log lines about bad input.
    ``stalled_s`` returns for how many seconds records have waited without a commit; it may raise.

    ``more_routes`` adds routes of the entry point. ``clock`` returns nanoseconds since 1970, UTC.
    """

    @asynccontextmanager
    async def live(_app: FastAPI) -> AsyncIterator[None]:
        outcomes = None if read_books is None else lambda: read_books().outcomes
        try:
            async with watching(keys, outcomes, see), lifespan() if lifespan is not None else nullcontext():
                yield
        finally:
            await sink.close()

    collector = Collector(
        keys,
        sink,
        trusted_proxies=settings.trusted_proxies,
        clock=clock,
        body_timeout_s=settings.body_timeout_s,
    )
    # /docs with its script and style served from here: it must work without internet access.
    app: FastAPI = FastAPIOffline(
        title="ManyMetrics",
        summary="Product analytics events in, rows in your own Iceberg tables out.",
        version="1",
        redirect_slashes=False,
        redoc_url=None,
        lifespan=live,
    )
    add_routes(app, collector, settings, read_books, stalled_s)
    if more_routes is not None:
        more_routes(app)
    return Front(collector, app)
