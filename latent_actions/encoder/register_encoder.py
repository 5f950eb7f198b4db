"""The registers' own encoder: what the patches left to them look like, by weights of their own.

In the transformer a register shares every weight with the action token, so a loss that teaches it the
place teaches the action token the place too. Here registers are read from the pixels by a small
network that nothing else uses, over the patches that the last commit block left to them; the choice
is only read (no gradient), so what it learns cannot move the action token.

B clips, T frames, H W pixels, N patch tokens (T', H', W'), R registers, d width.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from latent_actions.encoder.routing import RoutingAssignments


class RegisterEncoder(nn.Module):
    """Patches to appearance, appearance to registers: an MLP, a mean over patches, an MLP."""

    def __init__(
        self, *, width: int, registers: int, patch: int, grid: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.patch, self.grid = patch, grid
        self.pixels = nn.Linear(3 * patch * patch, width)
        self.places = nn.Parameter(torch.empty(1, grid[1] * grid[2], width))
        self.look = nn.Sequential(nn.GELU(approximate="tanh"), nn.Linear(width, width))
        self.slots = nn.Parameter(torch.empty(1, registers, width))
        self.mix = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(approximate="tanh"), nn.Linear(2 * width, width)
        )
        nn.init.trunc_normal_(self.places, std=0.2)
        nn.init.trunc_normal_(self.slots, std=0.2)

    def forward(self, pixels: Tensor, chosen: RoutingAssignments) -> Tensor:
        """pixels (B, T, H, W, 3) float in [0, 1], assignments of N patches -> registers (B, R, d);
        one that holds no patch has its slot's own vector.
        """
        t, _, _ = self.grid
        pattern = "b (t a) (h p) (w q) c -> b t (h w) (p q c) a"
        still = rearrange(pixels, pattern, t=t, p=self.patch, q=self.patch).mean(dim=-1)
        looks = self.look(self.pixels(still) + self.places)
        left = rearrange(chosen.used.detach()[..., 1:], "b n r -> b r n")
        share = F.normalize(left, p=1.0, dim=-1)
        states = self.slots + share.to(looks.dtype) @ looks.flatten(1, 2)
        return states + self.mix(states)
