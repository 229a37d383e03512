"""Rows of the alerts family for the matrix: in each table one row for the user MINE, or for everybody, and another."""

from typing import Final

from tests.security.matrix import MINE

ALERT_SEEDS: Final = f"""
    insert into notification_preferences (user_id) values ('{MINE}'), (gen_random_uuid());
    insert into channel_preferences (user_id, channel)
    select user_id, 'discord' from notification_preferences;
    insert into alerts (id, user_id, alert_type, title, dedupe_key)
    select user_id, user_id, 'a', 'a', 'a' from notification_preferences;
    insert into alert_targets (user_id, channel, address, secret_id)
    select user_id, 'discord', 'a', user_id from notification_preferences;
    insert into digests (user_id, period, period_key, window_start, window_end)
    select user_id, 'daily', current_date, now() - interval '1 day', now() from notification_preferences;
    insert into alert_deliveries (alert_id, user_id, channel) select id, user_id, 'discord' from alerts;
    insert into delivery_lanes (lane) values ('discord:1'), ('discord:2');
    insert into email_suppressions (address, reason) values ('a@example.com', 'bounce'), ('b@example.com', 'spam');
"""
