# SPDX-License-Identifier: BSD-3-Clause
"""The networks of fastconv.models in torch, written by hand with torchvision's names: what its weight files fit."""

from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F


def conv_norm(inputs, outputs, kernel, stride=1, groups=1, relu=nn.ReLU6):
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), relu())


# --- AlexNet, ZFNet, VGG ----------------------------------------------------------------------------------------------


class Chain(nn.Module):
    """Features as a list: ("C", channels, kernel, stride, padding), ("M", kernel, stride, padding), "N" or "L"."""

    def __init__(self, layers, linears, side):
        super().__init__()
        modules, channels = [], 3
        for kind, *sizes in layers:
            if kind == "C":
                modules.append(nn.Conv2d(channels, *sizes))
                channels = sizes[0]
            elif kind == "N":
                modules.append(nn.BatchNorm2d(channels))
            elif kind == "R":
                modules.append(nn.ReLU())
            elif kind == "M":
                modules.append(nn.MaxPool2d(*sizes))
            elif kind == "L":
                modules.append(nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0))
        self.features = nn.Sequential(*modules)
        self.avgpool = nn.AdaptiveAvgPool2d(side)
        self.classifier = nn.Sequential(*linears)

    def forward(self, x):
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


def _alex_linears(num_classes):
    first, second, last = nn.Linear(9216, 4096), nn.Linear(4096, 4096), nn.Linear(4096, num_classes)
    return nn.Dropout(0.5), first, nn.ReLU(), nn.Dropout(0.5), second, nn.ReLU(), last


def alexnet(num_classes):
    sizes = [("C", 64, 11, 4, 2), "M", ("C", 192, 5, 1, 2), "M"]
    sizes += [("C", 384, 3, 1, 1), ("C", 256, 3, 1, 1), ("C", 256, 3, 1, 1), "M"]
    layers = [layer for size in sizes for layer in ([("M", 3, 2)] if size == "M" else [size, ("R",)])]
    return Chain(layers, _alex_linears(num_classes), 6)


def zfnet(num_classes):
    layers = [("C", 96, 7, 2, 1), ("R",), ("M", 3, 2, 1), ("L",), ("C", 256, 5, 2), ("R",), ("M", 3, 2, 1), ("L",)]
    for channels in (384, 384, 256):
        layers += [("C", channels, 3, 1, 1), ("R",)]
    return Chain([*layers, ("M", 3, 2)], _alex_linears(num_classes), 6)


def vgg(configuration, num_classes, batch_norm=False):
    layers = []
    for size in configuration.split():
        layers += [("M", 2, 2)] if size == "M" else [("C", int(size), 3, 1, 1), *[("N",)] * batch_norm, ("R",)]
    first, second, last = nn.Linear(25088, 4096), nn.Linear(4096, 4096), nn.Linear(4096, num_classes)
    return Chain(layers, (first, nn.ReLU(), nn.Dropout(0.5), second, nn.ReLU(), nn.Dropout(0.5), last), 7)


def vgg11(num_classes, **options):
    return vgg("64 M 128 M 256 256 M 512 512 M 512 512 M", num_classes, **options)


# --- GoogLeNet --------------------------------------------------------------------------------------------------------


class BasicConv2d(nn.Module):
    def __init__(self, inputs, outputs, **sizes):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, bias=False, **sizes)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class Inception(nn.Module):
    def __init__(self, inputs, one, red3, three, red5, five, pool):
        super().__init__()

        def one_by_one(outputs):
            return BasicConv2d(inputs, outputs, kernel_size=1)

        self.branch1 = one_by_one(one)
        self.branch2 = nn.Sequential(one_by_one(red3), BasicConv2d(red3, three, kernel_size=3, padding=1))
        self.branch3 = nn.Sequential(one_by_one(red5), BasicConv2d(red5, five, kernel_size=3, padding=1))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), one_by_one(pool))

    def forward(self, x):
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class InceptionAux(nn.Module):
    def __init__(self, inputs, num_classes):
        super().__init__()
        self.conv = BasicConv2d(inputs, 128, kernel_size=1)
        self.fc1, self.fc2 = nn.Linear(2048, 1024), nn.Linear(1024, num_classes)
        self.dropout = nn.Dropout(0.7)

    def forward(self, x):
        x = self.conv(F.adaptive_avg_pool2d(x, (4, 4)))
        return self.fc2(self.dropout(F.relu(self.fc1(torch.flatten(x, 1)))))


