"""Who may send: the five places of a key and their order, and how the keys file is read again."""

import base64
import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from manymetrics.events import may_hold_text, without_text
from manymetrics.records import unpack
from manymetrics_api.keys import (
    FileKeys,
    KeysUnavailableError,
    KeyTable,
    WriteKey,
    is_browser_origin,
    new_key,
    parse_key_list,
    parse_keys,
    read_keys,
    repeated_keys,
    write_keys,
)
from tests.events_corpus import outcomes_of
from tests.in_process import EVENT, GONE, SHOP, Api, Reply, basic
from tests.unit.api.test_routes import error_of

PLACES = ("basic", "writeKey", "query", "header", "api_key")


def _send(api: Api, keys: dict[str, str]) -> Reply:
    """One event with a key in each of the named places."""
    headers: dict[str, str] = basic(keys["basic"] + ":") if "basic" in keys else {}
    if "header" in keys:
        headers["x-write-key"] = keys["header"]
    query = f"?writeKey={keys['query']}" if "query" in keys else ""
    in_body = {name: key for name, key in keys.items() if name in {"writeKey", "api_key"}}
    return api.ask("POST", f"/v1/track{query}", headers, json.dumps({"userId": "u", "event": "A"} | in_body).encode())


@pytest.mark.parametrize("place", PLACES)
def test_a_key_may_be_in_any_of_five_places(api: Api, place: str) -> None:
    assert _send(api, {place: "wk_shop"}).status == 200
    assert error_of(_send(api, {place: "wk_nobody"})) == (401, "invalid_write_key")


@pytest.mark.parametrize("place", PLACES)
def test_blanks_around_a_key_are_no_part_of_it_in_any_place(api: Api, place: str) -> None:
    blank, spellings = ("%20", ["wk_shop%20", "+wk_shop+", "%09wk_shop"]) if place == "query" else (" ", [])

    for key in (f"{blank}wk_shop{blank}", *spellings):
        assert _send(api, {place: key}).status == 200


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("blank", ["", " "])
def test_a_place_that_holds_no_text_is_passed_over(api: Api, place: int, blank: str) -> None:
    blank = blank.replace(" ", "%20") if PLACES[place] == "query" else blank

    assert _send(api, {PLACES[place]: blank, PLACES[place + 1]: "wk_shop"}).status == 200


@pytest.mark.parametrize("value", [b"null", b"5", b"{}", b"true", b'""', b'" "', b'["wk_gone"]'])
@pytest.mark.parametrize("name", [b"writeKey", b"api_key"])
@pytest.mark.parametrize("tail", [b"", b',"x":NaN'])
def test_what_is_no_text_in_the_body_leaves_the_other_places(api: Api, name: bytes, value: bytes, tail: bytes) -> None:
    body = b'{"userId":"u","event":"A","%b":%b%b}' % (name, value, tail)

    assert api.ask("POST", "/v1/track?writeKey=wk_shop", {}, body).status == 200
    assert (
        api.ask("POST", "/v1/batch?writeKey=wk_shop", {}, b'{"batch":[],"%b":%b%b}' % (name, value, tail)).status == 200
    )


@pytest.mark.parametrize(
    "query", ["writeKey=wk_shop&writeKey=", "writeKey=wk_shop&writeKey=+%20", "writeKey=a&writeKey=wk_shop"]
)
def test_the_last_key_of_a_query_that_is_not_blank_counts(api: Api, query: str) -> None:
    assert api.ask("POST", f"/v1/track?{query}", {}, EVENT).status == 200
    assert api.ask("GET", f"/pixel/v1/track?{query}&userId=u&event=A").status == 200


@pytest.mark.parametrize("place", range(4))
def test_the_first_place_wins_even_where_a_later_one_would_do(api: Api, place: int) -> None:
    wrong_first = dict.fromkeys(PLACES[place:], "wk_shop") | {PLACES[place]: "wk_nobody"}
    right_first = dict.fromkeys(PLACES[place:], "wk_nobody") | {PLACES[place]: "wk_shop"}

    assert _send(api, wrong_first).status == 401
    assert _send(api, right_first).status == 200


