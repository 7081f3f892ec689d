"""The files of ``cluster/`` against the schemas of their readers, against each other, and against the command line.

None of them is run here; ``cluster/README.md`` says what that leaves unchecked.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import click
import jsonschema
import pytest
import typer
import yaml
from moto import mock_aws
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import cli as ray_cli

from fer_ray.cli import make_app
from fer_ray.cluster.ray_patches import OWN_GPUS
from fer_ray.config.files import load_search_space
from fer_ray.version import VERSION

REPOSITORY = Path(__file__).parents[1]
CLUSTER = REPOSITORY / "cluster"
SCHEMAS = REPOSITORY.parent / "shared" / "schemas" / "kuberay"
LAUNCHER = ["aws.yaml", "gcp.yaml"]
KUBERAY = {"kuberay-raycluster.yaml": "ray.io_rayclusters.yaml", "kuberay-rayjob.yaml": "ray.io_rayjobs.yaml"}
TEXTS = ["README.md", *LAUNCHER, *KUBERAY]
IN_IMAGE = "/home/ray/fer_ray/"
"""Where the image has the repository."""


def text_of(name: str) -> str:
    return (CLUSTER / name).read_text()


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load(text_of(name))


@pytest.mark.parametrize("name", LAUNCHER)
def test_the_launcher_takes_the_file_and_gives_nodes_their_token_and_environment(name: str) -> None:
    config = prepare_config(load(name))
    validate_config(config)
    types = config["available_node_types"]
    workers = {key: value for key, value in types.items() if key != config["head_node_type"]}
    assert types[config["head_node_type"]]["resources"] == {"CPU": 0, "GPU": 0}
    assert config["max_workers"] == sum(value["max_workers"] for value in workers.values())
    assert all(value["min_workers"] == 0 for value in workers.values()) and config["idle_timeout_minutes"] > 0
    assert config["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    for kind in ("head", "worker"):
        environment = config[f"{kind}_start_ray_commands"][-1].split("ray start")[0]
        assert "unset OMP_NUM_THREADS" in environment  # the launcher sets 1
        for setting in ("RAY_AUTH_MODE=token", "RAY_worker_niceness=0", f"{OWN_GPUS}=1"):
            assert setting in environment


@pytest.mark.slow
def test_the_launcher_starts_the_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``ray up`` does, on moto's EC2, which knows the real instance types."""
    monkeypatch.setenv("HOME", str(tmp_path))  # where the launcher keeps the ssh key that it makes
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    with mock_aws():
        ec2, iam = boto3.client("ec2", "us-west-2"), boto3.client("iam", "us-west-2")
        for profile in ("fer-ray-head", "fer-ray-worker"):
            iam.create_instance_profile(InstanceProfileName=profile)
        image = ec2.describe_images()["Images"][0]["ImageId"]
        config = yaml.safe_load(text_of("aws.yaml").replace("CHANGE_AMI", image))
        requested = {key: node["resources"] for key, node in config["available_node_types"].items()}
        config = bootstrap_aws(AWSNodeProvider.fillout_available_node_types_resources(prepare_config(config)))
        provider = AWSNodeProvider(config["provider"], config["cluster_name"])
        for key, node in config["available_node_types"].items():
            assert "GPU" in requested[key] or "GPU" not in node["resources"]
            provider.create_node(node["node_config"], {"ray-node-kind": key, "ray-user-node-type": key}, 1)
        started = [each for part in ec2.describe_instances()["Reservations"] for each in part["Instances"]]
        kinds = ec2.describe_instance_types(InstanceTypes=[each["InstanceType"] for each in started])["InstanceTypes"]
        (group,) = ec2.describe_security_groups(GroupNames=["ray-autoscaler-fer-ray"])["SecurityGroups"]
    assert [each.get("InstanceLifecycle") for each in started] == [None, "spot", None, None]
    roles = [each["IamInstanceProfile"]["Arn"].split("/")[-1] for each in started]
    assert roles == ["fer-ray-head", *["fer-ray-worker"] * 3]
    stack = load("aws-roles.yaml")["Resources"].values()
    profiles = [part["Properties"] for part in stack if part["Type"] == "AWS::IAM::InstanceProfile"]
    assert {profile["InstanceProfileName"] for profile in profiles} == set(roles)
    has = {}
    for kind in kinds:
        gpus = sum(each["Count"] for each in kind.get("GpuInfo", {}).get("Gpus", []))
        has[kind["InstanceType"]] = (kind["VCpuInfo"]["DefaultVCpus"], gpus)
    for each, (key, resources) in list(zip(started, requested.items(), strict=True))[1:]:
        assert has[each["InstanceType"]] == (resources["CPU"], resources.get("GPU", 0)), key
    assert [rule.get("FromPort") for rule in group["IpPermissions"] if rule["IpRanges"]] == [22]  # nothing but ssh


