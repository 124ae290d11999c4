"""Pages may send from the origins of their key, compared exactly; credentials are never allowed."""

from urllib.parse import quote

import msgspec
import pytest

from manymetrics_api import intake
from manymetrics_api.collect import ALLOWED_HEADERS
from manymetrics_api.keys import FileKeys, KeyTable
from tests.in_process import BLOG, EVENT, GONE, PAGE, Api, Reply, basic
from tests.unit.api.test_routes import error_of

HOME = "https://shop.example"
STRANGERS = [
    "https://evil.example",
    "null",
    "https://shop.example.evil.example",
    "https://SHOP.example",
    "http://shop.example",
    "https://shop.example:8443",
    "https://shop.example, https://evil.example",
    "",
]
PREFLIGHT = {"access-control-request-method": "POST"}


@pytest.fixture(scope="module")
def pages() -> Api:
    """An API all of whose live keys have origins."""
    return Api(KeyTable([PAGE, BLOG, GONE]), hot=True)


def _cors(reply: Reply) -> dict[str, str]:
    return {name: value for name, value in reply.headers.items() if name.startswith("access-control") or name == "vary"}


@pytest.mark.parametrize("origin", [HOME, "https://blog.example", "https://www.blog.example"])
def test_a_preflight_is_answered_by_the_union_of_all_keys_origins(pages: Api, origin: str) -> None:
    reply = pages.ask("OPTIONS", "/v1/batch", PREFLIGHT | {"origin": origin})

    assert (reply.status, reply.body) == (204, b"")
    assert reply.headers == {
        "access-control-allow-origin": origin,
        "access-control-allow-methods": "POST, GET, HEAD, OPTIONS",
        "access-control-allow-headers": ALLOWED_HEADERS.decode(),
        "access-control-expose-headers": "retry-after",
        "access-control-max-age": "86400",
        "vary": "Origin",
    }


@pytest.mark.parametrize(
    "asked",
    [
        "authorization,content-type,rsa-retry-attempt,rsa-since-last-attempt",  # RudderStack's, on a retry
        "Rsa-Recovered",
        "x-anything, traceparent ,baggage",
        *ALLOWED_HEADERS.decode().split(", "),
    ],
)
def test_a_preflight_may_ask_for_any_header(api: Api, asked: str) -> None:
    reply = api.ask("OPTIONS", "/v1/batch", PREFLIGHT | {"origin": HOME, "access-control-request-headers": asked})

    assert reply.headers["access-control-allow-headers"] == asked


@pytest.mark.parametrize("asked", ["", "a b", "a,", "a\r\nset-cookie: x", "caf\xe9", "x" * 2_001])
def test_what_is_no_list_of_headers_is_not_sent_back(api: Api, asked: str) -> None:
    reply = api.ask("OPTIONS", "/v1/batch", PREFLIGHT | {"origin": HOME, "access-control-request-headers": asked})

    assert reply.headers["access-control-allow-headers"] == ALLOWED_HEADERS.decode()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("POST", "/nowhere", 404),
        ("POST", "/v1/%74rack", 404),
        ("GET", "/v1/track", 405),
        ("PUT", "/v1/batch", 405),
        ("POST", "/v1/pixel/track", 405),
        ("GET", "/v1/pixel/nothing", 404),
        ("GET", "/v1/track?" + "&" * 500, 431),
        ("POST", "/v1/track?" + "&" * 500, 431),
        ("GET", "/v1/projects/wk_server/settings", 403),
        ("POST", "/v1/track", 401),
    ],
)
def test_a_page_may_read_every_refusal(api: Api, method: str, path: str, status: int) -> None:
    reply = api.ask(method, path, {"origin": HOME})

    assert reply.status == status
    assert reply.headers["access-control-allow-origin"] == HOME


