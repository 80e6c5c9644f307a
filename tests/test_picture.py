# SPDX-License-Identifier: BSD-3-Clause
"""Pictures of networks: who reads whom, boxes that do not overlap, lines that end at boxes, and text within them."""

from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest

import fastconv as fc
from fastconv import nn
from fastconv.graph import picture
from fastconv.graph.layered import layered
from fastconv.graph.views import Buffer, View, dense, overlap

SVG = "{http://www.w3.org/2000/svg}"


def graphs():
    """Random ones, and a chain with a line from every box to every later one."""
    yield [list(range(i)) for i in range(9)]
    for seed in range(12):
        rng = np.random.default_rng(seed)
        yield [sorted({int(rng.integers(i)) for _ in range(rng.integers(0, 4))}) if i else [] for i in range(30)]


@pytest.mark.parametrize("reads", list(graphs()))
def test_boxes_stand_below_what_they_read_and_apart(reads):
    widths = [100.0 + 7 * (i % 3) for i in range(len(reads))]
    layers = layered(widths, reads)
    where = {item.box: item for layer in layers for item in layer if item.box is not None}
    assert set(where) == set(range(len(reads)))
    for number, layer in enumerate(layers):
        assert all(item.layer == number for item in layer)
        for left, right in pairwise(layer):
            assert left.x + left.width / 2 < right.x - right.width / 2
    assert min(item.x - item.width / 2 for item in where.values()) >= 0
    for number, read in enumerate(reads):
        assert {source(item) for item in where[number].above} == set(read)


def source(item):
    """The box that a line comes from, layer by layer."""
    while item.box is None:
        (above,) = item.above
        assert above.layer == item.layer - 1
        item = above
    return item.box


def test_what_many_read_is_one_line():
    layers = layered([50] * 5, [[], [0], [1], [0, 2], [0, 3]])
    assert [[item.box for item in layer] for layer in layers][2].count(None) == 1


def test_branches_stand_side_by_side_without_crossings():
    """An inception module."""
    layers = layered([80] * 8, [[], [0], [0], [2], [0], [4], [0], [1, 3, 5, 6]])
    assert [len(layer) for layer in layers] == [1, 4, 4, 1]
    (top,), _, _, (bottom,) = layers
    assert top.x == pytest.approx(bottom.x, abs=5)


def test_nothing_to_draw():
    assert layered([], []) == []
    ElementTree.fromstring(picture.svg("nothing", [], []))


# --- text -------------------------------------------------------------------------------------------------------------


def box(name, *reads, lines=("conv direct", "1×2×3"), figures=("10.0%", "1.000 ms"), share=0.1):
    return picture.Box(reads, name, lines, figures, share, f"{name} in full")


NAMES = [
    "conv",
    "features.denseblock3.denselayer24.conv2.with.a.long.tail",
    "a<b>&\"c'",
    "\x00\x1b\ud800",
    "畳み込み" * 9,
]


@pytest.mark.parametrize("name", NAMES)
def test_text_stays_within_its_box(name):
    """Letters are of one width: at most 0.61 of their size in the fonts that the style names."""
    text = picture.svg(
        name,
        [name[:60], "what there is to say of it " * 9],
        [box("first"), box(name, 0, figures=("100.0%", "12345.678 ms"))],
    )
    root = ElementTree.fromstring(text)
    rects = [rect for rect in root.iter(f"{SVG}rect") if rect.get("class") == "box"]
    assert len(rects) == 2
    for group in root.iter(f"{SVG}g"):
        if group.find(f"{SVG}rect") is None:
            continue
        rect = group.find(f"{SVG}rect")
        left, top = float(rect.get("x")), float(rect.get("y"))
        right, bottom = left + float(rect.get("width")), top + float(rect.get("height"))
        spans = {}
        for line in group.findall(f"{SVG}text"):
            width = picture._letters(line.text) * 12 * 0.61
            x = float(line.get("x")) - (width if line.get("text-anchor") == "end" else 0)
            assert left < x
            assert x + width < right
            assert top + 10 < float(line.get("y")) < bottom - picture.BAR
            spans.setdefault(line.get("y"), []).append((x, x + width))
        for side_by_side in spans.values():
            for (_, end), (start, _) in pairwise(sorted(side_by_side)):
                assert end < start
    width = float(root.get("width"))
    assert all(picture._letters(line.text) * 12 * 0.61 < width for line in root.findall(f"{SVG}text"))


def test_lines_are_wrapped_by_width():
    assert picture._wrapped("a bc def ghijklm", 4) == ["a bc", "def", "ghij", "klm"]
    assert picture._wrapped("畳み込み 1", 5) == ["畳み", "込み", "1"]
    assert picture._wrapped("", 5) == [""]


def test_the_whole_text_is_there_for_who_points_at_it():
    text = picture.svg("t", [], [box(NAMES[1])])
    titles = [title.text for title in ElementTree.fromstring(text).iter(f"{SVG}title")]
    assert titles == ["t", f"{NAMES[1]} in full"]