class GoogLeNet(nn.Module):
    def __init__(self, num_classes, aux_logits=True):
        super().__init__()
        self.conv1 = BasicConv2d(3, 64, kernel_size=7, stride=2, padding=3)
        self.conv2 = BasicConv2d(64, 64, kernel_size=1)
        self.conv3 = BasicConv2d(64, 192, kernel_size=3, padding=1)
        self.inception3a = Inception(192, 64, 96, 128, 16, 32, 32)
        self.inception3b = Inception(256, 128, 128, 192, 32, 96, 64)
        self.inception4a = Inception(480, 192, 96, 208, 16, 48, 64)
        self.inception4b = Inception(512, 160, 112, 224, 24, 64, 64)
        self.inception4c = Inception(512, 128, 128, 256, 24, 64, 64)
        self.inception4d = Inception(512, 112, 144, 288, 32, 64, 64)
        self.inception4e = Inception(528, 256, 160, 320, 32, 128, 128)
        self.inception5a = Inception(832, 256, 160, 320, 32, 128, 128)
        self.inception5b = Inception(832, 384, 192, 384, 48, 128, 128)
        self.aux1 = InceptionAux(512, num_classes) if aux_logits else None
        self.aux2 = InceptionAux(528, num_classes) if aux_logits else None
        self.dropout, self.fc = nn.Dropout(0.2), nn.Linear(1024, num_classes)

    def forward(self, x):
        def pool(x, kernel=3):
            return F.max_pool2d(x, kernel, 2, ceil_mode=True)

        x = pool(self.conv3(self.conv2(pool(self.conv1(x)))))
        x = self.inception4a(pool(self.inception3b(self.inception3a(x))))
        heads = self.training and self.aux1 is not None
        aux1 = self.aux1(x) if heads else None
        x = self.inception4d(self.inception4c(self.inception4b(x)))
        aux2 = self.aux2(x) if heads else None
        x = self.inception5b(self.inception5a(pool(self.inception4e(x), 2)))
        x = self.fc(self.dropout(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)))
        return (x, aux2, aux1) if heads else x


# --- ResNet -----------------------------------------------------------------------------------------------------------


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, inputs, width, stride, downsample):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.downsample = downsample

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inputs, width, stride, downsample):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.downsample = downsample

    def forward(self, x):
        y = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return F.relu(self.bn3(self.conv3(y)) + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(self, block, depths, num_classes):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        inputs = 64
        for i, depth in enumerate(depths):
            width, blocks = 64 << i, []
            for j in range(depth):
                outputs, stride = width * block.expansion, 1 + (i > 0 and j == 0)
                downsample = None
                if stride > 1 or inputs != outputs:
                    downsample = nn.Sequential(
                        nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
                    )
                blocks.append(block(inputs, width, stride, downsample))
                inputs = outputs
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, num_classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


# --- MobileNet --------------------------------------------------------------------------------------------------------


class InvertedResidual(nn.Module):
    def __init__(self, inputs, outputs, stride, expansion):
        super().__init__()
        hidden = inputs * expansion
        wider = [conv_norm(inputs, hidden, 1)] if expansion > 1 else []
        depthwise = conv_norm(hidden, hidden, 3, stride, hidden)
        self.conv = nn.Sequential(*wider, depthwise, nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.conv(x) if self.adds else self.conv(x)


class MobileNet(nn.Module):
    def __init__(self, features, channels, num_classes):
        super().__init__()
        self.features = nn.Sequential(*features)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(channels, num_classes))

    def forward(self, x):
        return self.classifier(self.features(x).mean([2, 3]))


def mobilenet_v1(num_classes):
    features, inputs = [conv_norm(3, 32, 3, 2, relu=nn.ReLU)], 32
    for outputs in (64, 128, 128, 256, 256, *[512] * 6, 1024, 1024):
        depthwise = conv_norm(inputs, inputs, 3, 1 + (outputs > inputs > 32), inputs, nn.ReLU)
        features.append(nn.Sequential(depthwise, conv_norm(inputs, outputs, 1, relu=nn.ReLU)))
        inputs = outputs
    return MobileNet(features, inputs, num_classes)


def mobilenet_v2(num_classes):
    features, inputs = [conv_norm(3, 32, 3, 2)], 32
    table = "1 16 1 1, 6 24 2 2, 6 32 3 2, 6 64 4 2, 6 96 3 1, 6 160 3 2, 6 320 1 1"
    for row in table.split(", "):
        expansion, outputs, depth, stride = map(int, row.split())
        for i in range(depth):
            features.append(InvertedResidual(inputs, outputs, stride if i == 0 else 1, expansion))
            inputs = outputs
    return MobileNet([*features, conv_norm(inputs, 1280, 1)], 1280, num_classes)


# --- SqueezeNet -------------------------------------------------------------------------------------------------------


class Fire(nn.Module):
    def __init__(self, inputs, squeezed, expanded):
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x):
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], 1)


