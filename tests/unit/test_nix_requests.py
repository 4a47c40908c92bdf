"""The requests of `nix.exec`: what they hold, and where a faulty one is faulty."""

from typing import Any

import pytest

from mfm_ops.machine.codes import CATALOGUE
from mfm_ops.machine.errors import TransportFailure
from transports.nix_requests import ResolveFlakeAppV1, RunFlakeAppV1, parse_request

APP = "github:willyrgf/mfm#tool"


def resolve(**changes: Any) -> dict[str, Any]:
    return {"kind": "resolve_flake_app_v1", "app": APP, **changes}


def run(**changes: Any) -> dict[str, Any]:
    return {"kind": "run_flake_app_v1", "app": APP, **changes}


def fault(request: Any) -> tuple[str, str]:
    """Pointer and reason of a request's refusal."""
    with pytest.raises(TransportFailure) as caught:
        parse_request(request)
    info = caught.value.info
    assert info.code == "nix_request_invalid"
    assert set(info.details) <= CATALOGUE[info.code].safe_details
    return info.details["pointer"], info.details["reason"]


def test_a_request_has_defaults() -> None:
    assert parse_request(resolve()) == ResolveFlakeAppV1(
        kind="resolve_flake_app_v1", app=APP, timeout_ms=300_000
    )
    parsed = parse_request(run())
    assert isinstance(parsed, RunFlakeAppV1)
    assert (parsed.argv, parsed.stdin_json, parsed.env, parsed.host_env_bindings) == (
        [],
        None,
        {},
        {},
    )


@pytest.mark.parametrize(
    ("request_", "pointer", "reason"),
    [
        (None, "", "model_type"),
        ({}, "/kind", "missing"),
        ({"kind": "shell_v1", "app": APP}, "/kind", "literal_error"),
        ({"kind": "resolve_flake_app_v1"}, "/app", "missing"),
        (resolve(app=1), "/app", "string_type"),
        (resolve(app="nixpkgs#hello"), "/app", "scheme"),
        (resolve(app="github:o/r#a.b"), "/app", "app_name"),
        (resolve(app="github:o/r --option x#a"), "/app", "character"),
        (resolve(app="github:o/../r#a"), "/app", "location"),
        (resolve(timeout_ms=0), "/timeout_ms", "greater_than_equal"),
        (resolve(timeout_ms=1.5), "/timeout_ms", "int_type"),
        (resolve(argv=[]), "/*", "extra_forbidden"),
        (resolve(password="x"), "/*", "extra_forbidden"),
        (run(argv=["a", 1]), "/argv/1", "string_type"),
        (run(env={"A=B": "x"}), "/env/*", "variable_name"),
        (run(env={"MFM_IDEMPOTENCY_KEY": "x"}), "/env/*", "reserved_variable"),
        (run(host_env_bindings={"A": ""}), "/host_env_bindings/*", "variable_name"),
        (run(env={"A": "x"}, host_env_bindings={"A": "B"}), "/host_env_bindings",
         "duplicate_variable"),
    ],
)  # fmt: skip
def test_a_faulty_request_names_the_place(request_: Any, pointer: str, reason: str) -> None:
    assert fault(request_) == (pointer, reason)
