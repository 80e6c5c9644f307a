# SPDX-License-Identifier: BSD-3-Clause
"""The values that parameters begin with."""

import numpy as np
import pytest

from fastconv import nn


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def test_a_seed_makes_the_same_network():
    def build(rng):
        rng = np.random.default_rng(rng)
        return nn.Sequential(nn.Conv2d(2, 3, 3, rng=rng), nn.Linear(4, 5, rng=rng)).state_dict()

    a, b, c = build(1), build(1), build(2)
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])
        assert not np.array_equal(a[key], c[key])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_default_initial_values(dtype):
    for layer, fan_in in (
        (nn.Conv2d(8, 64, 5, groups=2, dtype=dtype, rng=0), 100),
        (nn.Linear(100, 64, dtype=dtype, rng=0), 100),
    ):
        bound = 1 / np.sqrt(fan_in)
        for p in layer.parameters():
            values = p.value.astype(np.float64)
            assert np.abs(values).max() <= bound * (1 + np.finfo(dtype).eps)
            assert np.abs(values).max() > 0.9 * bound
            # The mean of n uniform values strays by bound/√(3n); six times that is no chance.
            assert abs(values.mean()) < 6 * bound / np.sqrt(3 * values.size)


INITIALISERS = [
    ("uniform_", (-2.0, 3.0), 0.5, 5 / np.sqrt(12)),
    ("normal_", (1.0, 0.5), 1.0, 0.5),
    ("kaiming_uniform_", (), 0.0, np.sqrt(2 / 450)),
    ("kaiming_normal_", (0, "fan_out", "relu"), 0.0, np.sqrt(2 / 900)),
    ("kaiming_normal_", (0.5, "fan_in"), 0.0, np.sqrt(2 / 1.25 / 450)),
    ("xavier_uniform_", (), 0.0, np.sqrt(2 / 1350)),
    ("xavier_normal_", (2.0,), 0.0, 2 * np.sqrt(2 / 1350)),
]


@pytest.mark.parametrize(("name", "args", "mean", "std"), INITIALISERS)
@pytest.mark.parametrize("strided", [False, True])
def test_initialisers(name, args, mean, std, strided):
    array = np.zeros((100, 50, 3, 6 if strided else 3))[..., :: 2 if strided else 1]
    assert getattr(nn.init, name)(array, *args, rng=7) is array
    assert abs(array.mean() - mean) < 6 * std / np.sqrt(array.size)
    assert abs(array.std() / std - 1) < 6 / np.sqrt(array.size)


@pytest.mark.parametrize(("a", "b"), [(-2.0, 2.0), (0.5, 9.0), (3.0, np.inf), (-np.inf, -6.0), (0.1, 0.2), (8.0, 8.5)])
def test_truncated_normal(a, b):
    """The moments of the density that is left between the ends, wherever these are."""
    mean, std = 1.0, 0.5
    array = np.full((100, 500), np.nan)
    assert nn.init.trunc_normal_(array, mean, std, mean + std * a, mean + std * b, rng=3) is array
    z = np.linspace(max(a, -12), min(b, 12), 200_001)
    density = np.exp((np.abs(z).min() ** 2 - z**2) / 2)
    density /= density.sum()
    expected = np.sum(density * z)
    spread = np.sqrt(np.sum(density * (z - expected) ** 2))
    found = (array - mean) / std
    assert found.min() >= a - 1e-9
    assert found.max() <= b + 1e-9
    assert abs(found.mean() - expected) < 6 * spread / np.sqrt(array.size)
    assert abs(found.std() / spread - 1) < 20 / np.sqrt(array.size)
    again = nn.init.trunc_normal_(nn.Parameter.empty(7), mean, std, mean + std * a, mean + std * b, rng=3)
    assert again.dtype == np.float32


def test_constants_and_gains(torch):
    p = nn.Parameter.empty((2, 3))
    assert nn.init.ones_(p) is p
    assert (p.value == 1).all()
    assert not nn.init.zeros_(p).value.any()
    for name in ("linear", "conv2d", "sigmoid", "tanh", "relu", "leaky_relu", "selu"):
        assert nn.init.calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name))
    assert nn.init.calculate_gain("leaky_relu", 0.2) == pytest.approx(np.sqrt(2 / 1.04))
    with pytest.raises(ValueError, match="nonlinearity is 'gelu'"):
        nn.init.calculate_gain("gelu")
    with pytest.raises(ValueError, match="mode is 'fan'"):
        nn.init.kaiming_normal_(p, mode="fan")
    with pytest.raises(ValueError, match=r"tensor has shape \(3,\)"):
        nn.init.xavier_normal_(np.zeros(3))
    with pytest.raises(ValueError, match=r"a is 2\.0 and b is 1\.0"):
        nn.init.trunc_normal_(p, a=2.0, b=1.0)
