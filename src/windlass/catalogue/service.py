"""The catalogue: products behind a guard."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from windlass.catalogue.existing import Existing
from windlass.catalogue.follower import Follower
from windlass.catalogue.keeping import Keeper, Kept
from windlass.catalogue.product import Product
from windlass.catalogue.products import Products
from windlass.catalogue.record import Position, Record
from windlass.catalogue.writers import Held, Lock, lock_of, take
from windlass.database import sqlite_url
from windlass.errors import StartError
from windlass.guard.guard import Answer, Guard, Limits
from windlass.guard.saved import KEY, InRedis, OnDisk, Storage

if TYPE_CHECKING:
    from windlass.guard.views import Views

DATABASE = "catalogue.db"
FILTER = "catalogue.filter"
_PRODUCT = 200
"""Bytes of a product in memory beside its id and name."""


_PATIENCE = 5.0
"""Seconds that a start waits for the other servers' news, so that its first answers are from memory."""

log = structlog.get_logger("windlass.catalogue")


class Catalogue:
    """Products, looked up through a guard and written past it.

    Who else writes them decides how the guard knows of it: nobody, which a lock makes sure of; other servers,
    which tell each other in Redis; or any program, whose writes a trigger records.
    """

    def __init__(self, products: Products, keeper: Keeper, *, limits: Limits | None = None) -> None:
        """`keeper` has the filter of all ids that there are; it is started here, and closed with this."""
        self.products = products
        self.keeper = keeper
        self.guard: Guard[Product] = Guard(keeper.filter, products.get, weigh=_weight, limits=limits)
        self.follower: Follower | None = None
        self.views: Views | None = None
        self._held: Held | None = None
        keeper.start(self.guard)

    @classmethod
    def open(
        cls,
        data_dir: Path,
        secret: bytes,
        *,
        url: str | None = None,
        table: Existing | None = None,
        read_only: bool = False,
        max_lag_seconds: float | None = None,
        redis_url: str | None = None,
        state_key: str = KEY,
        synchronous: str = "full",
        storage: Storage | None = None,
        limits: Limits | None = None,
        **filter: Any,  # noqa: A002
    ) -> Catalogue:
        """The catalogue of a data directory, or of the database at `url`. Raises StartError; blocks.

        Its filter, made under the installation's `secret`, is kept in `storage`, or in Redis under
        `state_key`, or in the data directory; `filter` are further arguments of `Keeper`. At `redis_url`
        several servers of one database tell each other of their writes. Where others than Windlass write the
        table, `max_lag_seconds` says how long their writes may be unknown here.
        """
        url = url or sqlite_url(data_dir / DATABASE)
        products = Products(url, table=table, read_only=read_only, synchronous=synchronous)
        lock: Lock | None = None
        try:
            record = None if max_lag_seconds is None else _kept(products.record)
            if record is None and not read_only:
                name = table.table if table is not None else ""
                lock = lock_of(url, name, shared=redis_url is not None)
                if lock is not None and redis_url is not None:
                    lock.alone(products.epochs.begin)
                take(lock)
            if redis_url is not None:
                from windlass.guard.redis import connect  # here, as a start without a Redis does without

                secret = _shared_secret(redis_url, state_key, secret)
                storage = storage or InRedis(connect(redis_url), state_key)
            storage = storage or OnDisk(data_dir / FILTER, state_key)
            keeper = Keeper(products, products.record, storage, secret, trim=not read_only, **filter)
        except BaseException:
            if lock is not None:
                lock.close()
            products.close()
            raise
        catalogue = cls(products, keeper, limits=limits)
        try:
            if record is not None and max_lag_seconds is not None:
                catalogue._follow(record, max_lag_seconds)
            elif redis_url is not None:
                catalogue._share(redis_url, state_key, secret, lock)
            elif lock is not None:
                catalogue._hold(lock)
        except BaseException:
            catalogue.close()
            if lock is not None:
                lock.close()
            raise
        return catalogue

    def _follow(self, record: Record, max_lag_seconds: float) -> None:
        def rebuild() -> Position:
            position = record.position()
            self.keeper.make_anew()
            self.guard.forget()
            return position

        trim = not self.products.read_only
        self.follower = Follower(record, self.guard, rebuild, max_lag_seconds=max_lag_seconds, trim=trim)
        self.guard.peers = self.follower
        self.follower.start(self.keeper.position)

    def _hold(self, lock: Lock) -> None:
        def regained() -> None:
            self.keeper.catch_up()
            self.guard.forget()

        self.guard.peers = self._held = Held(lock, regained)

    def _share(self, redis_url: str, state_key: str, secret: bytes, lock: Lock | None) -> None:
        from windlass.guard.redis import FAKE, connect
        from windlass.guard.views import Views

        epochs, options = self.products.epochs, dict[str, Any]()
        if lock is not None:
            options["first"], options["alone"] = epochs.is_first, lock.alone
            options["admits"] = lambda epoch, before: (
                epochs.enter(epoch, before) or lock.alone(lambda: epochs.take(epoch))
            )
        if redis_url.startswith(FAKE):  # what is made up in this process was never anywhere else
            options["first"] = lambda _: True
        self.guard.peers = self.views = Views(
            self.guard,
            connect(redis_url),
            self.keeper.catch_up,
            state_key=state_key,
            secret=secret,
            **options,
        )
        if lock is not None:
            self.guard.peers = self._held = Held(lock, self.views.rejoin, self.views)
        self.views.start(_PATIENCE)

    def close(self) -> None:
        """Save the filter, finish what is under way in the database, then refuse everything. Blocks."""
        if self.follower is not None:
            self.follower.stop()
        if self.views is not None:
            self.views.close()
        self.keeper.close()
        if self._held is not None:
            self._held.close()
        self.products.close()

    def bypassed(self) -> str | None:
        """Why look-ups go past what is in memory, None where they do not."""
        if self.guard.peers.current():
            return None
        if self._held is not None and not self._held.held:
            return "Another Windlass writes the products, and this one does not hear of it."
        if self.views is not None:
            return self.views.status().reason
        if self.follower is not None:
            return "What others have written is not known in time."
        return None

    def stats(self) -> Kept:
        """The filter's figures."""
        return self.keeper.stats()

    async def rebuild(self) -> None:
        """Make the filter anew while it is in use; see `Keeper.rebuild`."""
        await self.keeper.rebuild()

    def begin_rebuild(self) -> None:
        """`rebuild`, which `stats` tells of."""
        self.keeper.ask()

    def lag(self) -> float | None:
        """Seconds since when writes of others may be unknown here; None without others, and before a read."""
        lag = math.inf if self.follower is None else self.follower.lag()
        return lag if math.isfinite(lag) else None

    async def get(self, product_id: str) -> Answer[Product]:
        """What there is, and who knew. Raises StoreUnavailable."""
        return await self.guard.get(product_id)

    async def insert(self, product: Product) -> None:
        """Add a new product; whoever asks from now on finds it. Raises ProductExists, StoreUnavailable."""
        self.products.check_writable()  # before a stranger's id is in the filter
        await self.guard.write([product.product_id], lambda: self.products.insert(product), adding=True)

    async def put(self, several: Sequence[Product]) -> int:
        """Write these whether they are there or not, all or none; how many are new."""
        self.products.check_writable()
        ids = [product.product_id for product in several]
        return await self.guard.write(ids, lambda: self.products.put(several), adding=True)

    async def add(self, ids: Sequence[str]) -> int:
        """Add a product for each id that is not there, with no more than that; how many were new."""
        self.products.check_writable()
        return await self.guard.write(ids, lambda: self.products.add(ids), adding=True)

    async def delete(self, product_id: str) -> bool:
        """Take one away; whether it was there. What cannot be there costs no transaction."""
        self.products.check_writable()
        if self.guard.peers.current() and product_id not in self.guard.filter:
            return False
        was_there = await self.guard.write(
            [product_id], lambda: self.products.delete(product_id), adding=False
        )
        if was_there:
            self.keeper.deleted()
        return was_there

    async def page(self, after: str = "", limit: int = 100) -> Sequence[Product]:
        """Up to `limit` products whose ids come after `after`, in the order of their UTF-8."""
        return await self.products.page(after, limit)


def _shared_secret(redis_url: str, state_key: str, own: bytes) -> bytes:
    """The secret of the filters of all servers; our own where Redis is away."""
    import redis

    from windlass.guard.journal import Journal
    from windlass.guard.redis import connect

    try:
        return Journal(connect(redis_url), state_key).secret(own)
    except (redis.RedisError, OSError) as error:
        log.warning("no_shared_secret", message=f"Redis is away, so the filter is this server's own: {error}")
        return own


def _kept(record: Record | None) -> Record:
    if record is None:
        raise StartError(
            "To follow what others write, Windlass needs the trigger on the products' table. Have the table's"
            " owner run what `windlass products trigger` prints, and give us leave to read windlass_keys; or"
            " let Windlass install it: products_trigger."
        )
    return record


def _weight(product: Product) -> int:
    return sys.getsizeof(product.product_id) + sys.getsizeof(product.name) + _PRODUCT
