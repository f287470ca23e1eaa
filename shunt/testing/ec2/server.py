"""The double over HTTP: any client of EC2, SQS, quotas and prices, of any process, by endpoint URL.

Moto's parser and serializer speak EC2's protocol; the answers are the double's own.
"""

import json
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from moto.core.parse import EC2QueryParser
from moto.core.serialize import EC2Serializer
from moto.core.utils import get_service_model

from shunt.testing.ec2.double import Ec2Double
from shunt.testing.ec2.faults import ApiFault, ControllerKilled
from shunt.testing.ec2.notice_queue import NoticeQueue
from shunt.testing.ec2.price_list import PriceListDouble

Reply = tuple[int, str, str]
"""Status, content type, body."""


@dataclass(frozen=True, slots=True)
class Ec2Server:
    """One account's endpoints. `lock` guards the double, which is of one thread at a time."""

    double: Ec2Double
    queue: NoticeQueue
    lock: "threading.RLock"
    now: Callable[[], datetime]
    rest_of_aws: str = ""
    """URL of a moto server that answers what the double does not."""

    def reply(self, headers: Mapping[str, str], body: str) -> Reply:
        """To a request of EC2 (named in the body) or of another service (in a header)."""
        if target := headers.get("X-Amz-Target"):
            service, _, operation = target.partition(".")
            told = self._told(service, operation, json.loads(body))
            return 200, "application/x-amz-json-1.0", json.dumps(told)
        form = dict(parse_qsl(body, keep_blank_values=True))
        model = get_service_model("ec2").operation_model(form["Action"])
        parser = cast(Any, EC2QueryParser)(model, timestamp_parser=datetime.fromisoformat)
        params = parser.parse({"values": form})
        try:
            with self.lock:
                told = self.double.answer(form["Action"], params)
            if told is None and self.rest_of_aws:
                return self._asked_of_moto(headers, body)
            if told is None:
                raise ApiFault("InvalidAction", f"the double has no {form['Action']}")
        except ApiFault as fault:
            return 400, "text/xml", _error(fault)
        return 200, "text/xml", str(cast(Any, EC2Serializer)(model).serialize(told)["body"])

    def _told(self, service: str, operation: str, params: dict[str, Any]) -> dict[str, Any]:
        if service == "AmazonSQS":
            return self.queue.answer(operation, params)
        with self.lock:
            if service == "AWSPriceListService":
                return PriceListDouble.of(self.double.market, self.now()).products(params)
            return self.double.answer(operation, params) or {}

    def _asked_of_moto(self, headers: Mapping[str, str], body: str) -> Reply:
        passed = {name: headers[name] for name in ("Authorization", "Content-Type", "X-Amz-Date")}
        request = urllib.request.Request(self.rest_of_aws, data=body.encode(), headers=passed)
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return reply.status, "text/xml", reply.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, "text/xml", error.read().decode()


@contextmanager
def ec2_server(server: Ec2Server) -> Generator[str]:
    """Serve on loopback until left; yields the URL."""

    class Connection(_Connection):
        account = server

    http = _Quiet(("127.0.0.1", 0), Connection)
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), name="ec2-double")
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed while we answered is no news."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Connection(BaseHTTPRequestHandler):
    account: Ec2Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        try:
            status, kind, text = self.account.reply(dict(self.headers.items()), body)
        except ControllerKilled:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def date_time_string(self, timestamp: float | None = None) -> str:
        """EC2's clock, which the caller's may differ from."""
        del timestamp
        return format_datetime(self.account.now(), usegmt=True)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


def _error(fault: ApiFault) -> str:
    return (
        "<Response><Errors><Error>"
        f"<Code>{escape(fault.code)}</Code><Message>{escape(fault.message)}</Message>"
        "</Error></Errors><RequestID>double</RequestID></Response>"
    )
