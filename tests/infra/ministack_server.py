"""A second emulated AWS, by other people than moto: ministack, which `make ministack` sets up.

It judges each call by the policies of whoever signed it, with their conditions, hands requests to functions as API
Gateway does, with CORS, and reads streams for them. ``python -m tests.infra.ministack_server FOLDER PYTHON RUNTIME``
runs it, as ``ministack`` does for a test. Its functions run as ``functions`` says, with their roles' own credentials.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from build_lambda import find_python
from tests.conftest import ROOT
from tests.infra.applied import LAMBDAS_PYTHON
from tests.infra.functions import Function, Functions
from tests.ports import free_port
from tests.runtime_api import install_client
from tests.strict_moto import CREDENTIALS, REGION, Aws

HOME = Path(sys.prefix) / "ministack"
PLAIN = "127.0.0.2"  # what comes from there came without TLS, what comes from elsewhere with it


@contextmanager
def ministack(folder: Path) -> Iterator[Aws]:
    """One in which nothing is yet, until the block ends; skips the test where it is not set up. Logs: ``folder``."""
    if not HOME.is_dir():
        pytest.skip(f"no {HOME} (make ministack)")
    python, runtime, port = find_python(LAMBDAS_PYTHON), folder / "runtime", free_port()
    install_client(python, runtime)
    with (folder / "aws.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.infra.ministack_server", str(folder), str(python), str(runtime)],
            cwd=ROOT,
            env={**os.environ, **CREDENTIALS, **_settings(port, folder)},
            stdout=log,
            stderr=log,
        )
    try:
        aws = Aws(f"http://127.0.0.1:{port}")
        _wait_until_up(aws.url, process)
        yield aws
    finally:
        process.terminate()
        process.wait()


def _settings(port: int, folder: Path) -> dict[str, str]:
    return {
        "PYTHONPATH": os.pathsep.join([str(HOME), str(ROOT / "docker"), str(ROOT / "api")]),
        "AUTH": "true",
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "IOT_MTLS_ENABLED": "0",  # it would listen to all the world
        "LAMBDA_STRICT": "1",  # all functions go the way of containers, which is replaced below
        "MINISTACK_ACCOUNT_ID": "123456789012",
        "MINISTACK_REGION": REGION,
        "STATE_DIR": str(folder / "state"),
        "TMPDIR": str(folder),
    }


def _wait_until_up(url: str, process: subprocess.Popen[bytes]) -> None:
    import httpx

    until = time.monotonic() + 60
    while time.monotonic() < until:
        assert process.poll() is None, "ministack ended early"
        try:
            httpx.get(f"{url}/_ministack/health")
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError("ministack is not up after a minute")


def _run_functions(functions: Functions) -> None:
    """In the place of the containers that ministack would start, whose way it takes for all with LAMBDA_STRICT."""
    from ministack.core.lambda_runtime import execution_credentials
    from ministack.services import lambda_svc

    def execute(record: dict[str, Any], event: object, _request_id: str) -> dict[str, Any]:
        config = record.get("config") or record
        given = config.get("Environment", {}).get("Variables", {})
        function = Function(
            config["FunctionName"],
            f"{config['FunctionArn']} {config['CodeSha256']}",
            {**given, **execution_credentials(config)},
            float(config["Timeout"]),
            config["Handler"],
            None if config["PackageType"] == "Image" else record["code_zip"],
        )
        answer, is_error = functions.invoke(function, event)
        return {"body": answer, "error": is_error}

    setattr(lambda_svc, "_execute_function_docker", execute)  # noqa: B010  # mypy knows nothing of the module


def _judge_glue_by_all_it_names() -> None:
    """A call of Glue's needs its permission for the catalog, the database and the table, each by its ARN.

    ministack asks for one, and takes GetDatabase's Name for a table's.
    https://docs.aws.amazon.com/glue/latest/dg/glue-specifying-resource-arns.html
    """
    from ministack.core import iam_actions, iam_evaluator

    real_arn, real_enforce = iam_actions.extract_resource_arn, iam_evaluator.enforce

    def resource_arn(service: str, *request: Any) -> str:  # noqa: ANN401  # ministack's own, as below
        if service != "glue":
            return str(real_arn(service, *request))
        _method, _path, headers, body, _query, region, account = request
        asked = json.loads(body or b"{}")
        own = str(asked.get("Name") or asked.get("TableInput", {}).get("Name") or asked.get("TableName") or "")
        operation, arn = headers.get("x-amz-target", ""), f"arn:aws:glue:{region}:{account}"
        if operation.endswith("Database"):
            return f"{arn}:database/{own or asked.get('DatabaseInput', {}).get('Name')}"
        return f"{arn}:table/{asked['DatabaseName']}/{own or '*'}" if asked.get("DatabaseName") else f"{arn}:catalog"

    def enforce(key: str, action: str, service: str, region: str, resource_arn: str = "*", **more: Any) -> Any:  # noqa: ANN401
        arns = [resource_arn]
        if service == "glue" and not resource_arn.endswith(":catalog"):
            root, _, name = resource_arn.partition("/")
            account = root.rpartition(":")[0]
            arns = [f"{account}:catalog", f"{account}:database/{name.partition('/')[0]}", resource_arn]
        denials = (real_enforce(key, action, service, region, resource_arn=arn, **more) for arn in arns)
        return next((one for one in denials if one), None)

    setattr(iam_actions, "extract_resource_arn", resource_arn)  # noqa: B010  # as above
    setattr(iam_evaluator, "enforce", enforce)  # noqa: B010  # as above


def _count_as_over_tls() -> None:
    """All that comes, but from PLAIN: with certificates, each client here would have to be told of an authority."""
    from ministack import app
    from ministack.core.iam_evaluator import pin_request_origin

    setattr(app, "pin_request_origin", lambda address, _is_tls: pin_request_origin(address, address != PLAIN))  # noqa: B010  # as above


def main() -> None:
    """Serve until the process ends; the functions end with it."""
    from ministack import app

    folder, python, runtime = sys.argv[1:]
    del sys.argv[1:]  # ministack would read them
    url = f"http://127.0.0.1:{os.environ['GATEWAY_PORT']}"
    functions = Functions({"AWS_REGION": REGION, "AWS_ENDPOINT_URL": url}, Path(folder), python, runtime)
    atexit.register(functions.close)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    _run_functions(functions)
    _judge_glue_by_all_it_names()
    _count_as_over_tls()
    app.main()


if __name__ == "__main__":
    main()
