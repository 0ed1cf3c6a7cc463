"""The two READMEs say the same, name only what exists, and their examples run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from common.settings import OLDER_NAMES, SECTIONS
from tests.service import Service

ROOT = Path(__file__).resolve().parents[2]
ENGLISH = (ROOT / "README.md").read_text("utf-8")
CHINESE = (ROOT / "README.zh.md").read_text("utf-8")
PAGES = [
    path
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "systemd").glob("*.md"))
    if path.name != "CHANGELOG.md"
]
EXAMPLE_TIMEOUT_S = 120


def blocks(text: str) -> list[tuple[str, str]]:
    return re.findall(r"^```([^\n]*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def headings(text: str) -> list[int]:
    return [len(marks) for marks in re.findall(r"^(#+) ", without_blocks(text), re.MULTILINE)]


def tables(text: str) -> list[list[str]]:
    """The names in code in each table row."""
    rows = re.findall(r"^\|(.*)\|$", without_blocks(text), re.MULTILINE)
    return [sorted(re.findall(r"`([A-Z_]{4,}|\[\w+\] \w+|(?:GET|POST) [^`]+)`", row)) for row in rows]


def links(text: str) -> list[str]:
    found = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", without_blocks(text))
    return sorted(link for link in found if not link.startswith("README"))


def test_the_languages_are_kept_alike() -> None:
    assert headings(ENGLISH) == headings(CHINESE)
    assert blocks(ENGLISH) == blocks(CHINESE)
    assert tables(ENGLISH) == tables(CHINESE)
    assert links(ENGLISH) == links(CHINESE)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for link in links(path.read_text("utf-8")):
        if not link.startswith("http"):
            assert (path.parent / link).exists(), link


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_within_a_page_lead_to_a_heading(path: Path) -> None:
    text = path.read_text("utf-8")
    heads = re.findall(r"^#+ (.+)$", without_blocks(text), re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors


def in_words(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_settings_in_the_table_exist_with_these_defaults() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| `\[(\w+)\] (\w+)` \| (.+?) \| .* \|$", ENGLISH, re.MULTILINE)
    assert len(rows) >= 15
    for variable, section, key, shown in rows:
        kind = SECTIONS[section]
        default = getattr(kind(), key)
        assert variable in (f"GENSERVE_{section}_{key}".upper(), *OLDER_NAMES)
        assert OLDER_NAMES.get(variable, (section, key)) == (section, key)
        if default != "":  # an empty one is told in words
            assert shown == in_words(default)


@pytest.mark.parametrize("example", [body for kind, body in blocks(ENGLISH) if kind == "sh run"])
def test_the_examples_run(example: str, service: Service, tmp_path: Path) -> None:
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    script = example.replace("http://127.0.0.1:12411", service.http_url)
    script = script.replace("tcp://127.0.0.1:12412", service.client_endpoint)
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "GENSERVE_GATEWAY_ROUTER_ENDPOINT": service.client_endpoint,
        "GENSERVE_GATEWAY_PORT": str(service.port),
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=EXAMPLE_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    made = [path for path in tmp_path.iterdir() if path.is_file()]
    wanted = set(re.findall(r"(?:-o |> |ground\" )([\w-]+\.(?:png|json))", script))
    assert wanted <= {path.name for path in made}
    assert all(path.read_bytes().startswith((b"\x89PNG", b"{", b"<!doctype html>")) for path in made)
