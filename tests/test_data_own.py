"""A user's own pictures (folders, .npz), the splits, and ``minidnn data show``."""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidnn.cli import main
from minidnn.data import Dataset, load, load_splits
from minidnn.data.npz import read_npz
from minidnn.data.pictures import read_folder, read_picture
from minidnn.data.splits import cut, join, official, paper, stratified
from minidnn.errors import ConfigError, DataError, MissingExtraError

# --- .npz -----------------------------------------------------------------------------------

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(20) % 4


def _npz(folder: Path, **arrays: Any) -> Path:
    path = folder / "own.npz"
    np.savez(path, **{"images": IMAGES, "labels": LABELS, **arrays})
    return path


def test_npz_is_read_and_cut_into_the_same_parts_each_time(tmp_path: Path) -> None:
    path = _npz(tmp_path, classes=np.array(["w", "x", "y", "z"]))
    whole = read_npz(path)
    assert np.array_equal(whole.images, IMAGES)
    assert whole.labels.dtype == np.int64
    assert whole.classes == ["w", "x", "y", "z"]
    train, test = (load(str(path), split=split) for split in ("train", "test"))
    assert (len(train), len(test)) == (16, 4)
    assert np.bincount(test.labels).tolist() == [1, 1, 1, 1]
    rows = {image.tobytes() for image in np.concatenate([train.images, test.images])}
    assert len(rows) == 20
    assert "random fifth" in test.note
    parts = load_splits(str(path), val=4, seed=3)
    assert np.array_equal(parts.test.images, test.images)
    assert (len(parts.train), len(parts.val)) == (12, 4)


def test_npz_without_class_names_counts_them(tmp_path: Path) -> None:
    path = _npz(tmp_path, labels=LABELS.astype(np.uint8))
    assert read_npz(path).classes == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"images": IMAGES.astype(np.float32)}, "scale it yourself"),
        ({"images": np.full((20, 4, 4, 3), np.nan, np.float32)}, "960 of its pixels are NaN"),
        ({"images": IMAGES[..., 0]}, r"images\[\.\.\., None\]"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "at least one image"),
        ({"labels": LABELS[:-1]}, "one label per image"),
        ({"labels": LABELS - 1}, "label of image 0: expected 0 to"),
        ({"labels": LABELS + 1, "classes": np.array(list("abcd"))}, "expected 0 to 3, got 4"),
        ({"labels": LABELS.astype(float)}, "labels: expected integers"),
        ({"labels": LABELS * 10**9}, "at most 10,000, got [1-9],000,000,000; number them anew"),
        ({"classes": np.array(list("aacd"))}, "different strings"),
        ({"classes": np.arange(4)}, "different strings"),
        ({"classes": np.array(["a", None], dtype=object)}, "not an .npz file"),
    ],
    ids=str,
)
def test_wrong_arrays_are_named(tmp_path: Path, arrays: dict[str, Any], text: str) -> None:
    path = _npz(tmp_path, **arrays)
    with pytest.raises(DataError, match=text) as caught:
        load(str(path))
    assert str(path) in str(caught.value)


def test_missing_keys_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, pictures=IMAGES, labels=LABELS)
    with pytest.raises(DataError, match="images not among pictures, labels"):
        read_npz(path)
    with pytest.raises(DataError, match="no such file"):
        read_npz(tmp_path / "y.npz")
    np.save(tmp_path / "z.npy", IMAGES)
    (tmp_path / "z.npy").rename(tmp_path / "z.npz")
    with pytest.raises(DataError, match=r"images and labels not among its \(no\) arrays"):
        read_npz(tmp_path / "z.npz")


def _archive() -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, images=IMAGES[:2], labels=LABELS[:2])
    return stream.getvalue()


@given(st.data())
def test_damaged_npz_is_a_data_error(data: st.DataObject) -> None:
    content = bytearray(_archive())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "x.npz"
        path.write_bytes(content)
        message = ""
        try:
            assert len(read_npz(path)) == 2
        except DataError as error:
            message = str(error)
        assert not message or str(path) in message


# --- splits ---------------------------------------------------------------------------------


