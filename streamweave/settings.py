"""All settings. What differs between installations comes from the environment; docs/configuration.md lists it all."""

from __future__ import annotations

import secrets
from datetime import timedelta
from pathlib import Path
from typing import Any

from streamweave import broker
from streamweave.lib import ark, keys
from streamweave.lib.env import Environment, refuse

env = Environment()

BASE_DIR = Path(__file__).resolve().parent.parent
DEBUG = env.flag("STREAMWEAVE_DEBUG", False)

# --- Where the data is ------------------------------------------------------------------------------------------------

_data_dir = env.folder("STREAMWEAVE_DATA_DIR")
_database = env.database("DATABASE_URL", default=(_data_dir or BASE_DIR / "var") / "db.sqlite3")
_embedded = _database["ENGINE"] == "django.db.backends.sqlite3"

# Keys, mail, logs, collected static files and the embedded broker. Whoever names only the SQLite file of an
# installation finds the rest of it as well.
DATA_DIR = _data_dir or (_database["NAME"].parent if _embedded else BASE_DIR / "var")

if _embedded:
    DATA_DIR.mkdir(parents=True, exist_ok=True)
    _database["NAME"].parent.mkdir(parents=True, exist_ok=True)
    _database["OPTIONS"] = {
        # A transaction takes the write lock when it begins. One that begins as a reader and then writes fails at once
        # with "database is locked" if another wrote meanwhile, whatever the timeout.
        "transaction_mode": "IMMEDIATE",
        "timeout": 30,  # seconds
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;"
        " PRAGMA cache_size=-20000; PRAGMA mmap_size=134217728; PRAGMA journal_size_limit=67108864;",
    }
else:
    _database["CONN_MAX_AGE"] = 60  # seconds
    _database["CONN_HEALTH_CHECKS"] = True

DATABASES = {"default": _database}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- Secrets ----------------------------------------------------------------------------------------------------------


def _key(name: str, file: str, make: Any) -> str:
    """The key from the environment; beside SQLite it may be left out, and is then made on first use and kept."""
    given = env.secret(name)
    if given:
        return given
    if _embedded:
        return keys.read_or_make(DATA_DIR / file, make)
    refuse(
        name,
        f"must be set, or {name}_FILE, because the database is not SQLite: all machines that share a database"
        " share its keys, and without them what is encrypted in it is lost",
        make(),
    )


SECRET_KEY = _key("SECRET_KEY", "secret_key", lambda: secrets.token_urlsafe(50))
# The first one encrypts, the others still decrypt.
ENCRYPTION_KEYS = _key("STREAMWEAVE_ENCRYPTION_KEYS", "encryption_keys", keys.new_key).replace(",", " ").split()
if not ENCRYPTION_KEYS or not all(map(keys.is_key, ENCRYPTION_KEYS)):
    refuse(
        "STREAMWEAVE_ENCRYPTION_KEYS",
        "must be keys of 32 bytes in URL-safe base64, separated by commas",
        keys.new_key(),
    )

# --- The web server ---------------------------------------------------------------------------------------------------

HTTPS = env.flag("STREAMWEAVE_HTTPS", False)
ALLOWED_HOSTS = env.names("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
CSRF_TRUSTED_ORIGINS = env.names("CSRF_TRUSTED_ORIGINS", "")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = HTTPS
SECURE_HSTS_SECONDS = env.whole("HSTS_SECONDS", 3600, least=0) if HTTPS else 0
SECURE_REDIRECT_EXEMPT = [r"^health$"]  # asked from beside the server, without the proxy that ends TLS
SILENCED_SYSTEM_CHECKS = [
    # Whether other hosts below this one's name, or the whole domain for ever, are held to HTTPS is not ours to say.
    "security.W005",
    "security.W021",
    "guardian.W001",  # it knows its backend by name only; access.backends.GrantBackend is one
]

ROOT_URLCONF = "streamweave.urls"
WSGI_APPLICATION = "streamweave.wsgi.application"
ASGI_APPLICATION = "streamweave.asgi.application"

INSTALLED_APPS = [
    "streamweave",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "guardian",
    "django_celery_beat",
    "access",
    "hooks",
    "harvest",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

STATIC_URL = "static/"
STATIC_ROOT = DATA_DIR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "streamweave.lib.static.StaticFilesStorage"},
}
WHITENOISE_USE_FINDERS = True  # so that pages look right before `collectstatic` has run
STATIC_ROOT.mkdir(parents=True, exist_ok=True)  # whitenoise warns about a folder that is not there

LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True

