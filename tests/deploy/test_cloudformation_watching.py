"""What scales the tasks, rings and collects metrics: read from the templates."""

import json
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, ClassVar

import pytest
import yaml

from service.observability import emf
from tests.deploy.templates import FOLDER, Stack, load, service


class TestRolloutAndScaling:
    STACK = service(MaxTasks="8")
    SERVICE = STACK.resources["Service"]["Properties"]

    def policy(self, name: str) -> dict[str, Any]:
        return self.STACK.resources[name]["Properties"]

    def test_a_bad_deployment_undoes_itself(self):
        deployment = self.SERVICE["DeploymentConfiguration"]
        assert (deployment["MinimumHealthyPercent"], deployment["MaximumPercent"]) == (100, 200)
        assert deployment["DeploymentCircuitBreaker"] == {"Enable": True, "Rollback": True}
        alarms = deployment["Alarms"]
        assert (alarms["Enable"], alarms["Rollback"]) == (True, True)
        for reference in alarms["AlarmNames"]:
            alarm = self.STACK.resources[reference.strip("<>")]["Properties"]
            # An alarm that breaches on missing data would roll the very first deployment back.
            assert alarm["TreatMissingData"] == "notBreaching"

    def test_spot_is_optional_above_a_base_of_on_demand(self):
        fargate, spot = self.SERVICE["CapacityProviderStrategy"]
        assert (fargate["CapacityProvider"], fargate["Base"]) == ("FARGATE", 2)
        assert (spot["CapacityProvider"], spot["Weight"]) == ("FARGATE_SPOT", 0)
        assert "LaunchType" not in self.SERVICE

    def test_deployments_leave_the_count_to_the_scaling(self):
        assert "DesiredCount" not in self.SERVICE
        assert service(InitialTasks="2").resources["Service"]["Properties"]["DesiredCount"] == "2"
        target = self.STACK.resources["ScalableTarget"]["Properties"]
        assert target["MaxCapacity"] == "8"

    def test_lag_adds_tasks_faster_the_worse_it_is(self):
        steps = self.policy("ScaleOutOnLag")["StepScalingPolicyConfiguration"]["StepAdjustments"]
        assert [step["ScalingAdjustment"] for step in steps] == [1, 2, 4]
        for left, right in pairwise(steps):
            assert left["MetricIntervalUpperBound"] == right["MetricIntervalLowerBound"]
        alarm = self.policy("ScaleOutLagAlarm")
        assert (alarm["Namespace"], alarm["MetricName"]) == (emf.NAMESPACE, "IngestLag")
        assert alarm["AlarmActions"] == ["<ScaleOutOnLag>"]

    def test_only_one_policy_removes_tasks_one_at_a_time_after_half_an_hour(self):
        cpu = self.policy("ScaleOutOnCpu")["TargetTrackingScalingPolicyConfiguration"]
        assert cpu["DisableScaleIn"] is True
        config = self.policy("ScaleIn")["StepScalingPolicyConfiguration"]
        assert [step["ScalingAdjustment"] for step in config["StepAdjustments"]] == [-1]
        alarm = self.policy("ScaleInAlarm")
        periods = {item["MetricStat"]["Period"] for item in alarm["Metrics"] if "MetricStat" in item}
        assert periods == {60}
        assert alarm["EvaluationPeriods"] * 60 >= 1800
        assert config["Cooldown"] >= 1800

    def test_taking_one_of_two_away_cannot_bring_it_straight_back(self):
        expression = self.policy("ScaleInAlarm")["Metrics"][0]["Expression"]
        idle = float(re.search(r"cpu < (\d+)", expression)[1])
        target = self.policy("ScaleOutOnCpu")["TargetTrackingScalingPolicyConfiguration"]["TargetValue"]
        assert 2 * idle < target


