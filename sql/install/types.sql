-- Result types. They are never used in a column, so that no table depends on the extension.

CREATE TYPE exa_billing.recorded_usage AS (
    usage_id uuid,
    created_at timestamptz,
    cost_microdollars bigint,
    free_microdollars bigint,
    charged_microdollars bigint,
    free_allowance_microdollars bigint,
    is_replay boolean
);
COMMENT ON TYPE exa_billing.recorded_usage IS
    'What was recorded, in microdollars: free + charged = cost. is_replay: the key was known, nothing was written. The allowance is null for spend other than Exa.';

CREATE TYPE exa_billing.usage_decision AS (
    allowed boolean,
    reason text,
    is_paid boolean,
    month_used_microdollars bigint,
    free_allowance_microdollars bigint,
    balance_microdollars bigint,
    member_limit_remaining_microdollars bigint
);
COMMENT ON TYPE exa_billing.usage_decision IS
    'May this request be made? reason: free_allowance, credit_balance, not_a_member, no_credit_balance or member_daily_limit. Amounts in microdollars; the limit is null where there is none, the balance where the user is no member of the organization.';

CREATE TYPE exa_billing.monthly_usage AS (
    user_id text,
    month date,
    total_cost_microdollars bigint,
    total_charged_microdollars bigint,
    request_count bigint,
    free_allowance_microdollars bigint
);
COMMENT ON TYPE exa_billing.monthly_usage IS
    'A user''s month over all contexts, in microdollars. The allowance is null until the first request locks it in.';

CREATE TYPE exa_billing.owner_balance AS (
    total_microdollars_acquired bigint,
    microdollars_used bigint,
    balance_microdollars bigint,
    next_credit_expiration_at timestamptz,
    next_expiration_microdollars bigint
);
COMMENT ON TYPE exa_billing.owner_balance IS
    'Credits acquired, used and left, in microdollars, and what expires next.';

CREATE TYPE exa_billing.partition_report AS (
    partition_name text,
    from_time timestamptz,
    to_time timestamptz,
    created boolean,
    error text
);
COMMENT ON TYPE exa_billing.partition_report IS
    'One monthly partition: whether this call created it, or why it could not.';

CREATE TYPE exa_billing.books_violation AS (
    invariant text,
    owner_kind text,
    owner_id text,
    period text,
    expected_microdollars numeric,
    actual_microdollars numeric,
    detail text
);
COMMENT ON TYPE exa_billing.books_violation IS
    'One broken promise of the books, named by its invariant (I1 … I10).';

CREATE TYPE exa_billing.credit_block AS (
    transaction_id uuid,
    amount_microdollars bigint,
    claimed_microdollars bigint,
    remaining_microdollars bigint,
    expiry_date timestamptz,
    is_free boolean,
    created_at timestamptz,
    credit_category text,
    description text
);
COMMENT ON TYPE exa_billing.credit_block IS
    'An open grant: claimed + remaining = amount, in microdollars. expiry_date is null where it never expires.';

CREATE TYPE exa_billing.recompute_result AS (
    owner_kind text,
    owner_id text,
    previous_microdollars_used bigint,
    new_microdollars_used bigint,
    previous_total_microdollars_acquired bigint,
    new_total_microdollars_acquired bigint,
    balance_error_microdollars bigint,
    accounting_adjustment_microdollars bigint,
    original_baselines_changed bigint,
    expiration_baselines_changed bigint,
    late_arrivals bigint,
    applied boolean
);
COMMENT ON TYPE exa_billing.recompute_result IS
    'What a recompute found and, when applied, wrote. balance_error is the visible balance minus that of the ledger; late_arrivals counts charges dated before an expiration and recorded after it.';

CREATE TYPE exa_billing.recomputed_baseline AS (
    transaction_id uuid,
    created_at timestamptz,
    amount_microdollars bigint,
    expiry_date timestamptz,
    stored_original_baseline_microdollars_used bigint,
    new_original_baseline_microdollars_used bigint,
    stored_expiration_baseline_microdollars_used bigint,
    new_expiration_baseline_microdollars_used bigint
);
COMMENT ON TYPE exa_billing.recomputed_baseline IS
    'A credit transaction''s baselines as they are stored and as the journals give them, in microdollars.';

CREATE TYPE exa_billing.recompute_step AS (
    is_finished boolean,
    notice text
);
COMMENT ON TYPE exa_billing.recompute_step IS 'What one step of recompute_all_balances tells the procedure.';

CREATE TYPE exa_billing.statement_line AS (
    line_time timestamptz,
    kind text,
    description text,
    amount_microdollars bigint,
    balance_microdollars bigint
);
COMMENT ON TYPE exa_billing.statement_line IS
    'A line of an account statement: balance_brought_forward, grant, expiration, adjustment, opening_balance or spend; amount signed, balance after it, in microdollars.';

CREATE TYPE exa_billing.spend_hour AS (
    hour_start timestamptz,
    is_covered boolean,
    total_microdollars bigint,
    variable_microdollars bigint,
    scheduled_microdollars bigint,
    spend_record_count bigint
);
COMMENT ON TYPE exa_billing.spend_hour IS
    'Spend of one UTC hour, in microdollars; null where it is not known. is_covered: the rollups hold the hour.';

