"""Known patterns of what goes wrong. Each is a function of the facts; what stops the object from
running at all comes first."""

import re
from collections import Counter
from collections.abc import Callable, Iterator

from drakkar.diagnose.facts import Facts, Finding, Object

LINES = 3
"""So many pieces of evidence are shown at most."""
_PULL = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
_CONFIG = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_BAD_SPEC = {
    "InvalidSpec": "Correct the field and apply again.",
    "ConfigError": "Correct spec.recipe.config; docs/reference/recipes.md has all fields.",
    "QueueNotFound": "Create the queue or name another: drakkar get queues.",
    "ClaimNotFound": "Create the claim in the same namespace: kubectl get pvc.",
}
_EVICTIONS = {
    "Preempted": "A job of higher priority needed its place.",
    "Reclaimed": "Another queue took back the quota that it had lent.",
    "Moved": "It was moved so that another job finds room.",
    "PodEvicted": "The kubelet evicted a pod: its node ran out of something.",
}
_NOT_CODE = {
    *_EVICTIONS,
    *("DeviceFault", "DeviceOutOfMemory", "NodeLost", "OOMKilled", "PeerLost", "PodDeleted"),
    *("PodFailed", "PodLost", "ProcessHung", "ProcessKilled", "ProcessLeft", "ProcessStuck"),
    *("Refused", "ServerCrashed", "ServerHung"),
}
_DEVICE_MEMORY = re.compile(r"(CUDA|HIP|NPU|device).{0,20}out of memory|OutOfMemoryError", re.I)
_DEVICE = re.compile(
    r"\bXid\b|uncorrectable ECC|device-side assert|fallen off the bus|CUDA error: (?!out of memory)",
    re.I,
)
_NAN = re.compile(r"\bloss\b\W{0,4}(is |= ?)?\W?nan\b", re.I)
_EXCEPTION = re.compile(
    r"^(?:\[rank\d+\]: ?)?((?:[\w.]*\.)?[A-Z]\w*(?:Error|Exception|Interrupt))\b"
)
_NUMBERS = re.compile(r"0x[0-9a-f]+|\d+(\.\d+)?")


def diagnose(facts: Facts) -> list[Finding]:
    """All that is known to be wrong."""
    return [finding for pattern in PATTERNS for finding in pattern(facts)]


def unseen(facts: Facts) -> Iterator[Finding]:
    """The operator has said nothing of it."""
    if not facts.status.get("conditions") and not facts.status.get("phase"):
        yield Finding(
            "Drakkar's operator has not seen it.",
            ("the status has no conditions",),
            "See whether the operator runs and leads: kubectl -n drakkar-system get pods,lease. It may "
            "be limited to other namespaces (watchNamespaces).",
        )


def bad_spec(facts: Facts) -> Iterator[Finding]:
    """The spec, or something that it names, can't be used."""
    for condition in facts.status.get("conditions") or ():
        reason = str(condition.get("reason", ""))
        if reason in _BAD_SPEC and _message(condition):
            yield Finding("Its spec can't be used.", (_message(condition),), _BAD_SPEC[reason])


def quota(facts: Facts) -> Iterator[Finding]:
    """The namespace's ResourceQuota, or an admission policy, refuses its pods."""
    told = [_message(event) for event in facts.events] + [
        _message(each) for each in facts.status.get("conditions") or ()
    ]
    for word, cause, advice in (
        (
            "exceeded quota",
            "A ResourceQuota of the namespace is used up.",
            "Lower what the pods request, end other pods of the namespace, or have the quota raised: "
            "kubectl describe resourcequota.",
        ),
        (
            "violates PodSecurity",
            "The namespace's Pod Security level forbids its pods.",
            "Change spec.template as the message says, or use a namespace with another level.",
        ),
    ):
        found = _unique(text for text in told if word in text)
        if found:
            yield Finding(cause, found, advice)


def pending(facts: Facts) -> Iterator[Finding]:
    """It waits for a place."""
    admitted = facts.condition("Admitted")
    reason = facts.status.get("pendingReason") or (
        _message(admitted) if admitted.get("status") == "False" else ""
    )
    if not reason or admitted.get("reason") in _BAD_SPEC:
        return
    advice = "See what would help, and what it would cost others: drakkar plan -f FILE."
    if "quota" in reason or "borrow" in reason:
        advice = (
            "Its queue may use no more for now: drakkar get queues. Wait for jobs of the queue, "
        )
        advice += "have its quota or borrowing raised, or ask for less."
    elif re.search(r"\b(rack|block|zone|domain)\b", reason) and "required" in reason:
        advice = "Loosen spec.topology.required, or use fewer replicas per group: drakkar topology."
    yield Finding("It waits for a place.", (str(reason),), advice)


