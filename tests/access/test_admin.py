"""The admin pages of people and rights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from rest_framework.test import APIClient

from access import instrument_requests
from access.grants import grant
from access.members import add_members
from access.models import AuditEvent, FileUserObjectPermission, Group, Project, User, find_drift
from harvest.models import FileRecord

pytestmark = pytest.mark.django_db
MakeUser = Callable[..., User]
MakeFiles = Callable[[int], list[FileRecord]]


@pytest.fixture
def pages(admin: User) -> Client:
    client = Client()
    assert client.login(username="ADMIN@example.org", password="correct-horse-9")
    return client


def act(pages: Client, model: str, action: str, *rows: Any) -> str:
    data = {"action": action, "_selected_action": [str(row.pk) for row in rows]}
    response = pages.post(reverse(f"admin:access_{model}_changelist") + "?deleted=all", data, follow=True)
    assert response.status_code == 200
    return " ".join(str(message) for message in response.context["messages"])


def formset(prefix: str, rows: list[dict[str, str]], initial: int = 0) -> dict[str, str]:
    data = {f"{prefix}-TOTAL_FORMS": str(len(rows)), f"{prefix}-INITIAL_FORMS": str(initial)}
    for number, row in enumerate(rows):
        data |= {f"{prefix}-{number}-{name}": value for name, value in row.items()}
    return data


def test_every_page_opens(pages: Client, admin: User, make_user: MakeUser, make_files: MakeFiles) -> None:
    ann, files = make_user("ann"), make_files(2)
    group, project = Group.objects.create(name="Core"), Project.objects.create(name="Kinase")
    add_members(to=group, members=[ann], by=admin)
    add_members(to=project, members=[group])
    for kind, one in (("user", ann), ("group", group), ("project", project)):
        grant(files, grantee_type=kind, grantee_id=one.pk)
        assert pages.get(reverse(f"admin:access_{kind}_change", args=[one.pk])).status_code == 200
        assert pages.get(reverse(f"admin:access_{kind}_add")).status_code == 200
    for model in (
        "user",
        "group",
        "project",
        "fileuserobjectpermission",
        "filegroupobjectpermission",
        "auditevent",
        "instrumentrequest",
    ):
        for query in ("", "?q=core", "?deleted=yes" if model in ("user", "group", "project") else ""):
            assert pages.get(reverse(f"admin:access_{model}_changelist") + query).status_code == 200
    event = AuditEvent.objects.first()
    assert event is not None
    assert pages.get(reverse("admin:access_auditevent_change", args=[event.pk])).status_code == 200


def test_nobody_but_administrators_gets_in(make_user: MakeUser) -> None:
    ann, client = make_user("ann"), Client()
    client.force_login(ann, backend="access.backends.EmailBackend")
    assert client.get(reverse("admin:access_user_changelist")).status_code == 302


def test_a_user_is_added_who_can_log_in(pages: Client) -> None:
    data = {
        "email": "new@example.org",
        "role": "user",
        "password1": "horse-battery-4",
        "password2": "horse-battery-4",
        "usable_password": "true",
    }
    response = pages.post(reverse("admin:access_user_add"), data)
    assert response.status_code == 302, response.context["errors"]
    assert Client().login(username="new@example.org", password="horse-battery-4")
    assert AuditEvent.objects.filter(action="user.created").count() == 1


def test_members_are_added_and_removed_in_the_rows_of_a_group(pages: Client, make_user: MakeUser) -> None:
    ann, bob, group = make_user("ann"), make_user("bob"), Group.objects.create(name="Core")
    project = Project.objects.create(name="Kinase")
    url = reverse("admin:access_group_change", args=[group.pk])
    rows = [{"user": str(who.pk), "group": str(group.pk)} for who in (ann, bob)]
    data = {"name": "Core", "description": ""}
    assert pages.post(url, data | formset("memberships", rows)).status_code == 302
    add_members(to=project, members=[group])
    assert set(project.auth_group.user_set.all()) == {ann, bob}
    first = group.memberships.get(user=ann)
    gone = [{"id": str(first.pk), "group": str(group.pk), "DELETE": "on"}]
    kept = [{"id": str(group.memberships.get(user=bob).pk), "group": str(group.pk)}]
    assert pages.post(url, data | formset("memberships", gone + kept, initial=2)).status_code == 302
    assert set(project.auth_group.user_set.all()) == {bob}
    group.refresh_from_db()
    assert group.description is None
    assert find_drift() == (set(), {})


def test_a_project_takes_users_and_groups_but_not_both_in_one_row(pages: Client, make_user: MakeUser) -> None:
    ann, group, project = make_user("ann"), Group.objects.create(name="Core"), Project.objects.create(name="Kinase")
    add_members(to=group, members=[make_user("bob")])
    url = reverse("admin:access_project_change", args=[project.pk])
    base = {"project": str(project.pk)}
    both = [base | {"user": str(ann.pk), "group": str(group.pk)}]
    refused = pages.post(url, {"name": "Kinase"} | formset("memberships", both))
    assert refused.status_code == 200
    assert "either a user or a group" in refused.content.decode()
    rows = [base | {"user": str(ann.pk), "group": ""}, base | {"user": "", "group": str(group.pk)}]
    assert pages.post(url, {"name": "Kinase"} | formset("memberships", rows)).status_code == 302
    assert project.auth_group.user_set.count() == 2


def test_nothing_can_be_deleted_for_good(pages: Client) -> None:
    group = Group.objects.create(name="Core")
    assert pages.post(reverse("admin:access_group_delete", args=[group.pk]), {"post": "yes"}).status_code == 403
    act(pages, "group", "delete_selected", group)
    assert Group.objects.alive().count() == 1


def test_groups_are_deleted_and_restored_by_actions(pages: Client) -> None:
    first, second = Group.objects.create(name="Core"), Group.objects.create(name="Other")
    assert "2 groups deleted" in act(pages, "group", "soft_delete", first, second)
    assert "Core" not in pages.get(reverse("admin:access_group_changelist")).content.decode()
    Group.objects.create(name="core")
    said = act(pages, "group", "restore", first, second)
    assert "already called so" in said
    assert "1 group restored" in said
    assert set(Group.objects.alive().values_list("name", flat=True)) == {"core", "Other"}
    assert AuditEvent.objects.filter(action="group.restored").count() == 1


def test_users_are_shut_out_and_let_in_by_actions(pages: Client, make_user: MakeUser) -> None:
    ann = make_user("ann")
    for action, field, value in (
        ("deactivate", "is_active", False),
        ("activate", "is_active", True),
    ):
        assert f"1 user {action}d" in act(pages, "user", action, ann)
        ann.refresh_from_db()
        assert getattr(ann, field) is value
    act(pages, "user", "soft_delete", ann)
    assert User.objects.get(pk=ann.pk).deleted_at is not None
    act(pages, "user", "restore", ann)
    assert User.objects.get(pk=ann.pk).deleted_at is None
    assert set(AuditEvent.objects.values_list("action", flat=True)) == {
        "user.deactivated",
        "user.activated",
        "user.deleted",
        "user.restored",
    }


@pytest.mark.parametrize("action", ["soft_delete", "deactivate"])
def test_nobody_shuts_himself_out(pages: Client, admin: User, make_user: MakeUser, action: str) -> None:
    assert "no administrator left" in act(pages, "user", action, admin)
    other = make_user("other", role="admin")
    ann = make_user("ann")
    assert "shut yourself out" in act(pages, "user", action, admin, ann)
    assert User.objects.filter(is_active=True, deleted_at=None).count() == 3
    assert "1 user" in act(pages, "user", action, other)
    page = pages.get(reverse("admin:access_user_change", args=[admin.pk]))
    assert "role" not in page.context["adminform"].form.fields


def test_deleted_users_are_not_proposed_as_members(pages: Client, make_user: MakeUser) -> None:
    ann = make_user("ann")
    query = {"app_label": "access", "model_name": "groupmembership", "field_name": "user", "term": "ann"}
    found = pages.get(reverse("admin:autocomplete"), query).json()["results"]
    assert [row["id"] for row in found] == [str(ann.pk)]
    ann.soft_delete()
    assert pages.get(reverse("admin:autocomplete"), query).json()["results"] == []


def test_grants_are_taken_back_but_not_changed(pages: Client, make_user: MakeUser, make_files: MakeFiles) -> None:
    ann = make_user("ann")
    grant(make_files(2), grantee_type="user", grantee_id=ann.pk)
    first, second = FileUserObjectPermission.rows.all()
    assert pages.get(reverse("admin:access_fileuserobjectpermission_add")).status_code == 403
    url = reverse("admin:access_fileuserobjectpermission_delete", args=[first.pk])
    assert pages.post(url, {"post": "yes"}).status_code == 302
    data = {"action": "delete_selected", "_selected_action": [str(second.pk)], "post": "yes"}
    pages.post(reverse("admin:access_fileuserobjectpermission_changelist"), data)
    assert not FileUserObjectPermission.rows.exists()
    assert AuditEvent.objects.filter(action="grant.removed").count() == 2


# --- What the pages write to the audit log ----------------------------------------------------------------------------


def test_an_added_and_a_changed_row_are_told_before_and_after(pages: Client, admin: User) -> None:
    empty = formset("memberships", [])
    assert pages.post(reverse("admin:access_group_add"), {"name": "Core"} | empty).status_code == 302
    group = Group.objects.get()
    url = reverse("admin:access_group_change", args=[group.pk])
    assert pages.post(url, {"name": "Core 2", "description": "x"} | empty).status_code == 302
    assert pages.post(url, {"name": "Core 2", "description": "x"} | empty).status_code == 302  # changes nothing
    made, changed = AuditEvent.objects.filter(object_id=str(group.pk)).order_by("at")
    assert (made.action, made.actor, made.detail["before"]) == ("group.created", admin, None)
    assert made.detail["after"]["name"] == "Core"
    assert changed.action == "group.changed"
    assert changed.detail == {
        "before": {"name": "Core", "description": None},
        "after": {"name": "Core 2", "description": "x"},
    }


def test_a_form_that_is_refused_leaves_no_event(pages: Client) -> None:
    group = Group.objects.create(name="Core")
    url = reverse("admin:access_group_change", args=[group.pk])
    assert pages.post(url, {"name": ""} | formset("memberships", [])).status_code == 200
    assert not AuditEvent.objects.filter(object_id=str(group.pk)).exists()


def test_members_in_the_rows_of_a_page_are_told_as_through_the_api(pages: Client, make_user: MakeUser) -> None:
    ann, group = make_user("ann"), Group.objects.create(name="Core")
    url = reverse("admin:access_user_change", args=[ann.pk])
    base = {"email": ann.email, "role": "user", "is_active": "on"}
    joins = [{"user": str(ann.pk), "group": str(group.pk)}]
    none = formset("project_memberships", [])
    answer = pages.post(url, base | formset("group_memberships", joins) | none)
    assert answer.status_code == 302, answer.context["errors"]
    row = group.memberships.get()
    leaves = [{"id": str(row.pk), "user": str(ann.pk), "DELETE": "on"}]
    assert pages.post(url, base | formset("group_memberships", leaves, initial=1) | none).status_code == 302
    events = AuditEvent.objects.filter(action__startswith="member.").order_by("at")
    assert [(event.action, event.object_id) for event in events] == [
        ("member.added", str(group.pk)),
        ("member.removed", str(group.pk)),
    ]
    told = {"member_type": "user", "member_id": str(ann.pk), "name": ann.email}
    assert [event.detail["members"] for event in events] == [[told], [told]]
    assert find_drift() == (set(), {})


def test_what_is_deleted_neither_joins_nor_is_joined(pages: Client, make_user: MakeUser) -> None:
    ann, group = make_user("ann"), Group.objects.create(name="Core")
    add_members(to=group, members=[ann])
    ann.soft_delete()
    url = reverse("admin:access_group_change", args=[group.pk])
    kept = {"id": str(group.memberships.get().pk), "group": str(group.pk)}
    assert pages.post(url, {"name": "Core 2"} | formset("memberships", [kept], initial=1)).status_code == 302
    other = make_user("other", deleted_at=ann.deleted_at)
    joins = {"user": str(other.pk), "group": str(group.pk)}
    refused = pages.post(url, {"name": "Core"} | formset("memberships", [kept, joins], initial=1))
    assert "Select a valid choice" in refused.content.decode()
    group.refresh_from_db()
    group.soft_delete()
    joins["user"] = str(make_user("bob").pk)
    pages.post(url, {"name": "Core"} | formset("memberships", [kept, joins], initial=1))
    assert group.memberships.count() == 1


def test_a_password_set_for_a_user_is_an_event_that_does_not_tell_it(pages: Client, make_user: MakeUser) -> None:
    ann = make_user("ann")
    data = {"password1": "horse-battery-4", "password2": "horse-battery-4", "usable_password": "true"}
    assert pages.post(reverse("admin:auth_user_password_change", args=[ann.pk]), data).status_code == 302
    (event,) = AuditEvent.objects.filter(object_id=str(ann.pk))
    assert event.action == "user.changed"
    assert event.detail["after"] == {"password": "****"}


def test_what_actions_do_is_told_of_each_row_before_and_after(pages: Client, make_user: MakeUser) -> None:
    ann, group = make_user("ann"), Group.objects.create(name="Core")
    act(pages, "group", "soft_delete", group)
    act(pages, "user", "deactivate", ann)
    deleted = AuditEvent.objects.get(action="group.deleted", object_id=str(group.pk))
    assert deleted.detail["name"] == "Core"
    assert deleted.detail["before"] == {"deleted_at": None}
    assert deleted.detail["after"]["deleted_at"]
    shut_out = AuditEvent.objects.get(action="user.deactivated", object_id=str(ann.pk))
    assert shut_out.detail == {"name": ann.email, "before": {"is_active": True}, "after": {"is_active": False}}


# --- Requests for instruments -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["approved", "rejected"])
def test_a_request_is_answered_once_with_a_reason(pages: Client, admin: User, make_user: MakeUser, status: str) -> None:
    ann = make_user("ann")
    asked = instrument_requests.ask(user=ann, name="LSM", justification="Cells")
    url = reverse("admin:access_instrumentrequest_change", args=[asked.pk])
    page = pages.get(url).content.decode()
    assert "Cells" in page
    assert ann.email in page
    assert pages.post(url, {"status": "pending", "answer": "x"}).status_code == 200
    assert pages.post(url, {"status": status, "answer": "As you say."}).status_code == 302
    late = pages.post(url, {"status": "rejected", "answer": "No."})
    assert "answered already" in late.content.decode()
    assert "_save" not in pages.get(url).content.decode()
    asking = APIClient()
    asking.force_authenticate(ann)
    told = asking.get(f"/api/instrument-requests/{asked.pk}").json()
    assert (told["status"], told["answer"], told["answered_by_id"]) == (status, "As you say.", str(admin.pk))
    event = AuditEvent.objects.get(action="instrumentrequest.answered")
    assert (event.detail["before"]["status"], event.detail["after"]["status"]) == ("pending", status)


def test_requests_are_found_by_status_and_neither_made_nor_removed(pages: Client, make_user: MakeUser) -> None:
    asked = instrument_requests.ask(user=make_user("ann"), name="LSM", justification="Cells")
    changelist = reverse("admin:access_instrumentrequest_changelist")
    assert "LSM" in pages.get(f"{changelist}?status=pending&q=lsm").content.decode()
    assert "LSM" not in pages.get(f"{changelist}?status=approved").content.decode()
    assert pages.get(reverse("admin:access_instrumentrequest_add")).status_code == 403
    assert pages.post(reverse("admin:access_instrumentrequest_delete", args=[asked.pk])).status_code == 403
