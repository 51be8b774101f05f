"""Fetch an archive over an unreliable line, check it, and take only the expected files out.

What has arrived is kept in ``NAME.part`` and continued from there, in this run or the next.
Nothing counts until the published checksum agrees.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import shutil
import ssl
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

from minidnn.data import cifar
from minidnn.data.cifar import Format
from minidnn.errors import ConfigError, DataError

Progress = Callable[[int, "int | None"], None]

BLOCK = 1 << 16
TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 5  # in a row without a byte of progress
FIRST_PAUSE = 1.0  # seconds; doubled after each failure
WORTH_RETRYING = (408, 425, 429)  # and every 5xx

BROKEN_ARCHIVE = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile)


class _InterruptedError(Exception):
    """The transfer stopped for a reason that may pass."""


def get(
    name: str,
    data_dir: str | Path | None = None,
    *,
    mirror: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Download and unpack a data set unless it is there.

    Parameters
    ----------
    name : {"cifar10", "cifar100"}
    data_dir : path, optional
        Where to put the folder of binary files; default: the user's cache.
    mirror : str, optional
        Address of another copy of the archive, or of the folder that holds it. The checksum
        stays the published one.
    progress : callable, optional
        Called as ``progress(bytes so far, bytes in all or None)``.

    Returns
    -------
    Path
        The folder of binary files.

    Raises
    ------
    DataError
        If the download fails, or the archive or a file already there is not the official one.
    ConfigError
        If the mirror is not an http or https address.
    """
    form = cifar.format_named(name)
    root = cifar.cache_dir() if data_dir is None else Path(data_dir).expanduser()
    if root.name == form.folder:
        root = root.parent
    folder = root / form.folder
    if folder.exists():
        if all(finding.official for finding in cifar.verify(form, folder)):
            return folder
        raise DataError(
            f"{folder}: exists, but is {cifar.UNVERIFIED}; move it away, or choose another "
            "place with --data-dir"
        )
    url = _address(form, mirror)
    archive = root / form.url.rpartition("/")[2]
    try:
        root.mkdir(parents=True, exist_ok=True)
        fetch(url, archive, md5=form.md5, progress=progress)
        extract(archive, form, root)
        archive.unlink()
    except OSError as error:
        raise DataError(f"{root}: cannot write there: {error.strerror or error}") from error
    return folder


def _address(form: Format, mirror: str | None) -> str:
    if mirror is None:
        return form.url
    if not mirror.startswith(("http://", "https://")):
        raise ConfigError(f"mirror: expected an http:// or https:// address, got {mirror!r}")
    if mirror.endswith((".tar.gz", ".tgz")):
        return mirror
    return mirror.rstrip("/") + "/" + form.url.rpartition("/")[2]


