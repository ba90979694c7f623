import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import ClassVar

import pytest

from service.config.settings import VARIABLES
from tests.deploy.script import SCRIPT, Deploy
from tests.deploy.templates import DIGEST, FOLDER, STREAM, load, text

EMBED = FOLDER.parent / "embed-rules"


@pytest.fixture
def deploy(tmp_path: Path) -> Deploy:
    return Deploy(tmp_path)


CHANGING = {"cloudformation execute-change-set", "cloudformation update-termination-protection"}


class TestWords:
    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ([], "a command is missing"),
            (["dance"], "unknown command dance"),
            (["plan"], "plan what?"),
            (["apply"], "apply what?"),
            (["plan", "everything"], "unknown stack everything"),
            (["status", "data"], "status takes no stack"),
            (["plan", "data", "service"], "too many words"),
            (["plan", "data", "--force"], "unknown option --force"),
            (["logs", "--since", "soon"], "--since takes a number"),
        ],
    )
    def test_a_wrong_word_is_said_with_the_usage_and_nothing_is_called(
        self, deploy: Deploy, words: list[str], said: str
    ):
        ended = deploy(*words)
        assert ended.returncode == 2
        assert said in ended.stderr
        assert "Usage:" in ended.stderr
        assert deploy.calls() == []

    def test_help_explains_itself(self, deploy: Deploy):
        ended = deploy("--help")
        assert ended.returncode == 0
        assert all(word in ended.stdout for word in ("plan", "apply", "status", "logs", "destroy"))


class TestInputs:
    def test_a_missing_settings_file_says_how_to_get_one(self, deploy: Deploy):
        deploy.settings.unlink()
        ended = deploy("plan", "data")
        assert ended.returncode == 1
        assert "settings.example.conf" in ended.stderr

    def test_a_misspelt_parameter_is_refused(self, deploy: Deploy):
        deploy.settings.write_text("StreamNmae=x\n")
        assert "no template has a parameter StreamNmae" in deploy("plan", "data").stderr

    def test_a_line_that_is_no_setting_is_named(self, deploy: Deploy):
        deploy.settings.write_text("# fine\n\nStreamName: x\n")
        assert "line 3 is not NAME=value" in deploy("plan", "data").stderr

    def test_everything_missing_is_said_at_once(self, deploy: Deploy):
        ended = deploy("plan", "service")
        assert "the stack service needs: ImageDigest StreamArn VpcId SubnetIds" in ended.stderr
        assert "apply that first" in ended.stderr
        assert "cloudformation create-change-set" not in deploy.calls()

    def test_a_tag_is_no_digest(self, deploy: Deploy):
        deploy.settings.write_text("ImageDigest=latest\n")
        assert "ImageDigest is not sha256" in deploy("plan", "service").stderr

    @pytest.mark.parametrize(
        ("extra", "said"),
        [
            ("SCORING_STREAM=other", "sets SCORING_STREAM, which a parameter of the service stack sets"),
            ("SCORING_BATCH_MAX_AGE_MS=1 SCORING_SINKS=log", "sets SCORING_SINKS, which a parameter"),
            ("SCORING_BATCH_MAX_AGE=1", "sets SCORING_BATCH_MAX_AGE, which is not a variable of the service"),
        ],
    )
    def test_an_invalid_extra_variable_is_named_before_anything_is_made(self, deploy: Deploy, extra: str, said: str):
        deploy.settings.write_text(f"ImageDigest={DIGEST}\nExtraVariables={extra}\n")
        ended = deploy("plan", "service")
        assert ended.returncode == 1
        assert said in ended.stderr
        assert "cloudformation create-change-set" not in deploy.calls()

    def test_every_variable_that_no_parameter_sets_may_be_an_extra_one(self, deploy: Deploy):
        own = set(re.findall(r"Name: (SCORING_\w+)", text("service")))
        extra = " ".join(f"{name}=1" for name in sorted(set(VARIABLES) - own))
        deploy.settings.write_text(
            f"ImageDigest={DIGEST}\nVpcId=vpc-1\nSubnetIds=s-1\nStreamArn={STREAM}\nExtraVariables={extra}\n"
        )
        assert deploy("plan", "service").returncode == 0
        assert deploy.parameters()["ExtraVariables"] == extra

    def test_an_image_that_is_not_there_stops_before_the_stack_does(self, deploy: Deploy):
        deploy.settings.write_text(f"ImageDigest={DIGEST}\n")
        deploy.answer({"describe-images": (254, "ImageNotFoundException")})
        ended = deploy("plan", "service")
        assert "has no image" in ended.stderr
        assert "cloudformation create-change-set" not in deploy.calls()

    def test_credentials_are_tried_first(self, deploy: Deploy):
        deploy.answer({"sts": (254, "ExpiredToken")})
        ended = deploy("apply", "data", "--yes")
        assert (ended.returncode, deploy.calls()) == (1, ["sts get-caller-identity"])
        assert "ExpiredToken" in ended.stderr

    def test_without_the_aws_cli_it_says_where_to_get_it(self, deploy: Deploy, tmp_path: Path):
        tools = tmp_path / "tools"
        tools.mkdir()
        for tool in ("bash", "env", "dirname", "awk", "cut", "sort", "tr", "mktemp", "rm", "cat"):
            found = shutil.which(tool)
            assert found
            (tools / tool).symlink_to(found)
        assert "the AWS CLI is not on the PATH" in deploy("plan", "data", path=str(tools)).stderr


