"""`invact vla plan MODEL`: memory, disk and time of each stage, before anything is loaded.

MODEL is a model YAML or a checkpoint folder, of which config.json suffices. Memory: weights, gradients,
AdamW and activations are counted from shapes (openvla/footprint.py); what the driver and the allocator
take on top is an allowance. Time: FLOP over the device's peak at an assumed utilization. The batch of a
recipe stays what it is: the micro-batch that fits gives the accumulation.
"""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from invact_vla.core.errors import UserError
from invact_vla.core.machine import MACHINES, Machine, this_machine
from invact_vla.core.run_folder import save_result
from invact_vla.openvla.adapters.lora import LoraConfig, find_targets
from invact_vla.openvla.checkpoints.config_file import load_model_config, read_config
from invact_vla.openvla.config import HeadConfig, OpenVLAConfig
from invact_vla.openvla.footprint import Compute, Footprint, item_bytes

Stage = Literal["inference", "lora", "posttrain", "pretrain"]
GB = 1e9
ITEMS = 100_000  # training pairs, or steps of demonstrations, that disk is told for
PROMPT_TOKENS = 30  # ids of BOS, prompt and separator
ALLOWANCE = 1.0 * GB  # driver, kernels, workspaces of one process on a GPU
SLACK = 1.05  # of what is counted: fragments of the allocator


@dataclass(frozen=True, kw_only=True)
class VLAPlanConfig:
    """A model, a machine, and how it would be used."""

    # model YAML, or checkpoint folder or config.json
    model: Path = Path("configs/vla/model_7b.yaml")
    stages: tuple[Stage, ...] = ("inference", "lora", "posttrain", "pretrain")  # what to plan
    device: str = "here"  # here, cpu, a100-40, a100-80, h100, h200, rtx4090, rtx3090, a6000 or l40s
    memory_gb: float | None = None  # memory of one device; null: that of the device
    utilization: float = 0.4  # fraction of the peak that training reaches
    processes: int = 1  # devices that train together
    # copies of the model (ddp), or one in parts over the devices (fsdp)
    sharding: Literal["ddp", "fsdp"] = "ddp"
    batch_size: int = 32  # samples per step of the recipe, over all processes and accumulation
    steps: int = 10_000  # steps of the recipe
    dtype: Literal["bf16", "fp32"] = "bf16"  # of the weights in inference and under adapters
    precision: Literal["bf16", "fp32"] = "bf16"  # loop.precision: of products under fp32 weights
    gradient_checkpointing: bool = False  # keep each block's input alone, compute blocks twice
    lora: LoraConfig = field(default_factory=LoraConfig)  # adapters of the lora stage
    head: HeadConfig | None = None  # action head, such as oft; null: the model's own
    chunk: int | None = None  # actions per call; null: the model's own
    wrist: bool | None = None  # a wrist camera too; null: as the model has it
    proprio: bool | None = None  # a state token too; null: as the model has it
    code_length: int = 4  # latent codes per pair
    out: Path | None = None  # run folder for plan.json, the numbers

    POSITIONAL = "model"

    def __post_init__(self) -> None:
        for name in ("processes", "batch_size", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.utilization <= 1:
            raise ValueError(f"utilization must be in (0, 1], got {self.utilization}")
        if self.batch_size % self.processes:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be shared by {self.processes} processes: the "
                "recipe's batch must be a multiple of them"
            )


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """Costs of one stage on one device. Bytes; seconds; micro_batch 0 where nothing fits."""

    stage: Stage
    trained: int = 0  # parameters that change
    weights: float
    gradients: float = 0
    optimizer: float = 0
    activations: float  # of the micro-batch
    cache: float = 0  # keys and values while decoding
    total: float  # with the allowance
    fits: bool
    micro_batch: int = 1
    accumulation: int = 1
    checkpoint_bytes: float  # the saved model
    resume_bytes: float = 0  # a checkpoint of the training loop
    frames_bytes: float = 0  # prepared frames of the data
    step_s: float  # of one training step, or of one call
    total_s: float = 0  # of the whole training


def main(config: VLAPlanConfig) -> None:
    """Print the plan; write it as JSON if asked."""
    machine = machine_of(config)
    model = planned_config(config)
    footprint = Footprint(model)
    plans = [plan_stage(stage, config, footprint, machine) for stage in config.stages]
    print("\n".join(report(config, footprint, machine, plans)))
    if config.out is not None:
        numbers = {"machine": asdict(machine), "stages": [asdict(plan) for plan in plans]}
        save_result(
            config.out, config, "plan.json", {"parameters": footprint.parameters, **numbers}
        )


