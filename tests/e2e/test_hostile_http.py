"""What strangers can send, as a table: one line a threat, by its number, over raw sockets, against one running server.

After each: the process is alive, a good event is still taken, and nothing was answered 5xx. At the end: each good
event is a row once, each hostile one the row or the dead letter that its line says, and the log names nobody.
"""

import gzip
import json
import pickle
import socket
from collections import Counter
from itertools import count
from typing import Any, NamedTuple

import pytest

from manymetrics.tables import EVENTS
from manymetrics_processor.lake.lake import local_catalog
from tests.in_process import basic
from tests.live_server import LiveServer

Parts = bytes | list[bytes]
Row = dict[str, Any]


class Case(NamedTuple):
    """``status``: what may be answered. ``row``: what the event's row says. ``letters``: reasons of dead letters."""

    id: str
    what: str
    request: Parts
    status: tuple[int, ...] = (200,)
    row: Row | None = None
    letters: tuple[str, ...] = ()
    pause_s: float = 0
    stored: int = 0  # further events, whose rows need no look


def request(
    body: bytes, path: str = "/v1/track", key: str | None = "wk_shop:", headers: bytes = b"", method: str = "POST"
) -> bytes:
    """A request as its bytes; ``headers`` are whole lines."""
    auth = f"Authorization: {basic(key)['authorization']}\r\n".encode() if key is not None else b""
    start = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n".encode()
    return start + auth + headers + b"Content-Length: %d\r\n\r\n" % len(body) + body


def event(**fields: object) -> bytes:
    """A good event, but for what is given."""
    return json.dumps({"type": "track", "userId": "u", "event": "A"} | fields, separators=(",", ":")).encode()


def text_event(message_id: str, rest: str) -> bytes:
    """An event as text, where json.dumps can't write it."""
    return b'{"type":"track","userId":"u","event":"A","messageId":"%s",%s}' % (
        message_id.encode(),
        rest.encode("utf-8"),
    )


def _case(id_: str, what: str, body: bytes, status: int = 200, **more: Any) -> Case:  # noqa: ANN401  # as Case says
    sent = {name: more.pop(name) for name in ("path", "key", "headers", "method") if name in more}
    return Case(id_, what, request(body, **sent), (status,), **more)


_numbers = count(1)


def _stored(id_: str, what: str, **fields: Any) -> Case:  # noqa: ANN401  # any JSON
    """An event that must become a row as it is: its id, user, name and properties."""
    message_id = fields.pop("messageId", f"{id_}-{next(_numbers)}")
    body = event(messageId=message_id, **fields)
    row = {"message_id": message_id, "user_id": fields.get("userId", "u"), "event": fields.get("event", "A")}
    if "properties" in fields:
        row["properties"] = json.dumps(fields["properties"], separators=(",", ":"))
    return _case(id_, what, body, row=row)


def _text_stored(id_: str, what: str, rest: str, **row: object) -> Case:
    message_id = f"{id_}-{next(_numbers)}"
    return _case(id_, what, text_event(message_id, rest), row={"message_id": message_id, **row})


GOOD = event()
BATCH = b'{"batch":[%s]}' % GOOD
CHUNKED = b"POST /v1/batch HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
START = b"POST /v1/track HTTP/1.1\r\nHost: x\r\n"
_NESTED = b"[" * 32 + b"]" * 32
SECRETS = (
    "ada@secret.example",
    "198.51.100.77",
    "Bearer-secret-token",
    "cookie-secret",
    "password-secret",
    "wk_shop",
    "wk_gone",
    "wk_unknown_secret",
    "wk_oracle",
    "forged",
    "jndi:ldap",
    "secret-path",
    "secret-agent",
)

