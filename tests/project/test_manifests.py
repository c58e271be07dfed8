"""The Kubernetes and KServe manifests: valid, consistent with each other, and safe by what they say."""

from __future__ import annotations

import copy
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
SERVING = (DEPLOY.parent / "docs" / "serving.md").read_text()
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
        ("kubernetes/network.yaml NetworkPolicy", "spec/podSelectors", {}),
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
    for spec in pods():
        yield spec["containers"][0]


def pods() -> Iterator[dict[str, Any]]:
    """What the pods that run Triton are made of: the Deployment's, and of KServe the runtime's with the service's."""
    yield DOCUMENTS["kubernetes/triton.yaml Deployment"]["spec"]["template"]["spec"]
    service = DOCUMENTS["kserve/inference-service.yaml InferenceService"]["spec"]["predictor"]
    yield {**service, **DOCUMENTS["kserve/runtime.yaml ServingRuntime"]["spec"]}


def test_every_server_is_the_same_and_computes_as_validated() -> None:
    readme = (DEPLOY.parent / "samdec_export" / "serving" / "templates" / "README.md").read_text()
    (image,) = {container["image"] for container in triton()}
    assert image.replace("@sha256:DIGEST_OF_", ":") in readme
    for container in triton():
        assert {"name": "NVIDIA_TF32_OVERRIDE", "value": "0"} in container["env"]
        repository = next(word for word in container["args"] if word.startswith("--model-repository="))
        mounted = {mount["mountPath"] for mount in container["volumeMounts"]} | {
            "/mnt/models"
        }  # KServe mounts that one
        assert repository.partition("=")[2] in mounted


# What a pod may do


def faults(spec: dict[str, Any]) -> set[str]:
    """What is wrong with a pod by the Kubernetes standard `restricted`, and by what these manifests add to it."""
    found = set() if spec.get("automountServiceAccountToken") is False else {"service account"}
    found |= {
        "scratch" for volume in spec.get("volumes", ()) if not volume.get("emptyDir", {"sizeLimit": 1}).get("sizeLimit")
    }
    for container in spec["containers"]:
        own = {**spec.get("securityContext", {}), **container.get("securityContext", {})}
        limits = container.get("resources", {}).get("limits", {})
        written = {mount["mountPath"] for mount in container.get("volumeMounts", ()) if not mount.get("readOnly")}
        rules = {
            "root": own.get("runAsNonRoot") is True and own.get("runAsUser", 0) != 0,
            "escalation": own.get("allowPrivilegeEscalation") is False,
            "privileged": not own.get("privileged", False),
            "root file system": own.get("readOnlyRootFilesystem") is True,
            "capabilities": own.get("capabilities") == {"drop": ["ALL"]},
            "seccomp": own.get("seccompProfile") == {"type": "RuntimeDefault"},
            "limits": {"cpu", "memory", "ephemeral-storage"} <= limits.keys(),
            "image": "@sha256:" in container["image"],
            "model repository": written == {"/dev/shm", "/tmp"},
        }
        found |= {name for name, holds in rules.items() if not holds}
    return found | {name for name in ("hostNetwork", "hostPID", "hostIPC") if spec.get(name)}