def fetch(
    url: str,
    path: Path,
    *,
    md5: str,
    progress: Progress | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Download `url` to `path`, continuing what is there, until its MD5 is the expected one.

    Parameters
    ----------
    url : str
    path : Path
    md5 : str
    progress : callable, optional
    pause : callable
        Waits so many seconds between attempts.

    Raises
    ------
    DataError
        If the address does not answer, or what came has another checksum.
    """
    part = path.with_name(path.name + ".part")
    continued = part.exists() and part.stat().st_size > 0
    _receive(url, part, progress, pause)
    got = cifar.digest(part, "md5")
    if got != md5 and continued:  # the old beginning may be of something else
        part.unlink()
        _receive(url, part, progress, pause)
        got = cifar.digest(part, "md5")
    if got != md5:
        part.unlink()
        raise DataError(
            f"{url}: expected MD5 {md5}, got {got}; the file is not the official archive, or was "
            "damaged on the way (removed it; try again, or another --mirror)"
        )
    part.replace(path)


def _receive(
    url: str, part: Path, progress: Progress | None, pause: Callable[[float], None]
) -> None:
    failures = 0
    while True:
        before = _size(part)
        try:
            _transfer(url, part, progress)
            return
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in WORTH_RETRYING:
                raise DataError(
                    f"{url}: the server answers {error.code} {error.reason}; "
                    "another copy can be named with --mirror URL"
                ) from None
            reason = f"{error.code} {error.reason}"
        except (_InterruptedError, urllib.error.URLError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        except (TimeoutError, ConnectionError, ssl.SSLError) as error:
            reason = str(error) or type(error).__name__
        failures = 1 if _size(part) > before else failures + 1
        if failures == ATTEMPTS:
            came = _size(part)
            kept = f"{came:,} bytes are kept in {part} and will be continued; " if came else ""
            raise DataError(
                f"{url}: gave up after {ATTEMPTS} attempts ({reason}); {kept}"
                "another copy can be named with --mirror URL"
            )
        pause(FIRST_PAUSE * 2 ** (failures - 1))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _transfer(url: str, part: Path, progress: Progress | None) -> None:
    """Append what is missing; a server that cannot continue sends everything again."""
    done = _size(part)
    request = urllib.request.Request(url, headers={"User-Agent": "minidnn"})
    if done:
        request.add_header("Range", f"bytes={done}-")
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: nothing lies beyond what we have
            raise
        if error.headers.get("Content-Range") != f"bytes */{done}":
            part.unlink()
            raise _InterruptedError("the partial file is longer than the server's") from None
        return
    with answer:
        if answer.status != 206 or not str(answer.headers.get("Content-Range", "")).startswith(
            f"bytes {done}-"
        ):
            done = 0
        length = answer.headers.get("Content-Length")
        total = done + int(length) if length and length.isdigit() else None
        with part.open("ab" if done else "wb") as file:
            while block := answer.read(BLOCK):
                file.write(block)
                done += len(block)
                if progress is not None:
                    progress(done, total)
    if total is not None and done < total:
        raise _InterruptedError(f"the connection ended after {done:,} of {total:,} bytes")


def extract(archive: Path, form: Format, root: Path) -> Path:
    """Take the expected files, and nothing else, out of an archive whose MD5 was checked.

    The folder appears under its name only when all is in it. A marker beside the files keeps
    the archive's MD5 and each file's SHA-256, for `minidnn.data.cifar.verify`.

    Raises
    ------
    DataError
        If the archive is damaged, lacks a file, or a file has not the official size.
    """
    folder = root / form.folder
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=root) as scratch:
        unpacked = Path(scratch) / form.folder
        unpacked.mkdir()
        sha256 = {}
        try:
            with tarfile.open(archive, "r:gz") as tar:
                wanted = {f"{form.folder}/{name}" for name in form.members()}
                for member in tar:
                    expected = member.name in wanted and member.isreg()
                    if expected and (stream := tar.extractfile(member)) is not None:
                        wanted.discard(member.name)
                        name = member.name.rpartition("/")[2]
                        _check_size(archive, name, member.size, form)
                        sha256[name] = _copy(stream, unpacked / name)
        except BROKEN_ARCHIVE as error:
            raise DataError(f"{archive}: damaged archive: {error}") from error
        if wanted:
            raise DataError(f"{archive}: expected {', '.join(sorted(wanted))} in it, not found")
        marker = {"archive": form.url, "md5": form.md5, "sha256": sha256}
        (unpacked / cifar.MARKER).write_text(json.dumps(marker, indent=1) + "\n", "utf-8")
        shutil.move(unpacked, folder)
    return folder


def _check_size(archive: Path, name: str, size: int, form: Format) -> None:
    for files in form.records.values():
        if name in files and size != files[name] * form.record_size:
            raise DataError(
                f"{archive}: {name}: expected {files[name] * form.record_size:,} bytes, "
                f"got {size:,}"
            )
    if size > 1 << 30:
        raise DataError(f"{archive}: {name}: expected a small file, got {size:,} bytes")


def _copy(stream: IO[bytes], path: Path) -> str:
    """Write a stream to a file and return its SHA-256."""
    state = hashlib.sha256()
    with stream, path.open("wb") as file:
        while block := stream.read(1 << 20):
            file.write(block)
            state.update(block)
    return state.hexdigest()
