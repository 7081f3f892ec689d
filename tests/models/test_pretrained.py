"""Transfer learning, with weights of random numbers in torchvision's own naming, and without a network."""

import math
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from fer_ray.config.schema import ModelConfig
from fer_ray.errors import DataError, UsageError
from fer_ray.models import build, find, initialize

FAMILIES = ["convnext_tiny", "efficientnet_b0", "inception", "resnet34", "vgg16"]  # one of each that torchvision has
MEAN, STD = 0.508, 0.255


def torchvision_network(name: str) -> torch.nn.Module:
    """Make torchvision's network for the 1,000 classes of ImageNet."""
    torch.manual_seed(1)
    arguments = {"init_weights": False} if name == "inception" else {}  # its own values take seconds
    network: torch.nn.Module = torchvision.models.get_model(find(name).torchvision, **arguments)
    return network.eval()


def torchvision_weights(name: str) -> dict[str, torch.Tensor]:
    """Draw weights of torchvision's names and shapes; large ones repeat one number, for VGG's would fill half a GB."""
    with torch.device("meta"):
        network = torchvision_network(name)
    return {
        key: torch.rand(tensor.shape if tensor.numel() < 3e6 else 1).expand(tensor.shape).to(tensor.dtype)
        for key, tensor in network.state_dict().items()
    }


def problem_of(config: ModelConfig, error: type[UsageError | DataError]) -> str:
    with pytest.raises(error) as caught:
        initialize(build(config, 48), config, MEAN, STD)
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_of_torchvision_load_but_for_the_classifier(name: str, tmp_path: Path) -> None:
    theirs = torchvision_weights(name)
    torch.save(theirs, tmp_path / "weights.pth")
    config = ModelConfig(name=name, pretrained=str(tmp_path / "weights.pth"))
    model = build(config, 48)
    fresh = initialize(model, config, MEAN, STD)
    own = {name.removeprefix("body."): tensor for name, tensor in model.state_dict().items()}
    assert len(fresh) == 2
    for key in own.keys() - set(fresh) - {"front.0.scale", "front.0.shift"}:
        assert torch.equal(own[key], theirs[key]), key


