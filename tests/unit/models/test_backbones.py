import copy
import hashlib
import logging
import re
import threading
import urllib.error
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import efficientnet_pytorch
import huggingface_hub
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from builders import checkpoint_of, cnn_section
from efficientnet_pytorch.model import MBConvBlock
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from clotline.errors import ClotlineError
from clotline.models import backbones, imagenet
from clotline.models.activation import last_feature_map
from clotline.models.backbones import build_classifier, for_training, load_classifier
from clotline.models.checkpoint import Checkpoint
from clotline.models.extractor import as_extractor, fold_batch_norms, pad_inside
from clotline.models.imagenet import fetch_imagenet_weights, imagenet_url

RESNEXT = cnn_section(architecture="resnext50_32x4d")
EFFICIENTNET = cnn_section(library="efficientnet-pytorch", architecture="efficientnet-b0")
TIMM = [
    cnn_section(library="timm", architecture=name)
    for name in ("seresnext50_32x4d", "tf_efficientnetv2_s", "convnext_tiny")
]
RESNET = cnn_section(architecture="resnet18")
#: Its library and name there.
PUBLISHED = RESNET.library, RESNET.architecture


def imagenet_file(network, folder, monkeypatch, weights=None):
    """The network's weights, or these, in a file that passes for the library's download."""
    path = folder / "network.pth"
    torch.save(weights or network.state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    monkeypatch.setattr(
        backbones, "imagenet_url", lambda *_: f"https://example.org/net-{digest}.pth"
    )
    return path


def build_own(section):
    """The library's own network, as on ImageNet, its normalisation used to some images."""
    torch.manual_seed(0)
    if section.library == "torchvision":
        network = torchvision.models.get_model(section.architecture)
    elif section.library == "timm":
        network = timm.create_model(section.architecture)
    else:
        network = efficientnet_pytorch.EfficientNet.from_name(section.architecture)
    return used_to(torch.randn(4, 3, 64, 64), network)


def used_to(images, network):
    """The network, the statistics of its batch normalisation those of some images."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
                module.momentum = None  # the mean over all batches
        network.train()(images)
    return network.eval()


@pytest.mark.parametrize(
    ("section", "width", "last"),
    [(RESNEXT, 2048, "fc"), (EFFICIENTNET, 1280, "_fc")],
    ids=["resnext50", "efficientnet_b0"],
)
def test_a_slice_gives_the_features_of_a_grey_image_in_the_librarys_own_network(
    section, width, last, tmp_path, monkeypatch
):
    own = build_own(section)
    path = imagenet_file(own, tmp_path, monkeypatch)
    classifier = build_classifier(replace(section, init="imagenet"), path).eval()
    setattr(own, last, nn.Identity())
    slices = torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        features = classifier.features(slices)
        expected = own(slices.expand(-1, 3, -1, -1))
        logits = classifier(slices)
        by_head = classifier.head(features).squeeze(-1)
    assert classifier.width == width
    assert features.shape == (2, width)
    assert expected.std() > 0.01
    assert torch.allclose(features, expected, rtol=1e-3, atol=1e-3)
    assert logits.shape == (2,)
    assert torch.allclose(logits, by_head)


VIDEO = [
    cnn_section(library="torchvision-video", architecture=name, planes=planes)
    for name, planes in (("r3d_18", 3), ("r2plus1d_18", 5), ("mc3_18", 9), ("swin3d_t", 3))
]


@pytest.mark.parametrize("section", VIDEO, ids=lambda section: section.architecture)
def test_planes_give_the_features_of_a_grey_film_in_the_librarys_own_network(
    section, tmp_path, monkeypatch
):
    torch.manual_seed(0)
    own = torchvision.models.get_model(section.architecture)
    used_to(torch.randn(2, 3, section.planes, 64, 64), own)
    path = imagenet_file(own, tmp_path, monkeypatch)
    two = replace(section, init="imagenet", further_windows=[[40.0, 400.0]])
    classifier = for_training(two, path).eval()
    slices = torch.randn(2, section.planes, 64, 64)
    same = torch.cat([slices, slices], 1)  # what both windows show
    last = "head" if section.architecture.startswith("swin") else "fc"
    setattr(own, last, nn.Identity())
    with torch.inference_mode():
        film = slices[:, None].expand(-1, 3, -1, -1, -1)
        features, expected = classifier.features(same), own(film)
        other = classifier.features(torch.cat([slices, slices.flip(1)], 1))
    assert features.shape == (2, classifier.width)
    assert expected.std() > 0.01
    assert torch.allclose(features, expected, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(features, other, rtol=1e-2, atol=1e-2)


def test_a_video_network_made_ready_for_features_gives_the_same():
    torch.manual_seed(0)
    network = build_classifier(VIDEO[0])
    slices = torch.randn(2, 3, 64, 64)
    used_to(slices, network)
    with torch.no_grad():
        expected = network.features(slices)
        extractor = as_extractor(network, 64)
        assert batch_norms(extractor) == 0
        torch.testing.assert_close(extractor.features(slices), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.01


def test_a_video_network_starts_as_the_identity_where_it_is_asked_to_and_from_kinetics():
    section = replace(VIDEO[0], zero_init_residual=True, batch_norm_momentum=0.25)
    network = build_classifier(section)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm3d)]
    assert {m.momentum for m in norms} == {0.25}
    assert sum(not m.weight.any() for m in norms) == 8  # one a block
    block = network.eval().backbone.network.layer1[0]
    maps = torch.randn(2, 64, 3, 8, 8)
    with torch.inference_mode():
        torch.testing.assert_close(block(maps), maps.relu())
    # By the block's last normalisation, not its first.
    assert not block.conv2[-1].weight.any()
    assert block.conv1[1].weight.all()
    assert imagenet_url("torchvision-video", "r3d_18").endswith("r3d_18-b3b3357e.pth")


@pytest.mark.parametrize(("architecture", "width"), [("resnet18", 512), ("densenet121", 1024)])
def test_a_third_backbone_needs_a_configuration_entry_only(architecture, width):
    classifier = build_classifier(cnn_section(architecture=architecture)).eval()
    with torch.inference_mode():
        assert classifier.features(torch.zeros(2, 1, 64, 64)).shape == (2, width)
        assert classifier(torch.zeros(1, 1, 64, 64)).shape == (1,)


def test_random_weights_follow_from_torchs_seed():
    def weights(seed):
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in build_classifier(RESNET).parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize(
    ("section", "own"), [(RESNET, 0.1), (EFFICIENTNET, 0.01)], ids=["torchvision", "efficientnet"]
)
def test_the_momentum_of_batch_normalisation_is_the_librarys_own_unless_set(section, own):
    def momenta(value):
        modules = build_classifier(replace(section, batch_norm_momentum=value)).modules()
        return {round(m.momentum, 6) for m in modules if isinstance(m, nn.BatchNorm2d)}

    assert momenta(None) == {own}
    assert momenta(0.25) == {0.25}


@pytest.mark.parametrize("compiled", [True, False])
def test_a_network_for_training_is_compiled_where_the_entry_says_so(compiled):
    torch.manual_seed(0)
    model = for_training(replace(RESNET, compile=compiled))
    assert isinstance(model, torch._dynamo.OptimizedModule) == compiled
    torch.manual_seed(0)
    expected = build_classifier(RESNET).state_dict()
    prefix = "_orig_mod." if compiled else ""
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected[name.removeprefix(prefix)])
        if value.dim() == 4:
            assert value.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("library", "architecture", "other"),
    [
        ("torchvision", "resnext51", "resnext50_32x4d"),
        ("torchvision", "efficientnet-b0", "efficientnet_b0"),
        ("efficientnet-pytorch", "efficientnet_b0", "efficientnet-b0"),
        ("timm", "seresnext50", "seresnext50_32x4d"),
    ],
)
def test_an_unknown_architecture_is_named_beside_those_there(library, architecture, other):
    with pytest.raises(ClotlineError) as caught:
        build_classifier(cnn_section(library=library, architecture=architecture))
    assert f"{library} has no network {architecture}; there are " in str(caught.value)
    assert other in str(caught.value).split("there are ")[1].split(", ")


def test_imagenet_weights_of_another_checksum_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"something else")
    with pytest.raises(ClotlineError) as caught:
        build_classifier(replace(RESNET, init="imagenet"), path)
    message = str(caught.value)
    assert f"{path} is not the file that {imagenet_url(*PUBLISHED)} names" in message
    assert "does not begin with f37072fd" in message


def test_imagenet_weights_of_another_network_are_refused(tmp_path, monkeypatch):
    path = imagenet_file(nn.Linear(2, 1), tmp_path, monkeypatch)
    with pytest.raises(ClotlineError, match="does not fit this network"):
        build_classifier(replace(RESNET, init="imagenet"), path)


def test_the_weights_are_those_that_the_libraries_themselves_download():
    for section, name in ((RESNEXT, "resnext50_32x4d-7cdf4587"), (EFFICIENTNET, "-b0-355c32eb")):
        assert imagenet_url(section.library, section.architecture).endswith(f"{name}.pth")


def test_without_internet_the_message_says_which_file_to_put_where(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    path = tmp_path / "weights" / "resnet18.pth"
    with pytest.raises(ClotlineError) as caught:
        fetch_imagenet_weights(*PUBLISHED, path)
    message = str(caught.value)
    for part in (imagenet_url(*PUBLISHED), "begins with f37072fd", str(path), "init to random"):
        assert part in message
    assert list(path.parent.iterdir()) == []


def test_a_download_of_a_wrong_checksum_leaves_no_file(tmp_path, monkeypatch):
    source = tmp_path / "net-12345678.pth"
    source.write_bytes(b"a page that says: log in")
    monkeypatch.setattr(imagenet, "imagenet_url", lambda *_: source.as_uri())
    with pytest.raises(ClotlineError, match=r"could not be downloaded.*invalid hash value"):
        fetch_imagenet_weights(*PUBLISHED, tmp_path / "weights.pth")
    assert not (tmp_path / "weights.pth").exists()


def test_a_download_of_the_right_checksum_is_kept(tmp_path, monkeypatch):
    source = tmp_path / f"net-{hashlib.sha256(b'weights').hexdigest()[:8]}.pth"
    source.write_bytes(b"weights")
    monkeypatch.setattr(imagenet, "imagenet_url", lambda *_: source.as_uri())
    fetch_imagenet_weights(*PUBLISHED, tmp_path / "weights.pth")
    assert (tmp_path / "weights.pth").read_bytes() == b"weights"


def saved(path, section=RESNET):
    torch.manual_seed(5)
    model = build_classifier(section)
    checkpoint_of(section, model.state_dict()).save(path)
    return model.state_dict()


def test_training_can_start_from_a_checkpoint_and_goes_on_with_its_head(tmp_path):
    weights = saved(tmp_path / "a.pt")
    torch.manual_seed(6)
    model = build_classifier(replace(RESNET, init=str(tmp_path / "a.pt")))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


def test_a_trained_network_is_rebuilt_from_its_checkpoint_alone(tmp_path):
    path = tmp_path / "a.pt"
    section = replace(RESNET, init=str(tmp_path / "gone.pt"))
    weights = saved(path)
    checkpoint_of(section, weights).save(path)
    model = load_classifier(Checkpoint.load(path), path)
    assert torch.equal(model.state_dict()["head.weight"], weights["head.weight"])
    assert torch.equal(model.backbone.conv1.weight, weights["backbone.conv1.weight"])


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path):
    saved(tmp_path / "a.pt", cnn_section(architecture="resnet34"))
    with pytest.raises(ClotlineError, match="does not fit this network") as caught:
        build_classifier(replace(RESNET, init=str(tmp_path / "a.pt")))
    assert str(tmp_path / "a.pt") in str(caught.value)


def test_densenets_file_has_names_of_an_earlier_torch(tmp_path, monkeypatch):
    """As torchvision's own loader says of the files that it names."""
    section = cnn_section(architecture="densenet121")
    own = build_own(section)
    layer = re.compile(r"(denselayer\d+\.(?:norm|conv))(\d\.)")
    weights = {layer.sub(r"\1.\2", name): value for name, value in own.state_dict().items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in weights
    path = imagenet_file(own, tmp_path, monkeypatch, weights)
    classifier = build_classifier(replace(section, init="imagenet"), path).eval()
    own.classifier = nn.Identity()
    slices = torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        features, expected = classifier.features(slices), own(slices.expand(-1, 3, -1, -1))
    assert expected.std() > 0.01
    assert torch.allclose(features, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("architecture", ["vit_h_14", "regnet_y_128gf"])
def test_a_network_without_weights_of_its_first_release_starts_from_random_ones(architecture):
    with pytest.raises(ClotlineError, match=f"no weights of {architecture} that can be used: set"):
        imagenet_url("torchvision", architecture)


@pytest.mark.parametrize("architecture", ["repvgg_a0", "mobileone_s0"])
@pytest.mark.parametrize("channels", [1, 2])
def test_each_of_several_convolutions_of_the_image_takes_slices(architecture, channels):
    section = cnn_section(library="timm", architecture=architecture, planes=1)
    own = build_own(section)
    model = build_own(section)
    backbones.take_channels(model, channels)
    slices = torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        grey = own.forward_features(slices.expand(-1, 3, -1, -1))
        found = model.forward_features(slices.expand(-1, channels, -1, -1))
    # Sums of three channels in another order, through many layers.
    assert (found - grey).abs().max() < 0.02 * grey.std()


#: Small, and with what the others have: one of batch normalisation and one of none.
SMALL = [cnn_section(library="timm", architecture=name) for name in ("resnet10t", "convnext_atto")]
BY_NAME = {"ids": lambda section: section.architecture}


@pytest.mark.parametrize("section", SMALL, **BY_NAME)
@pytest.mark.parametrize("write", [torch.save, safetensors.torch.save_file])
def test_timms_weights_give_the_features_of_a_grey_image(section, write, tmp_path, monkeypatch):
    own = build_own(section)
    monkeypatch.setattr(backbones, "imagenet_url", lambda *_: "https://hub/model.safetensors")
    write(own.state_dict(), tmp_path / "network.pth")
    classifier = build_classifier(replace(section, init="imagenet"), tmp_path / "network.pth")
    slices = torch.randn(2, 1, 64, 64)
    with torch.inference_mode():
        features = classifier.eval().features(slices)
        expected = own.forward_head(
            own.forward_features(slices.expand(-1, 3, -1, -1)), pre_logits=True
        )
    assert features.shape == (2, classifier.width)
    assert expected.std() > 0.01
    assert torch.allclose(features, expected, rtol=1e-3, atol=1e-3)


def test_weights_of_another_of_timms_networks_are_refused(tmp_path, monkeypatch):
    """Without a classifier timm would load what fits, say nothing, and leave the rest random."""
    path = imagenet_file(timm.create_model("convnext_atto"), tmp_path, monkeypatch)
    with pytest.raises(ClotlineError, match=r"network\.pth does not fit this network"):
        build_classifier(replace(SMALL[0], init="imagenet"), path)


def test_a_damaged_file_of_timms_weights_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(backbones, "imagenet_url", lambda *_: "https://hub/model.safetensors")
    path = tmp_path / "network.pth"
    safetensors.torch.save_file(timm.create_model("resnet10t").state_dict(), path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ClotlineError, match=r"network\.pth"):
        build_classifier(replace(SMALL[0], init="imagenet"), path)


def test_weights_without_a_checksum_are_named_with_theirs_and_can_be_held_to_it(
    tmp_path, monkeypatch, caplog
):
    caplog.set_level(logging.INFO, "clotline")
    path = imagenet_file(timm.create_model("resnet10t"), tmp_path, monkeypatch)
    monkeypatch.setattr(backbones, "imagenet_url", lambda *_: "https://hub/model.safetensors")
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    section = replace(SMALL[0], init="imagenet")
    build_classifier(section, path)
    assert f"{path} has SHA-256 {checksum}" in caplog.text
    build_classifier(replace(section, weights_sha256=checksum[:12]), path)
    with pytest.raises(ClotlineError, match="does not begin with 12345678"):
        build_classifier(replace(section, weights_sha256="12345678"), path)


@pytest.mark.parametrize(
    ("architecture", "end"),
    [
        ("seresnext50_32x4d", "seresnext50_32x4d_racm-a304a460.pth"),
        ("tf_efficientnetv2_s", "tf_efficientnetv2_s_21ft1k-d7dafa41.pth"),
        ("convnext_tiny", "timm/convnext_tiny.in12k_ft_in1k/resolve/main/model.safetensors"),
    ],
)
def test_timms_weights_are_its_default_ones_with_a_checksum_where_there_is_one(architecture, end):
    assert imagenet_url("timm", architecture).endswith(f"/{end}")


def test_a_network_that_timm_has_no_weights_of_starts_from_random_ones():
    with pytest.raises(ClotlineError, match="timm has no weights of resnet33ts_x that can be used"):
        imagenet_url("timm", "resnet33ts_x")
    assert timm.get_pretrained_cfg("seresnet18").hf_hub_id is None
    with pytest.raises(ClotlineError, match="set the backbone's init to random"):
        imagenet_url("timm", "seresnet18")


@pytest.fixture
def hub(monkeypatch):
    """A hub on this machine: what it has, and the SHA-256 that it says of it."""
    content, said = b"weights", hashlib.sha256(b"weights").hexdigest()

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200 if self.server.said else 404)
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("X-Linked-Etag", f'"{self.server.said}"')
            self.send_header("ETag", '"of-a-pointer"')
            self.send_header("X-Linked-Size", str(len(content)))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()

        def do_GET(self):
            self.do_HEAD()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.said = said
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    url = f"{address}/timm/network/resolve/main/model.safetensors"
    monkeypatch.setattr(imagenet, "imagenet_url", lambda *_: url)
    yield server
    server.shutdown()
    server.server_close()


def test_a_download_from_the_hub_is_checked_against_the_hubs_own_checksum(hub, tmp_path):
    path = tmp_path / "network.pth"
    fetch_imagenet_weights("timm", "convnext_tiny", path)
    assert path.read_bytes() == b"weights"
    path.unlink()
    hub.said = "0" * 64
    with pytest.raises(ClotlineError, match="invalid hash value"):
        fetch_imagenet_weights("timm", "convnext_tiny", path)
    with pytest.raises(ClotlineError, match="its SHA-256 begins with 12345678"):
        fetch_imagenet_weights("timm", "convnext_tiny", path, "12345678")
    assert not path.exists()


def test_what_the_hub_does_not_have_is_said_with_which_file_to_put_where(hub, tmp_path):
    hub.said = ""
    with pytest.raises(ClotlineError) as caught:
        fetch_imagenet_weights("timm", "convnext_tiny", tmp_path / "network.pth")
    for part in ("/timm/network/resolve/main/model", "404", "weights_sha256", str(tmp_path)):
        assert part in str(caught.value)


@pytest.mark.parametrize("section", TIMM, **BY_NAME)
def test_timms_networks_give_logits_features_and_maps(section):
    network = build_classifier(section).eval()
    # In a network as deep as these, those of `settle` let values grow beyond float32's digits.
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    slices = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        expected = network.features(slices)
        assert network(slices).shape == (2,)
        found = last_feature_map(network, slices)
        extractor = as_extractor(network, 64)
        torch.testing.assert_close(extractor.features(slices), expected, rtol=1e-4, atol=1e-4)
    assert expected.shape == (2, network.width)
    assert expected.std() > 0.01
    assert found.shape == (2, 2)
    assert batch_norms(extractor) == 0


def test_a_network_that_cannot_be_traced_is_not_folded():
    class Depends(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)

        def forward(self, x):
            return self.norm(self.one(x)) if x.sum() > 0 else x

    network = settle(Depends())
    fold_batch_norms(network)
    assert batch_norms(network) == 1


def test_timms_residual_blocks_start_as_the_identity():
    model = build_classifier(replace(TIMM[0], zero_init_residual=True))
    blocks = [m for m in model.modules() if hasattr(m, "zero_init_last")]
    assert len(blocks) == 16
    assert all((block.bn3.weight == 0).all() for block in blocks)


def test_a_network_without_a_linear_layer_is_refused():
    section = cnn_section(init="random", architecture="squeezenet1_0")
    with pytest.raises(ClotlineError, match="SqueezeNet has no Linear layer"):
        build_classifier(section)


def settle(network):
    """Statistics and weights of batch normalisations as a training leaves them: no two alike."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return network.eval()


def batch_norms(network):
    norms = nn.BatchNorm2d | nn.BatchNorm3d
    return sum(isinstance(module, norms) for module in network.modules())


@pytest.mark.parametrize(
    ("library", "architecture", "left"),
    [
        ("torchvision", "resnext50_32x4d", 0),
        ("efficientnet-pytorch", "efficientnet-b0", 0),
        # Most of its batch normalisations read what was joined, which no convolution gives.
        ("torchvision", "densenet121", 62),
    ],
)
def test_folded_batch_normalisations_change_nothing_but_rounding(library, architecture, left):
    network = settle(build_classifier(cnn_section(library=library, architecture=architecture)))
    slices = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        expected = network.features(slices)
        assert expected.std() > 0.01
        fold_batch_norms(network)
        assert batch_norms(network) == left
        torch.testing.assert_close(network.features(slices), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", [224, 96, 91])
def test_convolutions_that_pad_inside_compute_the_same(side):
    network = settle(build_classifier(EFFICIENTNET))
    slices = torch.randn(2, 1, side, side)
    with torch.no_grad():
        expected = network.backbone.extract_features(slices)
        pad_inside(network)
        found = network.backbone.extract_features(slices)
    assert not any(isinstance(module, nn.ZeroPad2d) for module in network.modules())
    assert found.shape == expected.shape
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def convolutions(network, slices):
    """The name and the kind of what each convolution gives."""
    kinds = {}

    def note(name):
        return lambda module, inputs, output: kinds.update({name: output.dtype})

    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note(name.removesuffix(".layer")))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        network.features(slices)
    return kinds


def test_in_mixed_precision_the_first_layers_of_depthwise_networks_stay_in_float32():
    network = as_extractor(build_classifier(EFFICIENTNET), 64)
    kinds = convolutions(network, torch.randn(1, 1, 64, 64))
    exact = {name for name, kind in kinds.items() if kind == torch.float32}
    last = "backbone._blocks.3._expand_conv"  # the next one's output is an eighth of the input
    assert exact == {*list(kinds)[: list(kinds).index(last) + 1]}
    resnext = as_extractor(build_classifier(RESNEXT), 64)
    assert set(convolutions(resnext, torch.randn(1, 1, 64, 64)).values()) == {torch.bfloat16}


def test_an_extractor_gives_the_networks_features_in_evaluation_mode():
    network = settle(build_classifier(EFFICIENTNET)).train()
    slices = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        expected = copy.deepcopy(network).eval().features(slices)
        found = as_extractor(network, 64).features(slices)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


class Forked(nn.Module):
    """A convolution whose output others read too, and a batch normalisation used twice."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(1, 1, 1) for _ in range(3))
        self.norm, self.twice = nn.BatchNorm2d(1), nn.BatchNorm2d(1)

    def forward(self, x):
        one = self.one(x)
        return one + self.norm(one) + self.twice(self.two(x)) + self.twice(self.three(x))


def test_batch_normalisations_stay_where_others_read_the_convolution_or_share_them():
    network, slices = settle(Forked()), torch.randn(2, 1, 4, 4)
    expected = network(slices)
    fold_batch_norms(network)
    assert batch_norms(network) == 2
    assert torch.equal(network(slices), expected)


@pytest.mark.parametrize(
    ("architecture", "blocks"),
    [
        ("mobilenet_v2", 10), ("mobilenet_v3_small", 6), ("mnasnet0_5", 10),
        ("efficientnet_b0", 9), ("regnet_x_400mf", 22),
    ],
)  # fmt: skip
def test_those_of_torchvisions_other_networks_too(architecture, blocks):
    torch.manual_seed(0)
    section = cnn_section(architecture=architecture, zero_init_residual=True)
    model = build_classifier(section).eval()
    zeroed = 0
    for block in model.modules():
        name = type(block).__name__
        if name == "ResBottleneckBlock":
            width, alone = block.f.a[0].in_channels, block.proj is None
        elif name in ("MBConv", "InvertedResidual", "_InvertedResidual"):
            layer = next(m for m in block.modules() if isinstance(m, nn.Conv2d))
            width = layer.in_channels
            alone = getattr(block, "use_res_connect", getattr(block, "apply_residual", False))
        else:
            continue
        norms = [m for m in block.modules() if isinstance(m, nn.BatchNorm2d)]
        assert all(norm.weight.any() for norm in norms[:-1])
        zeroed += not norms[-1].weight.any()
        if alone:
            maps = torch.rand(2, width, 8, 8)
            with torch.inference_mode():
                torch.testing.assert_close(block(maps), maps)
    assert zeroed == blocks


@pytest.mark.parametrize("architecture", ["vgg11_bn", "swin_t"])
def test_a_network_whose_blocks_cannot_start_so_is_refused(architecture):
    section = cnn_section(architecture=architecture, zero_init_residual=True)
    with pytest.raises(ClotlineError, match="set the backbone's zero_init_residual to false"):
        build_classifier(section)


@pytest.mark.parametrize("section", [RESNEXT, EFFICIENTNET, RESNET], ids=lambda s: s.architecture)
def test_residual_blocks_can_start_as_the_identity(section):
    torch.manual_seed(0)
    model = build_classifier(replace(section, zero_init_residual=True))
    blocks = [
        block
        for block in model.modules()
        if isinstance(block, Bottleneck | BasicBlock | MBConvBlock)
    ]
    compared = 0
    for block in blocks:
        if isinstance(block, MBConvBlock):
            channels = block._block_args.input_filters
        else:
            channels = block.conv1.in_channels
            block = nn.Sequential(block, nn.Identity()) if block.downsample is None else None
        # After a ReLU, so that those of ResNet's blocks change nothing.
        inputs = torch.rand(2, channels, 8, 8)
        outputs = block(inputs) if block is not None else inputs
        if block is not None and outputs.shape == inputs.shape:
            compared += torch.equal(outputs, inputs)
    assert compared >= 4


@pytest.mark.parametrize(
    "section",
    [
        EFFICIENTNET,
        cnn_section(architecture="efficientnet_b0"),
        cnn_section(architecture="mobilenet_v3_small"),
    ],
    ids=lambda s: f"{s.library} {s.architecture}",
)
def test_dropout_can_be_switched_off(section):
    slices = torch.randn(4, 1, 64, 64)
    for dropout in (True, False):
        torch.manual_seed(0)
        model = build_classifier(replace(section, dropout=dropout)).train()
        with torch.no_grad():
            outputs = [model(slices) for _ in range(2)]
        assert torch.equal(*outputs) != dropout


def test_a_checkpoint_from_before_these_keys_is_read(tmp_path):
    config = {k: v for k, v in vars(RESNET).items() if k not in ("zero_init_residual", "dropout")}
    torch.manual_seed(0)
    weights = build_classifier(RESNET).state_dict()
    model = load_classifier(replace(checkpoint_of(RESNET, weights), config=config), "old.pt")
    assert all(torch.equal(model.state_dict()[k], v) for k, v in weights.items())
