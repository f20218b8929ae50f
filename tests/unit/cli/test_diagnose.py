"""drakkar diagnose against a server."""

from typing import Any

GROUP = "/apis/drakkar.dev/v1alpha1/namespaces/default"
CORE = "/api/v1/namespaces/default"
CONDITION = {
    "type": "Running",
    "status": "True",
    "reason": "Training",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}


def subject(kind: str, **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "drakkar.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "gpt", "namespace": "default"},
        "spec": {},
        "status": {"conditions": [CONDITION], **status},
    }


def pod(**container: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "gpt-0", "uid": "u"},
        "spec": {"nodeName": "n1", "containers": [{"name": "trainer"}]},
        "status": {"containerStatuses": [{"name": "trainer", **container}]},
    }


def test_status_pods_events_and_logs_are_gathered(api: Any, drakkar: Any) -> None:
    api.on("GET", f"{GROUP}/trainingjobs/gpt", subject("TrainingJob"))
    api.on("GET", f"{CORE}/pods", {"items": [pod(restartCount=1, ready=True)]})
    api.on("GET", f"{CORE}/events", {"items": []})
    api.on("GET", f"{CORE}/pods/gpt-0/log", "step 3 loss nan\n")
    result = drakkar("diagnose", "gpt")
    assert result.exit_code == 0, result.output
    assert "TrainingJob default/gpt" in result.output and "on n1" in result.output
    assert "diverged" in result.output and "gpt-0: step 3 loss nan" in result.output
    assert "1 pods" in result.output and "2 lines of logs" in result.output
    asked = [query["previous"] for path, query, _ in api.sent("GET") if path.endswith("/log")]
    assert asked == ["true", "false"]


def test_a_service_of_that_name_is_found_where_there_is_no_job(api: Any, drakkar: Any) -> None:
    api.refuse("GET", f"{GROUP}/trainingjobs/gpt", 404, reason="NotFound", details={"name": "gpt"})
    api.on("GET", f"{GROUP}/inferenceservices/gpt", subject("InferenceService"))
    api.on("GET", f"{CORE}/pods", {"items": []})
    api.on("GET", f"{CORE}/events", {"items": []})
    result = drakkar("diagnose", "gpt")
    assert result.exit_code == 0, result.output
    assert "InferenceService default/gpt" in result.output
    assert "Nothing that is known" in result.output
    selectors = [query.get("labelSelector") for _, query, _ in api.sent("GET")]
    assert "drakkar.dev/service=gpt" in selectors


def test_neither_is_there(api: Any, drakkar: Any) -> None:
    api.refuse("GET", f"{GROUP}/trainingjobs/gpt", 404, reason="NotFound", details={"name": "gpt"})
    api.refuse(
        "GET", f"{GROUP}/inferenceservices/gpt", 404, reason="NotFound", details={"name": "gpt"}
    )
    result = drakkar("diagnose", "gpt")
    assert result.exit_code == 1
    assert "no TrainingJob and no InferenceService default/gpt" in result.output + str(
        result.stderr
    )


def test_logs_that_are_not_there_yet_and_events_of_others_do_no_harm(
    api: Any, drakkar: Any
) -> None:
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "x:1 not found"}}
    other = {"reason": "Unhealthy", "message": "m", "involvedObject": {"kind": "Pod", "name": "o"}}
    api.on("GET", f"{GROUP}/trainingjobs/gpt", subject("TrainingJob"))
    api.on("GET", f"{CORE}/pods", {"items": [pod(state=waiting, ready=False)]})
    api.on("GET", f"{CORE}/events", {"items": [{**other, "metadata": {"name": "e"}}]})
    api.refuse("GET", f"{CORE}/pods/gpt-0/log", 400, reason="BadRequest", message="waiting")
    result = drakkar("diagnose", "gpt")
    assert result.exit_code == 0, result.output
    assert "can't be pulled" in result.output and "0 events" in result.output
