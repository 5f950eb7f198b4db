"""The way out to the Hugging Face hub: a folder into a repository."""

from collections.abc import Sequence
from pathlib import Path

from invact_vla.core.errors import UserError


def push_folder(
    folder: Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str = "main",
    patterns: Sequence[str] | None = None,
    message: str = "Upload",
) -> str:
    """Upload a folder (or the files in it that fit `patterns`) into `repo_id` ("owner/name"), made if
    it is new; returns its address.

    Uses the token of `hf auth login`. UserError on a refused login, an unknown name, no network.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    api = HfApi()
    try:
        repo = api.create_repo(repo_id, private=private, exist_ok=True, repo_type="model")
        api.upload_folder(
            repo_id=repo.repo_id,
            folder_path=folder,
            revision=revision,
            allow_patterns=None if patterns is None else list(patterns),
            commit_message=message,
        )
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:
        raise UserError(
            f"cannot push to {repo_id!r} on the hub: {error}; log in with `hf auth login` and check "
            "the name and the network"
        ) from error
    return str(repo)
