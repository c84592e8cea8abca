"""How large the body of a request may be, by its route, and whose it is."""

import re

from starlette.types import Scope

from osora_common.bodies import Allowance
from registry.uploads import PART_BYTES

_JSON_BYTES = 4 * 1024 * 1024
_MULTIPART_BYTES = 64 * 1024
"""What an upload has around the file."""
_SPOOLED_BYTES = 1024 * 1024
"""What is kept in memory of a file before it goes to a disk: Starlette's own limit."""
_FILES = re.compile(r"(/v1)?/files|/adapters")
_PARTS = re.compile(r"(/v1)?/uploads/[^/]+/parts")


class Allowances:
    """Files and adapters may have `upload_bytes`, parts of one as many as a part, all other bodies a few megabytes."""

    def __init__(self, upload_bytes: int) -> None:
        self._upload_bytes = upload_bytes

    def __call__(self, scope: Scope) -> Allowance:
        """What this request's body may be."""
        if scope["method"] == "POST" and _FILES.fullmatch(scope["path"]):
            return Allowance(self._upload_bytes + _MULTIPART_BYTES, _SPOOLED_BYTES)
        if scope["method"] == "POST" and _PARTS.fullmatch(scope["path"]):
            return Allowance(PART_BYTES + _MULTIPART_BYTES, _SPOOLED_BYTES)
        return Allowance(_JSON_BYTES, _JSON_BYTES)


def tenant_of(scope: Scope) -> str:
    """Whose memory a body takes."""
    principal = scope["state"].get("principal")
    return principal.tenant_id if principal else ""
