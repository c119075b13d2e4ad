"""One reminder at the start."""

from datetime import timedelta

from reactive_store import Crons, internal

crons = Crons()
crons.interval(
    "hello",
    timedelta(hours=1),
    internal.reminders.deliver,
    {"owner": "cron", "text": "hello"},
)
