"""Let PyIceberg read the tables of a data directory that may have been moved or copied."""

from __future__ import annotations

from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.typedef import EMPTY_DICT, Properties

from manymetrics.data_folder import path_in


class FolderFileIO(PyArrowFileIO):
    """A PyIceberg FileIO for the tables' files in the directory named by the property ``folder``."""

    @staticmethod
    def parse_location(location: str, properties: Properties = EMPTY_DICT) -> tuple[str, str, str]:
        """Like ``PyArrowFileIO.parse_location``. Raises ValueError."""
        return "file", "", path_in(properties["folder"], location)
