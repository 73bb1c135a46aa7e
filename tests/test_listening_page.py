"""The page in a real browser: rated by keyboard and by touch, at phone size, without errors and without the world."""

import os
import re
import shutil
from contextlib import contextmanager

import pytest
from playwright.sync_api import expect, sync_playwright

from alignslm.listening.storage import Ratings
from alignslm.listening.study import build_study, read_study
from tests.listening_world import STUDY, build
from tests.test_listening_server import served

SCREENSHOTS = os.environ.get("ALIGNSLM_SCREENSHOTS")  # a folder to keep what the browser showed, for people to look at
PHONE = {"viewport": {"width": 375, "height": 667}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
DESKTOP = {"viewport": {"width": 1280, "height": 800}}


def chromium() -> str:
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert path, "no Chromium: `make test` installs Debian's as root; elsewhere install the package chromium"
    return path


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    build_study(STUDY.model_copy(update={"prompts": 3}), build(folder / "artifacts"), folder / "study")
    ratings = Ratings(folder / "study" / "ratings.sqlite")
    ratings.invite(6)
    ratings.close()
    return folder / "study"


@pytest.fixture(scope="module")
def base(study):
    with served(study) as (base, _):
        yield base


def answers(study, number):
    ratings = Ratings(study / "ratings.sqlite")
    rater = ratings.raters()[number]
    stored = {row.clip_id: row for row in ratings.stored(rater.rater_id)}
    ratings.close()
    made, clips = read_study(study)
    ids = {(row["prompt_id"], row["system"]): row["clip_id"] for row in clips.to_dicts()}
    return rater, [stored.get(ids[trial]) for trial in made.trials(rater.number)]


@contextmanager
def visit(browser, base, rater, device, **options):
    """A page of a rater; at the end it must have said nothing on the console and asked nobody but its server."""
    context = browser.new_context(**device, **options)
    page = context.new_page()
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(f"{base}/r/{rater.token}")
    yield page
    context.close()
    assert complaints == []
    assert all(url.startswith((base, "data:")) for url in requests)


def keep(page, name):
    if SCREENSHOTS:
        page.wait_for_timeout(250)
        page.screenshot(path=f"{SCREENSHOTS}/{name}.png", full_page=True)


def until(page, condition):
    """Wait for a condition on the audio element; wait_for_function would need the eval that the page's policy bars."""
    for _ in range(400):
        if page.evaluate(f"(() => {{ const sound = document.getElementById('sound'); return {condition}; }})()"):
            return
        page.wait_for_timeout(25)
    pytest.fail(f"never: {condition}")


def wait_until_heard(page):
    until(page, "sound.ended")
    expect(page.get_by_role("button", name="Play again")).to_be_visible()


def test_a_study_is_rated_by_touch_on_a_phone(browser, base, study):
    rater, _ = answers(study, 0)
    with visit(browser, base, rater, PHONE) as page:
        expect(page.get_by_role("heading", name="A short study")).to_be_visible()
        for number, label in enumerate(("some sense", "no sense", "perfect sense"), 1):
            expect(page.locator("#count")).to_have_text(f"{number} of 3")
            choice = page.get_by_role("button", name=label)
            expect(choice).to_be_disabled()  # nobody rates what nobody heard
            if number == 1:
                keep(page, "phone-before")
            page.get_by_role("button", name="Play", exact=True).tap()
            until(page, "sound.currentTime > 0.2")
            if number == 1:
                keep(page, "phone-playing")
            wait_until_heard(page)
            if number == 2:
                keep(page, "phone-heard")
            sizes = [button.bounding_box() for button in page.locator(".score").all()]
            assert all(box["height"] >= 44 and box["x"] >= 0 and box["x"] + box["width"] <= 375 for box in sizes)
            choice.tap()
        expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        keep(page, "phone-end")
    _, stored = answers(study, 0)
    assert [row.score for row in stored] == [3, 1, 5]
    assert all(row.plays == 1 and 0.5 < row.seconds < 60 for row in stored)


def test_a_study_is_rated_by_keyboard_stopped_and_taken_up_again(browser, base, study):
    rater, _ = answers(study, 1)
    with visit(browser, base, rater, DESKTOP) as page:
        expect(page.locator("#count")).to_have_text("1 of 3")
        page.keyboard.press("4")  # too early: not heard yet
        page.keyboard.press("Space")
        until(page, "sound.currentTime > 0.2")
        keep(page, "desktop-playing")
        wait_until_heard(page)
        page.keyboard.press("4")
        expect(page.locator("#count")).to_have_text("2 of 3")
        expect(page.locator("#message")).to_have_text("Saved.")
    assert [row and row.score for row in answers(study, 1)[1]] == [4, None, None]
    with visit(browser, base, rater, DESKTOP) as page:  # another day, the same link
        expect(page.locator("#count")).to_have_text("2 of 3")
        page.keyboard.press("ArrowLeft")
        expect(page.locator("#count")).to_have_text("1 of 3")
        expect(page.locator(".score[aria-pressed=true]")).to_have_text(re.compile("good sense"))
        page.keyboard.press("2")  # heard before, so it may be changed at once; on to the first clip without an answer
        expect(page.locator("#count")).to_have_text("2 of 3")
        for number in (2, 3):
            expect(page.locator("#count")).to_have_text(f"{number} of 3")
            page.keyboard.press("Space")
            wait_until_heard(page)
            page.keyboard.press("5")
        expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
        keep(page, "desktop-end")
    stored = answers(study, 1)[1]
    assert [(row.score, row.changes) for row in stored] == [(2, 1), (5, 0), (5, 0)]


def test_without_connection_the_answer_waits_and_arrives_once(browser, base, study):
    rater, _ = answers(study, 2)
    context = browser.new_context(**PHONE)
    page = context.new_page()
    page.goto(f"{base}/r/{rater.token}")
    page.get_by_role("button", name="Play", exact=True).tap()
    wait_until_heard(page)
    context.set_offline(True)
    page.get_by_role("button", name="some sense").tap()
    expect(page.locator("#message")).to_contain_text("No connection. Trying again")
    keep(page, "phone-offline")
    assert answers(study, 2)[1][0] is None
    context.set_offline(False)
    expect(page.locator("#count")).to_have_text("2 of 3", timeout=15_000)
    context.close()
    assert (answers(study, 2)[1][0].score, answers(study, 2)[1][0].changes) == (3, 0)


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A study of clips of a fifth of a second each: a single frame of FLAC, were they not made longer."""
    folder = tmp_path_factory.mktemp("short")
    cut = [STUDY.model_copy(update={"prompts": 3, "pause_s": 0.0}), build(folder / "artifacts", seconds=0.1)]
    build_study(*cut, folder / "study")
    ratings = Ratings(folder / "study" / "ratings.sqlite")
    ratings.invite(1)
    ratings.close()
    return folder / "study"


def test_the_shortest_clips_play_where_a_phone_loads_no_more_than_their_head(browser, short):
    _, clips = read_study(short)
    assert clips["duration_s"].max() < 0.3
    rater, _ = answers(short, 0)
    with served(short) as (base, _):
        context = browser.new_context(**PHONE)
        context.route("**/r/*", lambda route: route.fulfill(body=frugal(route)))
        page = context.new_page()
        page.goto(f"{base}/r/{rater.token}")
        for number in (1, 2, 3):
            expect(page.locator("#count")).to_have_text(f"{number} of 3")
            page.wait_for_timeout(300)  # a browser may still go on loading what it plays at once
            page.get_by_role("button", name="Play", exact=True).tap()
            wait_until_heard(page)
            page.get_by_role("button", name="some sense").tap()
        expect(page.get_by_role("heading", name="Thank you")).to_be_visible()
        context.close()


def frugal(route):
    """The page as a phone that saves data takes it: sound is not loaded ahead, whatever the page asks for."""
    told = route.fetch().text()
    assert told.count('preload="auto"') == 1
    return told.replace('preload="auto"', 'preload="metadata"')


def test_a_dark_phone_and_a_wide_desktop_show_everything(browser, base, study):
    rater, _ = answers(study, 3)
    with visit(browser, base, rater, PHONE, color_scheme="dark") as page:
        expect(page.locator("#count")).to_have_text("1 of 3")
        keep(page, "phone-dark")
    with visit(browser, base, rater, DESKTOP) as page:
        expect(page.locator("#count")).to_have_text("1 of 3")
        assert page.evaluate("document.documentElement.scrollHeight <= window.innerHeight")  # no scrolling to the scale
        keep(page, "desktop-before")
