"""The files of ``cluster/``: against the schemas of what reads them, against each other, and against the command line.

None of them starts anything here; what they can't be checked for without a cloud, ``cluster/README.md`` says.
"""

import copy
import fnmatch
import importlib
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

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


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((CLUSTER / name).read_text())


def dockerfile() -> list[list[str]]:
    """Return its instructions as words, lines that go on joined."""
    text = (CLUSTER / "Dockerfile").read_text()
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    return [line.split() for line in lines.replace("\\\n", " ").splitlines() if line.strip()]


# Ray's cluster launcher


@pytest.mark.parametrize("name", LAUNCHER)
def test_the_launcher_takes_the_file(name: str) -> None:
    config = prepare_config(load(name))
    validate_config(config)
    types = config["available_node_types"]
    workers = {key: value for key, value in types.items() if key != config["head_node_type"]}
    assert types[config["head_node_type"]]["resources"] == {"CPU": 0, "GPU": 0}
    assert config["max_workers"] == sum(value["max_workers"] for value in workers.values())
    assert all(value["min_workers"] == 0 for value in workers.values()) and config["idle_timeout_minutes"] > 0
    assert config["provider"]["cache_stopped_nodes"] is False


def test_the_launcher_starts_the_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``ray up`` would, on moto's stand-in of EC2, which knows the real types of instances."""
    monkeypatch.setenv("HOME", str(tmp_path))  # where the launcher keeps the ssh key that it makes
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    with mock_aws():
        ec2, iam = boto3.client("ec2", "us-west-2"), boto3.client("iam", "us-west-2")
        for profile in ("fer-ray-head", "fer-ray-worker"):
            iam.create_instance_profile(InstanceProfileName=profile)
        image = ec2.describe_images()["Images"][0]["ImageId"]
        config = yaml.safe_load((CLUSTER / "aws.yaml").read_text().replace("CHANGE_AMI", image))
        asked = {key: node["resources"] for key, node in config["available_node_types"].items()}
        config = bootstrap_aws(AWSNodeProvider.fillout_available_node_types_resources(prepare_config(config)))
        provider = AWSNodeProvider(config["provider"], config["cluster_name"])
        for key, node in config["available_node_types"].items():
            assert "GPU" in asked[key] or "GPU" not in node["resources"]
            provider.create_node(node["node_config"], {"ray-node-kind": key, "ray-user-node-type": key}, 1)
        started = [each for part in ec2.describe_instances()["Reservations"] for each in part["Instances"]]
        kinds = ec2.describe_instance_types(InstanceTypes=[each["InstanceType"] for each in started])["InstanceTypes"]
        (group,) = ec2.describe_security_groups(GroupNames=["ray-autoscaler-fer-ray"])["SecurityGroups"]
    assert [each.get("InstanceLifecycle") for each in started] == [None, "spot", None]
    roles = [each["IamInstanceProfile"]["Arn"].split("/")[-1] for each in started]
    assert roles == ["fer-ray-head", "fer-ray-worker", "fer-ray-worker"]
    has = {
        kind["InstanceType"]: (kind["VCpuInfo"]["DefaultVCpus"], len(kind.get("GpuInfo", {}).get("Gpus", [])))
        for kind in kinds
    }
    for each, (key, resources) in list(zip(started, asked.items(), strict=True))[1:]:
        assert has[each["InstanceType"]] == (resources["CPU"], resources.get("GPU", 0)), key
    assert [rule.get("FromPort") for rule in group["IpPermissions"] if rule["IpRanges"]] == [22]  # nothing but ssh


