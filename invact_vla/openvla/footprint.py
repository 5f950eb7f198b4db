"""What a model costs, from its shapes alone: parameters, FLOP, bytes of activations and of the cache.

Built on the meta device, so nothing is allocated. FLOP count a multiplication and an addition as two,
and only what is run (not the towers' last blocks). Bytes of activations are those that autograd keeps
for the backward pass; tests hold them against what torch really saves.

Axis letters: N tokens of one sample in the language model, D width, F MLP width, V vocabulary rows.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import nn

from invact_vla.openvla.adapters.lora import FULL
from invact_vla.openvla.config import OpenVLAConfig
from invact_vla.openvla.head_configs import OftHeadConfig, TextHeadConfig
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

    @property
    def parameters(self) -> int:
        """All of them, also those that are never run."""
        return sum(p.numel() for p in self.model.parameters())

    @property
    def trained(self) -> int:
        """Parameters that full training changes."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    @property
    def largest_block(self) -> int:
        """Parameters of the largest piece that FSDP puts together at a time: a layer, or the head."""
        language = self.model.language_model
        pieces = [*self.layers, language.lm_head, *self.towers[0].blocks]
        return max(sum(p.numel() for p in piece.parameters()) for piece in pieces)

    @property
    def read_per_token(self) -> int:
        """Parameters that one decoding step reads: the language model without its embedding."""
        return _linears(self.model.language_model)

    def sample(self, prompt: int, targets: int | None = None) -> SampleTokens:
        """Tokens of one sample; targets None: of the model's action head."""
        own = self.config.invact
        extra = self.patches * self.images + bool(own.proprio_dim)
        return SampleTokens(extra, prompt, self._action_targets() if targets is None else targets)

    def _action_targets(self) -> int:
        own, head = self.config.invact, self.config.invact.head
        if isinstance(head, OftHeadConfig):
            return self.config.slots + 1
        numbers = own.chunk * own.action_dim
        if isinstance(head, TextHeadConfig):  # each digit an id of its own, and a boundary
            return numbers * (len(str(head.steps)) + 1) + 1
        return numbers + 1

    def lora_parameters(self, rank: int, targets: list[str]) -> int:
        """Parameters of adapters of `rank` on the named modules."""
        return sum(rank * sum(_sides(self.model.get_submodule(name))) for name in targets)

    @property
    def extra_parameters(self) -> int:
        """Those that are trained in full beside adapters: action head, state projector, slots."""
        named = self.model.named_parameters()
        return sum(p.numel() for n, p in named if n.startswith(FULL))

    def lora_bytes(
        self, rank: int, targets: list[str], sample: SampleTokens, checkpointing: bool = False
    ) -> int:
        """What fp32 adapters keep for the backward pass: a copy of each layer's input, and what lies
        between the two matrices. checkpointing: of one block at a time."""
        whole = sum(
            self._tokens_of(name, sample)
            * (_sides(self.model.get_submodule(name))[0] + rank)
            * _FP32
            for name in targets
        )
        return whole // len(self.layers) if checkpointing else whole

    def _tokens_of(self, name: str, sample: SampleTokens) -> int:
        """How many tokens of a sample a module sees."""
        if name.startswith(("vision_backbone.", "projector.")):
            return self.images * self.patches
        return sample.targets if name.endswith("lm_head") else sample.length

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
        self,
        sample: SampleTokens,
        compute: Compute,
        checkpointing: bool = False,
        scores: bool = False,
    ) -> int:
        """What autograd keeps of one sample. checkpointing: only each block's input is kept, and one
        block is computed again at a time. scores: attention matrices are kept (explicit attention)."""
        blocks = self._language_blocks(sample.length, compute, scores)
        blocks += self._vision_blocks(compute, scores)
        inputs = self._block_inputs(sample.length, compute)
        kept = inputs + max(blocks) if checkpointing else sum(blocks)
        return kept + self._outside_blocks(sample, compute)

    def _language_blocks(self, length: int, compute: Compute, scores: bool) -> list[int]:
        """Of each Llama layer: two RMSNorms (their input in fp32, the normalized one), q, k and v, the
        inputs of o and of the MLP, and the MLP's four wide tensors."""
        text, width = self.config.text_config, _attention_width(self.config)
        item = _FP32 if compute == "fp32" else _BF16
        wide = 4 * text.intermediate_size * item
        narrow = (4 * text.hidden_size + 4 * width) * item + 2 * text.hidden_size * _FP32
        if compute == "autocast":  # the residual stream is fp32, and so are the normalized copies
            narrow += 2 * text.hidden_size * _FP32 + width * item
        matrix = text.num_attention_heads * length * item if scores else 0
        return [length * (wide + narrow + matrix)] * len(self.layers)

    def _vision_blocks(self, compute: Compute, scores: bool) -> list[int]:
        item = _FP32 if compute == "fp32" else _BF16
        residual = _BF16 if compute == "bf16" else _FP32
        found: list[int] = []
        for tower in self.towers:
            tokens, width = self.patches + tower.num_prefix_tokens, tower.embed_dim
            block: Any = tower.blocks[0]
            hidden = block.mlp.fc1.out_features
            scaled = 0 if isinstance(block.ls1, nn.Identity) else 2
            token = width * (2 * residual + 6 * item + scaled * item) + 2 * hidden * item
            matrix = block.attn.num_heads * tokens * item if scores else 0
            found += [self.images * tokens * (token + matrix)] * (len(tower.blocks) - 1)
        return found

    def _block_inputs(self, length: int, compute: Compute) -> int:
        item = _BF16 if compute == "bf16" else _FP32
        found = length * self.config.text_config.hidden_size * len(self.layers)
        for tower in self.towers:
            tokens = self.patches + tower.num_prefix_tokens
            found += self.images * tokens * tower.embed_dim * (len(tower.blocks) - 1)
        return found * item

    def _outside_blocks(self, sample: SampleTokens, compute: Compute) -> int:
        """The projector's inputs and hidden units, the final norm, and the logits of the targets with
        their fp32 copy and its gradient."""
        item, text = (_FP32 if compute == "fp32" else _BF16), self.config.text_config
        linears = [m for m in self.model.projector.modules() if isinstance(m, nn.Linear)]
        projector = sum(m.in_features + m.out_features for m in linears) * item
        final = 3 * sample.length * text.hidden_size * _FP32
        logits = sample.targets * text.vocab_size * (item + 2 * _FP32)
        return self.images * self.patches * projector + final + logits


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
