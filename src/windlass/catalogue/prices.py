"""Prices in columns: ours, which is exact everywhere, and whatever numbers a table of the user's has."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Literal

from sqlalchemy import Dialect, Float, Integer, Numeric, Text
from sqlalchemy.types import NullType, TypeDecorator, TypeEngine

from windlass.catalogue.product import DIGITS, PLACES, price_text
from windlass.errors import Invalid


class Price(TypeDecorator[Decimal]):
    """An exact decimal number. SQLite has none, and would make a float of it: there it is text."""

    impl = Numeric(DIGITS, PLACES)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Decimal]:
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else self.impl_instance)

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> object:
        return price_text(value) if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: object, dialect: Dialect) -> Decimal | None:  # noqa: ARG002
        return None if value is None else Decimal(price_text(Decimal(str(value))))


class TheirPrice(TypeDecorator[Decimal]):
    """A column of numbers. What is no price there, NULL and NaN and infinity, is 0."""

    impl = NullType  # as the driver gives and takes it
    cache_ok = True

    def __init__(self, number: Literal["numeric", "float", "integer"], places: int | None) -> None:
        """`places` after the point is what the column keeps; None: as many as there are."""
        super().__init__()
        self.number = number
        self.places = places

    @classmethod
    def like(cls, column: Numeric[Any] | Float[Any] | Integer) -> TheirPrice:
        """The type of a column that was found."""
        if isinstance(column, Integer):
            return cls("integer", 0)
        if isinstance(column, Float):
            return cls("float", None)
        # NUMERIC(p) has no places; NUMERIC has any number of them.
        return cls("numeric", column.scale if column.precision is None else column.scale or 0)

    def check(self, price: Decimal) -> None:
        """Raises Invalid for a price that the column would round."""
        if self.places is not None and price != round(price, self.places):
            kept = f"at most {self.places} decimal places" if self.places else "no decimal places"
            raise Invalid(f"price must have {kept} in this table.", field="price")

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> object:
        if value is None:
            return None
        if dialect.name == "sqlite":
            return price_text(value)  # the column makes a number of it
        return float(value) if self.number == "float" else value

    def process_result_value(self, value: object, dialect: Dialect) -> Decimal:  # noqa: ARG002
        price = Decimal(str(value)) if isinstance(value, (int, float, Decimal)) else Decimal(0)
        return Decimal(price_text(price)) if price.is_finite() else Decimal(0)
