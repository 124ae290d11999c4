"""What a batch says once reaches every row of it, from the socket to the table."""

import msgspec

from tests.live_server import LiveServer


def test_an_event_has_the_anonymous_id_of_its_batch_unless_it_has_its_own(server: LiveServer) -> None:
    shared = {"type": "track", "event": "Shared"}
    batch = [{**shared, "messageId": "b-1"}, {**shared, "messageId": "b-2", "anonymousId": "a-2"}]
    body = {"writeKey": "wk_shop", "anonymousId": "a-1", "context": {"locale": "de"}, "batch": batch}

    answer = server.client.post("/v1/batch", content=msgspec.json.encode(body), headers={"Content-Type": "text/plain"})

    assert answer.json() == {"success": True}
    rows = server.rows_once(2, columns=["message_id", "anonymous_id", "context_locale"])
    assert sorted(tuple(row.values()) for row in rows) == [("b-1", "a-1", "de"), ("b-2", "a-2", "de")]
