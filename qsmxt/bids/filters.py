"""BIDS filter files (``--bids-filter-file``): which images a query may use.

The file is a JSON object ``{query: {entity: wanted}}``. The queries of this program are ``qsm`` (the gradient
echoes) and ``t1w``; queries of other programs are tolerated. ``wanted`` is a label, a list of labels, ``null``
(the entity must be absent) or ``"*"`` (it must be present). Entities go by their long or short names; ``suffix``,
``datatype`` and ``extension`` are entities as well. ``"regex_search": true`` reads labels as regular expressions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qsmxt.bids.entities import long_name, strip_prefix
from qsmxt.bids.metadata import read_json
from qsmxt.errors import InputError

#: Names under which a filter file may address the gradient echoes; the first one that is there counts.
QSM_QUERIES = ("qsm", "megre")
T1W_QUERY = "t1w"

_PREFIXED = {"subject": "sub", "session": "ses"}


def load_filter_file(path: str | Path) -> dict[str, dict[str, Any]]:
    """Filters by query, entities by their long names.

    Raises
    ------
    MissingInputError
        If the file cannot be read.
    InputError
        If it is not a JSON object of objects.
    """
    filters = {}
    for query, wanted in read_json(Path(path)).items():
        if not isinstance(wanted, dict):
            raise InputError(f"{path}: {query}: expected an object of entities, found {wanted!r}; see the BIDS filters")
        filters[query] = {long_name(name): value for name, value in wanted.items()}
        if wanted.get("regex_search"):
            _check_expressions(path, query, wanted)
    return filters


def _check_expressions(path: str | Path, query: str, wanted: Mapping[str, Any]) -> None:
    for value in wanted.values():
        for text in value if isinstance(value, list) else [value]:
            if text is None or text == "*":
                continue
            try:
                re.compile(str(text))
            except (re.error, RecursionError, OverflowError) as error:
                raise InputError(
                    f"{path}: {query}: expected a regular expression, found {str(text)[:80]!r} ({error}); correct it"
                ) from None


def qsm_filter(filters: Mapping[str, Mapping[str, Any]] | None) -> dict[str, Any]:
    """What the gradient echoes must satisfy.

    A file without a query of ours, whose queries all name the same session, selects that session: this is what
    runners write that split a dataset into jobs by session without knowing the program.
    """
    filters = filters or {}
    for query in QSM_QUERIES:
        if query in filters:
            return dict(filters[query])
    sessions = [wanted.get("session") for wanted in filters.values()]
    if sessions and isinstance(sessions[0], str) and all(session == sessions[0] for session in sessions):
        return {"session": sessions[0]}
    return {}


def t1w_filter(filters: Mapping[str, Mapping[str, Any]] | None) -> dict[str, Any]:
    """What T1-weighted images must satisfy."""
    return dict((filters or {}).get(T1W_QUERY, {}))


def matches(entities: Mapping[str, str], wanted: Mapping[str, Any]) -> bool:
    """Whether an image with ``entities`` (including suffix, datatype, extension) satisfies ``wanted``."""
    search = bool(wanted.get("regex_search", False))
    return all(
        _accepts(name, entities.get(name), value, search) for name, value in wanted.items() if name != "regex_search"
    )


def _accepts(name: str, found: str | None, wanted: Any, search: bool) -> bool:
    if isinstance(wanted, (list, tuple)):
        return any(_accepts(name, found, item, search) for item in wanted)
    if wanted is None:
        return found is None
    if found is None:
        return False
    if wanted == "*":
        return True
    text = str(wanted)
    if search:
        return re.search(text, found) is not None
    if name in _PREFIXED:
        text = strip_prefix(text, _PREFIXED[name])
    if name == "extension":
        return found.lstrip(".") == text.lstrip(".")
    return found == text or (name not in _PREFIXED and found.isdigit() and text.isdigit() and int(found) == int(text))
