"""Which paths there are, and that nothing of ours ever redirects."""

import base64
import json
import re
from collections.abc import Callable
from urllib.parse import quote

import pytest

from tests.in_process import EVENT, Api, Reply, basic

TYPES = ("track", "identify", "page", "screen", "group", "alias")
SINGLE = [f"/v1/{name}" for name in TYPES] + [f"/v1/{name[0]}" for name in TYPES]
BATCH = ["/v1/batch", "/v1/import", "/v1/b", "/beacon/v1/batch"]
SLASHES = ("", "/")
OK = (200, {"content-type": "application/json", "content-length": "17"}, b'{"success": true}')


def error_of(reply: Reply) -> tuple[int, str]:
    """Status and code, of an answer that has our whole error body."""
    body = reply.json()
    assert set(body) - {"failed_records"} == {"success", "error", "code", "message", "detail"}
    assert (body["success"], body["error"], body["detail"]) == (False, body["code"], body["message"])
    assert ("retry-after" in reply.headers) == (reply.status in {429, 503})
    return reply.status, body["code"]


@pytest.mark.parametrize("slash", SLASHES)
@pytest.mark.parametrize("path", SINGLE)
def test_each_type_has_a_route_and_a_letter_with_and_without_a_slash(api: Api, path: str, slash: str) -> None:
    event = b'{"userId":"u","event":"A","previousId":"p","groupId":"g"}'

    assert api.post(path + slash, event) == OK
    assert api.stored() == [event]


@pytest.mark.parametrize("slash", SLASHES)
@pytest.mark.parametrize("path", BATCH)
def test_each_batch_route_takes_a_batch_with_and_without_a_slash(api: Api, path: str, slash: str) -> None:
    assert api.post(path + slash, b'{"batch":[%s, %s]}' % (EVENT, EVENT)) == OK
    assert api.stored() == [EVENT, EVENT]


@pytest.mark.parametrize("path", ["/v1/m", "/v1/m/"])
def test_what_analytics_js_measures_of_itself_is_thrown_away(api: Api, path: str) -> None:
    assert api.ask("POST", path, {}, b"not even JSON") == OK
    assert api.stored() == []


@pytest.mark.parametrize("path", ["/v1/pixel/track", "/pixel/v1/track"])
def test_a_pixel_is_a_gif_that_nobody_caches(api: Api, path: str) -> None:
    data = quote('{"writeKey":"wk_shop","userId":"u","event":"A"}')

    reply = api.ask("GET", f"{path}?data={data}&writeKey=wk_shop&userId=u&event=A")

    assert (reply.status, reply.body[:6]) == (200, b"GIF89a")
    assert reply.headers == {"cache-control": "no-store", "content-type": "image/gif", "content-length": "42"}
    assert len(api.stored()) == 1


@pytest.mark.parametrize("quoted", [True, False])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode, base64.encodebytes])
def test_a_pixels_base64_is_of_either_alphabet(api: Api, encode: Callable[[bytes], bytes], quoted: bool) -> None:
    event = '{"userId":"u","event":"A>>>???~~~\u00ff\u00fe"}'.encode() + b" " * 60
    text = encode(event).decode()
    assert len({*"+/-_"} & {*text}) == 2

    for data in (text, text.strip().rstrip("=")):
        reply = api.ask("GET", f"/v1/pixel/track?data={quote(data) if quoted else data}", basic("wk_shop:"))
        assert reply.status == 200
    assert api.stored() == [event, event]


@pytest.mark.parametrize(
    ("query", "event"),
    [
        ("properties.a.b.c=1&properties.a.d=2", {"properties": {"a": {"b": {"c": "1"}, "d": "2"}}}),
        ("properties=x&properties.a=1", {"properties": "x", "a": "1"}),
        ("event=A&event=B", {"event": "B"}),
        (".=1", {"": {"": "1"}}),
        ("%ff=%ff", {"\ufffd": "\ufffd"}),
    ],
)
def test_a_pixels_dotted_names_nest(api: Api, query: str, event: object) -> None:
    api.ask("GET", f"/pixel/v1/track?{query}", basic("wk_shop:"))

    assert [json.loads(stored) for stored in api.stored()] == [event]


@pytest.mark.parametrize(
    "path", ["/v1/pixel/purchase?data=%7B%7D", "/pixel/v1/purchase?event=A", "/v1/pixel/", "/pixel/v1"]
)
def test_a_pixel_of_no_type_is_not_found(api: Api, path: str) -> None:
    assert error_of(api.ask("GET", path)) == (404, "not_found")


