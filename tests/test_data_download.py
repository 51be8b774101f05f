"""Downloads against a local server that misbehaves on demand."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from minidnn.cli import main
from minidnn.data import cifar, download
from minidnn.errors import ConfigError, DataError
from tests.cifar_files import make_archive, make_folder, small_format

CONTENT = bytes(range(256)) * 1000


class Server:
    """Serves `content` at any path; `faults` are used up one per request."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.ranges = True
        self.faults: list[int] = []  # a status of 400 and more, or after how many bytes to hang up
        self.requests: list[tuple[str, str | None]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = self.headers.get("Range")
                server.requests.append((self.path, asked))
                fault = server.faults.pop(0) if server.faults else None
                if fault is not None and 400 <= fault < 600:
                    self.send_error(fault)
                    return
                start = int(asked.removeprefix("bytes=")[:-1]) if asked and server.ranges else 0
                size = len(server.content)
                if start >= size:
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{size}")
                    self.end_headers()
                    return
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
                self.send_header("Content-Length", str(size - start))
                self.end_headers()
                end = size if fault is None else start + fault
                self.wfile.write(server.content[start:end])

            def log_message(self, format: str, *args: object) -> None:
                """Keep the test's output clean."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(
            target=self.http.serve_forever, kwargs={"poll_interval": 0.01}
        )
        self.thread.start()

    def close(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def pauses() -> list[float]:
    """Collect the pauses between attempts instead of waiting."""
    return []


def _fetch(server: Server, path: Path, pauses: list[float], md5: str | None = None) -> None:
    right = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    download.fetch(server.url + "/x", path, md5=md5 or right, pause=pauses.append)


def test_plain_download_reports_progress(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    download.fetch(
        server.url + "/x",
        tmp_path / "x",
        md5=hashlib.md5(CONTENT, usedforsecurity=False).hexdigest(),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert (tmp_path / "x").read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]


def test_interrupted_transfers_are_continued(
    server: Server, tmp_path: Path, pauses: list[float]
) -> None:
    server.faults = [70_000, 50, 503, 0, 100_000]
    _fetch(server, tmp_path / "x", pauses)
    assert (tmp_path / "x").read_bytes() == CONTENT
    ranges = [asked for _, asked in server.requests]
    assert ranges[:2] == [None, "bytes=70000-"]
    assert ranges[-1] == "bytes=170050-"
    # Two transfers got further, then 503 and nothing in a row: the pause doubles.
    assert pauses == [1, 1, 2, 4, 1]


def test_a_partial_file_of_an_earlier_run_is_continued(
    server: Server, tmp_path: Path, pauses: list[float]
) -> None:
    (tmp_path / "x.part").write_bytes(CONTENT[:1234])
    _fetch(server, tmp_path / "x", pauses)
    assert (tmp_path / "x").read_bytes() == CONTENT
    assert server.requests == [("/x", "bytes=1234-")]


def test_a_complete_partial_file_is_only_checked(
    server: Server, tmp_path: Path, pauses: list[float]
) -> None:
    (tmp_path / "x.part").write_bytes(CONTENT)
    _fetch(server, tmp_path / "x", pauses)
    assert (tmp_path / "x").read_bytes() == CONTENT
    assert len(server.requests) == 1


@pytest.mark.parametrize("old", [b"something else", CONTENT + b"and more"], ids=["other", "longer"])
def test_a_wrong_partial_file_is_started_again(
    server: Server, tmp_path: Path, pauses: list[float], old: bytes
) -> None:
    (tmp_path / "x.part").write_bytes(old)
    _fetch(server, tmp_path / "x", pauses)
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_a_server_without_ranges_sends_everything_again(
    server: Server, tmp_path: Path, pauses: list[float]
) -> None:
    server.ranges, server.faults = False, [1000]
    _fetch(server, tmp_path / "x", pauses)
    assert (tmp_path / "x").read_bytes() == CONTENT


def test_wrong_checksum_is_refused_and_nothing_kept(
    server: Server, tmp_path: Path, pauses: list[float]
) -> None:
    with pytest.raises(DataError, match="expected MD5 0123, got"):
        _fetch(server, tmp_path / "x", pauses, md5="0123")
    assert list(tmp_path.iterdir()) == []


def test_missing_page_fails_at_once(server: Server, tmp_path: Path, pauses: list[float]) -> None:
    server.faults = [404]
    with pytest.raises(DataError, match=r"404.*--mirror"):
        _fetch(server, tmp_path / "x", pauses)
    assert pauses == []


def test_a_dead_server_is_given_up_and_the_part_kept(
    server: Server, tmp_path: Path, pauses: list[float]
) -> None:
    server.faults = [1000] + [500] * 9
    with pytest.raises(DataError, match=r"gave up after 5 attempts \(500.*1,000 bytes are kept"):
        _fetch(server, tmp_path / "x", pauses)
    assert (tmp_path / "x.part").read_bytes() == CONTENT[:1000]
    assert pauses == [1, 2, 4, 8]


def test_nobody_listening_is_named(tmp_path: Path, pauses: list[float]) -> None:
    with pytest.raises(DataError, match=r"gave up after 5 attempts [^;]*; another copy"):
        download.fetch("http://127.0.0.1:9/x", tmp_path / "x", md5="0", pause=pauses.append)


# --- the whole of `minidnn data get` ----------------------------------------------------------


@pytest.fixture
def archive(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A small archive that counts as CIFAR-10, on the server; returns its bytes."""
    folder = make_folder(tmp_path / "made")
    extra = {"../evil.txt": b"!", "cifar-10-batches-bin/readme.html": b"<html>"}
    server.content = make_archive(folder, extra)
    md5 = hashlib.md5(server.content, usedforsecurity=False).hexdigest()
    monkeypatch.setitem(cifar.FORMATS, "cifar10", replace(small_format(), md5=md5))
    return server.content


def test_get_unpacks_the_expected_files_alone_and_verifies(
    archive: bytes, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "a" / "b"
    command = ["data", "get", "cifar10", "--data-dir", str(place), "--mirror", server.url + "/m/"]
    assert main(command) == 0
    assert server.requests == [("/m/cifar-10-binary.tar.gz", None)]
    folder = place / "cifar-10-batches-bin"
    assert [p.name for p in place.iterdir()] == [folder.name]
    expected = {*cifar.FORMATS["cifar10"].members(), cifar.MARKER}
    assert {p.name for p in folder.iterdir()} == expected
    assert not list(tmp_path.rglob("evil.txt"))
    assert cifar.read("cifar10", "test", place).note == ""
    assert main(["data", "verify", "cifar10", "--data-dir", str(place)]) == 0
    assert "This is the official archive" in capsys.readouterr().out
    # What is there is not fetched again, also where the folder itself is named.
    assert main([*command[:4], str(folder), *command[5:]]) == 0
    assert len(server.requests) == 1


def test_get_never_touches_a_folder_of_another_origin(
    archive: bytes, server: Server, tmp_path: Path
) -> None:
    folder = make_folder(tmp_path / "other", n=3)
    with pytest.raises(DataError, match="exists, but is not verified"):
        download.get("cifar10", folder.parent, mirror=server.url)
    assert server.requests == []


def test_get_goes_to_the_user_cache_by_default(
    archive: bytes, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar, "cache_dir", lambda: tmp_path / "cache")
    folder = download.get("cifar10", mirror=server.url + "/copy.tar.gz")
    assert folder == tmp_path / "cache" / "cifar-10-batches-bin"
    assert server.requests[0][0] == "/copy.tar.gz"
    assert len(cifar.read("cifar10", "train")) == 30


TRAIN = ["train", "mlp", "--data", "cifar10", "--epochs", "1", "--batch-size", "4", "--val", "6",
         "--set", "model.hidden=[4]"]  # fmt: skip


def test_train_downloads_what_the_cache_lacks_and_only_then(
    archive: bytes,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cifar, "cache_dir", lambda: tmp_path / "cache")
    run = str(tmp_path / "run")
    assert main([*TRAIN, "--mirror", server.url, "--out", run]) == 0
    assert f"not in {tmp_path / 'cache'}; downloading" in capsys.readouterr().out
    assert len(server.requests) == 1
    assert main([*TRAIN, "--out", str(tmp_path / "again")]) == 0
    shutil.rmtree(tmp_path / "cache")
    assert main(["train", "--resume", run, "--mirror", server.url]) == 0
    assert len(server.requests) == 2


def test_train_without_a_network_names_the_ways_out(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cifar, "cache_dir", lambda: tmp_path / "cache")
    server.faults = [404]
    run = tmp_path / "run"
    assert main([*TRAIN, "--mirror", server.url, "--out", str(run)]) == 2
    err = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the server answers 404" in err
    assert "--data-dir" in err
    assert "minidnn data get cifar10" in err
    assert not run.exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--set", "model.depth=3"], "unknown argument of mlp: 'depth'"),
        (["--data", "shapes", "--mirror", "http://x"], "--mirror: is for cifar10 and cifar100"),
        (["--data-dir", "here", "--mirror", "http://x"], "--data cifar10 --data-dir here"),
        (["--data-dir", "nowhere"], "minidnn data get cifar10 --data-dir nowhere"),
    ],
)
def test_train_says_what_is_wrong_before_it_downloads(
    options: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cifar, "cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setattr(download, "fetch", None)
    monkeypatch.chdir(tmp_path)
    assert main([*TRAIN, *options]) == 2
    captured = capsys.readouterr()
    assert expected in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize("damage", ["cut", "lacks", "size", "garbage", "link"])
def test_damaged_archives_leave_nothing_behind(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    folder = make_folder(tmp_path / "made")
    if damage == "lacks":
        (folder / "test_batch.bin").unlink()
    if damage == "size":
        (folder / "test_batch.bin").write_bytes(bytes(3073))
    if damage == "link":
        (folder / "test_batch.bin").unlink()
        (folder / "test_batch.bin").symlink_to("/etc/hostname")
    content = make_archive(folder)
    server.content = {"cut": content[:-2000], "garbage": CONTENT}.get(damage, content)
    md5 = hashlib.md5(server.content, usedforsecurity=False).hexdigest()
    monkeypatch.setitem(cifar.FORMATS, "cifar10", replace(small_format(), md5=md5))
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz: "):
        download.get("cifar10", tmp_path / "to", mirror=server.url)
    assert [p.name for p in (tmp_path / "to").iterdir()] == ["cifar-10-binary.tar.gz"]


def test_wrong_mirror_and_place_are_named(archive: bytes, server: Server, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mirror"):
        download.get("cifar10", tmp_path / "to", mirror="ftp://x")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot write there"):
        download.get("cifar10", tmp_path / "file" / "x", mirror=server.url)


def test_unknown_data_set_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "get", "cifar1O"]) == 2
    err = capsys.readouterr().err
    assert "did you mean 'cifar10'" in err
    assert err.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_full_disk_is_named(archive: bytes, server: Server, tmp_path: Path) -> None:
    (tmp_path / "cifar-10-binary.tar.gz.part").symlink_to("/dev/full")
    with pytest.raises(DataError, match="cannot write there: No space left"):
        download.get("cifar10", tmp_path, mirror=server.url)
