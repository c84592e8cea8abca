"""A base model on a model hub: whether it can be had, in one attempt, with one sentence if not."""

import re
from dataclasses import dataclass
from pathlib import Path

from osora_common.unusable_base import NoSuchBaseError, UnusableBaseError

_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_SECONDS = 5.0
_LOCAL = "download it elsewhere and name its directory, as `name=path` in OSORA_BASES"


@dataclass(frozen=True)
class HubModel:
    """What the hub has of a model. `source` is for from_pretrained, `folder` has its small files, and `names` are those
    of all its files; None if the folder is all that there is, because the hub is not asked or does not answer."""

    source: str
    folder: Path
    names: frozenset[str] | None


def is_hub_name(base: str) -> bool:
    """Whether it may be a model on a hub: `owner/name`."""
    return _NAME.fullmatch(base) is not None


def downloaded(name: str) -> Path | None:
    """The directory of a model that was downloaded before."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(name, "config.json")
    return Path(path).parent if isinstance(path, str) else None


def ask_hub(name: str) -> HubModel:
    """Look a model up. Where the hub does not answer, what was downloaded before is taken. Raises UnusableBaseError."""
    from huggingface_hub import HfApi, constants, hf_hub_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    here = downloaded(name)
    if constants.HF_HUB_OFFLINE:
        if here is None:
            raise NoSuchBaseError(
                f"the base model {name!r} was never downloaded, and HF_HUB_OFFLINE is set",
                f"unset HF_HUB_OFFLINE for its first start, or {_LOCAL}",
            )
        return HubModel(str(here), here, None)
    try:
        info = HfApi().model_info(name, timeout=_SECONDS)
        names = frozenset(sibling.rfilename for sibling in info.siblings or ())
        small = [small for small in ("config.json", "tokenizer_config.json") if small in names]
        folders = [Path(hf_hub_download(name, file, etag_timeout=_SECONDS)).parent for file in small]
    except GatedRepoError as error:
        raise UnusableBaseError(
            f"the base model {name!r} is gated: the hub gives it only to those who have accepted its terms",
            f"accept them at {constants.ENDPOINT}/{name} and set HF_TOKEN to a token of that account, or {_LOCAL}",
        ) from error
    except RepositoryNotFoundError as error:
        raise NoSuchBaseError(
            f"no base model called {name!r}: there is no such directory here, and {constants.ENDPOINT} has no such "
            "model or keeps it private",
            f"check the name, set HF_TOKEN if the model is private, or {_LOCAL}",
        ) from error
    except Exception as error:  # of whichever HTTP client the hub's library has
        if here is not None:
            return HubModel(str(here), here, None)
        status = error.response.status_code if isinstance(error, HfHubHTTPError) and error.response else None
        reason = f"answers with the status {status}" if status else f"does not answer ({type(error).__name__})"
        raise UnusableBaseError(
            f"the base model {name!r} is no directory here and cannot be downloaded: {constants.ENDPOINT} {reason}",
            f"check the path or the network, or {_LOCAL}",
        ) from error
    if not folders:
        raise UnusableBaseError(
            f"the base model {name!r} cannot be loaded: the hub has no config.json of it",
            "name a model that transformers can load; an adapter is no base",
        )
    return HubModel(name, folders[0], names)
