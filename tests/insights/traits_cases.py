"""Traits as sent, in the order of their time, and what a person's traits are then; for DuckDB and Trino."""

from __future__ import annotations

from datetime import timedelta

from tests.insights.lakes import NOON, Row

Case = tuple[list[str], str | None]

CASES: dict[str, Case] = {
    "latest": (['{"plan":"free","age":4}', '{"plan":"pro"}'], '{"age":4,"plan":"pro"}'),
    "null": (['{"plan":"pro","x":1}', '{"plan":null,"x":2}'], '{"plan":"pro","x":2}'),
    "only-nulls": (['{"plan":null}'], None),
    "text-null": (['{"plan":"null"}'], '{"plan":"null"}'),
    "false": (['{"a":true,"b":1}', '{"a":false,"b":0}'], '{"a":false,"b":0}'),
    "empty-values": (['{"a":"","b":[],"c":{}}'], '{"a":"","b":[],"c":{}}'),
    "not-merged-below": (['{"a":{"x":1,"y":2}}', '{"a":{"x":3}}'], '{"a":{"x":3}}'),
    "nested-order": (
        ['{"b":{"z":[1, {"d":1,"c":2}],"a":null}, "a":1}'],
        '{"a":1,"b":{"z":[1,{"d":1,"c":2}],"a":null}}',
    ),
    "white-space": (['{ "a" :\t[ 1 , "x y" ]\n,"b": {"c" : 2 } }'], '{"a":[1,"x y"],"b":{"c":2}}'),
    "numbers": (
        ['{"a":9007199254740993,"b":-9223372036854775808,"c":0.1,"d":-2.5,"e":1.0,"f":0,"g":-7}'],
        '{"a":9007199254740993,"b":-9223372036854775808,"c":0.1,"d":-2.5,"e":1.0,"f":0,"g":-7}',
    ),
    "number-as-text": (['{"a":"2.50","b":"1e3"}'], '{"a":"2.50","b":"1e3"}'),
    "odd-keys": (
        [r'{"a.b":1,"$c":2,"q\"k":3,"s k":4,"":5,"\\":6,"it\'s":7,"[0]":8,"\/":9}'.replace(r"\'", "'")],
        r'{"":5,"$c":2,"/":9,"[0]":8,"\\":6,"a.b":1,"it' + "'" + r's":7,"q\"k":3,"s k":4}',
    ),
    "unicode-keys": (
        ['{"é":1,"Z":2,"名":"\ue000😀","\ue000":4,"😀":{"😀":"名"}}'],
        '{"Z":2,"é":1,"名":"\ue000😀","\ue000":4,"😀":{"😀":"名"}}',
    ),
    "escaped-keys": ([r'{"\u00e9":1,"\ud83d\ude00":2,"a\nb":3}'], r'{"a\nb":3,"é":1,"😀":2}'),
    "one-key-written-in-two-ways": ([r'{"\u0061":1}', '{"a":2}'], '{"a":2}'),
    "escapes": (
        [r'{"a":"\u0001\u001f\u007f\b\f\n\r\t\"\\\/\u00e9\ud83d\ude00<>&"}'],
        '{"a":"\\u0001\\u001F\x7f\\b\\f\\n\\r\\t\\"\\\\/é😀<>&"}',
    ),
    "nul": ([r'{"a":"x\u0000y","k\u0000":1}'], r'{"a":"x\u0000y","k\u0000":1}'),
    "malformed": (['{"a":1}', '{"a":', '{"a":2', "{'a':3}", '{"a":4} x', '{"a":01}', '{"a":1,}', '{"a" 5}'], '{"a":1}'),
    "no-objects": (['["a"]', '"{\\"a\\":1}"', "5", "null", "", "{}", "{ }", "[]"], None),
    "a-key-twice": (['{"a":1}', '{"a":2,"a":3}'], '{"a":1}'),
    "beyond-a-bigint": (['{"a":18446744073709551615}'], '{"a":18446744073709551615}'),
    "html": (
        ['{"a":"<img onerror=1>","b":"\'; DROP TABLE x; --"}'],
        '{"a":"<img onerror=1>","b":"\'; DROP TABLE x; --"}',
    ),
    "deep": (['{"a":' + "[" * 400 + "]" * 400 + "}"], '{"a":' + "[" * 400 + "]" * 400 + "}"),
    "long": (['{"a":"' + "x" * 30_000 + '"}'], '{"a":"' + "x" * 30_000 + '"}'),
}


def identifies() -> list[Row]:
    """A person for each case, whose n-th identify is n hours after noon; and ties, by message_id."""
    rows: list[Row] = [
        {"type": "identify", "user_id": name, "traits": text, "event_time": NOON + timedelta(hours=hour)}
        for name, (texts, _) in CASES.items()
        for hour, text in enumerate(texts)
    ]
    rows += [
        {"type": "identify", "user_id": "tie", "message_id": message_id, "traits": f'{{"a":"{message_id}"}}'}
        for message_id in ("t2", "t3", "t1")
    ]
    rows += [
        {
            "type": "identify",
            "user_id": "tie of a text sent twice",
            "message_id": message_id,
            "traits": f'{{"a":{value}}}',
        }
        for message_id, value in (("s1", 1), ("s9", 1), ("s5", 2))
    ]
    others: list[Row] = [{"type": kind, "user_id": "other", "traits": '{"a":1}'} for kind in ("group", "track", "page")]
    return [*rows, *others]


EXPECTED = {
    **{name: expected for name, (_, expected) in CASES.items()},
    "tie": '{"a":"t3"}',
    "tie of a text sent twice": '{"a":1}',
    "other": None,
}
