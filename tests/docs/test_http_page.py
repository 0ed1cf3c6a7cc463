"""docs/http.md lists every field of the dialects and no other, and its example runs."""

import re
import subprocess
import sys
from pathlib import Path

import msgspec

from gateway.dialects import inputs, openai
from gateway.dialects.errors import STATUS
from gateway.dialects.generate import FILES, UploadRequest
from tests.service import Service

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "http.md").read_text("utf-8")
TIMEOUT_S = 120


def section(heading: str) -> str:
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def listed(heading: str) -> set[str]:
    rows = re.findall(r"^\| (`.*?) \|", section(heading), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def fields(kind: type[msgspec.Struct]) -> set[str]:
    return {field.name for field in msgspec.structs.fields(kind)}


def test_the_fields_are_those_of_the_code() -> None:
    assert listed("Pictures from a prompt") == fields(openai.ImagesRequest)
    of_edits = fields(openai.EditsRequest) - fields(openai.ImagesRequest) | set(inputs.FILES)
    assert listed("Pictures from pictures") == of_edits
    assert fields(openai.ImagesRequest) - fields(openai.EditsRequest) == {"style"}
    named = set(re.findall(r"`(\w+)`", section("The older form")))
    assert fields(UploadRequest) - {"model", "deadline_s", "save_disk_path"} | set(FILES) <= named


def test_the_codes_have_these_statuses() -> None:
    for status, codes in re.findall(r"^\| (\d{3}) \| (.*?) \|", section("Errors"), re.MULTILINE):
        for code in re.findall(r"`(\w+)`", codes):
            assert STATUS[code] == int(status) or status in ("408", "415"), code  # which have no code of their own


def test_the_example_runs(service: Service, tmp_path: Path) -> None:
    (example,) = re.findall(r"^```python run\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    script = example.replace("http://127.0.0.1:12411", service.http_url)
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["star-0.jpeg", "star-1.jpeg", "star.png"]
    assert "/v1/images/files/" in done.stdout
