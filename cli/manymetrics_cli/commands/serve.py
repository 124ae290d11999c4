"""`manymetrics serve`: run everything on one machine."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path

from manymetrics.settings import PREFIX, Settings, SettingsError
from manymetrics_api.keys import KeysUnavailableError, keys_path, make_keys
from manymetrics_cli.data_dir import NO_DISK_BYTES, VARIABLE, add_data_dir
from manymetrics_cli.help_text import KeepExamples

MAX_PORT = 65_535

_EXAMPLES = """\
examples:
  manymetrics serve
  manymetrics serve --port 8123 --data-dir /var/lib/manymetrics
  manymetrics serve --host 0.0.0.0
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``serve``."""
    parser = commands.add_parser(
        "serve",
        help="start the API, the stream and the committer on this machine",
        description="Receive events and commit them to the tables in the data directory, until interrupted.",
        epilog=_EXAMPLES,
        formatter_class=KeepExamples,
    )
    parser.add_argument("--host", help="address to listen on (MANYMETRICS_HOST)")
    parser.add_argument("--port", type=_port, help="port to listen on (MANYMETRICS_PORT)")
    add_data_dir(parser)
    parser.set_defaults(run=run)


def _port(text: str) -> str:
    if not (text.isascii() and text.isdecimal() and int(text) <= MAX_PORT):
        raise argparse.ArgumentTypeError(f"it must be a whole number from 0 (any free port) to {MAX_PORT}")
    return text


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted."""
    import uvicorn

    from manymetrics.telemetry import log_json_lines
    from manymetrics_api.http_protocol import BACKLOG, HttpProtocol
    from manymetrics_cli.one_machine import create_local_app, forget_server, lock_holder, note_server

    given = {
        f"{PREFIX}{name.upper()}": value for name in ("host", "port") if (value := getattr(args, name)) is not None
    }
    settings = Settings.read({**os.environ, VARIABLE: str(args.data_dir), **given})
    log_json_lines()
    if (holder := lock_holder(settings.data_dir)) is not None:
        said = f"another server already commits in {settings.data_dir.absolute()} (process {holder})"
        waits = "this one accepts events, and commits once that one has stopped"
        cure = "Stop it, or choose another directory with --data-dir and another port with --port"
        print(f"manymetrics: {said}: {waits}. {cure}.", file=sys.stderr, flush=True)
    if (why := _why_nothing_is_stored(settings.data_dir)) is not None:
        print(f"manymetrics: {why}. Until then every event is rejected with 503.", file=sys.stderr, flush=True)
    if sys.stdout.isatty():
        print("Starting ...", end="\r", flush=True)

    def say_ready() -> None:
        [bound, *_] = (socket.getsockname()[1] for one in server.servers for socket in one.sockets)  # port 0: any
        note_server(settings.data_dir, f"http://{local_name(settings.host)}:{bound}")
        print(banner(replace(settings, port=bound)), flush=True)

    app = create_local_app(settings, on_ready=say_ready)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            loop="uvloop",
            http=HttpProtocol,
            log_config=None,
            log_level="error",  # clients must not be able to fill the log
            access_log=False,
            server_header=False,
            proxy_headers=False,  # MANYMETRICS_TRUSTED_PROXIES decides which proxies to trust
            ws="none",
            backlog=BACKLOG,
            timeout_graceful_shutdown=8,
        )
    )
    # Ctrl-C twice leaves connections open, for which uvicorn logs a traceback of its own.
    logging.getLogger("uvicorn.error").addFilter(lambda record: "KeyboardInterrupt" not in record.getMessage())
    try:
        server.run()
    except SystemExit:  # from uvicorn, which has logged the reason
        why = _why_no_listening(settings.host, settings.port)
        print(f"manymetrics: can't listen on {settings.host}:{settings.port}: {why}", file=sys.stderr)
    finally:
        forget_server(settings.data_dir)
    return 0 if server.started else 1


def _why_nothing_is_stored(data_dir: Path) -> str | None:
    """Return why a data directory can't store events, with the fix, as far as can be seen at startup; else None."""
    import shutil

    from manymetrics_cli.one_machine import require_writable

    if not data_dir.is_dir():
        return None  # startup creates it, or reports why it can't
    try:
        require_writable(data_dir)
    except SettingsError as error:
        return str(error)
    is_full = shutil.disk_usage(data_dir).free < NO_DISK_BYTES
    return f"the disk of {data_dir.absolute()} is full: free some space" if is_full else None


def _why_no_listening(host: str, port: int) -> str:
    """Return why a server can't listen on an address, with the fix."""
    import errno
    import socket

    try:
        [(family, kind, _, _, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        with socket.socket(family, kind) as probe:
            probe.bind(address)
    except socket.gaierror:
        return "there is no such host: name an address of this machine with --host"
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            return "this machine has no such address: name one that it has with --host, or 0.0.0.0 for all"
        if error.errno == errno.EACCES:
            return f"this user may not listen on port {port}: use a port of 1024 or above: manymetrics serve --port N"
    return "stop the program that listens there, or use another port: manymetrics serve --port N"


def banner(settings: Settings) -> str:
    """Return the text printed at startup: the key, the URLs, and the first commands to try."""
    from manymetrics_cli.one_machine import first_key, shell_command

    url = f"http://{local_name(settings.host)}:{settings.port}"
    try:
        first = first_key(settings, make_keys(settings))
    except KeysUnavailableError as error:
        return f"""\
ManyMetrics is running, but rejects every event with 503: it can't read the write keys.

  reason      {error}
  fix         {error.cure}
  health      {url}/readyz
"""
    key = first.key if first else "WRITE_KEY"
    shown = key if first else f"none for browsers: server keys are in {keys_path(settings.data_dir)}"
    return f"""\
ManyMetrics is ready.

  write key   {shown}
  docs        {url}/docs
  health      {url}/healthz

Watch events become rows, on a sample page:

  {url}/sample

Or send an event:

  curl {shlex.quote(url + "/v1/track")} -u {shlex.quote(key + ":")} -d '{_EVENT}'

Query it as a row:

  {shell_command("query", settings.data_dir)} "select event, user_id, event_time from events"

Watch events arrive, with any errors:

  {shell_command("tail", settings.data_dir)}
"""  # noqa: S608  # printed, not run


_EVENT = '{"userId": "u-1", "event": "Signed Up", "properties": {"plan": "pro"}}'


def local_name(host: str) -> str:
    """Return the host, as written in a URL, by which this machine reaches a listening address."""
    if host == "::":  # uvicorn accepts no IPv4 there
        return "[::1]"
    if host in {"", "0.0.0.0"}:  # noqa: S104  # compared, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
