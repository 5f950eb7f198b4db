"""The way out to the Hugging Face hub: a folder into a repository."""

from contextlib import AbstractContextManager
from pathlib import Path

from invact_vla.core.limits import one_line


def hub_errors(repo_id: str) -> AbstractContextManager[None]:
    """UserError for a refused login, an unknown name, no network: versions of the hub's client raise
    errors of different HTTP libraries."""
    return one_line(
        f"cannot push to {repo_id!r} on the hub: {{error}}; log in with `hf auth login` and check the "
        "name and the network"
    )


def push_folder(folder: Path, repo_id: str, private: bool) -> str:
    """Upload a folder into `repo_id` ("owner/name"), made if it is new; returns its address.

    Uses the token of `hf auth login`. UserError as in `hub_errors`.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    with hub_errors(repo_id):
        repo = api.create_repo(repo_id, private=private, exist_ok=True, repo_type="model")
        api.upload_folder(
            repo_id=repo.repo_id, folder_path=folder, commit_message="OpenVLA checkpoint"
        )
    return str(repo)