# --- People and rights ------------------------------------------------------------------------------------------------

AUTH_USER_MODEL = "access.User"
AUTHENTICATION_BACKENDS = [
    "access.backends.EmailBackend",
    "access.backends.GrantBackend",
]
ANONYMOUS_USER_NAME = None  # guardian makes no user for those who are not logged in
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

PASSWORD_RESET_TIMEOUT = 3600  # seconds

# Who may make himself an account: anyone, anyone with an address in one of the domains, the invited, nobody.
REGISTRATION = env.choice("REGISTRATION", "OPEN", ["OPEN", "DOMAIN", "INVITE", "OFF"])
REGISTRATION_DOMAINS = [name.lower() for name in env.names("REGISTRATION_DOMAINS", "")]
if REGISTRATION == "DOMAIN" and not REGISTRATION_DOMAINS:
    refuse("REGISTRATION_DOMAINS", "must name the domains, because REGISTRATION is domain", "example.org,example.com")
# An address in a domain says nothing until it was confirmed.
VERIFY_EMAIL = env.flag("VERIFY_EMAIL", REGISTRATION == "DOMAIN")

# Failed log-ins, registrations and mails asked for, in this many seconds: by one address for one account, and by one
# address altogether.
ATTEMPT_SECONDS = env.whole("ATTEMPT_SECONDS", 900)
ATTEMPTS_PER_ACCOUNT = env.whole("ATTEMPTS_PER_ACCOUNT", 10)
ATTEMPTS_PER_ADDRESS = env.whole("ATTEMPTS_PER_ADDRESS", 200)
TRUSTED_PROXIES = env.networks("TRUSTED_PROXIES", "127.0.0.0/8,::1")

SIMPLE_JWT: dict[str, Any] = {
    "ALGORITHM": "HS256",
    "SIGNING_KEY": keys.derived(SECRET_KEY, "streamweave.jwt"),
    "ISSUER": "streamweave",
    "AUDIENCE": "streamweave",
    "USER_ID_CLAIM": "sub",
    "ACCESS_TOKEN_LIFETIME": timedelta(seconds=env.whole("ACCESS_TOKEN_SECONDS", 3600)),
    "REFRESH_TOKEN_LIFETIME": timedelta(seconds=env.whole("REFRESH_TOKEN_SECONDS", 14 * 86400)),
}

REST_FRAMEWORK: dict[str, Any] = {
    # A view that names no permission is closed to everybody but administrators.
    "DEFAULT_PERMISSION_CLASSES": ["streamweave.lib.rest.permissions.IsAdministrator"],
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "access.api.authentication.ApiTokenAuthentication",
        "access.api.authentication.JWTAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_RENDERER_CLASSES": [
        "rest_framework.renderers.JSONRenderer",
        "rest_framework.renderers.BrowsableAPIRenderer",
    ],
    "DEFAULT_PARSER_CLASSES": [
        "streamweave.lib.rest.parsers.StrictJSONParser",
        "rest_framework.parsers.FormParser",
        "rest_framework.parsers.MultiPartParser",
    ],
    "DEFAULT_PAGINATION_CLASS": "streamweave.lib.rest.pagination.KeysetPagination",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "streamweave.lib.rest.errors.exception_handler",
}

SPECTACULAR_SETTINGS: dict[str, Any] = {
    "TITLE": "StreamWeave",
    "DESCRIPTION": "Files from instruments: harvested, verified, identified, and shared with those who may see them.",
    "VERSION": "1",
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "SERVE_INCLUDE_SCHEMA": False,
    "COMPONENT_SPLIT_REQUEST": True,  # what one sends has other fields than what one gets
    "SWAGGER_UI_DIST": "SIDECAR",  # served by us
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "GET_LIB_DOC_EXCLUDES": "streamweave.lib.rest.openapi.bases",
    "ENUM_NAME_OVERRIDES": {
        "RunStatusEnum": "harvest.models.RunStatus",
        "RunTriggerEnum": "harvest.models.Trigger",
        "TransferStatusEnum": "harvest.models.Status",
    },
}

# --- Mail and logs ----------------------------------------------------------------------------------------------------

# EMAIL_BACKEND, EMAIL_HOST and the rest of them.
globals().update(env.email("EMAIL_URL", DATA_DIR / "mail"))
DEFAULT_FROM_EMAIL = SERVER_EMAIL = env.text("DEFAULT_FROM_EMAIL", "streamweave@localhost")

