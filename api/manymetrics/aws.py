"""The root of the API on AWS, on a server or in a container: events go into Kinesis.

    uvicorn --factory manymetrics.aws:create_aws_app

Region and credentials are found as every AWS tool finds them; MANYMETRICS_STREAM names the stream.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from manymetrics.app import create_app
from manymetrics.collect import Front
from manymetrics.keys import FileKeys, Keys, parse_key_list
from manymetrics.kinesis import KinesisSink
from manymetrics.settings import Settings, SettingsError

KEYS_FILE = "keys.json"


def create_aws_app(environ: Mapping[str, str] = os.environ) -> Front:
    """The API with Kinesis behind it. Raises SettingsError, which says the cure."""
    settings = Settings.read(environ)
    if not settings.stream:
        raise SettingsError("MANYMETRICS_STREAM is missing: name the Kinesis stream that events go into")
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    if not region:
        raise SettingsError("AWS_REGION is missing: name the region of the stream")
    endpoint = environ.get("AWS_ENDPOINT_URL_KINESIS") or environ.get("AWS_ENDPOINT_URL")
    return create_app(
        settings=settings, keys=_keys(settings), sink=KinesisSink(settings.stream, region, endpoint=endpoint)
    )


def _keys(settings: Settings) -> Keys:
    if settings.write_keys:
        return parse_key_list(settings.write_keys)
    return FileKeys(settings.data_dir / KEYS_FILE)
