"""`client add|list|disable|enable`, `user add|list|disable`, `key rotate|list`: who may ask for tokens, and what signs them.

Secrets and passwords are read from files, standard input or a prompt, never from the command line, where other users of the machine see them.
"""

import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from fhir_server.commands import opened
from fhir_server.commands.opened import DataDir, MongoUri, TenantName
from fhir_server.jobs.trail import Trail
from fhir_server.security.authserver import clients, keys, users
from fhir_server.security.authserver.clients import Client, scopes_of
from fhir_server.security.authserver.kinds import ALL, KEYS
from fhir_server.security.authserver.server import BACKEND_SECONDS, LEEWAY_SECONDS
from fhir_server.security.authserver.users import ROLES, User
from fhir_server.security.occurrences import Occurrence
from fhir_server.settings import Settings
from fhir_server.store.mongo.records import MongoRecords
from fhir_server.store.mongo.store import MongoStore
from fhir_server.store.records import Records

T = TypeVar("T")
client_app = typer.Typer(help="Register the apps and services that may ask for tokens.", no_args_is_help=True)
user_app = typer.Typer(help="Register the people who may sign in.", no_args_is_help=True)
key_app = typer.Typer(help="Keys that sign tokens.", no_args_is_help=True)
console = Console(stderr=True)


def _with_records(where: opened.Where, act: Callable[[Records], Awaitable[T]], kind: str = "", text: str = "") -> T:
    """What `act` answers. kind, text: what is noted of it in the audit trail, '' for what only looks."""
    return _with_all(where, lambda records, _: act(records), kind, text)


def _with_all(where: opened.Where, act: Callable[[Records, Settings], Awaitable[T]], kind: str = "", text: str = "") -> T:
    """act: is handed the records and the settings of whom `where` names."""

    async def noted(store: MongoStore, settings: Settings) -> T:
        records = MongoRecords(store.database)
        await records.prepare(ALL)
        done = await act(records, settings)
        if kind and done is not False:
            recorder = Trail(opened.context(settings, store, where.tenant))
            recorder.happened(Occurrence(kind, client="operator", user=f"uid {os.getuid()}", text=text))
            await recorder.flush()
        return done

    return opened.on_place(where, noted)