LOG_LEVEL = env.choice("LOG_LEVEL", "INFO", ["DEBUG", "INFO", "WARNING", "ERROR"])
LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": "streamweave.lib.loglines.OneLineFormatter"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        "django": {"handlers": [], "level": LOG_LEVEL, "propagate": True},
        # These write what they send, signatures and session keys among it, when they are asked for more.
        **{
            name: {"level": "WARNING"}
            for name in ("smbprotocol", "smbclient", "spnego", "botocore", "boto3", "urllib3")
        },
    },
}

# --- Workers ----------------------------------------------------------------------------------------------------------

TICK_SECONDS = env.whole("TICK_SECONDS", 30)
SWEEP_SECONDS = env.whole("SWEEP_SECONDS", 15)
LEASE_SECONDS = env.whole("LEASE_SECONDS", 30)
WORKER_CONCURRENCY = env.whole("WORKER_CONCURRENCY", 2)
MAX_ATTEMPTS = env.whole("MAX_ATTEMPTS", 5)
MAX_LOSSES = env.whole("MAX_LOSSES", 3)
SMB_PIPELINED = env.flag("SMB_PIPELINED", True)
TASK_SECONDS = env.whole("TASK_SECONDS", 6 * 3600, least=60)

CELERY_BROKER_URL = env.secret("CELERY_BROKER_URL") or f"{broker.SCHEME}://localhost"
CELERY_BROKER_TRANSPORT_OPTIONS: dict[str, Any]
match CELERY_BROKER_URL.partition(":")[0]:
    case broker.SCHEME:
        CELERY_BROKER_TRANSPORT_OPTIONS = broker.transport_options(DATA_DIR / "broker")
    case "redis" | "rediss":
        CELERY_BROKER_TRANSPORT_OPTIONS = {
            # A task that runs longer than this is handed to a second worker.
            "visibility_timeout": TASK_SECONDS + 600,
            # So that publishing into the void fails within seconds, and the page that wanted it answers.
            "socket_connect_timeout": 3,
            "socket_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 25,
            "max_retries": 2,
            "interval_start": 0,
            "interval_step": 0.2,
            "interval_max": 0.5,
        }
    case _:
        refuse("CELERY_BROKER_URL", "must begin with redis: or rediss:", "redis://redis.example.org:6379/0")

CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None  # a worker waits for its broker for ever
CELERY_BROKER_CONNECTION_TIMEOUT = 4
CELERY_TASK_PUBLISH_RETRY_POLICY = {"max_retries": 2, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.5}
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_TASK_ACKS_ON_FAILURE_OR_TIMEOUT = True
CELERY_TASK_SOFT_TIME_LIMIT = TASK_SECONDS
CELERY_TASK_TIME_LIMIT = TASK_SECONDS + 60
CELERY_TASK_IGNORE_RESULT = True  # the database remembers
CELERY_RESULT_EXPIRES = None  # there are none, so beat need not clean up after them
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_EVENT_SERIALIZER = "json"
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_CONCURRENCY = WORKER_CONCURRENCY
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False  # a copy goes on without its broker
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_REDIRECT_STDOUTS = False
CELERY_WORKER_SEND_TASK_EVENTS = False
CELERY_ENABLE_UTC = True
CELERY_TIMEZONE = TIME_ZONE
CELERY_BEAT_SCHEDULER = "streamweave.beat:Scheduler"
CELERY_BEAT_SCHEDULE = {
    # A reminder that comes late is worth nothing: the next one is on its way.
    "tick": {"task": "harvest.tasks.tick", "schedule": TICK_SECONDS, "options": {"expires": TICK_SECONDS}},
    "sweep": {"task": "harvest.tasks.sweep", "schedule": SWEEP_SECONDS, "options": {"expires": SWEEP_SECONDS}},
}

# --- The product ------------------------------------------------------------------------------------------------------

# The authority under which ARKs are minted, and our part of its names. The defaults are for tests only.
ARK_NAAN = env.text("ARK_NAAN", "99999", check=ark.is_naan, rule="must be five digits")
ARK_SHOULDER = env.text(
    "ARK_SHOULDER",
    "fk4",
    check=ark.is_shoulder,
    rule=f"must be one to four of the letters {ark.ALPHABET[10:]}, then one digit",
)

# Hook scripts are run only from this folder; without it none is.
HOOK_SCRIPT_DIR = env.folder("HOOK_SCRIPT_DIR")
# Private networks that webhooks may be sent to.
WEBHOOK_ALLOW_PRIVATE = env.networks("WEBHOOK_ALLOW_PRIVATE")

# Further kinds of storage, as {"kind": "dotted.path.to.StorageClass"}.
STORAGE_KINDS: dict[str, str] = {}
