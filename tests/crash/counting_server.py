"""A server that counts what reaches it, durably, before it answers; and what asks it.

It is the far side of the effects of `scenes`: whatever a driver says of a delivery, this one knows.
"""

import json
import os
import socket
import threading
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple, cast

import anyio

from mfm_ops.machine.canonical import Json
from mfm_ops.machine.codes import error_info
from mfm_ops.machine.errors import TransportFailure
from mfm_ops.machine.io import IoCall
from mfm_ops.machine.transport import LiveIoEnv
from tests.crash.door import Step, Watcher

__all__ = ["CountingServer", "Delivery", "Ledger", "ask_server", "receipt"]


class Delivery(NamedTuple):
    """One request that arrived whole: what was asked for, under which idempotency key."""

    what: str
    key: str | None


class Ledger:
    """What reached the server from one round; a copy for a round that goes on from another's."""

    def __init__(self, earlier: "Ledger | None" = None) -> None:
        self.deliveries: list[Delivery] = list(earlier.deliveries) if earlier else []

    def delivered(self) -> Counter[str]:
        """How often each request arrived."""
        return Counter(delivery.what for delivery in self.deliveries)

    def applied(self) -> Counter[str]:
        """How often each was carried out: once for each key, and each time without one."""
        once = {delivery for delivery in self.deliveries if delivery.key is not None}
        return Counter(d.what for d in (*once, *(d for d in self.deliveries if d.key is None)))


def receipt(what: str) -> Json:
    """The answer to a request, the same each time."""
    return {"receipt": what}


class CountingServer:
    """Serves one connection after the other, in the order in which they were made.

    A request is a line `{"round", "what", "key", "fails"}`; one that is cut off is none. The first
    `fails` deliveries are carried out and answered with an error, as by a server that crashes
    after its commit.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._ledgers: dict[str, Ledger] = {}
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def begin(self, round_: str, earlier: Ledger | None = None) -> Ledger:
        """The ledger of a new round."""
        self._ledgers[round_] = ledger = Ledger(earlier)
        return ledger

    def settle(self) -> None:
        """Return once all that was sent before has been counted, by the living and the dead."""
        self._tell("settle")

    def close(self) -> None:
        self._tell("close")
        self._thread.join()
        self._listener.close()
        os.close(self._journal)

    def _tell(self, order: str) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(json.dumps({"order": order}).encode() + b"\n")
            # Connections are served in turn: this one's answer comes after theirs.
            assert connection.makefile("rb").readline() == b"{}\n"

    def _serve(self) -> None:
        order = None
        while order != "close":
            connection, _ = self._listener.accept()
            with connection, connection.makefile("rb") as asked:
                try:
                    line = asked.readline()
                except ConnectionResetError:
                    continue
                if not line.endswith(b"\n"):
                    continue
                request = json.loads(line)
                order = request.get("order")
                answer = {} if order else self._count(request)
                try:
                    connection.sendall(json.dumps(answer).encode() + b"\n")
                except (BrokenPipeError, ConnectionResetError):
                    # Whoever asked is dead; it counts all the same.
                    continue

    def _count(self, request: dict[str, Any]) -> dict[str, Json]:
        os.write(self._journal, json.dumps(request).encode() + b"\n")
        os.fsync(self._journal)
        ledger, what = self._ledgers[request["round"]], request["what"]
        ledger.deliveries.append(Delivery(what, request["key"]))
        if ledger.delivered()[what] <= request["fails"]:
            return {"error": "crashed"}
        return {"answer": receipt(what)}


async def ask_server(
    port: int, round_: str, watcher: Watcher, call: IoCall, env: LiveIoEnv
) -> Json:
    """Send a call over a connection of its own; its steps are connect, send, receive.

    Raises:
        TransportFailure: the server said that it failed; retryable.
    """
    asked = cast(dict[str, Any], call.request)
    about = {"round": round_, "what": asked["what"], "fails": asked.get("fails", 0)}
    line = json.dumps({**about, "key": env.idempotency_key}).encode() + b"\n"
    half = len(line) // 2
    async with await anyio.connect_tcp("127.0.0.1", port) as connection:
        watcher.after(Step("connect"))
        await connection.send(line[:half])
        watcher.within(Step("send"))
        await connection.send(line[half:])
        watcher.after(Step("send"))
        said = b""
        while not said.endswith(b"\n"):
            said += await connection.receive()
        watcher.after(Step("receive"))
    answer = json.loads(said)
    if "error" in answer:
        info = error_info("io_transport_crashed", "the server failed", exception="Server")
        raise TransportFailure(info.model_copy(update={"retryable": True}))
    return cast(Json, answer["answer"])
