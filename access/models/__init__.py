"""People and their groups and projects, grants on files, the audit log."""

from __future__ import annotations

from access.models.audit import AppendOnlyError, AuditEvent
from access.models.grants import FileGroupObjectPermission, FileUserObjectPermission, Source
from access.models.people import (
    EffectiveMember,
    Group,
    GroupMembership,
    MembershipChangedError,
    Project,
    ProjectMembership,
    User,
    find_drift,
    sync_effective_members,
)

__all__ = [
    "AppendOnlyError",
    "AuditEvent",
    "EffectiveMember",
    "FileGroupObjectPermission",
    "FileUserObjectPermission",
    "Group",
    "GroupMembership",
    "MembershipChangedError",
    "Project",
    "ProjectMembership",
    "Source",
    "User",
    "find_drift",
    "sync_effective_members",
]
