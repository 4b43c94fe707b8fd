#!/usr/bin/env python3
"""An independent HTTP/3 client (aioquic) against a node's gateway.

It shares no code with the node. Every scenario prints one line of JSON with what happened and exits 0 if that is what
must happen, 1 if not, 2 on wrong use. The node is known by its pin: the SHA-256 of its public key's SPKI, which is its
node id in hexadecimal.

    aioquic_client.py 127.0.0.1:4433 --pin 3f5a... plain
    aioquic_client.py 127.0.0.1:4433 --pin 3f5a... call echo hello
    aioquic_client.py 127.0.0.1:4433 --pin 3f5a... oversized-frame --on control

Scenarios need the services `echo` and `sleep` (sleeps as many milliseconds as its body says).
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import ssl
import sys
import time

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import H3_ALPN, ErrorCode, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, StopSendingReceived, StreamReset
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

EXCESSIVE_LOAD = 0x107
REQUEST_CANCELLED = 0x10C
MESSAGE_ERROR = 0x10E
MAX_CLIENTS_REACHED = "max_clients_reached"
HEADERS_FRAME, GOAWAY_FRAME, GREASE_FRAME = 0x1, 0x7, 0x21


class WrongNode(Exception):
    """The server proved another key than the pinned one."""


class StreamEnded(Exception):
    """A request ended without a whole answer."""


class Answer:
    """The answer to one request, as it comes in."""

    def __init__(self):
        self.done = asyncio.get_running_loop().create_future()
        self.headers = {}
        self.body = b""
        self.reset = None
        self.stopped = None

    def end(self, error=None):
        if self.done.done():
            return
        if error:
            self.done.set_exception(error)
            self.done.exception()
        else:
            self.done.set_result(self)

    @property
    def status(self):
        return int(self.headers.get(":status", "0"))

    @property
    def code(self):
        """The problem's code, if the answer is a problem."""
        if self.headers.get("content-type") != "application/problem+json":
            return None
        return json.loads(self.body)["code"]


