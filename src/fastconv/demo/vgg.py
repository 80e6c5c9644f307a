# SPDX-License-Identifier: BSD-3-Clause
"""VGG-16 on real photographs, every layer beside the same layer in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

import fastconv as fc
from fastconv import _images, models, nn, reference
from fastconv._names import only
from fastconv.bench import peak, timing
from fastconv.bench.quiet import Range
from fastconv.bench.timing import Effort

__all__ = ["PHOTOGRAPHS", "Layer", "Run", "Step", "difference", "photograph", "pixels", "run", "steps"]
__dir__ = only(__all__)

PHOTOGRAPHS = ("china.jpg", "flower.jpg")

Array = np.ndarray


class Step(NamedTuple):
    """A layer with the activation that follows it, under its customary name."""

    name: str
    module: nn.Module
    activation: str | None


@dataclass(frozen=True)
class Layer:
    """How a layer ran, on one image.

    Attributes
    ----------
    name : str
    kind : {"convolution", "pooling", "fully connected"}
    input_shape, output_shape : tuple of int
        Without the batch.
    weights : int
        Number of parameters.
    algorithm : str
        Of the convolution; a fully connected layer is one of an image of one pixel.
    gflop : float
        Of the direct sum, a multiply-add counting two; 0 for pooling.
    milliseconds : float
        Median of fastconv.
    loops_milliseconds : float or None
        Of NumPy as a textbook has it, one output pixel at a time, once; None for a fully connected layer.
    blas_milliseconds : float or None
        Median of NumPy at its best, a matrix (of patches, for a convolution) times the weights; None for pooling.
    ceiling : float
        GFLOP/s of multiply-adds in registers: the median of what was measured in turns with the layer.
    difference : float
        Largest difference from the NumPy forms, over all photographs, relative to the largest result.
    """

    name: str
    kind: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    weights: int
    algorithm: str
    gflop: float
    milliseconds: float
    loops_milliseconds: float | None
    blas_milliseconds: float | None
    ceiling: float
    difference: float

    @property
    def gflops(self) -> float | None:
        """GFLOP/s, or None where there is no arithmetic."""
        return self.gflop / self.milliseconds * 1e3 if self.gflop else None

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "gflops": self.gflops}


@dataclass
class Run:
    """A network on photographs.

    Attributes
    ----------
    network : str
    size : int
        Height and width of the photographs.
    parameters : int
    layers : list of Layer
    photographs : dict of str to numpy.ndarray
        The pixels that went in, (size, size, 3) of uint8.
    maps : dict of str to dict of str to numpy.ndarray
        For each photograph the results (C, H, W) of the first layer and of every pooling layer.
    milliseconds : dict of str to float
        For each photograph the sum of all layers' medians.
    """

    network: str
    size: int
    parameters: int
    layers: list[Layer] = field(default_factory=list)
    photographs: dict[str, Array] = field(default_factory=dict)
    maps: dict[str, dict[str, Array]] = field(default_factory=dict)
    milliseconds: dict[str, float] = field(default_factory=dict)

    @property
    def peak(self) -> float:
        """GFLOP/s of multiply-adds that the machine can do: the most that was measured beside a layer."""
        return max(layer.ceiling for layer in self.layers)

    def share(self, layer: Layer) -> float | None:
        """Of the peak; Winograd's algorithms multiply less than the direct sum and may exceed 1."""
        return layer.gflops / self.peak if layer.gflops else None

    @property
    def difference(self) -> float:
        """The largest of all layers."""
        return max(layer.difference for layer in self.layers)

    @property
    def ceilings(self) -> Range:
        """Between what the peak varied."""
        return Range(min(layer.ceiling for layer in self.layers), self.peak, "GFLOP/s")

    def record(self) -> dict[str, Any]:
        """For JSON; without pictures."""
        return {
            "network": self.network,
            "size": self.size,
            "parameters": self.parameters,
            "fma_peak_gflops": self.peak,
            "milliseconds": self.milliseconds,
            "difference": self.difference,
            "layers": [{**layer.record(), "share_of_peak": self.share(layer)} for layer in self.layers],
        }


