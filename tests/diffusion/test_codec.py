"""Pictures to what is denoised and back: of pixels exactly, of latents in shape and scale."""

import torch
from helpers import small_autoencoder, small_upscaler
from torch.testing import assert_close

from diffusion.codec import LatentCodec, PixelCodec, UpscalingCodec, to_float, to_uint8


def latent_codec() -> LatentCodec:
    return LatentCodec(small_autoencoder(), 4, sigma_data=0.5)


def pictures(count: int = 2, size: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)


def test_pixels_come_back_exactly():
    codec, every = PixelCodec(16), torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    every = every.expand(1, 3, 16, 16)
    x0 = codec.encode(every)
    assert (x0.min(), x0.max(), x0.dtype) == (-1, 1, torch.float32)
    assert codec.exact
    assert torch.equal(codec.decode(x0), every)
    assert torch.equal(codec.preview(x0), every)
    assert (codec.picture_size, codec.shape) == (16, (3, 16, 16))
    keep = torch.rand(1, 1, 16, 16) > 0.5
    assert torch.equal(codec.keep_mask(keep), keep)


def test_what_is_out_of_range_is_clipped_and_rounded_to_nearest():
    values = torch.tensor([-9.0, -1.0, -1 + 0.49 / 127.5, -1 + 0.51 / 127.5, 1.0, 9.0])
    assert to_uint8(values).tolist() == [0, 0, 0, 1, 255, 255]


def test_latents_have_the_scale_of_the_data_and_pictures_their_size():
    codec, shown = latent_codec(), pictures()
    assert (codec.picture_size, codec.shape, codec.exact) == (16, (4, 4, 4), False)
    x0 = codec.encode(shown)
    assert (x0.shape, x0.dtype) == ((2, 4, 4, 4), torch.float32)
    assert_close(x0, 0.5 * codec.network.encode(to_float(shown)))
    decoded = codec.decode(x0)
    assert (decoded.shape, decoded.dtype) == ((2, 3, 16, 16), torch.uint8)
    assert torch.equal(decoded, to_uint8(codec.network.decode(2 * x0)))


def test_a_preview_has_the_size_of_the_picture_and_its_colours():
    codec = latent_codec()
    x0 = torch.ones(2, 4, 4, 4) * torch.tensor([0.1, -0.2, 0.05, 0.1]).view(4, 1, 1)
    preview = codec.preview(x0)
    assert (preview.shape, preview.dtype) == ((2, 3, 16, 16), torch.uint8)
    colours = to_uint8(codec.network.preview(x0 / 0.5))[:, :, :1, :1]
    assert torch.equal(preview, colours.expand(2, 3, 16, 16))


def test_other_multiples_of_the_smallest_size_work_too():
    codec = latent_codec()
    x0 = codec.encode(pictures(1, 24))
    assert x0.shape == (1, 4, 6, 6)
    assert codec.decode(x0).shape == (1, 3, 24, 24)


def test_small_pictures_are_means_and_are_enlarged():
    codec, shown = UpscalingCodec(small_upscaler(), 8), pictures()
    assert (codec.picture_size, codec.shape, codec.exact) == (16, (3, 8, 8), False)
    x0 = codec.encode(shown)
    assert_close(x0[1, 2, 3, 5], to_float(shown[1, 2, 6:8, 10:12]).mean())
    decoded = codec.decode(x0)
    assert (decoded.shape, decoded.dtype) == ((2, 3, 16, 16), torch.uint8)
    assert torch.equal(decoded, to_uint8(codec.network(x0)))
    assert torch.equal(codec.decode(x0 + 9), codec.decode(torch.ones_like(x0)))
    grey = torch.full_like(x0, 0.25)
    assert torch.equal(codec.preview(grey), to_uint8(grey[:, :, :1, :1]).expand(2, 3, 16, 16))
    keep = torch.ones(1, 1, 16, 16, dtype=torch.bool)
    keep[..., 5, 7] = False
    assert (~codec.keep_mask(keep)).nonzero().tolist() == [[0, 0, 2, 3]]


def test_latents_are_kept_where_all_their_pixels_are():
    codec = latent_codec()
    keep = torch.ones(1, 1, 16, 16, dtype=torch.bool)
    keep[..., 5, 6] = False  # one pixel of the latent in row 1, column 1
    keep[..., 8:, :] = False
    expected = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]).bool()
    assert torch.equal(codec.keep_mask(keep)[0, 0], expected)


def test_no_gradient_is_kept_of_what_a_codec_does():
    codec = latent_codec()
    codec.requires_grad_(True)
    x0 = codec.encode(pictures())
    assert not x0.requires_grad
    assert codec.network.decode(x0).grad_fn is not None  # the network itself can be trained