class Client(QuicConnectionProtocol):
    """One connection."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = H3Connection(self._quic)
        self.answers = {}
        self.terminated = None
        self.closed_event = asyncio.Event()

    def quic_event_received(self, event):
        if isinstance(event, StreamReset) and event.stream_id in self.answers:
            self.answers[event.stream_id].reset = event.error_code
            self.answers[event.stream_id].end(StreamEnded(f"reset with {event.error_code:#x}"))
        if isinstance(event, StopSendingReceived) and event.stream_id in self.answers:
            self.answers[event.stream_id].stopped = event.error_code
        if isinstance(event, ConnectionTerminated):
            self.terminated = event
            self.closed_event.set()
            for answer in self.answers.values():
                answer.end(StreamEnded(f"closed with {event.error_code:#x} {event.reason_phrase}"))
        for http_event in self.http.handle_event(event):
            answer = self.answers.get(http_event.stream_id)
            if answer is None:
                continue
            if isinstance(http_event, HeadersReceived):
                answer.headers = {name.decode(): value.decode() for name, value in http_event.headers}
            if isinstance(http_event, DataReceived):
                answer.body += http_event.data
            if http_event.stream_ended:
                answer.end()

    def shown_pin(self):
        certificate = self._quic.tls._peer_certificate
        spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(spki).hexdigest()

    def open(self, method, path, headers=(), body=b"", finish=True):
        """Sends a request; its answer comes in by itself."""
        stream_id = self._quic.get_next_available_stream_id()
        answer = self.answers[stream_id] = Answer()
        answer.stream_id = stream_id
        fields = [(b":method", method.encode()), (b":scheme", b"https"), (b":authority", b"node")]
        fields += [(b":path", path.encode())] + [(name.encode(), value.encode()) for name, value in headers]
        self.http.send_headers(stream_id, fields, end_stream=finish and not body)
        if body:
            self.http.send_data(stream_id, body, end_stream=finish)
        self.transmit()
        return answer

    async def request(self, method, path, headers=(), body=b"", within=20.0):
        return await asyncio.wait_for(self.open(method, path, headers, body).done, within)

    async def call(self, service, body=b"", headers=()):
        return await self.request("POST", f"/v1/call/{service}", headers, body)

    def vanish(self):
        """Goes away as a machine that loses power does: no packet says so."""
        self._quic.close = lambda *args, **kwargs: None
        self.transmit = lambda: None
        self._transport.abort()

    async def feed(self, stream_id, total, chunk=b"\xa5" * 65536):
        """Sends `total` bytes on a stream, as fast as the other side lets it; gives the bytes that went out."""
        sent = 0
        answer = self.answers.get(stream_id)
        stream = self._quic._streams[stream_id]
        while sent < total and not self.closed_event.is_set() and not (answer and answer.stopped is not None):
            while len(stream.sender._buffer) > 262144 and not self.closed_event.is_set():
                if answer and answer.stopped is not None:
                    break
                await asyncio.sleep(0.001)
            else:
                piece = chunk[: total - sent]
                try:
                    self._quic.send_stream_data(stream_id, piece)
                except (AssertionError, RuntimeError, ValueError):
                    # Both halves are over, and aioquic has let go of the stream before it tells of it.
                    break
                self.transmit()
                sent += len(piece)
                await asyncio.sleep(0)
        return stream.sender.highest_offset


@contextlib.asynccontextmanager
async def client(options):
    """Connects, checks the pin before anything is asked, and closes at the end."""
    host, _, port = options.node.rpartition(":")
    configuration = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE)
    configuration.server_name = "node"
    async with connect(host.strip("[]"), int(port), configuration=configuration, create_protocol=Client) as connected:
        if connected.shown_pin() != options.pin.lower():
            connected._quic.close(error_code=0x12A, reason_phrase="not the pinned node")  # TLS alert bad_certificate
            connected.transmit()
            raise WrongNode(connected.shown_pin())
        yield connected


async def call(options):
    """One call; prints its answer; 0 if it was served."""
    headers = [("plimsoll-deadline-ms", str(options.deadline_ms))] if options.deadline_ms else []
    async with client(options) as node:
        answer = await node.call(options.service, options.body.encode(), headers)
    report = {"status": answer.status, "headers": answer.headers, "body": answer.body.decode(errors="replace")}
    return answer.status == 200, report


async def plain(options):
    """A call, both listings, and a refusal of each kind a client can bring about by itself."""
    async with client(options) as node:
        echo = await node.call("echo", b"hello", [("content-type", "text/plain"), ("plimsoll-call-id", "plain-1")])
        services = await node.request("GET", "/v1/services")
        nodes = await node.request("GET", "/v1/nodes")
        refusals = {
            "no_provider": await node.call("nobody-offers-this"),
            "bad_name": await node.call("Echo"),
            "no_such_route": await node.request("GET", "/v1/nothing"),
            "method_not_allowed": await node.request("GET", "/v1/call/echo"),
            "bad_deadline": await node.call("echo", b"", [("plimsoll-deadline-ms", "soon")]),
            "deadline": await node.call("sleep", b"5000", [("plimsoll-deadline-ms", "100")]),
            "body_too_large": await node.call("echo", b"x" * (1024 * 1024 + 1)),
            "headers_too_large": await node.call("echo", b"", [("x-long", "x" * 17000)]),
        }
    checks = {
        "echo": echo.status == 200 and echo.body == b"hello" and echo.headers["plimsoll-call-id"] == "plain-1",
        "services": services.status == 200 and any(s["name"] == "echo" for s in json.loads(services.body)["services"]),
        "nodes": nodes.status == 200 and len(json.loads(nodes.body)["nodes"]) >= 1,
        **{code: answer.code == code for code, answer in refusals.items()},
    }
    return all(checks.values()), {"checks": checks}


async def concurrent(options):
    """`--calls` calls at once on each of `--connections` connections; every answer must be the one to its call."""

    async def one(number):
        right = 0
        async with client(options) as node:
            bodies = [f"{number}/{n}".encode() * 20 for n in range(options.calls)]
            # Never more at once than the streams that the node allows.
            for at in range(0, len(bodies), 50):
                answers = await asyncio.gather(*(node.call("echo", body) for body in bodies[at : at + 50]))
                right += sum(a.status == 200 and a.body == b for a, b in zip(answers, bodies[at : at + 50]))
        return right

    began = time.monotonic()
    right = sum(await asyncio.gather(*(one(n) for n in range(options.connections))))
    calls = options.calls * options.connections
    seconds = time.monotonic() - began
    return right == calls, {"calls": calls, "right": right, "seconds": round(seconds, 3)}


async def reset(options):
    """Resets calls that run, before and after their body was sent; the connection goes on."""
    async with client(options) as node:
        for finish in (True, False):
            begun = [node.open("POST", "/v1/call/sleep", (), b"20000", finish) for _ in range(options.calls)]
            await asyncio.sleep(0.2)
            for answer in begun:
                if not finish:
                    node._quic.reset_stream(answer.stream_id, REQUEST_CANCELLED)
                node._quic.stop_stream(answer.stream_id, REQUEST_CANCELLED)
            node.transmit()
        echo = await node.call("echo", b"still here")
    return echo.status == 200 and echo.body == b"still here", {"reset": 2 * options.calls, "then": echo.status}


async def left(options):
    """Closes the connection, properly, while calls run."""
    async with client(options) as node:
        for _ in range(options.calls):
            node.open("POST", "/v1/call/sleep", (), b"20000")
        await asyncio.sleep(0.2)
    return True, {"left_behind": options.calls}


async def vanished(options):
    """Is gone without a word while calls run."""
    async with client(options) as node:
        for _ in range(options.calls):
            node.open("POST", "/v1/call/sleep", (), b"20000")
        await asyncio.sleep(0.2)
        node.vanish()
        print(json.dumps({"scenario": "vanished", "met": True, "left_behind": options.calls}), flush=True)
        # Leaving the block would wait for a close that never comes.
        sys.exit(0)


async def wrong_certificate(options):
    """With a pin that is not the node's, no request is sent."""
    shown, options.pin = options.pin, hashlib.sha256(options.pin.encode()).hexdigest()
    try:
        async with client(options):
            return False, {"refused": False}
    except WrongNode as wrong:
        return str(wrong) == shown.lower(), {"refused": True, "shown": str(wrong)}


