# SPDX-License-Identifier: BSD-3-Clause
"""Data to learn from: every form that it may have on a disk, what is wrong with it, and batches from any threads."""

import gzip
import threading

import numpy as np
import pytest

import fastconv as fc
from fastconv import training
from fastconv.models import Preprocessing

SIDE = 8
SEEN = Preprocessing(SIDE, SIDE, (0.5,), (0.25,))


@pytest.fixture
def rng():
    return np.random.default_rng(17)


def some(rng, count, channels=None):
    shape = (count, SIDE, SIDE) if channels is None else (count, SIDE, SIDE, channels)
    return rng.integers(0, 256, shape, np.uint8), np.arange(count) % 3


# --- forms ------------------------------------------------------------------------------------------------------------


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    return head + array.astype(np.uint8).tobytes()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dot", [".", "-"])
def test_idx(rng, tmp_path, packed, dot):
    parts = {"train": some(rng, 30), "t10k": some(rng, 12)}
    for part, (images, labels) in parts.items():
        for what, array in ((f"images{dot}idx3", images), (f"labels{dot}idx1", labels)):
            content = idx(array)
            path = tmp_path / f"{part}-{what}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(content) if packed else content)
    data = training.open_data(tmp_path)
    for source, (images, labels) in zip(data, parts.values(), strict=True):
        np.testing.assert_array_equal(source.labels, labels)
        np.testing.assert_array_equal(source.image(5)[..., 0], images[5])
        assert source.channels == 1
        assert source.size() == SIDE


@pytest.mark.parametrize("kinds", [10, 100])
def test_cifar(rng, tmp_path, kinds):
    def rows(count, seed):
        images = np.random.default_rng(seed).integers(0, 256, (count, 3, 32, 32), np.uint8)
        labels = (np.arange(count) * 7 % kinds).astype(np.uint8)
        coarse = [labels // 5] if kinds == 100 else []
        return images, labels, np.column_stack([*coarse, labels, images.reshape(count, -1)]).tobytes()

    names = [f"kind{i}" for i in range(kinds)]
    if kinds == 10:
        files, test, meta = ["data_batch_1.bin", "data_batch_2.bin"], "test_batch.bin", "batches.meta.txt"
    else:
        files, test, meta = ["train.bin"], "test.bin", "fine_label_names.txt"
    made = [rows(6, i) for i in range(len(files))]
    for file, (_, _, content) in zip(files, made, strict=True):
        (tmp_path / file).write_bytes(content)
    held_out = rows(4, 9)
    (tmp_path / test).write_bytes(held_out[2])
    (tmp_path / meta).write_text("\n".join(names) + "\n")
    data = training.open_data(tmp_path)
    assert data.learn.classes == tuple(names)
    assert len(data.learn) == 6 * len(files)
    np.testing.assert_array_equal(data.learn.labels[:6], made[0][1])
    np.testing.assert_array_equal(data.learn.image(len(data.learn) - 1), made[-1][0][-1].transpose(1, 2, 0))
    np.testing.assert_array_equal(data.held_out.image(2), held_out[0][2].transpose(1, 2, 0))
    (tmp_path / files[0]).write_bytes(made[0][2][:-1])
    with pytest.raises(
        ValueError, match=rf"{files[0]} has \d+ bytes; it needs {3073 if kinds == 10 else 3074} for each"
    ):
        training.open_data(tmp_path)


@pytest.mark.parametrize(
    "names", [("images", "labels", "test_images", "test_labels"), ("x_train", "y_train", "x_test", "y_test")]
)
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_npz(rng, tmp_path, names, channels):
    (images, labels), (held_out, held_out_labels) = some(rng, 9, channels), some(rng, 6, channels)
    arrays = dict(zip(names, (images, labels, held_out, held_out_labels[:, None]), strict=True))
    fc.save(arrays, tmp_path / "data.npz")
    data = training.open_data(tmp_path / "data.npz")
    np.testing.assert_array_equal(data.learn.image(4).reshape(images[4].shape), images[4])
    np.testing.assert_array_equal(data.held_out.labels, held_out_labels)
    assert data.learn.channels == (channels or 1)
    for name in names[2:]:
        del arrays[name]
    fc.save(arrays, tmp_path / "data.npz")
    learn, held_out = training.open_data(tmp_path / "data.npz", share=0.4)
    assert (len(learn), len(held_out)) == (6, 3)
    both = {learn.name(i) for i in range(6)} | {held_out.name(i) for i in range(3)}
    assert both == {f"{tmp_path / 'data.npz'}: {names[0]}[{i}]" for i in range(9)}


def test_channels_first(rng):
    images = rng.random((5, 3, 6, 7), np.float32)
    source = training.Arrays(images, np.zeros(5, int))
    np.testing.assert_array_equal(source.image(2), images[2].transpose(1, 2, 0))
    assert source.size() is None


def pictures(folder, counts, suffix=".png"):
    Image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(3)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (12, 9 + i, 3), np.uint8)).save(folder / name / f"{i}{suffix}")


