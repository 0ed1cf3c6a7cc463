"""Makes the README's screenshots again, from a service of two CPUs: python -m tests.page.shots (needs chromium)."""

import tempfile
from pathlib import Path

from PIL import Image

from tests.page.browser import Seen, opened, started
from tests.service import running, wait_for

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "page"
BYTES_MAX = 200 * 1024
SAMPLES = 12  # of the fleet, before it is shown
PROMPTS = (
    "a large red heart on a yellow background",
    "a small blue star above a large orange ring",
    "a striped green circle on a pink background",
    "a large purple star on a white background",
    "a blue cross on the right",
)


def kept(seen: Seen, name: str) -> None:
    path = FOLDER / f"{name}.png"
    seen.page.screenshot(path=path)
    with Image.open(path) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    assert path.stat().st_size < BYTES_MAX, path


def gallery(seen: Seen) -> None:
    for prompt in PROMPTS[1:]:
        seen.draw(prompt, steps=20)
        seen("#tiles li[data-kind=job]").first.wait_for()
        seen("#tiles li[data-kind=job]").first.wait_for(state="detached")


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder), "--gpus", "cpu,cpu", workers=2) as service,
        started() as browser,
        opened(browser, service.http_url) as seen,
    ):
        gallery(seen)
        seen.draw(PROMPTS[0], steps=60)
        seen(".frame img[data-preview='4'].there").wait_for()
        kept(seen, "studio")
        seen.finished()
        for prompt in PROMPTS[:4]:
            seen.draw(prompt, steps=60, count=2)
        seen("#tab-fleet").click()
        chart = seen(".chart").first
        chart.wait_for()
        begun = int(chart.get_attribute("data-samples") or 0)
        wait_for("some history", lambda: int(chart.get_attribute("data-samples") or 0) > begun + SAMPLES)
        seen(".gpu[data-busy]").nth(1).wait_for()
        kept(seen, "fleet")


if __name__ == "__main__":
    main()