@pytest.mark.parametrize("name", ["resnet18", "inception"])
def test_it_computes_what_torchvision_does(name: str, tmp_path: Path) -> None:
    """The classifier loads too where the classes are as many; grey pixels reach it as torchvision's own would."""
    network = torchvision_network(name)
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    config = ModelConfig(name=name, pretrained=str(tmp_path / "weights.safetensors"), input_size=64)
    model = build(config, 48, num_classes=1000)
    assert initialize(model, config, MEAN, STD) == []
    pixels = torch.rand(2, 1, 48, 48)
    enlarged = torch.nn.functional.interpolate(pixels, (64, 64), mode="bilinear", align_corners=False)
    rgb = torchvision.transforms.functional.normalize(
        enlarged.expand(-1, 3, -1, -1), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    if name == "inception":
        network.transform_input = True  # as torchvision itself sets it along with the weights
    with torch.inference_mode():
        torch.testing.assert_close(model.eval()((pixels - MEAN) / STD), network(rgb), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["fast", "resnet18"])
def test_a_checkpoint_folder_goes_on_with_its_classifier(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    previous = build(ModelConfig(name=name), 48)
    (tmp_path / "run" / "checkpoint").mkdir(parents=True)
    save_file(previous.state_dict(), tmp_path / "run" / "checkpoint" / "model.safetensors")
    stem = "small" if name == "resnet18" else "auto"
    config = ModelConfig(name=name, pretrained=str(tmp_path / "run" / "checkpoint"), stem=stem)
    model = build(config, 48)
    assert initialize(model, config, MEAN, STD) == []
    assert all(torch.equal(model.state_dict()[key], tensor) for key, tensor in previous.state_dict().items())
    fewer = build(config, 48, num_classes=3)
    assert len(initialize(fewer, config, MEAN, STD)) == 2
    beside = config.model_copy(update={"pretrained": str(tmp_path / "run")})
    assert f"Did you mean {tmp_path / 'run' / 'checkpoint'}?" in problem_of(beside, UsageError)


def test_a_checkpoint_with_a_front_loads_under_another(tmp_path: Path) -> None:
    config = ModelConfig(name="resnet18", stem="imagenet")
    previous = build(config, 48)
    initialize(previous, config, 0.1, 0.1)
    save_file(previous.state_dict(), tmp_path / "model.safetensors")
    config = ModelConfig(name="resnet18", pretrained=str(tmp_path), input_size=64)
    model = build(config, 48)
    assert initialize(model, config, MEAN, STD) == []
    assert torch.equal(model.state_dict()["body.conv1.weight"], previous.state_dict()["body.conv1.weight"])
    assert not torch.equal(model.state_dict()["front.1.shift"], previous.state_dict()["front.0.shift"])


def test_imagenet_weights_come_from_torch_hubs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(url: str, file: str, *args: object, **kwargs: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    file = tmp_path / "checkpoints" / Path(torchvision.models.get_model_weights("resnet18").DEFAULT.url).name
    config = ModelConfig(name="resnet18", pretrained="imagenet")
    problem = problem_of(config, UsageError)
    assert "no route to host" in problem and f"Put {file.name} into {file.parent}" in problem
    theirs = torchvision_weights("resnet18")
    torch.save(theirs, file)
    model = build(config, 48)
    assert initialize(model, config, MEAN, STD) == ["fc.weight", "fc.bias"]
    assert torch.equal(model.state_dict()["body.layer4.1.conv2.weight"], theirs["layer4.1.conv2.weight"])
    file.write_bytes(b"half of it")
    assert file.name in problem_of(config, UsageError)


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    theirs = torchvision_weights("resnet18")
    torch.save(theirs, tmp_path / "right.pth")
    small = ModelConfig(name="resnet18", pretrained=str(tmp_path / "right.pth"), stem="small")
    assert "conv1.weight (64×3×7×7 instead of 64×1×3×3). Only the first layers differ" in problem_of(small, DataError)
    theirs["layer1.0.conv1.weight"] = torch.zeros(64, 64, 5, 5)
    theirs["layer9.conv.weight"] = theirs.pop("layer2.0.conv1.weight")
    torch.save(theirs, tmp_path / "odd.pth")
    problem = problem_of(ModelConfig(name="resnet18", pretrained=str(tmp_path / "odd.pth")), DataError)
    assert "layer1.0.conv1.weight (64×64×5×5 instead of 64×64×3×3), layer2.0.conv1.weight (missing)" in problem
    assert "layer9.conv.weight (not part of the network)" in problem


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.file,)


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    weights = build(ModelConfig(name="lenet"), 48).state_dict()
    first = next(iter(weights))
    contents = {
        "wrapped": ({"net": {"a": torch.zeros(1)}, "epoch": 3}, "holds net, epoch, not tensors by name"),
        "trap": ({first: Trap(tmp_path / "sprung")}, "not readable"),
        "diverged": (weights | {first: weights[first] * math.nan}, f"{first} hold values that are not finite"),
    }
    for name, (content, message) in contents.items():
        torch.save(content, tmp_path / f"{name}.pth")
        assert message in problem_of(ModelConfig(name="lenet", pretrained=str(tmp_path / f"{name}.pth")), DataError)
    assert not (tmp_path / "sprung").exists()
    for name in ("noise.pth", "noise.safetensors"):
        (tmp_path / name).write_bytes(b"\x07" * 100)
        config = ModelConfig(name="resnet18", pretrained=str(tmp_path / name))
        assert "not readable as weights" in problem_of(config, DataError)
    absent = ModelConfig(name="resnet18", pretrained=str(tmp_path / "absent.pth"))
    assert "no such file" in problem_of(absent, UsageError)
    assert "'fast' has no ImageNet weights" in problem_of(ModelConfig(name="fast", pretrained="imagenet"), UsageError)
