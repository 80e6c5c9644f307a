# SPDX-License-Identifier: BSD-3-Clause
"""Networks compiled from torch's modules and graphs: every operator of the door beside torch itself."""

import operator as op
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import fastconv as fc  # noqa: E402
from fastconv.graph import PASSES  # noqa: E402
from torch_nets import Net, images, seeded  # noqa: E402, F401


class Call(nn.Module):
    """A function as a model, between two layers that give it a tensor of its own."""

    def __init__(self, function, layer=None):
        super().__init__()
        self.conv, self.layer, self.function = nn.Conv2d(3, 6, 3, padding=1), layer, function
        self.scale = nn.Parameter(torch.rand(6, 1, 1) + 0.5)
        self.kernel = nn.Parameter(torch.randn(4, 6, 3, 3))

    def forward(self, x):
        return self.function(self, self.conv(x))


def prepared(model):
    """In evaluation mode, with statistics that are not those of the start."""
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            if layer.track_running_stats:
                layer.running_mean.normal_()
                layer.running_var.uniform_(0.5, 2)
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
    return model.eval().requires_grad_(False)


def agree(ours, theirs, tolerance=1e-5):
    ours = ours if isinstance(ours, tuple) else (ours,)
    theirs = theirs if isinstance(theirs, (tuple, list)) else (theirs,)
    for a, b in zip(ours, theirs, strict=True):
        assert type(a) is np.ndarray
        np.testing.assert_allclose(a, b.detach().numpy(), rtol=tolerance, atol=tolerance, strict=True)


def steps(net):
    return [node.op for node in net.graph.nodes]


def check(model, *inputs, native=True, tolerance=1e-5):
    """Compiled for known shapes and for open ones, with passes and without, against torch."""
    model = prepared(model)
    with torch.no_grad():
        expected = model(*(x.clone() for x in inputs))
    for shapes in ([tuple(x.shape) for x in inputs], [None] * len(inputs)):
        names = [f"x{i}" for i in range(len(inputs))]
        shape = shapes[0] if len(inputs) == 1 or shapes[0] is None else dict(zip(names, shapes, strict=True))
        for without in ((), tuple(PASSES)):
            net = fc.compile(model, shape, without=without)
            given = [x.numpy().copy() for x in inputs]
            for _ in range(2):
                agree(net(*given), expected, tolerance)
            for array, x in zip(given, inputs, strict=True):
                assert np.array_equal(array, x.numpy())  # whatever the model does in place
            if native is not None or shapes[0] is not None:
                assert ("python" in steps(net)) is (native is False)
    return net


# --- operators --------------------------------------------------------------------------------------------------------

