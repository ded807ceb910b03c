from __future__ import annotations


def test_anyone_may_ask_whether_the_server_answers(client):
    answer = client.get("/health")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ok"}
    assert client.post("/health").status_code == 405


def test_health_is_answered_without_https_where_the_rest_is_sent_there(client, settings):
    settings.SECURE_SSL_REDIRECT = True
    assert client.get("/health").status_code == 200
    assert client.get("/").status_code == 301


def test_the_root_leads_on(client):
    assert client.get("/").headers["Location"] == "/admin/"


def test_a_page_may_be_shown_before_static_files_were_collected(client, db):
    page = client.get("/admin/login/")
    assert page.status_code == 200
    assert b"/static/admin/css/base.css" in page.content