def test_a_page_may_read_that_something_failed(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(intake, "accept", fail)

    reply = api.ask("POST", "/v1/track", basic("wk_shop") | {"origin": HOME}, EVENT)

    assert (reply.status, reply.headers["access-control-allow-origin"]) == (503, HOME)


def test_no_page_elsewhere_may_read_what_is_not_refused(api: Api) -> None:
    assert _cors(api.ask("GET", "/healthz", {"origin": HOME})) == {}


@pytest.mark.parametrize("origin", STRANGERS)
def test_a_preflight_from_elsewhere_gets_no_permission(pages: Api, origin: str) -> None:
    reply = pages.ask("OPTIONS", "/v1/batch", PREFLIGHT | {"origin": origin})

    assert (reply.status, reply.headers) == (204, {"vary": "Origin"})


def test_a_post_from_a_page_of_its_key_may_read_its_answer(pages: Api) -> None:
    reply = pages.ask("POST", "/v1/track", basic("wk_page:") | {"origin": HOME}, EVENT)

    assert reply.status == 200
    assert _cors(reply) == {
        "access-control-allow-origin": HOME,
        "access-control-expose-headers": "retry-after",
        "vary": "Origin",
    }
    assert pages.stored() == [EVENT]


@pytest.mark.parametrize("origin", [*STRANGERS, "https://blog.example"])
def test_a_post_from_a_page_that_its_key_does_not_name_is_refused(pages: Api, origin: str) -> None:
    reply = pages.ask("POST", "/v1/track", basic("wk_page:") | {"origin": origin}, EVENT)

    assert error_of(reply) == (403, "origin_not_allowed")
    assert _cors(reply) == {"vary": "Origin"}
    assert pages.stored() == []


@pytest.mark.parametrize("origins", [(HOME, "https://evil.example"), ("https://evil.example", HOME), (HOME, HOME)])
def test_two_origins_are_none(pages: Api, origins: tuple[str, str]) -> None:
    pairs = [("origin", origin) for origin in origins]

    preflight = pages.ask("OPTIONS", "/v1/track", [*PREFLIGHT.items(), *pairs])
    post = pages.ask("POST", "/v1/track", [*basic("wk_page:").items(), *pairs], EVENT)

    assert (_cors(preflight), _cors(post), post.status) == ({"vary": "Origin"}, {"vary": "Origin"}, 403)


@pytest.mark.parametrize("origin", ["https://anywhere.example", "null", "https://caf\xe9.example"])
def test_a_key_without_origins_takes_any_page(api: Api, origin: str) -> None:
    replies = [
        api.ask("OPTIONS", "/v1/track", PREFLIGHT | {"origin": origin}),
        api.ask("POST", "/v1/track", basic("wk_shop:") | {"origin": origin}, EVENT),
        api.ask("GET", "/pixel/v1/track?writeKey=wk_shop&userId=u&event=A", {"origin": origin}),
        api.ask("GET", "/v1/projects/wk_shop/settings", {"origin": origin}),
        api.ask("POST", "/v1/m", {"origin": origin}, EVENT),
    ]

    assert [reply.headers["access-control-allow-origin"] for reply in replies] == [origin] * 5
    assert all("access-control-allow-credentials" not in reply.headers for reply in replies)


def test_a_server_needs_no_origin(pages: Api) -> None:
    reply = pages.ask("POST", "/v1/track", basic("wk_page:"), EVENT)

    assert (reply.status, _cors(reply)) == (200, {})


def test_a_page_may_read_why_it_was_refused(pages: Api) -> None:
    unknown = pages.ask("POST", "/v1/track", basic("wk_nobody:") | {"origin": HOME}, EVENT)
    too_large = pages.ask("POST", "/v1/track", {"origin": HOME, "content-length": "6000001"})

    assert [reply.headers["access-control-allow-origin"] for reply in (unknown, too_large)] == [HOME, HOME]


def test_while_keys_can_not_be_read_a_page_may_read_the_503(tmp_path_factory: pytest.TempPathFactory) -> None:
    api = Api(FileKeys(tmp_path_factory.mktemp("empty") / "keys.json"), hot=True)

    reply = api.ask("POST", "/v1/track", basic("wk_page:") | {"origin": HOME}, EVENT)

    assert error_of(reply) == (503, "keys_unavailable")
    assert reply.headers["access-control-allow-origin"] == HOME


@pytest.mark.parametrize("query_key", [True, False])
@pytest.mark.parametrize("path", ["/v1/pixel/track?data={}", "/pixel/v1/track?userId=u&event=A&{}"])
@pytest.mark.parametrize(
    ("headers", "taken"),
    [
        ({"referer": "https://shop.example/a?b#c"}, True),
        ({"referer": "https://shop.example"}, True),
        ({"referer": "https://shop.example?a"}, True),
        ({"origin": "https://shop.example"}, True),
        ({"origin": "https://shop.example", "referer": "https://evil.example/"}, True),  # Origin is the better word
        ({"origin": "https://evil.example", "referer": "https://shop.example/"}, False),
        ({"origin": "null", "referer": "https://shop.example/"}, False),
        ({"referer": "https://evil.example/"}, False),
        ({"referer": "https://evil.example/https://shop.example/"}, False),
        ({"referer": "https://shop.example.evil.example/"}, False),
        ({"referer": "https://shop.example@evil.example/"}, False),
        ({"referer": "https://shop.example\\@evil.example/"}, False),
        ({"referer": "https://shop.example:8443/"}, False),
        ({"referer": "http://shop.example/"}, False),
        ({"referer": " https://shop.example/"}, False),
        ({"referer": "about:blank"}, False),
        ({"referer": ""}, False),
        ({}, False),
    ],
)
def test_a_pixel_is_taken_from_the_pages_of_its_key_alone(
    api: Api, path: str, headers: dict[str, str], *, taken: bool, query_key: bool
) -> None:
    event = msgspec.json.encode({"userId": "u", "event": "A"} | ({} if query_key else {"writeKey": "wk_page"}))
    target = path.format(quote(event.decode()) if "data" in path else "")
    if query_key or "data" not in path:
        target += "&writeKey=wk_page"

    reply = api.ask("GET", target, headers)

    assert reply.status == (200 if taken else 403)
    assert bool(api.stored()) == taken


@pytest.mark.parametrize("headers", [{}, {"referer": "https://any.example/"}, {"referer": "junk"}, {"origin": "null"}])
def test_a_key_without_origins_takes_a_pixel_from_anywhere(api: Api, headers: dict[str, str]) -> None:
    assert api.ask("GET", "/pixel/v1/track?writeKey=wk_shop&userId=u&event=A", headers).status == 200


def test_of_two_referers_none_is_believed(api: Api) -> None:
    pairs = [("referer", "https://shop.example/"), ("referer", "https://evil.example/")]

    assert api.ask("GET", "/pixel/v1/track?writeKey=wk_page&userId=u&event=A", pairs).status == 403
