-- Alerts, suggestions, what happened, and who has to hear of it.
--
-- Locks: only tables made here. Texts and columns as in the first migration.

CREATE TABLE exa_billing.spend_alert_settings (
    owner_kind text COLLATE "C" NOT NULL,
    owner_id text COLLATE "C" NOT NULL,
    spend_alerts_enabled boolean NOT NULL,
    anomaly_alerts_enabled boolean NOT NULL,
    cost_suggestions_enabled boolean NOT NULL,
    threshold_24h_microdollars bigint,
    threshold_7d_microdollars bigint,
    threshold_30d_microdollars bigint,
    changed_at timestamptz NOT NULL,
    CONSTRAINT spend_alert_settings_pkey PRIMARY KEY (owner_kind, owner_id),
    CONSTRAINT spend_alert_settings_owner_kind_check CHECK (owner_kind IN ('user', 'organization')),
    CONSTRAINT spend_alert_settings_thresholds_check CHECK (
        1 <= threshold_24h_microdollars AND threshold_24h_microdollars <= 9007199254740991
        AND 1 <= threshold_7d_microdollars AND threshold_7d_microdollars <= 9007199254740991
        AND 1 <= threshold_30d_microdollars AND threshold_30d_microdollars <= 9007199254740991)
);
COMMENT ON TABLE exa_billing.spend_alert_settings IS
    'What an owner wants to be told of; an owner without a row has the defaults. The minimum balance is in accounts. Written by update_spend_alert_settings().';

CREATE TABLE exa_billing.spend_alert_states (
    owner_kind text COLLATE "C" NOT NULL,
    owner_id text COLLATE "C" NOT NULL,
    last_evaluated_at timestamptz,
    last_anomaly_hour timestamptz,
    CONSTRAINT spend_alert_states_pkey PRIMARY KEY (owner_kind, owner_id),
    CONSTRAINT spend_alert_states_owner_kind_check CHECK (owner_kind IN ('user', 'organization'))
) WITH (fillfactor = 70);
COMMENT ON TABLE exa_billing.spend_alert_states IS
    'One row per owner whose spend was evaluated. Settings, acknowledgements and evaluations of an owner are made under the lock of this row, one after the other.';
COMMENT ON COLUMN exa_billing.spend_alert_states.last_anomaly_hour IS
    'The newest UTC hour an anomaly was found in; an older one never takes its place.';

CREATE TABLE exa_billing.spend_alert_episodes (
    owner_kind text COLLATE "C" NOT NULL,
    owner_id text COLLATE "C" NOT NULL,
    alert_kind text COLLATE "C" NOT NULL,
    event_id uuid NOT NULL,
    threshold_microdollars bigint NOT NULL,
    hour_start timestamptz,
    started_at timestamptz NOT NULL,
    snapshot jsonb NOT NULL,
    reviewed_at timestamptz,
    reviewed_by_user_id text COLLATE "C",
    CONSTRAINT spend_alert_episodes_pkey PRIMARY KEY (owner_kind, owner_id, alert_kind),
    CONSTRAINT spend_alert_episodes_event_key UNIQUE (event_id),
    CONSTRAINT spend_alert_episodes_kind_check CHECK (
        alert_kind IN ('anomaly', 'threshold_24h', 'threshold_7d', 'threshold_30d')
        AND (hour_start IS NOT NULL) = (alert_kind = 'anomaly'))
);
COMMENT ON TABLE exa_billing.spend_alert_episodes IS
    'What is amiss now: one row per owner and kind of alert while it lasts, with the figures it began with, so that it outlives its event.';

