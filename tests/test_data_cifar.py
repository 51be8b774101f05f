"""CIFAR's binary files: read exactly, and refused by name where they are damaged."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidnn.cli import main
from minidnn.data import cifar, load, load_splits
from minidnn.errors import DataError
from tests.cifar_files import make_folder, record_bytes, small_format

CIFAR10 = cifar.FORMATS["cifar10"]
CIFAR100 = cifar.FORMATS["cifar100"]
REAL = os.environ.get("MINIDNN_CIFAR10")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path)


def test_both_splits_are_read_in_order(folder: Path) -> None:
    rng = np.random.default_rng(1)
    written = [rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8) for _ in range(6)]
    for data_dir in (folder, folder.parent, str(folder.parent)):
        train, test = (load("cifar10", split=s, data_dir=data_dir) for s in ("train", "test"))
        assert np.array_equal(train.images, np.concatenate(written[:5]))
        assert np.array_equal(test.images, written[5])
        assert train.labels.tolist() == list(range(6)) * 5
        assert train.classes == list("abcdefghij")
    assert len(load("cifar10", split="train", data_dir=folder, limit=7)) == 7


def test_cifar100_takes_the_fine_label(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    for name in ("train.bin", "test.bin"):
        (tmp_path / name).write_bytes(record_bytes(images, [99, 0, 57], coarse=[19, 3, 7]))
    dataset = load("cifar100", split="test", data_dir=tmp_path)
    assert dataset.labels.tolist() == [99, 0, 57]
    assert np.array_equal(dataset.images, images)
    assert len(dataset.classes) == 100


def test_missing_folder_names_the_command_that_gets_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="minidnn data get cifar10"):
        load("cifar10", data_dir=tmp_path)


def test_missing_file_is_named(folder: Path) -> None:
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match=r"data_batch_3\.bin: missing"):
        load("cifar10", data_dir=folder)


@pytest.mark.parametrize("size", [0, 1, 3072, 3074, 6 * 3073 - 1])
def test_truncated_file_is_named_with_both_sizes(folder: Path, size: int) -> None:
    (folder / "data_batch_2.bin").write_bytes(bytes(size))
    with pytest.raises(DataError, match=rf"data_batch_2\.bin: truncated.*3073.*got {size:,}$"):
        load("cifar10", data_dir=folder)


def test_label_out_of_range_is_named(folder: Path) -> None:
    path = folder / "test_batch.bin"
    data = bytearray(path.read_bytes())
    data[2 * 3073] = 10
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"test_batch\.bin: label of image 2: expected 0 to 9.* 10"):
        load("cifar10", split="test", data_dir=folder)


@pytest.mark.parametrize("names", ["a\nb\n", "a\n" * 10], ids=["two", "repeated"])
def test_wrong_class_names_are_refused(folder: Path, names: str) -> None:
    (folder / "batches.meta.txt").write_text(names)
    with pytest.raises(DataError, match=r"batches\.meta\.txt: expected 10 different"):
        load("cifar10", data_dir=folder)


def test_class_names_may_be_missing(folder: Path) -> None:
    (folder / "batches.meta.txt").unlink()
    assert load("cifar10", data_dir=folder).classes == list("0123456789")


def test_unknown_names_give_the_nearest_known(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="did you mean 'cifar10'"):
        load("cifar-10", data_dir=tmp_path)
    with pytest.raises(DataError, match="split"):
        load("shapes", split="val")


@given(data=st.binary(max_size=200), repeat=st.integers(0, 40), form=st.sampled_from(["cifar10"]))
def test_any_bytes_are_read_or_refused_as_data_errors(data: bytes, repeat: int, form: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "test_batch.bin"
        path.write_bytes(data * repeat)
        _read_or_refuse(path, cifar.FORMATS[form])


@given(
    labels=st.lists(st.integers(0, 255), min_size=1, max_size=3),
    coarse=st.booleans(),
    seed=st.integers(0, 99),
)
def test_what_was_written_comes_back(labels: list[int], coarse: bool, seed: int) -> None:
    form = CIFAR100 if coarse else CIFAR10
    images = np.random.default_rng(seed).integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / next(iter(form.records["test"]))
        path.write_bytes(record_bytes(images, labels, [0] * len(labels) if coarse else None))
        got = _read_or_refuse(path, form)
    if max(labels) < form.n_classes:
        assert got is not None
        assert np.array_equal(got[0], images)
        assert got[1].tolist() == labels
    else:
        assert got is None


def _read_or_refuse(path: Path, form: cifar.Format) -> Any:
    try:
        images, labels = cifar.read_file(path, form)
    except DataError as error:
        message = str(error)
    else:
        assert len(images) == len(labels) > 0
        return images, labels
    assert str(path) in message
    return None


# --- provenance -----------------------------------------------------------------------------


def test_unverified_folder_is_said_beside_accuracies(folder: Path) -> None:
    assert load("cifar10", data_dir=folder).note == "not verified to be the official archive"
    (folder / "note.txt").write_text("JPEG copy\nmade on a rainy day\n")
    assert load("cifar10", data_dir=folder).note.startswith("JPEG copy, not verified")


def test_marker_of_our_extraction_verifies_until_a_byte_changes(folder: Path) -> None:
    form = small_format()
    files = [name for split in form.records.values() for name in split]
    sha256 = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files}
    marker = folder / cifar.MARKER
    marker.write_text(json.dumps({"md5": form.md5, "sha256": sha256}))
    assert all(finding.official for finding in cifar.verify(form, folder))
    assert cifar.note(folder, form) == ""
    data = bytearray((folder / files[0]).read_bytes())
    data[100] ^= 1
    (folder / files[0]).write_bytes(data)
    assert [f.file for f in cifar.verify(form, folder) if not f.official] == files[:1]
    for broken in ("", "[]", "{}", '{"md5": "0", "sha256": {}}', '{"md5": 1, "sha256": 2}'):
        marker.write_text(broken)
        assert not any(finding.official for finding in cifar.verify(form, folder))


def test_verify_command_says_plainly_what_a_folder_is(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "data_batch_4.bin").write_bytes((folder / "data_batch_4.bin").read_bytes() * 2)
    assert main(["data", "verify", "cifar10", "--data-dir", str(folder)]) == 1
    out = capsys.readouterr().out
    assert "NOT the official archive" in out
    assert "36,876 bytes, the official file has 30,730,000" in out
    (folder / "data_batch_4.bin").write_bytes(b"short")
    assert main(["data", "verify", "cifar10", "--data-dir", str(folder)]) == 2
    assert "data_batch_4.bin: truncated" in capsys.readouterr().err


# --- the real images ------------------------------------------------------------------------


@pytest.mark.skipif(not REAL, reason="MINIDNN_CIFAR10 does not name a folder with CIFAR-10")
def test_real_images_are_complete() -> None:
    parts = load_splits("cifar10", data_dir=REAL)
    assert (len(parts.train), len(parts.val), len(parts.test)) == (45_000, 5_000, 10_000)
    assert np.bincount(parts.test.labels).tolist() == [1000] * 10
    assert np.bincount(parts.val.labels).tolist() == [500] * 10
    assert parts.train.classes[:2] == ["airplane", "automobile"]
    assert abs(parts.train.images.mean() / 255 - 0.473) < 0.01
    whole = load_splits("cifar10", data_dir=REAL, protocol="paper")
    assert (len(whole.train), len(whole.val), len(whole.test)) == (54_000, 6_000, 6_000)
