"""The root of the API on AWS, on a server or in a container: events go into Kinesis.

    uvicorn --factory manymetrics.aws:create_aws_app

Region and credentials are found as every AWS tool finds them; MANYMETRICS_STREAM names the stream.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from manymetrics.collect import Front
from manymetrics.keys import keys_of
from manymetrics.kinesis import LINGER_S, KinesisSink
from manymetrics.settings import Settings, SettingsError


def create_aws_app(environ: Mapping[str, str] = os.environ) -> Front:
    """The API with Kinesis behind it. Raises SettingsError, which says the cure."""
    from manymetrics.app import create_app

    settings = Settings.read(environ)
    return create_app(settings=settings, keys=keys_of(settings), sink=sink_of(settings, environ))


def sink_of(settings: Settings, environ: Mapping[str, str], *, linger_s: float = LINGER_S) -> KinesisSink:
    """The stream that the settings name. Raises SettingsError."""
    if not settings.stream:
        raise SettingsError("MANYMETRICS_STREAM is missing: name the Kinesis stream that events go into")
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    if not region:
        raise SettingsError("AWS_REGION is missing: name the region of the stream")
    endpoint = environ.get("AWS_ENDPOINT_URL_KINESIS") or environ.get("AWS_ENDPOINT_URL")
    return KinesisSink(settings.stream, region, endpoint=endpoint, linger_s=linger_s)
