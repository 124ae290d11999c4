"""Whatever a page holds and whatever somebody does there: no secret goes out."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from random import Random
from urllib.parse import quote

import pytest

from tests.sdk.autocapture.conftest import Tab

pytestmark = pytest.mark.browser

PAGES = 250


@dataclass
class Secrets:
    """Makes them, and finds them again, whole or in part."""

    random: Random
    words: list[str] = field(default_factory=list)
    cards: list[str] = field(default_factory=list)

    def word(self) -> str:
        """What nothing but its place makes a secret: a name, a password."""
        self.words.append("q" + "".join(self.random.choices("bcdfghjkz", k=11)))
        return self.words[-1]

    def address(self) -> str:
        return self.word() + self.random.choice(["@example.com", ".b@mail.example.co.uk", "+c@example.org"])

    def card(self) -> str:
        digits = self.random.choice("456") + "".join(self.random.choices("0123456789", k=14))
        doubled = "0246813579"
        total = sum(int(doubled[int(digit)]) if at % 2 == 0 else int(digit) for at, digit in enumerate(digits))
        self.cards.append(digits + str(-total % 10))
        by = self.random.choice(["", " ", "-", ".", "\u00a0"])
        return by.join(self.cards[-1][at : at + 4] for at in range(0, 16, 4))

    def number(self) -> str:
        """A social security number, or a telephone number."""
        self.cards.append("".join(self.random.choices("123456789", k=9)) + self.random.choice("123456789"))
        digits = self.cards[-1]
        if self.random.random() < 0.5:
            self.cards[-1] = digits[:9]
            return f"{digits[:3]}-{digits[3:5]}-{digits[5:9]}"
        return self.random.choice([f"+{digits}", f"({digits[:3]}) {digits[3:6]}-{digits[6:]}"])

    def datum(self) -> str:
        """What looks like somebody's data wherever it stands."""
        return self.random.choice([self.address, self.address, self.card, self.card, self.number])()

    def url(self) -> str:
        make, escape = self.random.choice([self.address, self.card]), self.random.choice([0, 1, 2])
        datum = make()
        for _ in range(escape):
            datum = quote(datum, safe="")
        name = self.random.choice(["password", "token", "api_key", "email", "user[secret]", "sessionId"])
        hidden = self.random.choice([self.word(), quote(self.word() + "&/?", safe="")])
        forms = [f"/u/{datum}/edit", f"/x?q={datum}&y=1", f"/x?{quote(name)}={hidden}&y=1", f"/x#{name}={hidden}"]
        forms.append("/x?next=" + quote(f"/reset?{name}={hidden}&to={datum}", safe=""))
        return self.random.choice(forms)

    def found_in(self, bodies: list[str]) -> list[str]:
        text = "\n".join(bodies)
        # Half of a card is a leak, too; between its digits may stand whatever stood there.
        parts = {card: "[^0-9a-z]{0,3}".join(card[-9:]) for card in self.cards}
        return [word for word in self.words if word in text] + [card for card in parts if re.search(parts[card], text)]


def a_page(random: Random, secrets: Secrets) -> str:
    return f"<div id={quote(secrets.datum())}>" + "".join(an_element(random, secrets, 3) for _ in range(4)) + "</div>"


def attributes(random: Random, secrets: Secrets) -> str:
    names = ["id", "class", "name", "aria-label", "title", "data-mm-plan", "data-mm-user-name", "role"]
    chosen = random.sample(names, random.randint(0, 3))
    return "".join(f' {name}="{secrets.datum()}"' for name in chosen)


def words(random: Random, secrets: Secrets) -> str:
    said = random.choice(["Buy", "Continue as {}", "Pay with {} now", "{}", "<b>{}</b> and <i>{}</i>", "Split {}"])
    if said == "Split {}":
        datum = secrets.address()
        at = random.randrange(1, len(datum))
        return f"<b>{datum[:at]}</b><i>{datum[at:]}</i>"
    return re.sub("{}", lambda _: secrets.datum(), said)