def strict(schema: Any) -> Any:
    """Return a custom resource's schema that refuses unknown fields, which Kubernetes drops silently."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: strict(value) for key, value in schema.items()}
    free = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not free:
        result["additionalProperties"] = False
    return result


def cluster_spec(resource: dict[str, Any]) -> dict[str, Any]:
    return resource["spec"].get("rayClusterSpec", resource["spec"])


def pods(name: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield each group with the one container of its pods, the head's first."""
    spec = cluster_spec(load(name))
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        (container,) = group["template"]["spec"]["containers"]
        yield group, container


@pytest.mark.slow
@pytest.mark.parametrize("name", KUBERAY)
def test_kuberay_takes_the_file(name: str) -> None:
    path = SCHEMAS / KUBERAY[name]
    if not path.is_file():
        pytest.skip(f"KubeRay's schema is not here ({path})")
    definition = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (version,) = (version for version in definition["spec"]["versions"] if version["name"] == "v1")
    validator = jsonschema.Draft202012Validator(strict(version["schema"]["openAPIV3Schema"]))
    resource = load(name)
    assert resource["apiVersion"] == "ray.io/v1" and set(resource["metadata"]) == {"name"}
    errors = list(validator.iter_errors(resource))
    assert not errors, [f"{error.json_path}: {error.message}" for error in errors]


