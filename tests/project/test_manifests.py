"""The Kubernetes and KServe manifests: valid, consistent with each other, and safe by what they say."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
KUBERNETES = "1.34"

# Field names of KServe's Python models (kserve 0.21), as far as these manifests may use them. A pod's own fields are
# checked by the schema of Kubernetes.
SERVICE_FIELDS = {"predictor", "transformer", "explainer", "canary"}
PREDICTOR_FIELDS = {
    *"autoScaling batcher canaryTrafficPercent containerConcurrency logger maxReplicas minReplicas model".split(),
    *"scaleMetric scaleMetricType scaleTarget storageUris timeout".split(),
}
MODEL_FIELDS = {"modelFormat", "protocolVersion", "runtime", "runtimeVersion", "storage", "storageUri"}
RUNTIME_FIELDS = {
    *"annotations builtInAdapter disabled labels multiModel protocolVersions replicas supportedModelFormats".split(),
}
FORMAT_FIELDS = {"name": str, "version": str, "autoSelect": bool, "priority": int}


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(DEPLOY.rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            yield f"{path.parent.name}/{path.name} {document['kind']}", document


DOCUMENTS = dict(documents())


def check(document: dict[str, Any]) -> None:
    """Raise where a document is not valid, by the schema of its kind."""
    CHECKS.get(document["kind"], check_kubernetes)(copy.deepcopy(document))


def check_kubernetes(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, KUBERNETES, strict=True)


def check_inference_service(document: dict[str, Any]) -> None:
    assert document["apiVersion"] == "serving.kserve.io/v1beta1"
    assert document["spec"].keys() <= SERVICE_FIELDS
    predictor = document["spec"]["predictor"]
    own = {name: predictor.pop(name) for name in PREDICTOR_FIELDS & predictor.keys()}
    assert all(isinstance(own[name], int) for name in ("minReplicas", "maxReplicas", "scaleTarget"))
    assert own["scaleMetric"] in ("cpu", "memory", "concurrency", "rps")
    model = own["model"]
    served = {name: model.pop(name) for name in MODEL_FIELDS & model.keys()}
    assert served["modelFormat"].keys() <= {"name", "version"}
    assert served["storageUri"].partition("://")[0] in ("pvc", "s3", "gs", "oci", "https")
    check_pod(document["metadata"], {**predictor, "containers": [{"name": "kserve-container", "image": "x", **model}]})


def check_serving_runtime(document: dict[str, Any]) -> None:
    assert document["apiVersion"] == "serving.kserve.io/v1alpha1"
    spec = document["spec"]
    own = {name: spec.pop(name) for name in RUNTIME_FIELDS & spec.keys()}
    assert set(own["protocolVersions"]) <= {"v1", "v2", "grpc-v1", "grpc-v2"}
    for form in own["supportedModelFormats"]:
        assert all(isinstance(value, FORMAT_FIELDS[name]) for name, value in form.items())
    assert "kserve-container" in [container["name"] for container in spec["containers"]]
    check_pod(document["metadata"], spec)


def check_pod(metadata: dict[str, Any], spec: dict[str, Any]) -> None:
    """What KServe makes of it is a pod: everything that is not KServe's own must be a pod's."""
    check_kubernetes({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


CHECKS = {"InferenceService": check_inference_service, "ServingRuntime": check_serving_runtime}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_manifests_are_valid(name: str) -> None:
    check(DOCUMENTS[name])


def change(name: str, path: str, value: Any) -> dict[str, Any]:
    """A copy of a document with one value replaced, by a path such as spec/containers/0/image."""
    document = copy.deepcopy(DOCUMENTS[name])
    *parents, last = path.split("/")
    inner: Any = document
    for part in parents:
        inner = inner[int(part)] if part.isdecimal() else inner[part]
    inner[last] = value
    return document


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("kubernetes/triton.yaml Deployment", "spec/template/spec/containers/0/livenessprobe", {}),
        ("kubernetes/triton.yaml Deployment", "spec/template/spec/containers/0/env/0/value", 0),
        ("kubernetes/triton.yaml Service", "spec/ports/0/port", "http"),
        ("kubernetes/autoscaler.yaml HorizontalPodAutoscaler", "spec/metrics/0/pods/target/average", "4"),
        ("kubernetes/models.yaml PersistentVolumeClaim", "spec/accessMode", "ReadWriteMany"),
        ("kserve/runtime.yaml ServingRuntime", "spec/supportedModelFormat", []),
        ("kserve/runtime.yaml ServingRuntime", "spec/containers/0/arg", []),
        ("kserve/inference-service.yaml InferenceService", "spec/predictor/model/storageURI", "pvc://x"),
        ("kserve/inference-service.yaml InferenceService", "spec/predictor/minReplica", 1),
        ("kserve/inference-service.yaml InferenceService", "spec/predictors", {}),
    ],
)
def test_a_misspelt_field_is_told(name: str, path: str, value: Any) -> None:
    with pytest.raises((kubernetes_validate.ValidationError, AssertionError)):
        check(change(name, path, value))


def triton() -> Iterator[dict[str, Any]]:
    """The containers that run Triton."""
    yield DOCUMENTS["kubernetes/triton.yaml Deployment"]["spec"]["template"]["spec"]["containers"][0]
    yield DOCUMENTS["kserve/runtime.yaml ServingRuntime"]["spec"]["containers"][0]


def test_every_server_is_the_same_and_computes_as_validated() -> None:
    readme = (DEPLOY.parent / "samdec_export" / "serving" / "templates" / "README.md").read_text()
    (image,) = {container["image"] for container in triton()}
    assert image in readme
    for container in triton():
        assert {"name": "NVIDIA_TF32_OVERRIDE", "value": "0"} in container["env"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        repository = next(word for word in container["args"] if word.startswith("--model-repository="))
        mounted = {mount["mountPath"] for mount in container.get("volumeMounts", [{"mountPath": "/mnt/models"}])}
        assert repository.partition("=")[2] in mounted


def test_names_meet() -> None:
    deployment = DOCUMENTS["kubernetes/triton.yaml Deployment"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert DOCUMENTS["kubernetes/triton.yaml Service"]["spec"]["selector"] == labels
    assert DOCUMENTS["kubernetes/triton.yaml PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    autoscaler = DOCUMENTS["kubernetes/autoscaler.yaml HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (autoscaler["kind"], autoscaler["name"]) == ("Deployment", deployment["metadata"]["name"])
    claim = DOCUMENTS["kubernetes/models.yaml PersistentVolumeClaim"]["metadata"]["name"]
    assert deployment["spec"]["template"]["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim
    service = DOCUMENTS["kserve/inference-service.yaml InferenceService"]["spec"]["predictor"]["model"]
    assert service["storageUri"] == f"pvc://{claim}"
    assert service["runtime"] == DOCUMENTS["kserve/runtime.yaml ServingRuntime"]["metadata"]["name"]
    ports = {port["name"] for port in next(triton())["ports"]}
    assert {port["targetPort"] for port in DOCUMENTS["kubernetes/triton.yaml Service"]["spec"]["ports"]} <= ports


def test_the_docs_name_every_manifest() -> None:
    docs = (DEPLOY.parent / "docs" / "serving.md").read_text()
    named = {path.relative_to(DEPLOY.parent).as_posix() for path in DEPLOY.rglob("*.yaml")}
    assert all(f"--filename {name}" in docs for name in named)
