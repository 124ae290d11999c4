"""What is taken out of texts and addresses, and what is left in."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.sdk.conftest import NODE, SDK

pytestmark = pytest.mark.browser

TEXTS = {
    "call +49 30 123": "call ***",
    "Pay with 4111 1111 1111 1111 now": "Pay with *** now",
    "4111111111111111": "***",
    "4111-1111-1111-1111": "***",
    "4111.1111.1111.1111": "***",
    "4111\u00a01111\u20131111 - 1111": "***",
    "card4111111111111111": "card***",
    "Order 12 4111 1111 1111 1111": "Order ***",
    "378282246310005": "***",
    "6304000000000000": "***",
    "4222222222222": "***",
    "5105 1051 0510 5100, Ann": "***, Ann",
    "4111 1111 1111 1112": "4111 1111 1111 1112",
    "1732521600000": "1732521600000",
    "0190a4f2-1234-4123-8123-123456789012": "0190a4f2-1234-4123-8123-123456789012",
    "ann@example.com": "***",
    "Write to Ann.O'Neil+a@mail.example.co.uk": "Write to ***",
    "<ann@example.com>": "<***>",
    "Mail:jörg@exämple.de, or call": "Mail:***, or call",
    "@ann": "@ann",
    "3 @ 4": "3 @ 4",
    "078-05-1120": "***",
    "078 05 1120": "***",
    "Call (555) 123-4567": "Call ***",
    "555-123-4567": "***",
    "+49 151 2345678": "***",
    "+1 (555) 123-4567": "***",
    "+3 %": "+3 %",
    "2024-11-25 10:31": "2024-11-25 10:31",
    "$1,299.00": "$1,299.00",
    "v1.20.300": "v1.20.300",
    "192.168.100.200": "192.168.100.200",
    "": "",
}
ADDRESSES = {
    "https://shop.example.com:8080/a/b%20c?d=%E4&e=%F0%9F%98%80#/r/1": None,
    "/sale/100%/x?q=50%&r=%zz": None,
    "?utm_source=email&utm_medium=key&utm_campaign=card&keyword=shoes&author=me&zipcode=1&passengers=2": None,
    "https://ann:hush@example.com/a": "https://example.com/a",
    "https://hush@example.com/": "https://example.com/",
    "https://medium.com/@ann": None,
    "/u/ann@example.com/edit": "/u/***/edit",
    "/u/ann%40example.com/edit": "/u/***/edit",
    "/u/ann%2540example.com": "/u/***",
    "?c=4111+1111+1111+1111&d=4111%201111%201111%201111": "?c=***&d=***",
    "?e=4111%C2%A01111%C2%A01111%C2%A01111": "?e=***",
    "/pay/4111-1111-1111-1111": "/pay/***",
    "?password=a?b&x=1": "?password=***&x=1",
    "?pass=hush&passwd=hush&pwd=hush&client_secret=hush": "?pass=***&passwd=***&pwd=***&client_secret=***",
    "?apiKey=hush&key=hush&code=hush&otp=1": "?apiKey=***&key=***&code=***&otp=***",
    "?user%5Bemail%5D=hush&tel_phone=1&ssn=1&card_no=1&cvc=1": (
        "?user%5Bemail%5D=***&tel_phone=***&ssn=***&card_no=***&cvc=***"
    ),
    "#access_token=hush&state=1": "#access_token=***&state=1",
    "#/reset?token=ab/cd==": "#/reset?token=***",
    "?next=/reset?token=ab/cd==&a=1": "?next=/reset?token=***&a=1",
    "?next=%2Freset%3Ftoken%3Dhush&a=1": "?next=***&a=1",
    "?next=https%3A%2F%2Fann%3Ahush%40example.com": "?next=***",
    "mailto:ann@example.com?subject=Hi": "mailto:***?subject=Hi",
}


def run(each: str, texts: list[str], folder: Path) -> list[Any]:
    """``each``: what JavaScript says of ``masks`` and ``texts``."""
    built = folder / "mask.mjs"
    bundle = f"""import {{ buildSync }} from "esbuild"; import {{ pathToFileURL }} from "node:url";
        import {{ readFileSync }} from "node:fs";
        buildSync({{ entryPoints: ["src/mask.ts"], format: "esm", outfile: {json.dumps(str(built))} }});
        const masks = await import(pathToFileURL({json.dumps(str(built))}));
        const texts = JSON.parse(readFileSync(0, "utf8"));
        console.log(JSON.stringify({each}))"""
    done = subprocess.run(
        [NODE, "--input-type=module", "-e", bundle],
        input=json.dumps(texts),
        cwd=SDK,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: list[Any] = json.loads(done.stdout)
    return result


def masked(name: str, texts: list[str], folder: Path) -> list[str]:
    return run(f"texts.map((text) => masks.{name}(text))", texts, folder)


@pytest.fixture(autouse=True)
def tools() -> None:
    if not NODE.is_file() or not (SDK / "node_modules").is_dir():
        pytest.skip("no Node, or no sdk-js/node_modules (make sdk)")


def test_texts(tmp_path: Path) -> None:
    assert dict(zip(TEXTS, masked("mask", list(TEXTS), tmp_path), strict=True)) == TEXTS


def test_addresses(tmp_path: Path) -> None:
    wanted = {address: address if kept is None else kept for address, kept in ADDRESSES.items()}

    assert dict(zip(ADDRESSES, masked("maskUrl", list(ADDRESSES), tmp_path), strict=True)) == wanted


@pytest.mark.parametrize("name", ["mask", "maskUrl"])
def test_the_time_grows_with_the_length_and_no_faster(name: str, tmp_path: Path) -> None:
    timed = f"""texts.map((part) => {{
        const cpuOf = (chars) => {{
            const text = part.repeat(chars / part.length);
            const before = process.cpuUsage();
            for (let left = 5; left; left--) masks.{name}(text);
            const {{ user, system }} = process.cpuUsage(before);
            return user + system;
        }};
        cpuOf(1_000);
        return [cpuOf(5_000), cpuOf(40_000)];
    }})"""
    parts = [
        "a",
        "1",
        "1 ",
        "@",
        "a@",
        "%",
        "%25",
        "+1(",
        "//",
        "password",
        "&code",
        "1-",
        "0190a4f2-1234-",
        "?",
        "=",
        "(((",
    ]

    for part, (short_us, long_us) in zip(parts, run(timed, parts, tmp_path), strict=True):
        assert long_us < 20 * short_us + 5_000, part