async def oversized_frame(options):
    """Announces a huge frame and sends its bytes: 0x107 on the stream, or on the connection for the control stream."""
    kind = HEADERS_FRAME if options.on == "headers" else GREASE_FRAME
    frame = encode_uint_var(kind) + encode_uint_var(options.announce)
    async with client(options) as node:
        if options.on == "control":
            stream_id = node.http._local_control_stream_id
        else:
            stream_id = node._quic.get_next_available_stream_id()
            node.answers[stream_id] = Answer()
        node._quic.send_stream_data(stream_id, frame)
        node.transmit()
        taken = await node.feed(stream_id, options.send)
        if options.on == "control":
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(node.closed_event.wait(), 5)
            report = {"taken": taken, "closed_with": node.terminated and node.terminated.error_code}
            return report["closed_with"] == EXCESSIVE_LOAD, report
        answer = node.answers[stream_id]
        with contextlib.suppress(asyncio.TimeoutError, StreamEnded):
            await asyncio.wait_for(answer.done, 5)
        report = {"taken": taken, "stopped_with": answer.stopped, "reset_with": answer.reset}
        refused = answer.stopped == EXCESSIVE_LOAD and answer.reset == EXCESSIVE_LOAD
        if node.terminated is None:
            report["then"] = (await node.call("echo", b"unharmed")).status
        return refused and report.get("then") == 200, report


async def malformed(options):
    """Requests with fields that do not belong there (RFC 9114, 4.2 and 4.3): each is told so, and the connection lives."""
    bad = {
        "connection": [("connection", "close")],
        "keep-alive": [("keep-alive", "timeout=5")],
        "proxy-connection": [("proxy-connection", "keep-alive")],
        "transfer-encoding": [("transfer-encoding", "chunked")],
        "upgrade": [("upgrade", "h2c")],
        "te": [("te", "gzip")],
        "two paths": [(":path", "/v1/call/sleep")],
        "two methods": [(":method", "GET")],
        "late": [("accept", "*/*"), (":protocol", "webtransport")],
        "of an answer": [(":status", "200")],
        "two lengths": [("content-length", "5"), ("content-length", "6")],
    }
    async with client(options) as node:
        answers = {name: await node.call("echo", b"hello", fields) for name, fields in bad.items()}
        trailers = await node.call("echo", b"hello", [("te", "trailers")])
        # A body that is still to come is not wanted any more.
        unfinished = node.open("POST", "/v1/call/echo", [("connection", "close")], b"half", finish=False)
        await asyncio.wait_for(unfinished.done, 5)
        for _ in range(100):
            if unfinished.stopped is None:
                await asyncio.sleep(0.02)
        then = await node.call("echo", b"still here")
    checks = {
        **{name: answer.status == 400 and answer.code == "bad_frame" for name, answer in answers.items()},
        "te: trailers": trailers.status == 200 and trailers.body == b"hello",
        "stopped": unfinished.status == 400 and unfinished.stopped == MESSAGE_ERROR,
        "then": then.status == 200,
    }
    return all(checks.values()), {"checks": checks}


