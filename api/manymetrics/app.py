"""Put the API together: keys and a sink in, an ASGI app out. FastAPI stands behind the hot routes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Final

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
        see = {} if read_books is None else _commands_on_dead_letters(settings)
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


def _commands_on_dead_letters(settings: Settings) -> dict[str, str]:
    """Commands that show dead letters, to paste from the log: first the one that shows those of before, too."""
    from manymetrics.local import shell_command  # only one machine has both books and a data folder

    return {
        "see": f"{shell_command('query', settings.data_dir)} '{_NEWEST_DEAD_LETTERS}'",
        "see_live": f"{shell_command('tail', settings.data_dir)} --bad",
    }


_NEWEST_DEAD_LETTERS: Final = (
    "select received_at, reason, detail, raw from dead_letters order by received_at desc limit 20"
)