@pytest.mark.parametrize("name", KUBERAY)
def test_pods_have_a_token_few_rights_and_the_resources_that_they_request(name: str) -> None:
    spec = cluster_spec(load(name))
    assert spec["authOptions"] == {"mode": "token", "secretName": "fer-ray-token"}
    assert f"ray=={spec['rayVersion']}" in text_of("constraints.txt").splitlines()
    for group, container in pods(name):
        security = group["template"]["spec"]["securityContext"]
        assert security["runAsNonRoot"] and f"{security['runAsUser']}:{security['runAsGroup']}" == image_user()
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert {"name": "RAY_worker_niceness", "value": "0"} in container["env"]
        assert {"name": OWN_GPUS, "value": "1"} in container["env"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in spec["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    if name == "kuberay-rayjob.yaml":  # it waits for all its pods, runs once, and ends
        job = load(name)["spec"]
        assert all(group["minReplicas"] == group["maxReplicas"] for group in spec["workerGroupSpecs"])
        assert job["shutdownAfterJobFinishes"] and job["activeDeadlineSeconds"] and job["backoffLimit"] == 0


def dockerfile() -> list[list[str]]:
    """Return its instructions as words, continued lines joined."""
    lines = "\n".join(line for line in text_of("Dockerfile").splitlines() if not line.startswith("#"))
    return [line.split() for line in lines.replace("\\\n", " ").splitlines() if line.strip()]


def image_user() -> str:
    return [words[1] for words in dockerfile() if words[0] == "USER"][-1]


def test_the_image() -> None:
    lines = dockerfile()
    sources = {word for words in lines if words[0] == "COPY" for word in words[1:-1]}
    kept = {line.strip("!/") for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    assert {"cluster/constraints.txt", "fer_ray", "search_spaces", "pyproject.toml"} <= sources <= kept
    assert all((REPOSITORY / source).exists() for source in sources)
    assert image_user().split(":")[0] not in ("0", "root")
    environment = {word for words in lines if words[0] == "ENV" for word in words[1:]}
    assert {"RAY_AUTH_MODE=token", "RAY_worker_niceness=0", "HOME=/home/ray", f"{OWN_GPUS}=1"} <= environment
    installs = [words for words in lines if words[0] == "RUN" and "pip" in words]
    assert installs and all("cluster/constraints.txt" in words or "--no-deps" in words for words in installs)
    assert [words[1] + "/" for words in lines if words[0] == "WORKDIR"] == [IN_IMAGE]


@pytest.mark.parametrize("name", TEXTS)
def test_texts_name_this_version_what_has_to_be_changed_and_nothing_but_loopback(name: str) -> None:
    text = text_of(name)
    assert set(re.findall(r"/fer_ray:([\w.]+)", text)) <= {VERSION}
    assert "0.0.0.0" not in text and "[::]" not in text
    assert set(re.findall(r"dashboard-host[=:]\s*[\"']?([\w.]+)", text)) <= {"127.0.0.1"}
    assert set(re.findall(r"http://([\w.]+)", text)) <= {"127.0.0.1"}
    lines = text.splitlines()
    top = next(number for number, line in enumerate(lines) if not line.startswith("#") or name == "README.md")
    listed = set(re.findall(r"^#   (CHANGE_\w+)", "\n".join(lines[:top]), re.MULTILINE))
    assert name == "README.md" or listed == set(re.findall(r"CHANGE_[A-Z_]+", "\n".join(lines[top:]))) != set()


def scripts(file: str) -> list[str]:
    if file == "README.md":
        return re.findall(r"```bash\n(.*?)```", text_of(file), re.DOTALL)
    config = load(file)
    if "entrypoint" in config.get("spec", {}):
        return [config["spec"]["entrypoint"]]
    return [command for key, value in config.items() if key.endswith("_commands") for command in value]


def calls(start: str) -> list[tuple[str, list[str]]]:
    """Return the words that follow ``start`` in the commands of the files, each with its file."""
    return [
        (file, shlex.split(words, comments=True))
        for file in TEXTS
        for script in scripts(file)
        for words in re.findall(rf"(?:^|[\s;&|]){start}([^\n;&|]*)", script.replace("\\\n", " "))
    ]


RAY_CALLS, STAGE_CALLS = calls("ray "), [(words[0], words[1:]) for _, words in calls(r"-m fer_ray\.")]


def test_the_readme_leads_to_every_stage() -> None:
    assert {stage for stage, _ in STAGE_CALLS} >= {"prepare", "train", "tune", "evaluate", "score", "report"}
    links = re.findall(r"\]\(([^)#]+)\)", text_of("README.md"))
    assert [link for link in links if not link.startswith("https://") and not (CLUSTER / link).exists()] == []


@pytest.mark.parametrize("stage", sorted({stage for stage, _ in STAGE_CALLS}))
def test_the_stage_takes_its_commands(stage: str) -> None:
    command = typer.main.get_command(make_app()).commands[stage]
    for arguments in [arguments for name, arguments in STAGE_CALLS if name == stage]:
        parsed = command.make_context(stage, list(arguments)).params
        for file in [*parsed.get("spaces", ()), *([parsed["config"]] if parsed.get("config") else [])]:
            path = REPOSITORY / str(file).removeprefix(IN_IMAGE)
            assert load_search_space(path if path.is_file() else file).search
        assert "-" not in {str(value)[:1] for value in parsed.values()}  # an option taken for a value


def test_ray_and_nodes_take_their_commands() -> None:
    offenders = []
    for _, words in RAY_CALLS:
        found: Any = ray_cli
        own = words[: words.index("--") if "--" in words else None]
        while isinstance(found, click.Group):
            found = found.commands[own.pop(0)]
        known = {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)}
        unknown = {word.split("=")[0] for word in own if word.startswith("-")} - known
        script = words[words.index("cluster/nodes.py") + 1 :] if "cluster/nodes.py" in words else []
        unknown |= {word for word in script if word.startswith("--") and f'"{word}"' not in text_of("nodes.py")}
        offenders += [(words, unknown)] if unknown else []
    assert offenders == []
