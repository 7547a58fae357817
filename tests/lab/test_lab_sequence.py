# ruff: noqa: N806 (tensors carry shape suffixes)
import math

import pytest
import torch

from diffusion.attention import AttentionBackend, Pattern, attend, dense_mask, pattern
from diffusion.backbone import BackboneConfig, HybridDiT
from diffusion.errors import ConfigError
from diffusion.rope import HouseholderBasis, rotate
from diffusion.spans import PLACE_FEATURES, Span, angles, image, layout, local_radius, mask_mods, places, text

CPU = torch.device("cpu")
MIXED = (text(5), image(4, 4), text(3), image(2, 6))


def index_of(spans, number):
    start = sum(span.tokens for span in spans[:number])
    return slice(start, start + spans[number].tokens)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
@pytest.mark.parametrize("which", [0, 1], ids=["everywhere", "nearby"])
@pytest.mark.parametrize("spans", [(image(6, 6),), MIXED], ids=["image", "mixed"])
def test_flex_attention_and_the_dense_mask_agree(spans, which):
    mask_mod = mask_mods(spans, 0.4, CPU)[which]
    tokens = sum(span.tokens for span in spans)
    query, key, value = torch.randn(3, 2, 3, tokens, 8, generator=torch.Generator().manual_seed(0))

    dense = attend(query, key, value, pattern(mask_mod, tokens, CPU, AttentionBackend.SDPA))
    flex = attend(query, key, value, pattern(mask_mod, tokens, CPU, AttentionBackend.FLEX))

    torch.testing.assert_close(flex, dense, atol=1e-5, rtol=0)


def test_text_is_causal_images_are_bidirectional_and_everyone_sees_what_came_before():
    tokens = sum(span.tokens for span in MIXED)
    mask = dense_mask(mask_mods(MIXED, 0.4, CPU)[0], tokens, CPU)
    first_text, first_image, second_text, second_image = (index_of(MIXED, i) for i in range(4))

    assert torch.equal(mask[first_text, first_text], torch.ones(5, 5).tril().bool())
    assert mask[first_image, first_image].all()
    assert mask[first_image, first_text].all()
    assert mask[second_image, : second_image.start].all()
    assert not mask[first_text, first_image].any()
    assert not mask[first_image, second_text].any()


def test_local_attention_is_a_square_window_that_grows_with_the_log_of_the_token_count():
    mask = dense_mask(mask_mods((image(8, 8),), 0.4, CPU)[1], 64, CPU).view(8, 8, 8, 8)

    assert [local_radius(tokens, 0.4) for tokens in (64, 256, 1024)] == [2, 3, 4]
    assert mask[4, 4].sum() == 25
    assert mask[0, 0].sum() == 9
    assert mask[4, 4, 2:7, 2:7].all()


def test_tokens_of_a_local_window_still_see_all_earlier_spans():
    mask = dense_mask(mask_mods(MIXED, 0.4, CPU)[1], 36, CPU)

    assert mask[index_of(MIXED, 3), index_of(MIXED, 0)].all()


def test_the_learned_basis_is_orthogonal_for_any_parameters():
    basis = HouseholderBasis(heads=3, channels=8, reflections=5)
    with torch.no_grad():
        basis.v_HRK.mul_(7.0).add_(0.3)

    matrix_HKK = basis.matrix()

    torch.testing.assert_close(matrix_HKK @ matrix_HKK.mT, torch.eye(8).expand(3, 8, 8), atol=1e-5, rtol=0)
    # An odd number of reflections turns a right hand into a left hand.
    torch.testing.assert_close(torch.linalg.det(matrix_HKK), -torch.ones(3), atol=1e-5, rtol=0)


def test_attention_scores_depend_on_relative_positions_only():
    angle_NP = angles((image(6, 6),), ("y", "x"), 4)
    cos, sin = angle_NP.cos().float(), angle_NP.sin().float()
    query, key = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0)).expand(2, 1, 1, 36, 8)

    score = (rotate(query, cos, sin) @ rotate(key, cos, sin).mT).view(6, 6, 6, 6)

    torch.testing.assert_close(score[0, 0, 1, 2], score[3, 2, 4, 4], atol=1e-5, rtol=0)
    torch.testing.assert_close(score[2, 5, 0, 1], score[5, 4, 3, 0], atol=1e-5, rtol=0)
    assert (score[0, 0, 1, 2] - score[0, 0, 2, 1]).abs() > 1e-3


def test_slow_frequencies_mean_the_same_place_at_every_resolution_and_fast_ones_follow_the_tokens():
    small, large = (angles((image(side, side),), ("y", "x"), 8) for side in (8, 32))

    # At the same corner, up to half a token's width, the slowest pair has the same angle.
    assert abs(float(small[0, 0] - large[0, 0])) < math.pi / 2 * (1 / 8)
    neighbours = [abs(float(grid[1, 7] - grid[0, 7])) for grid in (small, large)]
    assert neighbours == pytest.approx([math.pi / 2, math.pi / 2])


def test_folding_the_basis_into_the_weights_is_turning_the_normalised_tokens():
    basis_HKK = HouseholderBasis(heads=2, channels=8, reflections=3).matrix()
    x, weight = torch.randn(5, 16), torch.randn(2, 8, 16)

    folded = torch.einsum("nd,hkd->hnk", x, basis_HKK.mT @ weight)
    plain = torch.einsum("nd,hkd->hnk", x, weight)

    normed = torch.nn.functional.rms_norm(plain, (8,)) @ basis_HKK
    torch.testing.assert_close(torch.nn.functional.rms_norm(folded, (8,)), normed, atol=1e-5, rtol=1e-5)


def test_an_image_after_text_uses_the_text_and_an_image_alone_needs_no_mask():
    torch.manual_seed(0)
    config = BackboneConfig(width=24, depth=2, heads=2, hidden=32, global_every=2, axes=("t", "y", "x"))
    backbone = HybridDiT(config)
    torch.nn.init.normal_(backbone.head.project.weight, std=0.1)
    z, logsnr = torch.randn(2, 3, 8, 8), torch.zeros(2)
    where = backbone.layout(8, context=(text(4),))
    words = torch.randn(2, 4, 24)

    said = backbone(z, logsnr, where, context_BMD=words).target_BCHW

    assert said.shape == z.shape
    assert not torch.allclose(said, backbone(z, logsnr, where, context_BMD=-words).target_BCHW)
    assert backbone.layout(8).everywhere == Pattern()


def test_a_place_in_the_image_has_the_same_features_at_every_resolution_and_text_has_none():
    small, large = places((image(4, 4),)), places((text(2), image(12, 12)))

    # The centre of token (1, 2) of 4 x 4 is the centre of token (4, 7) of 12 x 12.
    torch.testing.assert_close(small[1 * 4 + 2], large[2 + 4 * 12 + 7], atol=1e-12, rtol=0)
    assert not large[:2].any()
    assert torch.unique(small, dim=0).shape == (16, PLACE_FEATURES)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Span(shape=(0,), causal=True),
        lambda: Span(shape=(2, 2), causal=True),
        lambda: Span(shape=(2, 2, 2)),
        lambda: angles((text(3),), ("y", "x"), 4),
        lambda: layout((), axes=("y", "x"), pairs=4, radius_per_log2=0.4),
    ],
    ids=["empty", "causal image", "three axes", "text without time", "no spans"],
)
def test_impossible_sequences_are_refused(make):
    with pytest.raises(ConfigError):
        make()
