"""One trace of one job, from a real service with its embedded model, drawn as a picture for the docs.

    python -m bench.trace_picture [--steps 12] [--out docs/traces]

Starts a collector and `genserve up`, asks for one picture over HTTP, and writes the spans as they came (trace.json) and
the drawing of them (trace.svg). The drawing is of the file alone, so `--again` draws the one that is there.
"""

import argparse
import contextlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from html import escape
from pathlib import Path

from tests.collector import Taken, collecting
from tests.service import running, wait_for

NAMES_PX, WIDTH_PX, ROW_PX, TOP_PX, RIGHT_PX = 250, 1000, 30, 58, 150
GRID = 6  # lines of time, about
COLOURS = {"genserve-gateway": "g", "genserve-router": "r"}
ENGINE = frozenset({"draw", "encode", "denoise", "decode", "save"})
STYLE = """
text{font:13px system-ui,sans-serif;fill:#1c2128}.soft{fill:#57606a}.mono{font:12px ui-monospace,Menlo,monospace}
.line{stroke:#d0d7de}.paper{fill:#fff}.g{fill:#3b7dd8}.r{fill:#8a63d2}.e{fill:#d9822b}.tick{stroke:#fff;stroke-width:1.5}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.soft{fill:#a3adb8}.line{stroke:#333d48}.paper{fill:#0f141a}
.g{fill:#5b9cf0}.r{fill:#a98bea}.e{fill:#eba050}.tick{stroke:#0f141a}}
"""


def record(steps: int) -> list[Taken]:
    """The spans of one picture's trace, as a collector has them."""
    with tempfile.TemporaryDirectory() as folder, collecting() as collector:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "50"}
        with running(Path(folder), "--gpus", "cpu", env=env) as service:
            body = {"prompt": "a red circle above a blue square", "seed": 7, "num_inference_steps": steps}
            service.post("/v1/images/generations", body)  # its engine has drawn one: the next is as all others
            status, answer, _ = service.post("/v1/images/generations", body)
            if status != 200:
                raise SystemExit(f"no picture: {answer}")
            job_id = answer["data"][0]["genserve"]["job_id"]

            def whole() -> list[Taken]:
                job = [span for span in collector.spans if span.attributes.get("genserve.job.id") == job_id]
                return [each for each in collector.spans if job and each.trace_id == job[0].trace_id]

            wait_for("whole trace", lambda: {"store", "POST /v1/images/generations"} <= {s.name for s in whole()})
            return whole()


def in_order(spans: list[Taken]) -> list[tuple[int, Taken]]:
    """Parents before their children, by time; with how deep each lies."""
    ids = {span.span_id for span in spans}
    found: list[tuple[int, Taken]] = []

    def visit(parent_id: str | None, depth: int) -> None:
        inside = [s for s in spans if (s.parent_id if s.parent_id in ids else None) == parent_id]
        for span in sorted(inside, key=lambda each: (each.began_at, each.ended_at)):
            found.append((depth, span))
            visit(span.span_id, depth + 1)

    visit(None, 0)
    return found


def draw(spans: list[Taken]) -> str:
    """The picture."""
    rows = in_order(spans)
    begin, end = min(s.began_at for s in spans), max(s.ended_at for s in spans)
    height = TOP_PX + ROW_PX * len(rows) + 40

    def x(at: float) -> float:
        return NAMES_PX + (at - begin) / (end - begin) * (WIDTH_PX - NAMES_PX - RIGHT_PX)

    size = f'viewBox="0 0 {WIDTH_PX} {height}" width="{WIDTH_PX}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="One trace of one job">',
        f'<style>{STYLE}</style><rect class="paper" width="{WIDTH_PX}" height="{height}"/>',
        f'<text x="16" y="24" font-weight="600">trace {rows[0][1].trace_id}</text>',
    ]
    for label, css, left in (
        ("gateway", "g", 640),
        ("router", "r", 730),
        ("engine, as its router heard of it", "e", 805),
    ):
        parts.append(f'<rect class="{css}" x="{left - 16}" y="14" width="11" height="11" rx="2"/>')
        parts.append(f'<text class="soft" x="{left}" y="24">{label}</text>')
    step_s = _round_step((end - begin) / GRID)
    count = int((end - begin) / step_s) + 1
    for index in range(count):
        at = x(begin + index * step_s)
        parts.append(f'<line class="line" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP_PX - 8}" y2="{height - 34}"/>')
        parts.append(
            f'<text class="soft" x="{at:.1f}" y="{height - 16}" text-anchor="middle">{_time(index * step_s)}</text>'
        )
    for index, (depth, span) in enumerate(rows):
        parts.append(_row(depth, span, TOP_PX + ROW_PX * index, x))
    return "".join(parts) + "</svg>\n"


def _row(depth: int, span: Taken, top: float, x: Callable[[float], float]) -> str:
    left, right = x(span.began_at), x(span.ended_at)
    css = "e" if span.name in ENGINE else COLOURS[span.service]
    name = f'<text x="{16 + 18 * depth}" y="{top + 15}">{escape(span.name)}</text>'
    bar = f'<rect class="{css}" x="{left:.1f}" y="{top + 2}" width="{max(2.0, right - left):.1f}" height="17" rx="3"/>'
    ticks = "".join(
        f'<line class="tick" x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{top + 5}" y2="{top + 16}"/>'
        for _, at in span.events
    )
    told = _time(span.ended_at - span.began_at) + (f", {len(span.events)} steps told" if span.events else "")
    return f'{name}{bar}{ticks}<text class="soft mono" x="{right + 6:.1f}" y="{top + 15}">{told}</text>'


def _round_step(step_s: float) -> float:
    sizes = [scale * 10.0**power for power in range(-6, 4) for scale in (1, 2, 5)]
    return next(size for size in sizes if size >= step_s)


def _time(time_s: float) -> str:
    return f"{time_s:.2f} s" if time_s >= 1 else f"{time_s * 1000:.3g} ms" if time_s else "0"


def main() -> None:
    """Record, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path("docs/traces"))
    parser.add_argument("--again", action="store_true", help="draw the trace that is there")
    args = parser.parse_args()
    file = args.out / "trace.json"
    if not args.again:
        spans = record(args.steps)
        with contextlib.suppress(FileExistsError):
            args.out.mkdir(parents=True)
        file.write_text(json.dumps([asdict(span) for span in spans], indent=1) + "\n", "utf-8")
    read = [
        Taken(**{**span, "events": tuple(map(tuple, span["events"]))}) for span in json.loads(file.read_text("utf-8"))
    ]
    (args.out / "trace.svg").write_text(draw(read), "utf-8")
    print(f"{args.out / 'trace.svg'}: {len(read)} spans")


if __name__ == "__main__":
    main()
