"""The tables. Times are seconds since the epoch, so that both databases hold and compare them alike."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData(
    naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s", "pk": "pk_%(table_name)s"}
)

jobs = Table(
    "jobs",
    metadata,
    Column("uid", String(64), primary_key=True),
    Column("namespace", String(63), nullable=False),
    Column("name", String(253), nullable=False),
    Column("user", String(253), nullable=False),
    Column("queue", String(253), nullable=False),
    Column("phase", String(16), nullable=False),
    Column("created", Float, nullable=False),
    Column("started", Float),
    Column("ended", Float),
    Column("deleted", Float),
    Column("updated", Float, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("replicas", Integer, nullable=False),
    Column("ranks", Integer, nullable=False),
    Column("accelerators", Integer, nullable=False),
    Column("step", BigInteger),
    Column("total_steps", BigInteger),
    Column("loss", Float),
    Column("tokens_per_second", Float),
    Column("goodput", Float),
    Column("restarts", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("domain", Text, nullable=False),
    Column("spec", JSON, nullable=False),
    Index(None, "created"),
    Index(None, "namespace", "created"),
    Index(None, "namespace", "name"),
)
"""A row per TrainingJob that ever was; the spec is without values of environment variables."""

restarts = Table(
    "restarts",
    metadata,
    Column("job_uid", String(64), primary_key=True),
    Column("id", String(128), primary_key=True),
    Column("time", Float, nullable=False),
    Column("scope", String(16), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("message", Text, nullable=False),
    Column("replica", Integer),
    Column("node", String(253)),
    Column("seconds_lost", Float),
    Column("steps_lost", Integer),
    Column("resumed_from", String(64)),
    Column("counted", Boolean, nullable=False),
    Index(None, "time"),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("job_uid", String(64), primary_key=True),
    Column("step", BigInteger, primary_key=True, autoincrement=False),
    Column("path", Text, nullable=False),
    Column("time", Float, nullable=False),
)

placements = Table(
    "placements",
    metadata,
    Column("job_uid", String(64), primary_key=True),
    Column("id", String(40), primary_key=True),
    Column("time", Float, nullable=False),
    Column("level", String(63), nullable=False),
    Column("domain", Text, nullable=False),
    Column("nodes", JSON, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("namespace", String(63), nullable=False),
    Column("name", String(253), nullable=False),
    Column("job_uid", String(64), nullable=False),
    Column("type", String(16), nullable=False),
    Column("reason", String(128), nullable=False),
    Column("message", Text, nullable=False),
    Column("first", Float, nullable=False),
    Column("last", Float, nullable=False),
    Column("count", Integer, nullable=False),
    Index(None, "job_uid", "last"),
    Index(None, "last"),
)

series = Table(
    "series",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("job_uid", String(64), nullable=False),
    Column("name", String(128), nullable=False),
    Column("thinned", Boolean, nullable=False, server_default=text("false")),
    Index(None, "job_uid", "name", unique=True),
)
"""A metric of a job. The id is a hash of both, so that replicas agree without asking."""

points = Table(
    "points",
    metadata,
    Column("series_id", BigInteger, primary_key=True, autoincrement=False),
    Column("step", BigInteger, primary_key=True, autoincrement=False),
    Column("time", Float, nullable=False),
    Column("value", Float, nullable=False),
    # Rows lie in order of the key: one series is one range of the file.
    sqlite_with_rowid=False,
)

holdings = Table(
    "holdings",
    metadata,
    Column("job_uid", String(64), primary_key=True),
    Column("since", Float, primary_key=True),
    Column("resource", String(253), primary_key=True),
    Column("amount", Float, nullable=False),
    Column("ended", Float),
    Column("namespace", String(63), nullable=False),
    Column("queue", String(253), nullable=False),
    Column("user", String(253), nullable=False),
    Index(None, "ended"),
    Index(None, "namespace", "since"),
)
"""What a job held and for how long; usage is a sum over these, so counting it twice is impossible."""

usage_days = Table(
    "usage_days",
    metadata,
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("namespace", String(63), primary_key=True),
    Column("queue", String(253), primary_key=True),
    Column("user", String(253), primary_key=True),
    Column("resource", String(253), primary_key=True),
    Column("seconds", Float, nullable=False),
)
"""Usage of holdings that were forgotten, by day since the epoch (UTC)."""