def photograph(name: str, size: int = 224) -> Array:
    """A photograph that ships with scikit-learn: its middle, scaled to (size, size, 3) of uint8."""
    image = Image.fromarray(load_sample_image(name))
    scale = size / min(image.size)
    image = image.resize([max(size, round(side * scale)) for side in image.size], Image.Resampling.LANCZOS)
    left, top = ((side - size) // 2 for side in image.size)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def pixels(image: Array) -> Array:
    """A photograph as VGG takes it: (1, 3, H, W) of float32, normalised.

    >>> import numpy as np
    >>> from fastconv.demo.vgg import pixels
    >>> pixels(np.full((2, 2, 3), 128, np.uint8)).shape
    (1, 3, 2, 2)
    """
    return _images.pixels(image, models.VGG.preprocessing)


def steps(net: nn.Module) -> Iterator[Step]:
    """The layers of a chain in order, each with the ReLU that follows, called as is usual for VGG.

    >>> from fastconv import models, nn
    >>> from fastconv.demo.vgg import steps
    >>> [step.name for step in steps(models.lenet5(activation=nn.ReLU)) if step.name]
    ['conv1_1', 'pool1', 'conv2_1', 'pool2', 'fc3', 'fc4', 'fc5']
    """
    chain = [module for module in net.modules() if not isinstance(module, nn.Sequential)]
    stage, place = 1, 0
    for module, following in zip(chain, [*chain[1:], None], strict=True):
        activation = "relu" if isinstance(following, nn.ReLU) else None
        if isinstance(module, nn.Conv2d):
            place += 1
            yield Step(f"conv{stage}_{place}", module, activation)
        elif isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)):
            yield Step(f"pool{stage}", module, None)
            stage, place = stage + 1, 0
        elif isinstance(module, nn.Linear):
            yield Step(f"fc{stage}", module, activation)
            stage += 1
        elif not isinstance(module, (nn.ReLU, nn.Dropout)):
            yield Step("", module, None)  # rearranges; not worth a line


class _Forms(NamedTuple):
    """The same layer three times, each a function of the input."""

    kind: str
    ours: Callable[[Array], Array]
    loops: Callable[[Array], Array] | None
    blas: Callable[[Array], Array] | None
    algorithm: str = ""
    flops: int = 0


def _convolution(conv: nn.Conv2d, activation: str | None, shape: tuple[int, ...]) -> _Forms:
    weight, bias = conv.weight.value, None if conv.bias is None else conv.bias.value
    how: dict[str, Any] = {
        "stride": conv.stride,
        "padding": conv.padding,
        "dilation": conv.dilation,
        "groups": conv.groups,
    }
    plan = fc.ConvPlan(shape, weight, bias, **how, activation=activation)
    arguments: dict[str, Any] = {"weight": weight, "bias": bias, **how, "activation": activation}
    return _Forms(
        "convolution",
        partial(plan, out=np.empty(plan.output_shape, np.float32)),
        partial(reference.conv2d, **arguments),
        partial(reference.conv2d_im2col, **arguments),
        plan.algorithm,
        plan.flops,
    )


def _pooling(pool: nn.MaxPool2d | nn.AvgPool2d) -> _Forms:
    name = "max_pool2d" if isinstance(pool, nn.MaxPool2d) else "avg_pool2d"
    window = {"kernel_size": pool.kernel_size, "stride": pool.stride, "padding": pool.padding}
    return _Forms("pooling", partial(getattr(fc, name), **window), partial(getattr(reference, name), **window), None)


def _fully_connected(linear: nn.Linear, activation: str | None) -> _Forms:
    weight, bias = linear.weight.value, None if linear.bias is None else linear.bias.value
    plan = fc.ConvPlan((1, linear.in_features, 1, 1), weight[:, :, None, None], bias, activation=activation)

    def blas(x: Array) -> Array:
        y = reference.linear(x, weight, bias)
        return reference.relu(y) if activation else y

    return _Forms(
        "fully connected",
        lambda x: plan(x[:, :, None, None])[:, :, 0, 0],
        None,
        blas,
        plan.algorithm,
        plan.flops,
    )