def machine_of(config: VLAPlanConfig) -> Machine:
    """The device that the config names, with the memory that it gives."""
    if config.device != "here" and config.device not in MACHINES:
        raise UserError(
            f"unknown device {config.device!r}: expected here, {', '.join(sorted(MACHINES))}; or one "
            "like it with --memory_gb"
        )
    machine = this_machine() if config.device == "here" else MACHINES[config.device]
    return replace(machine, memory_gb=config.memory_gb or machine.memory_gb)


def planned_config(config: VLAPlanConfig) -> OpenVLAConfig:
    """The model's config with the recipe's head, chunk, cameras and state."""
    path = config.model.parent if config.model.name == "config.json" else config.model
    if not path.exists():
        raise UserError(
            f"no model {path}: expected a model YAML such as configs/vla/model_7b.yaml, or a folder "
            "with config.json"
        )
    model = read_config(path) if path.is_dir() else load_model_config(path)
    own = replace(model.invact, head=config.head or model.invact.head)
    own = replace(own, chunk=config.chunk or own.chunk)
    if config.wrist is not None:
        cameras = ("agentview", "wrist") if config.wrist else ("agentview",)
        own = replace(own, cameras=cameras, image_rotation=())
    if config.proprio is not None:
        own = replace(own, proprio_dim=(own.proprio_dim or 8) if config.proprio else 0)
    return replace(model, invact=own)


def plan_stage(
    stage: Stage, config: VLAPlanConfig, footprint: Footprint, machine: Machine
) -> StagePlan:
    """One stage's costs, and the largest micro-batch that fits."""
    if stage == "inference":
        return _plan_inference(config, footprint, machine)
    per_process = config.batch_size // config.processes
    sizes = [m for m in range(per_process, 0, -1) if per_process % m == 0]
    plans = (_plan_training(stage, config, footprint, machine, size) for size in sizes)
    return next(p for p in plans if p.fits or p.micro_batch == 1)


def _plan_inference(config: VLAPlanConfig, footprint: Footprint, machine: Machine) -> StagePlan:
    item = item_bytes(config.dtype)
    sample = footprint.sample(PROMPT_TOKENS)
    cache = footprint.cache_bytes(sample.length, item)
    # nothing is kept for a backward pass: one block's tensors at a time
    activations = footprint.activation_bytes(sample, config.dtype) / len(footprint.layers)
    weights = footprint.parameters * item
    flops, steps = footprint.decoding(sample)
    read = steps * footprint.read_per_token * item / (machine.bandwidth_gbs * GB)
    seconds = flops / (machine.tflops * 1e12 * config.utilization) + read
    total = _with_allowance(weights + activations + cache, machine)
    return StagePlan(
        stage="inference", weights=weights, activations=activations, cache=cache, total=total,
        fits=total <= machine.memory_gb * GB, checkpoint_bytes=weights, step_s=seconds,
    )  # fmt: skip


def _plan_training(
    stage: Stage, config: VLAPlanConfig, footprint: Footprint, machine: Machine, micro_batch: int
) -> StagePlan:
    lora = stage == "lora"
    dtype = config.dtype if lora else "fp32"
    precision = config.precision if machine.has_bf16 else "fp32"  # as the training loop does
    compute: Compute = "autocast" if (dtype, precision) == ("fp32", "bf16") else dtype
    adapted = find_targets(footprint.model, config.lora) if lora else []
    adapters = footprint.lora_parameters(config.lora.rank, adapted)
    trained = adapters + footprint.extra_parameters if lora else footprint.trained
    item, trained_item = item_bytes(dtype), 4 if lora else item_bytes(dtype)
    sample, images = footprint.sample(PROMPT_TOKENS), footprint.images
    if stage == "pretrain":  # one image of a video, no state
        sample, images = footprint.sample(PROMPT_TOKENS, config.code_length + 1), 1
        sample = replace(sample, extra=footprint.patches)
    scores = machine.kind == "cpu"  # attention is explicit there
    checkpointing = config.gradient_checkpointing
    each = footprint.activation_bytes(sample, compute, checkpointing, scores)
    each += footprint.lora_bytes(config.lora.rank, adapted, sample, checkpointing)
    parts = config.processes if config.sharding == "fsdp" else 1
    held = footprint.parameters * item + adapters * trained_item
    weights, gradients = held / parts, trained * trained_item / parts
    optimizer = 2 * trained * trained_item / parts
    # weights cast to bf16 by autocast; buckets of DDP; the foreach optimizer's intermediate results
    cast = 2 * footprint.parameters if compute == "autocast" else 0
    buckets = gradients if config.processes > 1 and parts == 1 else 0
    # FSDP puts one block together at a time, its weights and its gradients
    gathered = footprint.largest_block * (item + trained_item) if parts > 1 else 0
    activations = micro_batch * each + cast / parts + gathered
    peak = max(activations, trained * trained_item / parts)
    total = _with_allowance(weights + gradients + optimizer + buckets + peak, machine)
    passes = (2 if lora else 3) + checkpointing
    rate = machine.tflops * 1e12 * config.utilization * config.processes
    step_s = config.batch_size * passes * footprint.forward_flops(sample) / rate
    return StagePlan(
        stage=stage, trained=trained, weights=weights, gradients=gradients + buckets,
        optimizer=optimizer, activations=activations, total=total,
        fits=total <= machine.memory_gb * GB, micro_batch=micro_batch,
        accumulation=config.batch_size // config.processes // micro_batch,
        checkpoint_bytes=trained * 4.0 if lora else footprint.parameters * item,
        resume_bytes=(trained * trained_item if lora else held) + 2.0 * trained * trained_item,
        frames_bytes=ITEMS * 3.0 * footprint.config.image_size**2 * images,
        step_s=step_s, total_s=step_s * config.steps,
    )  # fmt: skip


