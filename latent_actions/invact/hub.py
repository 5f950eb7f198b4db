"""Encoder folders on the Hugging Face hub: config.json, model.safetensors, README.md (the card) and,
where the encoder reads frozen features, the folder of their model."""

from pathlib import Path

from invact_vla.errors import UserError
from invact_vla.training import hub

FILES = ("config.json", "model.safetensors", "README.md", "features/*")


def push_folder(
    folder: Path, repo_id: str, *, private: bool = False, revision: str = "main"
) -> str:
    """Upload an encoder folder; see `invact_vla.training.hub`."""
    return hub.push_folder(
        folder,
        repo_id,
        private=private,
        revision=revision,
        patterns=FILES,
        message="InvAct encoder",
    )


def fetch_folder(name: str | Path, revision: str | None = None) -> Path:
    """The local folder of an encoder: `name` itself if it is a folder, else the hub's "owner/name"
    (downloaded once into the hub's cache)."""
    if Path(name).is_dir():
        return Path(name)
    if str(name).count("/") != 1 or Path(name).is_absolute():
        raise UserError(
            f"no file {name}/config.json: expected a folder that `invact encoder train` wrote, or "
            '"owner/name" on the hub; correct the path'
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    try:
        return Path(snapshot_download(str(name), revision=revision, allow_patterns=list(FILES)))
    except (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        OSError,
    ) as error:
        raise UserError(
            f"no encoder folder {name}, and the hub gave none of that name: {error}"
        ) from error
