# SPDX-License-Identifier: BSD-3-Clause
"""Large numbers beside small arrays: time and memory follow the arrays, and no loop the numbers.

Each group runs in a process that has a gigabyte and a minute; with a loop over a number here, years would not do.
"""

import pytest

from support import limited

SETUP = """
v, image, volume = (np.ones((1, 1) + (4,) * n, "f4") for n in (1, 2, 3))
w1, w3, k3 = np.ones((1, 1, 1), "f4"), np.ones((1, 1, 3), "f4"), np.ones((1, 1, 3, 3), "f4")
"""
GROUPS = {
    "pooling": """
        fc.max_pool1d(v, 2**40, 1, 2**39, return_indices=True)
        fc.max_pool1d(v, 2**40, 2**39, 2**39, ceil_mode=True)
        fc.max_pool3d(volume, 2**40, 1, 2**39)
        fc.max_pool1d(v, 1, 1, 0, 2**40)
        fc.avg_pool2d(image, 2**40, 1, 2**39)
        fc.lp_pool1d(v, 2, 2**40, ceil_mode=True)
        fc.adaptive_avg_pool1d(v, 2**20)
        fc.max_unpool1d(v, np.zeros(v.shape, "i8"), 2**20, 1)
        fc.grad.avg_pool1d(np.ones((1, 1, 5), "f4"), v.shape, 2**40, 1, 2**39)
        fc.nn.MaxPool2d(2**40, 1, 2**39)(image)
    """,
    "convolutions": """
        fc.conv1d(v, w1, stride=2**40)
        fc.conv1d(v, w3, stride=2**30, padding=2**45)
        for algorithm in fc.algorithms(v.shape, w3.shape, dilation=2**40, padding=2**40):
            assert (fc.conv1d(v, w3, dilation=2**40, padding=2**40, algorithm=algorithm) == 1).all()
        fc.conv2d(image, k3, stride=2**20, padding=2**30)
        fc.conv2d(image, k3, dilation=2**20, padding=2**20)
        fc.conv2d(image.transpose(0, 2, 3, 1), k3, dilation=512, padding=512, layout="NHWC")
        fc.conv3d(volume, np.ones((1, 1, 3, 3, 3), "f4"), dilation=2**12, padding=2**12)
        fc.ConvPlan(v.shape, w3, dilation=2**40, padding=2**40).explain(measure=False)
        fc.algorithms((1, 1, 4), (1, 1, 2**40), padding=2**40)
        fc.algorithms((1, 1, 4, 4, 4), (1, 1, 9999, 9999, 9999), padding=9998)
    """,
    "transposed": """
        fc.conv_transpose1d(v, w1, stride=2**20, padding=2**20)
        fc.conv_transpose1d(v, w3, stride=2**18, dilation=2**19 - 1)
        fc.conv_transpose1d(v, w3, stride=3, dilation=2**20)
        fc.conv_transpose1d(v, np.ones((1, 1, 2**16), "f4"), stride=2**16)
        fc.conv_transpose1d(v, np.ones((1, 1, 2**16), "f4"), stride=5, dilation=7)
        fc.conv_transpose2d(image, np.ones((1, 1, 256, 256), "f4"), stride=256)
        fc.conv_transpose3d(volume, np.ones((1, 1, 1, 1, 1), "f4"), stride=50)
        fc.ConvPlan(image.shape, k3, stride=2**10, transposed=True)(image)
    """,
    "gradients": """
        long, grad = np.ones((1, 1, 2**20), "f4"), np.ones((1, 1, 4), "f4")
        fc.grad.conv1d_input(long.shape, w1, grad, stride=2**18)
        fc.grad.conv1d_weight(long, w1.shape, grad, stride=2**18)
        fc.grad.conv1d_weight(v, w3.shape, grad, dilation=2**40, padding=2**40)
        fc.grad.conv2d_input(image.shape, k3, image, dilation=2**30, padding=2**30)
        fc.grad.conv2d_weight(image, k3.shape, image, dilation=2**30, padding=2**30)
    """,
    "the rest": """
        fc.local_response_norm(image, 2**40)
        fc.grad.local_response_norm(v, v, 2**40)
        fc.pad(v, (-2, 2**20), "replicate")
    """,
    "scipy": """
        from fastconv.scipy import ndimage, signal
        plane = np.ones((8, 8), "f4")
        ndimage.uniform_filter(plane, 2**30)
        ndimage.gaussian_filter(plane, 1e6)
        ndimage.gaussian_filter(plane, 1.0, truncate=1e6)
        ndimage.correlate1d(plane, np.ones(2**20, "f4"))
        ndimage.correlate(plane, np.ones((1001, 1001), "f4"))
        signal.convolve(np.ones(8, "f4"), np.ones(2**20, "f4"), method="direct")
        signal.correlate2d(plane, np.ones((2, 2**18), "f4"), mode="same")
    """,
}


@pytest.mark.parametrize("group", GROUPS)
def test_arrays_are_what_counts(group):
    if group == "scipy":
        pytest.importorskip("scipy")
    lines = [line.removeprefix(" " * 8) for line in GROUPS[group].splitlines()]
    limited(SETUP + "\n".join(lines))