CREATE TYPE exa_billing.spend_bucket AS (
    bucket_start timestamptz,
    bucket_end timestamptz,
    covered_hours int,
    total_hours int,
    total_microdollars bigint,
    variable_microdollars bigint,
    scheduled_microdollars bigint,
    spend_record_count bigint
);
COMMENT ON TYPE exa_billing.spend_bucket IS
    'Spend of some hours in a row, in microdollars; null where none of them is known. covered_hours of total_hours are in the rollups.';

CREATE TYPE exa_billing.spend_window AS (
    total_microdollars bigint,
    variable_microdollars bigint,
    scheduled_microdollars bigint,
    spend_record_count bigint,
    is_complete boolean
);
COMMENT ON TYPE exa_billing.spend_window IS
    'Spend of a window, in microdollars; null where nothing of it is known. is_complete: every hour of it is known.';

CREATE TYPE exa_billing.spend_driver AS (
    spend_category text,
    source text,
    product_key text,
    feature_key text,
    model_or_plan_key text,
    provider_key text,
    actor_user_id text,
    total_microdollars bigint,
    spend_record_count bigint
);
COMMENT ON TYPE exa_billing.spend_driver IS
    'What money went on: everything spent on the same dimensions by the same actor, in microdollars.';

CREATE TYPE exa_billing.rollup_mismatch AS (
    mismatch_type text,
    hour_start timestamptz,
    owner_kind text,
    owner_id text,
    spend_category text,
    expected_microdollars numeric,
    actual_microdollars numeric,
    expected_record_count numeric,
    actual_record_count numeric,
    detail text
);
COMMENT ON TYPE exa_billing.rollup_mismatch IS
    'Where rollups and journals differ: expected is what the journals say, actual what is posted and unposted, in microdollars and charges. An unknown source has the sum of its charges as actual; a hole in the coverage has its first hour, and its end in detail.';

CREATE TYPE exa_billing.backfill_step AS (
    is_finished boolean,
    notice text
);
COMMENT ON TYPE exa_billing.backfill_step IS 'What one step of backfill_rollups tells the procedure.';

CREATE TYPE exa_billing.evaluation_summary AS (
    evaluated bigint,
    fired bigint,
    recovered bigint,
    failed bigint,
    skipped bigint,
    complete boolean
);
COMMENT ON TYPE exa_billing.evaluation_summary IS
    'What became of the owners of an evaluation. fired and recovered count events; failed owners are tried again later; skipped ones are being evaluated by somebody else or were evaluated as of a later instant. complete: nobody is left.';

CREATE TYPE exa_billing.alert_settings AS (
    owner_kind text,
    owner_id text,
    spend_alerts_enabled boolean,
    anomaly_alerts_enabled boolean,
    cost_suggestions_enabled boolean,
    threshold_24h_microdollars bigint,
    threshold_7d_microdollars bigint,
    threshold_30d_microdollars bigint,
    minimum_balance_microdollars bigint
);
COMMENT ON TYPE exa_billing.alert_settings IS
    'What an owner wants to be told of, in microdollars; a null amount is none.';

CREATE TYPE exa_billing.changed_alert_settings AS (
    owner_kind text,
    owner_id text,
    spend_alerts_enabled boolean,
    anomaly_alerts_enabled boolean,
    cost_suggestions_enabled boolean,
    threshold_24h_microdollars bigint,
    threshold_7d_microdollars bigint,
    threshold_30d_microdollars bigint,
    minimum_balance_microdollars bigint,
    event_id uuid,
    fired bigint,
    evaluation_pending boolean
);
COMMENT ON TYPE exa_billing.changed_alert_settings IS
    'The settings after a change, the event it left behind (null where it left none), how many alerts the evaluation that followed has fired, and whether that evaluation failed and will be tried again.';
CREATE TYPE exa_billing.claimed_notification AS (
    delivery_id uuid,
    claim_token uuid,
    recipient_user_id text,
    owner_kind text,
    owner_id text,
    event_id uuid,
    event_type text,
    alert_kind text,
    occurred_at timestamptz,
    payload jsonb,
    attempt int
);
COMMENT ON TYPE exa_billing.claimed_notification IS
    'A delivery that is to be sent: to whom, about which owner, what has happened, the figures (in microdollars), and which attempt this is, from 1. With the token it is completed or failed.';
CREATE TYPE exa_billing.insight_activity AS (
    event_id uuid,
    event_type text,
    alert_kind text,
    suggestion_kind text,
    about_id uuid,
    title text,
    description text,
    actor_user_id text,
    occurred_at timestamptz,
    amount_microdollars bigint,
    snapshot jsonb
);
COMMENT ON TYPE exa_billing.insight_activity IS
    'Something that happened to an owner''s spend. about_id: the alert that was reviewed or has recovered, the suggestion that was made or dismissed. amount is the figure it is about, in microdollars; snapshot has all figures.';
