"""Who may do what through the REST door, by hand: a row for each table, view and function, a cell for each caller.

A table or function without a row fails `test_matrix.py`: what is new is closed until somebody writes here who may.
"""

from typing import Final

from devstack.keys import LOCAL
from tests.security.alert_matrix import (
    ALERT_FUNCTIONS,
    ALERT_INSERTS,
    ALERT_READS,
    ALERT_TABLES,
    ALERT_UPDATES,
)

MINE: Final = "11111111-1111-1111-1111-111111111111"
CALLERS: Final = {
    "anon": LOCAL.publishable,
    "user": LOCAL.mint("authenticated", sub=MINE),
    "other": LOCAL.mint("authenticated", sub="22222222-2222-2222-2222-222222222222"),
    "service": LOCAL.secret,
    "worker": LOCAL.mint("pulse_worker"),
}
QUEUES: Final = ("payment", "broker", "alerts", "maintenance", "reports")
"""The last one is made by the test itself, with `create_queue`."""

# Four letters a caller. First what it reads: A every row, O those that are for it alone, 0 of none, - refused.
# Then whether it inserts, updates and deletes: Y or -. "...." is not served at all, whoever asks.
_CLOSED = "----"
_OF_A_QUEUE = {
    #                     anon    user    other   service worker
    "jobs_{}":           ("....", "....", "....", "....", "...."),
    "{}_jobs":           ("----", "----", "----", "AY--", "----"),
}  # fmt: skip
TABLES: Final = {
    #                     anon    user    other   service worker
    "jobs":              ("----", "O---", "0---", "AY--", "----"),
    "jobs_unknown_queue": ("....", "....", "....", "....", "...."),
    "failed_jobs":       ("----", "----", "----", "A---", "----"),
    "stale_outcomes":    ("----", "----", "----", "A---", "----"),
    "realtime_canary":   ("----", "----", "----", "A---", "A---"),
    "call_limits":       ("----", "----", "----", "A---", "----"),
    "workers":           ("----", "----", "----", "A---", "----"),
    "paused":            ("----", "----", "----", "A---", "----"),
    "job_limits":        ("----", "----", "----", "A---", "----"),
    "lanes":             ("----", "----", "----", "A---", "----"),
    "schedules":         ("----", "----", "----", "AYYY", "----"),
    "job_schemas":       ("----", "----", "----", "A---", "----"),
    "schema_modes":      ("----", "----", "----", "A---", "----"),
    "gates":             ("----", "----", "----", "A---", "----"),
    "subscription_tiers": ("O---", "O---", "O---", "A---", "----"),
    "billing_customers": ("----", "----", "----", "A---", "----"),
    "subscriptions":     ("----", "O---", "0---", "A---", "----"),
    "user_subscriptions": ("----", "O---", "0---", "A---", "----"),
    "payments":          ("----", "O---", "0---", "A---", "----"),
    "stripe_events":     ("----", "----", "----", "A---", "----"),
    "crypto_assets":     ("----", "O---", "O---", "A---", "----"),
    "crypto_payments":   ("----", "O---", "0---", "A---", "----"),
    "crypto_transactions": ("----", "O---", "0---", "A---", "----"),
    "crypto_transfers":  ("----", "----", "----", "A---", "----"),
    "crypto_addresses":  ("----", "----", "----", "A---", "----"),
    "broker_connections": ("----", "O---", "0---", "AYY-", "----"),
    "broker_limits":     ("----", "----", "----", "AYYY", "----"),
    "trading_rules":     ("----", "----", "----", "A-Y-", "----"),
    "trading_halts":     ("----", "----", "----", "A---", "----"),
    "orders":            ("----", "O---", "0---", "A---", "----"),
    "order_fills":       ("----", "O---", "0---", "A---", "----"),
    "positions":         ("----", "O---", "0---", "A---", "----"),
    "broker_sync_runs":  ("----", "----", "----", "A---", "----"),
    "broker_callbacks":  ("----", "----", "----", "A---", "----"),
    "broker_looks":      ("----", "----", "----", "A---", "----"),
    "paper_accounts":    ("----", "----", "----", "A-Y-", "----"),
    "paper_orders":      ("----", "----", "----", "A---", "----"),
    "paper_fills":       ("----", "----", "----", "A---", "----"),
    "paper_positions":   ("----", "----", "----", "A---", "----"),
    "paper_quotes":      ("----", "----", "----", "AYYY", "----"),
    "paper_faults":      ("----", "----", "----", "AYYY", "----"),
    **ALERT_TABLES,
} | {name.format(queue): row for queue in QUEUES for name, row in _OF_A_QUEUE.items()}  # fmt: skip

