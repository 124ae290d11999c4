"""The API's entry point for AWS on a server or in a container: writes events to Kinesis.

    uvicorn --factory manymetrics_api.aws.app:create_aws_app

Region and credentials follow the standard AWS configuration; MANYMETRICS_STREAM names the stream, and
MANYMETRICS_KEYS_PARAMETER the SSM parameter with the write keys.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial

from manymetrics.settings import Settings, SettingsError
from manymetrics_api.aws.keys_parameter import READ_TIMEOUT_S, KeysParameter
from manymetrics_api.aws.signed_calls import Place
from manymetrics_api.collect import Front
from manymetrics_api.keys import FileKeys, Keys, WatchedKeys, keys_path, parse_key_list
from manymetrics_api.sinks.kinesis import LINGER_S, KinesisSink


def create_aws_app(environ: Mapping[str, str] = os.environ) -> Front:
    """Create the API with a Kinesis sink. Raises SettingsError, which names the fix."""
    from manymetrics_api.app import create_app

    settings = Settings.read(environ)
    sink = make_sink(settings, environ)
    keys = make_keys(settings, environ, wait_s=0)
    if isinstance(keys, WatchedKeys):
        keys.wait(READ_TIMEOUT_S)  # else the first requests would get 503
    return create_app(settings=settings, keys=keys, sink=sink, lifespan=partial(_closing, keys))


@asynccontextmanager
async def _closing(keys: Keys) -> AsyncIterator[None]:
    yield
    if isinstance(keys, WatchedKeys):
        keys.close()


def make_sink(settings: Settings, environ: Mapping[str, str], *, linger_s: float = LINGER_S) -> KinesisSink:
    """Open the stream that the settings name. Raises SettingsError."""
    if not settings.stream:
        raise SettingsError("MANYMETRICS_STREAM is missing: name the Kinesis stream that events go into")
    return KinesisSink(settings.stream, _find_place("kinesis", environ), linger_s=linger_s)


def make_keys(settings: Settings, environ: Mapping[str, str], *, wait_s: float) -> Keys:
    """Read the keys from the setting, else from the SSM parameter, else from the keys file. Raises SettingsError.

    ``wait_s``: as in WatchedKeys.
    """
    if settings.write_keys:
        return parse_key_list(settings.write_keys)
    if settings.keys_parameter:
        parameter = KeysParameter(settings.keys_parameter, _find_place("ssm", environ))
        return WatchedKeys(parameter.read, wait_s=wait_s)
    path = keys_path(settings.data_dir)
    if not path.exists():
        raise SettingsError("MANYMETRICS_KEYS_PARAMETER is missing: name the SSM parameter that holds the write keys")
    return FileKeys(path)


def _find_place(service: str, environ: Mapping[str, str]) -> Place:
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    if not region:
        raise SettingsError("AWS_REGION is missing: name the region of the stream")
    endpoint = environ.get(f"AWS_ENDPOINT_URL_{service.upper()}") or environ.get("AWS_ENDPOINT_URL")
    return Place(region, endpoint or None, environ.get("AWS_CA_BUNDLE") or None)
