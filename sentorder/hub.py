"""Models on the Hugging Face Hub: whether they can be uploaded is asked before training, and it is done after it."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from .errors import UserError, first_line


def check_can_push(repository: str) -> None:
    """Whether somebody is logged in who may have such a repository.

    Args:
        repository: ``owner/name``.

    Raises:
        UserError: if not, or the Hub cannot be reached.
    """
    try:
        validate_repo_id(repository)
        if "/" not in repository:
            raise UserError(f"--hub_model_id {repository}: give owner/name.")
        user = HfApi().whoami()
    except HFValidationError as error:
        raise UserError(f"--hub_model_id {repository}: {first_line(error)}") from None
    except (OSError, ValueError) as error:  # offline, no token, a token that has expired
        raise UserError(
            f"--hub_model_id {repository}: the Hub does not know who you are ({first_line(error)}); hf auth login."
        ) from None
    owner = repository.partition("/")[0]
    names = {str(user.get("name")), *(str(group.get("name")) for group in user.get("orgs", ()))}
    if owner not in names:
        raise UserError(f"--hub_model_id {repository}: you are {user.get('name')}, who is not in {owner}.")


def push_model(folder: Path, repository: str) -> str:
    """Upload a model; a repository that is not there is made, and is private.

    Args:
        folder: the ``model/`` folder of a run.
        repository: ``owner/name``.

    Returns:
        Its address.

    Raises:
        UserError: if that fails. The folder stays as it is.
    """
    api = HfApi()
    try:
        address = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="A sentence orderer")
    except (OSError, ValueError) as error:
        raise UserError(
            f"--hub_model_id {repository}: the upload failed ({first_line(error)}). The model is in {folder}; "
            f"hf upload {repository} {folder} tries again."
        ) from None
    return str(address)