MAPS = [
    *(F.relu, F.relu6, F.silu, F.sigmoid, F.hardsigmoid, F.hardswish, F.tanh, F.mish, F.gelu, F.elu, F.hardtanh),
    *(F.leaky_relu, F.softplus, torch.relu, torch.sigmoid, torch.tanh, torch.exp, torch.abs, torch.neg, torch.square),
    *(torch.erf, torch.floor, torch.ceil, torch.round, torch.sign, op.neg, abs),
]
CALLS = {
    **{f"{f.__module__}.{f.__name__}": (lambda m, x, f=f: f(x)) for f in MAPS},
    "gelu tanh": lambda m, x: F.gelu(x, approximate="tanh"),
    "roots": lambda m, x: torch.log(torch.sqrt(x.abs() + 1)) + torch.rsqrt(x.square() + 1) + (x * x + 1).reciprocal(),
    "powers": lambda m, x: x**2 + torch.pow(x.abs(), 0.5),
    "clamp": lambda m, x: x.clamp(-0.5, 0.25) + torch.clamp(x, min=0.1) + x.clip(max=0.3),
    "numbers": lambda m, x: (2 - (1 + x * 3 - 1) / 2) * 0.5,
    "quotients": lambda m, x: 3 / (x.abs() + 1),
    "tensors": lambda m, x: (x + m.scale) * x - x / (x * x + 1),
    "weights first": lambda m, x: (m.scale - x) + m.scale / (x * x + 1) + m.scale * x,
    "maxima": lambda m, x: torch.maximum(x, x * 2) + torch.minimum(x, m.scale),
    "methods": lambda m, x: x.add(x).mul(0.5).sub(1).div(2).relu().sigmoid(),
    "gate": lambda m, x: x * x.sigmoid() + x * (F.relu6(x + 3) / 6) + x * F.relu6(x + 3) / 6,
    "cat": lambda m, x: torch.cat([x, x * 2, torch.cat((x, x), 1)], dim=1),
    "cat of images": lambda m, x: torch.cat([x, x.relu()]),
    "flatten": lambda m, x: torch.flatten(x, 1),
    "flatten some": lambda m, x: x.flatten(2, 3),
    "view": lambda m, x: x.view(x.size(0), -1),
    "view by shape": lambda m, x: x.relu().view(x.shape[0], -1),
    "reshape": lambda m, x: x.reshape(2, 3, -1).reshape((-1, 4)),
    "permute": lambda m, x: x.permute(0, 2, 3, 1),
    "transpose": lambda m, x: x.transpose(-1, 1),
    "unsqueeze": lambda m, x: x.unsqueeze(-1).permute(0, 1, 4, 2, 3),
    "shuffle": lambda m, x: shuffle(x, 2),
    "chunks": lambda m, x: halves(x.chunk(2, dim=1)),
    "chunks that are not even": lambda m, x: torch.chunk(x, 4, -3)[2] * torch.chunk(x, 4, 1)[0],
    "split": lambda m, x: halves(x.split(3, 1)),
    "split by sizes": lambda m, x: torch.split(x, [1, 5], dim=1)[1],
    "slices": lambda m, x: x[:, 1:4, ..., 2:-1] + 0,
    "numbers as indices": lambda m, x: x[:, -1] + x[:, 2],
    "slices by sizes": lambda m, x: x[..., : x.shape[-1] // 2],
    "global mean": lambda m, x: x.mean((2, 3)),
    "global mean, kept": lambda m, x: x * torch.mean(x, [-1, -2], keepdim=True),
    "global maximum": lambda m, x: torch.amax(x, (2, 3)),
    "reductions": lambda m, x: x.mean(1) + torch.sum(x, dim=1, keepdim=True)[:, 0] - x.amin(1) * x.amax(dim=(1,)),
    "reductions of everything": lambda m, x: x.mean() + torch.sum(x),
    "interpolate": lambda m, x: F.interpolate(x, size=(16, 5), mode="bilinear", align_corners=True),
    "interpolate by factors": lambda m, x: F.interpolate(x, scale_factor=2) + F.interpolate(x, None, (2.0, 2.0)),
    "interpolate by sizes": lambda m, x: F.interpolate(x, size=x.shape[2:], mode="bicubic"),
    "interpolate by other sizes": lambda m, x: F.interpolate(x, size=(x.shape[2] * 2, x.shape[3] + 1)),
    "layer_norm": lambda m, x: F.layer_norm(x, (9,)) + F.layer_norm(x, x.shape[1:]),
    "group_norm": lambda m, x: F.group_norm(x, 3, m.conv.bias, m.conv.bias),
    "softmax": lambda m, x: F.softmax(x, dim=1) + x.softmax(-1) + torch.softmax(x, 2),
    "log_softmax": lambda m, x: F.log_softmax(x, 1),
    "pad": lambda m, x: F.pad(x, (1, 2, 0, 3)),
    "pad with a value": lambda m, x: F.pad(x, (1, -1), "constant", 0.5),
    "response": lambda m, x: F.local_response_norm(x, 3),
    "conv": lambda m, x: F.conv2d(x, m.kernel, None, 2, 1),
    "conv, same": lambda m, x: F.conv2d(x, m.kernel, padding="same"),
    "transposed": lambda m, x: F.conv_transpose2d(F.conv2d(x, m.kernel), m.kernel, None, 2),
    "max_pool": lambda m, x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
    "avg_pool": lambda m, x: F.avg_pool2d(x, (3, 2), padding=1, count_include_pad=False),
    "adaptive": lambda m, x: F.adaptive_avg_pool2d(x, (3, None)) + F.adaptive_max_pool2d(x, (3, 1)),
    "dropout": lambda m, x: F.dropout(x, 0.5, m.training) * 2,
    "contiguous": lambda m, x: x.permute(0, 2, 3, 1).contiguous().detach().clone().view(2, -1),
}  # fmt: skip
#: Those of which some are left to torch, where sizes are open.
SIZED = {"interpolate by sizes", "interpolate by other sizes", "layer_norm"}
#: What is left to torch, in Python between the steps.
FOREIGN = {
    "cumsum": lambda m, x: torch.cumsum(x, 1).relu(),
    "smoothed": lambda m, x: F.interpolate(x, scale_factor=0.5, mode="bilinear", antialias=True),
    "matmul": lambda m, x: x.flatten(2) @ x.flatten(2).transpose(1, 2),
    "indices": lambda m, x: x.argmax(1),
    "two results": lambda m, x: halves(torch.var_mean(x, (2, 3))),
    "one of two results": lambda m, x: torch.max(x, dim=1)[0] * 2,
    "integers": lambda m, x: x.argmax(1) / 2 + x[:, 0],
    "comparison": lambda m, x: torch.where(x > 0, x, x * 2),
    "products": lambda m, x: x.prod(1),
    "reflection": lambda m, x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "einsum": lambda m, x: torch.einsum("nchw,c->nhw", x, m.scale[:, 0, 0]),
    "alpha": lambda m, x: torch.add(x, x, alpha=3),
    "stack": lambda m, x: torch.stack([x, x], 1),
    "weights that are computed": lambda m, x: F.conv2d(x, m.kernel * x.mean()),
    "set": lambda m, x: (op.setitem(x, (slice(None), 0), 1.0), x * 2)[1],
    "unknown in place": lambda m, x: (x.cumsum_(1), x + 1)[1],
}


def halves(parts):
    first, second = parts
    return first * 2 - second


def shuffle(x, groups):
    n, c, h, w = x.size()
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


def between(call):
    return Call(lambda m, x: call(m, x))


@pytest.mark.parametrize("name", CALLS)
def test_calls(name):
    check(between(CALLS[name]), torch.randn(2, 3, 8, 9), native=None if name in SIZED else True)


@pytest.mark.parametrize("name", FOREIGN)
def test_calls_that_are_steps_in_python(name):
    check(between(FOREIGN[name]), torch.randn(2, 3, 8, 9), native=False)


LAYERS = {
    **{f"{kind}{n}d": (n, lambda n=n, kind=kind: getattr(nn, f"{kind}{n}d")(4, 6, 3, 2, 1, groups=2))
       for n in (1, 2, 3) for kind in ("Conv", "ConvTranspose")},
    **{f"{kind}{n}d": (n, lambda n=n, kind=kind: getattr(nn, f"{kind}{n}d")(3, 2, 1, ceil_mode=True))
       for n in (1, 2, 3) for kind in ("MaxPool", "AvgPool")},
    **{f"Adaptive{kind}Pool{n}d": (n, lambda n=n, kind=kind: getattr(nn, f"Adaptive{kind}Pool{n}d")(3))
       for n in (1, 2, 3) for kind in ("Max", "Avg")},
    **{f"BatchNorm{n}d": (n, lambda n=n: getattr(nn, f"BatchNorm{n}d")(4)) for n in (1, 2, 3)},
    **{f"Dropout{n}d": (n, lambda n=n: nn.Sequential(getattr(nn, f"Dropout{n}d")(), nn.ReLU())) for n in (1, 2, 3)},
    **{f"ZeroPad{n}d": (n, lambda n=n: getattr(nn, f"ZeroPad{n}d")(2)) for n in (1, 2, 3)},
    **{f"ConstantPad{n}d": (n, lambda n=n: getattr(nn, f"ConstantPad{n}d")(1, 0.5)) for n in (1, 2, 3)},
    **{name: (2, lambda name=name: getattr(nn, name)())
       for name in ("ReLU", "ReLU6", "SiLU", "Sigmoid", "Hardsigmoid", "Hardswish", "Tanh", "Mish", "GELU", "ELU",
                    "LeakyReLU", "Hardtanh", "Softplus", "PReLU", "Flatten")},
    "PReLU of channels": (2, lambda: nn.Sequential(nn.Conv2d(4, 5, 1), nn.PReLU(5))),
    "Identity": (2, lambda: nn.Sequential(nn.Identity(), nn.Dropout(), nn.ReLU(inplace=True))),
    "Softmax": (2, lambda: nn.Softmax(dim=1)),
    "LogSoftmax": (2, lambda: nn.LogSoftmax(dim=1)),
    "LocalResponseNorm": (2, lambda: nn.LocalResponseNorm(3, alpha=0.1)),
    "Linear": (1, lambda: nn.Linear(9, 5)),
    "LayerNorm": (2, lambda: nn.LayerNorm((9, 8))),
    "GroupNorm": (2, lambda: nn.GroupNorm(2, 4)),
    **{f"InstanceNorm{n}d": (n, lambda n=n: nn.Sequential(getattr(nn, f"Conv{n}d")(4, 4, 1),
                                                         getattr(nn, f"InstanceNorm{n}d")(4, affine=n > 1)))
       for n in (1, 2, 3)},
    "Upsample": (2, lambda: nn.Upsample(scale_factor=2, mode="bilinear")),
    "UpsamplingBilinear2d": (2, lambda: nn.UpsamplingBilinear2d(size=(5, 12))),
    "same": (2, lambda: nn.Conv2d(4, 4, (2, 3), padding="same", dilation=(1, 2))),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    rank, make = LAYERS[name]
    check(make(), torch.randn(2, 4, *[9, 8, 7][:rank]))


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), nn.MaxPool2d(2, return_indices=True),
     nn.BatchNorm2d(4, track_running_stats=False), nn.LPPool2d(2, 2), nn.InstanceNorm2d(4, track_running_stats=True),
     nn.CELU(), nn.Softmin(1)],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