def test_folders(tmp_path):
    pictures(tmp_path, {"dog": 3, "cat": 4, ".hidden": 1})
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    source = training.Folder(tmp_path)
    assert source.classes == ("cat", "dog")
    assert source.labels.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert source.name(4) == str(tmp_path / "dog" / "0.png")
    assert source.pixels(0, 6, 8).shape == (6, 6, 3)
    assert training.Folder(tmp_path, channels=1).pixels(0, 6, 8).shape == (6, 6, 1)


def test_folders_for_learning_and_for_judging(tmp_path):
    pictures(tmp_path / "train", {"dog": 3, "cat": 4})
    pictures(tmp_path / "val", {"dog": 2})
    data = training.open_data(tmp_path)
    assert (len(data.learn), len(data.held_out)) == (7, 2)
    assert data.held_out.labels.tolist() == [1, 1]
    pictures(tmp_path / "val", {"horse": 1})
    with pytest.raises(ValueError, match="folder 'horse', which is none of the classes: cat, dog"):
        training.open_data(tmp_path)


def test_digits():
    pytest.importorskip("sklearn")
    data = training.open_data("digits", share=0.25)
    assert len(data.learn) + len(data.held_out) == 1797
    counts = np.bincount(data.learn.labels), np.bincount(data.held_out.labels)
    np.testing.assert_allclose(counts[1] / (counts[0] + counts[1]), 0.25, atol=0.01)


# --- what is wrong with them ------------------------------------------------------------------------------------------


def test_an_empty_class_is_named_or_left_out(tmp_path):
    pictures(tmp_path, {"ant": 2, "bee": 0, "cow": 2})
    with pytest.raises(ValueError, match=r"bee holds no images; each class needs some"):
        training.open_data(tmp_path)
    told = []
    data = training.open_data(tmp_path, share=0.5, skipped=told.append)
    assert data.learn.classes == ("ant", "cow")
    assert "bee holds no images" in told[0]


IMAGES = np.zeros((4, 5, 5), np.uint8)
NUMBERS = np.arange(4)
WRONG = [
    ((IMAGES, np.array([0, 5, 1, 7]), ["a", "b"]), ValueError, r"label of image 1 is 5; .* 0 to 1 \(and 1 more\)"),
    ((IMAGES, np.array([0, -1, 1, 0])), ValueError, "label of image 1 is -1"),
    ((IMAGES, NUMBERS[:3]), ValueError, r"shape \(3,\); 4 images need \(4,\)"),
    ((IMAGES, NUMBERS / 2), TypeError, "dtype float64; they need to be integers"),
    ((IMAGES[0], NUMBERS), ValueError, r"has shape \(5, 5\); it needs \(N, H, W\)"),
    ((np.zeros((4, 5, 5, 2)), NUMBERS), ValueError, r"has shape \(4, 5, 5, 2\)"),
    ((IMAGES.astype(int), NUMBERS), TypeError, "dtype int64; it needs uint8"),
    ((np.full((4, 5, 5), 255.0), NUMBERS), ValueError, r"image 0 has pixels that are not from 0 to 1 \(and 3 more\)"),
    ((np.full((4, 5, 5), np.nan), NUMBERS), ValueError, "image 0 has pixels that are not from 0 to 1"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), WRONG)
def test_arrays_that_do_not_fit(arguments, error, message):
    with pytest.raises(error, match=message):
        training.Arrays(*arguments)


def test_images_whose_labels_are_out_of_range_can_be_left_out(tmp_path):
    images = np.arange(4, dtype=np.uint8)[:, None, None] * np.ones((4, 5, 5), np.uint8)
    state = {"x_train": images, "y_train": NUMBERS % 2, "x_test": images, "y_test": np.array([0, 2, 1, -1])}
    fc.save(state, tmp_path / "data.npz")
    with pytest.raises(ValueError, match=r"data\.npz: x_test: the label of image 1 is 2; .* 0 to 1 \(and 1 more\)"):
        training.open_data(tmp_path / "data.npz")
    told = []
    held_out = training.open_data(tmp_path / "data.npz", skipped=told.append).held_out
    assert held_out.labels.tolist() == [0, 1]
    assert held_out.image(1)[0, 0, 0] == 2
    assert held_out.name(1).endswith("x_test[2]")
    assert len(told) == 1


