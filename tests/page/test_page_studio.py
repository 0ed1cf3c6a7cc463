"""The page in a real browser, before real processes: what a person does in the studio and sees of the fleet."""

import io
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from tests.page.browser import DESKTOP, PHONE, Seen, opened
from tests.service import Service, wait_for
from training.checker import problems
from training.scene import Ground, Scene, Thing

HEART = "a large red heart on a yellow background"
HEART_SEEN = Scene((Thing("red", "heart", size="large", place="center"),), ground=Ground("yellow"))
STAR_SEEN = Scene((Thing("red", "star", size="large", place="center"),), ground=Ground("yellow"))
LOOKS = [(DESKTOP, "light", "en-GB"), (PHONE, "dark", "zh-CN"), (DESKTOP, "dark", "en-GB"), (PHONE, "light", "zh-CN")]
WRONG = {"size": "100x100"}  # what a page might ask whose model has changed since
LONG = 100  # steps: of a job that is still drawn when it is cancelled


def array(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def previews(seen: Seen, count: int) -> list[bytes]:
    """As many different pictures on the way to the one that is drawn."""
    found: list[bytes] = []
    image = seen(".frame img[data-preview].there").last

    def another() -> bool:
        data = seen.pixels(image)
        if data not in found:
            found.append(data)
        return len(found) >= count

    image.wait_for()
    wait_for(f"{count} previews", another)
    return found


def test_a_picture_is_seen_forming_and_kept(browser: Browser, service: Service) -> None:
    with opened(browser, service.http_url) as seen:
        seen.draw(HEART, steps=24)
        first, second = previews(seen, 2)
        assert not np.array_equal(array(first), array(second))
        assert array(first).shape == array(second).shape
        final = array(seen.pixels(seen.finished()))
        assert final.shape == (128, 128, 3)
        assert problems(final, HEART_SEEN) == []
        with seen.page.expect_download() as download:
            seen("button").filter(has_text="Download").click()
        assert download.value.suggested_filename.startswith("a-large-red-heart")
        assert np.array_equal(array(download.value.path().read_bytes()), final)
        seen.page.reload()
        assert np.array_equal(array(seen.pixels(seen.finished())), final)  # kept in the browser
        seed = seen("#seed").input_value()
        seen("#prompt").fill("something else")
        seen("button").filter(has_text="Use again").click()
        assert seen("#prompt").input_value() == HEART
        assert f"seed {seen('#seed').input_value()}" in seen(".facts").inner_text()
        assert seed != seen("#seed").input_value()
        seen(".acts button[aria-label=Delete]").click()
        expect(seen("#tiles li")).to_have_count(0)
        seen("#notice button").filter(has_text="Undo").click()
        expect(seen("#tiles li")).to_have_count(1)


def test_one_of_several_is_cancelled_and_the_fleet_moves(browser: Browser, service: Service) -> None:
    with opened(browser, service.http_url, size=PHONE, scheme="dark") as seen:
        seen.draw("a blue cross", steps=LONG, count=2)
        seen(".frame img[data-preview].there").first.wait_for()
        waiting = seen("#tiles li[data-state=queued] button")
        expect(waiting).to_have_count(1)
        waiting.click()
        expect(seen(".line")).to_contain_text("Number 1 in the queue")
        seen("#cancel").click()
        expect(seen(".line")).to_have_text("Cancelled")
        seen.page.keyboard.press("2")
        step = seen(".gpu[data-busy] .job")
        before = step.inner_text()
        assert before.startswith("Step ")
        expect(step).not_to_have_text(before)
        chart = seen(".chart").first
        before_samples = int(chart.get_attribute("data-samples") or 0)
        wait_for("another sample", lambda: int(chart.get_attribute("data-samples") or 0) > before_samples)
        assert seen(".trace.running").get_attribute("points")
        seen.page.keyboard.press("1")
        seen("#tiles li[data-state=running] button").click()
        seen("#cancel").click()
        expect(seen(".line")).to_have_text("Cancelled")
        seen.page.keyboard.press("2")
        expect(seen(".gpu .job")).to_have_text("Free")
        assert not seen.overflows()


def test_a_refusal_names_the_field_and_the_next_step(browser: Browser, service: Service) -> None:
    with opened(browser, service.http_url) as seen:
        seen.excused = ("400 (Bad Request)",)
        seen.page.keyboard.press("Control+Enter")
        expect(seen("#composer-error")).to_have_text("Say what to draw first.")
        expect(seen("#prompt")).to_be_focused()
        seen.page.route(
            "**/v1/jobs", lambda route: route.continue_(post_data={**route.request.post_data_json, **WRONG})
        )
        seen.draw("a red star", steps=4)
        expect(seen("#composer-error")).to_contain_text("the nearest size it draws is")
        expect(seen("#size")).to_be_focused()
        expect(seen("#size")).to_have_attribute("aria-invalid", "true")
        expect(seen("#tiles li")).to_have_count(0)
        seen.page.unroute("**/v1/jobs")
        seen.draw("a red star", steps=4)
        seen.finished()
        expect(seen("#composer-error")).to_be_empty()


def test_the_picture_comes_although_the_gateway_dies(browser: Browser, service: Service) -> None:
    with opened(browser, service.http_url) as seen:
        seen.excused = ("Failed to load resource", "ERR_CONNECTION", "ERR_EMPTY", "ERR_INCOMPLETE")
        seen.draw(HEART, steps=60)
        seen(".frame img[data-preview].there").first.wait_for()
        [gateway] = service.processes("genserve gateway")
        gateway.send_signal(signal.SIGKILL)
        expect(seen(".line")).to_contain_text("Connection lost")
        assert problems(array(seen.pixels(seen.finished())), HEART_SEEN) == []
        expect(seen("#tiles li")).to_have_count(1)


def test_a_picture_starts_from_another_one(browser: Browser, service: Service, tmp_path: Path) -> None:
    with opened(browser, service.http_url) as seen:
        seen.draw("a large red circle on a yellow background", steps=20)
        circle = array(seen.pixels(seen.finished()))
        seen(".acts button", has_text="Start from it").click()
        expect(seen("#prompt")).to_be_focused()
        assert seen.faults() == []
        seen("#strength").fill("0.9")
        with seen.page.expect_request(lambda request: request.url.endswith("/v1/jobs")) as sent:
            seen.draw("a large red star on a yellow background", steps=20)
        assert sent.value.headers["content-type"].startswith("multipart/form-data")
        expect(seen(".facts")).to_contain_text("from a picture, changed by 0.9")
        expect(seen("#tiles li[data-kind=picture]")).to_have_count(2)
        star = array(seen.pixels(seen.finished()))
        seen(".acts button", has_text="Use again").click()
        expect(seen("#steps")).to_have_value("20")
        assert problems(star, STAR_SEEN) == []
        assert not np.array_equal(star, circle)

        seen("#start-remove").click()
        expect(seen("#start-file")).to_be_focused()
        text = tmp_path / "no picture.png"
        text.write_text("none")
        seen("#start-file").set_input_files(text)
        expect(seen("#start-wrong")).to_contain_text("no picture")
        large = tmp_path / "large.bmp"
        Image.new("RGB", (5000, 1000), "white").save(large)
        seen("#start-file").set_input_files(large)
        expect(seen("#start-thumb")).to_be_visible()
        assert seen("#start-thumb").evaluate("image => image.decode().then(() => image.naturalWidth)") == 2048
        expect(seen("#shapes input[value='16:9']")).to_be_checked()
        expect(seen("#strength")).to_be_focused()
        for give in (
            "document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, cancelable: true}))",
            "document.dispatchEvent(new DragEvent('drop', {dataTransfer: data, cancelable: true}))",
        ):
            seen("#start-remove").click()
            seen.page.evaluate(f"""async () => {{
                const canvas = Object.assign(document.createElement("canvas"), {{width: 90, height: 160}});
                const blob = await new Promise((made) => canvas.toBlob(made, "image/png"));
                const data = new DataTransfer();
                data.items.add(new File([blob], "given.png", {{type: "image/png"}}));
                {give};
            }}""")
            expect(seen("#start-thumb")).to_be_visible()
            expect(seen("#shapes input[value='9:16']")).to_be_checked()
        seen.page.reload()
        seen("#tiles li[data-kind=picture]").first.locator("button").first.click()
        seen(".acts button", has_text="Use again").click()
        expect(seen("#start-thumb")).to_be_visible()


def test_behind_a_full_queue_it_is_said_why_and_for_how_many(browser: Browser, service: Service) -> None:
    full = {"message": "the queue is full", "code": "queue_full", "param": None, "what_to_do": ""}
    with opened(browser, service.http_url) as seen:
        seen.excused = ("429 (Too Many Requests)",)
        refuse = {"status": 429, "headers": {"Retry-After": "1"}, "json": {"error": full}}
        seen.page.route("**/v1/jobs", lambda route: route.fulfill(**refuse))
        seen.draw("a red star", steps=4, count=4)
        expect(seen(".line")).to_contain_text("The queue is full. Asking again in 1")
        seen("#tiles li").nth(0).locator("button").first.click()
        expect(seen(".line")).to_contain_text("Behind 3 of yours")
        expect(seen(".line")).to_contain_text("The queue is full.")
        seen.page.unroute("**/v1/jobs")
        seen.finished()
        expect(seen("#tiles li[data-kind=job]")).to_have_count(0)


@pytest.mark.parametrize("locale", ["en-GB", "zh-CN"])
def test_on_the_smallest_phone_the_prompt_is_there_at_once_and_nothing_covers_it(
    browser: Browser, service: Service, locale: str
) -> None:
    with opened(browser, service.http_url, size=(320, 600), locale=locale, touch=True) as seen:
        assert not seen.overflows()
        prompt = seen("#prompt").bounding_box()
        assert prompt is not None
        assert prompt["y"] + prompt["height"] / 2 < 600
        seen("#steps").fill("4")
        seen("#prompt").fill("a large green heart")
        seen("#generate").click()
        seen.finished()
        assert not seen.overflows()
        covered = """element => { const box = element.getBoundingClientRect();
            return document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2) !== element; }"""
        seen("#prompt").scroll_into_view_if_needed()
        assert not seen("#prompt").evaluate(covered)
        below, model = seen("#generate").bounding_box(), seen("#model").bounding_box()
        assert below is not None
        assert model is not None
        assert below["y"] < model["y"], "Draw stands under the prompt"
        expect(seen("#generate-keys")).not_to_be_visible()


@pytest.mark.parametrize(("size", "scheme", "locale"), LOOKS)
def test_everyone_can_use_it(
    browser: Browser, service: Service, size: tuple[int, int], scheme: str, locale: str
) -> None:
    with opened(browser, service.http_url, size=size, scheme=scheme, locale=locale) as seen:
        assert seen.faults() == []
        seen.draw("a green star", steps=4)
        seen.finished()
        assert seen.faults() == []
        assert not seen.overflows()
        seen("#help").click()
        assert seen.faults() == []
        seen.page.keyboard.press("Escape")
        seen("#tab-fleet").click()
        seen(".gpu").first.wait_for()
        assert seen.faults() == []
        assert not seen.overflows()