def image(facts: Facts) -> Iterator[Finding]:
    """An image can't be pulled."""
    found = _waiting(facts, _PULL)
    if found:
        yield Finding(
            "An image can't be pulled.",
            found,
            "Check the image's name and tag, that the nodes reach the registry, and "
            "imagePullSecrets of the namespace.",
        )


def container_config(facts: Facts) -> Iterator[Finding]:
    """The kubelet can't make the container."""
    found = _waiting(facts, _CONFIG)
    if found:
        yield Finding(
            "A container can't be made from its pod's spec.",
            found,
            "Create the ConfigMap or Secret that the message names, or correct spec.template.",
        )


def memory(facts: Facts) -> Iterator[Finding]:
    """A container was killed for its memory."""
    found = [
        f"{pod}: container {each['name']} was OOMKilled"
        for pod, each in facts.containers()
        for state in ("state", "lastState")
        if ((each.get(state) or {}).get("terminated") or {}).get("reason") == "OOMKilled"
    ]
    found += _restarts(facts, {"OOMKilled"})
    if found:
        yield Finding(
            "It ran out of the memory that its containers may use.",
            _unique(found),
            "Raise spec.resources.limits.memory, or make it use less: a smaller batch, fewer data "
            "workers, checkpoint.memoryEverySteps: 0.",
        )


def device_memory(facts: Facts) -> Iterator[Finding]:
    """The accelerator's memory was too small."""
    found = [*_restarts(facts, {"DeviceOutOfMemory"}), *_lines(facts, _DEVICE_MEMORY)]
    if found:
        yield Finding(
            "An accelerator ran out of memory.",
            _unique(found),
            "Use a smaller batch per rank, shorter sequences, activation checkpointing or more ranks "
            "to shard over.",
        )


def device_fault(facts: Facts) -> Iterator[Finding]:
    """An accelerator failed."""
    found = [*_restarts(facts, {"DeviceFault"}), *_lines(facts, _DEVICE)]
    if found:
        yield Finding(
            "An accelerator failed.",
            _unique(found),
            "The job continues on other devices. See docs/runbooks/DrakkarDeviceFault.md for the node.",
        )


def exception(facts: Facts) -> Iterator[Finding]:
    """The same exception again and again: the code's own fault."""
    kinds: Counter[tuple[str, str]] = Counter()
    words: dict[tuple[str, str], str] = {}
    for each in facts.restarts:
        reason = str(each.get("reason", ""))
        if reason and reason not in _NOT_CODE:
            kind = (reason, _NUMBERS.sub("#", _message(each)))
            kinds[kind] += 1
            words[kind] = f"{reason}: {_message(each)}"
    repeated = [kind for kind, count in kinds.most_common() if count > 1]
    for kind in repeated[:1]:
        yield Finding(
            f"The same exception ended it {kinds[kind]} times.",
            (words[kind],),
            "Restarts do not mend it: correct the script or its data. drakkar logs has the traceback.",
        )
    failed = facts.condition("Failed")
    if not repeated and failed.get("status") == "True" and _message(failed):
        reason = str(failed.get("reason", ""))
        if reason not in _BAD_SPEC:
            yield Finding(
                "It has failed.",
                _unique([f"{reason}: {_message(failed)}", *_lines(facts, _EXCEPTION)]),
                "The message has the cause of the last failure; drakkar describe has those before.",
            )


def crash_loop(facts: Facts) -> Iterator[Finding]:
    """A container ends as soon as it starts."""
    pods = [
        pod
        for pod, each in facts.containers()
        if ((each.get("state") or {}).get("waiting") or {}).get("reason") == "CrashLoopBackOff"
    ]
    for pod in dict.fromkeys(pods):
        last = tuple(line.strip() for line in facts.logs.get(pod, ())[-LINES:] if line.strip())
        yield Finding(
            f"{pod} ends again and again soon after its start.",
            last or (f"{pod}: CrashLoopBackOff",),
            f"The last lines of its log have the cause: kubectl logs {pod} --previous.",
        )


def not_a_number(facts: Facts) -> Iterator[Finding]:
    """The training has diverged."""
    found = _lines(facts, _NAN)
    loss = (facts.status.get("progress") or {}).get("loss")
    if isinstance(loss, float) and loss != loss:
        found = [*found, "status.progress.loss is NaN"]
    if found:
        yield Finding(
            "The loss is not a number: the training has diverged.",
            _unique(found),
            "Go back to a checkpoint of before (checkpoint.restoreFrom) with a lower learning rate, "
            "longer warmup or gradient clipping. If the data is to blame, skip it.",
        )