async def goodbye(options):
    """Says GOAWAY while calls run: each is answered before the close, and so is one that comes later (RFC 9114, 5.2)."""
    goaway = encode_uint_var(GOAWAY_FRAME) + encode_uint_var(1) + encode_uint_var(0)
    answered = 0
    for _ in range(options.rounds):
        async with client(options) as node:
            # All end at once, so that the last answers and the close would go out together.
            begun = [node.open("POST", "/v1/call/sleep", (), b"50") for _ in range(options.calls)]
            node._quic.send_stream_data(node.http._local_control_stream_id, goaway)
            node.transmit()
            for answer in begun:
                with contextlib.suppress(asyncio.TimeoutError, StreamEnded):
                    await asyncio.wait_for(answer.done, 10)
            answered += sum(answer.status == 200 for answer in begun)
            later = node.open("POST", "/v1/call/echo", (), b"one more")
            with contextlib.suppress(asyncio.TimeoutError, StreamEnded):
                await asyncio.wait_for(later.done, 10)
            answered += later.body == b"one more"
    wanted = options.rounds * (options.calls + 1)
    return answered == wanted, {"wanted": wanted, "answered": answered}


async def crowd(options):
    """`--clients` clients at once, each with one call, each holding its place until all have their answer."""
    decided = asyncio.Event()
    counts = {"served": 0, "refused_with_reason": 0, "refused_without_reason": 0, "failed": 0}
    at_once = asyncio.Semaphore(options.at_once)

    def count(outcome):
        counts[outcome] += 1
        if sum(counts.values()) == options.clients:
            decided.set()

    async def one():
        outcome = "failed"
        try:
            async with contextlib.AsyncExitStack() as stack:
                async with at_once:
                    node = await stack.enter_async_context(client(options))
                    answer = await node.call("echo", b"me too")
                if answer.status == 200:
                    count("served")
                    outcome = None
                    await decided.wait()
                elif answer.code == MAX_CLIENTS_REACHED:
                    outcome = "refused_with_reason"
        except ConnectionError:
            outcome = "refused_without_reason"
        except StreamEnded as ended:
            outcome = "refused_with_reason" if MAX_CLIENTS_REACHED in str(ended) else "failed"
        if outcome:
            count(outcome)

    await asyncio.gather(*(one() for _ in range(options.clients)))
    met = counts["failed"] == 0
    if options.expect_served is not None:
        met = met and counts["served"] == options.expect_served
    return met, counts


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("node", metavar="HOST:PORT")
    parser.add_argument("--pin", required=True, metavar="NODE_ID", help="the node's id, 64 hexadecimal digits")
    parser.add_argument("--report-only", action="store_true", help="exit 0 whatever happened (for controls)")
    scenarios = parser.add_subparsers(dest="scenario", required=True, metavar="SCENARIO")

    def scenario(function, **numbers):
        name = function.__name__.replace("_", "-")
        sub = scenarios.add_parser(name, help=function.__doc__, description=function.__doc__)
        sub.set_defaults(run=function)
        for option, default in numbers.items():
            sub.add_argument(f"--{option.replace('_', '-')}", type=int, default=default, help="default: %(default)s")
        return sub

    one = scenario(call, deadline_ms=None)
    one.add_argument("service")
    one.add_argument("body", nargs="?", default="")
    scenario(plain)
    scenario(concurrent, connections=8, calls=100)
    scenario(reset, calls=10)
    scenario(left, calls=10)
    scenario(vanished, calls=10)
    scenario(wrong_certificate)
    oversized = scenario(oversized_frame, announce=1 << 30, send=64 << 20)
    oversized.add_argument("--on", choices=["headers", "grease", "control"], default="headers", help="where")
    scenario(malformed)
    scenario(goodbye, calls=10, rounds=5)
    scenario(crowd, clients=300, at_once=50, expect_served=None)
    return parser.parse_args()


def main():
    options = arguments()
    try:
        met, report = asyncio.run(options.run(options))
    except (ConnectionError, StreamEnded, WrongNode, asyncio.TimeoutError) as error:
        met, report = False, {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps({"scenario": options.scenario, "met": met, **report}))
    sys.exit(0 if met or options.report_only else 1)


if __name__ == "__main__":
    main()