def test_the_stack_has_the_roles_that_nodes_take() -> None:
    stack, types = load("aws-roles.yaml"), load("aws.yaml")["available_node_types"]
    of_kind = [part for part in stack["Resources"].values() if part["Type"] == "AWS::IAM::InstanceProfile"]
    assert {part["Properties"]["InstanceProfileName"] for part in of_kind} == {
        node["node_config"]["IamInstanceProfile"]["Name"] for node in types.values()
    }
    named = re.findall(r'"ec2:ResourceTag/ray-cluster-name": ([\w-]+)', (CLUSTER / "aws-roles.yaml").read_text())
    assert named == [load("aws.yaml")["cluster_name"]]
    # CloudFormation reads neither anchors nor aliases.
    assert not re.search(r"[:-] [&*]\w", (CLUSTER / "aws-roles.yaml").read_text())


@pytest.mark.parametrize("name", LAUNCHER)
def test_the_token_reaches_every_node(name: str) -> None:
    config = load(name)
    assert config["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    starts = [config[f"{kind}_start_ray_commands"][-1] for kind in ("head", "worker")]
    for command in starts:
        before = command.split("ray start")[0]
        assert "RAY_AUTH_MODE=token" in before and "RAY_worker_niceness=0" in before
        assert f"{OWN_GPUS}=1" in before
        assert "unset OMP_NUM_THREADS" in before  # the launcher sets 1


def test_only_what_goes_on_by_itself_is_on_spot() -> None:
    aws, gcp = (load(name)["available_node_types"] for name in LAUNCHER)
    assert {key for key, node in aws.items() if "InstanceMarketOptions" in node["node_config"]} == {"cpu"}
    spot = {key for key, node in gcp.items() if node["node_config"].get("scheduling", {}).get("provisioningModel")}
    assert spot == {"cpu"}
    groups = load("kuberay-raycluster.yaml")["spec"]["workerGroupSpecs"]
    assert {group["groupName"] for group in groups if "nodeSelector" in group["template"]["spec"]} == {"cpu"}


# KubeRay


def strict(schema: Any) -> Any:
    """Return a custom resource's schema that refuses fields it doesn't name; Kubernetes would drop them silently."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: strict(value) for key, value in schema.items()}
    free = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not free:
        result["additionalProperties"] = False
    return result


def resource_schema(name: str) -> dict[str, Any]:
    path = SCHEMAS / KUBERAY[name]
    if not path.is_file():
        pytest.skip(f"KubeRay's schema is not here ({path})")
    definition = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    versions = {version["name"]: version for version in definition["spec"]["versions"]}
    assert versions["v1"]["served"]
    return strict(versions["v1"]["schema"]["openAPIV3Schema"])


def cluster_spec(name: str) -> dict[str, Any]:
    spec = load(name)["spec"]
    return spec.get("rayClusterSpec", spec)


def pods(name: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield each group with the one container of its pods, the head's first."""
    spec = cluster_spec(name)
    for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
        (container,) = group["template"]["spec"]["containers"]
        yield group, container


@pytest.mark.parametrize("name", KUBERAY)
def test_kuberay_takes_the_file(name: str) -> None:
    resource, schema = load(name), resource_schema(name)
    assert resource["apiVersion"] == "ray.io/v1" and set(resource["metadata"]) == {"name"}
    errors = list(jsonschema.Draft202012Validator(schema).iter_errors(resource))
    assert not errors, [f"{error.json_path}: {error.message}" for error in errors]


@pytest.mark.parametrize("name", KUBERAY)
def test_an_unknown_field_anywhere_would_be_found(name: str) -> None:
    validator = jsonschema.Draft202012Validator(resource_schema(name))
    for path in mappings(load(name), ()):
        resource = copy.deepcopy(load(name))
        place = resource
        for key in path:
            place = place[key]
        place["misspelt"] = "1"
        assert not validator.is_valid(resource) or path[-1] in FREE, path


FREE = {"metadata", "rayStartParams", "nodeSelector", "requests", "limits"}
"""What has keys of one's own."""


def mappings(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict):
        yield from [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from mappings(part, (*path, key))


@pytest.mark.parametrize("name", KUBERAY)
def test_pods(name: str) -> None:
    """No more rights than needed, resources that are surely there, and the token on."""
    spec = cluster_spec(name)
    assert spec["authOptions"] == {"mode": "token", "secretName": "fer-ray-token"}
    assert f"ray=={spec['rayVersion']}" in (CLUSTER / "constraints.txt").read_text().splitlines()
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


def test_a_job_is_whole_before_it_plans_and_ends() -> None:
    spec = load("kuberay-rayjob.yaml")["spec"]
    for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
        assert group["minReplicas"] == group["replicas"] == group["maxReplicas"]
    assert "enableInTreeAutoscaling" not in spec["rayClusterSpec"]
    assert spec["shutdownAfterJobFinishes"] and spec["ttlSecondsAfterFinished"] and spec["activeDeadlineSeconds"]
    assert spec["backoffLimit"] == 0  # the output would be in use


# The image


def image_user() -> str:
    return [words[1] for words in dockerfile() if words[0] == "USER"][-1]


def ignored(path: Path) -> bool:
    """Return whether docker leaves a path of the repository out: the last pattern that fits it or a parent decides."""
    result = False
    for line in (REPOSITORY / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        at_any_depth = pattern.startswith("**/")
        within = [part.name if at_any_depth else str(part) for part in [path, *path.parents][:-1]]
        if fnmatch.filter(within, pattern.removeprefix("**/")):
            result = not line.startswith("!")
    return result


def test_what_the_image_copies_is_there_and_sent() -> None:
    sources = [word for words in dockerfile() if words[0] == "COPY" for word in words[1:-1]]
    assert {"cluster/constraints.txt", "fer_ray", "search_spaces", "pyproject.toml"} <= set(sources)
    for source in sources:
        assert (REPOSITORY / source).exists(), source
        assert not ignored(Path(source)), source


@pytest.mark.parametrize(
    "name", [".git/HEAD", ".venv/bin/python", "fer-data/x.parquet", "runs/a", "tests/x.py", "a.zip"]
)
def test_what_else_there_is_stays_out_of_the_image(name: str) -> None:
    assert ignored(Path(name))
    assert not ignored(Path("fer_ray/models/fast.py")) and ignored(Path("fer_ray/models/__pycache__"))


def test_the_image() -> None:
    lines = dockerfile()
    assert lines[-1] == ["FROM", "${DEVICE}"]
    assert {words[3] for words in lines if words[0] == "FROM" and len(words) == 4} >= {"cpu", "cuda"}
    assert image_user().split(":")[0] not in ("0", "root")
    environment = {word for words in lines if words[0] == "ENV" for word in words[1:]}
    assert {"RAY_AUTH_MODE=token", "RAY_worker_niceness=0", "HOME=/home/ray", f"{OWN_GPUS}=1"} <= environment
    assert "RAY_JOB_STOP_WAIT_TIME_S=30" in environment
    installs = [words for words in lines if words[0] == "RUN" and "pip" in words]
    assert installs and all("cluster/constraints.txt" in words or "--no-deps" in words for words in installs)
    assert [words[1] + "/" for words in lines if words[0] == "WORKDIR"] == [IN_IMAGE]


@pytest.mark.parametrize("name", TEXTS)
def test_images_are_of_this_version(name: str) -> None:
    assert set(re.findall(r"/fer_ray:([\w.]+)", (CLUSTER / name).read_text())) <= {VERSION}


# What is to be changed


@pytest.mark.parametrize("name", [*LAUNCHER, *KUBERAY])
def test_what_is_to_be_changed_is_listed_at_the_top(name: str) -> None:
    lines = (CLUSTER / name).read_text().splitlines()
    top = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    listed = set(re.findall(r"^#   (CHANGE_\w+)", "\n".join(lines[:top]), re.MULTILINE))
    assert listed and listed == set(re.findall(r"CHANGE_[A-Z_]+", "\n".join(lines[top:])))


# Commands


class Command(NamedTuple):
    """A command that a file tells a user, or a node, to run."""

    file: str
    words: list[str]

    def __str__(self) -> str:
        return f"{self.file}: {' '.join(self.words)[:60]}"


def commands() -> Iterator[Command]:
    for file in TEXTS:
        for text in scripts(file):
            for line in text.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                for part in split(words):  # without the assignments before them
                    while part and re.fullmatch(r"\w+=.*", part[0]):
                        part = part[1:]
                    if part:
                        yield Command(file, part)


def scripts(file: str) -> list[str]:
    if file == "README.md":
        return re.findall(r"```bash\n(.*?)```", (CLUSTER / file).read_text(), re.DOTALL)
    config = load(file)
    if "entrypoint" in config.get("spec", {}):
        return [config["spec"]["entrypoint"]]
    return [command for key, value in config.items() if key.endswith("_commands") for command in value]


def split(words: list[str]) -> Iterator[list[str]]:
    """Yield the commands of a line of shell."""
    part = list[str]()
    for word in words:
        if word in ("&&", "||", "|", "&", ";", "do", "then"):
            yield part
            part = []
        elif word.endswith(";"):
            yield [*part, word[:-1]]
            part = []
        else:
            part.append(word)
    yield part


COMMANDS = list(commands())


def stage_call(words: list[str]) -> tuple[str, list[str]] | None:
    """Return the stage of a fer_ray command line and its arguments, wherever in a command it stands."""
    for number, word in enumerate(words):
        if word == "fer-ray" and (number == 0 or words[0] == "docker"):  # elsewhere a name of something else
            return words[number + 1], words[number + 2 :]
        if word.startswith("fer_ray.") and words[number - 1] == "-m":
            return word.removeprefix("fer_ray."), words[number + 1 :]
    return None


STAGE_CALLS = [(command, call) for command in COMMANDS if (call := stage_call(command.words))]
RAY_CALLS = [command for command in COMMANDS if command.words[0] == "ray"]


def test_the_readme_leads_to_every_stage() -> None:
    stages = {stage for command, (stage, _) in STAGE_CALLS if command.file == "README.md"}
    assert stages >= {"prepare", "train", "tune", "evaluate", "score", "report"}
    called = {" ".join(command.words[:2]) for command in RAY_CALLS if command.file == "README.md"}
    assert called >= {
        "ray start",
        "ray stop",
        "ray up",
        "ray down",
        "ray dashboard",
        "ray status",
        "ray get-auth-token",
    }
    assert {"submit", "logs", "stop"} <= {command.words[2] for command in RAY_CALLS if command.words[1] == "job"}


@pytest.mark.parametrize(("command", "call"), STAGE_CALLS, ids=str)
def test_the_stage_takes_the_command(command: Command, call: tuple[str, list[str]]) -> None:
    stage, arguments = call
    app = typer.Typer(add_completion=False)
    app.command(stage)(importlib.import_module(f"fer_ray.{stage}").command)
    parsed = typer.main.get_command(app).make_context(stage, list(arguments)).params
    files = [*parsed.get("space", ()), *([parsed["config"]] if parsed.get("config") else [])]
    for file in files:
        assert load_search_space(REPOSITORY / str(file).removeprefix(IN_IMAGE)).search
    assert "-" not in {str(value)[:1] for value in parsed.values()}  # an option taken for a value


@pytest.mark.parametrize("command", RAY_CALLS, ids=str)
def test_ray_takes_the_command(command: Command) -> None:
    found: Any = ray_cli
    words = command.words[1:]
    while isinstance(found, click.Group):
        name = words.pop(0)
        assert name in found.commands, f"ray has no command {name}"
        found = found.commands[name]
    end = words.index("--") if "--" in words else len(words)
    known = {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)}
    asked = {word.split("=")[0] for word in words[:end] if word.startswith("-")}
    assert asked <= known, asked - known


@pytest.mark.parametrize("command", [command for command in COMMANDS if "cluster/nodes.py" in command.words], ids=str)
def test_nodes_takes_the_command(command: Command) -> None:
    text = (CLUSTER / "nodes.py").read_text()
    for word in command.words[command.words.index("cluster/nodes.py") + 1 :]:
        assert not word.startswith("--") or f'"{word}"' in text


# Resources, hosts and links


def node_sizes(name: str) -> dict[str, dict[str, float]]:
    """Return the CPUs and GPUs of a worker of each kind."""
    if name in LAUNCHER:
        types = load(name)["available_node_types"]
        return {key: node["resources"] for key, node in types.items() if key != "head"}
    sizes = [(group.get("groupName"), container["resources"]["limits"]) for group, container in pods(name)][1:]
    return {key: {"CPU": float(each["cpu"]), "GPU": float(each.get("nvidia.com/gpu", 0))} for key, each in sizes}


@pytest.mark.parametrize("name", [*LAUNCHER, "kuberay-raycluster.yaml"])
def test_what_jobs_ask_for_fits_a_node(name: str) -> None:
    text = (CLUSTER / "README.md").read_text()
    asked = [
        {kind.upper()[:3]: float(count) for kind, count in re.findall(r"(cpus|gpus) (\d+)", place)}
        for place in re.findall(r"(?:--entrypoint-num-[cg]pus \d+\s*)+", text)
    ]
    assert any(each.get("GPU") for each in asked)
    for each in asked:
        fits = [size for size in node_sizes(name).values() if all(size.get(key, 0) >= each[key] for key in each)]
        assert fits, (each, node_sizes(name))


def option(command: Command, name: str) -> float:
    return float(command.words[command.words.index(name) + 1]) if name in command.words else 0.0


def test_the_search_of_the_job_fits_its_pods() -> None:
    (command,) = [command for command in COMMANDS if command.file == "kuberay-rayjob.yaml"]
    (size,) = node_sizes("kuberay-rayjob.yaml").values()
    assert 0 < option(command, "--gpus-per-trial") <= size["GPU"]


@pytest.mark.parametrize("file", ["README.md", *LAUNCHER])
def test_the_dashboard_listens_on_loopback_alone(file: str) -> None:
    heads = [command.words for command in RAY_CALLS if command.file == file and "--head" in command.words]
    assert heads and all("--dashboard-host=127.0.0.1" in words for words in heads)


@pytest.mark.parametrize("path", sorted(CLUSTER.iterdir()), ids=lambda path: path.name)
def test_no_file_binds_or_names_another_host(path: Path) -> None:
    if path.is_dir():
        return
    text = path.read_text()
    assert "0.0.0.0" not in text and "[::]" not in text
    assert set(re.findall(r"dashboard-host[=:]\s*[\"']?([\w.]+)", text)) <= {"127.0.0.1"}
    assert set(re.findall(r"--address[= ]http://([\w.]+)", text)) <= {"127.0.0.1"}


def test_the_head_of_the_cluster_that_stays_listens_on_loopback() -> None:
    assert cluster_spec("kuberay-raycluster.yaml")["headGroupSpec"]["rayStartParams"]["dashboard-host"] == "127.0.0.1"


def test_links() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", (CLUSTER / "README.md").read_text()):
        assert target.startswith("https://") or (CLUSTER / target).exists(), target


def test_the_limits_that_the_readme_names(name: str = "README.md") -> None:
    """Its table of sizes is of what the files start."""
    text = (CLUSTER / name).read_text()
    types = [
        *(node["node_config"]["InstanceType"] for node in load("aws.yaml")["available_node_types"].values()),
        *(node["node_config"]["machineType"] for node in load("gcp.yaml")["available_node_types"].values()),
    ]
    assert all(f"`{kind}`" in text for kind in types), json.dumps(types)