def _numbered(n: int, name: str = "made", first: int = 0) -> Dataset:
    """Pictures that carry their own number, in three classes of unequal size."""
    number = np.arange(first, first + n)
    images = np.stack([number // 256, number % 256], axis=-1).astype(np.uint8)
    labels = np.minimum(number % 5, 2).astype(np.int64)
    return Dataset(images.reshape(n, 1, 1, 2), labels, ["a", "b", "c"], name)


def _numbers(dataset: Dataset) -> list[int]:
    high, low = dataset.images.reshape(-1, 2).astype(int).T
    return [int(x) for x in high * 256 + low]


def test_official_protocol_cuts_the_validation_set_off_the_training_set() -> None:
    train, test = _numbered(1000), _numbered(100, first=1000)
    parts = official(train, test, seed=1)
    assert sorted(_numbers(parts.train) + _numbers(parts.val)) == list(range(1000))
    assert parts.test is test
    assert np.bincount(parts.val.labels).tolist() == [20, 20, 60]
    assert _numbers(official(train, test, seed=1).val) == _numbers(parts.val)
    assert _numbers(official(train, test, seed=2).val) != _numbers(parts.val)
    assert len(official(train, test, val=7).val) == 7


@given(st.lists(st.integers(0, 4), min_size=2, max_size=60), st.integers(0, 9), st.data())
def test_cut_is_a_partition_in_proportion(
    labels: list[int], seed: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, len(labels) - 1))
    array = np.array(labels)
    rest, held = stratified(array, count, seed)
    assert sorted([*rest, *held]) == list(range(len(labels)))
    assert len(held) == count
    share = np.bincount(array, minlength=5) * count / len(labels)
    assert np.all(np.abs(np.bincount(array[held], minlength=5) - share) <= 2.5)


def test_paper_protocol_holds_out_of_all_pictures_and_says_so() -> None:
    train, test = _numbered(500), _numbered(100, first=500)
    parts = paper(train, test, seed=1)
    assert (len(parts.train), len(parts.val)) == (540, 60)
    assert parts.test is parts.val
    assert sorted(_numbers(parts.train) + _numbers(parts.val)) == list(range(600))
    assert "same held-out images" in parts.val.note
    assert any(number >= 500 for number in _numbers(parts.train))


@pytest.mark.parametrize("count", [0, -1, 30, 31])
def test_cut_that_leaves_a_part_empty_is_refused(count: int) -> None:
    with pytest.raises(ConfigError, match="held-out images: expected 1 to 29"):
        cut(_numbered(30), count)
    with pytest.raises(ConfigError, match="held-out images: expected 1 to 29"):
        paper(_numbered(20), _numbered(10), held_out=count)


def test_unlike_sets_are_not_joined() -> None:
    other = Dataset(np.zeros((2, 1, 1, 2), np.uint8), np.zeros(2, np.int64), ["a", "b"], "other")
    with pytest.raises(ConfigError, match="cannot join"):
        join(_numbered(3), other)


def test_limit_shortens_training_alone() -> None:
    parts = load_splits("shapes", limit=300)
    assert (len(parts.train), len(parts.val), len(parts.test)) == (300, 1000, 2000)
    with pytest.raises(ConfigError, match="did you mean 'paper'"):
        load_splits("shapes", protocol="papers")


# --- pictures -------------------------------------------------------------------------------


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    for name, colour in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        (tmp_path / name).mkdir()
        for i in range(5):
            picture = image.new("RGB", (20 + i, 30), colour)
            picture.save(tmp_path / name / f"{i}.{('png', 'jpg', 'JPEG')[i % 3]}")
    (tmp_path / "red" / "notes.txt").write_text("ignored")
    (tmp_path / ".hidden").mkdir()
    return tmp_path


def test_one_picture_cannot_be_cut() -> None:
    one = Dataset(IMAGES[:1], np.zeros(1, np.int64), ["a", "b"], "one")
    with pytest.raises(DataError, match=r"one: expected at least 2 images to cut .*, got 1"):
        cut(one, 1)


def test_folder_holds_a_class_per_subfolder(own_folder: Path) -> None:
    whole, test = read_folder(own_folder, 16)
    assert test is None
    assert whole.classes == ["blue", "red"]
    assert whole.images.shape == (10, 16, 16, 3)
    assert whole.images[0].mean(axis=(0, 1)) == pytest.approx([0, 0, 255], abs=3)
    assert whole.images[-1].mean(axis=(0, 1)) == pytest.approx([255, 0, 0], abs=3)
    parts = load_splits(f"folder:{own_folder}")
    assert (len(parts.train), len(parts.val), len(parts.test)) == (7, 1, 2)
    assert parts.train.input_shape == (32, 32, 3)
    assert "scaled to cover 32x32" in parts.test.note


def test_folder_with_train_and_test_keeps_them_apart(own_folder: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / "both" / split).mkdir(parents=True)
        for name in ("red", "blue"):
            (tmp_path / "both" / split / name).symlink_to(own_folder / name)
    train, test = (load(f"folder:{tmp_path / 'both'}", split=s, size=8) for s in ("train", "test"))
    assert len(train) == len(test) == 10
    (tmp_path / "both" / "test" / "green").mkdir()
    with pytest.raises(DataError, match="different class folders"):
        load(f"folder:{tmp_path / 'both'}")


def test_picture_is_scaled_and_cut_from_the_middle(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    # White left third, red middle, blue right third: 60x20, of which the middle square stays.
    stripes = np.zeros((20, 60, 3), np.uint8)
    stripes[:, :20], stripes[:, 20:40, 0], stripes[:, 40:, 2] = 255, 255, 255
    image.fromarray(stripes).save(tmp_path / "x.png")
    picture, how = read_picture(tmp_path / "x.png", (10, 10))
    assert how == "60x20 scaled to cover 10x10, middle cut out"
    assert picture[:, 2:8].reshape(-1, 3).mean(axis=0) == pytest.approx([255, 0, 0], abs=2)
    same, how = read_picture(tmp_path / "x.png", (20, 60))
    assert how == ""
    assert np.array_equal(same, stripes)
    grey, _ = read_picture(tmp_path / "x.png", (20, 60), channels=1)
    assert grey.shape == (20, 60, 1)
    image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert read_picture(tmp_path / "clear.png", (4, 4))[0].min() == 255
    with pytest.raises(ConfigError, match="channels"):
        read_picture(tmp_path / "x.png", (4, 4), channels=2)


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", "cut"], ids=repr)
def test_unreadable_picture_is_named(own_folder: Path, content: bytes | str) -> None:
    path = own_folder / "red" / "0.png"
    path.write_bytes(path.read_bytes()[:60] if isinstance(content, str) else content)
    with pytest.raises(DataError, match=r"0\.png: not a picture"):
        read_folder(own_folder, 16)


def test_missing_folders_and_pictures_are_named(own_folder: Path) -> None:
    with pytest.raises(DataError, match="expected a folder"):
        load(f"folder:{own_folder / 'nowhere'}")
    with pytest.raises(DataError, match="expected a folder's name after it"):
        load("folder:")
    with pytest.raises(DataError, match="no such file"):
        read_picture(own_folder / "x.png", (4, 4))
    with pytest.raises(ConfigError, match="at least 1"):
        read_folder(own_folder, 0)
    (own_folder / "green").mkdir()
    with pytest.raises(DataError, match=r"green: expected \.png"):
        read_folder(own_folder, 16)
    with pytest.raises(DataError, match="one subfolder of pictures per class"):
        read_folder(own_folder / "green", 16)


def test_without_pillow_the_command_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtraError, match=r"python -m pip install 'minidnn\[images\]'"):
        read_picture(tmp_path / "x.png", (4, 4))


def test_show_writes_a_row_per_class(
    own_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    out = tmp_path / "sheet.png"
    assert main(["data", "show", f"folder:{own_folder}", "-o", str(out), "--columns", "9"]) == 0
    assert "blue, red" in capsys.readouterr().out
    page = np.asarray(image.open(out))
    assert page.shape == (2 * 64, 9 * 64, 3)
    assert page[:64, :64].mean(axis=(0, 1)) == pytest.approx([0, 0, 255], abs=3)
    assert page[:, -64:].min() == 255  # fewer pictures than columns
    assert main(["data", "show", "shapes", "-o", str(tmp_path / "no" / "x.png")]) == 2
    assert main(["data", "show", "shapes", "-o", str(out), "--columns", "0"]) == 2
