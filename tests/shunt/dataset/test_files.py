"""Files are found in the order given, local or on S3; each that cannot be used is named."""

import gzip
import os
import random
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from shunt.dataset.files import find_files
from shunt.errors import InputError
from shunt.store.s3 import S3Access, S3Store
from shunt.testing.s3_server import S3Server
from tests.shunt.dataset.rows import cut, make_job


def test_a_glob_is_sorted_and_a_list_keeps_its_order_without_repeats(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "c.jsonl"):
        (tmp_path / name).touch()
    found = find_files([str(tmp_path / "c.jsonl"), str(tmp_path / "*.jsonl")])
    assert [source.name for source in found] == ["c.jsonl", "a.jsonl", "b.jsonl"]


@pytest.mark.parametrize(
    "name", ["reviews [final].jsonl", "50%20off.jsonl", "c#.jsonl", "a+b.jsonl"]
)
def test_a_file_is_found_by_the_very_name_it_has(tmp_path: Path, name: str) -> None:
    for other in (name, "reviews f.jsonl"):
        (tmp_path / other).write_text('{"prompt": "hi"}\n')
    [found] = find_files(str(tmp_path / name))
    assert found.name == name


def test_files_that_share_a_name_are_told_apart_by_all_of_their_path(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rows.jsonl").write_text("{}\n")
    (tmp_path / "a" / "more.jsonl").write_text("{}\n")
    found = find_files([str(tmp_path / "a" / "*.jsonl"), str(tmp_path / "b" / "rows.jsonl")])
    assert [source.name for source in found] == [
        "more.jsonl",
        str(tmp_path / "a" / "rows.jsonl"),
        str(tmp_path / "b" / "rows.jsonl"),
    ]


def test_rows_of_all_files_are_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text('{"prompt": "three"}\n')
    (tmp_path / "a.jsonl").write_text('{"prompt": "one"}\n{"prompt": "two"}')
    [table], _ = cut(make_job(tmp_path / "*.jsonl"))
    assert table.column("text").to_pylist() == ["one", "two", "three"]


def test_a_path_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    path = tmp_path / "rows.jsonl"
    path.touch(mode=0)
    with pytest.raises(InputError, match="cannot be read"):
        cut(make_job(path))


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["a.txt"], "set input.format"),
        (["a.jsonl", "b.csv"], "names files of several formats: csv, jsonl"),
    ],
)
def test_a_format_that_cannot_be_told_is_asked_for(
    tmp_path: Path, paths: list[str], message: str
) -> None:
    for path in paths:
        (tmp_path / path).write_text("{}\n")
    with pytest.raises(InputError, match=message):
        cut(make_job("", input={"path": [str(tmp_path / path) for path in paths]}))


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.jsonl.zst", "rows.parquet"])
@pytest.mark.parametrize("damage", [b"\x00", b"\xff"])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, name: str, damage: bytes) -> None:
    letters = random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=400_000)
    texts = ["".join(letters[start : start + 40]) for start in range(0, len(letters), 40)]
    plain = "".join(f'{{"prompt": "{text}"}}\n' for text in texts).encode()
    path = tmp_path / name
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(plain))
    elif name.endswith(".zst"):
        path.write_bytes(zstandard.ZstdCompressor(write_checksum=True).compress(plain))
    else:
        pq.write_table(pa.table({"prompt": texts}), path, compression="gzip")
    data = bytearray(path.read_bytes())
    assert cut(make_job(path))[1].num_rows == len(texts)
    middle = len(data) // 3
    data[middle : middle + 2000] = damage * 2000
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"{name}: "):
        cut(make_job(path))


