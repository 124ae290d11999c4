"""Put the API together: keys and a sink in, an ASGI app out. FastAPI stands behind the hot routes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from manymetrics.collect import Collector, Front
from manymetrics.keys import Keys
from manymetrics.routes import BooksReader, add_routes
from manymetrics.settings import Settings
from manymetrics.sinks import Sink
from manymetrics.watch import watching

Lifespan = Callable[[], AbstractAsyncContextManager[None]]


def create_app(
    *,
    settings: Settings,
    keys: Keys,
    sink: Sink,
    read_books: BooksReader | None = None,
    stalled_s: Callable[[], float] | None = None,
    lifespan: Lifespan | None = None,
    more_routes: Callable[[FastAPI], None] | None = None,
    clock: Callable[[], int] = time.time_ns,
) -> Front:
    """``read_books`` gives /metrics the committed books; ``lifespan`` is what runs beside the API while it serves.

    ``stalled_s`` says for how many seconds records have waited without any commit; it may raise.

    ``more_routes`` adds what this root alone has. ``clock`` gives nanoseconds since 1970, UTC.
    """

    @asynccontextmanager
    async def live(_app: FastAPI) -> AsyncIterator[None]:
        outcomes = None if read_books is None else lambda: read_books().outcomes
        try:
            async with watching(keys, outcomes), lifespan() if lifespan is not None else nullcontext():
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
    # /docs with its script and style from here: it must show where there is no way to a public server.
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
