FROM python:3.11-slim-bookworm

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 STREAMWEAVE_DATA_DIR=/var/lib/streamweave

RUN useradd --system --home-dir /var/lib/streamweave --create-home streamweave
WORKDIR /srv/streamweave

COPY requirements.txt .
RUN pip install --no-cache-dir --require-hashes -r requirements.txt

COPY manage.py ./
COPY streamweave streamweave
COPY access access
COPY hooks hooks
COPY harvest harvest
COPY templates templates
COPY static static

USER streamweave
VOLUME /var/lib/streamweave
EXPOSE 8000
CMD ["gunicorn", "streamweave.wsgi", "--bind", "0.0.0.0:8000", "--threads", "8", "--no-control-socket"]
