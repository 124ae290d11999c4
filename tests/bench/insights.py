"""What questions over 10 million events cost, warm, beside one pass over the same rows; and whether ingestion waits.

Warm: the snapshot has its narrow copy, as in a server that was asked before; answers are not taken from the cache. The
floor counts rows and takes the greatest time of each person, once, over that copy. CPU is of all threads of the
process. Then events are sent to a server, one after another, while it answers questions over 1 million, and while not.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from manymetrics_api.keys import WriteKey, keys_path, write_keys
from manymetrics_insights.asking.snapshot import Snapshot, open_snapshot
from manymetrics_insights.questions.models import parse_question
from manymetrics_insights.reader.folder import Folder
from tests.bench.insight_events import make_events
from tests.bench.process import peak_mb
from tests.bench.report import Bar, Part
from tests.ports import free_port

EVENTS = int(os.environ.get("BENCH_INSIGHT_EVENTS", "10000000"))
EVENTS_WHILE_INGESTING = EVENTS // 10
ROUNDS = 3
NOW = datetime(2026, 11, 1)
MONTH = {"from": "2026-09-25", "to": "2026-10-25"}
STEPS = [{"event": "Product Viewed"}, {"event": "Product Added"}, {"event": "Order Completed"}]
QUESTIONS: dict[str, dict[str, Any]] = {
    "funnel, 3 steps, 30 days": {"insight": "funnel", "steps": STEPS} | MONTH,
    "retention, 30 days by 14": {"insight": "retention", "zone": "Europe/London"} | MONTH,
    "daily persons, 60 days": {
        "insight": "trends",
        "series": [{"any": True, "measure": "persons"}],
        "from": "2026-09-01",
        "to": "2026-10-31",
    },
    "sessions, 30 days": {"insight": "sessions"} | MONTH,
    "lifecycle, 30 days": {"insight": "lifecycle"} | MONTH,
    "paths, 30 days": {"insight": "paths"} | MONTH,
}
BARS = {
    "funnel, 3 steps, 30 days": 8.0,
    "retention, 30 days by 14": 8.0,
    "daily persons, 60 days": 5.0,
    "sessions, 30 days": 30.0,
}
P99_BAR = 2.0
AGAIN_BAR_MS = 50.0
FLOOR = (
    "SELECT COUNT(*), COUNT(DISTINCT newest) FROM (SELECT MAX(event_time) AS newest FROM warm.narrow GROUP BY person)"
)
KEY = "wk_bench"


def measure(scratch: Path) -> Part:
    """Make the tables, and measure both."""
    part = Part("Insights", ("question", "CPU s", "wall s", "to floor"))
    make_events(scratch / "large", EVENTS)
    _measure_questions(part, scratch / "large")
    make_events(scratch / "small", EVENTS_WHILE_INGESTING)
    _measure_ingestion(part, scratch / "small")
    return part


def _measure_questions(part: Part, data_dir: Path) -> None:
    snapshot = open_snapshot(Folder(data_dir), lambda _properties: None)
    cursor = snapshot.session.connection.cursor()
    began = time.process_time()
    snapshot.prepare(cursor)
    part.figures["narrow copy, CPU s"] = time.process_time() - began
    taken: dict[str, list[tuple[float, float, float]]] = {}
    for _ in range(ROUNDS):
        for name, question in QUESTIONS.items():
            floor, _ = _timed(lambda: cursor.execute(FLOOR).fetchall())
            cpu, wall = _timed(lambda: _ask(snapshot, question, cursor))  # noqa: B023  # called at once
            taken.setdefault(name, []).append((cpu, wall, cpu / floor))
    for name, times in taken.items():
        cpu, wall, ratio = (statistics.median(column) for column in zip(*times, strict=True))
        part.rows.append((name, cpu, wall, ratio))
        part.figures |= {f"{name}, CPU s": cpu, f"{name}, wall s": wall}
        if name in BARS:
            part.bars.append(Bar(f"{name} / one pass", ratio, BARS[name]))
    asked = parse_question(QUESTIONS["daily persons, 60 days"])
    snapshot.answer(asked, NOW, cursor)
    _, again = _timed(lambda: snapshot.answer(asked, NOW, cursor))
    part.bars.append(Bar("asked again on the same snapshot", again * 1_000, AGAIN_BAR_MS, unit=" ms"))
    part.figures["peak, MB"] = peak_mb(os.getpid())


def _ask(snapshot: Snapshot, question: dict[str, Any], cursor: Any) -> None:  # noqa: ANN401  # of DuckDB
    snapshot.forget_answers()
    snapshot.answer(parse_question(question), NOW, cursor)


def _timed(run: Any) -> tuple[float, float]:  # noqa: ANN401  # a function without arguments
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    return time.process_time() - cpu, time.perf_counter() - wall


def _measure_ingestion(part: Part, data_dir: Path) -> None:
    """Compare the 99th percentile of sending one event, with questions beside and without, in turn."""
    write_keys(keys_path(data_dir), [WriteKey(key=KEY, project="live", kind="server")])
    port = free_port()
    environ = os.environ | {"MANYMETRICS_DATA_DIR": str(data_dir), "MANYMETRICS_PORT": str(port)}
    command = [str(Path(sys.executable).with_name("manymetrics")), "serve"]
    with subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            _wait(port)
            quiet: list[float] = []
            busy: list[float] = []
            for _ in range(ROUNDS):
                quiet.append(_p99_ms(port))
                with _Asking(port):
                    busy.append(_p99_ms(port))
        finally:
            server.send_signal(signal.SIGTERM)
    ratio = statistics.median(one / other for one, other in zip(busy, quiet, strict=True))
    part.figures |= {
        "p99 without questions, ms": statistics.median(quiet),
        "p99 with questions, ms": statistics.median(busy),
    }
    part.bars.append(Bar("p99 of an event while insights run / without", ratio, P99_BAR))


class _Asking:
    """Asks questions, one after another, while the context is open."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/console/insight"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()
        time.sleep(1)  # the process is up

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        with httpx.Client(timeout=120, headers={"X-ManyMetrics-Console": "1"}) as client:
            while not self._stop.is_set():
                number += 1
                question = QUESTIONS["funnel, 3 steps, 30 days"] | {"project": "shop", "window": f"{number}h"}
                client.post(self._url, json=question).raise_for_status()


def _p99_ms(port: int, count: int = 1_500) -> float:
    body = {"userId": "u", "event": "Ticked"}
    times = []
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", auth=(KEY, "")) as client:
        for number in range(count):
            content = json.dumps(body | {"messageId": f"{time.monotonic_ns()}-{number}"})
            began = time.perf_counter()
            client.post("/v1/track", content=content).raise_for_status()
            times.append((time.perf_counter() - began) * 1_000)
    return sorted(times)[int(count * 0.99)]


def _wait(port: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise TimeoutError("the server is not ready")
