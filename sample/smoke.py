"""``make aws-smoke``: send one event through this folder's stack, from the API to its row in Athena.

Exits with 0 once the row exists, and with 1 and what to check if it doesn't after the batch window and five minutes.
Needs Terraform's outputs, and AWS credentials that may query in the stack's workgroup.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import boto3
from botocore.exceptions import BotoCoreError, ClientError

SPARE_S = 300  # beyond the batch window: a cold start, the commit, a retried batch
NEW_STACK_S, AGAIN_S = 60, 3
ASK_EVERY_S = 20  # each query costs Athena's minimum, 10 MB
_CURES = {
    401: "The first write key was revoked: add an active one to write_keys_parameter.",
    403: "The write key doesn't allow this sender: check its kind and origins in write_keys_parameter.",
    404: "The API has no such route: does api_instance_url belong to another stack?",
    429: "The gateway or the stream is throttled: wait, or check the alarms.",
    503: "The API can't reach its stream or its keys: check the log of its function.",
}


class SmokeError(Exception):
    """The event did not arrive. The message has the reason and the fix."""


@dataclass(frozen=True, slots=True)
class Stack:
    """Values of the stack, from Terraform's outputs."""

    api_instance_url: str
    write_key: str
    glue_database_name: str
    athena_workgroup: str
    dashboard_url: str
    region: str
    batch_window_s: int


def read_stack(folder: Path) -> Stack:
    """Read the outputs of the stack applied in a folder."""
    command = ["terraform", f"-chdir={folder}", "output", "-json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return Stack(**{name: one["value"] for name, one in json.loads(done.stdout).items() if name in _OUTPUTS})
    except FileNotFoundError:
        raise SmokeError("terraform is not on PATH.") from None
    except subprocess.CalledProcessError as error:
        raise SmokeError(
            f"{error.stderr.strip()}\nterraform can't read the state: run make deploy, or terraform init"
        ) from None
    except TypeError:
        raise SmokeError(f"Nothing is applied in {folder}, or only a part: run make deploy") from None


_OUTPUTS = frozenset(Stack.__dataclass_fields__)


def send(
    stack: Stack,
    message_id: str,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Send an event; returns once the API has returned 200: the event is in the stream.

    Right after an apply the API may not reach its keys yet: as in an SDK, 429 and 503 are retried, for a minute.
    """
    until = clock() + NEW_STACK_S
    while (wait := _send(stack, message_id, may_wait=clock() < until)) is not None:
        print(f"{stack.api_instance_url} is not ready: retrying", flush=True)
        sleep(wait)


def _send(stack: Stack, message_id: str, *, may_wait: bool) -> float | None:
    """Return None once it is accepted, or the seconds to wait."""
    event = {"event": "Smoke", "anonymousId": "smoke", "messageId": message_id}
    headers = {
        "Authorization": "Basic " + base64.b64encode(f"{stack.write_key}:".encode()).decode(),
        "Content-Type": "application/json",
    }
    request = Request(f"{stack.api_instance_url}/v1/track", json.dumps(event).encode(), headers)
    try:
        with urlopen(request, timeout=30):
            return None
    except HTTPError as error:
        if may_wait and error.code in {429, 503}:
            return AGAIN_S
        cure = _CURES.get(error.code, "Check the log of the API's function.")
        raise SmokeError(f"The API returned {error.code}: {error.read(500).decode(errors='replace')}\n{cure}") from None
    except (URLError, TimeoutError) as error:
        raise SmokeError(f"{stack.api_instance_url} can't be reached: {error}. A new name may take a minute.") from None


def is_there(athena: Any, stack: Stack, message_id: str, sleep: Callable[[float], object]) -> bool:  # noqa: ANN401  # boto3 ships no types
    """Return whether Athena finds the row. Raises SmokeError if the query fails."""
    sql = (
        f"SELECT message_id FROM events WHERE message_id = '{message_id}' "  # noqa: S608  # a uuid of ours
        "AND received_at > current_timestamp - INTERVAL '1' DAY"
    )
    asked = athena.start_query_execution(
        QueryString=sql,
        QueryExecutionContext={"Database": stack.glue_database_name},
        WorkGroup=stack.athena_workgroup,
    )["QueryExecutionId"]
    while True:
        status = athena.get_query_execution(QueryExecutionId=asked)["QueryExecution"]["Status"]
        match status["State"]:
            case "SUCCEEDED":
                rows = athena.get_query_results(QueryExecutionId=asked)["ResultSet"]["Rows"]
                return any(message_id in str(row) for row in rows)
            case "FAILED" | "CANCELLED":
                raise SmokeError(f"The Athena query failed: {status.get('StateChangeReason', status['State'])}")
        sleep(1)


def run(
    stack: Stack,
    athena: Any,  # noqa: ANN401  # boto3 ships no types
    message_id: str,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Send an event with that id, and wait for its row. Raises SmokeError if it isn't there in time."""
    send(stack, message_id, clock=clock, sleep=sleep)
    began = clock()
    print(
        f"{stack.api_instance_url} accepted event {message_id}; its row is due in {stack.batch_window_s} s", flush=True
    )
    try:
        while not is_there(athena, stack, message_id, sleep):
            waited = clock() - began
            if waited > stack.batch_window_s + SPARE_S:
                _give_up(stack, message_id, waited)
            print(f"{waited:.0f} s: no row yet", flush=True)
            sleep(ASK_EVERY_S)
    except (BotoCoreError, ClientError) as error:
        raise SmokeError(
            f"{error}\nThe query needs credentials that may use workgroup {stack.athena_workgroup}."
        ) from error
    print(f"{clock() - began:.0f} s: its row is in {stack.glue_database_name}.events", flush=True)


def _give_up(stack: Stack, message_id: str, waited: float) -> NoReturn:
    dead = f"SELECT reason, detail FROM dead_letters WHERE raw LIKE '%{message_id}%'"  # noqa: S608  # for a person to run
    raise SmokeError(
        f"No row after {waited:.0f} s. The event is in the stream; the processor did not commit it. See its errors, "
        f"the iterator age in {stack.dashboard_url}, its log, and in Athena: {dead}"
    )


def main() -> int:
    """Return 0 if the event arrived."""
    try:
        stack = read_stack(Path(__file__).parent)
        run(stack, boto3.client("athena", region_name=stack.region), f"smoke-{uuid.uuid4()}")
    except SmokeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
