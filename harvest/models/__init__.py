"""What is remembered: equipment, schedules, runs, files and their transfers."""

from harvest.models.equipment import MASK, Instrument, ReplacedFile, ServiceAccount, StorageLocation
from harvest.models.files import FileRecord, FileVersion, Origin, mint_arks, path_key
from harvest.models.runs import OPEN, HarvestRun, RunError, RunStatus, Trigger
from harvest.models.schedules import HarvestSchedule, MissedRun
from harvest.models.states import BEFORE_A_COPY, ENDS, STORED, UNFINISHED, WAY, State, Status
from harvest.models.transfers import FORGET_ERROR, START_ANEW, FileTransfer, LeaseLostError

__all__ = [
    "BEFORE_A_COPY",
    "ENDS",
    "FORGET_ERROR",
    "MASK",
    "OPEN",
    "START_ANEW",
    "STORED",
    "UNFINISHED",
    "WAY",
    "FileRecord",
    "FileTransfer",
    "FileVersion",
    "HarvestRun",
    "HarvestSchedule",
    "Instrument",
    "LeaseLostError",
    "MissedRun",
    "Origin",
    "ReplacedFile",
    "RunError",
    "RunStatus",
    "ServiceAccount",
    "State",
    "Status",
    "StorageLocation",
    "Trigger",
    "mint_arks",
    "path_key",
]
