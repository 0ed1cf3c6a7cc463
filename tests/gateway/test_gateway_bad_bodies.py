"""Every malformed body, over HTTP: its status, its typed error, its field; and the router hears of none."""

import io

import pytest

from common.messages import Submit
from tests.gateway.bad_bodies import BAD_BODIES, GENERATE, BadBody
from tests.gateway.conftest import Door
from tests.gateway.fake_router import FakeRouter


def test_names_are_unique() -> None:
    assert len({bad.name for bad in BAD_BODIES}) == len(BAD_BODIES) >= 30


@pytest.mark.parametrize("bad", BAD_BODIES, ids=lambda bad: bad.name)
async def test_bad_body(door: Door, router: FakeRouter, bad: BadBody) -> None:
    headers = {"Content-Type": "application/json", **bad.headers}
    async with door.client.post(door.url + bad.path, data=io.BytesIO(bad.body), headers=headers) as answer:
        body = await answer.json()
        assert answer.status == bad.status, body
        assert answer.headers["X-Request-Id"]
        assert answer.headers["x-should-retry"] == "false"
    if bad.path == GENERATE:
        assert (body["success"], body["message"]) == (False, body["error"]["message"])
    error = body["error"]
    assert error["code"] == bad.code
    assert error["param"] == bad.param
    assert bad.says in error["message"]
    assert error["what_to_do"]
    assert len(error["message"]) < 700
    assert router.count(Submit) == 0
