"""The routes of files and transfers."""

from __future__ import annotations

from django.urls import path

from harvest.api.files.downloads import DownloadView
from harvest.api.files.grants import ExplanationView, FileGrantsView, FileGrantView, GrantsView
from harvest.api.files.views import (
    FileDetail,
    FileList,
    FileTransferList,
    FileVersionList,
    TransferDetail,
    TransferList,
)

urlpatterns = [
    path("api/files", FileList.as_view()),
    path("api/files/grants", GrantsView.as_view()),
    path("api/files/<str:file_id>", FileDetail.as_view()),
    path("api/files/<str:file_id>/versions", FileVersionList.as_view()),
    path("api/files/<str:file_id>/transfers", FileTransferList.as_view()),
    path("api/files/<str:file_id>/download", DownloadView.as_view()),
    path("api/files/<str:file_id>/access", FileGrantsView.as_view()),
    path("api/files/<str:file_id>/access/explain", ExplanationView.as_view()),
    path("api/files/<str:file_id>/access/<str:grant_id>", FileGrantView.as_view()),
    path("api/transfers", TransferList.as_view()),
    path("api/transfers/<str:transfer_id>", TransferDetail.as_view()),
]
