# SPDX-License-Identifier: BSD-3-Clause
"""The oracle, held against its own textbook, against arithmetic by hand, and against torch."""

import doctest
import importlib
import subprocess
import sys
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from fastconv import reference
from support import (
    from_layout,
    max_error,
    numerical_gradient,
    same_values,
    to_layout,
    tolerance,
    whole,
)

LAYOUTS = ("NCHW", "NHWC")
CONVOLUTIONS = (reference.conv2d, reference.conv2d_im2col)
# All that is differentiated here is linear, or (maximum, on whole numbers) linear within this step.
difference = partial(numerical_gradient, step=0.25)
both_forms = pytest.mark.parametrize("conv2d", CONVOLUTIONS, ids=lambda form: form.__name__)
both_layouts = pytest.mark.parametrize("layout", LAYOUTS)


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def rng():
    return np.random.default_rng(20)


@pytest.mark.parametrize("module", ["", ".conv", ".pool", ".layers", ".resize"])
def test_textbook_examples(module):
    result = doctest.testmod(importlib.import_module("fastconv.reference" + module))
    assert result.attempted > 0
    assert result.failed == 0


def test_it_needs_numpy_alone():
    """Loaded under another name, from its own folder, it brings in nothing of fastconv."""
    script = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("oracle", sys.argv[1])
