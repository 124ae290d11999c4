"""An AWS that Terraform can apply the module to: ``strict_moto``, and what moto lacks of it.

``python -m tests.infra.emulated_aws PORT FOLDER PYTHON RUNTIME``. Its functions run as ``functions`` says, which
``FOLDER``, ``PYTHON`` and ``RUNTIME`` are for.
Nothing here evaluates a policy.
"""

from __future__ import annotations

import atexit
import json
import signal
import sys
from pathlib import Path
from typing import Any

from tests.infra.functions import Function, Functions
from tests.strict_moto import Aws, serve


def _run_functions(functions: Functions) -> None:
    from moto.awslambda.models import LambdaBackend

    def invoke(
        self: Any,  # noqa: ANN401  # moto's own, as all that follow
        function_name: str,
        qualifier: str | None,
        body: Any,  # noqa: ANN401
        _headers: Any,  # noqa: ANN401
        response_headers: Any,  # noqa: ANN401
    ) -> bytes:
        found = self.get_function(function_name, qualifier)
        function = Function(
            found.function_name,
            f"{found.function_arn} {found.code_sha_256}",
            found.environment_vars,
            float(found.timeout),
            found.handler,
            found.code_bytes if found.package_type == "Zip" else None,
        )
        answer, is_error = functions.invoke(function, json.loads(body or "{}"))
        if is_error:
            response_headers["x-amz-function-error"] = "Unhandled"
        return json.dumps(answer).encode()

    setattr(LambdaBackend, "invoke", invoke)  # noqa: B010  # mypy takes no assignment to a method
    # moto would invoke for each record, within the put. A test reads the stream as Lambda does.
    setattr(LambdaBackend, "send_kinesis_message", lambda *_, **__: None)  # noqa: B010  # as above


def _heed_conditions() -> None:
    """Moto takes a denial of what comes without TLS for a denial of all. What comes here counts as by TLS."""
    from moto.iam.access_control import IAMPolicy, PermissionResult
    from moto.s3.models import FakeBucket

    def over_tls(self: Any, action: str, resource: str) -> Any:  # noqa: ANN401
        if self.policy is None:
            return PermissionResult.NEUTRAL
        policy, plain = json.loads(self.policy), {"Bool": {"aws:SecureTransport": "false"}}
        heeded = [one for one in policy["Statement"] if one.get("Condition") != plain]
        return IAMPolicy(json.dumps({**policy, "Statement": heeded})).is_action_permitted(action, resource)

    setattr(FakeBucket, "get_permission", over_tls)  # noqa: B010


def _fill_gaps() -> None:
    """Calls of the provider's that moto has no answer for."""
    from moto.athena.responses import AthenaResponse
    from moto.budgets.responses import BudgetsResponse
    from moto.glue.responses import GlueResponse
    from moto.s3.models import FakeDeleteMarker

    def subscribers(self: Any) -> str:  # noqa: ANN401
        budget = self.backend.budgets[self._get_param("AccountId")][self._get_param("BudgetName")]
        asked = self._get_param("Notification")
        found = [one.subscribers for one in budget.notifications if asked.items() <= one.details.items()]
        return json.dumps({"Subscribers": found[0] if found else []})

    def no_tags(_self: Any) -> str:  # noqa: ANN401
        return json.dumps({"ResourceTags": []})

    def drop_named_query(self: Any) -> str:  # noqa: ANN401
        self.athena_backend.named_queries.pop(self._get_param("NamedQueryId"))
        return "{}"

    optimizers: dict[tuple[str, str, str], dict[str, Any]] = {}

    def optimizer_of(self: Any) -> tuple[str, str, str]:  # noqa: ANN401
        database, table, kind = (self._get_param(name) for name in ("DatabaseName", "TableName", "Type"))
        return database, table, kind

    def put_optimizer(self: Any) -> str:  # noqa: ANN401
        database, table, _ = key = optimizer_of(self)
        self.glue_backend.get_table(database, table)  # it must be there
        optimizers[key] = self._get_param("TableOptimizerConfiguration")
        return "{}"

    def optimizer(self: Any) -> Any:  # noqa: ANN401
        database, table, kind = key = optimizer_of(self)
        if key not in optimizers:
            return json.dumps({"__type": "EntityNotFoundException", "message": "no such optimizer"}), {"status": 400}
        found = {"type": kind, "configuration": optimizers[key]}
        return json.dumps({"DatabaseName": database, "TableName": table, "CatalogId": "1", "TableOptimizer": found})

    def drop_optimizer(self: Any) -> str:  # noqa: ANN401
        optimizers.pop(optimizer_of(self))
        return "{}"

    def dispose(_self: Any) -> None:  # noqa: ANN401
        """A bucket with versions is emptied of its delete markers too."""

    for response, name, answer in [
        (FakeDeleteMarker, "dispose", dispose),
        (BudgetsResponse, "describe_subscribers_for_notification", subscribers),
        (BudgetsResponse, "list_tags_for_resource", no_tags),
        (AthenaResponse, "delete_named_query", drop_named_query),
        (GlueResponse, "create_table_optimizer", put_optimizer),
        (GlueResponse, "update_table_optimizer", put_optimizer),
        (GlueResponse, "get_table_optimizer", optimizer),
        (GlueResponse, "delete_table_optimizer", drop_optimizer),
    ]:
        assert not hasattr(response, name), f"moto has {name} by now"
        setattr(response, name, answer)


def main() -> None:
    """Serve until the process ends; the functions end with it."""
    port, folder, python, runtime = sys.argv[1:]
    functions = Functions(Aws(f"http://127.0.0.1:{port}").environ, Path(folder), python, runtime)
    atexit.register(functions.close)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    _run_functions(functions)
    _heed_conditions()
    _fill_gaps()
    serve(port)


if __name__ == "__main__":
    main()