def _print(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def _first_line(path: Path | None) -> str:
    """What a secret's file says; '-' is standard input."""
    if path is None:
        return ""
    return (sys.stdin.readline() if str(path) == "-" else path.read_text(encoding="utf-8")).strip()


@client_app.command(name="add")
def add_client(
    client_id: Annotated[str, typer.Argument(help="Its client_id.")],
    name: Annotated[str, typer.Option(help="The name that people see when they are asked for consent.")] = "",
    kind: Annotated[str, typer.Option(help="public, symmetric (client secret) or asymmetric (private_key_jwt).")] = "public",
    redirect_uri: Annotated[list[str] | None, typer.Option(help="Where it is sent back to; several may be given.")] = None,
    scope: Annotated[list[str] | None, typer.Option(help="The most it may be granted, one or many in a string.")] = None,
    jwks: Annotated[Path | None, typer.Option(help="File with its public key set (asymmetric).")] = None,
    jwks_uri: Annotated[str, typer.Option(help="Where its public key set is (asymmetric).")] = "",
    launch_uri: Annotated[str, typer.Option(help="Where an EHR opens it.")] = "",
    secret_file: Annotated[Path | None, typer.Option(help="File with the secret to use ('-': standard input); without it one is made.")] = None,
    trusted: Annotated[bool, typer.Option(help="The organisation's own app: people are not asked for consent.")] = False,
    data_dir: DataDir = None,
    mongodb_uri: MongoUri = None,
    tenant: TenantName = "",
) -> None:
    """Register an app or a backend service; a client secret is printed once and kept only as a digest."""
    client = Client(
        id=client_id,
        name=name or client_id,
        kind=kind,
        redirect_uris=tuple(redirect_uri or ()),
        scopes=scopes_of(scope or ()),
        jwks=json.loads(jwks.read_text(encoding="utf-8")) if jwks else None,
        jwks_uri=jwks_uri,
        launch_uri=launch_uri,
        trusted=trusted,
    )
    given = _first_line(secret_file)
    where = opened.at(data_dir, mongodb_uri, tenant)
    secret = _with_records(where, lambda records: clients.add(records, client, secret=given), "roles", f"client add {client_id}")
    _print({"client_id": client_id, **({"client_secret": secret} if secret and not given else {})})


@client_app.command(name="list")
def list_clients(data_dir: DataDir = None, mongodb_uri: MongoUri = None, tenant: TenantName = "") -> None:
    """List the registered clients."""
    rows = _with_records(opened.at(data_dir, mongodb_uri, tenant), clients.listed)
    _print(
        [
            {
                "client_id": one.id,
                "name": one.name,
                "kind": one.kind,
                "redirect_uris": one.redirect_uris,
                "scope": " ".join(one.scopes),
                **({"jwks_uri": one.jwks_uri} if one.jwks_uri else {}),
                "trusted": one.trusted,
                "disabled": one.disabled,
            }
            for one in rows
        ]
    )


def _told(done: bool, what: str) -> None:
    if not done:
        raise ValueError(f"{what}: not known")
    console.print("done", highlight=False)


@client_app.command(name="disable")
def disable_client(client_id: str, data_dir: DataDir = None, mongodb_uri: MongoUri = None, tenant: TenantName = "") -> None:
    """Refuse a client from now on; the tokens it has end within a second."""
    where = opened.at(data_dir, mongodb_uri, tenant)
    _told(_with_records(where, lambda records: clients.disable(records, client_id), "roles", f"client disable {client_id}"), client_id)


@client_app.command(name="enable")
def enable_client(client_id: str, data_dir: DataDir = None, mongodb_uri: MongoUri = None, tenant: TenantName = "") -> None:
    """Let a disabled client in again."""
    where = opened.at(data_dir, mongodb_uri, tenant)
    _told(_with_records(where, lambda records: clients.enable(records, client_id), "roles", f"client enable {client_id}"), client_id)


@user_app.command(name="add")
def add_user(
    name: Annotated[str, typer.Argument(help="What the person types to sign in.")],
    fhir_user: Annotated[str, typer.Option(help="Who the person is in FHIR: Practitioner/1, Patient/1 ...")] = "",
    role: Annotated[str, typer.Option(help=f"One of {', '.join(ROLES)}; without it: what the FHIR type says.")] = "",
    display: Annotated[str, typer.Option(help="The person's name on pages.")] = "",
    external: Annotated[str, typer.Option(help="'issuer|subject' at the outside OpenID provider, instead of a password.")] = "",
    password_file: Annotated[Path | None, typer.Option(help="File with the password ('-': standard input); without it you are asked.")] = None,
    data_dir: DataDir = None,
    mongodb_uri: MongoUri = None,
    tenant: TenantName = "",
) -> None:
    """Register a person with a local account."""
    password = _first_line(password_file)
    if not (password or external):
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    by_type = next((one for one, kinds in ROLES.items() if fhir_user.partition("/")[0] in kinds), "clinician")
    user = User("", name, fhir_user, role or by_type, display, external)
    where = opened.at(data_dir, mongodb_uri, tenant)
    made = _with_records(where, lambda records: users.add(records, user, password), "user", f"user add {name}")
    _print({"user": made.name, "sub": made.id, "role": made.role, "fhirUser": made.fhir_user})


@user_app.command(name="list")
def list_users(data_dir: DataDir = None, mongodb_uri: MongoUri = None, tenant: TenantName = "") -> None:
    """List the accounts."""
    rows = _with_records(opened.at(data_dir, mongodb_uri, tenant), users.listed)
    _print([{"user": one.name, "sub": one.id, "role": one.role, "fhirUser": one.fhir_user, "disabled": one.disabled} for one in rows])


@user_app.command(name="disable")
def disable_user(name: str, data_dir: DataDir = None, mongodb_uri: MongoUri = None, tenant: TenantName = "") -> None:
    """Refuse an account from now on; its sign-ins and tokens end."""
    where = opened.at(data_dir, mongodb_uri, tenant)
    _told(_with_records(where, lambda records: users.disable(records, name), "user", f"user disable {name}"), name)


@key_app.command()
def rotate(
    now: Annotated[
        bool, typer.Option(help="Sign with the new key at once and forget the others: tokens they signed end. After a compromise.")
    ] = False,
    data_dir: DataDir = None,
    mongodb_uri: MongoUri = None,
    tenant: TenantName = "",
) -> None:
    """Make the next signing key; it signs after two minutes, the ones before stay published until their tokens have ended."""
    where = opened.at(data_dir, mongodb_uri, tenant)
    where = replace(where, settings=opened.with_secret(where.settings))
    lead = 0 if now else keys.LEAD_SECONDS

    async def turn(records: Records, settings: Settings) -> str:
        overlap = 0 if now else settings.token_seconds + LEEWAY_SECONDS + BACKEND_SECONDS
        return await keys.rotate(records, settings.secret, overlap, lead=lead)

    _print({"kid": _with_all(where, turn, "keys", "key rotate")})


@key_app.command(name="list")
def list_keys(data_dir: DataDir = None, mongodb_uri: MongoUri = None, tenant: TenantName = "") -> None:
    """List the published keys, newest first."""
    rows = _with_records(opened.at(data_dir, mongodb_uri, tenant), lambda records: records.find(KEYS))
    _print([{"kid": row["kid"], "signs_from": row["signs_from"], "ends": row["ends"]} for row in reversed(rows)])
