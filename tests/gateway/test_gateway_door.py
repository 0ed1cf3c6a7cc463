"""The gateway's link to a real router with keys: refused, and let in again without a restart."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import GenServeError
from common.messages import Ping, Pong
from gateway import link as link_module
from gateway.link import RouterLink
from tests.gateway.conftest import until
from tests.keyring import Keyring
from tests.router.process import router_process


async def _answers(link: RouterLink) -> bool:
    try:
        answer, _ = await link.ask(Ping(rid=link.new_rid()), timeout_s=0.3)
    except GenServeError:
        return False
    return isinstance(answer, Pong)


@pytest.mark.parametrize("how", ["revoked", "keyless"])
async def test_a_link_that_was_refused_says_so_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """libzmq gives up for good on a handshake that is refused; the gateway does not."""
    monkeypatch.setattr(link_module, "WATCH_INTERVAL_S", 0.05)
    keys = Keyring(tmp_path)
    settings = keys.router_settings if how == "revoked" else {}
    with router_process(tmp_path, **settings) as router:
        router.start()
        link = RouterLink(router.clients, answer_timeout_s=5.0, key=keys.key("gateway.key"))
        told: list[Any] = []
        monkeypatch.setattr(
            link, "_log", type("L", (), {"error": lambda _, event, **more: told.append((event, more))})()
        )
        link.open()
        try:
            if how == "revoked":
                assert await _answers(link)
                good = keys.store.peers_file.read_text()
                keys.revoke("here-gateway")
            await until(lambda: told, "its being told")
            assert told[0][0] == "router.refused"
            assert "here-gateway" in json.dumps(told[0][1])
            assert not await _answers(link)
            if how == "revoked":
                keys.store.peers_file.write_text(good)
            else:
                router.stop()
                router.environment |= keys.router_settings
                router.start()
            async with asyncio.timeout(10.0):
                while not await _answers(link):
                    pass
        finally:
            await link.close()
