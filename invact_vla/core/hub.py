"""The way out to the Hugging Face hub: a folder into a repository."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from invact_vla.core.errors import UserError


@contextmanager
def hub_errors(repo_id: str) -> Iterator[None]:
    """UserError for a refused login, an unknown name, no network: versions of the hub's client raise
    errors of different HTTP libraries."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"cannot push to {repo_id!r} on the hub: {error}; log in with `hf auth login` and check "
            "the name and the network"
        ) from error


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

    Uses the token of `hf auth login`. UserError as in `hub_errors`.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    with hub_errors(repo_id):
        repo = api.create_repo(repo_id, private=private, exist_ok=True, repo_type="model")
        api.upload_folder(
            repo_id=repo.repo_id,
            folder_path=folder,
            revision=revision,
            allow_patterns=None if patterns is None else list(patterns),
            commit_message=message,
        )
    return str(repo)
