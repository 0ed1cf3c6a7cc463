"""Runs a diagnosis and shows it: live on a terminal, plain where it is piped, as JSON for programs."""

import sys
from collections.abc import Mapping
from typing import Any

import typer
from rich.console import Console

from common.clock import monotonic_s
from genserve.diagnose.catalogue import TITLES, chosen
from genserve.diagnose.host import Host
from genserve.diagnose.report import Report, as_json_text
from genserve.diagnose.run import diagnose

EXIT_FAILED = 1


def run(
    env: Mapping[str, str],
    flags: Mapping[str, Mapping[str, Any]],
    *,
    port: int | None,
    only: str,
    quick: bool,
    as_json: bool,
) -> int:
    """The exit status: 1 where a check failed."""
    checks, unknown = chosen(only)
    if unknown:
        raise typer.BadParameter(
            f"there is no check {unknown[0]!r}; there are {', '.join(TITLES)}, and single ones such as gpus.driver",
            param_hint="--only",
        )
    began = monotonic_s()
    console = Console()
    host = Host(env, flags, port)
    if as_json:
        findings = list(diagnose(checks, host, quick=quick))
        sys.stdout.write(as_json_text(findings) + "\n")
    else:
        report, findings = Report(console, TITLES), []
        with console.status("") as status:
            host.say = status.update
            for check, finding in zip(checks, diagnose(checks, host, quick=quick), strict=True):
                status.update(f"[dim]{check.name}")
                report.tell(finding)
                findings.append(finding)
        report.end(findings, monotonic_s() - began)
    return EXIT_FAILED if any(finding.status == "fail" for finding in findings) else 0
