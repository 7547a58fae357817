# ruff: noqa: N803, N806 (tensors carry shape suffixes)
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion.data import Checkerboards, Composite
from diffusion.errors import ConfigError
from diffusion.images import grid, save_ground_truth


def distinct_colours(image_CHW):
    return torch.unique(image_CHW.flatten(1), dim=1).shape[1]


def test_a_seed_and_step_always_draw_the_same_boards():
    boards = Checkerboards()

    first = boards.draw(4, 16, seed=3, step=7)

    assert torch.equal(first, boards.draw(4, 16, seed=3, step=7))
    assert not torch.equal(first, boards.draw(4, 16, seed=3, step=8))
    assert not torch.equal(first, boards.draw(4, 16, seed=4, step=7))


@settings(deadline=None, max_examples=20)
@given(tiles=st.integers(2, 6), side=st.sampled_from([8, 12, 16, 32]), seed=st.integers(0, 10**6))
def test_hard_edged_boards_have_exactly_two_colours_within_range(tiles, side, seed):
    x_BCHW = Checkerboards(tiles=tiles).draw(3, side, seed=seed, step=0)

    assert [distinct_colours(image) for image in x_BCHW] == [2, 2, 2]
    assert x_BCHW.abs().max() <= 1


def test_one_seed_and_step_are_the_same_boards_at_every_resolution():
    boards = Checkerboards()

    for small, large in zip(boards.draw(4, 16, seed=1, step=0), boards.draw(4, 64, seed=1, step=0), strict=True):
        assert torch.equal(torch.unique(small.flatten(1), dim=1), torch.unique(large.flatten(1), dim=1))
        agree = (torch.nn.functional.interpolate(small[None], scale_factor=4)[0] == large).float().mean()
        assert agree > 0.8


def test_there_are_four_tiles_across_an_upright_board():
    row = Checkerboards().coverage(torch.zeros(1), 32)[0, 0]

    changes = (row[1:] != row[:-1]).nonzero().flatten() + 1
    assert changes.tolist() == [8, 16, 24]


@pytest.mark.parametrize("angle", [0.1, 0.7, 1.3])
def test_a_quarter_turn_swaps_the_two_colours(angle):
    boards = Checkerboards()

    turned = boards.coverage(torch.tensor([angle + math.pi / 2], dtype=torch.float64), 16)

    assert torch.equal(turned, 1 - boards.coverage(torch.tensor([angle], dtype=torch.float64), 16))


def test_antialiased_edges_are_means_of_the_hard_edges_of_a_finer_board():
    parameters = Checkerboards().parameters(3, seed=0, step=0)

    soft = Checkerboards(supersampling=4).render(parameters, 16)

    fine = Checkerboards().render(parameters, 64)
    torch.testing.assert_close(soft, torch.nn.functional.avg_pool2d(fine, 4), atol=1e-5, rtol=0)


def test_a_composite_mixes_its_sources_by_ratio():
    few, many = Checkerboards(tiles=2), Checkerboards(tiles=8)
    mixture = Composite(sources=(few, many), ratios=(3, 1))

    chosen = mixture.choices(4000, seed=0, step=0)
    x_BCHW = mixture.draw(8, 16, seed=5, step=2)

    # The bound is three standard deviations of a binomial count.
    assert abs(chosen.float().mean() - 0.25) < 3 * math.sqrt(0.25 * 0.75 / 4000)
    sources = [source.draw(8, 16, seed=5, step=2) for source in (few, many)]
    for i, index in enumerate(mixture.choices(8, seed=5, step=2)):
        assert torch.equal(x_BCHW[i], sources[index][i])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Checkerboards(tiles=0),
        lambda: Checkerboards(supersampling=0),
        lambda: Checkerboards().draw(0, 16, seed=0, step=0),
        lambda: Checkerboards().draw(1, -4, seed=0, step=0),
        lambda: Composite(sources=(), ratios=()),
        lambda: Composite(sources=(Checkerboards(),), ratios=(-1.0,)),
        lambda: Composite(sources=(Checkerboards(),), ratios=(1.0, 2.0)),
    ],
    ids=["no tiles", "no samples", "no images", "negative side", "no sources", "negative ratio", "ratio too many"],
)
def test_impossible_data_is_refused(make):
    with pytest.raises(ConfigError):
        make()


def test_a_grid_shows_each_pixel_as_it_was_drawn(tmp_path):
    x_BCHW = Checkerboards().draw(3, 16, seed=0, step=0)

    rgb_HWC = grid(x_BCHW, columns=2, margin=2, side=32)

    assert rgb_HWC.shape == (2 * 34 + 2, 2 * 34 + 2, 3)
    expected = ((x_BCHW[1, :, 0, 0] + 1) * 127.5).round().to(torch.uint8)
    assert torch.equal(rgb_HWC[2, 36], expected)
    assert (rgb_HWC[0] == 255).all()

    save_ground_truth(tmp_path / "truth.png", Checkerboards(), (16, 32), seed=0)
    assert (tmp_path / "truth.png").read_bytes().startswith(b"\x89PNG")
