import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

import harvest.models.files


class Migration(migrations.Migration):
    dependencies = [
        ("harvest", "0002_file_searching"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AlterField(
            model_name="filerecord",
            name="instrument",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="files",
                to="harvest.instrument",
            ),
        ),
        migrations.AlterField(
            model_name="filerecord",
            name="persistent_id",
            field=models.CharField(default=harvest.models.files.mint_ark, editable=False, max_length=100),
        ),
        migrations.AlterField(
            model_name="filetransfer",
            name="run",
            field=models.ForeignKey(
                blank=True,
                db_index=False,
                help_text="The newest.",
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="transfers",
                to="harvest.harvestrun",
            ),
        ),
        migrations.AlterField(
            model_name="filetransfer",
            name="storage_location",
            field=models.ForeignKey(
                db_index=False,
                help_text="Where it goes; a hook may redirect.",
                on_delete=django.db.models.deletion.PROTECT,
                related_name="transfers",
                to="harvest.storagelocation",
            ),
        ),
        migrations.AlterField(
            model_name="filetransfer",
            name="version",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="transfers",
                to="harvest.fileversion",
            ),
        ),
        migrations.AlterField(
            model_name="fileversion",
            name="record",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="versions",
                to="harvest.filerecord",
            ),
        ),
        migrations.AddIndex(
            model_name="filetransfer",
            index=models.Index(
                condition=models.Q(
                    ("given_up", False),
                    ("state__in", ("discovered", "accepted", "ready", "carried", "verified", "enriched")),
                ),
                fields=["run", "created_at", "id"],
                name="transfer_next",
            ),
        ),
        migrations.AddConstraint(
            model_name="filerecord",
            constraint=models.UniqueConstraint(fields=("persistent_id",), name="file_persistent_id_unique"),
        ),
    ]