def test_colours_follow_shares():
    root = ElementTree.fromstring(
        picture.svg("t", [], [box("a", share=0.2), box("b", 0, share=0.8), box("c", share=0.0)])
    )
    shares = [rect for rect in root.iter(f"{SVG}rect") if rect.get("class") == "share"]
    tint_a, bar_a, tint_b, bar_b = shares
    assert float(tint_a.get("opacity")) == pytest.approx(float(tint_b.get("opacity")) / 4, abs=1e-3)
    assert float(bar_a.get("width")) == pytest.approx(float(bar_b.get("width")) / 4, rel=0.01)


# --- networks ---------------------------------------------------------------------------------------------------------


def test_parts_of_a_buffer():
    """Slices of a concatenation that stand side by side in every pixel have nothing in common."""
    for last in (False, True):
        shape = (2, 6, 4, 5)
        whole = View(Buffer(10**6, ""), 0, shape, dense(shape, last), np.dtype(np.float32))
        parts = [whole.sliced(1, 0, 2), whole.sliced(1, 2, 6), whole.sliced(2, 1, 3), whole.sliced(1, 1, 3)]
        elements = np.arange(np.prod(shape))
        sets = [
            set(
                elements[
                    part.offset
                    + np.ravel(sum(np.ix_(*(s * np.arange(n) for s, n in zip(part.strides, part.shape, strict=True)))))
                ]
            )
            for part in parts
        ]
        for a, first in zip(parts, sets, strict=True):
            assert overlap(a, whole)
            for b, second in zip(parts, sets, strict=True):
                assert overlap(a, b) == bool(first & second)
    assert overlap(whole, whole._replace(shape=(240,), strides=(1,)))
    assert not overlap(whole, whole._replace(shape=(0, 6, 4, 5)))


class Branches(nn.Module):
    """Two branches and what goes by them, concatenated, and a sum."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1, rng=0)
        self.left = nn.Conv2d(4, 4, 1, rng=1)
        self.right = nn.Sequential(nn.Conv2d(4, 2, 1, rng=2), nn.ReLU(), nn.Conv2d(2, 4, 3, padding=1, rng=3))
        self.concat, self.head = nn.Concat(), nn.Conv2d(12, 4, 1, rng=4)

    def forward(self, x):
        x = self.stem(x)
        y = self.head(self.concat(x, self.left(x), self.right(x)))
        return y + x


@pytest.fixture(scope="module")
def net():
    return fc.compile(Branches().eval(), (1, 3, 8, 8))


def test_rows_say_what_they_read(net):
    summary = net.summary()
    names = [row.name for row in summary]
    reads: dict[str, set[str]] = {}
    for row in summary:
        reads.setdefault(row.name, {names[i] if i >= 0 else summary.inputs[-1 - i].name for i in row.reads})
    assert reads["stem"] == {net.inputs[0].name}
    assert reads["left"] == reads["right.0"] == {"stem"}
    assert reads["right.2"] == {"right.0"}
    assert reads["head"] == {"stem", "left", "right.2"}
    assert [end.shape for end in (*summary.inputs, *summary.outputs)] == [(1, 3, 8, 8), (1, 4, 8, 8)]
    assert all(end.reads for end in summary.outputs)


@pytest.mark.parametrize("name", ["lenet5", "googlenet", "densenet121"])
def test_every_box_of_a_network_has_lines_to_it(name):
    model = fc.models.get(name)(rng=0).eval()
    seen = model.preprocessing
    size = min(seen.crop, 64)
    summary = fc.compile(model, (1, len(seen.mean), size, size)).summary()
    root = ElementTree.fromstring(summary.to_svg())
    kinds = [rect.get("class") for rect in root.iter(f"{SVG}rect")]
    assert kinds.count("box") == len(summary)
    assert kinds.count("end") == 2
    tips = [path for path in root.iter(f"{SVG}path") if path.get("class") == "tip"]
    assert len(tips) == sum(len(row.reads) for row in (*summary, *summary.outputs))
    assert all(row.reads for row in (*summary, *summary.outputs))
    read = {i for row in (*summary, *summary.outputs) for i in row.reads}
    assert read == {-1, *range(len(summary))}


def test_a_profile_as_a_page(net):
    profile = net.profile(np.zeros((1, 3, 8, 8), np.float32), repeats=2)
    text = profile.to_html()
    assert text.count("<svg ") == text.count("</svg>") == text.count("<table>") == 1
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert all(row.name in text for row in profile)
    svg = text[text.index("<svg ") : text.index("</svg>") + 6]
    shown = [line.text for line in ElementTree.fromstring(svg).iter(f"{SVG}text")]
    assert [f"{row.of_time:.1%}" for row in profile[:-1]] == [line for line in shown if line.endswith("%")]