@pytest.mark.parametrize("user", ["wk_shop", "wk_shop:", "wk_shop:password", "wk_shop:a:b"])
def test_basic_is_taken_with_and_without_a_password(api: Api, user: str) -> None:
    assert api.ask("POST", "/v1/track", basic(user), EVENT).status == 200


@pytest.mark.parametrize(
    "header",
    [
        {"authorization": "Basic  d2tfc2hvcDo="},
        {"authorization": "basic\td2tfc2hvcDo= "},
        {"authorization": " Basic d2tfc2hvcDo"},  # without its padding
        basic(" wk_shop :"),
        basic("wk_shop\n"),
        {"x-write-key": " wk_shop "},
    ],
)
def test_blanks_around_a_key_in_a_header_are_no_part_of_it(api: Api, header: dict[str, str]) -> None:
    assert api.ask("POST", "/v1/track", header, EVENT).status == 200
    assert api.ask("POST", "/v1/track", header, EVENT * 100_000).status == 400  # past the key, in the slow way too


@pytest.mark.parametrize(
    "authorization",
    [
        "Basic !!!",
        "Basic d2tf!!c2hvcDo=",
        "Basic",
        "Basic " + base64.b64encode(b"\xff\xfe:").decode(),
        "Basic " + base64.b64encode(b":").decode(),
        "Basic " + "A" * 65_536,
        "Bearer wk_shop",
        "wk_shop",
    ],
)
def test_what_is_no_basic_key_is_refused_alike(api: Api, authorization: str) -> None:
    refused = api.ask("POST", "/v1/track", {"authorization": authorization}, EVENT)

    assert refused in (api.ask("POST", "/v1/track", {}, EVENT), api.ask("POST", "/v1/track", basic("wk_gone:"), EVENT))
    assert error_of(refused) == (401, "invalid_write_key")
    assert api.stored() == []


@pytest.mark.parametrize("body", [EVENT, b'{"userId":"u","v":NaN}'])
def test_a_key_that_was_not_sent_is_told_from_one_that_is_not_live(api: Api, body: bytes) -> None:
    missing = [
        api.ask("POST", "/v1/track", headers, body)
        for headers in ({}, {"x-write-key": " "}, basic(":"), {"authorization": "Bearer wk_shop"})
    ]
    revoked = api.ask("POST", "/v1/track", basic("wk_gone:"), body)
    unknown = [
        api.ask("POST", "/v1/track", basic("wk_nobody:"), body),
        api.ask("POST", "/v1/track?writeKey=wk_nobody", {}, body),
        api.ask("POST", "/v1/track", {"x-write-key": "wk_nobody"}, body),
        api.ask("POST", "/v1/track", {}, b'{"writeKey":"wk_nobody",' + body[1:]),
    ]

    assert {reply.json()["message"].partition(":")[0] for reply in missing} == {"no write key was sent"}
    assert "the write key is unknown or revoked" in revoked.json()["message"]
    assert unknown == [revoked] * 4
    assert {error_of(reply) for reply in (*missing, revoked)} == {(401, "invalid_write_key")}


@pytest.mark.parametrize("revoked_first", [True, False])
def test_a_key_that_is_there_twice_and_once_revoked_is_revoked(revoked_first: bool) -> None:
    both = [WriteKey(key="k", project="shop"), WriteKey(key="k", project="shop", revoked=True)]

    table = KeyTable(reversed(both) if revoked_first else both)

    assert table.find("k") is None
    assert repeated_keys([*both, SHOP]) == [[1, 2]]


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("https://Shop.Example", "https://shop.example"),
        ("HTTPS://shop.example/", "https://shop.example"),
        (" https://shop.example ", "https://shop.example"),
        ("https://shop.example:443", "https://shop.example"),
        ("http://shop.example:80/path?a#b", "http://shop.example"),
        ("https://shop.example:8443", "https://shop.example:8443"),
        ("https://b\u00fccher.example", "https://xn--bcher-kva.example"),
        ("https://fa\u00df.de", "https://xn--fa-hia.de"),  # fass.de is somebody else's
        ("https://\u03b2\u03cc\u03bb\u03bf\u03c2.gr", "https://xn--nxasmm1c.gr"),
        ("https://xn--fa-hia.de", "https://xn--fa-hia.de"),
        ("http://[::1]:3000/", "http://[::1]:3000"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("null", "null"),
    ],
)
def test_origins_are_compared_as_browsers_send_them(written: str, sent: str) -> None:
    [key] = parse_keys(json.dumps([{"key": "k", "project": "p", "origins": [written]}]), "keys.json")

    assert key.origins == (sent,)


