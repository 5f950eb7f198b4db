"""The ways to act that `bench.py` measures, over one set of weights."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, LlamaForCausalLM, LogitsProcessor, LogitsProcessorList

from invact_vla.openvla.action_tokens import ActionTokens
from invact_vla.openvla.config import OpenVLAConfig
from invact_vla.openvla.head_configs import OftHeadConfig, TokensHeadConfig
from invact_vla.openvla.inference.generate import greedy_decode
from invact_vla.openvla.inference.int8 import Quantize, quantize_model
from invact_vla.openvla.model import OpenVLA
from invact_vla.openvla.random_model import fill
from invact_vla.openvla.tokenizer import EOS

PLAIN, OURS, INT8 = "plain generate", "ours", "ours, int8"
OFT, OFT_INT8 = "OFT chunk", "OFT chunk, int8"


@dataclass(frozen=True)
class Question:
    """One observation: ids (1, L), pixel_values (1, C, H, W), proprio (1, S) or None."""

    ids: Tensor
    pixel_values: Tensor
    proprio: Tensor | None


AnswerFn = Callable[[Question], Tensor]  # -> ids (1, A), or normalized actions (1, n, A)


def questions(
    config: OpenVLAConfig, length: int, count: int, like: Tensor, seed: int
) -> list[Question]:
    """Random observations, images and state where `like` is and in its dtype."""
    generator = torch.Generator().manual_seed(seed)
    own, size = config.invact, config.image_size
    channels = 3 * config.n_towers * len(own.cameras)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(like)

    found = []
    for _ in range(count):
        ids = torch.randint(3, config.vocab_size, (1, length), generator=generator)
        ids[:, 0] = 1
        proprio = normal(1, own.proprio_dim) if own.proprio_dim else None
        found.append(Question(ids.to(like.device), normal(1, channels, size, size), proprio))
    return found


def with_tokens(config: OpenVLAConfig) -> OpenVLAConfig:
    """The config with the published head, one action a call."""
    return replace(config, invact=replace(config.invact, head=TokensHeadConfig(), chunk=1))


def make_sides(model: OpenVLA, quantize: Quantize, chunk: int) -> dict[str, AnswerFn]:
    """All sides of a model with the published head; the plain loop is the first."""
    sides = {PLAIN: plain_generate(model)}
    names: dict[Quantize, tuple[str, str]] = {"none": (OURS, OFT), "int8": (INT8, OFT_INT8)}
    for kind in dict.fromkeys(("none", quantize)):
        ready = shared_copy(model)
        quantize_model(ready, kind)
        sides[names[kind][0]] = ours(ready)
        if chunk:
            sides[names[kind][1]] = oft(ready, chunk)
    return sides


def ours(model: OpenVLA) -> AnswerFn:
    """greedy_decode."""
    allowed = allowed_ids(model)

    def answer(question: Question) -> Tensor:
        return greedy_decode(
            model,
            question.ids,
            model.config.invact.action_dim,
            question.pixel_values,
            proprio=question.proprio,
            allowed=allowed,
        )[0]

    return answer


def plain_generate(model: OpenVLA) -> AnswerFn:
    """The loop that transformers offers: images put before the text, then `generate`."""
    config = copy.deepcopy(model.language_model.config)
    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        llama = LlamaForCausalLM(config).eval()
    llama.load_state_dict(model.language_model.state_dict(), assign=True)
    llama.model.rotary_emb = model.language_model.model.rotary_emb
    generation = GenerationConfig(
        max_new_tokens=model.config.invact.action_dim,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=model.config.pad_token_id,
    )
    allowed = allowed_ids(model)
    processors = LogitsProcessorList([] if allowed is None else [_Only(allowed)])

    def answer(question: Question) -> Tensor:
        embedded, _ = model.embed(question.ids, None, question.pixel_values, question.proprio)
        return llama.generate(  # type: ignore[attr-defined]
            inputs_embeds=embedded,
            attention_mask=embedded.new_ones(embedded.shape[:2], dtype=torch.long),
            generation_config=generation,
            logits_processor=processors,
        )  # type: ignore[return-value]

    return answer


class _Only(LogitsProcessor):
    """Choose among some ids."""

    def __init__(self, allowed: Tensor) -> None:
        self.allowed = allowed

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        hidden = torch.full_like(scores, float("-inf"))
        hidden[:, self.allowed] = scores[:, self.allowed]
        return hidden


def oft(model: OpenVLA, chunk: int) -> AnswerFn:
    """OFT's head, with random weights, behind the same towers and language model."""
    own = replace(model.config.invact, head=OftHeadConfig(), chunk=chunk)
    config = replace(model.config, invact=own)
    with torch.device("meta"):
        other = OpenVLA(config)
    for name, module in model.named_children():
        setattr(other, name, module)
    like = next(model.parameters())
    head = other.action_head
    assert isinstance(head, nn.Module)
    head.to(like.dtype).to_empty(device=like.device)
    generator = torch.Generator(like.device).manual_seed(0)
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            fill(name, parameter, generator)
    slots = torch.full((1, config.slots + 1), EOS, device=like.device)

    def answer(question: Question) -> Tensor:
        ids = torch.cat([question.ids, slots], dim=1)
        places = question.ids.shape[1] + torch.arange(config.slots, device=like.device)
        return other(
            ids, None, question.pixel_values, proprio=question.proprio, slots=places[None]
        ).actions

    return answer


def shared_copy(model: OpenVLA) -> OpenVLA:
    """A copy whose parameters are the same tensors, to have some of its modules replaced."""
    return copy.deepcopy(model, {id(p): p for p in model.parameters()})


def allowed_ids(model: OpenVLA) -> Tensor | None:
    """The ids of actions where the model may choose no others."""
    if not model.config.invact.constrain_actions:
        return None
    first = ActionTokens.of(model.config).first_id
    device = next(model.parameters()).device
    return torch.arange(first, model.config.vocab_size, device=device)
