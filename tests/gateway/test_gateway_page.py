"""The page's files: who gets them, how long they are kept, what their policy allows, and that they are whole."""

import re
from pathlib import Path

import gateway
from gateway.assets import of_page
from tests.gateway.conftest import Door

PAGE = Path(gateway.__file__).with_name("page")
SCRIPTS = {path.name: path.read_text("utf-8") for path in PAGE.glob("*.js")}
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
PACKED_BYTES_MAX = 48_000  # of all that a browser fetches
LINES_MAX = 350


async def test_a_browser_gets_the_page_and_a_program_the_list(door: Door) -> None:
    async with door.client.get(door.url + "/", headers=HTML) as answer:
        page = await answer.text()
        policy = answer.headers["Content-Security-Policy"]
        assert (answer.headers["Vary"], answer.headers["Cache-Control"]) == ("Accept, Accept-Encoding", "no-cache")
        tag = answer.headers["ETag"]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page), "the policy would refuse it"
    async with door.client.get(door.url + "/", headers={**HTML, "If-None-Match": tag}) as answer:
        assert (answer.status, await answer.read()) == (304, b"")
    async with door.client.get(door.url + "/") as answer:
        assert "curl -s" in await answer.text()


async def test_its_files_are_kept_for_good_at_an_address_of_their_own(door: Door) -> None:
    async with door.client.get(door.url + "/", headers=HTML) as answer:
        named = re.findall(r'(?:src|href)="(page/[^"]+)"', await answer.text())
    assert {path.rpartition("/")[2] for path in named} == set(of_page().files)
    for path in named:
        async with door.client.get(f"{door.url}/{path}") as answer:
            assert answer.status == 200, path
            assert "immutable" in answer.headers["Cache-Control"]
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Content-Encoding"] == "gzip"
            assert await answer.read() == of_page().files[path.rpartition("/")[2]].data
    async with door.client.get(
        f"{door.url}/page/of-yesterday/main.js", headers={"Accept-Encoding": "identity"}
    ) as answer:
        assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-store")
        assert "Content-Encoding" not in answer.headers
    for path in ("/page/x/nothing.js", "/page/x/..%2Fapp.py", "/page/x/index.html"):
        status, body, _ = await door.get(path)
        assert (status, body["error"]["code"]) == (404, "not_found")


def test_it_is_light_and_asks_nobody_else() -> None:
    assets = of_page()
    assert len(assets.index.packed) + sum(len(asset.packed) for asset in assets.files.values()) < PACKED_BYTES_MAX
    for path in PAGE.iterdir():
        text = path.read_text("utf-8")
        outside = re.findall(r"https?://(?!www\.w3\.org/2000/svg)[^\s\"']+", text)
        assert outside == [], path.name
        assert len(text.splitlines()) <= LINES_MAX, path.name
        if path.suffix == ".js":
            assert text.startswith("// "), f"{path.name} does not say what it holds"
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text), path.name


def test_every_module_that_is_imported_is_there() -> None:
    for name, text in SCRIPTS.items():
        for imported in re.findall(r'from "\./([^"]+)"', text):
            assert imported in SCRIPTS, f"{name} imports {imported}"
            names = re.search(rf'import \{{([^}}]+)\}} from "\./{re.escape(imported)}"', text)
            assert names is not None
            for each in re.split(r"[,\s]+", names[1].strip()):
                assert re.search(rf"export (async )?(const|class|function\*?) {each}\b", SCRIPTS[imported]), (
                    name,
                    each,
                )


def test_every_word_is_there_in_both_languages() -> None:
    english, chinese = (
        dict(re.findall(r'^  (\w+): "(.*)",$', SCRIPTS[name], re.MULTILINE)) for name in ("english.js", "chinese.js")
    )
    own = {name for name in chinese if name.startswith("code_")}  # for what the service says in English
    assert set(chinese) - own == set(english)
    for name, text in english.items():
        assert set(re.findall(r"\{\w+\}", text)) >= set(re.findall(r"\{\w+\}", chinese[name])), name
    told = "\n".join([*SCRIPTS.values(), (PAGE / "index.html").read_text("utf-8")])
    used = set(re.findall(r'\bt\("(\w+)"', told)) | set(re.findall(r'data-t(?:-\w+)?="(\w+)"', told))
    assert used <= set(english), used - set(english)
