"""What a model costs, from its shapes alone: parameters, FLOP, bytes of activations and of the cache.

Built on the meta device, so nothing is allocated. FLOP count a multiplication and an addition as two,
and only what is run (not the towers' last blocks). Bytes of activations are those that autograd keeps
for the backward pass; tests hold them against what torch really saves.

Axis letters: N tokens of one sample in the language model, D width, F MLP width, V vocabulary rows.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from invact_vla.openvla.adapters.lora import FULL
from invact_vla.openvla.config import OftHeadConfig, OpenVLAConfig, TextHeadConfig
from invact_vla.openvla.model import OpenVLA

Compute = Literal["fp32", "bf16", "autocast"]  # autocast: fp32 weights, bf16 products
_FP32, _BF16 = 4, 2  # bytes


@dataclass(frozen=True)
class SampleTokens:
    """One sample's tokens. prompt: BOS, instruction and separator; targets: ids that are learned or
    decoded, EOS included; extra: patches of all images, and the state token."""

    extra: int
    prompt: int
    targets: int

    @property
    def length(self) -> int:
        """N, with the targets."""
        return self.extra + self.prompt + self.targets


class Footprint:
    """Costs of one model. Everything is per sample unless it says otherwise."""

    def __init__(self, config: OpenVLAConfig) -> None:
        with torch.device("meta"):
            self.model = OpenVLA(replace(config, norm_stats={}), "sdpa")
        self.config = config
        self.towers = self.model.vision_backbone.towers
        self.images = len(config.invact.cameras)
        self.patches = self.towers[0].patch_embed.num_patches  # of one image
        self.layers = list(self.model.language_model.model.layers)
        named = dict(self.model.named_parameters())
        self.parameters = _count(named.values())  # also those that are never run
        self.trained = _count(p for p in named.values() if p.requires_grad)  # by full training
        # in full beside adapters: action head, state projector, slots
        self.extra_parameters = _count(p for n, p in named.items() if n.startswith(FULL))
        language = self.model.language_model
        # what one decoding step reads: the language model without its embedding
        self.read_per_token = _linears(language)
        # the largest piece that FSDP puts together at a time: a layer, or the head
        pieces = [*self.layers, language.lm_head, *self.towers[0].blocks]
        self.largest_block = max(_count(piece.parameters()) for piece in pieces)

    def sample(self, prompt: int, targets: int | None = None) -> SampleTokens:
        """Tokens of one sample; targets None: of the model's action head."""
        own, head = self.config.invact, self.config.invact.head
        extra = self.patches * self.images + bool(own.proprio_dim)
        ids = self.config.slots or own.chunk * own.action_dim
        if isinstance(head, TextHeadConfig):  # each digit an id of its own, and a boundary
            ids *= len(str(head.steps)) + 1
        return SampleTokens(extra, prompt, ids + 1 if targets is None else targets)

    def lora_parameters(self, rank: int, targets: list[str]) -> int:
        """Parameters of adapters of `rank` on the named modules."""
        return sum(rank * sum(_sides(self.model.get_submodule(name))) for name in targets)

    def lora_bytes(
        self, rank: int, targets: list[str], sample: SampleTokens, checkpointing: bool = False
    ) -> int:
        """What fp32 adapters keep for the backward pass: a copy of each layer's input, and what lies
        between the two matrices. checkpointing: of one block at a time."""
        whole = 0
        for name in targets:
            tokens = sample.targets if name.endswith("lm_head") else sample.length
            if name.startswith(("vision_backbone.", "projector.")):
                tokens = self.images * self.patches
            whole += tokens * (_sides(self.model.get_submodule(name))[0] + rank) * _FP32
        return whole // len(self.layers) if checkpointing else whole

    # --- FLOP of one forward pass

    def vision_flops(self) -> dict[str, float]:
        """Of each tower over all images, and of the projector."""
        found = {}
        for index, tower in enumerate(self.towers):
            tokens = self.patches + tower.num_prefix_tokens
            blocks = list(tower.blocks)[:-1]
            linear = 2 * tokens * sum(_linears(b) for b in blocks)
            scores = 4 * tokens**2 * tower.embed_dim * len(blocks)
            patches = 2 * self.patches * tower.patch_embed.proj.weight.numel()
            found[f"tower{index}"] = float(self.images * (linear + scores + patches))
        projector = 2 * self.patches * _linears(self.model.projector)
        found["projector"] = float(self.images * projector)
        return found

    def language_flops(self, length: int, rows: int, past: int = 0) -> float:
        """Of the language model over `length` new tokens behind `past` cached ones, `rows` of them
        through the head."""
        body = sum(_linears(layer) for layer in self.layers)
        text = self.config.text_config
        scores = 4 * length * (past + length) * _attention_width(self.config) * len(self.layers)
        return float(2 * length * body + scores + 2 * rows * text.hidden_size * text.vocab_size)

    def forward_flops(self, sample: SampleTokens) -> float:
        """Of one training sample."""
        vision = sum(self.vision_flops().values())
        return vision + self.language_flops(sample.length, sample.targets)

    def decoding(self, sample: SampleTokens) -> tuple[float, int]:
        """(FLOP, steps) of one call: steps that read all weights again behind the first pass."""
        vision = sum(self.vision_flops().values())
        if isinstance(self.config.invact.head, OftHeadConfig):  # all slots in one pass
            return vision + self.language_flops(sample.length, sample.targets), 0
        start, steps = (
            sample.extra + sample.prompt,
            sample.targets - 2,
        )  # no EOS; the first is there
        cached = sum(self.language_flops(1, 1, start + i) for i in range(steps))
        return vision + self.language_flops(start, 1) + cached, steps

    # --- bytes

    def cache_bytes(self, length: int, itemsize: int = _BF16) -> int:
        """Keys and values of `length` tokens of one sequence."""
        text: Any = self.config.text_config
        heads = text.num_key_value_heads * text.head_dim
        return 2 * len(self.layers) * heads * itemsize * length

    def activation_bytes(
        self, sample: SampleTokens, compute: Compute, checkpointing: bool = False,
        scores: bool = False,
    ) -> int:  # fmt: skip
        """What autograd keeps of one sample. checkpointing: only each block's input is kept, and one
        block is computed again at a time. scores: attention matrices are kept (explicit attention)."""
        blocks = [self._language_block(sample.length, compute, scores)] * len(self.layers)
        residual = _BF16 if compute == "bf16" else _FP32
        inputs = sample.length * self.config.text_config.hidden_size * len(self.layers) * residual
        for tower in self.towers:
            tokens, count = self.patches + tower.num_prefix_tokens, len(tower.blocks) - 1
            blocks += [self.images * tokens * _tower_token(tower, tokens, compute, scores)] * count
            inputs += self.images * tokens * tower.embed_dim * count * residual
        kept = inputs + max(blocks) if checkpointing else sum(blocks)
        return kept + self._outside_blocks(sample, compute)

    def _language_block(self, length: int, compute: Compute, scores: bool) -> int:
        """A Llama layer: two RMSNorms (their input in fp32, the normalized one), q, k and v, the inputs
        of o and of the MLP, and the MLP's four wide tensors."""
        text, width = self.config.text_config, _attention_width(self.config)
        item = item_bytes(compute)
        token = 4 * (text.intermediate_size + text.hidden_size + width) * item
        token += 2 * text.hidden_size * _FP32
        if compute == "autocast":  # the residual stream is fp32, and so are the normalized copies
            token += 2 * text.hidden_size * _FP32 + width * item
        return length * (token + (text.num_attention_heads * length * item if scores else 0))

    def _outside_blocks(self, sample: SampleTokens, compute: Compute) -> int:
        """The projector's inputs and hidden units, the final norm, and the logits of the targets with
        their fp32 copy and its gradient."""
        item, text = item_bytes(compute), self.config.text_config
        linears = [m for m in self.model.projector.modules() if isinstance(m, nn.Linear)]
        projector = sum(m.in_features + m.out_features for m in linears) * item
        final = 3 * sample.length * text.hidden_size * _FP32
        logits = sample.targets * text.vocab_size * (item + 2 * _FP32)
        return self.images * self.patches * projector + final + logits