sys.modules["oracle"] = oracle = importlib.util.module_from_spec(spec)
spec.loader.exec_module(oracle)
assert oracle.conv2d and "numpy" in sys.modules and "fastconv" not in sys.modules
"""
    folder = Path(reference.__file__)
    subprocess.run([sys.executable, "-c", script, folder], check=True, cwd=folder.parent)


# --- convolution, by hand -------------------------------------------------------------------------


@both_forms
class TestConvolutionByHand:
    ramp = np.arange(1.0, 6.0).reshape(1, 1, 5)  # one channel, one row: 1 2 3 4 5

    def row(self, conv2d, kernel, **options):
        return conv2d(self.ramp, np.reshape(kernel, (1, 1, 1, -1)), **options)[0, 0].tolist()

    def test_kernel_is_not_flipped(self, conv2d):
        assert self.row(conv2d, [1.0, 10.0]) == [21, 32, 43, 54]

    def test_stride_and_dilation(self, conv2d):
        assert self.row(conv2d, [1.0, 10.0], stride=2) == [21, 43]
        assert self.row(conv2d, [1.0, 10.0], dilation=(1, 3)) == [41, 52]

    @pytest.mark.parametrize(
        ("padding", "expected"),
        [
            ("valid", [21, 32, 43, 54]),
            ((0, 1), [10, 21, 32, 43, 54, 5]),
            (((0, 0), (2, 0)), [0, 10, 21, 32, 43, 54]),
            ("same", [21, 32, 43, 54, 5]),
            ("same_lower", [10, 21, 32, 43, 54]),
        ],
    )
    def test_padding(self, conv2d, padding, expected):
        assert self.row(conv2d, [1.0, 10.0], padding=padding) == expected

    def test_same_with_stride_counts_from_the_output(self, conv2d):
        # ceil(5 / 2) = 3 outputs of 4 taps reach over 8 pixels: 3 more than there are.
        ones = [1.0, 1.0, 1.0, 1.0]
        assert self.row(conv2d, ones, padding="same", stride=2) == [6, 14, 9]
        assert self.row(conv2d, ones, padding="same_lower", stride=2) == [3, 10, 12]
        # 1 tap with stride 3 leaves pixels out, and needs no padding.
        assert self.row(conv2d, [1.0], padding="same", stride=3) == [1, 4]

    def test_groups_do_not_see_each_other(self, conv2d):
        image = np.array([1.0, 2.0, 3.0, 4.0]).reshape(4, 1, 1)
        weight = np.array([[1, 10], [2, 20], [3, 30], [4, 40]], float).reshape(4, 2, 1, 1)
        assert conv2d(image, weight, groups=2).ravel().tolist() == [21, 42, 129, 172]

    def test_epilogue_is_bias_then_residual_then_activation(self, conv2d):
        image = np.array([[[-9.0, 1.0, 2.0, 9.0]]])
        one, residual = np.ones((1, 1, 1, 1)), np.array([[[0.0, -4.0, 1.0, 0.0]]])
        results = {
            activation: conv2d(image, one, np.array([2.0]), residual=residual, activation=activation)
            for activation in (None, "relu", "relu6")
        }
        assert results[None].ravel().tolist() == [-7, -1, 5, 11]
        assert results["relu"].ravel().tolist() == [0, 0, 5, 11]
        assert results["relu6"].ravel().tolist() == [0, 0, 5, 6]

    @pytest.mark.parametrize("short", [{"bias": np.ones(1)}, {"residual": np.ones((1, 4, 5))}])
    def test_epilogue_does_not_broadcast(self, conv2d, short):
        with pytest.raises(ValueError, match="cannot reshape"):
            conv2d(np.ones((3, 5, 6)), np.ones((4, 3, 2, 2)), **short)

    def test_dtype_is_that_of_the_accumulator_and_of_the_result(self, conv2d):
        image = np.array([1e8, 1.0, -1e8], np.float32).reshape(3, 1, 1)
        ones = np.ones((1, 3, 1, 1), np.float32)
        assert conv2d(image, ones).dtype == np.float32
        assert conv2d(image, ones, dtype=np.float64).dtype == np.float64
        assert conv2d(image, ones, dtype=np.float64).item() == 1.0

    def test_nan_and_infinity_spread_as_far_as_the_kernel(self, conv2d):
        image = np.zeros((1, 1, 8))
        image[..., 1], image[..., 7] = np.nan, np.inf
        result = conv2d(image, np.ones((1, 1, 1, 3)))
        np.testing.assert_array_equal(result[0, 0], [np.nan, np.nan, 0, 0, 0, np.inf])

    def test_empty_batch(self, conv2d):
        weight = np.ones((4, 3, 2, 2))
        assert conv2d(np.ones((0, 3, 5, 6)), weight).shape == (0, 4, 4, 5)
        assert conv2d(np.ones((0, 5, 6, 3)), weight, layout="NHWC").shape == (0, 4, 5, 4)

    def test_empty_batch_has_gradients(self, conv2d):
        x, weight = np.ones((0, 3, 5, 6)), np.ones((4, 3, 2, 2))
        g = conv2d(x, weight)
        assert reference.conv2d_input(x.shape, weight, g).shape == x.shape
        assert not reference.conv2d_weight(x, weight.shape, g).any()
        assert not reference.conv2d_bias(g).any()

    def test_memory_order_does_not_matter(self, conv2d, rng):
        image, weight = whole(rng, (2, 3, 5, 6)), whole(rng, (4, 3, 2, 3))
        expected = conv2d(image, weight)
        for name, variant in same_values(image):
            np.testing.assert_array_equal(conv2d(variant, weight), expected, err_msg=name)
        for name, variant in same_values(weight):
            np.testing.assert_array_equal(conv2d(image, variant), expected, err_msg=name)

    @pytest.mark.parametrize(
        ("named", "options"),
        [
            ("layout", {"layout": "NWHC"}),
            ("activation", {"activation": "gelu"}),
            ("padding", {"padding": "full"}),
            ("padding", {"padding": (1, 2, 3)}),
            ("stride", {"stride": (1, 2, 3)}),
            ("weight", {"groups": 2}),
            ("weight", {"weight": np.ones((4, 1, 2, 2))}),
            ("groups", {"weight": np.ones((4, 1, 2, 2)), "groups": 3}),
        ],
    )
    def test_a_wrong_argument_is_named(self, conv2d, named, options):
        with pytest.raises(ValueError, match=f"^{named}: got "):
            conv2d(np.ones((3, 5, 6)), **{"weight": np.ones((4, 3, 2, 2)), **options})


# --- convolution, over a grid ---------------------------------------------------------------------

PROBLEMS = list(
    product(
        (1, 2, (3, 1)),  # stride
        (0, (2, 1)),  # padding
        (1, (1, 2), 3),  # dilation
        (1, 2, 4),  # groups
        ((1, 1), (3, 2)),  # kernel
    )
)


def problem(stride, padding, dilation, groups, kernel, dtype=np.float64):
    """Whole numbers, so that every result is exact: input, weight, bias, and the parameters."""
    rng = np.random.default_rng(groups)
    image = whole(rng, (2, 4, 9, 8), dtype)
    weight = whole(rng, (8, 4 // groups, *kernel), dtype)
    return image, weight, whole(rng, 8, dtype), (stride, padding, dilation, groups)


@pytest.mark.parametrize("case", PROBLEMS, ids=str)
class TestConvolutionOverGrid:
    @both_forms
    def test_equals_torch(self, torch, conv2d, case):
        image, weight, bias, parameters = problem(*case)
        tensors = (torch.from_numpy(array) for array in (image, weight, bias))
        expected = torch.nn.functional.conv2d(*tensors, *parameters).numpy()

        np.testing.assert_array_equal(conv2d(image, weight, bias, *parameters), expected)
        np.testing.assert_array_equal(conv2d(image[0], weight, bias, *parameters), expected[0])
        single = (array.astype(np.float32) for array in (image, weight, bias))
        np.testing.assert_array_equal(conv2d(*single, *parameters), expected)
        last = conv2d(to_layout(image, "NHWC"), weight, bias, *parameters, layout="NHWC")
        np.testing.assert_array_equal(from_layout(last, "NHWC"), expected)

    def test_gradients_equal_torch(self, torch, case):
        arrays, parameters = problem(*case)[:3], problem(*case)[3]
        tensors = [torch.from_numpy(array).requires_grad_() for array in arrays]
        output = torch.nn.functional.conv2d(*tensors, *parameters)
        grad = whole(np.random.default_rng(1), output.shape, np.float64)
        output.backward(torch.from_numpy(grad))
        expected = [tensor.grad.numpy() for tensor in tensors]

        image, weight, _ = arrays
        for layout in LAYOUTS:
            x, g = to_layout(image, layout), to_layout(grad, layout)
            d_input = reference.conv2d_input(x.shape, weight, g, *parameters, layout=layout)
            d_weight = reference.conv2d_weight(x, weight.shape, g, *parameters, layout=layout)
            np.testing.assert_array_equal(from_layout(d_input, layout), expected[0])
            np.testing.assert_array_equal(d_weight, expected[1])
            np.testing.assert_array_equal(reference.conv2d_bias(g, layout=layout), expected[2])

    def test_loops_equal_im2col(self, case):
        image, weight, bias, parameters = problem(*case)
        loops, im2col = (form(image, weight, bias, *parameters) for form in CONVOLUTIONS)
        np.testing.assert_array_equal(loops, im2col)


@both_layouts
@pytest.mark.parametrize("padding", ["valid", "same", "same_lower", 1, (0, 2), ((2, 0), (1, 3))])
@pytest.mark.parametrize("batched", [True, False], ids=["batch", "image"])
def test_convolution_gradients_equal_finite_differences(rng, padding, layout, batched):
    x = to_layout(rng.normal(size=(2, 4, 5, 6) if batched else (4, 5, 6)), layout)
    weight, bias = rng.normal(size=(6, 2, 3, 2)), rng.normal(size=6)
    parameters = (2, 1), padding, (1, 2), 2

    def forward(x=x, weight=weight, bias=bias):
        return reference.conv2d_im2col(x, weight, bias, *parameters, layout=layout)

    g = rng.normal(size=forward().shape)
    d_input = reference.conv2d_input(x.shape, weight, g, *parameters, layout=layout)
    d_weight = reference.conv2d_weight(x, weight.shape, g, *parameters, layout=layout)
    d_bias = reference.conv2d_bias(g, layout=layout)
    assert max_error(d_input, difference(lambda x: forward(x=x), x, g)) < 1e-12
    assert max_error(d_weight, difference(lambda w: forward(weight=w), weight, g)) < 1e-12
    assert max_error(d_bias, difference(lambda b: forward(bias=b), bias, g)) < 1e-12


def test_residual_has_the_layout_of_the_output(rng):
    x, weight, residual = (whole(rng, s) for s in [(2, 3, 5, 6), (4, 3, 3, 3), (2, 4, 3, 4)])
    for conv2d in CONVOLUTIONS:
        first = conv2d(x, weight, residual=residual)
        np.testing.assert_array_equal(first, conv2d(x, weight) + residual)
        last = conv2d(to_layout(x, "NHWC"), weight, residual=to_layout(residual, "NHWC"), layout="NHWC")
        np.testing.assert_array_equal(from_layout(last, "NHWC"), first)


# --- pooling --------------------------------------------------------------------------------------


def ties_and_nans(rng, shape):
    """Few different values, one in eight NaN, and one plane of nothing but minus infinity."""
    array = whole(rng, shape, np.float64, largest=2)
    array[rng.random(shape) < 1 / 8] = np.nan
    array[0, 0] = -np.inf
    return array


KERNELS, STRIDES, PADDINGS = (2, 3, (3, 2)), (None, 1, (2, 3)), (0, 1, (1, 0))
MAX_POOLS = list(product(KERNELS, STRIDES, PADDINGS, (1, 2, (1, 3)), (False, True)))
AVG_POOLS = list(product(KERNELS, STRIDES, PADDINGS, (False, True), (False, True), (None, 5)))
ADAPTIVE = [1, 2, (3, 5), (None, 3), (4, None), (9, 10), (7, 8)]


@pytest.mark.parametrize("case", MAX_POOLS, ids=str)
class TestMaxPoolingOverGrid:
    def test_equals_torch(self, torch, rng, case):
        x = ties_and_nans(rng, (2, 3, 7, 8))
        expected = torch.nn.functional.max_pool2d(
            torch.from_numpy(x), *case[:4], ceil_mode=case[4], return_indices=True
        )
        output, indices = reference.max_pool2d(x, *case, return_indices=True)
        assert indices.dtype == np.int64
        np.testing.assert_array_equal(output, expected[0])
        np.testing.assert_array_equal(indices, expected[1])
        np.testing.assert_array_equal(reference.max_pool2d(x[1], *case), expected[0][1])

    @both_layouts
    def test_gradient_equals_torch(self, torch, rng, case, layout):
        x = whole(rng, (2, 3, 7, 8), np.float64, largest=2)
        tensor = torch.from_numpy(x).requires_grad_()
        output = torch.nn.functional.max_pool2d(tensor, *case[:4], ceil_mode=case[4])
        g = whole(rng, output.shape, np.float64)
        output.backward(torch.from_numpy(g))

        x = to_layout(x, layout)
        _, indices = reference.max_pool2d(x, *case, return_indices=True, layout=layout)
        gradient = reference.max_pool2d_input(to_layout(g, layout), indices, x.shape, layout=layout)
        np.testing.assert_array_equal(from_layout(gradient, layout), tensor.grad)


@pytest.mark.parametrize("case", AVG_POOLS, ids=str)
def test_avg_pooling_equals_torch(torch, rng, case):
    x = rng.normal(size=(2, 3, 7, 8))
    tensor = torch.from_numpy(x).requires_grad_()
    expected = torch.nn.functional.avg_pool2d(tensor, *case)
    g = rng.normal(size=expected.shape)
    expected.backward(torch.from_numpy(g))

    gradient = reference.avg_pool2d_input(g, x.shape, *case)
    assert max_error(reference.avg_pool2d(x, *case), expected.detach()) < tolerance(x.dtype, 9)
    assert max_error(gradient, tensor.grad) < tolerance(x.dtype, 9)


@pytest.mark.parametrize("size", ADAPTIVE, ids=str)
class TestAdaptivePooling:
    def test_max_equals_torch(self, torch, rng, size):
        x = ties_and_nans(rng, (2, 3, 7, 8))
        expected = torch.nn.functional.adaptive_max_pool2d(torch.from_numpy(x), size, True)
        output, indices = reference.adaptive_max_pool2d(x, size, True)
        np.testing.assert_array_equal(output, expected[0])
        np.testing.assert_array_equal(indices, expected[1])

    def test_avg_equals_torch(self, torch, rng, size):
        x = rng.normal(size=(2, 3, 7, 8))
        tensor = torch.from_numpy(x).requires_grad_()
        expected = torch.nn.functional.adaptive_avg_pool2d(tensor, size)
        g = rng.normal(size=expected.shape)
        expected.backward(torch.from_numpy(g))

        gradient = reference.adaptive_avg_pool2d_input(g, x.shape)
        assert max_error(reference.adaptive_avg_pool2d(x, size), expected.detach()) < 1e-14
        assert max_error(gradient, tensor.grad) < 1e-14

    @both_layouts
    def test_gradients_equal_finite_differences(self, rng, size, layout):
        x = to_layout(rng.permutation(np.arange(112.0)).reshape(2, 7, 8), layout)
        output, indices = reference.adaptive_max_pool2d(x, size, True, layout=layout)
        g = rng.normal(size=output.shape)
        gradient = reference.max_pool2d_input(g, indices, x.shape, layout=layout)
        numerical = difference(lambda x: reference.adaptive_max_pool2d(x, size, layout=layout), x, g)
        assert max_error(gradient, numerical) < 1e-12

        gradient = reference.adaptive_avg_pool2d_input(g, x.shape, layout=layout)
        numerical = difference(lambda x: reference.adaptive_avg_pool2d(x, size, layout=layout), x, g)
        assert max_error(gradient, numerical) < 1e-12


class TestPoolingByHand:
    def test_first_of_equal_values_and_last_nan(self):
        equal = np.array([[[7.0, 9.0, 9.0, 9.0]]])
        assert reference.max_pool2d(equal, (1, 4), return_indices=True)[1].item() == 1
        nans = np.array([[[np.nan, 9.0, np.nan, 1.0]]])
        output, index = reference.max_pool2d(nans, (1, 4), return_indices=True)
        assert np.isnan(output.item())
        assert index.item() == 2

    def test_padding_never_wins(self):
        image = np.full((1, 2, 2), -np.inf)
        output, indices = reference.max_pool2d(image, 2, padding=1, return_indices=True)
        assert (output == -np.inf).all()
        assert indices.ravel().tolist() == [0, 1, 2, 3]

    def test_a_window_without_pixels_is_minus_infinity_nowhere(self):
        output, indices = reference.max_pool2d(np.ones((1, 2, 2)), 2, padding=1, dilation=3, return_indices=True)
        assert output.tolist() == [[[-np.inf]]]
        assert indices.tolist() == [[[-1]]]
        assert not reference.max_pool2d_input(output, indices, (1, 2, 2)).any()

    def test_ceil_mode_keeps_the_rest_but_not_a_window_of_padding(self):
        row = np.arange(1.0, 6.0).reshape(1, 1, 5)
        pool = {"kernel_size": (1, 2), "stride": (1, 2)}
        assert reference.max_pool2d(row, **pool).ravel().tolist() == [2, 4]
        assert reference.max_pool2d(row, **pool, ceil_mode=True).ravel().tolist() == [2, 4, 5]
        # With padding the fourth window would start beyond the image: there is none.
        padded = reference.max_pool2d(row, **pool, padding=(0, 1), ceil_mode=True)
        assert padded.ravel().tolist() == [1, 3, 5]
        assert reference.avg_pool2d(row, **pool, ceil_mode=True).ravel().tolist() == [1.5, 3.5, 5]

    def test_divisors_of_the_average(self):
        row = np.full((1, 1, 4), 6.0)

        def average(**options):
            options = {"padding": (0, 1), "ceil_mode": True, **options}
            return reference.avg_pool2d(row, (1, 3), (1, 2), **options).ravel().tolist()

        # Windows: (pad 6 6), (6 6 6), (6 pad beyond); the last has a zero that does not count.
        assert average() == [4, 6, 3]
        assert average(count_include_pad=False) == [6, 6, 6]
        assert average(divisor_override=6) == [2, 3, 1]

    def test_too_large_a_window_is_named(self):
        for pool in (reference.max_pool2d, reference.avg_pool2d):
            with pytest.raises(ValueError, match=r"^kernel_size: got 4 .* fit into 3 pixels"):
                pool(np.ones((1, 3, 5)), (4, 2))

    def test_global(self, rng):
        x = rng.normal(size=(2, 3, 4, 5))
        for layout in LAYOUTS:
            y = to_layout(x, layout)
            largest = from_layout(reference.global_max_pool(y, layout=layout), layout)
            mean = from_layout(reference.global_avg_pool(y, layout=layout), layout)
            np.testing.assert_array_equal(largest, x.max(axis=(2, 3), keepdims=True))
            np.testing.assert_allclose(mean, x.mean(axis=(2, 3), keepdims=True), rtol=1e-14)

    @pytest.mark.parametrize(
        "pool",
        [
            lambda x, layout: reference.max_pool2d(x, 3, 2, 1, return_indices=True, layout=layout),
            lambda x, layout: reference.adaptive_max_pool2d(x, (3, 2), True, layout=layout),
            lambda x, layout: [reference.avg_pool2d(x, 3, 2, 1, layout=layout)],
            lambda x, layout: [reference.adaptive_avg_pool2d(x, (3, 2), layout=layout)],
        ],
        ids=["max", "adaptive max", "avg", "adaptive avg"],
    )
    def test_channels_last_single_images_and_empty_batches(self, rng, pool):
        x = ties_and_nans(rng, (2, 3, 7, 8))
        expected = pool(x, "NCHW")
        for first, last, image, empty in zip(
            expected,
            pool(to_layout(x, "NHWC"), "NHWC"),
            pool(x[1], "NCHW"),
            pool(x[:0], "NCHW"),
            strict=True,
        ):
            np.testing.assert_array_equal(from_layout(last, "NHWC"), first)
            np.testing.assert_array_equal(image, first[1])
            assert empty.shape == (0, *first.shape[1:])
            assert empty.dtype == first.dtype

    @both_layouts
    @pytest.mark.parametrize("include", [True, False])
    def test_avg_gradient_equals_finite_differences(self, rng, include, layout):
        x = to_layout(rng.normal(size=(2, 5, 6)), layout)
        parameters = 3, 2, 1, True, include

        def pool(x):
            return reference.avg_pool2d(x, *parameters, layout=layout)

        g = rng.normal(size=pool(x).shape)
        gradient = reference.avg_pool2d_input(g, x.shape, *parameters, layout=layout)
        assert max_error(gradient, difference(pool, x, g)) < 1e-12

    def test_float32_stays_float32(self):
        x = np.ones((1, 1, 4, 4), np.float32)
        results = (
            reference.max_pool2d(x, 2),
            reference.avg_pool2d(x, 2),
            reference.adaptive_avg_pool2d(x, 3),
            reference.avg_pool2d_input(x, (1, 1, 8, 8), 2),
            reference.max_pool2d_input(x, np.zeros(x.shape, int), x.shape),
        )
        assert all(result.dtype == np.float32 for result in results)


# --- everything else ------------------------------------------------------------------------------


class TestLayers:
    def test_linear_equals_torch(self, torch, rng):
        x, weight, bias = whole(rng, (2, 3, 5)), whole(rng, (4, 5)), whole(rng, 4)
        tensors = [torch.from_numpy(array) for array in (x, weight, bias)]
        expected = torch.nn.functional.linear(*tensors)
        np.testing.assert_array_equal(reference.linear(x, weight, bias), expected)
        np.testing.assert_array_equal(
            reference.linear(x[0, 0], weight),
            torch.nn.functional.linear(tensors[0][0, 0], tensors[1]),
        )

    @pytest.mark.parametrize("name", ["relu", "relu6", "sigmoid", "silu", "hardswish"])
    def test_activations_equal_torch(self, torch, name):
        x = np.array([-np.inf, -1.0, 0.0, 3.0, 6.0, 7.0, np.inf, np.nan], np.float32)
        expected = getattr(torch.nn.functional, name)(torch.from_numpy(x))
        result = getattr(reference, name)(x)
        assert max_error(result, expected) < 2e-7
        assert result.dtype == x.dtype

    @pytest.mark.parametrize("name", ["softmax", "log_softmax"])
    @pytest.mark.parametrize("ndim", [1, 2, 3, 4])
    def test_softmax_equals_torch(self, torch, rng, name, ndim):
        x = 300 * rng.normal(size=(5, 4, 3, 2)[:ndim])
        function = getattr(torch.nn.functional, name)
        for dim in range(-ndim, ndim):
            expected = function(torch.from_numpy(x), dim)
            assert max_error(getattr(reference, name)(x, dim), expected) < 1e-14
        with pytest.warns(UserWarning, match="Implicit dimension"):
            expected = function(torch.from_numpy(x))
        assert max_error(getattr(reference, name)(x), expected) < 1e-14

    @pytest.mark.parametrize("shape", [(6, 4), (6, 4, 5), (6, 4, 5, 3)], ids=str)
    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize("affine", [True, False])
    def test_batch_norm_equals_torch(self, torch, rng, shape, training, affine):
        x = 3 + 2 * rng.normal(size=shape)
        scale, shift = rng.normal(size=(2, 4)) if affine else (None, None)
        statistics = [rng.normal(size=4), 1 + rng.random(4)]
        for layout in LAYOUTS:
            mine = [array.copy() for array in statistics]
            theirs = [torch.from_numpy(array.copy()) for array in statistics]
            expected = torch.nn.functional.batch_norm(
                torch.from_numpy(x),
                *theirs,
                *(None if a is None else torch.from_numpy(a) for a in (scale, shift)),
                training,
                0.3,
                1e-3,
            )
            axis = 1 if layout == "NCHW" else -1
            moved = np.moveaxis(x, 1, axis)
            y = reference.batch_norm(moved, *mine, scale, shift, training, 0.3, 1e-3, layout=layout)
            assert max_error(np.moveaxis(y, axis, 1), expected) < 1e-13
            for own, other in zip(mine, theirs, strict=True):
                assert max_error(own, other) < 1e-13

    def test_batch_norm_in_training_needs_no_running_statistics(self, rng):
        y = reference.batch_norm(rng.normal(size=(50, 3)), None, None, training=True, eps=0.0)
        np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-14)
        np.testing.assert_allclose(y.var(axis=0), 1, rtol=1e-14)

    @pytest.mark.parametrize("shape", [(6, 4), (6, 4, 5), (6, 4, 5, 3)], ids=str)
    @pytest.mark.parametrize("affine", [True, False])
    def test_norms_of_one_image_equal_torch(self, torch, rng, shape, affine):
        F = torch.nn.functional
        x = 3 + 2 * rng.normal(size=shape)

        def both(own, size):
            parameters = rng.normal(size=(2, *size)) if affine else (None, None)
            return own, parameters, [None if a is None else torch.from_numpy(a) for a in parameters]

        own, mine, theirs = both(shape[1:], shape[1:])
        expected = F.layer_norm(torch.from_numpy(x), own, *theirs, 1e-3)
        assert max_error(reference.layer_norm(x, own, *mine, 1e-3), expected) < 1e-13
        _, mine, theirs = both((4,), (4,))
        for layout, axis in (("NCHW", 1), ("NHWC", -1)):
            moved = np.moveaxis(x, 1, axis)
            y = reference.group_norm(moved, 2, *mine, 1e-3, layout=layout)
            expected = F.group_norm(torch.from_numpy(x), 2, *theirs, 1e-3)
            assert max_error(np.moveaxis(y, axis, 1), expected) < 1e-13
            if x.ndim > 2:
                y = reference.instance_norm(moved, *mine, 1e-3, layout=layout)
                expected = F.instance_norm(torch.from_numpy(x), None, None, *theirs, True, 0.1, 1e-3)
                assert max_error(np.moveaxis(y, axis, 1), expected) < 1e-13

    @pytest.mark.parametrize(
        ("mode", "rank"), [("nearest", 2), ("linear", 1), ("bilinear", 2), ("bicubic", 2), ("trilinear", 3)]
    )
    def test_interpolate_equals_torch(self, torch, rng, mode, rank):
        x = rng.normal(size=(2, 3, 5, 7, 4)[: rank + 2])
        for where in ({"size": (8, 4, 9)[:rank]}, {"scale_factor": 2.0}, {"scale_factor": (0.6, 1.7, 2.5)[:rank]}):
            for aligned in (None,) if mode == "nearest" else (False, True):
                expected = torch.nn.functional.interpolate(
                    torch.from_numpy(x), **where, mode=mode, align_corners=aligned
                )
                y = reference.interpolate(x, **where, mode=mode, align_corners=bool(aligned))
                assert max_error(y, expected) < 1e-14

    @pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9])
    def test_local_response_norm_equals_torch(self, torch, rng, size):
        x = rng.normal(size=(2, 6, 4, 3))
        parameters = size, 0.3, 0.6, 2.0
        expected = torch.nn.functional.local_response_norm(torch.from_numpy(x), *parameters)
        assert max_error(reference.local_response_norm(x, *parameters), expected) < 1e-14
        last = reference.local_response_norm(to_layout(x, "NHWC"), *parameters, layout="NHWC")
        assert max_error(from_layout(last, "NHWC"), expected) < 1e-14

    @pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
    @pytest.mark.parametrize("smoothing", [0.0, 0.1])
    @pytest.mark.parametrize("weighted", [True, False])
    @pytest.mark.parametrize("shape", [(5,), (7, 5), (7, 5, 2, 3)], ids=str)
    def test_cross_entropy_equals_torch(self, torch, rng, shape, weighted, smoothing, reduction):
        scores = 10 * rng.normal(size=shape)
        target = rng.integers(0, 5, shape[:1] * (len(shape) > 1) + shape[2:])
        if target.ndim:
            target[rng.random(target.shape) < 0.3] = 3  # which is to be ignored
        weight = rng.random(5) if weighted else None
        options = {"ignore_index": 3, "reduction": reduction, "label_smoothing": smoothing}
        expected = torch.nn.functional.cross_entropy(
            torch.from_numpy(scores),
            torch.from_numpy(np.asarray(target)),
            None if weight is None else torch.from_numpy(weight),
            **options,
        )
        result = reference.cross_entropy(scores, target, weight, **options)
        assert max_error(result, expected) < 1e-14

    def test_cross_entropy_of_an_impossible_class_is_infinite(self):
        scores = np.array([[0.0, -np.inf]])
        assert reference.cross_entropy(scores, [0]) == 0
        assert reference.cross_entropy(scores, [1]) == np.inf

    def test_unknown_options_are_named(self):
        with pytest.raises(ValueError, match=r"^reduction: got 'max'"):
            reference.cross_entropy(np.zeros((1, 2)), [0], reduction="max")
        with pytest.raises(ValueError, match=r"^layout: got 'NHCW'"):
            reference.batch_norm(np.zeros((2, 2)), None, None, training=True, layout="NHCW")
