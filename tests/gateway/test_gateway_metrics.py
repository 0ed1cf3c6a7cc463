"""/metrics: clean to Prometheus's own lint and to ours, true, bounded, and all that docs and dashboard ask of it."""

import asyncio
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from msgspec import structs

from common.messages import DeviceLoad, StatusQuery
from tests.gateway.conftest import Door, until
from tests.gateway.fake_router import FakeRouter
from tests.gateway.metrics_lint import faults
from tests.gateway.views import WORKERS

DOCS = Path(__file__).resolve().parents[2] / "docs"
PROMTOOL = shutil.which("promtool")  # of Debian's package prometheus
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
PART = re.compile(r"_(bucket|sum|count)$")
PLACES = {"$__rate_interval": "5m", '=~"$job"': '=~".+"'}  # what Grafana puts in


async def scrape(door: Door, accept: str = "text/plain") -> str:
    async with door.client.get(f"{door.url}/metrics", headers={"Accept": accept}) as answer:
        assert answer.status == 200
        assert answer.content_type == accept.partition(";")[0]
        return await answer.text()


def value(text: str, series: str) -> float:
    [line] = [line for line in text.splitlines() if line.startswith(f"{series} ")]
    return float(line.rpartition(" ")[2])


def table(text: str) -> str:
    """What the page says of each metric, from a scrape that has them all."""
    rows: dict[str, tuple[str, str, set[str]]] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name, _, says = line.removeprefix("# HELP ").partition(" ")
            rows[name] = ("", says, set())
        elif line.startswith("# TYPE "):
            rows[name] = (line.rpartition(" ")[2], *rows[name][1:])
        elif line:
            rows[name][2].update(re.findall(r'(\w+)="', line))
    shown = {name: ", ".join(f"`{label}`" for label in sorted(rows[name][2] - {"le"})) for name in rows}
    return "".join(f"| `{name}` | {rows[name][0]} | {shown[name]} | {rows[name][1]} |\n" for name in sorted(rows))


@pytest.fixture
async def full(door: Door, router: FakeRouter) -> str:
    """A scrape with every metric that there is."""
    load = DeviceLoad(allocated_mb=700, cached_mb=50, free_mb=250, utilization_percent=75)
    router.workers = (structs.replace(WORKERS[0], load=load), *WORKERS[1:])
    await door.post("/v1/images/generations", {"prompt": "a fox"})
    await door.get("/v1/nothing")
    return await scrape(door)


def test_it_is_clean(full: str) -> None:
    assert faults(full) == []


