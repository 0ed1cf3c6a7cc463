"""The short run of every `make test`; `make fuzz-http` is the long one."""

import re
from pathlib import Path

from gateway.routes.table import ROUTES
from tests.openapi.campaign import run
from tests.service import running


def test_no_5xx_and_nothing_undocumented(tmp_path: Path) -> None:
    with running(tmp_path, "--engine", "noop", "--gpus", "cpu") as service:
        clean, report = run(service, examples=3, phases="coverage,fuzzing", seed=1)
        assert clean, report[-8000:]
        asked = len(ROUTES) - 1  # it leaves out the document's own address
        assert re.search(rf"Tested: +{asked}\b", report), report[-8000:]
