"""All tables of history."""

import sqlalchemy as sa
from alembic import op

revision = "001"
down_revision = None


def upgrade() -> None:
    """Create them."""

    op.create_table(
        "checkpoints",
        sa.Column("job_uid", sa.String(length=64), nullable=False),
        sa.Column("step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("time", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("job_uid", "step", name=op.f("pk_checkpoints")),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("namespace", sa.String(length=63), nullable=False),
        sa.Column("name", sa.String(length=253), nullable=False),
        sa.Column("job_uid", sa.String(length=64), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=128), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("first", sa.Float(), nullable=False),
        sa.Column("last", sa.Float(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_index(op.f("ix_events_job_uid_last"), "events", ["job_uid", "last"], unique=False)
    op.create_index(op.f("ix_events_last"), "events", ["last"], unique=False)
    op.create_table(
        "holdings",
        sa.Column("job_uid", sa.String(length=64), nullable=False),
        sa.Column("since", sa.Float(), nullable=False),
        sa.Column("resource", sa.String(length=253), nullable=False),
        sa.Column("amount", sa.Float(), nullable=False),
        sa.Column("ended", sa.Float(), nullable=True),
        sa.Column("namespace", sa.String(length=63), nullable=False),
        sa.Column("queue", sa.String(length=253), nullable=False),
        sa.Column("user", sa.String(length=253), nullable=False),
        sa.PrimaryKeyConstraint("job_uid", "since", "resource", name=op.f("pk_holdings")),
    )
    op.create_index(op.f("ix_holdings_ended"), "holdings", ["ended"], unique=False)
    op.create_index(
        op.f("ix_holdings_namespace_since"), "holdings", ["namespace", "since"], unique=False
    )
    op.create_table(
        "jobs",
        sa.Column("uid", sa.String(length=64), nullable=False),
        sa.Column("namespace", sa.String(length=63), nullable=False),
        sa.Column("name", sa.String(length=253), nullable=False),
        sa.Column("user", sa.String(length=253), nullable=False),
        sa.Column("queue", sa.String(length=253), nullable=False),
        sa.Column("phase", sa.String(length=16), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("started", sa.Float(), nullable=True),
        sa.Column("ended", sa.Float(), nullable=True),
        sa.Column("deleted", sa.Float(), nullable=True),
        sa.Column("updated", sa.Float(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("replicas", sa.Integer(), nullable=False),
        sa.Column("ranks", sa.Integer(), nullable=False),
        sa.Column("accelerators", sa.Integer(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=True),
        sa.Column("total_steps", sa.BigInteger(), nullable=True),
        sa.Column("loss", sa.Float(), nullable=True),
        sa.Column("tokens_per_second", sa.Float(), nullable=True),
        sa.Column("goodput", sa.Float(), nullable=True),
        sa.Column("restarts", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_jobs")),
    )
    op.create_index(op.f("ix_jobs_created"), "jobs", ["created"], unique=False)
    op.create_index(
        op.f("ix_jobs_namespace_created"), "jobs", ["namespace", "created"], unique=False
    )
    op.create_index(op.f("ix_jobs_namespace_name"), "jobs", ["namespace", "name"], unique=False)
    op.create_table(
        "placements",
        sa.Column("job_uid", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("time", sa.Float(), nullable=False),
        sa.Column("level", sa.String(length=63), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("nodes", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("job_uid", "id", name=op.f("pk_placements")),
    )
    op.create_table(
        "points",
        sa.Column("series_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("time", sa.Float(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("series_id", "step", name=op.f("pk_points")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "restarts",
        sa.Column("job_uid", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=128), nullable=False),
        sa.Column("time", sa.Float(), nullable=False),
        sa.Column("scope", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("replica", sa.Integer(), nullable=True),
        sa.Column("node", sa.String(length=253), nullable=True),
        sa.Column("seconds_lost", sa.Float(), nullable=True),
        sa.Column("steps_lost", sa.Integer(), nullable=True),
        sa.Column("resumed_from", sa.String(length=64), nullable=True),
        sa.Column("counted", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("job_uid", "id", name=op.f("pk_restarts")),
    )
    op.create_index(op.f("ix_restarts_time"), "restarts", ["time"], unique=False)
    op.create_table(
        "series",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("job_uid", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("thinned", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_series")),
    )
    op.create_index(op.f("ix_series_job_uid_name"), "series", ["job_uid", "name"], unique=True)
    op.create_table(
        "usage_days",
        sa.Column("day", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("namespace", sa.String(length=63), nullable=False),
        sa.Column("queue", sa.String(length=253), nullable=False),
        sa.Column("user", sa.String(length=253), nullable=False),
        sa.Column("resource", sa.String(length=253), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint(
            "day", "namespace", "queue", "user", "resource", name=op.f("pk_usage_days")
        ),
    )


def downgrade() -> None:
    """Drop them."""

    op.drop_table("usage_days")
    op.drop_index(op.f("ix_series_job_uid_name"), table_name="series")
    op.drop_table("series")
    op.drop_index(op.f("ix_restarts_time"), table_name="restarts")
    op.drop_table("restarts")
    op.drop_table("points")
    op.drop_table("placements")
    op.drop_index(op.f("ix_jobs_namespace_name"), table_name="jobs")
    op.drop_index(op.f("ix_jobs_namespace_created"), table_name="jobs")
    op.drop_index(op.f("ix_jobs_created"), table_name="jobs")
    op.drop_table("jobs")
    op.drop_index(op.f("ix_holdings_namespace_since"), table_name="holdings")
    op.drop_index(op.f("ix_holdings_ended"), table_name="holdings")
    op.drop_table("holdings")
    op.drop_index(op.f("ix_events_last"), table_name="events")
    op.drop_index(op.f("ix_events_job_uid_last"), table_name="events")
    op.drop_table("events")
    op.drop_table("checkpoints")