def test_layers_that_are_steps_in_python(layer):
    model = Call(lambda m, x: m.layer(x)[0] if type(m.layer) is nn.MaxPool2d else m.layer(x), layer)
    model.conv = nn.Conv2d(3, 4, 3, padding=1)
    check(model, torch.randn(2, 3, 8, 8), native=False)


# --- in place ---------------------------------------------------------------------------------------------------------


def other_name(m, x):
    y = x
    y += 1
    return x * y


def view_of_a_part(m, x):
    y = x[:, 1:3]
    y.mul_(2)
    return y * 3


IN_PLACE = {
    "operators": lambda m, x: op.itruediv(op.imul(op.isub(op.iadd(x, 1), 2), 3), 4),
    "methods": lambda m, x: x.add_(1).mul_(2).relu_().clamp_(0, 3),
    "functions": lambda m, x: F.relu(torch.sigmoid_(x) - 0.5, inplace=True),
    "another name": other_name,
    "read before": lambda m, x: (x * 2, x.add_(1))[0] + x,
    "a copy": lambda m, x: x.clone().add_(1) + x,
    "by position": lambda m, x: (F.relu(x, True), x + 1)[1],
    "a view whose base nobody reads": view_of_a_part,
    "what dropout hands on": lambda m, x: (F.dropout(x, 0.5, m.training).add_(1), x * 2)[1],
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place(name):
    check(Call(IN_PLACE[name]), torch.randn(2, 3, 6, 6))


@pytest.mark.parametrize(
    "call",
    [lambda m, x: (x.view(2, -1).add_(1), x)[1], lambda m, x: (x[:, 0].zero_(), x)[1],
     lambda m, x: m.scale.add_(1) + x, lambda m, x: (op.setitem(x.permute(0, 2, 3, 1), 0, 1), x)[1]],
)  # fmt: skip
def test_writes_that_others_see_are_no_graphs(call):
    with pytest.raises(TypeError, match=r"node '\w+' .* cannot be compiled: it writes to a"):
        fc.compile(Call(call).eval(), (1, 3, 6, 6))


def test_inputs_are_not_written_to():
    check(nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 4, 3)), torch.randn(1, 3, 6, 6))


