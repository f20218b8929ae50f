"""Properties of the models that no schema shows."""

import posixpath
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from drakkar.v1alpha1 import TrainingJob
from drakkar.v1alpha1.meta import RelativePath

PATH = TypeAdapter(RelativePath)


def accepted(path: str) -> bool:
    try:
        PATH.validate_python(path)
    except ValidationError:
        return False
    return True


@given(st.lists(st.sampled_from(["a", "b.c", ".", "..", "...", ".x", "..y", "", "/"]), max_size=6))
@example(["..", "a"])
@example(["a", "..", "..", "b"])
@example(["...", "..y"])
def test_a_relative_path_never_leaves_its_folder(parts: list[str]) -> None:
    path = "/".join(parts)
    if accepted(path):
        joined = posixpath.normpath(posixpath.join("/volume", path))
        assert joined.startswith("/volume/")


@pytest.mark.parametrize("path", ["a", "runs/first", "a/b.c/d-e_f", ".hidden", "...", "a/", "..y"])
def test_ordinary_paths_are_accepted(path: str) -> None:
    assert accepted(path)


@pytest.mark.parametrize("path", ["", "/", "/a", "..", "../a", "a/..", "a/../b", ".", "a//b", " a"])
def test_other_paths_are_refused(path: str) -> None:
    assert not accepted(path)


def test_objects_read_what_they_write() -> None:
    manifest = {
        "apiVersion": "drakkar.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "a", "namespace": "team"},
        "spec": {"replicas": 2, "recipe": {"name": "pretrain", "config": {"steps": 3}}},
    }
    job = TrainingJob.model_validate(manifest)
    assert job.namespace == "team"
    assert TrainingJob.model_validate(job.wire()) == job


def test_conditions_are_found_by_type() -> None:
    condition = {
        "type": "Complete",
        "status": "True",
        "reason": "Finished",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    job = TrainingJob.model_validate(
        {
            "kind": "TrainingJob",
            "metadata": {"name": "a"},
            "spec": {},
            "status": {"conditions": [condition]},
        }
    )
    assert job.is_true("Complete")
    assert not job.is_true("Failed")


def test_frozen_fields_are_all_but_the_ones_that_may_change() -> None:
    """A field added to the spec is immutable until someone decides otherwise."""
    from drakkar.v1alpha1 import TrainingJobSpec
    from drakkar.v1alpha1.objects import _MUTABLE

    (rule,) = (
        str(r["rule"])
        for r in TrainingJob.KIND.rules
        if "suspend it first and" in str(r["message"])
    )
    compared = set(re.findall(r"has\(self\.spec\.(\w+)\)", rule))
    fields = {info.alias or name for name, info in TrainingJobSpec.model_fields.items()}
    assert fields >= _MUTABLE
    assert compared == fields - _MUTABLE - {"queue"}