def item_bytes(compute: Compute) -> int:
    """Bytes of a number in products."""
    return _FP32 if compute == "fp32" else _BF16


def _tower_token(tower: Any, tokens: int, compute: Compute, scores: bool) -> int:
    """Bytes of a token in a block of a vision tower."""
    item, residual = item_bytes(compute), _BF16 if compute == "bf16" else _FP32
    block: Any = tower.blocks[0]
    scaled = 0 if isinstance(block.ls1, nn.Identity) else 2
    token = tower.embed_dim * (2 * residual + 6 * item + scaled * item)
    token += 2 * block.mlp.fc1.out_features * item
    return token + (block.attn.num_heads * tokens * item if scores else 0)


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(p.numel() for p in parameters)


def _linears(module: nn.Module) -> int:
    """Weights of all linear layers below a module: multiplications that one token takes."""
    return sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear))


def _attention_width(config: OpenVLAConfig) -> int:
    text: Any = config.text_config
    return text.num_attention_heads * text.head_dim


def _sides(module: nn.Module) -> tuple[int, int]:
    """Inputs and outputs that an adapter has: kernel and channels of a convolution together. A side of
    a convolution's output adapter is 1 x 1, as peft makes it."""
    if isinstance(module, nn.Conv2d):
        return module.weight[0].numel(), module.out_channels
    assert isinstance(module, nn.Linear), module
    return module.in_features, module.out_features
