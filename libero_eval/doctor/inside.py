"""Looking inside an OpenVLA policy: what it was trained on, and the same policy otherwise declared.

Variants are shallow copies that share the weights.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from invact_vla.core.schema import Observation
from libero_eval.doctor.answers import Ask

if TYPE_CHECKING:
    from invact_vla.data.action_stats import ActionStats
    from invact_vla.openvla.inference.policy import OpenVLAPolicy
    from invact_vla.openvla.vocabulary import ActionTokens

LONGEST_SEARCH = 16  # actions
MOST = 0.8


def trained_chunk(policy: "OpenVLAPolicy", observations: Sequence[Observation]) -> int | None:
    """After how many actions EOS is the most probable id (in most answers); None if it never is.

    Only observations with the first one's instruction are used: they are decoded together.
    """
    import torch

    tokens = tokens_of(policy)
    if tokens is None:
        return None
    from invact_vla.openvla.inference.generate import greedy_decode
    from invact_vla.openvla.tokenizer import EOS

    same = [o for o in observations if o.instruction == observations[0].instruction]
    size = policy.pretrained.config.invact.action_dim
    prompt = policy.sequences.prompt(observations[0].instruction)
    longest = max(LONGEST_SEARCH, policy.chunk)
    vocabulary = policy.pretrained.config.vocab_size
    allowed = torch.arange(tokens.first_id, vocabulary, device=policy.device)
    _, logits = greedy_decode(
        policy.pretrained.model,
        torch.tensor([prompt] * len(same), device=policy.device),
        longest * size + 1,
        policy.pixel_values(same).to(policy.device),
        proprio=policy.state(same),
        allowed=allowed,
        all_logits=True,
    )
    ends = (logits.argmax(-1) == EOS).float().mean(0).cpu().numpy()
    return next((n for n in range(1, longest + 1) if ends[n * size] > MOST), None)


def tokens_of(policy: "OpenVLAPolicy") -> "ActionTokens | None":
    """The action tokens of a policy that answers with them one by one, else None."""
    from invact_vla.openvla.heads.tokens import TokensHead

    return policy.head.tokens if isinstance(policy.head, TokensHead) else None


def _otherwise(policy: "OpenVLAPolicy", **changes: Any) -> Ask:
    other = copy.copy(policy)
    vars(other).update(changes)
    return lambda observations: other.act_batch(list(observations))


def with_statistics(policy: "OpenVLAPolicy", stats: "ActionStats") -> Ask:
    """The same policy decoding with other action statistics."""
    return _otherwise(policy, actions=stats)


def with_cameras(policy: "OpenVLAPolicy", cameras: tuple[str, ...]) -> Ask:
    """The same policy reading other cameras, or the same ones in another order, unturned."""
    return _otherwise(policy, needs=cameras, image_rotation=("none",) * len(cameras))


def with_prompt(policy: "OpenVLAPolicy", template: str) -> Ask:
    """The same policy with another text around the instruction."""
    sequences = replace(policy.sequences, template=template)
    head = type(policy.head)(policy.pretrained.config, sequences)
    return _otherwise(policy, sequences=sequences, head=head)


def same_length(policy: "OpenVLAPolicy", instruction: str, words: Sequence[str]) -> str | None:
    """Another text of `words` whose prompt has as many ids as that of the instruction, so that a
    change of the answer is due to the words, not to their number; None if none is found."""
    goal = len(policy.sequences.prompt(instruction))
    for start in range(len(words)):
        ring = [*words[start:], *words[:start]] * 8
        for count in range(1, len(ring)):
            text = " ".join(ring[:count])
            length = len(policy.sequences.prompt(text))
            if length == goal and text != instruction:
                return text
            if length > goal:
                break
    return None


def round_trip(policy: "OpenVLAPolicy", actions: np.ndarray) -> np.ndarray:
    """(T, 7) in env convention -> tokens of the policy's statistics -> (T, 7) in env convention."""
    from invact_vla.data.action_stats import normalize, unnormalize
    from invact_vla.data.conventions import gripper_to_training, to_libero_action

    trained = actions.copy()
    opened = gripper_to_training(trained[:, 6])
    trained[:, 6] = opened if policy.gripper_open else 1 - opened
    tokens = tokens_of(policy)
    assert tokens is not None
    ids = tokens.encode(normalize(trained, policy.actions))
    values = unnormalize(tokens.decode(ids), policy.actions)
    return to_libero_action(values, policy.gripper_open).astype(np.float64)