_OF_PRODUCERS = frozenset(
    {"type", "data", "user_id", "priority", "run_at", "max_attempts", "idempotency_key", "traceparent"}
)
_HARMLESS = frozenset(
    "id queue status type user_id priority run_at attempt cancel_requested progress result created_at updated_at"
    " finished_at".split()
)
_OF_AN_ACCOUNT = frozenset(
    "id user_id broker label environment status status_reason synced_at created_at".split()
)
READS: Final = {
    ("jobs", "user"): _HARMLESS,
    ("jobs", "other"): _HARMLESS,
    ("realtime_canary", "worker"): frozenset({"id", "token"}),
    ("broker_connections", "user"): _OF_AN_ACCOUNT,
    ("broker_connections", "other"): _OF_AN_ACCOUNT,
    **ALERT_READS,
}
"""Who reads some columns only. Who reads at all and is not named here reads all columns."""
_SCHEDULE = frozenset("queue type data slot_as cron every_seconds timezone missed overlap paused".split())
_QUOTE = frozenset("feed symbol at bid ask bid_size ask_size".split())
_PACE = frozenset({"broker", "calls", "per_seconds"})
INSERTS: Final = {
    ("jobs", "service"): _OF_PRODUCERS | {"queue"},
    ("schedules", "service"): _SCHEDULE | {"name"},
    **{(f"{queue}_jobs", "service"): _OF_PRODUCERS for queue in QUEUES},
    ("broker_connections", "service"): frozenset(
        "id user_id broker label environment credentials_secret_id credentials_env settings".split()
    ),
    ("broker_limits", "service"): _PACE,
    ("paper_quotes", "service"): _QUOTE,
    ("paper_faults", "service"): frozenset(
        "account_id kind operation remaining probability seed seconds".split()
    ),
    **ALERT_INSERTS,
}
"""Into which columns those insert who may."""
UPDATES: Final = {
    ("schedules", "service"): _SCHEDULE,
    ("broker_connections", "service"): frozenset(
        "label credentials_secret_id credentials_env settings status status_reason".split()
    ),
    ("broker_limits", "service"): _PACE,
    ("paper_accounts", "service"): frozenset({"label", "settings", "feed"}),
    ("paper_quotes", "service"): _QUOTE,
    ("paper_faults", "service"): frozenset({"remaining"}),
    ("trading_rules", "service"): frozenset(
        "environment needs_subscription max_order_notional max_position_notional market_order_good_for"
        " order_good_for".split()
    ),
    **ALERT_UPDATES,
}
"""Which columns those update who may."""

FOR_HANDLERS_OF_PAYMENTS = (
    "receive_stripe_event apply_stripe_event draw_stripe_ticket sync_stripe_subscriptions enqueue_lost_stripe_events"
    " open_crypto_request renew_crypto_request submit_crypto_hash record_crypto_look expire_crypto_request"
    " renew_subscription sweep_renewals alert_payer"
).split()
_WITHIN_PAYMENTS = (
    "owner_of_stripe_objects write_stripe_look write_stripe_subscription write_stripe_payment write_stripe_customer"
    " write_stripe_money_back send_stripe_notices follow_waiting_stripe_events forget_stripe_events stripe_words"
    " forgettable_stripe_events"
    " draft_crypto_request find_crypto_request follow_crypto_payment confirm_crypto_payment count_crypto_transfers"
    " settle_crypto_payment reverse_crypto_payment look_at_crypto_again end_crypto_request_at crypto_request_as_told"
    " crypto_payment_words crypto_payer_message crypto_hash crypto_units"
    " extend_paid_period take_back_paid_period renewal_words renewal_stage grace_period add_months"
    " tier_exchange lock_open_requests give_crypto_request_time"
    " tell_payer"
).split()