def hang(facts: Facts) -> Iterator[Finding]:
    """Ranks that did not go on."""
    found = _restarts(facts, {"ProcessHung", "ProcessStuck"})
    if found:
        nodes = Counter(str(each["node"]) for each in _of(facts, {"ProcessHung", "ProcessStuck"}))
        node, count = nodes.most_common(1)[0]
        where = f" {count} times on {node}: drakkar node check." if count > 1 and node else ""
        yield Finding(
            "A rank hung.",
            _unique(reversed(found)),
            "Its log has the stacks of all threads: drakkar logs --rank N." + where,
        )


def straggler(facts: Facts) -> Iterator[Finding]:
    """A slow rank."""
    found = _unique(map(str, facts.status.get("stragglers") or ()))
    if found:
        yield Finding(
            "All ranks wait for a slow one.",
            found,
            "See docs/runbooks/DrakkarStraggler.md: heat, another process on the node, or its data.",
        )


def node_lost(facts: Facts) -> Iterator[Finding]:
    """A node went away."""
    found = _restarts(facts, {"NodeLost"})
    if found:
        yield Finding(
            "It lost a node.",
            _unique(reversed(found)),
            "The ranks got other nodes. If a node is lost often, cordon it: kubectl get nodes.",
        )


def evicted(facts: Facts) -> Iterator[Finding]:
    """It had to make room."""
    for reason, cause in _EVICTIONS.items():
        found = _restarts(facts, {reason})
        if found:
            advice = (
                "It goes on from what it saved. Use a higher priority class or a queue with quota "
            )
            advice += "of its own if that happens too often; movable: false forbids moves."
            if reason == "PodEvicted":
                advice = "Request what the pod really uses of memory and ephemeral-storage."
            yield Finding(cause, _unique(reversed(found)), advice)


def unready(facts: Facts) -> Iterator[Finding]:
    """A container runs and does not get ready."""
    waiting = {pod for pod, each in facts.containers() if not each.get("ready", True)}
    found = [
        f"{_pod_of(event)}: {_message(event)}"
        for event in facts.events
        if event.get("reason") == "Unhealthy" and _pod_of(event) in waiting
    ]
    if found:
        yield Finding(
            "A pod runs but is not ready.",
            _unique(reversed(found)),
            "A model that is still being loaded is normal. Else see the pod's log, and whether its "
            "port and path are those of the probe.",
        )


PATTERNS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    *(unseen, bad_spec, quota, pending, image, container_config, exception, crash_loop),
    *(memory, device_memory, not_a_number, device_fault, hang, unready),
    *(node_lost, straggler, evicted),
)


def _waiting(facts: Facts, reasons: set[str]) -> tuple[str, ...]:
    found = []
    for pod, each in facts.containers():
        waiting = (each.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in reasons:
            said = _message(waiting) or str(each.get("image", ""))
            found.append(f"{pod}: {waiting['reason']}: {said}")
    return _unique(found)


def _of(facts: Facts, reasons: set[str]) -> list[Object]:
    return [
        {"node": "", "message": "", **each}
        for each in facts.restarts
        if each.get("reason") in reasons
    ]


def _restarts(facts: Facts, reasons: set[str]) -> list[str]:
    found = []
    for each in _of(facts, reasons):
        where = f" on {each['node']}" if each["node"] else ""
        at = f" at {each['time']}" if each.get("time") else ""
        found.append(f"{each['reason']}{where}{at}: {_message(each)}".rstrip(": "))
        found += [str(word) for word in each.get("evidence") or ()]
    return found


def _lines(facts: Facts, pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{pod}: {line.strip()[:300]}"
        for pod, lines in facts.logs.items()
        for line in lines
        if pattern.search(line)
    ]


def _message(item: Object) -> str:
    return str(item.get("message") or item.get("note") or "").strip()


def _pod_of(event: Object) -> str:
    return str((event.get("involvedObject") or {}).get("name", ""))


def _unique(words: "Iterator[str] | list[str] | reversed[str] | map[str]") -> tuple[str, ...]:
    """The first few that differ in more than numbers."""
    found: dict[str, str] = {}
    for word in words:
        found.setdefault(_NUMBERS.sub("#", word), word)
    return tuple(found.values())[:LINES]
