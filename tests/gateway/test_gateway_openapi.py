"""The OpenAPI document is true: every route is in it, what really comes is what it says, and its page shows it all."""

import json
import re
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from common.messages import ErrorInfo, StatusReply
from gateway.app import build_app
from gateway.assets import of_page
from gateway.dialects import openapi, reference
from gateway.dialects.fleet_views import ServiceView
from gateway.dialects.glossary import MEANINGS
from gateway.dialects.reference_style import STYLE
from gateway.routes.table import ROUTES
from tests.gateway.conftest import Door, until
from tests.gateway.fake_router import FakeRouter

DOCUMENT = openapi.document([route.operation for route in ROUTES], version="1.2.3")
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
BODY = {"prompt": "a fox", "size": "64x64"}
ABSENT = "0" * 32


def closed(node: Any) -> Any:
    """The same schemas, which then allow no field that they do not name."""
    if isinstance(node, dict):
        more = {"additionalProperties": False} if "properties" in node and "additionalProperties" not in node else {}
        return {key: closed(value) for key, value in node.items()} | more
    return [closed(each) for each in node] if isinstance(node, list) else node


CLOSED = closed({"components": {"schemas": SCHEMAS}})


def check(operation: str, status: int, body: Any) -> None:
    """`body` is what the document says of `operation` ('GET /v1/jobs/{job_id}') with that status."""
    method, _, path = operation.partition(" ")
    response = DOCUMENT["paths"][path][method.lower()]["responses"][str(status)]
    schema = {**CLOSED, **closed(response["content"]["application/json"]["schema"])}
    errors = [
        f"{each.instance_path}: {each.message}" for each in jsonschema_rs.Draft202012Validator(schema).iter_errors(body)
    ]
    assert not errors