def test_files_that_are_damaged(rng, tmp_path):
    images, labels = some(rng, 6)
    whole = tmp_path / "train-images-idx3-ubyte"
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(labels))
    for content, message in [
        (idx(images)[:-1], r"train-images-idx3-ubyte has 399 bytes; its shape \(6, 8, 8\) needs 400"),
        (idx(labels), "no IDX file of 3 axes of uint8: it begins with 00 00 08 01"),
        (idx(images)[:9], r"has 9 bytes"),
    ]:
        whole.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            training.open_data(tmp_path)
    whole.unlink()
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images))[:-9])
    with pytest.raises(ValueError, match=r"ubyte\.gz is damaged"):
        training.open_data(tmp_path)
    fc.save({"pictures": images}, tmp_path / "other.npz")
    with pytest.raises(ValueError, match=r"other.npz holds pictures; it needs images and labels"):
        training.open_data(tmp_path / "other.npz")
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        training.open_data(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no folders"):
        training.open_data(tmp_path / "empty")


def test_images_that_cannot_be_read_are_named_or_left_out(tmp_path):
    pictures(tmp_path, {"ant": 5, "bee": 4})
    (tmp_path / "bee" / "1.png").write_bytes(b"no image")
    source, seen, told = training.Folder(tmp_path), Preprocessing(8, 8, (0.0,) * 3, (1.0,) * 3), []
    with pytest.raises(ValueError, match=r"bee/1\.png is not an image that can be read"):
        list(training.Loader(source, seen, 4).epoch(0))
    loader = training.Loader(source, seen, 3, skipped=told.append)
    for _ in range(2):  # and told once
        numbers = np.concatenate([batch.numbers for batch in loader.epoch(0)])
        assert numbers.tolist() == [0, 1, 2, 3, 4, 5, 7, 8]
    assert len(told) == 1
    assert "bee/1.png" in told[0]
    pictures(tmp_path / "all", {"ant": 2})
    for file in (tmp_path / "all" / "ant").iterdir():
        file.write_bytes(b"")
    (empty,) = training.Loader(training.Folder(tmp_path / "all"), seen, 4, skipped=told.append).epoch(0)
    assert len(empty) == 0


# --- batches ----------------------------------------------------------------------------------------------------------

CHANGES = training.Augmentation(flip=True, shift=2, colour=0.3, mixup=0.4)


def batches(workers, seed=0, epoch=0, start=0, changes=CHANGES):
    rng = np.random.default_rng(1)
    source = training.Arrays(*some(rng, 50))
    return list(training.Loader(source, SEEN, 8, augmentation=changes, seed=seed, workers=workers).epoch(epoch, start))


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_batches_are_the_same_from_any_number_of_threads(workers):
    for ours, alone in zip(batches(workers), batches(0), strict=True):
        for a, b in zip(ours, alone, strict=True):
            np.testing.assert_array_equal(a, b)


def test_batches_go_on_from_within_an_epoch():
    for ours, whole in zip(batches(1, start=4, epoch=3), batches(1, epoch=3)[4:], strict=True):
        for a, b in zip(ours, whole, strict=True):
            np.testing.assert_array_equal(a, b)


def test_an_epoch_has_every_image_once_in_an_order_of_its_own():
    orders = [
        np.concatenate([batch.numbers for batch in batches(0, seed, epoch)]) for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    for order in orders:
        assert sorted(order.tolist()) == list(range(50))
    assert len({order.tobytes() for order in orders}) == 3
    sizes = [len(batch) for batch in batches(0)]
    assert (max(sizes), min(sizes), len(sizes)) == (8, 7, 7)


def test_without_changes_images_are_normalised_and_nothing_else():
    source = training.Arrays(*some(np.random.default_rng(1), 50))
    batch = next(training.Loader(source, SEEN, 8).epoch(0))
    assert batch.images.dtype == np.float32
    np.testing.assert_allclose(batch.images[3, 0], (source.images[3, ..., 0] / 255 - 0.5) / 0.25, rtol=1e-5, atol=1e-5)
    assert batch.targets.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]


def test_threads_end_where_the_caller_leaves():
    before = threading.active_count()
    source = training.Arrays(*some(np.random.default_rng(1), 50))
    epoch = training.Loader(source, SEEN, 8, workers=3).epoch(0)
    next(epoch)
    assert threading.active_count() > before
    epoch.close()
    assert threading.active_count() == before


# --- changes ----------------------------------------------------------------------------------------------------------


def test_flips_and_moves_keep_what_they_show(rng):
    images = np.zeros((200, 2, 9, 9), np.float32)
    images[:, :, 3:6, 3:6] = rng.random((200, 2, 3, 3), np.float32)
    flipped = training.Augmentation(flip=True).changed(images, rng)
    mirrored = (flipped == images[..., ::-1]).all(axis=(1, 2, 3))
    assert ((flipped == images).all(axis=(1, 2, 3)) | mirrored).all()
    assert 60 < mirrored.sum() < 140
    moved = training.Augmentation(shift=2).changed(images, rng)
    places = set()
    for before, after in zip(images, moved, strict=True):
        steps = range(-2, 3)
        (place,) = [(d, r) for d in steps for r in steps if np.array_equal(np.roll(before, (d, r), (1, 2)), after)]
        places.add(place)
    assert len(places) == 25


def test_what_a_move_uncovers_is_black():
    moved = training.Augmentation(shift=3).changed(np.ones((50, 1, 6, 6), np.float32), np.random.default_rng(0))
    for image in moved[:, 0]:
        rows, columns = image.any(axis=1).sum(), image.any(axis=0).sum()
        assert image.sum() == rows * columns
        assert min(rows, columns) >= 3
    assert (moved == 0).any()


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_stay_colours(rng, channels):
    images = rng.random((40, channels, 6, 6), np.float32)
    changed = training.Augmentation(colour=0.5).changed(images, rng)
    assert changed.min() >= 0
    assert changed.max() <= 1
    means = changed.mean(axis=(1, 2, 3)) / images.mean(axis=(1, 2, 3))
    assert means.min() < 0.8
    assert means.max() > 1.1
    np.testing.assert_array_equal(training.Augmentation().changed(images, rng), images)


@pytest.mark.parametrize(("width", "height"), [(100, 100), (1000, 10), (3, 500), (1, 1)])
def test_crops_lie_inside(rng, width, height):
    change = training.Augmentation(crop=0.2)
    shares = []
    for drawn in change.crops(500, rng):
        left, top, right, bottom = change.box(drawn, width, height)
        assert 0 <= left < right <= width + 1e-9
        assert 0 <= top < bottom <= height + 1e-9
        shares.append((right - left) * (bottom - top) / (width * height))
    assert max(shares) <= 1 + 1e-9
    if width == height:
        assert min(shares) >= 0.2 - 1e-9
        assert min(shares) < 0.3
        assert max(shares) > 0.9


def test_mixed_images_have_mixed_labels():
    change = training.Augmentation(mixup=0.5)
    source = training.Arrays(np.arange(6, dtype=np.uint8)[:, None, None] * np.ones((6, 8, 8), np.uint8), np.arange(6))
    seen = Preprocessing(8, 8, (0.0,), (1 / 255,))
    (batch,) = training.Loader(source, seen, 6, augmentation=change, seed=2).epoch(0)
    assert batch.targets.shape == (6, 6)
    np.testing.assert_allclose(batch.targets.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_array_equal(batch.targets.argmax(axis=1), batch.labels)
    np.testing.assert_allclose(batch.images[:, 0, 0, 0], batch.targets @ np.arange(6), rtol=1e-5, atol=1e-5)
    assert (batch.targets.max(axis=1) < 1).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": 0.0}, "crop is 0.0"),
        ({"shift": -1}, "shift is -1"),
        ({"colour": 1.0}, "colour is 1.0"),
        ({"mixup": float("nan")}, "mixup is nan"),
    ],
)
def test_changes_that_there_are_not(options, message):
    with pytest.raises(ValueError, match=message):
        training.Augmentation(**options)


