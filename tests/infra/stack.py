"""A stack that Terraform made: what its functions are told, what their roles may do, and what is under which key.

From any state of the module's resources. ``made_up`` is one that needs no AWS: Terraform's stand-in for the provider
answers, with the ARNs that AWS would give.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.infra.iam import Policy
from tests.infra.policies import iam_policies, of
from tests.infra.terraform import Resource, Terraform

ACCOUNT, REGION, NAME = "123456789012", "eu-west-1", "shop"
_SUFFIX = hashlib.sha256(f"{ACCOUNT}/{REGION}/{NAME}".encode()).hexdigest()[:10]
_RUN = "everything_at_once"


@dataclass(frozen=True, slots=True)
class Stack:
    """The resources of one apply."""

    resources: Sequence[Resource]

    def one(self, address: str) -> dict[str, Any]:
        """The values of a resource."""
        return next(one.values for one in self.resources if one.address == address)

    def policies(self, role: str) -> list[Policy]:
        """What decides on the calls of a role: its own policy, and those of the buckets, for what they deny."""
        every = iam_policies(self.resources)
        return [self.policy(role), *(one for name, one in every.items() if name.startswith("aws_s3_bucket_policy."))]

    def policy(self, role: str) -> Policy:
        """A role's own policy."""
        every = iam_policies(self.resources).items()
        return next(one for name, one in every if name.partition("[")[0] == f"aws_iam_role_policy.{role}")

    def environ(self, function: str) -> dict[str, str]:
        """What a function is told."""
        [environment] = self.one(f"aws_lambda_function.{function}")["environment"]
        return dict(environment["variables"])

    @property
    def keys(self) -> dict[str, str]:
        """The KMS key of what is under one, by the ARN of the bucket, stream or parameter."""
        found = {
            self.one("aws_kinesis_stream.this")["arn"]: self.one("aws_kinesis_stream.this")["kms_key_id"],
            self.one("aws_ssm_parameter.keys")["arn"]: self.one("aws_ssm_parameter.keys")["key_id"],
        }
        for one in of(self.resources, "aws_s3_bucket_server_side_encryption_configuration"):
            [rule] = one.values["rule"]
            [default] = rule["apply_server_side_encryption_by_default"]
            if default["sse_algorithm"] == "aws:kms":
                found[self.bucket(one.address.split('"')[1])["arn"]] = default["kms_master_key_id"]
        return found

    def bucket(self, name: str) -> dict[str, Any]:
        return self.one(f'aws_s3_bucket.this["{name}"]')


def made_up(terraform: Terraform) -> Stack:
    """A stack with every switch on that gives a role more to do."""
    head = (terraform.module / "tests" / "modes.tftest.hcl").read_text().partition('run "')[0]
    variables = "archive_days = 90\n    glue_optimizers = true"
    (terraform.module / "tests" / "stack.tftest.hcl").write_text(
        "\n".join([head, *_overrides(), f'run "{_RUN}" {{\n  variables {{\n    {variables}\n  }}\n}}\n'])
    )
    tested = terraform.test("stack.tftest.hcl", states=True)
    assert tested.errors == []
    return Stack(tested.states[_RUN])


def _overrides() -> list[str]:
    buckets = {name: f"{NAME}-{name}-{_SUFFIX}" for name in ("lake", "failures", "results", "sdk")}
    told = {
        "aws_kinesis_stream.this": {"arn": f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{NAME}"},
        "aws_ssm_parameter.keys": {"arn": f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/{NAME}/write-keys"},
        **{
            f"aws_cloudwatch_log_group.{name}": {
                "arn": f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/lambda/{NAME}-{name}"
            }
            for name in ("api", "processor")
        },
        **{
            f'aws_s3_bucket.this["{key}"]': {"arn": f"arn:aws:s3:::{name}", "id": name} for key, name in buckets.items()
        },
    }
    return [
        f"override_resource {{\n  target = {one}\n  values = {json.dumps(values)}\n}}" for one, values in told.items()
    ]