@pytest.fixture
def on_s3(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server, with its credentials where s3fs looks for them."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.credentials.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.credentials.secret_access_key)
    monkeypatch.setenv("AWS_DEFAULT_REGION", s3.region)
    return s3


@pytest.mark.s3
def test_files_on_s3_are_read_by_glob(on_s3: S3Server) -> None:
    access = S3Access(on_s3.endpoint_url, on_s3.region, on_s3.credentials)
    store = S3Store(on_s3.bucket, "input", access=access)
    store.put("b.jsonl", b'{"prompt": "two"}\n')
    store.put("a.jsonl.gz", gzip.compress(b'{"prompt": "one"}\n'))
    path = f"s3://{on_s3.bucket}/input/*"
    sources = find_files(path, endpoint_url=on_s3.endpoint_url)
    assert [source.name for source in sources] == ["a.jsonl.gz", "b.jsonl"]
    assert sources[0].uri == f"s3://{on_s3.bucket}/input/a.jsonl.gz"
    lines = []
    for source in sources:
        with source.open() as stream:
            lines.append(stream.read())
    assert lines == [b'{"prompt": "one"}\n', b'{"prompt": "two"}\n']


@pytest.mark.s3
@pytest.mark.parametrize(
    ("path", "secret"),
    [("s3://{bucket}/none.jsonl", None), ("s3://{bucket}/none/*", None),
     ("s3://no-such-bucket/a.jsonl", None), ("s3://{bucket}/a.jsonl", "wrong")],
)  # fmt: skip
def test_what_s3_does_not_have_or_give_is_refused(
    on_s3: S3Server, monkeypatch: pytest.MonkeyPatch, path: str, secret: str | None
) -> None:
    if secret is not None:
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
    uri = path.format(bucket=on_s3.bucket)
    with pytest.raises(InputError, match=uri.split("*")[0]):
        find_files(uri, endpoint_url=on_s3.endpoint_url)


@pytest.mark.s3
def test_an_endpoint_that_is_not_there_is_told(on_s3: S3Server) -> None:
    uri = f"s3://{on_s3.bucket}/a.jsonl"
    with pytest.raises(InputError, match="cannot be read"):
        find_files(uri, endpoint_url="http://127.0.0.1:9")


_EMPTY_LISTING = (
    b'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><KeyCount>0</KeyCount>'
    b"<IsTruncated>false</IsTruncated></ListBucketResult>"
)


@pytest.mark.parametrize(
    ("options", "header", "value"),
    [
        ({"anon": True}, "authorization", None),
        ({"requester_pays": True}, "x-amz-request-payer", "requester"),
    ],
)
def test_options_of_the_file_system_reach_s3(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, bool], header: str, value: str | None
) -> None:
    """A public bucket is asked without a signature, and who pays says so with every request."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "ours")
    asked: list[dict[str, str]] = []

    class OneFile(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append({name.lower(): text for name, text in self.headers.items()})
            body = _EMPTY_LISTING if "list-type" in self.path else b"{}\n"
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.send_header("etag", '"1"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), OneFile)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        endpoint = f"http://127.0.0.1:{server.server_port}"
        [source] = find_files("s3://public/a.jsonl", endpoint_url=endpoint, options=options)
        with source.open() as stream:
            assert stream.read() == b"{}\n"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert asked
    assert {headers.get(header) for headers in asked} == {value}


def test_an_option_that_the_file_system_does_not_know_is_told() -> None:
    with pytest.raises(InputError, match=r"s3://public/a.jsonl: cannot be read: .*anonymous"):
        find_files("s3://public/a.jsonl", options={"anonymous": True})


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda p: os.mkfifo(p), "is a pipe, a socket or a device; write it to a file first"),
        (lambda p: p.symlink_to("/dev/zero"), "is a pipe, a socket or a device"),
        (lambda p: p.symlink_to(p.name), "there is no such file"),
        (lambda p: p.symlink_to("nothing"), r"odd.jsonl: there is no such file"),
    ],
)
def test_what_is_no_file_is_told_and_not_waited_for(
    tmp_path: Path, make: Callable[[Path], object], told: str
) -> None:
    make(tmp_path / "odd.jsonl")
    with pytest.raises(InputError, match=told):
        find_files(str(tmp_path / "odd.jsonl"))
    if "pipe" in told:
        with pytest.raises(InputError, match=told):
            find_files(str(tmp_path))
