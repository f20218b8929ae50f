"""What all kinds share: naming of fields, conditions, object references."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict

VALIDATIONS: Final = "x-kubernetes-validations"
PATTERN_MESSAGE: Final = "x-drakkar-pattern-message"
"""Schema key: what to write instead, for a value that the pattern refuses (see drakkar.crdgen)."""


def rule(expression: str, message: str) -> JsonDict:
    """A CEL validation rule (KEP-2876); message tells the user what to write.

    Messages are fixed texts: the API server estimates that a messageExpression with string() of a
    number costs more than a whole CRD may.
    """
    return {"rule": expression, "message": message}


def rules(*items: JsonDict) -> ConfigDict:
    """Model configuration that puts CEL rules on the model's schema."""
    return ConfigDict(json_schema_extra={VALIDATIONS: [dict(item) for item in items]})


Name = Annotated[
    str,
    Field(
        min_length=1,
        max_length=253,
        pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        json_schema_extra={
            PATTERN_MESSAGE: "write the name of an object: lower-case letters, digits, '-' and '.'"
        },
    ),
]
"""Name of a Kubernetes object (RFC 1123 subdomain)."""

Opaque = Annotated[
    dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})
]
"""An object that the API server stores as it is, for example a pod template."""

Quantity = Annotated[
    int | str,
    Field(
        json_schema_extra={
            "x-kubernetes-int-or-string": True,
            "maxLength": 32,
            VALIDATIONS: [
                rule(
                    "type(self) == int ? self >= 0 : "
                    "isQuantity(self) && quantity(self).compareTo(quantity('0')) >= 0",
                    "write a quantity of zero or more, such as 4, 500m or 16Gi",
                )
            ],
        }
    ),
]
"""A Kubernetes resource quantity: 4, "500m", "16Gi"."""

RESOURCE_KEYS = rule(
    "self.all(k, k in ['cpu', 'memory', 'ephemeral-storage', 'pods'] || k.contains('/') "
    "|| k.startsWith('hugepages-'))",
    "name resources as Kubernetes does: cpu, memory, ephemeral-storage, hugepages-2Mi or an "
    "extended resource such as nvidia.com/gpu",
)

Resources = Annotated[
    dict[Annotated[str, Field(max_length=253)], Quantity],
    Field(max_length=64, json_schema_extra={VALIDATIONS: [RESOURCE_KEYS]}),
]
"""Resource name -> quantity."""

_SEGMENT = r"(?:[^/.\s][^/]*|\.[^/.][^/]*|\.\.[^/]+)"
RelativePath = Annotated[
    str,
    Field(
        min_length=1,
        max_length=512,
        pattern=f"^{_SEGMENT}(?:/{_SEGMENT})*/?$",
        json_schema_extra={
            PATTERN_MESSAGE: "write a path below the volume such as runs/first, "
            "without a leading '/' and without '.' or '..' parts"
        },
    ),
]
"""A path that cannot leave the folder it is joined to."""


class Model(BaseModel):
    """snake_case in Python, camelCase on the wire; unknown fields are dropped."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True
    )

    def wire(self) -> dict[str, Any]:
        """This object as Kubernetes sees it: camelCase, JSON types, unset fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Condition(Model):
    """A condition after KEP-1623; a list of them is keyed by ``type``."""

    type: str = Field(max_length=64)
    status: Literal["True", "False", "Unknown"]
    reason: str = Field(max_length=128)
    message: str = Field(default="", max_length=4096)
    last_transition_time: datetime
    observed_generation: int | None = None


def now() -> datetime:
    """The current time as Kubernetes writes it: UTC, whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)