def test_blanks_around_a_key_and_a_byte_order_mark_are_none_of_the_file() -> None:
    keys = [("wk_live ", False), ("wk_gone", False), (" wk_gone\n", True)]
    text = json.dumps([{"key": key, "project": "p", "revoked": revoked} for key, revoked in keys])

    for marked in (b"\xef\xbb\xbf" + text.encode(), "\ufeff" + text):
        table = KeyTable(parse_keys(marked, "keys.json"))
        assert table.find("wk_live") is not None
        assert table.find("wk_gone") is None
    with pytest.raises(KeysUnavailableError):
        parse_keys('[{"key":" ","project":"p"}]', "keys.json")


@pytest.mark.parametrize(
    ("origin", "is_one"),
    [
        ("https://shop.example", True),
        ("http://localhost:3000", True),
        ("capacitor://localhost", True),
        ("null", True),
        ("*", False),
        ("https://*.shop.example", False),
        ("shop.example", False),
        ("//shop.example", False),
        ("", False),
    ],
)
def test_an_origin_that_no_browser_sends_is_known(origin: str, is_one: bool) -> None:
    assert is_browser_origin(origin) == is_one


def test_a_bearer_token_is_no_key_so_the_bodys_counts(api: Api) -> None:
    body = b'{"userId":"u","event":"A","writeKey":"wk_shop"}'

    assert api.ask("POST", "/v1/track", {"authorization": "Bearer x"}, body).status == 200


@pytest.mark.parametrize("key", [b"5", b"null", b"{}", b'"\\ud83d"', b'""', b'" "'])
def test_a_key_that_is_no_key_is_refused(api: Api, key: bytes) -> None:
    assert error_of(api.ask("POST", "/v1/track", {}, b'{"userId":"u","event":"A","writeKey":%s}' % key))[0] == 401


MADE, CHOSEN, SHORT = "wk_aB3dE6gH9jK2mN5pQ8sT1vW4", "my-shop-website", "k"
_ESCAPED = {key: f"\\u{ord(key[0]):04X}{key[1:]}" for key in (MADE, CHOSEN, SHORT)}


def _stored(api: Api) -> str:
    """All that a request left, as text."""
    records = [unpack(record) for record in api.sink.records]
    assert records
    return repr([(record.stamp, record.events) for record in records]) + repr(outcomes_of(api.sink.records))


@pytest.mark.parametrize("key", [MADE, CHOSEN, SHORT])
@pytest.mark.parametrize(
    "body",
    [
        '{"batch":[{"type":"foo","\\u0077riteKey":"KEY","x":NaN}]}',
        '{"batch":[{"type":"foo","\\u0061p\\u0069_key":"KEY","x":"\\ud83d"}]}',
        '{"batch":[{"batch":[{"writeKey":"KEY"}]}]}',
        '{"batch":[{"batch":[{"writeKey" : "ESCAPED"}],"x":NaN}]}',
        '{"context":{"writeKey":"KEY"},"batch":[EVENT]}',
        '{"integrations":{"Segment.io":{"apiKey":"KEY"}},"batch":[EVENT]}',
        '{"anonymousId":"?writeKey=KEY","batch":[{"type":"track","event":"A"}]}',
        '{"batch":[{"type":"track","userId":"u","event":"A","properties":{"api_key":"KEY"}}]}',
        '{"batch":[{"type":"track","userId":"u","event":"A","_metadata":{"writeKey":" KEY "}}]}',
        '{"batch":[{"type":"page","userId":"u","context":{"page":{"url":"https://a.example/?writeKey=KEY&b=c"}}}]}',
        '{"batch":[{"type":"page","userId":"u","context":{"page":{"search":"?x=%3FwriteKey%3DKEY"}}}]}',
        '{"batch":[{"type":"track","userId":"u","event":"A","properties":{"body":"{\\"writeKey\\":\\"KEY\\"}"}}]}',
        '{"batch":[{"type":"track","userId":"u","event":"A","integrations":{"Segment.io":{"apiKey":"ESCAPED"}}}]}',
    ],
)
def test_the_key_of_a_request_is_stored_nowhere(body: str, key: str) -> None:
    api = Api(KeyTable([WriteKey(key=key, project="shop")]), hot=True)
    text = body.replace("EVENT", EVENT.decode()).replace("KEY", key).replace("ESCAPED", _ESCAPED[key])

    assert api.ask("POST", "/v1/batch", basic(f"{key}:"), text.encode()).status == 200

    left = _stored(api)
    assert (key if key != SHORT else '"k"') not in left.replace("'k'", '"k"').replace(_ESCAPED[key], key)
    assert "writeKey=k" not in left
    assert "invalid_json" not in left or "NaN" in body or "ud83d" in body


