"""A public tester of schemas (schemathesis) against a real gateway with the no-op engine: it reads /openapi.json.

What it must not find, whatever it asks: a 5xx; a status, content type, header or body that the document does not have;
a malformed request that is taken; a method that is answered but not documented. Two of its rules are not ours: what
fits the schema may still be refused (the model's sizes, a key used before), and a cancelled job is still there.
"""

import subprocess
import sys

from tests.service import Service

NOT_OURS = ("positive_data_acceptance", "use_after_free")


def command(url: str, *, examples: int, phases: str, seed: int | None) -> list[str]:
    """The command that a person would type."""
    found = [
        "-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--max-examples", str(examples), "--phases", phases,
        "--exclude-checks", ",".join(NOT_OURS), "--generation-database", "none", "--no-color",
    ]  # fmt: skip
    return [sys.executable, *found, *(("--seed", str(seed)) if seed is not None else ())]


def run(service: Service, *, examples: int, phases: str, seed: int | None = None) -> tuple[bool, str]:
    """Did it find nothing? And its report, each finding with the request that shows it."""
    done = subprocess.run(
        command(service.http_url, examples=examples, phases=phases, seed=seed),
        cwd=service.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode == 0, done.stdout + done.stderr
