"""The forward pass of an encoder for its vectors alone: the same modules and the same numbers as its
`forward`, without what nobody asked for.

The last commit block updates the action token alone, registers are not encoded, motion is measured only
where it routes, and of a displacement alone no commit block runs. Where patches are routed once, only
those of the action token go through the commit blocks: nothing else can reach it.

Functions of an InvActEncoder, whose `embed` calls them.

B clips, T frames, H W pixels, N patches, d width, k numbers of the action token.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from latent_actions.encoder.displacement import Vector
from latent_actions.encoder.inputs.streams import Streams
from latent_actions.encoder.routing import Routing, RoutingAssignments

_CACHED = 1 << 20  # numbers of pixels that are read at a time on a CPU: they stay in its cache


def action_token(encoder: Any, frames: Tensor) -> Tensor:
    """`encoder(frames).action`: (B, T, H, W, 3), uint8 or float in [0, 1] -> (B, k)."""
    return _action(encoder, *before_commitment(encoder, frames))


def vectors(encoder: Any, frames: Tensor, vector: Vector) -> Tensor:
    """Embedding, displacement, or one beside the other, of frames (B, T, H, W, 3), as `encoder(frames)`
    has them: (B, vector_width)."""
    found: list[Tensor] = []
    patches, special_tokens, motion = before_commitment(encoder, frames)
    if vector != "displacement":
        averaged = encoder.config.averaged
        each = [] if averaged else [_embedding(encoder, patches, special_tokens, motion)]
        for name in averaged:
            each.append(_embedding(encoder, *before_commitment(encoder, frames, (name,))))
        found.append(F.normalize(torch.stack(each).sum(dim=0), dim=-1))
    if vector != "embedding" and encoder.displacement_head:
        found.append(encoder.displacement_head(patches))
    return torch.cat(found, dim=1)


def before_commitment(
    encoder: Any, frames: Tensor, streams: tuple[str, ...] = ()
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Patches (B, N, d), special tokens (B, S, d) and, where it routes, motion (B, N), as the commit
    blocks get them. streams: in the place of the encoder's own."""
    config, embedder = encoder.config, encoder.embedder
    size = max(1, _CACHED // (config.frames * config.size**2 * 3))
    if frames.device.type != "cpu":
        size = max(1, len(frames))
    tokens: list[Tensor] = []
    motions: list[Tensor] = []
    for part in frames.split(size):
        shown = Streams(encoder.prepare(part))
        tokens.append(embedder(shown, streams))
        if config.commit.motion_prior:
            motions.append(embedder.motion(shown, streams))
    patches, special_tokens = encoder.plain(torch.cat(tokens))
    return patches, special_tokens, torch.cat(motions) if motions else None


def _embedding(
    encoder: Any, patches: Tensor, special_tokens: Tensor, motion: Tensor | None
) -> Tensor:
    """The embedding of unit length: (B, D)."""
    action = _action(encoder, patches, special_tokens, motion)
    return F.normalize(encoder.head(action).float(), dim=-1)


def _action(encoder: Any, patches: Tensor, special_tokens: Tensor, motion: Tensor | None) -> Tensor:
    """The action token after the commit blocks, as the head reads it: (B, k)."""
    commit, kept = encoder.config.commit, None
    if encoder.commit_blocks and commit.routes_once(training=False):
        kept = encoder.commit_blocks[0].choose(patches, special_tokens, Routing(), motion)
        if commit.closes():
            patches, special_tokens, kept = _of_action(patches, special_tokens, kept)
    for number, block in enumerate(encoder.commit_blocks, 1):
        only = number == len(encoder.commit_blocks)
        patches, special_tokens, _ = block(
            patches, special_tokens, Routing(), motion, kept, action_only=only
        )
    return encoder.action_projection(encoder.norm(special_tokens[:, 0]))


def _of_action(
    patches: Tensor, special_tokens: Tensor, chosen: RoutingAssignments
) -> tuple[Tensor, Tensor, RoutingAssignments]:
    """The patches committed to the action token, as many as the clip with the most of them has (M): (B,
    M, d). A clip with fewer is filled up with others of its own, which the first register takes; special
    tokens are those two: (B, 2, d)."""
    if special_tokens.shape[1] == 1:
        return patches, special_tokens, chosen
    kept = chosen.used[..., 0]
    count = max(1, int(kept.sum(dim=1).max()))
    order = kept.argsort(dim=1, descending=True, stable=True)[:, :count]
    kept = kept.gather(1, order)
    used = torch.stack([kept, 1 - kept], dim=-1)
    patches = patches.gather(1, order[..., None].expand(-1, -1, patches.shape[-1]))
    return patches, special_tokens[:, :2], RoutingAssignments(used, used, chosen.hard)
