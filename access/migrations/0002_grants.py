import uuid

import django.db.models.deletion
import django.db.models.manager
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("access", "0001_initial"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("harvest", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="FileGroupObjectPermission",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("granted_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                (
                    "source",
                    models.CharField(
                        choices=[
                            ("manual", "granted by a person"),
                            ("hook", "granted by a hook"),
                            ("owner", "granted to the file's owner"),
                        ],
                        default="manual",
                        max_length=20,
                    ),
                ),
                (
                    "content_object",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, to="harvest.filerecord", verbose_name="file"
                    ),
                ),
                (
                    "granted_by",
                    models.ForeignKey(
                        blank=True,
                        db_index=False,
                        help_text="Null: the product itself.",
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "group",
                    models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.CASCADE, to="auth.group"),
                ),
                (
                    "permission",
                    models.ForeignKey(
                        db_index=False, on_delete=django.db.models.deletion.CASCADE, to="auth.permission"
                    ),
                ),
            ],
            options={
                "verbose_name": "grant to a group or project",
                "verbose_name_plural": "grants to groups and projects",
                "ordering": ("granted_at", "id"),
                "abstract": False,
                "default_manager_name": "rows",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("source__in", ["manual", "hook", "owner"])), name="group_grant_source_known"
                    )
                ],
                "unique_together": {("group", "permission", "content_object")},
            },
            managers=[
                ("rows", django.db.models.manager.Manager()),
            ],
        ),
        migrations.CreateModel(
            name="FileUserObjectPermission",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("granted_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                (
                    "source",
                    models.CharField(
                        choices=[
                            ("manual", "granted by a person"),
                            ("hook", "granted by a hook"),
                            ("owner", "granted to the file's owner"),
                        ],
                        default="manual",
                        max_length=20,
                    ),
                ),
                (
                    "content_object",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, to="harvest.filerecord", verbose_name="file"
                    ),
                ),
                (
                    "granted_by",
                    models.ForeignKey(
                        blank=True,
                        db_index=False,
                        help_text="Null: the product itself.",
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "permission",
                    models.ForeignKey(
                        db_index=False, on_delete=django.db.models.deletion.CASCADE, to="auth.permission"
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        db_index=False, on_delete=django.db.models.deletion.CASCADE, to=settings.AUTH_USER_MODEL
                    ),
                ),
            ],
            options={
                "verbose_name": "grant to a user",
                "verbose_name_plural": "grants to users",
                "ordering": ("granted_at", "id"),
                "abstract": False,
                "default_manager_name": "rows",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("source__in", ["manual", "hook", "owner"])), name="user_grant_source_known"
                    )
                ],
                "unique_together": {("user", "permission", "content_object")},
            },
            managers=[
                ("rows", django.db.models.manager.Manager()),
            ],
        ),
    ]