class TestPlanAndApply:
    def test_a_plan_shows_the_changes_and_leaves_nothing_behind(self, deploy: Deploy):
        ended = deploy("plan", "data")
        assert ended.returncode == 0
        assert "| Add | Stream |" in ended.stdout
        assert not CHANGING & set(deploy.calls())
        assert deploy.calls()[-2:] == ["cloudformation delete-change-set", "cloudformation delete-stack"]

    def test_a_plan_for_a_stack_that_exists_never_deletes_it(self, deploy: Deploy):
        deploy.answer({"describe-stacks StackStatus": (0, "UPDATE_COMPLETE"), "describe-stacks": (0, "")})
        assert deploy("plan", "data").returncode == 0
        assert "cloudformation delete-stack" not in deploy.calls()

    def test_apply_asks(self, deploy: Deploy):
        ended = deploy("apply", "data", typed="no\n")
        assert ended.returncode == 1
        assert not CHANGING & set(deploy.calls())
        assert "cloudformation delete-change-set" in deploy.calls()

    def test_apply_does_what_it_showed_and_protects_the_data(self, deploy: Deploy):
        assert deploy("apply", "data", typed="yes\n").returncode == 0
        calls = deploy.calls()
        assert calls.index("cloudformation describe-change-set") < calls.index("cloudformation execute-change-set")
        assert "cloudformation update-termination-protection" in calls

    def test_no_change_is_no_failure(self, deploy: Deploy):
        deploy.answer(
            {
                "wait change-set-create-complete": (255, ""),
                "describe-change-set StatusReason": (0, "The submitted information didn't contain changes."),
                "describe-stacks StackStatus": (0, "CREATE_COMPLETE"),
                "describe-stacks": (0, ""),
            }
        )
        ended = deploy("apply", "data", "--yes")
        assert ended.returncode == 0
        assert "nothing to change" in ended.stderr
        assert not CHANGING & set(deploy.calls())

    def test_a_failure_shows_what_failed(self, deploy: Deploy):
        deploy.answer(
            {
                "wait stack-create-complete": (255, ""),
                "describe-stack-events": (0, "ScoresTable  userEngagementScore already exists"),
            }
        )
        ended = deploy("apply", "data", "--yes")
        assert ended.returncode == 1
        assert "already exists" in ended.stderr

    def test_a_busy_stack_is_left_alone(self, deploy: Deploy):
        deploy.answer({"describe-stacks StackStatus": (0, "UPDATE_IN_PROGRESS"), "describe-stacks": (0, "")})
        assert "is busy" in deploy("apply", "data", "--yes").stderr

    def test_outputs_of_the_data_stack_are_parameters_of_the_service(self, deploy: Deploy):
        deploy.settings.write_text(f'ImageDigest={DIGEST}\nVpcId=vpc-1\nSubnetIds=subnet-1,subnet-2\nLogLevel=a"b\\c\n')
        outputs = f"StreamArn\t{STREAM}\nScoresTableName\ttheirs"
        deploy.answer(
            {
                "describe-stacks engagement-scoring-data OutputKey": (0, outputs),
                "describe-stacks engagement-scoring-data": (0, "CREATE_COMPLETE"),
            }
        )
        assert deploy("plan", "service").returncode == 0
        assert deploy.parameters() == {
            "ImageDigest": DIGEST,
            "VpcId": "vpc-1",
            "SubnetIds": "subnet-1,subnet-2",
            "LogLevel": 'a"b\\c',
            "StreamArn": STREAM,
            "ScoresTableName": "theirs",
            "InitialTasks": "2",
        }

    def test_only_a_new_service_is_told_how_many_tasks(self, deploy: Deploy):
        deploy.settings.write_text(
            f"ImageDigest={DIGEST}\nVpcId=vpc-1\nSubnetIds=subnet-1\nStreamArn={STREAM}\nMinTasks=3\n"
        )
        assert deploy("plan", "service").returncode == 0
        assert deploy.parameters()["InitialTasks"] == "3"
        deploy.answer({"describe-stacks StackStatus": (0, "UPDATE_COMPLETE"), "describe-stacks": (0, "")})
        assert deploy("plan", "service").returncode == 0
        assert "InitialTasks" not in deploy.parameters()


