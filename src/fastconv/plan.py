# SPDX-License-Identifier: BSD-3-Clause
"""Convolutions planned once and run many times."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv import _args, _config, _core, _costs, _plans
from fastconv._args import ALGORITHMS
from fastconv._explanation import Explanation, Verdict
from fastconv._names import only
from fastconv.ops import _convolution

__all__ = ["ALGORITHMS", "ConvPlan", "algorithms"]
__dir__ = only(__all__)

_kept_plan = _plans.kept_plan  # whoever wants plans made anew clears its cache


class ConvPlan:
    """A convolution with its algorithm chosen and its weights packed, ready to run on many inputs.

    Parameters
    ----------
    input_shape : tuple of int
        Shape of the inputs, ``(N, C, *spatial)`` or ``(C, *spatial)``, in the order of ``layout``.
    weight : array_like, shape ``(out_channels, in_channels / groups, *kernel)``, with one to three axes of a kernel
        float32, float64 or float16 (computed in float32). It is packed here, and kept for pickling: as a copy if it
        is writeable, so that later changes have no effect.
    bias : array_like, shape (out_channels,), optional
    stride, padding, dilation, groups
        As for :func:`fastconv.conv2d`.
    layout : str, optional
        Order of the axes, ``"NCHW"`` or ``"NHWC"``, and likewise for one axis and for three. Channels come before the
        spatial axes by default.
    activation : {None, "relu", "relu6", "silu", "hardswish", "sigmoid"}
        Applied to the result, after the residual is added.
    algorithm : str
        ``"auto"``, or one of :data:`fastconv.ALGORITHMS`, or ``"winograd"``.
    precision : {"default", "strict"}
        ``"strict"`` keeps the error within the bound of direct summation: no Winograd.
    batch_invariant : bool
        Whether the result for an image is to be the same, bit for bit, in a batch of any size: algorithm and order of
        sums are then chosen for one image.
    transposed : bool
        Plan :func:`fastconv.conv_transpose2d` or its kin instead, whose weight is
        ``(in_channels, out_channels / groups, *kernel)``.
    output_padding : int or tuple of int
        As for :func:`fastconv.conv_transpose2d`; only with ``transposed``.

    Raises
    ------
    TypeError
        If dtypes differ or are not supported.
    ValueError
        If shapes or parameters are impossible.
    NotImplementedError
        If the algorithm asked for cannot serve the problem.

    Notes
    -----
    A plan is immutable and may be called from many threads at once. Its result does not depend on the number of
    threads, nor on where in the batch an image stands. On the size of the batch it may, unless ``batch_invariant``: two
    plans for batches of different sizes may take different algorithms, or add in another order. It may differ in the
    last bits from that of :func:`fastconv.conv2d`, which packs its weights in every call and so may choose another
    algorithm.

    References
    ----------
    Winograd's algorithms: A. Lavin, S. Gray, "Fast algorithms for convolutional neural networks", CVPR 2016,
    arXiv:1509.09308.

    Examples
    --------
    >>> import numpy as np, fastconv as fc
    >>> rng = np.random.default_rng(0)
    >>> weight = rng.standard_normal((8, 3, 3, 3), dtype=np.float32)
    >>> plan = fc.ConvPlan((1, 3, 32, 32), weight, padding=1, activation="relu")
    >>> image = rng.standard_normal((1, 3, 32, 32), dtype=np.float32)
    >>> plan(image).shape
    (1, 8, 32, 32)
    >>> np.allclose(plan(image), fc.conv2d(image, weight, padding=1, activation="relu"), atol=1e-4)
    True
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        weight: ArrayLike,
        bias: ArrayLike | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        *,
        layout: str | None = None,
        activation: str | None = None,
        algorithm: str = "auto",
        precision: str = "default",
        batch_invariant: bool = False,
        transposed: bool = False,
        output_padding: Any = 0,
    ) -> None:
        weight = _args.as_operand(weight, "weight")
        rank = weight.ndim - 2
        if not 1 <= rank <= 3:
            raise ValueError(
                f"weight has shape {weight.shape}; it needs 3 to 5 axes: two of channels and the kernel's, as "
                "fastconv.conv2d says"
            )
        if not isinstance(transposed, bool):
            raise TypeError(f"transposed is {_args.said(transposed)}; it needs to be True or False")
        layout = _args.channels_first(rank) if layout is None else layout
        shape = _args.sizes(input_shape, "input_shape", 0)
        if not transposed and output_padding != 0:
            raise ValueError(f"output_padding is {_args.said(output_padding)}; only a transposed convolution has one")
        self._geometry = g = _args.geometry_of(
            rank,
            transposed,
            shape,
            weight.shape,
            stride,
            padding,
            output_padding,
            dilation,
            groups,
            layout,
            "input_shape",
        )
        self._dtype, self._shape, self._transposed = weight.dtype, shape, transposed
        self._output_padding = _args.per_axis(output_padding, rank, "output_padding", 0)
        bias = _args.check_bias(bias, g.in_channels if transposed else g.out_channels, weight)
        self._activation, self._requested = activation, algorithm
        self._strict = _args.is_strict(precision)
        self._batch_invariant = _args.is_batch_invariant(batch_invariant)
        finish = _args.activation_fields(activation)
        # The core reads float16 forward only.
        wide = weight.astype(np.float32) if self._widened else _args.stored(weight)
        read, written = (_args.dense_strides(s, wide.itemsize) for s in (shape, self.output_shape))
        direction, src, dst = ("input", written, read) if transposed else ("forward", read, written)
        steps = _args.strides_of(wide)
        self._fields = g.fields(direction, wide.dtype, src, steps, dst, finish)
        self._plan = _plans.core_plan(
            self._fields,
            algorithm,
            self._strict,
            False,
            self._batch_invariant,
            (shape, read),
            (wide.shape, steps),
            (self.output_shape, written),
            wide.dtype,
        )
        wide_bias = bias.astype(np.float32) if self._widened and bias is not None else bias
        self._packed = self._pack(wide, wide_bias)
        # For pickling, and for the gradient of the input; a read-only array is taken to stay as it is.
        self._weight = _kept(_args.stored(weight))
        self._bias = None if bias is None else _kept(bias)
        self._of_input: tuple[_core.Plan, _core.Packed] | None = None

    def _pack(self, weight: np.ndarray, bias: np.ndarray | None) -> _core.Packed:
        return self._plan.pack(weight, bias, _config.get_num_threads())

    @property
    def _widened(self) -> bool:
        """Whether the core is given float32 for float16."""
        return self._transposed and self._dtype == _args.HALF

    def __call__(self, x: ArrayLike, residual: ArrayLike | None = None, out: np.ndarray | None = None) -> np.ndarray:
        """Convolve.

        Parameters
        ----------
        x : array_like, of the plan's input shape and dtype
            Copied only if it is not C-contiguous.
        residual : array_like, of the output's shape and dtype, optional
            Added before the activation. It may be ``out`` itself.
        out : numpy.ndarray, optional
            Takes the result; it must not overlap ``x``.

        Returns
        -------
        numpy.ndarray, of :attr:`output_shape`
            ``out``, if given; else C-contiguous, however ``x`` lies.
        """
        threads = _config.get_num_threads()
        result = self._plan.call(x, self._packed, residual, out, threads)
        if result is not None:
            return result
        x = self._operand(x)
        if residual is not None:
            residual = _args.check_residual(residual, self.output_shape, self._dtype)
        if out is not None:
            _args.check_out(out, self.output_shape, self._dtype, {"x": x})
        x = _args.addressable(np.ascontiguousarray(x))
        residual = _args.laid_out(residual, out)
        if self._widened:
            added = None if residual is None else residual.astype(np.float32)
            result = np.empty(self.output_shape, np.float32)
            self._plan.execute(x.astype(np.float32), self._packed, None, None, added, result, threads)
            return _args.handed_over(result.astype(self._dtype), out)
        result = _args.target(out, True, self.output_shape, self._dtype)
        self._plan.execute(x, self._packed, None, None, residual, result, threads)
        return _args.handed_over(result, out)

    def gradients(
        self,
        x: ArrayLike,
        grad_output: ArrayLike,
        *,
        needs: Sequence[str] = _args.GRADIENTS,
        mask: ArrayLike | None = None,
        out: Sequence[np.ndarray | None] | None = None,
    ) -> _convolution.Gradients:
        """Gradients with respect to the input, the weight and the bias.

        Parameters
        ----------
        x : array_like, of the plan's input shape and dtype
            What the plan was called with.
        grad_output : array_like, of the output's shape and dtype
            Gradient with respect to the result.
        needs : sequence of {"input", "weight", "bias"}
            What is asked for. Nothing is computed of the others.
        mask : array_like, of the output's shape and dtype
            The result, of a plan with ``activation="relu"`` or ``"relu6"``: where that was clamped, ``grad_output``
            counts as 0. Of plans without an activation there is none.
        out : (array or None, array or None, array or None), optional
            Where the gradients of input, weight and bias go; None for a new array. They must not overlap each other nor
            what is read.

        Returns
        -------
        tuple of three numpy.ndarray
            As from :func:`fastconv.grad.conv2d`, by algorithms that are chosen as the plan's own was.

        Raises
        ------
        TypeError, ValueError
            If shapes, dtypes or names do not fit.
        NotImplementedError
            If the plan has another activation, or its algorithm was asked for by name and cannot serve.

        Notes
        -----
        For the gradient of the input the weights are packed at the first call, and kept. The gradient of a residual is
        ``grad_output`` itself, behind the mask.

        Examples
        --------
        >>> import numpy as np, fastconv as fc
        >>> weight = np.ones((4, 3, 3, 3), np.float32)
        >>> plan = fc.ConvPlan((1, 3, 8, 8), weight, padding=1, activation="relu")
        >>> x = np.ones((1, 3, 8, 8), np.float32)
        >>> y = plan(x)
        >>> [gradient.shape for gradient in plan.gradients(x, np.ones_like(y), mask=y)]
        [(1, 3, 8, 8), (4, 3, 3, 3), (4,)]
        """
        bounds = self._clamp(mask)
        x = self._operand(x)
        g, options = self._geometry, self._options
        asked = _convolution.asked_of(g, self._transposed, x, self._weight, grad_output, needs, mask, bounds, out)
        given = g.stride, g.padding, options["output_padding"], g.dilation, g.groups, g.layout
        parameters = (*given, self._requested, options["precision"])
        arrays = x, self._weight
        return _convolution.back(g.rank, self._transposed, *arrays, parameters, asked, of_input=self._input_gradient)

    def _clamp(self, mask: Any) -> tuple[float, float]:
        """The bounds of the activation, whose result is there if it has any."""
        if self._activation not in (None, "relu", "relu6"):
            raise NotImplementedError(
                f"the plan's activation is {self._activation!r}; gradients needs None, 'relu' or 'relu6'"
            )
        if (mask is None) != (self._activation is None):
            needed = "none" if self._activation is None else "the forward result"
            raise ValueError(
                f"mask is {_args.said(mask)}; with the plan's activation {self._activation!r} it needs {needed}"
            )
        _, low, high, _ = _args.activation_fields(self._activation)
        return low, high

    def _input_gradient(self, grad: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        grad = _args.addressable(np.ascontiguousarray(grad))
        result = _args.target(out, True, self._shape, grad.dtype)
        if self._of_input is None:
            weight = _args.computed(self._weight)
            arrays, how = (grad, weight, result), (self._requested, self._strict, self._batch_invariant)
            plan = _convolution.input_grad_plan(self._geometry, self._transposed, *arrays, *how, once=False)
            self._of_input = plan, plan.pack(weight, None, _config.get_num_threads())
        plan, packed = self._of_input
        plan.execute(grad, packed, None, None, None, result, _config.get_num_threads())
        return _args.handed_over(result, out)

    def _operand(self, x: ArrayLike) -> np.ndarray:
        x = _args.as_operand(x, "x")
        if x.shape != self._shape:
            raise ValueError(f"x has shape {x.shape}; the plan needs {self._shape}")
        if x.dtype != self._dtype:
            raise TypeError(
                f"x has dtype {x.dtype}; the plan needs {self._dtype}, as its weight: "
                f"{_args.agreement(x.dtype, 'x', self._dtype, 'weight')}"
            )
        return x

    @property
    def algorithm(self) -> str:
        """Name of the algorithm chosen."""
        return ALGORITHMS[self._plan.algorithm]

    @property
    def isa(self) -> str:
        """Name of the instruction set used."""
        return _config.isa()

    @property
    def flops(self) -> int:
        """Floating-point operations of the direct sum, a multiply-add counting two, whatever the algorithm."""
        return int(self._plan.flops)

    @property
    def workspace_bytes(self) -> int:
        """Scratch memory of a call with the current number of threads."""
        return self._plan.workspace_bytes(_config.get_num_threads())

    @property
    def packed_bytes(self) -> int:
        """Memory of the packed weights, with those of the input's gradient once :meth:`gradients` has packed them."""
        return self._packed.nbytes + (self._of_input[1].nbytes if self._of_input else 0)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        return self._geometry.input_result_shape if self._transposed else self._geometry.result_shape

    def explain(self, measure: bool | None = None) -> Explanation:
        """A table of every algorithm: its predicted cost, or the reason why it cannot serve.

        Parameters
        ----------
        measure : bool, optional
            Also run each algorithm on random images, on one thread, which may take some seconds and, for a moment, the
            memory of its packed weights. By default this is done where ``fastconv tune`` has measured this machine, so
            that predictions are meant as milliseconds.

        Returns
        -------
        Explanation
            Rows with ``algorithm``, ``predicted`` and ``measured`` seconds, ``refusal`` and ``chosen``, to go through
            or to take by name. It prints as the table, in a notebook as HTML.

        Examples
        --------
        >>> import numpy as np, fastconv as fc
        >>> plan = fc.ConvPlan((1, 8, 14, 14), np.ones((16, 8, 1, 1), np.float32))
        >>> print(plan.explain(measure=False))  # doctest: +ELLIPSIS
        algorithm      predicted ms
        direct                0...
        im2col                0...
        winograd_f2               -  refused: only kernels of two columns or more
        ...
        >>> [row.algorithm for row in plan.explain(measure=False) if row.refusal is None]
        ['direct', 'im2col', 'pointwise', 'reference']
        """
        costs = _costs.COSTS
        measured = self.measured() if (costs.tuned if measure is None else measure) else {}
        rows = (
            Verdict(name, None if refusal else cost, measured.get(name), refusal, name == self.algorithm)
            for name, refusal, cost in self.verdicts(costs.seconds)
        )
        predicted = (
            f"; predicted by {costs.source}"
            if costs.tuned
            else ", predicted for a nominal machine: ratios count, not milliseconds"
        )
        return Explanation(tuple(rows), f"one thread{predicted}")

    def verdicts(self, costs: tuple[float, ...]) -> list[tuple[str, str | None, float]]:
        """(algorithm, reason of its refusal or None, seconds that these costs predict), for ``fastconv tune``."""
        return _core.explain(self._fields, _config.ISA, self._strict, self._batch_invariant, costs)

    def measured(self, seconds: float = 0.02, within: float = 100.0) -> dict[str, float]:
        """Median seconds of one thread for each algorithm that serves, for ``fastconv tune``.

        Each runs for the given ``seconds``, or three times if that takes longer. Those that are predicted to take more
        than ``within`` times as long as the best are left out.
        """
        from fastconv.bench.timing import median_seconds

        serving = {name: cost for name, refusal, cost in self.verdicts(_costs.COSTS.seconds) if refusal is None}
        rng, best = np.random.default_rng(0), min(serving.values())
        x = np.maximum(rng.standard_normal(self._shape, np.float32), 0).astype(self._dtype)
        result, found = {}, np.empty(self.output_shape, self._dtype)
        for name in (name for name, cost in serving.items() if cost <= within * best):
            plan = ConvPlan(*self._arguments, **{**self._options, "algorithm": name})
            with _config.threads(1):
                result[name] = median_seconds(partial(plan, x, out=found), min_time=seconds, min_runs=3)
        return result

    def __repr__(self) -> str:
        g, kind = self._geometry, "transposed, " if self._transposed else ""
        return (
            f"ConvPlan({self._shape} -> {self.output_shape}, kernel={g.kernel}, {kind}{g.layout}, {self._dtype}, "
            f"algorithm={self.algorithm!r}, isa={self.isa!r})"
        )

    @property
    def _arguments(self) -> tuple[Any, ...]:
        g = self._geometry
        return self._shape, self._weight, self._bias, g.stride, g.padding, g.dilation, g.groups

    @property
    def _options(self) -> dict[str, Any]:
        return {
            "layout": self._geometry.layout,
            "activation": self._activation,
            "algorithm": self._requested,
            "precision": "strict" if self._strict else "default",
            "batch_invariant": self._batch_invariant,
            "transposed": self._transposed,
            "output_padding": self._output_padding if self._transposed else 0,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._arguments, self._options)


def _rebuild(arguments: tuple[Any, ...], options: dict[str, Any]) -> ConvPlan:
    return ConvPlan(*arguments, **options)


def _kept(array: np.ndarray) -> np.ndarray:
    return array.copy() if array.flags.writeable else array


def algorithms(
    input_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    *,
    layout: str | None = None,
    dtype: Any = np.float32,
    precision: str = "default",
    transposed: bool = False,
    output_padding: Any = 0,
) -> list[str]:
    """Names of the algorithms that can serve a convolution, the one predicted to be fastest first.

    ``"winograd_f6"``, which is never chosen unless asked for, comes last.

    Parameters
    ----------
    input_shape, weight_shape : tuple of int
        As those of :func:`fastconv.conv2d`'s arrays.
    stride, padding, dilation, groups, layout, precision, transposed, output_padding
        As for :class:`fastconv.ConvPlan`.
    dtype : dtype
        float32 or float64.

    Returns
    -------
    list of str

    Raises
    ------
    TypeError
        If the dtype is another, or a shape holds no integers.
    ValueError
        If shapes or parameters are impossible.

    Examples
    --------
    >>> import fastconv as fc
    >>> fc.algorithms((1, 64, 56, 56), (64, 64, 1, 1))[-1]
    'reference'
    >>> "winograd_f4" in fc.algorithms((1, 64, 56, 56), (64, 64, 3, 3), padding=1)
    True
    """
    dtype = np.dtype(dtype)
    if dtype not in _args.FLOATS:
        raise TypeError(f"dtype is {dtype}; it needs float32 or float64")
    shape = _args.sizes(input_shape, "input_shape", 0)
    kernel = _args.sizes(weight_shape, "weight_shape", 1)
    rank = len(kernel) - 2
    if not 1 <= rank <= 3:
        raise ValueError(f"weight_shape is {kernel}; it needs 3 to 5 axes: two of channels and the kernel's")
    layout = _args.channels_first(rank) if layout is None else layout
    g = _args.geometry_of(
        rank,
        transposed,
        shape,
        kernel,
        stride,
        padding,
        output_padding,
        dilation,
        groups,
        layout,
        "input_shape",
    )
    src, wei, dst = (_args.dense_strides(s, dtype.itemsize) for s in (g.input_shape, kernel, g.output_shape))
    fields = g.fields("input" if transposed else "forward", dtype, src, wei, dst)
    verdicts = _core.explain(fields, _config.ISA, _args.is_strict(precision), False, _costs.COSTS.seconds)
    ranked = sorted(verdicts, key=lambda v: (v[0] in _args.BY_NAME, v[2]))
    return [name for name, refusal, _ in ranked if refusal is None]
