"""HybridDiT: a diffusion transformer of local and global attention over one sequence of spans.

Legend: B batch, C colour channels, H and W pixels, N tokens, M context tokens, D width, K channels per head, P = K / 2
rotary pairs, F Fourier features, E experts, L layers.

What keeps it friendly to compilers: shapes are static per resolution, all randomness and all position data come in as
inputs, and no Python value differs between calls.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffusion.attention import AttentionBackend, Pattern, attend
from diffusion.data import CHANNELS
from diffusion.embedding import STRIDE, FactorizedHead, FourierFeatures, InterfaceBlock, PatchEmbedding, PixelHead
from diffusion.errors import ConfigError, ResolutionError
from diffusion.feedforward import FeedForwardOutput, MixtureOfExperts, SwiGLU
from diffusion.model import Backbone, ParameterGroup, Prediction
from diffusion.parametrization import Mode
from diffusion.rope import HouseholderBasis, rotate
from diffusion.spans import PLACE_FEATURES, Layout, Span, image, layout


class FeedForward(StrEnum):
    """Which layer follows attention."""

    SWIGLU = "swiglu"
    MOE = "moe"


@dataclass(frozen=True, kw_only=True, slots=True)
class BackboneConfig:
    """The size and the kind of a backbone."""

    width: int = 64
    depth: int = 4
    heads: int = 4
    feedforward: FeedForward = FeedForward.SWIGLU
    hidden: int = 128
    """Hidden channels a token passes through; a mixture shares them out over its active experts."""
    experts: int = 8
    active_experts: int = 3
    interface_depth: int = 1
    """Residual perceptrons at each end."""
    global_every: int = 4
    """Every n-th layer is global, the others local: 4 is three local to one global."""
    radius_per_log2: float = 0.4
    """Local radius in tokens per doubling of the token count: 2, 3 and 4 tokens at 16, 32 and 64 px."""
    reflections: int = 4
    modulation: bool = True
    """Scale and gate every branch by the noise level. Without it the noise level is only added to the tokens, which
    leaves far fewer kernels to compile: most then depend on the token budget alone and serve every resolution."""
    places: bool = False
    """Tell each token where in its image it is. Rotary embedding knows distances only, and boards turn about the
    image's centre: with it the geometry is learned several times faster (docs/log.md)."""
    fourier_features: int = 32
    axes: tuple[str, ...] = ("y", "x")
    mode: Mode = Mode.NAIVE

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads", "hidden", "experts", "active_experts", "global_every", "reflections"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be positive, got {getattr(self, name)}")
        if self.interface_depth < 0 or self.radius_per_log2 <= 0:
            raise ConfigError("interface_depth must not be negative and radius_per_log2 must be positive")
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ConfigError(f"width {self.width} must be {self.heads} heads times an even number of channels")
        if self.width // self.heads // 2 < len(self.axes):
            raise ConfigError(f"{self.width // self.heads} channels a head are too few for axes {self.axes}")
        if self.active_experts > self.experts:
            raise ConfigError(f"{self.active_experts} of {self.experts} experts cannot be active")
        if self.fourier_features < 4 or self.fourier_features % 2:
            raise ConfigError(f"fourier_features must be even and at least 4, got {self.fourier_features}")
        if not set(self.axes) <= {"t", "y", "x"} or not {"y", "x"} <= set(self.axes):
            raise ConfigError(f"axes must be y and x, with or without t, got {self.axes}")

    @property
    def pairs(self) -> int:
        """Rotary pairs per head."""
        return self.width // self.heads // 2

    def is_global(self, layer: int) -> bool:
        """Return whether layer (from 0) attends everywhere; the last of each group of `global_every` does."""
        return (layer + 1) % self.global_every == 0