@pytest.mark.parametrize(
    "path",
    [
        "/v1",
        "/v1/",
        "/v1//",
        "/V1/TRACK",
        "/v1/%74rack",
        "/v1/track%00",
        "/track",
        "/v2/track",
        "/v1/batch.json",
        "/v1/projects/settings",
        "/admin",
        "/v1/dead_letters",
        "/..%2f..%2fetc/passwd",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_any_other_path_is_not_found_and_never_redirected(api: Api, method: str, path: str) -> None:
    assert error_of(api.ask(method, path, basic("wk_shop:"), EVENT)) == (404, "not_found")
    assert api.stored() == []


@pytest.mark.parametrize(
    "path", ["//v1/batch", "/v1//batch", "///v1/batch/", "/v1/batch//", "//v1/t", "/beacon//v1/batch"]
)
def test_doubled_slashes_count_as_one(api: Api, path: str) -> None:
    body = EVENT if path.endswith("t") else b'{"batch":[%b]}' % EVENT

    assert api.ask("POST", path, basic("wk_shop:"), body).status == 200
    assert api.stored() == [EVENT]


@pytest.mark.parametrize(
    "path",
    [
        *("/healthz", "/readyz", "/docs", "/openapi.json", "/v1/projects/wk_shop/settings", "/sourceConfig"),
        *("/pixel/v1/track?writeKey=wk_shop&userId=u&event=A", '/v1/pixel/track?data={"writeKey":"wk_shop"}'),
    ],
)
def test_every_route_takes_slashes_at_its_end_and_doubled_ones(api: Api, path: str) -> None:
    name, _, query = path.partition("?")

    replies = [api.ask("GET", f"{one}?{query}") for one in (name, f"{name}/", f"/{name}", f"/{name}//")]

    assert [reply.status for reply in replies] == [200] * 4


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/readyz/", "/docs", "/openapi.json", "/sourceConfig/", "/"])
def test_head_is_answered_where_get_is(api: Api, path: str) -> None:
    head, get = api.ask("HEAD", path), api.ask("GET", path)

    assert (head.status, head.headers, head.body) == (200, get.headers, b"")
    assert get.body


def test_a_person_sees_what_this_is_and_where_to_go(api: Api) -> None:
    page, icon = api.ask("GET", "/"), api.ask("GET", "/favicon.ico")

    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    links = re.findall(r'href="(.+?)"', page.body.decode())
    assert links == ["/docs", "/readyz"]
    assert [api.ask("GET", link).status for link in links] == [200, 200]
    assert (icon.status, icon.headers["content-type"]) == (200, "image/svg+xml")


@pytest.mark.parametrize("path", ["/v1/pixel/track", "/pixel/v1/track", "//pixel//v1/track"])
def test_head_stores_no_pixel(api: Api, path: str) -> None:
    assert api.ask("HEAD", f"{path}?writeKey=wk_shop&userId=u&event=A").status == 405
    assert api.stored() == []


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "TRACE", "OPTIONS", "BREW"])
@pytest.mark.parametrize("path", ["/v1/track", "/v1/batch/", "/v1/m"])
def test_another_method_is_refused(api: Api, method: str, path: str) -> None:
    reply = api.ask(method, path, basic("wk_shop:"), EVENT)

    assert error_of(reply) == (405, "method_not_allowed")
    assert reply.headers["allow"] == "POST"
    assert api.stored() == []


def test_settings_point_analytics_js_to_the_host_that_it_asked(api: Api) -> None:
    asked = [
        api.ask("GET", "/v1/projects/wk_page/settings", {"host": host}) for host in ("h:8000", "[::1]:8000", 'x"y', "")
    ]

    targets = [reply.json()["integrations"]["Segment.io"] for reply in asked]
    assert targets == [
        {"apiKey": "wk_page", "apiHost": "h:8000/v1", "protocol": "http"},
        {"apiKey": "wk_page", "apiHost": "[::1]:8000/v1", "protocol": "http"},
        {"apiKey": "wk_page"},
        {"apiKey": "wk_page"},
    ]


@pytest.mark.parametrize("path", ["/sourceConfig", "/sourceConfig/"])
def test_the_source_of_rudderstacks_browser_client_holds_its_key(api: Api, path: str) -> None:
    assert api.ask("GET", f"{path}?writeKey=wk_page").json()["source"]["writeKey"] == "wk_page"
