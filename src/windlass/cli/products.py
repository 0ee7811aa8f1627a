"""windlass products: products behind a guard."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from windlass.cli import attack, products_export, products_import, products_rebuild
from windlass.cli.connect import Json, Key, Server, connect
from windlass.cli.output import note, number, print_fields, print_json, print_table, shown
from windlass.cli.queue import Yes, confirm
from windlass.cli.sizes import size
from windlass.client.product_values import Product
from windlass.client.transport import DEFAULT_URL
from windlass.errors import StartError

app = typer.Typer(
    help="Products behind a guard: look them up, change them, bring many in and out.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

ProductId = Annotated[str, typer.Argument(metavar="ID", help="The product's id.", show_default=False)]
Csv = Annotated[
    bool, typer.Option("--csv", help="CSV with a header, not JSON lines; goes without saying for *.csv.")
]


_encode = msgspec.json.Encoder(decimal_format="number").encode


def _json(value: Product | list[Product]) -> str:
    """JSON with prices as they are; print_json would make text of them."""
    return _encode(value).decode()


def _price(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise typer.BadParameter(f"{text!r} is no number") from None
    if not value.is_finite():
        raise typer.BadParameter(f"{text!r} is no price")
    return value


@app.command()
def get(product_id: ProductId, server: Server = DEFAULT_URL, key: Key = None, json: Json = False) -> None:
    """Look a product up; says who knew it, the cache or the database.

    \b
    Examples:
      windlass products get rope-30
      windlass products get rope-30 --json | jq .price
    """
    with connect(server, key) as client:
        product = client.products.get(product_id)
        if json:
            print(_json(product))
        else:
            print_fields([*_fields(product), ("source", shown(product.source or "-"))])


def _fields(product: Product) -> list[tuple[str, str]]:
    return [
        ("product", shown(product.product_id)),
        ("name", shown(product.name)),
        ("price", f"{product.price:f}"),
    ]


@app.command()
def put(
    product_id: ProductId,
    name: Annotated[str, typer.Option(metavar="NAME", help="What it is called.")],
    price: Annotated[Decimal, typer.Option(parser=_price, metavar="PRICE", help="Up to six decimal places.")],
    server: Server = DEFAULT_URL,
    key: Key = None,
    json: Json = False,
) -> None:
    """Add a product, or change the one that is there.

    \b
    Examples:
      windlass products put rope-30 --name "Rope, 30 m" --price 19.90
    """
    with connect(server, key) as client:
        product = client.products.put(product_id, name, price)
        if json:
            print(_json(product))
        else:
            print_fields(_fields(product))


@app.command()
def delete(
    product_id: ProductId, yes: Yes = False, server: Server = DEFAULT_URL, key: Key = None, json: Json = False
) -> None:
    """Take a product away.

    \b
    Examples:
      windlass products delete rope-30
      windlass products delete rope-30 --yes
    """
    with connect(server, key) as client:
        confirm(yes, f"Delete product {shown(product_id)}?")
        client.products.delete(product_id)
        if json:
            print_json({"deleted": product_id})
        else:
            print(f"Product {shown(product_id)} is deleted.")


@app.command("list")
def list_products(
    after: Annotated[str, typer.Option(metavar="ID", help="Those whose ids come after this one.")] = "",
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="How many at most.")] = 100,
    server: Server = DEFAULT_URL,
    key: Key = None,
    json: Json = False,
) -> None:
    """List products in the order of their ids. All of them: windlass products export.

    \b
    Examples:
      windlass products list
      windlass products list --after rope-30 --limit 10 --json
    """
    with connect(server, key) as client:
        page = client.products.page(after, limit)
        if json:
            print(_json(page.products))
            return
        if not page.products:
            note("There are no products. Add some: windlass products import FILE")
            return
        rows = [(shown(p.product_id), f"{p.price:f}", shown(p.name)) for p in page.products]
        print_table(("ID", "PRICE", "NAME"), rows)
        if page.next is not None:
            note(f"There are more: windlass products list --after {shown(page.next)}")


@app.command("import")
def import_products(
    file: Annotated[
        str, typer.Argument(metavar="FILE|-", help="A product a line, as JSON or CSV; - reads a pipe.")
    ],
    csv: Csv = False,
    server: Server = DEFAULT_URL,
    key: Key = None,
    json: Json = False,
) -> None:
    """Add and change many products.

    A line is {"product_id": "rope-30", "name": "Rope, 30 m", "price": 19.9}. CSV begins with a line that
    names the columns: product_id,name,price. Where a line is wrong, what is before it is written, and nothing
    behind it; to repeat the whole does no harm.

    \b
    Examples:
      windlass products import products.ndjson
      windlass products import products.csv
      zcat products.csv.gz | windlass products import - --csv
    """
    products_import.run(file, csv or file.endswith(".csv"), server, key, json)


@app.command()
def export(
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="Where to; - is the standard output.")] = "-",
    csv: Csv = False,
    server: Server = DEFAULT_URL,
    key: Key = None,
    json: Json = False,
) -> None:
    """Write all products, as windlass products import takes them.

    \b
    Examples:
      windlass products export products.ndjson
      windlass products export --csv | gzip > products.csv.gz
    """
    products_export.run(None if file == "-" else Path(file), csv or file.endswith(".csv"), server, key, json)


@app.command()
def stats(server: Server = DEFAULT_URL, key: Key = None, json: Json = False) -> None:
    """Show the filter in front of the products, and what it has saved since the server's start.

    \b
    Examples:
      windlass products stats
      windlass products stats --json | jq .metrics.roundtrip_reduction
    """
    with connect(server, key) as client:
        found, metrics = client.products.stats(), client.products.metrics()
        if json:
            print_json({"filter": found, "metrics": metrics})
            return
        print_fields(
            [
                ("ids in the filter", f"{number(found.items)} of {number(found.expected_items)}"),
                ("lets pass", f"{found.estimated_false_positive_rate:.4%} of absent ids"),
                ("its memory", size(found.memory_bytes / 1024)),
                ("layers", number(found.layers)),
                ("deleted since it was built", number(found.deletions)),
                ("kept as", shown(found.state_key)),
                ("look-ups", number(metrics.requests)),
                ("  absent by the filter", number(metrics.bloom_filter)),
                ("  absent, remembered", number(metrics.negative_cache)),
                ("  from the cache", number(metrics.cache)),
                ("  from the database", number(metrics.database)),
                ("database calls saved", f"{metrics.roundtrip_reduction:.1%}"),
            ]
        )


@app.command()
def rebuild(server: Server = DEFAULT_URL, key: Key = None, json: Json = False) -> None:
    """Make the filter anew while it is in use, of the products there are now.

    The server does so by itself once the filter has outgrown its size or a tenth of its ids are deleted.

    \b
    Examples:
      windlass products rebuild
    """
    products_rebuild.run(server, key, json)


@app.command()
def trigger(
    table: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The table, with its schema [default: products_table, as is set]."),
    ] = None,
    key_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its column of ids [default: products_key, as is set].")
    ] = None,
    dialect: Annotated[
        str | None, typer.Option(metavar="NAME", help="postgresql or sqlite [default: database, as is set].")
    ] = None,
) -> None:
    """Print SQL: the trigger by which Windlass learns what others write to a table of products.

    For the table's owner to look at and run, where Windlass itself may not. It asks no server.

    \b
    Examples:
      windlass products trigger --table sales.products --key-column sku --dialect postgresql | psql shop
      windlass products trigger --table products --key-column id --dialect sqlite | sqlite3 shop.db
    """
    from windlass.cli import products_trigger  # the other commands start faster without

    try:
        print(products_trigger.run(table, key_column, dialect), end="")
    except StartError as error:
        typer.echo(f"windlass: {error.detail}", err=True)
        raise typer.Exit(1) from None


app.command()(attack.attack)
