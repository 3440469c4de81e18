"""Training pairs from single photos: two warped, photometrically changed views and the truth between them."""

import torch
from kornia.geometry.linalg import transform_points
from torch import Generator, Tensor

from tiepoint.ops.photometric import photometric_change
from tiepoint.ops.sampling import warp_image
from tiepoint.ops.warps import correspondence, dense, displaced, parallax_fields, random_homographies

# largest displacement by parallax, as a share of the photo's width: 18 px of 480. The relief has four nodes a side,
# so that its slope stays well below 1 and the warp can be inverted.
PARALLAX = 0.0375


def photo_pairs(
    photos: Tensor,
    size: tuple[int, int],
    *,
    jitter: float = 0.14,
    rotation: float = 12.0,
    zoom: float = 1.3,
    shift: float = 0.12,
    parallax: float = 0.5,
    photometric: float = 1.0,
    difficulty: float = 1.0,
    generator: Generator | None = None,
) -> dict[str, Tensor]:
    """Two views of every photo, and where each pixel of one lies in the other.

    Args:
        photos: (B, 3, H, W) in [0, 1], RGB.
        size: (height, width) of the views.
        jitter: largest move of a view's corner, as a share of its sides.
        rotation: standard deviation of each view's rotation, degrees.
        zoom: largest scale factor of each view.
        shift: largest shift of each view, as a share of its sides.
        parallax: share of the pairs that are not planar: a smooth relief seen under a sideways motion.
        photometric: strength of the photometric change.
        difficulty: scales all of the above but the share of parallax pairs, of which it scales the displacement;
            a curriculum raises it from low to 1.
        generator: the source of randomness; the default one of the device if None.

    Returns:
        image0, image1: (B, 1, h, w) in [0, 1];
        warp_0to1, warp_1to0: (B, h, w, 2), pixels; covisible0, covisible1: (B, h, w) bool;
        H_0to1: (B, 3, 3), exact where the pair is planar; planar: (B,) bool.
    """
    batch, photo_size = len(photos), (photos.shape[-2], photos.shape[-1])
    backward = random_homographies(
        2 * batch,
        size,
        photo_size,
        jitter=jitter * difficulty,
        rotation=torch.pi / 180 * rotation * difficulty,
        zoom=zoom**difficulty,
        shift=shift * difficulty,
        like=photos,
        generator=generator,
    )
    view0, view1 = backward.chunk(2)
    field = parallax_fields(
        batch,
        photo_size,
        largest=PARALLAX * photo_size[1] * difficulty,
        share=parallax,
        like=photos,
        generator=generator,
    )
    truth = correspondence(view0, view1, field, size)
    source0 = dense(lambda points: transform_points(view0, points), size, like=photos)
    source1 = dense(lambda points: displaced(transform_points(view1, points), field), size, like=photos)
    views = warp_image(photos.repeat(2, 1, 1, 1), torch.cat((source0, source1)))
    changed = photometric_change(views, photometric * difficulty, generator=generator)
    image0, image1 = changed.chunk(2)
    H_0to1 = torch.linalg.inv(view1) @ view0
    return {
        "image0": image0,
        "image1": image1,
        **truth._asdict(),
        "H_0to1": H_0to1 / H_0to1[:, 2:, 2:],
        "planar": field.abs().amax((1, 2, 3)) == 0,
    }