class TestDestroy:
    RUNNING: ClassVar = {"describe-stacks StackStatus": (0, "CREATE_COMPLETE"), "describe-stacks": (0, "")}

    def test_data_is_never_destroyed(self, deploy: Deploy):
        ended = deploy("destroy", "data", "--yes")
        assert ended.returncode == 1
        assert "never destroyed" in ended.stderr
        assert deploy.calls() == []

    def test_the_rest_goes_in_order_after_the_name_is_typed(self, deploy: Deploy):
        deploy.answer(self.RUNNING)
        assert deploy("destroy", typed="yes\n").returncode == 1
        assert "cloudformation delete-stack" not in deploy.calls()
        ended = deploy("destroy", typed="engagement-scoring\n")
        assert ended.returncode == 0
        assert "Keeps: engagement-scoring-data" in ended.stderr
        lines = [json.loads(line) for line in (deploy.folder / "calls").read_text().splitlines()]
        deleted = [words[words.index("--stack-name") + 1] for words in lines if words[1] == "delete-stack"]
        assert deleted == ["engagement-scoring-prometheus", "engagement-scoring-service", "engagement-scoring-network"]


def test_every_setting_of_the_example_is_a_parameter():
    names = {name for stack in ("data", "network", "service", "prometheus") for name in load(stack)["Parameters"]}
    lines = (FOLDER.parent / "settings.example.conf").read_text().splitlines()
    given = {line.lstrip("#").partition("=")[0] for line in lines if "=" in line and not line.startswith("# ")}
    assert given - {"StackPrefix", "Region"} <= names


def test_embedding_the_rules_again_changes_nothing(tmp_path: Path):
    copied = tmp_path / "deploy"
    shutil.copytree(FOLDER, copied / "cloudformation")
    shutil.copytree(FOLDER.parent / "prometheus", copied / "prometheus")
    shutil.copy(EMBED, copied)
    subprocess.run([copied / "embed-rules"], check=True)  # noqa: S603 # our own
    assert (copied / "cloudformation/prometheus.yml").read_text() == (FOLDER / "prometheus.yml").read_text()


@pytest.mark.parametrize("script", [SCRIPT, EMBED])
def test_shellcheck_finds_nothing(script: Path):
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed")
    found = subprocess.run([shellcheck, script], capture_output=True, text=True, check=False)  # noqa: S603 # found above
    assert found.stdout == ""