@pytest.mark.parametrize("key", [MADE, CHOSEN])
@pytest.mark.parametrize("body", ['{"KEY":"KEY"}', '["KEY","\\"KEY",{"KEY" :1}]', '{"a":["KEY"],"b":{"c":"ESCAPED"}}'])
def test_json_without_a_key_is_json(body: str, key: str) -> None:
    text = body.replace("KEY", key).replace("ESCAPED", _ESCAPED[key])

    left = json.loads(bytes(without_text(text.encode(), key)))

    assert json.dumps(left).replace('\\"' + CHOSEN, "").count(key) == 0


def test_a_key_that_is_not_ascii_is_removed_as_each_client_writes_it() -> None:
    key = "schl\u00fcssel-\U0001f511-\u6771"
    for body in (
        json.dumps({"a": [key]}),
        json.dumps({"a": [key]}, ensure_ascii=False),
        rf'{{"a":["{key[:4]}\u00FC{key[5:]}"]}}',
    ):
        assert may_hold_text(body.encode(), key)
        assert json.loads(bytes(without_text(body.encode(), key))) == {"a": [None]}


@pytest.mark.parametrize("key", [MADE, CHOSEN, SHORT, "wk_QQQQ", "\u00e9\u00e9", '"Q"'])
@pytest.mark.parametrize("before", ["", "Q", "Q" * 50, "aB3dE6gH9", "wk_QQQ" * 20, "x" * 3])
@pytest.mark.parametrize("after", ["", "Q" * 50, "wk_"])
def test_a_key_is_found_wherever_it_stands(key: str, before: str, after: str) -> None:
    other = f'["{before}{after}"]'.encode()

    assert may_hold_text(json.dumps([before + key + after], ensure_ascii=False).encode(), key)
    assert may_hold_text(other, key) == (json.dumps(key)[1:-1].encode() in other)


_pieces = st.sampled_from(
    [
        MADE,
        CHOSEN,
        _ESCAPED[MADE],
        "k",
        "n",
        "\n",
        '"',
        "\\",
        "writeKey",
        "api_key",
        "=",
        ":",
        " ",
        ",",
        "{",
        "\u00e9",
        "\x00",
        "w",
        "null",
    ]
)
_texts = st.lists(_pieces, max_size=5).map("".join)
_json_values = st.recursive(
    _texts | st.integers(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3)
)


@given(
    _json_values,
    st.sampled_from([MADE, CHOSEN, SHORT, "n", ":1,[2],{", '"quoted"', "\\\\\\\\\\", "\u00e9" * 8]),
    st.booleans(),
)
@example(value=f"x{_ESCAPED[MADE]}", key=MADE, escaped=True)
@example(value="writeKey\n", key="n", escaped=False)
def test_any_json_without_any_key_is_json(value: object, key: str, escaped: bool) -> None:
    text = json.dumps([value, key, {key: "\\"}], separators=(",", ":"))
    text = text.replace("w", "\\u0077") if escaped else text

    left = bytes(without_text(text.encode(), key))

    json.loads(left)
    assert key != MADE or MADE not in json.dumps(json.loads(left))


@pytest.mark.parametrize(
    "text",
    [
        '{"plan":"k","k":"k","url":"https://k.example/?writeKey=kite","about":"the key: k"}',
        '{"url":"https://my-shop-website.example/?ref=my-shop-website","say":"\\"my-shop-website\\""}',
    ],
)
def test_a_key_that_is_a_word_damages_no_other_text(text: str) -> None:
    for key in (SHORT, CHOSEN):
        assert without_text(text.encode(), key) == text.encode()


