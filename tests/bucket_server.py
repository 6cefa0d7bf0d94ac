"""A server with the part of Cloud Storage's JSON API that TensorStore uses, in this process.

With generations and their preconditions, which the emulators of the package index do not hold to.
"""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

BUCKET = "bucket"


class Server(ThreadingHTTPServer):
    """Holds the objects of one bucket; `refuse` is a status that every request gets instead.

    With `deaf` the next object that is written is there, and all answers from then on are 503.
    """

    daemon_threads = True

    def handle_error(self, request, client_address):
        """Says nothing of a client that was killed."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, tuple[int, bytes]] = {}  # name -> generation, value
        self.writes: list[str] = []  # names, in their order; "-name" where one was removed
        self.refuse: int | None = None
        self.deaf = False
        self.count = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def put(self, name: str, value: bytes | None) -> int:
        """Writes or removes an object, as somebody else would."""
        self.count += 1
        self.writes.append(name if value is not None else f"-{name}")
        if value is None:
            self.objects.pop(name, None)
        else:
            self.objects[name] = self.count, value
        return self.count


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or every answer waits for 40 ms
    wbufsize = -1

    def log_message(self, *args):
        pass

    def do_GET(self):
        self._handle(self._get)

    def do_POST(self):
        self._handle(self._post)

    def do_DELETE(self):
        self._handle(self._delete)

    def _handle(self, method):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        bucket, _, name = parts.path.partition("/b/")[2].partition("/o")
        server = self.server
        with server.lock:
            if server.refuse is not None:
                self._answer(server.refuse, b"no")
            elif bucket != BUCKET:
                self._answer(404, b'{"error": {"code": 404}}')
            else:
                method(unquote(name.removeprefix("/")), query, body)

    def _answer(self, status, body=b"", generation=None):
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        if generation is not None:
            self.send_header("x-goog-generation", str(generation))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def _differs(self, name, query):
        held, _ = self.server.objects.get(name, (0, b""))
        return "ifGenerationMatch" in query and int(query["ifGenerationMatch"]) != held

    def _get(self, name, query, body):
        objects = self.server.objects
        if not name:
            start, end = query.get("startOffset", ""), query.get("endOffset", chr(0x10FFFF))
            items = [{"name": n, "generation": "1"} for n in sorted(objects) if start <= n < end]
            self._answer(200, json.dumps({"items": items}).encode())
        elif name not in objects:
            self._answer(404, b"")
        else:
            generation, value = objects[name]
            same = query.get("ifGenerationNotMatch") == str(generation)
            self._answer(304 if same else 200, b"" if same else value, generation)

    def _post(self, name, query, body):
        name = query["name"]
        if self._differs(name, query):
            self._answer(412, b"")
        else:
            generation = self.server.put(name, body)
            if self.server.deaf:
                self.server.refuse = 503
            text = json.dumps({"name": name, "generation": str(generation)})
            self._answer(self.server.refuse or 200, text.encode())

    def _delete(self, name, query, body):
        if self._differs(name, query):
            self._answer(412, b"")
        elif name not in self.server.objects:
            self._answer(404, b"")
        else:
            self.server.put(name, None)
            self._answer(204)


@contextlib.contextmanager
def serving():
    """Serves an empty bucket while the context lasts."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