class TestAlarms:
    STACK = service()
    ALARMS = STACK.of_type("AWS::CloudWatch::Alarm")
    ON_CALL: ClassVar[Mapping[str, Any]] = {
        name: alarm for name, alarm in ALARMS.items() if not alarm["AlarmDescription"].startswith("Scaling only")
    }

    def test_there_is_one_for_each_way_to_fail(self):
        watched = {
            alarm.get("MetricName") or alarm["Metrics"][0]["Label"] for alarm in self.ON_CALL.values()
        }  # fmt: skip
        assert watched == {
            "GetRecords.IteratorAgeMilliseconds",
            "IngestLag",
            "PublishLag",
            "ReadProvisionedThroughputExceeded",
            "WriteProvisionedThroughputExceeded",
            "Throttled requests",
            "DeadLetters",
            "RecordsTrimmed",
            "UnownedShards",
            "IdlePipelines",
            "Tasks missing",
        }

    def test_silence_is_an_alarm_where_silence_means_nobody_reads(self):
        assert {name for name, alarm in self.ON_CALL.items() if alarm["TreatMissingData"] == "breaching"} == {
            "IteratorAgeAlarm",
            "UnownedShardsAlarm",
            "BelowDesiredAlarm",
        }

    def test_the_publisher_is_looked_at_long_before_its_stream_forgets(self):
        alarm = self.ALARMS["PublishLagAlarm"]
        assert float(alarm["Threshold"]) == 6 * 3600

    def test_they_go_to_the_topic_and_only_where_there_is_one(self):
        for alarm in self.ON_CALL.values():
            assert alarm["AlarmActions"] == alarm["OKActions"] == ["arn:aws:sns:us-east-1:123456789012:on-call"]
        for name in self.ON_CALL:
            assert "AlarmActions" not in service(AlarmTopicArn="").of_type("AWS::CloudWatch::Alarm")[name]

    def test_own_metrics_are_those_the_service_writes(self):
        found = json.dumps(self.ALARMS)
        own = [alarm for alarm in self.ALARMS.values() if alarm.get("Namespace") == emf.NAMESPACE]
        assert {alarm["MetricName"] for alarm in own} == set(emf.METRICS)
        assert all(alarm["Dimensions"] == [{"Name": emf.DIMENSION, "Value": "engagement-scoring"}] for alarm in own)
        assert found.count(f'"{emf.NAMESPACE}"') == len(own) + 1  # and once in the expression of ScaleInAlarm

    def test_a_publisher_has_no_alarms_of_the_stream_it_does_not_read(self):
        alarms = service(Role="publish").of_type("AWS::CloudWatch::Alarm")
        assert not any(alarm.get("Namespace") == "AWS/Kinesis" for alarm in alarms.values())
        assert alarms["ScaleOutLagAlarm"]["MetricName"] == "PublishLag"


def test_prometheus_finds_the_tasks_by_name():
    stack = service()
    discovery = stack.resources["Discovery"]["Properties"]["DnsConfig"]
    assert (discovery["RoutingPolicy"], discovery["DnsRecords"][0]["Type"]) == ("MULTIVALUE", "A")
    assert stack.resources["Service"]["Properties"]["ServiceRegistries"] == [{"RegistryArn": "<Discovery.Arn>"}]
    assert service(MetricsDnsNamespace="").resources["Service"]["Properties"]["ServiceRegistries"] == []


class TestPrometheus:
    @pytest.mark.parametrize(("resource", "file"), [("RecordingRules", "recording.yml"), ("AlertRules", "alerts.yml")])
    def test_the_rules_are_those_of_deploy_prometheus(self, resource: str, file: str):
        """`deploy/embed-rules` writes them into the template again."""
        rules = (FOLDER.parent / "prometheus" / "rules" / file).read_text()
        assert load("prometheus")["Resources"][resource]["Properties"]["Data"] == rules

    def test_the_collector_finds_the_tasks_by_dns(self):
        stack = Stack("prometheus", MetricsDnsName="engagement-scoring.internal", SubnetIds=["subnet-1", "subnet-2"])
        collector = stack.resources["Collector"]["Properties"]
        assert set(collector["Source"]) == {"VpcConfiguration"}
        scrape = yaml.safe_load(collector["ScrapeConfiguration"]["ConfigurationBlob"])
        (job,) = scrape["scrape_configs"]
        assert job["job_name"] == "scoring"  # the rules select it
        assert job["dns_sd_configs"] == [{"names": ["engagement-scoring.internal"], "type": "A", "port": 9464}]
        assert "Collector" not in Stack("prometheus").resources

    def test_alerts_go_to_the_topic(self):
        topic = "arn:aws:sns:us-east-1:123456789012:on-call"
        definition = Stack("prometheus", AlarmTopicArn=topic).resources["Workspace"]["Properties"][
            "AlertManagerDefinition"
        ]
        config = yaml.safe_load(yaml.safe_load(definition)["alertmanager_config"])
        assert config["receivers"][0]["sns_configs"][0]["topic_arn"] == topic