def test_a_key_in_a_pixel_is_stored_nowhere() -> None:
    api = Api(KeyTable([WriteKey(key=MADE, project="shop")]))
    query = f"writeKey={MADE}&context.writeKey={MADE}&userId=u&event=A&properties.url=https://a.example/{MADE}/b"

    assert api.ask("GET", f"/pixel/v1/track?{query}").status == 200

    assert MADE not in _stored(api)


class Clock:
    """Seconds that pass when told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    write_keys(path, [SHOP])
    return path


NEW = WriteKey(key="wk_new", project="new")


def test_a_key_made_a_moment_ago_is_taken(path: Path, clock: Clock) -> None:
    api = Api(FileKeys(path, clock), hot=True)
    assert api.post("/v1/track").status == 200

    write_keys(path, [SHOP, NEW])
    clock.now = 0.1

    assert api.ask("POST", "/v1/track", basic("wk_new:"), EVENT).status == 200


def test_a_revoked_key_is_refused_once_the_file_is_read_again(path: Path, clock: Clock) -> None:
    api = Api(FileKeys(path, clock), hot=True)
    assert api.post("/v1/track").status == 200

    write_keys(path, [WriteKey(key="wk_shop", project="shop", revoked=True)])
    clock.now = 60

    assert error_of(api.post("/v1/track")) == (401, "invalid_write_key")


def test_keys_that_can_not_be_read_are_503_and_heal_without_a_restart(path: Path, clock: Clock) -> None:
    api = Api(FileKeys(path, clock), hot=True)
    assert api.post("/v1/track").status == 200

    path.write_text("[{")
    clock.now = 60
    broken = api.post("/v1/track")
    write_keys(path, [SHOP])
    clock.now = 120

    assert error_of(broken) == (503, "keys_unavailable")
    assert api.post("/v1/track").status == 200


def test_unknown_keys_make_the_file_be_read_once_a_second_at_most(path: Path, clock: Clock) -> None:
    keys = FileKeys(path, clock)
    keys.find("wk_stranger")

    write_keys(path, [SHOP, NEW])
    clock.now = 0.9
    too_soon = keys.find("wk_new")
    clock.now = 1.0

    assert (too_soon, keys.find("wk_new")) == (None, NEW)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        '[{"key":"k"}]',
        '[{"key":"","project":"p"}]',
        '[{"key":"k","project":""}]',
        "ÿ",
        '[{"key":"k","project":"p","typo":1}]',
        '[{"key":"k","project":"a\\u0000b"}]',
        '[{"key":"k","project":"p","kind":"x"}]',
    ],
)
def test_a_keys_file_that_makes_no_sense_is_not_half_read(path: Path, text: str) -> None:
    path.write_text(text, encoding="latin-1")

    with pytest.raises(KeysUnavailableError, match=r"keys\.json"):
        read_keys(path)


def test_a_keys_file_is_for_its_owner_alone_and_comes_back_as_written(path: Path) -> None:
    keys = [SHOP, GONE, WriteKey(key="k", project="p", kind="server", origins=("https://a.example",))]

    write_keys(path, keys)

    assert read_keys(path) == keys
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_keys_setting_names_keys_and_their_projects() -> None:
    keys = parse_key_list(" a, b:shop ,, c:")

    found = [keys.find(key) for key in ("a", "b", "c", "", "b:shop")]
    projects = [key and key.project for key in found]
    assert projects == ["default", "shop", "default", None, None]


def test_new_keys_differ() -> None:
    assert len({new_key().key for _ in range(100)}) == 100


def test_a_keys_file_without_rules_is_one_that_older_versions_read(tmp_path: Path) -> None:
    keys = [WriteKey(key="wk_a", project="a"), WriteKey(key="wk_b", project="b", ip="drop")]

    write_keys(tmp_path / "keys.json", keys)

    first, second = json.loads((tmp_path / "keys.json").read_text())
    assert first == {"key": "wk_a", "project": "a", "kind": "browser", "origins": [], "revoked": False}
    assert second["ip"] == "drop"
    assert read_keys(tmp_path / "keys.json") == keys
