import uuid

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


def sign_what_is_there(apps, schema_editor):
    """The events from before they were signed."""
    from access.models import AuditEvent

    columns = ("id", "at", "actor_id", "action", "object_type", "object_id", "detail", "ip")
    events = apps.get_model("access", "AuditEvent").objects.order_by()
    for pk in list(events.values_list("pk", flat=True)):
        event = AuditEvent(**events.values(*columns).get(pk=pk))
        event.sign()
        events.filter(pk=pk).update(signature=event.signature)


class Migration(migrations.Migration):
    dependencies = [
        ("access", "0003_credentials"),
    ]

    operations = [
        migrations.AddField(
            model_name="auditevent",
            name="signature",
            field=models.CharField(default="", editable=False, max_length=100),
        ),
        migrations.AlterField(
            model_name="auditevent",
            name="actor",
            field=models.ForeignKey(
                blank=True,
                db_constraint=False,
                db_index=False,
                help_text="Null: the product itself, or somebody who has not logged in.",
                null=True,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddIndex(
            model_name="auditevent",
            index=models.Index(fields=["action", "-at"], name="audit_of_action"),
        ),
        migrations.CreateModel(
            name="AuditSeal",
            fields=[
                ("sequence", models.BigIntegerField(primary_key=True, serialize=False)),
                ("event_signature", models.CharField(max_length=100)),
                ("previous", models.CharField(help_text="Empty for the first one.", max_length=100)),
                ("signature", models.CharField(default="", editable=False, max_length=100)),
                ("sealed_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                (
                    "event",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="seal",
                        to="access.auditevent",
                    ),
                ),
            ],
            options={
                "ordering": ("sequence",),
                "constraints": [
                    models.CheckConstraint(condition=models.Q(("sequence__gte", 1)), name="audit_seal_from_one")
                ],
            },
        ),
        migrations.CreateModel(
            name="InstrumentRequest",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("name", models.CharField(help_text="What the instrument is called.", max_length=200)),
                ("location", models.CharField(blank=True, help_text="Where it stands.", max_length=200, null=True)),
                ("justification", models.TextField(help_text="What its files are needed for.", max_length=5000)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("pending", "not answered yet"),
                            ("approved", "approved"),
                            ("rejected", "rejected"),
                        ],
                        default="pending",
                        max_length=20,
                    ),
                ),
                (
                    "answer",
                    models.TextField(
                        blank=True, help_text="What the administrator says to it.", max_length=5000, null=True
                    ),
                ),
                ("answered_at", models.DateTimeField(blank=True, null=True)),
                (
                    "answered_by",
                    models.ForeignKey(
                        blank=True,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="instrument_requests",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "ordering": ("-created_at", "-id"),
                "indexes": [models.Index(fields=["-created_at", "-id"], name="instrument_request_newest")],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("answered_at", None), ("status", "pending")),
                            models.Q(("answered_at__isnull", False), ("status__in", ("approved", "rejected"))),
                            _connector="OR",
                        ),
                        name="instrument_request_answered",
                    )
                ],
            },
        ),
        migrations.RunPython(sign_what_is_there, migrations.RunPython.noop),
    ]
