"""Where the model of a new revision lies, if a TrainingJob makes it. Pure."""

from drakkar.v1alpha1.inferenceservice import InferenceServiceSpec
from drakkar_operator.model import JobView
from drakkar_operator.reconcile.serving.observed import ResolvedModel


def resolve(spec: InferenceServiceSpec, job: JobView | None) -> ResolvedModel:
    """The checkpoint that a revision of this spec would serve; ``job`` is the one that it names."""
    source = spec.model.training_job
    if source is None:
        return ResolvedModel()
    where = f"spec.model.trainingJob: TrainingJob {source.name!r}"
    if job is None:
        return ResolvedModel(problem=f"{where} is not there; name another (kubectl get tj)")
    storage = job.spec.checkpoint.storage
    if storage is None:
        return ResolvedModel(problem=f"{where} keeps no checkpoints: it has no checkpoint.storage")
    claim = storage.persistent_volume_claim
    if claim is None:
        return ResolvedModel(
            problem=f"{where} keeps its checkpoints in an object store, from which nothing can be "
            "served yet: copy one to a volume and name that in spec.model"
        )
    records = sorted(job.status.checkpoints, key=lambda record: record.step)
    if source.step is not None:
        steps = ", ".join(str(record.step) for record in records) or "none"
        records = [record for record in records if record.step == source.step]
        if not records:
            return ResolvedModel(
                problem=f"{where} has no checkpoint of step {source.step}; it has: {steps}"
            )
    if not records:
        return ResolvedModel(problem=f"{where} has no checkpoint yet: waiting for the first")
    return ResolvedModel(claim.claim_name, records[-1].path)