def an_element(random: Random, secrets: Secrets, depth: int) -> str:
    def some() -> str:
        return "".join(an_element(random, secrets, depth - 1) for _ in range(random.randint(1, 3))) if depth else ""

    told = attributes(random, secrets)
    makers = [
        lambda: f"<button type=button {told}>{words(random, secrets)}</button>",
        lambda: f"<a href='{secrets.url()}' {told}>{words(random, secrets)}</a>",
        lambda: f"<a href='mailto:{secrets.address()}'>{words(random, secrets)}</a>",
        lambda: f"<div onclick=1 {told}>{words(random, secrets)}{some()}</div>",
        lambda: f"<div role=button data-mm-event='Said {secrets.datum()}' {told}>{words(random, secrets)}</div>",
        lambda: f"<input {told} value={secrets.word()} type={random.choice(['text', 'email', 'password', 'button'])}>",
        lambda: f"<input type=checkbox {told} value={secrets.word()}>",
        lambda: f"<textarea {told}>{secrets.word()}</textarea>",
        lambda: f"<select {told}><option>{secrets.word()}<option>{secrets.word()}</select>",
        lambda: (
            f"<label {told}>{secrets.word()} <a href='#'>{secrets.word()}</a><input value={secrets.word()}></label>"
        ),
        lambda: f"<p contenteditable {told}>{secrets.word()} <a href='#'>{secrets.word()}</a></p>",
        lambda: f"<div data-mm-ignore {told}><button>{secrets.word()}</button>{secrets.word()}</div>",
        lambda: f"<button type=button>Buy <span data-mm-ignore>{secrets.word()}</span></button>",
        lambda: (
            f"<form action='{secrets.url()}' {told}>{some()}<input value={secrets.word()}><button>Go</button></form>"
        ),
        lambda: f"<section {told}>{some()}</section>",
    ]
    return random.choice(makers)()


# Clicks on and writes into what is there, by its place, so that all events are a person's.
PERSON = """
for (const { html, url, keys, seed } of given) {
    const places = await page.evaluate(({ html, url }) => {
        stage.innerHTML = html;
        history.pushState(null, "", url);
        return [...stage.querySelectorAll("a,button,input,textarea,select,label,[contenteditable],[onclick],[role]")]
            .map((one) => ({ ...one.getBoundingClientRect().toJSON(), writes: one.matches(
                "input:not([type=button],[type=checkbox]),textarea,[contenteditable]") }))
            .filter(({ width, y }) => width && y < innerHeight);
    }, { html, url });
    const chosen = places.filter((_, at) => (at * 7 + seed) % 3 === 0).slice(0, 5).concat(places.slice(-1));
    for (const { x, y, width, height, writes } of chosen) {
        await page.mouse.click(x + Math.min(width / 2, 15), y + height / 2);
        if (writes) {
            await page.keyboard.insertText(keys);
            await page.evaluate(() => document.activeElement.blur());
        }
    }
}"""
STAY = """addEventListener("click", (event) => event.target.closest("a") && event.preventDefault());
addEventListener("submit", (event) => event.preventDefault());"""


def live(tab: Tab, seed: int, count: int) -> list[str]:
    """What becomes known when somebody uses so many pages."""
    random = Random(seed)
    secrets = Secrets(random)
    pages = [
        {"html": a_page(random, secrets), "url": secrets.url(), "keys": secrets.word(), "seed": random.randrange(3)}
        for _ in range(count)
    ]
    tab.show("<div id=stage></div>", before=STAY)
    for at in range(0, count, 25):
        tab.drive(PERSON, pages[at : at + 25])
        tab.events(0.15)
    assert tab.complaints() == []
    return secrets.found_in(tab.sent.bodies)


@pytest.mark.parametrize("seed", range(2))
def test_no_secret_goes_out(tab: Tab, seed: int) -> None:
    assert live(tab, seed, PAGES) == []

    names = [event.get("event") for event in tab.sent.events()]
    assert {"Element Clicked", "Form Submitted", "Field Changed", "Page Left", None} <= set(names)
    assert len(names) > 3 * PAGES


@pytest.mark.parametrize(
    "change",
    [
        ('"***"', '"$&"'),
        (",label,input,select,textarea,datalist", ""),
        ("[data-mm-ignore],", ""),
        ("[contenteditable]:not([contenteditable=false])", "x-none"),
        ("|secret", ""),
    ],
)
def test_a_hole_would_be_found(tab: Tab, change: tuple[str, str]) -> None:
    tab.site.change = change

    assert live(tab, 0, 100) != []
