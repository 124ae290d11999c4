"""Keys that are read over the network: what callers get while they are, can't be, or were read too long ago."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from manymetrics_api import keys as keys_module
from manymetrics_api.keys import (
    MAX_AGE_S,
    UNKNOWN_REMOTE_REREAD_S,
    KeysUnavailableError,
    WatchedKeys,
    WriteKey,
    parse_keys,
)

OLD, NEW = WriteKey(key="wk_old", project="shop"), WriteKey(key="wk_new", project="shop")


class Store:
    """Where the keys stand, and what time it is."""

    def __init__(self) -> None:
        self.keys = [OLD]
        self.reads = 0
        self.now = 1_000_000.0
        self.broken = False
        self.open = threading.Event()
        self.open.set()

    def read(self) -> list[WriteKey]:
        self.reads += 1
        self.open.wait(10)
        if self.broken:
            raise KeysUnavailableError("out of reach")
        return list(self.keys)

    def watched(self, wait_s: float = 5) -> WatchedKeys:
        return WatchedKeys(self.read, wait_s=wait_s, clock=lambda: self.now)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(keys_module, "RETRY_S", 0.02)
    one = Store()
    yield one
    one.open.set()


def until(condition: Callable[[], bool], wait_s: float = 5) -> None:
    end = time.monotonic() + wait_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_the_first_caller_waits_for_the_keys(store: Store) -> None:
    assert store.watched().find("wk_old") == OLD
    assert store.reads == 1


def test_an_unknown_key_is_refused_only_after_the_keys_were_read_again(store: Store) -> None:
    keys = store.watched()
    keys.find("wk_old")
    store.keys.append(NEW)

    assert keys.find("wk_new") is None  # they were read this moment
    store.now += UNKNOWN_REMOTE_REREAD_S
    assert keys.find("wk_new") == NEW
    assert store.reads == 2


def test_strangers_do_not_make_us_read_at_will(store: Store) -> None:
    keys = store.watched()

    for number in range(100):
        assert keys.find(f"wk_{number}") is None
        store.now += UNKNOWN_REMOTE_REREAD_S / 50

    assert store.reads == 2


@pytest.fixture
def held_s(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """How long the thread of the test let itself be held at most, each time."""
    seen: list[float | None] = []
    wait_for = threading.Condition.wait_for

    def seen_wait(self: threading.Condition, condition: Callable[[], bool], timeout: float | None = None) -> bool:
        if threading.current_thread() is threading.main_thread():
            seen.append(timeout)
        return wait_for(self, condition, timeout)

    monkeypatch.setattr(threading.Condition, "wait_for", seen_wait)
    return seen


def test_who_may_not_be_held_is_asked_to_come_again(store: Store, held_s: list[float | None]) -> None:
    keys = store.watched(wait_s=0)
    keys.wait(5)
    store.keys.append(NEW)
    store.now += UNKNOWN_REMOTE_REREAD_S
    store.open.clear()

    with pytest.raises(KeysUnavailableError):
        keys.find("wk_new")
    assert keys.find("wk_old") == OLD
    assert held_s == [5, 0]
    store.open.set()
    until(lambda: _found(keys, "wk_new"))


def _found(keys: WatchedKeys, key: str) -> bool:
    try:
        return keys.find(key) is not None
    except KeysUnavailableError:
        return False


def test_a_revoked_key_is_refused_once_the_keys_were_read_again(store: Store) -> None:
    keys = store.watched()
    keys.find("wk_old")
    keys.remember(b"Basic x", OLD)
    assert keys.known(b"Basic x") == OLD
    store.keys.clear()
    store.now += MAX_AGE_S

    assert keys.known(b"Basic x") is None
    assert keys.find("wk_old") is None


def test_a_header_is_not_remembered_for_a_key_that_went_meanwhile(store: Store) -> None:
    keys = store.watched()
    keys.find("wk_old")

    keys.remember(b"Basic x", NEW)

    assert keys.known(b"Basic x") is None


def test_keys_out_of_reach_are_served_until_they_are_a_minute_old_and_no_longer(store: Store) -> None:
    keys = store.watched()
    keys.find("wk_old")
    store.broken = True

    store.now += MAX_AGE_S - 1
    assert keys.find("wk_old") == OLD
    with pytest.raises(KeysUnavailableError):  # never "no such key"
        keys.find("wk_new")
    store.now += 1
    for ask in (lambda: keys.find("wk_old"), lambda: keys.known(b"Basic x"), keys.origins):
        with pytest.raises(KeysUnavailableError):
            ask()


def test_keys_that_come_back_are_served_again(store: Store) -> None:
    store.broken = True
    keys = store.watched()
    with pytest.raises(KeysUnavailableError):
        keys.find("wk_old")
    store.broken = False

    until(lambda: _ticking(store, keys))


def _ticking(store: Store, keys: WatchedKeys) -> bool:
    store.now += keys_module.RETRY_S
    return _found(keys, "wk_old")


def test_a_fault_in_reading_is_no_end_of_it(store: Store) -> None:
    def faulty() -> list[WriteKey]:
        found = store.read()
        return found if store.reads > 1 else found[: 1 // 0]

    keys = WatchedKeys(faulty, wait_s=5, clock=lambda: store.now)

    until(lambda: _ticking(store, keys))


def test_its_thread_ends_with_it(store: Store) -> None:
    keys = store.watched()
    keys.find("wk_old")
    threads = [thread for thread in threading.enumerate() if thread.name == "keys"]

    keys.close()
    keys.close()
    del keys

    until(lambda: len([thread for thread in threads if thread.is_alive()]) < len(threads))


@pytest.mark.parametrize(
    "text",
    [
        '[{"wk_secret": "shop"}]',
        '[{"key": "wk_secret", "project": "shop", "kind": "wk_secret"}]',
        '[{"key": "wk_secret", "project": ""}]',
        '["wk_secret"]',
        '{"wk_secret": "shop"}',
        '[{"key": "wk_secret"',
        '"wk_secret"',
    ],
)
def test_what_is_said_of_unreadable_keys_holds_none_of_them(text: str) -> None:
    with pytest.raises(KeysUnavailableError) as error:
        parse_keys(text, "keys.json")

    assert "wk_secret" not in str(error.value)
    assert error.value.__cause__ is None