# The broker family, room by room: those that its handlers and the app's server call, and those within.
FOR_ORDERS: Final = (
    "place_order begin_order record_submission record_lookup halt_trading resume_trading close_order_in_doubt"
    " begin_cancel record_cancel"
).split()
_WITHIN_ORDERS: Final = (
    "tell_trader order_in_words apply_broker_order take_over_stranger tell_of_order enqueue_cancel"
    " check_placed enqueue_order broken_rule order_price exposure_after order_as_told connection_as_told"
    " conclude_missing end_order give_up_order doubt_order tell_of_doubt order_progress told_settle"
    " lock_connection note_broker_answer pass_kill_switch resume_orders"
).split()
FOR_ORDER_TRUTH: Final = (
    "sweep_orders_to_check hint_orders take_orders_to_check record_orders_seen record_broker_trouble"
    " enqueue_position_syncs begin_position_sync record_positions rotate_callback_secret note_callback"
).split()
_WITHIN_ORDER_TRUTH: Final = (
    "order_check_after look_soon fills_wanted_since end_look"
    " adopt_order miss_order book_fills check_order_again lock_out_connection"
    " is_overtaken write_positions judge_position forget_broker_traces"
    " forgettable_broker_traces"
).split()
FOR_BROKER_CALLS: Final = ["take_broker_calls", "broker_credentials"]
_WITHIN_BROKER_CALLS: Final = ["broker_pace"]
FOR_GATES: Final = "pause_jobs resume_jobs limit_jobs unlimit_jobs gate_of".split()
_WITHIN_GATES: Final = (
    "pass_gates candidates behind rooms_at calls_within count_running write_starts keep_lanes find_lanes free_lanes"
    " limit_key limits_of check_queue open_lanes find_aged in_turns is_crowded turn_key lanes_to_look_at"
).split()
FOR_LOOKING: Final = ["why", "doctor_facts"]
_WITHIN_LOOKING: Final = (
    "duration_in_words moment_in_words live_workers why_absent why_ended error_name why_running why_later why_held"
    " why_waiting jobs_before due_in_words who_locks queue_tables applied_migrations functions_to_call indexes_wanted"
    " doctor_publication doctor_policies doctor_rights doctor_shape doctor_upkeep doctor_work doctor_schedules"
).split()
FOR_PAPER: Final = (
    "open_paper_account paper_account_of load_paper_book save_paper_book find_paper_orders find_paper_fills"
    " paper_symbols note_paper_quotes ask_for_paper_fault"
).split()
_WITHIN_PAPER: Final = ["draw_paper_fault", "paper_texts"]

FOR_SCHEDULERS: Final = "declare_schedules due_schedules run_slots".split()
FOR_PEOPLE_AND_SCHEDULES: Final = "pause_schedule resume_schedule run_schedule schedule_states".split()
_WITHIN_SCHEDULES: Final = "slot_data refusal insert_slots schedule_state".split()
_LOOKING: Final = (
    "list_jobs list_dead_letters job_history queue_stats list_limits list_workers count_prunable"
    " tell_jobs running_jobs jobs_below oldest_due queue_facts"
).split()
"""What the command line reads: with the rights of its caller, so the functions within are the server's too."""