# --- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depthwise", [False, True])
def test_networks(depthwise):
    net = check(Net(depthwise), images())
    assert steps(fc.compile(prepared(Net(depthwise)), (2, 3, 32, 32))) == [
        "conv", "max_pool", "conv", "conv", "conv", "avg_pool", "adaptive_avg_pool", "flatten", "linear",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="0 inputs are given"):
        net()


def test_shared_modules_have_their_weights_once():
    layer = nn.Conv2d(4, 4, 3, padding=1)
    net = check(nn.Sequential(layer, nn.ReLU(), layer, nn.BatchNorm2d(4), layer), torch.randn(1, 4, 6, 6))
    plain = fc.compile(nn.Sequential(layer, nn.ReLU(), layer).eval(), (1, 4, 6, 6))
    assert len({id(node.inputs[1].constant) for node in plain.graph.nodes}) == 1
    assert plain.memory.weights == fc.compile(layer.eval(), (1, 4, 6, 6)).memory.weights
    assert [node.name for node in net.graph.nodes if node.op == "conv"] == ["0", "0#2", "0#3"]


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(2, 4, 1)

    def forward(self, x0, x1, extra=None):
        y = self.one(x0)
        z = F.relu(y + self.two(x1))
        if extra is not None:
            z = z + extra
        return z, y, {"pool": z.mean((2, 3))}["pool"]


