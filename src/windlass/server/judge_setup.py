"""The judge as the settings want it. An installation has one, whatever its servers were told."""

from __future__ import annotations

import structlog

from windlass.clock import Clock
from windlass.database import is_postgresql
from windlass.errors import JudgeElsewhere
from windlass.ids import Ids
from windlass.judge.jobs import Dispatch
from windlass.judge.service import DATABASE, Judge, has_problems
from windlass.settings import Settings
from windlass.store import Store

log = structlog.get_logger("windlass.server")

_SETTLED = "judge"
"""What the store keeps under this name: which judge the installation has."""


def open_judge(settings: Settings, store: Store, ids: Ids, clock: Clock, dispatch: Dispatch) -> Judge:
    """The judge in the database, where that is PostgreSQL, else in the data directory. Blocks; raises
    StartError.

    A server with queues of its own has its judge beside them, too, where that database is not for it: nothing
    in it may be changed, it has the judge of another installation, or this one's is in the directory already.
    Where other servers have the queues, too, the one judge in their data directories is that of the first to
    come: all others are off. One in PostgreSQL takes its place.
    """
    here, url = settings.data_dir, settings.database or None
    if url is not None and is_postgresql(url):
        try:
            _check(settings, store)
            return _settled(Judge.open(here, ids, clock, dispatch, url=url), store, anew=True)
        except JudgeElsewhere as error:
            if store.shared:
                raise
            log.warning("judge_in_data_directory", message=f"The judge is in {here / DATABASE}. {error}")
    judge = _settled(Judge.open(here, ids, clock, dispatch, synchronous=settings.synchronous), store)
    if judge.elsewhere is not None:
        log.warning("judge_elsewhere", message=judge.elsewhere)
    elif store.shared:
        log.warning(
            "judge_alone",
            message=f"The judge is in {here / DATABASE}, and other servers of the same queues have none. Give"
            " all of them the same PostgreSQL by --database.",
        )
    return judge


def _settled(judge: Judge, store: Store, *, anew: bool = False) -> Judge:
    """The judge, off where it is not that of the installation; `anew`: it is from now on."""
    try:
        mark = judge.mark()
        if store.settle(_SETTLED, mark, anew=anew) != mark:
            judge.elsewhere = (
                "Another server of the same queues has the judge. Ask that one, or give all of them the same"
                " PostgreSQL by --database."
            )
    except BaseException:
        judge.close()
        raise
    return judge


def _check(settings: Settings, store: Store) -> None:
    """Raises JudgeElsewhere where the judge may not be in the database, or is in the data directory."""
    if settings.products_read_only and not store.shared:
        raise JudgeElsewhere("With products_read_only nothing in the database is changed.")
    if has_problems(settings.data_dir):
        raise JudgeElsewhere(
            f"It has problems there already, and would have none in the database. Move {DATABASE} away to"
            " begin anew in the database."
        )