class SqueezeNet(nn.Module):
    def __init__(self, num_classes, version="1_0"):
        super().__init__()

        def pool():
            return nn.MaxPool2d(3, 2, ceil_mode=True)

        if version == "1_0":
            first, places = nn.Conv2d(3, 96, 7, 2), (0, 3, 7)
        else:
            first, places = nn.Conv2d(3, 64, 3, 2), (0, 2, 4)
        features, inputs = [first, nn.ReLU()], first.out_channels
        for i, squeezed in enumerate((16, 16, 32, 32, 48, 48, 64, 64)):
            features += [pool()] * (i in places) + [Fire(inputs, squeezed, 4 * squeezed)]
            inputs = 8 * squeezed
        self.features = nn.Sequential(*features)
        last = nn.Conv2d(512, num_classes, 1)
        self.classifier = nn.Sequential(nn.Dropout(0.5), last, nn.ReLU(), nn.AdaptiveAvgPool2d(1))

    def forward(self, x):
        return torch.flatten(self.classifier(self.features(x)), 1)


# --- DenseNet ---------------------------------------------------------------------------------------------------------


class DenseLayer(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 128, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(128), nn.Conv2d(128, 32, 3, padding=1, bias=False)

    def forward(self, x):
        return torch.cat([x, self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))], 1)


class DenseNet(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        features, channels = nn.Sequential(), 64
        features.conv0, features.norm0 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        features.relu0, features.pool0 = nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        for i, depth in enumerate((6, 12, 24, 16), 1):
            block = nn.Sequential()
            for j in range(1, depth + 1):
                block.add_module(f"denselayer{j}", DenseLayer(channels))
                channels += 32
            features.add_module(f"denseblock{i}", block)
            if i < 4:
                norm, conv = nn.BatchNorm2d(channels), nn.Conv2d(channels, channels // 2, 1, bias=False)
                transition = {"norm": norm, "relu": nn.ReLU(), "conv": conv, "pool": nn.AvgPool2d(2, 2)}
                features.add_module(f"transition{i}", nn.Sequential())
                for name, module in transition.items():
                    features[-1].add_module(name, module)
                channels //= 2
        features.norm5 = nn.BatchNorm2d(channels)
        self.features, self.classifier = features, nn.Linear(channels, num_classes)

    def forward(self, x):
        return self.classifier(torch.flatten(F.adaptive_avg_pool2d(F.relu(self.features(x)), 1), 1))


# ----------------------------------------------------------------------------------------------------------------------

BUILD = SimpleNamespace(
    alexnet=alexnet,
    zfnet=zfnet,
    vgg11=vgg11,
    vgg13=lambda n: vgg("64 64 M 128 128 M 256 256 M 512 512 M 512 512 M", n),
    vgg16=lambda n: vgg("64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M", n),
    vgg19=lambda n: vgg("64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M", n),
    googlenet=GoogLeNet,
    resnet18=lambda n: ResNet(BasicBlock, (2, 2, 2, 2), n),
    resnet34=lambda n: ResNet(BasicBlock, (3, 4, 6, 3), n),
    resnet50=lambda n: ResNet(Bottleneck, (3, 4, 6, 3), n),
    mobilenet_v1=mobilenet_v1,
    mobilenet_v2=mobilenet_v2,
    squeezenet=SqueezeNet,
    densenet121=DenseNet,
)
