"""A store that speaks as much of S3 as reading needs: HEAD, GET with ranges, ListObjectsV2."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

DATE = "Tue, 24 Nov 2026 00:00:00 GMT"


@contextmanager
def s3_store(bucket: str, objects: dict[str, bytes]) -> Iterator[str]:
    """Serve a bucket; its endpoint."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = parse_qs(url.query, keep_blank_values=True)
            name, _, key = unquote(url.path).lstrip("/").partition("/")
            if name != bucket:
                return self._answer(404, b"")
            if not key:
                return self._answer(200, self._list(query))
            if key not in objects:
                return self._answer(404, b"")
            data = objects[key]
            wanted = self.headers.get("Range")
            if wanted is None:
                return self._answer(200, data)
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            end = min(int(last) + 1 if last else len(data), len(data))
            extra = {"Content-Range": f"bytes {first}-{end - 1}/{len(data)}"}
            return self._answer(206, data[int(first) : end], extra)

        def _list(self, query: dict[str, list[str]]) -> bytes:
            prefix = query.get("prefix", [""])[0]
            keys = sorted(key for key in objects if key.startswith(prefix))
            items = "".join(
                f"<Contents><Key>{escape(key)}</Key><Size>{len(objects[key])}</Size>"
                "<LastModified>2026-11-24T00:00:00.000Z</LastModified></Contents>"
                for key in keys
            )
            text = (
                f"<ListBucketResult><Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix>"
                f"<KeyCount>{len(keys)}</KeyCount><IsTruncated>false</IsTruncated>{items}"
                "</ListBucketResult>"
            )
            return text.encode()

        def _answer(self, code: int, data: bytes, extra: dict[str, str] | None = None) -> None:
            self.send_response(code)
            headers = {"Content-Length": str(len(data)), "Last-Modified": DATE, "ETag": '"1"'}
            for name, value in (headers | (extra or {})).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
