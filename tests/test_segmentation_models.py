"""The report's networks have its weights, and every variant gives logits of the image's size."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dl4ia.models.layers import Upsampling, weight_count
from dl4ia.models.segmentation import ARCHITECTURES, ModelSettings, SegmentationModel, UNet

FCN = ModelSettings("fcn", 8, 3, "none", 0.0, "report")
ENCODER_DECODER = replace(FCN, architecture="encoder_decoder", base_width=32)
UNET = replace(ENCODER_DECODER, architecture="unet", normalization="batch")
RESNET = replace(UNET, architecture="resnet")
SMALL = ModelSettings("unet", 8, 2, "none", 0.0, "he")


def make(settings: ModelSettings, seed: int = 0, **statistics: Any) -> SegmentationModel:
    torch.manual_seed(seed)
    known: dict[str, Any] = {"mean": [0.3, 0.4], "standard_deviation": [0.2, 0.1]}
    return SegmentationModel(settings, **known | statistics)


def make_images(count: int, height: int, width: int) -> Tensor:
    return torch.rand(count, 2, height, width, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits_of(model: SegmentationModel, images: Tensor) -> Tensor:
    logits: Tensor = model.eval()(images)
    return logits


@pytest.mark.parametrize(
    ("settings", "weights"),
    [
        (FCN, 27_586),
        (replace(FCN, normalization="batch"), 27_698),
        (ENCODER_DECODER, 305_134),
        (replace(ENCODER_DECODER, normalization="batch"), 305_774),
        (UNET, 349_858),
        (replace(UNET, normalization="none"), 349_218),
        (RESNET, 784_930),
        (replace(RESNET, residual=False), 784_930),
    ],
)
def test_weights_of_the_reports_models(settings: ModelSettings, weights: int) -> None:
    assert weight_count(make(settings)) == weights


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("depth", [2, 3, 4, 5])
@pytest.mark.parametrize("size", [(37, 50), (16, 16), (33, 64)])
def test_logits_have_the_images_size(architecture: str, depth: int, size: tuple[int, int]) -> None:
    model = make(replace(SMALL, architecture=architecture, depth=depth))
    logits = logits_of(model, make_images(2, *size))
    assert logits.shape == (2, 2, *size)
    assert logits.isfinite().all()


@pytest.mark.parametrize("architecture", ["encoder_decoder", "unet"])
def test_more_convolutions_are_more_weights(architecture: str) -> None:
    one = make(replace(SMALL, architecture=architecture))
    two = make(replace(SMALL, architecture=architecture, convolutions=2))
    # 3x3 convolutions of both encoder levels and the decoder's one, with their biases.
    extra = 2 * (8 * 8 * 9 + 8) + 16 * 16 * 9 + 16
    assert weight_count(two) - weight_count(one) == extra
    assert logits_of(two, make_images(1, 20, 20)).shape == (1, 2, 20, 20)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("normalization", "kind"), [("batch", nn.BatchNorm2d), ("group", nn.GroupNorm)]
)
def test_normalization_is_in_every_network(
    architecture: str, normalization: str, kind: type[nn.Module]
) -> None:
    settings = replace(SMALL, architecture=architecture, normalization=normalization)
    model = make(settings)
    assert sum(isinstance(module, kind) for module in model.modules()) >= settings.depth
    logits = model.train()(make_images(2, 16, 16))
    logits.sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_dropout_acts_in_training_only(architecture: str) -> None:
    model = make(replace(SMALL, architecture=architecture, dropout=0.5))
    images = make_images(2, 16, 16)
    assert torch.equal(logits_of(model, images), logits_of(model, images))
    model.train()
    assert not torch.equal(model(images), model(images))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_reports_initialization(architecture: str) -> None:
    model = make(replace(SMALL, architecture=architecture, initialization="report"))
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    weights = torch.cat([layer.weight.flatten() for layer in layers])
    assert weights.std().item() == pytest.approx(0.1, rel=0.05)
    assert weights.mean().item() == pytest.approx(0, abs=0.01)
    for layer in layers:
        assert layer.bias is not None
        assert (layer.bias == 0.1).all()


def test_he_initialization_keeps_variances_and_has_no_biases() -> None:
    model = make(replace(SMALL, base_width=32))
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
            fan_in = layer.in_channels * 9
            assert layer.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)
            assert layer.bias is not None
            assert not layer.bias.any()


def test_networks_come_from_the_global_random_stream() -> None:
    images = make_images(1, 16, 16)
    assert torch.equal(logits_of(make(SMALL), images), logits_of(make(SMALL), images))
    assert not torch.equal(logits_of(make(SMALL), images), logits_of(make(SMALL, seed=1), images))


def test_residual_connections_change_the_output() -> None:
    settings = replace(SMALL, architecture="resnet")
    images = make_images(1, 16, 16)
    plain, residual = make(replace(settings, residual=False)), make(settings)
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, residual.state_dict()[name])
    assert not torch.allclose(logits_of(plain, images), logits_of(residual, images))


def test_channels_are_normalised_by_the_buffers() -> None:
    mean, deviation = torch.tensor([0.2, 0.7]), torch.tensor([0.1, 0.5])
    model = make(SMALL, mean=mean.tolist(), standard_deviation=deviation.tolist())
    neutral = make(SMALL, mean=[0.0, 0.0], standard_deviation=[1.0, 1.0])
    images = make_images(2, 16, 16)
    normalised = (images - mean[:, None, None]) / deviation[:, None, None]
    torch.testing.assert_close(logits_of(model, images), logits_of(neutral, normalised))
    assert {"standardization.mean", "standardization.standard_deviation"} <= set(model.state_dict())


def silence(module: nn.Module) -> None:
    for weight in module.parameters():
        nn.init.zeros_(weight)


def test_the_unets_concatenations_carry_features() -> None:
    """With the way up from the depths silenced, only concatenated features reach the logits."""
    model = make(SMALL)
    silence(model.network.ups)  # type: ignore[arg-type]
    first, second = logits_of(model, make_images(2, 16, 16))
    assert not torch.allclose(first, second)


def test_the_other_networks_have_no_way_around_the_depths() -> None:
    for architecture in ("encoder_decoder", "resnet"):
        model = make(replace(SMALL, architecture=architecture))
        for module in model.modules():
            if isinstance(module, nn.ConvTranspose2d):
                silence(module)
        first, second = logits_of(model, make_images(2, 16, 16))
        torch.testing.assert_close(first, second)


def test_upsampling_is_a_transposed_convolution() -> None:
    """Values and all gradients are those of torch's own layer."""
    ours = Upsampling(3, 5)
    torchs = nn.ConvTranspose2d(3, 5, 4, stride=2, padding=1)
    torchs.load_state_dict(ours.state_dict())
    features, weighting = torch.randn(2, 3, 6, 4), torch.randn(2, 5, 12, 8)
    found = []
    for layer in (ours, torchs):
        layer.zero_grad()
        inputs = features.clone().requires_grad_()
        output = layer(inputs)
        (output * weighting).sum().backward()
        found.append([output, inputs.grad, layer.weight.grad, layer.bias.grad])
    for of_ours, of_torchs in zip(*found, strict=True):
        torch.testing.assert_close(of_ours, of_torchs)


def test_gradients_are_dense_where_the_unet_concatenates() -> None:
    """Else batch normalisation takes its slow way back on a CPU."""
    settings = ModelSettings("unet", 4, depth=2, normalization="batch")
    network = UNet(2, 2, settings).to(memory_format=torch.channels_last)
    seen: list[bool] = []
    normalization = network.ups[0][1]
    normalization.register_full_backward_pre_hook(
        lambda _, gradients: seen.append(
            gradients[0].is_contiguous(memory_format=torch.channels_last)
        )
    )
    images = torch.randn(2, 2, 8, 8).contiguous(memory_format=torch.channels_last)
    network(images).sum().backward()
    assert seen == [True]


@pytest.mark.parametrize("name", ["architecture", "normalization", "initialization"])
def test_an_unknown_choice_is_refused(name: str) -> None:
    """It would train as if it were another."""
    with pytest.raises((ValueError, KeyError), match="'mystery'"):
        make(replace(SMALL, **{name: "mystery"}))
