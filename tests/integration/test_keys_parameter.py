"""Write keys from an SSM parameter over real HTTP: moto's SSM, and a stub that refuses or hangs as SSM may."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from manymetrics.settings import SettingsError
from manymetrics_api import keys
from manymetrics_api.aws import app as aws
from manymetrics_api.aws import keys_parameter
from manymetrics_api.aws.app import create_aws_app
from manymetrics_api.aws.keys_parameter import KeysParameter
from manymetrics_api.aws.signed_calls import Place
from manymetrics_api.keys import KeysUnavailableError, WriteKey
from tests.faulty_aws import FaultyAws, faulty_aws
from tests.in_process import EVENT, App, Reply, ask, aws_app, basic
from tests.ports import free_port
from tests.strict_moto import REGION, Aws, strict_moto

NAME = "/manymetrics/write-keys"
SHOP, NEW = WriteKey(key="wk_shop", project="shop"), WriteKey(key="wk_new", project="shop")

pytestmark = pytest.mark.usefixtures("credentials", "threads")


@pytest.fixture(scope="module")
def moto() -> Iterator[Aws]:
    with strict_moto() as one:
        one.client("kinesis").create_stream(StreamName="events", ShardCount=1)
        yield one


def put(moto: Aws, *keys: WriteKey, kind: str = "SecureString") -> None:
    value = msgspec.json.encode(keys).decode()
    moto.client("ssm").put_parameter(Name=NAME, Value=value, Type=kind, Overwrite=True)


@pytest.fixture
def ssm(moto: Aws) -> Iterator[FaultyAws]:
    """A way to it on which calls can be looked at."""
    with faulty_aws(moto.url) as way:
        yield way


def decrypts_of(way: FaultyAws) -> list[bool]:
    """What each call asks for that passes from now on; one that does costs a call of KMS."""
    asked: list[bool] = []
    way.passed = lambda call: asked.append(json.loads(call.body)["WithDecryption"])
    return asked


def app_of(url: str, kinesis: str = "") -> App:
    return aws_app(
        {
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL_SSM": url,
            "AWS_ENDPOINT_URL_KINESIS": kinesis or url,
            "MANYMETRICS_STREAM": "events",
            "MANYMETRICS_KEYS_PARAMETER": NAME,
        }
    )


def track(app: App, key: str) -> Reply:
    return ask(app, "POST", "/v1/track", basic(f"{key}:"), EVENT)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("kind", ["SecureString", "String"])
def test_keys_are_read_from_the_parameter_decrypted(moto: Aws, kind: str) -> None:
    put(moto, SHOP, NEW, kind=kind)

    assert KeysParameter(NAME, Place(REGION, moto.url)).read() == [SHOP, NEW]


def test_they_are_decrypted_again_only_when_they_were_put_again(moto: Aws, ssm: FaultyAws) -> None:
    parameter = KeysParameter(NAME, Place(REGION, ssm.url))
    decrypts = decrypts_of(ssm)
    put(moto, SHOP)
    read = [parameter.read(), parameter.read(), parameter.read()]
    put(moto, NEW)
    read += [parameter.read(), parameter.read()]
    moto.client("ssm").delete_parameter(Name=NAME)
    put(moto, SHOP)
    put(moto, SHOP, NEW)  # the same version as before, and not the same parameter
    read += [parameter.read(), parameter.read()]

    assert read == [[SHOP]] * 3 + [[NEW]] * 2 + [[SHOP, NEW]] * 2
    assert decrypts == [True, False, False, False, True, False, False, True, False]


def test_a_secret_that_a_parameter_refers_to_is_always_read_whole(moto: Aws, ssm: FaultyAws) -> None:
    name = "/aws/reference/secretsmanager/keys"
    moto.client("secretsmanager").create_secret(Name="keys", SecretString=msgspec.json.encode([SHOP]).decode())
    parameter = KeysParameter(name, Place(REGION, ssm.url))
    decrypts = decrypts_of(ssm)

    assert [parameter.read(), parameter.read()] == [[SHOP], [SHOP]]
    assert decrypts == [True, True]


def test_the_api_takes_the_parameter_s_keys_and_no_other(moto: Aws) -> None:
    put(moto, SHOP)
    app = app_of(moto.url)

    assert track(app, "wk_shop").status == 200
    assert track(app, "wk_other").status == 401


def test_a_key_that_was_made_is_taken_and_one_that_was_revoked_is_not(
    moto: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "UNKNOWN_REMOTE_REREAD_S", 0.05)
    monkeypatch.setattr(keys, "REMOTE_REREAD_S", 0.05)
    put(moto, SHOP)
    app = app_of(moto.url)
    assert track(app, "wk_shop").status == 200

    put(moto, msgspec.structs.replace(SHOP, revoked=True), NEW)

    until(lambda: track(app, "wk_new").status == 200)
    until(lambda: track(app, "wk_shop").status == 401)


def test_a_parameter_that_is_not_there_or_no_list_of_keys_is_told(moto: Aws) -> None:
    moto.client("ssm").put_parameter(Name="/other", Value='[{"wk_secret":"shop"}]', Type="String")
    for name, says in (("/none", "ParameterNotFound"), ("/other", "a field or a kind that keys don't have")):
        with pytest.raises(KeysUnavailableError, match=says) as error:
            KeysParameter(name, Place(REGION, moto.url)).read()
        assert "wk_secret" not in str(error.value)


# --- faults -----------------------------------------------------------------------------------------------


class SsmStub:
    """GetParameter as ``act`` says: well, refused, throttled, broken, once (the first call hangs up), or hanging."""

    def __init__(self) -> None:
        self.act, self.keys, self.calls, self.refused = "well", [SHOP], 0, 0
        self._tokens, self._filled_at, self._lock = 40.0, time.monotonic(), threading.Lock()
        self.over = threading.Event()
        self.url = ""

    def empty_bucket(self) -> None:
        """Let the first calls from now on be refused."""
        self._tokens, self._filled_at = 0.0, time.monotonic()

    def answer(self) -> tuple[int, bytes]:
        self.calls += 1
        act = self.act
        if act == "hanging":
            self.over.wait(20)
        if act == "once" and self.calls == 1:
            return 0, b""
        if act == "bucket" and not self._takes_token():
            self.refused += 1
            act = "throttled"
        if act in {"refused", "throttled"}:
            code = "AccessDeniedException" if act == "refused" else "ThrottlingException"
            return 400, json.dumps({"__type": code}).encode()
        if act == "broken":
            return 200, b"<html>"
        return 200, json.dumps({"Parameter": {"Value": msgspec.json.encode(self.keys).decode()}}).encode()

    def _takes_token(self) -> bool:
        """Forty at once, and forty more a second: as SSM's default for GetParameter."""
        with self._lock:
            now = time.monotonic()
            self._tokens, self._filled_at = min(40.0, self._tokens + 40 * (now - self._filled_at)), now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True