async def test_every_route_is_in_the_document_and_nothing_else(door: Door) -> None:
    app = build_app(door.server._gateway)
    routes = {
        (route.method, openapi.public_path(route.resource.canonical))
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    told = {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert routes == told
    names = [operation["operationId"] for methods in DOCUMENT["paths"].values() for operation in methods.values()]
    assert len(set(names)) == len(names)


async def test_it_is_served_as_it_is(door: Door) -> None:
    status, body, headers = await door.get("/openapi.json")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert body["info"].pop("version") == door.server._gateway.version
    told = json.loads(msgspec.json.encode(DOCUMENT))
    assert told["info"].pop("version") == "1.2.3"
    assert body == told


def test_every_schema_is_one() -> None:
    for schema in SCHEMAS.values():
        jsonschema_rs.Draft202012Validator({**CLOSED, **schema})
    references = set(re.findall(r'"\$ref":"#/components/schemas/([^"]+)"', msgspec.json.encode(DOCUMENT).decode()))
    assert references <= SCHEMAS.keys()


def test_status_shows_all_that_the_router_says() -> None:
    assert (*ServiceView.__struct_fields__,) == tuple(name for name in StatusReply.__struct_fields__ if name != "rid")


@pytest.mark.parametrize("path", [path for path, methods in DOCUMENT["paths"].items() if "get" in methods])
async def test_what_is_read_is_as_it_says(door: Door, path: str) -> None:
    document = DOCUMENT["paths"][path]["get"]
    _, job, _ = await door.post("/v1/jobs", BODY)
    await until(lambda: door.server._gateway.link.connected, "a router")
    _, linked, _ = await door.post("/v1/images/generations", {**BODY, "response_format": "url"})
    link = linked["data"][0]["url"].removeprefix(door.url)
    file = f"/page/{of_page().digest}/base.css"
    real = path.format(job_id=job["id"], task_id=job["id"], name="genserve-shapes", part="", digest="")
    real = link if "{part}" in path else file if "{digest}" in path else real
    async with door.client.get(door.url + real) as answer:
        told = document["responses"][str(answer.status)]
        assert answer.status == 200
        media = answer.content_type if answer.content_type in told["content"] else "image/*"
        for name in told["headers"]:
            assert name in answer.headers
        if told["content"][media]:
            check(f"GET {path}", 200, await answer.json())


async def test_what_is_made_is_as_it_says(door: Door, router: FakeRouter) -> None:
    for path in ("/v1/images/generations", "/generate"):
        body = BODY if path != "/generate" else {"prompt": "a fox"}
        status, answer, _ = await door.post(path, body)
        check(f"POST {path}", status, answer)
        assert status == 200
    key = {"Idempotency-Key": "k"}
    for status_wanted in (202, 200):
        status, answer, headers = await door.post("/v1/jobs", BODY, headers=key)
        assert (status, headers["Location"]) == (status_wanted, answer["links"]["self"])
        check("POST /v1/jobs", status, answer)
    router.draws = lambda _spec: False
    _, job, _ = await door.post("/v1/jobs", BODY)
    async with door.client.delete(f"{door.url}/v1/jobs/{job['id']}") as answer:
        check("DELETE /v1/jobs/{job_id}", answer.status, await answer.json())
        assert answer.status == 200


async def test_failures_are_as_it_says(door: Door, router: FakeRouter) -> None:
    router.fails = lambda _spec: ErrorInfo(code="out_of_memory", message="there is no room")
    for operation, path, body in (
        ("POST /v1/images/generations", "/v1/images/generations", BODY),
        ("POST /v1/images/generations", "/v1/images/generations", {"prompt": ""}),
        ("POST /generate", "/generate", {"prompt": "a fox"}),
        ("POST /generate", "/generate", {"prompt": 1}),
        ("POST /v1/jobs", "/v1/jobs", {}),
    ):
        status, answer, _ = await door.post(path, body)
        assert status >= 400
        check(operation, status, answer)
    _, job, _ = await door.post("/v1/jobs", BODY)
    for operation, path in (
        ("GET /task/{task_id}", f"/task/{job['id']}"),  # a failed job, read as the older dialect does
        ("GET /v1/jobs/{job_id}", f"/v1/jobs/{job['id']}"),
        ("GET /v1/jobs/{job_id}/image", f"/v1/jobs/{job['id']}/image"),
        ("GET /v1/jobs/{job_id}/image", f"/v1/jobs/{ABSENT}/image"),
        ("GET /v1/models/{name}", "/v1/models/absent"),
    ):
        status, answer, _ = await door.get(path)
        check(operation, status, answer)


@pytest.mark.parametrize(
    "name", [kind.__name__ for each in ROUTES if (kind := each.operation.body or each.operation.form)]
)
def test_every_field_of_a_body_has_its_meaning_and_its_bounds_hold(name: str) -> None:
    schema = SCHEMAS[name]
    assert not [field for field, told in schema["properties"].items() if not told.get("description")]
    assert schema["additionalProperties"] is False


def test_no_meaning_is_left_over() -> None:
    named = {f"{name}.{field}" for name, schema in SCHEMAS.items() for field in schema.get("properties", ())}
    bare = {each.partition(".")[2] for each in named}
    assert not [term for term in MEANINGS if term not in (named if "." in term else bare)]


class _Links(HTMLParser):
    """What a page links to, and what it names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.ids: set[str] = set()
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            assert name not in ("style", "src", "onclick"), (tag, name)
            if name == "href":
                self.links.add(value or "")
            elif name == "id":
                assert value not in self.ids
                self.ids.add(value or "")


async def test_the_page_shows_it_all_and_needs_nothing_else(door: Door) -> None:
    async with door.client.get(f"{door.url}/docs") as answer:
        page, policy = await answer.text(), answer.headers["Content-Security-Policy"]
    digest = b64encode(sha256(STYLE.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert f"<style>{STYLE}</style>" in page
    assert "default-src 'none'" in policy
    found = _Links(page)
    assert not found.tags & {"script", "link", "img", "iframe", "form", "object"}
    assert {link for link in found.links if not link.startswith("#")} == {"/openapi.json"}
    assert {link[1:] for link in found.links if link.startswith("#")} <= found.ids
    for methods in DOCUMENT["paths"].values():
        assert {operation["operationId"] for operation in methods.values()} <= found.ids
    assert {f"schema-{name}" for name in SCHEMAS} <= found.ids
    assert reference.HOST not in page
    assert "http://127.0.0.1:" in page


async def test_the_page_shows_nothing_of_its_readers_making(door: Door) -> None:
    async with door.client.get(f"{door.url}/docs", headers={"Host": 'localhost:1"><script>'}) as answer:
        assert "<script" not in await answer.text()
