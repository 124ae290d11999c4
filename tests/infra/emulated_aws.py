"""An AWS that Terraform can apply the module to: ``strict_moto``, and what moto lacks of it.

``python -m tests.infra.emulated_aws PORT FOLDER PYTHON RUNTIME``. What a function is invoked with goes to a process of
AWS's own runtime client, with the environment that the function was given and the code that was uploaded for it; the
image's code is that at hand. ``PYTHON`` and ``RUNTIME`` are Lambda's: an interpreter, and a folder with the client.
Nothing here evaluates a policy.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
import threading
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.jvm_home import spark_environ
from tests.runtime_api import UNPRIVILEGED, RuntimeApi
from tests.strict_moto import Aws, serve

_SOURCES = os.pathsep.join(str(ROOT / folder) for folder in ("contract", "api", "processor"))


class Functions:
    """A process for each version of a function, from its first invocation on."""

    def __init__(self, aws: Aws, folder: Path, python: str, runtime: str) -> None:
        self._aws, self._folder, self._python, self._runtime = aws, folder, python, runtime
        self._running: dict[str, tuple[RuntimeApi, threading.Lock]] = {}
        self._lock = threading.Lock()

    def invoke(self, function: Any, event: object) -> tuple[Any, bool]:  # noqa: ANN401  # moto's own
        """What it answered, and whether that is an error."""
        with self._lock:
            # Another configuration is another process, as on Lambda.
            key = f"{function.function_arn} {function.code_sha_256} {sorted(function.environment_vars.items())}"
            if key not in self._running:
                self._running[key] = self._start(function, len(self._running)), threading.Lock()
            process, one_at_a_time = self._running[key]
        with one_at_a_time:
            done = process.invoke(event)
        return (done.response, False) if done.error is None else (done.error, True)

    def _start(self, function: Any, number: int) -> RuntimeApi:  # noqa: ANN401  # moto's own
        task = self._folder / f"{function.function_name}-{number}"
        task.mkdir()
        environ = {**self._aws.environ, "HOME": str(task), **function.environment_vars}
        log = self._folder / f"{task.name}.log"
        if function.package_type == "Zip":
            with zipfile.ZipFile(BytesIO(function.code_bytes)) as archive:
                archive.extractall(task)
            return RuntimeApi(
                function.handler,
                {**environ, "PYTHONPATH": self._runtime},
                task,
                float(function.timeout),
                python=self._python,
                prefix=UNPRIVILEGED,
                log=log,
            )
        return RuntimeApi(
            "manymetrics_processor.ingest.lambda_handler.handler",
            {**environ, "PYTHONPATH": _SOURCES, **spark_environ()},
            task,
            float(function.timeout),
            log=log,
        )

    def close(self) -> None:
        """End the processes."""
        for process, _ in self._running.values():
            process.close()


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
        answer, is_error = functions.invoke(self.get_function(function_name, qualifier), json.loads(body or "{}"))
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

    for response, name, answer in [
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
    functions = Functions(Aws(f"http://127.0.0.1:{port}"), Path(folder), python, runtime)
    atexit.register(functions.close)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    _run_functions(functions)
    _heed_conditions()
    _fill_gaps()
    serve(port)


if __name__ == "__main__":
    main()