@contextmanager
def ssm_stub() -> Iterator[SsmStub]:
    stub = SsmStub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:  # named by http.server
            self.rfile.read(int(self.headers["content-length"]))
            status, answer = stub.answer()
            if not status:
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    stub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield stub
    finally:
        stub.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[SsmStub]:
    monkeypatch.setattr(keys_parameter, "CALL_TIMEOUT_S", 0.2)
    monkeypatch.setattr(aws, "READ_TIMEOUT_S", 0.5)
    with ssm_stub() as one:
        yield one


@pytest.mark.anyio
async def test_the_thread_that_reads_them_ends_with_the_app(stub: SsmStub) -> None:
    app = create_aws_app(
        {
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": stub.url,
            "MANYMETRICS_STREAM": "events",
            "MANYMETRICS_KEYS_PARAMETER": NAME,
        }
    )
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> dict[str, str]:
        return next(messages)

    async def send(_: object) -> None:
        await asyncio.sleep(0)

    running = [thread for thread in threading.enumerate() if thread.name == "keys"]
    await app({"type": "lifespan"}, receive, send)

    assert len(running) == 1
    running[0].join(5)
    assert not running[0].is_alive()


@pytest.mark.parametrize("act", ["refused", "throttled", "broken", "hanging"])
def test_keys_that_can_not_be_read_are_503_never_401(
    stub: SsmStub, moto: Aws, act: str, caplog: pytest.LogCaptureFixture
) -> None:
    stub.act = act
    app = app_of(stub.url, moto.url)

    for key in ("wk_shop", "wk_other"):
        reply = track(app, key)
        assert (reply.status, reply.json()["code"], reply.headers["retry-after"]) == (503, "keys_unavailable", "1")

    assert [one.message for one in caplog.records if one.levelno >= logging.WARNING][:1] == [
        "the write keys can't be read"
    ]
    stub.act = "well"
    until(lambda: track(app, "wk_shop").status == 200)


def test_nobody_there_is_503(moto: Aws) -> None:
    assert track(app_of(f"http://127.0.0.1:{free_port()}", moto.url), "wk_shop").status == 503


def test_a_connection_that_died_costs_nothing_but_a_second_call(stub: SsmStub) -> None:
    stub.act = "once"

    assert KeysParameter(NAME, Place(REGION, stub.url)).read() == [SHOP]
    assert stub.calls == 2


def test_a_hundred_that_start_at_once_all_read_them_though_ssm_takes_forty_a_second(
    stub: SsmStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_parameter, "CALL_TIMEOUT_S", 5)  # the machine may be slow
    stub.act = "bucket"
    stub.empty_bucket()  # or a slow machine asks for no more than it gives

    with ThreadPoolExecutor(100) as pool:
        read = list(pool.map(lambda _: KeysParameter(NAME, Place(REGION, stub.url)).read(), range(100)))

    assert read == [[SHOP]] * 100
    assert stub.refused > 0


def test_while_they_hang_known_keys_are_served_and_nobody_is_held(
    stub: SsmStub, moto: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "UNKNOWN_REMOTE_REREAD_S", 0.01)
    monkeypatch.setattr(keys_parameter, "CALL_TIMEOUT_S", 60)  # longer than the stub hangs
    app = app_of(stub.url, moto.url)
    assert track(app, "wk_shop").status == 200
    stub.act = "hanging"
    time.sleep(0.05)

    replies = [(track(app, "wk_shop").status, track(app, "wk_other").status) for _ in range(3)]

    assert replies == [(200, 503)] * 3  # 401, had one waited for the answer
    assert stub.calls == 2


def test_without_keys_from_anywhere_the_setting_is_named(tmp_path: Path) -> None:
    environ = {"AWS_REGION": REGION, "MANYMETRICS_STREAM": "events", "MANYMETRICS_DATA_DIR": str(tmp_path)}

    with pytest.raises(SettingsError, match="MANYMETRICS_KEYS_PARAMETER is missing"):
        create_aws_app(environ)
