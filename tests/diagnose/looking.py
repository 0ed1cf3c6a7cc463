"""Diagnoses for tests: only the checks concerned, of a machine whose settings are the test's own."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from genserve.diagnose.catalogue import chosen
from genserve.diagnose.finding import Finding
from genserve.diagnose.host import Host
from genserve.diagnose.run import diagnose
from gpu_daemon.model_folder import CARD_FILE, EMBEDDED
from tests.ports import free_ports


def clean(**more: str) -> dict[str, str]:
    """This process's environment without any setting of GenServe's, and `more`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GENSERVE_", "FLUX_", "SAVE_TEST", "CUDA_"))}
    return {**kept, **more}


def look(only: str, *, quick: bool = True, **given: Any) -> dict[str, Finding]:
    """The findings by name. Every one that is not ok has a command that a shell can read."""
    env = clean(**given.pop("env", {}))
    given.setdefault("port", free_ports())
    checks, unknown = chosen(only)
    assert not unknown
    findings = {finding.name: finding for finding in diagnose(checks, Host(env=env, **given), quick=quick)}
    assert list(findings) == [check.name for check in checks]
    for finding in findings.values():
        assert "the check itself failed" not in finding.detail, finding
        assert (finding.status == "ok") == (finding.fix == ""), finding
        if finding.fix:
            subprocess.run(["bash", "-n", "-c", finding.fix], check=True)
    return findings


def model(folder: Path) -> Path:
    """A whole model that came from elsewhere, to be spoiled: as the one inside GenServe, but for its name."""
    target = folder / "FLUX.1-copy"
    shutil.copytree(EMBEDDED, target)
    card = target / CARD_FILE
    card.write_text(card.read_text().replace('"genserve-shapes"', '"flux-copy"'))
    return target


def found(finding: Finding, status: str, said: str, mend: str) -> None:
    """Held to what it must say."""
    assert finding.status == status, finding
    assert said in finding.detail, finding
    assert mend in finding.fix, finding
