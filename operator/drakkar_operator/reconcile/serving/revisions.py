"""Revisions of a service: what pods are made from, and the spec that an older one still stands for."""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from drakkar.v1alpha1.inferenceservice import REVISION_PARTS, InferenceServiceSpec, Revision


def parts(spec: InferenceServiceSpec) -> dict[str, Any]:
    """The part of a spec that a revision keeps."""
    wire = spec.wire()
    return {name: wire[name] for name in REVISION_PARTS if name in wire}


def revision_name(spec: InferenceServiceSpec) -> str:
    """The same for specs whose pods are alike."""
    text = json.dumps(parts(spec), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def new_revision(
    spec: InferenceServiceSpec, at: datetime, claim: str | None, path: str | None
) -> Revision:
    """The spec's revision; claim and path say where a TrainingJob's checkpoint lies."""
    return Revision(
        name=revision_name(spec), created=at, model_claim=claim, model_path=path, spec=parts(spec)
    )


def spec_of(spec: InferenceServiceSpec, revision: Revision) -> InferenceServiceSpec:
    """The service's spec with the revision's part of it. Raises ValueError if that is malformed."""
    now = json.dumps(spec.wire(), sort_keys=True)
    return _spec_of(now, json.dumps(revision.spec, sort_keys=True))


@lru_cache(maxsize=1024)
def _spec_of(spec: str, parts_: str) -> InferenceServiceSpec:
    now: Mapping[str, Any] = json.loads(spec)
    rest = {name: value for name, value in now.items() if name not in REVISION_PARTS}
    return InferenceServiceSpec.model_validate({**rest, **json.loads(parts_)})
