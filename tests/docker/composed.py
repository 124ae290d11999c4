"""The services of docker/compose.yaml as plain processes: their commands, environments, order, ports, not their images.

    python -m tests.docker.composed CONFIG    prints the rows that one event became

CONFIG is what `docker compose config --format json` says. It runs in a network of its own (see test_compose.py), in
which the services' names are this machine, so that no word of theirs has to be another.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from tests.live_server import eventually

DOCKERFILE_ENVIRON = {"MANYMETRICS_DATA_DIR": tempfile.gettempdir()}  # what the image adds, but for host and port
QUERY = "select event, user_id, project_id from events"


def main(config: Path) -> None:
    services: dict[str, Any] = json.loads(config.read_text())["services"]
    running: dict[str, subprocess.Popen[bytes]] = {}
    while len(running) < len(services):
        for name, service in services.items():
            needs = service.get("depends_on", {})
            if name not in running and needs.keys() <= running.keys():
                for other, how in needs.items():
                    wait(running[other], services[other], how["condition"])
                running[name] = start(service)
    [published] = (port["published"] for service in services.values() for port in service.get("ports", ()))
    url, [key] = f"http://127.0.0.1:{published}", keys(services)
    eventually(lambda: healthy(f"{url}/healthz"), within_s=60)
    event = {"userId": "u-1", "event": "Signed Up"}
    answer = httpx.post(f"{url}/v1/track", auth=(key, ""), json=event)
    assert answer.status_code == 200, answer.text
    rows = eventually(lambda: query(services["api"]) or None, within_s=60)
    print(json.dumps(rows))  # noqa: T201  # for the test


def start(service: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*(service["entrypoint"] or ()), *service["command"]], env=environ_of(service))


def environ_of(service: Mapping[str, Any]) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], **DOCKERFILE_ENVIRON, **service.get("environment", {})}


def wait(process: subprocess.Popen[bytes], service: Mapping[str, Any], condition: str) -> None:
    """As depends_on would."""
    if condition == "service_completed_successfully":
        assert process.wait(60) == 0
        return
    assert condition == "service_healthy"
    kind, *check = service["healthcheck"]["test"]
    assert kind == "CMD"
    eventually(lambda: subprocess.run(check, env=environ_of(service), check=False).returncode == 0 or None, within_s=60)


def keys(services: Mapping[str, Any]) -> list[str]:
    return [one.partition(":")[0] for one in services["api"]["environment"]["MANYMETRICS_WRITE_KEYS"].split(",")]


def healthy(url: str) -> bool | None:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310  # our own
            return bool(answer.status == 200)
    except OSError:
        return None


def query(service: Mapping[str, Any]) -> list[dict[str, Any]]:
    """As `docker compose exec api manymetrics query` would ask."""
    command = ["manymetrics", "query", QUERY, "-o", "ndjson"]
    done = subprocess.run(command, env=environ_of(service), capture_output=True, check=False)
    return [json.loads(line) for line in done.stdout.splitlines()]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
