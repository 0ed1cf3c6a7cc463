"""The proof that the service draws: one picture through the real HTTP gateway, in a thread of its own.

Knows one route of the gateway; not how the parts are started.
"""

import base64
import contextlib
import http.client
import json
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genserve.files import write_atomically

PROMPT = "a lighthouse on a cliff at dusk, warm light, calm sea"
EMBEDDED_PROMPT = "a large yellow star above a small pink heart on a gradient background from blue to purple"
SEED = 1
PRIORITY = 10  # the highest: a queue that waits since the last start is not in its way
NAME = "first-picture.png"
ROUTE = "/v1/images/generations"
HEALTH_TIMEOUT_S = 0.5
TRY_AGAIN = "mend what that names, or read the logs; the line at Draw tries again"


@dataclass(frozen=True)
class Outcome:
    """The picture's absolute path and facts, or what went wrong and what to do now."""

    path: str = ""
    facts: str = ""
    error: str = ""
    next_step: str = ""


class FirstPicture:
    """Drawn once; `outcome` is None until it has ended."""

    def __init__(self, host: str, port: int, folder: Path, api_key: str) -> None:
        self._connection = http.client.HTTPConnection(host, port)
        self._path = folder.absolute() / NAME
        self._thread = threading.Thread(target=self._run, name="first-picture", daemon=True)
        self._prompt = PROMPT
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self.outcome: Outcome | None = None

    def start(self, *, embedded: bool) -> None:
        """Ask for it; `embedded`: of the small model inside, which knows shapes only."""
        self._prompt = EMBEDDED_PROMPT if embedded else PROMPT
        self._thread.start()

    def cancel(self) -> None:
        """Hang up; the gateway cancels the job of a client that does."""
        with contextlib.suppress(OSError, AttributeError):  # not connected yet, or just done
            self._connection.sock.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        try:
            self.outcome = self._draw()
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            self.outcome = Outcome(error=f"{type(error).__name__}: {error}", next_step=TRY_AGAIN)

    def _draw(self) -> Outcome:
        body = json.dumps({"prompt": self._prompt, "seed": SEED, "priority": PRIORITY})
        self._connection.request("POST", ROUTE, body, self._headers)
        response = self._connection.getresponse()
        answer: dict[str, Any] = json.loads(response.read())
        if response.status != http.client.OK:
            return Outcome(error=answer["error"]["message"], next_step=answer["error"]["what_to_do"])
        drawn = answer["data"][0]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path, base64.b64decode(drawn["b64_json"]))
        return Outcome(
            path=str(self._path), facts=f"“{self._prompt}”, {answer['size']}, {answer['model']}, seed {SEED}"
        )


def gateway_answers(host: str, port: int) -> bool:
    """Is the gateway listening and alive?"""
    connection = http.client.HTTPConnection(host, port, timeout=HEALTH_TIMEOUT_S)
    try:
        connection.request("GET", "/health/live")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