CREATE TABLE exa_billing.evaluation_queue (
    owner_kind text COLLATE "C" NOT NULL,
    owner_id text COLLATE "C" NOT NULL,
    entry_id uuid NOT NULL,
    due_at timestamptz NOT NULL,
    failure_count int NOT NULL,
    last_error text,
    CONSTRAINT evaluation_queue_pkey PRIMARY KEY (owner_kind, owner_id, entry_id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX evaluation_queue_due_idx ON exa_billing.evaluation_queue (due_at);
CREATE INDEX evaluation_queue_failing_idx ON exa_billing.evaluation_queue (owner_kind, owner_id)
    WHERE failure_count > 0;
COMMENT ON TABLE exa_billing.evaluation_queue IS
    'Whose spend has to be evaluated, and when. Posting adds a row for an owner unless one waits that is not due yet; only rows that are due are ever taken away. So nobody waits for anybody here, and no charge is missed.';

CREATE TABLE exa_billing.cost_insight_events (
    event_id uuid NOT NULL,
    owner_kind text COLLATE "C" NOT NULL,
    owner_id text COLLATE "C" NOT NULL,
    event_type text COLLATE "C" NOT NULL,
    alert_kind text COLLATE "C",
    suggestion_kind text COLLATE "C",
    about_id uuid,
    actor_user_id text COLLATE "C",
    snapshot jsonb NOT NULL,
    dedupe_key text COLLATE "C",
    occurred_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    CONSTRAINT cost_insight_events_pkey PRIMARY KEY (event_id),
    CONSTRAINT cost_insight_events_once_key UNIQUE (owner_kind, owner_id, dedupe_key),
    CONSTRAINT cost_insight_events_owner_kind_check CHECK (owner_kind IN ('user', 'organization')),
    CONSTRAINT cost_insight_events_type_check CHECK (event_type IN (
        'config_changed', 'anomaly_alert', 'threshold_crossed', 'recovered', 'alert_reviewed',
        'suggestion_created', 'suggestion_dismissed', 'low_balance', 'disabled')),
    CONSTRAINT cost_insight_events_times_check CHECK (isfinite(occurred_at) AND isfinite(recorded_at))
);
CREATE INDEX cost_insight_events_owner_idx
    ON exa_billing.cost_insight_events (owner_kind, owner_id, occurred_at DESC, event_id DESC);
CREATE INDEX cost_insight_events_occurred_idx ON exa_billing.cost_insight_events (occurred_at);
COMMENT ON TABLE exa_billing.cost_insight_events IS
    'What happened, kept for 90 days: figures and ids only. Titles and texts are made when somebody reads.';
COMMENT ON COLUMN exa_billing.cost_insight_events.about_id IS
    'The alert''s event that was reviewed or has recovered; the suggestion that was made or dismissed.';

CREATE TABLE exa_billing.suggestion_rules (
    rule_key text COLLATE "C" NOT NULL,
    suggestion_kind text COLLATE "C" NOT NULL,
    priority int NOT NULL,
    is_enabled boolean NOT NULL,
    owner_kind text COLLATE "C",
    provider_key text COLLATE "C",
    model_or_plan_key text COLLATE "C",
    minimum_observed_microdollars bigint NOT NULL,
    price_microdollars bigint NOT NULL,
    title text NOT NULL,
    description text NOT NULL,
    call_to_action text NOT NULL,
    link text NOT NULL,
    benefit_label text NOT NULL,
    benefit_detail text NOT NULL,
    CONSTRAINT suggestion_rules_pkey PRIMARY KEY (rule_key),
    CONSTRAINT suggestion_rules_kind_check CHECK (suggestion_kind IN ('coding_plan', 'kilo_pass')),
    CONSTRAINT suggestion_rules_owner_kind_check CHECK (owner_kind IN ('user', 'organization')),
    CONSTRAINT suggestion_rules_amounts_check CHECK (
        1 <= minimum_observed_microdollars AND minimum_observed_microdollars <= 9007199254740991
        AND 0 <= price_microdollars AND price_microdollars <= 9007199254740991)
);
COMMENT ON TABLE exa_billing.suggestion_rules IS
    'When which suggestion is made; yours to change. coding_plan: the top variable driver of the last 7 days matches provider and model (null matches any) and reaches the minimum. kilo_pass: everything spent in the last 7 days reaches it. Of several that match, the lowest priority number wins. Amounts in microdollars.';

CREATE TABLE exa_billing.cost_suggestions (
    suggestion_id uuid NOT NULL,
    owner_kind text COLLATE "C" NOT NULL,
    owner_id text COLLATE "C" NOT NULL,
    suggestion_kind text COLLATE "C" NOT NULL,
    target text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    observed_microdollars bigint NOT NULL,
    price_microdollars bigint NOT NULL,
    window_start timestamptz NOT NULL,
    window_end timestamptz NOT NULL,
    driver jsonb,
    content jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    grounded_at timestamptz NOT NULL,
    ended_at timestamptz,
    dismissed_by_user_id text COLLATE "C",
    CONSTRAINT cost_suggestions_pkey PRIMARY KEY (suggestion_id),
    CONSTRAINT cost_suggestions_owner_kind_check CHECK (owner_kind IN ('user', 'organization')),
    CONSTRAINT cost_suggestions_kind_check CHECK (suggestion_kind IN ('coding_plan', 'kilo_pass')),
    CONSTRAINT cost_suggestions_status_check CHECK (
        status IN ('open', 'dismissed', 'closed') AND (status = 'open') = (ended_at IS NULL)),
    CONSTRAINT cost_suggestions_observed_check CHECK (
        observed_microdollars > 0 AND window_start < window_end)
);
CREATE INDEX cost_suggestions_owner_idx
    ON exa_billing.cost_suggestions (owner_kind, owner_id, suggestion_kind, target);
CREATE UNIQUE INDEX cost_suggestions_open_key
    ON exa_billing.cost_suggestions (owner_kind, owner_id, suggestion_kind, target) WHERE status = 'open';
COMMENT ON TABLE exa_billing.cost_suggestions IS
    'Suggestions made to owners: at most one open per kind and target. content holds the texts of the rule as it was.';
COMMENT ON COLUMN exa_billing.cost_suggestions.grounded_at IS
    'When the figures last bore the suggestion out; 30 days later it is closed.';

CREATE TABLE exa_billing.notification_deliveries (
    delivery_id uuid NOT NULL,
    event_id uuid NOT NULL,
    owner_kind text COLLATE "C" NOT NULL,
    owner_id text COLLATE "C" NOT NULL,
    recipient_user_id text COLLATE "C" NOT NULL,
    event_type text COLLATE "C" NOT NULL,
    alert_kind text COLLATE "C",
    payload jsonb NOT NULL,
    status text COLLATE "C" NOT NULL,
    attempt_count int NOT NULL,
    next_attempt_at timestamptz NOT NULL,
    claim_token uuid,
    leased_until timestamptz,
    last_error text,
    occurred_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    finished_at timestamptz,
    CONSTRAINT notification_deliveries_pkey PRIMARY KEY (delivery_id),
    CONSTRAINT notification_deliveries_once_key UNIQUE (event_id, recipient_user_id),
    CONSTRAINT notification_deliveries_owner_kind_check CHECK (owner_kind IN ('user', 'organization')),
    CONSTRAINT notification_deliveries_status_check CHECK (
        status IN ('pending', 'sending', 'sent', 'skipped', 'dead')
        AND (status IN ('sending', 'sent')) = (claim_token IS NOT NULL)
        AND (status = 'sending') = (leased_until IS NOT NULL)
        AND (status IN ('pending', 'sending')) = (finished_at IS NULL))
);
CREATE INDEX notification_deliveries_due_idx ON exa_billing.notification_deliveries (next_attempt_at)
    WHERE status IN ('pending', 'sending');
CREATE INDEX notification_deliveries_finished_idx
    ON exa_billing.notification_deliveries (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX notification_deliveries_dead_idx
    ON exa_billing.notification_deliveries (finished_at) WHERE status = 'dead';
CREATE INDEX notification_deliveries_recipient_idx
    ON exa_billing.notification_deliveries (recipient_user_id);
COMMENT ON TABLE exa_billing.notification_deliveries IS
    'Who has to be told of which alert: an outbox for a mailer outside the database, driven by claim_notifications(), complete_notification() and fail_notification(). The figures go along, so that a delivery outlives its event.';
COMMENT ON COLUMN exa_billing.notification_deliveries.next_attempt_at IS
    'When it may be claimed; while it is being sent, when its lease runs out.';
COMMENT ON COLUMN exa_billing.notification_deliveries.claim_token IS
    'With whom it is now, or who has sent it: whoever completes it twice gets the same answer twice.';