def run(
    net: nn.Module,
    photographs: dict[str, Array],
    *,
    network: str = "VGG-16",
    effort: Effort | None = None,
    after_layer: Callable[[], Any] = lambda: None,
) -> Run:
    """Take photographs through a network, layer by layer, and measure each layer in three forms.

    Each layer gets what fastconv made of the layer before, so that differences do not add up.

    Parameters
    ----------
    net : Module
        A chain of convolutions, pooling, ReLU and fully connected layers.
    photographs : dict of str to numpy.ndarray
        (size, size, 3) of uint8. The slow form runs on the first alone, all others on each.
    network : str
        Its name.
    effort : Effort, optional
        How long to measure.
    after_layer : callable
        Called after every layer.

    Returns
    -------
    Run
    """
    result = Run(network, len(next(iter(photographs.values()))), sum(p.size for p in net.parameters()))
    result.photographs = dict(photographs)
    result.maps = {name: {} for name in photographs}
    result.milliseconds = dict.fromkeys(photographs, 0.0)
    net.eval()
    inputs = {name: pixels(image) for name, image in photographs.items()}
    for step in steps(net):
        if not step.name:
            inputs = {name: step.module(x) for name, x in inputs.items()}
            continue
        layer, inputs, times = _measure(step, inputs, effort or Effort(rounds=3, slice_time=0.03))
        result.layers.append(layer)
        for name, milliseconds in times.items():
            result.milliseconds[name] += milliseconds
        if len(result.layers) == 1 or layer.kind == "pooling":
            for name, maps in inputs.items():
                result.maps[name][layer.name] = maps[0]
        after_layer()
    return result


def _measure(step: Step, inputs: dict[str, Array], effort: Effort) -> tuple[Layer, dict[str, Array], dict[str, float]]:
    """The layer, its results, and its milliseconds for each photograph."""
    shown, *_ = inputs
    x = inputs[shown]
    forms = _forms(step, x.shape)
    results = {name: forms.ours(image).copy() for name, image in inputs.items()}
    differences, loops = [], None
    if forms.loops:
        expected, loops = timing.once(partial(forms.loops, x), peak.fma_peak)
        differences.append(difference(results[shown], expected))
    for name, image in inputs.items():
        theirs = forms.blas or forms.loops
        if theirs and (forms.blas or name != shown):
            differences.append(difference(results[name], theirs(image)))

    contenders = [partial(forms.ours, image) for image in inputs.values()]
    if forms.blas:
        contenders.append(partial(forms.blas, x))
    slices = timing.interleaved(contenders, peak.fma_peak, effort)
    milliseconds = [1e3 * median(turn.seconds for turn in turns) for turns in slices]
    gflop = forms.flops / 1e9
    layer = Layer(
        name=step.name,
        kind=forms.kind,
        input_shape=x.shape[1:],
        output_shape=results[shown].shape[1:],
        weights=sum(parameter.size for parameter in step.module.parameters()),
        algorithm=forms.algorithm,
        gflop=gflop,
        milliseconds=milliseconds[0],
        loops_milliseconds=1e3 * loops.seconds if loops else None,
        blas_milliseconds=milliseconds[-1] if forms.blas else None,
        ceiling=median(turn.ceiling for turn in slices[0]),
        difference=max(differences),
    )
    return layer, results, dict(zip(inputs, milliseconds, strict=False))


def _forms(step: Step, shape: tuple[int, ...]) -> _Forms:
    if isinstance(step.module, nn.Conv2d):
        return _convolution(step.module, step.activation, shape)
    if isinstance(step.module, nn.Linear):
        return _fully_connected(step.module, step.activation)
    assert isinstance(step.module, (nn.MaxPool2d, nn.AvgPool2d))
    return _pooling(step.module)


def difference(ours: Array, theirs: Array) -> float:
    """max|ours - theirs| / max|theirs|."""
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())