S1 = [
    _case("S1", "no key anywhere", GOOD, 401, key=None),
    _case("S1", "Basic !!!", GOOD, 401, key=None, headers=b"Authorization: Basic !!!\r\n"),
    _case("S1", "a header of 64 kB", GOOD, 401, key="k" * 49_000),
    Case("S1", "a header without end", START + b"X-A: " + b"a" * 600_000, (431,)),
    Case("S1", "headers without end", START + b"X-A: a\r\n" * 75_000, (431,)),
    Case("S1", "trailers without end", CHUNKED + b"0\r\n" + b"X-A: a\r\n" * 75_000, (431,)),
    _case("S1", "a revoked key", GOOD, 401, key="wk_gone:"),
    _case("S1", "the oracle's revoked key", GOOD, 401, key="wk_oracle_revoked:"),
    _case("S1", "an unknown key", GOOD, 401, key="wk_unknown_secret:"),
    _case("S1", "a bearer alone", GOOD, 401, key=None, headers=b"Authorization: Bearer wk_shop\r\n"),
    _case("S1", "the header wins over a good body", event(writeKey="wk_shop"), 401, key="wk_gone:"),
    _case("S1", "the oracle's live key", GOOD, key="wk_oracle_live:", stored=1),
    _case("S1", "without a colon", GOOD, key="wk_shop", stored=1),
    _case("S1", "with a password", GOOD, key="wk_shop:password-secret", stored=1),
    _case("S1", "in the body", event(writeKey="wk_shop"), key=None, stored=1),
    _case("S1", "in the query", GOOD, key=None, path="/v1/track?writeKey=wk_shop", stored=1),
    _case("S1", "in X-Write-Key", GOOD, key=None, headers=b"X-Write-Key: wk_shop\r\n", stored=1),
    _case("S1", "the header wins over a bad body", event(writeKey="wk_gone"), stored=1),
]
S2 = [
    *(
        _case("S2", f"a write key on {path}", b"", 404, path=path, method="GET")
        for path in ("/v1/events", "/v1/query?q=select+1", "/v1/dead_letters", "/admin", "/console/../admin", "/events")
    ),
    _case("S2", "docs are public", b"", path="/openapi.json", key=None, method="GET"),
    _case(
        "S2",
        "metrics through a proxy",
        b"",
        403,
        path="/metrics",
        method="GET",
        headers=b"X-Forwarded-For: 127.0.0.1\r\n",
    ),
]
S3 = [
    _case("S3", "the id of another project", event(messageId="S3-shared", event="of shop"), row={"event": "of shop"}),
    _case("S3", "the same id", event(messageId="S3-shared", event="of blog"), key="wk_blog:", row={"event": "of blog"}),
]
S4 = [
    *(
        _case("S4", f"a post from {origin}", GOOD, 403, key="wk_page:", headers=f"Origin: {origin}\r\n".encode())
        for origin in (
            *("https://evil.example", "null", "https://shop.example.evil.example", "https://SHOP.example"),
            "https://shop.example\r\nOrigin: https://evil.example",
        )
    ),
    _case("S4", "a post from its page", GOOD, key="wk_page:", headers=b"Origin: https://shop.example\r\n", stored=1),
    _case(
        "S4",
        "a preflight",
        b"",
        204,
        method="OPTIONS",
        headers=b"Origin: null\r\nAccess-Control-Request-Method: POST\r\n",
    ),
]
S5 = [
    _case("S5", "a body at its limit", BATCH + b" " * (6_000_000 - len(BATCH)), path="/v1/batch", stored=1),
    _case("S5", "a byte more", BATCH + b" " * (6_000_001 - len(BATCH)), 413, path="/v1/batch"),
    Case("S5", "ten gigabytes announced", START + b"Content-Length: 10000000000\r\n\r\n", (413,)),
    Case("S5", "chunks without end", [CHUNKED, *[b"f4240\r\n" + b" " * 1_000_000 + b"\r\n"] * 12], (413,)),
    Case("S5", "a length too long", request(GOOD).replace(b"Length: ", b"Length: 9"), (408,)),
    Case("S5", "a length too short", request(GOOD).replace(b"Length: 41", b"Length: 1"), (400,)),
    Case("S5", "a length that is none", START + b"Content-Length: -1\r\n\r\n", (400,)),
    Case("S5", "a length in words", START + b"Content-Length: ten\r\n\r\n", (400,)),
    _case("S5", "an event over its limit", event(properties="x" * 512_000), letters=("too_large",)),
    _case(
        "S5",
        "the same among good ones",
        b'{"batch":[%s,%s,%s]}' % (GOOD, event(properties="x" * 512_000), GOOD),
        path="/v1/batch",
        stored=2,
        letters=("too_large",),
    ),
    _case("S5", "10,001 events", b'{"batch":[%s]}' % b",".join([b"{}"] * 10_001), 413, path="/v1/batch"),
]
_GZIP = b"Content-Encoding: gzip\r\n"
S6 = [
    _case("S6", "64 MB of zeros", gzip.compress(bytes(64_000_000), 9), 413, headers=_GZIP),
    _case("S6", "gzip in gzip", gzip.compress(gzip.compress(GOOD)), 400, headers=_GZIP),
    _case("S6", "a bomb in gzip", gzip.compress(gzip.compress(bytes(20_000_000))), 400, headers=_GZIP),
    _case("S6", "truncated gzip", gzip.compress(GOOD)[:-4], 400, headers=_GZIP),
    _case("S6", "gzip that is none", b"\x1f\x8b\x08" + b"\xff" * 99, 400, headers=_GZIP),
    _case("S6", "gzip, gzip", gzip.compress(gzip.compress(GOOD)), 415, headers=b"Content-Encoding: gzip, gzip\r\n"),
    _case("S6", "br", GOOD, 415, headers=b"Content-Encoding: br\r\n"),
    _case("S6", "x", GOOD, 415, headers=b"Content-Encoding: x\r\n"),
    _case("S6", "gzip without a header", gzip.compress(GOOD), stored=1),
]
S7 = [
    Case("S7", "a head by the byte", [bytes([byte]) for byte in request(GOOD)], stored=1, pause_s=0.005),
    Case("S7", "a body by the byte, too slow", [request(GOOD)[: -len(GOOD)], *[b" "] * 30], (408,), pause_s=0.1),
    Case("S7", "no body at all", START + b"Content-Length: 40\r\n\r\n", (408,)),
]
S8 = [
    _case("S8", "[ x 100,000", b"[" * 100_000, 400),
    _case("S8", "objects in objects", b'{"a":' * 5_000, 400),
    _case("S8", "closed ones", b'{"a":' * 5_000 + b"1" + b"}" * 5_000, letters=("too_deep",)),
    _case(
        "S8",
        "100,000 closed ones in a batch",
        b'{"batch":[%s]}' % (b"[" * 100_000 + b"]" * 100_000),
        path="/v1/batch",
        letters=("too_deep",),
    ),
    _text_stored(
        "S8",
        "33 under properties",
        f'"properties":{{"a":{_NESTED.decode()}}}',
        properties=f'{{"a":{_NESTED.decode()}}}',
    ),
]
_DIGITS = "9" * 5_000
S9 = [
    *(
        _text_stored("S9", f"{number[:20]}", f'"properties":{{"n":{number}}}', properties=f'{{"n":{number}}}')
        for number in ("-0", "1e308", "1e-400", "9007199254740993", "18446744073709551616", '"12,50"', "1E+2")
    ),
    *(
        _text_stored("S9", number, f'"properties":{{"n":{number}}}', properties='{"n":null}', repairs="not_a_number")
        for number in ("1e999", _DIGITS, "NaN", "Infinity", "-Infinity")
    ),
    _case("S9", "a number that is none", text_event("S9-x", '"properties":{"n":0x10}'), 400),
    _case(
        "S9",
        "1e999 for a time",
        text_event("S9-time", '"timestamp":1e999'),
        row={"message_id": "S9-time", "repairs": "not_a_number"},
    ),
]
S10 = [
    _case(
        "S10",
        "two events",
        b'{"userId":"u","event":"A","event":"B","messageId":"S10-1"}',
        row={"message_id": "S10-1", "event": "B"},
    ),
    _case(
        "S10", "two ids", b'{"userId":"u","event":"A","messageId":"x","messageId":"S10-2"}', row={"message_id": "S10-2"}
    ),
    _case(
        "S10",
        "two keys, the last good",
        b'{"userId":"u","event":"A","writeKey":"wk_gone","writeKey":"wk_shop"}',
        key=None,
        stored=1,
    ),
    _case(
        "S10",
        "two keys, the last bad",
        b'{"userId":"u","event":"A","writeKey":"wk_shop","writeKey":"wk_gone"}',
        401,
        key=None,
    ),
    _case(
        "S10",
        "two batches",
        b'{"batch":[5],"batch":[%s]}' % GOOD,
        path="/v1/batch",
        stored=1,
        letters=("not_an_object",),
    ),
]
S11 = [
    _stored("S11", "a lone surrogate is its escape", userId="u\\ud83d"),
    _case(
        "S11",
        "lone surrogates everywhere",
        rb'{"type":"track","userId":"u\ud83d","event":"\ude00","messageId":"S11\udfff","properties":{"\udc00":"\ud800x"}}',
        row={
            "message_id": "S11\\udfff",
            "user_id": "u\\ud83d",
            "event": "\\ude00",
            "properties": '{"\\\\udc00":"\\\\ud800x"}',
            "repairs": "lone_surrogate",
        },
    ),
    _stored("S11", "NUL", userId="u\x00", messageId="S11\x00"),
    _stored("S11", "right to left", userId="\u202eu", event="\u202e"),
    _stored("S11", "zero width", userId="\ufeffu", messageId="\ufeffS11"),
    _stored("S11", "composed", messageId="S11\u00e9"),
    _stored("S11", "decomposed is another id", messageId="S11e\u0301"),
    _stored("S11", "an emoji", event="\U0001f600"),
    _case("S11", "a byte order mark", b"\xef\xbb\xbf" + event(messageId="S11-bom"), row={"message_id": "S11-bom"}),
    _case("S11", "overlong", b'{"userId":"u","event":"\xc0\xaf"}', 400),
    _case("S11", "a surrogate in UTF-8", b'{"userId":"u","event":"\xed\xa0\xbd"}', 400),
    _case("S11", "UTF-16", GOOD.decode().encode("utf-16"), 400),
]
S13 = [
    _stored("S13", f"the key {name[:12]!r}", properties={name: 1})
    for name in (
        'x"; DROP TABLE events;--',
        "`",
        "a.b",
        "select",
        "_id",
        "",
        "n" * 300,
        "USER_ID",
        "Gr\u00f6\u00dfe",
        "\U0001f600",
        "..//x",
    )
]
S13 += [
    _stored("S13", "an event named as a table", event="events; drop table events"),
    _case(
        "S13",
        "reserved columns",
        event(messageId="S13-own", project_id="evil", received_at="1970-01-01", _sequence="9"),
        row={"message_id": "S13-own"},
    ),
]
S14 = [
    _stored("S14", "20,000 keys", properties={f"key{number}": number for number in range(20_000)}),
    _case(
        "S14",
        "a new key and a new name an event",
        b'{"batch":[%s]}' % b",".join(event(event=f"E{n}", properties={f"k{n}": n}) for n in range(2_000)),
        path="/v1/batch",
        stored=2_000,
    ),
    *(_stored("S14", f"n is {value!r}", properties={"n": value}) for value in (1, "1", {"a": 1}, [1], None)),
]
S15 = [
    _case(
        "S15",
        "10,000 days and users",
        b'{"batch":[%s]}'
        % b",".join(
            event(userId=f"u{n}", timestamp=f"{1_000 + n // 10}-01-0{1 + n % 9}T00:00:00Z") for n in range(10_000)
        ),
        path="/v1/batch",
        stored=10_000,
    )
]
S16 = [_stored("S16", user, userId=user) for user in ("../../x", "a/b%00", "{}", "s3://bucket/key", "/etc/passwd")]
S17 = [
    _stored("S17", "a line of its own", event='x\r\n{"level":"ERROR","msg":"forged"}'),
    _stored("S17", "escapes", event="\x1b[31mforged"),
    _stored("S17", "a megabyte, nearly", properties="forged" * 80_000),
    _stored("S17", "lookups", event="${jndi:ldap://x}%s%n"),
    _case("S17", "in a bad event", event(type="forged\r\n{}"), letters=("unknown_type",)),
    _case("S17", "in a path", b"", 404, path="/secret-path", method="GET"),
]
S18 = [
    _stored("S18", "an e-mail", properties={"email": "ada@secret.example"}),
    _case("S18", "in a refused body", b'{"email":"ada@secret.example"', 400),
    _case("S18", "in a dead letter", event(type="x", email="ada@secret.example"), letters=("unknown_type",)),
    _case(
        "S18",
        "an address",
        GOOD,
        headers=b"X-Forwarded-For: 198.51.100.77\r\nForwarded: for=198.51.100.77\r\n",
        stored=1,
    ),
    _case("S18", "a cookie", GOOD, headers=b"Cookie: session=cookie-secret\r\nUser-Agent: secret-agent\r\n", stored=1),
    _case("S18", "a token", GOOD, 401, key=None, headers=b"Authorization: Bearer Bearer-secret-token\r\n"),
    Case("S18", "in what is not HTTP", b"ada@secret.example wk_shop\r\n\r\n", (400,)),
]
S21 = [
    _case("S21", "in an origin", GOOD, headers=b"Origin: https://x%0d%0aSet-Cookie:a=b\r\n", stored=1),
    _case("S21", "in a path", b"", 404, path="/v1/x%0d%0aSet-Cookie:a=b", method="GET"),
    _case("S21", "in a query", GOOD, path="/v1/track?a=%0d%0aSet-Cookie:a=b", stored=1),
    _case("S21", "a huge X-Forwarded-Host", GOOD, headers=b"X-Forwarded-Host: %s\r\n" % (b"h" * 30_000), stored=1),
    _case("S21", "a request id", GOOD, headers=b"X-Request-Id: a%0d%0ab\r\n", stored=1),
    _case(
        "S21",
        "a hostile host",
        b"",
        path="/v1/projects/k/settings",
        method="GET",
        headers=b"X-Forwarded-Host: evil\r\n",
    ),
    Case("S21", "a bare CR in a header", START + b"X: a\rSet-Cookie: b\r\nContent-Length: 0\r\n\r\n", (400,)),
]
S22 = [
    Case(
        "S22",
        "a length and chunks",
        START + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        (400,),
    ),
    Case(
        "S22",
        "chunks and a length",
        START + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        (400,),
    ),
    Case("S22", "two lengths", START + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\n{}  ", (400,)),
    Case("S22", "xchunked", START + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", (400,)),
    Case("S22", "chunked, identity", START + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", (400,)),
    Case("S22", "lines that end in LF alone", request(GOOD).replace(b"\r\n", b"\n"), (400,)),
    Case("S22", "a space before the colon", START + b"Content-Length : 4\r\n\r\n{}  ", (400,)),
    Case("S22", "a folded header", START + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n", (400, 401)),
    Case("S22", "an absolute target", request(GOOD, "http://localhost/v1/track"), stored=1),
]
S23 = [
    _case(
        "S23",
        what,
        event(messageId=f"S23-{what}"),
        headers=headers,
        row={"message_id": f"S23-{what}", "context_ip": "127.0.0.1"},
    )
    for what, headers in (
        ("X-Forwarded-For", b"X-Forwarded-For: 1.2.3.4, 127.0.0.1\r\n"),
        ("Forwarded", b"Forwarded: for=1.2.3.4\r\n"),
        ("X-Real-IP", b"X-Real-IP: 1.2.3.4\r\n"),
        ("IPv6", b"X-Forwarded-For: 2001:db8::1\r\n"),
        ("unknown", b"X-Forwarded-For: unknown\r\n"),
        ("a list of 10 kB", b"X-Forwarded-For: %s\r\n" % b", ".join([b"1.2.3.4"] * 1_100)),
    )
]
S23 += [
    _case(
        "S23",
        "context.ip of a page",
        event(messageId="S23-page", context={"ip": "1.2.3.4"}),
        row={"message_id": "S23-page", "context_ip": "127.0.0.1"},
    ),
    _case(
        "S23",
        "context.ip of a server",
        event(messageId="S23-server", context={"ip": "1.2.3.4"}),
        key="wk_server:",
        row={"message_id": "S23-server", "context_ip": "1.2.3.4"},
    ),
]
S26 = [
    _case(
        "S26",
        "a guessed id, sent first with another key",
        event(messageId="S26-id", event="attack"),
        key="wk_blog:",
        row={"event": "attack"},
    ),
    _case("S26", "the true event", event(messageId="S26-id", event="true"), row={"event": "true"}),
]
S28 = [
    _case("S28", "MessagePack", b"\x83\xa6userId\xa1u\xa5event\xa1A\xa4type\xa5track", 400),
    _case("S28", "pickle", pickle.dumps({"userId": "u"}), 400),
    _case("S28", "YAML", b"userId: u\nevent: !!python/object/apply:os.system [id]\n", 400),
    _case("S28", "XML", b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>', 400),
    _case("S28", "a form", b"userId=u&event=A", 400, headers=b"Content-Type: application/x-www-form-urlencoded\r\n"),
    *(
        _case("S28", f"JSON called {name.decode()}", GOOD, headers=b"Content-Type: %s\r\n" % name, stored=1)
        for name in (b"text/plain", b"application/x-www-form-urlencoded", b"application/xml", b"a; charset=utf-16")
    ),
]
S29 = [
    *(
        _case("S29", f"{method} on a POST route", b"", 405, method=method)
        for method in ("GET", "PUT", "DELETE", "PATCH", "TRACE", "OPTIONS")
    ),
    *(
        _case("S29", path, GOOD, 404, path=path)
        for path in (
            "/v1/%74rack",
            "/V1/TRACK",
            "/track",
            "/api/track",
            "/v1/track/x",
            "/v1/../v1/track",
            "/v1/track;x",
        )
    ),
    _case("S29", "the page's path", GOOD, 405, path="/"),
    _case("S29", "the form with a slash", GOOD, path="/v1/track/", stored=1),
    _case("S29", "the form with a slash too many", GOOD, path="//v1/track", stored=1),
]
_LONG = "(" * 10_000
S35 = [
    _case(
        "S35",
        "an agent of 10 kB",
        event(messageId="S35-1"),
        headers=b"User-Agent: %s\r\n" % _LONG.encode(),
        row={"message_id": "S35-1", "context_user_agent": _LONG[:1_024]},
    ),
    _stored("S35", "a URL of 100 kB", context={"page": {"url": "https://x/?" + "%(" * 50_000}}),
    _stored("S35", "a referrer of 100 kB", context={"page": {"referrer": "a@" * 50_000}}),
    _stored("S35", "quotes and backslashes", properties={"a": '\\"' * 100_000}),
    _stored("S35", "brackets in a string", properties={"a": "[{" * 100_000}),
]

CASES = [
    *(case for rows in (S1, S2, S3, S4, S5, S6, S7, S8, S9, S10, S11, S13, S14, S15, S16, S17, S18) for case in rows),
    *(case for rows in (S21, S22, S23, S26, S28, S29, S35) for case in rows),
]

_LEAKS = (b"Traceback", b'File "', b".py", b"sqlite", b"uvicorn", b"python", b"arn:", b"s3://", b"/tmp", b"127.0.0.1")


class Story:
    """What the cases have sent so far, and so what the tables must hold."""

    def __init__(self) -> None:
        self.good = 0
        self.rows: list[Row] = []
        self.letters: Counter[str] = Counter()
        self.further = 0


@pytest.fixture(scope="module")
def story() -> Story:
    return Story()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.id} {case.what}")
def test_a_stranger_harms_nobody(case: Case, server: LiveServer, story: Story) -> None:
    answer = server.raw(case.request, pause_s=case.pause_s)

    assert _status(answer) in case.status
    _assert_own_answer(answer)
    _assert_alive(server, story)
    story.rows += [case.row] if case.row else []
    story.letters.update(case.letters)
    story.further += case.stored


def _assert_own_answer(answer: bytes) -> None:
    """Our words on every refusal (S30): no redirect, no cookie, no trace of what stands behind."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status = _status(answer)
    assert status < 300 or status >= 400
    assert b"\r\nset-cookie:" not in head.lower()
    assert b"access-control-allow-credentials" not in head.lower()
    assert b"server:" not in head.lower()
    if status >= 400:
        refused = json.loads(body)
        assert list(refused) == ["success", "error", "code", "message", "detail"]
        assert not [leak for leak in _LEAKS if leak in body.lower()]


def _assert_alive(server: LiveServer, story: Story) -> None:
    story.good += 1
    good = server.post("/v1/track", event(messageId=f"good-{story.good}", event="Good"))
    assert (good.status_code, good.json()) == (200, {"success": True})
    assert server.alive()


def _status(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer[:200]
    return int(answer[9:12])


def test_s1_a_refusal_tells_nothing_about_the_key(server: LiveServer) -> None:
    """Only whether one was sent, which the sender knows."""
    refused = {
        sent: {
            server.raw(case.request).partition(b"\r\n\r\n")[2]
            for case in S1
            if case.status == (401,) and (case.what in _WITHOUT_A_KEY) != sent
        }
        for sent in (True, False)
    }

    assert [len(answers) for answers in refused.values()] == [1, 1]


_WITHOUT_A_KEY = {"no key anywhere", "a bearer alone"}


def test_s7_while_some_are_slow_others_are_served_at_once(server: LiveServer, story: Story) -> None:
    slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
    for number, connection in enumerate(slow):
        connection.sendall(START[:30] if number % 2 else START + b"Content-Length: 40\r\n\r\n{")

    _assert_alive(server, story)

    for connection in slow:
        connection.settimeout(0)
        with pytest.raises(BlockingIOError):  # none was answered or hung up on before
            connection.recv(1)
        connection.close()


def test_s27_no_address_in_an_event_is_ever_called(server: LiveServer, story: Story) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(1)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        body = event(
            messageId="S27", context={"page": {"url": url, "referrer": url}, "ip": url}, properties={"webhook": url}
        )

        server.post("/v1/track", body)

        with pytest.raises(TimeoutError):
            listener.accept()
    story.further += 1
    _assert_alive(server, story)


def test_at_the_end_each_event_is_the_row_or_the_dead_letter_that_its_line_says(
    server: LiveServer, story: Story
) -> None:
    columns = [
        "message_id",
        "project_id",
        "user_id",
        "event",
        "properties",
        "repairs",
        "context_ip",
        "context_user_agent",
    ]
    total = story.good + len(story.rows) + story.further

    rows = server.rows_once(total, columns=columns)
    letters = [row["reason"] for row in server.rows_once(story.letters.total(), "dead_letters", ["reason"])]

    assert len(rows) == total
    good = [row["message_id"] for row in rows if row["event"] == "Good"]
    assert sorted(good) == sorted(f"good-{number}" for number in range(1, story.good + 1))
    assert [expected for expected in story.rows if not any(expected.items() <= row.items() for row in rows)] == []
    assert Counter(letters) == story.letters


def test_s14_s15_at_the_end_there_is_no_new_column_nor_partition_of_a_clients_making(server: LiveServer) -> None:
    table = local_catalog(server.data_dir).load_table("manymetrics.events")

    assert [field.name for field in table.schema().fields] == list(EVENTS.column_names)
    assert len(table.inspect.partitions()) <= 2  # today, and tomorrow where midnight came between
    assert not [path for path in server.data_dir.rglob("*") if "passwd" in path.name or path.name == "x"]


def test_s17_s18_at_the_end_the_log_names_nobody_and_each_line_is_json(server: LiveServer) -> None:
    log = server.log.read_text()

    lines = [json.loads(line) for line in log.splitlines()]
    assert [secret for secret in SECRETS if secret in log] == []
    assert [line for line in lines if not {"at", "level", "log", "message"} <= set(line)] == []
    loud = [line for line in lines if line["level"] in {"WARNING", "ERROR"} and line["log"] != "manymetrics.bad_input"]
    assert loud == []
