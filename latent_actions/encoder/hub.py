"""Encoder folders on the Hugging Face hub: config.json, model.safetensors, README.md (the card) and,
where the encoder reads frozen features, the folder of their model."""

from pathlib import Path

from invact_vla.core import hub
from latent_actions.published_model import fetch

FILES = ("config.json", "model.safetensors", "README.md", "features/*")


def push_folder(
    folder: Path, repo_id: str, *, private: bool = False, revision: str = "main"
) -> str:
    """Upload an encoder folder; see `invact_vla.core.hub`."""
    return hub.push_folder(
        folder,
        repo_id,
        private=private,
        revision=revision,
        patterns=FILES,
        message="InvAct encoder",
    )


def fetch_folder(name: str | Path) -> Path:
    """The local folder of an encoder: `name` itself if it is a folder, else the hub's "owner/name" or
    "owner/name@revision" (downloaded once into the hub's cache)."""
    return fetch(str(name), FILES)