# --- drawings ---------------------------------------------------------------------------------------------------------


def stroke(height, width, dark, scale=1):
    """A T upside down."""
    page = np.full((height, width), 230 if dark else 10, np.uint8)
    ink = 20 if dark else 240
    top, left = height // 3, width // 4
    page[top : top + 12 * scale, left : left + 2 * scale] = ink
    page[top + 12 * scale : top + 14 * scale, left - 3 * scale : left + 5 * scale] = ink
    return page


def test_drawings_look_the_same_on_any_ground_and_of_any_size():
    pytest.importorskip("PIL")
    from fastconv._images import drawing

    seen = drawing(stroke(60, 60, False)[..., None], 32)
    rows, columns = (np.flatnonzero((seen > 100).any(axis=axis)) for axis in (1, 0))
    assert (rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1) in ((20, 11), (20, 12))
    centre = (seen.astype(float) * np.arange(32)[:, None]).sum() / seen.sum()
    assert abs(centre - 15.5) <= 0.5
    for other in (stroke(60, 60, True), stroke(90, 40, False), stroke(200, 210, True, 3)):
        same = drawing(other[..., None], 32)
        assert np.abs(same.astype(int) - seen).mean() < 8
    assert not drawing(np.full((9, 9, 1), 77, np.uint8), 32).any()


def test_drawings_are_prepared_once():
    pytest.importorskip("PIL")
    source = training.Drawings(training.Arrays(stroke(40, 40, True)[None], np.array([0])), 28)
    assert source.image(0).shape == (28, 28, 1)
    assert source.image(0) is source.image(0)
    assert (source.size(), source.channels, len(source)) == (28, 1, 1)
