"""The commands of docs/operations.md, as they stand there: watching, backing up and restoring."""

import re
from pathlib import Path

from tests.service import wait_for
from tests.system.machine import Machine
from tests.system.service import gpus_ready, job, picture, submit, wait_done

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "operations.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```sh system\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def example(words: str) -> str:
    """The only example that holds these words, for a shell of root's."""
    (found,) = [text for text in EXAMPLES if words in text]
    return "set -eux\n" + found.replace("sudo ", "")


def test_what_was_backed_up_can_be_restored(ready: Machine) -> None:
    ended = submit(ready)
    wait_done(ready, [ended])
    waiting = picture(ready)
    ready.run("sh", "-c", example("tar -C / -cf"))
    assert waiting.result()[0] == 200  # the pause was felt by nobody
    assert ready.run("stat", "--format=%a", "/var/backups/genserve.tar").strip() == "600"
    later = submit(ready)
    wait_done(ready, [later])
    ready.run("sh", "-c", example("tar -C / -xpf"))
    wait_for("GPUs after the restoration", lambda: gpus_ready(ready) == 2, 120)
    assert job(ready, ended)["state"] == "done"
    assert ready.call(later).result()[0] == 404
    assert picture(ready).result()[0] == 200


def test_watching_shows_the_service(ready: Machine) -> None:
    ready.run("ln", "-sf", "/opt/genserve/bin/genserve", "/usr/local/bin/genserve")
    said = ready.run("sh", "-c", example("list-units").replace("curl -sf", "true"))
    assert "genserve-router.service" in said
    assert "cpu:0" in said