def test_no_pod_may_do_more_than_it_needs() -> None:
    assert [faults(spec) for spec in pods()] == [set(), set()]
    service = DOCUMENTS["kserve/inference-service.yaml InferenceService"]
    assert service["metadata"]["annotations"]["storage.kserve.io/readonly"] == "true"
    volume = next(pods())["volumes"][0]
    assert volume["persistentVolumeClaim"]["readOnly"] is True


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        ("automountServiceAccountToken", True, "service account"),
        ("securityContext/runAsNonRoot", False, "root"),
        ("securityContext/runAsUser", 0, "root"),
        ("securityContext/seccompProfile", {"type": "Unconfined"}, "seccomp"),
        ("containers/0/securityContext/allowPrivilegeEscalation", True, "escalation"),
        ("containers/0/securityContext/privileged", True, "privileged"),
        ("containers/0/securityContext/readOnlyRootFilesystem", False, "root file system"),
        ("containers/0/securityContext/capabilities", {"drop": ["ALL"], "add": ["SYS_ADMIN"]}, "capabilities"),
        ("containers/0/resources/limits", {"memory": "8Gi"}, "limits"),
        ("containers/0/image", "nvcr.io/nvidia/tritonserver:26.06-py3", "image"),
        ("containers/0/volumeMounts/0/readOnly", False, "model repository"),
        ("volumes/2/emptyDir", {}, "scratch"),
        ("hostNetwork", True, "hostNetwork"),
    ],
)
def test_a_pod_that_may_do_more_is_told(path: str, value: Any, fault: str) -> None:
    name = "kubernetes/triton.yaml Deployment"
    assert faults(change(name, f"spec/template/spec/{path}", value)["spec"]["template"]["spec"]) == {fault}


def test_who_talks_to_a_server_and_whom_it_calls_is_said() -> None:
    labels = DOCUMENTS["kubernetes/triton.yaml Deployment"]["spec"]["template"]["metadata"]["labels"]
    served = DOCUMENTS["kserve/inference-service.yaml InferenceService"]["metadata"]["name"]
    policies = {
        "kubernetes/network.yaml NetworkPolicy": labels,
        "kserve/network.yaml NetworkPolicy": {"serving.kserve.io/inferenceservice": served},
    }
    for name, selected in policies.items():
        spec = DOCUMENTS[name]["spec"]
        assert spec["podSelector"]["matchLabels"] == selected
        assert {*spec["policyTypes"]} == {"Ingress", "Egress"}
        assert spec["egress"] == []
        assert all(rule["from"] and all(peer for peer in rule["from"]) for rule in spec["ingress"])
        assert "{}" not in str(spec["ingress"]), "an empty selector is everybody"
    ports = {
        port["port"]
        for rule in DOCUMENTS["kubernetes/network.yaml NetworkPolicy"]["spec"]["ingress"]
        for port in rule["ports"]
    }
    assert ports == {port["name"] for port in next(triton())["ports"]}


# An image by its digest

DIGEST = "sha256:" + "0123456789abcdef" * 4
REFERENCE = re.compile(r"[\w.-]+(/[\w.-]+)+@sha256:[0-9a-f]{64}")
"""An image by its digest, by the grammar of the OCI's distribution specification."""


def apply(folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Run the documented commands that apply an image, with stand-ins; returns exit code and what kubectl was given."""
    lines = [line.strip() for line in SERVING.splitlines() if line.startswith("    sed ")]
    (folder / "kubectl").write_text(f"#!/bin/sh\ncat >> {folder}/given\n")
    (folder / "kubectl").chmod(0o755)
    (folder / "given").touch()
    script = "set -e\n" + "\n".join(lines)
    variables = {"PATH": f"{folder}:{os.environ['PATH']}", **environment}
    done = subprocess.run(["bash", "-o", "pipefail", "-c", script], cwd=DEPLOY.parent, env=variables, check=False)
    return done.returncode, (folder / "given").read_text()


def test_an_image_is_no_image_until_its_digest_is_given(tmp_path: Path) -> None:
    assert not any(REFERENCE.fullmatch(container["image"]) for container in triton())
    code, given = apply(tmp_path, {})
    assert code != 0
    assert given == "", "nothing is applied without a digest"


def test_the_documented_commands_give_every_server_its_digest(tmp_path: Path) -> None:
    code, given = apply(tmp_path, {"DIGEST": DIGEST})
    assert code == 0
    images = re.findall(r"image: (\S+)", given)
    assert len(images) == len([*triton()])
    assert all(REFERENCE.fullmatch(image) for image in images)


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
    named = {path.relative_to(DEPLOY.parent).as_posix() for path in DEPLOY.rglob("*.yaml")}
    assert all(name in SERVING for name in named)