def test_several_inputs_and_outputs():
    x0, x1 = torch.randn(2, 3, 6, 6), torch.randn(2, 2, 6, 6)
    net = check(Several(), x0, x1)
    assert [t.name for t in net.inputs] == ["x0", "x1"]
    agree(net(x1=x1.numpy(), x0=x0.numpy()), prepared_like(net, x0, x1))
    with pytest.raises(ValueError, match="names 'y'; the inputs are x0, x1"):
        fc.compile(Several().eval(), {"y": (1, 3, 4, 4)})


class Defaults(nn.Module):
    def forward(self, x=None, scale=2.0, add=True, *, other=None):
        y = x * scale if add else x
        return y if other is None else y + other


def test_arguments_that_have_defaults():
    x = torch.randn(2, 3)
    check(Defaults(), x)
    net = fc.compile(Defaults().eval(), {"x": (2, 3), "other": (3,)})
    agree(net(x.numpy(), other=x[0].numpy()), x * 2 + x[0])


def prepared_like(net, *inputs):
    return [torch.from_numpy(y) for y in net(*(x.numpy() for x in inputs))]


def test_graphs_and_tensors():
    net, x = prepared(Net()), images()
    traced = torch.fx.symbolic_trace(net)
    ours = fc.compile(traced, (None, 3, None, None))
    agree(ours(x), net(x))  # a tensor is taken as an array
    agree(fc.compile(net, (2, 32, 32, 3), layout="NHWC")(x.permute(0, 2, 3, 1)), net(x))
    assert ours(x[:1].numpy()).shape == (1, 5)


def test_float64():
    net, x = prepared(Net()).double(), images().double()
    y = fc.compile(net, tuple(x.shape))(x.numpy())
    assert y.dtype == np.float64
    agree(y, net(x), 1e-12)


def test_a_file_needs_no_torch(tmp_path):
    net, x = prepared(Net()), images()
    fc.compile(net, (None, 3, None, None)).save(tmp_path / "net.npz")
    np.save(tmp_path / "x.npy", x.numpy())
    np.save(tmp_path / "y.npy", net(x).numpy())
    code = (
        "import sys, numpy as np, fastconv as fc\n"
        f"net = fc.load_net({str(tmp_path / 'net.npz')!r})\n"
        f"y = net(np.load({str(tmp_path / 'x.npy')!r}))\n"
        f"assert np.allclose(y, np.load({str(tmp_path / 'y.npy')!r}), atol=1e-5)\n"
        "fc.compile(fc.nn.ReLU().eval(), (1, 2))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_weights_are_the_models_own():
    layer = nn.Conv2d(64, 64, 3).eval()
    net = fc.compile(layer, (1, 64, 9, 9))
    constant = next(v.constant for v in net.graph.constants() if v.constant.array().ndim == 4)
    assert constant.array().ctypes.data == layer.weight.data_ptr()


# --- bad input --------------------------------------------------------------------------------------------------------


class Deciding(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Returns(nn.Module):
    def __init__(self, result):
        super().__init__()
        self.result = result

    def forward(self, x):
        return self.result(x)


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (Deciding().eval(), TypeError, "Deciding cannot be traced by torch.fx: "),
        (Returns(lambda x: (x + 1, 3)).eval(), TypeError, "the model returns 3"),
        (Returns(lambda x: x.size(0)).eval(), TypeError, "the model returns .*size"),
        (nn.Conv2d(1, 1, 1), ValueError, "'Conv2d' is in training mode"),
        (nn.Sequential(nn.Dropout()), ValueError, "'0' is in training mode"),
        (nn.Conv2d(1, 1, 1).half().eval(), TypeError, "weights of torch.float16"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(5, 4, 3)).eval(), ValueError, r"node '1' \(conv\): "),
        (Returns(lambda x: torch.cumsum(x, 7)).eval(), ValueError, r"node 'cumsum' \(python\): Dimension out of range"),
        (object(), TypeError, "needs to be a fastconv.nn.Module, a torch.nn.Module"),
    ],
)
def test_errors_name_the_node(model, error, message):
    with pytest.raises(error, match=message):
        fc.compile(model, (1, 3, 8, 8))


def test_a_model_with_hooks():
    model, seen = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3)), nn.ReLU()).eval(), []
    model[1].register_forward_hook(lambda *_: seen.append(1))
    assert "python" in steps(fc.compile(model, (1, 3, 8, 8)))
    model[0].register_forward_hook(lambda *_: None)
    with pytest.raises(TypeError, match="'0' has hooks"):
        fc.compile(model, (1, 3, 8, 8))
