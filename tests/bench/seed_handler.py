"""The plainest tracker on Lambda, for comparison: an event a request, logged, put into the stream with boto3, 200."""

import json
import logging
import os
from typing import Any

import boto3

logging.getLogger().setLevel(logging.INFO)
kinesis = boto3.client("kinesis")


def handler(request: dict[str, Any], _context: object) -> dict[str, Any]:
    logging.info("request: %s", json.dumps(request))  # noqa: LOG015  # as a plain handler does
    event = json.loads(request["body"])
    kinesis.put_record(
        StreamName=os.environ["MANYMETRICS_STREAM"], Data=json.dumps(event).encode(), PartitionKey=event["userId"]
    )
    return {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": '{"success": true}'}
