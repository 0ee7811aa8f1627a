"""windlass serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from windlass.errors import WindlassError


def serve(
    host: Annotated[
        str | None,
        typer.Option(
            help="Address to listen on [default: 127.0.0.1]. Another than loopback needs an API key."
        ),
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port [default: 8000]; 0 takes a free one.")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="The one directory that holds everything [default: data].")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The Redis or Valkey that holds the queues: redis://, rediss://, unix://, redis+cluster://,"
            " redis+sentinel:// [default: SQLite in the data directory]. Others on this machine can see"
            " options: with a password in it, rather set WINDLASS_STORE.",
        ),
    ] = None,
    durability: Annotated[
        str | None,
        typer.Option(
            help="What an answer of the store on Redis promises: fsync, everysec, memory or replicated"
            " [default: fsync]. A Redis that gives less is refused."
        ),
    ] = None,
    replicas: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="With replicated: replicas that have a message before the answer [default: 1]."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Processes that serve the one address, for more than one core [default: 1]. More than one"
            " need --store, --redis and a --database of PostgreSQL.",
        ),
    ] = None,
    log_format: Annotated[str | None, typer.Option(help="console or json [default: console].")] = None,
    insecure: Annotated[
        bool | None, typer.Option("--insecure", help="Listen on any address without API keys.")
    ] = None,
    ready_file: Annotated[
        Path | None, typer.Option(help="Write the URL to this file once requests are accepted.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="A TOML file of settings [default: windlass.toml, if there is one].",
            envvar="WINDLASS_CONFIG",
        ),
    ] = None,
    registration_token: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            help="What runners register with [default: a fresh one, shown at the start; none where other"
            " machines can reach the server]. Others on this machine can see options: rather set"
            " WINDLASS_REGISTRATION_TOKEN.",
        ),
    ] = None,
    runner_jobs: Annotated[
        int | None, typer.Option(metavar="N", help="Jobs that a runner may hold at once [default: 8].")
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The database of the products and, if it is PostgreSQL, of the judge [default: SQLite in the"
            " data directory]. Others on this machine can see options: with a password in it, rather set"
            " WINDLASS_DATABASE.",
        ),
    ] = None,
    redis: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="The Redis that servers of one database share [default: REDIS_URL]."
        ),
    ] = None,
    products_file: Annotated[
        Path | None,
        typer.Option(
            help="Initial ids of products, one a line [default: products.txt in the data directory]."
        ),
    ] = None,
    products_table: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="An existing table of products [default: Windlass makes its own]."),
    ] = None,
    bloom_expected_items: Annotated[
        int | None,
        typer.Option(metavar="N", help="Products that the filter is made for [default: 1000000]."),
    ] = None,
    synchronous: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run the server until it is told to stop (SIGTERM, Ctrl-C).

    Options win over WINDLASS_* variables (WINDLASS_PORT=9000), and those over the TOML file.

    A start on this machine alone says how to start a runner beside it. For runners on other machines, set a
    registration token and an API key, and listen on an address that they reach.

    \b
    Examples:
      windlass serve --data-dir /var/lib/windlass --port 8000
      WINDLASS_REGISTRATION_TOKEN=$(cat token) windlass serve --host 10.0.0.5
      windlass serve --store redis://10.0.0.7/0?prefix=shop
      windlass serve --database postgresql://shop@db.example/shop --products-file ids.txt
    """
    import gc
    import os

    gc.disable()  # until the server is ready: what a start makes stays, and to look at it takes a tenth of it
    # numpy brings OpenBLAS, which would start a thread for each processor at once. We do no linear algebra.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from windlass import logs, settings  # the client commands start faster without

    if config is not None:
        os.environ["WINDLASS_CONFIG"] = str(config)
    try:
        wanted = settings.read(
            host=host,
            port=port,
            data_dir=data_dir,
            store=store,
            durability=durability,
            replicas=replicas,
            workers=workers,
            log_format=log_format,
            insecure=insecure,
            registration_token=registration_token,
            runner_jobs=runner_jobs,
            database=database,
            redis=redis,
            products_file=products_file,
            products_table=products_table,
            bloom_expected_items=bloom_expected_items,
            synchronous=synchronous,
        )
        logs.configure(wanted.log_format)
        from windlass.server.run import serve as run  # the client commands need none of it

        run(wanted, ready_file)
    except WindlassError as error:
        typer.echo(f"windlass: {error.detail}", err=True)
        raise typer.Exit(1) from None
    finally:
        gc.enable()
