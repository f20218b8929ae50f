"""Shared volumes: `python -m drakkar.local.storage --kubeconfig FILE --folder FOLDER`.

A provisioner for the storage class `drakkar-shared`. All nodes are on one machine, so a folder of
it is a volume that every node reads and writes at once. Folders are made for new claims and
deleted, with what is in them, when the claim is.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import shutil
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from drakkar.local.errors import ClusterError
from drakkar.local.kubeapi import KubeApi
from drakkar.local.manifests import PROVISIONER, STORAGE_CLASS

CLAIMS = "/api/v1/persistentvolumeclaims"
VOLUMES = "/api/v1/persistentvolumes"

_PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
_RESYNC_SECONDS = 30
_RETRY_SECONDS = 1.0

Object = dict[str, Any]

log = logging.getLogger("drakkar.storage")


@dataclass(frozen=True, slots=True)
class Work:
    """What has to be done: volumes to make, and names of volumes to delete."""

    create: list[Object]
    delete: list[str]


def volume_for(claim: Object, folder: Path) -> Object:
    """The PersistentVolume for a claim; its folder is named like it."""
    metadata, spec = claim["metadata"], claim["spec"]
    name = f"pvc-{metadata['uid']}"
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {_PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "accessModes": spec["accessModes"],
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
            "hostPath": {"path": str(folder / name), "type": "Directory"},
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": STORAGE_CLASS,
            "volumeMode": "Filesystem",
        },
    }


def plan(claims: Iterable[Object], volumes: Iterable[Object], folder: Path) -> Work:
    """Compare claims and volumes. Claims for raw blocks are left waiting: there are none."""
    volumes = list(volumes)
    existing = {volume["metadata"]["name"] for volume in volumes}
    wanted = [
        volume_for(claim, folder)
        for claim in claims
        if claim["spec"].get("storageClassName") == STORAGE_CLASS
        and not claim["spec"].get("volumeName")
        and claim["spec"].get("volumeMode", "Filesystem") == "Filesystem"
        and not claim["metadata"].get("deletionTimestamp")
    ]
    released = [
        volume["metadata"]["name"]
        for volume in volumes
        if (volume["metadata"].get("annotations") or {}).get(_PROVISIONED_BY) == PROVISIONER
        and volume.get("status", {}).get("phase") in ("Released", "Failed")
        and volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete"
        and not volume["metadata"].get("deletionTimestamp")
    ]
    create = [volume for volume in wanted if volume["metadata"]["name"] not in existing]
    return Work(create=create, delete=released)


def apply(work: Work, api: KubeApi, folder: Path) -> None:
    """Do the work: the folder is there before its volume, and gone before its volume is."""
    for volume in work.create:
        path = Path(volume["spec"]["hostPath"]["path"])
        path.mkdir(parents=True, exist_ok=True)
        # Any user of any pod may write, whatever the umask of this process.
        path.chmod(0o777)
        if api.create(VOLUMES, volume):
            claim = volume["spec"]["claimRef"]
            log.info("made %s for claim %s/%s", path.name, claim["namespace"], claim["name"])
    for name in work.delete:
        shutil.rmtree(folder / name, ignore_errors=True)
        api.delete(f"{VOLUMES}/{name}")
        log.info("deleted %s", name)


class Provisioner:
    """Does the work whenever claims or volumes change, and every half minute besides."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        self._kubeconfig = kubeconfig
        self._folder = folder
        self._changed = threading.Event()

    def run(self) -> None:
        """Never returns. An API server that is away is waited for."""
        for path in (CLAIMS, VOLUMES):
            threading.Thread(target=self._watch, args=(path,), daemon=True).start()
        api = KubeApi(self._kubeconfig)
        while True:
            self._changed.clear()
            try:
                apply(plan(api.list(CLAIMS), api.list(VOLUMES), self._folder), api, self._folder)
            except (ClusterError, httpx.HTTPError, OSError) as error:
                log.warning("will try again: %s", error)
                time.sleep(_RETRY_SECONDS)
                continue
            self._changed.wait(_RESYNC_SECONDS)

    def _watch(self, path: str) -> None:
        """Signal every change of a collection, and every gap in what was seen."""
        api = KubeApi(self._kubeconfig)
        while True:
            with contextlib.suppress(ClusterError, httpx.HTTPError, ValueError, KeyError):
                version = api.get(path, limit="1")["metadata"]["resourceVersion"]
                self._changed.set()
                for _ in api.watch(path, version, seconds=300):
                    self._changed.set()
            time.sleep(_RETRY_SECONDS)


def main() -> None:
    """Run the provisioner until it is stopped."""
    parser = argparse.ArgumentParser(description="Provisions shared volumes of a local cluster.")
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    Provisioner(arguments.kubeconfig, arguments.folder).run()


if __name__ == "__main__":
    main()
