import uuid

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("access", "0002_grants"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("harvest", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="ApiToken",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("token_version", models.PositiveIntegerField()),
                ("name", models.CharField(help_text="What it is for.", max_length=100)),
                ("hint", models.CharField(editable=False, help_text="How the token begins.", max_length=12)),
                (
                    "digest",
                    models.CharField(editable=False, help_text="SHA-256 of the token.", max_length=64, unique=True),
                ),
                ("read_only", models.BooleanField(default=True, help_text="May ask, and change nothing.")),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("expires_at", models.DateTimeField(blank=True, help_text="Null: no end.", null=True)),
                ("last_used_at", models.DateTimeField(editable=False, help_text="To within a minute.", null=True)),
                ("revoked_at", models.DateTimeField(editable=False, null=True)),
            ],
            options={
                "verbose_name": "API token",
                "ordering": ("created_at", "id"),
            },
        ),
        migrations.CreateModel(
            name="Attempt",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("purpose", models.CharField(max_length=20)),
                (
                    "account",
                    models.CharField(
                        help_text="SHA-256 of the e-mail, which may be a mistyped password.", max_length=64
                    ),
                ),
                (
                    "network",
                    models.CharField(
                        help_text="IPv4 address or IPv6 network of 64 bits; empty if unknown.", max_length=45
                    ),
                ),
                ("at", models.DateTimeField(default=django.utils.timezone.now)),
            ],
            options={
                "ordering": ("at", "id"),
            },
        ),
        migrations.CreateModel(
            name="TokenFamily",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("refresh_id", models.UUIDField(default=uuid.uuid4)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("expires_at", models.DateTimeField(help_text="When its newest refresh token ends.")),
                ("revoked_at", models.DateTimeField(null=True)),
            ],
            options={
                "verbose_name_plural": "token families",
                "ordering": ("created_at", "id"),
            },
        ),
        migrations.AddField(
            model_name="filegroupobjectpermission",
            name="expires_at",
            field=models.DateTimeField(blank=True, help_text="From then on it shows nothing. Null: no end.", null=True),
        ),
        migrations.AddField(
            model_name="filegroupobjectpermission",
            name="instrument",
            field=models.ForeignKey(
                blank=True,
                help_text="All files of this instrument, present and future.",
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="+",
                to="harvest.instrument",
            ),
        ),
        migrations.AddField(
            model_name="fileuserobjectpermission",
            name="expires_at",
            field=models.DateTimeField(blank=True, help_text="From then on it shows nothing. Null: no end.", null=True),
        ),
        migrations.AddField(
            model_name="fileuserobjectpermission",
            name="instrument",
            field=models.ForeignKey(
                blank=True,
                help_text="All files of this instrument, present and future.",
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="+",
                to="harvest.instrument",
            ),
        ),
        migrations.AlterField(
            model_name="filegroupobjectpermission",
            name="content_object",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                to="harvest.filerecord",
                verbose_name="file",
            ),
        ),
        migrations.AlterField(
            model_name="fileuserobjectpermission",
            name="content_object",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                to="harvest.filerecord",
                verbose_name="file",
            ),
        ),
        migrations.AddConstraint(
            model_name="filegroupobjectpermission",
            constraint=models.CheckConstraint(
                condition=models.Q(("content_object__isnull", True), ("instrument__isnull", True), _connector="XOR"),
                name="group_grant_file_xor_instrument",
            ),
        ),
        migrations.AddConstraint(
            model_name="filegroupobjectpermission",
            constraint=models.UniqueConstraint(
                condition=models.Q(("instrument__isnull", False)),
                fields=("group", "permission", "instrument"),
                name="group_grant_instrument_unique",
            ),
        ),
        migrations.AddConstraint(
            model_name="fileuserobjectpermission",
            constraint=models.CheckConstraint(
                condition=models.Q(("content_object__isnull", True), ("instrument__isnull", True), _connector="XOR"),
                name="user_grant_file_xor_instrument",
            ),
        ),
        migrations.AddConstraint(
            model_name="fileuserobjectpermission",
            constraint=models.UniqueConstraint(
                condition=models.Q(("instrument__isnull", False)),
                fields=("user", "permission", "instrument"),
                name="user_grant_instrument_unique",
            ),
        ),
        migrations.AddField(
            model_name="apitoken",
            name="user",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="api_tokens", to=settings.AUTH_USER_MODEL
            ),
        ),
        migrations.AddIndex(
            model_name="attempt",
            index=models.Index(fields=["purpose", "network", "at"], name="attempt_from_network"),
        ),
        migrations.AddIndex(
            model_name="attempt",
            index=models.Index(fields=["purpose", "account", "at"], name="attempt_on_account"),
        ),
        migrations.AddIndex(
            model_name="attempt",
            index=models.Index(fields=["at"], name="attempt_oldest"),
        ),
        migrations.AddField(
            model_name="tokenfamily",
            name="user",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="token_families", to=settings.AUTH_USER_MODEL
            ),
        ),
        migrations.AddConstraint(
            model_name="apitoken",
            constraint=models.UniqueConstraint(
                condition=models.Q(("revoked_at", None)),
                fields=("user", "name"),
                name="api_token_name_unique",
                violation_error_message="name: you have a token of this name already; revoke it or choose another.",
            ),
        ),
        migrations.AddConstraint(
            model_name="apitoken",
            constraint=models.CheckConstraint(
                condition=models.Q(("name", ""), _negated=True),
                name="api_token_name_given",
                violation_error_message="name: must not be empty.",
            ),
        ),
    ]
