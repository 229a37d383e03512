"""The part of `matrix.py` that is the alerts family's: users edit how they are told, tokens are the service's alone."""

from typing import Final

ALERT_TABLES: Final = {
    #                     anon    user    other   service worker
    # A stranger's update or deletion is one of none of the rows.
    "notification_preferences": ("----", "OYY-", "0-Y-", "A---", "----"),
    "channel_preferences": ("----", "OYYY", "0-YY", "A---", "----"),
    "alerts":            ("----", "O-Y-", "0-Y-", "A---", "----"),
    "alert_targets":     ("----", "O---", "0---", "AYYY", "----"),
    "digests":           ("----", "O---", "0---", "A---", "----"),
    "alert_deliveries":  ("----", "O---", "0---", "A---", "----"),
    "delivery_lanes":    ("----", "----", "----", "A---", "----"),
    "email_suppressions": ("----", "----", "----", "AY-Y", "----"),
}  # fmt: skip

_PREFERENCES = frozenset(
    "locale timezone muted_types quiet_from quiet_until quiet_bypass digest_daily digest_weekly digest_at"
    " digest_weekday digest_channels".split()
)
_OF_AN_ALERT = frozenset("id user_id alert_type severity title message metadata created_at read_at".split())
_OF_A_TARGET = frozenset("id user_id channel kind label status status_reason last_seen_at created_at".split())
_OF_A_DELIVERY = frozenset(
    "id alert_id digest_id user_id channel target_id status reason words not_before created_at sent_at".split()
)
_BOTH = ("user", "other")
ALERT_READS: Final = {
    **{("alerts", caller): _OF_AN_ALERT for caller in _BOTH},
    **{("alert_targets", caller): _OF_A_TARGET for caller in _BOTH},
    **{("alert_deliveries", caller): _OF_A_DELIVERY for caller in _BOTH},
}
ALERT_INSERTS: Final = {
    # And their own id: a null there is nobody's, and refused by the policy.
    ("notification_preferences", "user"): _PREFERENCES,
    ("channel_preferences", "user"): frozenset({"channel", "enabled", "min_severity"}),
    ("alert_targets", "service"): frozenset({"user_id", "channel", "address", "label"}),
    ("email_suppressions", "service"): frozenset({"address", "scope", "reason", "created_at"}),
}
ALERT_UPDATES: Final = {
    **{("notification_preferences", caller): _PREFERENCES for caller in _BOTH},
    **{("channel_preferences", caller): frozenset({"enabled", "min_severity"}) for caller in _BOTH},
    **{("alerts", caller): frozenset({"read_at"}) for caller in _BOTH},
    ("alert_targets", "service"): frozenset({"label", "status", "status_reason"}),
}

FOR_ALERTS: Final = (
    "route_alert begin_delivery record_delivery record_mail_events sweep_digests digest_facts route_digest"
).split()
"""Called by handlers."""
_FOR_USERS = "register_device register_discord_webhook".split()
REGISTERING: Final = [*_FOR_USERS, "register_operator_target", "remove_target"]
"""Called by those who want to be told."""
_WITHIN_ALERTS: Final = (
    "calling_user check_targets keep_discord_webhook forget_target quiet_end quiet_until not_wanted mail_suppressed"
    " targets_of write_alert write_deliveries enqueue_deliveries lane_of next_turn enter_lane leave_lane"
    " delivery_objection may_have_arrived close_delivery await_turn later end_delivery delivery_words"
    " hold_lanes write_outcome"
    " give_up_target tell_target_disabled explain_open_deliveries"
    " correct_mail tell_address_is_gone digest_due open_digest count_severities forget_alerts forgettable_alerts"
).split()
ALERT_FUNCTIONS: Final = {
    #                            anon user other service worker
    **dict.fromkeys(FOR_ALERTS, "- - - Y -"),
    **dict.fromkeys(_WITHIN_ALERTS, "- - - - -"),
    **dict.fromkeys(_FOR_USERS, "- Y Y - -"),
    "register_operator_target": "- - - Y -",
    "remove_target":            "- Y Y Y -",
    # Asked by checks of tables, with the rights of who writes there.
    "forget_secret":            ". . . . .",
    "forget_reader":            ". . . . .",
    "explain_delivery":         ". . . . .",
    "is_timezone":              "- Y Y Y -",
    "severity_rank":            "- Y Y Y -",
}  # fmt: skip