def test_the_lint_sees_what_is_wrong() -> None:
    wrong = """\
# HELP genserve_wait_ms How long it took.
# TYPE genserve_wait_ms gauge
genserve_wait_ms{job="x"} 1
# HELP genserve_done Done
# TYPE genserve_done counter
genserve_done 1
genserve_done 2
# HELP other_gauge A gauge of something.
# TYPE other_gauge gauge
other_gauge 1
# HELP genserve_time_seconds How long it took.
# TYPE genserve_time_seconds histogram
genserve_time_seconds_bucket{le="1.0"} 3
genserve_time_seconds_bucket{le="+Inf"} 2
genserve_time_seconds_count 3
genserve_time_seconds_sum 1
"""
    found = "\n".join(faults(wrong))
    for says in ("genserve_wait_ms is not in base units", "label job", "genserve_done has no sentence", "end in _total",
                 "comes twice", "other_gauge is no name", "does not rise", "does not end with all of it"):  # fmt: skip
        assert says in found


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: apt install prometheus)")
def test_it_is_clean_to_promtool(full: str, tmp_path: Path) -> None:
    assert PROMTOOL is not None
    checked = subprocess.run([PROMTOOL, "check", "metrics"], input=full, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    rules = [{"record": f"dashboard:query{n}", "expr": expr} for n, expr in enumerate(queries())]
    (tmp_path / "dashboard.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    for file in (tmp_path / "dashboard.yml", DOCS / "alerts.yml"):
        ruled = subprocess.run([PROMTOOL, "check", "rules", file], capture_output=True, text=True, check=False)
        assert ruled.returncode == 0, ruled.stdout + ruled.stderr


async def test_it_is_what_the_router_and_the_gateway_say(full: str) -> None:
    assert value(full, "genserve_router_up") == 1
    assert value(full, "genserve_router_start_time_seconds") == 1.5
    assert value(full, 'genserve_jobs_ended_total{code="poison",end="failed"}') == 1
    assert value(full, 'genserve_jobs_ended_total{code="engine_error",end="failed"}') == 0
    assert value(full, 'genserve_jobs_rejected_total{code="queue_full"}') == 1
    assert value(full, 'genserve_job_stage_seconds_bucket{le="1.0",stage="queue"}') == 3
    assert value(full, 'genserve_job_stage_seconds_bucket{le="+Inf",stage="queue"}') == 3
    worker = WORKERS[0].worker_id
    assert value(full, f'genserve_gpu_memory_free_bytes{{worker="{worker}"}}') == 250 * 1024 * 1024
    assert value(full, f'genserve_gpu_utilization_ratio{{worker="{worker}"}}') == 0.75
    assert value(full, f'genserve_worker_state{{state="ready",worker="{worker}"}}') == 1
    images = 'method="POST",route="/v1/images/generations"'
    assert value(full, f'genserve_http_requests_total{{{images},status="200"}}') == 1
    assert value(full, f"genserve_http_request_seconds_count{{{images}}}") == 1
    assert value(full, "genserve_http_requests_open") == 1  # this one
    assert value(full, "genserve_http_connections_open") == 1


async def test_openmetrics_where_it_is_asked_for(door: Door) -> None:
    assert (await scrape(door, OPENMETRICS)).endswith("# EOF\n")


async def test_odd_requests_make_no_series(door: Door) -> None:
    for path in ("/v1/jobs/" + "0" * 32, "/v1/jobs/nonsense", "/a/b", "/c?d"):
        await door.get(path)
    async with door.client.patch(f"{door.url}/v1/jobs"):
        pass
    async with door.raw(b"nonsense\r\n\r\n") as reader:
        await reader.read()
    text = await scrape(door)
    assert value(text, 'genserve_http_requests_total{method="GET",route="/v1/jobs/{job_id}",status="404"}') == 2
    assert value(text, 'genserve_http_requests_total{method="GET",route="none",status="404"}') == 2
    assert value(text, 'genserve_http_requests_total{method="PATCH",route="none",status="405"}') == 1
    assert value(text, "genserve_http_malformed_total") == 1
    assert "nonsense" not in text


async def test_a_router_that_is_down_is_told_and_the_rest_as_well(door: Door, router: FakeRouter) -> None:
    await until(lambda: door.server._gateway.link.connected, "a router")
    router.silent = {StatusQuery}
    began = asyncio.get_running_loop().time()
    text = await scrape(door)
    assert asyncio.get_running_loop().time() - began < 4
    assert value(text, "genserve_router_up") == 0
    assert "genserve_jobs_waiting" not in text
    assert "genserve_http_connections_open" in text
    assert faults(text) == []


def test_the_page_lists_them_all(full: str) -> None:
    page = (DOCS / "metrics.md").read_text("utf-8")
    assert page.partition("|---|---|---|---|\n")[2] == table(full)


def queries() -> list[str]:
    """Every query of the dashboard, as Grafana sends it."""
    dashboard = json.loads((DOCS / "grafana" / "genserve.json").read_text("utf-8"))
    found = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    found += [each["expr"] for each in dashboard["annotations"]["list"]]
    for place, text in PLACES.items():
        found = [expr.replace(place, text) for expr in found]
    assert not [expr for expr in found if "$" in expr]
    return found


def test_the_dashboard_and_the_alerts_ask_for_what_there_is(full: str) -> None:
    there = {line.split("{")[0].split(" ")[0] for line in full.splitlines() if line and not line.startswith("#")}
    labels = set(re.findall(r'(\w+)="', full)) | {"instance", "job", "severity"}
    alerts = (DOCS / "alerts.yml").read_text("utf-8")
    for text in (*queries(), alerts):
        assert set(re.findall(r"genserve_\w+", text)) <= there, text
        grouped = re.findall(r"\b(?:by|without) ?\(([\w, ]+)\)", text)
        named = {name.strip() for group in grouped for name in group.split(",")}
        assert named | set(re.findall(r"(\w+)=~?\"", text)) <= labels, text
    asked = {PART.sub("", name) for text in (*queries(), alerts) for name in re.findall(r"genserve_\w+", text)}
    assert len(asked) > 25


def test_the_dashboard_lies_flat() -> None:
    panels = json.loads((DOCS / "grafana" / "genserve.json").read_text("utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
