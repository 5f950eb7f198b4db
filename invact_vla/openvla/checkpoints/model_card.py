"""The model card of an exported OpenVLA: README.md in the hub's layout.

It says what the folder itself shows, and of the run that made it only hashes and versions: paths of the
machine that trained are nobody's business.
"""

import json
from pathlib import Path
from typing import Any

from invact_vla.core.files import read_json
from invact_vla.openvla.config import OpenVLAConfig
from invact_vla.openvla.head_configs import HeadConfig

USE = """from invact_vla.openvla.inference.policy import OpenVLAPolicy
from invact_vla.core.schema import Observation

policy = OpenVLAPolicy.from_pretrained({folder!r}{key})  # this folder
chunk = policy.act(
    Observation(
        agentview=picture,  # uint8 (H, W, 3), upright
        wrist={wrist},
        state=state,  # float32 (8,): position, axis-angle, two gripper joints
        instruction="put the cup on the plate",
    )
)
print(chunk.values)  # float32 ({chunk}, {dim}): {meaning}"""


def model_card(
    name: str,
    config: OpenVLAConfig,
    *,
    parameters: int,
    dtype: str,
    license_name: str | None = None,
    run: Path | None = None,
    beside_stock: list[str],
    beyond_stock: list[str],
) -> str:
    """README.md. name: title, without a path. run: the training run, for its hashes."""
    own = config.invact
    front = ["---", "library_name: invact-vla", "pipeline_tag: robotics"]
    front += [f"license: {license_name}"] if license_name else []
    front += ["tags:", "- robotics", "- vision-language-action", "- openvla", "---"]
    facts = [
        f"{parameters:,} parameters in {dtype}, published OpenVLA key names.",
        f"Action head: {HeadConfig.get_choice_name(type(own.head))}; {own.chunk} action(s) of "
        f"{own.action_dim} numbers per call; cameras: {', '.join(own.cameras)}"
        + (f"; a state of {own.proprio_dim} numbers." if own.proprio_dim else "; no state."),
        f"Prompt: `{json.dumps(own.prompt)}`",
    ]
    if own.latent_token_ids:
        facts.append(f"Latent codes in vocabulary rows {list(own.latent_token_ids)}.")
    sections = [
        "\n".join(front),
        f"# {name}",
        "An OpenVLA vision-language-action model, exported by invact-vla.",
        "\n".join(f"- {fact}" for fact in facts),
        "## Action statistics",
        _statistics(config.norm_stats),
    ]
    if config.norm_stats:
        sections += ["## Use", _use(config)]
    sections += ["## Stock code", _stock(beside_stock, beyond_stock)]
    if run is not None:
        sections += ["## How it was made", _made(run)]
    return "\n\n".join(sections) + "\n"


def _statistics(norm_stats: dict[str, Any]) -> str:
    if not norm_stats:
        return "None: this model was not trained on robot actions, and gives none."
    rows = [
        f"| {key} | {value.get('num_trajectories', '?')} | {value.get('num_transitions', '?')} |"
        for key, value in sorted(norm_stats.items())
    ]
    return "\n".join(["| data set | demonstrations | steps |", "|---|---|---|", *rows])


def _use(config: OpenVLAConfig) -> str:
    own, keys = config.invact, sorted(config.norm_stats)
    words = USE.format(
        folder="FOLDER",
        key=f", {keys[0]!r}" if len(keys) > 1 else "",
        wrist="hand_picture" if "wrist" in own.cameras else "None",
        chunk=own.chunk,
        dim=own.action_dim,
        meaning="six deltas and the gripper, -1 open" if own.action_dim == 7 else "numbers",
    )
    return f"```python\n{words}\n```"


def _stock(beside: list[str], beyond: list[str]) -> str:
    if beyond:
        return (
            "Not for stock OpenVLA or OpenVLA-OFT code, which has no " + "; no ".join(beyond) + "."
        )
    words = [
        "The folder is laid out as OpenVLA (github.com/openvla/openvla) and OpenVLA-OFT save theirs. "
        "Register their classes with transformers' Auto classes first, as their deployment scripts "
        "do: the folder carries no code."
    ]
    return "\n".join(words + [f"- Stock code must be told, or passes over: {w}." for w in beside])


def _made(run: Path) -> str:
    """Hashes and versions of the run; its paths stay where they are."""
    provenance = read_json(run / "provenance.json")
    lines = [f"- run {provenance['key']}, seed {provenance.get('seed')}"]
    lines += [f"- {name}: {p['key']}" for name, p in sorted(provenance["inputs"].items())]
    lines.append(f"- code: {provenance.get('commit') or 'not under git'}")
    packages = sorted(provenance.get("packages", {}).items())
    lines.append("- " + ", ".join(f"{name} {version}" for name, version in packages))
    return "\n".join(lines)
