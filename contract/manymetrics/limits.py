"""The limits of a request and of an event. api/README.md lists each, and a test holds it to that."""

MAX_BODY_BYTES = 6_000_000  # on the wire; also the limit of a Lambda payload
MAX_INFLATED_BYTES = 20_000_000  # after gzip; a hard cap, checked while inflating
MAX_VALUES_A_REQUEST = 2_000_000  # JSON values: 20 MB of `1,1,1` are 10 million, and take 0.9 GB to hold (2026-11-25)
MAX_EVENTS_A_REQUEST = 10_000  # Segment documents 2,500; its Node client was seen above that
MAX_SHARED_BYTES = 128_000  # each shared field of a batch: it is copied into every one of its stream records
MAX_SENT_AT_BYTES = 1_000
MIN_EVENT_WEIGHT = 512  # minimum bytes that an event counts for (records.weight): the cost of a row, however short
# The most that a body without shared fields can weigh; others may not weigh more: shared fields are copied per event
MAX_WEIGHT_BYTES = MAX_INFLATED_BYTES + MAX_EVENTS_A_REQUEST * MIN_EVENT_WEIGHT
MAX_EVENT_BYTES = 512_000  # Segment documents 32 kB, clients send 60; above 0.9 MB raise records.MAX_RECORD_BYTES too
MAX_EVENT_DEPTH = 64  # nested objects and arrays, counting the event itself as 1
MAX_MESSAGE_ID_BYTES = 512
MAX_ID_BYTES = 1_024  # user_id, anonymous_id, group_id, previous_id
MAX_EVENT_NAME_BYTES = 1_024
OVERSIZE_PREFIX_BYTES = 65_536  # the part kept of an event over MAX_EVENT_BYTES
