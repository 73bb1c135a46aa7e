"""The report in a real browser: silent console, no network, sound that plays, tables that scroll inside themselves."""

import os

import pytest
from playwright.sync_api import sync_playwright

from alignslm.report.inputs import read_inputs
from alignslm.report.writing import write_report
from tests.report_world import EXPERIMENT, ORIGIN, build
from tests.test_listening_page import DESKTOP, PHONE, chromium

SCREENSHOTS = os.environ.get("ALIGNSLM_SCREENSHOTS")  # a folder to keep what the browser showed, for people to look at
DEVICES = {"phone": PHONE, "desktop": DESKTOP}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_report(read_inputs(build(folder / "artifacts"), EXPERIMENT), ORIGIN, folder / "reports")
    return folder / "reports" / "index.html"


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        browser = playwright.chromium.launch(executable_path=chromium(), args=arguments)
        yield browser
        browser.close()


@pytest.fixture(params=["light", "dark"])
def scheme(request):
    return request.param


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


@pytest.fixture
def page(browser, report, device, scheme):
    """The report; at the end it must have said nothing on the console and asked for nothing but itself."""
    context = browser.new_context(**DEVICES[device], color_scheme=scheme)
    page = context.new_page()
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(report.as_uri())
    yield page
    context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [report.as_uri()]


def keep(page, name):
    if SCREENSHOTS:
        page.screenshot(path=f"{SCREENSHOTS}/report-{name}.png", full_page=True)


def test_nothing_is_wider_than_the_screen_but_tables_in_their_own_box(page, device, scheme):
    for closed in page.locator("summary").all():
        closed.click()
    wide = page.evaluate("""() => [...document.querySelectorAll("body *")]
        .filter(e => !e.closest(".scroll") && !e.closest("svg") && e.getBoundingClientRect().right > innerWidth + 1)
        .map(e => e.outerHTML.slice(0, 80))""")
    assert wide == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    boxes = page.locator(".scroll").all()
    moved = [box.evaluate("e => { e.scrollLeft = 40; return e.scrollLeft }") for box in boxes]
    assert len(boxes) >= 8
    assert any(moved) or device == "desktop"
    assert page.evaluate("scrollX") == 0
    page.evaluate("document.querySelectorAll('.scroll').forEach(box => box.scrollLeft = 0)")
    keep(page, f"{device}-{scheme}")


def test_every_player_plays(page):
    players = page.locator("audio")
    assert players.count() == 31  # 4 prompts x 7 systems + 4, less the one that said nothing
    played = page.evaluate("""async () => {
        const heard = async player => {
            player.muted = true
            const ended = new Promise((done, failed) => {
                player.onended = done
                player.onerror = () => failed(player.error.message)
            })
            await player.play()
            await ended
            return player.currentTime
        }
        return Promise.all([...document.querySelectorAll("audio")].map(heard))
    }""")
    assert all(seconds > 0.25 for seconds in played)