# One letter a caller: Y it may call, - refused, . not served.
FUNCTIONS: Final = {
    #                            anon user other service worker
    "clock_now":                "-    -    -     Y       -",
    "trace_of_request":         "-    -    -     Y       -",
    "queues":                   "-    -    -     Y       -",
    "queue_ages":               "-    -    -     Y       Y",
    "enqueue":                  "-    -    -     Y       Y",
    "enqueue_delivery":         "-    -    -     Y       Y",
    "claim":                    "-    -    -     Y       Y",
    "heartbeat":                "-    -    -     Y       Y",
    "finish":                   "-    -    -     Y       Y",
    "report_progress":          "-    -    -     Y       Y",
    "canary":                   "-    -    -     Y       Y",
    "prune":                    "-    -    -     Y       Y",
    "tell_worker":              "-    -    -     Y       Y",
    "cancel":                   "-    -    -     Y       -",
    "replay":                   "-    -    -     Y       -",
    "publish_table":            "-    -    -     -       -",
    "create_queue":             "-    -    -     -       -",
    "guard_queue_table":        "-    -    -     -       -",
    "open_to_producers":        "-    -    -     -       -",
    "open_to_workers":          "-    -    -     -       -",
    "announce_problem":         "-    -    -     -       -",
    "announce_by_broadcast":    "-    -    -     -       -",
    "announce_table":           "-    -    -     -       -",
    "announce_insert":          ".    .    .     .       .",
    "announce_canary":          ".    .    .     .       .",
    "check_enqueue":            "-    -    -     -       -",
    "is_another":               "-    -    -     -       -",
    "find_due":                 "-    -    -     -       -",
    "unknown_types":            "-    -    -     -       -",
    "check_lease":              "-    -    -     -       -",
    "renew_held":               "-    -    -     -       -",
    "end_lost_attempts":        "-    -    -     -       -",
    "record_outcomes":          "-    -    -     -       -",
    "status_after":             "-    -    -     -       -",
    "retry_delay":              "-    -    -     -       -",
    "publish_schemas":          "-    -    -     Y       -",
    "retire_schemas":           "-    -    -     Y       -",
    "schema_mode":              "-    -    -     Y       -",
    "list_schemas":             "-    -    -     Y       -",
    "schema_mode_of":           "-    -    -     -       -",
    "payload_problem":          "-    -    -     -       -",
    "leaf_problem":             "-    -    -     -       -",
    "bound_problem":            "-    -    -     -       -",
    "payload_kind":             "-    -    -     -       -",
    "is_part_of_more":          "-    -    -     -       -",
    "check_table":              "-    -    -     -       -",
    "check_payloads":           ".    .    .     .       .",
    "call_moment":              "-    -    -     -       -",
    "calls_free_at":            "-    -    -     -       -",
    "take_calls":               "-    -    -     -       -",
    "hold_calls":               "-    -    -     -       -",
    "take_door_call":           "-    -    -     Y       Y",
    "forget_calls":             "-    -    -     -       -",
    "forgettable_calls":        "-    -    -     -       -",
    "next_old_jobs":            "-    -    -     -       -",
    "old_letters":              "-    -    -     -       -",
    **dict.fromkeys(FOR_SCHEDULERS, "- - - Y Y"),
    **dict.fromkeys(FOR_PEOPLE_AND_SCHEDULES, "- - - Y -"),
    **dict.fromkeys(_WITHIN_SCHEDULES, "- - - - -"),
    "cron_problem":             "-    -    -     Y       -",
    "check_schedule":           ".    .    .     .       .",
    "tell":                     "-    -    -     -       -",
    "tell_operators":           "-    -    -     -       -",
    "count_credentials":        ".    .    .     .       .",
    "weigh_gates":              ".    .    .     .       .",
    **dict.fromkeys(FOR_GATES, "- - - Y -"),
    **dict.fromkeys(_WITHIN_GATES, "- - - - -"),
    **dict.fromkeys(FOR_LOOKING, "- - - Y -"),
    **dict.fromkeys(_WITHIN_LOOKING, "- - - - -"),
    **dict.fromkeys(_LOOKING, "- - - Y -"),
    **dict.fromkeys(FOR_HANDLERS_OF_PAYMENTS, "- - - Y -"),
    **dict.fromkeys(_WITHIN_PAYMENTS, "- - - - -"),
    **dict.fromkeys(FOR_ORDERS + FOR_ORDER_TRUTH + FOR_BROKER_CALLS + FOR_PAPER, "- - - Y -"),
    **dict.fromkeys(
        _WITHIN_ORDERS + _WITHIN_ORDER_TRUTH + _WITHIN_BROKER_CALLS + _WITHIN_PAPER, "- - - - -"
    ),
    **ALERT_FUNCTIONS,
}  # fmt: skip

# What a caller hears over Realtime when a row is inserted into a queue: the columns it is shown of those rows that are
# its own, or of all. `knock`: it is told that something was inserted and may not see it, which Realtime does for roles
# without any right to the table. Broadcasts: who may join the private channels of the announcements.
HEARS: Final = {
    "anon": "knock",
    "user": _HARMLESS,
    "other": None,
    "service": "everything",
    "worker": frozenset({"id", "queue"}),
}
JOINS: Final = frozenset({"service"})