def _with_allowance(used: float, machine: Machine) -> float:
    return used * SLACK + (ALLOWANCE if machine.kind == "cuda" else 0.3 * GB)


def report(
    config: VLAPlanConfig, footprint: Footprint, machine: Machine, plans: list[StagePlan]
) -> list[str]:
    """The plan in words, a line per fact."""
    own = footprint.config.invact
    sample = footprint.sample(PROMPT_TOKENS)
    lines = [
        f"{config.model}: {footprint.parameters:,} parameters, {_size(2.0 * footprint.parameters)} in "
        f"bf16; {sample.length} tokens per sample ({footprint.images} x {footprint.patches} patches, "
        f"{own.chunk} action(s) per call)",
        f"{machine.name}: {machine.memory_gb:g} GB, {machine.tflops:g} TFLOP/s at "
        f"{100 * config.utilization:g} %, {machine.bandwidth_gbs:g} GB/s; {config.processes} "
        f"process(es){f' ({config.sharding})' if config.processes > 1 else ''}",
    ]
    for plan in plans:
        lines += ["", *_stage_lines(plan, config, machine)]
    return lines


def _stage_lines(plan: StagePlan, config: VLAPlanConfig, machine: Machine) -> list[str]:
    parts = {
        "weights": plan.weights, "gradients": plan.gradients, "optimizer": plan.optimizer,
        "activations": plan.activations, "KV cache": plan.cache,
    }  # fmt: skip
    memory = ", ".join(f"{name} {_size(size)}" for name, size in parts.items() if size)
    verdict = "fits" if plan.fits else "DOES NOT FIT"
    head = f"{plan.stage}: {verdict} in {machine.memory_gb:g} GB ({_size(plan.total)} per device)"
    if plan.stage == "inference":
        return [
            head,
            f"  memory  {memory}",
            f"  disk    checkpoint {_size(plan.checkpoint_bytes)}",
            f"  time    {_time(plan.step_s)} per call, {1 / plan.step_s:.3g} calls/s",
        ]
    smaller = {  # and was not asked for yet
        "--gradient_checkpointing true": not config.gradient_checkpointing,
        "--sharding fsdp with more --processes": config.sharding != "fsdp",
        "LoRA instead": plan.stage != "lora",
        "a device with more memory": True,
    }
    remedies = ", ".join(name for name, helps in smaller.items() if helps)
    return [
        head,
        f"  memory  {memory}; {plan.trained:,} parameters trained",
        *([] if plan.fits else [f"  try     {remedies}"]),
        f"  batch   {config.batch_size} = {config.processes} process(es) x micro-batch "
        f"{plan.micro_batch} x accumulation {plan.accumulation} (--loop.micro_batch {plan.micro_batch})",
        f"  disk    checkpoint {_size(plan.checkpoint_bytes)}, training state "
        f"{_size(plan.resume_bytes)}, frames {_size(plan.frames_bytes)} for {ITEMS:,} items",
        f"  time    {_time(plan.step_s)} per step, {_time(plan.total_s)} for {config.steps:,} steps",
    ]


def _size(count: float) -> str:
    """Bytes in words, decimal units as in memory data sheets."""
    units = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0))
    unit, size = next((u for u in units if count >= u[1]), units[-1])
    return f"{count / size:.3g} {unit}" if count < 1000 * size else f"{count / size:,.0f} {unit}"


def _time(seconds: float) -> str:
    units = (("days", 86400.0, 2), ("h", 3600.0, 2), ("min", 60.0, 2), ("s", 1.0, 1))
    found = ((unit, size) for unit, size, least in units if seconds >= least * size)
    unit, size = next(found, ("ms", 1e-3))
    return f"{seconds / size:.3g} {unit}"
