"""The report in a real browser: silent console, no network, sound that plays, tables that scroll inside themselves."""

import itertools
import os

import pytest
from playwright.sync_api import sync_playwright

from alignslm.report.inputs import read_inputs
from alignslm.report.writing import write_report
from tests.report_world import EXPERIMENT, ORIGIN, build
from tests.test_listening_page import DESKTOP, PHONE, chromium

SCREENSHOTS = os.environ.get("ALIGNSLM_SCREENSHOTS")  # a folder to keep what the browser showed, for people to look at
KINDS = ("h1", "figure svg", "audio")
# Texts with less than 4.5 : 1 (WCAG 2, level AA) to the nearest background that is not transparent.
CONTRASTS = """() => {
    const rgb = text => text.match(/[\\d.]+/g).map(Number)
    const light = c => c.slice(0, 3).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0)
    const behind = e => { for (; e; e = e.parentElement) {
        const c = rgb(getComputedStyle(e).backgroundColor)
        if (c.length < 4 || c[3] > 0) return c
    } return [255, 255, 255] }
    return [...document.querySelectorAll("body *")].filter(e => !e.closest("svg") && e.checkVisibility() &&
        [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())).map(e => {
            const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x)
            return [(a + .05) / (b + .05), e.outerHTML.slice(0, 80)]
        }).filter(([ratio]) => ratio < 4.5)
}"""
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


def test_the_first_screen_answers_shows_and_plays(page, device):
    bottoms = [page.locator(kind).first.evaluate("e => e.getBoundingClientRect().bottom") for kind in KINDS]
    limits = [300, 1200, 1500] if device == "phone" else [330, 800, 800]
    assert [where <= limit for where, limit in zip(bottoms, limits, strict=True)] == [True] * 3, bottoms
    assert page.locator("h1").count() == 1
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(e => +e.tagName[1])")
    assert all(below - above <= 1 for above, below in itertools.pairwise(levels))
    assert page.locator("audio[autoplay]").count() == 0


def test_text_stands_out_from_what_is_behind_it(page):
    for closed in page.locator("summary").all():
        closed.click()
    assert page.evaluate(CONTRASTS) == []


def test_a_table_that_fits_a_screen_of_1280_pixels_is_not_cut_off(browser, report):
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(report.as_uri())
    assert page.locator("thead").first.get_by_text("predicted MOS").is_visible()
    shown = "[...document.querySelectorAll('.scroll')].filter(e => e.checkVisibility())"
    wide = page.evaluate(f"{shown}.map(e => e.scrollWidth > e.clientWidth)")
    assert len(wide) == 5
    assert not any(wide)
    page.close()


@pytest.mark.parametrize("width", [1280, 1920])
def test_no_plot_stands_alone_in_a_row_of_several(browser, report, width):
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(report.as_uri())
    grids = page.evaluate("""() => [...document.querySelectorAll("section[aria-labelledby^=figures] .grid")].map(grid =>
        [...grid.children].map(e => Math.round(e.getBoundingClientRect().top)))""")
    assert len(grids) == 4
    assert all(len(tops) == 1 or tops.count(tops[-1]) > 1 for tops in grids), grids
    page.close()


def test_every_player_plays(page):
    players = page.locator("audio")
    assert players.count() == 37  # 4 prompts x 7 systems + 4, less the one that said nothing, and 2 picked x 3
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
