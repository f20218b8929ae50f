"""Names in paths: only what Kubernetes allows, so that none can lead to another path."""

from typing import Annotated

from fastapi import Path

_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"

Namespace = Annotated[str, Path(pattern=_LABEL, max_length=63)]
Name = Annotated[str, Path(pattern=_SUBDOMAIN, max_length=253)]
