"""People and their groups and projects, grants on files, the audit log."""

from __future__ import annotations

from access.models.audit import AppendOnlyError, AuditEvent, AuditSeal
from access.models.containers import Group, Project
from access.models.credentials import ApiToken, Attempt, TokenFamily
from access.models.effective_members import find_drift, sync_effective_members
from access.models.grants import FileGroupObjectPermission, FileUserObjectPermission, Source
from access.models.memberships import GroupMembership, MembershipChangedError, ProjectMembership
from access.models.requests import InstrumentRequest
from access.models.users import EffectiveMember, User

__all__ = [
    "ApiToken",
    "AppendOnlyError",
    "Attempt",
    "AuditEvent",
    "AuditSeal",
    "EffectiveMember",
    "FileGroupObjectPermission",
    "FileUserObjectPermission",
    "Group",
    "GroupMembership",
    "InstrumentRequest",
    "MembershipChangedError",
    "Project",
    "ProjectMembership",
    "Source",
    "TokenFamily",
    "User",
    "find_drift",
    "sync_effective_members",
]
