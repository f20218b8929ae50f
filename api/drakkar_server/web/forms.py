"""The form to submit a job: templates, and reading what was written."""

from typing import Any, Final

import yaml

from drakkar_server.problems import ProblemError

MOST_CHARACTERS: Final = 200_000

TEMPLATES: Final = {
    "pretrain": """\
apiVersion: drakkar.dev/v1alpha1
kind: TrainingJob
metadata:
  name: gpt
  namespace: default
spec:
  replicas: 2
  recipe:
    name: pretrain
    config:
      model: {layers: 4, hidden: 128, heads: 4}
      data: {source: bible-kjv, tokenizer: bytes}
      steps: 400
      batchSize: 16
      sequenceLength: 128
  resources:
    requests: {cpu: 500m, memory: 1Gi}
  topology:
    preferred: rack
""",
    "script": """\
apiVersion: drakkar.dev/v1alpha1
kind: TrainingJob
metadata:
  name: my-script
  namespace: default
spec:
  replicas: 2
  processesPerReplica: 8
  accelerators: {resource: nvidia.com/gpu, count: 8}
  image: example.com/team/trainer:1.0
  template:
    spec:
      containers:
        - name: trainer
          command: [python, train.py]
  topology:
    required: rack
  checkpoint:
    everySteps: 100
    storage:
      persistentVolumeClaim: {claimName: runs}
""",
    "plain": """\
apiVersion: drakkar.dev/v1alpha1
kind: TrainingJob
metadata:
  name: plain
  namespace: default
spec:
  replicas: 2
  runtime: plain
  template:
    spec:
      containers:
        - name: main
          command: [/bin/sh, -c, "echo rank $RANK of $WORLD_SIZE; sleep 30"]
          resources:
            requests: {cpu: 50m, memory: 32Mi}
""",
}
"""Name -> manifest to start from."""


class _Loader(yaml.SafeLoader):
    """Without aliases: a few lines of them stand for gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not taken here")
        return super().compose_node(parent, index)


def manifest_of(text: str, kind: str = "TrainingJob") -> dict[str, Any]:
    """The one object of a YAML text. Raises ProblemError."""
    if len(text) > MOST_CHARACTERS:
        raise ProblemError(413, f"The manifest has more than {MOST_CHARACTERS} characters.")
    try:
        found = [item for item in yaml.load_all(text, Loader=_Loader) if item is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ProblemError(422, f"This is not YAML: {' '.join(str(error).split())}.") from None
    if len(found) != 1 or not isinstance(found[0], dict):
        raise ProblemError(422, f"Write one {kind} here; apply other objects with kubectl.")
    return found[0]