class GatedAttention(nn.Module):
    """Attention with normalised queries and keys, in the rotary basis it is given, with a sigmoid gate on its output.

    The gate before the output projection follows Qiu et al., arXiv 2505.06708 (variant G1).
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.query_key = nn.Linear(config.width, 2 * config.width, bias=False)
        self.value_gate = nn.Linear(config.width, 2 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x_BND: Tensor, where: Layout, seen: Pattern, basis_HKK: Tensor) -> Tensor:
        """Return the update y_BND."""
        # RMSNorm without weights commutes with an orthogonal basis, so the basis goes into the weights, where it costs
        # K / N of what it would cost on the tokens.
        weight_2HKD = self.query_key.weight.view(2, *basis_HKK.shape[:2], -1)
        turned_2DD = (basis_HKK.mT @ weight_2HKD).flatten(0, 2)
        query_BND, key_BND = functional.linear(x_BND, turned_2DD).chunk(2, dim=-1)
        query_BHNK, key_BHNK = self._split(query_BND), self._split(key_BND)
        value_BND, gate_BND = self.value_gate(x_BND).chunk(2, dim=-1)
        value_BHNK = self._split(value_BND)
        channels = query_BHNK.shape[-1:]
        query_BHNK = rotate(functional.rms_norm(query_BHNK, channels), where.cos_NP, where.sin_NP)
        key_BHNK = rotate(functional.rms_norm(key_BHNK, channels), where.cos_NP, where.sin_NP)
        mixed_BND = attend(query_BHNK, key_BHNK, value_BHNK, seen).transpose(1, 2).flatten(2)
        y_BND: Tensor = self.out(mixed_BND * gate_BND.sigmoid())
        return y_BND

    def _split(self, x_BND: Tensor) -> Tensor:
        return x_BND.view(*x_BND.shape[:2], self.heads, -1).transpose(1, 2)


class Block(nn.Module):
    """Attention and feed-forward, each modulated by the noise level.

    Scale and gate per branch as in adaLN (Peebles & Xie, arXiv 2212.09748, section 3.2), without shifts.
    """

    def __init__(self, config: BackboneConfig, *, everywhere: bool) -> None:
        super().__init__()
        self.everywhere = everywhere
        self.attention = GatedAttention(config)
        self.feedforward: SwiGLU | MixtureOfExperts
        if config.feedforward is FeedForward.MOE:
            self.feedforward = MixtureOfExperts(
                width=config.width,
                hidden=max(1, config.hidden // config.active_experts),
                experts=config.experts,
                active=config.active_experts,
            )
        else:
            self.feedforward = SwiGLU(width=config.width, hidden=config.hidden)
        self.modulation = nn.Linear(config.width, 4 * config.width) if config.modulation else None
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)
            # Gates start at 1, not at the 0 of adaLN-Zero: the short runs of this lab learn faster so (docs/log.md).
            with torch.no_grad():
                self.modulation.bias.view(4, -1).copy_(torch.tensor([0.0, 1.0, 0.0, 1.0])[:, None])

    def forward(
        self,
        x_BND: Tensor,
        noise_B1D: Tensor,
        where: Layout,
        basis_HKK: Tensor,
        router_noise_BNE: Tensor | None,
    ) -> FeedForwardOutput:
        """Return the tokens after both branches, and the router's z-loss."""
        width = x_BND.shape[-1:]
        seen = where.everywhere if self.everywhere else where.nearby
        if self.modulation is None:
            x_BND = x_BND + self.attention(functional.rms_norm(x_BND, width), where, seen, basis_HKK)
            y_BND, z_loss = self.feedforward(functional.rms_norm(x_BND, width), router_noise_BNE)
            return FeedForwardOutput(x_BND + y_BND, z_loss)
        scale_a, gate_a, scale_f, gate_f = self.modulation(noise_B1D).chunk(4, dim=-1)
        h_BND = functional.rms_norm(x_BND, width) * (1 + scale_a)
        x_BND = x_BND + gate_a * self.attention(h_BND, where, seen, basis_HKK)
        h_BND = functional.rms_norm(x_BND, width) * (1 + scale_f)
        y_BND, z_loss = self.feedforward(h_BND, router_noise_BNE)
        return FeedForwardOutput(x_BND + gate_f * y_BND, z_loss)


class HybridDiT(Backbone):
    """Noisy images and their logSNR to a prediction, at any resolution that the stride divides."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.fourier = FourierFeatures(features=config.fourier_features)
        self.noise_level: nn.Module = nn.Linear(config.fourier_features, config.width, bias=False)
        if config.modulation:
            self.noise_level = nn.Sequential(
                self.noise_level, nn.SiLU(), nn.Linear(config.width, config.width), nn.SiLU()
            )
        self.basis = HouseholderBasis(
            heads=config.heads, channels=config.width // config.heads, reflections=config.reflections
        )
        self.embed = PatchEmbedding(channels=CHANNELS, width=config.width)
        self.place = nn.Linear(PLACE_FEATURES, config.width, bias=False) if config.places else None
        self.interface_in = nn.ModuleList(InterfaceBlock(width=config.width) for _ in range(config.interface_depth))
        self.blocks = nn.ModuleList(Block(config, everywhere=config.is_global(i)) for i in range(config.depth))
        self.interface_out = nn.ModuleList(InterfaceBlock(width=config.width) for _ in range(config.interface_depth))
        self.head = PixelHead(channels=CHANNELS, width=config.width)
        self.factors = FactorizedHead.of(config.mode, width=config.width, features=config.fourier_features)

    @property
    def name(self) -> str:
        """The configuration, as text."""
        return repr(self.config)

    def layout(
        self,
        resolution: int,
        *,
        context: tuple[Span, ...] = (),
        device: torch.device | str = "cpu",
        backend: AttentionBackend = AttentionBackend.AUTO,
    ) -> Layout:
        """Return the layout of `context` spans followed by one square image; raise `ResolutionError` if it has none."""
        if resolution < 2 * STRIDE or resolution % STRIDE:
            raise ResolutionError(resolution, STRIDE)
        side = resolution // STRIDE
        return layout(
            (*context, image(side, side)),
            axes=self.config.axes,
            pairs=self.config.pairs,
            radius_per_log2=self.config.radius_per_log2,
            device=device,
            backend=backend,
        )

    def router_noise_shape(self, batch: int, where: Layout) -> tuple[int, int, int, int] | None:
        """Return (L, B, N, E) of the router noise to pass in while training, or None without routers."""
        if self.config.feedforward is not FeedForward.MOE:
            return None
        return self.config.depth, batch, where.cos_NP.shape[0], self.config.experts

    def forward(
        self,
        z_BCHW: Tensor,
        logsnr_B: Tensor,
        where: Layout,
        router_noise_LBNE: Tensor | None = None,
        context_BMD: Tensor | None = None,
    ) -> Prediction:
        """Predict the target. `context_BMD` are embedded tokens of the spans that `where` puts before the image."""
        rows, columns = z_BCHW.shape[-2] // STRIDE, z_BCHW.shape[-1] // STRIDE
        fourier_BF = self.fourier(logsnr_B)
        noise_B1D = self.noise_level(fourier_BF)[:, None]
        x_BND = self.embed(z_BCHW) + noise_B1D
        if self.place is not None:
            x_BND = x_BND + self.place(where.place_NF[-rows * columns :])
        for perceptron in self.interface_in:
            x_BND = perceptron(x_BND)
        if context_BMD is not None:
            x_BND = torch.cat((context_BMD, x_BND), dim=1)
        basis_HKK = self.basis.matrix().to(x_BND.dtype)
        z_losses: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            noise_BNE = None if router_noise_LBNE is None else router_noise_LBNE[i]
            x_BND, z_loss = block(x_BND, noise_B1D, where, basis_HKK, noise_BNE)
            if z_loss is not None:
                z_losses.append(z_loss)
        x_BND = x_BND[:, -rows * columns :]
        for perceptron in self.interface_out:
            x_BND = perceptron(x_BND)
        said = Prediction(self.head(x_BND, rows, columns))
        if self.factors is not None:
            said = self.factors.predict(said.target_BCHW, x_BND, fourier_BF)
        return said._replace(z_loss=torch.stack(z_losses).mean()) if z_losses else said

    def inputs(self) -> list[Tensor]:
        """Return the matrices that read pixels, places and noise levels."""
        # Of the noise level's layers only the first reads features.
        level = next(one for one in self.noise_level.modules() if isinstance(one, nn.Linear))
        place = [] if self.place is None else [self.place.weight]
        return [self.embed.project.weight, level.weight, *place]

    def parameter_groups(self) -> dict[ParameterGroup, list[nn.Parameter]]:
        """Return every parameter once; the matrices of attention and feed-forward are hidden ones."""
        groups: dict[ParameterGroup, list[nn.Parameter]] = {
            "householder": [], "interface": [], "matrices": [], "backbone": []
        }  # fmt: skip
        outside = ("embed.", "place.", "interface_in.", "interface_out.", "head.", "factors.")
        for name, parameter in self.named_parameters():
            if name.endswith("v_HRK"):
                groups["householder"].append(parameter)
            elif name.startswith(outside):
                groups["interface"].append(parameter)
            else:
                hidden = name.startswith("blocks.") and "modulation" not in name and "router" not in name
                groups["matrices" if hidden and parameter.dim() == 2 else "backbone"].append(parameter)
        return groups
